//! Repositories at a commit.
//!
//! Which commit a branch or tag stands for is asked of the server in each build; the files of a commit are fetched once.
//! Their time is that of the commit, unless the address says `mtime=checkout`, so that they are the same on every machine.
//!
//! 1. [`resolve`] finds the commit: `ls-remote`, the checksum.
//! 2. [`Checkout`] fetches it into a repository without files, then puts the files into a folder, submodules too.
//! 3. The folder, or the part of it that `subdir` names, becomes a layer.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cache::{StepKey, StepRecord};
use planner::{git_url::Mtime, plan::GitSource};
use serde_json::Value;

use super::{
    Fetched, TIME,
    commit::{Commit, Source, is_commit, resolve},
    files,
    program::{Place, Program, args},
    record, recorded, redacted, secret,
};
use crate::{
    error::ExecutorError,
    run::agent::Agent,
    session::{Session, SshAgent, Task},
    time::Timestamp,
};

/// The reference under which a commit without a name is passed on.
const NAMELESS: &str = "refs/kiln/commit";

/// Fetches a commit, or finds what an earlier build fetched.
pub(super) fn fetch(
    session: &Session,
    git: &GitSource,
    task: &Task<'_>,
) -> Result<Fetched, ExecutorError> {
    let source = Source::new(git);
    source.check()?;
    let sure = source.sure_key();
    if let Some((key, _)) = &sure
        && let Some(known) = session.store.step(key)?
    {
        return recorded(session, &known);
    }
    let staged = session.store.stage_tree()?;
    let ssh = ssh(session, &source, &staged.work())?;
    let program = Program {
        session,
        remote: source.remote.clone(),
        header: header(session, &source)?,
        ssh_config: ssh.as_ref().map(|it| it.config.clone()),
    };
    let found = resolve(&program, &source)?;
    task.log(1, format!("{}\t{}\n", found.sha, found.name).into_bytes());
    let key = source.key(source.identity(&found), &found.asked).finish();
    let _lock = session.store.step_lock(&key.0)?;
    if let Some(known) = session.store.step(&key.0)? {
        remember_sure(session, sure, &known)?;
        return recorded(session, &known);
    }
    let checkout = Checkout {
        program: &program,
        source: &source,
        found: &found,
        bare: staged.work().join("repository"),
        files: staged.work().join("files"),
    };
    let time = checkout.make()?;
    let subdir = parser::encode(&source.subdir);
    let folder = files::open_folder(&checkout.files, &subdir).map_err(|error| {
        program.error(&format!("`{}` is no folder of the repository: {error}", source.subdir))
    })?;
    let keeps_git = source.keeps_git();
    let mtime = match source.mtime {
        Mtime::Commit => time,
        Mtime::Checkout => Timestamp::now().secs,
    };
    let blob = session.store.stage_blob()?;
    let written = files::write_folder(folder, mtime, |name| keeps_git || name != b".git", blob)?;
    let layer = super::put_layer(session, written)?;
    let description = format!("git checkout of {} at {}", redacted(&source.remote), found.sha);
    let record = record(session, key, description, layer, &[(TIME, Value::from(time))])?;
    remember_sure(session, sure, &record)?;
    recorded(session, &record)
}

/// Notes what a name was found to stand for: with its whole checksum it need not be asked for again.
fn remember_sure(
    session: &Session,
    sure: Option<(StepKey, Value)>,
    record: &StepRecord,
) -> Result<(), ExecutorError> {
    match sure {
        Some((key, _)) if key != record.key => {
            Ok(session.store.put_step(&StepRecord { key, ..record.clone() })?)
        }
        _ => Ok(()),
    }
}

/// A commit on its way into a folder.
struct Checkout<'a> {
    program: &'a Program<'a>,
    source: &'a Source,
    found: &'a Commit,
    bare: PathBuf,
    files: PathBuf,
}

