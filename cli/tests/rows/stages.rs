//! F: FROM, stages, which of them are needed, names of steps.

use image::{Platform, document::RunConfig};

use crate::ask::*;

#[test]
fn f1_words_and_names_of_from() {
    for (line, code) in [
        ("FROM a b", "from-arguments"),
        ("FROM a AS b c", "from-arguments"),
        ("FROM a IS b", "expected-as"),
        ("FROM a AS 1b", "invalid-stage-name"),
        ("FROM a AS b/c", "invalid-stage-name"),
    ] {
        assert_eq!(mistakes(&format!("{line}\n")), [code], "{line}");
    }
    parse("FROM a AS a-b_c.D1\n");
    // A stage hides the image of its name for later ones, not for itself.
    let text = "FROM busybox AS busybox\nRUN one\nFROM busybox\nRUN two\n";
    assert_eq!(asked(text, |_| {}), ["busybox linux/amd64"]);
    assert_eq!(runs(&plan(text)).len(), 2);
    assert!(asked("FROM scratch\nCOPY a /\n", |_| {}).is_empty(), "scratch is no image");
    let plan = plan("FROM scratch AS A\nCOPY x /\nFROM scratch\nCOPY --from=a /x /y\n");
    assert_eq!(plan.steps.len(), 2, "--from finds a name in any case");
}

