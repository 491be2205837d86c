//! Repositories, served by a web server of this process the way any web server can.

mod server;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use executor::{Context, ExecutorError, Secret, Session};
use planner::{git_url::GitRef, plan::GitSource};
use server::{Answer, Home, Request, Server};

/// A repository in the making.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new(format: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        this.git(&[
            "init",
            "--quiet",
            "--initial-branch=main",
            &format!("--object-format={format}"),
        ]);
        this
    }

    /// One with a branch `main`, a tag `v1` behind it, a tag `note` with a message, and a branch `other`.
    fn sample() -> Self {
        let this = Self::new("sha1");
        this.write("file", "one");
        this.write("sub/deep/file", "deep");
        this.write("run", "#!/bin/sh");
        fs::set_permissions(this.path("run"), PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        symlink("/", this.path("away")).expect("it is new");
        this.commit("first");
        this.git(&["tag", "v1"]);
        this.git(&["tag", "-a", "note", "-m", "noted"]);
        this.git(&["branch", "other"]);
        this.write("file", "two");
        this.commit("second");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is below the repository"))
            .expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
            .envs([
                ("GIT_AUTHOR_DATE", "1700000000 +0000"),
                ("GIT_COMMITTER_DATE", "1700000000 +0000"),
            ])
            .output()
            .expect("git is installed");
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Serves `.git` as files.
    fn serve(&self) -> Server {
        self.git(&["update-server-info"]);
        let root = self.folder.path().to_owned();
        Server::start(move |request| file(&root, request))
    }
}

fn file(root: &Path, request: &Request) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    match fs::read(root.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Answer::new(200, bytes),
        Err(_) => Answer::new(404, ""),
    }
}

fn source(url: &str) -> GitSource {
    let url = GitRef::parse(url).expect("the address is good").expect("it is that of a repository");
    let checksum = Some(url.checksum.clone()).filter(|it| !it.is_empty());
    GitSource { keep_git_dir: url.keep_git_dir.unwrap_or(false), checksum, url }
}

fn fetch(home: &Home, url: &str) -> Result<Context, ExecutorError> {
    Context::git(&home.session(), &source(url))
}

fn read(context: &Context, path: &str) -> String {
    let bytes = context.read_file(path, 1 << 20).expect("it can be read");
    String::from_utf8_lossy(&bytes.unwrap_or_else(|| panic!("`{path}` is there"))).into_owned()
}

fn paths(context: &Context) -> Vec<String> {
    let paths = context.paths().expect("it can be read");
    paths.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect()
}

#[test]
fn branches_tags_and_commits_are_found() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    let first = repository.git(&["rev-parse", "v1"]);
    for (tail, text) in [
        ("", "two"),
        ("#main", "two"),
        ("#refs/heads/main", "two"),
        ("#other", "one"),
        ("#v1", "one"),
        ("#note", "one"),
        ("?tag=note", "one"),
        ("?branch=other", "one"),
        (&format!("#{first}"), "one"),
        (&format!("?commit={first}"), "one"),
        (&format!("?ref=v1&commit={}", &first[..8]), "one"),
        (&format!("?ref=note&commit={first}"), "one"),
    ] {
        let context = fetch(&home, &server.url(&format!("/.git{tail}"))).expect(tail);
        assert_eq!(read(&context, "file"), text, "{tail}");
        let all = ["away", "file", "run", "sub", "sub/deep", "sub/deep/file"];
        assert_eq!(paths(&context), all, "{tail}");
    }
}

#[test]
fn equal_checkouts_are_equal_layers_whatever_the_store() {
    let repository = Repository::sample();
    let server = repository.serve();
    let layers = |_| {
        let home = Home::new();
        fetch(&home, &server.url("/.git?ref=main&keep-git-dir=true")).expect("it is there");
        home.session().store.layers().expect("the store is good")[0].diff_id
    };
    let found: Vec<_> = (0..2).map(layers).collect();
    assert_eq!(found[0], found[1]);
}

