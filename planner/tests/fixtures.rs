//! Plans every Dockerfile in `testdata/planner` and compares the plan, or the mistakes, with the file beside it.
//!
//! `ok/NAME.dockerfile` must make a plan and `err/NAME.dockerfile` must not; both are compared with `NAME.expected`. Run
//! with `BLESS=1` to rewrite the expectations, then read the diff. Lines that begin with `#:` are the command line and
//! the base images, and comments to everybody else:
//!
//! ```text
//! #: --build-arg VERSION=1         an option of `kiln build`
//! #: image NAME {"Cmd": ["sh"]}    what the config of a base image says; others have a PATH and a shell
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use image::{
    DiffId, Digest, Platform,
    document::{History, ImageConfig, RunConfig},
};
use planner::{
    PlanError,
    error::CODES,
    facts::{Facts, ImageFact, ImageOrigin, ImageQuery, Need},
    plan::{CopyItem, CopyOp, MkdirOp, MountOp, Op, Plan, RunOp, Source, Step},
    request::Request,
};

#[test]
fn ok() {
    for case in cases("ok") {
        let (rendered, errors) = check(&case);
        assert!(errors.is_empty(), "{}: expected a plan\n{rendered}", case.name);
        case.compare(&rendered);
    }
}

#[test]
fn err() {
    let mut seen = BTreeSet::new();
    let mut clean = Vec::new();
    for case in cases("err") {
        let (rendered, errors) = check(&case);
        if errors.is_empty() {
            clean.push(format!("{}:\n{rendered}", case.name));
            continue;
        }
        errors.iter().for_each(|it| check_message(it, &case.name));
        seen.extend(errors.iter().map(PlanError::code));
        case.compare(&rendered);
    }
    assert!(clean.is_empty(), "expected a mistake: {}", clean.join("\n"));
    let known = BTreeSet::from_iter(CODES.iter().copied());
    assert_eq!(seen, known, "every code has a fixture, and no other is used");
}

struct Case {
    name: String,
    path: PathBuf,
    text: String,
    request: Request,
    images: BTreeMap<String, RunConfig>,
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/planner").join(folder);
    let mut cases = Vec::new();
    let mut expectations = BTreeSet::new();
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        match path.extension().and_then(|it| it.to_str()) {
            Some("dockerfile") => cases.push(Case::read(name, path)),
            Some("expected") => _ = expectations.insert(name),
            _ => panic!("{}: no test claims it", path.display()),
        }
    }
    assert!(!cases.is_empty(), "{}: no cases", folder.display());
    for case in &cases {
        expectations.remove(&case.name);
    }
    assert!(expectations.is_empty(), "without a Dockerfile: {expectations:?}");
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    fn read(name: String, path: PathBuf) -> Self {
        let text = parser::decode(&fs::read(&path).expect("it can be read"));
        let amd64 = Platform::new("linux", "amd64");
        let mut request =
            Request { platform: amd64.clone(), build_platform: amd64, ..Request::default() };
        let mut images = BTreeMap::new();
        for line in text.lines().filter_map(|it| it.strip_prefix("#: ")) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "image" => {
                    let (image, config) = rest.split_once(' ').expect("image NAME CONFIG");
                    let config = serde_json::from_str(config).expect("a config as JSON");
                    images.insert(image.to_owned(), config);
                }
                _ => option(&mut request, word, rest),
            }
        }
        Self { name, path, text, request, images }
    }

    fn fact(&self, query: &ImageQuery) -> ImageFact {
        let name = match &query.origin {
            ImageOrigin::Reference(reference) => {
                let familiar = reference.familiar();
                familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
            }
            ImageOrigin::OciLayout(layout) => layout.clone(),
        };
        let default = RunConfig {
            env: vec!["PATH=/bin".to_owned()],
            cmd: Some(vec!["sh".to_owned()]),
            ..RunConfig::default()
        };
        let mut config = ImageConfig {
            architecture: query.platform.architecture.clone(),
            os: query.platform.os.clone(),
            variant: query.platform.variant.clone(),
            config: self.images.get(&name).cloned().unwrap_or(default),
            history: vec![History { created_by: format!("makes {name}"), ..History::default() }],
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = vec![DiffId(Digest::of(name.as_bytes()))];
        ImageFact { manifest: Digest::of(b"manifest"), target: Digest::of(b"index"), config }
    }

    fn compare(&self, rendered: &str) {
        let path = self.path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, rendered).expect("it can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(rendered, expected, "{}: run with BLESS=1 and read the diff", self.name);
    }
}

