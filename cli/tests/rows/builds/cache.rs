//! K and V: what hits and what misses, seen from the second build.

use std::process::Stdio;

use serde_json::json;

use crate::kiln::*;

#[test]
fn v9_an_argument_is_in_the_key_of_later_runs_only() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    let text = "FROM box\nRUN echo before\nARG a\nCOPY f /f\nRUN echo after\n";
    let given = |value: &str| {
        let value = format!("a={value}");
        kiln.build_with(text, &["--build-arg", &value])
    };
    given("1");
    let built = given("2");
    assert!(built.cached("RUN echo before") && built.cached("COPY f"), "{}", built.log);
    assert!(!built.cached("RUN echo after"), "used or not");
    assert!(given("1").cached("RUN echo after"));
    // One that nobody declares changes nothing.
    let text = "FROM box\nRUN echo x\n";
    kiln.build(text);
    assert!(kiln.build_with(text, &["--build-arg", "none=1"]).cached("RUN echo x"));
}

#[test]
fn v12_proxies_are_not_in_the_key_unless_declared() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN echo $HTTP_PROXY $http_proxy > /p\n";
    let built = kiln.build_with(text, &["--build-arg", "HTTP_PROXY=http://one"]);
    assert_eq!(built.text("p"), "http://one http://one");
    assert!(!built.config.config.env.concat().contains("one"));
    assert!(kiln.build_with(text, &["--build-arg", "http_proxy=http://two"]).cached("RUN echo"));
    let text = "FROM box\nARG HTTP_PROXY\nRUN echo $HTTP_PROXY > /p\n";
    kiln.build_with(text, &["--build-arg", "HTTP_PROXY=http://one"]);
    assert!(!kiln.build_with(text, &["--build-arg", "HTTP_PROXY=http://two"]).cached("RUN echo"));
}

