//! Configuration: files, the environment, and where the store is.
//!
//! ```toml
//! # ~/.config/kiln/config.toml, over /etc/kiln/config.toml; $KILN_CONFIG names another file instead of both.
//! root = "/srv/kiln"                  # where the store is
//! sync = true                         # what is stored survives a power cut; false where the store is thrown away anyway
//!
//! [gc]                                # how large the store may become
//! max-used-space = "20g"              # never more than this; a build that needs more fails
//! min-free-space = "5g"               # so much of the file system stays free
//! keep-duration = "14d"               # what was not used for so long goes, unless an image needs it
//!
//! [limits]                            # how much a layer or an archive may hold; `--limit` for one command
//! entries = 1000000                   # files, folders, links
//! bytes = "256g"                      # all of it, holes of files counted
//! ratio = 2000                        # bytes for each compressed one, beyond the first GiB
//! memory = "192m"                     # what decompressing it may take
//!
//! [build]
//! network = "isolated"                # of RUN: isolated, host; without it isolated, and host where that cannot be had
//!
//! [registry."docker.io"]              # the keys of buildkitd.toml
//! mirrors = ["mirror.example:5000"]   # asked first, in order
//! http = false                        # plain HTTP
//! insecure = false                    # certificates are not checked
//! ca = ["/etc/ssl/ours.pem"]          # further certificate authorities
//! [[registry."docker.io".keypair]]    # client certificates
//! key = "key.pem"
//! cert = "cert.pem"
//! ```
//!
//! A relative path counts from the folder of its file. A key that is not known is an error with file, line and column.

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use cache::{RoomOptions, StoreOptions};
use image::LimitKind;
use registry::RegistryConfig;
use serde::Deserialize;

use crate::{
    failure::{OrFail, Result},
    values::{LayerLimit, duration::duration, size::size},
};

/// What the configuration files say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the store is.
    pub root: Option<PathBuf>,
    /// What builds do if the command line does not say.
    #[serde(default)]
    pub build: BuildConfig,
    /// How to reach registries, by host name.
    #[serde(default)]
    pub registry: BTreeMap<String, RegistryConfig>,
    /// How much a layer or an archive may hold.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Whether what is stored survives a power cut.
    pub sync: Option<bool>,
    /// How large the store may become.
    #[serde(default)]
    pub gc: GcConfig,
}

/// How large the store may become. Without limits it only grows, until `kiln system prune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GcConfig {
    /// It takes no more than this.
    pub max_used_space: Option<Size>,
    /// So much of the file system stays free.
    pub min_free_space: Option<Size>,
    /// What was not used for so long goes.
    pub keep_duration: Option<Age>,
}

/// A duration: `"14d"`, `"12h30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Age(pub Duration);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        duration(&text).map(Self)
    }
}

/// How much a layer or an archive may hold, as far as it is not what it is by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Files, folders, links.
    pub entries: Option<NonZeroU64>,
    /// All of it.
    pub bytes: Option<Size>,
    /// How far it may expand.
    pub ratio: Option<NonZeroU64>,
    /// What decompressing it may take.
    pub memory: Option<Size>,
}

/// A number of bytes: `65536`, `"64m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SizeForm")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeForm {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeForm> for Size {
    type Error = String;

    fn try_from(form: SizeForm) -> std::result::Result<Self, String> {
        let n_bytes = match form {
            SizeForm::Number(n_bytes) => n_bytes,
            SizeForm::Text(text) => size(&text)?,
        };
        if n_bytes > 0 { Ok(Self(n_bytes)) } else { Err("a limit of 0 allows nothing".to_owned()) }
    }
}

/// What builds do if the command line does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfig {
    /// The network of RUN.
    pub network: Option<NetworkConfig>,
}

/// The network of RUN, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkConfig {
    /// One of its own with a way out.
    Isolated,
    /// The machine's.
    Host,
}

/// What is read from the surroundings of the process, in one place, so that tests can say what they are.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `KILN_CONFIG`.
    pub config: Option<PathBuf>,
    /// `KILN_ROOT`.
    pub root: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The process runs as root.
    pub is_root: bool,
}

