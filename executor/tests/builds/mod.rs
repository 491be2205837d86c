//! Builds of Dockerfiles without base images, in a store of their own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;

use executor::{Built, ExecutorError, Session};
use planner::{facts::Facts, plan::Plan, request::Request};

/// A folder with a store in it.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn session(&self) -> Session {
        let store = cache::Store::open(&self.path("store")).expect("a store");
        let credentials = registry::Credentials::none();
        Session::new(store, registry::Client::new(registry::Config::default(), credentials))
    }
}

fn plan(text: &str) -> Plan {
    let (dockerfile, diagnostics) = parser::parse(text);
    assert_eq!(diagnostics, []);
    let graph = planner::stages(&dockerfile, &Request::default()).expect("it has stages");
    planner::plan(&graph, &Facts::default()).expect("it has a plan")
}

/// Builds, and returns how the first failed step failed.
pub(crate) fn build(session: &Session, text: &str) -> Result<Vec<Built>, ExecutorError> {
    session.build(&[plan(text)], &Facts::default()).map_err(|error| *error.source)
}

/// How a build fails that must fail.
pub(crate) fn refused(session: &Session, text: &str) -> ExecutorError {
    build(session, text).expect_err("it is refused")
}
