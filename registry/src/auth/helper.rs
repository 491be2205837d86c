//! Runs `docker-credential-NAME`, a program that keeps passwords.
//!
//! One word on the command line, the rest through pipes, so that nothing secret is seen in a process list.
//!
//! # Source
//!
//! `docker/docker-credential-helpers`, README: "Development".

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::{Credential, file::password_or_token};
use crate::error::{Error, Result};

/// Largest answer that is read, in bytes.
const LARGEST_ANSWER: u64 = 1 << 20;
/// What all helpers say of a registry they do not know.
const NOT_FOUND: &str = "credentials not found";

/// Asks for the credential of `server`.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credential>> {
    let (ok, output) = run(name, "get", server.as_bytes())?;
    if !ok {
        if output.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(name, &output));
    }
    let answer: Value =
        serde_json::from_str(&output).map_err(|_| failed(name, "its answer is not JSON"))?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    let (username, secret) = (text("Username"), text("Secret"));
    Ok((!secret.is_empty()).then(|| password_or_token(username, secret)))
}

/// Has the credential of `server` kept.
pub(super) fn store(name: &str, server: &str, credential: &Credential) -> Result<()> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => ("<token>", token),
    };
    let input = json!({ "ServerURL": server, "Username": username, "Secret": secret }).to_string();
    match run(name, "store", input.as_bytes())? {
        (true, _) => Ok(()),
        (false, output) => Err(failed(name, &output)),
    }
}

/// Has the credential of `server` forgotten.
pub(super) fn erase(name: &str, server: &str) -> Result<()> {
    match run(name, "erase", server.as_bytes())? {
        (true, _) => Ok(()),
        (false, output) if output.contains(NOT_FOUND) => Ok(()),
        (false, output) => Err(failed(name, &output)),
    }
}

/// Runs the helper and returns whether it succeeded, and what it wrote.
fn run(name: &str, action: &str, input: &[u8]) -> Result<(bool, String)> {
    if name.is_empty()
        || !name.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.'))
    {
        return Err(failed(name, "its name may only have letters, digits, `-`, `_` and `.`"));
    }
    let io_failed = |error: io::Error| failed(name, &error.to_string());
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(io_failed)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input); // A helper that does not read says what is wrong itself.
            }
        });
        let mut output = Vec::new();
        let read = child.stdout.take().map(|it| it.take(LARGEST_ANSWER).read_to_end(&mut output));
        read.transpose().map(|_| output)
    });
    let status = child.wait().map_err(io_failed)?;
    let output = String::from_utf8_lossy(&output.map_err(io_failed)?).trim().to_owned();
    Ok((status.success(), output))
}

fn failed(name: &str, problem: &str) -> Error {
    let problem = problem.lines().next().unwrap_or_default().chars().take(300).collect::<String>();
    let problem = if problem.is_empty() { "it does not say why".to_owned() } else { problem };
    Error::Helper { program: format!("docker-credential-{name}"), problem }
}
