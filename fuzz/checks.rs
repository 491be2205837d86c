//! What holds of any bytes at all, one function for each fuzz target.
//!
//! The fuzzer calls these (`scripts/fuzz`), and so does `planner/tests/corpus.rs` with the inputs that were found worth
//! keeping, in `testdata/fuzz/TARGET`. A function panics where something does not hold.

use std::{
    io::{self, Read},
    sync::Arc,
};

use image::{
    Digest, ImageRef, Platform,
    compress::{DecompressLimits, decompress_limited},
    document::{ImageConfig, Index, Manifest, RunConfig, media_type},
    entry::Kind,
    layer::{LayerIndex, Limits, Mode, Record, TarReader},
    view::View,
};
use parser::{ast::Instruction, span::Span};
use planner::{
    expand::Lexer,
    expose,
    facts::{Facts, ImageFact, Need},
    git_url::{GitRef, GitUrl},
    ignore::Patterns,
    lint::{self, Images, Subject},
    mode::Mode as Chmod,
    outline::outline,
    plan::Plan,
    request::Request,
    signal,
    targets::targets,
    wildcard, workdir,
};

/// Panics if something does not hold of some bytes.
pub type Check = fn(&[u8]);

/// Every target and its function.
pub const TARGETS: [(&str, Check); 7] = [
    ("dockerfile", dockerfile),
    ("expansion", expansion),
    ("ignore_file", ignore_file),
    ("values", values),
    ("names", names),
    ("layer_tar", layer_tar),
    ("layer_index", layer_index),
];

/// A Dockerfile is parsed, checked, and planned: without facts, and with base images that have triggers.
pub fn dockerfile(data: &[u8]) {
    let text = parser::decode(data);
    let (dockerfile, diagnostics) = parser::parse(&text);
    check_spans(&text, &dockerfile.instructions);
    let check_place = |span: Span| {
        assert!(text.get(span.start()..span.end()).is_some(), "{span:?} is not in the text");
    };
    diagnostics.iter().for_each(|it| check_place(it.span));
    parser::syntax::detect(&text).iter().for_each(|it| check_place(it.span));
    parser::parse_trigger(&text, '`');

    let amd64 = Platform::new("linux", "amd64");
    let request = Request { platform: amd64.clone(), build_platform: amd64, ..Request::default() };
    let subject = Subject {
        dockerfile: &dockerfile,
        diagnostics: &diagnostics,
        text: &text,
        request: &request,
        ignored: &[],
        images: &Images::new(),
    };
    let report = lint::check(&subject, "Dockerfile");
    report.warnings.iter().for_each(|it| _ = format!("{it:?}"));
    if let Ok(outline) = outline(&subject) {
        outline.to_text();
    }
    if let Ok(targets) = targets(&subject) {
        targets.to_text();
    }

    let graph = match planner::stages(&dockerfile, &request) {
        Ok(graph) => graph,
        Err(errors) => {
            assert!(!errors.is_empty(), "a refusal has a reason");
            return errors.iter().for_each(|it| check_place(it.span));
        }
    };
    let check_plan = |plan: Result<Plan, Vec<planner::PlanError>>| match plan {
        Ok(plan) => plan.steps.iter().for_each(|it| check_place(it.span)),
        Err(errors) => errors.iter().for_each(|it| check_place(it.span)),
    };
    check_plan(planner::plan(&graph, &Facts::default()));
    let triggers: Vec<String> =
        text.lines().filter_map(|it| it.strip_prefix("#on ")).map(str::to_owned).collect();
    let mut facts = Facts::default();
    loop {
        match planner::needs(&graph, &facts) {
            Ok(needs) if needs.is_empty() => break,
            Ok(needs) => {
                for Need::Image(query) in needs {
                    let on_build = Some(triggers.clone()).filter(|_| facts.images.len() < 4);
                    let config = RunConfig {
                        on_build: on_build.unwrap_or_default(),
                        ..RunConfig::default()
                    };
                    let config = ImageConfig { config, ..ImageConfig::default() };
                    let fact =
                        ImageFact { manifest: Digest::of(b""), target: Digest::of(b""), config };
                    let asked_before = facts.images.insert(query, fact);
                    assert!(asked_before.is_none(), "nothing is asked twice");
                }
            }
            Err(errors) => return errors.iter().for_each(|it| check_place(it.span)),
        }
    }
    check_plan(planner::plan(&graph, &facts));
}

