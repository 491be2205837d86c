//! Configs and triggers of what stages start from.

use alloc::{
    borrow::Cow,
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use image::{ImageRef, Platform};
use parser::{ast::Kind, suggest::suggest};

use super::{
    findings::Failure,
    rule::Rule,
    stage::{Command, Config},
    survey::{Walk, fail},
    wording,
};
use crate::{
    facts::{ImageOrigin, ImageQuery},
    stages::{Base, named_context, wrong_reference},
};

impl Walk<'_> {
    /// Takes in the configs of base images and puts their triggers in place, until there is nothing new.
    pub(super) fn resolve(&mut self, all: bool) -> Result<BTreeSet<usize>, Failure> {
        loop {
            let reachable = self.reachable();
            for stage_idx in 0..self.stages.len() {
                let stage = &self.stages[stage_idx];
                let is_wanted = all || reachable.contains(&stage_idx);
                if stage.base.is_none() && !stage.is_resolved && is_wanted {
                    self.resolve_base(stage_idx)?;
                }
            }
            let mut has_new = false;
            for stage_idx in reachable.iter().copied() {
                has_new |= self.add_triggers(stage_idx)?;
            }
            if !has_new {
                return Ok(reachable);
            }
        }
    }

    fn resolve_base(&mut self, stage_idx: usize) -> Result<(), Failure> {
        let stage = &mut self.stages[stage_idx];
        stage.is_resolved = true;
        stage.is_dispatched |= stage.is_implicit;
        if stage.base_name == "scratch" {
            return Ok(());
        }
        let (name, lines) = (stage.base_name.clone(), stage.lines);
        let request = self.subject.request;
        let platform = stage.platform.clone().unwrap_or_else(|| request.platform.clone());
        let origin = match named_context(&name, Some(&platform), request) {
            Ok(Some(Base::Image(origin, _))) => origin,
            Ok(Some(_)) => return Ok(()),
            Err(error) => return fail(error.to_string(), lines),
            Ok(None) => match ImageRef::parse(&name) {
                Ok(reference) => ImageOrigin::Reference(reference.with_default_tag()),
                Err(error) => {
                    return fail(
                        format!("failed to parse stage name {name:?}: {}", wrong_reference(&error)),
                        lines,
                    );
                }
            },
        };
        let query = ImageQuery { origin, platform };
        match self.subject.images.get(&query) {
            Some(Ok(config)) => {
                let (expected, actual) = (&query.platform, (&config.os, &config.architecture));
                if !config.os.is_empty() && (&expected.os, &expected.architecture) != actual {
                    let actual = Platform::new(&config.os, &config.architecture);
                    let detail = format!(
                        "Base image {name} was pulled with platform \"{}\", expected \"{}\" for current build",
                        actual.normalized(),
                        expected.normalized()
                    );
                    let comments = self.stages[stage_idx].comments;
                    self.findings.add(Rule::InvalidBaseImagePlatform, comments, lines, detail);
                }
                self.stages[stage_idx].config = Config::of(config);
                Ok(())
            }
            Some(Err(reason)) => {
                const COMMON: [&str; 7] =
                    ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
                let names = self.stages.iter().map(|it| it.display.as_str()).chain(COMMON);
                let hint = suggest(&name, names.filter(|it| !it.is_empty()), true);
                let hint = hint.map_or(String::new(), |it| format!(" (did you mean {it}?)"));
                fail(format!("{name}: {reason}{hint}"), lines)
            }
            None => {
                self.missing.insert(query);
                Ok(())
            }
        }
    }

    /// Puts the triggers of a stage's base before its instructions. Returns whether they name other stages.
    fn add_triggers(&mut self, stage_idx: usize) -> Result<bool, Failure> {
        let stage = &self.stages[stage_idx];
        if stage.has_triggers || stage.is_implicit {
            return Ok(false);
        }
        let lines = stage.lines;
        let triggers: Vec<String> = match stage.base {
            None => stage.config.on_build.clone(),
            Some(base) => {
                let written = self.stages[base].commands.iter();
                written
                    .filter_map(|it| match &it.instruction.kind {
                        Kind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                        _ => None,
                    })
                    .collect()
            }
        };
        self.stages[stage_idx].has_triggers = true;
        let mut commands = Vec::new();
        let mut has_new = false;
        for trigger in triggers {
            let (instructions, diagnostics) = parser::parse_trigger(&trigger, '\\');
            if let Some(diagnostic) = diagnostics.first() {
                return fail(wording::message(diagnostic), lines);
            }
            for mut instruction in instructions {
                (instruction.lines, instruction.comments) = (lines, Vec::new());
                let sources = self.sources_of(&instruction)?;
                has_new |= !sources.is_empty();
                self.stages[stage_idx].deps.extend(&sources);
                commands.push(Command { instruction: Cow::Owned(instruction), sources });
            }
        }
        let stage = &mut self.stages[stage_idx];
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(has_new)
    }
}
