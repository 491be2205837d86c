//! Runs the examples of `docs/lint-rules.md`: the bad ones of each rule must be found by it, the good ones by none.

use std::{fs, path::Path};

use image::{Platform, document::ImageConfig};
use planner::{
    lint::{Images, LintReport, Rule, Subject, check},
    request::Request,
};

/// Searches a text, with base images for amd64 only and an ignore file that hides `tmp`.
fn search(text: &str) -> LintReport {
    let (dockerfile, diagnostics) = parser::parse(text);
    let platform = Platform::new("linux", "amd64");
    let request =
        Request { platform: platform.clone(), build_platform: platform, ..Request::default() };
    let mut images = Images::new();
    loop {
        let subject = Subject {
            dockerfile: &dockerfile,
            diagnostics: &diagnostics,
            text,
            request: &request,
            ignored: &["tmp".to_owned()],
            images: &images,
        };
        let report = check(&subject, "Dockerfile");
        if report.missing.is_empty() {
            return report;
        }
        let config = ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..ImageConfig::default()
        };
        images.extend(report.missing.into_iter().map(|it| (it, Ok(config.clone()))));
    }
}

#[test]
fn each_rule_has_a_section_with_examples() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lint-rules.md");
    let text = fs::read_to_string(&path).expect("the page is there");
    let mut sections = text.split("\n## ").skip(1);
    for rule in Rule::all() {
        let name = rule.name();
        let section = sections.next().unwrap_or_else(|| panic!("{name}: no section"));
        let (title, body) = section.split_once('\n').expect("a title");
        assert_eq!(title, name, "sections are in the order of the rules");
        let description = rule.description().trim_end_matches('.');
        assert!(body.contains(description), "{name}: says `{description}`");
        let examples: Vec<&str> = body
            .split("```dockerfile\n")
            .skip(1)
            .filter_map(|it| it.split_once("```").map(|it| it.0))
            .collect();
        let [bad, good] = examples[..] else { panic!("{name}: a bad example and a good one") };
        let found = search(bad);
        assert!(found.warnings.iter().any(|it| it.rule_name == name), "{name}: {found:?}");
        let found = search(good);
        assert!(found.warnings.is_empty() && found.build_error.is_none(), "{name}: {found:?}");
    }
    assert_eq!(sections.next(), None, "there is a section for no rule");
}