impl Surroundings {
    /// Reads those of this process.
    pub fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        Self {
            config: path("KILN_CONFIG"),
            root: path("KILN_ROOT"),
            config_home: path("XDG_CONFIG_HOME").filter(|it| it.is_absolute()),
            data_home: path("XDG_DATA_HOME").filter(|it| it.is_absolute()),
            home: path("HOME"),
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// Returns the store's directory: `flag`, else `KILN_ROOT`, else the configuration's, else the default.
    ///
    /// # Errors
    ///
    /// Fails where there is neither of them nor a home directory.
    pub fn store_root(&self, flag: Option<&Path>, config: &Config) -> Result<PathBuf> {
        let default = || match (self.is_root, &self.data_home, &self.home) {
            (true, _, _) => Some(PathBuf::from("/var/lib/kiln")),
            (false, Some(data_home), _) => Some(data_home.join("kiln")),
            (false, None, Some(home)) => Some(home.join(".local/share/kiln")),
            (false, None, None) => None,
        };
        let chosen = flag
            .map(Path::to_owned)
            .or_else(|| self.root.clone())
            .or_else(|| config.root.clone())
            .or_else(default);
        let root = chosen
            .ok_or_else(|| anyhow!("there is no directory for the store: HOME is not set"))
            .or_input();
        let root = root.map_err(|it| it.hint("set KILN_ROOT, or use --root"))?;
        std::path::absolute(&root)
            .with_context(|| format!("`{}` is no path for the store", root.display()))
            .or_input()
    }

    /// Reads the configuration files.
    ///
    /// # Errors
    ///
    /// Fails where one of them cannot be read or understood, or where `KILN_CONFIG` names none.
    pub fn config(&self) -> Result<Config> {
        if let Some(path) = &self.config {
            let missing =
                || anyhow!("configuration `{}` (from KILN_CONFIG) does not exist", path.display());
            return read(path)?.ok_or_else(missing).or_input();
        }
        let home =
            self.config_home.clone().or_else(|| self.home.as_ref().map(|it| it.join(".config")));
        let system = read(Path::new("/etc/kiln/config.toml"))?.unwrap_or_default();
        let user = match home {
            Some(home) => read(&home.join("kiln/config.toml"))?.unwrap_or_default(),
            None => Config::default(),
        };
        Ok(user.over(system))
    }
}

impl Config {
    /// Lays this one over another: what is said here counts, key by key.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut registry = below.registry;
        for (host, above) in self.registry {
            let below = registry.remove(&host).unwrap_or_default();
            registry.insert(host, merged(above, below));
        }
        let limits = LimitsConfig {
            entries: self.limits.entries.or(below.limits.entries),
            bytes: self.limits.bytes.or(below.limits.bytes),
            ratio: self.limits.ratio.or(below.limits.ratio),
            memory: self.limits.memory.or(below.limits.memory),
        };
        let build = BuildConfig { network: self.build.network.or(below.build.network) };
        let gc = GcConfig {
            max_used_space: self.gc.max_used_space.or(below.gc.max_used_space),
            min_free_space: self.gc.min_free_space.or(below.gc.min_free_space),
            keep_duration: self.gc.keep_duration.or(below.gc.keep_duration),
        };
        let (root, sync) = (self.root.or(below.root), self.sync.or(below.sync));
        Self { root, build, registry, limits, sync, gc }
    }

    /// Returns how a store is to be used; `given` are the limits of the command line.
    pub fn store_options(&self, given: &[LayerLimit]) -> StoreOptions {
        let LimitsConfig { entries, bytes, ratio, memory } = self.limits;
        let configured = [
            (LimitKind::Entries, entries.map(NonZeroU64::get)),
            (LimitKind::Bytes, bytes.map(|it| it.0)),
            (LimitKind::Ratio, ratio.map(NonZeroU64::get)),
            (LimitKind::Memory, memory.map(|it| it.0)),
        ];
        let configured = configured.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
        let given = given.iter().map(|it| (it.kind, it.value));
        let room = RoomOptions {
            max_used: self.gc.max_used_space.map(|it| it.0),
            min_free: self.gc.min_free_space.map(|it| it.0),
            keep: self.gc.keep_duration.map(|it| it.0),
        };
        let sync = self.sync.unwrap_or(true);
        let mut options = StoreOptions { sync, room, ..StoreOptions::default() };
        for (kind, value) in configured.chain(given) {
            let StoreOptions { limits, decompress, .. } = &mut options;
            match kind {
                LimitKind::Entries => limits.max_entries = value,
                LimitKind::Bytes => (limits.max_bytes, decompress.max_bytes) = (value, value),
                LimitKind::Ratio => (limits.max_ratio, decompress.max_ratio) = (value, value),
                LimitKind::Memory => decompress.max_memory = value,
                LimitKind::Records => {}
            }
        }
        options
    }

    /// Returns what the registry client wants to know.
    pub fn registries(&self) -> registry::Config {
        registry::Config { registries: self.registry.clone() }
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        let place = |path: &mut PathBuf| *path = folder.join(&path);
        self.root.iter_mut().for_each(place);
        for registry in self.registry.values_mut() {
            registry.ca.iter_mut().chain(&mut registry.tlsconfigdir).for_each(place);
            registry.keypair.iter_mut().for_each(|it| {
                place(&mut it.key);
                place(&mut it.cert);
            });
        }
        self
    }
}

/// Lays what is said of a registry over what another file says of it.
fn merged(above: RegistryConfig, below: RegistryConfig) -> RegistryConfig {
    fn first<T>(above: Vec<T>, below: Vec<T>) -> Vec<T> {
        if above.is_empty() { below } else { above }
    }
    RegistryConfig {
        mirrors: first(above.mirrors, below.mirrors),
        http: above.http.or(below.http),
        insecure: above.insecure.or(below.insecure),
        ca: first(above.ca, below.ca),
        keypair: first(above.keypair, below.keypair),
        tlsconfigdir: first(above.tlsconfigdir, below.tlsconfigdir),
    }
}

