//! The rules of the linter and what a build is asked instead of built: lines and names are those of the reference.

use crate::ask::*;

#[test]
fn lint_stage_name_casing() {
    assert_eq!(lint("FROM scratch AS Base\n"), ["1 StageNameCasing"]);
    assert!(lint("FROM scratch AS base\n").is_empty());
}

#[test]
fn lint_from_as_casing() {
    assert_eq!(lint("FROM scratch as base\n"), ["1 FromAsCasing"]);
    assert_eq!(lint("from scratch AS base\n"), ["1 FromAsCasing"]);
    assert!(lint("from scratch as base\n").is_empty());
}

#[test]
fn lint_no_empty_continuation() {
    assert_eq!(lint("FROM scratch\nENV a=b \\\n\n  c=d\n"), ["4 NoEmptyContinuation"]);
    assert!(lint("FROM scratch\nENV a=b \\\n# remark\n  c=d\n").is_empty());
}

#[test]
fn lint_consistent_instruction_casing() {
    assert_eq!(lint("FROM scratch\nenv a=b\nENV c=d\n"), ["2 ConsistentInstructionCasing"]);
    assert_eq!(lint("from scratch\nenv a=b\nENV c=d\n"), ["3 ConsistentInstructionCasing"]);
    assert_eq!(lint("FROM scratch\nEnv a=b\n"), ["2 ConsistentInstructionCasing"]);
    assert!(lint("from scratch\nenv a=b\n").is_empty());
}

#[test]
fn lint_duplicate_stage_name() {
    let found = lint("FROM scratch AS a\nFROM scratch AS A\n");
    assert!(found.contains(&"2 DuplicateStageName".to_owned()), "{found:?}");
}

#[test]
fn lint_reserved_stage_name() {
    assert_eq!(lint("FROM scratch AS context\n"), ["1 ReservedStageName"]);
    assert_eq!(lint("FROM scratch AS scratch\n"), ["1 ReservedStageName"]);
}

#[test]
fn lint_json_args_recommended() {
    assert_eq!(lint("FROM scratch\nCMD a b\n"), ["2 JSONArgsRecommended"]);
    assert_eq!(lint("FROM scratch\nENTRYPOINT a b\n"), ["2 JSONArgsRecommended"]);
    assert!(lint("FROM scratch\nSHELL [\"/bin/x\"]\nCMD a b\n").is_empty());
    assert!(lint("FROM scratch\nCMD [\"a\"]\n").is_empty());
}

#[test]
fn lint_maintainer_deprecated() {
    assert_eq!(lint("FROM scratch\nMAINTAINER me\n"), ["2 MaintainerDeprecated"]);
}

#[test]
fn lint_undefined_arg_in_from() {
    let report =
        lint_with("ARG version=1\nFROM scratch AS a\nFROM busybox:${versoin}x\n", |_| {}, &[]);
    assert!(findings(&report).contains(&"3 UndefinedArgInFrom".to_owned()), "{report:?}");
    assert!(
        report.warnings.iter().any(|it| it.detail.contains("did you mean version?")),
        "{report:?}"
    );
}

#[test]
fn lint_workdir_relative_path() {
    assert_eq!(lint("FROM busybox\nWORKDIR a\nWORKDIR b\n"), ["2 WorkdirRelativePath"]);
    assert!(lint("FROM busybox\nWORKDIR /a\nWORKDIR b\n").is_empty());
}

#[test]
fn lint_undefined_var() {
    let report =
        lint_with("FROM scratch\nENV name=1\nCOPY $nam /\nENV PATH=$PATH:/x\n", |_| {}, &[]);
    assert_eq!(findings(&report), ["3 UndefinedVar"]);
    assert!(report.warnings[0].detail.contains("did you mean $name?"), "{report:?}");
    assert!(lint("FROM scratch\nARG x\nCOPY a$x /\nRUN echo $unknown\n").is_empty());
}

#[test]
fn lint_multiple_instructions_disallowed() {
    let text = "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nFROM scratch\nCMD [\"c\"]\n";
    assert_eq!(
        lint(text),
        ["2 MultipleInstructionsDisallowed", "4 MultipleInstructionsDisallowed"]
    );
}

#[test]
fn lint_legacy_key_value_format() {
    assert_eq!(
        lint("FROM scratch\nENV a b\nLABEL c d\nENV e=f\n"),
        ["2 LegacyKeyValueFormat", "3 LegacyKeyValueFormat"]
    );
}

#[test]
fn lint_invalid_base_image_platform() {
    let report = lint_with(
        "FROM busybox\n",
        |it| {
            it.image("busybox", Default::default());
            it.images.get_mut("busybox").expect("it is there").architecture = "arm64".to_owned();
        },
        &[],
    );
    assert_eq!(findings(&report), ["1 InvalidBaseImagePlatform"]);
}

#[test]
fn lint_redundant_target_platform() {
    assert_eq!(lint("FROM --platform=$TARGETPLATFORM busybox\n"), ["1 RedundantTargetPlatform"]);
    assert!(lint("FROM --platform=$BUILDPLATFORM busybox\n").is_empty());
}

