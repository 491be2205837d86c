//! `kiln plan`: what a build would do, without doing it.
//!
//! Base images are looked up as for a build, steps are looked up in the store, and nothing is run. A step whose result is there
//! is a *hit*; one whose key is known and nothing else a *miss*; what depends on a step that would run is *unknown*, since
//! that may leave what it left before. Text has a line for each image and step:
//!
//! ```text
//! ID       DOES     NEEDS             STATE     KEY            WHAT
//! image0   image    -                 -         -              [build 1/3] FROM docker.io/library/golang:1
//! step0    copy     image0, context   miss      6b1f6e2a90c4   [build 2/3] COPY . .
//! step1    run      step0             unknown   -              [build 3/3] RUN go build -o /app
//! step2    copy     step1             unknown   -              [stage-1 1/1] COPY --from=build /app /
//! result   -        step2             -         -              linux/amd64
//! ```
//!
//! [`dot`] and [`svg`] are drawings of the same.

mod dot;
mod svg;

use anyhow::{Context as _, anyhow};
use cache::StepKey;
use executor::{
    Foreseen, Session,
    explain::{self, Cause, Explained, JournaledPlan, State},
};
use planner::{
    facts::Facts,
    plan::{CopyItem, MountOp, Op, Plan, Source, Step},
};
use serde::Serialize;

use super::{
    Globals,
    build::{
        execute::{self, Planned},
        job,
    },
    explain::words,
};
use crate::{
    args::dockerfile::{PlanArgs, PlanFormat},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print::{self, Table},
    progress::Progress,
    values::Question,
};

/// Prints the plan of a build.
///
/// # Errors
///
/// Fails where there is no plan: the Dockerfile is wrong, or a base image cannot be had.
pub fn run(args: PlanArgs, globals: &Globals) -> Result<Exit> {
    let mut job = job::prepare(args.build, |name| std::env::var(name).ok())?;
    if job.call.question != Question::Build {
        let message = anyhow!("`kiln plan` does not answer `--call` and `--check`");
        return Err(Failure::input(message).hint("give them to `kiln build`"));
    }
    let progress = Progress::start(job.progress).context("cannot start the display").or_failed()?;
    let planned = execute::with_session(&mut job, globals, progress.listener(), |job, session| {
        let planned = execute::planned(job, session, &mut Vec::new())?;
        let foreseen = session.foresee(&planned.plans, &planned.facts).map_err(execute::failed)?;
        let explained = match job.explain {
            true => Some(explain(session, &foreseen)?),
            false => None,
        };
        Ok((planned, foreseen.build, explained))
    });
    progress.finish();
    let (Planned { text, facts, plans, .. }, foreseen, explained) = planned?;
    let mut graphs: Vec<Graph<'_>> = plans
        .iter()
        .zip(&foreseen.plans)
        .map(|(plan, foreseen)| graph(plan, foreseen, &facts, &text))
        .collect();
    for (graph, explained) in graphs.iter_mut().zip(explained.iter().flatten()) {
        for (step, explained) in graph.steps.iter_mut().zip(explained) {
            step.causes = explained.causes.clone();
        }
    }
    print::out(&match args.format {
        PlanFormat::Text => {
            let explained = explained.iter().flatten().map(|it| words::steps(it));
            let parts = std::iter::once(self::text(&graphs)).chain(explained);
            parts.collect::<Vec<_>>().join("\n")
        }
        PlanFormat::Svg => svg::draw(&graphs),
        PlanFormat::Json => {
            // Maps with string keys only: this cannot fail.
            serde_json::to_string_pretty(&Plans { plans: &graphs }).unwrap_or_default() + "\n"
        }
        PlanFormat::Dot => dot::draw(&graphs),
    })?;
    Ok(Exit::Done)
}

fn explain(session: &Session, foreseen: &Foreseen) -> Result<Vec<Vec<Explained>>> {
    let earlier = explain::earlier(&session.store, &foreseen.build).map_err(execute::failed)?;
    Ok(explain::explain(&session.store, &foreseen.build, &earlier.builds, &foreseen.files))
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Plans<'a> {
    plans: &'a [Graph<'a>],
}

/// A plan as a graph: images, steps, and a result, each with what it needs.
#[derive(Debug, Serialize)]
struct Graph<'a> {
    platform: String,
    images: Vec<ImageNode<'a>>,
    steps: Vec<StepNode<'a>>,
    /// What the image is made of; nothing for an empty one.
    result: Option<String>,
}

#[derive(Debug, Serialize)]
struct ImageNode<'a> {
    id: String,
    name: &'a str,
    reference: String,
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    line: usize,
}

