//! P: directives, lines, flags, JSON, heredocs.

use parser::ast::{Command, CopySource, Kind};

use crate::ask::*;

/// The command of a RUN in shell form.
fn shell(kind: &Kind) -> &str {
    match kind {
        Kind::Run(run) => match &run.command {
            Command::Shell(text) => &text.value,
            Command::Exec(words) => panic!("{words:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn p1_directives_end_at_the_first_line_that_is_none() {
    assert_eq!(parse("# escape=`\nFROM scratch\n").directives.escape, '`');
    assert_eq!(parse("#  EsCape = ` \nFROM scratch\n").directives.escape, '`');
    for before in ["# a comment\n", "\n", "# key=value\n", "FROM scratch\n"] {
        let text = format!("{before}# escape=`\nFROM scratch\n");
        assert_eq!(parse(&text).directives.escape, '\\', "{text}");
    }
    assert_eq!(
        mistakes("# escape=`\n# escape=`\nFROM scratch\n"),
        ["duplicate-directive"],
        "a key is given once"
    );
    // What stands below the first other line is a comment, also where it repeats one.
    assert_eq!(parse("# escape=`\n#\n# escape=\\\nFROM scratch\n").directives.escape, '`');
}

#[test]
fn p2_syntax_is_found_in_every_form() {
    let reference = |text: &str| parser::syntax::detect(text).map(|it| it.reference);
    for text in [
        "# syntax=a/b:1\nFROM scratch\n",
        "# syntax = a/b:1 --flag x\nFROM scratch\n",
        "// syntax=a/b:1\n",
        "#!/usr/bin/env x\n# syntax=a/b:1\n",
        "\u{feff}# syntax=a/b:1\n",
        "{\"syntax\": \"a/b:1\"}",
    ] {
        assert_eq!(reference(text).as_deref(), Some("a/b:1"), "{text}");
    }
    let found = parser::syntax::detect("# syntax=a/b:1 --flag x\nFROM scratch\n").expect("one");
    assert_eq!(found.command_line, "a/b:1 --flag x");
    assert_eq!(reference("# remark\n# syntax=a/b:1\nFROM scratch\n"), None);
}

#[test]
fn p3_escape_changes_continuations_and_words() {
    let text = "# escape=`\nFROM scratch\nENV A=b` c `\n  D=e\\f\n";
    let plan = plan(text);
    assert_eq!(image_env(&plan, "A"), Some("b c"));
    assert_eq!(image_env(&plan, "D"), Some("e\\f"));
    assert_eq!(parse("# escape=`\nFROM scratch").directives.escape, '`');
    assert_eq!(diagnostics("# escape=`")[0].code(), "no-instructions");
    assert_eq!(mistakes("# escape=x\nFROM scratch\n"), ["invalid-escape"]);
}

#[test]
fn p4_check_is_read_from_the_file_the_argument_and_the_line_above() {
    let body = "FROM scratch AS Base\nMAINTAINER me\n";
    assert_eq!(lint(body), ["1 StageNameCasing", "2 MaintainerDeprecated"]);
    assert_eq!(lint(&format!("# check=skip=StageNameCasing\n{body}")), ["3 MaintainerDeprecated"]);
    assert!(lint(&format!("# check=skip=all\n{body}")).is_empty());
    assert!(
        lint(&format!("# check=skip=StageNameCasing,MaintainerDeprecated;error=true\n{body}"))
            .is_empty()
    );
    let given =
        |with: &mut With| with.arg("BUILDKIT_DOCKERFILE_CHECK", "skip=MaintainerDeprecated");
    let text = format!("# check=skip=StageNameCasing\n{body}");
    assert_eq!(findings(&lint_with(&text, given, &[])), ["2 StageNameCasing"]);
    assert_eq!(
        lint("FROM scratch AS Base\n# check=skip=MaintainerDeprecated\nMAINTAINER me\n"),
        ["1 StageNameCasing"]
    );
}

#[test]
fn p5_continuations_keep_the_indentation_of_their_lines() {
    let kind = in_stage("  RUN echo \\\n# a comment\n    b \\ \t\n\n  c");
    assert_eq!(shell(&kind), "echo     b   c");
    assert_eq!(shell(&in_stage("RUN a\\\nb")), "ab");
    assert_eq!(shell(&last("FROM scratch\nRUN a \\")), "a");
    // A backslash before anything but blanks is no continuation.
    let text = "FROM scratch\nENV A=b\\ c\nENV D=e\n";
    assert_eq!(image_env(&plan(text), "A"), Some("b c"));
    assert_eq!(lint("FROM scratch\nRUN a \\\n\n b\n"), ["4 NoEmptyContinuation"]);
}

#[test]
fn p6_comments_begin_a_line_and_describe_what_they_name() {
    let text = "   # indented\nFROM scratch\nENV A=b#c\nENV D=\"# e\"\n";
    let plan = plan(text);
    assert_eq!((image_env(&plan, "A"), image_env(&plan, "D")), (Some("b#c"), Some("# e")));
    assert_eq!(shell(&in_stage("RUN echo # not a comment")), "echo # not a comment");
    let text = "# base is the base\nFROM scratch AS base\n# something\nFROM base AS other\n";
    let descriptions: Vec<_> = targets(text).targets.into_iter().map(|it| it.description).collect();
    assert_eq!(descriptions, ["is the base", ""]);
}

#[test]
fn p7_marks_line_ends_and_limits() {
    let plan = plan("\u{feff}FROM scratch\r\nENV A=b \\\r\n  C=d\r\n");
    assert_eq!((image_env(&plan, "A"), image_env(&plan, "C")), (Some("b"), Some("d")));
    assert_eq!(mistakes(""), ["no-instructions"]);
    assert_eq!(mistakes("# nothing\n\n"), ["no-instructions"]);
    let line = |length: usize| format!("FROM scratch\nRUN {}\n", "x".repeat(length - 4));
    parse(&line(65_535 - 1));
    let found = diagnostics(&line(65_537));
    assert_eq!(found[0].code(), "line-too-long");
    assert_eq!(found[0].lines.first, 2);
    // Bytes that are not UTF-8 survive.
    let text = parser::decode(b"FROM scratch\nENV A=\xff\n");
    let plan = crate::ask::plan(&text);
    assert_eq!(parser::encode(image_env(&plan, "A").expect("it is set")), b"\xff");
}

#[test]
fn p8_names_of_instructions_have_no_case_and_suggestions() {
    assert_eq!(parse("from scratch\nEnV a=b\ncmd [\"x\"]\n").instructions.len(), 3);
    let found = diagnostics("FROM scratch\nCOPPY a b\nRNU x\n");
    let codes: Vec<_> = found.iter().map(|it| (it.code(), it.lines.first)).collect();
    assert_eq!(codes, [("unknown-instruction", 2), ("unknown-instruction", 3)], "both at once");
    assert!(found[0].hint.as_deref().is_some_and(|it| it.contains("COPY")), "{found:?}");
}

#[test]
fn p9_flags_stand_before_the_first_other_word() {
    let Kind::Copy(copy) = in_stage("COPY --chown=\"1:2\" --link -- --from=x /y/") else {
        panic!()
    };
    assert_eq!(copy.chown.map(|it| it.value).as_deref(), Some("1:2"));
    assert!(copy.link && copy.from.is_none());
    let CopySource::Path(path) = &copy.sources[0] else { panic!() };
    assert_eq!(path.value, "--from=x");
    for (line, code) in [
        ("COPY --chown=1 --chown=2 a b", "duplicate-flag"),
        ("COPY --link=yes a b", "invalid-switch"),
        ("COPY --chwon=1 a b", "unknown-flag"),
        ("COPY --chown a b", "missing-flag-value"),
        ("WORKDIR --x /a", "unknown-flag"),
    ] {
        let found = diagnostics(&format!("FROM scratch\n{line}\n"));
        assert_eq!(found[0].code(), code, "{line}");
    }
    let found = diagnostics("FROM scratch\nCOPY --chwon=1 a b\n");
    assert!(found[0].hint.as_deref().is_some_and(|it| it.contains("chown")), "{found:?}");
    // These do not look at flags.
    for line in ["STOPSIGNAL --x 9", "HEALTHCHECK --x NONE"] {
        let (_, found) = parser::parse(&format!("FROM scratch\n{line}\n"));
        assert!(found.iter().all(|it| it.code() != "unknown-flag"), "{line}: {found:?}");
    }
    for switch in ["--link", "--link=true"] {
        let Kind::Copy(copy) = in_stage(&format!("COPY {switch} a b")) else { panic!() };
        assert!(copy.link);
    }
    let Kind::Copy(copy) = in_stage("COPY --link=false a b") else { panic!() };
    assert!(!copy.link);
}

#[test]
fn p10_json_is_strict_and_all_else_is_shell() {
    let command = |line: &str| match in_stage(line) {
        Kind::Cmd(command) => command,
        other => panic!("{other:?}"),
    };
    let exec = |line: &str| match command(line) {
        Command::Exec(words) => words.into_iter().map(|it| it.value).collect::<Vec<_>>(),
        Command::Shell(text) => vec![format!("shell: {}", text.value)],
    };
    assert_eq!(exec(r#"CMD [ "a" , "b\u0041" ]  "#), ["a", "bA"]);
    assert_eq!(exec("CMD ['a', 'b']"), ["shell: ['a', 'b']"]);
    assert_eq!(exec(r#"CMD ["a", ]"#), [r#"shell: ["a", ]"#]);
    assert_eq!(exec(r#"CMD ["a"] b"#), [r#"shell: ["a"] b"#]);
    assert!(matches!(command("CMD []"), Command::Exec(words) if words.is_empty()));
    assert_eq!(mistakes("FROM scratch\nRUN [\"a\", 1]\n"), ["json-not-strings"]);
    assert_eq!(mistakes("FROM scratch\nSHELL /bin/sh -c\n"), ["shell-not-json"]);
    let Kind::Volume(words) = in_stage(r#"VOLUME ["/a b", "/c"]"#) else { panic!() };
    assert_eq!(words[0].value, "/a b");
    let Kind::Copy(copy) = in_stage(r#"COPY ["a b", "c d/"]"#) else { panic!() };
    assert_eq!(copy.dest.value, "c d/");
}

#[test]
fn p11_heredocs_in_every_form() {
    let text = "FROM scratch\nCOPY <<one <<-'two' <<\"three\" 4<<four /d/\n1 $A\none\n\t\t2\n\ttwo\n3\n\tthree\nthree\n4\nfour\nENV A=b\n";
    let parsed = parse(text);
    assert_eq!(parsed.instructions.len(), 3);
    let Kind::Copy(copy) = &parsed.instructions[1].kind else { panic!() };
    let found: Vec<_> = copy
        .sources
        .iter()
        .map(|it| match it {
            CopySource::Heredoc(it, _) => (&*it.name, &*it.content, it.expand),
            CopySource::Path(path) => panic!("{path:?}"),
        })
        .collect();
    assert_eq!(
        found,
        [
            ("one", "1 $A\n", true),
            ("two", "2\n", false),
            // The terminator is the whole line, a tab before it makes it text.
            ("three", "3\n\tthree\n", false),
            ("four", "4\n", true),
        ]
    );
    assert_eq!(mistakes("FROM scratch\nRUN <<EOF\nx\n EOF\n"), ["unterminated-heredoc"]);
    // No heredoc in JSON, nor in an instruction that has none.
    let Kind::Run(run) = in_stage(r#"RUN ["<<EOF"]"#) else { panic!() };
    assert!(run.heredocs.is_empty());
    assert!(matches!(in_stage("LABEL a=<<EOF"), Kind::Label(_)));
}

#[test]
fn p12_a_lonely_heredoc_is_the_script() {
    let plan = plan(concat!(
        "FROM scratch\nARG A=b\n",
        "RUN <<EOF\necho $A\nls\nEOF\n",
        "RUN <<EOF\n#!/usr/bin/python\nprint('$A')\nEOF\n",
        "RUN cat <<EOF - <<-two\n1\nEOF\n\t2\n\ttwo\n",
        "SHELL [\"/bin/bash\", \"-ec\"]\nRUN <<EOF\nx\nEOF\n",
    ));
    let runs = runs(&plan);
    assert_eq!(runs[0].args, ["/bin/sh", "-c", "echo $A\nls\n"]);
    let (name, text) = runs[1].script.as_ref().expect("it is a program");
    assert_eq!((&**name, &**text), ("EOF", "#!/usr/bin/python\nprint('$A')\n"));
    assert_eq!(runs[1].args, ["/dev/pipes/EOF"]);
    assert!(runs[0].script.is_none());
    assert_eq!(runs[2].args[2], "cat <<EOF - <<-two\n1\nEOF\n\t2\ntwo");
    assert_eq!(runs[3].args, ["/bin/bash", "-ec", "x\n"]);
}

#[test]
fn p13_heredocs_of_copy_are_expanded_with_their_quotes() {
    use planner::plan::CopyItem;
    let text = concat!(
        "FROM scratch\nENV A=b\n",
        "COPY --chmod=0750 <<EOF <<'RAW' file /d/\n\"$A\" '$A' \\$A\nEOF\n$A\nRAW\n",
    );
    let plan = plan(text);
    let copy = copies(&plan)[0];
    let inline: Vec<_> = copy
        .items
        .iter()
        .filter_map(|it| match it {
            CopyItem::Inline { name, data } => Some((&**name, &**data)),
            CopyItem::Paths { .. } => None,
        })
        .collect();
    assert_eq!(inline, [("EOF", "\"b\" '$A' $A\n"), ("RAW", "$A\n")]);
    assert_eq!(copy.items.len(), 3, "a path stands beside them");
    assert_eq!(mistakes("FROM scratch\nCOPY a <<EOF\nx\nEOF\n"), ["heredoc-destination"]);
}

#[test]
fn p14_mistakes_have_lines_and_columns() {
    let text = "FROM scratch\nCOPY \\\n  --chmod=999 a b\n";
    let errors = errors_with(text, |_| {});
    let place = parser::span::position(text, errors[0].span.start());
    assert_eq!(place.line, 3);
    // Triggers are shown where they fire.
    let text = "FROM scratch\n\nFROM base\n";
    let errors = errors_with(text, |it| {
        let on_build = strings(["COPY --chmod=999 a b"]);
        it.image("base", image::document::RunConfig { on_build, ..Default::default() });
    });
    assert_eq!(parser::span::position(text, errors[0].span.start()).line, 3);
}

#[test]
fn p15_words_are_split_by_blanks_and_tabs() {
    let plan = plan(concat!(
        "FROM scratch\nENV A=\"b c\"\tD=e\\ f G='h i'j\nENV old  with   blanks = \"x\"\n",
        "LABEL a.b=\"c d\" \"e f\"=g\nEXPOSE 80\t 81\nVOLUME /a\t/b\n",
    ));
    let config = &plan.config.config;
    assert_eq!(image_env(&plan, "A"), Some("b c"));
    assert_eq!(image_env(&plan, "D"), Some("e f"));
    assert_eq!(image_env(&plan, "G"), Some("h ij"));
    assert_eq!(image_env(&plan, "old"), Some("with   blanks = x"));
    assert_eq!(config.labels["a.b"], "c d");
    assert_eq!(config.labels["e f"], "g");
    assert_eq!(config.exposed_ports.len(), 2);
    assert_eq!(config.volumes.len(), 2);
    assert_eq!(mistakes("FROM scratch\nENV a=b c\n"), ["missing-equals"]);
    assert_eq!(mistakes("FROM scratch\nENV a\n"), ["missing-value"]);
}
