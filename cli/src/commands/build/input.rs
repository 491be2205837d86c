//! Where the Dockerfile and the context of a build are.
//!
//! | PATH | `-f` | Dockerfile | context |
//! |---|---|---|---|
//! | directory | – | `PATH/Dockerfile`, else `PATH/dockerfile` | the directory |
//! | directory | file | the file, relative to the current directory | the directory |
//! | directory | `-` | standard input | the directory |
//! | `-` | –, standard input is no archive | standard input | empty |
//! | `-` | – or a name, standard input is an archive | `Dockerfile` or the name in it | the archive |
//! | URL | – or a name | `Dockerfile` or the name in it | what the URL gives |
//! | directory or URL | URL | what that URL gives | as above |

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

use super::beneath::{self, LARGEST as LARGEST_DOCKERFILE};
use crate::failure::{Failure, OrFail, Result};

/// So many bytes tell an archive from a Dockerfile: the header of a tar.
const HEAD: usize = 512;

/// Where a build reads from.
#[derive(Debug)]
pub struct Input {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// The files that COPY may name.
    pub context: Context,
}

/// The Dockerfile of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dockerfile {
    /// It has been read.
    Read {
        /// What to call it in messages.
        name: String,
        /// Its bytes.
        bytes: Vec<u8>,
        /// Where it is, if it is a file: its own ignore file lies beside it.
        path: Option<PathBuf>,
    },
    /// It is a file of the context, to be read when that is there.
    InContext {
        /// Its path in the context.
        path: String,
    },
    /// It is to be downloaded.
    Remote {
        /// Where from.
        url: String,
    },
}

/// The context of a build.
pub enum Context {
    /// Nothing.
    Empty,
    /// A directory.
    Directory(PathBuf),
    /// A tar, maybe compressed, on standard input; the first bytes have been read and are put back in front.
    Archive(Box<dyn Read + Send>),
    /// Something to be fetched, as written.
    Remote(String),
}

impl Dockerfile {
    /// Where it is, for telling builds apart; empty if it has no place.
    pub fn place(&self) -> String {
        match self {
            Self::Read { path: Some(path), .. } => absolute(path),
            Self::Read { path: None, .. } => String::new(),
            Self::InContext { path } => path.clone(),
            Self::Remote { url } => without_password(url),
        }
    }
}

impl Context {
    /// Where it is, for telling builds apart; empty if it has no place.
    pub fn place(&self) -> String {
        match self {
            Self::Empty | Self::Archive(_) => String::new(),
            Self::Directory(path) => absolute(path),
            Self::Remote(url) => without_password(url),
        }
    }
}

fn absolute(path: &Path) -> String {
    let found = path.canonicalize().or_else(|_| std::path::absolute(path));
    found.as_deref().unwrap_or(path).to_string_lossy().into_owned()
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Archive(_) => f.write_str("Archive"),
            Self::Remote(url) => f.debug_tuple("Remote").field(url).finish(),
        }
    }
}

/// Finds Dockerfile and context.
///
/// # Errors
///
/// Fails where one of them is not there or cannot be read, or where both were to come from standard input.
pub fn find(context: &str, file: Option<&str>, stdin: impl Read + Send + 'static) -> Result<Input> {
    match context {
        "-" => from_stdin(file, stdin),
        url if is_remote(url) => {
            let dockerfile = match file {
                Some("-") => from_reader("stdin", stdin)?,
                Some(file) if is_web(file) => Dockerfile::Remote { url: file.to_owned() },
                path => Dockerfile::InContext { path: path.unwrap_or("Dockerfile").to_owned() },
            };
            Ok(Input { dockerfile, context: Context::Remote(url.to_owned()) })
        }
        path => {
            let directory = Path::new(path);
            check_directory(directory)?;
            let dockerfile = match file {
                Some("-") => from_reader("stdin", stdin)?,
                Some(file) if is_web(file) => Dockerfile::Remote { url: file.to_owned() },
                Some(file) => from_file(Path::new(file), directory)?,
                None => from_directory(directory)?,
            };
            Ok(Input { dockerfile, context: Context::Directory(directory.to_owned()) })
        }
    }
}

fn is_web(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Says whether a context is fetched rather than read from a directory.
pub fn is_remote(context: &str) -> bool {
    let scheme =
        ["http://", "https://", "git://", "ssh://"].iter().any(|it| context.starts_with(it));
    let short = context.starts_with("github.com/") || is_scp(context);
    scheme || short && !Path::new(context).exists()
}

/// `user@host:path`, git's short form.
fn is_scp(text: &str) -> bool {
    let Some((host, _)) = text.split_once(':') else { return false };
    host.split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('/'))
}

/// Takes user and password out of a URL.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

