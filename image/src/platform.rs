//! What an image runs on: `os/architecture/variant`.
//!
//! The same platform has many spellings: `aarch64`, `arm64`, `arm64/v8`. [`Platform::normalized`] gives the one that Go
//! programs use, and a [`Matcher`] says which platforms run where another one was asked for, and which of them is best.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::PlatformError, percent};

/// A platform as the OCI image index writes it. Compare only normalised ones.
///
/// [`Display`](fmt::Display) writes `os/architecture/variant`, without version and features.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// The CPU architecture in Go's words: `amd64`, `arm64`, …
    pub architecture: String,
    /// The operating system in Go's words: `linux`, …
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the CPU: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// Makes a platform of its two names, as they are.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Returns the platform this program was compiled for.
    pub fn host() -> Self {
        Self::new(HOST_OS, HOST_ARCHITECTURE)
    }

    /// Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`, where `os` may have a version and
    /// features in parentheses: `windows(10.0.17763+win32k)`. What is left out is taken from `host`.
    ///
    /// The result has Go's names, but is not normalised: `linux/arm64/v8` keeps its variant.
    ///
    /// # Errors
    ///
    /// [`PlatformError`].
    ///
    /// # Source
    ///
    /// `platforms.Parse` of containerd.
    pub fn parse(text: &str, host: &Self) -> Result<Self, PlatformError> {
        let component_error =
            |part: &str| PlatformError::Component { part: part.to_owned(), text: text.to_owned() };
        if text.contains('*') {
            return Err(PlatformError::Wildcard { text: text.to_owned() });
        }
        let mut parts = text.splitn(4, '/');
        let first = parts.next().unwrap_or_default();
        let mut out = parse_os(first).ok_or_else(|| component_error(first))?;
        let parts: Vec<&str> = parts.collect();
        if let Some(bad) = parts.iter().find(|it| !is_component(it)) {
            return Err(component_error(bad));
        }
        match parts[..] {
            [] if KNOWN_OS.contains(&out.os.as_str()) => {
                out.architecture.clone_from(&host.architecture);
                if host.architecture == "arm" && host.variant != "v7" {
                    out.variant.clone_from(&host.variant);
                }
            }
            [] => {
                (out.architecture, out.variant) = normalize_architecture(first, "");
                if !KNOWN_ARCHITECTURES.contains(&out.architecture.as_str()) {
                    return Err(PlatformError::Unknown { text: text.to_owned() });
                }
                out.os.clone_from(&host.os);
                out.forget_default_arm();
            }
            [architecture] => {
                (out.architecture, out.variant) = normalize_architecture(architecture, "");
                out.forget_default_arm();
            }
            [architecture, variant] => {
                (out.architecture, out.variant) = normalize_architecture(architecture, variant);
                if out.architecture == "arm64" && out.variant.is_empty() {
                    "v8".clone_into(&mut out.variant);
                }
            }
            _ => return Err(PlatformError::TooManyParts { text: text.to_owned() }),
        }
        Ok(out)
    }

    /// Returns the platform in its one canonical spelling: Go's names, no variant that is the default, features sorted.
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = normalize_architecture(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone(),
            os_features,
            variant,
        }
    }

    /// Returns the long form, with the version and features of the operating system: `windows(10.0+win32k)/amd64`.
    pub fn format_all(&self) -> String {
        let mut features: Vec<&str> = self.os_features.iter().map(String::as_str).collect();
        features.sort_unstable();
        let mut options = escape_option(&self.os_version);
        for feature in features {
            options.push('+');
            options.push_str(&escape_option(feature));
        }
        if self.os.is_empty() || options.is_empty() {
            return self.to_string();
        }
        let os = format!("{}({options})", self.os);
        Self { os, ..self.clone() }.to_string()
    }

    /// Returns what accepts all platforms that run where this one is asked for: older variants, and what the CPU also runs.
    ///
    /// # Source
    ///
    /// `platforms.Only` of containerd.
    pub fn only(&self) -> Matcher {
        Matcher { accepted: compatible(self.normalized()) }
    }

    /// Returns what accepts this platform in all its spellings, and nothing else.
    pub fn only_strict(&self) -> Matcher {
        Matcher { accepted: vec![self.normalized()] }
    }

    /// An `arm` without a variant stays one although `v7` is meant.
    fn forget_default_arm(&mut self) {
        if self.architecture == "arm" && self.variant == "v7" {
            self.variant.clear();
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.os)?;
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

/// Accepts platforms, some before others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Normalised, the best first.
    accepted: Vec<Platform>,
}