/// Instructions lie in the text, in order, without overlap.
fn check_spans(text: &str, instructions: &[Instruction]) {
    let mut end = 0;
    for it in instructions {
        assert!(it.span.start() >= end, "{:?} overlaps what is before", it.span);
        assert!(text.get(it.span.start()..it.span.end()).is_some(), "{:?}", it.span);
        assert!(it.lines.first <= it.lines.last);
        end = it.span.end();
    }
}

/// The first byte is the flags of the lexer; lines `NAME=VALUE` up to an empty one are variables, the rest is the word.
pub fn expansion(data: &[u8]) {
    let (flags, rest) = data.split_first().unwrap_or((&0, &[]));
    let text = parser::decode(rest);
    let (head, word) = text.split_once("\n\n").unwrap_or(("", &text));
    let pairs: Vec<(String, String)> = head
        .lines()
        .filter_map(|it| it.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let lexer = Lexer {
        escape: if flags & 1 == 0 { '\\' } else { '`' },
        raw_quotes: flags & 2 != 0,
        raw_escapes: flags & 4 != 0,
        keep_unset: flags & 8 != 0,
        skip_quotes: flags & 16 != 0,
    };
    let one = lexer.word(word, &pairs);
    let many = lexer.words(word, &pairs);
    assert_eq!(one.is_ok(), many.is_ok(), "both readings fail or none does");
    match one {
        Ok(it) => assert!(it.matched.is_disjoint(&it.unmatched), "a variable is set or it is not"),
        Err(error) => _ = error.to_string(),
    }
}

/// Patterns up to an empty line, then paths: the walk, the lookup and the reason agree.
pub fn ignore_file(data: &[u8]) {
    let text = parser::decode(data);
    let (file, paths) = text.split_once("\n\n").unwrap_or((&text, ""));
    let read = parser::ignore::read(file);
    let lines: Vec<&str> = read.iter().map(|it| it.text.as_str()).collect();
    let Ok(patterns) = Patterns::new(&lines) else { return };
    for path in paths.lines().map(|it| planner::path::clean(it.trim_matches('/'))) {
        let path = path.trim_start_matches("../").as_bytes();
        let is_excluded = patterns.matches(path);
        assert_eq!(patterns.which(path).is_some(), is_excluded, "there is a reason");
        let mut trail = patterns.root();
        let ends = path.iter().enumerate().filter(|(_, it)| **it == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            trail = patterns.enter(trail, &path[..end]);
            // Of a deep path only some folders: each answer is a walk of its own.
            let is_asked = end < path.len() && (end < 64 || end.is_multiple_of(97));
            let may_descend = !is_asked || patterns.may_descend(&path[..end]);
            assert!(may_descend || is_excluded, "what is wanted can be reached");
        }
        assert_eq!(trail.is_excluded(), is_excluded, "a walk comes to the same");
    }
}

/// What stands in flags and arguments; the first byte chooses.
pub fn values(data: &[u8]) {
    let (choice, rest) = data.split_first().unwrap_or((&0, &[]));
    let text = parser::decode(rest);
    match choice % 8 {
        0 => {
            if let Ok(mode) = Chmod::parse(&text) {
                for old in [0, 0o644, 0o7777] {
                    for is_dir in [false, true] {
                        assert!(mode.apply(old, is_dir) <= 0o7777, "a mode has twelve bits");
                    }
                }
            }
        }
        1 => _ = (GitUrl::parse(&text), GitRef::parse(&text)),
        2 => _ = expose::parse(&text.split('\n').collect::<Vec<_>>()),
        3 => match parser::mount::split(&text) {
            Ok(fields) => _ = parser::mount::resolve(&fields),
            Err(error) => _ = (error.to_string(), parser::mount::hint(&error)),
        },
        4 => _ = (parser::device::parse(&text), signal::parse(&text)),
        5 => {
            let (pattern, name) = text.split_once('\n').unwrap_or((&text, ""));
            _ = wildcard::matches(pattern.as_bytes(), name.as_bytes());
            wildcard::split(pattern);
        }
        6 => {
            let (folder, path) = text.split_once('\n').unwrap_or(("/", &text));
            assert!(folder.is_empty() || workdir::join(folder, path).starts_with('/'));
            let cleaned = planner::path::clean(path);
            assert_eq!(planner::path::clean(&cleaned), cleaned, "once is enough");
        }
        _ => {
            let (word, rest) = text.split_once('\n').unwrap_or((&text, ""));
            parser::suggest::suggest(word, rest.split('\n'), false);
        }
    }
}

/// References, platforms, digests and documents; the first byte chooses.
pub fn names(data: &[u8]) {
    let (choice, rest) = data.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest);
    match choice % 6 {
        0 => {
            if let Ok(reference) = ImageRef::parse(&text) {
                let shown = reference.to_string();
                assert_eq!(ImageRef::parse(&shown).as_ref(), Ok(&reference), "{shown}");
                let familiar = reference.familiar();
                assert_eq!(ImageRef::parse(&familiar), Ok(reference), "{familiar}");
            }
        }
        1 => {
            let host = Platform::new("linux", "amd64");
            // What is escaped in a version need not be such as a version may have without.
            let is_plain = !text.contains('%');
            if let Some(platform) = Platform::parse(&text, &host).ok().filter(|_| is_plain) {
                let shown = platform.format_all();
                let again = Platform::parse(&shown, &host);
                assert_eq!(again.map(|it| it.normalized()), Ok(platform.normalized()), "{shown}");
            }
        }
        2 => {
            if let Ok(digest) = text.parse::<Digest>() {
                assert_eq!(digest.to_string(), text);
            }
        }
        3 => _ = Manifest::parse(rest, media_type::OCI_MANIFEST),
        4 => _ = Index::parse(rest, media_type::OCI_INDEX),
        _ => _ = ImageConfig::parse(rest).map(|it| it.platform()),
    }
}

