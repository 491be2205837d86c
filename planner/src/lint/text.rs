//! What is found without knowing any variable: in the order in which the reference reads a file.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use parser::{
    Diagnostic,
    ast::{Dockerfile, From, Instruction, Kind},
    span::Lines,
};

use super::{
    findings::{Failure, Findings},
    rule::Rule,
    wording::{self, Phase},
};

/// Fails if the file cannot be split into instructions.
pub(super) fn file(diagnostics: &[Diagnostic]) -> Result<(), Failure> {
    match diagnostics.iter().find(|it| wording::phase(&it.kind) == Phase::File) {
        Some(diagnostic) => Err(failure(diagnostic)),
        None => Ok(()),
    }
}

fn failure(diagnostic: &Diagnostic) -> Failure {
    Failure { message: wording::message(diagnostic), lines: Some(diagnostic.lines) }
}

/// Looks at one instruction after the other, until one that cannot be read.
pub(super) fn instructions(
    dockerfile: &Dockerfile,
    diagnostics: &[Diagnostic],
    text: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for instruction in
        dockerfile.instructions.iter().filter(|it| !it.empty_continuations.is_empty())
    {
        let line = last_line_of_statement(instruction, text);
        let lines = Lines { first: line, last: line };
        findings.add(Rule::NoEmptyContinuation, &[], lines, "Empty continuation line".into());
    }
    for instruction in &dockerfile.instructions {
        let broken = diagnostics.iter().find(|it| {
            it.lines.first == instruction.lines.first
                && wording::phase(&it.kind) == Phase::Instruction
        });
        let comments = &instruction.comments;
        let mut add = |rule, detail| findings.add(rule, comments, instruction.lines, detail);
        match &instruction.kind {
            Kind::From(from) => {
                if let Some(name) = from.name.as_ref().map(|it| &it.value)
                    && name.to_lowercase() != *name
                {
                    add(Rule::StageNameCasing, format!("Stage name '{name}' should be lowercase"));
                }
                if let Some(detail) = from_casing(&instruction.keyword.value, from) {
                    add(Rule::FromAsCasing, detail);
                }
                let name = from.name.iter().map(|it| it.value.to_lowercase()).collect();
                if broken.is_none() {
                    definition("FROM", name, instruction, findings);
                }
            }
            Kind::Arg(arg) if broken.is_none() => {
                let names = arg.args.iter().map(|it| it.key.value.clone()).collect();
                definition("ARG", names, instruction, findings);
            }
            Kind::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                add(Rule::MaintainerDeprecated, detail.into());
            }
            _ => {}
        }
        if let Some(diagnostic) = broken {
            return Err(failure(diagnostic));
        }
    }
    Ok(())
}

/// Finds the last line before the bodies of heredocs.
fn last_line_of_statement(instruction: &Instruction, text: &str) -> u32 {
    let Lines { first, last } = instruction.lines;
    let heredocs = match &instruction.kind {
        Kind::Run(run) => run.heredocs.first().map(|it| it.span),
        _ => None,
    };
    let body = heredocs.and_then(|it| text.get(instruction.span.start()..it.start()));
    body.map_or(last, |body| {
        let n_lines = body.trim_end_matches('\n').matches('\n').count();
        first + u32::try_from(n_lines).unwrap_or_default()
    })
}

/// Compares the case of `FROM` and `AS`. A mixed `From` is a matter of another rule.
fn from_casing(keyword: &str, from: &From) -> Option<String> {
    let word = &from.as_keyword.as_ref()?.value;
    let wanted = if keyword.to_lowercase() == keyword {
        word.to_lowercase()
    } else if keyword.to_uppercase() == keyword {
        word.to_uppercase()
    } else {
        return None;
    };
    (*word != wanted).then(|| format!("'{word}' and '{keyword}' keywords' casing do not match"))
}

/// Looks whether the comment above a definition starts with a name that is defined.
fn definition(what: &str, names: Vec<String>, instruction: &Instruction, findings: &mut Findings) {
    let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else { return };
    let word = comment.text.split(' ').next().unwrap_or_default();
    if names.iter().any(|it| it == word) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let detail =
        format!("Comment for {what} should follow the format: `# {example} <description>`");
    let rule = Rule::InvalidDefinitionDescription;
    findings.add(rule, &instruction.comments, instruction.lines, detail);
}

/// Looks at the names of stages.
pub(super) fn stage_names(dockerfile: &Dockerfile, findings: &mut Findings) {
    let mut names = BTreeSet::new();
    for instruction in &dockerfile.instructions {
        let Kind::From(From { name: Some(name), .. }) = &instruction.kind else { continue };
        let name = name.value.to_lowercase();
        let mut add =
            |rule, detail| findings.add(rule, &instruction.comments, instruction.lines, detail);
        if matches!(name.as_str(), "context" | "scratch") {
            let detail =
                format!("Stage name should not use the same name as reserved stage {name:?}");
            add(Rule::ReservedStageName, detail);
        }
        if !names.insert(name.clone()) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            add(Rule::DuplicateStageName, detail);
        }
    }
}

/// Looks whether all instructions of stages are written in capitals, or all in small letters.
pub(super) fn casing(dockerfile: &Dockerfile, findings: &mut Findings) {
    let in_stages =
        || dockerfile.instructions.iter().skip_while(|it| !matches!(it.kind, Kind::From(_)));
    let is_lower = |it: &&Instruction| it.keyword.value.to_lowercase() == it.keyword.value;
    let is_upper = |it: &&Instruction| it.keyword.value.to_uppercase() == it.keyword.value;
    let most_lower = in_stages().filter(is_lower).count() > in_stages().filter(is_upper).count();
    for instruction in in_stages() {
        let keyword = &instruction.keyword.value;
        let (wanted, case) = if most_lower {
            (keyword.to_lowercase(), "lowercase")
        } else {
            (keyword.to_uppercase(), "uppercase")
        };
        if *keyword != wanted {
            let detail = format!(
                "Command '{keyword}' should match the case of the command majority ({case})"
            );
            let rule = Rule::ConsistentInstructionCasing;
            findings.add(rule, &instruction.comments, instruction.lines, detail);
        }
    }
}

/// Reports whether a name is likely that of a secret.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}

/// Adds a finding for a name of an ARG or ENV that is likely that of a secret.
pub(super) fn secret(what: &str, name: &str, instruction: &Instruction, findings: &mut Findings) {
    if is_secret(name) {
        let detail = format!(
            "Do not use ARG or ENV instructions for sensitive data ({what} {:?})",
            name.to_string()
        );
        let rule = Rule::SecretsUsedInArgOrEnv;
        findings.add(rule, &instruction.comments, instruction.lines, detail);
    }
}
