//! Walks a folder of the user's, on all processors: each folder is listed and its files are looked at by one thread.
//!
//! What comes out is in the order of a walk by one: folders before what is in them, names sorted.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::Scope,
};

use planner::ignore::Trail;
use rustix::fs::{FileType, OFlags, RawDir};

use super::{Choice, Folder, Found, join, lossy, push_component};
use crate::{error::ExecutorError, threads};

/// A further thread is started when so many folders wait to be listed: fewer are done sooner than a thread is there.
const WORTH_A_THREAD: usize = 16;

/// To hash so many files, or so many bytes, takes longer than to start a thread.
const MANY_TO_HASH: usize = 64;
const MUCH_TO_HASH: u64 = 4 << 20;
/// A thread takes about so many bytes at once, or one file.
const LARGE: u64 = 1 << 20;

/// With so many files what they take is worth giving back while the build goes on.
const MANY: usize = 2000;

/// What decides on the paths below the root of a walk.
pub(super) type Choose<'a> = &'a (dyn Fn(&[u8], bool) -> Choice + Sync);

/// A folder to be listed.
struct Job {
    /// Its number, the place of its list.
    nth: usize,
    /// Its path below the root of the walk.
    path: Vec<u8>,
    trail: Trail,
    /// Nothing in it is chosen; what counts is whether something in it can be seen.
    only_seen: bool,
}

/// Something in a folder.
struct Item {
    found: Found,
    /// It was chosen, for a folder: even if nothing below it is.
    keep: bool,
    /// The ignore file does not match it.
    is_visible: bool,
    /// The number of a folder that is listed.
    list: Option<u32>,
    /// What is below it may be chosen.
    enter: bool,
}

struct State {
    jobs: Vec<Job>,
    lists: Vec<Vec<Item>>,
    n_open: usize,
    n_threads: usize,
    error: Option<ExecutorError>,
}

struct Scan<'a> {
    folder: &'a Folder,
    root: &'a [u8],
    choose: Choose<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Finds what is below the folder at `root` and chosen by `choose`.
pub(super) fn scan(
    folder: &Folder,
    root: &[u8],
    choose: Choose<'_>,
) -> Result<Vec<Found>, ExecutorError> {
    let trail = root.iter().enumerate().filter(|(_, it)| **it == b'/').map(|(at, _)| &root[..at]);
    let trail = trail
        .chain([root])
        .fold(folder.ignore().root(), |trail, path| folder.ignore().enter(trail, path));
    let first = Job { nth: 0, path: Vec::new(), trail, only_seen: false };
    let state =
        State { jobs: vec![first], lists: vec![Vec::new()], n_open: 1, n_threads: 1, error: None };
    let scan = Scan { folder, root, choose, state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| scan.work(scope));
    let mut state = scan.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.error {
        return Err(error);
    }
    let n_items = state.lists.iter().map(Vec::len).sum();
    if n_items > MANY {
        // The lists go while what was in them is put together.
        sandbox::give_memory_back();
    }
    let mut found = Vec::with_capacity(n_items);
    flatten(&mut state.lists, 0, &mut found);
    Ok(found)
}

