//! From a split line to what the instruction says, with the rules of each instruction.

use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec::Vec};

use crate::{
    ast::{
        Add, Arg, ArgPair, Command, Copy, CopySource, From, Heredoc, Kind, Onbuild, Pairs, Text,
    },
    error::Mistake,
    flags::{Flags, Known, Takes},
    health, heredoc,
    line::Line,
    node::{Args, Name, Node},
    report::Report,
    run,
    span::Span,
    suggest,
};

/// What an instruction is read from besides its node.
pub(crate) struct Source<'a> {
    /// The logical line.
    pub(crate) line: &'a Line,
    /// The heredocs it opens, in order.
    pub(crate) heredocs: Vec<Heredoc>,
}

/// Reads an instruction. Mistakes are reported; what remains of the instruction is still useful for finding more.
pub(crate) fn read(node: Node, source: Source<'_>, report: &mut Report) -> Kind {
    let Some(name) = node.name else {
        unknown(&node.keyword, report);
        return Kind::Invalid;
    };
    if matches!(node.args, Args::Broken) {
        return Kind::Invalid;
    }
    let reading = Reading { keyword: node.keyword.clone(), report };
    match name {
        Name::From => reading.from(node),
        Name::Arg => reading.arg(node),
        Name::Env => reading.pairs(node).map_or(Kind::Invalid, Kind::Env),
        Name::Label => reading.pairs(node).map_or(Kind::Invalid, Kind::Label),
        Name::Run => run::read(node, source.heredocs, reading.report),
        Name::Copy => reading.copy(node, source),
        Name::Add => reading.add(node, source),
        Name::Workdir => reading.single(node, true, Kind::Workdir),
        Name::User => reading.single(node, true, Kind::User),
        Name::Maintainer => reading.single(node, true, Kind::Maintainer),
        Name::Stopsignal => reading.single(node, false, Kind::Stopsignal),
        Name::Cmd => Kind::Cmd(reading.command(node)),
        Name::Entrypoint => Kind::Entrypoint(reading.command(node)),
        Name::Shell => reading.shell(node),
        Name::Expose => reading.list(node, Kind::Expose),
        Name::Volume => reading.volume(node),
        Name::Healthcheck => health::read(node, reading.report),
        Name::Onbuild => reading.onbuild(node, source),
    }
}

fn unknown(keyword: &Text, report: &mut Report) {
    if keyword.value.is_empty() {
        report.add(Mistake::EmptyInstruction, keyword.span);
        return;
    }
    // Two letters that changed places are the likelier mistake: `RNU` is `RUN`, and not `ENV`.
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.to_uppercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    let written = letters(&keyword.value);
    let mut names = Name::ALL.map(|it| it.0);
    names.sort_by_key(|it| letters(it) != written);
    let hint = suggest::suggest(&keyword.value, names.into_iter(), false)
        .map(|it| format!("did you mean `{}`?", suggest::like(&keyword.value, it)));
    report.hinted(
        Mistake::UnknownInstruction { keyword: keyword.value.clone() },
        keyword.span,
        hint,
    );
}

/// Makes the command of a node: its JSON array, or its text for the shell.
pub(crate) fn command(node: Node) -> Command {
    let json = node.json;
    // Without arguments the command is an empty text behind the keyword.
    let nothing = Span::new(node.keyword.span.end(), node.keyword.span.end());
    let words = node.into_words();
    if json {
        return Command::Exec(words);
    }
    let text = words.into_iter().next();
    Command::Shell(text.unwrap_or(Text { value: String::new(), span: nothing }))
}

const NONE: Known = &[];

const FROM: Known = &[("platform", Takes::One)];

const COPY: Known = &[
    ("chown", Takes::One),
    ("from", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Switch),
    ("parents", Takes::Switch),
    ("exclude", Takes::Many),
];

const ADD: Known = &[
    ("chown", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Switch),
    ("keep-git-dir", Takes::Switch),
    ("checksum", Takes::One),
    ("unpack", Takes::Switch),
    ("exclude", Takes::Many),
];

struct Reading<'a> {
    keyword: Text,
    report: &'a mut Report,
}

