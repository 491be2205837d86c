//! The SSH agent of a RUN: a socket with the mount's owner and mode, which lets through what reads and signs.
//!
//! A command may list the keys of the user's agent, or of the files that were given, and have something signed. To add keys, remove
//! them or lock the agent is answered with a failure, as are extensions: BuildKit does the same.
//!
//! # Source
//!
//! draft-miller-ssh-agent, sections 3 and 5.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::keys::SshKeys;
use crate::{error::ExecutorError, session::SshAgent};

/// What is let through: `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENTC_SIGN_REQUEST`.
const ALLOWED: [u8; 2] = [LIST, SIGN];
const LIST: u8 = 11;
const SIGN: u8 = 13;

/// The message `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// No message is longer; OpenSSH has the same limit.
const MAX_MESSAGE: usize = 256 << 10;

/// A socket in front of an agent. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    is_stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts to listen in `folder`, which holds nothing else.
    pub(crate) fn start(
        agent: &SshAgent,
        folder: &Path,
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<Self, ExecutorError> {
        let path = folder.join("agent");
        let failed = |source| ExecutorError::Write { path: path.clone(), source };
        fs::create_dir(folder).map_err(failed)?;
        // The path of a socket may have 107 bytes, and this one has fewer.
        let opened = File::open(folder).map_err(failed)?;
        let short = format!("/proc/self/fd/{}/agent", opened.as_raw_fd());
        let listener = UnixListener::bind(&short).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        if (uid, gid) != (0, 0) {
            cache::owners::give(&path, uid, gid).map_err(failed)?;
        }
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (agent, stop) = (agent.clone(), Arc::clone(&is_stopped));
        let accepting = std::thread::spawn(move || accept(&listener, &agent, &stop));
        Ok(Self { path, is_stopped, accepting: Some(accepting) })
    }

    /// The socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
        // Whoever waits for a connection gets this last one.
        let opened = self.path.parent().map(File::open);
        if let Some(Ok(folder)) = opened
            && UnixStream::connect(format!("/proc/self/fd/{}/agent", folder.as_raw_fd())).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, agent: &SshAgent, is_stopped: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if is_stopped.load(Ordering::Acquire) {
            return;
        }
        let agent = agent.clone();
        // A client that goes away, or an agent that is not there, ends its own connection only.
        std::thread::spawn(move || {
            let _ = match agent {
                SshAgent::Socket(path) => {
                    UnixStream::connect(path).and_then(|agent| relay(&client, &agent))
                }
                SshAgent::Keys(keys) => serve(&client, &keys),
            };
            let _ = client.shutdown(Shutdown::Both);
        });
    }
}

/// Answers requests with keys of our own until the client goes away.
fn serve(mut client: &UnixStream, keys: &SshKeys) -> io::Result<()> {
    while let Some(request) = message(&mut client)? {
        let answer = match request.get(4) {
            Some(&LIST) => Some(keys.list()),
            Some(&SIGN) => keys.sign(&request[5..]),
            _ => None,
        };
        match answer.and_then(|it| Some((u32::try_from(it.len()).ok()?, it))) {
            Some((length, answer)) => {
                client.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
            }
            None => client.write_all(&FAILURE)?,
        }
    }
    Ok(())
}

/// Passes requests on until the client goes away.
fn relay(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    while let Some(request) = message(&mut client)? {
        let is_allowed = request.get(4).is_some_and(|it| ALLOWED.contains(it));
        if !is_allowed {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        match message(&mut agent)? {
            Some(answer) => client.write_all(&answer)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Reads a message with its length in front, or nothing at the end.
fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let n_bytes = u32::from_be_bytes(length) as usize;
    if n_bytes > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    message.resize(4 + n_bytes, 0);
    from.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_signatures_pass_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        let listener = UnixListener::bind(&real).expect("a socket");
        // An agent that answers each request with its own bytes.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                while let Ok(Some(request)) = message(&mut stream) {
                    stream.write_all(&request).expect("written");
                }
            }
        });
        let deep = folder.path().join("x".repeat(100));
        let agent = Agent::start(&SshAgent::Socket(real), &deep, (0o640, 0, 0)).expect("it starts");
        let mode = fs::metadata(agent.path()).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let opened = File::open(&deep).expect("a folder");
        let short = format!("/proc/self/fd/{}/agent", opened.as_raw_fd());
        let mut client = UnixStream::connect(&short).expect("connected");
        for (request, answer) in [
            (&[0, 0, 0, 1, 11][..], &[0, 0, 0, 1, 11][..]),
            (&[0, 0, 0, 3, 13, 7, 7], &[0, 0, 0, 3, 13, 7, 7]),
            // To add a key, to remove all, to lock, an extension, and nothing at all.
            (&[0, 0, 0, 2, 17, 1], &FAILURE),
            (&[0, 0, 0, 1, 19], &FAILURE),
            (&[0, 0, 0, 1, 22], &FAILURE),
            (&[0, 0, 0, 1, 27], &FAILURE),
            (&[0, 0, 0, 0], &FAILURE),
        ] {
            client.write_all(request).expect("written");
            assert_eq!(message(&mut client).expect("an answer").as_deref(), Some(answer));
        }
        client.write_all(&[0xff; 4]).expect("written");
        assert_eq!(message(&mut client).expect("the end"), None, "too long");
        let path = agent.path().to_owned();
        drop(agent);
        assert!(!path.exists());
    }
}
