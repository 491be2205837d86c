//! Layers that want out, lie about themselves, or are only odd; and what careless hardening breaks.

use std::{collections::BTreeMap, fs, os::unix::fs::FileTypeExt, path::Path};

use image::{
    Digest,
    entry::{Entry, Kind},
    layer::{Limits, Mode, Record, TarReader},
};

use crate::{
    images::{Layer, TAR, ZSTD, image},
    lab::{Lab, compare, make_canary, snapshot},
    naive,
    tars::{Tar, gzip, zstd_run},
};

/// Some layers, the lowest first.
pub(crate) struct Case {
    name: &'static str,
    layers: Vec<Layer>,
    /// Whether a careless implementation lets it out.
    trips: bool,
}

const DOCKERFILE: &str = "FROM box AS seen
RUN --mount=type=bind,from=hostile,target=/h tar -C /h -cf /tree.tar .
FROM hostile AS ran
COPY --from=box /bin/busybox /busybox
RUN [\"/busybox\", \"true\"]
FROM scratch
COPY --from=hostile / /copied/
COPY --from=seen /tree.tar /
COPY --from=ran /busybox /ran
";

fn cases(canary: &Path) -> Vec<Case> {
    let mut all = escapes(canary);
    all.extend(whiteouts(canary));
    all.extend(lies(canary));
    all.extend(attributes(canary));
    all.extend(odd());
    all.extend(good());
    all
}

fn case(name: &'static str, tars: Vec<Vec<u8>>) -> Case {
    Case { name, layers: tars.into_iter().map(Layer::plain).collect(), trips: false }
}

fn escape(name: &'static str, tars: Vec<Vec<u8>>) -> Case {
    Case { trips: true, ..case(name, tars) }
}

fn escapes(canary: &Path) -> Vec<Case> {
    let out = canary.display().to_string();
    let up = format!("{}{}", "../".repeat(12), out.trim_start_matches('/'));
    let secret = format!("{out}/secret");
    let tar = Tar::new;
    let one = |name, tar: Tar| escape(name, vec![tar.end()]);
    let none = |name, tar: Tar| case(name, vec![tar.end()]);
    vec![
        one("a file above the root", tar().file("../canary/secret", "x")),
        one("a file far above the root", tar().file(&format!("{up}/new"), "x")),
        one("climbing out in the middle", tar().file("a/../../canary/new", "x")),
        one("an absolute path", tar().file(&secret, "x")),
        one("an absolute path with two slashes", tar().file(&format!("/{secret}"), "x")),
        one("through an absolute link", tar().symlink("l", &out).file("l/secret", "x")),
        one("through a relative link", tar().symlink("l", &up).file("l/secret", "x")),
        one("through two links", tar().symlink("l", &out).symlink("m", "l").file("m/secret", "x")),
        one(
            "through a link in a folder",
            tar().folder("d").symlink("d/l", &up).file("d/l/new", "x"),
        ),
        one(
            "a link put in the place of a folder in use",
            tar().folder("d").file("d/a", "x").symlink("d", &out).file("d/secret", "x"),
        ),
        one("a file onto a link", tar().symlink("l", &secret).file("l", "x")),
        one("a folder onto a link", tar().symlink("l", &out).folder("l").file("l/secret", "x")),
        one("a folder made through a link", tar().symlink("l", &out).folder("l/new")),
        one("a mode set through a link", tar().symlink("l", &out).header(b'5', b"l", "", 0o777, 0)),
        one(
            "a file made setuid through a link",
            tar().symlink("l", &secret).header(b'0', b"l", "", 0o4755, 0),
        ),
        one("a hard link to an absolute path", tar().hardlink("h", &secret).file("h", "x")),
        one("a hard link above the root", tar().hardlink("h", "../canary/secret")),
        one(
            "a hard link through a link",
            tar().symlink("l", &out).hardlink("h", "l/secret").file("h", "x"),
        ),
        one(
            "a hard link to a link, then written",
            tar().symlink("l", &secret).hardlink("h", "l").file("h", "x"),
        ),
        none("a hard link to a folder", tar().folder("d").hardlink("h", "d")),
        none("a hard link to the root", tar().hardlink("h", "/")),
        none("a hard link to nothing", tar().hardlink("h", "missing")),
        none("a hard link to itself", tar().hardlink("h", "h")),
        one("the root as a link", tar().symlink("./.", &out).file("secret", "x")),
        one("the root as a link with a slash", tar().symlink("./", &out).file("secret", "x")),
        none("the root as a file", tar().file("/", "x")),
        none("links in a circle", tar().symlink("a", "b").symlink("b", "a").file("a/x", "x")),
        one(
            "a link through proc",
            tar().symlink("l", "/proc/self/root").file(&format!("l{secret}"), "x"),
        ),
        one(
            "a link through proc to a folder of the process",
            tar()
                .symlink("l", "/proc/self/cwd")
                .symlink("m", "/proc/thread-self/root")
                .file(&format!("m{out}/new"), "x"),
        ),
        escape(
            "a folder replaced by a link across layers",
            vec![
                tar().folder("d").file("d/a", "x").end(),
                tar().symlink("d", &out).end(),
                tar().file("d/secret", "x").end(),
            ],
        ),
        escape(
            "a link in a lower layer",
            vec![tar().symlink("d", &out).end(), tar().file("d/secret", "x").end()],
        ),
        escape(
            "a link in a lower layer, folder again",
            vec![tar().symlink("d", &out).end(), tar().folder("d").file("d/secret", "x").end()],
        ),
        one("a pipe through a link", tar().symlink("l", &out).fifo("l/pipe")),
        one("a device through a link", tar().symlink("l", &out).device('c', "l/dev", "1", "3")),
        one(
            "a path that climbs, extended",
            tar().pax(&[("path", b"../canary/new")]).file("x", "x"),
        ),
        one("a path that climbs, of old GNU", tar().gnu(b'L', "../canary/new").file("x", "x")),
        one(
            "a hard link that climbs, extended",
            tar().pax(&[("linkpath", secret.as_bytes())]).hardlink("x", "y").file("x", "x"),
        ),
        one(
            "a link that leads out, of old GNU",
            tar().gnu(b'K', &out).symlink("x", "y").file("x/secret", "x"),
        ),
    ]
}

fn whiteouts(canary: &Path) -> Vec<Case> {
    let out = canary.display().to_string();
    let tar = Tar::new;
    let base =
        || tar().folder("d").file("d/a", "x").file("d/b", "x").folder("e").file("e/a", "x").end();
    let over = |name, tar: Tar| case(name, vec![base(), tar.end()]);
    let trip = |name, tar: Tar| escape(name, vec![base(), tar.end()]);
    vec![
        over("a whiteout without a name", tar().file(".wh.", "")),
        over("a whiteout of the folder itself", tar().file("d/.wh..", "")),
        over("a whiteout of the folder above", tar().file("d/.wh...", "")),
        trip("a whiteout of what is above the root", tar().file(".wh...", "")),
        trip("a whiteout above the root", tar().file("../canary/.wh.secret", "")),
        trip("a whiteout through a link", tar().symlink("l", &out).file("l/.wh.secret", "")),
        escape(
            "an opaque folder through a link",
            vec![
                tar().folder(&out[1..]).end(),
                tar().symlink("l", &out).file("l/.wh..wh..opq", "").end(),
            ],
        ),
        trip("an opaque folder above the root", tar().file("../canary/.wh..wh..opq", "")),
        over("a whiteout that is a folder", tar().folder("d/.wh.a")),
        over("a whiteout that is a link", tar().symlink("d/.wh.a", "b")),
        over("a whiteout that is a device", tar().device('c', "d/.wh.a", "0", "0")),
        over("a whiteout with content", tar().file("d/.wh.a", "content")),
        over("a file below a whiteout", tar().file("d/.wh.a/x", "x")),
        over("a file below an opaque mark", tar().file("d/.wh..wh..opq/x", "x")),
        over("a hard link to a whiteout", tar().file("d/.wh.a", "").hardlink("d/x", "d/.wh.a")),
        over("a whiteout of a whiteout", tar().file("d/.wh..wh.a", "")),
        over(
            "files of AUFS at the top",
            tar().folder(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", ""),
        ),
        over("files of AUFS in a folder", tar().folder("d/.wh..wh.plnk")),
        over(
            "a whiteout of what is not there",
            tar().file("d/.wh.nothing", "").file("f/.wh.nothing", ""),
        ),
        over("a whiteout of a folder with content", tar().file(".wh.d", "")),
        over(
            "a whiteout of the parent of what follows",
            tar().file(".wh.d", "").file("d/new", "x"),
        ),
        over(
            "a whiteout of the parent of what came before",
            tar().file("d/new", "x").file(".wh.d", ""),
        ),
        over("a whiteout of a file of its own layer", tar().file("d/a", "new").file("d/.wh.a", "")),
        over(
            "an opaque folder before and behind its files",
            tar()
                .file("d/new", "x")
                .file("d/.wh..wh..opq", "")
                .file("e/.wh..wh..opq", "")
                .file("e/new", "x"),
        ),
        over("an opaque root", tar().file(".wh..wh..opq", "").file("only", "x")),
        over("a device 0:0 as overlay has it", tar().device('c', "d/a", "0", "0")),
        over("a file in the place of a folder", tar().file("d", "file")),
        over("a folder in the place of a file", tar().folder("d/a").file("d/a/x", "x")),
        over("a link in the place of a folder, and what was below it", tar().symlink("d", "e")),
        over("a whiteout below a link", tar().symlink("d", "e").file("d/.wh.a", "")),
    ]
}

fn lies(canary: &Path) -> Vec<Case> {
    let secret = format!("{}/secret", canary.display());
    let tar = Tar::new;
    let one = |name, tar: Vec<u8>| case(name, vec![tar]);
    let blob = |name: &'static str, blob: Vec<u8>, media_type| {
        let diff_id = Digest::of(name.as_bytes()).to_string();
        Case { name, layers: vec![Layer::raw(blob, media_type, diff_id)], trips: false }
    };
    let hidden = tar().file(&secret, "x").end();
    let mut nul = tar().file("nul", "x");
    nul = nul.field(3, b"\0hidden");
    vec![
        one(
            "a size that an extended record denies",
            tar()
                .pax(&[("size", b"0")])
                .header(b'0', b"f", "", 0o644, hidden.len())
                .data(&hidden)
                .end(),
        ),
        one(
            "a size that an extended record enlarges",
            tar()
                .pax(&[("size", hidden.len().to_string().as_bytes())])
                .header(b'0', b"f", "", 0o644, 0)
                .data(&hidden)
                .end(),
        ),
        one(
            "an extended size beyond the end",
            tar().pax(&[("size", b"99999999999999")]).file("x", "x").end(),
        ),
        one(
            "an extended size that is no number",
            tar().pax(&[("size", b"0x10")]).file("x", "x").end(),
        ),
        one(
            "an extended size that is negative",
            tar().pax(&[("size", b"-1")]).file("x", "x").end(),
        ),
        one("a header size that is negative", tar().file("f", "").field(124, &[0xff; 12]).end()),
        one(
            "a header size beyond all numbers",
            tar()
                .file("f", "")
                .field(124, b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
                .end(),
        ),
        one("a header size beyond the end", tar().header(b'0', b"f", "", 0o644, 1 << 30).end()),
        one(
            "a folder with a size",
            tar().header(b'5', b"d", "", 0o755, 512).data(&[b'x'; 512]).end(),
        ),
        one(
            "a link with a size",
            tar().header(b'2', b"l", "x", 0o755, 512).data(&[b'x'; 512]).end(),
        ),
        one(
            "a hard link with a size and no content",
            tar().file("f", "x").header(b'1', b"h", "f", 0o755, 1).end(),
        ),
        one(
            "a record that is longer than it says",
            tar().records(b'x', b"5 path=long\n").file("x", "x").end(),
        ),
        one(
            "a record that ends behind the records",
            tar().records(b'x', b"99 path=a\n").file("x", "x").end(),
        ),
        one("a record without a number", tar().records(b'x', b"path=a\n").file("x", "x").end()),
        one("records that nothing follows", tar().pax(&[("path", b"a")]).end()),
        one(
            "records for records",
            tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", "x").end(),
        ),
        one(
            "a global header that names a path",
            tar().records(b'g', b"16 path=../../x\n").file("x", "x").end(),
        ),
        one(
            "a global header that gives an owner",
            tar().records(b'g', b"12 uid=1000\n").file("x", "x").end(),
        ),
        one("a long name of 2 GiB", tar().header(b'L', b"././@LongLink", "", 0o644, 2 << 30).end()),
        one("a long name of 2 MiB", tar().gnu(b'L', &"n".repeat(2 << 20)).file("x", "x").end()),
        one(
            "records of 2 MiB",
            tar().pax(&[("comment", &vec![b'x'; 2 << 20])]).file("x", "x").end(),
        ),
        one("two long names", tar().gnu(b'L', "a").gnu(b'L', "b").file("x", "x").end()),
        one(
            "a long name and a record of it",
            tar().gnu(b'L', "a").pax(&[("path", b"b")]).file("x", "x").end(),
        ),
        one("a checksum that is wrong", tar().file("f", "x").broken().data(b"x").end()),
        one("a zero block between entries", {
            let mut it = tar().file("a", "x").cut(usize::MAX);
            it.extend([0; 512]);
            it.extend(hidden.clone());
            it
        }),
        one("entries behind the end", {
            let mut it = tar().file("a", "x").end();
            it.extend(hidden.clone());
            it
        }),
        one("a tar without an end", tar().file("a", "x").cut(usize::MAX)),
        one("cut in a header", tar().file("a", "x").cut(300)),
        one("cut in a file", tar().file("a", &"x".repeat(2000)).cut(1024)),
        one(
            "random bytes",
            (0..4096_u32).map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect(),
        ),
        one("nothing at all", Vec::new()),
        one("a sparse file of old GNU", tar().header(b'S', b"s", "", 0o644, 0).end()),
        one(
            "a sparse file that claims much",
            tar()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"1099511627776"),
                ])
                .file("s", "1\n0\n1\n")
                .end(),
        ),
        one("an unknown type", tar().header(b'Z', b"z", "", 0o644, 0).end()),
        one("a volume header", tar().header(b'V', b"v", "", 0o644, 0).end()),
        one("a file whose name ends in a slash", tar().file("a/", "x").end()),
        one("an empty name", tar().file("", "x").end()),
        one("a name that a NUL hides", nul.end()),
        one("a NUL in an extended path", tar().pax(&[("path", b"a\0b")]).file("x", "x").end()),
        one("a path of 5000 bytes", tar().gnu(b'L', &"abcd/".repeat(1000)).file("x", "x").end()),
        one("a name of 256 bytes", tar().gnu(b'L', &"n".repeat(256)).file("x", "x").end()),
        one(
            "a link target of 5000 bytes",
            tar().gnu(b'K', &"t".repeat(5000)).symlink("x", "x").end(),
        ),
        one("a link to nothing", tar().symlink("x", "").end()),
        one("an owner of all ones", tar().pax(&[("uid", b"4294967295")]).file("x", "x").end()),
        one("an owner that wraps", tar().pax(&[("uid", b"4294967296")]).file("x", "x").end()),
        one("an owner that is negative", tar().pax(&[("gid", b"-1")]).file("x", "x").end()),
        one(
            "an owner in base 256",
            tar().file("x", "").field(108, b"\xff\xff\xff\xff\xff\xff\xff\xfe").end(),
        ),
        one("a time that is no number", tar().pax(&[("mtime", b"NaN")]).file("x", "x").end()),
        one("a time that is too large", tar().pax(&[("mtime", b"1e300")]).file("x", "x").end()),
        one(
            "a time of the last second",
            tar().pax(&[("mtime", b"9223372036854775807")]).file("x", "x").end(),
        ),
        one(
            "a time before all time",
            tar().pax(&[("mtime", b"-9223372036854775807.5")]).file("x", "x").end(),
        ),
        one(
            "a device beyond the kernel's numbers",
            tar().device('b', "d", "7777777", "7777777").end(),
        ),
        blob("a window of 2 GiB", zstd_run(31, 0, 1024), ZSTD),
        blob("another layer than the config says", zstd_run(20, 0, 1024), ZSTD),
        blob(
            "garbage that says it is gzip",
            [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".as_slice(), &[0xaa; 600]].concat(),
            TAR,
        ),
        {
            let tar = Tar::new().file("f", "x").end();
            let blob = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
            let layer = Layer::raw(
                blob,
                "application/vnd.oci.image.layer.v1.tar+gzip",
                Digest::of(&tar).to_string(),
            );
            Case { name: "two members of gzip", layers: vec![layer], trips: false }
        },
        {
            let tar = Tar::new().file("f", "x").end();
            let blob = [gzip(&tar), b"behind it".to_vec()].concat();
            let layer = Layer::raw(
                blob,
                "application/vnd.oci.image.layer.v1.tar+gzip",
                Digest::of(&tar).to_string(),
            );
            Case { name: "something behind gzip", layers: vec![layer], trips: false }
        },
    ]
}

