//! Layers written, read, indexed and written again.
//!
//! `testdata/image/golden.tar` is what a list of entries of every kind becomes. Its bytes never change: cached digests depend on them. `BLESS=1`
//! writes it anew after a deliberate change of the format.

mod common;

use std::{fs, io::Read as _, path::Path};

use common::{change_strategy, dir, entry, file, with};
use image::{
    Digest, OverLimit,
    compress::decompress,
    entry::{Entry, Kind, Time},
    error::LayerError,
    layer::{
        Change, IndexedTarReader, IndexedTarWriter, LayerIndex, Limits, Mode, Record, TarReader,
        TarWriter, rewrite,
    },
};
use proptest::prelude::*;

/// Entries of every kind, and with everything that needs a PAX header, with their contents.
fn samples() -> Vec<(Entry, Vec<u8>)> {
    let long = [&b"d".repeat(120)[..], b"/", &b"e".repeat(90)].concat();
    let too_long = [&b"d".repeat(200)[..], b"/", &b"e".repeat(110)].concat();
    vec![
        (dir("", 0o755), Vec::new()),
        (dir("bin", 0o755), Vec::new()),
        (
            with(file("bin/sh", 0o4755, 11), |it| {
                it.mtime = Time { secs: 1_700_000_000, nanos: 0 }
            }),
            b"hello world".to_vec(),
        ),
        (file("empty", 0o644, 0), Vec::new()),
        (file("block", 0o600, 512), vec![7; 512]),
        (file("large", 0o644, 140_001), vec![9; 140_001]),
        (entry("link", Kind::Symlink { target: b"/usr/../bin/sh".to_vec() }), Vec::new()),
        (entry("hard", Kind::Hardlink { target: b"bin/sh".to_vec() }), Vec::new()),
        (entry("fifo", Kind::Fifo), Vec::new()),
        (entry("null", Kind::CharDevice { major: 1, minor: 3 }), Vec::new()),
        (entry("sda", Kind::BlockDevice { major: 8, minor: 0xfffff }), Vec::new()),
        (with(file("x", 0o644, 0), |it| it.path = long.clone()), Vec::new()),
        (with(file("x", 0o644, 1), |it| it.path = too_long.clone()), b"1".to_vec()),
        (with(dir("x", 0o755), |it| it.path = b"n".repeat(100)), Vec::new()),
        (file("größe", 0o644, 0), Vec::new()),
        (with(file("x", 0o644, 0), |it| it.path = b"not\xffutf8".to_vec()), Vec::new()),
        (entry("longlink", Kind::Symlink { target: b"t".repeat(101) }), Vec::new()),
        (entry("umlaut", Kind::Hardlink { target: "größe".into() }), Vec::new()),
        (
            with(file("ids", 0o644, 0), |it| (it.uid, it.gid) = (2_097_152, 4_294_967_294)),
            Vec::new(),
        ),
        (
            with(file("before", 0o644, 0), |it| it.mtime = Time { secs: -2, nanos: 500_000_000 }),
            Vec::new(),
        ),
        (
            with(file("later", 0o644, 0), |it| {
                it.mtime = Time { secs: 0o77_777_777_777 + 1, nanos: 0 }
            }),
            Vec::new(),
        ),
        (
            with(file("caps", 0o755, 0), |it| {
                it.xattrs.insert(b"security.capability".to_vec(), b"\x01\0\0\x02\n=\xff".to_vec());
                it.xattrs.insert(b"user.empty".to_vec(), Vec::new());
            }),
            Vec::new(),
        ),
    ]
}

fn write_samples() -> (Vec<u8>, LayerIndex) {
    let mut writer = IndexedTarWriter::new(Vec::new());
    for (entry, content) in samples() {
        writer.append(entry, &mut &content[..]).expect("a good entry");
    }
    writer.whiteout(b"gone").expect("a good path");
    writer.whiteout(b"bin/gone").expect("a good path");
    writer.opaque(b"bin").expect("a good path");
    writer.finish().expect("a Vec takes all")
}

