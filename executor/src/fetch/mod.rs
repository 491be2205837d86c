//! Trees that come from the network: git repositories and files.
//!
//! What was fetched is a layer of the store, remembered by a step record, so that it is read like any other layer and
//! collected like one. In one build, each source is asked for once: all steps see the same.

mod commit;
mod files;
mod git;
mod http;
mod program;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cache::{StepKey, StepRecord};
use image::{DiffId, layer::LayerIndex};
use planner::plan::{GitSource, HttpSource, Source};
use registry::{Limits, WebClients};
use serde_json::Value;

use crate::{
    error::ExecutorError,
    session::{Session, Task},
    time::Timestamp,
    tree::{Chain, Layers, Tree},
};

/// What this build has fetched so far, and what it fetches with.
pub(crate) struct Fetches {
    web: WebClients,
    done: Mutex<HashMap<String, Slot>>,
}

/// One source; locked while it is fetched.
type Slot = Arc<Mutex<Option<Fetched>>>;

/// A source that was fetched.
#[derive(Clone)]
pub(crate) struct Fetched {
    /// Its files.
    pub(crate) tree: Tree,
    /// When they were made, in seconds since 1970: the time of the commit, or what the server says.
    pub(crate) time: Option<i64>,
    /// The commit, or the digest of the file.
    pub(crate) id: Option<String>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { web: WebClients::new(Limits::default()), done: Mutex::default() }
    }
}

impl Fetches {
    /// The commit, or the digest of the file, that this build found at a source; nothing if it did not look.
    pub(crate) fn id_of(&self, source: &Source) -> Option<String> {
        let key = match source {
            Source::Git(git) => format!("{git:?}"),
            Source::Http(http) => format!("{http:?}"),
            _ => return None,
        };
        let slot = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&key)?.clone();
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref()?.id.clone()
    }

    fn once(
        &self,
        key: String,
        fetch: impl FnOnce() -> Result<Fetched, ExecutorError>,
    ) -> Result<Fetched, ExecutorError> {
        let slot = self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*slot {
            return Ok(known.clone());
        }
        let fetched = fetch()?;
        *slot = Some(fetched.clone());
        Ok(fetched)
    }
}

/// A repository at a commit, checked out.
pub(crate) fn git(
    session: &Session,
    git: &GitSource,
    task: &Task<'_>,
) -> Result<Fetched, ExecutorError> {
    session.fetches.once(format!("{git:?}"), || git::fetch(session, git, task))
}

/// A folder with one file in it, downloaded.
pub(crate) fn http(
    session: &Session,
    http: &HttpSource,
    task: &Task<'_>,
) -> Result<Fetched, ExecutorError> {
    session.fetches.once(format!("{http:?}"), || http::fetch(session, http, task))
}

/// The files of [`git`].
pub(crate) fn git_tree(
    session: &Session,
    source: &GitSource,
    task: &Task<'_>,
) -> Result<Tree, ExecutorError> {
    Ok(git(session, source, task)?.tree)
}

/// The files of [`http`].
pub(crate) fn http_tree(
    session: &Session,
    source: &HttpSource,
    task: &Task<'_>,
) -> Result<Tree, ExecutorError> {
    Ok(http(session, source, task)?.tree)
}

/// What a record remembers beside the layer.
const TIME: &str = "time";
/// The digest of a file, in a record.
const DIGEST: &str = "digest";
/// The commit of a checkout, in a key.
const COMMIT: &str = "commit";

/// Returns what a record of an earlier fetch stands for.
fn recorded(session: &Session, record: &StepRecord) -> Result<Fetched, ExecutorError> {
    let tree = match record.layer {
        None => Tree::Empty,
        Some(layer) => layer_tree(session, layer)?,
    };
    let text = |name| record.recipe.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Fetched {
        tree,
        time: record.recipe.get(TIME).and_then(Value::as_i64),
        id: text(DIGEST).or_else(|| text(COMMIT)),
    })
}

fn layer_tree(session: &Session, layer: DiffId) -> Result<Tree, ExecutorError> {
    Ok(Tree::Layers(Arc::new(Layers::open(&session.store, &Chain::new(&[layer]))?)))
}

/// Stores a layer that was written, unless nothing is in it.
fn put_layer(
    session: &Session,
    written: (cache::StagedBlob, LayerIndex),
) -> Result<Option<DiffId>, ExecutorError> {
    let (staged, index) = written;
    if index.changes.is_empty() {
        return Ok(None);
    }
    session.store.put_tar(staged, &index)?;
    Ok(Some(index.diff_id))
}

/// Remembers what was fetched; `notes` go into the recipe, which is not part of the key.
fn record(
    session: &Session,
    key: (StepKey, Value),
    description: String,
    layer: Option<DiffId>,
    notes: &[(&str, Value)],
) -> Result<StepRecord, ExecutorError> {
    let (key, mut recipe) = key;
    if let Value::Object(fields) = &mut recipe {
        fields.extend(notes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    let record = StepRecord {
        key,
        parent: None,
        layer,
        same_as: None,
        description,
        recipe,
        created: u64::try_from(Timestamp::now().secs).unwrap_or(0),
        duration_ms: 0,
        last_used: 0,
    };
    session.store.put_step(&record)?;
    Ok(record)
}

/// Returns a secret as text without the line end that editors put behind it. It becomes a line of a header, so it is one.
fn secret(session: &Session, id: &str) -> Result<Option<String>, ExecutorError> {
    let Some(bytes) = session.secret(id)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        Ok(text) if !text.trim_end_matches(['\r', '\n']).contains(char::is_control) => {
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        _ => Err(ExecutorError::Unsupported {
            message: format!("secret `{id}` is not one line of text"),
            hint: "give nothing but the token or the header".to_owned(),
        }),
    }
}

/// Returns an address without the name and password in it.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let n_authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(n_authority);
    match authority.rsplit_once('@') {
        // The name that SSH logs in with is no secret, and the address is none without it.
        Some((user, _)) if scheme == "ssh" && !user.contains(':') => url.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_credentials() {
        for (url, shown) in [
            ("https://user:pass@host:81/a@b?x=y", "https://host:81/a@b?x=y"),
            ("https://host/a@b", "https://host/a@b"),
            ("https://us@er:pa@ss@host", "https://host"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("ssh://git:pass@host/x", "ssh://host/x"),
            ("git@host:x", "git@host:x"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
