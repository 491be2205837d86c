//! Formats Dockerfiles, and checks that they still say the same.
//!
//! `testdata/parser/format/NAME.dockerfile` is compared with `NAME.expected`; run with `BLESS=1` to rewrite the
//! expectations. Besides, all Dockerfiles of the parser's other tests and of the conformance cases are formatted, and
//! texts made of pieces.

use std::{
    fs,
    path::{Path, PathBuf},
};

use parser::{ast::Dockerfile, format::format};
use proptest::{collection::vec, prelude::*, sample::select};

fn testdata(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}

/// Formats a text, if it has no mistakes, and checks what always holds.
fn check(text: &str) -> Option<String> {
    let (before, _) = parser::parse(text);
    let formatted = format(text).ok()?;
    let (after, diagnostics) = parser::parse(&formatted);
    assert!(diagnostics.is_empty(), "{text:?}\n{formatted:?}\n{diagnostics:?}");
    assert_eq!(shape(&before), shape(&after), "{text:?}\n{formatted:?}");
    assert_eq!(format(&formatted).as_ref(), Ok(&formatted), "{text:?} formatted twice");
    Some(formatted)
}

/// All that a tree says: no places, and no keywords as written.
fn shape(dockerfile: &Dockerfile) -> Vec<String> {
    let directives = &dockerfile.directives;
    let values = [&directives.syntax, &directives.check].map(|it| it.as_ref().map(|it| &it.value));
    let mut out = vec![format!("{} {values:?} {}", directives.escape, directives.strict_heredoc)];
    for instruction in &dockerfile.instructions {
        let comments: Vec<_> = instruction.comments.iter().map(|it| &it.text).collect();
        let mut kind = instruction.kind.clone();
        if let parser::ast::Kind::From(from) = &mut kind
            && let Some(keyword) = &mut from.as_keyword
        {
            keyword.value.make_ascii_uppercase();
        }
        out.push(format!("{comments:?} {}", without_places(&format!("{kind:?}"))));
    }
    out
}

/// Takes spans out of a `Debug` form: all that looks like `1..2`.
fn without_places(shown: &str) -> String {
    let mut parts = shown.split("..");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, it| {
        let is_digit = |it: char| it.is_ascii_digit();
        all.trim_end_matches(is_digit).to_owned() + it.trim_start_matches(is_digit)
    })
}

/// The files below a folder whose name says that they are Dockerfiles.
fn dockerfiles(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        let (path, kind) = (entry.path(), entry.file_type().expect("it has one"));
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if kind.is_dir() {
            dockerfiles(&path, found);
        } else if kind.is_file() && name.contains("dockerfile") && !name.ends_with("ignore") {
            found.push(path);
        }
    }
}

#[test]
fn fixtures() {
    let mut n_cases = 0;
    for entry in fs::read_dir(testdata("testdata/parser/format")).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|it| it == "expected") {
            let has_case = path.with_extension("dockerfile").exists();
            assert!(has_case, "{}: there is no case for it", path.display());
            continue;
        }
        n_cases += 1;
        let text = parser::decode(&fs::read(&path).expect("it can be read"));
        let formatted = check(&text).expect("it has no mistakes");
        let path = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &formatted).expect("it can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(formatted, expected, "{}: run with BLESS=1 and read the diff", path.display());
    }
    assert_ne!(n_cases, 0, "there are no cases");
}

#[test]
fn all_dockerfiles_there_are() {
    let mut files = Vec::new();
    for folder in ["testdata", "../shared/conformance"] {
        dockerfiles(&testdata(folder), &mut files);
    }
    let n_formatted = files
        .iter()
        .filter(|path| check(&parser::decode(&fs::read(path).expect("it can be read"))).is_some())
        .count();
    assert!(n_formatted > 500, "{n_formatted} of {}", files.len());
}

/// What may stand between two words.
fn gap() -> impl Strategy<Value = &'static str> {
    let gaps = [
        " ",
        " ",
        " ",
        "  ",
        "\t",
        " \\\n",
        "\\\n",
        " \\ \n\t",
        " \\\r\n ",
        " \\\n\n  ",
        " \\\n # c\n  ",
        "\\\n#[\"\n",
        " \\\n \\\n ",
    ];
    select(gaps.to_vec())
}

/// A keyword with words behind it, each with a gap before it.
fn statement() -> impl Strategy<Value = String> {
    let keywords = [
        "from",
        "FROM",
        "Arg",
        "env",
        "LABEL",
        "run",
        "RUN --network=none",
        "copy",
        "COPY --link",
        "add",
        "workdir",
        "user",
        "cmd",
        "ENTRYPOINT",
        "shell",
        "expose",
        "Volume",
        "stopsignal",
        "healthcheck CMD",
        "healthcheck --retries=2\tcmd",
        "HEALTHCHECK none",
        "onbuild run",
        "ONBUILD  copy",
        "maintainer",
        "#",
        "# c",
        "  # c",
        "#\n",
        "",
    ];
    let words = [
        "a",
        "b",
        "a=b",
        "c='x  y'",
        "d=\"x \\\n  y\"",
        "as",
        "AS",
        "[",
        "]",
        "\"x\"",
        ",",
        "[\"a\", \"b\"]",
        "[\"a\"]",
        "[]",
        "<<EOF",
        "<<-'E'",
        "<<\"A  B\"",
        "--",
        "--link",
        "--from=a",
        "--mount=type=tmpfs,target=/x",
        "#",
        "\\",
        "\\ ",
        "'",
        "\"",
        "$x",
        "${x:-y  z}",
        "é",
        "\u{a0}",
        "/",
    ];
    let ends =
        ["\n", "\n", "\n", "\n\n\n", "\r\n", "  \n", "\\\n", "\nEOF\n", "\n x\t\n\n\tE\nEOF\n"];
    let word = (gap(), select(words.to_vec())).prop_map(|(gap, word)| format!("{gap}{word}"));
    (select(keywords.to_vec()), vec(word, 0..5), select(ends.to_vec()))
        .prop_map(|(keyword, words, end)| format!("{keyword}{}{end}", words.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_said_stays(
        top in select(vec!["", "", "\n", "# escape=`\n", "# syntax=a  \n", "\n# check=skip=all\n", "\u{feff}"]),
        statements in vec(statement(), 0..4),
        end in select(vec!["", "cmd a", "run a \\", "run a \\\n # c", "# c", " \n "]),
    ) {
        check(&format!("{top}from a\n{}{end}", statements.concat()));
    }
}

/// Each of these took minutes if anything were quadratic.
#[test]
fn time_is_linear() {
    let n = 50_000;
    let texts = [
        "run  a\n".repeat(n),
        "# a\n\n\n".repeat(n),
        format!("RUN {}b", "a \\\n".repeat(n)),
        format!("copy {}b", "a \\\n # c\n\n".repeat(n)),
        format!("CMD [{}\"\"]", "\"a\" , \\\n # [\n ".repeat(n)),
        format!("ENV {}c=d", "a=b  \\\n".repeat(n)),
        format!("RUN <<A\n{}A\n", "B\n".repeat(n)),
        format!("ONBUILD RUN {}b", "a \\\n".repeat(n)),
    ];
    for text in texts {
        assert!(format(&format!("FROM a\n{text}")).is_ok(), "{}", &text[..20]);
    }
}
