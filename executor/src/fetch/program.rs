//! The `git` program: how it is run, so that neither this machine's settings nor the repository decide what it does.
//!
//! Nothing but the arguments and the environment made here reaches it: no configuration of the system or the user, no
//! prompt, no hook, no transport that reads files or runs commands. The address of the repository and the credential
//! are a file in memory, so that they are in no command line, no environment and on no disk.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, kill_process_group},
};

use super::redacted;
use crate::{error::ExecutorError, session::Session};

/// The arguments of a command.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(OsStr::new($arg)),*][..] };
}
pub(super) use args;

/// More than this of what a command says is not read.
const MOST_OUTPUT: u64 = 64 << 20;
/// Variables that say how to reach the network.
const PASSED_ON: &[&str] = &[
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];
/// Settings that hold for every command.
const SETTINGS: &[(&str, &str)] = &[
    ("init.defaultBranch", "master"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // A server that sends less than this is taken for dead.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];

/// Runs git for one source.
pub(super) struct Program<'a> {
    pub(super) session: &'a Session,
    /// The address of the repository, with all that is secret in it.
    pub(super) remote: String,
    /// The header that opens it, and the addresses that it is sent to.
    pub(super) header: Option<(String, String)>,
    /// The file with the settings of SSH.
    pub(super) ssh_config: Option<std::path::PathBuf>,
}

/// Which repository a command is for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Where its objects are.
    pub(super) git_dir: &'a Path,
    /// Where its files are.
    pub(super) work_tree: Option<&'a Path>,
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) is_good: bool,
    pub(super) output: Vec<u8>,
    pub(super) message: String,
}

impl Program<'_> {
    /// Runs a command that has to succeed, and returns what it wrote.
    pub(super) fn run(
        &self,
        place: Option<Place<'_>>,
        args: &[&OsStr],
    ) -> Result<Vec<u8>, ExecutorError> {
        let ended = self.attempt(place, args)?;
        if ended.is_good { Ok(ended.output) } else { Err(self.error(&ended.message)) }
    }

    /// Runs a command that has to succeed, and returns its first line.
    pub(super) fn line(
        &self,
        place: Option<Place<'_>>,
        args: &[&OsStr],
    ) -> Result<String, ExecutorError> {
        let output = self.run(place, args)?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Runs a command with `--depth=1`, and without where the server cannot give a part of the history.
    pub(super) fn run_shallow(
        &self,
        place: Place<'_>,
        args: &[&OsStr],
    ) -> Result<Ended, ExecutorError> {
        let ended = self.attempt(Some(place), args)?;
        let is_about_depth = ["--depth", "shallow"].iter().any(|it| ended.message.contains(it));
        if ended.is_good || !is_about_depth {
            return Ok(ended);
        }
        let args: Vec<&OsStr> = args.iter().copied().filter(|it| *it != "--depth=1").collect();
        self.attempt(Some(place), &args)
    }

    /// An error of this source.
    pub(super) fn error(&self, message: &str) -> ExecutorError {
        ExecutorError::Git { url: redacted(&self.remote), message: self.clean(message) }
    }

    /// Runs a command.
    pub(super) fn attempt(
        &self,
        place: Option<Place<'_>>,
        args: &[&OsStr],
    ) -> Result<Ended, ExecutorError> {
        self.session.cancel.check()?;
        let mut command = Command::new("git");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let asks_remote = args.first().is_some_and(|it| *it == "ls-remote" || *it == "fetch");
        // Held until git has ended.
        let secrets = self
            .secrets(asks_remote)
            .map_err(|error| self.error(&format!("its settings cannot be written: {error}")))?;
        self.set_environment(&mut command, secrets.as_ref());
        let mut transports = "http:https:git:ssh".to_owned();
        match place {
            Some(place) => {
                command.arg("--git-dir").arg(place.git_dir);
                if let Some(work_tree) = place.work_tree {
                    command.arg("--work-tree").arg(work_tree);
                }
                command.current_dir(place.work_tree.unwrap_or(place.git_dir));
                if args.iter().any(|it| it.as_encoded_bytes().starts_with(b"file://")) {
                    transports = "file".to_owned();
                }
            }
            None => {
                // No repository that the store happens to lie in.
                let root = self.session.store.root();
                command.current_dir(root);
                command.env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(root));
            }
        }
        command.env("GIT_ALLOW_PROTOCOL", transports).args(args);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let guard = self.session.cancel.on_cancel(move || {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (output, message) = std::thread::scope(|scope| {
            let stderr = scope.spawn(move || read(stderr));
            (read(stdout), stderr.join().unwrap_or_default())
        });
        // Its number is its own until it is waited for.
        drop(guard);
        let status = child.wait().map_err(|error| self.error(&error.to_string()))?;
        self.session.cancel.check()?;
        let message = String::from_utf8_lossy(&message).trim().to_owned();
        let message = if message.is_empty() { status.to_string() } else { message };
        Ok(Ended { is_good: status.success(), output, message })
    }

    /// The settings that hold something secret, in a file that only this process has and git reads by way of it.
    fn secrets(&self, asks_remote: bool) -> io::Result<Option<fs::File>> {
        let mut text = String::new();
        // Other commands would take it for the address of the submodules they are in.
        if asks_remote {
            text.push_str(&format!("[remote \"origin\"]\n\turl = {}\n", quoted(&self.remote)));
        }
        if let Some((scope, header)) = &self.header {
            text.push_str(&format!(
                "[http {}]\n\textraheader = {}\n",
                quoted(scope),
                quoted(header)
            ));
        }
        if text.is_empty() {
            return Ok(None);
        }
        let mut file = fs::File::from(memfd_create("git-settings", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        Ok(Some(file))
    }

    fn set_environment(&self, command: &mut Command, secrets: Option<&fs::File>) {
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", secrets.map_or_else(|| "/dev/null".to_owned(), in_proc))
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
        for (nth, (key, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{nth}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{nth}"), value);
        }
        if let Some(config) = &self.ssh_config {
            let mut ssh = OsString::from("ssh -F '");
            // The path is one of the store's; a quote in it would end the word.
            ssh.push(config.to_string_lossy().replace('\'', r"'\''"));
            ssh.push("'");
            command.env("GIT_SSH_COMMAND", ssh);
        }
    }

    fn not_started(&self, error: &io::Error) -> ExecutorError {
        if error.kind() != io::ErrorKind::NotFound {
            return self.error(&format!("the program cannot be started: {error}"));
        }
        ExecutorError::Unsupported {
            message: format!(
                "`{}` cannot be fetched: there is no program `git` on this machine",
                redacted(&self.remote)
            ),
            hint: "install git, or fetch the repository before the build".to_owned(),
        }
    }

    /// Takes what is secret out of a message.
    fn clean(&self, message: &str) -> String {
        let shown = redacted(&self.remote);
        let mut message = message.replace(&self.remote, &shown);
        if shown != self.remote
            && let Some((_, rest)) = self.remote.split_once("://")
            && let Some((user, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
        {
            message = message.replace(&format!("{user}@"), "");
        }
        message
    }
}

/// The path of a file of this process, for its children.
fn in_proc(file: &fs::File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Text as git reads it from a file of settings. Line breaks are not among it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What cannot be read any more was cut off by the end of the process, which says why.
        let _ = pipe.take(MOST_OUTPUT).read_to_end(&mut bytes);
    }
    bytes
}
