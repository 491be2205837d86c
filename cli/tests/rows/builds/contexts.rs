//! X: where files come from, and which of them are seen.

use std::{fs, process::Stdio};

use crate::{kiln::*, web::Web};

const ALL: &str = "FROM scratch\nCOPY . /all/\n";

#[test]
fn x1_ignored_files_are_not_copied() {
    let kiln = Kiln::new();
    for name in ["a/b/c.o", "a/b/d", "top.o", "skip/keep/f", "skip/other", "sub/skip/g"] {
        kiln.write(name, name);
    }
    kiln.write(
        ".dockerignore",
        "\u{feff}# remark\n**/*.o\n!top.o\n/skip\n!skip/keep\n.dockerignore\n",
    );
    let built = kiln.build(ALL);
    assert_eq!(built.names("all"), ["a", "skip", "sub", "top.o"]);
    assert_eq!(built.names("all/a/b"), ["d"]);
    assert_eq!(built.names("all/skip"), ["keep"]);
    assert_eq!(built.names("all/sub/skip"), ["g"], "anchored at the root");
    kiln.write(".dockerignore", "[a\n");
    kiln.fails(ALL, &[]);
}

#[test]
fn x2_a_dockerfile_has_its_own_ignore_file() {
    let kiln = Kiln::new();
    for name in ["one", "two"] {
        kiln.write(name, name);
    }
    kiln.write(".dockerignore", "one\n");
    kiln.write("sub/My.dockerfile", ALL);
    kiln.write("sub/My.dockerfile.dockerignore", "two\nsub\n.dockerignore\n");
    let built = kiln.build_args(&["-f", "context/sub/My.dockerfile", "context"], &[]);
    assert_eq!(built.names("all"), ["one"]);
}

#[test]
fn x3_ignore_files_are_for_folders() {
    let kiln = Kiln::new();
    let context = tar(&[
        (".dockerignore", 0o644, 0, 0, What::File(b"f\n")),
        ("Dockerfile", 0o644, 0, 0, What::File(ALL.as_bytes())),
        ("f", 0o644, 0, 0, What::File(b"x")),
    ]);
    let built = kiln.build_args(&["-"], &context);
    assert!(built.has("all/f"), "an archive is as it is");
    // A named context has its own.
    fs::create_dir(kiln.path("more")).expect("made");
    for (name, text) in [(".dockerignore", "x\n"), ("x", "x"), ("y", "y")] {
        fs::write(kiln.path("more").join(name), text).expect("written");
    }
    let built = kiln
        .build_with("FROM scratch\nCOPY --from=more . /all/\n", &["--build-context", "more=more"]);
    assert!(built.has("all/y") && !built.has("all/x"), "{:?}", built.names("all"));
}

#[test]
fn x4_only_what_is_used_is_read() {
    let kiln = Kiln::new();
    kiln.write("used/f", "x");
    kiln.write("unused/f", "x");
    kiln.mode("unused/f", 0o000);
    kiln.symlink("../used/f", "used/link");
    let built = kiln.build("FROM scratch\nCOPY used/link /f\n");
    assert_eq!(built.at("f"), "0644 0:0 x", "owned by root, links followed");
    // An edit that leaves size and time alone is seen by its change time.
    let before =
        fs::metadata(kiln.context("used/f")).expect("it is there").modified().expect("a time");
    kiln.write("used/f", "y");
    fs::File::options()
        .write(true)
        .open(kiln.context("used/f"))
        .and_then(|it| it.set_modified(before))
        .expect("set");
    assert_eq!(kiln.build("FROM scratch\nCOPY used/link /f\n").text("f"), "y");
}

#[test]
fn x5_contexts_and_dockerfiles_from_standard_input() {
    let kiln = Kiln::new();
    kiln.write("f", "context");
    let entries = [
        ("Dockerfile", 0o644, 0, 0, What::File(ALL.as_bytes())),
        ("f", 0o600, 7, 8, What::File(b"x")),
    ];
    let plain = tar(&entries);
    let mut packed =
        image::compress::Compressor::new(Vec::new(), image::compress::Compression::GZIP, 1)
            .expect("one");
    std::io::Write::write_all(&mut packed, &plain).expect("packed");
    let packed = packed.finish().expect("packed");
    for context in [&plain, &packed] {
        let built = kiln.build_args(&["-"], context);
        assert_eq!(built.at("all/f"), "0600 7:8 x", "owners of an archive stay");
    }
    let built = kiln.build_args(&["-"], b"FROM scratch\nCOPY <<a /a\na\n");
    assert!(built.has("a"), "text is a Dockerfile without a context");
    let built = kiln.build_args(&["-f", "-", "context"], b"FROM scratch\nCOPY f /g\n");
    assert_eq!(built.text("g"), "context");
    let both = kiln.run_with(&["build", "-f", "-", "-"], b"FROM scratch\n");
    assert!(!both.status.success());
    let other = tar(&[("Other", 0o644, 0, 0, What::File(b"FROM scratch\nCOPY Other /other\n"))]);
    assert!(
        kiln.build_args(&["-f", "Other", "-"], &other).has("other"),
        "-f is a path of the archive"
    );
}

