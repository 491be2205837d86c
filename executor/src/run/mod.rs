//! RUN: looked up by its key, run in a sandbox, its changes packed into a layer.
//!
//! Read in this order: the walk here, [`key`] (what a result depends on), [`mounts`] (what `--mount` makes of trees,
//! caches and secrets), [`network`], [`agent`] (the socket of `--mount=type=ssh`) and [`keys`], [`output`] (the process and what it
//! prints), [`write_behind`] (its files on the way to the disk), [`copied`] (the same where nothing can be mounted).

pub(crate) mod agent;
mod copied;
mod key;
pub(crate) mod keys;
mod mounts;
mod network;
mod output;
mod write_behind;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use image::layer::LayerIndex;
use planner::plan::{MountOp, RunOp, Source, Step};
use sandbox::{Mount, Root, Spec};

pub(crate) use self::copied::Copies;
use self::output::Ended;
use crate::{
    error::ExecutorError,
    execute::{Execution, Made},
    session::Task,
};

/// The tree that a mount shows or starts with.
pub(crate) fn mount_source(mount: &MountOp) -> Option<&Source> {
    match mount {
        MountOp::Bind { source, .. } => Some(source),
        MountOp::Cache { seed: Some((source, _)), .. } => Some(source),
        _ => None,
    }
}

impl Execution<'_> {
    /// Runs a step.
    pub(crate) fn run_now(
        &self,
        step: &Step,
        op: &RunOp,
        task: &Task<'_>,
    ) -> Result<Made, ExecutorError> {
        // Before the base is unpacked in vain.
        sandbox::require()?;
        sandbox::give_memory_back();
        if sandbox::copies_trees() {
            return self.run_copied(step, op, task);
        }
        let store = &self.session.store;
        let chain = self.fetch(&step.parent)?;
        let view = self.session.known.tree(store, &chain)?;
        let lower = store.stack(view.view())?;
        let staged = store.stage_tree()?;
        if let Some(root) = view.view().lookup(b"") {
            staged.set_root(root.entry)?;
        }
        // What a runtime needs to mount on stays in the image, as it does with runc; all other mount points vanish again.
        for name in ["dev", "proc", "sys"] {
            if view.view().lookup(name.as_bytes()).is_none() {
                let path = staged.upper().join(name);
                std::fs::create_dir(&path)
                    .map_err(|source| ExecutorError::Write { path, source })?;
            }
        }
        let scratch = staged.upper().with_file_name("mounts");
        std::fs::create_dir(&scratch)
            .map_err(|source| ExecutorError::Write { path: scratch.clone(), source })?;

        let root = Root::Overlay { lower, upper: staged.upper(), work: staged.work() };
        let mut spec = self.describe(op, root, task);
        let mut guards = Vec::new();
        for (mount_idx, mount) in op.mounts.iter().enumerate() {
            self.add_mount(step, &mut spec, mount, &scratch, mount_idx, &mut guards, task)?;
        }
        spec.link_owners = cache::owners::link_owners(view.view());
        task.start();
        let mut ended = self.run_sandbox(&spec, task)?;
        drop(guards);
        let link_owners = std::mem::take(&mut ended.link_owners);
        let root = ended.root.take();
        check_exit(op, ended)?;
        let options = cache::PackOptions { latest_mtime: self.latest(), link_owners };
        let index = std::thread::scope(|scope| {
            // Nobody is in it any more, and it must be gone before the upper folder gets its place.
            scope.spawn(|| drop(root));
            cache::pack_upper(&staged.upper(), view.view(), &options, std::io::sink())
        })?;
        self.commit(staged, index)
    }

    fn commit(&self, staged: cache::StagedTree, index: LayerIndex) -> Result<Made, ExecutorError> {
        staged.commit(&index)?;
        Ok(Made { index: Some(index) })
    }

    /// The sandbox of a command, but for its mounts.
    fn describe(&self, op: &RunOp, root: Root, task: &Task<'_>) -> Spec {
        let network = self.network(op, task);
        let mut spec = Spec::new(root, op.args.iter().map(|it| os(it)));
        let proxies = op.proxy_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        spec.env = op
            .env
            .pairs()
            .into_iter()
            .chain(proxies)
            .map(|(name, value)| (os(name), os(value)))
            .collect();
        spec.cwd = PathBuf::from(os(&op.cwd));
        spec.create_cwd = true;
        spec.user = op.user.clone();
        spec.hostname = op.hostname.clone();
        spec.network = network;
        spec.hosts = Some(network::hosts_file(op, network));
        spec.resolv_conf = Some(sandbox::resolv_conf(network));
        spec.privileged = op.insecure;
        spec.shm_size = op.shm_size;
        spec.ulimits = op.ulimits.clone();
        spec.cgroup = self.session.limits.clone();
        spec.cgroup.parent = op.cgroup_parent.clone().map(PathBuf::from);
        if let Some((name, script)) = &op.script {
            let target = PathBuf::from(os(&format!("/dev/pipes/{name}")));
            spec.mounts.push(Mount::File {
                content: parser::encode(script),
                target,
                mode: 0o755,
                uid: 0,
                gid: 0,
            });
        }
        spec
    }
}

fn check_exit(op: &RunOp, ended: Ended) -> Result<(), ExecutorError> {
    let command = op.args.join(" ");
    let (tail, out_of_memory) = (ended.tail, ended.exit.oom);
    match (ended.exit.code, ended.exit.signal) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(ExecutorError::ExitCode { command, code, tail, out_of_memory }),
        (None, signal) => {
            Err(ExecutorError::Signal { command, signal: signal.unwrap_or(0), tail, out_of_memory })
        }
    }
}

/// Text as bytes for the kernel.
pub(crate) fn os(text: &str) -> OsString {
    OsString::from_vec(parser::encode(text))
}
