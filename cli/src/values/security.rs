//! `--security-opt` of `kiln run`.

/// One `--security-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityOption {
    /// `no-new-privileges`, or that it is off.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`.
    NoFilter,
    /// What is the case in any case: `apparmor=unconfined`, `label=disable`.
    Nothing,
}

/// Parses what docker takes, as far as it can be had.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn security_option(text: &str) -> Result<SecurityOption, String> {
    let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    match (key, value) {
        ("no-new-privileges", "") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", value) => super::boolean(value).map(SecurityOption::NoNewPrivileges),
        ("seccomp", "unconfined") => Ok(SecurityOption::NoFilter),
        ("apparmor", "unconfined") | ("label", "disable") => Ok(SecurityOption::Nothing),
        _ => Err(format!(
            "`{text}` is not there yet; known are `no-new-privileges` and `seccomp=unconfined`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("no-new-privileges", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOption::NoNewPrivileges(false)),
            ("seccomp=unconfined", SecurityOption::NoFilter),
            ("label=disable", SecurityOption::Nothing),
            ("apparmor=unconfined", SecurityOption::Nothing),
        ] {
            assert_eq!(security_option(text), Ok(expected), "{text}");
        }
        for bad in
            ["seccomp=profile.json", "frob", "no-new-privileges=maybe", "systempaths=unconfined"]
        {
            assert!(security_option(bad).is_err(), "{bad}");
        }
    }
}
