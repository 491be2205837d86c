//! C: ADD of archives, downloads and repositories.

use std::{fs, io::Write, path::Path, process::Command};

use crate::{kiln::*, web::Web};

fn archive(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/rows/archives");
    fs::read(folder.join(name)).expect("an archive")
}

fn packed(tar: &[u8], compression: image::compress::Compression) -> Vec<u8> {
    let mut out = image::compress::Compressor::new(Vec::new(), compression, 1).expect("one");
    out.write_all(tar).expect("packed");
    out.finish().expect("packed")
}

#[test]
fn c15_archives_of_the_context_are_unpacked() {
    use image::compress::Compression;
    let kiln = Kiln::new();
    let plain = tar(&[
        ("d/f", 0o640, 3, 4, What::File(b"archived\n")),
        ("l", 0o777, 0, 0, What::Link("d/f")),
    ]);
    kiln.write("plain.dat", &plain);
    kiln.write("gzip", packed(&plain, Compression::Gzip { level: 6 }));
    kiln.write("zstd.x", packed(&plain, Compression::Zstd { level: 3 }));
    kiln.write("bzip2.tar", archive("a.tar.bz2"));
    kiln.write("xz.tar", archive("a.tar.xz"));
    kiln.write("broken.tar.gz", b"\x1f\x8bnothing of the kind");
    kiln.write("text.tar", "text");
    kiln.write("empty.dat", [0; 1024]);
    let built = kiln.build(concat!(
        "FROM box\nADD plain.dat /plain\nADD gzip /gzip\nADD zstd.x /zstd\nADD bzip2.tar /bzip2\nADD xz.tar /xz\n",
        "ADD text.tar /text\nADD --unpack=false gzip /packed\nADD --chown=user --chmod=0700 plain.dat /owned\n",
        "ADD *.tar /all/\nCOPY gzip /copied\nADD plain.dat /link\nADD empty.dat /empty\n",
    ));
    for name in ["plain", "gzip", "zstd", "bzip2", "xz", "all"] {
        assert_eq!(built.at(&format!("{name}/d/f")), "0640 3:4 archived", "{name}");
    }
    assert_eq!(built.at("plain"), "d 0755 0:0");
    assert_eq!(built.at("plain/d"), "d 0755 0:0", "implied");
    assert_eq!(built.at("plain/l"), "-> d/f");
    assert_eq!(built.at("owned/d/f"), "0640 1000:1001 archived", "--chmod is for other files");
    assert_eq!(built.text("text"), "text");
    assert_eq!(built.text("empty").len(), 1024, "nothing to unpack");
    assert_eq!(built.text("all/text.tar"), "text");
    assert!(built.at("packed").starts_with("0644 0:0"));
    assert!(built.at("copied").starts_with("0644 0:0"), "COPY unpacks nothing");
    assert_eq!(built.at("dir/d/f"), "0640 3:4 archived", "through a link");
    assert_eq!(built.at("link"), "-> dir");
    // A name that layers use for what is gone cannot be kept, and removes nothing.
    kiln.write("white.tar", tar(&[("dir/.wh.old", 0o644, 0, 0, What::File(b""))]));
    let log = kiln.fails("FROM box\nADD white.tar /\n", &[]);
    assert!(log.contains("whiteout"), "{log}");
}

#[test]
fn c15_archives_do_not_escape() {
    let kiln = Kiln::new();
    kiln.write(
        "evil.tar",
        tar(&[("out", 0o777, 0, 0, What::Link("/tmp")), ("out/f", 0o644, 0, 0, What::File(b"x"))]),
    );
    let built = kiln.build("FROM box\nADD evil.tar /a/\n");
    assert!(!Path::new("/tmp/f").exists(), "not on the machine");
    assert_eq!(built.at("a/tmp/f"), "0644 0:0 x", "the folder is the root of the archive");
    // `a/../../f`
    kiln.write("out.tar", archive("outside.tar.gz"));
    let log = kiln.fails("FROM box\nADD out.tar /a/\n", &[]);
    assert!(log.contains("the path leads out of the archive"), "{log}");
}

