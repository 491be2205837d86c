//! COPY and ADD: which files of which trees go where.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use image::percent;
use parser::{
    ast::{self, CopySource, Instruction, Text},
    span::Span,
};

use super::{Builder, stage::StageState};
use crate::{
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    git_url::GitRef,
    mode::Mode,
    path,
    plan::{CopyItem, CopyOp, HttpSource, Op, ParentsPattern, Source},
    wildcard,
};

impl Builder<'_> {
    /// Plans COPY, or ADD when its own flags are given.
    pub(super) fn copy(
        &mut self,
        state: &mut StageState,
        copy: &ast::Copy,
        add: Option<&ast::Add>,
        instruction: &Instruction,
    ) -> Result<(), PlanError> {
        let expand_option =
            |text: &Option<Text>| text.as_ref().map(|it| self.expand(state, it)).transpose();
        let chown = expand_option(&copy.chown)?.filter(|it| !it.is_empty());
        let chmod_text = expand_option(&copy.chmod)?.filter(|it| !it.is_empty());
        let checksum =
            expand_option(&add.and_then(|it| it.checksum.clone()))?.filter(|it| !it.is_empty());
        let chmod_span = copy.chmod.as_ref().map_or(instruction.span, |it| it.span);
        let chmod = chmod_text
            .as_deref()
            .map(|text| {
                Mode::parse(text)
                    .map_err(|error| PlanError::new(PlanErrorKind::Mode(error), chmod_span))
            })
            .transpose()?;
        let excludes =
            copy.excludes.iter().map(|it| self.expand(state, it)).collect::<Result<Vec<_>, _>>()?;

        let name = self.step_name(state, instruction);
        let mut line = String::from(if add.is_some() { "ADD" } else { "COPY" });
        if copy.parents {
            line.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod_text)] {
            if let Some(value) = value {
                line.push_str(&format!(" --{flag}={value}"));
            }
        }

        let source = match &copy.from {
            Some(from) => self.source_named(from, state)?,
            None => Source::Local("context".to_owned()),
        };
        let is_single = matches!(copy.sources.as_slice(), [CopySource::Path(_)]);
        if checksum.is_some() && !is_single {
            return Err(no_checksum(add, instruction));
        }
        let mut items = Vec::new();
        let mut inline = Vec::new();
        for written in &copy.sources {
            match written {
                CopySource::Path(text) => {
                    let path = self.expand(state, text)?;
                    line.push_str(&format!(" {path}"));
                    items.push(self.item(
                        copy,
                        add,
                        &source,
                        &path,
                        text,
                        checksum.as_deref(),
                        instruction,
                    )?);
                }
                CopySource::Heredoc(heredoc, span) => {
                    let data = if heredoc.expand {
                        let lexer = Lexer { raw_quotes: true, ..Lexer::new(self.graph.escape) };
                        self.expand_with(&lexer, state, &heredoc.content, *span).map_err(
                            |error| {
                                let is_wrong = |line: &str| lexer.word(line, &state.env).is_err();
                                PlanError { span: wrong_line(heredoc, is_wrong), ..error }
                            },
                        )?
                    } else {
                        heredoc.content.clone()
                    };
                    let name = heredoc.name.clone();
                    inline.push((name, data));
                }
            }
        }
        for (name, data) in inline {
            line.push_str(&format!(" <<{name}"));
            items.push(CopyItem::Inline { name, data });
        }
        let dest = self.expand(state, &copy.dest)?;
        line.push_str(&format!(" {dest} # buildkit"));
        // A layer of its own cannot depend on the modes below it: BuildKit drops --link then, and so do we.
        let link = copy.link && chmod.is_none();
        let folder = state
            .config
            .config
            .working_dir
            .replace(if state.platform.os == "windows" { '\\' } else { '/' }, "/");
        let dest = destination(&folder, &dest);
        let op = Op::Copy(CopyOp { items, dest, chown, chmod, link, excludes });
        self.add_step(state, name, instruction, op, line);
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one source needs to know all of its instruction"
    )]
    fn item(
        &self,
        copy: &ast::Copy,
        add: Option<&ast::Add>,
        source: &Source,
        path: &str,
        text: &Text,
        checksum: Option<&str>,
        instruction: &Instruction,
    ) -> Result<CopyItem, PlanError> {
        let at = |kind| PlanError::new(kind, text.span);
        let remote = |what| at(PlanErrorKind::RemoteCopy { what, source_text: path.to_owned() });
        let whole = |source: Source, path: String| CopyItem::Paths {
            source,
            path,
            written: text.value.clone(),
            parents: None,
            unpack: false,
            span: text.span,
        };
        let parsed = GitRef::parse(path).map_err(|error| {
            at(PlanErrorKind::InvalidGitUrl { url: path.to_owned(), message: error.to_string() })
        })?;
        if let Some(url) = parsed
            && !url.like_local
        {
            let Some(add) = add else {
                return Err(remote("git ref").with_hint("use ADD, or a RUN with git"));
            };
            let git = super::git::source(url, add, checksum, path, text.span)?;
            return Ok(whole(Source::Git(git), "/".to_owned()));
        }
        if let Some(flag) = add.and_then(|add| add.keep_git_dir.map(|_| "--keep-git-dir")) {
            let is_http = is_http(path);
            if !is_http {
                return Err(PlanError::new(PlanErrorKind::GitOnly { flag }, instruction.span));
            }
        }
        if is_http(path) {
            let Some(add) = add else {
                return Err(remote("URL").with_hint("use ADD for URLs"));
            };
            if let Some(text) = checksum
                && let Err(error) = text.parse::<image::Digest>()
            {
                let (text, message) = (text.to_owned(), error.to_string());
                let kind = PlanErrorKind::InvalidChecksum { text, message };
                return Err(PlanError::new(kind, checksum_span(Some(add), instruction)));
            }
            let filename = url_file_name(path);
            let http = HttpSource {
                url: path.to_owned(),
                filename: filename.clone(),
                checksum: checksum.map(str::to_owned),
            };
            let mut item = whole(Source::Http(http), format!("/{filename}"));
            if let CopyItem::Paths { unpack, .. } = &mut item {
                *unpack = add.unpack.unwrap_or(false);
            }
            return Ok(item);
        }
        if checksum.is_some() {
            return Err(no_checksum(add, instruction));
        }
        let (folder, parents) = if copy.parents {
            let (folder, pattern) = path.split_once("/./").unwrap_or(("/", path));
            let pattern = clean(pattern).trim_start_matches('/').to_owned();
            let required = !wildcard::has_wildcards(&pattern);
            (folder.to_owned(), Some(ParentsPattern { pattern, required }))
        } else {
            (path.to_owned(), None)
        };
        Ok(CopyItem::Paths {
            source: source.clone(),
            path: clean(&folder),
            written: text.value.clone(),
            parents,
            unpack: add.is_some_and(|add| add.unpack.unwrap_or(true)),
            span: text.span,
        })
    }
}

