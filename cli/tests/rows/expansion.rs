//! V: variables, ARG and ENV.

use crate::ask::*;

/// Expands one word with `a=1`, `e=` (empty) and `p=/x/y/y.tar.gz`.
fn word(text: &str) -> String {
    let plan = plan(&format!("FROM scratch\nENV a=1 e= p=/x/y/y.tar.gz\nENV r={text}\n"));
    image_env(&plan, "r").expect("it is set").to_owned()
}

#[test]
fn v1_what_is_expanded_and_what_is_not() {
    let plan = plan(concat!(
        "ARG base=busybox\nFROM $base\n",
        "ENV v=x n=7\nWORKDIR /$v\nUSER $v\nEXPOSE 8$n\nVOLUME /$v\nSTOPSIGNAL $n\nLABEL $v=$n\n",
        "ARG d=$v-$n\n",
        "COPY --chown=$n:$n --chmod=0$n$n $v /$v/\n",
        "RUN --mount=type=cache,target=/$v,id=$d echo $v\n",
        "SHELL [\"$v\"]\nCMD echo $v\nENTRYPOINT [\"$v\"]\nHEALTHCHECK CMD $v\n",
    ));
    let config = &plan.config.config;
    assert_eq!((&*config.working_dir, &*config.user), ("/x", "x"));
    assert!(config.exposed_ports.contains_key("87/tcp") && config.volumes.contains_key("/x"));
    assert_eq!((&*config.stop_signal, &*config.labels["x"]), ("7", "7"));
    let copy = copies(&plan)[0];
    assert_eq!((copy.chown.as_deref(), &*copy.dest), (Some("7:7"), "/x/"));
    let run = runs(&plan)[0];
    assert_eq!(run.args[2], "echo $v");
    assert!(matches!(&run.mounts[0], planner::plan::MountOp::Cache { id, target, .. }
        if id == "x-7" && target == "/x"));
    assert_eq!(config.cmd, Some(strings(["$v", "echo $v"])));
    assert_eq!(config.entrypoint, Some(strings(["$v"])));
    assert_eq!(config.shell, Some(strings(["$v"])));
    for line in ["COPY --from=$x a b", "RUN --mount=from=$x,target=/a ls"] {
        let text = format!("ARG x=scratch\nFROM busybox\nARG x\n{line}\n");
        assert!(!mistakes(&text).is_empty(), "{line}");
    }
}

