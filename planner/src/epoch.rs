//! `SOURCE_DATE_EPOCH` that is no number but says where to take it from: the main context, a named one, or a stage.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
};

use parser::{
    ast::{Dockerfile, From, Kind},
    span::Span,
};

use crate::{
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    facts::Facts,
    plan::{CopyItem, Op, Source},
    request::Request,
    stages::{Base, default_args, last_stage_name, named_context, needs, stages},
};

/// The variable.
pub const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Returns whose time `SOURCE_DATE_EPOCH` is to be; nothing if it is unset or a number.
///
/// Whoever looks that time up puts it into the request as the build argument of this name, or an empty text if there is
/// no such time, before it asks for the [`stages`].
///
/// # Errors
///
/// The stage that is named is more than one remote file or repository.
pub fn epoch_source(
    dockerfile: &Dockerfile,
    request: &Request,
) -> Result<Option<Source>, PlanError> {
    let Some(value) = value(dockerfile, request) else { return Ok(None) };
    if value == "context" {
        return Ok(Some(Source::Local("context".to_owned())));
    }
    let instructions = &dockerfile.instructions;
    let is_named =
        |from: &From| from.name.as_ref().is_some_and(|it| it.value.eq_ignore_ascii_case(&value));
    let stage =
        instructions.iter().position(|it| matches!(&it.kind, Kind::From(from) if is_named(from)));
    let Some(stage) = stage else {
        // What is wrong with a value that names nothing is said by `stages`.
        return match named_context(&value, None, request) {
            Ok(Some(Base::Files(source))) => Ok(Some(source)),
            _ => Ok(None),
        };
    };
    let span = instructions[stage].span;
    let body = instructions[stage + 1..].iter().take_while(|it| !matches!(it.kind, Kind::From(_)));
    for instruction in body {
        if !matches!(instruction.kind, Kind::Add(_) | Kind::Arg(_)) {
            let keyword = instruction.keyword.value.to_uppercase();
            return Err(wrong(format!("unsupported {keyword} instruction"), span));
        }
    }
    let mut request = Request { target: Some(value), ..request.clone() };
    request.build_args.insert(VARIABLE.to_owned(), String::new());
    of_stage(dockerfile, &request, span).map(Some)
}

/// Returns the one remote source of the target stage.
fn of_stage(dockerfile: &Dockerfile, request: &Request, span: Span) -> Result<Source, PlanError> {
    let first = |mut errors: alloc::vec::Vec<PlanError>| match errors.is_empty() {
        true => wrong("it cannot be planned".to_owned(), span),
        false => errors.swap_remove(0),
    };
    let graph = stages(dockerfile, request).map_err(first)?;
    let facts = Facts::default();
    if !needs(&graph, &facts).map_err(first)?.is_empty() {
        return Err(wrong("it does not start from scratch".to_owned(), span));
    }
    let plan = crate::dispatch::plan(&graph, &facts).map_err(first)?;
    if let [step] = plan.steps.as_slice()
        && let Op::Copy(copy) = &step.op
        && let [CopyItem::Paths { source: source @ (Source::Git(_) | Source::Http(_)), .. }] =
            copy.items.as_slice()
    {
        return Ok(source.clone());
    }
    Err(wrong("it must add one remote file or repository".to_owned(), span))
}

/// The value of the variable, where it is no number.
fn value(dockerfile: &Dockerfile, request: &Request) -> Option<String> {
    let is_name = |it: &String| !it.is_empty() && it.parse::<i64>().is_err();
    if let Some(given) = request.build_args.get(VARIABLE) {
        return Some(given.clone()).filter(is_name);
    }
    let lexer = Lexer::new(dockerfile.directives.escape);
    let mut args = default_args(request, last_stage_name(dockerfile));
    let mut value = None;
    for instruction in &dockerfile.instructions {
        let arg = match &instruction.kind {
            Kind::Arg(arg) => arg,
            Kind::From(_) => break,
            _ => continue,
        };
        for pair in &arg.args {
            let given = request.build_args.get(&pair.key.value).cloned();
            let written = pair.value.as_ref().and_then(|it| lexer.word(&it.value, &args).ok());
            let Some(text) = given.or_else(|| written.map(|it| it.text.to_string())) else {
                continue;
            };
            if pair.key.value == VARIABLE {
                value = Some(text.clone());
            }
            args.set(&pair.key.value, &text);
        }
    }
    value.filter(is_name)
}

fn wrong(problem: String, span: Span) -> PlanError {
    PlanError::new(PlanErrorKind::EpochStage { problem }, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HttpSource;

    fn source(text: &str, given: Option<&str>) -> Result<Option<Source>, String> {
        let (dockerfile, errors) = parser::parse(text);
        assert!(errors.is_empty(), "{errors:?}");
        let mut request = Request::default();
        request.named_contexts.insert("there".to_owned(), "/folder".to_owned());
        if let Some(given) = given {
            request.build_args.insert(VARIABLE.to_owned(), given.to_owned());
        }
        epoch_source(&dockerfile, &request).map_err(|it| it.to_string())
    }

    #[test]
    fn numbers_and_nothing_need_no_source() {
        for given in [None, Some(""), Some("0"), Some("1700000000"), Some("-5"), Some("nonsense")] {
            assert_eq!(source("FROM scratch\n", given), Ok(None), "{given:?}");
        }
    }

    #[test]
    fn contexts_and_stages_are_sources() {
        let local = |name: &str| Ok(Some(Source::Local(name.to_owned())));
        assert_eq!(source("FROM scratch\n", Some("context")), local("context"));
        assert_eq!(source("FROM scratch\n", Some("there")), local("there"));
        let text = "ARG HOST=h\nARG SOURCE_DATE_EPOCH=from\nFROM scratch AS from\nARG X=y\nADD http://h/$X.tar /\nFROM scratch\n";
        let http = HttpSource {
            url: "http://h/y.tar".to_owned(),
            filename: "y.tar".to_owned(),
            checksum: None,
        };
        assert_eq!(source(text, None), Ok(Some(Source::Http(http))));
        assert_eq!(source(text, Some("7")), Ok(None));
    }

    #[test]
    fn a_stage_that_does_more_is_refused() {
        for (body, problem) in [
            ("scratch AS it\nCOPY a /", "unsupported COPY instruction"),
            ("alpine AS it\nADD http://h/x /", "does not start from scratch"),
            ("scratch AS it\nADD a /", "one remote file"),
            ("scratch AS it", "one remote file"),
            ("scratch AS it\nADD http://h/x http://h/y /", "one remote file"),
        ] {
            let found = source(&format!("FROM {body}\nFROM scratch\n"), Some("it"));
            assert!(found.clone().is_err_and(|it| it.contains(problem)), "{body}: {found:?}");
        }
    }
}
