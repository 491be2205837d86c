//! Downloads, against a web server of this process.

mod server;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use executor::{Context, ExecutorError, Secret, Session};
use planner::plan::HttpSource;
use server::{Answer, Home, Server};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn source(url: &str, checksum: Option<&str>) -> HttpSource {
    HttpSource {
        url: url.to_owned(),
        filename: "file".to_owned(),
        checksum: checksum.map(str::to_owned),
    }
}

fn read(session: &Session, http: &HttpSource) -> Result<Vec<u8>, ExecutorError> {
    let context = Context::http(session, http)?;
    Ok(context.read_file("file", 1 << 20)?.unwrap_or_default())
}

#[test]
fn the_next_build_asks_whether_there_is_anything_new() {
    let server = Server::start(|request| match request.header("if-none-match") {
        Some("\"a\"") => Answer::new(304, ""),
        _ => Answer::new(200, "hello")
            .with("ETag", "\"a\"")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    });
    let home = Home::new();
    let http = source(&server.url("/dir/x"), None);
    assert_eq!(read(&home.session(), &http).expect("it is there"), b"hello");
    assert_eq!(read(&home.session(), &http).expect("it is known"), b"hello");
    let asked: Vec<_> =
        server.requests().iter().map(|it| it.header("if-none-match").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("\"a\"".to_owned())]);
}

#[test]
fn new_content_is_taken_also_from_a_server_that_knows_no_conditions() {
    let is_new = AtomicBool::new(false);
    let server = Server::start(move |_| match is_new.swap(true, Ordering::SeqCst) {
        false => Answer::new(200, "old").with("ETag", "W/\"a\""),
        true => Answer::new(200, "new").with("ETag", "\"b\""),
    });
    let home = Home::new();
    let http = source(&server.url("/x"), None);
    assert_eq!(read(&home.session(), &http).expect("it is there"), b"old");
    assert_eq!(read(&home.session(), &http).expect("it is there"), b"new");
}

