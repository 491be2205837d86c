//! The ignore file of a context: which one it is, what it says, and at which line.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use parser::ignore::IgnorePattern;
use planner::ignore::Patterns;

use super::{beneath, input::Dockerfile};
use crate::failure::{Failure, Result};

/// An ignore file; without patterns where there is none.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    path: PathBuf,
    patterns: Vec<IgnorePattern>,
}

impl IgnoreFile {
    /// Reads the one beside the Dockerfile, else the one in the folder.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be read, or has a pattern that is malformed.
    pub fn of(dockerfile: &Dockerfile, folder: &Path) -> Result<Self> {
        let mut candidates = Vec::new();
        if let Dockerfile::Read { path: Some(path), .. } = dockerfile {
            let mut beside = path.clone().into_os_string();
            beside.push(".dockerignore");
            candidates.push(PathBuf::from(beside));
        }
        candidates.push(folder.join(".dockerignore"));
        for path in candidates {
            match beneath::read(&path, folder) {
                Ok(bytes) => {
                    let patterns = parser::ignore::read(&parser::decode(&bytes));
                    let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
                    let file = Self { path, patterns };
                    return file.check().map(|()| file);
                }
                Err(error) if beneath::is_missing(&error) => match beneath::link(&path) {
                    None => {}
                    Some(link) => {
                        let message = anyhow!("`{}` leads to nothing", path.display());
                        let hint = format!(
                            "it is a link to `{}`, which is followed inside the context",
                            link.display()
                        );
                        return Err(Failure::input(message).hint(hint));
                    }
                },
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    return Err(Failure::input(
                        error.context(format!("cannot read `{}`", path.display())),
                    ));
                }
            }
        }
        Ok(Self::default())
    }

    /// Returns the patterns in their order.
    pub fn texts(&self) -> Vec<String> {
        self.patterns.iter().map(|it| it.text.clone()).collect()
    }

    /// Returns `FILE:LINE` of a pattern; of one that is there several times the last, which counts.
    pub fn place_of(&self, pattern: &str) -> Option<String> {
        let found = self.patterns.iter().rev().find(|it| it.text == pattern)?;
        Some(format!("{}:{}", self.path.display(), found.line))
    }

    fn check(&self) -> Result<()> {
        for pattern in &self.patterns {
            if let Err(error) = Patterns::new(&[&pattern.text]) {
                let place = format!("`{}` line {}", self.path.display(), pattern.line);
                let failure = Failure::input(anyhow::Error::new(error).context(place));
                return Err(failure.hint("a `\\` before `[`, `*`, `?` or `!` takes it as it is"));
            }
        }
        Ok(())
    }
}
