//! `HEALTHCHECK`.

use crate::{
    ast::{Healthcheck, Kind},
    error::Mistake,
    flags::{Flags, Known, Takes},
    instruction::command,
    node::{Args, Node},
    report::Report,
    suggest, values,
};

const HEALTHCHECK: Known = &[
    ("interval", Takes::One),
    ("timeout", Takes::One),
    ("start-period", Takes::One),
    ("start-interval", Takes::One),
    ("retries", Takes::One),
];

const MILLISECOND: i64 = 1_000_000;

/// Reads a `HEALTHCHECK`.
pub(crate) fn read(mut node: Node, report: &mut Report) -> Kind {
    let Args::Words(words) = &mut node.args else {
        return Kind::Invalid;
    };
    if words.is_empty() {
        let keyword = node.keyword.value.clone();
        report.add(Mistake::MissingArgument { keyword }, node.keyword.span);
        return Kind::Invalid;
    }
    let word = words.remove(0);
    if word.value.eq_ignore_ascii_case("NONE") {
        // BuildKit does not look at the flags here, but at what follows, where an empty array is nothing.
        let Some(found) = words.first() else {
            return Kind::Healthcheck(Healthcheck::None);
        };
        let span = words.last().map_or(found.span, |it| found.span.to(it.span));
        report.add(Mistake::HealthcheckNone { found: found.value.clone() }, span);
        return Kind::Invalid;
    }
    let empty = words.is_empty();
    let flags = core::mem::take(&mut node.flags);
    let flags = Flags::check(flags, HEALTHCHECK, &node.keyword.value, report);
    let mut duration = |name| duration(&flags, name, report);
    let (interval, timeout) = (duration("interval"), duration("timeout"));
    let (start_period, start_interval) = (duration("start-period"), duration("start-interval"));
    let retries = retries(&flags, report);
    if !word.value.eq_ignore_ascii_case("CMD") {
        let hint = suggest::suggest(&word.value, ["CMD", "NONE"].into_iter(), false)
            .map(|it| alloc::format!("did you mean `{it}`?"));
        report.hinted(Mistake::HealthcheckKind { word: word.value }, word.span, hint);
        return Kind::Invalid;
    }
    if empty {
        report.add(Mistake::HealthcheckCommand, word.span);
        return Kind::Invalid;
    }
    Kind::Healthcheck(Healthcheck::Cmd {
        command: command(node),
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    })
}

/// Reads a duration; 0 where it is missing or wrong.
fn duration(flags: &Flags, name: &'static str, report: &mut Report) -> i64 {
    let Some(text) = flags.one(name) else {
        return 0;
    };
    let flag = name.into();
    match values::duration(&text.value) {
        None => {
            let hint = if text.value.contains('$') {
                "variables are not expanded here"
            } else {
                "write it as a number with a unit, `30s` or `1m30s`"
            };
            let kind = Mistake::InvalidDuration { flag, value: text.value };
            report.hinted(kind, text.span, Some(hint.into()));
            0
        }
        Some(nanos) if nanos != 0 && nanos < MILLISECOND => {
            report.add(Mistake::ShortDuration { flag, value: text.value }, text.span);
            0
        }
        Some(nanos) => nanos,
    }
}

fn retries(flags: &Flags, report: &mut Report) -> u32 {
    let Some(text) = flags.one("retries") else {
        return 0;
    };
    let retries = text.value.parse::<i32>().ok().and_then(|it| u32::try_from(it).ok());
    retries.unwrap_or_else(|| {
        report.add(Mistake::InvalidRetries { value: text.value }, text.span);
        0
    })
}
