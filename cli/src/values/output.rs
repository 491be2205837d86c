//! `--output`: what to make of the result, and where to put it.

use std::path::PathBuf;

use super::{boolean, csv, one_of};

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What to make.
    pub kind: OutputKind,
    /// Where to put it; `None` for the store (`type=image`, or `type=docker` without `dest`).
    pub dest: Option<Dest>,
    /// `name`: tags, beside those of `-t`.
    pub names: Vec<String>,
    /// `push=true`.
    pub push: bool,
    /// `push-by-digest=true`: push without a tag.
    pub push_by_digest: bool,
    /// `registry.insecure=true`: speak plain HTTP, or do not check certificates, with the registries of its names in this build.
    pub insecure: bool,
    /// `tar`: one archive (the default), or a directory.
    pub tar: bool,
    /// `compression`.
    pub compression: Option<Compression>,
    /// `compression-level`.
    pub compression_level: Option<i32>,
    /// `force-compression=true`: layers of the base as well.
    pub force_compression: bool,
    /// `oci-mediatypes`: OCI's or Docker's media types.
    pub oci_media_types: Option<bool>,
    /// `oci-artifact`: attestations are OCI's artifacts (the default), or images of no platform.
    pub oci_artifact: Option<bool>,
    /// `rewrite-timestamp=true`: no time in a layer is later than the source date epoch.
    pub rewrite_timestamp: Option<bool>,
    /// `source-date-epoch`, in seconds: stronger than that of the environment.
    pub source_date_epoch: Option<i64>,
    /// `platform-split`: a folder per platform for `type=local`.
    pub platform_split: Option<bool>,
    /// `annotation…=`: the part after `annotation`, as [`super::annotation`] reads it, and the value.
    pub annotations: Vec<super::Annotation>,
}

/// What `--output` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// An image in the store.
    Image,
    /// An OCI layout, as archive or directory.
    Oci,
    /// A `docker load` archive.
    Docker,
    /// The files of the result in a directory.
    Local,
    /// The files of the result as a tar.
    Tar,
    /// Nothing: the steps are in the cache.
    CacheOnly,
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// `-`: standard output.
    Stdout,
    /// A file or directory.
    Path(PathBuf),
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

const KINDS: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

impl Output {
    /// An output of `kind` with nothing else asked for.
    pub fn new(kind: OutputKind, dest: Option<Dest>) -> Self {
        Self {
            kind,
            dest,
            names: Vec::new(),
            push: false,
            push_by_digest: false,
            insecure: false,
            tar: true,
            compression: None,
            compression_level: None,
            force_compression: false,
            oci_media_types: None,
            oci_artifact: None,
            rewrite_timestamp: None,
            source_date_epoch: None,
            platform_split: None,
            annotations: Vec::new(),
        }
    }
}

/// Parses one `--output`: `type=…,key=value`, a bare path (the files into that directory), or `-` (a tar of them).
///
/// # Errors
///
/// Returns a message that names the field that is wrong, unknown, or missing.
pub fn output(text: &str) -> Result<Output, String> {
    let fields = csv::fields(text)?;
    if let [only] = &fields[..]
        && !only.contains('=')
    {
        return match only.as_str() {
            "" => Err("an output needs a type or a path".to_owned()),
            "-" => Ok(Output::new(OutputKind::Tar, Some(Dest::Stdout))),
            path => Ok(Output::new(OutputKind::Local, Some(Dest::Path(path.into())))),
        };
    }
    let mut kind = None;
    let mut out = Output::new(OutputKind::Image, None);
    for field in &fields {
        let (key, value) = csv::key_value(field)?;
        if key == "type" {
            kind = Some(parse_kind(value, &mut out)?);
        } else {
            attribute(&mut out, &key, value)?;
        }
    }
    out.kind =
        kind.ok_or_else(|| format!("`{text}` has no `type=`; it is one of {}", one_of(&KINDS)))?;
    finish(out)
}

fn parse_kind(value: &str, out: &mut Output) -> Result<OutputKind, String> {
    Ok(match value {
        "image" => OutputKind::Image,
        "registry" => {
            out.push = true;
            OutputKind::Image
        }
        "oci" => OutputKind::Oci,
        "docker" => OutputKind::Docker,
        "local" => OutputKind::Local,
        "tar" => OutputKind::Tar,
        "cacheonly" => OutputKind::CacheOnly,
        other => {
            return Err(format!("`{other}` is no type of output; it is one of {}", one_of(&KINDS)));
        }
    })
}