fn option(request: &mut Request, flag: &str, value: &str) {
    let pair = || value.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
    match flag {
        "--target" => request.target = Some(value.to_owned()),
        "--build-arg" => request.build_args.extend(pair()),
        "--build-context" => request.named_contexts.extend(pair()),
        "--label" => request.labels.extend(pair()),
        "--add-host" => request.add_hosts.extend(pair()),
        "--network" => request.network = Some(value.to_owned()),
        "--allow" => request.entitlements.push(value.to_owned()),
        "--no-cache" => request.no_cache = true,
        "--no-cache-filter" => request.no_cache_filter.push(value.to_owned()),
        "--shm-size" => request.shm_size = Some(value.parse().expect("bytes")),
        "--ulimit" => request.ulimits.push((value.to_owned(), 1024, -1)),
        "--cgroup-parent" => request.cgroup_parent = Some(value.to_owned()),
        "--platform" => {
            request.platform = Platform::parse(value, &request.build_platform).expect("one");
        }
        "--multi-platform" => request.multi_platform = true,
        "SOURCE_DATE_EPOCH" => request.source_date_epoch = Some(value.parse().expect("seconds")),
        _ => panic!("no such option: {flag}"),
    }
}

/// The one place that calls the planner: a change of its API changes this function and no fixture.
fn check(case: &Case) -> (String, Vec<PlanError>) {
    let mut out = Out(String::new());
    let (dockerfile, diagnostics) = parser::parse(&case.text);
    for it in &diagnostics {
        out.line(0, format_args!("parser: {it}"));
    }
    let mut request = case.request.clone();
    let epoch = planner::epoch::epoch_source(&dockerfile, &request).map_err(|it| vec![it]);
    let planned = epoch.and_then(|source| {
        if let Some(source) = source {
            // Whose time it is is looked up by the edge; here all have the same.
            out.line(0, format_args!("epoch of {}", source_text(&source)));
            request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "86400".to_owned());
        }
        let graph = planner::stages(&dockerfile, &request)?;
        let mut facts = Facts::default();
        loop {
            let needs = planner::needs(&graph, &facts)?;
            if needs.is_empty() {
                break;
            }
            let round: Vec<String> =
                needs.iter().map(|Need::Image(query)| query_text(query)).collect();
            out.line(0, format_args!("needs {}", round.join(", ")));
            for Need::Image(query) in needs {
                assert!(!facts.images.contains_key(&query), "{}: asked twice", case.name);
                facts.images.insert(query.clone(), case.fact(&query));
            }
        }
        let plan = planner::plan(&graph, &facts)?;
        assert_eq!(planner::plan(&graph, &facts), Ok(plan.clone()), "{}: not stable", case.name);
        Ok(plan)
    });
    match planned {
        Ok(plan) => {
            assert!(diagnostics.is_empty(), "{}: the parser must be content", case.name);
            check_plan(case, &plan);
            render(&mut out, case, &plan);
            (out.0, Vec::new())
        }
        Err(errors) => {
            for error in &errors {
                let start = parser::span::position(&case.text, error.span.start());
                let marked = &case.text[error.span.start()..error.span.end()];
                let marked: String = marked.chars().take(60).collect();
                let code = error.code();
                let at = format!("{}:{} {marked:?}", start.line, start.column);
                out.line(0, format_args!("error[{code}] {at}: {error}"));
                if let Some(hint) = &error.hint {
                    out.line(0, format_args!("hint: {hint}"));
                }
            }
            (out.0, errors)
        }
    }
}

