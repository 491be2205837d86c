//! The mounts of a RUN: trees of layers and contexts, caches, memory, secrets, agents.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use cache::StepRecord;
use image::{DiffId, compress::Compression};
use planner::plan::{CopyItem, CopyOp, MountOp, Sharing, Source, Step};
use sandbox::{Access, Mount, Source as MountSource, Spec};

use super::{agent::Agent, os};
use crate::{
    copy, error::ExecutorError, execute::Execution, key::KeyBuilder, session::Task, tree::Tree,
};

/// What is held while a command runs, and let go when it has ended.
#[expect(dead_code, reason = "they are there to be dropped")]
pub(super) enum Guard {
    Cache(cache::CacheMount),
    Agent(Agent),
}

impl Execution<'_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "a mount needs the step, its sandbox and its scratch space"
    )]
    pub(super) fn add_mount(
        &self,
        step: &Step,
        spec: &mut Spec,
        mount: &MountOp,
        scratch: &std::path::Path,
        mount_idx: usize,
        guards: &mut Vec<Guard>,
        task: &Task<'_>,
    ) -> Result<(), ExecutorError> {
        match mount {
            MountOp::Bind { source, path, target, writable } => {
                let access = if *writable {
                    let make = |name: &str| {
                        let path = scratch.join(format!("{name}{mount_idx}"));
                        std::fs::create_dir(&path)
                            .map(|()| path.clone())
                            .map_err(|source| ExecutorError::Write { path, source })
                    };
                    Access::Discard { upper: make("upper")?, work: make("work")? }
                } else {
                    Access::ReadOnly
                };
                let lower = match source {
                    Source::Scratch => {
                        let empty = scratch.join(format!("empty{mount_idx}"));
                        std::fs::create_dir(&empty).map_err(|source| ExecutorError::Write {
                            path: empty.clone(),
                            source,
                        })?;
                        vec![empty]
                    }
                    Source::Image(_) | Source::Step(_) => {
                        let chain = self.fetch(source)?;
                        let store = &self.session.store;
                        store.stack(self.session.known.tree(store, &chain)?.view())?
                    }
                    _ => vec![self.materialize(source, path, task)?],
                };
                let source = MountSource::Tree { lower, path: PathBuf::from(os(path)) };
                spec.mounts.push(Mount::Bind { source, target: PathBuf::from(os(target)), access });
            }
            MountOp::Cache { id, target, sharing, seed, read_only, mode, uid, gid } => {
                let sharing = match sharing {
                    Sharing::Shared => cache::Sharing::Shared,
                    Sharing::Private => cache::Sharing::Private,
                    Sharing::Locked => cache::Sharing::Locked,
                };
                // With --no-cache a mount starts empty, and is this build's alone.
                let mut namespace =
                    if step.no_cache { self.session.build_id.clone() } else { String::new() };
                // What a mount starts with is part of what it is: owner, mode, and seed.
                if (*mode, *uid, *gid) != (0o755, 0, 0) {
                    namespace.push_str(&format!(" {mode:o} {uid}:{gid}"));
                }
                if let Some((source, path)) = seed {
                    let chain = self.chain(source)?.id();
                    namespace.push_str(&format!(" {chain:x?} {path}"));
                }
                let mut fill = |folder: &std::path::Path| match seed {
                    None => Ok(()),
                    Some((source, path)) => self
                        .tree(source, task)
                        .and_then(|tree| {
                            let path = parser::encode(path);
                            crate::export::write_folder(&tree, &path, folder, true, None)
                        })
                        .map_err(|error| {
                            std::io::Error::other(crate::session::full_message(&error))
                        }),
                };
                let (mode, uid, gid) = (*mode, *uid, *gid);
                let request = cache::CacheMountRequest {
                    id,
                    namespace: &namespace,
                    sharing,
                    mode,
                    uid,
                    gid,
                    seed: Some(&mut fill),
                };
                let mount = self.session.store.cache_mount(request)?;
                let access = if *read_only { Access::ReadOnly } else { Access::ReadWrite };
                let source = MountSource::Tree {
                    lower: vec![mount.path().to_owned()],
                    path: PathBuf::from("/"),
                };
                spec.mounts.push(Mount::Bind { source, target: PathBuf::from(os(target)), access });
                guards.push(Guard::Cache(mount));
            }
            MountOp::Tmpfs { target, size } => {
                spec.mounts.push(Mount::Tmpfs {
                    target: PathBuf::from(os(target)),
                    size: *size,
                    mode: 0o1777,
                });
            }
            MountOp::Secret { id, target, env, required, mode, uid, gid } => {
                let value = self.session.secret(id)?;
                if value.is_none() && *required {
                    return Err(ExecutorError::SecretNotFound { id: id.clone() });
                }
                if let Some(name) = env {
                    let value = OsString::from_vec(value.clone().unwrap_or_default());
                    spec.env.push((os(name), value));
                }
                if let (Some(target), Some(content)) = (target, value) {
                    let target = PathBuf::from(os(target));
                    spec.mounts.push(Mount::File {
                        content,
                        target,
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                    });
                }
            }
            MountOp::Ssh { id, target, required, mode, uid, gid } => match self.session.ssh.get(id)
            {
                Some(socket) => {
                    let folder = scratch.join(format!("agent{mount_idx}"));
                    let agent = Agent::start(socket, &folder, (*mode, *uid, *gid))?;
                    let source = MountSource::Host(agent.path().to_owned());
                    guards.push(Guard::Agent(agent));
                    let target = PathBuf::from(os(target));
                    if !spec.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                        spec.env.push(("SSH_AUTH_SOCK".into(), target.clone().into_os_string()));
                    }
                    spec.mounts.push(Mount::Bind { source, target, access: Access::ReadWrite });
                }
                None if *required => return Err(ExecutorError::SshNotFound { id: id.clone() }),
                None => {}
            },
        }
        Ok(())
    }

    /// A part of a local folder, a repository or a download as a tree of the store, made once for the same content.
    fn materialize(
        &self,
        source: &Source,
        path: &str,
        task: &Task<'_>,
    ) -> Result<PathBuf, ExecutorError> {
        let layer = self.materialize_layer(source, path, task)?;
        Ok(self.session.store.ensure_tree(&layer)?)
    }

    /// The same as a layer.
    pub(super) fn materialize_layer(
        &self,
        source: &Source,
        path: &str,
        task: &Task<'_>,
    ) -> Result<DiffId, ExecutorError> {
        let op = whole(source, path);
        let trees = [self.tree(source, task)?];
        let gathered = copy::gather(&op, &trees)?;
        let mut key = KeyBuilder::new("mounted files");
        key.digest("content", &gathered.content);
        key.text("path", path);
        let (key, recipe) = key.finish();
        let _lock = self.session.store.step_lock(&key)?;
        let layer = match self.session.store.step(&key)? {
            Some(record) => record.layer,
            None => {
                let begun = std::time::Instant::now();
                let made = self.write_layer(Compression::Uncompressed, |out| {
                    let options = self.session.store.options();
                    let how = copy::How { times: self.times(), options, earlier: None };
                    copy::write_copy(&op, gathered, &trees, &Tree::Empty, how, out)
                })?;
                let layer = made.index.map(|it| it.diff_id);
                self.session.store.put_step(&StepRecord {
                    key,
                    parent: None,
                    layer,
                    same_as: None,
                    description: format!("files for a mount: {path}"),
                    recipe,
                    created: u64::try_from(crate::time::Timestamp::now().secs).unwrap_or(0),
                    duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    last_used: 0,
                })?;
                layer
            }
        };
        layer.ok_or_else(|| ExecutorError::NotFound { path: path.to_owned() })
    }
}

/// A copy of everything at `path` to the same place, owners and modes as they are.
pub(super) fn whole(source: &Source, path: &str) -> CopyOp {
    let item = CopyItem::Paths {
        source: source.clone(),
        path: escape_wildcards(path),
        written: path.to_owned(),
        parents: None,
        unpack: false,
        span: parser::span::Span::default(),
    };
    CopyOp {
        items: vec![item],
        dest: path.to_owned(),
        chown: None,
        chmod: None,
        link: false,
        excludes: Vec::new(),
    }
}

/// The path of a mount is no pattern.
fn escape_wildcards(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}
