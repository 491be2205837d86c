//! Golden keys: a step that is known today must be known tomorrow, or [`KEY_VERSION`] must say otherwise.
//!
//! Each Dockerfile of `testdata/executor/keys` is planned; COPY and WORKDIR are done, RUN is only asked for its key and
//! takes a made-up layer for its result. What is in the context and in the base image is made here. `BLESS=1` writes the
//! expectations, but never other keys under the same version.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use image::{
    Digest, Platform,
    document::{ImageConfig, RunConfig},
};
use planner::{
    facts::{ImageFact, Need},
    request::Request,
};

use super::*;
use crate::{context::Context, key::KEY_VERSION};

#[test]
fn keys_do_not_change() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/executor/keys");
    let mut n_cases = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        match path.extension().and_then(|it| it.to_str()) {
            Some("dockerfile") => {
                n_cases += 1;
                compare(&path, &keys(&fs::read_to_string(&path).expect("it is text")));
            }
            Some("expected") => {
                let of = path.with_extension("dockerfile");
                assert!(of.exists(), "{}: there is no Dockerfile for it", path.display());
            }
            _ => panic!("{}: no test claims it", path.display()),
        }
    }
    assert_ne!(n_cases, 0, "there are no cases");
}

fn compare(case: &Path, found: &str) {
    let path = case.with_extension("expected");
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if found == expected {
        return;
    }
    let version = |text: &str| text.lines().next().map(ToOwned::to_owned);
    let may_change = expected.is_empty() || version(found) != version(&expected);
    if may_change && std::env::var_os("BLESS").is_some() {
        fs::write(&path, found).expect("it can be written");
        return;
    }
    assert_eq!(
        found,
        expected,
        "{}: every cache on disk is lost; if it must be, bump KEY_VERSION, then run with BLESS=1",
        case.display()
    );
}

/// Everything that ends up in a key, made the same on every machine.
struct Scene {
    home: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { home: tempfile::tempdir().expect("a folder") };
        let context = scene.context();
        fs::create_dir_all(context.join("dir/sub")).expect("made");
        for (name, text, mode) in
            [("a", "alpha", 0o644), ("dir/b", "beta", 0o755), ("dir/sub/c", "", 0o600)]
        {
            let path = context.join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        }
        std::os::unix::fs::symlink("b", context.join("dir/link")).expect("made");
        for name in ["a", "dir/b", "dir/sub/c", "dir/sub", "dir"] {
            let path = context.join(name);
            if path.is_dir() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            fs::File::open(&path).and_then(|it| it.set_modified(time)).expect("set");
        }
        scene
    }

    fn context(&self) -> PathBuf {
        self.home.path().join("context")
    }

    fn session(&self) -> Session {
        let store = cache::Store::open(&self.home.path().join("store")).expect("a store");
        let credentials = registry::Credentials::none();
        let client = registry::Client::new(registry::Config::default(), credentials);
        let mut session = Session::new(store, client);
        let context = Context::folder(&session, &self.context(), vec!["ignored".to_owned()]);
        session.contexts.insert("context".to_owned(), context.expect("it is there"));
        // A link has the time it was made at, which must not show in a layer.
        session.clamp_times = true;
        session
    }
}