/// What holds of every plan: steps refer to earlier ones, what is named is there, spans lie in the text.
fn check_plan(case: &Case, plan: &Plan) {
    let n_steps = plan.steps.len();
    let check_source = |source: &Source, limit: usize| match source {
        Source::Step(id) => assert!(id.0 < limit, "{}: {source:?} is not yet there", case.name),
        Source::Image(idx) => assert!(*idx < plan.images.len(), "{}: {source:?}", case.name),
        Source::Scratch | Source::Local(_) | Source::Git(_) | Source::Http(_) => {}
    };
    for (step_idx, step) in plan.steps.iter().enumerate() {
        assert!(case.text.get(step.span.start()..step.span.end()).is_some(), "{:?}", step.span);
        check_source(&step.parent, step_idx);
        match &step.op {
            Op::Copy(op) => op.items.iter().for_each(|it| match it {
                CopyItem::Paths { source, path, .. } => {
                    assert!(path.starts_with('/'), "{}: `{path}` is absolute", case.name);
                    check_source(source, step_idx);
                }
                CopyItem::Inline { .. } => {}
            }),
            Op::Run(op) => op.mounts.iter().for_each(|it| match it {
                MountOp::Bind { source, .. } | MountOp::Cache { seed: Some((source, _)), .. } => {
                    check_source(source, step_idx);
                }
                _ => {}
            }),
            Op::Mkdir(op) => assert!(op.path.len() > 1, "{}: the root is there", case.name),
        }
    }
    check_source(&plan.output, n_steps);
    let mut layers = Vec::new();
    for line in &plan.history {
        assert!(line.step.is_none() || !line.history.empty_layer, "{}: {line:?}", case.name);
        layers.extend(line.step);
    }
    assert!(layers.is_sorted() && layers.iter().all(|it| it.0 < n_steps), "{}", case.name);
}

/// One form of message: a lower-case fragment without a full stop. It may begin with a name.
fn check_message(it: &PlanError, name: &str) {
    for message in [it.to_string(), it.hint.clone().unwrap_or_default()] {
        assert!(!message.ends_with('.'), "{name}: `{message}` ends with a full stop");
        let is_lower = !message.chars().next().is_some_and(char::is_uppercase);
        let first = message.split(' ').next().unwrap_or_default();
        let is_name = first == first.to_uppercase();
        assert!(is_lower || is_name, "{name}: `{message}` starts with a capital");
    }
}

/// Collects lines.
struct Out(String);

impl Out {
    fn line(&mut self, depth: usize, text: std::fmt::Arguments<'_>) {
        let blank = "    ".repeat(depth);
        writeln!(self.0, "{blank}{text}").expect("writing to a String cannot fail");
    }

    /// A line for what is not as it is by default.
    fn field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(2, format_args!("{name} {value}"));
        }
    }
}

fn query_text(query: &ImageQuery) -> String {
    match &query.origin {
        ImageOrigin::Reference(reference) => format!("{reference} for {}", query.platform),
        ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout} for {}", query.platform),
    }
}

fn render(out: &mut Out, case: &Case, plan: &Plan) {
    let Plan { platform, images, steps, output, config, history, epoch } = plan;
    out.line(0, format_args!("platform {platform}"));
    if let Some(epoch) = epoch {
        out.line(0, format_args!("epoch {epoch}"));
    }
    for (image_idx, it) in images.iter().enumerate() {
        let line = parser::span::position(&case.text, it.span.start()).line;
        out.line(0, format_args!("image {image_idx}, line {line}: {}", query_text(&it.query)));
        out.line(1, format_args!("{}", it.name));
    }
    for (step_idx, step) in steps.iter().enumerate() {
        render_step(out, case, step_idx, step);
    }
    out.line(0, format_args!("output: {}", source_text(output)));
    out.line(0, format_args!("history:"));
    for it in history {
        let step = it.step.map_or("-".to_owned(), |step| step.0.to_string());
        let empty = if it.history.empty_layer { " (empty)" } else { "" };
        out.line(1, format_args!("{step} {:?}{empty}", it.history.created_by));
    }
    let config = serde_json::to_string_pretty(config).expect("a config is JSON");
    out.line(0, format_args!("config: {config}"));
}