fn read(path: &Path) -> Result<Option<Config>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read configuration `{}`", path.display()))
                .or_input();
        }
    };
    let config = parse(&text).map_err(|(line, column, message)| {
        anyhow!("{}:{line}:{column}: {message}", path.display())
    });
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Some(config.or_input()?.relative_to(folder)))
}

/// Parses a configuration; a mistake comes back with its line and column.
fn parse(text: &str) -> std::result::Result<Config, (usize, usize, String)> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |it| it.start).min(text.len());
        let before = &text.as_bytes()[..at];
        let line = before.iter().filter(|it| **it == b'\n').count() + 1;
        let column = at - before.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1) + 1;
        (line, column, error.message().trim().replace('\n', ", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_overrides_the_system_key_by_key() {
        let system =
            parse("root = \"/a\"\n[registry.\"docker.io\"]\nmirrors = [\"m\"]\nhttp = true\n");
        let user = parse(
            "[registry.\"docker.io\"]\nhttp = false\nca = [\"x.pem\"]\n[registry.b]\ninsecure = true\n",
        );
        let merged = user.map(|it| it.over(system.unwrap_or_default())).unwrap_or_default();
        assert_eq!(merged.root, Some("/a".into()));
        let docker = &merged.registry["docker.io"];
        assert_eq!((docker.http, &docker.mirrors[..]), (Some(false), &["m".to_owned()][..]));
        assert_eq!(merged.registry["b"].insecure, Some(true));
        assert_eq!(
            merged.relative_to(Path::new("/etc/kiln")).registry["docker.io"].ca,
            [PathBuf::from("/etc/kiln/x.pem")]
        );
    }

    #[test]
    fn networks() {
        let network = |text: &str| parse(text).map(|it| it.build.network);
        assert_eq!(network("[build]\nnetwork = \"host\"\n"), Ok(Some(NetworkConfig::Host)));
        assert_eq!(network("[build]\n"), Ok(None));
        let wrong = network("[build]\nnetwork = \"frob\"\n").expect_err("unknown network");
        assert_eq!((wrong.0, wrong.1), (2, 11));
        let system = parse("[build]\nnetwork = \"host\"\n").unwrap_or_default();
        let user = parse("[build]\nnetwork = \"isolated\"\n").unwrap_or_default();
        assert_eq!(user.over(system).build.network, Some(NetworkConfig::Isolated));
    }

    #[test]
    fn mistakes_have_a_place() {
        let error = parse("root = \"/a\"\n[registry.x]\nmirror = []\n").expect_err("unknown key");
        assert_eq!((error.0, error.1), (3, 1));
        assert!(error.2.contains("mirror"), "{}", error.2);
        assert_eq!(parse("root = 3").map_err(|it| (it.0, it.1)), Err((1, 8)));
    }

    #[test]
    fn limits_of_the_command_line_count_more_than_those_of_files() {
        let config = |text| parse(text).expect("a good configuration");
        let system = config("[limits]\nentries = 5\nbytes = \"1k\"\nratio = 7\n");
        let merged = config("[limits]\nbytes = 2000\nmemory = \"1m\"\n").over(system);
        let given = [LayerLimit { kind: LimitKind::Entries, value: 6 }];
        let StoreOptions { limits, decompress, .. } = merged.store_options(&given);
        assert_eq!((limits.max_entries, limits.max_bytes, limits.max_ratio), (6, 2000, 7));
        assert_eq!(
            (decompress.max_bytes, decompress.max_ratio, decompress.max_memory),
            (2000, 7, 1 << 20)
        );
        for bad in ["bytes = 0", "bytes = \"x\"", "entries = 0", "layers = 1", "ratio = -1"] {
            assert!(parse(&format!("[limits]\n{bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_store_is_where_the_most_specific_says() {
        let root = |around: &Surroundings, flag: Option<&str>, config: &Config| {
            around.store_root(flag.map(Path::new), config).ok().map(|it| it.display().to_string())
        };
        let mut around = Surroundings { home: Some("/home/u".into()), ..Surroundings::default() };
        let config = Config { root: Some("/c".into()), ..Config::default() };
        assert_eq!(
            root(&around, None, &Config::default()).as_deref(),
            Some("/home/u/.local/share/kiln")
        );
        around.data_home = Some("/d".into());
        assert_eq!(root(&around, None, &Config::default()).as_deref(), Some("/d/kiln"));
        assert_eq!(root(&around, None, &config).as_deref(), Some("/c"));
        around.root = Some("/e".into());
        assert_eq!(root(&around, None, &config).as_deref(), Some("/e"));
        assert_eq!(root(&around, Some("/f"), &config).as_deref(), Some("/f"));
        assert_eq!(root(&Surroundings::default(), None, &Config::default()), None);
        let as_root = Surroundings { is_root: true, ..Surroundings::default() };
        assert_eq!(root(&as_root, None, &Config::default()).as_deref(), Some("/var/lib/kiln"));
    }
}
