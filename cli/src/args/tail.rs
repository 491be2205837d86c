//! Where the options of kiln end, as in docker: those of `kiln run` end at the image, and all that follows is the container's.
//!
//! Clap would go on looking for its own options behind the image. So the line is cut before clap sees it. Which options are
//! followed by a value is read from clap's own definition, so that the two cannot disagree.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

/// Returns the position of the command's name, the first word that is no option and no value of one.
///
/// `command` is to be built, see [`Command::build`]; `args` start with the name of the program.
pub fn subcommand(command: &Command, args: &[OsString]) -> Option<usize> {
    positional(command, args, 1)
}

/// Cuts a command line of `kiln run` behind the image; any other is left whole.
///
/// `command` is to be built, see [`Command::build`]; `args` start with the name of the program.
pub fn split<'a>(
    command: &Command,
    args: &'a [OsString],
) -> (&'a [OsString], Option<&'a [OsString]>) {
    let image = subcommand(command, args).and_then(|name| {
        let (place, of) = match command.find_subcommand("container") {
            Some(container) if args[name] == "container" => (name + 1, container),
            _ => (name, command),
        };
        let run =
            of.find_subcommand("run").filter(|_| args.get(place).is_some_and(|it| it == "run"))?;
        positional(run, args, place + 1)
    });
    match image {
        Some(image) => (&args[..=image], Some(&args[image + 1..])),
        None => (args, None),
    }
}

/// Returns the position of the first argument from `start` on that is no option and no value of one.
fn positional(command: &Command, args: &[OsString], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(arg) = args.get(at) {
        let bytes = arg.as_encoded_bytes();
        if bytes == b"--" {
            return (at + 1 < args.len()).then_some(at + 1);
        }
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return Some(at);
        }
        at += if is_followed_by_its_value(command, arg) { 2 } else { 1 };
    }
    None
}

fn is_followed_by_its_value(command: &Command, written: &OsStr) -> bool {
    let written = written.to_string_lossy();
    if let Some(name) = written.strip_prefix("--") {
        return command.get_arguments().any(|arg| has_long(arg, name) && takes_value(arg));
    }
    // `-itv X`: of letters in one word, the first that takes a value takes the rest of the word, or else the next word.
    let mut letters = written.chars().skip(1);
    while let Some(letter) = letters.next() {
        if command.get_arguments().any(|arg| has_short(arg, letter) && takes_value(arg)) {
            return letters.next().is_none();
        }
    }
    false
}

fn has_long(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|it| it.contains(&name))
}

fn has_short(arg: &Arg, letter: char) -> bool {
    arg.get_short() == Some(letter)
        || arg.get_all_short_aliases().is_some_and(|it| it.contains(&letter))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(line: &str) -> Option<String> {
        let mut command = super::super::definition();
        command.build();
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (head, tail) = split(&command, &args);
        let tail = tail?;
        assert_eq!([head, tail].concat(), args);
        Some(tail.iter().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_line_is_cut_behind_the_image() {
        for (line, expected) in [
            ("kiln run app", ""),
            ("kiln run app -e A=1 x", "-e A=1 x"),
            ("kiln run app --help", "--help"),
            ("kiln run app -h", "-h"),
            ("kiln run app --root /x", "--root /x"),
            ("kiln run app -- x", "-- x"),
            ("kiln run app --privileged", "--privileged"),
            ("kiln run app -d", "-d"),
            ("kiln run app app", "app"),
            ("kiln run -- app -- x", "-- x"),
            ("kiln --root store run app -x", "-x"),
            ("kiln --root=store run app -x", "-x"),
            ("kiln run --root store app -x", "-x"),
            ("kiln run -it -e A=1 app -e", "-e"),
            ("kiln run -itv /a:/b app -v", "-v"),
            ("kiln run -itv/a:/b app -v", "-v"),
            ("kiln run -eA=1 -w / app -w", "-w"),
            ("kiln run --env=A=1 --env B app --env", "--env"),
            ("kiln run --net none app --net", "--net"),
            ("kiln run --rm --privileged=false app --rm", "--rm"),
            ("kiln run --pids-limit -1 app -1", "-1"),
            ("kiln run -h host app -h", "-h"),
            ("kiln run -p 80:80 app -p", "-p"),
            ("kiln run --init -q app -", "-"),
            ("kiln container run --rm app --rm", "--rm"),
        ] {
            assert_eq!(tail(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_line_without_an_image_is_whole() {
        for line in
            ["kiln", "kiln run", "kiln run --help", "kiln run -e", "kiln run -e A", "kiln run --"]
        {
            assert_eq!(tail(line), None, "{line}");
        }
        assert_eq!(tail("kiln build -t run app"), None);
        assert_eq!(tail("kiln --root run build app"), None);
    }
}