/// The first line of a heredoc that is wrong on its own, or else all of them.
fn wrong_line(heredoc: &ast::Heredoc, is_wrong: impl Fn(&str) -> bool) -> Span {
    let mut start = heredoc.span.start();
    for line in heredoc.raw.split_inclusive('\n') {
        let text = line.trim_end();
        if is_wrong(text) {
            let n_tabs = text.len() - text.trim_start_matches('\t').len();
            return Span::new(start + n_tabs, start + text.len());
        }
        start += line.len();
    }
    heredoc.span
}

/// A path as one below `/`, with `.` and `..` taken out and without trailing slash.
fn clean(path: &str) -> String {
    path::clean(&format!("/{path}"))
}

/// The destination as an absolute path; it keeps a slash or `/.` at its end.
fn destination(workdir: &str, dest: &str) -> String {
    let is_folder = dest.is_empty() || dest.ends_with('/') || dest == "." || dest.ends_with("/.");
    let mut path = match dest.starts_with('/') {
        true => clean(dest),
        false => clean(&format!("{workdir}/{dest}")),
    };
    if is_folder && !path.ends_with('/') {
        path.push('/');
    }
    path
}

fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// The last name of the path that a URL has, decoded.
fn url_file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = percent::decode(path.as_bytes()).unwrap_or_default();
    match path.split(|it| *it == b'/').rfind(|it| !it.is_empty()) {
        None | Some(b"." | b"..") => "__unnamed__".to_owned(),
        Some(name) if name.contains(&0) => "__unnamed__".to_owned(),
        Some(name) => parser::decode(name),
    }
}

fn checksum_span(add: Option<&ast::Add>, instruction: &Instruction) -> Span {
    add.and_then(|it| it.checksum.as_ref()).map_or(instruction.span, |it| it.span)
}

/// A checksum is of one file from the network, or of one commit.
fn no_checksum(add: Option<&ast::Add>, instruction: &Instruction) -> PlanError {
    let kind = PlanErrorKind::ChecksumSource { instruction: "ADD" };
    PlanError::new(kind, checksum_span(add, instruction))
}