impl Matcher {
    /// Says whether `platform` is accepted.
    pub fn matches(&self, platform: &Platform) -> bool {
        self.rank(platform).is_some()
    }

    /// Returns how far `platform` is from what was asked for: 0 is the thing itself, `None` is not accepted.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        let have = platform.normalized();
        self.accepted.iter().position(|want| accepts(want, &have))
    }
}

/// Returns the candidate that [`Platform::only`] likes best, the first one of equals.
///
/// # Examples
///
/// ```
/// # use image::platform::{Platform, best};
/// let index = [Platform::new("linux", "386"), Platform::new("linux", "amd64")];
/// let found = best(&Platform::new("linux", "amd64"), index.iter().map(|it| (it, &it.architecture)));
/// assert_eq!(found.map(String::as_str), Some("amd64"));
/// ```
pub fn best<'a, T>(
    want: &Platform,
    candidates: impl IntoIterator<Item = (&'a Platform, T)>,
) -> Option<T> {
    let matcher = want.only();
    candidates
        .into_iter()
        .filter_map(|(platform, value)| Some((matcher.rank(platform)?, value)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, value)| value)
}

const HOST_OS: &str = match std::env::consts::OS.as_bytes() {
    b"macos" => "darwin",
    _ => std::env::consts::OS,
};

const HOST_ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"x86" => "386",
    b"aarch64" => "arm64",
    b"loongarch64" => "loong64",
    b"powerpc64" if cfg!(target_endian = "little") => "ppc64le",
    b"powerpc64" => "ppc64",
    _ => std::env::consts::ARCH,
};

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Parses `linux` or `windows(10.0.17763+win32k)`.
fn parse_os(text: &str) -> Option<Platform> {
    let is_option =
        |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.%-".contains(&it));
    let (name, options) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (text, ""),
    };
    if name.is_empty() || !name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it))
    {
        return None;
    }
    let (version, features) = match options.split_once('+') {
        Some((version, features)) => (version, features.split('+').collect()),
        None => (options, Vec::new()),
    };
    if !is_option(version) || features.iter().any(|it| it.is_empty() || !is_option(it)) {
        return None;
    }
    Some(Platform {
        os: normalize_os(name),
        os_version: unescape_option(version)?,
        os_features: features.into_iter().map(unescape_option).collect::<Option<_>>()?,
        ..Platform::default()
    })
}

