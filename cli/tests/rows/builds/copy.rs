//! C: files of a context and of stages.

use std::{fs, os::unix::fs::chown};

use rustix::fs::{Mode, XattrFlags, mknodat, setxattr};

use crate::kiln::*;

#[test]
fn p13_heredocs_are_files() {
    let kiln = Kiln::new();
    kiln.write("file", "x");
    let built = kiln.build(concat!(
        "FROM box\nENV A=b\nCOPY <<one file /d/\n\"$A\"\none\n",
        "COPY --chown=user --chmod=0700 <<'two' /two\n$A\ntwo\n",
    ));
    assert_eq!(built.at("d/one"), "0644 0:0 \"b\"");
    assert_eq!(built.at("d/file"), "0644 0:0 x");
    assert_eq!(built.at("two"), "0700 1000:1001 $A");
}

#[test]
fn c1_paths_never_leave_the_context() {
    let kiln = Kiln::new();
    kiln.write("a/b/file", "inside");
    fs::write(kiln.path("outside"), "outside").expect("written");
    kiln.symlink("../outside", "up");
    kiln.symlink("/a/b", "absolute");
    let built = kiln.build("FROM scratch\nCOPY ../../a/b/file /one\nCOPY /a/./b/../b/file /two\nCOPY absolute/file /three\nWORKDIR /w\nCOPY a/b/file d/\nCOPY [\"a/b/file\", \"ü x\"]\n");
    assert_eq!(built.text("one"), "inside");
    assert_eq!(built.text("two"), "inside");
    assert_eq!(built.text("three"), "inside");
    assert_eq!(built.text("w/d/file"), "inside");
    assert_eq!(built.text("w/ü x"), "inside");
    let log = kiln.fails("FROM scratch\nCOPY up /x\n", &[]);
    assert!(log.contains("up") && !log.contains("outside\""), "{log}");
    kiln.fails("FROM scratch\nCOPY a/b/file up /x\n", &[]);
}

#[test]
fn c2_folders_files_and_what_stands_in_the_way() {
    let kiln = Kiln::new();
    kiln.write("folder/sub/file", "x");
    kiln.mode("folder", 0o700);
    kiln.mode("folder/sub", 0o711);
    let built = kiln.build("FROM box\nCOPY folder /new/deep\nCOPY folder/sub/file /dir\nCOPY folder/sub/file /as\nCOPY folder/sub/file /link/through\n");
    assert_eq!(built.at("new"), "d 0755 0:0");
    assert_eq!(built.at("new/deep"), "d 0755 0:0", "the folder itself brings no mode");
    assert_eq!(built.at("new/deep/sub"), "d 0711 0:0");
    assert_eq!(built.at("dir/file"), "0644 0:0 x", "into an existing folder");
    assert_eq!(built.at("as"), "0644 0:0 x");
    assert_eq!(built.at("dir/through"), "0644 0:0 x", "links of the destination are followed");
    assert_eq!(built.at("link"), "-> dir");
    kiln.fails("FROM box\nCOPY folder/sub/file /x\nCOPY folder /x\n", &[]);
    kiln.write("named/dir", "a file");
    kiln.fails("FROM box\nCOPY named /\n", &[]);
}

#[test]
fn c3_an_existing_destination_keeps_what_it_is() {
    let kiln = Kiln::new();
    kiln.write("src/sub/new", "x");
    kiln.mode("src/sub", 0o700);
    let built = kiln.build("FROM box\nRUN mkdir -m 0777 /dir/sub && chown 9:9 /dir/sub && touch -d @1000 /dir\nCOPY src /dir/\n");
    assert_eq!(built.at("dir"), "d 0750 5:6");
    assert_eq!(built.mtime("dir").secs, 1000);
    assert_eq!(built.at("dir/sub"), "d 0700 0:0", "one inside is overwritten");
    let built = kiln.build("FROM box\nCOPY --chown=7:8 src /dir/\n");
    assert_eq!(built.at("dir"), "d 0750 5:6", "nor does --chown change it");
    assert_eq!(built.at("dir/sub/new"), "0644 7:8 x");
}

