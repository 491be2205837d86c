//! The journal: what became of each step in earlier builds, so that a later one can be compared with them.
//!
//! ```text
//! builds/LINE/BUILD.PRINT.whole   a build: its steps and what their keys were made of
//! builds/LINE/BUILD.PRINT.again   the youngest build, which found all steps as the build of the same print left them
//! builds/files/HEX                which files the key of a step was made of
//! ```
//!
//! A *line* is a hash over what makes two builds two runs of one thing: the Dockerfile and the context. Each build writes
//! a file of its own, so that processes do not meet; nothing is flushed, all files are sealed, and what a power cut damages is
//! not read. The *print* says without reading that two builds were made of the same, so that one that found everything writes
//! next to nothing.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    collect::PruneReport,
    error::{IoContext, StoreError},
    files,
    lease::{hex, unhex},
    step::{StepKey, modified},
    store::Store,
};

/// As many different builds of a line are kept.
const N_KEPT: usize = 8;
/// As many lines are kept, those that were built last.
const N_LINES: usize = 256;
/// Neither a build nor a list of files is longer.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// A build in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// What it is a run of.
    pub line: [u8; 32],
    /// Its id; ids sort by age.
    pub build: String,
    /// Equal for builds whose steps had the same keys.
    pub print: u64,
    /// Its steps are those of an earlier build with the same print.
    pub is_again: bool,
}

impl JournalEntry {
    fn name(&self) -> String {
        let extension = if self.is_again { "again" } else { "whole" };
        format!("{}.{:016x}.{extension}", self.build, self.print)
    }

    pub(crate) fn parse(line: [u8; 32], name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let (build, print, extension) = (parts.next()?, parts.next()?, parts.next()?);
        let is_again = match extension {
            "again" => true,
            "whole" => false,
            _ => return None,
        };
        let print = u64::from_str_radix(print, 16).ok()?;
        Some(Self { line, build: build.to_owned(), print, is_again })
    }
}

impl Store {
    /// Where the list of the files of a step is, or would be.
    pub(crate) fn step_files_path(&self, key: &StepKey) -> PathBuf {
        self.path("builds/files").join(key.hex())
    }

    fn line_path(&self, line: &[u8; 32]) -> PathBuf {
        self.path("builds").join(hex(line))
    }

    /// Lists the builds of a line, the youngest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be listed.
    pub fn journal(&self, line: &[u8; 32]) -> Result<Vec<JournalEntry>, StoreError> {
        let names = files::names(&self.line_path(line))?;
        let mut found: Vec<_> =
            names.iter().filter_map(|it| JournalEntry::parse(*line, it)).collect();
        found.sort_by(|a, b| b.build.cmp(&a.build));
        Ok(found)
    }

    /// Lists the builds of all lines, the youngest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be listed.
    pub fn whole_journal(&self) -> Result<Vec<JournalEntry>, StoreError> {
        let mut found = Vec::new();
        for line in files::names(&self.path("builds"))?.iter().filter_map(|it| unhex(it)) {
            found.extend(self.journal(&line)?);
        }
        found.sort_by(|a, b| b.build.cmp(&a.build));
        Ok(found)
    }

