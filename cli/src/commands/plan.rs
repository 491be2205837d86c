//! `kiln plan`: what a build would do, without doing it.
//!
//! Base images are looked up as for a build, nothing is run and nothing is kept. Text has a line for each image and step:
//!
//! ```text
//! ID       DOES     NEEDS                    WHAT
//! image0   image    -                        [build 1/3] FROM docker.io/library/golang:1
//! step0    copy     image0, context          [build 2/3] COPY . .
//! step1    run      step0                    [build 3/3] RUN go build -o /app
//! step2    copy     step1                    [stage-1 1/1] COPY --from=build /app /
//! result   -        step2                    linux/amd64
//! ```

use anyhow::{Context as _, anyhow};
use planner::{
    facts::{Facts, ImageOrigin, ImageQuery},
    plan::{CopyItem, MountOp, Op, Plan, Source, Step},
};
use serde::Serialize;

use super::{
    Globals,
    build::{
        execute::{self, Planned},
        job,
    },
};
use crate::{
    args::dockerfile::{PlanArgs, PlanFormat},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print::{self, Table},
    progress::Progress,
    render,
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
        execute::planned(job, session, &mut Vec::new())
    });
    progress.finish();
    let Planned { text, facts, plans, .. } = planned?;
    let graphs: Vec<Graph<'_>> = plans.iter().map(|it| graph(it, &facts, &text)).collect();
    print::out(&match args.format {
        PlanFormat::Text => self::text(&graphs),
        PlanFormat::Json => {
            // Maps with string keys only: this cannot fail.
            serde_json::to_string_pretty(&Plans { plans: &graphs }).unwrap_or_default() + "\n"
        }
        PlanFormat::Dot => dot(&graphs),
    })?;
    Ok(Exit::Done)
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_cache: bool,
    line: usize,
}

fn graph<'a>(plan: &'a Plan, facts: &Facts, text: &str) -> Graph<'a> {
    let line = |at: usize| render::place(text, text.floor_char_boundary(at)).line;
    let images = plan.images.iter().enumerate().map(|(n, image)| ImageNode {
        id: format!("image{n}"),
        name: &image.name,
        reference: reference(&image.query),
        platform: image.query.platform.format_all(),
        digest: facts.images.get(&image.query).map(|it| it.manifest.to_string()),
        line: line(image.span.start()),
    });
    let steps = plan.steps.iter().enumerate().map(|(n, step)| StepNode {
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
        no_cache: step.no_cache,
        line: line(step.span.start()),
    });
    Graph {
        platform: plan.platform.format_all(),
        images: images.collect(),
        steps: steps.collect(),
        result: id(&plan.output),
    }
}

fn reference(query: &ImageQuery) -> String {
    match &query.origin {
        ImageOrigin::Reference(reference) => reference.to_string(),
        ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout}"),
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
        let mut table = Table::new(&["ID", "DOES", "NEEDS", "WHAT"]);
        let mut row = |id: &str, op: &str, needs: &str, what: &str| {
            let cells = [id, op, if needs.is_empty() { "-" } else { needs }, what];
            table.row(cells.map(str::to_owned).to_vec());
        };
        for image in &graph.images {
            row(&image.id, "image", "", image.name);
        }
        for step in &graph.steps {
            row(&step.id, step.op, &step.needs.join(", "), step.name);
        }
        row("result", "-", graph.result.as_deref().unwrap_or_default(), &graph.platform);
        table.to_string()
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn dot(graphs: &[Graph<'_>]) -> String {
    let mut out = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (n, graph) in graphs.iter().enumerate() {
        let node = |id: &str| quoted(&format!("{n}/{id}"));
        out.push_str(&format!("  subgraph cluster_{n} {{\n"));
        let mut line = |text: String| out.push_str(&format!("    {text}\n"));
        line(format!("label={};", quoted(&graph.platform)));
        let mut others = Vec::new();
        for image in &graph.images {
            line(format!("{} [label={}, style=rounded];", node(&image.id), quoted(image.name)));
        }
        for step in &graph.steps {
            line(format!("{} [label={}];", node(&step.id), quoted(step.name)));
            for need in &step.needs {
                line(format!("{} -> {};", node(need), node(&step.id)));
            }
            others.extend(step.needs.iter());
        }
        line(format!("{} [label=\"image\", style=bold];", node("result")));
        if let Some(result) = &graph.result {
            line(format!("{} -> {};", node(result), node("result")));
            others.push(result);
        }
        // What is no image and no step: contexts and addresses.
        let known = |id: &str| {
            graph.images.iter().any(|it| it.id == id) || graph.steps.iter().any(|it| it.id == id)
        };
        others.retain(|it| !known(it));
        others.sort();
        others.dedup();
        for other in others {
            line(format!("{} [label={}, style=dashed];", node(other), quoted(other)));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

/// A text as Graphviz reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
