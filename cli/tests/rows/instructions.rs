//! I: instructions that change the config.

use image::document::RunConfig;
use planner::plan::{Op, Plan};

use crate::ask::*;

fn config(lines: &str) -> RunConfig {
    plan(&format!("FROM busybox\n{lines}\n")).config.config
}

fn on(base: &str, lines: &str) -> Plan {
    let base: RunConfig = serde_json::from_str(base).expect("a config");
    plan_with(&format!("FROM base\n{lines}\n"), |it| it.image("base", base))
}

#[test]
fn i1_workdir_joins_and_makes_folders() {
    let plan = plan(
        "FROM busybox\nWORKDIR a/\nUSER u\nWORKDIR b/../c//d/\nWORKDIR /\nWORKDIR ..\nRUN x\n",
    );
    let folders: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|it| match &it.op {
            Op::Mkdir(op) => Some((&*op.path, &*op.user)),
            _ => None,
        })
        .collect();
    assert_eq!(folders, [("/a", ""), ("/a/c/d", "u")], "none for the root");
    assert_eq!(plan.config.config.working_dir, "/");
    assert_eq!(history(&plan)[1], "WORKDIR /a");
}

#[test]
fn i2_user_is_kept_as_written() {
    for text in ["u", "7", "u:g", "7:8", "no such user"] {
        assert_eq!(config(&format!("USER {text}")).user, text);
    }
    assert_eq!(runs(&plan("FROM busybox\nUSER u:g\nRUN x\n"))[0].user, "u:g");
}

#[test]
fn i3_env_keeps_its_place() {
    let plan = plan("FROM busybox\nENV a=1 b=2\nENV a=3 c= d=x=y\nRUN x\nFROM busybox\n");
    assert!(image_env(&plan, "a").is_none());
    let env = config("ENV a=1 b=2\nENV a=3 c= d=x=y").env;
    assert_eq!(env, ["PATH=/bin", "a=3", "b=2", "c=", "d=x=y"]);
}

#[test]
fn i4_labels_are_overridden() {
    let plan = plan_with("FROM busybox\nLABEL z=1 a=1 \"a b\"=c\nLABEL z=2\n", |it| {
        it.request.labels.push(("a".to_owned(), "given".to_owned()));
    });
    let labels: Vec<_> =
        plan.config.config.labels.iter().map(|(a, b)| format!("{a}={b}")).collect();
    assert_eq!(labels, ["a=given", "a b=c", "z=2"]);
    assert!(!history(&plan).concat().contains("given"), "they are not in the history");
}

#[test]
fn i5_cmd_in_both_forms() {
    let shell = config("CMD a  $b");
    assert_eq!(shell.cmd, Some(strings(["/bin/sh", "-c", "a  $b"])));
    assert!(shell.args_escaped);
    let exec = config("CMD a\nCMD [\"$b\"]");
    assert_eq!(exec.cmd, Some(strings(["$b"])));
    assert!(exec.args_escaped, "the reference sets it for both");
    assert!(config("CMD []").cmd.is_none_or(|it| it.is_empty()));
}

#[test]
fn i6_entrypoint_drops_the_cmd_of_the_base() {
    let base = r#"{"Cmd": ["base"]}"#;
    let cmd = |lines: &str| on(base, lines).config.config.cmd;
    assert_eq!(cmd("ENTRYPOINT [\"e\"]"), None);
    assert_eq!(cmd("CMD [\"c\"]\nENTRYPOINT [\"e\"]"), Some(strings(["c"])));
    assert_eq!(cmd("ENTRYPOINT [\"e\"]\nCMD [\"c\"]"), Some(strings(["c"])));
    assert_eq!(cmd("ENV a=b"), Some(strings(["base"])));
    // Set in a stage of the file, it is inherited as from an image.
    let plan = plan("FROM busybox AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n");
    assert_eq!(plan.config.config.cmd, None);
}

