//! The layers of an image as a tree, read from their indexes; content comes from whichever face of a layer is here.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use cache::Store;
use image::{DiffId, entry::Kind, layer::Change, view::View};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Choice, FileId, Found, Node, join, lossy};
use crate::error::ExecutorError;

/// An ordered list of layers, bottom up. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chain(Arc<Vec<DiffId>>);

impl Chain {
    pub(crate) fn new(layers: Vec<DiffId>) -> Self {
        Self(Arc::new(layers))
    }

    pub(crate) fn layers(&self) -> &[DiffId] {
        &self.0
    }

    /// The chain with one more layer on top.
    pub(crate) fn with(&self, layer: DiffId) -> Self {
        let mut layers = Vec::with_capacity(self.0.len() + 1);
        layers.extend_from_slice(&self.0);
        layers.push(layer);
        Self(Arc::new(layers))
    }
}

/// The merged tree of a chain.
pub(crate) struct Layers {
    store: Store,
    chain: Chain,
    view: View,
}

impl Layers {
    /// Reads the indexes of a chain whose layers are in the store.
    pub(crate) fn open(store: &Store, chain: &Chain) -> Result<Self, ExecutorError> {
        let indexes =
            chain.layers().iter().map(|it| store.index(it)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { store: store.clone(), chain: chain.clone(), view: View::new(indexes) })
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn is_scratch(&self) -> bool {
        self.chain.layers().is_empty()
    }

    pub(super) fn lookup(&self, path: &[u8]) -> Option<Node> {
        self.view.lookup(path).map(node)
    }

    pub(super) fn children(&self, path: &[u8]) -> Vec<(Vec<u8>, Node)> {
        self.view
            .children(path)
            .into_iter()
            .map(|(name, found)| (name.to_vec(), node(found)))
            .collect()
    }

    /// Adds what is below `root` and there below `at`; says whether anything was added.
    pub(super) fn walk(
        &self,
        root: &[u8],
        at: &[u8],
        choose: &(dyn Fn(&[u8], bool) -> Choice + Sync),
        found: &mut Vec<Found>,
    ) -> bool {
        let n_before = found.len();
        for (name, node) in self.children(&join(root, at)) {
            let path = join(at, &name);
            let is_folder = node.is_dir();
            let Choice { keep, enter } = choose(&path, is_folder);
            if !(if is_folder { enter } else { keep }) {
                continue;
            }
            let place = found.len();
            found.push(Found { path: path.clone(), node });
            // A folder that is not named itself comes along only when something in it is.
            if is_folder && !self.walk(root, &path, choose, found) && !keep {
                found.truncate(place);
            }
        }
        found.len() > n_before
    }

    pub(super) fn content(&self, path: &[u8]) -> Result<[u8; 32], ExecutorError> {
        match self.view.lookup(path).and_then(|it| it.content) {
            Some(content) => Ok(content),
            None => Err(ExecutorError::NotFound { path: lossy(path) }),
        }
    }

    pub(super) fn open_file(&self, path: &[u8]) -> Result<Box<dyn Read + Send>, ExecutorError> {
        let missing = || ExecutorError::NotFound { path: lossy(path) };
        let found = self.view.lookup(path).ok_or_else(missing)?;
        let layer = self.chain.layers().get(found.layer).ok_or_else(missing)?;
        let (Kind::File { size }, Some(change)) = (&found.entry.kind, found.change) else {
            return Err(missing());
        };
        let failed = |source| ExecutorError::Read { path: lossy(path), source };
        let mut has_tree = self.store.has_tree(layer)?;
        if !has_tree && !self.store.has_blob(&layer.0)? {
            self.store.ensure_readable(layer)?;
            has_tree = self.store.has_tree(layer)?;
        }
        if has_tree {
            let folder = self.store.ensure_tree(layer)?;
            return Ok(Box::new(open_beneath(&folder, &found.entry.path).map_err(failed)?));
        }
        let index = self.store.index(layer)?;
        let Some(Change::Entry { offset, .. }) = index.changes.get(change) else {
            return Err(missing());
        };
        let mut tar: File = self.store.open_blob(&layer.0)?;
        tar.seek(SeekFrom::Start(*offset)).map_err(failed)?;
        Ok(Box::new(tar.take(*size)))
    }
}

/// Opens a file of an unpacked layer. Links on the way are those of the layer, which led to the file's place when it was
/// unpacked, and lead nowhere else than inside of it.
fn open_beneath(folder: &Path, path: &[u8]) -> io::Result<File> {
    let root = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let flags = flags | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::openat2(
        &root,
        OsStr::from_bytes(path),
        flags,
        Mode::empty(),
        resolve,
    )?))
}

fn node(found: image::view::Node<'_>) -> Node {
    let entry = found.entry;
    let file_id = match entry.kind {
        Kind::File { .. } => Some(FileId::First(found.layer, entry.path.clone())),
        _ => None,
    };
    Node {
        kind: entry.kind.clone(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
        file_id,
        stamp: None,
        content: found.content,
    }
}
