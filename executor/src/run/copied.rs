//! RUN where nothing can be mounted: in a tree of its own, whose changes are found by comparing.
//!
//! The tree of a chain is written out once; after a RUN it is the tree of the chain with one more layer, so the next RUN of a stage goes
//! on in it, and COPYs in between are added to it. The layers are those that a RUN on an overlay makes, byte by byte. They are stored as
//! tars, because a tree would need marks that only overlay's owner may set.
//!
//! What is mounted elsewhere is copied into the tree and taken out again:
//!
//! - A bind mount is a copy. Writing to it works, also where it should not, and is forgotten.
//! - A cache mount is moved in and back out, so one RUN at a time can have it, whatever its sharing says.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use cache::{Snapshot, StagedTree};
use image::compress::Compression;
use planner::plan::{MountOp, Op, RunOp, Sharing, Source, Step};
use sandbox::{Access, Mount, Root, Source as MountSource, Spec};

use super::{check_exit, mounts::Guard, os};
use crate::{
    error::ExecutorError,
    execute::{Execution, Made},
    export::write_folder,
    session::Task,
    tree::{Chain, Folder, Layers, Tree, last_name},
};

/// A chain of layers, written out.
struct Copy {
    chain: Chain,
    staged: StagedTree,
}

/// The trees that a later RUN can go on in.
#[derive(Default)]
pub(crate) struct Copies(Mutex<Vec<Copy>>);

impl Copies {
    /// Takes the tree with the most of the layers of `chain` and no others.
    fn take(&self, chain: &Chain) -> Option<Copy> {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |it: &Copy| it.chain.n_layers();
        let fits = |it: &Copy| chain.stands_on(&it.chain);
        let best = (0..copies.len()).filter(|n| fits(&copies[*n]));
        let best = best.max_by_key(|n| known(&copies[*n]))?;
        Some(copies.swap_remove(best))
    }

    fn put(&self, copy: Copy) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }
}

