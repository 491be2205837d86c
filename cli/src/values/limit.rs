//! `--ulimit`: limits of the processes of a container.

/// One `--ulimit`; -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// What is limited, for example `nofile`.
    pub name: String,
    /// What a process starts with.
    pub soft: i64,
    /// How far it may raise that.
    pub hard: i64,
}

const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses `NAME=SOFT[:HARD]`.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not of the form `name=soft:hard`"))?;
    if !NAMES.contains(&name) {
        return Err(format!("`{name}` is no limit; known are {}", NAMES.join(", ")));
    }
    let number = |it: &str| match it.parse::<i64>() {
        Ok(value) if value >= -1 => Ok(value),
        _ => Err(format!("`{it}` is not a number of at least -1")),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("the soft limit `{soft}` is above the hard limit `{hard}`"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Parses a number of processors.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("`{text}` is not a number of processors such as `1` or `1.5`")),
    }
}

/// Parses a number that is not 0.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn number(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(format!("`{text}` is not a number above 0")),
    }
}

/// Parses a number of processes; -1 and 0 are no limit.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn pids(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(value) if value >= -1 => Ok(value),
        _ => Err(format!("`{text}` is not a number of at least -1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(
            ulimit("nofile=1:2"),
            Ok(Ulimit { name: "nofile".to_owned(), soft: 1, hard: 2 })
        );
        assert_eq!(ulimit("core=-1").map(|it| it.hard), Ok(-1));
        for bad in ["nofile", "frob=1", "nofile=2:1", "nofile=x", "nofile=-2", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