impl Checkout<'_> {
    /// Makes the folder, and returns the time of the commit.
    fn make(&self) -> Result<i64, ExecutorError> {
        let failed = |source| ExecutorError::Write { path: self.files.clone(), source };
        fs::create_dir(&self.files).map_err(failed)?;
        let bare = Place { git_dir: &self.bare, work_tree: None };
        self.init(&self.bare, true)?;
        self.fetch(bare)?;
        let peel = format!("{}^{{commit}}", self.found.sha);
        let commit = self
            .program
            .line(Some(bare), args!["rev-parse", "--verify", "--end-of-options", &peel])?;
        let time =
            self.program.line(Some(bare), args!["log", "-1", "--format=%ct", &commit, "--"])?;
        let time = time
            .parse()
            .map_err(|_| self.program.error(&format!("commit {commit} has no time")))?;
        let own = self.files.join(".git");
        let place = match self.source.keeps_git() {
            false => {
                let place = Place { git_dir: &self.bare, work_tree: Some(&self.files) };
                self.program
                    .run(Some(place), args!["checkout", "--force", "--detach", &commit, "--"])?;
                place
            }
            true => {
                let place = Place { git_dir: &own, work_tree: Some(&self.files) };
                self.clone_kept(bare, place, &commit)?;
                place
            }
        };
        let has_submodules =
            self.files.join(".gitmodules").symlink_metadata().is_ok_and(|it| it.is_file());
        if self.source.submodules && has_submodules {
            if !self.source.keeps_git() {
                self.note_remote().map_err(failed)?;
            }
            let ended = self.program.run_shallow(
                place,
                args!["submodule", "update", "--init", "--recursive", "--depth=1"],
            )?;
            if !ended.is_good {
                return Err(self
                    .program
                    .error(&format!("failed to update submodules: {}", ended.message)));
            }
        }
        if self.source.keeps_git() {
            // Without the times and inodes of this machine.
            remove(&own.join("index")).map_err(failed)?;
            self.program.run(Some(place), args!["read-tree", &commit])?;
        }
        Ok(time)
    }

    fn init(&self, git_dir: &Path, is_bare: bool) -> Result<(), ExecutorError> {
        let format = if self.found.sha.len() == 64 {
            "--object-format=sha256"
        } else {
            "--object-format=sha1"
        };
        let mut args = args!["init", "--quiet", format].to_vec();
        args.push(OsStr::new(if is_bare { "--bare" } else { "--" }));
        let folder = git_dir.parent().unwrap_or(git_dir);
        args.push(if is_bare { git_dir.as_os_str() } else { folder.as_os_str() });
        self.program.run(None, &args).map(|_| ())
    }

    /// Fetches the commit into the repository without files.
    fn fetch(&self, bare: Place<'_>) -> Result<(), ExecutorError> {
        let Commit { name, sha, .. } = self.found;
        let is_by_commit = is_commit(name) || self.source.fetch_by_commit;
        if !is_by_commit {
            let refspec = format!("+{name}:{name}");
            let ended = self.program.run_shallow(
                bare,
                args!["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", &refspec],
            )?;
            if !ended.is_good {
                return Err(self.program.error(&ended.message));
            }
            if self.has(bare)? {
                // It may have moved since it was looked up.
                self.program.run(Some(bare), args!["update-ref", "--no-deref", name, sha])?;
                return Ok(());
            }
        }
        let ended = self.program.run_shallow(
            bare,
            args!["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", sha],
        )?;
        if !ended.is_good {
            // Many servers give only what has a name: the commit may be in the history of something that has one.
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            self.program
                .run(Some(bare), args!["fetch", "--quiet", "--", "origin", all[0], all[1]])?;
        } else if self.source.keeps_git() && !self.source.fetch_by_commit {
            self.program.run_shallow(
                bare,
                args!["fetch", "--quiet", "--depth=1", "--tags", "--", "origin"],
            )?;
        }
        if !self.has(bare)? {
            return Err(self.program.error(&format!("repository does not contain commit {sha}")));
        }
        let name = if is_commit(name) { NAMELESS } else { name };
        self.program.run(Some(bare), args!["update-ref", "--no-deref", name, sha]).map(|_| ())
    }

    fn has(&self, bare: Place<'_>) -> Result<bool, ExecutorError> {
        let object = format!("{}^{{commit}}", self.found.sha);
        Ok(self.program.attempt(Some(bare), args!["cat-file", "-e", &object])?.is_good)
    }

    /// Writes down the address that those of submodules may be relative to. On a command line others could see it.
    fn note_remote(&self) -> io::Result<()> {
        let address = self.source.remote.replace('\\', r"\\").replace('"', "\\\"");
        let mut config = fs::File::options().append(true).open(self.bare.join("config"))?;
        writeln!(config, "[remote \"origin\"]\n\turl = \"{address}\"")
    }

    /// Makes a repository of its own that holds this commit, its name, and nothing of how it came here.
    fn clone_kept(
        &self,
        bare: Place<'_>,
        place: Place<'_>,
        commit: &str,
    ) -> Result<(), ExecutorError> {
        let run = |args: &[&OsStr]| self.program.run(Some(place), args).map(|_| ());
        let Commit { asked, name, peeled, .. } = self.found;
        self.init(place.git_dir, false)?;
        let mut address = std::ffi::OsString::from("file://");
        address.push(bare.git_dir);
        let refspec = match name.as_str() {
            it if is_commit(it) => NAMELESS.to_owned(),
            // A name without `refs/` becomes a branch, also if it is that of a tag, which then comes along.
            it if peeled.is_none() && !asked.starts_with("refs/") && !asked.is_empty() => {
                format!("{it}:refs/heads/{asked}")
            }
            it => format!("{it}:{it}"),
        };
        // By way of a transport: a clone of files could be led to copy other files.
        let args =
            args!["fetch", "--quiet", "--update-head-ok", "--depth=1", "--", &address, &refspec];
        run(args)?;
        run(args!["checkout", "--force", "--detach", commit, "--"])?;
        run(args!["remote", "add", "origin", &redacted(&self.source.remote)])?;
        run(args!["reflog", "expire", "--all", "--expire=now"])?;
        let fetch_head = place.git_dir.join("FETCH_HEAD");
        remove(&fetch_head)
            .map_err(|source| ExecutorError::Write { path: fetch_head.clone(), source })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The header that opens the repository, from the secrets that are given, and the addresses that it is sent to.
fn header(session: &Session, source: &Source) -> Result<Option<(String, String)>, ExecutorError> {
    if !matches!(source.scheme.as_str(), "http" | "https") {
        return Ok(None);
    }
    let names = [format!(".{}", source.host), String::new()];
    for suffix in &names {
        for (id, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
            let Some(text) = secret(session, &format!("{id}{suffix}"))? else { continue };
            let value = match is_token {
                true => format!("basic {}", STANDARD.encode(format!("x-access-token:{text}"))),
                false => text,
            };
            // One token opens all that its owner has on the same host, submodules above all.
            let hosts = ["https://github.com/", "https://www.github.com/"];
            let scope = hosts.into_iter().find(|it| source.remote.starts_with(it));
            let scope = scope.map_or_else(|| redacted(&source.remote), str::to_owned);
            return Ok(Some((scope, format!("Authorization: {value}"))));
        }
    }
    Ok(None)
}

/// How git reaches a server by SSH.
struct Ssh {
    /// The settings.
    config: PathBuf,
    /// The agent with the keys that were given, while it is needed, and where its socket is.
    _agent: Option<(Agent, tempfile::TempDir)>,
}

/// Writes the settings of SSH: the agent that was given and no other key. A host that is known must be the one it was.
fn ssh(session: &Session, source: &Source, folder: &Path) -> Result<Option<Ssh>, ExecutorError> {
    if source.scheme != "ssh" {
        return Ok(None);
    }
    let Some(agent) = session.ssh.get("default") else {
        return Err(ExecutorError::SshNotFound { id: "default".to_owned() });
    };
    let (socket, agent) = match agent {
        SshAgent::Socket(path) => (path.clone(), None),
        SshAgent::Keys(_) => {
            // A short path: that of a socket may have 107 bytes.
            let place = tempfile::Builder::new().prefix("kiln-ssh-").tempdir();
            let failed = |source| ExecutorError::Write { path: std::env::temp_dir(), source };
            let place = place.map_err(failed)?;
            let agent = Agent::start(agent, &place.path().join("s"), (0o600, 0, 0))?;
            (agent.path().to_owned(), Some((agent, place)))
        }
    };
    let mut text = String::from(
        "BatchMode yes\nConnectTimeout 30\nServerAliveInterval 30\nIdentityFile none\nStrictHostKeyChecking accept-new\n",
    );
    let known = folder.join("known_hosts");
    let mut hosts = format!("UserKnownHostsFile \"{}\"", known.display());
    if let Some(home) = std::env::var_os("HOME") {
        hosts.push_str(&format!(" \"{}\"", Path::new(&home).join(".ssh/known_hosts").display()));
    }
    text.push_str(&format!("{hosts}\nIdentityAgent \"{}\"\n", socket.display()));
    let path = folder.join("ssh_config");
    fs::write(&path, text).map_err(|source| ExecutorError::Write { path: path.clone(), source })?;
    Ok(Some(Ssh { config: path, _agent: agent }))
}
