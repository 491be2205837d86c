//! What no image and no step needs: cache mounts, digests of contexts, the journal, logs, and notes of the store itself.

use std::path::{Path, PathBuf};

use super::{
    CheckReport, ProblemKind,
    find::{Finder, MAX_RECORD_BYTES},
};
use crate::{error::StoreError, files, journal::JournalEntry, lease::unhex, store::flushed_batch};

impl Finder<'_> {
    pub(super) fn others(&mut self, report: &mut CheckReport) -> Result<(), StoreError> {
        let mounts = self.store.path("mounts");
        for name in files::names(&mounts)? {
            let info = mounts.join(&name).join("info.json");
            let bytes = files::read_small(&info, 1 << 20)?;
            if bytes.is_some_and(|it| crate::mount::is_damaged(&it)) {
                let path = Path::new("mounts").join(&name).join("info.json");
                self.record(ProblemKind::Mount, path, None, report);
            }
        }
        for name in files::names(&self.store.path("stat-cache"))? {
            self.sealed(ProblemKind::StatCache, Path::new("stat-cache").join(name), report)?;
        }
        for build in files::names(&self.store.path("logs"))? {
            let path = Path::new("logs").join(build).join(crate::logs::STEPS);
            self.sealed(ProblemKind::Log, path, report)?;
        }
        self.journal(report)?;
        self.sealed(ProblemKind::Owners, "owners".into(), report)?;
        let flushed = files::read_small(&self.store.path("flushed"), MAX_RECORD_BYTES)?;
        let flushed = flushed.unwrap_or_default();
        let flushed = String::from_utf8_lossy(&flushed);
        if flushed.lines().any(|it| !it.is_empty() && flushed_batch(it).is_none()) {
            report.leftovers.push("flushed".into());
        }
        Ok(())
    }

    /// Looks at what is remembered of builds. What is not one of its files is nobody's.
    fn journal(&mut self, report: &mut CheckReport) -> Result<(), StoreError> {
        let root = Path::new("builds");
        for folder in files::names(&self.store.path("builds"))? {
            let line = unhex(&folder);
            for name in files::names(&self.store.path("builds").join(&folder))? {
                let is_one = match line {
                    Some(line) => JournalEntry::parse(line, &name).is_some(),
                    None => folder == "files" && unhex(&name).is_some(),
                };
                let path = root.join(&folder).join(&name);
                match is_one {
                    true => self.sealed(ProblemKind::Journal, path, report)?,
                    false => report.leftovers.push(path),
                }
            }
        }
        Ok(())
    }

    /// Looks at a file that has a seal, if it is there.
    fn sealed(
        &mut self,
        kind: ProblemKind,
        path: PathBuf,
        report: &mut CheckReport,
    ) -> Result<(), StoreError> {
        match files::read_small(&self.store.root().join(&path), u64::MAX - 1)? {
            Some(bytes) if !files::is_sealed(&bytes) => self.record(kind, path, None, report),
            _ => {}
        }
        Ok(())
    }
}