#[test]
fn lint_secrets_used_in_arg_or_env() {
    let text = "FROM scratch\nARG GIT_TOKEN\nENV PASSWORD=x\nENV PUBLIC_KEY=x KEY_FILE=y monkey=z\nARG API_KEY=x\n";
    let found = lint(text);
    assert_eq!(
        found,
        ["2 SecretsUsedInArgOrEnv", "3 SecretsUsedInArgOrEnv", "5 SecretsUsedInArgOrEnv"]
    );
}

#[test]
fn lint_invalid_default_arg_in_from() {
    assert!(lint("ARG tag\nFROM busybox:$tag\n").contains(&"2 InvalidDefaultArgInFrom".to_owned()));
    assert!(lint("ARG tag=1\nFROM busybox:$tag\n").is_empty());
}

#[test]
fn lint_from_platform_flag_const_disallowed() {
    assert_eq!(
        lint("FROM --platform=linux/arm64 busybox\n"),
        ["1 FromPlatformFlagConstDisallowed"]
    );
    assert!(lint("FROM --platform=linux/arm64 busybox AS build_arm64\n").is_empty());
    assert!(lint("FROM --platform=linux/arm64 busybox AS linux\n").is_empty());
}

#[test]
fn lint_copy_ignored_file() {
    let found = lint_with("FROM scratch\nCOPY a b /\nCOPY . /\n", |_| {}, &["b"]);
    assert_eq!(findings(&found), ["2 CopyIgnoredFile"]);
    assert!(found.warnings[0].detail.contains('b'));
}

#[test]
fn lint_invalid_definition_description() {
    let text = "# check=experimental=InvalidDefinitionDescription\n# bar this is the bar\nARG foo=bar\n# base is good\nFROM scratch AS base\n";
    assert_eq!(lint(text), ["3 InvalidDefinitionDescription"]);
    assert!(lint(&text["# check=experimental=InvalidDefinitionDescription\n".len()..]).is_empty());
}

#[test]
fn lint_expose_proto_casing() {
    assert_eq!(lint("FROM scratch\nEXPOSE 80/TcP\n"), ["2 ExposeProtoCasing"]);
}

#[test]
fn lint_expose_invalid_format() {
    assert_eq!(lint("FROM scratch\nEXPOSE 127.0.0.1:80:80\n"), ["2 ExposeInvalidFormat"]);
    assert_eq!(lint("FROM scratch\nEXPOSE 80:80\n"), ["2 ExposeInvalidFormat"]);
}

#[test]
fn q1_a_check_reports_all_stages_and_the_error_it_ends_at() {
    let report = lint_with(
        "FROM scratch AS Base\nMAINTAINER me\nFROM scratch\nCOPY --chmod=999 a b\n",
        |_| {},
        &[],
    );
    assert_eq!(findings(&report), ["1 StageNameCasing", "2 MaintainerDeprecated"]);
    assert_eq!(report.status(), 1);
    let json = serde_json::to_value(&report).expect("a report is JSON");
    let first = &json["warnings"][0];
    assert_eq!(first["ruleName"], "StageNameCasing");
    for key in ["description", "url", "detail", "location"] {
        assert!(!first[key].is_null(), "{key}");
    }
    assert!(
        json["sources"][0]["data"].is_string() && json["buildError"]["message"].is_string(),
        "{json}"
    );
    assert_eq!(lint_with("FROM scratch\n", |_| {}, &[]).status(), 0);
}

#[test]
fn q2_an_outline_has_arguments_secrets_and_agents() {
    let text = concat!(
        "ARG base=busybox\n# version is what to build\nARG version=1\nFROM $base AS dep\nARG inner=${version:-2}-x\n",
        "RUN --mount=type=secret,id=s,required --mount=type=ssh x\n",
        "FROM scratch AS unused\nARG unused\nFROM scratch AS app\nARG version\nCOPY --from=dep /x /\n",
    );
    let found = outline(text, |it| it.arg("base", "alpine"));
    let args: Vec<_> =
        found.args.iter().map(|it| (&*it.name, &*it.value, &*it.description)).collect();
    assert!(args.contains(&("version", "1", "is what to build")), "{args:?}");
    assert!(args.contains(&("base", "alpine", "")), "{args:?}");
    assert!(args.iter().any(|it| it.0 == "inner"), "{args:?}");
    assert!(!args.iter().any(|it| it.0 == "unused"), "{args:?}");
    assert_eq!(found.secrets[0].name, "s");
    assert!(found.secrets[0].required);
    assert_eq!(found.ssh[0].name, "default");
    assert_eq!(found.name, "app");
}

#[test]
fn q3_targets_are_listed() {
    let text = "# build makes it\nFROM --platform=$BUILDPLATFORM busybox AS Build\nFROM scratch\nFROM Build AS last\n";
    let found = targets(text).targets;
    assert_eq!(
        (&*found[0].name, &*found[0].base, &*found[0].platform),
        ("build", "busybox", "$BUILDPLATFORM")
    );
    assert_eq!(found[0].description, "makes it");
    assert_eq!(found.iter().map(|it| it.default).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(found[1].name, "");
    assert_eq!(found[2].location.line(), 4);
}
