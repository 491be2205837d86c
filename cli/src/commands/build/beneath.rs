//! Reading the files of a context that say how to build it: the Dockerfile and the ignore file.
//!
//! A context may come from anyone. What is read below it is a regular file of it, whatever its links say: they are followed
//! inside of the context, as docker does it. A file that the user names elsewhere is read as it is, also a pipe.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// The most bytes that are read.
pub const LARGEST: u64 = 16 << 20;

/// Opens `path`, below `context` if it lies in it.
///
/// # Errors
///
/// Those of opening; [`io::ErrorKind::InvalidInput`] if it is no regular file but of the context.
pub fn open(path: &Path, context: &Path) -> io::Result<File> {
    let Some(inner) = inside(path, context) else {
        let file = File::open(path)?;
        return match file.metadata()?.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(file),
        };
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(context, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |flags: OFlags| {
        rustix::fs::openat2(&root, &inner, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    // Looked at as a place first: opening a device or a pipe for reading can already do harm.
    check(&open(OFlags::PATH)?)?;
    let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    // It may be another one by now.
    check(&file)?;
    Ok(File::from(file))
}

fn check(file: &OwnedFd) -> io::Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads `path`, below `context` if it lies in it.
///
/// # Errors
///
/// Those of [`open`]; [`io::ErrorKind::FileTooLarge`] beyond [`LARGEST`].
pub fn read(path: &Path, context: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, context)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {} MiB", LARGEST >> 20),
        )),
        false => Ok(bytes),
    }
}

/// Returns where a link leads that is in the place of a file, for a hint why nothing is found there.
pub fn link(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

/// Returns the path of a file inside of the context, if it lies there by its name or by where its folder is.
fn inside(path: &Path, context: &Path) -> Option<PathBuf> {
    let absolute = |it: &Path| std::path::absolute(it).ok();
    if let (Some(path), Some(context)) = (absolute(path), absolute(context))
        && let Ok(inner) = path.strip_prefix(&context)
        && !inner.components().any(|it| it == std::path::Component::ParentDir)
    {
        return Some(inner.to_owned());
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().ok()?;
    let context = context.canonicalize().ok()?;
    Some(folder.strip_prefix(&context).ok()?.join(path.file_name()?))
}

/// Says whether an error means that nothing is there.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_context() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("context/sub")).expect("made");
        fs::write(at("secret"), "outside").expect("written");
        fs::write(at("context/real"), "inside").expect("written");
        let link = |name: &str, to: &Path| std::os::unix::fs::symlink(to, at(name)).expect("made");
        link("context/up", Path::new("../secret"));
        link("context/absolute", &at("secret"));
        link("context/good", Path::new("sub/../real"));
        link("context/rooted", Path::new("/real"));
        link("context/loop", Path::new("loop"));
        link("alias", &at("context"));
        let read = |name: &str| read(&at(name), &at("context")).map_err(|it| it.kind());
        // What is outside is read where the user names it, and by no way that leads through the context.
        assert_eq!(read("secret").as_deref(), Ok(&b"outside"[..]));
        for name in ["context/up", "context/absolute", "alias/up"] {
            assert_eq!(read(name), Err(io::ErrorKind::NotFound), "{name}");
        }
        for name in ["context/good", "context/rooted", "alias/good", "context/sub/../good"] {
            assert_eq!(read(name).as_deref(), Ok(&b"inside"[..]), "{name}");
        }
        assert!(self::read(&at("context/loop"), &at("context")).is_err_and(|it| is_missing(&it)));
        assert_eq!(read("context/sub"), Err(io::ErrorKind::IsADirectory));
    }

    #[test]
    fn pipes_and_endless_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("made");
        assert_eq!(
            read(&pipe, folder.path()).map_err(|it| it.kind()),
            Err(io::ErrorKind::InvalidInput)
        );
        let large = File::create(folder.path().join("large")).expect("made");
        large.set_len(4 << 30).expect("sparse");
        assert_eq!(
            read(&folder.path().join("large"), folder.path()).map_err(|it| it.kind()),
            Err(io::ErrorKind::FileTooLarge)
        );
    }
}
