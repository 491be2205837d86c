//! Q: questions to the command, and findings of builds.

use serde_json::Value;

use crate::kiln::*;

fn call(kiln: &Kiln, question: &str, dockerfile: &str) -> (Value, Option<i32>) {
    std::fs::write(kiln.path("Dockerfile"), dockerfile).expect("written");
    let question = format!("--call={question},format=json");
    let output = kiln.run(&["build", &question, "-f", "Dockerfile", "context"]);
    let out = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (out, output.status.code())
}

#[test]
fn q1_check_builds_nothing_and_fails_on_findings() {
    let kiln = Kiln::new();
    let (report, status) = call(&kiln, "check", "FROM scratch AS Base\nRUN never\nFROM scratch\n");
    assert_eq!(report["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(status, Some(1));
    let (report, status) = call(&kiln, "check", "FROM scratch\nCOPY a /\n");
    assert_eq!((report["warnings"].as_array().map(Vec::len), status), (Some(0), Some(0)));
    let text = kiln.run(&["build", "--check", "-f", "Dockerfile", "context"]);
    assert!(text.status.success());
}

#[test]
fn q2_outline_in_json() {
    let (outline, status) =
        call(&Kiln::new(), "outline", "FROM scratch\nARG a=1\nRUN --mount=type=secret,id=s x\n");
    assert_eq!(status, Some(0));
    assert_eq!(
        (&outline["args"][0]["name"], &outline["args"][0]["value"]),
        (&"a".into(), &"1".into())
    );
    assert_eq!(outline["secrets"][0]["name"], "s");
}

#[test]
fn q3_targets_in_json() {
    let (targets, _) = call(&Kiln::new(), "targets", "FROM scratch AS a\nFROM scratch\n");
    assert_eq!(targets["targets"][0]["name"], "a");
    assert_eq!(targets["targets"][1]["default"], true);
}

#[test]
fn q4_other_questions_are_refused_with_what_there_is() {
    let kiln = Kiln::new();
    let output = kiln.run(&["build", "--call=convertllb", "context"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(["check", "outline", "targets"].iter().all(|it| log.contains(it)), "{log}");
}

#[test]
fn q5_findings_of_builds_are_said_once_and_always() {
    let kiln = Kiln::new();
    let text = "FROM box\nMAINTAINER me\nRUN true\n";
    let count = |log: &str| log.matches("MaintainerDeprecated").count();
    assert_eq!(count(&kiln.build(text).log), 1);
    assert_eq!(count(&kiln.build(text).log), 1, "from the cache");
    assert_eq!(count(&kiln.fails("FROM box\nMAINTAINER me\nRUN false\n", &[])), 1);
}
