//! What a FROM line and a `--from` name: a stage, an image, a named context, nothing.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use image::{ImageRef, Platform, error::ReferenceError};
use parser::{ast::Text, suggest::suggest};

use super::{Base, Names, Stage, with_suggestion};
use crate::{
    env::Variables,
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    facts::ImageOrigin,
    git_url::GitRef,
    plan::{GitSource, HttpSource, Source},
    request::Request,
};

/// What a FROM line starts from, and for which platform.
pub(super) fn base_and_platform(
    from: &parser::ast::From,
    lexer: &Lexer,
    args: &Variables,
    (stages, names): (&[Stage], &Names),
    request: &Request,
) -> Result<(Base, Option<Platform>), PlanError> {
    let expand = |text: &Text| {
        lexer.word(&text.value, args).map_err(|source| {
            PlanError::new(PlanErrorKind::Expand { word: text.value.clone(), source }, text.span)
        })
    };
    let expanded = expand(&from.base)?;
    if expanded.text.is_empty() {
        let error = PlanError::new(
            PlanErrorKind::BlankBaseName { written: from.base.value.clone() },
            from.base.span,
        );
        return Err(suggest_variable(error, expanded.unmatched.iter(), args));
    }
    let platform = match &from.platform {
        None => None,
        Some(written) => {
            let expanded = expand(written)?;
            if expanded.text.is_empty() {
                let kind = PlanErrorKind::EmptyPlatform { written: written.value.clone() };
                return Err(suggest_variable(
                    PlanError::new(kind, written.span),
                    expanded.unmatched.iter(),
                    args,
                ));
            }
            Some(Platform::parse(&expanded.text, &request.build_platform).map_err(|error| {
                let kind = PlanErrorKind::InvalidPlatform {
                    written: written.value.clone(),
                    message: error.to_string(),
                };
                suggest_variable(
                    PlanError::new(kind, written.span),
                    expanded.unmatched.iter(),
                    args,
                )
            })?)
        }
    };
    // A FROM binds to the nearest earlier stage whose lowercased name it spells exactly.
    if let Some(stage) = names.of_from.get(&expanded.text) {
        return Ok((Base::Stage(*stage), platform));
    }
    if expanded.text == "scratch" {
        return Ok((Base::Scratch, platform));
    }
    let in_file = |kind| PlanError::new(kind, from.base.span);
    let base = match named_context(&expanded.text, platform.as_ref(), request).map_err(in_file)? {
        Some(base) => base,
        None => image_base(&expanded.text).map_err(|kind| {
            let names: Vec<_> = stages.iter().filter_map(|it| it.name.clone()).collect();
            let error = with_suggestion(in_file(kind), &expanded.text, &names);
            match expanded.unmatched.first() {
                Some(name) if error.hint.is_none() => error.with_hint(format!(
                    "`${name}` has no value: give it one with `--build-arg {name}=…`, or a default before the first FROM"
                )),
                _ => error,
            }
        })?,
    };
    Ok((base, platform))
}

/// The image of a name.
pub(super) fn image_base(name: &str) -> Result<Base, PlanErrorKind> {
    let reference: ImageRef = name.parse().map_err(|error: ReferenceError| {
        PlanErrorKind::InvalidReference { name: name.to_owned(), message: wrong_reference(&error) }
    })?;
    let reference = reference.with_default_tag();
    let display = reference.to_string();
    Ok(Base::Image(ImageOrigin::Reference(reference), display))
}

/// What is wrong with a name of an image, in the words of docker's reference package.
pub(crate) fn wrong_reference(error: &ReferenceError) -> String {
    match error {
        ReferenceError::Format { .. } => "invalid reference format".to_owned(),
        other => format!("invalid reference format: {other}"),
    }
}

/// Whether a named context stands for `name`.
pub(crate) fn is_overridden(name: &str, request: &Request) -> bool {
    !request.named_contexts.is_empty() && context_value(name, None, request).is_some()
}

/// The value of the named context that stands for `name`, and the name as contexts are compared by.
pub(super) fn context_value<'a>(
    name: &str,
    platform: Option<&Platform>,
    request: &'a Request,
) -> Option<(&'a str, String)> {
    if request.named_contexts.is_empty() || matches!(name, "scratch" | "context") {
        return None;
    }
    let familiar = |name: &str| {
        let reference: Option<ImageRef> = name.parse().ok();
        let short = reference.map_or_else(|| name.to_owned(), |it| it.familiar());
        short.strip_suffix(":latest").map_or(short.clone(), ToOwned::to_owned)
    };
    let wanted = familiar(name);
    let platform = platform.unwrap_or(&request.platform).normalized();
    let with_platform = format!("{wanted}::{platform}");
    let by = |wanted: &str| {
        request.named_contexts.iter().find(|(key, _)| {
            let (key_name, key_platform) =
                key.split_once("::").map_or((key.as_str(), None), |(n, p)| (n, Some(p)));
            let key = familiar(key_name);
            match key_platform {
                Some(platform) => format!("{key}::{platform}") == wanted,
                None => key == wanted,
            }
        })
    };
    let (_, value) = by(&with_platform).or_else(|| by(&wanted))?;
    Some((value, wanted))
}

/// What a named context puts in the place of `name`.
pub(crate) fn named_context(
    name: &str,
    platform: Option<&Platform>,
    request: &Request,
) -> Result<Option<Base>, PlanErrorKind> {
    let Some((value, wanted)) = context_value(name, platform, request) else {
        return Ok(None);
    };
    let invalid = |message: &str| PlanErrorKind::InvalidNamedContext {
        name: wanted.clone(),
        value: value.to_owned(),
        message: message.to_owned(),
    };
    if let Some(reference) = value.strip_prefix("docker-image://") {
        if reference == "scratch" {
            return Ok(Some(Base::Scratch));
        }
        return image_base(reference).map(Some).map_err(|error| invalid(&error.to_string()));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return Ok(Some(Base::Image(ImageOrigin::OciLayout(layout.to_owned()), wanted)));
    }
    if value.starts_with("target:") || value.starts_with("input:") {
        return Err(invalid("only bake files link targets"));
    }
    match GitRef::parse(value) {
        Ok(Some(url)) if !url.like_local => {
            return Ok(Some(Base::Files(Source::Git(GitSource {
                url,
                keep_git_dir: false,
                checksum: None,
            }))));
        }
        Err(error) => return Err(invalid(&error.to_string())),
        Ok(_) => {}
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        let http =
            HttpSource { url: value.to_owned(), filename: "context".to_owned(), checksum: None };
        return Ok(Some(Base::Files(Source::Http(http))));
    }
    Ok(Some(Base::Files(Source::Local(wanted))))
}

fn suggest_variable<'a>(
    error: PlanError,
    mut unmatched: impl Iterator<Item = &'a String>,
    args: &Variables,
) -> PlanError {
    let Some(name) = unmatched.next() else { return error };
    let known = args.pairs().into_iter().map(|(name, _)| name);
    match suggest(name, known, true) {
        Some(close) => {
            error.with_hint(format!("`{name}` is not set here: did you mean `{close}`?"))
        }
        None => error.with_hint(format!(
            "`{name}` is not set: declare it with ARG before the first FROM, with a default"
        )),
    }
}