impl<'env> Scan<'env> {
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut listing = Listing::default();
        let mut state = self.lock();
        loop {
            if state.n_open == 0 || state.error.is_some() {
                self.changed.notify_all();
                return;
            }
            let Some(job) = state.jobs.pop() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if state.jobs.len() >= WORTH_A_THREAD && state.n_threads < threads() {
                state.n_threads += 1;
                scope.spawn(|| self.work(scope));
            }
            drop(state);
            let result = self.list(&job, &mut listing);
            state = self.lock();
            state.n_open -= 1;
            match result {
                Ok((mut items, folders)) => {
                    for (at, trail, only_seen) in folders {
                        let nth = state.lists.len();
                        items[at].list = u32::try_from(nth).ok();
                        let path = items[at].found.path.clone();
                        state.lists.push(Vec::new());
                        state.jobs.push(Job { nth, path, trail, only_seen });
                        state.n_open += 1;
                    }
                    state.lists[job.nth] = items;
                }
                Err(error) => drop(state.error.get_or_insert(error)),
            }
            if state.n_threads > 1 {
                self.changed.notify_all();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists one folder; returns what is in it, and the places of the folders that are to be listed next.
    #[expect(clippy::type_complexity, reason = "taken apart at once, by the only caller")]
    fn list(
        &self,
        job: &Job,
        listing: &mut Listing,
    ) -> Result<(Vec<Item>, Vec<(usize, Trail, bool)>), ExecutorError> {
        let at = join(self.root, &job.path);
        let failed = |source: rustix::io::Errno| self.folder.read_error(&at, source);
        let fd =
            self.folder.open_beneath(&at, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        listing.read(&fd).map_err(failed)?;
        let ignore = self.folder.ignore();
        let mut known = self.folder.known_files(&at);
        let mut items = Vec::with_capacity(listing.names.len());
        let mut folders = Vec::new();
        let mut full = at.clone();
        for (name, may_be_folder) in listing.names() {
            let mut path = Vec::with_capacity(job.path.len() + 1 + name.count_bytes());
            path.extend_from_slice(&job.path);
            push_component(&mut path, name.to_bytes());
            full.truncate(at.len());
            push_component(&mut full, name.to_bytes());
            let trail = ignore.enter(job.trail, &full);
            let is_visible = !trail.is_excluded();
            if !is_visible && !may_be_folder {
                continue;
            }
            let known = || known.next(name.to_bytes());
            // A file that vanished since is no error: it is not there.
            let Some(node) = self.folder.node(&fd, name, &full, false, known)? else { continue };
            let is_folder = node.is_dir();
            if !is_visible && !is_folder {
                continue;
            }
            let choice = match job.only_seen {
                true => Choice { keep: false, enter: false },
                false => (self.choose)(&path, is_folder),
            };
            if is_folder {
                let may_show = is_visible || ignore.may_descend(&full);
                if may_show && (choice.enter || !is_visible) {
                    folders.push((items.len(), trail, !choice.enter));
                }
            }
            let found = Found { path, node };
            items.push(Item {
                found,
                keep: choice.keep,
                is_visible,
                list: None,
                enter: choice.enter,
            });
        }
        Ok((items, folders))
    }
}

/// Puts the lists together; says whether something was chosen in this one, and whether something can be seen.
fn flatten(lists: &mut Vec<Vec<Item>>, nth: usize, out: &mut Vec<Found>) -> (bool, bool) {
    let (mut has_chosen, mut has_visible) = (false, false);
    for item in std::mem::take(&mut lists[nth]) {
        let place = out.len();
        let is_folder = item.found.node.is_dir();
        out.push(item.found);
        let (mut is_visible, mut is_chosen) = (item.is_visible, item.keep);
        if let Some(list) = item.list {
            let (below_chosen, below_visible) = flatten(lists, list as usize, out);
            is_visible |= below_visible;
            // A folder that is not chosen itself comes along only when something in it is.
            is_chosen |= below_chosen;
        }
        if is_folder && !item.enter {
            is_chosen = false;
        }
        if !(is_visible && is_chosen) {
            out.truncate(place);
        }
        has_chosen |= is_visible && is_chosen;
        has_visible |= is_visible;
    }
    (has_chosen, has_visible)
}

/// The names in a folder. Used again for the next one.
#[derive(Default)]
struct Listing {
    buffer: Vec<MaybeUninit<u8>>,
    /// Names, each with a NUL at its end.
    text: Vec<u8>,
    /// Where they are, sorted, and whether it may be that of a folder.
    names: Vec<(usize, usize, bool)>,
}

impl Listing {
    fn read(&mut self, fd: &rustix::fd::OwnedFd) -> Result<(), rustix::io::Errno> {
        self.buffer.resize(32 * 1024, MaybeUninit::uninit());
        self.text.clear();
        self.names.clear();
        let mut entries = RawDir::new(fd, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if !matches!(name, b".\0" | b"..\0") {
                let start = self.text.len();
                self.text.extend_from_slice(name);
                let may_be_folder =
                    matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                self.names.push((start, self.text.len(), may_be_folder));
            }
        }
        let text = &self.text;
        self.names.sort_unstable_by(|a, b| text[a.0..a.1].cmp(&text[b.0..b.1]));
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = (&CStr, bool)> {
        self.names.iter().filter_map(|&(start, end, may_be_folder)| {
            Some((CStr::from_bytes_with_nul(&self.text[start..end]).ok()?, may_be_folder))
        })
    }
}

/// Hashes the files of which the digest is not known, on all processors.
pub(super) fn hash(folder: &Folder, root: &[u8], found: &mut [Found]) -> Result<(), ExecutorError> {
    let mut unknown: Vec<&mut Found> =
        found.iter_mut().filter(|it| it.node.is_unknown_file()).collect();
    let n_bytes: u64 = unknown.iter().map(|it| it.node.kind.size()).sum();
    let is_much = unknown.len() >= MANY_TO_HASH || n_bytes >= MUCH_TO_HASH;
    let n_threads = if is_much { threads() } else { 1 };
    let n_each = (unknown.len() / (n_threads * 4)).clamp(1, MANY_TO_HASH / 2);
    // Large files go one by one, so that nobody waits long for the last of them.
    let n_fit = unknown.len() as u64 * LARGE / n_bytes.max(1);
    let n_each = n_each.min(usize::try_from(n_fit).unwrap_or(usize::MAX)).max(1);
    let chunks = Mutex::new(unknown.chunks_mut(n_each));
    let work = || -> Result<(), ExecutorError> {
        loop {
            let chunk = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(chunk) = chunk else { return Ok(()) };
            for it in chunk {
                folder.read_new(&join(root, &it.path), &mut it.node)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let ended = other.join();
            result = result.and(ended.unwrap_or_else(|_| {
                let source = std::io::Error::other("a thread that hashes has panicked");
                Err(ExecutorError::Read { path: lossy(root), source })
            }));
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The same by one thread, folder by folder.
    fn by_one(folder: &Folder, at: &[u8], found: &mut Vec<Vec<u8>>) {
        for (name, node) in folder.children(at).expect("it can be listed") {
            let path = join(at, &name);
            found.push(path.clone());
            if node.is_dir() {
                by_one(folder, &path, found);
            }
        }
    }

    #[test]
    fn all_threads_find_what_one_finds_in_the_same_order() {
        let home = tempfile::tempdir().expect("a folder");
        for nth in 0..60 {
            let path = home.path().join(format!("{}/{}-x/{nth}", nth % 4, nth % 20));
            fs::create_dir_all(&path).expect("made");
            for name in ["a", "b.log", "keep.log", "sub"] {
                fs::write(path.join(name), name).expect("written");
            }
            fs::create_dir(path.join("empty")).expect("made");
        }
        for patterns in [
            &[][..],
            &["**/*.log", "!**/keep.log"],
            &["1", "!1/*-x/*/a", "2/4-x"],
            &["*", "!3/**/keep.log"],
            &["**/empty", "0/**"],
        ] {
            let patterns = patterns.iter().map(|it| (*it).to_owned()).collect();
            let folder = Folder::open_root(home.path(), patterns, None).expect("a folder");
            let all = |_: &[u8], _| Choice { keep: true, enter: true };
            for root in [&b""[..], b"1", b"3/3-x"] {
                let mut expected = Vec::new();
                by_one(&folder, root, &mut expected);
                let found = scan(&folder, root, &all).expect("it can be walked");
                let found: Vec<_> = found.iter().map(|it| join(root, &it.path)).collect();
                assert_eq!(found, expected, "{root:?}");
            }
        }
    }

    #[test]
    fn files_have_their_digests_and_a_socket_is_never_opened() {
        let home = tempfile::tempdir().expect("a folder");
        for nth in 0..200 {
            fs::write(home.path().join(format!("{nth}")), format!("{nth}")).expect("written");
        }
        fs::write(home.path().join("empty"), "").expect("written");
        let _socket =
            std::os::unix::net::UnixListener::bind(home.path().join("socket")).expect("bound");
        let folder = Folder::open_root(home.path(), Vec::new(), None).expect("a folder");
        let all = |_: &[u8], _| Choice { keep: true, enter: true };
        let mut found = scan(&folder, b"", &all).expect("it can be walked");
        hash(&folder, b"", &mut found).expect("all can be read");
        assert_eq!(found.len(), 202);
        for it in found {
            let name = String::from_utf8_lossy(&it.path).into_owned();
            let expected = match name.as_str() {
                "socket" => None,
                "empty" => Some(*blake3::hash(b"").as_bytes()),
                text => Some(*blake3::hash(text.as_bytes()).as_bytes()),
            };
            assert_eq!(it.node.content, expected, "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_not_kept_comes_along_with_what_is_in_it() {
        let home = tempfile::tempdir().expect("a folder");
        for path in ["a/b/c", "a/d", "e/f", "g"] {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().expect("one above")).expect("made");
            fs::write(path, "").expect("written");
        }
        let folder = Folder::open_root(home.path(), Vec::new(), None).expect("a folder");
        let found = |choose: Choose<'_>| -> Vec<String> {
            let found = scan(&folder, b"", choose).expect("it can be walked");
            found.iter().map(|it| String::from_utf8_lossy(&it.path).into_owned()).collect()
        };
        let only_c = |path: &[u8], _| Choice { keep: path == b"a/b/c", enter: true };
        assert_eq!(found(&only_c), ["a", "a/b", "a/b/c"]);
        let not_a = |path: &[u8], _| Choice { keep: path != b"a", enter: path != b"a" };
        assert_eq!(found(&not_a), ["e", "e/f", "g"]);
    }
}
