//! The merged tree of a chain of layers, from their indexes, without unpacking.
//!
//! A path is looked up from the top layer down, until one says what it is, that it is gone, or that nothing below counts any more. So a
//! view costs next to nothing to make: the indexes are sorted once each, however many views they are part of.
//!
//! # Invariants
//!
//! - The tree is the one that unpacking the layers in order would give, if a whiteout removes what *lower* layers have, wherever it stands in its own.
//! - Layers whose names go through symbolic links of lower layers (`lib/x` where `lib -> usr/lib`) put their files where the link leads, as unpacking would.
//! - A folder that no layer has an entry for, but that something lies in, is there: mode 0755, owned by root.

mod order;
mod resolve;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

pub(crate) use order::Order;
use order::{Look, Slot, What};
use resolve::Seen;

use crate::{
    entry::{Entry, Kind, Time},
    error::ResolveError,
    layer::{Change, LayerIndex, join_path},
};

/// How many hard links or symbolic links are followed.
const MAX_LINKS: usize = 255;

/// The tree that a chain of layers makes.
#[derive(Debug, Clone)]
pub struct View {
    /// From the bottom up.
    layers: Vec<Layer>,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// The layer it comes from, counted from the bottom.
    pub layer: usize,
    /// Its place in [`LayerIndex::changes`]; `None` for a folder that is there only because something lies in it.
    pub change: Option<usize>,
    /// What it is. For a hard link that is the file it names. Its path may differ from the one looked up.
    pub entry: &'a Entry,
    /// The BLAKE3 hash of a file's content.
    pub content: Option<[u8; 32]>,
    /// The path is a further name of a file.
    pub is_hardlink: bool,
}

impl Node<'_> {
    /// Says whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.entry.kind == Kind::Directory
    }
}

/// What a folder is that no layer has an entry for.
static IMPLIED_FOLDER: Entry = Entry {
    path: Vec::new(),
    kind: Kind::Directory,
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: Time { secs: 0, nanos: 0 },
    xattrs: BTreeMap::new(),
};

#[derive(Debug, Clone)]
struct Layer {
    index: Arc<LayerIndex>,
    /// The changes put where they take effect, if that is not where their paths say.
    rewritten: Option<Arc<Order>>,
}

impl Layer {
    fn order(&self) -> &Order {
        self.rewritten.as_deref().unwrap_or_else(|| self.index.order())
    }

    fn look(&self, path: &[u8]) -> Look<'_> {
        self.order().look(&self.index.changes, path)
    }

    fn entry(&self, slot: &Slot) -> Option<(&Entry, Option<[u8; 32]>)> {
        match self.index.changes.get(slot.change as usize) {
            Some(Change::Entry { entry, content, .. }) => Some((entry, *content)),
            _ => None,
        }
    }
}

/// Where a path was found: a layer, and the slot there, or none for an implied folder.
type Found<'a> = (usize, Option<&'a Slot>);

/// The part of a layer that lies in one folder.
type Scope = (usize, Range<usize>);

/// One name in a folder, while layers are looked through from the top down.
#[derive(Debug, Default)]
struct Child<'a> {
    found: Option<Found<'a>>,
    /// Found is no more than that something lies in it; a lower layer may know more.
    is_implied: bool,
    /// Nothing in lower layers counts.
    is_closed: bool,
    /// Nothing in lower layers counts, but for the entry of the folder itself.
    is_opaque: bool,
    scopes: Vec<Scope>,
}

impl View {
    /// Makes the view of `layers`, which come from the bottom up.
    pub fn new(layers: Vec<Arc<LayerIndex>>) -> Self {
        Self { layers: Vec::new() }.with(layers)
    }

    /// Makes the view of these layers with more of them on top.
    #[must_use]
    pub fn with(&self, layers: Vec<Arc<LayerIndex>>) -> Self {
        let mut out = self.clone();
        for index in layers {
            let order = index.order();
            let needs_work = order.is_irregular || order.implied.iter().any(|it| !out.is_plain(it));
            let rewritten = needs_work.then(|| Arc::new(Order::apply(&index.changes, &out)));
            out.layers.push(Layer { index, rewritten });
        }
        out
    }