/// A tar, perhaps compressed, is read in both ways and its tree is walked. Checksums of headers are put right first,
/// since no fuzzer finds them.
pub fn layer_tar(data: &[u8]) {
    let limits = DecompressLimits { max_memory: 32 << 20, ..DecompressLimits::default() };
    let mut tar = Vec::new();
    match decompress_limited(data, limits) {
        Ok((_, reader)) => _ = reader.take(1 << 20).read_to_end(&mut tar),
        Err(_) => return,
    }
    for block in tar.chunks_exact_mut(512).filter(|it| it[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|it| u32::from(*it)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let limits =
        Limits { max_entries: 4096, max_bytes: 1 << 30, max_pax: 1 << 16, ..Limits::default() };
    for mode in [Mode::Layer, Mode::Archive] {
        let mut reader = TarReader::with(tar.as_slice(), mode, limits);
        while let Ok(Some(record)) = reader.next() {
            if let Record::Entry(entry) = &record {
                assert!(!entry.path.starts_with(b"/"), "no path leads out of the root");
                assert!(entry.path.split(|it| *it == b'/').all(|it| it != b".."));
                // Of a file with holes all of it, if it is not too large; of others, the tar has no more than its own size.
                if let Kind::File { size } = entry.kind
                    && let Ok(n_bytes) =
                        io::copy(&mut reader.by_ref().take(1 << 20), &mut io::sink())
                {
                    assert_eq!(n_bytes, size.min(1 << 20), "a file has as many bytes as it says");
                }
            }
        }
    }
    if let Ok(index) = LayerIndex::of_tar(tar.as_slice(), limits) {
        let mut bytes = Vec::new();
        index.encode(&mut bytes).expect("writing to a Vec cannot fail");
        assert_eq!(LayerIndex::decode(&bytes).as_ref().ok(), Some(&index), "an index survives");
        walk(index);
    }
}

/// An index as the store keeps it is decoded, with a checksum that is put right first; what can be decoded is encoded to
/// the same.
pub fn layer_index(data: &[u8]) {
    _ = LayerIndex::decode(data);
    let mut bytes = [b"kiln-ix\x01", data].concat();
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(&checksum.as_bytes()[..16]);
    let Ok(index) = LayerIndex::decode(&bytes) else { return };
    let mut again = Vec::new();
    index.encode(&mut again).expect("writing to a Vec cannot fail");
    assert_eq!(again, bytes, "an index has one encoding");
    walk(index);
}

fn walk(index: LayerIndex) {
    let index = Arc::new(index);
    let view = View::new(vec![index.clone(), index]);
    for (path, _) in view.walk(b"").take(4096) {
        assert!(view.lookup(&path).is_some(), "what is listed is there");
        _ = view.resolve(&path, true);
    }
}