fn attributes(canary: &Path) -> Vec<Case> {
    let out = canary.display().to_string();
    let with = |name, attribute: &str, value: &[u8], kind: char| {
        let tar = Tar::new().pax(&[(&format!("SCHILY.xattr.{attribute}"), value)]);
        let tar = match kind {
            'd' => tar.folder("d").file("d/f", "x"),
            'l' => tar.symlink("l", "target"),
            _ => tar.file("f", "x"),
        };
        case(name, vec![Tar::new().folder("d").file("d/below", "x").end(), tar.end()])
    };
    const CAP2: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cap3 = [&[1, 0, 0, 3], &CAP2[4..], &[0xe8, 3, 0, 0]].concat();
    vec![
        with("overlay's redirect", "trusted.overlay.redirect", out.as_bytes(), 'd'),
        with("overlay's redirect of a user", "user.overlay.redirect", out.as_bytes(), 'd'),
        with("overlay's opaque mark", "trusted.overlay.opaque", b"y", 'd'),
        with("overlay's opaque mark of a user", "user.overlay.opaque", b"y", 'd'),
        with("overlay's whiteouts as attributes", "trusted.overlay.opaque", b"x", 'd'),
        with("overlay's metacopy", "trusted.overlay.metacopy", b"", 'f'),
        with("overlay's whiteout of a user", "user.overlay.whiteout", b"", 'f'),
        with("overlay's escaped attribute", "trusted.overlay.overlay.redirect", b"/x", 'd'),
        with("the owner of fuse-overlayfs", "user.fuseoverlayfs.override_stat", b"0:0:4755", 'f'),
        with("the owner of containers", "user.containers.override_stat", b"0:0:4755", 'f'),
        with("a label of SELinux", "security.selinux", b"system_u:object_r:x:s0", 'f'),
        with("a signature of IMA", "security.ima", b"\x01", 'f'),
        with("an attribute that only root may set", "trusted.other", b"x", 'f'),
        with("capabilities, version 2", "security.capability", CAP2, 'f'),
        with("capabilities, version 3", "security.capability", &cap3, 'f'),
        with(
            "capabilities of an unknown version",
            "security.capability",
            &[1, 0, 0, 9, 0, 0, 0, 0],
            'f',
        ),
        with("capabilities that are cut short", "security.capability", &[1, 0, 0, 2], 'f'),
        with("capabilities of a link", "security.capability", CAP2, 'l'),
        with("capabilities of a folder", "security.capability", CAP2, 'd'),
        with("a list of rights that is garbage", "system.posix_acl_access", b"garbage", 'f'),
        with("an attribute of a user", "user.note", b"kept\0\xff", 'f'),
        with("an attribute without a name space", "plain", b"x", 'f'),
        with("an attribute without a name", "", b"x", 'f'),
        with("an attribute with a long name", &format!("user.{}", "n".repeat(300)), b"x", 'f'),
        with("an attribute of 100 KiB", "user.large", &vec![b'x'; 100 << 10], 'f'),
    ]
}

