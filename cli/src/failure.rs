//! Why a command ended early: an error, a hint, and the exit status that follows.

use std::fmt::Display;

use cache::StoreError;

use crate::{exit::Exit, print};

/// The end of a command that did not get to its end.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// What to say; `None` if it has been said.
    error: Option<anyhow::Error>,
    /// What to do about it.
    hint: Option<String>,
    /// What to say instead, as it is: a mistake shown with its place.
    text: Option<String>,
}

/// What commands return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// What the user wrote is wrong.
    pub fn input(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Input, error: Some(error.into()), hint: None, text: None }
    }

    /// The work failed. What the store says to do about it is the hint, unless another one is given.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let of_store = error.chain().find_map(|it| it.downcast_ref::<StoreError>());
        let hint = of_store.and_then(StoreError::hint).map(str::to_owned);
        Self { exit: Exit::Failed, error: Some(error), hint, text: None }
    }

    /// The user has seen what is wrong.
    pub fn shown(exit: Exit) -> Self {
        Self { exit, error: None, hint: None, text: None }
    }

    /// Something that is written out already.
    pub fn rendered(text: String, exit: Exit) -> Self {
        Self { text: Some(text), ..Self::shown(exit) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Ends with another status.
    #[must_use]
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Writes it to standard error.
    pub fn show(&self) {
        if let Some(text) = &self.text {
            print::err(text);
        }
        if let Some(error) = &self.error {
            let hint = self.hint.clone().or_else(|| hint_of(error));
            let hint = hint.map(|it| format!("hint: {it}\n")).unwrap_or_default();
            print::err(&format!("error: {error:#}\n{hint}"));
        }
    }
}

/// What an error of the crates below knows to do about it, if nothing was said here.
fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|it| {
        let store = it.downcast_ref::<cache::StoreError>().and_then(cache::StoreError::hint);
        let sandbox = || it.downcast_ref::<sandbox::SandboxError>().and_then(|it| it.hint());
        let runtime = || it.downcast_ref::<runtime::RuntimeError>().and_then(|it| it.hint());
        let short = store.or_else(sandbox).or_else(runtime).map(str::to_owned);
        let registry = || it.downcast_ref::<registry::Error>().and_then(registry::Error::hint);
        let executor =
            || it.downcast_ref::<executor::ExecutorError>().and_then(executor::ExecutorError::hint);
        short.or_else(registry).or_else(executor)
    })
}

/// Says for an error what kind of failure it is.
pub trait OrFail<T> {
    /// The user's input is wrong.
    ///
    /// # Errors
    ///
    /// Returns the error as a [`Failure`].
    fn or_input(self) -> Result<T>;

    /// The work failed.
    ///
    /// # Errors
    ///
    /// Returns the error as a [`Failure`].
    fn or_failed(self) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for std::result::Result<T, E> {
    fn or_input(self) -> Result<T> {
        self.map_err(Failure::input)
    }

    fn or_failed(self) -> Result<T> {
        self.map_err(Failure::failed)
    }
}
