//! The changes of one layer sorted by path, so that they can be searched.

use std::{cmp::Ordering, collections::BTreeMap, ops::Range};

use super::{
    View,
    resolve::{Seen, resolve},
};
use crate::{
    entry::Kind,
    layer::{Change, join_path, split_path},
};

/// What a layer says of a path.
#[derive(Debug, Clone)]
pub(super) struct Look<'a> {
    /// The slot of the path itself.
    pub(super) slot: Option<&'a Slot>,
    /// The places of all that is below it.
    pub(super) below: Range<usize>,
    /// Nothing that lower layers have there is seen, because of a folder above.
    pub(super) is_hidden: bool,
}

/// The changes of one layer, each path once, a folder right before all that is in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    pub(super) slots: Vec<Slot>,
    /// The paths of the slots, where they are not those of the changes.
    paths: Vec<Vec<u8>>,
    /// The tar says several things of one path, or puts something below what is no folder: order matters, see [`apply`](Self::apply).
    pub(super) is_irregular: bool,
    /// Folders that the layer puts something into, but has no entry for.
    pub(super) implied: Vec<Vec<u8>>,
}

/// What a layer says of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The place of the change in the layer.
    pub(super) change: u32,
    pub(super) what: What,
    /// A folder in which nothing of lower layers is seen.
    is_opaque: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// An entry for a folder.
    Folder,
    /// An entry for anything else.
    Other,
    Whiteout,
    /// No entry, but nothing of lower layers is in the folder, if there is one.
    Opaque,
    /// No entry, but a folder is there because something is put into it, and it has nothing to do with what lower layers have there.
    Fresh,
}

impl What {
    /// Says whether something is at the path because of this.
    pub(super) fn is_there(self) -> bool {
        !matches!(self, Self::Whiteout | Self::Opaque)
    }
}

impl Slot {
    fn of((at, change): (usize, &Change)) -> Self {
        let what = match change {
            Change::Entry { entry, .. } if entry.kind == Kind::Directory => What::Folder,
            Change::Entry { .. } => What::Other,
            Change::Whiteout { .. } => What::Whiteout,
            Change::Opaque { .. } => What::Opaque,
        };
        Self { change: at as u32, what, is_opaque: false }
    }

    /// Says whether nothing that lower layers have below this path is seen.
    pub(super) fn hides_below(&self) -> bool {
        self.is_opaque || self.what != What::Folder
    }
}

impl Order {
    /// Sorts changes whose order in the tar does not matter, and says whether it does.
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut sorted: Vec<Slot> = changes.iter().enumerate().map(Slot::of).collect();
        let path = |slot: &Slot| changes[slot.change as usize].path();
        sorted.sort_by(|a, b| compare(path(a), path(b)));