#[test]
fn the_golden_tar_does_not_change() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/image/golden.tar");
    let (tar, _) = write_samples();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &tar).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        tar == golden,
        "the tar is {}, the golden one {}",
        Digest::of(&tar),
        Digest::of(&golden)
    );
}

#[test]
fn what_is_written_is_read() {
    let (tar, index) = write_samples();
    assert_eq!(index.diff_id.0, Digest::of(&tar));
    assert_eq!(index.tar_size, tar.len() as u64);

    let mut reader = TarReader::new(&tar[..]);
    for ((entry, content), change) in samples().into_iter().zip(&index.changes) {
        assert_eq!(reader.next().expect("a good tar"), Some(Record::Entry(entry.clone())));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("a good tar");
        assert!(read == content, "{entry:?}");
        let Change::Entry { offset, content: hash, .. } = change else { panic!("{change:?}") };
        assert_eq!(reader.content_offset(), *offset);
        let is_file = matches!(entry.kind, Kind::File { .. });
        assert_eq!(*hash, is_file.then(|| blake3::hash(&content).into()));
        if !content.is_empty() {
            let at = usize::try_from(*offset).expect("a small tar");
            assert!(tar[at..].starts_with(&content));
        }
    }
    assert_eq!(
        reader.next().expect("a good tar"),
        Some(Record::Whiteout { path: b"gone".to_vec() })
    );
    assert_eq!(
        reader.next().expect("a good tar"),
        Some(Record::Whiteout { path: b"bin/gone".to_vec() })
    );
    assert_eq!(reader.next().expect("a good tar"), Some(Record::Opaque { path: b"bin".to_vec() }));
    assert_eq!(reader.next().expect("a good tar"), None);
}

#[test]
fn reading_makes_the_same_index_as_writing() {
    let (tar, index) = write_samples();
    assert_eq!(LayerIndex::of_tar(&tar[..], Limits::default()).expect("a good tar"), index);

    let mut reader = IndexedTarReader::new(&tar[..], Limits::default());
    while reader.next().expect("a good tar").is_some() {
        let mut some = [0; 5];
        let _ = reader.read(&mut some).expect("a good tar");
    }
    assert_eq!(reader.finish().expect("a good tar").1, index);
}

#[test]
fn an_index_and_the_contents_make_the_same_tar_again() {
    let (tar, index) = write_samples();
    let samples = samples();
    let open = |path: &[u8]| {
        let (_, content) =
            samples.iter().find(|(entry, _)| entry.path == path).expect("a file of the samples");
        Ok(&content[..])
    };
    assert!(rewrite(&index, open, Vec::new()).expect("the contents are there") == tar);

    let mut other = index.clone();
    other.tar_size += 512;
    assert!(matches!(rewrite(&other, open, Vec::new()), Err(LayerError::Index { .. })));
    let short = |_: &[u8]| Ok(&b""[..]);
    assert!(matches!(rewrite(&index, short, Vec::new()), Err(LayerError::Size { .. })));
}

#[test]
fn an_index_survives_its_encoding() {
    let (_, index) = write_samples();
    let mut bytes = Vec::new();
    index.encode(&mut bytes).expect("a Vec takes all");
    assert_eq!(LayerIndex::decode(&bytes).expect("its own encoding"), index);
    for at in 0..bytes.len() {
        assert!(LayerIndex::decode(&bytes[..at]).is_err(), "cut at {at}");
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert!(LayerIndex::decode(&bad).is_err(), "flipped at {at}");
    }
}

