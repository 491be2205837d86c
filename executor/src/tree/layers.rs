//! The layers of an image as a tree, read from their indexes; content comes from whichever face of a layer is here.

use std::{
    collections::{HashSet, VecDeque},
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use cache::Store;
use image::{DiffId, entry::Kind, layer::Change, view::View};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Choice, FileId, Found, Node, join, lossy};
use crate::error::ExecutorError;

/// An ordered list of layers, bottom up. Cheap to clone, and to lay one more layer on: what two chains have in common from the
/// bottom up, they share.
#[derive(Clone, Default)]
pub(crate) struct Chain(Option<Arc<Link>>);

/// The uppermost layer of a chain.
struct Link {
    layer: DiffId,
    below: Chain,
    n_layers: usize,
    id: [u8; 32],
}

impl Chain {
    pub(crate) fn new(layers: &[DiffId]) -> Self {
        layers.iter().fold(Self::default(), |chain, layer| chain.with(*layer))
    }

    pub(crate) fn layers(&self) -> Vec<DiffId> {
        self.upper(self.n_layers())
    }

    /// The uppermost so many layers.
    fn upper(&self, n_layers: usize) -> Vec<DiffId> {
        let mut layers: Vec<DiffId> = self.down().take(n_layers).map(|it| it.layer).collect();
        layers.reverse();
        layers
    }

    pub(crate) fn n_layers(&self) -> usize {
        self.0.as_ref().map_or(0, |it| it.n_layers)
    }

    /// The identity of the list, which is part of keys.
    pub(crate) fn id(&self) -> [u8; 32] {
        match &self.0 {
            None => blake3::hash(b"kiln chain 2").into(),
            Some(link) => link.id,
        }
    }

    /// The chain with one more layer on top.
    pub(crate) fn with(&self, layer: DiffId) -> Self {
        let id = blake3::hash(&[self.id(), *layer.0.as_bytes()].concat()).into();
        let (below, n_layers) = (self.clone(), self.n_layers() + 1);
        Self(Some(Arc::new(Link { layer, below, n_layers, id })))
    }

    /// Whether this chain is `lower` with more layers on top, or none.
    pub(crate) fn stands_on(&self, lower: &Self) -> bool {
        let n_more = self.n_layers().checked_sub(lower.n_layers());
        n_more.is_some_and(|n_more| match n_more {
            0 => self.id() == lower.id(),
            _ => self.down().nth(n_more - 1).is_some_and(|it| it.below.id() == lower.id()),
        })
    }

    /// The links from the top down.
    fn down(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.0.as_deref(), |it| it.below.0.as_deref())
    }
}

impl Drop for Link {
    /// A long chain ends link by link: each within the one above would be too much for the stack.
    fn drop(&mut self) {
        let mut next = self.below.0.take();
        while let Some(link) = next {
            next = Arc::into_inner(link).and_then(|mut it| it.below.0.take());
        }
    }
}

/// Chains that were found to be here, and the trees of those that were asked for last: whoever asks for a chain on top of one of them
/// looks at what is new.
#[derive(Default)]
pub(crate) struct KnownChains(Mutex<State>);

#[derive(Default)]
struct State {
    here: HashSet<[u8; 32]>,
    trees: VecDeque<(Chain, Arc<Layers>)>,
}

/// So many trees are kept.
const N_TREES: usize = 8;

impl KnownChains {
    /// The layers of a chain that nobody has found to be here.
    pub(crate) fn not_here(&self, chain: &Chain) -> Vec<DiffId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chain.upper(chain.down().take_while(|it| !known.here.contains(&it.id)).count())
    }

    /// Notes that all layers of a chain are here.
    pub(crate) fn note_here(&self, chain: &Chain) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).here.insert(chain.id());
    }

    /// The tree of a chain whose layers are in the store.
    pub(crate) fn tree(&self, store: &Store, chain: &Chain) -> Result<Arc<Layers>, ExecutorError> {
        let lower = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let trees = known.trees.iter().filter(|it| chain.stands_on(&it.0));
            trees.max_by_key(|it| it.0.n_layers()).cloned()
        };
        let tree = match lower {
            Some((it, tree)) if it.n_layers() == chain.n_layers() => return Ok(tree),
            Some((it, tree)) => tree.with(&chain.upper(chain.n_layers() - it.n_layers()))?,
            None => Layers::open(store, chain)?,
        };
        let tree = Arc::new(tree);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.trees.truncate(N_TREES - 1);
        known.trees.push_front((chain.clone(), tree.clone()));
        Ok(tree)
    }
}

/// The merged tree of a chain.
pub(crate) struct Layers {
    store: Store,
    view: View,
}

impl Layers {
    /// Reads the indexes of a chain whose layers are in the store.
    pub(crate) fn open(store: &Store, chain: &Chain) -> Result<Self, ExecutorError> {
        let indexes =
            chain.layers().iter().map(|it| store.index(it)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { store: store.clone(), view: View::new(indexes) })
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The tree with more layers on top.
    fn with(&self, layers: &[DiffId]) -> Result<Self, ExecutorError> {
        let indexes =
            layers.iter().map(|it| self.store.index(it)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { store: self.store.clone(), view: self.view.with(indexes) })
    }

    pub(super) fn is_scratch(&self) -> bool {
        self.view.layers().len() == 0
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
        let index = self.view.layers().nth(found.layer).ok_or_else(missing)?;
        let layer = &index.diff_id;
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
        Kind::File { .. } => Some(Box::new(FileId::First(found.layer, entry.path.clone()))),
        _ => None,
    };
    Node {
        kind: entry.kind.clone(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone().into(),
        file_id,
        is_on_disk: false,
        content: found.content,
    }
}
