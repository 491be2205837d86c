//! The steps of a plan as provenance tells them: in the shape of BuildKit's LLB, which is what readers of provenance know.
//!
//! Each source is a step as well. Nothing reads this to build from it.

use base64::{Engine, engine::general_purpose::STANDARD};
use planner::{
    facts::{Facts, ImageOrigin},
    plan::{CopyItem, CopyOp, MountOp, Network, Op, Plan, RunOp, Sharing, Source, Step},
};
use serde_json::{Map, Value, json};

use super::provenance::{Invocation, sources_of};
use crate::fetch::redacted;

/// The kinds of mounts, by the numbers of BuildKit's protocol.
const SECRET: u32 = 1;
const SSH: u32 = 2;
const CACHE: u32 = 3;
const TMPFS: u32 = 4;

/// All steps, each after those it needs, and one behind them that stands for the result.
pub(super) fn steps(plan: &Plan, facts: &Facts) -> Vec<Value> {
    let order = Order::of(plan);
    let mut out = Vec::with_capacity(order.vertices.len() + 1);
    for (vertex_idx, vertex) in order.vertices.iter().enumerate() {
        let (op, inputs) = match vertex {
            Vertex::Source(source) => (source_op(source, plan, facts), Vec::new()),
            Vertex::Step(step) => (order.op(step), order.inputs(step)),
        };
        let mut json = json!({ "id": format!("step{vertex_idx}"), "op": { "Op": op } });
        if let Vertex::Step(step) = vertex {
            let platform = &step.platform;
            json["op"]["platform"] =
                json!({ "Architecture": platform.architecture, "OS": platform.os });
        }
        if !inputs.is_empty() {
            json["inputs"] = json!(inputs);
        }
        out.push(json);
    }
    let result: Vec<String> = order.place(&plan.output).into_iter().collect();
    out.push(json!({ "id": format!("step{}", out.len()), "op": {}, "inputs": result }));
    out
}

/// The lines of each step.
pub(super) fn locations(plan: &Plan, invocation: &Invocation) -> Map<String, Value> {
    let order = Order::of(plan);
    // Spans are of the decoded text.
    let text = parser::decode(&invocation.dockerfile);
    let ends: Vec<usize> = text.match_indices('\n').map(|it| it.0).collect();
    let line = |at: usize| 1 + ends.partition_point(|it| *it < at);
    let steps = order.vertices.iter().enumerate().filter_map(|(idx, it)| match it {
        Vertex::Step(step) => Some((idx, step)),
        Vertex::Source(_) => None,
    });
    steps
        .map(|(idx, step)| {
            let (start, end) = (step.span.start(), step.span.end().saturating_sub(1));
            let range = json!({
                "start": { "line": line(start) },
                "end": { "line": line(end.max(start)) },
            });
            (format!("step{idx}"), json!({ "locations": [{ "ranges": [range] }] }))
        })
        .collect()
}

/// A step of the definition.
enum Vertex<'a> {
    Source(&'a Source),
    Step(&'a Step),
}

/// In which order the steps are told, and where each source and each step of the plan is among them.
struct Order<'a> {
    vertices: Vec<Vertex<'a>>,
    /// The vertex of each step of the plan.
    steps: Vec<usize>,
}

impl<'a> Order<'a> {
    fn of(plan: &'a Plan) -> Self {
        let mut this = Self { vertices: Vec::new(), steps: Vec::with_capacity(plan.steps.len()) };
        for step in &plan.steps {
            for source in std::iter::once(&step.parent).chain(sources_of(step)) {
                this.add(source);
            }
            this.steps.push(this.vertices.len());
            this.vertices.push(Vertex::Step(step));
        }
        this.add(&plan.output);
        this
    }

    fn add(&mut self, source: &'a Source) {
        if !matches!(source, Source::Scratch | Source::Step(_)) && self.place(source).is_none() {
            self.vertices.push(Vertex::Source(source));
        }
    }

    /// What a source is called as an input; nothing for no files.
    fn place(&self, source: &Source) -> Option<String> {
        let found = match source {
            Source::Scratch => None,
            Source::Step(id) => self.steps.get(id.0).copied(),
            source => self
                .vertices
                .iter()
                .position(|it| matches!(it, Vertex::Source(it) if *it == source)),
        };
        found.map(|it| format!("step{it}:0"))
    }

    fn inputs(&self, step: &Step) -> Vec<String> {
        let mut inputs = Vec::new();
        for source in std::iter::once(&step.parent).chain(sources_of(step)) {
            inputs.extend(self.place(source).filter(|it| !inputs.contains(it)));
        }
        inputs
    }

    /// The number of an input of a step, -1 for no files.
    fn input(&self, step: &Step, source: &Source) -> i64 {
        let Some(place) = self.place(source) else { return -1 };
        let found = self.inputs(step).iter().position(|it| *it == place);
        found.and_then(|it| i64::try_from(it).ok()).unwrap_or(-1)
    }

    fn op(&self, step: &Step) -> Value {
        match &step.op {
            Op::Run(run) => json!({ "exec": self.run(step, run) }),
            Op::Copy(copy) => json!({ "file": { "actions": self.copy(step, copy) } }),
            Op::Mkdir(mkdir) => {
                let action = json!({ "path": mkdir.path, "mode": 0o755, "makeParents": true, "timestamp": -1 });
                let input = self.input(step, &step.parent);
                json!({ "file": { "actions": [{
                    "input": input, "secondaryInput": -1, "output": 0, "Action": { "mkdir": action },
                }] } })
            }
        }
    }