    /// Returns the layers from the bottom up.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &Arc<LayerIndex>> {
        self.layers.iter().map(|it| &it.index)
    }

    /// Returns what `path` is, without following symbolic links, or `None` if it is not there. The path is relative and
    /// [clean](Entry::path); the root, which is empty, is always there.
    pub fn lookup(&self, path: &[u8]) -> Option<Node<'_>> {
        let found = self.find(path, self.layers.len()).or(path.is_empty().then_some((0, None)))?;
        Some(self.node(found))
    }

    /// Lists a folder, sorted by name. What is no folder has nothing in it.
    pub fn children(&self, path: &[u8]) -> Vec<(&[u8], Node<'_>)> {
        let children = self.list(path, &self.scopes(path));
        children.into_iter().map(|(name, _, node)| (name, node)).collect()
    }

    /// Lists all below `path`, which is not listed itself: folders before what is in them, else sorted by name.
    pub fn walk(&self, path: &[u8]) -> Walk<'_> {
        let mut walk = Walk { view: self, rest: Vec::new() };
        walk.enter(path, &self.scopes(path));
        walk
    }

    /// Returns the real path that `path` leads to: symbolic links followed inside of the root, `..` never above it. The
    /// last part is followed if `follow_final`. What is not there is kept as it is.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] if links go round in circles or the path goes on below a file.
    ///
    /// # Examples
    ///
    /// ```
    /// # use image::{view::View, error::ResolveError};
    /// assert_eq!(View::new(Vec::new()).resolve(b"/../not/./there", true)?, b"not/there");
    /// # Ok::<(), ResolveError>(())
    /// ```
    pub fn resolve(&self, path: &[u8], follow_final: bool) -> Result<Vec<u8>, ResolveError> {
        self.resolve_below(path, follow_final, self.layers.len())
    }

    fn resolve_below(
        &self,
        path: &[u8],
        follow_final: bool,
        end: usize,
    ) -> Result<Vec<u8>, ResolveError> {
        resolve::resolve(path, follow_final, |path| self.see(path, end))
    }

    /// Returns what the resolver needs to know of a path in the layers before `end`.
    fn see(&self, path: &[u8], end: usize) -> Seen {
        let Some(found) = self.find(path, end) else { return Seen::Missing };
        Seen::of(&self.node(found).entry.kind)
    }

    /// Says whether unpacking something into the folder `path` would put it there: no part of the path is anything but a folder.
    fn is_plain(&self, path: &[u8]) -> bool {
        let is_folder =
            |path: &[u8]| Some(self.node(self.find(path, self.layers.len())?).is_folder());
        resolve::deepest(path, 0, is_folder).is_none_or(|(_, is_folder)| is_folder)
    }

    /// Finds a path in the layers before `end`, from the top down.
    fn find(&self, path: &[u8], end: usize) -> Option<Found<'_>> {
        let mut implied = None;
        for (n, layer) in self.layers.iter().enumerate().take(end).rev() {
            let look = layer.look(path);
            if let Some(slot) = look.slot {
                match slot.what {
                    What::Folder | What::Other if implied.is_none() => {
                        return Some((n, Some(slot)));
                    }
                    What::Folder => return Some((n, Some(slot))),
                    What::Other | What::Whiteout => break,
                    What::Fresh => return implied.or(Some((n, None))),
                    What::Opaque => {}
                }
            }
            if implied.is_none() && layer.order().has_some(look.below) {
                implied = Some((n, None));
            }
            if look.is_hidden {
                break;
            }
        }
        implied
    }

    /// Makes a node of what was found, and follows hard links.
    fn node<'a>(&'a self, found: Found<'a>) -> Node<'a> {
        let (mut layer, mut slot) = found;
        let mut is_hardlink = false;
        for _ in 0..MAX_LINKS {
            let Some((Entry { kind: Kind::Hardlink { target }, .. }, _)) =
                slot.and_then(|it| self.layers[layer].entry(it))
            else {
                break;
            };
            // The target may lie in a lower layer, and behind links; but not in a higher one.
            let end = layer + 1;
            let next = self.find(target, end).or_else(|| {
                let target = self.resolve_target(target, end)?;
                self.find(&target, end)
            });
            let Some(next) = next else { break };
            (layer, slot) = next;
            is_hardlink = true;
        }
        let entry = slot.and_then(|it| self.layers[layer].entry(it));
        let (entry, content) = entry.unwrap_or((&IMPLIED_FOLDER, None));
        let change = slot.map(|it| it.change as usize);
        Node { layer, change, entry, content, is_hardlink }
    }

    /// Follows symbolic links in the folders of a hard link's target. Looks at no hard links, so that nothing recurs.
    fn resolve_target(&self, target: &[u8], end: usize) -> Option<Vec<u8>> {
        let see = |path: &[u8]| match self.find(path, end) {
            None => Seen::Missing,
            Some((layer, slot)) => match slot.and_then(|it| self.layers[layer].entry(it)) {
                Some((entry, _)) => Seen::of(&entry.kind),
                None => Seen::Folder,
            },
        };
        resolve::resolve(target, false, see).ok()
    }

    /// Returns the parts of the layers that make up the folder `path`, from the top down.
    fn scopes(&self, path: &[u8]) -> Vec<Scope> {
        let mut out = Vec::new();
        for (n, layer) in self.layers.iter().enumerate().rev() {
            let Look { slot, below, is_hidden } = layer.look(path);
            if slot.is_some_and(|it| matches!(it.what, What::Other | What::Whiteout)) {
                break;
            }
            if !below.is_empty() {
                out.push((n, below));
            }
            if is_hidden || slot.is_some_and(Slot::hides_below) {
                break;
            }
        }
        out
    }

    /// Lists the folder `path`, which these scopes make up, with the scopes of each name.
    fn list<'a>(&'a self, path: &[u8], scopes: &[Scope]) -> Vec<(&'a [u8], Vec<Scope>, Node<'a>)> {
        let name_at = if path.is_empty() { 0 } else { path.len() + 1 };
        let mut children: BTreeMap<&[u8], Child<'a>> = BTreeMap::new();
        for (n, range) in scopes {
            let layer = &self.layers[*n];
            let (order, changes) = (layer.order(), &layer.index.changes);
            let mut at = range.start;
            while at < range.end {
                let full = order.path(changes, at);
                let name = full[name_at..].split(|it| *it == b'/').next().unwrap_or_default();
                let child_path = &full[..name_at + name.len()];
                let end = order.end_of(changes, child_path, at..range.end);
                let slot = (full.len() == child_path.len()).then(|| &order.slots[at]);
                let is_there = order.has_some(at..end);
                children.entry(name).or_default().add(*n, slot, at..end, is_there);
                at = end;
            }
        }
        let child = |(name, child): (&'a [u8], Child<'a>)| {
            Some((name, child.scopes, self.node(child.found?)))
        };
        children.into_iter().filter_map(child).collect()
    }
}

