//! From text to tree: reads each statement as its instruction.

use alloc::{borrow::ToOwned, vec::Vec};

use crate::{
    ast::{Directives, Dockerfile, Instruction, Kind, Text},
    error::{Diagnostic, Mistake},
    instruction::{self, Source},
    node::Name,
    span::{Lines, Span},
    statement::{Statement, Statements},
    syntax,
};

/// Parses a Dockerfile.
///
/// The tree holds whatever could be understood; plans may be made of it only if there are no diagnostics. They come in
/// the order of the text.
///
/// # Source
///
/// BuildKit, `frontend/dockerfile/parser` and `frontend/dockerfile/instructions`.
///
/// # Examples
///
/// ```
/// let (dockerfile, diagnostics) = parser::parse("FORM scratch\nFROM scratch AS Out\nRUN\n");
/// assert_eq!(dockerfile.instructions.len(), 3);
/// assert_eq!(diagnostics[0].to_string(), "unknown instruction `FORM`");
/// assert_eq!(diagnostics[0].hint.as_deref(), Some("did you mean `FROM`?"));
/// assert_eq!(diagnostics.len(), 1);
/// ```
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut statements = Statements::new(text, '\\');
    let mut instructions = Vec::new();
    let mut has_stage = false;
    while let Some(statement) = statements.next() {
        let (name, lines) = (statement.node.name, statement.lines);
        let instruction = read(statement, &mut statements);
        has_stage |= name == Some(Name::From);
        let needs_stage =
            name.is_some_and(|it| it != Name::Arg) && instruction.kind != Kind::Invalid;
        if needs_stage && !has_stage {
            let kind = Mistake::NoStage { keyword: instruction.keyword.value.clone() };
            let hint = "only `ARG` may stand there".to_owned();
            statements.report.hinted(kind, instruction.keyword.span, Some(hint));
            statements.report.place(lines);
            has_stage = true; // Once is enough.
        }
        instructions.push(instruction);
    }
    check_not_empty(&instructions, text, &mut statements);
    let value = |name| {
        syntax::directive(text, name).map(|it| Text { value: it.command_line, span: it.span })
    };
    let directives = Directives {
        escape: statements.escape,
        syntax: value("syntax"),
        check: value("check"),
        strict_heredoc: statements.strict_heredoc,
    };
    (Dockerfile { directives, instructions }, statements.report.finish())
}

/// Parses an `ONBUILD` trigger that an image config holds, with its heredocs.
///
/// Spans and lines are those of `text`. There is one instruction if there are no diagnostics.
pub fn parse_trigger(text: &str, escape: char) -> (Vec<Instruction>, Vec<Diagnostic>) {
    let mut statements = Statements::new(text, escape);
    let mut instructions = Vec::new();
    while let Some(statement) = statements.next() {
        let (name, lines) = (statement.node.name, statement.lines);
        let instruction = read(statement, &mut statements);
        if !instruction::may_be_trigger(name) {
            let kind = Mistake::InvalidTrigger { keyword: instruction.keyword.value.clone() };
            statements.report.add(kind, instruction.keyword.span);
            statements.report.place(lines);
        }
        instructions.push(instruction);
    }
    check_not_empty(&instructions, text, &mut statements);
    let found = instructions.len();
    if found > 1 {
        statements.report.add(Mistake::TriggerCount { found }, Span::new(0, text.len()));
        statements.report.place(Lines { first: 1, last: statements.line_number() });
    }
    (instructions, statements.report.finish())
}

fn check_not_empty(instructions: &[Instruction], text: &str, statements: &mut Statements<'_>) {
    if instructions.is_empty() {
        statements.report.add(Mistake::NoInstructions, Span::new(0, text.len()));
        statements.report.place(Lines { first: 1, last: statements.line_number().max(1) });
    }
}

fn read(statement: Statement, statements: &mut Statements<'_>) -> Instruction {
    let Statement { line, node, heredocs, span, lines, comments, empty_continuations } = statement;
    let keyword = node.keyword.clone();
    let original = line.text.trim().to_owned();
    let kind = instruction::read(node, Source { line: &line, heredocs }, &mut statements.report);
    statements.report.place(lines);
    Instruction { span, lines, keyword, original, comments, empty_continuations, kind }
}
