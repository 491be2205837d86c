//! What ends a build before anything runs, each with its code.

mod builds;

use builds::{Home, refused};
use executor::Context;

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
    let missing = Context::folder(&session, &home.path("missing"), Vec::new());
    assert_eq!(missing.err().expect("it is refused").code(), "no-context");
}
