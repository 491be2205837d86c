//! `kiln login` and `kiln logout`.

use std::io::{BufRead, IsTerminal, Read};

use anyhow::{Context, anyhow};
use registry::{Client, Credential, Credentials};

use super::Globals;
use crate::{
    args::registry::{LoginArgs, LogoutArgs},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

const DEFAULT: &str = "docker.io";
/// No password is longer.
const LONGEST: u64 = 64 * 1024;

/// Asks a registry whether it knows the user, and keeps the password if so.
///
/// # Errors
///
/// Fails where name or password are missing or wrong, or the registry cannot be asked.
pub fn login(args: LoginArgs, globals: &Globals) -> Result<Exit> {
    let registry = args.registry.as_deref().unwrap_or(DEFAULT);
    let terminal = std::io::stdin().is_terminal();
    if args.password.is_some() {
        print::err(
            "warning: other users of this machine can see --password; use --password-stdin\n",
        );
    }
    let username = match args.username {
        Some(username) => username,
        None if terminal && !args.password_stdin => ask("Username: ")?,
        None => {
            return Err(
                Failure::input(anyhow!("the user name is missing")).hint("add --username NAME")
            );
        }
    };
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
            read.context("cannot read the password from standard input").or_input()?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if terminal => ask_unseen("Password: ")?,
        None => {
            return Err(
                Failure::input(anyhow!("the password is missing")).hint("add --password-stdin")
            );
        }
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::input(anyhow!("user name and password must not be empty")));
    }
    let credentials = Credentials::from_environment(|name| std::env::var_os(name));
    let client = Client::new(globals.config()?.registries(), credentials.clone());
    super::wait(client.login(registry, &username, &password))?.map_err(|error| match error {
        registry::Error::Unauthorized { .. } => {
            Failure::failed(error).hint("check the user name and the password or token")
        }
        error => super::registry_failure(error),
    })?;
    let credential = Credential::Password { username, password };
    let stored = credentials.store(registry, &credential).map_err(super::registry_failure)?;
    if stored.helper.is_none() {
        let file = stored.file.display();
        print::err(&format!(
            "warning: the password is kept unencrypted in `{file}`\nhint: configure a credential helper\n"
        ));
    }
    print::out("Login Succeeded\n")?;
    Ok(Exit::Done)
}

/// Forgets the password of a registry.
///
/// # Errors
///
/// Fails where the file that holds it cannot be written.
pub fn logout(args: &LogoutArgs) -> Result<Exit> {
    let registry = args.registry.as_deref().unwrap_or(DEFAULT);
    let credentials = Credentials::from_environment(|name| std::env::var_os(name));
    match credentials.erase(registry).map_err(super::registry_failure)? {
        true => print::out(&format!("Removing login credentials for {registry}\n"))?,
        false => print::out(&format!("Not logged in to {registry}\n"))?,
    }
    Ok(Exit::Done)
}

fn ask(prompt: &str) -> Result<String> {
    print::err(prompt);
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .take(LONGEST)
        .read_line(&mut line)
        .context("cannot read from the terminal")
        .or_input()?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without showing what is typed.
fn ask_unseen(prompt: &str) -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).context("cannot set the terminal up").or_failed()?;
    let (mut silent, as_it_was) = (before.clone(), before.clone());
    // Whoever changes their mind gets the terminal back.
    crate::signals::on_interrupt(move || {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &as_it_was);
        print::err("\n");
        std::process::exit(i32::from(Exit::Interrupted.status()));
    });
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)
        .context("cannot set the terminal up")
        .or_failed()?;
    let answer = ask(prompt);
    // If this fails the user's shell sets its terminal up anyway.
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
    print::err("\n");
    answer
}
