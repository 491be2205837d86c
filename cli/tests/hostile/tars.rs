//! Tars as an attacker writes them: nothing is checked.

/// A tar in the making.
#[derive(Default, Clone)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    /// Where the header that was written last begins.
    last: usize,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.header(b'0', path.as_bytes(), "", 0o644, content.len()).data(content.as_bytes())
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.header(b'5', path.as_bytes(), "", 0o755, 0)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.header(b'2', path.as_bytes(), target, 0o777, 0)
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.header(b'1', path.as_bytes(), target, 0o644, 0)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.header(b'6', path.as_bytes(), "", 0o644, 0)
    }

    /// A device: `c` or `b`, numbers in octal.
    pub(crate) fn device(self, kind: char, path: &str, major: &str, minor: &str) -> Self {
        let flag = if kind == 'c' { b'3' } else { b'4' };
        self.header(flag, path.as_bytes(), "", 0o666, 0)
            .field(329, format!("{major:0>7}").as_bytes())
            .field(337, format!("{minor:0>7}").as_bytes())
    }

    /// Any header, for a content of `size` bytes that may or may not follow.
    pub(crate) fn header(
        mut self,
        kind: u8,
        path: &[u8],
        target: &str,
        mode: u32,
        size: usize,
    ) -> Self {
        self.last = self.bytes.len();
        self.bytes.resize(self.last + 512, 0);
        self.put(0, &path[..path.len().min(100)]);
        self.put(100, format!("{mode:07o}").as_bytes());
        self.put(108, b"0000000");
        self.put(116, b"0000000");
        self.put(124, format!("{size:011o}").as_bytes());
        self.put(136, b"00000000001");
        self.put(157, &target.as_bytes()[..target.len().min(100)]);
        self.put(257, b"ustar\x0000");
        self.bytes[self.last + 156] = kind;
        self.seal()
    }

    /// Overwrites a field of the last header.
    pub(crate) fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.seal()
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.field(100, format!("{mode:07o}").as_bytes())
    }

    /// Overwrites a byte of the last header without mending its checksum.
    pub(crate) fn broken(mut self) -> Self {
        self.bytes[self.last + 148] ^= 1;
        self
    }

    /// Content behind the last header, filled up to a block.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Records for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|it| *it == rest + it.to_string().len()).expect("a length");
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.records(b'x', &body)
    }

    /// The body of extended records, good or not.
    pub(crate) fn records(self, kind: u8, body: &[u8]) -> Self {
        self.header(kind, b"PaxHeaders/x", "", 0o644, body.len()).data(body)
    }

    /// A long name (`L`) or link target (`K`) as old GNU tar writes it.
    pub(crate) fn gnu(self, kind: u8, text: &str) -> Self {
        let body = [text.as_bytes(), b"\0"].concat();
        self.header(kind, b"././@LongLink", "", 0o644, body.len()).data(&body)
    }

    /// What was written so far, without an end.
    pub(crate) fn cut(self, n_bytes: usize) -> Vec<u8> {
        self.bytes[..n_bytes.min(self.bytes.len())].to_vec()
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = self.last + at;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn seal(mut self) -> Self {
        let block = &mut self.bytes[self.last..self.last + 512];
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|it| u32::from(*it)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }
}

/// gzip without compression, of one member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut chunks = bytes.chunks(0xffff).peekable();
    while let Some(chunk) = chunks.next() {
        out.push(u8::from(chunks.peek().is_none()));
        let length = chunk.len() as u16;
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    out.extend((!crc).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

/// Zstandard: a frame with a window of `1 << window` bytes and this one byte, `n` times.
pub(crate) fn zstd_run(window: u8, byte: u8, n: u64) -> Vec<u8> {
    const LARGEST: u64 = 128 << 10;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3];
    let mut rest = n;
    loop {
        let here = rest.min(LARGEST);
        rest -= here;
        // Last block, type 1: one byte that is repeated.
        let header = u32::from(rest == 0) | 1 << 1 | (here as u32) << 3;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.push(byte);
        if rest == 0 {
            return out;
        }
    }
}
