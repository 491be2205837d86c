//! C: what can be said of COPY and ADD before files are looked at.

use planner::{
    mode::Mode,
    plan::{CopyItem, CopyOp, Source},
};

use crate::ask::*;

fn copy(line: &str) -> CopyOp {
    let plan = plan(&format!("FROM busybox AS stage\nFROM scratch\nENV V=v\nWORKDIR /w\n{line}\n"));
    copies(&plan)[0].clone()
}

/// The cleaned paths of the sources.
fn paths(op: &CopyOp) -> Vec<&str> {
    op.items
        .iter()
        .map(|it| match it {
            CopyItem::Paths { path, .. } => &**path,
            CopyItem::Inline { name, .. } => name,
        })
        .collect()
}

fn wrong(line: &str) -> Vec<&'static str> {
    mistakes(&format!("FROM scratch\n{line}\n"))
}

#[test]
fn c1_paths_are_cleaned_and_stay_inside() {
    let op = copy("COPY ../../a ./b/../c/ /d \"e\" x$V /to//the/./end/");
    assert_eq!(paths(&op), ["/a", "/c", "/d", "/e", "/xv"]);
    assert_eq!(op.dest, "/to/the/end/");
    for (dest, expected) in [
        ("d", "/w/d"),
        ("d/", "/w/d/"),
        (".", "/w/"),
        ("./", "/w/"),
        ("..", "/"),
        ("/d/.", "/d/"),
        ("/", "/"),
    ] {
        assert_eq!(copy(&format!("COPY a {dest}")).dest, expected, "{dest}");
    }
    assert_eq!(copy("COPY [\"a b\", \"ü/\"]").dest, "/w/ü/");
}

#[test]
fn c8_chown_is_expanded_and_kept_as_text() {
    assert_eq!(copy("COPY --chown=$V:7 a b").chown.as_deref(), Some("v:7"));
    assert_eq!(copy("ADD --chown=${V}x a b").chown.as_deref(), Some("vx"));
}

#[test]
fn c9_chmod_is_octal_or_symbolic() {
    assert_eq!(copy("COPY --chmod=1755 a b").chmod, Some(Mode::Octal(0o1755)));
    assert_eq!(copy("COPY --chmod=${V#v}644 a b").chmod, Some(Mode::Octal(0o644)));
    let mode = copy("COPY --chmod=u=rwX,go=rX a b").chmod.expect("a mode");
    for (old, is_dir, new) in
        [(0o600, false, 0o644), (0o700, false, 0o755), (0o700, true, 0o755), (0o100, true, 0o755)]
    {
        assert_eq!(mode.apply(old, is_dir), new, "{old:o}");
    }
    for (text, old, new) in
        [("g=u", 0o640, 0o660), ("a+x", 0o644, 0o755), ("o-r,u+s", 0o755, 0o4751)]
    {
        assert_eq!(Mode::parse(text).expect("a mode").apply(old, false), new, "{text}");
    }
    let message =
        |line: &str| errors_with(&format!("FROM scratch\n{line}\n"), |_| {})[0].to_string();
    let (number, text) = (message("COPY --chmod=0888 a b"), message("COPY --chmod=u+q a b"));
    assert!(number.contains("octal") && !text.contains("octal"), "{number}, {text}");
    assert_eq!(wrong("COPY --chmod=10000 a b"), ["invalid-chmod"]);
}

#[test]
fn c10_link_is_ignored_with_chmod() {
    assert!(copy("COPY --link a b").link);
    assert!(!copy("COPY --link --chmod=755 a b").link);
    let plan = plan("FROM busybox\nCOPY --link a /b\n");
    assert!(names(&plan)[0].contains("--link"), "{:?}", names(&plan));
}

#[test]
fn c11_parents_have_a_pivot() {
    let item = |line: &str| match copy(line).items.remove(0) {
        CopyItem::Paths { path, parents: Some(parents), .. } => {
            (path, parents.pattern, parents.required)
        }
        other => panic!("{other:?}"),
    };
    let tuple = |a: &str, b: &str, c: bool| (a.to_owned(), b.to_owned(), c);
    assert_eq!(item("COPY --parents a/b/c /d/"), tuple("/", "a/b/c", true));
    assert_eq!(item("COPY --parents a/./b/c /d/"), tuple("/a", "b/c", true));
    assert_eq!(item("COPY --parents a/**/*.c /d/"), tuple("/", "a/**/*.c", false));
}

#[test]
fn c12_exclude_repeats() {
    let op = copy("COPY --exclude=*.o --exclude=!keep.o a b/");
    assert_eq!(op.excludes, ["*.o", "!keep.o"]);
    assert_eq!(copy("ADD --exclude=$V a b/").excludes, ["v"]);
}

