//! Trees that come from the network: git repositories and files.

use planner::plan::{GitSource, HttpSource};

use crate::{
    error::ExecutorError,
    session::{Session, Task},
    tree::Tree,
};

/// A repository at a commit, checked out.
pub(crate) fn git_tree(_session: &Session, git: &GitSource, _task: &Task<'_>) -> Result<Tree, ExecutorError> {
    Err(ExecutorError::Unsupported {
        message: format!("git sources are not there yet: `{}`", git.url.remote),
        hint: "clone it before the build, or in a RUN".to_owned(),
    })
}

/// A folder with one file in it, downloaded.
pub(crate) fn http_tree(_session: &Session, http: &HttpSource, _task: &Task<'_>) -> Result<Tree, ExecutorError> {
    Err(ExecutorError::Unsupported {
        message: format!("URLs are not there yet: `{}`", http.url),
        hint: "download it before the build, or in a RUN".to_owned(),
    })
}