#[test]
fn c15_archives_are_unpacked_in_a_root_of_their_own() {
    let kiln = Kiln::new();
    // `./` 0700 7:7, `/run`, `var/run -> /run`, `var/run/f`, `up -> ../../../etc`, `up/conf`, `./dot/../y`,
    // `new/below/z`, and `hard`, the file `var/run/f`; the files are 3:3.
    kiln.write("a.tar", archive("rooted.tar.gz"));
    let built = kiln.build("FROM box\nADD --chown=5:6 --chmod=0711 a.tar /x/\nADD a.tar /\n");
    assert_eq!(built.at("x"), "d 0755 5:6", "neither --chmod nor what `./` says");
    assert_eq!(built.at("x/new"), "d 0755 0:0", "implied");
    assert_eq!(built.at("x/new/below/z"), "0600 5:6 z");
    for root in ["x/", ""] {
        let ids = if root.is_empty() { "3:3" } else { "5:6" };
        assert_eq!(built.at(&format!("{root}var/run")), "-> /run");
        assert_eq!(built.at(&format!("{root}run/f")), format!("0644 {ids} run"));
        assert_eq!(built.at(&format!("{root}etc/conf")), format!("0644 {ids} conf"));
        assert_eq!(built.at(&format!("{root}y")), format!("0600 {ids} y"));
        assert_eq!(built.at(&format!("{root}hard")), format!("0644 {ids} run"));
    }
}

#[test]
fn c16_downloads() {
    let (kiln, web) = (Kiln::new(), Web::new());
    web.page(
        "/f.tar?x=1",
        &tar(&[("in", 0o644, 0, 0, What::File(b"x"))]),
        "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n",
    );
    web.page("/far", b"", "location: /near\r\n");
    web.page("/near", b"near", "");
    let built = kiln.build(&format!(
        "FROM box\nADD {0} /d/\nADD --unpack=true {0} /u/\nADD {1} /as\nADD --chmod=0755 --chown=user {1} /run/\n",
        web.url("/f.tar?x=1"),
        web.url("/far"),
    ));
    assert!(built.at("d/f.tar").starts_with("0600 0:0"), "{:?}", built.names("d"));
    assert_eq!(built.mtime("d/f.tar").secs, 1_000_000_000);
    assert_eq!(built.text("u/in"), "x");
    assert_eq!(built.at("as"), "0600 0:0 near");
    assert_eq!(built.at("run/far"), "0755 1000:1001 near");
    let log = kiln.fails(&format!("FROM box\nADD {} /d/\n", web.url("/none")), &[]);
    assert!(log.contains("404"), "{log}");
}

#[test]
fn c17_downloads_are_revalidated() {
    let (kiln, web) = (Kiln::new(), Web::new());
    let text = format!("FROM box\nADD {} /f\n", web.url("/f"));
    web.page("/f", b"one", "ETag: \"1\"\r\n");
    kiln.build(&text);
    web.take();
    let built = kiln.build(&text);
    assert!(built.cached("ADD http"), "{}", built.log);
    assert_eq!(built.text("f"), "one");
    assert!(!web.take().is_empty(), "it asked whether it is still the same");
    web.page("/f", b"two", "ETag: \"2\"\r\n");
    assert_eq!(kiln.build(&text).text("f"), "two");
    // Another tag with the same content is no other step.
    web.page("/f", b"two", "ETag: \"3\"\r\n");
    assert!(kiln.build(&text).cached("ADD http"));
}

#[test]
fn c18_checksums() {
    let (kiln, web) = (Kiln::new(), Web::new());
    web.page("/f", b"one", "");
    let digest = image::Digest::of(b"one");
    let text = format!("FROM box\nADD --checksum={digest} {} /f\n", web.url("/f"));
    assert_eq!(kiln.build(&text).text("f"), "one");
    web.take();
    let built = kiln.build(&format!("{text}RUN true\n"));
    assert!(built.cached("ADD --checksum"));
    assert_eq!(web.take(), [""; 0], "what is known by its digest needs no network");
    let wrong = image::Digest::of(b"two");
    let log = kiln.fails(&format!("FROM box\nADD --checksum={wrong} {} /f\n", web.url("/f")), &[]);
    assert!(log.contains(&wrong.hex()) && log.contains(&digest.hex()), "{log}");
}

/// A repository with a tag `v1`, a branch `dev` and a folder; returns the commit of the tag.
fn repository(folder: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(folder)
            .env("HOME", folder)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    fs::create_dir_all(folder.join("sub")).expect("made");
    git(&["init", "-q"]);
    fs::write(folder.join("file"), "one").expect("written");
    fs::write(folder.join("sub/deep"), "deep").expect("written");
    fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY file /built\n").expect("written");
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
    let commit = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "-qb", "dev"]);
    fs::write(folder.join("file"), "two").expect("written");
    git(&["commit", "-qam", "two"]);
    git(&["checkout", "-q", "main"]);
    git(&["update-server-info"]);
    commit
}

/// Serves the files of a repository, as `dumb` HTTP has it.
pub(crate) fn serve_repository(web: &Web, kiln: &Kiln) -> String {
    let folder = kiln.path("repo");
    fs::create_dir(&folder).expect("made");
    let commit = repository(&folder);
    let mut folders = vec![folder.join(".git")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder.join(".git")).expect("it is below");
                    let body = fs::read(&path).expect("a file");
                    web.page(&format!("/repo.git/{}", name.display()), &body, "");
                }
            }
        }
    }
    let refs = fs::read(folder.join(".git/info/refs")).expect("there are refs");
    web.page("/repo.git/info/refs?service=git-upload-pack", &refs, "content-type: text/plain\r\n");
    commit
}