fn plan(text: &str) -> (Plan, Facts) {
    let (dockerfile, diagnostics) = parser::parse(text);
    assert_eq!(diagnostics, []);
    let amd64 = Platform::new("linux", "amd64");
    let request = Request {
        platform: amd64.clone(),
        build_platform: amd64,
        source_date_epoch: Some(1_000_000_000),
        build_args: [("HTTP_PROXY".to_owned(), "http://proxy".to_owned())].into(),
        add_hosts: vec![("db".to_owned(), "10.0.0.7".to_owned())],
        ..Request::default()
    };
    let graph = planner::stages(&dockerfile, &request).expect("it has stages");
    let mut facts = Facts::default();
    for need in planner::needs(&graph, &facts).expect("it has needs") {
        let Need::Image(query) = need;
        let mut config = ImageConfig {
            config: RunConfig { env: vec!["PATH=/bin".to_owned()], ..RunConfig::default() },
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = vec![DiffId(Digest::of(b"base"))];
        facts.images.insert(
            query,
            ImageFact { manifest: Digest::of(b"manifest"), target: Digest::of(b"index"), config },
        );
    }
    (planner::plan(&graph, &facts).expect("it has a plan"), facts)
}

fn keys(text: &str) -> String {
    let scene = Scene::new();
    let session = scene.session();
    let (plan, facts) = plan(text);
    let execution = Execution::new(&session, &plan, &facts);
    let mut out = format!("version {KEY_VERSION}\n");
    for (step_idx, step) in plan.steps.iter().enumerate() {
        writeln!(out, "{}", step.name).expect("writing to a String cannot fail");
        let mut keys = match &step.op {
            Op::Run(op) => run_keys(&execution, StepId(step_idx), step, op),
            Op::Copy(_) | Op::Mkdir(_) => {
                execution.step(StepId(step_idx)).expect("it can be done");
                let records = session.store.steps().expect("they can be listed").into_iter();
                let of_step = records.filter(|it| it.description == step.name);
                of_step.map(|it| (it.key, it.recipe)).collect()
            }
        };
        keys.sort_by_key(|(_, recipe)| recipe["kind"].to_string());
        for (key, recipe) in keys {
            writeln!(out, "    {key}\n        {recipe}").expect("writing to a String cannot fail");
        }
    }
    out
}

fn run_keys(
    execution: &Execution<'_>,
    id: StepId,
    step: &Step,
    op: &planner::plan::RunOp,
) -> Vec<(StepKey, serde_json::Value)> {
    let parent = execution.chain(&step.parent).expect("it is done");
    let task = execution.session.later_task("a run");
    let fast = execution.run_key(step, op, &parent, None, &task);
    let slow = execution.run_key(step, op, &parent, Some(&mut Vec::new()), &task);
    let keys = [fast, slow].map(|it| it.expect("it has a key"));
    let diff_id = DiffId(Digest::of(step.name.as_bytes()));
    let layer = StepLayer { layer: Some(diff_id), created: Timestamp { secs: 0, nanos: 0 } };
    let _ = execution.results[id.0].set(StepResult {
        chain: parent.with(diff_id),
        layer,
        is_known: false,
    });
    keys.into_iter().flatten().collect()
}

/// Does the steps of a plan of which all are COPY or WORKDIR, and exports the image with gzip.
fn exported(text: &str, compression: Option<Compression>) -> (registry::Export, Vec<bool>) {
    let scene = Scene::new();
    let mut session = scene.session();
    session.compression = compression;
    let (plan, facts) = plan(text);
    let execution = Execution::new(&session, &plan, &facts);
    let mut has_tar = Vec::new();
    for step_idx in 0..plan.steps.len() {
        execution.step(StepId(step_idx)).expect("it can be done");
        let layer = execution.results[step_idx].get().and_then(|it| it.layer.layer);
        let layer = layer.expect("it has a layer");
        has_tar.push(session.store.has_blob(&layer.0).expect("a look"));
    }
    let built = execution.finish().expect("an image");
    let options =
        crate::ExportOptions { compression: Some(Compression::GZIP), ..Default::default() };
    (session.export(&[built], &options).expect("an export"), has_tar)
}

#[test]
fn what_is_only_shipped_has_no_tar_and_the_same_blob() {
    let text = "FROM scratch AS one\nCOPY a /a\nCOPY dir /dir\n\
                FROM scratch\nWORKDIR /w\nCOPY --from=one /dir ./\nCOPY a b\n";
    let (at_once, has_tar) = exported(text, Some(Compression::GZIP));
    assert_eq!(has_tar, [true, true, false, false, false], "the first two are read by a COPY");
    let (later, has_tar) = exported(text, None);
    assert_eq!(has_tar, [true; 5]);
    let digests = |it: &registry::Export| it.root_descriptor().expect("a manifest").digest;
    assert_eq!(digests(&at_once), digests(&later));
}