        let mut out = Self::default();
        out.slots.reserve_exact(sorted.len());
        // The folders with an entry above the current path, the nearest last, and the last thing that was no folder.
        let mut folders: Vec<(&[u8], u32)> = Vec::new();
        let mut leaf: Option<&[u8]> = None;
        for slot in sorted {
            let here = path(&slot);
            if let Some(last) = out.slots.last_mut().filter(|it| path(it) == here) {
                match (last.what, slot.what) {
                    (What::Folder, What::Opaque) => last.is_opaque = true,
                    (What::Opaque, What::Folder) => *last = Slot { is_opaque: true, ..slot },
                    (What::Opaque, What::Opaque) => {}
                    _ => out.is_irregular = true,
                }
            } else {
                if leaf.is_some_and(|it| is_below(here, it)) {
                    out.is_irregular = true;
                }
                let (parent, _) = split_path(here);
                let is_above = |it: &[u8]| it.is_empty() || is_below(here, it);
                while folders.pop_if(|(it, _)| !is_above(it)).is_some() {}
                // An entry that comes only after what is in it makes no difference to where that goes.
                let has_entry = |it: &(&[u8], u32)| it.0 == parent && it.1 < slot.change;
                let is_known = parent.is_empty() || folders.last().is_some_and(has_entry);
                if !is_known && out.implied.last().is_none_or(|it| it != parent) {
                    out.implied.push(parent.to_vec());
                }
                out.slots.push(slot);
            }
            match slot.what {
                What::Folder => folders.push((here, slot.change)),
                What::Other | What::Whiteout => leaf = Some(here),
                // Its file lies in the folder, which may be a link to one.
                What::Opaque => out.implied.push(here.to_vec()),
                What::Fresh => {}
            }
        }
        if out.is_irregular {
            out.slots = Vec::new();
        }
        out
    }

    /// Puts changes onto `lower` in the order of the tar: symbolic links in the way are followed, and later changes override earlier ones.
    pub(super) fn apply(changes: &[Change], lower: &View) -> Self {
        let mut pending = Pending::default();
        for (at, change) in changes.iter().enumerate() {
            let (parent, name) = split_path(change.path());
            // An opaque whiteout lies in its folder, so all of its path is followed.
            let followed =
                if matches!(change, Change::Opaque { .. }) { change.path() } else { parent };
            let real = resolve(followed, true, |it| pending.see(it, changes, lower));
            let real = real.unwrap_or_else(|_| followed.to_vec());
            let path = match change {
                Change::Opaque { .. } => real,
                _ if name.is_empty() => real,
                _ => join_path(&real, name),
            };
            pending.add(&path, Slot::of((at, change)));
        }
        let (paths, slots) = pending.0.into_iter().map(|(key, slot)| (path_of(key), slot)).unzip();
        Self { slots, paths, ..Self::default() }
    }

    /// Returns the path of the slot at this place.
    pub(super) fn path<'a>(&'a self, changes: &'a [Change], at: usize) -> &'a [u8] {
        match self.paths.get(at) {
            Some(path) => path,
            None => changes[self.slots[at].change as usize].path(),
        }
    }

    /// Says whether the layer has an opaque mark of the root.
    pub(crate) fn hides_root(&self, changes: &[Change]) -> bool {
        self.find(changes, b"").is_some_and(|at| self.slots[at].hides_below())
    }

    pub(super) fn find(&self, changes: &[Change], path: &[u8]) -> Option<usize> {
        let at =
            self.partition(0..self.slots.len(), |at| compare(self.path(changes, at), path).is_lt());
        (at < self.slots.len() && self.path(changes, at) == path).then_some(at)
    }

    /// Says whether any of these is more than a whiteout.
    pub(super) fn has_some(&self, mut places: impl Iterator<Item = usize>) -> bool {
        places.any(|at| self.slots[at].what.is_there())
    }

    /// Looks a path up from the root down, in what is left of the layer at each part of it.
    pub(super) fn look(&self, changes: &[Change], path: &[u8]) -> Look<'_> {
        let mut look = Look { slot: None, below: 0..self.slots.len(), is_hidden: false };
        // All that is left has so many bytes with the path in common.
        let mut n_common = 0;
        let root = (!path.is_empty()).then_some(0);
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|it| it.0);
        for end in root.into_iter().chain(slashes).chain([path.len()]) {
            let part = &path[n_common..end];
            let rest = |at: usize| &self.path(changes, at)[n_common..];
            let range = look.below.clone();
            let start = self.partition(range.clone(), |at| compare(rest(at), part).is_lt());
            let is_here = start < range.end && rest(start) == part;
            look.slot = is_here.then(|| &self.slots[start]);
            let below = start + usize::from(is_here)..range.end;
            let below_end = match end {
                0 => below.end,
                _ => self.partition(below.clone(), |at| is_below(rest(at), part)),
            };
            look.below = below.start..below_end;
            if end == path.len() {
                break;
            }
            look.is_hidden |= look.slot.take().is_some_and(Slot::hides_below);
            if look.below.is_empty() {
                break;
            }
            n_common = end;
        }
        look
    }

    /// Returns where what is `path` or below it ends, in a range that begins with that.
    pub(super) fn end_of(&self, changes: &[Change], path: &[u8], range: Range<usize>) -> usize {
        self.partition(range, |at| {
            let here = self.path(changes, at);
            here == path || is_below(here, path)
        })
    }

    /// Returns the first place in the range for which `is_before` is false.
    fn partition(&self, range: Range<usize>, is_before: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Changes as far as they are applied, by path with NUL for each slash, so that a folder sorts right before what is in it.
#[derive(Default)]
struct Pending(BTreeMap<Vec<u8>, Slot>);

impl Pending {
    fn see(&self, path: &[u8], changes: &[Change], lower: &View) -> Seen {
        let key = key_of(path);
        match self.0.get(&key).map(|it| (it.what, &changes[it.change as usize])) {
            Some((What::Other, Change::Entry { entry, .. })) => return Seen::of(&entry.kind),
            Some((What::Folder | What::Fresh, _)) => return Seen::Folder,
            Some((What::Other | What::Whiteout, _)) => return Seen::Missing,
            Some((What::Opaque, _)) | None if self.has_below(&key) => return Seen::Folder,
            Some((What::Opaque, _)) | None => {}
        }
        match ancestors(&key).any(|it| self.0.get(it).is_some_and(Slot::hides_below)) {
            true => Seen::Missing,
            false => lower.see(path, lower.layers.len()),
        }
    }

    fn add(&mut self, path: &[u8], slot: Slot) {
        let key = key_of(path);
        // What something is put into becomes a folder, and what lower layers had there stays away.
        for ancestor in ancestors(&key).filter(|_| slot.what.is_there()) {
            if let Some(it) = self.0.get_mut(ancestor)
                && matches!(it.what, What::Other | What::Whiteout)
            {
                *it = Slot { what: What::Fresh, ..*it };
            }
        }
        let before = self.0.get(&key).copied();
        let slot = match (slot.what, before) {
            (What::Folder, Some(before)) => Slot { is_opaque: before.hides_below(), ..slot },
            (What::Folder, None) => slot,
            (What::Other, _) => {
                let below: Vec<_> = self.below(&key).map(|(key, _)| key.clone()).collect();
                for key in below {
                    self.0.remove(&key);
                }
                slot
            }
            // Whiteouts are about lower layers only.
            (What::Whiteout | What::Opaque, Some(before)) => match before.what {
                What::Folder => Slot { is_opaque: true, ..before },
                What::Opaque if slot.what == What::Whiteout => self.whiteout(&key, slot),
                _ => before,
            },
            (What::Whiteout, None) => self.whiteout(&key, slot),
            (What::Opaque, None) | (What::Fresh, _) => slot,
        };
        self.0.insert(key, slot);
    }

    /// Makes a whiteout of something that this layer has no entry for. What it has put below needs a folder.
    fn whiteout(&self, key: &[u8], slot: Slot) -> Slot {
        let what = if self.has_below(key) { What::Fresh } else { What::Whiteout };
        Slot { what, ..slot }
    }

    /// Says whether something lies below. What is gone does not.
    fn has_below(&self, key: &[u8]) -> bool {
        self.below(key).any(|(_, slot)| slot.what.is_there())
    }

    fn below<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Slot)> {
        let after = (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded);
        self.0.range::<[u8], _>(after).take_while(move |(it, _)| {
            key.is_empty() || it.strip_prefix(key).is_some_and(|rest| rest.starts_with(&[0]))
        })
    }
}

