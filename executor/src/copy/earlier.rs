//! The layer that the same copy made in an earlier build: what did not change since lies in it in one piece, and small files are read
//! from there without opening each.
//!
//! Nothing is believed: what is read is compared with the digest that is in the step's key, and read from its own file if it differs.

use std::{fs::File, os::unix::fs::FileExt};

use cache::Store;
use image::DiffId;
use planner::plan::{CopyItem, CopyOp};

use super::Gathered;
use crate::tree::{CopyId, Folder, Tree};

/// With fewer files it costs more to look for them there.
const WORTH_IT: u64 = 64;

/// The tar of such a layer.
pub(crate) struct Earlier {
    tar: File,
    /// Where the files are: the first bytes of the digest, and the offset; sorted.
    places: Vec<(u64, u64)>,
}

/// Tells copies of one folder apart, and finds the same one in a later build.
pub(crate) struct Site<'a> {
    folder: &'a Folder,
    copy: CopyId,
}

impl<'a> Site<'a> {
    /// That of a copy that reads a local context.
    pub(crate) fn of(op: &CopyOp, trees: &'a [Tree]) -> Option<Self> {
        let folder = trees.iter().find_map(|it| match it {
            Tree::Folder(folder) => Some(&**folder),
            _ => None,
        })?;
        let mut hasher = blake3::Hasher::new();
        let paths = op.items.iter().map(|it| match it {
            CopyItem::Paths { path, .. } => path,
            CopyItem::Inline { name, .. } => name,
        });
        for text in paths.chain([&op.dest]) {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        let copy = hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default();
        Some(Self { folder, copy })
    }

    /// The layer that was made here last, if it is still there and worth a look.
    pub(crate) fn earlier(&self, store: &Store, gathered: &Gathered) -> Option<Earlier> {
        let diff_id = (gathered.n_files >= WORTH_IT).then(|| self.folder.made(&self.copy))??;
        Earlier::open(store, &diff_id)
    }

    /// Remembers the layer that was made here.
    pub(crate) fn note(&self, diff_id: DiffId) {
        self.folder.note_made(self.copy, diff_id);
    }
}

impl Earlier {
    /// Opens a layer; nothing if its tar is not there.
    fn open(store: &Store, diff_id: &DiffId) -> Option<Self> {
        let mut places = Vec::new();
        let tar =
            store.look_into_tar(diff_id, |content, offset| places.push((prefix(&content), offset)));
        // What cannot be read here is read where it always is.
        let tar = tar.ok()??;
        places.sort_unstable();
        Some(Self { tar, places })
    }

    /// Reads a file of this digest and length into `bytes`, and tells whether it was there.
    pub(super) fn read(&self, content: &[u8; 32], size: u64, bytes: &mut Vec<u8>) -> bool {
        let wanted = prefix(content);
        let at = self.places.partition_point(|it| it.0 < wanted);
        let Some((_, offset)) = self.places.get(at).filter(|it| it.0 == wanted) else {
            return false;
        };
        bytes.resize(usize::try_from(size).unwrap_or(0), 0);
        let is_read = self.tar.read_exact_at(bytes, *offset).is_ok();
        is_read && blake3::hash(bytes) == *content
    }
}

fn prefix(content: &[u8; 32]) -> u64 {
    content.first_chunk().map_or(0, |it| u64::from_le_bytes(*it))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use planner::{
        facts::Facts,
        plan::{Op, Plan},
        request::Request,
    };

    use super::*;
    use crate::{context::Context, session::Session};

    const N_FILES: u64 = 100;

    fn session(home: &Path, store: &str) -> Session {
        let store = Store::open(&home.join(store)).expect("a store");
        let credentials = registry::Credentials::none();
        let client = registry::Client::new(registry::Config::default(), credentials);
        let mut session = Session::new(store, client);
        let context = Context::folder(&session, &home.join("context"), Vec::new());
        session.contexts.insert("context".to_owned(), context.expect("it is there"));
        session
    }

    fn plan() -> Plan {
        let (dockerfile, _) = parser::parse("FROM scratch\nCOPY . /all/\n");
        let graph = planner::stages(&dockerfile, &Request::default()).expect("it has a stage");
        planner::plan(&graph, &Facts::default()).expect("it has a plan")
    }

    /// Copies the context, and returns the layer that this gives.
    fn build(session: &Session) -> DiffId {
        session.build(&[plan()], &Facts::default()).expect("it is built")[0].layers[0]
    }

    fn text(nth: u64) -> String {
        format!("{nth} ").repeat(50)
    }

    #[test]
    fn what_did_not_change_is_read_from_the_earlier_layer_and_never_believed() {
        let home = tempfile::tempdir().expect("a folder");
        fs::create_dir(home.path().join("context")).expect("made");
        let file = |nth: u64| home.path().join(format!("context/{nth}"));
        for nth in 0..N_FILES {
            fs::write(file(nth), text(nth)).expect("written");
        }
        let first = build(&session(home.path(), "store"));
        // Damages one file in the layer, and changes another one in the context.
        let tar = home.path().join("store/oci/blobs/sha256").join(first.0.hex());
        let mut bytes = fs::read(&tar).expect("read");
        let damaged = bytes.windows(5).position(|it| it == b"3 3 3").expect("it is there");
        bytes[damaged] = b'4';
        fs::write(&tar, bytes).expect("written");
        fs::write(file(7), "other").expect("written");

        let session = session(home.path(), "store");
        let folder = match &session.contexts["context"].tree {
            Tree::Folder(folder) => folder.clone(),
            _ => panic!("it is a folder"),
        };
        let trees = [Tree::Folder(folder)];
        let plan = plan();
        let Op::Copy(op) = &plan.steps[0].op else { panic!("it is a COPY") };
        let site = Site::of(op, &trees).expect("it is local");
        let gathered = super::super::gather(op, &trees).expect("it can be read");
        let earlier = site.earlier(&session.store, &gathered).expect("the layer is remembered");
        for (nth, is_there) in [(2, true), (3, false), (7, false)] {
            let bytes = fs::read(file(nth)).expect("read");
            let mut found = Vec::new();
            let digest = blake3::hash(&bytes);
            let was_read = earlier.read(digest.as_bytes(), bytes.len() as u64, &mut found);
            assert_eq!(was_read, is_there, "{nth}");
            assert!(!was_read || found == bytes, "{nth}");
        }
        assert_eq!(build(&session), build(&self::session(home.path(), "other store")));
    }
}
