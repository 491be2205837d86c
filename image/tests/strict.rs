//! Tars that different programs read differently, or that reach out of the root, are refused; what real tools write is not.

mod common;

use std::io::Read as _;

use common::fix_checksum;
use image::{
    entry::{Kind, Time},
    error::LayerError,
    layer::{Limits, Mode, Record, TarReader},
};

/// Builds tars that no good program would write.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    /// Adds a header with this name, type and content, after `change` had its way with it.
    fn with(
        mut self,
        typeflag: u8,
        name: &[u8],
        content: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Self {
        let at = self.0.len();
        self.0.resize(at + 512, 0);
        let block = &mut self.0[at..];
        block[..name.len()].copy_from_slice(name);
        for field in [100..107, 108..115, 116..123, 136..147] {
            block[field].fill(b'0');
        }
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[156] = typeflag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(block);
        fix_checksum(&mut self.0, at);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn add(self, typeflag: u8, name: &str, content: &[u8]) -> Self {
        self.with(typeflag, name.as_bytes(), content, |_| {})
    }

    fn link(self, typeflag: u8, name: &str, target: &str) -> Self {
        self.with(typeflag, name.as_bytes(), b"", |it| {
            it[157..157 + target.len()].copy_from_slice(target.as_bytes())
        })
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn read(tar: &[u8], mode: Mode) -> Result<Vec<Record>, LayerError> {
    let mut reader = TarReader::with(tar, mode, Limits::default());
    let mut out = Vec::new();
    while let Some(record) = reader.next()? {
        out.push(record);
    }
    Ok(out)
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut out = String::new();
    for (key, value) in records {
        let n_rest = key.len() + value.len() + 3;
        let length =
            (n_rest..).find(|it| *it == n_rest + it.to_string().len()).expect("some length fits");
        out += &format!("{length} {key}={value}\n");
    }
    out.into_bytes()
}

#[test]
fn what_is_ambiguous_or_malformed_is_refused() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("..", Raw::default().add(b'0', "..", b"").end()),
        ("climbs", Raw::default().add(b'0', "a/../../b", b"").end()),
        ("hard link climbs", Raw::default().link(b'1', "a", "../b").end()),
        ("hard link to nothing", Raw::default().link(b'1', "a", "").end()),
        ("hard link to the root", Raw::default().link(b'1', "a", "/").end()),
        ("symbolic link to nothing", Raw::default().link(b'2', "a", "").end()),
        ("root is a link", Raw::default().link(b'2', "./", "/etc").end()),
        ("root is a file", Raw::default().add(b'0', "/", b"").end()),
        ("no name", Raw::default().add(b'0', "", b"").end()),
        ("file that is a folder to some", Raw::default().add(b'0', "a/", b"").end()),
        ("unknown type", Raw::default().add(b'Z', "a", b"").end()),
        ("sparse file", Raw::default().add(b'S', "a", b"").end()),
        ("folder with a size", Raw::default().add(b'5', "a", b"x").end()),
        ("link with a size", Raw::default().with(b'2', b"a", b"x", |it| it[157] = b'b').end()),
        (
            "size is no number",
            Raw::default().with(b'0', b"a", b"", |it| it[124..127].copy_from_slice(b"0x1")).end(),
        ),
        ("negative size", Raw::default().with(b'0', b"a", b"", |it| it[124..136].fill(0xff)).end()),
        (
            "size beyond i64",
            Raw::default()
                .add(b'x', "p", &pax(&[("size", "9223372036854775807")]))
                .add(b'0', "a", b"")
                .end(),
        ),
        ("mode is no number", Raw::default().with(b'0', b"a", b"", |it| it[100] = b'9').end()),
        (
            "owner is all ones",
            Raw::default().add(b'x', "p", &pax(&[("uid", "4294967295")])).add(b'0', "a", b"").end(),
        ),
        (
            "owner wraps",
            Raw::default().add(b'x', "p", &pax(&[("uid", "4294967296")])).add(b'0', "a", b"").end(),
        ),
        (
            "negative owner",
            Raw::default().with(b'0', b"a", b"", |it| it[108..116].fill(0xff)).end(),
        ),
        (
            "device out of range",
            Raw::default().with(b'3', b"a", b"", |it| it[329..336].fill(b'7')).end(),
        ),
        (
            "malformed record",
            Raw::default().add(b'x', "p", b"99 path=b\n").add(b'0', "a", b"").end(),
        ),
        (
            "record without length",
            Raw::default().add(b'x', "p", b"path=b\n").add(b'0', "a", b"").end(),
        ),
        (
            "NUL in a path",
            Raw::default().add(b'x', "p", &pax(&[("path", "a\0b")])).add(b'0', "a", b"").end(),
        ),
        (
            "sparse by record",
            Raw::default()
                .add(b'x', "p", &pax(&[("GNU.sparse.major", "1")]))
                .add(b'0', "a", b"")
                .end(),
        ),
        (
            "two sets of records",
            Raw::default()
                .add(b'x', "p", &pax(&[("path", "b")]))
                .add(b'x', "p", &pax(&[]))
                .add(b'0', "a", b"")
                .end(),
        ),
        (
            "records and a long name",
            Raw::default()
                .add(b'x', "p", &pax(&[("path", "b")]))
                .add(b'L', "n", b"c\0")
                .add(b'0', "a", b"")
                .end(),
        ),
        (
            "a long name and records",
            Raw::default()
                .add(b'L', "n", b"c\0")
                .add(b'x', "p", &pax(&[("path", "b")]))
                .add(b'0', "a", b"")
                .end(),
        ),
        (
            "two long names",
            Raw::default().add(b'L', "n", b"c\0").add(b'L', "n", b"d\0").add(b'0', "a", b"").end(),
        ),
        ("empty long name", Raw::default().add(b'L', "n", b"\0").add(b'0', "a", b"").end()),
        ("NUL in a long name", Raw::default().add(b'L', "n", b"c\0d\0").add(b'0', "a", b"").end()),
        ("records for nothing", Raw::default().add(b'x', "p", &pax(&[("path", "b")])).end()),
        (
            "global path",
            Raw::default().add(b'g', "p", &pax(&[("path", "b")])).add(b'0', "a", b"").end(),
        ),
        (
            "global size",
            Raw::default().add(b'g', "p", &pax(&[("size", "512")])).add(b'0', "a", b"").end(),
        ),
        (
            "a single zero block",
            [
                &Raw::default().add(b'0', "a", b"").0[..],
                &[0; 512],
                &Raw::default().add(b'0', "b", b"").end(),
            ]
            .concat(),
        ),
        (
            "a part that is too long",
            Raw::default()
                .add(b'x', "p", &pax(&[("path", &"a".repeat(256))]))
                .add(b'0', "a", b"")
                .end(),
        ),
        ("noise", (0..2048u32).map(|it| (it * 31 % 251) as u8).collect()),
    ];
    for (name, tar) in cases {
        for mode in [Mode::Layer, Mode::Archive] {
            let found = read(&tar, mode);
            assert!(found.is_err(), "{name} in {mode:?}: {found:?}");
        }
    }
}

#[test]
fn what_climbs_but_stays_inside_is_refused_in_layers() {
    let tar = Raw::default().add(b'0', "a/b/.././../c", b"").end();
    assert!(read(&tar, Mode::Layer).is_err());
    match &read(&tar, Mode::Archive).expect("an archive")[..] {
        [Record::Entry(entry)] => assert_eq!(entry.path, b"c"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_whiteouts_are_refused_in_layers() {
    for tar in [
        Raw::default().add(b'0', ".wh.", b"").end(),
        Raw::default().add(b'0', "a/.wh.", b"").end(),
        Raw::default().add(b'0', ".wh..", b"").end(),
        Raw::default().add(b'0', ".wh...", b"").end(),
        Raw::default().add(b'5', ".wh.a", b"").end(),
        Raw::default().link(b'2', ".wh.a", "b").end(),
        Raw::default().add(b'5', "a/.wh..wh..opq", b"").end(),
        Raw::default().add(b'0', ".wh.a/b", b"").end(),
        Raw::default().add(b'g', "p", &pax(&[("uid", "1")])).add(b'0', "a", b"").end(),
    ] {
        assert!(read(&tar, Mode::Layer).is_err());
        assert!(read(&tar, Mode::Archive).is_ok());
    }
}

#[test]
fn a_tar_that_ends_early_is_an_error() {
    let tar = Raw::default().add(b'x', "p", &pax(&[("path", "b")])).add(b'0', "a", &[1; 600]).0;
    for n_bytes in 1..tar.len() {
        assert!(read(&tar[..n_bytes], Mode::Layer).is_err(), "{n_bytes}");
    }
    // The two blocks at the end may be missing.
    assert_eq!(read(&tar, Mode::Layer).map(|it| it.len()).ok(), Some(1));
    assert_eq!(read(b"", Mode::Layer).map(|it| it.len()).ok(), Some(0));
}

#[test]
fn what_real_tools_write_is_read() {
    let records = pax(&[
        ("path", "long/name"),
        ("size", "3"),
        ("mtime", "1.5"),
        ("uid", "3000000"),
        ("comment", "x"),
    ]);
    let tar = Raw::default()
        .add(b'g', "pax_global_header", &pax(&[("comment", "0123abcd")]))
        .add(b'5', "./", b"")
        .add(b'5', "/usr//./bin/", b"")
        .add(b'x', "p", &records)
        .with(b'0', b"short", b"abc", |it| it[124..135].fill(b'0'))
        .add(b'L', "././@LongLink", b"gnu/name\0")
        .add(b'K', "././@LongLink", b"gnu/target\0")
        .link(b'2', "short", "short")
        .link(b'1', "hard", "/usr/bin/x")
        .add(0, "old", b"1")
        .add(b'7', "contiguous", b"22")
        .with(b'0', b"name", b"", |it| it[345..351].copy_from_slice(b"prefix"))
        .with(b'0', b"gnu", b"", |it| {
            it[257..265].copy_from_slice(b"ustar  \0");
            it[345..351].copy_from_slice(b"123456");
        })
        .with(b'0', b"before", b"", |it| {
            it[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")
        })
        .add(b'0', ".wh..wh.aufs", b"")
        .add(b'0', ".wh..wh.plnk/1.2", b"data")
        .link(b'1', "d/.wh.gone", ".wh..wh.aufs")
        .add(b'0', "d/.wh..wh..opq", b"")
        .end();
    // Padded to a record of ten blocks or more, as tar does it.
    let tar = [&tar[..], &[0; 10_240]].concat();

    let mut reader = TarReader::new(&tar[..]);
    let mut found = Vec::new();
    while let Some(record) = reader.next().expect("a good tar") {
        let mut content = String::new();
        reader.read_to_string(&mut content).expect("a good tar");
        found.push(match record {
            Record::Entry(entry) => {
                if entry.path == b"long/name" {
                    assert_eq!(
                        (entry.uid, entry.mtime),
                        (3_000_000, Time { secs: 1, nanos: 500_000_000 })
                    );
                }
                if entry.path == b"before" {
                    assert_eq!(entry.mtime.secs, -2);
                }
                let target = match entry.kind {
                    Kind::Symlink { target } | Kind::Hardlink { target } => {
                        format!("->{}", String::from_utf8_lossy(&target))
                    }
                    _ => String::new(),
                };
                format!("{}{target}={content}", String::from_utf8_lossy(&entry.path))
            }
            Record::Whiteout { path } => format!("-{}", String::from_utf8_lossy(&path)),
            Record::Opaque { path } => format!("!{}", String::from_utf8_lossy(&path)),
        });
    }
    assert_eq!(
        found,
        [
            "=",
            "usr/bin=",
            "long/name=abc",
            "gnu/name->gnu/target=",
            "hard->usr/bin/x=",
            "old=1",
            "contiguous=22",
            "prefix/name=",
            "gnu=",
            "before=",
            "-d/gone",
            "!d",
        ]
    );
}

#[test]
fn the_size_of_the_records_counts() {
    // A reader that took the size of the header would find the entry that is hidden in the content.
    let hidden = Raw::default().add(b'0', "hidden", b"").0;
    let records = pax(&[("size", &hidden.len().to_string())]);
    let tar = Raw::default()
        .add(b'x', "p", &records)
        .with(b'0', b"outer", &hidden, |it| it[124..135].fill(b'0'))
        .add(b'0', "after", b"")
        .end();
    let paths: Vec<_> = read(&tar, Mode::Layer)
        .expect("a good tar")
        .into_iter()
        .map(|it| match it {
            Record::Entry(entry) => entry.path,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, [b"outer", b"after"]);
}