#[test]
fn the_next_build_only_asks_where_the_branch_is() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    fetch(&home, &server.url("/.git#main")).expect("it is there");
    let n_before = server.requests().len();
    fetch(&home, &server.url("/.git#main")).expect("it is known");
    let later = server.requests().split_off(n_before);
    assert!(later.iter().all(|it| !it.path.contains("/objects/")), "{later:?}");
    repository.write("file", "three");
    repository.commit("third");
    repository.git(&["update-server-info"]);
    assert_eq!(
        read(&fetch(&home, &server.url("/.git#main")).expect("it has moved"), "file"),
        "three"
    );
}

#[test]
fn a_commit_that_is_known_is_not_asked_for() {
    let repository = Repository::sample();
    let first = repository.git(&["rev-parse", "v1"]);
    let server = repository.serve();
    let home = Home::new();
    let urls = [
        server.url(&format!("/.git#{first}")),
        server.url(&format!("/.git?tag=v1&commit={first}")),
    ];
    for url in &urls {
        fetch(&home, url).expect("it is there");
    }
    drop(server);
    for url in &urls {
        assert_eq!(read(&fetch(&home, url).expect("it is known"), "file"), "one");
    }
}

#[test]
fn checksums_are_compared_with_what_the_name_stands_for() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    let main = repository.git(&["rev-parse", "main"]);
    fetch(&home, &server.url(&format!("/.git#{main}"))).expect("the commit is in the store now");
    let error = fetch(&home, &server.url(&format!("/.git?tag=v1&commit={main}"))).map(|_| ());
    let error = error.expect_err("the tag is another commit");
    assert_eq!(error.code(), "checksum-mismatch");
    assert!(error.to_string().contains(&main), "{error}");
}

#[test]
fn a_part_of_a_repository_is_a_folder_of_it() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    let context = fetch(&home, &server.url("/.git#main:sub/deep")).expect("it is there");
    assert_eq!(paths(&context), ["file"]);
    for bad in [
        "#main:../x",
        "#main:sub/../../x",
        "#main:away/etc",
        "#main:away",
        "#main:file",
        "#main:none",
    ] {
        let error = fetch(&home, &server.url(&format!("/.git{bad}"))).map(|_| ()).expect_err(bad);
        assert_eq!(error.code(), "git-failed", "{bad}");
    }
}

#[test]
fn names_are_never_options() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    for bad in ["--upload-pack=touch /tmp/x", "-x", "--output=x", "a..b", "+a:b"] {
        let mut git = source(&server.url("/.git"));
        git.url.reference = bad.to_owned();
        let error = Context::git(&home.session(), &git).map(|_| ()).expect_err(bad);
        assert!(error.to_string().contains("no name of a branch"), "{error}");
    }
    assert!(server.requests().is_empty(), "nothing was asked");
    // The server may name a default branch as it likes.
    fs::write(repository.path(".git/HEAD"), "ref: refs/heads/--output=x\n").expect("it is ours");
    let error = fetch(&home, &server.url("/.git")).map(|_| ()).expect_err("that is no branch");
    assert!(error.to_string().contains("default branch"), "{error}");
}

