//! What RUN does when it cannot do what it should. Needs root: `scripts/test privileged`.

mod builds;

use std::fs;

use builds::{Home, build, refused};
use executor::{Context, ExecutorError, Secret, Session};

/// A session whose context is one static busybox.
fn session(home: &Home) -> Session {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: run scripts/test");
    let context = home.path("context");
    fs::create_dir(&context).expect("made");
    fs::copy("/bin/busybox", context.join("busybox")).expect("the package busybox-static");
    let mut session = home.session();
    let folder = Context::folder(&session, &context, Vec::new()).expect("it is there");
    session.contexts.insert("context".to_owned(), folder);
    session.build_id = "test".to_owned();
    session
}

fn run(flags_and_command: &str) -> String {
    format!("FROM scratch\nCOPY busybox /bin/sh\nRUN {flags_and_command}\n")
}

#[test]
fn privileged_secrets_and_agents_must_be_given() {
    let home = Home::new();
    let session = session(&home);
    for (mount, code) in [("secret", "secret-not-found"), ("ssh", "ssh-not-found")] {
        let text = run(&format!("--mount=type={mount},id=name,required true"));
        let error = refused(&session, &text);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some_and(|it| it.contains("name")));
    }
    // What is not required may be missing.
    build(&session, &run("--mount=type=secret,id=name --mount=type=ssh true"))
        .expect("it is built");
}

#[test]
fn privileged_secrets_are_small() {
    let home = Home::new();
    let mut session = session(&home);
    let path = home.path("secret");
    fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
    session.secrets.insert("token".to_owned(), Secret::File(path));
    let error = refused(&session, &run("--mount=type=secret,id=token true"));
    assert_eq!(error.code(), "unsupported", "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn privileged_a_failed_command_ends_the_build() {
    let home = Home::new();
    let session = session(&home);
    let text = run("echo last words && exit 7");
    let error = refused(&session, &text);
    assert_eq!(error.code(), "run-failed", "{error}");
    let ExecutorError::ExitCode { code: 7, tail, .. } = error else { panic!("{error:?}") };
    assert_eq!(tail, ["last words"]);
    // It is not remembered.
    assert_eq!(refused(&session, &text).code(), "run-failed");

    // Not the first process of the namespace, which the kernel protects from itself.
    let error = refused(&session, &run("sh -c 'kill -9 $$'; exit $?"));
    assert!(
        matches!(
            error,
            ExecutorError::ExitCode { code: 137, .. } | ExecutorError::Signal { signal: 9, .. }
        ),
        "{error:?}"
    );
}