impl Execution<'_> {
    pub(super) fn run_copied(
        &self,
        step: &Step,
        op: &RunOp,
        task: &Task<'_>,
    ) -> Result<Made, ExecutorError> {
        let store = &self.session.store;
        let chain = self.fetch(&step.parent)?;
        let layers = self.session.known.tree(store, &chain)?;
        let view = layers.view();
        let Copy { staged, .. } = self.copy_of(&chain, &layers)?;
        let tree = staged.upper();
        let before = Snapshot::take(&tree, &staged.work().join("probe"))?;
        // What a runtime needs to mount on stays in the image, as it does with runc.
        for name in ["dev", "proc", "sys"] {
            if view.lookup(name.as_bytes()).is_none() {
                create_dir(&tree.join(name))?;
            }
        }
        let scratch = staged.upper().with_file_name("mounts");
        create_dir(&scratch)?;

        let root = Root::Copy { tree: tree.clone(), aside: staged.work() };
        let mut spec = self.describe(op, root, task);
        let guards = self.add_copies(step, &mut spec, op, &scratch, task)?;
        task.start();
        let exit = self.run_sandbox(&spec, task)?;
        drop(guards);
        check_exit(op, exit)?;
        remove_dir(&scratch)?;
        let options = cache::PackOptions { latest_mtime: self.latest(), ..Default::default() };
        let made = self.write_layer(Compression::Uncompressed, |mut out| {
            let index = cache::pack_changed(&tree, &before, view, &options, &mut out)?;
            Ok((out, index))
        })?;
        if let Some(index) = &made.index
            && self.is_run_on(step)
        {
            store.separate_names(index, &tree)?;
            self.session.copies.put(Copy { chain: chain.with(index.diff_id), staged });
        }
        Ok(made)
    }

    /// The tree of a chain: one that is there already, brought up to date, or a new one.
    fn copy_of(&self, chain: &Chain, layers: &Layers) -> Result<Copy, ExecutorError> {
        let store = &self.session.store;
        if let Some(known) = self.session.copies.take(chain) {
            let n_known = known.chain.n_layers();
            let tree = known.staged.upper();
            if n_known == chain.n_layers() || store.advance_merged(layers.view(), n_known, &tree)? {
                return Ok(Copy { chain: chain.clone(), staged: known.staged });
            }
        }
        let staged = store.stage_tree()?;
        store.write_merged(layers.view(), &staged.upper())?;
        Ok(Copy { chain: chain.clone(), staged })
    }

    /// Whether a RUN of the plan may go on in the tree of a step.
    fn is_run_on(&self, step: &Step) -> bool {
        let steps = &self.plan.steps;
        let Some(own) = steps.iter().position(|it| std::ptr::eq(it, step)) else { return false };
        // Each step comes after those it needs.
        let mut from = vec![own];
        for (n, step) in steps.iter().enumerate().skip(own + 1) {
            let is_on = matches!(&step.parent, Source::Step(id) if from.contains(&id.0));
            match &step.op {
                Op::Run(_) if is_on => return true,
                _ if is_on => from.push(n),
                _ => {}
            }
        }
        false
    }

    fn add_copies(
        &self,
        step: &Step,
        spec: &mut Spec,
        op: &RunOp,
        scratch: &Path,
        task: &Task<'_>,
    ) -> Result<Vec<Guard>, ExecutorError> {
        let mut guards = Vec::new();
        let mut mounts: Vec<(usize, &MountOp)> = op.mounts.iter().enumerate().collect();
        // Each cache is one RUN's alone; taken in one order, no two RUNs wait for each other.
        mounts.sort_by_key(|(_, mount)| match mount {
            MountOp::Cache { id, .. } => Some(id),
            _ => None,
        });
        let mut last_id = None;
        for (mount_idx, mount) in mounts {
            match mount {
                MountOp::Bind { source, path, target, .. } => {
                    let dest = scratch.join(format!("bind{mount_idx}"));
                    let source = self.copy_bind(source, path, &dest, task)?;
                    let target = PathBuf::from(os(target));
                    spec.mounts.push(Mount::Moved { source, target, lent: false });
                }
                MountOp::Cache { id, .. } if last_id == Some(id) => {
                    return Err(ExecutorError::Unsupported {
                        message: format!("cache `{id}` is mounted twice, and nothing can be mounted here"),
                        hint: "give the two mounts different ids, or see `kiln info` for what mounts need".to_owned(),
                    });
                }
                MountOp::Cache { id, read_only, .. } => {
                    last_id = Some(id);
                    let mut mount = mount.clone();
                    if let MountOp::Cache { sharing: sharing @ Sharing::Shared, .. } = &mut mount {
                        *sharing = Sharing::Locked;
                    }
                    self.add_mount(step, spec, &mount, scratch, mount_idx, &mut guards, task)?;
                    if let Some(mount) = spec.mounts.last_mut() {
                        lend(mount, *read_only, &scratch.join(format!("cache{mount_idx}")))?;
                    }
                }
                _ => self.add_mount(step, spec, mount, scratch, mount_idx, &mut guards, task)?,
            }
        }
        Ok(guards)
    }

    /// Copies what a bind mount shows; returns where it is.
    fn copy_bind(
        &self,
        source: &Source,
        path: &str,
        dest: &Path,
        task: &Task<'_>,
    ) -> Result<PathBuf, ExecutorError> {
        let tree = match source {
            Source::Scratch | Source::Image(_) | Source::Step(_) => self.tree(source, task)?,
            _ => {
                let layer = self.materialize_layer(source, path, task)?;
                let layers = Layers::open(&self.session.store, &Chain::new(&[layer]))?;
                Tree::Layers(Arc::new(layers))
            }
        };
        let path = tree.resolve(&parser::encode(path), true)?;
        create_dir(dest)?;
        write_folder(&tree, &path, dest, true, None)?;
        Ok(match tree.lookup(&path)? {
            Some(node) if !node.is_dir() => dest.join(
                <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(last_name(&path)),
            ),
            Some(node) => {
                use std::os::unix::fs::{PermissionsExt, chown};
                let failed = |source| ExecutorError::Write { path: dest.to_owned(), source };
                chown(dest, Some(node.uid), Some(node.gid)).map_err(failed)?;
                let mode = std::fs::Permissions::from_mode(node.mode);
                std::fs::set_permissions(dest, mode).map_err(failed)?;
                dest.to_owned()
            }
            None => dest.to_owned(),
        })
    }
}

/// Makes of the mount of a cache one that is moved: the cache itself, or a copy of one that must stay as it is.
fn lend(mount: &mut Mount, read_only: bool, copy: &Path) -> Result<(), ExecutorError> {
    let Mount::Bind { source: MountSource::Tree { lower, .. }, target, access } = &*mount else {
        return Ok(());
    };
    let Some(source) = lower.first() else { return Ok(()) };
    let (mut source, target) = (source.clone(), target.clone());
    let is_read_only = read_only || matches!(access, Access::ReadOnly);
    if is_read_only {
        create_dir(copy)?;
        let folder = Folder::open_owned(&source)?;
        write_folder(&Tree::Folder(Arc::new(folder)), b"", copy, true, None)?;
        source = copy.to_owned();
    }
    *mount = Mount::Moved { source, target, lent: !is_read_only };
    Ok(())
}

fn create_dir(path: &Path) -> Result<(), ExecutorError> {
    std::fs::create_dir(path)
        .map_err(|source| ExecutorError::Write { path: path.to_owned(), source })
}

fn remove_dir(path: &Path) -> Result<(), ExecutorError> {
    std::fs::remove_dir_all(path)
        .map_err(|source| ExecutorError::Write { path: path.to_owned(), source })
}
