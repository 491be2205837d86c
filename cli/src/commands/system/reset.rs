//! `kiln system reset`.

use std::{
    fs,
    io::{self, BufRead, IsTerminal},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use anyhow::{Context, anyhow};
use cache::Store;

use crate::{
    args::system::ResetArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

/// Removes the store.
///
/// # Errors
///
/// Fails where the directory is no store, something is mounted in it, it cannot be removed, or nobody can be asked.
pub fn run(args: &ResetArgs, globals: &Globals) -> Result<Exit> {
    let root = globals.store_root(&globals.config()?)?;
    let shown = root.display();
    if !root.exists() {
        print::out(&format!("There is no store at {shown}\n"))?;
        return Ok(Exit::Done);
    }
    let version = fs::read(root.join("version")).unwrap_or_default();
    if !version.starts_with(b"kiln store") {
        return Err(Failure::input(anyhow!("`{shown}` is not a store of kiln"))
            .hint("remove it yourself if that is meant"));
    }
    if !args.force && !confirmed(&format!("This removes all images and the cache in {shown}."))? {
        return Ok(Exit::Failed);
    }
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    if let Some(mount) = mount_below(&root, &mounts) {
        let failure = Failure::failed(anyhow!("`{mount}` is mounted inside the store"));
        return Err(failure.hint("unmount it first; nothing was removed"));
    }
    let store = Store::open(&root).or_failed()?;
    refuse_if_used(&store)?;
    store.reset().or_failed()?;
    remove(&root).with_context(|| format!("cannot remove `{shown}`")).or_failed()?;
    print::out(&format!("Removed {shown}\n"))?;
    Ok(Exit::Done)
}

/// A container that runs must be ended first: without the store nobody could see it any more.
fn refuse_if_used(store: &Store) -> Result<()> {
    let running = runtime::containers(store).or_failed()?.into_iter().filter(|it| it.1);
    let names: Vec<String> = running
        .map(|(state, _)| state.name.unwrap_or_else(|| state.id.short().to_owned()))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(" ");
    let failure = Failure::failed(anyhow!("containers run that use the store: {names}"));
    Err(failure.hint(format!("`kiln stop {names}` ends them; nothing was removed")))
}

/// Asks whether to go on.
///
/// # Errors
///
/// Fails where there is nobody to ask.
pub fn confirmed(warning: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::input(anyhow!("there is no terminal to confirm this on")).hint("add --force")
        );
    }
    print::err(&format!("{warning}\nAre you sure? [y/N] "));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read from the terminal").or_input()?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Removes what is in the root, and the root itself where that can be done: it may be a mount point or a home for others.
fn remove(root: &Path) -> io::Result<()> {
    // The mark goes last: a store that is half gone is still one.
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name() == "version" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_file(root.join("version"))?;
    match fs::remove_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}

/// Returns a mount point below `root`, as `/proc/self/mountinfo` lists them.
fn mount_below(root: &Path, mountinfo: &[u8]) -> Option<String> {
    let root = root.canonicalize().unwrap_or(root.to_owned());
    let mut prefix = root.as_os_str().as_bytes().to_owned();
    prefix.push(b'/');
    let points =
        mountinfo.split(|it| *it == b'\n').filter_map(|line| line.split(|it| *it == b' ').nth(4));
    let below = points
        .filter(|it| it.starts_with(&prefix))
        .map(|it| String::from_utf8_lossy(it).into_owned());
    below.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_are_found() {
        let info = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /no/store/x rw - overlay o rw\n3 1 0:5 / /no/store2 rw - t t rw\n";
        assert_eq!(mount_below(Path::new("/no/store"), info).as_deref(), Some("/no/store/x"));
        assert_eq!(mount_below(Path::new("/no/store2"), info), None);
    }
}
