//! `-v` of `kiln run`: a path of the host in the container.

use std::path::PathBuf;

/// One `--volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The path on the host as written.
    pub source: PathBuf,
    /// The absolute path in the container.
    pub target: PathBuf,
    /// `ro`.
    pub read_only: bool,
}

/// Parses `SOURCE:TARGET[:ro|rw]`. The source is a path; named volumes are not there yet.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(format!("`{text}` is not of the form `source:target[:ro]`")),
    };
    if !source.starts_with(['/', '.']) {
        return Err(format!(
            "`{source}` is not a path, and named volumes are not there yet; write `./{source}`"
        ));
    }
    if !target.starts_with('/') {
        return Err(format!("`{target}` is not an absolute path in the container"));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|it| !it.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // SELinux labels: there is nothing to do where no policy is loaded.
            "z" | "Z" => {}
            _ => {
                return Err(format!(
                    "`{option}` is no option of a volume; known are `ro` and `rw`"
                ));
            }
        }
    }
    Ok(Volume { source: source.into(), target: target.into(), read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parsed = volume("./a:/b:ro");
        assert_eq!(
            parsed,
            Ok(Volume { source: "./a".into(), target: "/b".into(), read_only: true })
        );
        for bad in ["a", "name:/b", "/a:b", "/a:/b:frob", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }
}