fn from_stdin(file: Option<&str>, mut stdin: impl Read + Send + 'static) -> Result<Input> {
    if file == Some("-") {
        let message = anyhow!("standard input cannot be both the context and the Dockerfile");
        return Err(Failure::input(message)
            .hint("name the context's directory: `kiln build -f - DIRECTORY`"));
    }
    let mut head = Vec::new();
    stdin
        .by_ref()
        .take(HEAD as u64)
        .read_to_end(&mut head)
        .context("cannot read standard input")
        .or_input()?;
    if head.is_empty() {
        let message = anyhow!("standard input is empty: expected a Dockerfile or a tar archive");
        return Err(
            Failure::input(message).hint("pipe one into kiln, or name a directory: `kiln build .`")
        );
    }
    let archive = is_archive(&head);
    if !archive && head.contains(&0) {
        let message = anyhow!("standard input is neither a Dockerfile nor a tar archive");
        return Err(Failure::input(message).hint(
            "a context may be a tar, plain or compressed with gzip, bzip2, xz or Zstandard",
        ));
    }
    // A terminal that has said it is over would be asked once more.
    let rest = if head.len() < HEAD { 0 } else { u64::MAX };
    let stdin = io::Cursor::new(head).chain(stdin.take(rest));
    if archive {
        let path = file.unwrap_or("Dockerfile").to_owned();
        return Ok(Input {
            dockerfile: Dockerfile::InContext { path },
            context: Context::Archive(Box::new(stdin)),
        });
    }
    if let Some(file) = file {
        let message = anyhow!("there are two Dockerfiles: standard input, and `{file}` of -f");
        return Err(Failure::input(message).hint("name the context's directory, or leave -f away"));
    }
    Ok(Input { dockerfile: from_reader("stdin", stdin)?, context: Context::Empty })
}

/// Says whether bytes begin a tar, or something compressed.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if MAGIC.iter().any(|it| head.starts_with(it)) || head.get(257..262) == Some(b"ustar") {
        return true;
    }
    // An old tar has no magic, but its header has a checksum in octal.
    let Some(header) = head.get(..512) else { return false };
    let field = String::from_utf8_lossy(&header[148..156]);
    let field = field.trim_matches(['\0', ' ']);
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(n, it)| if (148..156).contains(&n) { 32 } else { u32::from(*it) })
        .sum();
    u32::from_str_radix(field, 8) == Ok(sum)
}

