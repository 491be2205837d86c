//! Image config and request make one command with its environment, as docker merges them.

use std::ffi::{OsStr, OsString};

use image::document::RunConfig;

use crate::{error::RuntimeError, request::RunRequest};

/// Where programs are looked for if the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs, where, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) workdir: String,
    pub(crate) user: String,
}

/// Merges them.
///
/// An entry point that is given replaces entry point *and* command of the image; an empty one does so with nothing. Variables keep
/// the place they have first: the default ones, then those of the image, then those of the request.
pub(crate) fn merge(
    config: &RunConfig,
    request: &RunRequest,
    hostname: &str,
) -> Result<Command, RuntimeError> {
    let own = |list: &Option<Vec<String>>| -> Vec<OsString> {
        list.iter().flatten().map(OsString::from).collect()
    };
    let mut args = match &request.entrypoint {
        Some(entrypoint) => vec![entrypoint.clone()],
        None => own(&config.entrypoint),
    };
    if args.first().is_some_and(|it| args.len() == 1 && it.is_empty()) {
        args.clear();
    }
    if !request.command.is_empty() {
        args.extend(request.command.iter().cloned());
    } else if request.entrypoint.is_none() {
        args.extend(own(&config.cmd));
    }
    if args.is_empty() {
        return Err(RuntimeError::NoCommand);
    }

    let workdir = request.workdir.as_ref().unwrap_or(&config.working_dir);
    let workdir = if workdir.is_empty() { "/" } else { workdir };
    if !workdir.starts_with('/') {
        return Err(RuntimeError::RelativeWorkdir { path: workdir.to_owned() });
    }
    Ok(Command {
        args,
        env: environment(&config.env, request, hostname),
        workdir: workdir.to_owned(),
        user: request.user.as_ref().unwrap_or(&config.user).clone(),
    })
}

fn environment(
    image: &[String],
    request: &RunRequest,
    hostname: &str,
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> =
        vec![("PATH".into(), PATH.into()), ("HOSTNAME".into(), hostname.into())];
    if request.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    let mut change = |name: &OsStr, value: Option<&OsStr>| {
        let place = env.iter().position(|(it, _)| it == name);
        match (place, value) {
            (Some(place), Some(value)) => env[place].1 = value.to_owned(),
            (None, Some(value)) => env.push((name.to_owned(), value.to_owned())),
            (Some(place), None) => drop(env.remove(place)),
            (None, None) => {}
        }
    };
    for line in image {
        match line.split_once('=') {
            Some((name, value)) => change(OsStr::new(name), Some(OsStr::new(value))),
            // As docker takes it: the variable is not to be set.
            None => change(OsStr::new(line), None),
        }
    }
    for (name, value) in &request.env {
        change(name, value.as_deref());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Option<Vec<String>> {
        (words != "-").then(|| words.split_whitespace().map(|it| it.replace('_', "")).collect())
    }

    /// `-` is not set, a blank column is an empty list, `_` is empty text.
    #[test]
    fn entry_points_and_commands() {
        let table = [
            // image: entrypoint, cmd     request: entrypoint, command     expected
            ("-", "sh", "-", "", "sh"),
            ("-", "sh -c x", "-", "ls /", "ls /"),
            ("e 1", "-", "-", "", "e 1"),
            ("e 1", "c 2", "-", "", "e 1 c 2"),
            ("e 1", "c 2", "-", "x", "e 1 x"),
            ("e 1", "c 2", "f", "", "f"),
            ("e 1", "c 2", "f", "x y", "f x y"),
            ("e 1", "c 2", "_", "x y", "x y"),
            ("e 1", "c 2", "_", "", "error"),
            ("_", "c", "-", "", "c"),
            ("", "c", "-", "", "c"),
            ("-", "-", "-", "", "error"),
            ("", "", "-", "", "error"),
            ("-", "-", "-", "x", "x"),
        ];
        for row in table {
            let (entrypoint, cmd, given, command, expected) = row;
            let config =
                RunConfig { entrypoint: list(entrypoint), cmd: list(cmd), ..RunConfig::default() };
            let request = RunRequest {
                entrypoint: list(given).map(|it| it.join(" ").into()),
                command: command.split_whitespace().map(OsString::from).collect(),
                ..RunRequest::default()
            };
            let found = match merge(&config, &request, "h") {
                Ok(it) => it.args.join(OsStr::new(" ")).to_string_lossy().into_owned(),
                Err(RuntimeError::NoCommand) => "error".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{row:?}");
        }
    }

    #[test]
    fn variables() {
        let table: [(&str, &str, bool, &str); 8] = [
            ("", "", false, "PATH=… HOSTNAME=h"),
            ("", "", true, "PATH=… HOSTNAME=h TERM=xterm"),
            ("PATH=/p A=1", "", false, "PATH=/p HOSTNAME=h A=1"),
            ("A=1 B=2", "A=3 C=4", false, "PATH=… HOSTNAME=h A=3 B=2 C=4"),
            ("A=1 B=2", "A", false, "PATH=… HOSTNAME=h B=2"),
            ("A=1", "A=", false, "PATH=… HOSTNAME=h A="),
            ("TERM=dumb", "HOSTNAME=x", true, "PATH=… HOSTNAME=x TERM=dumb"),
            ("A=1=2", "B=x=y", false, "PATH=… HOSTNAME=h A=1=2 B=x=y"),
        ];
        for (image, given, tty, expected) in table {
            let config = RunConfig {
                env: image.split_whitespace().map(str::to_owned).collect(),
                cmd: list("c"),
                ..RunConfig::default()
            };
            let pair = |it: &str| match it.split_once('=') {
                Some((name, value)) => (name.into(), Some(value.into())),
                None => (it.into(), None),
            };
            let env = given.split_whitespace().map(pair).collect();
            let request = RunRequest { env, tty, ..RunRequest::default() };
            let command = merge(&config, &request, "h").expect("a command");
            let shown: Vec<String> = command
                .env
                .iter()
                .map(|(name, value)| format!("{}={}", name.display(), value.display()))
                .collect();
            assert_eq!(shown.join(" "), expected.replace('…', PATH), "{image} + {given}");
        }
    }

    #[test]
    fn working_directories_and_users() {
        let config = RunConfig {
            cmd: list("c"),
            working_dir: "/w".to_owned(),
            user: "u".to_owned(),
            ..RunConfig::default()
        };
        let with = |workdir: Option<&str>, user: Option<&str>| {
            let request = RunRequest {
                workdir: workdir.map(str::to_owned),
                user: user.map(str::to_owned),
                ..RunRequest::default()
            };
            merge(&config, &request, "h").map(|it| (it.workdir, it.user))
        };
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(with(None, None).expect("a command"), own("/w", "u"));
        assert_eq!(with(Some("/x"), Some("1:2")).expect("a command"), own("/x", "1:2"));
        assert_eq!(with(Some(""), Some("")).expect("a command"), own("/", ""));
        assert_eq!(with(Some("x"), None).map_err(|it| it.code()), Err("relative-workdir"));
    }
}