#[test]
fn x6_repositories_as_contexts() {
    let (kiln, web) = (Kiln::new(), Web::new());
    crate::add::serve_repository(&web, &kiln);
    let url = format!("http://{}/repo.git", web.address);
    assert_eq!(kiln.build_args(&[&url], &[]).text("built"), "one");
    assert_eq!(kiln.build_args(&[&format!("{url}#dev")], &[]).text("built"), "two");
    let built =
        kiln.build_args(&["-f", "-", &format!("{url}#:sub")], b"FROM scratch\nCOPY . /all/\n");
    assert_eq!(built.names("all"), ["deep"]);
}

#[test]
fn x7_archives_and_dockerfiles_from_the_web() {
    let (kiln, web) = (Kiln::new(), Web::new());
    let context = tar(&[
        ("Dockerfile", 0o644, 0, 0, What::File(ALL.as_bytes())),
        ("f", 0o644, 0, 0, What::File(b"x")),
    ]);
    web.page("/c.tar", &context, "");
    web.page("/d", b"FROM scratch\nCOPY <<a /a\na\n", "");
    let url = |path: &str| format!("http://{}{path}", web.address);
    assert_eq!(kiln.build_args(&[&url("/c.tar")], &[]).text("all/f"), "x");
    assert!(kiln.build_args(&[&url("/d")], &[]).has("a"));
}

#[test]
fn x8_named_contexts() {
    let kiln = Kiln::new();
    kiln.base("other", serde_json::json!({ "Env": ["PATH=/bin", "FROM=other"] }));
    fs::create_dir(kiln.path("more")).expect("made");
    fs::write(kiln.path("more/f"), "local").expect("written");
    let text = "FROM scratch AS files\nFROM base\nRUN echo $FROM > /from\nCOPY --from=more f /f\nRUN --mount=from=more,target=/m cp /m/f /g\n";
    let built = kiln.build_with(
        text,
        &["--build-context", "base=docker-image://other", "--build-context", "more=./more"],
    );
    assert_eq!(
        (built.text("from"), built.text("f"), built.text("g")),
        ("other".into(), "local".into(), "local".into())
    );
    // An OCI layout, by tag and by digest.
    let layout = kiln.path("layout");
    let output = format!("type=oci,tar=false,name=x:tagged,dest={}", layout.display());
    let first = kiln
        .build_args(&["-o", &output, "-f", "-", "context"], b"FROM other\nRUN echo layout > /l\n");
    drop(first);
    let index: image::document::Index =
        serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an index"))
            .expect("an index");
    for value in [
        "oci-layout://layout:tagged".to_owned(),
        format!("oci-layout://layout@{}", index.manifests[0].digest),
    ] {
        let value = format!("base={value}");
        let built =
            kiln.build_with("FROM base\nRUN echo $FROM > /from\n", &["--build-context", &value]);
        assert_eq!((built.text("l"), built.text("from")), ("layout".into(), "other".into()));
    }
    // Files in the place of an image.
    let built = kiln.build_with("FROM files\nCOPY <<x /x\nx\n", &["--build-context", "files=more"]);
    assert_eq!(built.text("f"), "local");
    kiln.fails(
        "FROM a\n",
        &["--build-context", "a=docker-image://b", "--build-context", "b=docker-image://a"],
    );
}

#[test]
fn x9_builds_of_one_folder_at_once() {
    let kiln = Kiln::new();
    for n in 0..50 {
        kiln.write(&format!("d/{n}"), vec![b'x'; 10_000]);
    }
    fs::write(kiln.path("Dockerfile"), "FROM scratch\nARG n\nCOPY d /d\nCOPY <<f /f\n$n\nf\n")
        .expect("written");
    let children: Vec<_> = (0..4)
        .map(|n| {
            let (dest, arg) = (kiln.path(&format!("out{n}")), format!("n={n}"));
            let args = [
                "build",
                "-f",
                "Dockerfile",
                "--build-arg",
                &arg,
                "-o",
                &dest.to_string_lossy(),
                "context",
            ];
            kiln.command(&args).stderr(Stdio::piped()).spawn().expect("kiln runs")
        })
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let out = kiln.path(&format!("out{n}"));
        assert_eq!(fs::read_dir(out.join("d")).expect("a folder").count(), 50);
        assert_eq!(fs::read_to_string(out.join("f")).expect("a file"), format!("{n}\n"));
    }
}
