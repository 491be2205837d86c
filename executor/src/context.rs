//! Build contexts: a folder, nothing, an archive, or something from the network.

use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use planner::plan::{GitSource, HttpSource};

use crate::{
    copy,
    error::ExecutorError,
    session::Session,
    tree::{Chain, Folder, Layers, Tree},
};

/// A tree of files that COPY may name.
#[derive(Clone)]
pub struct Context {
    pub(crate) tree: Tree,
}

impl Context {
    /// A context without files.
    pub fn empty() -> Self {
        Self { tree: Tree::Empty }
    }

    /// A folder; `patterns` are those of its ignore file. What was hashed in an earlier build is remembered by `session`.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::OpenContext`] and [`ExecutorError::BadPattern`].
    pub fn folder(
        session: &Session,
        path: &Path,
        patterns: Vec<String>,
    ) -> Result<Self, ExecutorError> {
        let path = path
            .canonicalize()
            .map_err(|source| ExecutorError::OpenContext { path: path.to_owned(), source })?;
        let cache = session.store.load_stat_cache(&path)?;
        let folder = Folder::open_root(&path, patterns, cache.as_deref())?;
        Ok(Self { tree: Tree::Folder(Arc::new(folder)) })
    }

    /// An archive, plain or compressed, read to its end and kept in the store as a layer. Owners are those of the archive.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::BadArchive`], or the store fails.
    pub fn archive(session: &Session, input: impl Read + Send) -> Result<Self, ExecutorError> {
        let bad = |source: io::Error| ExecutorError::BadArchive { message: source.to_string() };
        let (_, plain) =
            image::compress::decompress(BufReader::with_capacity(1 << 16, input)).map_err(bad)?;
        let (staged, index) = copy::write_archive(plain, session.store.stage_blob()?)?;
        if index.changes.is_empty() {
            return Ok(Self::empty());
        }
        session.store.put_tar(staged, &index)?;
        let layers = Layers::open(&session.store, &Chain::new(vec![index.diff_id]))?;
        Ok(Self { tree: Tree::Layers(Arc::new(layers)) })
    }

    /// A git repository.
    ///
    /// # Errors
    ///
    /// It cannot be fetched.
    pub fn git(session: &Session, git: &GitSource) -> Result<Self, ExecutorError> {
        let task = session.task(format!("[internal] load git source {}", git.url.remote));
        let result = crate::fetch::git_tree(session, git, &task);
        Ok(Self { tree: task.end(result)? })
    }

    /// A file from the network: an archive is unpacked, anything else is the only file, named `context`.
    ///
    /// # Errors
    ///
    /// It cannot be fetched, or is a broken archive.
    pub fn http(session: &Session, http: &HttpSource) -> Result<Self, ExecutorError> {
        let task = session.task(format!("[internal] load remote build context {}", http.url));
        let result = crate::fetch::http_tree(session, http, &task).and_then(|tree| {
            let path = http.filename.as_bytes();
            match copy::is_archive(&tree, path)? {
                true => Self::archive(session, tree.open(path)?),
                false => Ok(Self { tree }),
            }
        });
        task.end(result)
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

    /// The paths of all files, folders and links that COPY can see, in order.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn paths(&self) -> Result<Vec<Vec<u8>>, ExecutorError> {
        let mut found = Vec::new();
        let mut todo = vec![Vec::new()];
        while let Some(folder) = todo.pop() {
            for (name, node) in self.tree.children(&folder)?.into_iter() {
                let path = crate::tree::join(&folder, &name);
                if node.is_dir() {
                    todo.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}
