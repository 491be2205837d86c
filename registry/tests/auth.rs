//! Who is told which credential, and that nobody else is.

mod fake;
mod store;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fake::{Fake, Reply, Request, client_with, config};
use image::{ImageRef, document::media_type};
use registry::{Client, Credential, Credentials, Error};
use store::describe;

const SECRET: &str = "s3cr3t-Pa55";
/// `me:s3cr3t-Pa55` in base64.
const BASIC: &str = "Basic bWU6czNjcjN0LVBhNTU=";

fn name(fake: &Fake, rest: &str) -> ImageRef {
    ImageRef::parse(&format!("{}/{rest}", fake.host())).expect("the name is valid")
}

fn password() -> Credential {
    Credential::Password { username: "me".to_owned(), password: SECRET.to_owned() }
}

fn with_password(fakes: &[&Fake]) -> Client {
    let credentials =
        fakes.iter().fold(Credentials::none(), |all, fake| all.with(&fake.host(), password()));
    client_with(config(fakes), credentials)
}

fn tags() -> Reply {
    Reply::new(200, r#"{"tags":["1"]}"#)
}

/// A reply that asks for a token from `path` of the same fake.
fn bearer(request: &Request, path: &str) -> Reply {
    let host = request.header("host");
    let challenge = format!(
        r#"Bearer realm="http://{host}{path}",service="test registry",scope="repository:app:pull""#
    );
    Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
        .header("WWW-Authenticate", challenge)
}

/// Says that nothing that `fake` was sent has a credential in it.
fn assert_innocent(fake: &Fake) {
    for request in fake.requests() {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        let all = format!("{request:?}{}", String::from_utf8_lossy(&request.body));
        assert!(!all.contains(SECRET) && !all.contains(&BASIC[6..]), "{request:?}");
    }
}

fn chain(error: &Error) -> String {
    let mut text = format!("{error} {:?} {error:?}", error.hint());
    let mut source = std::error::Error::source(error);
    while let Some(it) = source {
        text += &it.to_string();
        source = it.source();
    }
    text
}

#[tokio::test]
async fn basic_authorization_is_given_when_asked_for() {
    let fake = Fake::start(|request, _| match request.header("authorization") {
        "" => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
        BASIC => Some(tags()),
        _ => None,
    });
    let client = with_password(&[&fake]);
    for _ in 0..2 {
        client.tags(&name(&fake, "app")).await.expect("we are let in");
    }
    let given: Vec<_> =
        fake.requests().iter().map(|it| it.header("authorization").to_owned()).collect();
    assert_eq!(given, ["", BASIC, BASIC], "the second time it is known");
}

#[tokio::test]
async fn tokens_are_fetched_once_and_used_until_refused() {
    let n_tokens = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_tokens);
    let fake = Fake::start(move |request, _| {
        let line = request.line.as_str();
        if line.starts_with("GET /token?") {
            assert_eq!(
                line,
                "GET /token?account=me&service=test+registry&scope=repository%3Aapp%3Apull"
            );
            assert_eq!(request.header("authorization"), BASIC);
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            return Some(Reply::new(200, format!(r#"{{"token":"t{n}","expires_in":300}}"#)));
        }
        let current = format!("Bearer t{}", counter.load(Ordering::SeqCst).min(2));
        match line {
            "GET /v2/app/tags/list" if request.header("authorization") == current => Some(tags()),
            "GET /v2/app/tags/list" => Some(bearer(request, "/token")),
            "GET /revoke" => None,
            _ => None,
        }
    });
    let client = with_password(&[&fake]);
    for _ in 0..3 {
        client.tags(&name(&fake, "app")).await.expect("we are let in");
    }
    assert_eq!(n_tokens.load(Ordering::SeqCst), 1);
    n_tokens.store(5, Ordering::SeqCst); // Now only `t2` is good, and there are no more of these.
    let error = client.tags(&name(&fake, "app")).await.expect_err("we are not let in");
    assert!(matches!(error, Error::PullDenied { .. }), "{error}");
    assert_eq!(n_tokens.load(Ordering::SeqCst), 6, "asked once more and no more");
}

#[tokio::test]
async fn refusals_end_and_say_what_docker_says() {
    let fake = Fake::start(|request, _| match request.line.starts_with("GET /token") {
        true => Some(Reply::new(200, r#"{"access_token":"anonymous"}"#)),
        false => Some(bearer(request, "/token")),
    });
    let client = client_with(config(&[&fake]), Credentials::none());
    let error = client.manifest(&name(&fake, "app:1")).await.expect_err("we are not let in");
    let host = fake.host();
    assert_eq!(
        error.to_string(),
        format!(
            "pull access denied for {host}/app:1, repository does not exist or may require authorization: \
             authentication required"
        )
    );
    assert_eq!(error.hint(), Some(format!("check the name, or run `kiln login {host}`")));
    assert_eq!(fake.lines().len(), 3);

    let fake = Fake::start(|request, _| match request.line.starts_with("GET /token") {
        true => Some(Reply::new(401, r#"{"details":"incorrect username or password"}"#)),
        false => Some(bearer(request, "/token")),
    });
    let client = client_with(config(&[&fake]), Credentials::none());
    let error = client.login(&fake.host(), "me", SECRET).await.expect_err("the password is wrong");
    assert!(
        error.to_string().starts_with("unauthorized: incorrect username or password"),
        "{error}"
    );
    assert!(!chain(&error).contains(SECRET));
    let error =
        with_password(&[&fake]).tags(&name(&fake, "app")).await.expect_err("the password is wrong");
    assert!(!chain(&error).contains(SECRET) && !chain(&error).contains(&BASIC[6..]));
}

#[tokio::test]
async fn identity_tokens_are_exchanged_by_post() {
    let fake = Fake::start(|request, _| match request.line.as_str() {
        "POST /token" => {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            assert_eq!(
                body,
                "grant_type=refresh_token&service=test+registry&client_id=kiln&scope=repository%3Aapp%3Apull&\
                 refresh_token=re%2Ffresh"
            );
            Some(Reply::new(200, r#"{"access_token":"t"}"#))
        }
        "GET /v2/app/tags/list" if request.header("authorization") == "Bearer t" => Some(tags()),
        "GET /v2/app/tags/list" => Some(bearer(request, "/token")),
        _ => None,
    });
    let credentials =
        Credentials::none().with(&fake.host(), Credential::IdentityToken("re/fresh".to_owned()));
    client_with(config(&[&fake]), credentials)
        .tags(&name(&fake, "app"))
        .await
        .expect("we are let in");
}

#[tokio::test]
async fn token_servers_at_foreign_private_addresses_get_nothing() {
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let evil = Fake::start_at(ip, |_, _| Some(Reply::new(200, r#"{"token":"t"}"#)));
        let realm = format!("http://{}/token", evil.host());
        let fake = Fake::start(move |_, _| {
            Some(
                Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
            )
        });
        let error = with_password(&[&fake, &evil])
            .tags(&name(&fake, "app"))
            .await
            .expect_err("it is refused");
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(evil.requests().is_empty());
    }
    for realm in ["file:///etc/passwd", "nonsense", ""] {
        let fake = Fake::start(move |_, _| {
            Some(
                Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
            )
        });
        assert!(with_password(&[&fake]).tags(&name(&fake, "app")).await.is_err(), "{realm}");
    }
}

#[tokio::test]
async fn redirects_elsewhere_are_followed_without_credentials() {
    let content = b"0123456789";
    for ip in ["127.0.0.1", "127.0.0.2"] {
        // Also a challenge there is not answered.
        let elsewhere = Fake::start_at(ip, move |request, _| match request.line.as_str() {
            "GET /cdn/blob?sig=x" => Some(Reply::new(200, content)),
            "GET /cdn/closed" => {
                Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""))
            }
            _ => None,
        });
        for (path, ok) in [("cdn/blob?sig=x", true), ("cdn/closed", false)] {
            let location = format!("http://u:p@{}/{path}", elsewhere.host());
            let fake = Fake::start(move |request, _| match request.header("authorization") {
                "" => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
                _ => Some(Reply::new(307, "").header("Location", &location)),
            });
            let blob = describe(media_type::OCI_LAYER, content);
            let client = with_password(&[&fake, &elsewhere]);
            let result = client.blob(&name(&fake, "app"), &blob, &mut Vec::new(), &|_| {}).await;
            assert_eq!(result.is_ok(), ok, "{result:?}");
        }
        assert!(elsewhere.requests().len() >= 2);
        assert_innocent(&elsewhere);
    }
}

#[tokio::test]
async fn redirects_within_the_registry_keep_the_credential_and_end() {
    let fake =
        Fake::start(|request, _| match (request.line.as_str(), request.header("authorization")) {
            (_, "") => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
            ("GET /v2/app/tags/list", _) => {
                Some(Reply::new(302, "").header("Location", "../../moved"))
            }
            ("GET /v2/moved", BASIC) => Some(tags()),
            ("GET /v2/loop/tags/list", _) => {
                Some(Reply::new(302, "").header("Location", "/v2/loop/tags/list"))
            }
            ("GET /v2/file/tags/list", _) => {
                Some(Reply::new(302, "").header("Location", "file:///etc/passwd"))
            }
            ("GET /v2/none/tags/list", _) => Some(Reply::new(302, "")),
            _ => None,
        });
    let client = with_password(&[&fake]);
    client.tags(&name(&fake, "app")).await.expect("it has only moved");
    for (path, code) in
        [("loop", "registry-protocol"), ("file", "refused-address"), ("none", "registry-protocol")]
    {
        let error = client.tags(&name(&fake, path)).await.expect_err("it leads nowhere");
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test]
async fn mirrors_do_not_get_the_credential_of_the_registry() {
    let mirror = Fake::start(|_, _| {
        Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let registry =
        Fake::start_at("127.0.0.2", |request, _| match request.header("authorization") {
            "" => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
            _ => Some(tags()),
        });
    let mut config = config(&[&mirror, &registry]);
    if let Some(table) = config.registries.get_mut(&registry.host()) {
        table.mirrors = vec![mirror.host()];
    }
    let client = client_with(config, Credentials::none().with(&registry.host(), password()));
    client.tags(&name(&registry, "app")).await.expect("the registry lets us in");
    assert!(!mirror.requests().is_empty());
    assert_innocent(&mirror);
}

#[tokio::test]
async fn odd_tokens_are_refused_without_being_shown() {
    for body in [
        r#"{"token":"s3cr3t-Pa55\n"}"#.to_owned(),
        "s3cr3t-Pa55".to_owned(),
        "{}".to_owned(),
        " ".repeat(2 << 20),
    ] {
        let fake = Fake::start(move |request, _| match request.line.starts_with("GET /token") {
            true => Some(Reply::new(200, &body)),
            false => Some(bearer(request, "/token")),
        });
        let error =
            with_password(&[&fake]).tags(&name(&fake, "app")).await.expect_err("it is no token");
        assert!(!chain(&error).contains(SECRET), "{error}");
    }
}

#[test]
fn credentials_are_stored_and_found_in_all_places() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let path = |name: &str| home.path().join(name).into_os_string();
    let variable = |name: &str| match name {
        "HOME" => Some(path("")),
        "XDG_RUNTIME_DIR" => Some(path("run")),
        "DOCKER_AUTH_CONFIG" => Some(r#"{"auths":{"env.example":{"auth":"ZW52OmU="}}}"#.into()),
        _ => None,
    };
    fs::create_dir_all(home.path().join("run/containers")).expect("writable");
    fs::write(
        home.path().join("run/containers/auth.json"),
        r#"{"auths":{"podman.example/team":{"auth":"cG9kOnA="}}}"#,
    )
    .expect("writable");
    let credentials = Credentials::from_environment(variable);
    let user = |host: &str, repository: &str| match credentials
        .lookup(host, repository)
        .expect("readable")
    {
        Some(Credential::Password { username, .. }) => username,
        other => format!("{other:?}"),
    };
    assert_eq!(user("docker.io", "library/x"), "None");
    let stored = credentials.store("index.docker.io", &password()).expect("writable");
    assert_eq!(stored.file, home.path().join(".docker/config.json"));
    assert_eq!(stored.helper, None);
    assert_eq!(user("docker.io", "library/x"), "me");
    assert_eq!(user("env.example", "x"), "env");
    assert_eq!(user("podman.example", "team/x"), "pod");
    assert_eq!(user("podman.example", "x"), "None");
    assert!(credentials.erase("docker.io").expect("writable"));
    assert_eq!(user("docker.io", "library/x"), "None");
    assert!(!credentials.erase("docker.io").expect("writable"));
    assert!(!format!("{:?}", Credentials::none().with("x", password())).contains(SECRET));
}

/// Runs in a process of its own, because helpers are found by PATH.
#[test]
fn helpers_keep_passwords() {
    let home = tempfile::tempdir().expect("a folder can be made");
    if std::env::var_os("HELPER_TEST").is_none() {
        let helper = home.path().join("docker-credential-box");
        let script = "#!/bin/sh\ncd \"$HELPER_TEST\" || exit 1\ncase $1 in\nstore) cat > kept ;;\nget) cat > asked; cat kept \
                      2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;\nerase) rm kept \
                      ;;\nesac\n";
        fs::write(&helper, script).expect("writable");
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut path = home.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let status = std::process::Command::new(std::env::current_exe().expect("it is running"))
            .args(["--exact", "helpers_keep_passwords"])
            .env("HELPER_TEST", home.path())
            .env("PATH", path)
            .status()
            .expect("it can be run");
        assert!(status.success());
        return;
    }
    fs::write(
        home.path().join("config.json"),
        r#"{"credsStore":"box","credHelpers":{"none.example":"missing"}}"#,
    )
    .expect("writable");
    let credentials = Credentials::in_folder(home.path());
    assert_eq!(credentials.lookup("docker.io", "x").expect("it answers"), None);
    let stored = credentials.store("docker.io", &password()).expect("it answers");
    assert_eq!(stored.helper.as_deref(), Some("box"));
    let text = fs::read_to_string(home.path().join("config.json")).expect("readable");
    assert!(!text.contains("auth\"") && text.contains("https://index.docker.io/v1/"), "{text}");
    assert_eq!(credentials.lookup("docker.io", "x").expect("it answers"), Some(password()));
    assert!(credentials.erase("docker.io").expect("it answers"));
    assert_eq!(credentials.lookup("docker.io", "x").expect("it answers"), None);
    let error = credentials.lookup("none.example", "x").expect_err("there is no such program");
    assert!(error.to_string().contains("docker-credential-missing"), "{error}");
}

#[tokio::test]
async fn a_broken_helper_does_not_keep_public_images_away() {
    let home = tempfile::tempdir().expect("a folder can be made");
    fs::write(home.path().join("config.json"), r#"{"credsStore":"no-such-helper"}"#)
        .expect("writable");
    let fake =
        Fake::start(|request, _| match (request.line.as_str(), request.header("authorization")) {
            (line, "") if line.starts_with("GET /token") => {
                Some(Reply::new(200, r#"{"token":"anonymous"}"#))
            }
            ("GET /v2/app/tags/list", "Bearer anonymous") => Some(tags()),
            _ => Some(bearer(request, "/token")),
        });
    let client = client_with(config(&[&fake]), Credentials::in_folder(home.path()));
    client.tags(&name(&fake, "app")).await.expect("it is public");
    let error = client.tags(&name(&fake, "private")).await.expect_err("it is not public");
    assert!(error.to_string().contains("docker-credential-no-such-helper"), "{error}");
}