    /// Reads a build. `None` if it is not there any more, or damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be read.
    pub fn journal_entry(&self, entry: &JournalEntry) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.line_path(&entry.line).join(entry.name()))
    }

    /// Adds a build, and forgets the oldest.
    ///
    /// # Errors
    ///
    /// - [`StoreError::BadName`] if the id cannot be part of a file name.
    /// - [`StoreError::Io`] if it cannot be written.
    pub fn put_journal(&self, entry: &JournalEntry, bytes: &[u8]) -> Result<(), StoreError> {
        let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
        if entry.build.is_empty() || entry.build.len() > 100 || !entry.build.bytes().all(plain) {
            return Err(StoreError::BadName { name: entry.build.clone() });
        }
        self.session()?;
        let folder = self.line_path(&entry.line);
        if !folder.exists() {
            files::ensure_dir(&self.path("builds"), 0o755)?;
            self.forget_lines()?;
            files::ensure_dir(&folder, 0o755)?;
        }
        self.publish(&folder.join(entry.name()), &files::seal(bytes.to_vec()), false)?;
        let (again, whole): (Vec<_>, Vec<_>) =
            self.journal(&entry.line)?.into_iter().partition(|it| it.is_again);
        let youngest = usize::from(again.first().is_some_and(|it| it.print == entry.print));
        for old in again.iter().skip(youngest).chain(whole.iter().skip(N_KEPT)) {
            files::remove_file(&folder.join(old.name()))?;
        }
        Ok(())
    }

    /// Makes room for a new line.
    fn forget_lines(&self) -> Result<(), StoreError> {
        let folder = self.path("builds");
        let mut lines: Vec<_> = files::names(&folder)?
            .into_iter()
            .filter(|it| unhex(it).is_some())
            .map(|it| (modified(&folder.join(&it)), it))
            .collect();
        lines.sort_by(|a, b| b.cmp(a));
        for (_, old) in lines.iter().skip(N_LINES - 1) {
            files::remove_tree(&folder.join(old))?;
        }
        Ok(())
    }

    /// Removes old builds, and lists of steps that are gone. The youngest build of each line stays, so that it can be said what was
    /// pruned; with `whole_lines`, lines without a young build go altogether.
    pub(crate) fn prune_journal(
        &self,
        is_old: &dyn Fn(u64) -> bool,
        whole_lines: bool,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let remove = |path: PathBuf, report: &mut PruneReport| {
            let n_bytes = fs::metadata(&path).map_or(0, |it| it.len());
            report.n_bytes += if files::remove_file(&path)? { n_bytes } else { 0 };
            Ok::<_, StoreError>(())
        };
        for line in files::names(&self.path("builds"))?.iter().filter_map(|it| unhex(it)) {
            let folder = self.line_path(&line);
            let is_over = |it: &JournalEntry| is_old(modified(&folder.join(it.name())));
            let builds = self.journal(&line)?;
            let goes = whole_lines && builds.iter().all(is_over);
            let youngest = builds.iter().find(|it| !it.is_again && !goes);
            let stays = |it: &JournalEntry| {
                youngest.is_some_and(|kept| it == kept || (it.is_again && it.print == kept.print))
            };
            for build in builds.iter().filter(|it| is_over(it) && !stays(it)) {
                remove(folder.join(build.name()), report)?;
            }
            for name in files::names(&folder)? {
                if JournalEntry::parse(line, &name).is_none() {
                    remove(folder.join(name), report)?;
                }
            }
            if goes {
                // Not if a build has just come.
                let _ = fs::remove_dir(&folder);
            }
        }
        let folder = self.path("builds/files");
        for name in files::names(&folder)? {
            if unhex(&name).is_none_or(|it| !self.step_path(&StepKey(it)).exists()) {
                remove(folder.join(name), report)?;
            }
        }
        Ok(())
    }

    /// How many files the journal has, and what they take up on the disk.
    pub(crate) fn journal_usage(&self) -> Result<(u64, u64), StoreError> {
        let folder = self.path("builds");
        let mut n_files = 0;
        for name in files::names(&folder)? {
            n_files += files::names(&folder.join(name))?.len() as u64;
        }
        Ok((n_files, files::disk_bytes(&folder)))
    }

    /// Forgets all builds.
    pub(crate) fn clear_journal(&self) -> Result<(), StoreError> {
        let folder = self.path("builds");
        if !folder.exists() {
            return Ok(());
        }
        let old = self.scratch()?;
        fs::rename(&folder, &old).at("move away", &folder)?;
        files::remove_tree(&old)
    }

    /// Keeps what the key of a step was made of, until the step is forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be written.
    pub fn put_step_files(&self, key: &StepKey, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.step_files_path(key);
        let bytes = files::seal(bytes.to_vec());
        match self.publish(&path, &bytes, false) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                files::ensure_dir(&self.path("builds"), 0o755)?;
                files::ensure_dir(&self.path("builds/files"), 0o755)?;
                self.publish(&path, &bytes, false)
            }
            result => result,
        }
    }

    /// Reads what the key of a step was made of. `None` if that is not kept, or damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be read.
    pub fn step_files(&self, key: &StepKey) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.step_files_path(key))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = match files::read_small(path, MAX_BYTES) {
        // None of ours is that long.
        Err(StoreError::TooLarge { .. }) => None,
        result => result?,
    };
    Ok(bytes.and_then(files::unsealed))
}
