//! Tables of `USER` forms.

use std::os::fd::AsFd;
use std::path::Path;

use super::*;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
# a comment
broken line
app:x:1000:1001:App:/home/app:/bin/sh
1234:x:0:0:numeric name:/evil:/bin/sh
nohome:x:7:8:::
huge:x:4294967296:0::/:
minus:x:-1:0::/:
";

const GROUP: &str = "\
root:x:0:root
app:x:1001:
docker:x:999:other,app
audio:x:29:app
2000:x:3:
";

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
    std::fs::write(dir.path().join("etc/group"), GROUP).unwrap();
    dir
}

fn look(dir: &Path, spec: &str) -> Result<(u32, u32, Vec<u32>, String), &'static str> {
    let root = inside::open_dir(dir).unwrap();
    identify(root.as_fd(), spec)
        .map(|it| (it.uid, it.gid, it.groups, String::from_utf8(it.home).unwrap()))
        .map_err(|error| error.code())
}

#[test]
fn forms() {
    let dir = tree();
    for (spec, uid, gid, groups, home) in [
        ("", 0, 0, vec![0], "/root"),
        ("root", 0, 0, vec![0], "/root"),
        ("0", 0, 0, vec![0], "/root"),
        ("app", 1000, 1001, vec![1001, 999, 29], "/home/app"),
        ("1000", 1000, 1001, vec![1001, 999, 29], "/home/app"),
        ("01000", 1000, 1001, vec![1001, 999, 29], "/home/app"),
        ("app:root", 1000, 0, vec![0], "/home/app"),
        ("app:29", 1000, 29, vec![29], "/home/app"),
        ("5:6", 5, 6, vec![6], "/"),
        ("5", 5, 0, vec![0], "/"),
        ("5:docker", 5, 999, vec![999], "/"),
        ("app:", 1000, 1001, vec![1001, 999, 29], "/home/app"),
        ("nohome", 7, 8, vec![8], "/"),
        // Digits are an id, also where a line has them as a name.
        ("1234", 1234, 0, vec![0], "/"),
        ("1:2000", 1, 2000, vec![2000], "/"),
        ("2147483648", 2_147_483_648, 0, vec![0], "/"),
        ("4294967294", 4_294_967_294, 0, vec![0], "/"),
    ] {
        assert_eq!(look(dir.path(), spec), Ok((uid, gid, groups, home.to_owned())), "{spec}");
    }
    for (spec, code) in [
        ("nobody", "unknown-user"),
        ("+1", "unknown-user"),
        ("huge", "unknown-user"),
        ("minus", "unknown-user"),
        ("app:none", "unknown-group"),
        ("-1", "id-out-of-range"),
        ("4294967295", "id-out-of-range"),
        ("4294967296", "id-out-of-range"),
        ("1:4294967296", "id-out-of-range"),
        ("99999999999999999999", "id-out-of-range"),
    ] {
        assert_eq!(look(dir.path(), spec), Err(code), "{spec}");
    }
}

#[test]
fn missing_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(look(dir.path(), ""), Ok((0, 0, vec![0], "/".into())));
    assert_eq!(look(dir.path(), "7:8"), Ok((7, 8, vec![8], "/".into())));
    assert_eq!(look(dir.path(), "app"), Err("unknown-user"));
}

#[test]
fn files_that_are_traps() {
    use std::os::unix::fs::symlink;

    let dir = tree();
    let passwd = dir.path().join("etc/passwd");
    let replace = |make: &dyn Fn()| {
        std::fs::remove_file(&passwd).unwrap();
        make();
        (look(dir.path(), "app"), look(dir.path(), "").map(|it| it.0))
    };
    let refused = (Err("user-file"), Ok(0));

    // Outside of the root there is another file; the link must not reach it.
    assert_eq!(
        replace(&|| symlink("/../../../../etc/passwd2", &passwd).unwrap()),
        (Err("unknown-user"), Ok(0))
    );
    let fifo = || {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, mode, 0).unwrap();
    };
    assert_eq!(replace(&fifo), refused);
    let sparse = || std::fs::File::create(&passwd).unwrap().set_len(4 << 30).unwrap();
    assert_eq!(replace(&sparse), refused);
    let long_line = || {
        let mut text = vec![b'a'; 9 << 20];
        text.extend_from_slice(b"\napp:x:1000:1001:::\n");
        std::fs::write(&passwd, text).unwrap();
    };
    assert_eq!(replace(&long_line).0.map(|it| it.0), Ok(1000));

    // A link inside the root is followed.
    std::fs::write(dir.path().join("real"), PASSWD).unwrap();
    assert_eq!(replace(&|| symlink("/real", &passwd).unwrap()).0.map(|it| it.0), Ok(1000));
}
