//! What is compressed comes back, the bytes do not depend on threads or writes, and every format that people use is read.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use image::{
    Digest, LimitKind, OverLimit,
    compress::{
        Compression, Compressor, DecompressLimits, Detected, decompress, decompress_limited,
    },
};

/// Text, zeros and noise, of more than one block.
fn sample(n_bytes: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut out = Vec::with_capacity(n_bytes + 64);
    while out.len() < n_bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 29 {
            0 => out.extend_from_slice(&[0; 50]),
            1 | 2 => out.extend(state.to_le_bytes()),
            _ => out.extend(format!("line {} of a layer\n", state >> 20).bytes()),
        }
    }
    out.truncate(n_bytes);
    out
}

fn compress(data: &[u8], compression: Compression, n_threads: usize, n_step: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), compression, n_threads).expect("a good level");
    for piece in data.chunks(n_step) {
        compressor.write_all(piece).expect("a Vec takes all");
        compressor.flush().expect("a Vec takes all");
    }
    compressor.finish().expect("a Vec takes all")
}

fn decompressed(data: &[u8]) -> io::Result<(Detected, Vec<u8>)> {
    let (detected, mut reader) = decompress(data)?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok((detected, out))
}

const ALL: [Compression; 5] = [
    Compression::Uncompressed,
    Compression::Gzip { level: 0 },
    Compression::Gzip { level: 4 },
    Compression::Gzip { level: 6 },
    Compression::ZSTD,
];

#[test]
fn what_is_compressed_comes_back() {
    for compression in ALL {
        for n_bytes in [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_333_333] {
            let data = sample(n_bytes);
            let compressed = compress(&data, compression, 2, 100_000);
            let (detected, again) = decompressed(&compressed).expect("its own output");
            assert!(again == data, "{compression:?} {n_bytes}");
            let expected = match compression {
                Compression::Uncompressed => Detected::Plain,
                Compression::Gzip { .. } => Detected::Gzip,
                Compression::Zstd { .. } => Detected::Zstd,
            };
            assert_eq!(detected, expected);
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_writes() {
    let data = sample(10_000_000);
    for compression in [Compression::default(), Compression::ZSTD] {
        let one = compress(&data, compression, 0, data.len());
        for (n_threads, n_step) in [(1, 7777), (3, 1 << 20), (7, 5_000_003)] {
            let other = compress(&data, compression, n_threads, n_step);
            assert!(one == other, "{compression:?} {n_threads} {n_step}");
        }
    }
}

/// Digests of compressed layers are in registries and caches; a new version of a library must not change them unnoticed.
#[test]
fn the_bytes_are_those_of_yesterday() {
    let data = sample(2_500_000);
    let found: Vec<String> = ALL
        .iter()
        .map(|it| format!("{it:?} {}\n", Digest::of(&compress(&data, *it, 2, 100_000))))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/image/compressed/digests");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, found.concat())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(found.concat(), golden);
}

/// What is in archives and pictures: nothing in it is repeated.
fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    });
    words.flatten().take(n_bytes).collect()
}

#[test]
fn noise_is_stored_and_what_only_looks_like_it_is_not() {
    const MIB: usize = 1 << 20;
    let size = |data: &[u8]| {
        let compressed = compress(data, Compression::GZIP, 2, 100_000);
        assert!(decompressed(&compressed).expect("its own output").1 == data);
        compressed.len()
    };
    // A stored block begins with a byte 0 or 1 behind the header of the member.
    let stored = compress(&noise(3 * MIB), Compression::GZIP, 2, 100_000);
    assert!(stored[10] <= 1 && stored.len() < 3 * MIB + 600, "{} {}", stored[10], stored.len());
    // The same noise again within reach of a match, noise in a text, and bytes that are equally frequent but in order.
    let repeated = noise(20_000).repeat(3 * MIB / 20_000);
    assert!(size(&repeated) < MIB, "{}", size(&repeated));
    let mut mixed = noise(MIB);
    mixed[MIB / 2..].copy_from_slice(&sample(MIB / 2));
    assert!(size(&mixed) < MIB * 4 / 5, "{}", size(&mixed));
    let counting: Vec<u8> = (0..3 * MIB).map(|it| it as u8).collect();
    assert!(size(&counting) < MIB / 10, "{}", size(&counting));
}

