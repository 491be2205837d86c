//! X: ignore files and named contexts, as far as they are decided without files.

use image::document::RunConfig;
use planner::{ignore::Patterns, plan::Source};

use crate::ask::*;

/// Says which of `paths` a file of patterns leaves over.
fn kept<'a>(text: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let patterns: Vec<String> = parser::ignore::read(text).into_iter().map(|it| it.text).collect();
    let patterns = Patterns::new(&patterns).expect("they are well-formed");
    paths.iter().copied().filter(|it| !patterns.matches(it.as_bytes())).collect()
}

#[test]
fn x1_patterns_of_the_ignore_file() {
    assert_eq!(
        kept(
            "\u{feff}# a\n #b\n\n a/ \n/c\n./d/../e\n",
            &["#b", " #b", "a", "a/x", "c", "e", "d", "x/a"]
        ),
        [" #b", "d", "x/a"]
    );
    assert_eq!(kept("*.o\n", &["a.o", "b/a.o"]), ["b/a.o"], "anchored at the root");
    assert_eq!(kept("**/*.o\n", &["a.o", "b/a.o", "b/c/a.o", "b"]), ["b"]);
    assert_eq!(
        kept("a\n!a/b\na/b/c\n", &["a", "a/x", "a/b", "a/b/c", "a/b/d"]),
        ["a/b", "a/b/d"],
        "the last one wins"
    );
    assert_eq!(kept("*\n! /keep\n", &["keep", "keep/x", "other"]), ["keep", "keep/x"]);
    assert_eq!(kept("a?c\n[x-z]\n", &["abc", "a/c", "y", "w"]), ["a/c", "w"]);
    assert!(Patterns::new(&["!"]).is_err() && Patterns::new(&["[a"]).is_err());
}

#[test]
fn x8_named_contexts_stand_for_images_and_stages() {
    let with = |name: &'static str, value: &'static str| {
        move |it: &mut With| {
            it.request.named_contexts.insert(name.to_owned(), value.to_owned());
        }
    };
    let text = "FROM alpine AS base\nRUN base\nFROM busybox\nCOPY --from=base /x /\nRUN --mount=from=other,target=/m y\n";
    let asked_with = |name, value| {
        let mut asked = asked(text, with(name, value));
        asked.sort();
        asked
    };
    assert_eq!(
        asked_with("alpine", "docker-image://debian:12"),
        ["busybox linux/amd64", "debian:12 linux/amd64", "other linux/amd64"],
        "canonical names are equal"
    );
    assert_eq!(
        asked_with("docker.io/library/alpine:latest", "docker-image://debian:12"),
        asked_with("alpine", "docker-image://debian:12")
    );
    assert_eq!(
        asked_with("base", "docker-image://debian:12"),
        ["busybox linux/amd64", "debian:12 linux/amd64", "other linux/amd64"],
        "a stage is replaced with all it does"
    );
    assert_eq!(runs(&plan_with(text, with("base", "docker-image://debian:12"))).len(), 1);
    assert_eq!(
        asked_with("other", "oci-layout:///layout:tag"),
        ["alpine linux/amd64", "busybox linux/amd64", "oci-layout:///layout:tag linux/amd64"]
    );
    let plan_1 = plan_with(text, with("other", "./folder"));
    assert!(
        matches!(&runs(&plan_1)[1].mounts[0], planner::plan::MountOp::Bind { source: Source::Local(name), .. } if name == "other")
    );
    // The platform's own context comes first.
    assert_eq!(
        asked("FROM busybox\n", |it| {
            with("busybox", "docker-image://one")(it);
            with("busybox::linux/amd64", "docker-image://two")(it);
        }),
        ["two linux/amd64"]
    );
    // An image brings its config, and chains end.
    let plan_2 = plan_with("FROM busybox\n", |it| {
        with("busybox", "docker-image://one")(it);
        it.image("one", RunConfig { user: "u".to_owned(), ..Default::default() });
    });
    assert_eq!(plan_2.config.config.user, "u");
    assert_eq!(asked("FROM scratch\nCOPY a /\n", with("scratch", "docker-image://one")), [""; 0]);
}
