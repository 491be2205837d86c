//! The store as a place where blobs come from and go to.

use std::io::{self, Read};

use cache::{Store, StoreError};
use image::{DiffId, Digest, document::Descriptor};
use registry::{BlobSink, BlobSource};

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct StoreBlobs(pub Store);

impl BlobSource for StoreBlobs {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        if self.0.has_blob(&descriptor.digest).map_err(failed)? {
            return Ok(Box::new(self.0.open_blob(&descriptor.digest).map_err(failed)?));
        }
        // A tar that is not kept is made again from the layer's files.
        self.0.open_tar(&DiffId(descriptor.digest)).map_err(failed)
    }
}

impl BlobSink for StoreBlobs {
    fn put(&self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut staged = self.0.stage_blob().map_err(failed)?;
        io::copy(content, &mut staged)?;
        staged.commit(expected.as_ref()).map_err(failed)
    }
}

fn failed(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::BlobMissing { .. } | StoreError::LayerMissing { .. } => io::ErrorKind::NotFound,
        StoreError::DigestMismatch { .. } => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
