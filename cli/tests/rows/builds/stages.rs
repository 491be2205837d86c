//! F: bases, targets and what is resolved.

use image::Platform;
use serde_json::json;

use crate::kiln::*;

#[test]
fn f2_a_base_of_another_platform_is_used() {
    let kiln = Kiln::new();
    kiln.base_for("foreign", json!({}), &Platform::new("linux", "s390x"));
    let built = kiln.build("FROM foreign\nCOPY <<f /f\nx\nf\n");
    assert!(built.log.contains("InvalidBaseImagePlatform"), "{}", built.log);
    assert_eq!(built.text("f"), "x");
    // What is for another platform says so, unless one is asked for.
    assert_eq!(built.config.architecture, "s390x");
    let host = Platform::host().to_string();
    let built = kiln.build_with("FROM foreign\nCOPY <<f /f\nx\nf\n", &["--platform", &host]);
    assert_eq!(built.config.architecture, Platform::host().architecture);
}

#[test]
fn f3_images_that_nobody_needs_are_not_looked_for() {
    let built =
        Kiln::new().build("FROM no.such.registry.invalid/x AS unused\nRUN x\nFROM box\nRUN true\n");
    assert!(!built.log.contains("no.such"), "{}", built.log);
}

#[test]
fn f6_what_comes_from_the_base() {
    let kiln = Kiln::new();
    kiln.base(
        "base",
        json!({
            "User": "user", "WorkingDir": "/tmp", "Env": ["PATH=/bin", "A=1"], "Cmd": ["c"],
            "OnBuild": ["RUN echo fired $A > /tmp/t", "ENV B=2"], "Labels": { "l": "1" },
        }),
    );
    let built = kiln.build("FROM base\nRUN pwd > p; id -u >> p; echo $B >> p\n");
    assert_eq!(built.text("tmp/t"), "fired 1");
    assert_eq!(built.text("tmp/p"), "/tmp\n1000\n2");
    let config = &built.config.config;
    assert!(config.on_build.is_empty() && config.labels["l"] == "1");
    assert_eq!(built.config.history[0].created_by, "makes the base");
    assert_eq!(built.config.rootfs.diff_ids.len(), 3, "WORKDIR of the base is there already");
}

#[test]
fn f8_a_name_means_one_image_for_the_whole_build() {
    let kiln = Kiln::new();
    let built = kiln.build("FROM box AS a\nRUN echo x > /a\nFROM docker.io/library/box:latest\nCOPY --from=a /a /a\nCOPY --from=box /dir/old /b\n");
    assert_eq!((built.text("a"), built.text("b")), ("x".to_owned(), "old".to_owned()));
}

#[test]
fn f11_names_of_the_dockerfile() {
    let kiln = Kiln::new();
    kiln.write("dockerfile", "FROM scratch\nCOPY f /lower\n");
    kiln.write("f", "x");
    kiln.write(".dockerignore", "Dockerfile\ndockerfile\n.dockerignore\n");
    assert!(kiln.build_args(&["context"], &[]).has("lower"));
    kiln.write("Dockerfile", "FROM scratch\nCOPY . /all/\n");
    let built = kiln.build_args(&["context"], &[]);
    assert_eq!(built.names("all"), ["f"], "ignored, it is still read");
    std::fs::rename(kiln.context("Dockerfile"), kiln.context("real")).expect("renamed");
    kiln.symlink("real", "Dockerfile");
    assert!(kiln.build_args(&["context"], &[]).has("all"));
}

#[test]
fn v11_platforms_of_a_build() {
    let built = Kiln::new().build_with(
        "FROM scratch\nARG TARGETPLATFORM TARGETSTAGE BUILDPLATFORM\nCOPY <<f /f\n$TARGETPLATFORM $TARGETSTAGE $BUILDPLATFORM\nf\n",
        &["--platform", "linux/arm/v7"],
    );
    assert_eq!(built.text("f"), format!("linux/arm/v7 default {}", Platform::host()));
    assert_eq!((&*built.config.architecture, &*built.config.variant), ("arm", "v7"));
}

#[test]
fn v10_arguments_from_the_environment() {
    let kiln = Kiln::new();
    std::fs::write(
        kiln.path("Dockerfile"),
        "FROM scratch\nARG a=default b=default\nCOPY <<f /f\n$a $b\nf\n",
    )
    .expect("written");
    let out = kiln.path("out");
    let status = kiln
        .command(&[
            "build",
            "-f",
            "Dockerfile",
            "--build-arg",
            "a",
            "--build-arg",
            "b",
            "-o",
            &out.to_string_lossy(),
            "context",
        ])
        .env("a", "given")
        .output()
        .expect("kiln runs");
    assert!(status.status.success(), "{status:?}");
    assert_eq!(std::fs::read_to_string(out.join("f")).expect("a file"), "given default\n");
}

#[test]
fn p2_other_frontends_are_refused_with_a_hint() {
    let kiln = Kiln::new();
    assert!(
        kiln.build("# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nCOPY <<f /f\nf\n").has("f")
    );
    let log = kiln.fails("# syntax=other/frontend:1\nFROM scratch\n", &[]);
    assert!(log.contains("other/frontend:1") && log.contains("hint"), "{log}");
    kiln.build_with(
        "# syntax=other/frontend:1\nFROM scratch\n",
        &["--build-arg", "BUILDKIT_SYNTAX=dockerfile.v0"],
    );
}

#[test]
fn p4_error_true_fails_after_all_findings() {
    let log = Kiln::new()
        .fails("# check=error=true\nFROM scratch AS Base\nMAINTAINER me\nCOPY <<f /f\nf\n", &[]);
    assert!(log.contains("StageNameCasing") && log.contains("MaintainerDeprecated"), "{log}");
}

#[test]
fn p14_mistakes_are_shown_in_their_line() {
    let log = Kiln::new().fails("FROM box\nCOPY \\\n  missing /x\n", &[]);
    assert!(log.contains("Dockerfile:3") && log.contains("^^^^^^^"), "{log}");
}

#[test]
fn i14_history_and_layers_agree() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    let built =
        kiln.build("FROM box\nENV a=1\nWORKDIR /w\nWORKDIR /w\nCOPY f /f\nRUN true\nCMD [\"x\"]\n");
    let with_layer = built.config.history.iter().filter(|it| !it.empty_layer).count();
    assert_eq!(with_layer, built.config.rootfs.diff_ids.len());
    assert_eq!(built.config.history.len(), 7);
    assert!(built.config.history[1..].iter().all(|it| it.created.is_some()));
    assert!(built.config.created.is_some());
    let empty = kiln.build("FROM scratch\nLABEL a=b\n");
    assert!(empty.manifest.layers.is_empty() && empty.config.rootfs.diff_ids.is_empty());
    assert_eq!(empty.config.config.working_dir, "/");
}