#[test]
fn f2_platforms_of_from() {
    let text = concat!(
        "ARG p=linux/arm64\nFROM --platform=$p busybox AS a\nRUN one\nFROM a AS b\nRUN two\n",
        "FROM busybox\nCOPY --from=b /x /x\n",
    );
    let plan = plan(text);
    let platforms: Vec<_> = plan.steps.iter().map(|it| it.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/arm64", "linux/amd64"], "inherited by the child");
    let mut asked = asked(text, |_| {});
    asked.sort();
    assert_eq!(asked, ["busybox linux/amd64", "busybox linux/arm64"]);
    assert_eq!(mistakes("FROM --platform=a/b/c/d/e x\n"), ["invalid-platform"]);
    assert_eq!(mistakes("FROM --platform=$none x\n"), ["empty-platform"]);
    // A base of another platform is used, and linted.
    let other = |it: &mut With| {
        it.image("busybox", RunConfig::default());
        it.images.get_mut("busybox").expect("it is there").architecture = "s390x".to_owned();
    };
    assert_eq!(crate::ask::plan_with("FROM busybox\nRUN x\n", other).steps.len(), 1);
    let report = lint_with("FROM busybox\n", other, &[]);
    assert_eq!(findings(&report), ["1 InvalidBaseImagePlatform"]);
}

#[test]
fn f3_only_what_the_target_needs() {
    let text = concat!(
        "FROM one AS one\nRUN one\nFROM two AS two\nRUN two\nFROM three AS three\nRUN three\n",
        "FROM base AS base\nFROM busybox\nCOPY --from=two /x /\nRUN --mount=from=three,target=/m x\n",
    );
    assert_eq!(
        asked(text, |_| {}),
        ["busybox linux/amd64", "three linux/amd64", "two linux/amd64"]
            .map(str::to_owned)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    // Triggers show more needs, and those again.
    let text = "FROM a AS a\nFROM c AS unused\nFROM b\n";
    let triggers = |it: &mut With| {
        let trigger =
            |text: &str| RunConfig { on_build: vec![text.to_owned()], ..Default::default() };
        it.image("b", trigger("COPY --from=a /x /"));
        it.image("a", trigger("COPY --from=d /y /"));
    };
    assert_eq!(asked(text, triggers), ["b linux/amd64", "a linux/amd64", "d linux/amd64"]);
    assert_eq!(copies(&plan_with(text, triggers)).len(), 2);
    // The linter looks at all stages.
    assert_eq!(lint("FROM scratch AS Unused\nFROM scratch\n"), ["1 StageNameCasing"]);
}

#[test]
fn f4_targets_are_names() {
    let text = "FROM busybox AS One\nRUN one\nFROM busybox\nRUN two\nFROM scratch AS three\n";
    assert_eq!(runs(&plan_with(text, |it| it.target("oNE"))).len(), 1);
    assert!(plan(text).steps.is_empty(), "the last stage, which has only a FROM");
    for name in ["stage-1", "0", "1"] {
        assert_eq!(mistakes_with(text, |it| it.target(name)), ["unknown-target"], "{name}");
    }
    let errors = errors_with(text, |it| it.target("thre"));
    assert!(errors[0].hint.as_deref().is_some_and(|it| it.contains("three")), "{errors:?}");
    assert_eq!(
        names(&plan("FROM busybox\nRUN x\n")),
        ["[2/2] RUN x"],
        "a lonely stage has no name"
    );
}

#[test]
fn f5_order_duplicates_and_circles() {
    // FROM takes the stage above, --from the last of the name.
    let text = concat!(
        "FROM one AS x\nRUN one\nFROM x AS y\nRUN y\nFROM two AS x\nRUN two\n",
        "FROM scratch\nCOPY --from=x /a /a\nCOPY --from=1 /b /b\n",
    );
    let plan_1 = plan(text);
    let commands: Vec<_> = runs(&plan_1).iter().map(|it| it.args[2].clone()).collect();
    assert_eq!(commands, ["one", "y", "two"]);
    // FROM compares as it is written: with capitals it is no stage, and no image either.
    assert_eq!(mistakes("FROM scratch AS Base\nFROM Base\n"), ["invalid-reference"]);
    for (text, code) in [
        ("FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\n", "stage-defined-later"),
        ("FROM scratch AS a\nCOPY --from=1 /x /\nFROM scratch\n", "stage-defined-later"),
        ("FROM scratch AS a\nCOPY --from=a /x /\n", "circular-dependency"),
        ("FROM scratch AS a\nCOPY --from=7 /x /\n", "invalid-stage-index"),
    ] {
        assert_eq!(mistakes_with(text, |it| it.target("a")), [code], "{text}");
    }
    // An unknown name is an image.
    assert_eq!(asked("FROM scratch\nCOPY --from=nginx /x /\n", |_| {}), ["nginx linux/amd64"]);
}

#[test]
fn f6_config_of_the_base_is_inherited() {
    let base = |it: &mut With| {
        let text = r#"{"User": "u", "Env": ["A=1"], "WorkingDir": "/w", "Entrypoint": ["e"], "Cmd": ["c"], "Labels": {"l": "1"},
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "StopSignal": "9", "Shell": ["/bin/ash", "-c"],
            "Healthcheck": {"Test": ["CMD", "x"]}, "OnBuild": ["ENV T=1"]}"#;
        it.image("base", serde_json::from_str(text).expect("a config"));
    };
    let plan_1 = plan_with("FROM base\nRUN x\nWORKDIR y\n", base);
    let config = &plan_1.config.config;
    assert_eq!((&*config.user, &*config.working_dir, &*config.stop_signal), ("u", "/w/y", "9"));
    assert_eq!(config.cmd, Some(strings(["c"])));
    assert_eq!(config.entrypoint, Some(strings(["e"])));
    assert_eq!(config.shell, Some(strings(["/bin/ash", "-c"])));
    assert!(config.volumes.contains_key("/v") && config.exposed_ports.contains_key("80/tcp"));
    assert!(config.healthcheck.is_some() && config.on_build.is_empty());
    assert_eq!(image_env(&plan_1, "T"), Some("1"), "the trigger fired");
    let run = runs(&plan_1)[0];
    assert_eq!((&*run.args[0], &*run.cwd, &*run.user), ("/bin/ash", "/w", "u"));
    assert!(env(run, "PATH").is_some_and(|it| it.contains("/usr/local/sbin")), "injected");
    let scratch = plan("FROM scratch\nCOPY a /\n");
    assert!(image_env(&scratch, "PATH").is_some());
    assert_eq!(scratch.config.config.working_dir, "/");
}

#[test]
fn f7_a_stage_does_not_change_the_config_of_its_base() {
    let text = concat!(
        "FROM busybox AS base\nENV A=1\nLABEL l=1\nFROM base AS child\nENV A=2\nLABEL l=2 m=2\n",
        "FROM base\nRUN x\n",
    );
    let plan = plan(text);
    assert_eq!(image_env(&plan, "A"), Some("1"));
    assert_eq!(plan.config.config.labels.len(), 1);
    assert_eq!(plan.config.config.labels["l"], "1");
}

#[test]
fn f8_a_name_is_looked_up_once() {
    let text = "FROM busybox AS a\nRUN a\nFROM busybox:latest AS b\nRUN b\nFROM docker.io/library/busybox\nCOPY --from=a /x /\nCOPY --from=b /x /\n";
    assert_eq!(asked(text, |_| {}), ["busybox linux/amd64"]);
}

#[test]
fn f9_platforms_are_normalised() {
    for (written, expected) in [
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
    ] {
        let text = format!("FROM --platform={written} busybox\n");
        assert_eq!(asked(&text, |_| {}), [format!("busybox {expected}")], "{written}");
    }
    let host = Platform::new("linux", "amd64");
    let parsed = Platform::parse("linux/arm64/v8", &host).expect("a platform");
    assert_eq!(parsed.normalized().to_string(), "linux/arm64");
    let plan = plan_with("FROM scratch\nCOPY a /\n", |it| it.platform("linux/arm/v6"));
    let config = &plan.config;
    assert_eq!((&*config.os, &*config.architecture, &*config.variant), ("linux", "arm", "v6"));
}

#[test]
fn f10_names_of_steps() {
    let text = concat!(
        "FROM busybox AS build\nENV A=1\nCOPY a b /x/\nRUN echo $A \\\n  && b\nWORKDIR /w\n",
        "FROM scratch\nADD c /\nCOPY --link --from=build /x /y\n",
    );
    assert_eq!(
        names(&plan(text)),
        [
            "[build 2/4] COPY a b /x/",
            "[build 3/4] RUN echo 1   && b",
            "[build 4/4] WORKDIR /w",
            "[stage-1 1/2] ADD c /",
            "[stage-1 2/2] COPY --link --from=build /x /y",
        ]
    );
    let plan_1 = plan_with(text, |it| it.request.multi_platform = true);
    assert!(names(&plan_1)[0].starts_with("[linux/amd64 build 2/4]"), "{:?}", names(&plan_1));
    assert!(plan_1.images[0].name.contains("build 1/4] FROM"), "{}", plan_1.images[0].name);
    let cross = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nRUN a\nARG TARGETPLATFORM\nRUN b\n";
    let cross = plan_with(cross, |it| {
        it.platform("linux/arm/v7");
        it.request.multi_platform = true;
    });
    let expected = ["[linux/amd64->arm/v7 2/3] RUN a", "[linux/amd64->arm/v7 3/3] RUN b"];
    assert_eq!(names(&cross), expected);
    let triggers = "FROM busybox AS base\nONBUILD RUN a\nFROM base AS app\nRUN b\n";
    assert_eq!(names(&plan(triggers)), ["[app 1/2] ONBUILD RUN a", "[app 2/2] RUN b"]);
    let secret = "FROM busybox\nENV T=1 U=2\nRUN --mount=type=secret,id=t,env=T echo $T $U\n";
    assert!(names(&plan(secret))[0].ends_with("echo **** 2"), "{:?}", names(&plan(secret)));
}