#[test]
fn c19_repositories() {
    let (kiln, web) = (Kiln::new(), Web::new());
    let commit = serve_repository(&web, &kiln);
    let url = web.url("/repo.git");
    let built = kiln.build(&format!(
        concat!(
            "FROM box\nADD {0} /head\nADD {0}#dev /dev-branch\nADD {0}#v1:sub /sub\nADD {0}?tag=v1&subdir=sub /query\n",
            "ADD --keep-git-dir=true {0}#{1} /kept\nADD --checksum={1} {0}#v1 /sum\nADD --chown=user {0} /owned\n",
        ),
        url, commit
    ));
    assert_eq!(
        (built.text("head/file"), built.text("dev-branch/file")),
        ("one".into(), "two".into())
    );
    assert!(!built.has("head/.git") && built.has("kept/.git"));
    assert_eq!(
        (built.names("sub"), built.names("query")),
        (vec!["deep".to_owned()], vec!["deep".to_owned()])
    );
    assert_eq!(built.at("sum/file"), "0644 0:0 one");
    assert_eq!(built.at("owned/file"), "0644 1000:1001 one");
    kiln.fails(&format!("FROM box\nADD --checksum={} {url}#v1 /x\n", "0".repeat(40)), &[]);
    kiln.fails(&format!("FROM box\nADD {url}#none /x\n"), &[]);
    kiln.fails(&format!("FROM box\nADD {url}#v1:../.. /x\n"), &[]);
}

#[test]
fn c20_credentials_come_from_secrets_and_are_never_shown() {
    let (kiln, web) = (Kiln::new(), Web::new());
    web.page("/f", b"one", "");
    fs::write(kiln.path("token"), "t0ken").expect("written");
    let host = web.address.clone();
    let secret = "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token";
    let built =
        kiln.build_with(&format!("FROM box\nADD {} /f\n", web.url("/f")), &["--secret", secret]);
    assert!(web.take().iter().any(|it| it.ends_with("/f Bearer t0ken")));
    assert!(!built.log.contains("t0ken"));
    let url = format!("http://me:passw0rd@{host}/none");
    let log = kiln.fails(&format!("FROM box\nADD {url} /f\n"), &[]);
    let said = log
        .lines()
        .filter(|it| !it.contains("| ADD ") && !it.contains("1 |") && !it.contains("2 |"))
        .collect::<Vec<_>>();
    assert!(!said.concat().contains("passw0rd"), "{log}");
}

#[test]
fn c15_archives_have_limits_and_files_with_holes() {
    let kiln = Kiln::new();
    let files: Vec<String> = (0..20).map(|it| format!("f{it}")).collect();
    let entries: Vec<_> =
        files.iter().map(|it| (it.as_str(), 0o644, 0, 0, What::File(&[0; 5000]))).collect();
    kiln.write("many.tar", tar(&entries));
    // A header of xz that asks for 256 MiB.
    kiln.write("greedy.xz", {
        let mut xz = archive("a.tar.xz");
        assert_eq!(xz[12..16], [2, 0, 0x21, 1], "a block with one filter and no sizes");
        xz[16..24].copy_from_slice(&[32, 0, 0, 0, 0x09, 0x88, 0xa5, 0x76]);
        xz
    });
    let text = "FROM scratch\nADD many.tar /a/\n";
    for (limit, says) in [
        ("entries=19", "it has more than 19 entries"),
        ("bytes=50000", "it has more than 50000 bytes"),
    ] {
        let log = kiln.fails(text, &["--limit", limit]);
        assert!(log.contains("error[over-limit]") && log.contains(says), "{log}");
        assert!(log.contains(&format!("--limit {}=", limit.split_once('=').expect("a pair").0)));
    }
    assert!(kiln.build(text).at("a/f19").starts_with("0644"));
    let log = kiln.fails("FROM scratch\nADD greedy.xz /a/\n", &[]);
    assert!(log.contains("takes more than 201326592 bytes of memory"), "{log}");
    for form in ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"] {
        let path = format!("../../image/sparse/{form}.tar.gz");
        kiln.write("sparse.tar.gz", archive(&path));
        let built = kiln.build("FROM scratch\nADD sparse.tar.gz /\n");
        assert_eq!(built.text("plain"), "plain", "{form}");
        let parts = built.text("parts");
        assert_eq!(parts.len(), (1 << 20) + 100, "{form}");
        assert_eq!(&parts[1023..1026], "\0!!", "{form}");
        assert_eq!(built.text("hole"), "\0".repeat(70000), "{form}");
    }
}