#[test]
fn c4_wildcards() {
    let kiln = Kiln::new();
    for name in ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt", "[x].txt"] {
        kiln.write(name, name);
    }
    let built = kiln.build("FROM scratch\nCOPY *.txt /one/\nCOPY d/?.txt /two/\nCOPY */e /three/\nCOPY none* /four/\nCOPY **/f.txt /five/\nCOPY [[]x].txt /six\n");
    assert_eq!(built.names("one"), ["[x].txt", "a.txt", "b.txt"]);
    assert_eq!(built.names("two"), ["c.txt"]);
    assert_eq!(built.names("three"), ["f.txt"]);
    assert!(built.names("five").is_empty(), "** is * here");
    assert_eq!(built.text("six"), "[x].txt");
    let log = kiln.fails("FROM scratch\nCOPY a.txt b.tx /d/\n", &[]);
    assert!(log.contains("b.tx"), "{log}");
    // A match that gets another name is another input.
    let text = "FROM scratch\nCOPY *.txt /one/\n";
    kiln.build(text);
    fs::rename(kiln.context("a.txt"), kiln.context("z.txt")).expect("renamed");
    let built = kiln.build(text);
    assert!(!built.cached("COPY *.txt"));
    assert_eq!(built.names("one"), ["[x].txt", "b.txt", "z.txt"]);
}

#[test]
fn c5_links_are_followed_as_sources_and_kept_inside() {
    let kiln = Kiln::new();
    kiln.write("real/file", "x");
    kiln.symlink("file", "real/inside");
    kiln.symlink("real", "one");
    kiln.symlink("one", "two");
    let built =
        kiln.build("FROM scratch\nCOPY two /d/\nCOPY two/inside /f\nCOPY real/inside /d2/\n");
    assert_eq!(built.at("d/inside"), "-> file");
    assert_eq!(built.at("d/file"), "0644 0:0 x");
    assert_eq!(built.at("f"), "0644 0:0 x");
    assert_eq!(built.at("d2/inside"), "0644 0:0 x");
    let built = kiln.build("FROM box AS a\nRUN mkdir /r && echo y > /r/f && ln -s /r /l && ln -s f /r/g\nFROM scratch\nCOPY --from=a /l/g /one\nCOPY --from=a /l /two\n");
    assert_eq!(built.text("one"), "y");
    assert_eq!(built.at("two/g"), "-> f");
}