    fn run(&self, step: &Step, run: &RunOp) -> Value {
        let env: Vec<String> =
            run.env.pairs().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut meta = json!({ "args": run.args, "env": env, "cwd": run.cwd });
        if !run.user.is_empty() {
            meta["user"] = json!(run.user);
        }
        let mut mounts = vec![json!({ "input": self.input(step, &step.parent), "dest": "/" })];
        let mut variables = Vec::new();
        for mount in &run.mounts {
            if let MountOp::Secret { id, env: Some(name), required, .. } = mount {
                variables.push(json!({ "ID": id, "name": name, "optional": !required }));
            }
            mounts.extend(self.mount(step, mount));
        }
        let mut out = json!({ "meta": meta, "mounts": mounts });
        if !variables.is_empty() {
            out["secretenv"] = json!(variables);
        }
        match run.network {
            Network::Default => {}
            Network::Host => out["network"] = json!(1),
            Network::None => out["network"] = json!(2),
        }
        if run.insecure {
            out["security"] = json!(1);
        }
        out
    }

    fn mount(&self, step: &Step, mount: &MountOp) -> Option<Value> {
        let mut out = json!({ "input": -1, "output": -1 });
        match mount {
            MountOp::Bind { source, path, target, writable } => {
                out["input"] = json!(self.input(step, source));
                out["selector"] = json!(path);
                out["dest"] = json!(target);
                out["readonly"] = json!(!writable);
            }
            MountOp::Cache { id, target, sharing, seed, read_only, .. } => {
                if let Some((source, path)) = seed {
                    out["input"] = json!(self.input(step, source));
                    out["selector"] = json!(path);
                }
                out["dest"] = json!(target);
                out["mountType"] = json!(CACHE);
                let sharing = match sharing {
                    Sharing::Shared => 0,
                    Sharing::Private => 1,
                    Sharing::Locked => 2,
                };
                out["cacheOpt"] = json!({ "ID": id, "sharing": sharing });
                out["readonly"] = json!(read_only);
            }
            MountOp::Tmpfs { target, size } => {
                out["dest"] = json!(target);
                out["mountType"] = json!(TMPFS);
                out["TmpfsOpt"] = json!({ "size": size.unwrap_or(0) });
            }
            MountOp::Secret { id, target, required, mode, uid, gid, .. } => {
                out["dest"] = json!(target.as_ref()?);
                out["mountType"] = json!(SECRET);
                out["secretOpt"] = json!({
                    "ID": id, "mode": mode, "uid": uid, "gid": gid, "optional": !required,
                });
            }
            MountOp::Ssh { id, target, required, mode, uid, gid } => {
                out["dest"] = json!(target);
                out["mountType"] = json!(SSH);
                out["SSHOpt"] = json!({
                    "ID": id, "mode": mode, "uid": uid, "gid": gid, "optional": !required,
                });
            }
        }
        Some(out)
    }

    /// One action for each source; each goes on from what the one before it left.
    fn copy(&self, step: &Step, copy: &CopyOp) -> Vec<Value> {
        let n_inputs = self.inputs(step).len();
        let n_items = copy.items.len();
        let mut input = json!(self.input(step, &step.parent));
        let mut actions = Vec::with_capacity(n_items);
        for (item_idx, item) in copy.items.iter().enumerate() {
            let (secondary, action) = match item {
                CopyItem::Paths { source, path, parents, unpack, .. } => {
                    let mut action = json!({
                        "src": path, "dest": copy.dest, "mode": -1, "followSymlink": true,
                        "dirCopyContents": true, "createDestPath": true, "allowWildcard": true,
                        "allowEmptyWildcard": true, "timestamp": -1,
                    });
                    if *unpack {
                        action["attemptUnpackDockerCompatibility"] = json!(true);
                    }
                    if let Some(parents) = parents {
                        action["includePatterns"] = json!([parents.pattern]);
                    }
                    if !copy.excludes.is_empty() {
                        action["excludePatterns"] = json!(copy.excludes);
                    }
                    (self.input(step, source), json!({ "copy": action }))
                }
                CopyItem::Inline { name, data } => {
                    let path = format!("{}{name}", copy.dest);
                    (
                        -1,
                        json!({ "mkfile": { "path": path, "mode": 0o644, "data": STANDARD.encode(data) } }),
                    )
                }
            };
            let is_last = item_idx + 1 == n_items;
            actions.push(json!({
                "input": input,
                "secondaryInput": secondary,
                "output": if is_last { 0 } else { -1 },
                "Action": action,
            }));
            input = json!(n_inputs + item_idx);
        }
        actions
    }
}

fn source_op(source: &Source, plan: &Plan, facts: &Facts) -> Value {
    let identifier = match source {
        Source::Scratch | Source::Step(_) => String::new(),
        Source::Local(name) => format!("local://{name}"),
        Source::Git(git) => {
            let remote = redacted(&git.url.remote);
            let remote = remote.split_once("://").map_or(remote.as_str(), |(_, rest)| rest);
            match git.url.reference.as_str() {
                "" => format!("git://{remote}"),
                reference => format!("git://{remote}#{reference}"),
            }
        }
        Source::Http(http) => redacted(&http.url),
        Source::Image(image_idx) => match plan.images.get(*image_idx) {
            None => String::new(),
            Some(image) => {
                let name = match &image.query.origin {
                    ImageOrigin::Reference(name) => format!("docker-image://{name}"),
                    ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout}"),
                };
                match facts.images.get(&image.query) {
                    Some(fact) if !name.contains('@') => format!("{name}@{}", fact.target),
                    _ => name,
                }
            }
        },
    };
    json!({ "source": { "identifier": identifier } })
}
