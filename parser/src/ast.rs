//! What a Dockerfile is made of.
//!
//! Everything here is text as written (after line continuations are joined and comments dropped): quotes and variables
//! are still in it, except where a field says otherwise.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    heredoc,
    span::{Lines, Span},
};

/// A parsed Dockerfile: its directives and its instructions in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// The parser directives at the top.
    pub directives: Directives,
    /// The instructions, in the order of the text.
    pub instructions: Vec<Instruction>,
}

/// The parser directives (`# key=value` lines at the top).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The escape character: a backslash or a backtick.
    pub escape: char,
    /// `# syntax=`, as written.
    pub syntax: Option<Text>,
    /// `# check=`, as written.
    pub check: Option<Text>,
    /// `# kiln=strict-heredoc`: scripts given to RUN as a heredoc end at the first command that fails.
    pub strict_heredoc: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None, strict_heredoc: false }
    }
}

/// A piece of text and where it stands.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// The text.
    pub value: String,
    /// Its bytes in the file; of what it was read from where the two differ (continuations, JSON escapes).
    pub span: Span,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.value, self.span)
    }
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// All its bytes, with continuation lines and heredoc bodies.
    pub span: Span,
    /// All its physical lines, with heredoc bodies.
    pub lines: Lines,
    /// The first word as written, for example `From`.
    pub keyword: Text,
    /// The logical line as one string: continuations joined, comments and trailing blanks dropped, heredoc bodies not in it.
    /// BuildKit calls this `Original`.
    pub original: String,
    /// The comment lines above, back to the last instruction or empty comment, each with its line. Blank lines between do
    /// not part them from the instruction; directives are not among them.
    pub comments: Vec<Comment>,
    /// The line of each blank line found inside a continuation.
    pub empty_continuations: Vec<u32>,
    /// What it says.
    pub kind: Kind,
}

impl Instruction {
    /// Returns what the comments above say about `name`: the rest of the first one that starts with it and a blank.
    ///
    /// A stage is described under its name in lower case, an argument under its name as written.
    pub fn description(&self, name: &str) -> Option<&str> {
        if name.is_empty() {
            return None;
        }
        let text = |it: &Comment| -> bool {
            it.text.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))
        };
        self.comments.iter().find(|it| text(it)).map(|it| &it.text[name.len() + 1..])
    }
}

/// A comment line above an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// The text after `#`, trimmed. BuildKit drops the first character of the line whatever it is, so an indented comment
    /// keeps its `#`.
    pub text: String,
    /// Its line, counted from 1.
    pub line: u32,
}

/// What an instruction says, by its keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the instructions of the Dockerfile reference")]
pub enum Kind {
    From(From),
    Arg(Arg),
    Env(Pairs),
    Label(Pairs),
    Run(Run),
    Copy(Copy),
    Add(Add),
    Workdir(Text),
    User(Text),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<Text>),
    Expose(Vec<Text>),
    Volume(Vec<Text>),
    Stopsignal(Text),
    Healthcheck(Healthcheck),
    Onbuild(Onbuild),
    Maintainer(Text),
    /// Not understood; an error says why. Plans are never made of trees that hold one.
    Invalid,
}

/// `FROM [--platform=P] BASE [AS NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct From {
    /// The image or stage.
    pub base: Text,
    /// `--platform`.
    pub platform: Option<Text>,
    /// The word `AS` as written.
    pub as_keyword: Option<Text>,
    /// The stage's name as written.
    pub name: Option<Text>,
}

/// `ARG NAME[=DEFAULT] …`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arg {
    /// The variables, left to right.
    pub args: Vec<ArgPair>,
}

/// One variable of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArgPair {
    /// Its name.
    pub key: Text,
    /// Its default, unexpanded, quotes still there.
    pub value: Option<Text>,
}

/// The pairs of `ENV` and `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Key and value, unexpanded, quotes still there.
    pub pairs: Vec<(Text, Text)>,
    /// Written `KEY VALUE`, without `=`.
    pub legacy: bool,
}

/// A command in shell form or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(Text),
    /// A JSON array, decoded.
    Exec(Vec<Text>),
}

impl Default for Command {
    fn default() -> Self {
        Self::Exec(Vec::new())
    }
}

/// `RUN [--mount=…] [--network=…] [--security=…] [--device=…] COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The values of `--mount`, each split into its fields.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<Text>,
    /// `--security`.
    pub security: Option<Text>,
    /// The values of `--device`.
    pub devices: Vec<Text>,
    /// The command. With heredocs the text is the line as written.
    pub command: Command,
    /// The heredocs of the line, in order.
    pub heredocs: Vec<Heredoc>,
}

impl Run {
    /// Returns the heredoc that is all of the command, `RUN <<EOF`: its body is the script, and not what the shell reads.
    pub fn script(&self) -> Option<&Heredoc> {
        match (&self.command, self.heredocs.as_slice()) {
            (Command::Shell(text), [only]) => {
                heredoc::opening(text.value.trim()).is_some().then_some(only)
            }
            _ => None,
        }
    }
}

/// One `--mount`, as fields: what can be checked without variables was checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// The whole value as written, quotes resolved.
    pub text: Text,
    /// Keys (lowercase) and values, in order; `None` for a bare key. [`resolve`](crate::mount::resolve) reads them once
    /// the variables in the values are expanded.
    pub fields: Vec<(String, Option<String>)>,
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The body with its final newline, leading tabs already removed for `<<-`.
    pub content: String,
    /// The body as written: [`content`](Self::content) with the tabs that `<<-` removes.
    pub raw: String,
    /// The delimiter was not quoted, so that COPY and ADD expand the body.
    pub expand: bool,
    /// Written `<<-`.
    pub chomp: bool,
    /// The file descriptor before `<<`, 0 where none is written.
    pub fd: u32,
    /// The body and its terminator.
    pub span: Span,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern or URL.
    Path(Text),
    /// A heredoc: the file is named after its delimiter.
    Heredoc(Heredoc, Span),
}

/// `COPY [flags] SOURCE… DEST`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// `--from`.
    pub from: Option<Text>,
    /// `--chown`.
    pub chown: Option<Text>,
    /// `--chmod`.
    pub chmod: Option<Text>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// The values of `--exclude`.
    pub excludes: Vec<Text>,
    /// The sources, as written.
    pub sources: Vec<CopySource>,
    /// The destination.
    pub dest: Text,
}

/// `ADD [flags] SOURCE… DEST`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What it shares with COPY (`from` and `parents` are never set).
    pub copy: Copy,
    /// `--checksum`.
    pub checksum: Option<Text>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [options] CMD …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`.
    None,
    /// A probe.
    Cmd {
        /// The command.
        command: Command,
        /// `--interval` in nanoseconds, 0 where not given.
        interval: i64,
        /// `--timeout` in nanoseconds, 0 where not given.
        timeout: i64,
        /// `--start-period` in nanoseconds, 0 where not given.
        start_period: i64,
        /// `--start-interval` in nanoseconds, 0 where not given.
        start_interval: i64,
        /// `--retries`, 0 where not given.
        retries: u32,
    },
}

/// `ONBUILD INSTRUCTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// What the image config keeps: the text of the trigger with its heredoc bodies.
    pub expression: String,
}