#[test]
fn c6_special_files_links_and_attributes() {
    let kiln = Kiln::new();
    kiln.write("d/file", "x");
    kiln.mode("d/file", 0o4755);
    fs::hard_link(kiln.context("d/file"), kiln.context("d/more")).expect("linked");
    let mode = Mode::from_raw_mode(0o644);
    mknodat(rustix::fs::CWD, kiln.context("d/pipe"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("made");
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(kiln.context("d/file"), "security.capability", &capability, XattrFlags::empty())
        .expect("set");
    let touched = std::process::Command::new("touch")
        .args(["-d", "2001-02-03T04:05:06.123456789Z"])
        .arg(kiln.context("d/file"))
        .status()
        .expect("touch runs");
    assert!(touched.success());
    let built = kiln.build("FROM scratch\nCOPY d /d/\n");
    assert_eq!(built.at("d/file"), "4755 0:0 x");
    assert!(built.is_hardlink("d/more") || built.is_hardlink("d/file"));
    assert!(built.at("d/pipe").starts_with("p 0644"), "{}", built.at("d/pipe"));
    assert_eq!(built.xattr("d/file", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(built.mtime("d/file").secs, 981_173_106, "layers have whole seconds");
}

#[test]
fn c7_owners_of_a_context_and_of_a_stage() {
    let kiln = Kiln::new();
    kiln.write("d/file", "x");
    chown(kiln.context("d/file"), Some(77), Some(78)).expect("changed");
    chown(kiln.context("d"), Some(77), Some(78)).expect("changed");
    let built = kiln.build("FROM box AS a\nRUN mkdir /s /s/sub && touch /s/f && chown -R 5:6 /s\nFROM scratch\nCOPY d/file /f\nADD d /d/\nCOPY --from=a /s /s\nCOPY --from=a --chown=1:2 /s /t\nCOPY --from=a /s/f /g\n");
    assert_eq!(built.at("f"), "0644 0:0 x");
    assert_eq!(built.at("d/file"), "0644 0:0 x");
    assert_eq!(built.at("s/f"), "0644 5:6 ");
    assert_eq!(built.at("s/sub"), "d 0755 5:6");
    assert_eq!(built.at("s"), "d 0755 0:0");
    assert_eq!(built.at("g"), "0644 5:6 ");
    assert_eq!(built.at("t/f"), "0644 1:2 ");
}

#[test]
fn c8_chown_by_name() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    let built = kiln.build(concat!(
        "FROM box\nARG who=user\nCOPY --chown=user f /a\nCOPY --chown=$who:extra f /b\nCOPY --chown=5 f /c\nCOPY --chown=5:users f /d\n",
        "COPY --chown=user f /new/deep/e\nCOPY --chown=7 f /f7\nRUN echo 'late:x:50:51::/:/bin/sh' >> /etc/passwd\nCOPY --chown=late f /g\n",
    ));
    for (path, expected) in [
        ("a", "1000:1001"),
        ("b", "1000:2000"),
        ("c", "5:5"),
        ("d", "5:1001"),
        ("f7", "7:7"),
        ("g", "50:51"),
    ] {
        assert_eq!(built.at(path), format!("0644 {expected} x"), "{path}");
    }
    assert_eq!(built.at("new"), "d 0755 1000:1001");
    assert_eq!(built.at("new/deep"), "d 0755 1000:1001");
    let built = kiln.build("FROM box\nCOPY --chown=unknown f /a\n");
    assert_eq!(built.at("a"), "0644 0:0 x", "an unknown name is root where there is a passwd");
    let built = kiln.build("FROM scratch\nCOPY f /b\nCOPY --chown=user:group f /a\n");
    assert_eq!(built.at("a"), "0644 0:0 x", "and where there is none");
    let built = kiln.build("FROM scratch\nUSER root\nWORKDIR /d\nCOPY --chown=root:root f /a\n");
    assert_eq!(built.at("a"), "0644 0:0 x", "root is known everywhere");
    kiln.fails("FROM scratch\nCOPY --chown=user f /a\n", &[]);
    kiln.fails("FROM box\nRUN rm /etc/passwd && mkdir /etc/passwd\nCOPY --chown=user f /a\n", &[]);
    // A link cannot make us read the machine's own files.
    kiln.fails(
        "FROM box\nRUN rm /etc/passwd && ln -s /etc/passwd /etc/passwd\nCOPY --chown=user f /a\n",
        &[],
    );
}

#[test]
fn c9_chmod_applies_to_all_that_is_copied() {
    let kiln = Kiln::new();
    kiln.write("d/file", "x");
    kiln.write("d/run", "x");
    kiln.mode("d/run", 0o755);
    let built = kiln.build("FROM scratch\nCOPY --chmod=0750 d /a/b/\nCOPY --chmod=go=u,u+X d /c/\nCOPY --chmod=u=rwX,go=rX d /e/\n");
    assert_eq!(built.at("a"), "d 0750 0:0");
    assert_eq!(built.at("a/b/file"), "0750 0:0 x");
    assert_eq!(built.at("c/file"), "0666 0:0 x");
    assert_eq!(built.at("c/run"), "0777 0:0 x");
    assert_eq!((built.at("e/file"), built.at("e/run")), ("0644 0:0 x".into(), "0755 0:0 x".into()));
}

#[test]
fn c10_linked_layers_stand_alone() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    let built = kiln.build("FROM box\nCOPY --link f /link/new/\n");
    assert_eq!(built.at("link"), "d 0755 0:0", "a link in the way is replaced");
    assert_eq!(built.at("link/new/f"), "0644 0:0 x");
    assert!(!built.has("dir/new"));
    kiln.fails("FROM box\nCOPY --link --chown=user f /a\n", &[]);
    // The layers below are not in the key.
    let first = kiln.build("FROM box\nRUN echo one > /n\nCOPY --link f /a\n");
    let second = kiln.build("FROM box\nRUN echo two > /n\nCOPY --link f /a\n");
    assert!(second.cached("COPY --link"), "{}", second.log);
    let last = |it: &Built| it.config.rootfs.diff_ids.last().cloned();
    assert_eq!(last(&first), last(&second));
    let built = kiln.build("FROM box\nCOPY --link --chmod=0700 --chown=user f /link/\n");
    assert_eq!(built.at("dir/f"), "0700 1000:1001 x", "with --chmod it is no link");
}

#[test]
fn c11_parents() {
    let kiln = Kiln::new();
    kiln.write("a/b/c/file.c", "x");
    kiln.write("a/d/file.c", "y");
    kiln.mode("a/b", 0o700);
    let built = kiln.build("FROM scratch\nCOPY --parents a/b/c/file.c /one/\nCOPY --parents a/./b/c /two/\nCOPY --parents a/**/*.c /three/\nCOPY --parents none/** /four/\n");
    assert_eq!(built.at("one/a/b"), "d 0700 0:0");
    assert_eq!(built.text("one/a/b/c/file.c"), "x");
    assert_eq!(built.text("two/b/c/file.c"), "x");
    assert_eq!(
        (built.text("three/a/b/c/file.c"), built.text("three/a/d/file.c")),
        ("x".into(), "y".into())
    );
    kiln.fails("FROM scratch\nCOPY --parents a/none /x/\n", &[]);
}

#[test]
fn c12_excluded_files_are_not_copied_and_not_in_the_key() {
    let kiln = Kiln::new();
    for name in ["d/a.o", "d/keep.o", "d/b.c", "d/sub/c.o"] {
        kiln.write(name, name);
    }
    let text = "FROM scratch\nCOPY --exclude=**/*.o --exclude=!keep.o d /d/\n";
    let built = kiln.build(text);
    assert_eq!(built.names("d"), ["b.c", "keep.o", "sub"]);
    assert!(built.names("d/sub").is_empty());
    kiln.write("d/a.o", "changed");
    assert!(kiln.build(text).cached("COPY --exclude"));
    kiln.write("d/keep.o", "changed");
    assert!(!kiln.build(text).cached("COPY --exclude"));
    let built = kiln.build("FROM scratch\nADD --exclude=*.o d /d/\n");
    assert_eq!(built.names("d"), ["b.c", "sub"]);
}

#[test]
fn c13_from_stages_images_and_contexts() {
    let kiln = Kiln::new();
    fs::create_dir(kiln.path("more")).expect("made");
    fs::write(kiln.path("more/file"), "named").expect("written");
    let built = kiln.build_with(
        "FROM box AS One\nRUN echo one > /one\nFROM scratch\nCOPY --from=ONE /one /a\nCOPY --from=0 /one /b\nCOPY --from=box /dir/old /c\nCOPY --from=more file /d\n",
        &["--build-context", "more=more"],
    );
    let texts = ["a", "b", "c", "d"].map(|it| built.text(it));
    assert_eq!(texts, ["one", "one", "old", "named"]);
}

#[test]
fn c14_content_counts_and_time_does_not() {
    let kiln = Kiln::new();
    kiln.write("d/file", "x");
    kiln.write("other", "x");
    let text = "FROM box\nCOPY d /d\nRUN echo after\n";
    kiln.build(text);
    let touched = std::process::Command::new("touch").arg(kiln.context("d/file")).status();
    assert!(touched.expect("touch runs").success());
    kiln.write("other", "y");
    let built = kiln.build(text);
    assert!(built.cached("COPY d") && built.cached("RUN echo"), "{}", built.log);
    chown(kiln.context("d/file"), Some(9), Some(9)).expect("changed");
    assert!(kiln.build(text).cached("COPY d"), "the owner of a context is erased");
    kiln.mode("d/file", 0o600);
    let built = kiln.build(text);
    assert!(!built.cached("COPY d") && !built.cached("RUN echo"), "a mode counts");
    let name = "security.capability";
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(kiln.context("d/file"), name, &capability, XattrFlags::empty()).expect("set");
    assert!(!kiln.build(text).cached("COPY d"), "an attribute counts");
    kiln.symlink("file", "d/link");
    assert!(!kiln.build(text).cached("COPY d"), "a link counts");
    fs::remove_file(kiln.context("d/link")).expect("removed");
    assert!(kiln.build(text).cached("COPY d"), "it is as it was");
}

#[test]
fn c22_a_missing_source_names_the_pattern() {
    let kiln = Kiln::new();
    kiln.write("secret.txt", "x");
    kiln.write(".dockerignore", "# not these\n*.txt\n");
    let log = kiln.fails("FROM scratch\nCOPY secret.txt /\n", &[]);
    assert!(log.contains("*.txt") && log.contains(".dockerignore"), "{log}");
}