#[test]
fn v2_all_forms_of_substitution() {
    for (text, expected) in [
        ("$a", "1"),
        ("${a}b", "1b"),
        ("${u:-w}${e:-w}${a:-w}", "ww1"),
        ("${u-w}${e-w}${a-w}", "w1"),
        ("${u:+w}${e:+w}${a:+w}", "w"),
        ("${u+w}${e+w}${a+w}", "ww"),
        ("${a:?m}${a?m}", "11"),
        ("${p#*/}", "x/y/y.tar.gz"),
        ("${p##*/}", "y.tar.gz"),
        ("${p%.*}", "/x/y/y.tar"),
        ("${p%%.*}", "/x/y/y"),
        ("${p/y/z}", "/x/z/y.tar.gz"),
        ("${p//y/z}", "/x/z/z.tar.gz"),
        ("${p#/?/}", "y/y.tar.gz"),
        ("${u:-${e:-${a}}}", "1"),
        ("${u:-x-$a-y}", "x-1-y"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
    for text in ["${u:?m}", "${u?m}", "${e:?m}", "${a:#x}", "${a", "${}"] {
        let text = format!("FROM scratch\nENV a=1 e=\nENV r={text}\n");
        assert_eq!(mistakes(&text), ["expansion"], "{text}");
    }
    let errors = errors_with("FROM scratch\nENV r=\"${u:?is missing}\"\n", |_| {});
    assert!(errors[0].to_string().contains("is missing"), "{errors:?}");
}

#[test]
fn v3_quotes_and_escapes() {
    for (text, expected) in [
        ("'$a'", "$a"),
        ("\"$a\"", "1"),
        ("\"\\$a \\\" \\x\"", "$a \" \\x"),
        ("\\$a\\x", "$ax"),
        ("''", ""),
        ("a''b\"\"", "ab"),
        ("'a\"b'\"c'd\"", "a\"bc'd"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
    let plan = plan("# escape=`\nFROM scratch\nENV a=1\nENV r=`$a`\\b\"`$a\"\n");
    assert_eq!(image_env(&plan, "r"), Some("$a\\b$a"));
    assert_eq!(mistakes("FROM scratch\nWORKDIR '/a\n"), ["expansion"]);
}

#[test]
fn v4_lists_are_split_again_and_unset_is_empty() {
    let plan = plan(concat!(
        "FROM scratch\nENV ports=\"80 81/udp\" dirs=\"/a /b\"\n",
        "EXPOSE $ports\nVOLUME $dirs\nLABEL l=$ports\nWORKDIR /x$unset/y\nUSER u$unset\n",
    ));
    let config = &plan.config.config;
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "81/udp"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a /b"], "not split");
    assert_eq!(config.labels["l"], "80 81/udp");
    assert_eq!((&*config.working_dir, &*config.user), ("/x/y", "u"));
    // Names of steps keep what is not set.
    assert!(names(&plan)[0].ends_with("WORKDIR /x$unset/y"), "{:?}", names(&plan));
}

#[test]
fn v5_pairs_of_one_instruction_do_not_see_each_other() {
    let plan = plan("FROM scratch\nENV a=old\nENV a=new b=$a\nENV c=$a\nLABEL a=x b=$a\n");
    assert_eq!(image_env(&plan, "b"), Some("old"));
    assert_eq!(image_env(&plan, "c"), Some("new"));
    assert_eq!(plan.config.config.labels["b"], "new");
}

#[test]
fn v7_global_args_are_for_from_and_for_those_who_ask() {
    let text = concat!(
        "ARG a=busybox\nARG b=$a-$TARGETARCH\nFROM $a AS x\nRUN one $b\n",
        "FROM $a\nARG b\nRUN two\nARG a=other\nRUN three\n",
    );
    let plan_1 = plan_with(text, |it| it.target("x"));
    assert_eq!(env(runs(&plan_1)[0], "b"), None, "not declared in the stage");
    let plan_2 = plan(text);
    assert_eq!(env(runs(&plan_2)[0], "b"), Some("busybox-amd64"));
    assert_eq!(env(runs(&plan_2)[1], "a"), Some("other"), "its own default wins");
    assert_eq!(asked(text, |_| {}), ["busybox linux/amd64"]);
    assert_eq!(asked("ARG a\nFROM ${a:-alpine}\n", |it| it.arg("a", "x")), ["x linux/amd64"]);
}

#[test]
fn v8_order_decides_between_arg_and_env() {
    let text = concat!(
        "FROM busybox AS base\nARG a=1\nENV e=env\nRUN one\nARG e=arg\nRUN two\nENV a=env\nRUN three\n",
        "FROM base\nRUN four\n",
    );
    let check = |plan: &planner::plan::Plan, a: &str, e: &str| {
        let runs = runs(plan);
        assert_eq!((env(runs[0], "a"), env(runs[0], "e")), (Some(a), Some("env")));
        assert_eq!(env(runs[1], "e"), Some(e), "an ARG after ENV changes what RUN sees");
        assert_eq!(env(runs[2], "a"), Some("env"), "ENV after ARG wins");
        assert_eq!(env(runs[3], "e"), Some("env"), "a stage on this one starts from its config");
    };
    check(&plan(text), "1", "arg");
    check(
        &plan_with(text, |it| {
            it.arg("a", "given");
            it.arg("e", "given");
        }),
        "given",
        "given",
    );
    assert_eq!(image_env(&plan(text), "e"), Some("env"), "the image keeps ENV");
    // The build argument is stronger than the default, the default than the inherited global one.
    let text = "ARG a=global\nFROM busybox\nARG a=default\nRUN x\n";
    assert_eq!(env(runs(&plan(text))[0], "a"), Some("default"));
    assert_eq!(env(runs(&plan_with(text, |it| it.arg("a", "given")))[0], "a"), Some("given"));
    let text = "FROM busybox AS a\nARG x=1\nFROM a\nRUN x\n";
    assert_eq!(env(runs(&plan(text))[0], "x"), Some("1"), "inherited");
    // A stage that does not stand on the first does not see its ARG.
    let text = "FROM busybox AS a\nARG x=1\nRUN x\nFROM busybox\nCOPY --from=a /f /f\nRUN y\n";
    assert_eq!(env(runs(&plan(text))[1], "x"), None);
}

#[test]
fn v10_empty_and_unset_differ() {
    let text = "FROM busybox\nARG empty=\nARG unset\nRUN x\nENV a=${empty-w} b=${unset-w}\n";
    let plan = plan(text);
    let run = runs(&plan)[0];
    assert_eq!((env(run, "empty"), env(run, "unset")), (Some(""), None));
    assert_eq!((image_env(&plan, "a"), image_env(&plan, "b")), (Some(""), Some("w")));
    let plan = plan_with(text, |it| it.arg("unset", ""));
    assert_eq!(env(runs(&plan)[0], "unset"), Some(""));
}

#[test]
fn v11_platform_args() {
    let text = concat!(
        "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN no\n",
        "ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH TARGETSTAGE\nRUN yes\n",
        "ARG TARGETARCH=mine\nRUN mine\n",
    );
    let plan_1 = plan_with(text, |it| it.platform("linux/arm/v7"));
    let runs_1 = runs(&plan_1);
    assert_eq!(env(runs_1[0], "TARGETARCH"), None);
    for (name, value) in [
        ("TARGETPLATFORM", "linux/arm/v7"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "arm"),
        ("TARGETVARIANT", "v7"),
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDARCH", "amd64"),
    ] {
        assert_eq!(env(runs_1[1], name), Some(value), "{name}");
    }
    assert_eq!(env(runs_1[2], "TARGETARCH"), Some("mine"), "a default masks it");
    assert_eq!(asked(text, |it| it.platform("linux/arm/v7")), ["busybox linux/amd64"]);
    let stage = |with: &mut With| with.target("build");
    let plan_2 = plan_with(text, stage);
    assert_eq!(env(runs(&plan_2)[1], "TARGETSTAGE"), Some("build"));
    let one = plan("FROM busybox\nARG TARGETSTAGE\nRUN x\n");
    assert_eq!(env(runs(&one)[0], "TARGETSTAGE"), Some("default"));
    let plan_3 = plan_with(text, |it| it.arg("TARGETARCH", "given"));
    assert_eq!(env(runs(&plan_3)[1], "TARGETARCH"), Some("given"));
}

#[test]
fn v12_proxies_are_for_run_and_for_nothing_else() {
    let text = "FROM busybox\nRUN x\n";
    let given = |it: &mut With| {
        it.arg("HTTP_PROXY", "http://p");
        it.arg("no_proxy", "a,b");
    };
    let plan_1 = plan_with(text, given);
    let run = runs(&plan_1)[0];
    assert_eq!(env(run, "HTTP_PROXY"), None);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    for it in [
        pair("HTTP_PROXY", "http://p"),
        pair("http_proxy", "http://p"),
        pair("no_proxy", "a,b"),
        pair("NO_PROXY", "a,b"),
    ] {
        assert!(run.proxy_env.contains(&it), "{it:?} {:?}", run.proxy_env);
    }
    assert!(run.proxy_env.is_sorted(), "{:?}", run.proxy_env);
    assert_eq!(image_env(&plan_1, "HTTP_PROXY"), None);
    assert!(!history(&plan_1).concat().contains("http://p"));
    let plan_2 = plan_with("FROM busybox\nARG HTTP_PROXY\nRUN x\n", given);
    assert_eq!(
        env(runs(&plan_2)[0], "HTTP_PROXY"),
        Some("http://p"),
        "declared, it is like others"
    );
    assert!(history(&plan_2).concat().contains("http://p"));
}

#[test]
fn v13_special_arguments() {
    let text = "FROM busybox\nARG BUILDKIT_SBOM_SCAN_STAGE=true BUILDKIT_SBOM_SCAN_CONTEXT=true\nRUN --mount=type=cache,target=/c x\n";
    let plan_1 = plan_with(text, |it| {
        it.arg("BUILDKIT_SANDBOX_HOSTNAME", "box");
        it.arg("BUILDKIT_CACHE_MOUNT_NS", "team");
        it.arg("SOURCE_DATE_EPOCH", "42");
    });
    let run = runs(&plan_1)[0];
    assert_eq!(run.hostname, "box");
    assert_eq!(env(run, "BUILDKIT_SBOM_SCAN_STAGE"), None, "not in the environment");
    assert!(matches!(&run.mounts[0], planner::plan::MountOp::Cache { id, .. }
        if id.starts_with("team") && id.ends_with("/c")));
    assert_eq!(plan_1.epoch, Some(42));
    let plan_2 = plan(text);
    assert_eq!(runs(&plan_2)[0].hostname, "buildkitsandbox");
    let plan_3 = plan("ARG SOURCE_DATE_EPOCH=7\nFROM busybox\n");
    assert_eq!(plan_3.epoch, Some(7), "the file may say it");
    assert_eq!(
        mistakes_with("FROM scratch\n", |it| it.arg("SOURCE_DATE_EPOCH", "x")),
        ["invalid-epoch"]
    );
}

#[test]
fn v14_arguments_are_in_the_history() {
    let plan = plan_with("FROM busybox\nARG a=1\nARG b c=2\nRUN cmd  x\nCOPY f /\n", |it| {
        it.arg("b", "given")
    });
    let history = history(&plan);
    assert_eq!(
        history[1..],
        [
            "ARG a=1 (empty)",
            "ARG b=given c=2 (empty)",
            "RUN |3 a=1 b=given c=2 /bin/sh -c cmd  x # buildkit",
            "COPY f / # buildkit",
        ]
    );
}

#[test]
fn v15_several_arguments_of_a_line() {
    let plan = plan("FROM busybox\nARG a b=1 c=$b d=$a-$c\nRUN x\n");
    let run = runs(&plan)[0];
    assert_eq!((env(run, "c"), env(run, "d"), env(run, "a")), (Some("1"), Some("-1"), None));
}

#[test]
fn v6_names_of_windows_have_no_case() {
    let text = "FROM base\nENV Path=C:\\\\x;${PATH}\nENV a=1\nENV A=2\nENV b=${a}\n";
    let plan = plan_with(text, |it| {
        it.platform("windows/amd64");
        let env = strings(["path=C:\\base"]);
        it.image("base", image::document::RunConfig { env, ..Default::default() });
        let base = it.images.get_mut("base").expect("it is there");
        base.os = "windows".to_owned();
    });
    let names: Vec<_> = plan.config.config.env.iter().map(|it| it.to_lowercase()).collect();
    assert_eq!(names.iter().filter(|it| it.starts_with("path=")).count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|it| it.starts_with("a=")).count(), 1, "{names:?}");
    assert!(names.contains(&"b=2".to_owned()), "{names:?}");
}
