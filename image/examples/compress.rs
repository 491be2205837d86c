//! Compresses a file with gzip as an export does, and does nothing else: what bench/run compares an export with.
//!
//! usage: compress FROM TO

use std::{env, fs::File, io, thread};

use image::compress::{Compression, Compressor};

fn main() -> io::Result<()> {
    let mut args = env::args_os().skip(1);
    let (Some(from), Some(to)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: compress FROM TO"));
    };
    let n_threads = thread::available_parallelism()?.get();
    let mut out = Compressor::new(File::create(to)?, Compression::GZIP, n_threads)?;
    // As large pieces as an export writes: what is measured is the compressor.
    let mut input = io::BufReader::with_capacity(1 << 18, File::open(from)?);
    io::copy(&mut input, &mut out)?;
    out.finish()?;
    Ok(())
}