fn odd() -> Vec<Case> {
    let tar = Tar::new;
    let one = |name, tar: Tar| case(name, vec![tar.end()]);
    let bytes = |it: Tar, name: &[u8]| it.header(b'0', name, "", 0o644, 0);
    let mut deep = tar();
    for part in 1..40 {
        deep = deep.pax(&[("path", "d/".repeat(part * 10).as_bytes())]).folder("d");
    }
    let mut long_way = tar().folder("a");
    let chain = format!("{}/", "n".repeat(200)).repeat(10);
    for n in 0..3 {
        let (here, next) = (format!("l{n}"), format!("l{}", n + 1));
        if n == 0 {
            long_way = long_way.symlink("l0", "a");
        }
        long_way = long_way
            .pax(&[("path", format!("{here}/{chain}end").as_bytes())])
            .file("f", "x")
            .pax(&[("linkpath", format!("{here}/{}", chain.trim_end_matches('/')).as_bytes())])
            .symlink(&next, "x");
    }
    let mut many = tar();
    for n in 0..5_000 {
        many = many.file(&format!("many/{n}"), "");
    }
    vec![
        one(
            "names that move the cursor",
            bytes(bytes(tar(), b"\x1b[2J\x1b]0;title\x07"), b"\xe2\x80\xaegpj.exe"),
        ),
        one("names with new lines", bytes(bytes(tar(), b"a\nb"), b"\n")),
        one("names that are not UTF-8", bytes(bytes(tar(), b"\xff\xfe"), b"caf\xe9")),
        one(
            "names of dots and blanks",
            tar().file("...", "x").file(" ", "x").file("-rf", "x").file("a\\b", "x").file("*", "x"),
        ),
        one("400 folders deep", deep),
        one("longer than a path can be", long_way),
        one("5000 files in one folder", many),
        one(
            "the last of several wins",
            tar().file("f", "old").file("f", "new").folder("d").file("d/x", "x").folder("d"),
        ),
        one(
            "a file, a folder, a link, a file",
            tar().file("p", "x").folder("p").file("p/x", "x").symlink("p", "x").file("p", "end"),
        ),
        one(
            "a hard link whose target changes behind it",
            tar().file("a", "one").hardlink("b", "a").file("a", "two"),
        ),
        one("a folder below a file", tar().file("f", "x").file("f/x", "x")),
        one("a setuid file of root", tar().file("su", "x").mode(0o4755)),
        one(
            "a disk",
            tar().folder("dev").device('b', "dev/sda", "10", "0").device('c', "dev/mem", "1", "1"),
        ),
        one("a mode with bits that are none", tar().file("f", "").field(100, b"7777777\0")),
    ]
}

