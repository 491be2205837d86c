//! Times parsing and planning on generated Dockerfiles, each longer than the one before.
//!
//! `bench/plan` runs it. A file has ten instructions for each stage: stages start from others or from an image, copy from
//! others by name and by number, declare and use arguments, and set variables that they inherit. What counts is the time on the
//! processor, where the kernel says it, and the fastest of a few runs: what the machine disturbed least.

use std::{fmt::Write as _, sync::OnceLock, time::Duration};

use image::{Digest, Platform, document::ImageConfig};
use planner::{
    facts::{Facts, ImageFact, Need},
    request::Request,
};

/// What a file of 5,000 instructions and 500 stages may take.
const LIMIT: Duration = Duration::from_millis(50);
/// How much longer a stage may take in a longer file before that is called more than linear: what no longer fits the caches takes
/// its time, once.
const GROWTH: u32 = 2;

fn main() {
    let mut before: Option<(u32, Duration)> = None;
    let mut failed = false;
    println!("instructions  stages     parse    stages      plan     total");
    for n_stages in [500, 5_000, 10_000] {
        let text = dockerfile(n_stages as usize);
        let runs = (0..7).map(|_| run(&text));
        let Some((n_instructions, times)) = runs.min_by_key(|it| it.1.iter().sum::<Duration>())
        else {
            return;
        };
        let total: Duration = times.iter().sum();
        let [parse, stages, plan] = times.map(milliseconds);
        println!(
            "{n_instructions:>12} {n_stages:>7} {parse:>9} {stages:>9} {plan:>9} {:>9}",
            milliseconds(total)
        );
        if n_stages == 500 && total > LIMIT {
            println!("failed: more than {} ms", LIMIT.as_millis());
            failed = true;
        }
        if before.is_some_and(|(n_before, before)| total > before * (n_stages / n_before) * GROWTH)
        {
            println!("failed: a stage took more than {GROWTH} times as long as in the file before");
            failed = true;
        }
        before = Some((n_stages, total));
    }
    if failed {
        std::process::exit(1);
    }
}

/// How long this thread has been on a processor, or else how late it is.
fn now() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match text.split(' ').next().and_then(|it| it.parse().ok()) {
        Some(nanos) => Duration::from_nanos(nanos),
        None => START.get_or_init(std::time::Instant::now).elapsed(),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Stages in the forms that people write them in, ten instructions each.
fn dockerfile(n_stages: usize) -> String {
    let mut text = String::new();
    for stage in 0..n_stages {
        // Chains of ten stages on top of each other, so that a stage inherits at most what ten have set.
        match stage % 10 {
            0 => _ = writeln!(text, "FROM docker.io/library/base:{} AS stage{stage}", stage % 7),
            _ => _ = writeln!(text, "FROM stage{} AS Stage{stage}", stage - 1),
        }
        let from = stage.saturating_sub(10);
        _ = writeln!(text, "ARG VERSION_{stage}=1.{stage} TARGETARCH");
        _ = writeln!(
            text,
            "ENV HOME_{stage}=/srv/${{VERSION_{stage}}} \\\n    NAME_{stage}=\"a b\""
        );
        _ = writeln!(text, "WORKDIR ${{HOME_{stage}:-/srv}}");
        _ = writeln!(text, "COPY --chown=1000:1000 src/{stage}/*.c include ./");
        match stage {
            0 => _ = writeln!(text, "COPY first ."),
            _ => _ = writeln!(text, "COPY --from=stage{from} /srv/out{from} ./in/"),
        }
        _ = writeln!(
            text,
            "RUN --mount=type=cache,target=/cache --mount=from=alpine,target=/a make"
        );
        _ = writeln!(text, "LABEL org.example.stage{stage}=$VERSION_{stage}");
        _ = writeln!(text, "RUN <<EOF\nset -e\necho ${{VERSION_{stage}}}\nEOF");
        match stage {
            0 => _ = writeln!(text, "CMD [\"sh\", \"-c\", \"true\"]"),
            _ => {
                _ = writeln!(
                    text,
                    "COPY --from={from} --link --chmod=0755 /bin/tool /bin/tool{stage}"
                )
            }
        }
    }
    // The last one needs all of them, so that nothing is left out.
    _ = writeln!(text, "FROM scratch");
    for stage in 0..n_stages {
        _ = writeln!(text, "COPY --from=stage{stage} /srv/out /out/{stage}/");
    }
    text
}

fn run(text: &str) -> (usize, [Duration; 3]) {
    let platform = Platform::new("linux", "amd64");
    let request =
        Request { platform: platform.clone(), build_platform: platform, ..Request::default() };

    let start = now();
    let (dockerfile, diagnostics) = parser::parse(text);
    let parsed = now() - start;
    assert_eq!(diagnostics, [], "the file is right");

    let start = now();
    let graph = planner::stages(&dockerfile, &request).expect("the stages are right");
    let mut facts = Facts::default();
    loop {
        let needs = planner::needs(&graph, &facts).expect("there are no triggers");
        if needs.is_empty() {
            break;
        }
        for Need::Image(query) in needs {
            let config = ImageConfig::default();
            facts.images.insert(
                query,
                ImageFact { manifest: Digest::of(b""), target: Digest::of(b""), config },
            );
        }
    }
    let staged = now() - start;

    let start = now();
    let plan = planner::plan(&graph, &facts).expect("the plan is right");
    let planned = now() - start;
    assert!(plan.steps.len() > dockerfile.instructions.len() / 2, "all stages are needed");
    (dockerfile.instructions.len(), [parsed, staged, planned])
}
