//! Entries and changes for tests.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::BTreeMap;

use image::{
    entry::{Entry, Kind, Time},
    layer::Record,
};
use proptest::prelude::*;

/// Makes an entry of mode 0755, owned by root, of time 0.
pub(crate) fn entry(path: &str, kind: Kind) -> Entry {
    let (mtime, xattrs) = (Time::default(), BTreeMap::new());
    Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime, xattrs }
}

pub(crate) fn file(path: &str, mode: u32, size: u64) -> Entry {
    Entry { mode, ..entry(path, Kind::File { size }) }
}

pub(crate) fn dir(path: &str, mode: u32) -> Entry {
    Entry { mode, ..entry(path, Kind::Directory) }
}

pub(crate) fn with(mut entry: Entry, change: impl FnOnce(&mut Entry)) -> Entry {
    change(&mut entry);
    entry
}

/// Makes the checksum of the header at `at` right.
pub(crate) fn fix_checksum(tar: &mut [u8], at: usize) {
    let Some(block) = tar.get_mut(at..at + 512) else { return };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|it| u32::from(*it)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// Any path that an entry may have, often a long one.
pub(crate) fn path_strategy() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'z', 1 => 1u8..=255]
        .prop_map(|it| if it == b'/' { b'x' } else { it });
    let name = prop_oneof![
        4 => proptest::collection::vec(byte.clone(), 1..8),
        1 => proptest::collection::vec(byte, 90..110),
    ];
    let name = name.prop_map(|mut it| {
        if it.starts_with(b".") {
            it[0] = b'_';
        }
        it
    });
    proptest::collection::vec(name, 1..4).prop_map(|it| it.join(&b'/'))
}

fn kind_strategy() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (0u64..2000).prop_map(|size| Kind::File { size }),
        Just(Kind::Directory),
        path_strategy().prop_map(|target| Kind::Symlink { target }),
        path_strategy().prop_map(|target| Kind::Hardlink { target }),
        Just(Kind::Fifo),
        (0u32..4096, 0u32..1_048_576).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
    ]
}

/// Anything a layer may say.
pub(crate) fn change_strategy() -> impl Strategy<Value = Record> {
    let id = prop_oneof![Just(0u32), 0u32..u32::MAX];
    let time = (
        prop_oneof![0..2_000_000_000i64, any::<i32>().prop_map(i64::from)],
        prop_oneof![Just(0), 0u32..1_000_000_000],
    )
        .prop_map(|(secs, nanos)| Time { secs, nanos });
    let xattrs = proptest::collection::btree_map(
        "[a-z.]{1,9}",
        proptest::collection::vec(any::<u8>(), 0..200),
        0..3,
    )
    .prop_map(|it| it.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect());
    let entry = (path_strategy(), kind_strategy(), 0u32..=0o7777, id.clone(), id, time, xattrs)
        .prop_map(|(path, kind, mode, uid, gid, mtime, xattrs)| Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        });
    prop_oneof![
        6 => entry.prop_map(Record::Entry),
        1 => path_strategy().prop_map(|path| Record::Whiteout { path }),
        1 => path_strategy().prop_map(|path| Record::Opaque { path }),
    ]
}