#[test]
fn one_build_asks_once() {
    let server = Server::start(|_| Answer::new(200, "hello"));
    let home = Home::new();
    let session = home.session();
    for _ in 0..3 {
        read(&session, &source(&server.url("/x"), None)).expect("it is there");
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_file_with_a_checksum_is_not_asked_for_again() {
    let server = Server::start(|_| Answer::new(200, "hello"));
    let home = Home::new();
    let http = source(&server.url("/x"), Some(HELLO));
    read(&home.session(), &http).expect("the checksum is right");
    drop(server);
    assert_eq!(read(&home.session(), &http).expect("it is known"), b"hello");
}

#[test]
fn a_wrong_checksum_is_refused_and_nothing_kept() {
    let server = Server::start(|_| Answer::new(200, "other"));
    let home = Home::new();
    let http = source(&server.url("/x"), Some(HELLO));
    for _ in 0..2 {
        let error = read(&home.session(), &http).expect_err("the checksum is wrong");
        assert_eq!(error.code(), "checksum-mismatch");
        assert!(error.to_string().contains(HELLO), "{error}");
    }
    assert_eq!(server.requests().len(), 2);
    assert!(home.session().store.layers().expect("the store is good").is_empty());
}

#[test]
fn what_was_packed_for_the_way_is_unpacked() {
    // `hello`, as gzip writes it.
    let packed = [
        31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 203, 72, 205, 201, 201, 7, 0, 134, 166, 16, 54, 5, 0, 0, 0,
    ];
    let server = Server::start(move |_| Answer::new(200, packed).with("Content-Encoding", "gzip"));
    let home = Home::new();
    assert_eq!(
        read(&home.session(), &source(&server.url("/x"), Some(HELLO))).expect("it is right"),
        b"hello"
    );
}

#[test]
fn refusals_name_address_and_status_but_no_password() {
    let server = Server::start(|_| Answer::new(404, "gone"));
    let home = Home::new();
    let url = server.url("/x").replace("http://", "http://me:secret@");
    let error =
        read(&home.session(), &source(&url, None)).expect_err("it is not there").to_string();
    assert!(error.contains("404") && error.contains(&server.url("/x")), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(server.requests().len(), 1, "what is not there is not asked for again");
}

#[test]
fn a_server_that_fails_is_asked_again() {
    let failed = AtomicBool::new(false);
    let server = Server::start(move |_| match failed.swap(true, Ordering::SeqCst) {
        false => Answer::new(503, ""),
        true => Answer::new(200, "hello"),
    });
    let home = Home::new();
    assert_eq!(
        read(&home.session(), &source(&server.url("/x"), None)).expect("the second time"),
        b"hello"
    );
}

#[test]
fn redirects_stay_on_the_web_and_end() {
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/x", "unix:/run/x", "/again"] {
        let server = Server::start(move |_| Answer::new(302, "").with("Location", to));
        let home = Home::new();
        let error =
            read(&home.session(), &source(&server.url("/x"), None)).expect_err("it leads nowhere");
        assert!(error.to_string().contains("redirected"), "{error}");
    }
}

#[test]
fn a_credential_stays_with_its_origin() {
    let other = Server::start(|_| Answer::new(200, "hello"));
    let location = other.url("/y");
    let server = Server::start(move |_| Answer::new(307, "").with("Location", &location));
    let home = Home::new();
    let mut session = home.session();
    session
        .secrets
        .insert("HTTP_AUTH_TOKEN_127.0.0.1".to_owned(), Secret::Value(b"secret\n".to_vec()));
    assert_eq!(read(&session, &source(&server.url("/x"), None)).expect("it is there"), b"hello");
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[test]
fn a_download_can_be_stopped() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |_| {
        // Silent until the test is over.
        let _ = receiver.recv();
        Answer::new(200, "late")
    });
    let home = Home::new();
    let session = home.session();
    let cancel = session.cancel.clone();
    let http = source(&server.url("/x"), None);
    std::thread::scope(|scope| {
        let download = scope.spawn(|| read(&session, &http).map(|_| ()));
        while server.requests().is_empty() {
            std::thread::yield_now();
        }
        cancel.cancel();
        let error = download.join().expect("it does not panic").expect_err("it was stopped");
        assert!(matches!(error, ExecutorError::Canceled), "{error}");
    });
    drop(sender);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    const CONTENT: &[u8] = b"0123456789";
    let part = |start: usize| {
        Answer::new(206, &CONTENT[start..])
            .with("Content-Range", &format!("bytes {start}-9/10"))
            .with("ETag", "\"v1\"")
    };
    let first = || Answer::new(200, CONTENT).with("ETag", "\"v1\"");
    // A server that has the rest, one that has something else by now, and two that know no ranges.
    let cases: [(&str, &'static [u8]); 4] =
        [("rest", CONTENT), ("changed", b"abcdef"), ("whole", CONTENT), ("weak", CONTENT)];
    for (case, expected) in cases {
        let server = Server::start(move |request| match (case, request.header("range")) {
            ("weak", None) => {
                static N_ASKED: AtomicU32 = AtomicU32::new(0);
                match N_ASKED.fetch_add(1, Ordering::SeqCst) {
                    0 => Answer::new(200, CONTENT).with("ETag", "W/\"v1\"").cut(4),
                    _ => Answer::new(200, CONTENT).with("ETag", "W/\"v1\""),
                }
            }
            ("weak", _) => Answer::new(400, "a range of what is only alike"),
            (_, None) => first().cut(4),
            ("rest", Some("bytes=4-")) => part(4).cut(3),
            ("rest", Some("bytes=7-")) => part(7),
            ("changed", _) => Answer::new(200, expected).with("ETag", "\"v2\""),
            ("whole", _) => first(),
            (_, Some(range)) => panic!("{case}: {range}"),
        });
        let home = Home::new();
        let found = read(&home.session(), &source(&server.url("/file"), None)).expect("it is read");
        assert_eq!(found, expected, "{case}");
        let asked = server.requests();
        assert_eq!(asked.len(), if case == "rest" { 3 } else { 2 }, "{case}");
        let is_conditional = asked
            .iter()
            .skip(1)
            .all(|it| it.header("range").is_none() || it.header("if-range") == Some("\"v1\""));
        assert!(is_conditional, "{case}");
    }
}
