//! Whose ids the trees of a store have.
//!
//! The files of a tree have owners as the process sees them that unpacks it. In a user namespace those are other ids on the disk,
//! and folders are marked as opaque in another way. So the first one who makes a tree notes how he sees ids, and who sees
//! them differently (root in the store of a user, a user whose subordinate ids were changed) makes no trees there, and none of
//! what is there is taken for what it is not.

use std::{fs, os::unix::fs::MetadataExt, sync::atomic::Ordering};

use rustix::thread::{CapabilitySet, capabilities};

use crate::{error::StoreError, files, store::Store};

/// The number of the user namespace that every machine starts with.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Store {
    /// Tells whether this process can give files to any owner that an image may name; if not, it makes no trees of images.
    pub fn can_own(&self) -> bool {
        capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::CHOWN))
    }

    /// Tells whether this process makes trees of layers: it can give files away, and mark what overlay needs marked.
    pub(crate) fn makes_trees(&self) -> bool {
        self.can_own()
            && capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_ADMIN))
    }

    /// Fails if the trees of this store were made by somebody who sees ids differently. Looked up once.
    pub(crate) fn check_owners(&self) -> Result<(), StoreError> {
        // Who cannot give files away makes files of his own only, which are root's in his user namespace.
        if !self.makes_trees() || self.inner.owners_are_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = self.path("owners");
        let ours = ours();
        let _lock = self.lock("owners")?;
        match files::read_small(&path, 1 << 20)? {
            None => self.publish(&path, &files::seal(ours.into_bytes()), true)?,
            Some(theirs) if files::unseal(&theirs) == Some(ours.as_bytes()) => {}
            Some(theirs) => {
                let Some(theirs) = files::unseal(&theirs) else {
                    let reason = "it is not what was written".to_owned();
                    return Err(StoreError::Damaged { path, reason });
                };
                return Err(StoreError::OtherOwners {
                    path: self.root().to_owned(),
                    found: one_line(&String::from_utf8_lossy(theirs)),
                    expected: one_line(&ours),
                });
            }
        }
        self.inner.owners_are_checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How this process sees ids.
fn ours() -> String {
    let is_initial =
        fs::metadata("/proc/self/ns/user").is_ok_and(|it| it.ino() == INITIAL_NAMESPACE);
    // Root of a container may lack the right to set the attributes that root's overlays go by.
    let is_admin =
        capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_ADMIN));
    let kind = if is_initial && is_admin { "machine\n" } else { "user namespace\n" };
    let mut out = kind.to_owned();
    for (kind, name) in [("users", "uid_map"), ("groups", "gid_map")] {
        let text = fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        for line in text.lines() {
            let numbers: Vec<&str> = line.split_whitespace().collect();
            out += &format!("{kind} {}\n", numbers.join(" "));
        }
    }
    out
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', ", ")
}
