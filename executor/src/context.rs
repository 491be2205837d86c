//! Build contexts: a folder, nothing, an archive, or something from the network.

use std::{io::Read, path::Path, sync::Arc};

use planner::plan::{GitSource, HttpSource, Source};

use crate::{
    copy,
    error::ExecutorError,
    fetch,
    session::Session,
    tree::{Chain, Choice, Folder, Layers, Tree},
};

/// A tree of files that COPY may name.
#[derive(Clone)]
pub struct Context {
    pub(crate) tree: Tree,
    /// When it was made, where that is known, in seconds since 1970.
    time: Option<i64>,
}

impl Context {
    /// A context without files.
    pub fn empty() -> Self {
        Self { tree: Tree::Empty, time: None }
    }

    /// A folder; `patterns` are those of its ignore file. What was hashed in an earlier build is remembered by `session`.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::OpenContext`] and [`ExecutorError::Patterns`].
    pub fn folder(
        session: &Session,
        path: &Path,
        patterns: Vec<String>,
    ) -> Result<Self, ExecutorError> {
        let path = path
            .canonicalize()
            .map_err(|source| ExecutorError::OpenContext { path: path.to_owned(), source })?;
        let cache = session.store.load_stat_cache(&path)?;
        let folder = Folder::open_root(&path, patterns, cache)?;
        Ok(Self { tree: Tree::Folder(Arc::new(folder)), time: None })
    }

    /// An archive, plain or compressed, read to its end and kept in the store as a layer. Owners are those of the archive.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::BadArchive`], [`ExecutorError::ArchiveLimit`], or the store fails.
    pub fn archive(session: &Session, input: impl Read + Send) -> Result<Self, ExecutorError> {
        let staged = session.store.stage_blob()?;
        let (staged, index) = copy::write_archive(input, session.store.options(), staged)?;
        if index.changes.is_empty() {
            return Ok(Self::empty());
        }
        session.store.put_tar(staged, &index)?;
        let layers = Layers::open(&session.store, &Chain::new(&[index.diff_id]))?;
        Ok(Self { tree: Tree::Layers(Arc::new(layers)), time: None })
    }

    /// A git repository.
    ///
    /// # Errors
    ///
    /// It cannot be fetched.
    pub fn git(session: &Session, git: &GitSource) -> Result<Self, ExecutorError> {
        let shown = fetch::redacted(&git.url.remote);
        let task = session.task(format!("[internal] load git source {shown}"));
        let result = fetch::git(session, git, &task);
        let fetched = task.end(result)?;
        Ok(Self { tree: fetched.tree, time: fetched.time })
    }

    /// A file from the network: an archive is unpacked, anything else is the only file, named `context`.
    ///
    /// # Errors
    ///
    /// It cannot be fetched, or is a broken archive.
    pub fn http(session: &Session, http: &HttpSource) -> Result<Self, ExecutorError> {
        let shown = fetch::redacted(&http.url);
        let task = session.task(format!("[internal] load remote build context {shown}"));
        let result = fetch::http(session, http, &task).and_then(|fetched| {
            let path = http.filename.as_bytes();
            let context = match copy::is_archive(&fetched.tree, path, session.store.options())? {
                true => Self::archive(session, fetched.tree.open(path)?)?,
                false => Self { tree: fetched.tree, time: None },
            };
            let time = match fetched.time {
                None if context.tree.lookup(path)?.is_none() => context.newest()?,
                time => time,
            };
            Ok(Self { time, ..context })
        });
        task.end(result)
    }

    /// The time of the newest file.
    fn newest(&self) -> Result<Option<i64>, ExecutorError> {
        let mut newest = None;
        for path in self.paths()? {
            newest = newest.max(self.tree.lookup(&path)?.map(|it| it.mtime.secs));
        }
        Ok(newest)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        matches!(self.tree, Tree::Empty)
    }

    /// Reads a file of the context, links followed; nothing if there is none, or it is longer than `limit`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ExecutorError> {
        self.tree.read_small(&parser::encode(path), limit)
    }

    /// Returns a path that is there and differs from this one in a letter or two of one of its parts.
    pub fn near(&self, path: &str) -> Option<String> {
        let (mut found, mut is_other) = (Vec::new(), false);
        for part in path.split('/').filter(|it| !it.is_empty()) {
            let next = crate::tree::join(&found, &parser::encode(part));
            if self.tree.lookup(&next).ok()?.is_some() {
                found = next;
                continue;
            }
            let children = self.tree.children(&found).ok()?;
            let names: Vec<String> =
                children.iter().filter_map(|(it, _)| String::from_utf8(it.clone()).ok()).collect();
            // Of two letters, two others are no mistake in writing.
            if part.chars().count() < 3 {
                return None;
            }
            let name = parser::suggest::suggest(part, names.iter().map(String::as_str), true)?;
            if std::mem::replace(&mut is_other, true) {
                return None;
            }
            found = crate::tree::join(&found, name.as_bytes());
        }
        is_other.then(|| crate::tree::lossy(&found))
    }

    /// The paths of all files, folders and links that COPY can see, in order.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn paths(&self) -> Result<Vec<Vec<u8>>, ExecutorError> {
        let all = |_: &[u8], _| Choice { keep: true, enter: true };
        let found = self.tree.list(b"", &all)?;
        let mut found: Vec<_> = found.into_iter().map(|it| it.path).collect();
        found.sort();
        Ok(found)
    }
}

impl Session {
    /// Returns the time of a source, for a `SOURCE_DATE_EPOCH` that names one: that of the commit, of `Last-Modified`, or of
    /// the newest file of an archive. Folders have none.
    ///
    /// # Errors
    ///
    /// It cannot be fetched.
    pub fn source_time(&self, source: &Source) -> Result<Option<i64>, ExecutorError> {
        Ok(match source {
            Source::Git(git) => Context::git(self, git)?.time,
            Source::Http(http) => Context::http(self, http)?.time,
            Source::Local(name) => self.contexts.get(name).and_then(|it| it.time),
            Source::Scratch | Source::Image(_) | Source::Step(_) => None,
        })
    }
}