/// Returns the keys of the folders above a key.
fn ancestors(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!key.is_empty()).then_some(&key[..0]);
    let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == 0);
    root.into_iter().chain(slashes.map(|(at, _)| &key[..at]))
}

fn key_of(path: &[u8]) -> Vec<u8> {
    path.iter().map(|it| if *it == b'/' { 0 } else { *it }).collect()
}

fn path_of(key: Vec<u8>) -> Vec<u8> {
    key.into_iter().map(|it| if it == 0 { b'/' } else { it }).collect()
}

/// Compares paths part by part: as if the slash were the smallest byte.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    const STEP: usize = 16;
    let n_common = a.len().min(b.len());
    let mut at = 0;
    while at + STEP <= n_common && a[at..at + STEP] == b[at..at + STEP] {
        at += STEP;
    }
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    match a[at..].iter().zip(&b[at..]).find(|(a, b)| a != b) {
        Some((a, b)) => rank(*a).cmp(&rank(*b)),
        None => a.len().cmp(&b.len()),
    }
}

/// Says whether `path` lies in the folder, at any depth.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    if folder.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(folder).is_some_and(|it| it.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_sorts_right_before_what_is_in_it() {
        let mut paths: Vec<&[u8]> =
            vec![b"a-b", b"a/b", b"a", b"", b"a.c", b"a/b/c", b"a/b-", b"b", b"a+"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c", b"a/b-", b"a+", b"a-b", b"a.c", b"b"]);
    }

    #[test]
    fn bytes_below_the_slash_sort_behind_it() {
        assert_eq!(compare(b"0123456789abcdef/x", b"0123456789abcdef\x01"), Ordering::Less);
        assert_eq!(compare(b"a\x01", b"a/b"), Ordering::Greater);
        assert_eq!(compare(b"a", b"a"), Ordering::Equal);
    }
}
