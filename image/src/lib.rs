//! What an image is: digests, references, platforms, OCI documents, and layers as tars.
//!
//! Everything here is a value or works on `impl Read` and `impl Write`; no file, process or network is touched.
//!
//! Read the modules in this order:
//!
//! 1. [`digest`] — identity of bytes.
//! 2. [`mod@reference`] — names of images.
//! 3. [`platform`] — what an image runs on.
//! 4. [`document`] — descriptors, manifests, indexes, image configs.
//! 5. [`canonical`] — their bytes.
//! 6. [`validate`] — whether they agree with each other.
//! 7. [`entry`] — one file of a layer.
//! 8. [`layer`] — layers as tars, and their indexes.
//! 9. [`view`] — the merged tree of a chain of layers.
//! 10. [`compress`] — compressing layers, and undoing it.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod compress;
pub mod digest;
pub mod document;
pub mod entry;
pub mod error;
pub mod layer;
pub mod percent;
pub mod platform;
pub mod reference;
pub mod validate;
pub mod view;

pub use digest::{DiffId, Digest, ImageId};
pub use error::{LimitKind, OverLimit};
pub use platform::Platform;
pub use reference::ImageRef;
