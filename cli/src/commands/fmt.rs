//! `kiln fmt`: Dockerfiles in one style.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use parser::format::format;

use crate::{
    args::dockerfile::FmtArgs,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    render::{self, Diagnostic, Source},
};

/// Formats Dockerfiles.
///
/// # Errors
///
/// Fails where a file cannot be read or written, or is no Dockerfile.
pub fn run(args: &FmtArgs) -> Result<Exit> {
    let mut n_changed = 0;
    for name in &args.files {
        let before = read(name)?;
        let after = formatted(name, &before)?;
        let is_changed = after != before;
        n_changed += usize::from(is_changed);
        match name.as_str() {
            _ if args.check && is_changed => print::out(&format!("{name}\n"))?,
            _ if args.check => {}
            "-" if args.write => {
                return Err(Failure::input(anyhow!("standard input cannot be written to"))
                    .hint("leave -w away: the result goes to standard output"));
            }
            _ if args.write && is_changed => write(Path::new(name), &after)?,
            _ if args.write => {}
            _ => print::bytes(&after)?,
        }
    }
    Ok(if args.check && n_changed > 0 { Exit::Failed } else { Exit::Done })
}

fn read(name: &str) -> Result<Vec<u8>> {
    if name != "-" {
        return fs::read(name).with_context(|| format!("cannot read `{name}`")).or_input();
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("cannot read standard input").or_input()?;
    Ok(bytes)
}

fn formatted(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let text = parser::decode(bytes);
    match format(&text) {
        Ok(formatted) => Ok(parser::encode(&formatted)),
        Err(mistakes) => {
            let name = if name == "-" { "stdin" } else { name };
            let diagnostics: Vec<Diagnostic> = mistakes.iter().map(Diagnostic::from).collect();
            let source = Source { name, text: &text };
            let text = render::render(source, &diagnostics, print::colour());
            Err(Failure::rendered(text, Exit::Input))
        }
    }
}

/// Replaces a file as a whole. A link stays one, and so do the permissions.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let replace = || -> io::Result<()> {
        let path = path.canonicalize()?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new().prefix(".kiln-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        file.persist(&path)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write `{}`", path.display())).or_failed()
}