fn render_step(out: &mut Out, case: &Case, step_idx: usize, step: &Step) {
    let Step { name, span, text: _, stage, parent, op, no_cache, platform } = step;
    let line = parser::span::position(&case.text, span.start()).line;
    out.line(0, format_args!("step {step_idx}, line {line}, on {}", source_text(parent)));
    out.line(1, format_args!("{name}"));
    out.line(1, format_args!("stage {stage:?}, {platform}"));
    if *no_cache {
        out.line(1, format_args!("no cache"));
    }
    match op {
        Op::Run(op) => render_run(out, op),
        Op::Copy(op) => render_copy(out, op),
        Op::Mkdir(MkdirOp { path, user }) => {
            out.line(1, format_args!("mkdir {path}"));
            out.field("user", user);
        }
    }
}

fn render_run(out: &mut Out, op: &RunOp) {
    let RunOp { args, env, proxy_env, cwd, user, script, mounts, .. } = op;
    let RunOp {
        network, insecure, hostname, extra_hosts, shm_size, ulimits, cgroup_parent, ..
    } = op;
    out.line(1, format_args!("run {args:?}"));
    for (name, value) in env.pairs() {
        out.line(2, format_args!("env {name}={value:?}"));
    }
    for (name, value) in proxy_env {
        out.line(2, format_args!("proxy {name}={value:?}"));
    }
    out.line(2, format_args!("cwd {cwd}"));
    out.field("user", user);
    if let Some((name, text)) = script {
        out.line(2, format_args!("script {name} {text:?}"));
    }
    for mount in mounts {
        out.line(2, format_args!("mount {mount:?}"));
    }
    out.line(2, format_args!("network {network:?}"));
    out.field("security", if *insecure { "insecure" } else { "" });
    out.field("hostname", if hostname == "buildkitsandbox" { "" } else { hostname });
    for (name, address) in extra_hosts {
        out.line(2, format_args!("host {name} {address}"));
    }
    out.field("shm", &shm_size.map(|it| it.to_string()).unwrap_or_default());
    for (name, soft, hard) in ulimits {
        out.line(2, format_args!("ulimit {name} {soft} {hard}"));
    }
    out.field("cgroup parent", cgroup_parent.as_deref().unwrap_or_default());
}

fn render_copy(out: &mut Out, op: &CopyOp) {
    let CopyOp { items, dest, chown, chmod, link, excludes } = op;
    out.line(1, format_args!("copy to {dest}"));
    for item in items {
        match item {
            CopyItem::Paths { source, path, written, parents, unpack, span: _ } => {
                let source = source_text(source);
                out.line(2, format_args!("{path:?} of {source}, written {written:?}"));
                if let Some(parents) = parents {
                    out.line(3, format_args!("{parents:?}"));
                }
                if *unpack {
                    out.line(3, format_args!("unpack"));
                }
            }
            CopyItem::Inline { name, data } => {
                out.line(2, format_args!("inline {name:?} {data:?}"));
            }
        }
    }
    out.field("chown", chown.as_deref().unwrap_or_default());
    out.field("chmod", &chmod.as_ref().map(|it| format!("{it:?}")).unwrap_or_default());
    out.field("link", if *link { "yes" } else { "" });
    for it in excludes {
        out.line(2, format_args!("exclude {it:?}"));
    }
}

fn source_text(source: &Source) -> String {
    match source {
        Source::Scratch => "nothing".to_owned(),
        Source::Image(image_idx) => format!("image {image_idx}"),
        Source::Step(id) => format!("step {}", id.0),
        Source::Local(name) => format!("context {name:?}"),
        Source::Git(git) => format!("{git:?}"),
        Source::Http(http) => format!("{http:?}"),
    }
}
