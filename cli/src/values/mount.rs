//! What `kiln run` mounts: `-v`, `--mount` and `--tmpfs`.

use std::path::PathBuf;

use super::{csv, size::size};

/// One `--volume`, or a `--mount` of type `bind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// The path on the host as written; `None` for a folder that lives as long as the container.
    pub source: Option<PathBuf>,
    /// The absolute path in the container.
    pub target: PathBuf,
    /// `ro`.
    pub read_only: bool,
    /// A source that is not there is made, as a folder.
    pub create: bool,
}

/// A folder in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsMount {
    /// The absolute path in the container.
    pub target: PathBuf,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// The mode of the folder.
    pub mode: u32,
}

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// `type=bind`.
    Bind(BindMount),
    /// `type=tmpfs`.
    Tmpfs(TmpfsMount),
}

/// Parses `[SOURCE:]TARGET[:ro|rw]`. The source is a path; named volumes are not there yet.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn volume(text: &str) -> Result<BindMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("`{text}` is not of the form `source:target[:ro]`")),
    };
    let source = source.map(path_of_host).transpose()?;
    let target = path_of_container(target)?;
    let mut read_only = false;
    for option in options.split(',').filter(|it| !it.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "rw" => read_only = false,
            // SELinux labels: there is nothing to do where no policy is loaded. The rest is how it is in any case.
            "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent"
            | "nocopy" => {}
            _ => {
                return Err(format!(
                    "`{option}` is no option of a volume; known are `ro` and `rw`"
                ));
            }
        }
    }
    Ok(BindMount { source, target, read_only, create: true })
}

/// Parses `type=bind|tmpfs,source=…,target=…[,readonly]`.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
    let (mut read_only, mut n_bytes, mut mode) = (false, None, 0o1777);
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        match key {
            "type" => kind = value.to_owned(),
            "source" | "src" => source = Some(value.to_owned()),
            "target" | "dst" | "destination" => target = Some(path_of_container(value)?),
            "readonly" | "ro" => read_only = value.is_empty() || super::boolean(value)?,
            "bind-propagation" if matches!(value, "rprivate" | "private") => {}
            "tmpfs-size" => n_bytes = Some(size(value)?),
            "tmpfs-mode" => mode = octal(value)?,
            _ => return Err(format!("`{field}` is no option of a mount that is known here")),
        }
    }
    let target = target.ok_or_else(|| format!("`{text}` has no `target=`"))?;
    match (kind.as_str(), source) {
        ("bind", Some(source)) => {
            let source = Some(path_of_host(&source)?);
            Ok(Mount::Bind(BindMount { source, target, read_only, create: false }))
        }
        ("bind", None) => Err(format!("`{text}` has no `source=`")),
        ("tmpfs", None) => Ok(Mount::Tmpfs(TmpfsMount { target, size: n_bytes, mode })),
        ("tmpfs", Some(_)) => Err(format!("`{text}`: a tmpfs has no source")),
        ("volume", None) => {
            Ok(Mount::Bind(BindMount { source: None, target, read_only, create: false }))
        }
        ("volume", Some(source)) => Err(named_volume(&source)),
        (kind, _) => Err(format!("`{kind}` is no type of a mount; known are `bind` and `tmpfs`")),
    }
}

/// Parses `TARGET[:size=…,mode=…]`.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn tmpfs(text: &str) -> Result<TmpfsMount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut out = TmpfsMount { target: path_of_container(target)?, size: None, mode: 0o1777 };
    for option in options.split(',').filter(|it| !it.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => out.size = Some(size(value)?),
            Some(("mode", value)) => out.mode = octal(value)?,
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => {
                return Err(format!(
                    "`{option}` is no option of a tmpfs; known are `size=` and `mode=`"
                ));
            }
        }
    }
    Ok(out)
}

fn path_of_host(source: &str) -> Result<PathBuf, String> {
    match source.starts_with(['/', '.']) {
        true => Ok(source.into()),
        false => Err(named_volume(source)),
    }
}

fn named_volume(source: &str) -> String {
    format!("`{source}` is not a path, and named volumes are not there yet; write `./{source}`")
}

fn path_of_container(target: &str) -> Result<PathBuf, String> {
    match target.starts_with('/') {
        true => Ok(target.into()),
        false => Err(format!("`{target}` is not an absolute path in the container")),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|it| *it <= 0o7777);
    mode.ok_or_else(|| format!("`{text}` is not a mode such as `1777`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: Option<&str>, target: &str, read_only: bool, create: bool) -> BindMount {
        BindMount { source: source.map(PathBuf::from), target: target.into(), read_only, create }
    }

    #[test]
    fn volumes() {
        assert_eq!(volume("./a:/b:ro"), Ok(bind(Some("./a"), "/b", true, true)));
        assert_eq!(volume("/a:/b:rw,z"), Ok(bind(Some("/a"), "/b", false, true)));
        assert_eq!(volume("/b"), Ok(bind(None, "/b", false, true)));
        for bad in ["a", "name:/b", "/a:b", "/a:/b:frob", "/a:/b:ro:x", ""] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let ro = mount("type=bind,src=/a,dst=/b,readonly");
        assert_eq!(ro, Ok(Mount::Bind(bind(Some("/a"), "/b", true, false))));
        let rw = mount("type=bind,source=./a,target=/b,readonly=false");
        assert_eq!(rw, Ok(Mount::Bind(bind(Some("./a"), "/b", false, false))));
        let memory = TmpfsMount { target: "/b".into(), size: Some(1 << 20), mode: 0o700 };
        assert_eq!(
            mount("type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=700"),
            Ok(Mount::Tmpfs(memory))
        );
        for bad in [
            "type=bind,target=/b",
            "type=bind,source=/a",
            "type=tmpfs,source=/a,target=/b",
            "source=name,target=/b",
            "type=npipe,target=/b",
            "type=bind,source=/a,target=/b,frob",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory() {
        let plain = TmpfsMount { target: "/run".into(), size: None, mode: 0o1777 };
        assert_eq!(tmpfs("/run"), Ok(plain.clone()));
        let small = TmpfsMount { size: Some(64 << 20), mode: 0o755, ..plain };
        assert_eq!(tmpfs("/run:rw,noexec,size=64m,mode=755"), Ok(small));
        for bad in ["run", "/run:exec", "/run:size=x", "/run:mode=8"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }
}
