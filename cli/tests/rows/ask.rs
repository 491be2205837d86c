//! Text in, answer out: what the other modules ask parser, planner and linter.

use std::collections::BTreeMap;

use image::{
    DiffId, Digest, Platform,
    document::{History, ImageConfig, RunConfig},
};
use parser::{
    Diagnostic,
    ast::{Dockerfile, Kind},
};
use planner::{
    PlanError,
    facts::{Facts, ImageFact, ImageOrigin, ImageQuery, Need},
    lint::{Images, LintReport, Subject},
    outline::Outline,
    plan::{CopyOp, Op, Plan, RunOp},
    request::Request,
    targets::Targets,
};

/// What a file is planned with: the command line, and base images other than the usual one.
pub(crate) struct With {
    pub(crate) request: Request,
    pub(crate) images: BTreeMap<&'static str, ImageConfig>,
}

impl With {
    fn new() -> Self {
        let amd64 = Platform::new("linux", "amd64");
        let request =
            Request { platform: amd64.clone(), build_platform: amd64, ..Request::default() };
        Self { request, images: BTreeMap::new() }
    }

    pub(crate) fn target(&mut self, name: &str) {
        self.request.target = Some(name.to_owned());
    }

    pub(crate) fn arg(&mut self, name: &str, value: &str) {
        self.request.build_args.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn platform(&mut self, text: &str) {
        self.request.platform =
            Platform::parse(text, &self.request.build_platform).expect("a platform");
    }

    /// Gives a base image this config.
    pub(crate) fn image(&mut self, name: &'static str, config: RunConfig) {
        let amd64 = &self.request.build_platform;
        self.images.insert(name, config_of(name, amd64, config));
    }
}

fn config_of(name: &str, platform: &Platform, config: RunConfig) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config,
        history: vec![History { created_by: format!("makes {name}"), ..History::default() }],
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = vec![DiffId(Digest::of(name.as_bytes()))];
    config
}

/// The name of an image as a Dockerfile would write it.
pub(crate) fn name_of(query: &ImageQuery) -> String {
    match &query.origin {
        ImageOrigin::Reference(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout}"),
    }
}

/// Parses what must be right.
pub(crate) fn parse(text: &str) -> Dockerfile {
    let (dockerfile, mistakes) = parser::parse(text);
    assert!(mistakes.is_empty(), "{mistakes:?}\n{text}");
    dockerfile
}

/// What the last instruction of a file says, which must be right.
pub(crate) fn last(text: &str) -> Kind {
    parse(text).instructions.pop().expect("an instruction").kind
}

/// What the last instruction of a stage says.
pub(crate) fn in_stage(instruction: &str) -> Kind {
    last(&format!("FROM scratch\n{instruction}\n"))
}

/// The mistakes of a file that must have some.
pub(crate) fn diagnostics(text: &str) -> Vec<Diagnostic> {
    let (_, mistakes) = parser::parse(text);
    assert!(!mistakes.is_empty(), "expected a mistake\n{text}");
    mistakes
}

/// What a file comes to, with which base images were asked for, in order.
fn planned(text: &str, with: &With) -> Result<(Plan, Vec<String>), Vec<PlanError>> {
    let graph = planner::stages(&parse(text), &with.request)?;
    let (mut facts, mut asked) = (Facts::default(), Vec::new());
    loop {
        let needs = planner::needs(&graph, &facts)?;
        if needs.is_empty() {
            return Ok((planner::plan(&graph, &facts)?, asked));
        }
        for Need::Image(query) in needs {
            let name = name_of(&query);
            let config = with.images.get(&*name).cloned().unwrap_or_else(|| {
                let env = vec!["PATH=/bin".to_owned()];
                let cmd = Some(vec!["sh".to_owned()]);
                config_of(&name, &query.platform, RunConfig { env, cmd, ..RunConfig::default() })
            });
            asked.push(format!("{name} {}", query.platform));
            facts.images.insert(
                query,
                ImageFact {
                    manifest: Digest::of(b"manifest"),
                    target: Digest::of(b"index"),
                    config,
                },
            );
        }
    }
}

/// Plans what must be right.
pub(crate) fn plan(text: &str) -> Plan {
    plan_with(text, |_| {})
}

pub(crate) fn plan_with(text: &str, change: impl FnOnce(&mut With)) -> Plan {
    let mut with = With::new();
    change(&mut with);
    planned(text, &with).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")).0
}