/// What careless hardening breaks, and real images have.
fn good() -> Vec<Case> {
    let tar = Tar::new;
    let layers = |name, tars: Vec<Tar>| case(name, tars.into_iter().map(Tar::end).collect());
    let one = |name, tar: Tar| case(name, vec![tar.end()]);
    vec![
        one(
            "good: absolute hard links",
            tar().file("a", "x").hardlink("b", "/a").hardlink("c", "./a"),
        ),
        one(
            "good: absolute names and dots",
            tar().folder("./").file("/a", "x").file("./b//c", "x").file(".//d", "x"),
        ),
        one(
            "good: a folder that is a link to an absolute path",
            tar().folder("run").folder("var").symlink("var/run", "/run").file("var/run/pid", "1"),
        ),
        one(
            "good: such a link to what a lower layer has",
            tar().symlink("var/run", "/run").file("var/run/pid", "1"),
        ),
        one(
            "good: files below a link",
            tar().symlink("lib", "usr/lib").folder("usr").folder("usr/lib").file("lib/x", "1"),
        ),
        one(
            "good: a relative link that climbs inside the root",
            tar().folder("a").folder("a/b").symlink("a/b/up", "../../c").file("a/b/up/x", "1"),
        ),
        one(
            "good: a link above the root, which is above itself",
            tar().symlink("up", "../../../../c").file("up/x", "1"),
        ),
        one("good: folders without an entry", tar().file("a/b/c/d", "x")),
        one(
            "good: a folder behind its files",
            tar().file("ro/x", "x").header(b'5', b"ro", "", 0o555, 0),
        ),
        one(
            "good: a folder that even its owner may not enter",
            tar().header(b'5', b"no", "", 0, 0).file("no/x", "x"),
        ),
        one("good: the root with a mode", tar().header(b'5', b"./", "", 0o1711, 0).file("x", "x")),
        one("good: a hard link to a link", tar().symlink("l", "/etc/../../x").hardlink("m", "l")),
        one(
            "good: a hard link through a linked folder",
            tar().folder("usr").file("usr/a", "x").symlink("bin", "usr").hardlink("b", "bin/a"),
        ),
        one("good: a null device and a pipe", tar().device('c', "null", "1", "3").fifo("pipe")),
        one(
            "good: comments, times and marks of programs",
            tar()
                .records(b'g', b"52 comment=0123456789012345678901234567890123456789\n")
                .pax(&[
                    ("atime", b"1.5"),
                    ("ctime", b"2"),
                    ("comment", b"x"),
                    ("LIBARCHIVE.creationtime", b"3"),
                ])
                .file("f", "x"),
        ),
        one("good: a file in one piece", tar().header(b'7', b"f", "", 0o644, 1).data(b"x")),
        layers(
            "good: usr merged in an upper layer",
            vec![
                tar().folder("bin").file("bin/sh", "x").folder("usr").folder("usr/bin"),
                tar().file(".wh.bin", "").symlink("bin", "usr/bin").file("usr/bin/sh", "x"),
            ],
        ),
        layers(
            "good: a folder replaced by a link across layers",
            vec![
                tar().folder("d").file("d/x", "x").folder("e"),
                tar().symlink("d", "e"),
                tar().file("e/y", "x"),
            ],
        ),
        layers(
            "good: a link replaced by a folder across layers",
            vec![
                tar().symlink("d", "e").folder("e").file("e/x", "x"),
                tar().folder("d").file("d/y", "x"),
            ],
        ),
        layers(
            "good: through a linked folder of a lower layer",
            vec![tar().folder("run").symlink("var/run", "/run"), tar().file("run/pid", "1")],
        ),
    ]
}

