//! Layers that kiln writes itself: as a tar, or compressed at once, where nothing will read the tar.

use std::{
    fmt,
    io::{self, Write},
};

use image::{
    compress::{Compression, Compressor},
    layer::LayerIndex,
};

use crate::{
    blob::StagedBlob,
    error::{IoContext, StoreError},
    layer::LayerRecord,
    lease::Held,
    store::Store,
    tar::descriptor,
};

/// A layer that is being written. What is written to it is the tar; whoever writes it computes its digest. Dropping it without
/// [`commit`](Self::commit) throws it away.
pub struct StagedLayer {
    store: Store,
    compression: Compression,
    out: Compressor<StagedBlob>,
}

impl Store {
    /// Starts a layer that is kept as it comes out of `compression`, on up to `n_threads` threads.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be made, or there is no such level of compression.
    pub fn stage_layer(
        &self,
        compression: Compression,
        n_threads: usize,
    ) -> Result<StagedLayer, StoreError> {
        let blob = match compression {
            Compression::Uncompressed => self.stage_told()?,
            _ => self.stage_blob()?,
        };
        let out = Compressor::new(blob, compression, n_threads).at("compress into", self.root())?;
        Ok(StagedLayer { store: self.clone(), compression, out })
    }
}

impl StagedLayer {
    /// Stores the layer; `index` is of the tar that was written.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be stored.
    pub fn commit(self, index: &LayerIndex) -> Result<LayerRecord, StoreError> {
        let Self { store, compression, out } = self;
        store.hold(Held::Layer(*index.diff_id.0.as_bytes()))?;
        let blob = out.finish().at("compress into", store.root())?;
        let told = matches!(compression, Compression::Uncompressed).then_some(&index.diff_id.0);
        let (digest, size) = blob.commit(told)?;
        store.put_index(index)?;
        let record = LayerRecord {
            diff_id: index.diff_id,
            tar_size: Some(index.tar_size),
            blobs: vec![descriptor(compression.media_type(), digest, size)],
            proven: vec![digest],
            can_be_remade: true,
        };
        store.put_layer(&record)?;
        Ok(record)
    }
}

impl Write for StagedLayer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Debug for StagedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedLayer")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