fn attribute(out: &mut Output, key: &str, value: &str) -> Result<(), String> {
    let truth = || boolean(value).map_err(|message| format!("`{key}`: {message}"));
    match key {
        "dest" if value.is_empty() => {
            return Err("`dest=` is empty; it is a path, or `-` for standard output".to_owned());
        }
        "dest" => {
            out.dest = Some(if value == "-" { Dest::Stdout } else { Dest::Path(value.into()) })
        }
        "name" => {
            out.names = value
                .split(',')
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect()
        }
        "push" => out.push = truth()?,
        "push-by-digest" => out.push_by_digest = truth()?,
        "registry.insecure" => out.insecure = truth()?,
        "tar" => out.tar = truth()?,
        "compression" => {
            out.compression = Some(match value {
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip,
                "zstd" => Compression::Zstd,
                _ => {
                    return Err(format!(
                        "`compression={value}` is none of `uncompressed`, `gzip` or `zstd`"
                    ));
                }
            });
        }
        "compression-level" => {
            let level = value
                .parse()
                .map_err(|_| format!("`compression-level={value}` is not a number"))?;
            out.compression_level = Some(level);
        }
        "force-compression" => out.force_compression = truth()?,
        "oci-mediatypes" => out.oci_media_types = Some(truth()?),
        "oci-artifact" => out.oci_artifact = Some(truth()?),
        "rewrite-timestamp" => out.rewrite_timestamp = Some(truth()?),
        "source-date-epoch" => {
            let seconds = value
                .parse()
                .map_err(|_| format!("`source-date-epoch={value}` is not a number of seconds"))?;
            out.source_date_epoch = Some(seconds);
        }
        "platform-split" => out.platform_split = Some(truth()?),
        // These say how BuildKit's own storage behaves; the result is the same.
        "unpack" | "store" | "name-canonical" => {
            truth()?;
        }
        _ => match key.strip_prefix("annotation") {
            Some(rest) => out.annotations.push(super::annotation::attribute(rest, value)?),
            None => return Err(format!("`{key}` is no attribute of an output that kiln knows")),
        },
    }
    Ok(())
}

fn finish(out: Output) -> Result<Output, String> {
    let to_store = out.kind == OutputKind::Image;
    if to_store && out.dest.is_some() {
        return Err("`type=image` goes to the store and takes no `dest`; use `type=oci` or `type=docker` for a file".to_owned());
    }
    if out.push && !to_store {
        return Err("`push=true` needs `type=image`".to_owned());
    }
    match (out.kind, &out.dest) {
        (OutputKind::CacheOnly, Some(_)) => {
            return Err("`type=cacheonly` writes nothing and takes no `dest`".to_owned());
        }
        (OutputKind::Local, None) => {
            return Err("`type=local` needs `dest=`, the directory to write to".to_owned());
        }
        (OutputKind::Local, Some(Dest::Stdout)) => {
            return Err(
                "`type=local` writes a directory; use `type=tar` for standard output".to_owned()
            );
        }
        (OutputKind::Oci | OutputKind::Docker, None | Some(Dest::Stdout)) if !out.tar => {
            return Err("`tar=false` writes a directory and needs `dest=` with its path".to_owned());
        }
        (OutputKind::Oci | OutputKind::Tar, None) => {
            return Ok(Output { dest: Some(Dest::Stdout), ..out });
        }
        _ => {}
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_path_is_local_and_a_dash_a_tar() {
        assert_eq!(
            output("out/dir"),
            Ok(Output::new(OutputKind::Local, Some(Dest::Path("out/dir".into()))))
        );
        assert_eq!(output("-"), Ok(Output::new(OutputKind::Tar, Some(Dest::Stdout))));
    }

    #[test]
    fn fields_are_read() {
        let out = output(
            r#"type=oci,dest=a.tar,"name=x:1,y:2",compression=zstd,compression-level=9,tar=false"#,
        );
        let mut expected = Output::new(OutputKind::Oci, Some(Dest::Path("a.tar".into())));
        expected.names = vec!["x:1".to_owned(), "y:2".to_owned()];
        expected.compression = Some(Compression::Zstd);
        expected.compression_level = Some(9);
        expected.tar = false;
        assert_eq!(out, Ok(expected));
        assert!(
            output("type=registry,name=x").is_ok_and(|it| it.push && it.kind == OutputKind::Image)
        );
        assert_eq!(output("type=tar").map(|it| it.dest), Ok(Some(Dest::Stdout)));
        assert_eq!(output("type=docker").map(|it| it.dest), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("type=zip,dest=x", "`zip`"),
            ("dest=x", "type="),
            ("type=local", "dest="),
            ("type=local,dest=", "dest="),
            ("type=oci,dest=", "dest="),
            ("type=docker,dest=", "dest="),
            ("type=tar,dest=", "dest="),
            ("type=image,dest=", "dest"),
            ("type=oci,frob=1", "`frob`"),
            ("type=oci,dest=x,compression=lzma", "compression=lzma"),
            ("type=oci,dest=x,push=maybe", "`maybe`"),
            ("type=image,dest=x", "dest"),
            ("type=oci,tar=false", "tar=false"),
            ("", "type"),
        ] {
            let message = output(text).err();
            assert!(message.as_deref().is_some_and(|it| it.contains(word)), "{text}: {message:?}");
        }
    }
}
