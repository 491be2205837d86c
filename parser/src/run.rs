//! `RUN`: its flags, and with them its mounts.

use alloc::{borrow::ToOwned, format, vec::Vec};

use crate::{
    ast::{Heredoc, Kind, Mount, Run, Text},
    device,
    error::Mistake,
    flags::{Flags, Known, Takes},
    instruction::command,
    mount,
    node::Node,
    report::Report,
    span::Span,
    suggest,
};

const RUN: Known = &[
    ("mount", Takes::Many),
    ("network", Takes::One),
    ("security", Takes::One),
    ("device", Takes::Many),
];

/// Reads a `RUN`.
pub(crate) fn read(mut node: Node, heredocs: Vec<Heredoc>, report: &mut Report) -> Kind {
    let flags = Flags::check(core::mem::take(&mut node.flags), RUN, &node.keyword.value, report);
    let network = flags.get("network");
    if let Some(text) = network {
        let modes = ["default", "none", "host"];
        let kind = Mistake::InvalidNetwork { value: text.value.clone() };
        one_of(text, &modes, kind, report);
    }
    let security = flags.get("security");
    if let Some(text) = security {
        let kind = Mistake::InvalidSecurity { value: text.value.clone() };
        one_of(text, &["sandbox", "insecure"], kind, report);
    }
    let devices = flags.many("device");
    for text in &devices {
        if let Err(reason) = device::parse(&text.value) {
            report.add(Mistake::InvalidDevice { value: text.value.clone(), reason }, text.span);
        }
    }
    let (network, security) = (network.cloned(), security.cloned());
    let mounts = flags.many("mount").into_iter().map(|it| read_mount(it, report)).collect();
    Kind::Run(Run { mounts, network, security, devices, command: command(node), heredocs })
}

fn one_of(text: &Text, options: &[&str], kind: Mistake, report: &mut Report) {
    if options.contains(&text.value.as_str()) {
        return;
    }
    let hint = if text.value.contains('$') {
        Some("variables are not expanded here".to_owned())
    } else {
        suggest::suggest(&text.value, options.iter().copied(), true)
            .map(|it| format!("did you mean `{it}`?"))
    };
    report.hinted(kind, text.span, hint);
}

fn read_mount(text: Text, report: &mut Report) -> Mount {
    let (fields, errors) = match mount::split(&text.value) {
        Ok(fields) => {
            let errors = mount::check(&fields);
            (fields, errors)
        }
        Err(error) => (Vec::new(), Vec::from([(None, error)])),
    };
    let spans = if errors.is_empty() { Vec::new() } else { field_spans(&text) };
    for (field, error) in errors {
        let hint = mount::hint(&error);
        let span = field.and_then(|it| spans.get(it)).copied().unwrap_or(text.span);
        report.hinted(error.into(), span, hint);
    }
    Mount { text, fields }
}

/// Returns where the fields of a mount stand, if they are written as they are read: without quotes, escapes and
/// continuations.
fn field_spans(text: &Text) -> Vec<Span> {
    let n_bytes = text.span.end() - text.span.start();
    if n_bytes != text.value.len() || text.value.contains('"') {
        return Vec::new();
    }
    let mut start = text.span.start();
    let span = |field: &str| {
        let span = Span::new(start, start + field.len());
        start = span.end() + 1;
        span
    };
    text.value.split(',').map(span).collect()
}
