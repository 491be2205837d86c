//! What the user asked for, as far as it changes the plan.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use image::Platform;

/// Names of build arguments that name a proxy, also in small letters. They say how the machine reaches others and not what is
/// built, and may have a password in them.
pub const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// What to build, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, already looked up in the environment where no value was given.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// The platform to build for.
    pub platform: Platform,
    /// Nobody asked for that platform: an image keeps the one of its base, if that can be had for another only.
    pub implicit_platform: bool,
    /// The platform that builds.
    pub build_platform: Platform,
    /// More than one platform is built, so that names of steps carry theirs.
    pub multi_platform: bool,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages.
    pub no_cache_filter: Vec<String>,
    /// `--network`, the default of RUN: `default`, `host` or `none`.
    pub network: Option<String>,
    /// `--add-host`, host and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft limit, hard limit (-1 is no limit).
    pub ulimits: Vec<(String, i64, i64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--allow`: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// `--build-context`: name and value as written.
    pub named_contexts: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` from the environment (the build argument of that name wins), in seconds.
    pub source_date_epoch: Option<i64>,
}
