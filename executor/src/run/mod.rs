//! RUN: looked up by its key, run in a sandbox, its changes packed into a layer.
//!
//! Read in this order: the walk here, [`key`] (what a result depends on), [`mounts`] (what `--mount` makes of trees,
//! caches and secrets), [`network`], [`agent`] (the socket of `--mount=type=ssh`) and [`keys`], [`output`] (the process and what it
//! prints), [`copied`] (the same where nothing can be mounted).

pub(crate) mod agent;
mod copied;
mod key;
pub(crate) mod keys;
mod mounts;
mod network;
mod output;

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
    tree::{Chain, Layers},
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
        if sandbox::copies_trees() {
            return self.run_copied(step, op, task);
        }
        let store = &self.session.store;
        let chain = self.fetch(&step.parent)?;
        let lower = self.trees_of(&chain)?;
        let view = Layers::open(store, &chain)?;
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
        check_exit(op, ended)?;
        let options = cache::PackOptions { latest_mtime: self.latest(), link_owners };
        let out = Counted { store, n_bytes: 0 };
        let index = cache::pack_upper(&staged.upper(), view.view(), &options, out)?;
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

    /// The unpacked layers of a chain, bottom up.
    pub(crate) fn trees_of(&self, chain: &Chain) -> Result<Vec<PathBuf>, ExecutorError> {
        let store = &self.session.store;
        let mut trees = Vec::with_capacity(chain.layers().len());
        for layer in chain.layers() {
            let index = store.index(layer)?;
            if index.hides_all() {
                trees.clear();
            }
            // Layers that change nothing would only make look-ups longer.
            if !index.changes.is_empty() {
                trees.push(store.ensure_tree(layer)?);
            }
        }
        Ok(cache::tree::uncovered(trees))
    }
}

/// Takes the tar of what a RUN changed, which nobody keeps; if that is much, the disk begins to write it meanwhile.
struct Counted<'a> {
    store: &'a cache::Store,
    n_bytes: u64,
}

impl std::io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        const MUCH: u64 = 8 << 20;
        let n_before = self.n_bytes;
        self.n_bytes += bytes.len() as u64;
        if n_before < MUCH && self.n_bytes >= MUCH {
            self.store.write_back();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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