#[test]
fn c13_from_is_a_stage_an_index_or_an_image() {
    let source = |line: &str| match copy(line).items.remove(0) {
        CopyItem::Paths { source, .. } => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(source("COPY --from=STAGE a b"), Source::Image(0));
    assert_eq!(source("COPY --from=0 a b"), Source::Image(0));
    assert_eq!(source("COPY a b"), Source::Local("context".to_owned()));
    assert!(!wrong("COPY --from=$x a b").is_empty());
    assert_eq!(wrong("COPY https://example.com/a /b"), ["remote-copy"]);
    assert_eq!(wrong("COPY https://example.com/a.git /b"), ["remote-copy"]);
}

#[test]
fn c16_names_of_downloads() {
    let name = |url: &str| match copy(&format!("ADD {url} /d/")).items.remove(0) {
        CopyItem::Paths { source: Source::Http(http), unpack, .. } => {
            assert!(!unpack, "a download is not unpacked");
            http.filename
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(name("https://example.com/a/b.tar.gz?x=y"), "b.tar.gz");
    assert_eq!(name("https://example.com/"), "__unnamed__");
    assert_eq!(name("https://example.com/a%2Fb%20c?x=%2F"), "b c", "decoded, then split");
    assert_eq!(name("https://example.com/a/%2e%2e/"), "__unnamed__");
    assert_eq!(name("https://example.com/a%+5"), "__unnamed__", "no escape");
    assert!(matches!(
        copy("ADD --unpack=true https://example.com/a.tar /d/").items[0],
        CopyItem::Paths { unpack: true, .. }
    ));
}

#[test]
fn c18_checksums_need_one_remote_source() {
    let sum = format!("sha256:{}", "0".repeat(64));
    let op = copy(&format!("ADD --checksum={sum} https://example.com/a /b"));
    assert!(matches!(&op.items[0], CopyItem::Paths { source: Source::Http(http), .. }
        if http.checksum.as_deref() == Some(&*sum)));
    assert_eq!(wrong(&format!("COPY --checksum={sum} a b")), ["unknown-flag"]);
    assert_eq!(wrong(&format!("ADD --checksum={sum} a b")), ["checksum-source"]);
    assert_eq!(
        wrong(&format!("ADD --checksum={sum} https://a.b/c https://a.b/d /e/")),
        ["checksum-source"]
    );
    assert_eq!(wrong("ADD --checksum=md5 https://a.b/c /d"), ["invalid-checksum"]);
    // What a variable stands for is checked as well.
    assert_eq!(wrong(&format!("ARG F=local\nADD --checksum={sum} $F /d")), ["checksum-source"]);
    assert_eq!(wrong("ARG U=https://a.b/c\nADD --checksum=md5 $U /d"), ["invalid-checksum"]);
    let op = copy("ADD --checksum=0123456 https://example.com/a.git /b");
    assert!(matches!(&op.items[0], CopyItem::Paths { source: Source::Git(git), .. }
        if git.checksum.as_deref() == Some("0123456")));
}

#[test]
fn c19_git_addresses() {
    let git = |text: &str| match copy(&format!("ADD {text} /d/")).items.remove(0) {
        CopyItem::Paths { source: Source::Git(git), .. } => git,
        other => panic!("{text}: {other:?}"),
    };
    for text in [
        "git@a.b:c/d.git",
        "ssh://git@a.b/c",
        "git://a.b/c",
        "https://a.b/c.git",
        "http://a.b/c.git",
    ] {
        assert_eq!(git(text).url.reference, "", "{text}");
    }
    let it = git("https://a.b/c.git#v1:sub/dir");
    assert_eq!((&*it.url.reference, &*it.url.subdir), ("v1", "sub/dir"));
    let it = git("https://a.b/c.git?branch=main&subdir=x&keep-git-dir=true&submodules=false");
    assert_eq!(
        (&*it.url.reference, &*it.url.subdir, it.url.submodules),
        ("refs/heads/main", "x", Some(false))
    );
    assert!(it.keep_git_dir);
    assert!(git("--keep-git-dir=true https://a.b/c.git").keep_git_dir);
    // `github.com/…` is a repository as a context only.
    let op = copy("ADD github.com/a/b /d/");
    assert_eq!(paths(&op), ["/github.com/a/b"]);
    assert_eq!(wrong("ADD --keep-git-dir=true a /b"), ["git-only-flag"]);
    assert_eq!(
        wrong("ADD --keep-git-dir=true https://a.b/c.git?keep-git-dir=false /d"),
        ["git-conflict"]
    );
}

#[test]
fn c22_a_source_that_is_ignored_is_linted() {
    let text =
        "FROM scratch\nCOPY secret.txt /\nADD a/b /\nCOPY --from=busybox secret.txt /\nCOPY . /\n";
    let found = findings(&lint_with(text, |_| {}, &["*.txt", "a"]));
    assert_eq!(found, ["2 CopyIgnoredFile", "3 CopyIgnoredFile"]);
}