#[test]
fn bad_entries_are_not_written() {
    for path in [
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        ".",
        "a\0b",
        ".wh.a",
        "a/.wh.b",
        ".wh..wh.aufs",
        &"a".repeat(256),
    ] {
        let mut writer = TarWriter::new(Vec::new());
        let error = writer.append(&file(path, 0o644, 0), &mut &b""[..]);
        assert!(matches!(error, Err(LayerError::Entry { .. })), "{path}");
        assert_eq!(writer.offset(), 0, "{path}");
    }
    for bad in [
        file("", 0o644, 0),
        file("a", 0o10000, 0),
        entry("a", Kind::Symlink { target: Vec::new() }),
        entry("a", Kind::Hardlink { target: b"/a".to_vec() }),
        with(file("a", 0o644, 0), |it| it.mtime.nanos = 1_000_000_000),
        with(file("a", 0o644, 0), |it| drop(it.xattrs.insert(b"a=b".to_vec(), Vec::new()))),
    ] {
        assert!(TarWriter::new(Vec::new()).append(&bad, &mut &b""[..]).is_err(), "{bad:?}");
    }
    assert!(TarWriter::new(Vec::new()).whiteout(b"").is_err());
    assert!(TarWriter::new(Vec::new()).whiteout(b"../a").is_err());
    assert!(
        TarWriter::new_plain(Vec::new()).append(&file(".wh.a", 0o644, 0), &mut &b""[..]).is_ok()
    );
}

#[test]
fn a_file_shorter_than_said_is_an_error() {
    let error = TarWriter::new(Vec::new()).append(&file("a", 0o644, 10), &mut &b"12345"[..]);
    assert!(matches!(error, Err(LayerError::Size { expected: 10, found: 5, .. })), "{error:?}");
}

#[test]
fn in_an_archive_whiteouts_are_files() {
    let mut writer = TarWriter::new_plain(Vec::new());
    writer.append(&file(".wh.a", 0o644, 0), &mut &b""[..]).expect("a good entry");
    let tar = writer.finish().expect("a Vec takes all");
    let mut reader = TarReader::with(&tar[..], Mode::Archive, Limits::default());
    assert_eq!(reader.next().expect("a good tar"), Some(Record::Entry(file(".wh.a", 0o644, 0))));
}

/// What GNU tar made of four files, three of them with holes, in all forms that it knows.
#[test]
fn files_with_holes_are_read() {
    let mut parts = vec![0; (1 << 20) + 100];
    for n in 0..60_u8 {
        let at = usize::from(n) * 16384 + 1024;
        parts[at..at + 512].fill(33 + n);
    }
    let long = [b"long-".as_slice(), &b"n".repeat(120)].concat();
    let mut text = vec![b'x'; 700];
    text.resize(65536, 0);
    text.push(b'y');
    let expected = [
        (b"hole".to_vec(), vec![0; 70000]),
        (long, text),
        (b"parts".to_vec(), parts),
        (b"plain".to_vec(), b"plain\n".to_vec()),
    ];
    for form in ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"] {
        let tar = sparse(form);
        let mut reader = TarReader::with(&tar[..], Mode::Archive, Limits::default());
        let mut found = Vec::new();
        while let Some(record) = reader.next().unwrap_or_else(|error| panic!("{form}: {error}")) {
            let Record::Entry(entry) = record else { panic!("{form}: {record:?}") };
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!(entry.kind, Kind::File { size: content.len() as u64 }, "{form}");
            found.push((entry.path, content));
        }
        assert!(
            found == expected,
            "{form}: {:?}",
            found.iter().map(|it| &it.0).collect::<Vec<_>>()
        );
        // Contents that nobody reads are skipped, and cut ones are errors.
        let reader = |tar| TarReader::with(tar, Mode::Archive, Limits::default());
        assert!(reader(&tar[..]).finish().is_ok(), "{form}");
        assert!(reader(&tar[..tar.len() / 2]).finish().is_err(), "{form}");
        assert!(TarReader::new(&tar[..]).finish().is_err(), "{form}: not in a layer");
        for limits in [
            Limits { max_bytes: 60_000, ..Limits::default() },
            Limits { free_holes: 10_000, max_ratio: 5, ..Limits::default() },
        ] {
            let mut reader = TarReader::with(&tar[..], Mode::Archive, limits);
            reader.next().expect("the file that is all hole");
            let error = reader.read_to_end(&mut Vec::new()).expect_err("too many zeros");
            assert!(OverLimit::find(&error).is_some(), "{form}: {error}");
        }
    }
}

