//! COPY and ADD: which files of which trees go where.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

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

        let name = format!("{}{}", state.next_prefix(), self.step_text(state, instruction));
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
        if let Some(add) = add {
            check_checksum(copy, add, checksum.as_deref(), instruction.span)?;
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

fn url_file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    match path.rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => percent_decoded(name),
        _ => "__unnamed__".to_owned(),
    }
}

fn percent_decoded(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|it| core::str::from_utf8(it).ok());
        match (bytes[at], hex.and_then(|it| u8::from_str_radix(it, 16).ok())) {
            (b'%', Some(byte)) if byte != 0 && byte != b'/' => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| name.to_owned())
}

fn check_checksum(
    copy: &ast::Copy,
    add: &ast::Add,
    checksum: Option<&str>,
    span: Span,
) -> Result<(), PlanError> {
    let Some(checksum) = checksum else { return Ok(()) };
    let span = add.checksum.as_ref().map_or(span, |it| it.span);
    let error = || PlanError::new(PlanErrorKind::ChecksumSource { instruction: "ADD" }, span);
    let [CopySource::Path(path)] = copy.sources.as_slice() else { return Err(error()) };
    // What the source is after expansion is checked where it is used; variables are let through here.
    if path.value.contains('$') || GitRef::parse(&path.value).is_ok_and(|it| it.is_some()) {
        return Ok(());
    }
    if !is_http(&path.value) {
        return Err(error());
    }
    let invalid = |message: String| {
        PlanError::new(PlanErrorKind::InvalidChecksum { text: checksum.to_owned(), message }, span)
    };
    match checksum.parse::<image::Digest>() {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(error.to_string())),
    }
}