#[test]
fn k1_what_is_in_the_key_of_a_run() {
    let kiln = Kiln::new();
    let key = "RUN echo x";
    let text = "FROM box\nRUN echo x\n";
    kiln.build(text);
    assert!(kiln.build(text).cached(key));
    assert!(
        kiln.build(&text.replace("FROM box", "FROM box\nLABEL a=b\nCMD [\"x\"]\nEXPOSE 80"))
            .cached(key),
        "metadata is not"
    );
    for other in [
        "FROM box\nENV A=b\nRUN echo x\n",
        "FROM box\nUSER 7\nRUN echo x\n",
        "FROM box\nWORKDIR /w\nRUN echo x\n",
        "FROM box\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo x\n",
    ] {
        assert!(!kiln.build(other).cached(key), "{other}");
    }
    assert!(
        !kiln.build_with(text, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other"]).cached(key)
    );
    assert!(!kiln.build_with(text, &["--network", "none"]).cached(key));
    assert!(!kiln.build_with(text, &["--shm-size", "1m"]).cached(key));
    assert!(kiln.build_with(text, &["--jobs", "1"]).cached(key));
    assert!(!kiln.build("FROM box\nRUN --mount=type=tmpfs,target=/t echo x\n").cached("echo x"));
}

#[test]
fn k2_content_counts_where_it_is_read_and_names_do_not() {
    let kiln = Kiln::new();
    kiln.write("d/f", "x");
    kiln.write("e", "y");
    let text = "FROM box AS a\nRUN echo same > /f # 1\nFROM box\nCOPY --from=a /f /f\nRUN echo after\nRUN --mount=source=d,target=/m cat /m/f\n";
    kiln.build(text);
    // Another step that makes the same file.
    let built = kiln.build(&text.replace("# 1", "# 2"));
    assert!(!built.cached("RUN echo same"));
    assert!(built.cached("COPY --from=a") && built.cached("RUN echo after"), "{}", built.log);
    kiln.write("e", "z");
    assert!(kiln.build(text).cached("RUN --mount"), "only what is mounted counts");
    kiln.write("d/f", "z");
    assert!(!kiln.build(text).cached("RUN --mount"));
    // Another base, another key.
    kiln.base("other", json!({ "Env": ["PATH=/bin", "X=y"] }));
    assert!(!kiln.build("FROM other\nRUN echo after\n").cached("RUN echo after"));
}

#[test]
fn k3_no_cache_for_all_or_for_some() {
    let kiln = Kiln::new();
    let text = "FROM box AS One\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM box AS two\nRUN cat /proc/sys/kernel/random/uuid > /two\nCOPY --from=one /one /\n";
    let first = kiln.build(text);
    assert_eq!(kiln.build(text).text("two"), first.text("two"));
    let some = kiln.build_with(text, &["--no-cache-filter", "oNE"]);
    assert!(some.cached("/two") && !some.cached("> /one"));
    assert_ne!(some.text("one"), first.text("one"));
    let all = kiln.build_with(text, &["--no-cache"]);
    assert!(!all.cached("/two") && !all.cached("> /one"));
    // What it made is kept.
    assert_eq!(kiln.build(text).text("two"), all.text("two"));
}

#[test]
fn k4_two_builds_do_a_step_once() {
    let kiln = Kiln::new();
    std::fs::write(
        kiln.path("Dockerfile"),
        "FROM box\nRUN sleep 0.5; cat /proc/sys/kernel/random/uuid > /u\n",
    )
    .expect("written");
    let start = |dest: &str| {
        let output = format!("type=local,dest={}", kiln.path(dest).display());
        let args = ["build", "--progress=plain", "-f", "Dockerfile", "-o", &output, "context"];
        kiln.command(&args).stderr(Stdio::piped()).spawn().expect("kiln runs")
    };
    for child in [start("a"), start("b"), start("c")] {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let read = |dest: &str| std::fs::read_to_string(kiln.path(dest).join("u")).expect("a file");
    assert_eq!(read("a"), read("b"));
    assert_eq!(read("a"), read("c"));
}

#[test]
fn k5_what_was_deleted_is_made_again() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN echo x > /f\nRUN echo y > /g\n";
    let first = kiln.build(text);
    let pruned = kiln.run(&["system", "prune", "--force", "--all"]);
    assert!(pruned.status.success(), "{pruned:?}");
    kiln.base("box", json!({ "Env": ["PATH=/bin"], "Cmd": ["sh"] }));
    let built = kiln.build(text);
    assert_eq!((built.text("f"), built.text("g")), (first.text("f"), first.text("g")));
    // Records whose files are gone, behind kiln's back.
    for folder in ["trees", "steps"] {
        let path = kiln.path("store").join(folder);
        for entry in std::fs::read_dir(&path).expect("a folder") {
            let path = entry.expect("an entry").path();
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }
    let built = kiln.build(text);
    assert_eq!((built.text("f"), built.text("g")), ("x".to_owned(), "y".to_owned()));
}

#[test]
fn k6_the_same_build_is_the_same_image() {
    let (one, two) = (Kiln::new(), Kiln::new());
    let text = "FROM box\nWORKDIR /w\nCOPY f /f\nRUN echo x > /g\n";
    let manifest = |kiln: &Kiln| {
        kiln.write("f", "x");
        kiln.build_with(text, &["--reproducible"]).index.manifests[0].digest
    };
    assert_eq!(manifest(&one), manifest(&two));
    let again = |kiln: &Kiln| kiln.build(text).index.manifests[0].digest;
    assert_eq!(again(&one), again(&one), "from the cache too");
}

#[test]
fn k7_what_failed_is_not_kept_and_what_was_done_is() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN echo done\nRUN --mount=type=secret,id=s [ -e /run/secrets/s ]\n";
    kiln.fails(text, &[]);
    kiln.fails(text, &[]);
    std::fs::write(kiln.path("s"), "x").expect("written");
    let built = kiln.build_with(text, &["--secret", "id=s,src=s"]);
    assert!(built.cached("RUN echo done") && !built.cached("id=s"), "{}", built.log);
}
