//! Leases: what a running process uses is not collected.
//!
//! A lease is a locked file below `leases/`, one line per object: its kind and its name. While a [`Store`] has a lease, everything it
//! returns or stores is written there *before* it is looked up or published. The collector marks and takes away under an exclusive
//! lock on `gc.lock`, and a line is written under a shared one, so an object is either seen in the lease or already gone when it
//! is looked up.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use image::DiffId;

use crate::{
    error::{IoContext, StoreError},
    files,
    layer::LayerRecord,
    store::{Store, guard, try_existing},
};

/// Keeps the collector away from everything the store returned or stored since. Ends when dropped, or with the process.
#[derive(Debug, Clone)]
pub struct Lease {
    _file: Arc<LeaseFile>,
}

/// The lease of a store handle, if there is one.
pub(crate) type LeaseSlot = Mutex<Weak<LeaseFile>>;

/// Something that can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    Blob([u8; 32]),
    Layer([u8; 32]),
    Step([u8; 32]),
}

#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    state: Mutex<State>,
    whole: Mutex<Whole>,
}

/// Layers that were found whole. They are held, so they stay so, and need not be looked at again for each step on top of them.
#[derive(Debug, Default)]
struct Whole {
    layers: HashMap<DiffId, LayerRecord>,
    trees: HashSet<DiffId>,
}

#[derive(Debug)]
struct State {
    file: File,
    gc: File,
    held: HashSet<Held>,
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Takes a lease for all that is done through this handle and its clones from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lease file cannot be made.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let mut slot = guard(&self.inner.lease);
        if let Some(file) = slot.upgrade() {
            return Ok(Lease { _file: file });
        }
        // Locked before it gets its name, so that nobody takes it for a dead one.
        let staged = self.scratch()?;
        let file = files::create_new(&staged, 0o600)?;
        file.lock().at("lock", &staged)?;
        let path = self.path("leases").join(self.unique_name());
        fs::rename(&staged, &path).at("create", &path)?;
        let state = State { file, gc: open_gc(&self.path("gc.lock"))?, held: HashSet::new() };
        let lease = Arc::new(LeaseFile { path, state: Mutex::new(state), whole: Mutex::default() });
        *slot = Arc::downgrade(&lease);
        Ok(Lease { _file: lease })
    }

    /// Writes an object into the lease, if there is one. Do this before looking whether the object is there.
    pub(crate) fn hold(&self, object: Held) -> Result<(), StoreError> {
        match self.current_lease() {
            Some(lease) => lease.hold(object),
            None => Ok(()),
        }
    }

    /// The lease of this handle, if there is one.
    pub(crate) fn current_lease(&self) -> Option<Arc<LeaseFile>> {
        guard(&self.inner.lease).upgrade()
    }

    /// Keeps all other processes from writing into their leases until the file is dropped.
    pub(crate) fn stop_leases(&self) -> Result<File, StoreError> {
        let path = self.path("gc.lock");
        let gc = open_gc(&path)?;
        gc.lock().at("lock", path)?;
        Ok(gc)
    }

    /// Reads what all living processes hold.
    pub(crate) fn held(&self) -> Result<HashSet<Held>, StoreError> {
        let folder = self.path("leases");
        let mut held = HashSet::new();
        for name in files::names(&folder)? {
            let path = folder.join(name);
            if try_existing(&path)?.is_some() {
                let _ = fs::remove_file(&path);
                continue;
            }
            let mut text = String::new();
            match File::open(&path) {
                Ok(mut file) => file.read_to_string(&mut text).at("read", &path)?,
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err).at("open", path),
            };
            held.extend(text.lines().filter_map(Held::parse));
        }
        Ok(held)
    }
}

impl LeaseFile {
    /// The record of a layer that was found whole.
    pub(crate) fn whole_layer(&self, diff_id: &DiffId) -> Option<LayerRecord> {
        guard(&self.whole).layers.get(diff_id).cloned()
    }

    /// Notes that a layer was found whole, or that more is known of it.
    pub(crate) fn note_layer(&self, record: LayerRecord) {
        guard(&self.whole).layers.insert(record.diff_id, record);
    }

    /// Forgets that a layer was found whole.
    pub(crate) fn forget_layer(&self, diff_id: &DiffId) {
        guard(&self.whole).layers.remove(diff_id);
    }

    /// Whether the tree of a layer was found whole.
    pub(crate) fn has_tree(&self, diff_id: &DiffId) -> bool {
        guard(&self.whole).trees.contains(diff_id)
    }

    /// Notes that the tree of a layer was found whole.
    pub(crate) fn note_tree(&self, diff_id: &DiffId) {
        guard(&self.whole).trees.insert(*diff_id);
    }

    fn hold(&self, object: Held) -> Result<(), StoreError> {
        let mut state = guard(&self.state);
        if state.held.contains(&object) {
            return Ok(());
        }
        state.gc.lock_shared().at("lock", &self.path)?;
        let written = state.file.write_all(object.line().as_bytes());
        let _ = state.gc.unlock();
        written.at("write", &self.path)?;
        state.held.insert(object);
        Ok(())
    }
}

impl Held {
    fn line(self) -> String {
        let (kind, hash) = match self {
            Self::Blob(hash) => ("blob", hash),
            Self::Layer(hash) => ("layer", hash),
            Self::Step(hash) => ("step", hash),
        };
        // What an earlier failure left of a line, as on a full disk, must not swallow this one.
        format!("\n{kind} {}\n", hex(&hash))
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, hash) = line.split_once(' ')?;
        let hash = unhex(hash)?;
        match kind {
            "blob" => Some(Self::Blob(hash)),
            "layer" => Some(Self::Layer(hash)),
            "step" => Some(Self::Step(hash)),
            _ => None,
        }
    }
}

fn open_gc(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// Writes 32 bytes as 64 hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    image::Digest::from_sha256(*bytes).hex()
}

/// Reads 64 hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    format!("sha256:{text}").parse::<image::Digest>().ok().map(|it| *it.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let lease = store.lease().expect("a lease");
        let (before, after) = (Held::Blob([1; 32]), Held::Layer([2; 32]));
        store.hold(before).expect("held");
        // What a disk that was full for a moment leaves.
        guard(&lease._file.state).file.write_all(b"\nstep 0303").expect("written");
        store.hold(after).expect("held");
        assert_eq!(store.held().expect("a look"), HashSet::from([before, after]));
    }
}
