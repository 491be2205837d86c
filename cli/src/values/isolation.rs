//! `--isolation`: which kind of sandbox.

use sandbox::Isolation;

/// Parses the name of a kind of sandbox; `default` is docker's word for `auto`.
///
/// # Errors
///
/// Returns a message that names the word.
pub fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "auto" | "default" | "" => Ok(Isolation::Auto),
        "root" => Ok(Isolation::Root),
        "rootless" => Ok(Isolation::Rootless),
        "single-id" => Ok(Isolation::SingleId),
        "chroot" => Ok(Isolation::Chroot),
        "none" => Ok(Isolation::None),
        _ => Err(format!(
            "`{text}` is no kind of sandbox, expected auto, root, rootless, single-id, chroot or none"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_sandboxes() {
        assert_eq!(isolation("default"), Ok(Isolation::Auto));
        assert_eq!(isolation("rootless"), Ok(Isolation::Rootless));
        assert_eq!(isolation("chroot"), Ok(Isolation::Chroot));
        assert_eq!(isolation("single-id"), Ok(Isolation::SingleId));
        assert!(isolation("hyperv").is_err_and(|it| it.contains("rootless")));
    }
}
