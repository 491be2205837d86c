//! Entries of layers that whoever runs the test can unpack.

use std::{fs, os::unix::fs::MetadataExt};

use image::entry::{Entry, Kind, Time};

/// Makes an entry that belongs to who runs the test.
pub(crate) fn entry(path: &str, kind: Kind) -> Entry {
    let me = fs::metadata("/proc/self").expect("proc is there");
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: me.uid(),
        gid: me.gid(),
        mtime: Time { secs: 1_600_000_000, nanos: 0 },
        xattrs: Default::default(),
    }
}