#[test]
fn levels_that_do_not_exist_are_refused() {
    for compression in [
        Compression::Gzip { level: 13 },
        Compression::Zstd { level: 0 },
        Compression::Zstd { level: 23 },
    ] {
        assert!(Compressor::new(Vec::new(), compression, 1).is_err(), "{compression:?}");
    }
}

#[test]
fn a_failing_output_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for compression in ALL {
        let mut compressor = Compressor::new(Full, compression, 2).expect("a good level");
        let result =
            compressor.write_all(&sample(9_000_000)).and_then(|()| compressor.finish().map(drop));
        assert_eq!(
            result.map_err(|it| it.kind()),
            Err(io::ErrorKind::StorageFull),
            "{compression:?}"
        );
    }
}

#[test]
fn what_other_programs_compress_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/image/compressed");
    let read =
        |name: &str| fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = read("text");
    assert_eq!(decompressed(&text).expect("plain text"), (Detected::Plain, text.clone()));
    for (name, detected) in [
        ("text.gz", Detected::Gzip),
        ("text.bz2", Detected::Bzip2),
        ("text.xz", Detected::Xz),
        ("text.zst", Detected::Zstd),
    ] {
        let compressed = read(name);
        let found = decompressed(&compressed).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found == (detected, text.clone()), "{name}");
        for cut in [10, compressed.len() / 3, compressed.len() - 1] {
            assert!(decompressed(&compressed[..cut]).is_err(), "{name} cut at {cut}");
        }
        let mut damaged = compressed.clone();
        damaged[compressed.len() / 3] ^= 0xff;
        assert!(
            decompressed(&damaged).is_ok_and(|it| it.1 != text) || decompressed(&damaged).is_err(),
            "{name}"
        );
    }
}

/// A few bytes of xz that ask for a dictionary of so many bytes: 2 or 3 shifted by half of the number, plus eleven.
fn xz_with_dictionary(bits: u8) -> Vec<u8> {
    let text = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/image/compressed/text.xz"),
    );
    let mut xz = text.expect("it is there");
    // Behind the header of the stream: its own length, flags, the id of LZMA2, the length of its properties, and those.
    assert_eq!(xz[12..16], [2, 0, 0x21, 1], "a block with one filter and no sizes");
    xz[16] = bits;
    let crc = crc32(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.to_le_bytes());
    xz
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn memory_is_not_the_archives_to_choose() {
    let read = |bytes: &[u8], limits| {
        let (_, mut reader) = decompress_limited(bytes, limits)?;
        io::copy(&mut reader, &mut io::sink())
    };
    let limits = DecompressLimits::default();
    // 64 MiB, as `xz -9`, and 128 MiB are good, 256 MiB and 4 GiB are not.
    for (bits, is_good) in [(28, true), (30, true), (32, false), (40, false)] {
        let result = read(&xz_with_dictionary(bits), limits);
        let over = result.as_ref().err().and_then(|it| OverLimit::find(it));
        let expected = OverLimit { limit: LimitKind::Memory, value: 192 << 20 };
        assert_eq!(over, Some(expected).filter(|_| !is_good), "{bits}: {result:?}");
        assert_eq!(result.is_ok(), is_good, "{bits}");
    }
    let raised = DecompressLimits { max_memory: 300 << 20, ..limits };
    assert!(read(&xz_with_dictionary(32), raised).is_ok());
    // The same with Zstandard: a frame with a window of 1 GiB, which holds one byte.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 0x09, 0, 0, b'x'];
    let over = read(&zstd, limits).err().as_ref().and_then(|it| OverLimit::find(it));
    assert_eq!(over.map(|it| it.limit), Some(LimitKind::Memory));
    let raised = DecompressLimits { max_memory: 1 << 30, ..limits };
    assert_eq!(read(&zstd, raised).ok(), Some(1));
}

#[test]
fn bombs_stop_at_the_limit() {
    let bomb = compress(&vec![0; 30_000_000], Compression::ZSTD, 1, 1 << 20);
    let read = |limits| {
        let (_, mut reader) = decompress_limited(&bomb[..], limits).expect("a good start");
        io::copy(&mut reader, &mut io::sink()).map_err(|it| it.kind())
    };
    let limits = DecompressLimits::default();
    assert_eq!(read(limits), Ok(30_000_000));
    let too_large = Err(io::ErrorKind::FileTooLarge);
    assert_eq!(read(DecompressLimits { max_bytes: 1_000_000, ..limits }), too_large);
    assert_eq!(
        read(DecompressLimits { free_bytes: 1_000_000, max_ratio: 100, ..limits }),
        too_large
    );
}