fn check_directory(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => {
            let message = anyhow!("the context `{}` is not a directory", path.display());
            Err(Failure::input(message).hint("name the directory, and the Dockerfile with -f"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let failure = Failure::input(anyhow!("the context `{}` was not found", path.display()));
            Err(match context_hint(path) {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot read the context `{}`", path.display()))
            .or_input(),
    }
}

/// What may be meant by a context that is not there: kaniko's have a prefix.
fn context_hint(path: &Path) -> Option<String> {
    let (kind, path) = path.to_str()?.split_once("://")?;
    match kind {
        "dir" | "file" => Some(format!("write the path alone: `kiln build {path}`")),
        "tar" => Some("pass the archive on standard input: `kiln build - <FILE`".to_owned()),
        _ => Some("known are folders, `-`, and URLs with http, https, git or ssh".to_owned()),
    }
}

fn from_directory(directory: &Path) -> Result<Dockerfile> {
    let path = directory.join("Dockerfile");
    let lower = directory.join("dockerfile");
    let is_there = |it: &Path| it.symlink_metadata().is_ok();
    match is_there(&path) || !is_there(&lower) {
        true => from_file(&path, directory),
        false => from_file(&lower, directory),
    }
}

fn from_file(path: &Path, context: &Path) -> Result<Dockerfile> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let shown = path.display();
    match beneath::open(path, context) {
        Ok(file) => match from_reader(&name, file)? {
            Dockerfile::Read { name, bytes, .. } => {
                Ok(Dockerfile::Read { name, bytes, path: Some(path.to_owned()) })
            }
            other => Ok(other),
        },
        Err(error) if beneath::is_missing(&error) => {
            if let Some(link) = beneath::link(path) {
                let message = anyhow!("Dockerfile `{shown}` leads to nothing");
                return Err(Failure::input(message).hint(format!(
                    "it is a link to `{}`, which is followed inside the context; name that file with -f",
                    link.display()
                )));
            }
            let hint = match neighbours(path) {
                names if names.is_empty() => "write one, or name another file with -f".to_owned(),
                names => format!("there is {}; name it with -f", names.join(", ")),
            };
            Err(Failure::input(anyhow!("Dockerfile `{shown}` not found")).hint(hint))
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot read Dockerfile `{shown}`")).or_input()
        }
    }
}

/// Returns files beside a missing Dockerfile that may be meant.
fn neighbours(path: &Path) -> Vec<String> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let likely = |name: &str| {
        let lower = name.to_ascii_lowercase();
        (lower.contains("dockerfile") || lower.contains("containerfile"))
            && !lower.ends_with(".dockerignore")
    };
    let names = entries
        .flatten()
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .filter(|it| likely(it));
    let mut names: Vec<String> =
        names.take(3).map(|it| format!("`{}`", folder.join(it).display())).collect();
    names.sort();
    names
}

fn from_reader(name: &str, reader: impl Read) -> Result<Dockerfile> {
    let mut bytes = Vec::new();
    let read = reader.take(LARGEST_DOCKERFILE + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read Dockerfile `{name}`")).or_input()?;
    if bytes.len() as u64 > LARGEST_DOCKERFILE {
        let limit = LARGEST_DOCKERFILE >> 20;
        return Err(Failure::input(anyhow!("Dockerfile `{name}` is larger than {limit} MiB")));
    }
    Ok(Dockerfile::Read { name: name.to_owned(), bytes, path: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        context: &str,
        file: Option<&str>,
        stdin: &[u8],
    ) -> std::result::Result<Input, String> {
        find(context, file, io::Cursor::new(stdin.to_vec())).map_err(|it| format!("{it:?}"))
    }

    #[test]
    fn dockerfiles_are_found_where_docker_finds_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let context = folder.path().to_str().expect("text");
        let name = |file: Option<&str>| match found(context, file, b"FROM stdin")?.dockerfile {
            Dockerfile::Read { name, .. } => Ok(name),
            other => Err(format!("{other:?}")),
        };
        assert!(
            name(None)
                .is_err_and(|it| it.contains("Dockerfile` not found") && it.contains("write one"))
        );
        fs::write(path("app.Dockerfile"), "FROM a").expect("written");
        assert!(name(None).is_err_and(|it| it.contains("app.Dockerfile")));
        fs::write(path("dockerfile"), "FROM a").expect("written");
        assert_eq!(name(None).as_deref(), Ok("dockerfile"));
        fs::write(path("Dockerfile"), "FROM a").expect("written");
        assert_eq!(name(None).as_deref(), Ok("Dockerfile"));
        assert_eq!(name(Some("-")).as_deref(), Ok("stdin"));
        assert_eq!(name(path("app.Dockerfile").to_str()).as_deref(), Ok("app.Dockerfile"));
        assert!(name(Some(context)).is_err());
        assert!(found("/nowhere/at/all", None, b"").is_err_and(|it| it.contains("not found")));
        assert!(
            found(path("Dockerfile").to_str().expect("text"), None, b"")
                .is_err_and(|it| it.contains("not a directory"))
        );
    }

    #[test]
    fn standard_input_is_a_dockerfile_or_an_archive() {
        let input = found("-", None, b"FROM scratch\n").expect("a Dockerfile");
        assert!(matches!(input.context, Context::Empty));
        assert!(
            matches!(input.dockerfile, Dockerfile::Read { ref bytes, .. } if bytes == b"FROM scratch\n")
        );
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for head in [&tar[..], b"\x1f\x8b\x08\0"] {
            let input = found("-", Some("sub/Dockerfile"), head).expect("an archive");
            let Context::Archive(mut reader) = input.context else { panic!("no archive") };
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).expect("read");
            assert_eq!(bytes, head);
        }
        assert!(found("-", Some("-"), b"x").is_err());
        assert!(found("-", Some("Dockerfile"), b"FROM a").is_err());
        assert!(found("-", None, b"").is_err_and(|it| it.contains("empty")));
        let error = found("-", None, b"\x7fELF\0\x01").map(|_| ()).expect_err("it is neither");
        assert!(error.contains("neither a Dockerfile nor a tar"), "{error}");
    }

    /// A terminal, which is over when it says so, and begins again when it is asked once more.
    struct Terminal(Vec<&'static [u8]>);

    impl Read for Terminal {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop().expect("it was not asked again");
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn one_end_of_input_is_enough() {
        let terminal = Terminal(vec![b"", b"FROM stdin\n"]);
        let input = find("-", None, terminal).expect("a Dockerfile");
        assert!(
            matches!(input.dockerfile, Dockerfile::Read { bytes, .. } if bytes == b"FROM stdin\n")
        );
    }

    #[test]
    fn remote_contexts_and_their_passwords() {
        for url in ["https://h/x.git", "git@h:x.git", "github.com/a/b", "git://h/x", "ssh://u@h/x"]
        {
            assert!(is_remote(url), "{url}");
        }
        for path in [".", "dir", "/a:b", "a@b/c"] {
            assert!(!is_remote(path), "{path}");
        }
        assert_eq!(without_password("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(without_password("https://h/x"), "https://h/x");
    }
}
