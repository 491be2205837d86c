//! Where `WORKDIR` leads to.

use alloc::{borrow::ToOwned, format, string::String};

use crate::path::clean;

/// Returns the working directory after `WORKDIR new` where it was `current` before (empty for none).
///
/// An absolute path is kept as it is written, trailing slash and `..` included; a relative one is joined to the current
/// directory and cleaned. The result is absolute.
///
/// # Source
///
/// BuildKit, `util/system/path.go`: `NormalizeWorkdir` joins and so cleans relative paths only; `/abs/./x/..` stays what it is in the config.
pub fn join(current: &str, new: &str) -> String {
    let path = if new.is_empty() { current } else { new };
    if path.starts_with('/') {
        path.to_owned()
    } else if new.is_empty() {
        clean(&format!("/{current}"))
    } else {
        clean(&format!("/{current}/{new}"))
    }
}