/// The base images a build asks for, each with its platform.
pub(crate) fn asked(text: &str, change: impl FnOnce(&mut With)) -> Vec<String> {
    let mut with = With::new();
    change(&mut with);
    planned(text, &with).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")).1
}

/// The codes of all mistakes of a file that must have some: the parser's, or if it is content the planner's.
pub(crate) fn mistakes(text: &str) -> Vec<&'static str> {
    mistakes_with(text, |_| {})
}

pub(crate) fn mistakes_with(text: &str, change: impl FnOnce(&mut With)) -> Vec<&'static str> {
    let (_, found) = parser::parse(text);
    if !found.is_empty() {
        return found.iter().map(Diagnostic::code).collect();
    }
    errors_with(text, change).iter().map(PlanError::code).collect()
}

/// The mistakes that only the planner sees.
pub(crate) fn errors_with(text: &str, change: impl FnOnce(&mut With)) -> Vec<PlanError> {
    let mut with = With::new();
    change(&mut with);
    match planned(text, &with) {
        Ok((plan, _)) => panic!("expected a mistake\n{text}\n{plan:?}"),
        Err(errors) => errors,
    }
}

/// The RUN steps of a plan.
pub(crate) fn runs(plan: &Plan) -> Vec<&RunOp> {
    plan.steps
        .iter()
        .filter_map(|it| match &it.op {
            Op::Run(op) => Some(op),
            _ => None,
        })
        .collect()
}

/// The COPY and ADD steps of a plan.
pub(crate) fn copies(plan: &Plan) -> Vec<&CopyOp> {
    plan.steps
        .iter()
        .filter_map(|it| match &it.op {
            Op::Copy(op) => Some(op),
            _ => None,
        })
        .collect()
}

/// The names of the steps of a plan.
pub(crate) fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|it| &*it.name).collect()
}

/// The history of a plan; lines without a layer end in ` (empty)`.
pub(crate) fn history(plan: &Plan) -> Vec<String> {
    let text = |it: &History| match it.empty_layer {
        true => format!("{} (empty)", it.created_by),
        false => it.created_by.clone(),
    };
    plan.history.iter().map(|it| text(&it.history)).collect()
}

/// The value of a variable of a RUN.
pub(crate) fn env<'a>(op: &'a RunOp, name: &str) -> Option<&'a str> {
    op.env.value(name)
}

/// The value of a variable of the image.
pub(crate) fn image_env<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    let mut pairs = plan.config.config.env.iter().filter_map(|it| it.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Strings, for comparisons.
pub(crate) fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Calls `ask` with all that there is to say of a file.
fn subject<T>(
    text: &str,
    change: impl FnOnce(&mut With),
    ignored: &[String],
    ask: impl FnOnce(&Subject<'_>) -> T,
) -> T {
    let mut with = With::new();
    change(&mut with);
    let (dockerfile, diagnostics) = parser::parse(text);
    let images: Images = with
        .images
        .into_iter()
        .map(|(name, config)| {
            let tagged =
                if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
            let reference = tagged.parse().expect("a reference");
            let platform = with.request.platform.clone();
            (ImageQuery { origin: ImageOrigin::Reference(reference), platform }, Ok(config))
        })
        .collect();
    ask(&Subject {
        dockerfile: &dockerfile,
        diagnostics: &diagnostics,
        text,
        request: &with.request,
        ignored,
        images: &images,
    })
}

pub(crate) fn lint_with(
    text: &str,
    change: impl FnOnce(&mut With),
    ignored: &[&str],
) -> LintReport {
    let ignored: Vec<String> = ignored.iter().map(|&it| it.to_owned()).collect();
    subject(text, change, &ignored, |it| planner::lint::check(it, "Dockerfile"))
}

/// What the linter says of a file: `LINE RULE`.
pub(crate) fn lint(text: &str) -> Vec<String> {
    findings(&lint_with(text, |_| {}, &[]))
}

/// The findings of a report: `LINE RULE`.
pub(crate) fn findings(report: &LintReport) -> Vec<String> {
    report.warnings.iter().map(|it| format!("{} {}", it.location.line(), it.rule_name)).collect()
}

pub(crate) fn outline(text: &str, change: impl FnOnce(&mut With)) -> Outline {
    subject(text, change, &[], |it| planner::outline::outline(it).expect("an outline"))
}

pub(crate) fn targets(text: &str) -> Targets {
    subject(text, |_| {}, &[], |it| planner::targets::targets(it).expect("targets"))
}
