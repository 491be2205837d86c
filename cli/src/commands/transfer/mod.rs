//! Images in and out of the store.
//!
//! 1. [`blobs`] — the store as the registry crate sees it.
//! 2. [`record`] — from documents that are in the store to an image of the store.
//! 3. [`export`] — from an image of the store to documents that can leave.
//! 4. [`display`] — what is shown while layers move.
//! 5. [`load`], [`save`], [`pull`], [`push`] — the commands.

pub mod blobs;
pub mod display;
pub mod export;
pub mod load;
pub mod pull;
pub mod push;
pub mod record;
pub mod save;

use executor::{ExecutorError, Session, event::Listener};
use image::ImageRef;
use registry::{Client, Credentials};

use super::Globals;
use crate::failure::{Failure, OrFail, Result};

/// Makes what moves images: the store and a client for registries.
///
/// # Errors
///
/// Fails where the configuration or the store cannot be read.
pub fn session(globals: &Globals, listener: Listener) -> Result<Session> {
    let config = globals.config()?;
    let store = globals.store_of(&config)?;
    let credentials = Credentials::from_environment(|name| std::env::var_os(name));
    let mut session = Session::new(store, Client::new(config.registries(), credentials));
    session.listener = listener;
    Ok(session)
}

/// Reads a name, and says of one that cannot be one what is wrong.
///
/// # Errors
///
/// Fails where it cannot be a name.
pub fn name(text: &str) -> Result<ImageRef> {
    use anyhow::Context;
    ImageRef::parse(text).with_context(|| format!("`{text}` cannot be a name")).or_input()
}

/// Says what went wrong in the executor, and what to do about it.
pub fn failed(error: ExecutorError) -> Failure {
    let hint = error.hint();
    let failure = Failure::failed(anyhow::anyhow!("{}", executor::message(&error)));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