#[test]
fn privileged_hostile_layers_have_the_outcome_that_is_written_down() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    fs::create_dir(lab.path("context")).expect("made");
    fs::write(lab.path("context/Dockerfile"), DOCKERFILE).expect("written");
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for case in cases(&lab.canary()) {
        let text = outcome(&lab, &case);
        wrong.extend(lab.wrong(&before).map(|it| format!("{}: {it}", case.name)));
        if text.contains("differs") {
            wrong.push(format!("{}: {text}", case.name));
        }
        assert!(!text.contains(crate::lab::SECRET), "{}: {text}", case.name);
        if case.name.starts_with("good:") && text.contains("error") {
            wrong.push(format!("{}: {text}", case.name));
        }
        outcomes.push((case.name.to_owned(), lab.plain(&text)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(outcomes.len() >= 60, "there are {}", outcomes.len());
    compare("layers.expected", &outcomes);
}

/// The control: each of the escapes gets a careless program to touch the canary.
#[test]
fn privileged_hostile_layers_trip_a_careless_program() {
    let lab = Lab::new();
    let mut n_tripped = 0;
    let (cage, canary) = (lab.path("cage"), lab.path("cage/canary"));
    for case in cases(&canary) {
        if !case.trips {
            continue;
        }
        let _ = fs::remove_dir_all(&cage);
        make_canary(&canary);
        let before = snapshot(&canary);
        for layer in &case.layers {
            naive::unpack(&layer.blob, &cage.join("root"), &cage);
        }
        assert!(snapshot(&canary) != before, "{}: harms nobody", case.name);
        n_tripped += 1;
    }
    assert!(n_tripped > 30, "only {n_tripped}");
}

/// Takes the layers in, and looks at them from three sides.
fn outcome(lab: &Lab, case: &Case) -> String {
    fs::write(lab.path("hostile.tar"), image(&case.layers, |_, _| ()).archive()).expect("written");
    let loaded = lab.run(&["load", "-i", "hostile.tar"]);
    if loaded.status != Some(0) {
        return format!("load: {}", loaded.error());
    }
    for path in ["out", "out.tar"] {
        let path = lab.path(path);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
    let outputs = ["-o", "type=local,dest=out", "-o", "type=tar,dest=out.tar"];
    let built = lab.run(
        &[&["build", "--jobs", "1", "--progress", "plain"], &outputs[..], &["context"]].concat(),
    );
    if built.status != Some(0) {
        return format!("build: {}", built.error());
    }
    let copied = listing(&lab.path("out.tar"), b"copied/");
    let seen = listing(&lab.path("out/tree.tar"), b"");
    let mut lines: Vec<String> = copied.values().map(line).collect();
    if lines.len() > 40 {
        lines = vec![format!("{} entries", lines.len())];
    }
    lines.extend(differences("overlay", &copied, &seen));
    lines.extend(on_disk(&lab.path("out/copied"), &copied));
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines.join("\n")
}

type Listing = BTreeMap<Vec<u8>, Entry>;

/// What is in a tar below a folder.
fn listing(path: &Path, below: &[u8]) -> Listing {
    let file = fs::File::open(path).expect("a tar");
    let mut reader = TarReader::with(file, Mode::Archive, Limits::default());
    let mut found = BTreeMap::new();
    while let Some(record) = reader.next().expect("a good tar") {
        let Record::Entry(mut entry) = record else { continue };
        let Some(path) = entry.path.strip_prefix(below) else { continue };
        if path.is_empty() {
            continue;
        }
        entry.path = path.to_vec();
        if let Kind::Hardlink { target } = &mut entry.kind {
            *target = target.strip_prefix(below).unwrap_or(target).to_vec();
        }
        found.insert(entry.path.clone(), entry);
    }
    found
}

fn line(entry: &Entry) -> String {
    let kind = match &entry.kind {
        Kind::Directory => "folder".to_owned(),
        Kind::File { size } => format!("file of {size}"),
        Kind::Symlink { target } => format!("link to {}", target.escape_ascii()),
        Kind::Hardlink { target } => format!("also {}", target.escape_ascii()),
        Kind::Fifo => "pipe".to_owned(),
        Kind::CharDevice { major, minor } => format!("c {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("b {major}:{minor}"),
    };
    let mut out = format!(
        "{} {kind} {:o} {}:{}",
        entry.path.escape_ascii(),
        entry.mode,
        entry.uid,
        entry.gid
    );
    for (name, value) in &entry.xattrs {
        let value = value.escape_ascii().to_string();
        out += &format!(" {}={value:.40}", name.escape_ascii());
    }
    out
}

/// The index of a layer and overlay must be of one opinion, or two ways of using an image would show two trees.
fn differences(what: &str, one: &Listing, other: &Listing) -> Vec<String> {
    let plain = |it: &Entry| {
        let kind = match &it.kind {
            Kind::File { .. } | Kind::Hardlink { .. } => "file".to_owned(),
            kind => format!("{kind:?}"),
        };
        (kind, it.mode, it.uid, it.gid)
    };
    let mut out = Vec::new();
    for path in one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (left, right) = (one.get(path).map(plain), other.get(path).map(plain));
        if left != right && !is_hardlink_of_link(one.get(path), other.get(path)) {
            out.push(format!("{what} differs: {} {left:?} {right:?}", path.escape_ascii()));
        }
    }
    out
}

/// Two names of one symbolic link: a tar may write the second as a link to the first.
fn is_hardlink_of_link(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    let is_link =
        |it: &Entry| matches!(it.kind, Kind::Symlink { .. } | Kind::Fifo | Kind::CharDevice { .. });
    let is_also = |it: &Entry| matches!(it.kind, Kind::Hardlink { .. });
    matches!((one, other), (Some(one), Some(other)) if is_link(one) && is_also(other) || is_also(one) && is_link(other))
}

/// Compares what was exported with what was to be.
fn on_disk(root: &Path, expected: &Listing) -> Vec<String> {
    use std::os::unix::ffi::OsStrExt;
    let mut out = Vec::new();
    for (path, entry) in expected {
        let found = fs::symlink_metadata(root.join(std::ffi::OsStr::from_bytes(path)));
        let is_same = found.as_ref().is_ok_and(|it| match entry.kind {
            Kind::Directory => it.is_dir(),
            Kind::File { .. } | Kind::Hardlink { .. } => !it.is_dir(),
            Kind::Symlink { .. } => it.is_symlink(),
            Kind::Fifo => it.file_type().is_fifo(),
            Kind::CharDevice { .. } => it.file_type().is_char_device(),
            Kind::BlockDevice { .. } => it.file_type().is_block_device(),
        });
        if !is_same {
            out.push(format!("export differs: {}", path.escape_ascii()));
        }
    }
    out
}
