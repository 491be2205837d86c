//! Base images from OCI layouts on this machine: `--build-context name=oci-layout://FOLDER[:TAG][@DIGEST]`.

use image::Platform;
use planner::facts::ImageFact;

use crate::{error::ExecutorError, session::Session};

/// Takes an image of a layout into the store.
pub(crate) fn layout_fact(_session: &Session, text: &str, _platform: &Platform) -> Result<ImageFact, ExecutorError> {
    Err(ExecutorError::Unsupported {
        message: format!("OCI layouts as contexts are not there yet: `{text}`"),
        hint: "load the image first: `kiln load`".to_owned(),
    })
}