impl<'a> Child<'a> {
    /// Adds what the next lower layer says: at the name itself, and in the range that begins with it, which may hold nothing but whiteouts.
    fn add(&mut self, layer: usize, slot: Option<&'a Slot>, range: Range<usize>, is_there: bool) {
        if self.is_closed {
            return;
        }
        match slot.map(|it| it.what) {
            Some(What::Whiteout) => self.is_closed = true,
            Some(What::Other) => {
                self.found = self.found.or(Some((layer, slot)));
                self.is_closed = true;
            }
            Some(What::Folder) if self.found.is_none() || self.is_implied => {
                (self.found, self.is_implied) = (Some((layer, slot)), false);
            }
            Some(What::Folder) => {}
            Some(What::Opaque | What::Fresh) | None if self.found.is_none() && is_there => {
                (self.found, self.is_implied) = (Some((layer, None)), true);
            }
            Some(What::Opaque | What::Fresh) | None => {}
        }
        if !self.is_closed && !self.is_opaque {
            let start = range.start + usize::from(slot.is_some());
            self.scopes.push((layer, start..range.end));
        }
        self.is_opaque |= slot.is_some_and(Slot::hides_below);
        self.is_closed |= slot.is_some_and(|it| it.what == What::Fresh);
    }
}

/// Iterates over all that lies below a path, see [`View::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    view: &'a View,
    /// What is still to come, the next last.
    rest: Vec<(Vec<u8>, Vec<Scope>, Node<'a>)>,
}

impl Walk<'_> {
    fn enter(&mut self, path: &[u8], scopes: &[Scope]) {
        let children = self.view.list(path, scopes).into_iter().rev();
        self.rest
            .extend(children.map(|(name, scopes, node)| (join_path(path, name), scopes, node)));
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Vec<u8>, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, scopes, node) = self.rest.pop()?;
        if node.is_folder() {
            self.enter(&path, &scopes);
        }
        Some((path, node))
    }
}