fn sparse(form: &str) -> Vec<u8> {
    let path = format!("{}/../testdata/image/sparse/{form}.tar.gz", env!("CARGO_MANIFEST_DIR"));
    let packed = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut tar = Vec::new();
    decompress(&packed[..])
        .and_then(|(_, mut reader)| reader.read_to_end(&mut tar))
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    tar
}

#[test]
fn limits_hold() {
    let (tar, _) = write_samples();
    let read = |limits: Limits| TarReader::with(&tar[..], Mode::Layer, limits).finish().err();
    assert!(read(Limits::default()).is_none());
    assert!(matches!(
        read(Limits { max_entries: 3, ..Limits::default() }),
        Some(LayerError::Limit(_))
    ));
    assert!(matches!(
        read(Limits { max_bytes: 9000, ..Limits::default() }),
        Some(LayerError::Limit(_))
    ));
    assert!(matches!(
        read(Limits { max_pax: 20, ..Limits::default() }),
        Some(LayerError::Limit(_))
    ));
    assert!(matches!(
        read(Limits { max_path: 200, ..Limits::default() }),
        Some(LayerError::Entry { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_survive_tar_and_index(changes in proptest::collection::vec(change_strategy(), 0..20)) {
        let mut writer = IndexedTarWriter::new(Vec::new());
        for change in &changes {
            match change {
                Record::Entry(entry) => {
                    let size = match entry.kind { Kind::File { size } => size, _ => 0 };
                    writer.append(entry.clone(), &mut std::io::repeat(1).take(size)).expect("a good entry");
                }
                Record::Whiteout { path } => writer.whiteout(path).expect("a good path"),
                Record::Opaque { path } => writer.opaque(path).expect("a good path"),
            }
        }
        let (tar, index) = writer.finish().expect("a Vec takes all");
        prop_assert_eq!(tar.len() % 512, 0);
        let mut reader = TarReader::new(&tar[..]);
        for change in changes {
            prop_assert_eq!(reader.next().expect("its own tar"), Some(change));
        }
        prop_assert_eq!(LayerIndex::of_tar(&tar[..], Limits::default()).expect("its own tar"), index.clone());
        let mut bytes = Vec::new();
        index.encode(&mut bytes).expect("a Vec takes all");
        prop_assert_eq!(LayerIndex::decode(&bytes).expect("its own encoding"), index);
    }

    #[test]
    fn damaged_tars_are_read_without_panic(at in 0usize..40_000, bytes in proptest::collection::vec(any::<u8>(), 1..40), fix in any::<bool>()) {
        let (mut tar, _) = write_samples();
        let end = (at + bytes.len()).min(tar.len());
        tar[at..end].copy_from_slice(&bytes[..end - at]);
        if fix {
            common::fix_checksum(&mut tar, at / 512 * 512);
        }
        for mode in [Mode::Layer, Mode::Archive] {
            let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
            let _ = TarReader::with(&tar[..], mode, limits).finish();
        }
    }

    #[test]
    fn damaged_indexes_are_decoded_without_panic(at in 8usize..1000, bytes in proptest::collection::vec(any::<u8>(), 1..20)) {
        let (_, index) = write_samples();
        let mut encoded = Vec::new();
        index.encode(&mut encoded).expect("a Vec takes all");
        let body_len = encoded.len() - 16;
        let end = (at + bytes.len()).min(body_len);
        encoded[at..end].copy_from_slice(&bytes[..end - at]);
        encoded.truncate(body_len);
        let checksum = blake3::hash(&encoded);
        encoded.extend_from_slice(&checksum.as_bytes()[..16]);
        if let Ok(index) = LayerIndex::decode(&encoded) {
            // There is one encoding for each index.
            let mut again = Vec::new();
            index.encode(&mut again).expect("a Vec takes all");
            prop_assert_eq!(again, encoded);
        }
    }
}