#[test]
fn i7_expose_ranges_and_protocols() {
    let ports = |words: &str| {
        config(&format!("EXPOSE {words}")).exposed_ports.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(ports("80 81/UDP 82-83/sctp"), ["80/tcp", "81/udp", "82/sctp", "83/sctp"]);
    assert_eq!(ports("127.0.0.1:8080:80"), ["80/tcp"]);
    for text in ["80/http", "x", "90-80", "70000"] {
        assert_eq!(mistakes(&format!("FROM busybox\nEXPOSE {text}\n")), ["invalid-port"], "{text}");
    }
    assert!(
        history(&plan("FROM busybox\nEXPOSE 90 80\n"))[1].starts_with("EXPOSE [80/tcp 90/tcp]")
    );
}

#[test]
fn i8_volumes() {
    let volumes =
        |words: &str| config(&format!("VOLUME {words}")).volumes.into_keys().collect::<Vec<_>>();
    assert_eq!(volumes("/a /b"), ["/a", "/b"]);
    assert_eq!(volumes(r#"["/a b", "/c"]"#), ["/a b", "/c"]);
    assert_eq!(mistakes("FROM busybox\nVOLUME [\"\"]\n"), ["empty-volume"]);
    assert_eq!(mistakes("FROM busybox\nVOLUME [\" \"]\n"), ["empty-volume"]);
}

#[test]
fn i9_healthcheck() {
    let check = |line: &str| config(&format!("HEALTHCHECK {line}")).healthcheck.expect("one");
    assert_eq!(check("NONE").test, ["NONE"]);
    let it = check(
        "--interval=1m30s --timeout=1ms --start-period=0 --start-interval=2s --retries=3 CMD a $b",
    );
    assert_eq!(it.test, ["CMD-SHELL", "a $b"]);
    assert_eq!((it.interval, it.timeout, it.start_period), (90_000_000_000, 1_000_000, 0));
    assert_eq!((it.start_interval, it.retries), (2_000_000_000, 3));
    assert_eq!(check("CMD [\"a\", \"b\"]").test, ["CMD", "a", "b"]);
    assert_eq!(
        config("HEALTHCHECK CMD a\nHEALTHCHECK CMD b").healthcheck.expect("one").test[1],
        "b"
    );
    for (line, code) in [
        ("--interval=1us CMD a", "short-duration"),
        ("--interval=$X CMD a", "invalid-duration"),
        ("--retries=-1 CMD a", "invalid-retries"),
        ("NONE a", "healthcheck-none"),
        ("CMD", "healthcheck-command"),
        ("TRY a", "healthcheck-kind"),
    ] {
        assert_eq!(mistakes(&format!("FROM busybox\nHEALTHCHECK {line}\n")), [code], "{line}");
    }
}

#[test]
fn i10_stopsignal() {
    for text in ["SIGTERM", "KILL", "9", "SIGRTMIN+3"] {
        assert_eq!(config(&format!("STOPSIGNAL {text}")).stop_signal, text);
    }
    for text in ["SIGNONE", "0", "x"] {
        assert_eq!(mistakes(&format!("FROM busybox\nSTOPSIGNAL {text}\n")), ["invalid-signal"]);
    }
    assert_eq!(config("ENV s=9\nSTOPSIGNAL $s").stop_signal, "9");
}

#[test]
fn i11_shell_changes_what_follows() {
    let text = concat!(
        "FROM busybox AS a\nRUN one\nSHELL [\"/bin/x\", \"-y\"]\nRUN two\nCMD three\nENTRYPOINT four\n",
        "HEALTHCHECK CMD five\nFROM a\nRUN six\n",
    );
    let plan = plan(text);
    let firsts: Vec<_> = runs(&plan).iter().map(|it| it.args[0].clone()).collect();
    assert_eq!(firsts, ["/bin/sh", "/bin/x", "/bin/x"]);
    let config = &plan.config.config;
    assert_eq!(config.cmd, Some(strings(["/bin/x", "-y", "three"])));
    assert_eq!(config.entrypoint, Some(strings(["/bin/x", "-y", "four"])));
    assert_eq!(config.healthcheck.as_ref().expect("one").test, ["CMD-SHELL", "five"]);
    assert_eq!(config.shell, Some(strings(["/bin/x", "-y"])));
    assert_eq!(mistakes("FROM busybox\nSHELL []\n"), ["missing-argument"]);
    assert_eq!(mistakes("FROM busybox\nSHELL /bin/x\n"), ["shell-not-json"]);
}

#[test]
fn i12_onbuild_is_text_until_it_fires() {
    let found = config("ONBUILD run  echo $A\nONBUILD COPY <<EOF /x\nhi\nEOF\nONBUILD ENV A=B");
    assert_eq!(found.on_build[0], "run  echo $A");
    assert!(found.on_build[1].starts_with("COPY <<EOF /x\nhi\nEOF"), "{:?}", found.on_build);
    for (line, code) in [
        ("ONBUILD ONBUILD RUN x", "invalid-trigger"),
        ("ONBUILD FROM x", "invalid-trigger"),
        ("ONBUILD MAINTAINER x", "invalid-trigger"),
    ] {
        assert_eq!(mistakes(&format!("FROM busybox\n{line}\n")), [code], "{line}");
    }
    // In order, right after FROM, once, and also for stages of the file.
    let text = concat!(
        "FROM busybox AS base\nENV A=0\nONBUILD ENV A=1\nONBUILD RUN first $A\nONBUILD COPY --from=tools /t /t\n",
        "FROM busybox AS tools\nRUN tools\nFROM base AS child\nRUN second\nFROM child\nRUN third\n",
    );
    let plan = plan(text);
    let commands: Vec<_> = runs(&plan).iter().map(|it| it.args[2].clone()).collect();
    assert_eq!(commands.iter().filter(|it| it.starts_with("first")).count(), 1, "{commands:?}");
    let at = |text: &str| commands.iter().position(|it| it.starts_with(text)).expect("it is there");
    assert!(at("first") < at("second") && at("second") < at("third"), "{commands:?}");
    assert_eq!(env(runs(&plan)[at("first")], "A"), Some("1"));
    assert!(plan.config.config.on_build.is_empty());
    assert_eq!(copies(&plan).len(), 1, "the stage is one of the child's file");
}

#[test]
fn i13_maintainer_is_the_author() {
    assert_eq!(plan("FROM busybox\nMAINTAINER Me <me@x>\n").config.author, "Me <me@x>");
}

#[test]
fn i14_the_history_has_a_line_for_each_instruction() {
    let plan = plan_with(
        "FROM base\nENV a=1\nWORKDIR /w\nCOPY a /b\nRUN c\nUSER u\nLABEL x=y\nCMD [\"z\"]\nVOLUME /v\n",
        |it| {
            it.image("base", RunConfig::default());
            let base = it.images.get_mut("base").expect("it is there");
            (base.os_version, base.variant) = ("1.2".to_owned(), String::new());
        },
    );
    assert_eq!(
        history(&plan),
        [
            "makes base",
            "ENV a=1 (empty)",
            "WORKDIR /w",
            "COPY a /b # buildkit",
            "RUN /bin/sh -c c # buildkit",
            "USER u (empty)",
            "LABEL x=y (empty)",
            "CMD [\"z\"] (empty)",
            "VOLUME [/v] (empty)",
        ]
    );
    assert!(plan.history[1..].iter().all(|it| it.history.comment == "buildkit.dockerfile.v0"));
    assert_eq!(plan.config.os_version, "1.2");
}
