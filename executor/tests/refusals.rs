//! What ends a build, each with its code: what needs no command line to be shown.

use std::fs;

use executor::{Context, ExecutorError, Secret, Session};
use planner::{facts::Facts, plan::Plan, request::Request};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn session(&self) -> Session {
        let store = cache::Store::open(&self.0.path().join("store")).expect("a store");
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
fn refused(session: &Session, text: &str) -> ExecutorError {
    let built = session.build(&[plan(text)], &Facts::default());
    *built.expect_err("it is refused").source
}

#[test]
fn a_stopped_build_begins_nothing() {
    let home = Home::new();
    let session = home.session();
    session.cancel.cancel();
    assert_eq!(refused(&session, "FROM scratch\nCOPY <<a /\na\n").code(), "canceled");
    assert_eq!(session.store.steps().expect("they can be listed"), []);
}

#[test]
fn an_archive_must_be_one() {
    let home = Home::new();
    let session = home.session();
    let cut_off = [b"a".as_slice(), &[0; 99], b"0000644\0", &[b'x'; 600]].concat();
    for bytes in [&cut_off[..], b"\x1f\x8b\x08nothing", b"BZh9nothing"] {
        let error = Context::archive(&session, bytes).err().expect("it is refused");
        assert_eq!(error.code(), "bad-archive", "{error}");
    }
}

#[test]
fn a_context_must_be_named_and_be_a_folder() {
    let home = Home::new();
    let session = home.session();
    assert_eq!(refused(&session, "FROM scratch\nCOPY a /\n").code(), "no-context");
    let missing = Context::folder(&session, &home.0.path().join("missing"), Vec::new());
    assert_eq!(missing.err().expect("it is refused").code(), "no-context");
}

#[test]
fn secrets_are_small() {
    let home = Home::new();
    let mut session = home.session();
    let path = home.0.path().join("secret");
    fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
    session.secrets.insert("token".to_owned(), Secret::File(path));
    let error = refused(&session, "FROM scratch\nRUN --mount=type=secret,id=token [\"/x\"]\n");
    assert_eq!(error.code(), "unsupported", "{error}");
    assert!(error.hint().is_some());
}