impl Reading<'_> {
    fn name(&self) -> String {
        self.keyword.value.clone()
    }

    fn flags(&mut self, node: &mut Node, known: Known) -> Flags {
        Flags::check(core::mem::take(&mut node.flags), known, &self.keyword.value, self.report)
    }

    fn add_here(&mut self, kind: Mistake) {
        self.report.add(kind, self.keyword.span);
    }

    fn from(mut self, mut node: Node) -> Kind {
        let flags = self.flags(&mut node, FROM);
        let words = node.into_words();
        let arguments =
            words.iter().map(|it| it.span).reduce(Span::to).unwrap_or(self.keyword.span);
        let found = words.len();
        let mut words = words.into_iter();
        let (Some(base), as_keyword, name, None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            self.report.add(Mistake::FromArguments { found }, arguments);
            return Kind::Invalid;
        };
        match (&as_keyword, &name) {
            (None, _) => {}
            (Some(_), None) => {
                self.report.add(Mistake::FromArguments { found }, arguments);
                return Kind::Invalid;
            }
            (Some(word), Some(_)) if !word.value.eq_ignore_ascii_case("as") => {
                self.report.add(Mistake::ExpectedAs { word: word.value.clone() }, word.span);
                return Kind::Invalid;
            }
            (Some(_), Some(name)) if !is_stage_name(&name.value) => {
                let kind = Mistake::InvalidStageName { name: name.value.clone() };
                self.report.add(kind, name.span);
            }
            (Some(_), Some(_)) => {}
        }
        Kind::From(From { base, platform: flags.one("platform"), as_keyword, name })
    }

    fn arg(mut self, node: Node) -> Kind {
        // BuildKit does not look at the flags of ARG.
        let Args::Optional(pairs) = node.args else {
            return Kind::Invalid;
        };
        if pairs.is_empty() {
            self.add_here(Mistake::MissingArgument { keyword: self.name() });
            return Kind::Invalid;
        }
        let mut args = Vec::new();
        for (key, value) in pairs {
            if let (true, Some(value)) = (key.value.is_empty(), &value) {
                self.report
                    .add(Mistake::BlankName { keyword: self.name() }, key.span.to(value.span));
                continue;
            }
            args.push(ArgPair { key, value });
        }
        Kind::Arg(Arg { args })
    }

    fn pairs(mut self, mut node: Node) -> Option<Pairs> {
        self.flags(&mut node, NONE);
        let Args::Pairs { pairs, legacy } = node.args else {
            return None;
        };
        if pairs.is_empty() {
            self.add_here(Mistake::MissingArgument { keyword: self.name() });
        }
        for (key, value) in &pairs {
            if key.value.is_empty() {
                self.report
                    .add(Mistake::BlankName { keyword: self.name() }, key.span.to(value.span));
            }
        }
        Some(Pairs { pairs, legacy })
    }

    /// An instruction whose text is one argument.
    fn single(mut self, mut node: Node, checks_flags: bool, make: fn(Text) -> Kind) -> Kind {
        if checks_flags {
            self.flags(&mut node, NONE);
        }
        match node.into_words().into_iter().next() {
            Some(text) => make(text),
            None => {
                self.add_here(Mistake::ArgumentCount { keyword: self.name(), found: 0 });
                Kind::Invalid
            }
        }
    }

    fn command(mut self, mut node: Node) -> Command {
        self.flags(&mut node, NONE);
        command(node)
    }

    fn shell(mut self, mut node: Node) -> Kind {
        self.flags(&mut node, NONE);
        let json = node.json;
        let words = node.into_words();
        let Some(span) = words.iter().map(|it| it.span).reduce(Span::to) else {
            self.add_here(Mistake::MissingArgument { keyword: self.name() });
            return Kind::Invalid;
        };
        if !json {
            let hint = r#"write it as `SHELL ["/bin/sh", "-c"]`"#.to_owned();
            self.report.hinted(Mistake::ShellNotJson { keyword: self.name() }, span, Some(hint));
            return Kind::Invalid;
        }
        Kind::Shell(words)
    }

    fn list(mut self, mut node: Node, make: fn(Vec<Text>) -> Kind) -> Kind {
        self.flags(&mut node, NONE);
        let words = node.into_words();
        if words.is_empty() {
            self.add_here(Mistake::MissingArgument { keyword: self.name() });
            return Kind::Invalid;
        }
        make(words)
    }

    fn volume(self, node: Node) -> Kind {
        let report = &mut *self.report;
        let kind = Reading { keyword: self.keyword, report }.list(node, Kind::Volume);
        let Kind::Volume(mut volumes) = kind else {
            return kind;
        };
        for volume in &mut volumes {
            volume.value = volume.value.trim().to_owned();
            if volume.value.is_empty() {
                self.report.add(Mistake::EmptyVolume, volume.span);
            }
        }
        Kind::Volume(volumes)
    }

    fn copy(mut self, mut node: Node, source: Source<'_>) -> Kind {
        let flags = self.flags(&mut node, COPY);
        let Some((sources, dest)) = self.paths(node, source.heredocs) else {
            return Kind::Invalid;
        };
        Kind::Copy(copy(&flags, sources, dest))
    }

    fn add(mut self, mut node: Node, source: Source<'_>) -> Kind {
        let flags = self.flags(&mut node, ADD);
        let Some((sources, dest)) = self.paths(node, source.heredocs) else {
            return Kind::Invalid;
        };
        Kind::Add(Add {
            copy: copy(&flags, sources, dest),
            checksum: flags.one("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }

    fn paths(&mut self, node: Node, heredocs: Vec<Heredoc>) -> Option<(Vec<CopySource>, Text)> {
        let mut words = node.into_words();
        let found = words.len();
        let dest = match words.pop() {
            Some(dest) if !words.is_empty() => dest,
            only => {
                let span = only.map_or(self.keyword.span, |it| it.span);
                self.report.add(Mistake::MissingDestination { keyword: self.name(), found }, span);
                return None;
            }
        };
        if heredoc::opening(&dest.value).is_some() {
            self.report.add(Mistake::HeredocDestination { keyword: self.name() }, dest.span);
            return None;
        }
        // Of several heredocs of one name the last counts, as in BuildKit.
        let bodies: BTreeMap<&str, &Heredoc> =
            heredocs.iter().map(|it| (it.name.as_str(), it)).collect();
        let sources = words.into_iter().map(|word| copy_source(word, &bodies)).collect();
        Some((sources, dest))
    }

    fn onbuild(mut self, mut node: Node, source: Source<'_>) -> Kind {
        self.flags(&mut node, NONE);
        let Args::Trigger(trigger) = node.args else {
            self.add_here(Mistake::MissingArgument { keyword: self.name() });
            return Kind::Invalid;
        };
        if matches!(trigger.args, Args::Broken) {
            return Kind::Invalid;
        }
        if !may_be_trigger(trigger.name) {
            let kind = Mistake::InvalidTrigger { keyword: trigger.keyword.value };
            self.report.add(kind, trigger.keyword.span);
            return Kind::Invalid;
        }
        let line = &source.line.text;
        let start = line.len() - line.trim_start().len() + self.keyword.value.len();
        let mut expression = line[start..].trim_start().to_owned();
        for heredoc in &source.heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.raw);
            expression.push_str(&heredoc.name);
        }
        Kind::Onbuild(Onbuild { expression })
    }
}

/// `FROM`, `ONBUILD` and `MAINTAINER` may not be triggers. Unknown ones may, until they fire.
pub(crate) fn may_be_trigger(name: Option<Name>) -> bool {
    !matches!(name, Some(Name::From | Name::Onbuild | Name::Maintainer))
}

fn copy(flags: &Flags, sources: Vec<CopySource>, dest: Text) -> Copy {
    Copy {
        from: flags.one("from"),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        excludes: flags.many("exclude"),
        sources,
        dest,
    }
}

/// A word in a JSON array may look like a heredoc. It has no body, and BuildKit makes an empty file of it.
fn copy_source(word: Text, bodies: &BTreeMap<&str, &Heredoc>) -> CopySource {
    let Some(opening) = heredoc::opening(&word.value) else {
        return CopySource::Path(word);
    };
    let body = bodies.get(opening.name.as_str());
    let raw = body.map(|it| it.raw.clone()).unwrap_or_default();
    let content = if opening.chomp { heredoc::chomp(&raw) } else { raw.clone() };
    let heredoc = Heredoc {
        name: opening.name,
        content,
        raw,
        expand: opening.expand,
        chomp: opening.chomp,
        fd: opening.fd,
        span: body.map_or(word.span, |it| it.span),
    };
    CopySource::Heredoc(heredoc, word.span)
}

fn is_stage_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name.starts_with(|it: char| it.is_ascii_lowercase())
        && name.chars().all(|it| {
            it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '-' | '_' | '.')
        })
}
