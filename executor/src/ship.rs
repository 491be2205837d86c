//! The blobs in which layers are shipped: found, or compressed now, beside the steps that come later where an output wants that.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
};

use cache::LayerRecord;
use image::{
    DiffId,
    compress::{Compression, Compressor},
    document::{Descriptor, media_type},
};

use crate::{
    assemble::descriptor, error::ExecutorError, output::ExportOptions, session::Session, threads,
};

/// The progress is told after so many bytes.
const TELL_AFTER: u64 = 4 << 20;

/// The layers that are being compressed, so that each is only once.
#[derive(Default)]
pub(crate) struct Compressing(Mutex<HashMap<DiffId, Arc<Mutex<()>>>>);

impl Session {
    /// The blob of a layer to be written, compressed now if there is none. `tell` gets the bytes done, of how many, and whether that is
    /// all; it fails if the work is to stop.
    pub(crate) fn layer_blob(
        &self,
        layer: &DiffId,
        options: &ExportOptions,
        n_threads: usize,
        tell: &dyn Fn(u64, Option<u64>, bool) -> io::Result<()>,
    ) -> Result<Descriptor, ExecutorError> {
        let record = self.known_layer(layer)?;
        if let Some(blob) = self.fitting_blob(&record, options)? {
            return Ok(blob);
        }
        let wanted = options.compression.unwrap_or(Compression::Uncompressed);
        if matches!(wanted, Compression::Uncompressed) {
            if let Some(size) = record.tar_size
                && !options.force_compression
                && options.compression.is_none()
            {
                return Ok(descriptor(media_type::OCI_LAYER, layer.0, size));
            }
            let mut staged = self.store.stage_blob()?;
            self.store.write_tar(layer, &mut staged)?;
            let (digest, size) = staged.commit(Some(&layer.0))?;
            return Ok(descriptor(media_type::OCI_LAYER, digest, size));
        }
        let turn = {
            let mut busy = self.compressing.0.lock().unwrap_or_else(PoisonError::into_inner);
            busy.entry(*layer).or_default().clone()
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.known_layer(layer)?;
        if let Some(blob) = self.fitting_blob(&record, options)? {
            return Ok(blob);
        }
        let failed = |source| ExecutorError::Read { path: layer.to_string(), source };
        let total = record.tar_size;
        let compressor =
            Compressor::new(self.store.stage_blob()?, wanted, n_threads).map_err(failed)?;
        let mut counting = Counting {
            inner: compressor,
            n_bytes: 0,
            next: TELL_AFTER,
            tell: |n_bytes| tell(n_bytes, total, false),
        };
        self.store.write_tar(layer, &mut counting)?;
        let n_bytes = counting.n_bytes;
        let staged = counting.inner.finish().map_err(failed)?;
        tell(n_bytes, total, true).map_err(failed)?;
        let (digest, size) = staged.commit(None)?;
        let blob = descriptor(wanted.media_type(), digest, size);
        let proven = vec![digest];
        self.store.put_layer(&LayerRecord { blobs: vec![blob.clone()], proven, ..record })?;
        Ok(blob)
    }

    fn known_layer(&self, layer: &DiffId) -> Result<LayerRecord, ExecutorError> {
        self.store.layer(layer)?.ok_or_else(|| ExecutorError::MissingLayer {
            digest: layer.to_string(),
            image: "the result".to_owned(),
        })
    }

    /// A blob of the layer that is here and as the options want it.
    fn fitting_blob(
        &self,
        record: &LayerRecord,
        options: &ExportOptions,
    ) -> Result<Option<Descriptor>, ExecutorError> {
        let wanted = options.compression.unwrap_or(Compression::Uncompressed).media_type();
        for blob in &record.blobs {
            let is_compressed = blob.digest != record.diff_id.0;
            let fits = (is_compressed && !options.force_compression)
                || oci_type(&blob.media_type) == wanted;
            let is_here = fits && self.store.has_blob(&blob.digest)?;
            if is_here && self.store.proves(&record.diff_id, blob)? {
                return Ok(Some(descriptor(oci_type(&blob.media_type), blob.digest, blob.size)));
            }
        }
        Ok(None)
    }
}

/// The OCI media type of a layer that may have Docker's.
pub(crate) fn oci_type(media_type: &str) -> &'static str {
    match media_type {
        it if it.contains("zstd") => media_type::OCI_LAYER_ZSTD,
        it if it.contains("gzip") => media_type::OCI_LAYER_GZIP,
        _ => media_type::OCI_LAYER,
    }
}

/// Compresses the layers of finished steps while others run.
pub(crate) struct Beside<'a> {
    session: &'a Session,
    compression: Compression,
    layers: Mutex<Option<Sender<DiffId>>>,
    is_over: AtomicBool,
    is_stopped: AtomicBool,
}

impl<'a> Beside<'a> {
    /// Runs `work` with a queue of layers to compress, if an output of the build wants them compressed. When `work` ends, what was not
    /// begun is left to the export; when it fails, all of it.
    pub(crate) fn run<T, E>(
        session: &'a Session,
        work: impl FnOnce(Option<&Self>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(compression) = session.compression else { return work(None) };
        let (sender, receiver) = mpsc::channel();
        let layers = Mutex::new(Some(sender));
        let (is_over, is_stopped) = Default::default();
        let beside = Self { session, compression, layers, is_over, is_stopped };
        std::thread::scope(|scope| {
            scope.spawn(|| beside.compress(receiver));
            let result = work(Some(&beside));
            beside.is_over.store(true, Ordering::SeqCst);
            beside.is_stopped.store(result.is_err(), Ordering::SeqCst);
            drop(beside.layers.lock().unwrap_or_else(PoisonError::into_inner).take());
            result
        })
    }

    /// Puts a layer into the queue.
    pub(crate) fn put(&self, layer: DiffId) {
        if let Some(layers) = &*self.layers.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = layers.send(layer);
        }
    }

    fn compress(&self, layers: Receiver<DiffId>) {
        let options =
            ExportOptions { compression: Some(self.compression), ..ExportOptions::default() };
        // The steps have the better part of the machine.
        let n_threads = (threads() / 2).max(1);
        let stopped = |_, _, _| match self.is_stopped.load(Ordering::SeqCst)
            || self.session.cancel.is_canceled()
        {
            true => Err(io::Error::other("the build has ended")),
            false => Ok(()),
        };
        for layer in layers {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            // What fails here fails in the export again, which says so.
            let _ = self.session.layer_blob(&layer, &options, n_threads, &stopped);
        }
    }
}

struct Counting<W, F> {
    inner: W,
    n_bytes: u64,
    next: u64,
    tell: F,
}

impl<W: Write, F: Fn(u64) -> io::Result<()>> Write for Counting<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.inner.write(bytes)?;
        self.n_bytes += n_written as u64;
        if self.n_bytes >= self.next {
            self.next = self.n_bytes + TELL_AFTER;
            (self.tell)(self.n_bytes)?;
        }
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
