//! What holds of any text at all.

use proptest::{collection::vec, prelude::*};

mod common;
use common::check_spans;

/// Pieces that Dockerfiles are made of, so that arbitrary texts reach the interesting places.
fn dockerfile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "FROM ",
            "ARG ",
            "ENV ",
            "LABEL ",
            "RUN ",
            "COPY ",
            "ADD ",
            "ONBUILD ",
            "HEALTHCHECK ",
            "SHELL ",
            "VOLUME ",
            "EXPOSE ",
            "USER ",
            "WORKDIR ",
            "STOPSIGNAL ",
            "MAINTAINER ",
            "CMD ",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\\\n",
            "`\n",
            " \\ \n\n",
            "# ",
            "# escape=`\n",
            "# syntax=a b\n",
            "# check=skip=all\n",
            "\u{feff}",
            "--from=",
            "--mount=type=cache,",
            "--mount=target=$x,",
            "--interval=1m",
            "--link ",
            "-- ",
            "<<EOF ",
            "<<-'EOF' ",
            "3<<\"A B\" ",
            "EOF\n",
            "\tEOF\n",
            "A B\n",
            "[\"a\", ",
            "\"b\"]",
            "[1]",
            "NONE",
            "CMD ",
            " AS ",
            "a=b ",
            "'",
            "\"",
            "\\",
            "$",
            "${",
            "}",
            ":-",
            "\t",
            "\u{a0}",
            "\u{2028}",
            "é",
            "\u{10ffff}",
            "=",
            ",",
            "[",
            "]",
            "{",
            "x",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    vec(piece, 0..40).prop_map(|it| it.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn trees_are_sound(text in dockerfile()) {
        let (dockerfile, diagnostics) = parser::parse(&text);
        check_spans(&text, &dockerfile.instructions, &diagnostics);
        for escape in ['\\', '`'] {
            let (instructions, diagnostics) = parser::parse_trigger(&text, escape);
            check_spans(&text, &instructions, &diagnostics);
        }
        if let Some(syntax) = parser::syntax::detect(&text) {
            prop_assert!(text.get(syntax.span.start()..syntax.span.end()).is_some());
        }
        parser::ignore::read(&text);
    }

    /// The logical lines of a tree without mistakes, written out again, say the same.
    #[test]
    fn originals_parse_again(text in dockerfile()) {
        let (dockerfile, diagnostics) = parser::parse(&text);
        let simple = |it: &parser::ast::Instruction| {
            it.lines.first == it.lines.last && !it.original.ends_with(['\\', '`'])
        };
        for it in dockerfile.instructions.iter().filter(|it| diagnostics.is_empty() && simple(it)) {
            let escape = dockerfile.directives.escape;
            let (again, _) = parser::parse_trigger(&it.original, escape);
            prop_assert_eq!(&again[0].original, &it.original);
            prop_assert_eq!(shape(&again[0].kind), shape(&it.kind));
        }
    }

    #[test]
    fn bytes_survive(bytes in vec(any::<u8>(), 0..200)) {
        let text = parser::decode(&bytes);
        prop_assert_eq!(parser::encode(&text), bytes);
    }
}

/// The `Debug` form without spans.
fn shape(kind: &parser::ast::Kind) -> String {
    let shown = format!("{kind:?}");
    let mut parts = shown.split('@');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, it| {
        all + it.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.')
    })
}

/// Each of these took hours if anything in the parser were quadratic.
#[test]
fn time_is_linear() {
    let n = 100_000;
    let texts = [
        "FROM a\n".repeat(n),
        "# a\n".repeat(n),
        "\\\n".repeat(n),
        format!("RUN {}", "a \\\n".repeat(n)),
        format!("RUN {}", "--mount=type=cache --network=none ".repeat(n)),
        format!("RUN {}", "${a:-".repeat(n)),
        format!("RUN <<A {}", "\"$\" ".repeat(n)),
        format!("RUN {}", "[".repeat(n)),
        format!("RUN [{}\"\"]", "\"a\",".repeat(n)),
        format!("COPY {}", (0..n).map(|it| format!("<<{it} ")).collect::<String>()),
        format!("ENV {}", "a=b c ".repeat(n)),
        format!("ENV {}", "a='b ".repeat(n)),
        "ONBUILD ".repeat(n),
        format!("RUN --mount={} a", "a,".repeat(n)),
        format!("HEALTHCHECK --interval={} CMD a", "1h".repeat(n)),
        format!("{} a", "x".repeat(n)),
        format!("RUN <<A\n{}", "B\n".repeat(n)),
    ];
    for text in texts {
        let (dockerfile, diagnostics) = parser::parse(&text);
        assert!(!dockerfile.instructions.is_empty() || !diagnostics.is_empty());
    }
}