#[derive(Debug, Serialize)]
struct StepNode<'a> {
    id: String,
    op: &'static str,
    name: &'a str,
    stage: &'a str,
    platform: String,
    needs: Vec<String>,
    /// The first of `needs` is the tree that it starts from.
    #[serde(skip)]
    has_parent: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_cache: bool,
    line: usize,
    /// Whether its result is in the store: `hit`, `miss`, `unknown`, or `failed` where it is clear that it cannot be done.
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<StepKey>,
    /// With `--explain`, why it is a miss.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause>,
}

impl StepNode<'_> {
    fn state(&self) -> &'static str {
        match &self.state {
            State::Hit => "hit",
            State::Miss | State::Done => "miss",
            State::Unknown { .. } => "unknown",
            State::Failed { .. } => "fails",
        }
    }

    /// The beginning of its key.
    fn short_key(&self) -> String {
        self.key.map_or("-".to_owned(), |it| it.hex().chars().take(N_KEY).collect())
    }
}

/// As many digits of a key are shown.
const N_KEY: usize = 12;

fn graph<'a>(plan: &'a Plan, foreseen: &JournaledPlan, facts: &Facts, text: &str) -> Graph<'a> {
    let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let line = |at: usize| starts.partition_point(|start| *start <= at) + 1;
    let images = plan.images.iter().enumerate().map(|(n, image)| ImageNode {
        id: format!("image{n}"),
        name: &image.name,
        reference: image.query.origin.to_string(),
        platform: image.query.platform.format_all(),
        digest: facts.images.get(&image.query).map(|it| it.manifest.to_string()),
        line: line(image.span.start()),
    });
    let steps = plan.steps.iter().zip(&foreseen.steps).enumerate();
    let steps = steps.map(|(n, (step, foreseen))| StepNode {
        id: format!("step{n}"),
        op: match step.op {
            Op::Run(_) => "run",
            Op::Copy(_) => "copy",
            Op::Mkdir(_) => "mkdir",
        },
        name: &step.name,
        stage: &step.stage,
        platform: step.platform.format_all(),
        needs: needs(step),
        has_parent: step.parent != Source::Scratch,
        no_cache: step.no_cache,
        line: line(step.span.start()),
        state: foreseen.state.clone(),
        key: foreseen.key,
        causes: Vec::new(),
    });
    Graph {
        platform: plan.platform.format_all(),
        images: images.collect(),
        steps: steps.collect(),
        result: id(&plan.output),
    }
}

/// What a step reads, each once: the tree it starts from, then the others in the order they are named.
fn needs(step: &Step) -> Vec<String> {
    let mut sources = vec![&step.parent];
    match &step.op {
        Op::Run(run) => sources.extend(run.mounts.iter().filter_map(|mount| match mount {
            MountOp::Bind { source, .. } => Some(source),
            MountOp::Cache { seed, .. } => seed.as_ref().map(|it| &it.0),
            _ => None,
        })),
        Op::Copy(copy) => sources.extend(copy.items.iter().filter_map(|item| match item {
            CopyItem::Paths { source, .. } => Some(source),
            CopyItem::Inline { .. } => None,
        })),
        Op::Mkdir(_) => {}
    }
    let mut ids = Vec::new();
    for id in sources.into_iter().filter_map(id) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// The name of a source in the graph; none for `scratch`.
fn id(source: &Source) -> Option<String> {
    Some(match source {
        Source::Scratch => return None,
        Source::Image(n) => format!("image{n}"),
        Source::Step(step) => format!("step{}", step.0),
        Source::Local(name) if name == "context" => name.clone(),
        Source::Local(name) => format!("context:{name}"),
        Source::Git(git) => git.url.remote.clone(),
        Source::Http(http) => http.url.clone(),
    })
}

fn text(graphs: &[Graph<'_>]) -> String {
    let tables = graphs.iter().map(|graph| {
        let mut table = Table::new(&["ID", "DOES", "NEEDS", "STATE", "KEY", "WHAT"]);
        let mut row = |id: &str, op: &str, needs: &str, state: &str, key: &str, what: &str| {
            let cells = [id, op, if needs.is_empty() { "-" } else { needs }, state, key, what];
            table.row(cells.map(str::to_owned).to_vec());
        };
        for image in &graph.images {
            row(&image.id, "image", "", "-", "-", image.name);
        }
        for step in &graph.steps {
            let (needs, key) = (step.needs.join(", "), step.short_key());
            row(&step.id, step.op, &needs, step.state(), &key, step.name);
        }
        let result = graph.result.as_deref().unwrap_or_default();
        row("result", "-", result, "-", "-", &graph.platform);
        let failing = graph.steps.iter().filter_map(|it| match &it.state {
            State::Failed { message } => Some(format!("{} fails: {message}\n", it.id)),
            _ => None,
        });
        table.to_string() + &failing.collect::<String>()
    });
    tables.collect::<Vec<_>>().join("\n")
}
