//! Which rules run: `# check=skip=A,B;error=true;experimental=C`, at the top of the file, above one instruction, or as
//! the build argument `BUILDKIT_DOCKERFILE_CHECK`.

use alloc::{
    borrow::ToOwned,
    collections::BTreeSet,
    string::{String, ToString},
};

use parser::ast::{Comment, Dockerfile};

use super::rule::Rule;
use crate::request::Request;

/// What `check=` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Names after `skip=`.
    pub skip: BTreeSet<String>,
    /// `skip=all`.
    pub skip_all: bool,
    /// Names after `experimental=`.
    pub experimental: BTreeSet<String>,
    /// `experimental=all`.
    pub experimental_all: bool,
    /// `error=true`: findings make the build fail.
    pub error: bool,
}

/// An option of `check=` that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckOptionsError {
    /// It is no option.
    #[error("invalid check option {option:?}")]
    Unknown {
        /// The option.
        option: String,
    },
    /// `error=` with something that is neither true nor false.
    #[error("failed to parse check option {option:?}: invalid syntax")]
    NotBoolean {
        /// The option.
        option: String,
    },
}

impl CheckOptions {
    /// Reads the value of `check=`.
    ///
    /// # Errors
    ///
    /// A part of it is not `skip=`, `error=` or `experimental=`.
    ///
    /// # Examples
    ///
    /// ```
    /// use planner::lint::{CheckOptions, Rule};
    ///
    /// let options = CheckOptions::parse("skip=JSONArgsRecommended,StageNameCasing;error=true")?;
    /// assert!(options.error && !options.runs(Rule::StageNameCasing));
    /// # Ok::<(), planner::lint::CheckOptionsError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let mut options = Self::default();
        // What follows `//` is a remark.
        let text = text.split("//").next().unwrap_or_default().trim();
        for part in text.split(';').map(str::trim).filter(|it| !it.is_empty()) {
            let unknown = |option: &str| CheckOptionsError::Unknown { option: option.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(|| unknown(part))?;
            let value = value.trim();
            let names = || value.split(',').map(|it| it.trim().to_string()).collect();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => {
                    options.error = match value {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        _ => {
                            return Err(CheckOptionsError::NotBoolean { option: part.to_owned() });
                        }
                    }
                }
                key => return Err(unknown(key)),
            }
        }
        Ok(options)
    }

    /// Returns the options of a file: those of the build argument `BUILDKIT_DOCKERFILE_CHECK`, else those of the file.
    ///
    /// # Errors
    ///
    /// They cannot be understood.
    pub fn of(dockerfile: &Dockerfile, request: &Request) -> Result<Self, CheckOptionsError> {
        let directive = dockerfile.directives.check.as_ref().map(|it| it.value.as_str());
        let given = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
        Self::parse(given.or(directive).unwrap_or_default())
    }

    /// Reports whether a rule runs.
    pub fn runs(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental_all || self.experimental.contains(rule.name())
        } else {
            !self.skip_all && !self.skip.contains(rule.name())
        }
    }

    /// Reports whether a comment above an instruction turns a rule off for it.
    pub(super) fn is_skipped(comments: &[Comment], rule: Rule) -> bool {
        comments.iter().any(|comment| {
            let value = comment.text.split_once('=').filter(|(key, _)| key.trim() == "check");
            let options = value.and_then(|(_, value)| Self::parse(value).ok());
            options.is_some_and(|it| it.skip_all || it.skip.contains(rule.name()))
        })
    }
}