fn is_component(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase() {
        os if os.is_empty() => HOST_OS.to_owned(),
        os if os == "macos" => "darwin".to_owned(),
        os => os,
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Characters of versions and features that the long form needs for itself.
const ESCAPES: [(char, &str); 5] =
    [('%', "%25"), ('+', "%2B"), ('(', "%28"), (')', "%29"), ('/', "%2F")];

fn escape_option(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match ESCAPES.iter().find(|(it, _)| *it == char) {
            Some((_, escape)) => out.push_str(escape),
            None => out.push(char),
        }
    }
    out
}

/// Undoes percent escapes; `None` if one is cut short or the result is no UTF-8.
fn unescape_option(text: &str) -> Option<String> {
    String::from_utf8(percent::decode(text.as_bytes())?).ok()
}

/// Lists what runs where `platform` is asked for, the best first. `platform` is normalised, and so is each of the list.
fn compatible(platform: Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: &str| {
        Platform {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..platform.clone()
        }
        .normalized()
    };
    // A number beyond 255 is no variant that ever was, and would make the list endless.
    let version =
        platform.variant.strip_prefix('v').unwrap_or(&platform.variant).parse::<u8>().ok();
    let mut out = vec![platform.clone()];
    match platform.architecture.as_str() {
        "amd64" => {
            let older = (1..version.unwrap_or(1)).rev();
            out.extend(older.map(|it| with("amd64", &format!("v{it}"))));
            out.push(with("386", ""));
        }
        "arm" => {
            let older = (5..version.unwrap_or(5)).rev();
            out.extend(older.map(|it| with("arm", &format!("v{it}"))));
        }
        "arm64" => {
            out.extend(older_arm64(&platform.variant).iter().map(|it| with("arm64", it)));
            let arm = match platform.variant.as_str() {
                "" => "v8",
                variant if variant.starts_with("v8.") || variant.starts_with("v9.") => "v8",
                variant => variant,
            };
            out.extend(compatible(with("arm", arm)));
        }
        _ => {}
    }
    out
}

/// Lists the variants of `arm64` below `variant`. `v9.x` contains `v8.(x+5)`, and each version the ones before it.
fn older_arm64(variant: &str) -> Vec<String> {
    let text = variant.strip_prefix('v').unwrap_or(variant);
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let name = |major: u8, minor: u8| {
        if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") }
    };
    let minor = if minor.len() == 1 { minor.parse().unwrap_or(0) } else { 0 };
    match major.parse::<u8>() {
        Ok(8) => (0..minor).rev().map(|it| name(8, it)).collect(),
        Ok(9) => {
            let nines = (0..minor).rev().map(|it| name(9, it));
            nines.chain((0..=minor + 5).rev().map(|it| name(8, it))).collect()
        }
        _ => Vec::new(),
    }
}

/// Says whether `have` is `want`, up to features that `want` has and `have` does not need. Both are normalised.
fn accepts(want: &Platform, have: &Platform) -> bool {
    want.os == have.os
        && want.architecture == have.architecture
        && want.variant == have.variant
        && (want.os != "windows" || accepts_windows(&want.os_version, &have.os_version))
        && have.os_features.iter().all(|it| want.os_features.contains(it))
}

/// Says whether Windows of version `host` runs containers of version `container`. From Server 2022 on, newer hosts run
/// what was made for any version since then; before, the builds had to be equal.
fn accepts_windows(host: &str, container: &str) -> bool {
    const SERVER_2022: u16 = 20348;
    let parse = |text: &str| {
        let mut parts = text.split('.');
        let major: u8 = parts.next()?.parse().ok()?;
        let minor: u8 = parts.next()?.parse().ok()?;
        let build: u16 = parts.next()?.parse().ok()?;
        Some((major, minor, build))
    };
    let Some(host) = parse(host) else { return true };
    if container.is_empty() {
        return true;
    }
    let container = parse(container).unwrap_or_default();
    (host.0, host.1) == (container.0, container.1)
        && match host.2 {
            build if build < SERVER_2022 => build == container.2,
            build => (SERVER_2022..=build).contains(&container.2),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text, &Platform::new("linux", "amd64")).expect("a good platform")
    }

    #[test]
    fn the_best_candidate_is_the_closest() {
        let index = ["linux/arm/v5", "linux/arm64/v8", "linux/arm/v7", "linux/amd64", "linux/386"]
            .map(platform);
        let find = |want: &str| best(&platform(want), index.iter().map(|it| (it, it.to_string())));
        assert_eq!(find("linux/arm64").as_deref(), Some("linux/arm64/v8"));
        assert_eq!(find("linux/arm64/v9").as_deref(), Some("linux/arm64/v8"));
        assert_eq!(find("linux/arm").as_deref(), Some("linux/arm/v7"));
        assert_eq!(find("linux/arm/v6").as_deref(), Some("linux/arm/v5"));
        assert_eq!(find("linux/amd64/v3").as_deref(), Some("linux/amd64"));
        assert_eq!(find("linux/riscv64"), None);
    }

    #[test]
    fn amd64_also_runs_386() {
        assert!(platform("linux/amd64").only().matches(&platform("linux/386")));
        assert!(!platform("linux/amd64").only_strict().matches(&platform("linux/386")));
    }

    #[test]
    fn windows_hosts_run_what_was_made_since_2022() {
        let host = platform("windows(10.0.26100)/amd64").only();
        assert!(host.matches(&platform("windows(10.0.20348.1006)/amd64")));
        assert!(!host.matches(&platform("windows(10.0.17763)/amd64")));
        assert!(host.matches(&platform("windows/amd64")));
    }

    #[test]
    fn a_missing_part_is_that_of_the_host() {
        let host = Platform { variant: "v6".to_owned(), ..Platform::new("linux", "arm") };
        assert_eq!(
            Platform::parse("linux", &host).map(|it| it.to_string()).as_deref(),
            Ok("linux/arm/v6")
        );
        assert_eq!(platform("windows").to_string(), "windows/amd64");
        assert!(Platform::parse("a/b/c/d", &host).is_err());
        assert!(Platform::parse("linux/*", &host).is_err());
    }

    #[test]
    fn versions_and_features_survive_escapes() {
        let text = "windows(10%2F0+a%2Bb)/amd64";
        assert_eq!(platform(text).format_all(), text);
        assert!(Platform::parse("windows(%2)/amd64", &Platform::host()).is_err());
    }

    #[test]
    fn a_huge_variant_makes_no_huge_list() {
        assert!(compatible(platform("linux/amd64/v4000000000")).len() < 10);
    }
}