#[test]
fn submodules_come_along_but_not_from_files_or_commands() {
    let inner = Repository::sample();
    let inner_server = inner.serve();
    let canary = tempfile::tempdir().expect("a folder can be made");
    let touched = canary.path().join("touched");
    let file_url = format!("file://{}", inner.folder.path().display());
    let ext_url = format!("ext::touch {}", touched.display());
    let commit = inner.git(&["rev-parse", "main"]);
    for (url, is_good) in [(inner_server.url("/.git"), true), (file_url, false), (ext_url, false)] {
        let outer = Repository::new("sha1");
        outer.write("file", "outer");
        outer.write(
            ".gitmodules",
            &format!("[submodule \"inner\"]\n\tpath = inner\n\turl = {url}\n"),
        );
        outer.git(&["add", "--all"]);
        outer.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},inner")]);
        outer.git(&["commit", "--quiet", "-m", "with a submodule"]);
        let server = outer.serve();
        let home = Home::new();
        match fetch(&home, &server.url("/.git")) {
            Ok(context) => {
                assert!(is_good, "{url}");
                assert_eq!(read(&context, "inner/file"), "two");
                assert!(!paths(&context).contains(&"inner/.git".to_owned()));
            }
            Err(error) => {
                assert!(!is_good && error.to_string().contains("submodule"), "{url}: {error}")
            }
        }
        let context = fetch(&home, &server.url("/.git?submodules=false")).expect("it is left out");
        assert_eq!(read(&context, "file"), "outer");
    }
    assert!(!touched.exists(), "no command of the repository was run");
}

#[test]
fn the_repository_itself_is_kept_on_demand() {
    let repository = Repository::sample();
    let server = repository.serve();
    let home = Home::new();
    let url =
        server.url("/.git?ref=note&keep-git-dir=true").replace("http://", "http://me:secret@");
    let context = fetch(&home, &url).expect("it is there");
    assert_eq!(read(&context, ".git/HEAD").trim(), repository.git(&["rev-parse", "v1"]));
    let config = read(&context, ".git/config");
    assert!(config.contains(&server.url("/.git")) && !config.contains("secret"), "{config}");
    let paths = paths(&context);
    assert!(paths.contains(&".git/refs/tags/note".to_owned()), "{paths:?}");
    assert!(!paths.contains(&".git/FETCH_HEAD".to_owned()), "{paths:?}");
}

#[test]
fn repositories_with_sha_256_are_read() {
    let repository = Repository::new("sha256");
    repository.write("file", "long");
    let commit = repository.commit("first");
    let server = repository.serve();
    for tail in
        ["#main".to_owned(), format!("#{commit}"), format!("?commit={commit}&keep-git-dir=1")]
    {
        let home = Home::new();
        let context = fetch(&home, &server.url(&format!("/.git{tail}"))).expect(&tail);
        assert_eq!(read(&context, "file"), "long");
    }
}

#[test]
fn a_token_opens_the_repository_and_is_seen_nowhere() {
    let repository = Repository::sample();
    repository.git(&["update-server-info"]);
    let root = repository.folder.path().to_owned();
    let server = Server::start(move |request| match request.header("authorization") {
        Some("basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0") => file(&root, request),
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let home = Home::new();
    let url = server.url("/.git#main");
    let error = fetch(&home, &url).map(|_| ()).expect_err("it is closed");
    assert_eq!(error.code(), "git-failed");
    let mut session: Session = home.session();
    session.secrets.insert("GIT_AUTH_TOKEN".to_owned(), Secret::Value(b"secret".to_vec()));
    let context = Context::git(&session, &source(&url)).expect("the token opens it");
    assert_eq!(read(&context, "file"), "two");
}

#[test]
fn ssh_needs_an_agent() {
    let error =
        fetch(&Home::new(), "git@127.0.0.1:x/y.git").map(|_| ()).expect_err("there is none");
    assert_eq!(error.code(), "ssh-not-found");
}

#[test]
fn git_can_be_stopped() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |_| {
        // Silent until the test is over.
        let _ = receiver.recv();
        Answer::new(404, "")
    });
    let home = Home::new();
    let session = home.session();
    let cancel = session.cancel.clone();
    let git = source(&server.url("/.git"));
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| Context::git(&session, &git).map(|_| ()));
        while server.requests().is_empty() {
            std::thread::yield_now();
        }
        cancel.cancel();
        let error = fetch.join().expect("it does not panic").expect_err("it was stopped");
        assert!(matches!(error, ExecutorError::Canceled), "{error}");
    });
    drop(sender);
}
