//! RUN: the key, the sandbox, the output, the layer.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use cache::StepRecord;
use image::layer::LayerIndex;
use planner::plan::{CopyItem, CopyOp, MountOp, Network, RunOp, Sharing, Source, Step};
use sandbox::{Access, Mount, Root, Source as MountSource, Spec};

use crate::{
    copy,
    error::ExecutorError,
    execute::{Execution, Made},
    key::{KeyBuilder, chain_id},
    session::{Secret, Task},
    tree::{Chain, Layers, Tree},
};

/// How many of the last lines of output an error repeats.
const N_TAIL_LINES: usize = 20;

/// A secret is at most this long, as in BuildKit.
const SECRET_LIMIT: u64 = 500 << 10;

/// The tree that a mount shows or starts with.
pub(crate) fn mount_source(mount: &MountOp) -> Option<&Source> {
    match mount {
        MountOp::Bind { source, .. } => Some(source),
        MountOp::Cache { seed: Some((source, _)), .. } => Some(source),
        _ => None,
    }
}

impl Execution<'_> {
    pub(crate) fn run(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Chain,
        task: &Task<'_>,
    ) -> Result<(StepRecord, bool), ExecutorError> {
        let fast = self.run_key(step, op, parent, false, task)?;
        if let Some((key, _)) = &fast
            && let Some(record) = self.look_up(step, key)?
        {
            return Ok((record, true));
        }
        let has_binds = op.mounts.iter().any(|it| matches!(it, MountOp::Bind { .. }));
        if fast.is_some() && !has_binds {
            let Some(key) = fast else { return Err(ExecutorError::Canceled) };
            return self.once(step, key, || self.run_now(step, op, task));
        }
        let Some(slow) = self.run_key(step, op, parent, true, task)? else { return Err(ExecutorError::Canceled) };
        let (record, is_known) = match self.look_up(step, &slow.0)? {
            Some(record) => (record, true),
            None => self.once(step, slow, || self.run_now(step, op, task))?,
        };
        if let Some((key, recipe)) = fast {
            self.session.store.put_step(&StepRecord { key, recipe, ..record.clone() })?;
        }
        Ok((record, is_known))
    }

    /// The key of a RUN. With `content` mounts count by what is in them, without by the layers they come from; nothing if
    /// some of them come from no layers.
    fn run_key(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Chain,
        content: bool,
        task: &Task<'_>,
    ) -> Result<Option<(cache::StepKey, serde_json::Value)>, ExecutorError> {
        let mut key = KeyBuilder::new(if content { "run with contents" } else { "run" });
        key.digest("parent", &chain_id(parent.layers()));
        key.texts("args", op.args.iter().map(String::as_str));
        let env: Vec<String> = op.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        key.texts("env", env.iter().map(String::as_str));
        key.text("cwd", &op.cwd);
        key.text("user", &op.user);
        key.text("hostname", &op.hostname);
        key.text("network", &format!("{:?}", op.network));
        key.text("security", if op.insecure { "insecure" } else { "sandbox" });
        key.text("platform", &step.platform.to_string());
        key.text("latest", &self.latest().map(|it| it.to_string()).unwrap_or_default());
        key.texts("hosts", op.extra_hosts.iter().map(|(name, _)| name.as_str()));
        key.text("shm", &op.shm_size.map(|it| it.to_string()).unwrap_or_default());
        let ulimits: Vec<String> = op.ulimits.iter().map(|(name, soft, hard)| format!("{name}={soft}:{hard}")).collect();
        key.texts("ulimits", ulimits.iter().map(String::as_str));
        if let Some((name, script)) = &op.script {
            key.text("script", name);
            key.text("script text", script);
        }
        for mount in &op.mounts {
            match mount {
                MountOp::Bind { source, path, target, writable } => {
                    key.text("bind", &format!("{target} {path} {writable}"));
                    match source {
                        Source::Scratch => key.text("of", "nothing"),
                        Source::Image(_) | Source::Step(_) if !content => {
                            key.digest("of", &chain_id(self.chain(source)?.layers()));
                        }
                        _ if !content => return Ok(None),
                        _ => key.digest("of", &self.content_of(source, path, task)?),
                    }
                }
                MountOp::Cache { target, seed, read_only, .. } => {
                    key.text("cache", &format!("{target} {read_only}"));
                    if let Some((source, path)) = seed {
                        key.text("seed", path);
                        key.digest("of", &chain_id(self.chain(source)?.layers()));
                    }
                }
                MountOp::Tmpfs { target, size } => key.text("tmpfs", &format!("{target} {size:?}")),
                MountOp::Secret { id, target, env, required, mode, uid, gid } => {
                    key.text("secret", &format!("{id} {target:?} {env:?} {required} {mode:o} {uid} {gid}"));
                }
                MountOp::Ssh { id, target, required, mode, uid, gid } => {
                    key.text("ssh", &format!("{id} {target} {required} {mode:o} {uid} {gid}"));
                }
            }
        }
        Ok(Some(key.finish()))
    }

    fn content_of(&self, source: &Source, path: &str, task: &Task<'_>) -> Result<[u8; 32], ExecutorError> {
        let tree = self.tree(source, task)?;
        Ok(copy::gather(&whole(source, path), &[tree])?.content)
    }

    fn run_now(&self, step: &Step, op: &RunOp, task: &Task<'_>) -> Result<Made, ExecutorError> {
        let store = &self.session.store;
        let chain = self.fetch(&step.parent)?;
        let lower = self.trees_of(&chain)?;
        let view = Layers::open(store, &chain)?;
        let staged = store.stage_tree()?;
        if let Some(root) = view.view().lookup(b"") {
            staged.set_root(root.entry)?;
        }
        // What a runtime needs to mount on stays in the image, as it does with runc; all other mount points vanish again.
        for name in ["dev", "proc", "sys"] {
            if view.view().lookup(name.as_bytes()).is_none() {
                let path = staged.upper().join(name);
                std::fs::create_dir(&path).map_err(|source| ExecutorError::Write { path, source })?;
            }
        }
        let scratch = staged.upper().with_file_name("mounts");
        std::fs::create_dir(&scratch).map_err(|source| ExecutorError::Write { path: scratch.clone(), source })?;

        let root = Root::Overlay { lower, upper: staged.upper(), work: staged.work() };
        let args = op.args.iter().map(|it| os(it));
        let mut spec = Spec::new(root, args);
        spec.env = op.env.iter().chain(&op.proxy_env).map(|(name, value)| (os(name), os(value))).collect();
        spec.cwd = PathBuf::from(os(&op.cwd));
        spec.create_cwd = true;
        spec.user = op.user.clone();
        spec.hostname = op.hostname.clone();
        spec.hosts = Some(hosts_file(op));
        spec.resolv_conf = Some(resolv_conf());
        spec.network = match op.network {
            Network::None => sandbox::Network::None,
            Network::Default | Network::Host => sandbox::Network::Host,
        };
        spec.privileged = op.insecure;
        spec.shm_size = op.shm_size;
        spec.ulimits = op.ulimits.clone();
        if let Some((name, script)) = &op.script {
            let target = PathBuf::from(os(&format!("/dev/pipes/{name}")));
            spec.mounts.push(Mount::File { content: parser::encode(script), target, mode: 0o755, uid: 0, gid: 0 });
        }
        // Guards of cache mounts: they are let go when the command has ended.
        let mut guards = Vec::new();
        for (mount_idx, mount) in op.mounts.iter().enumerate() {
            self.add_mount(step, &mut spec, mount, &scratch, mount_idx, &mut guards, task)?;
        }
        task.start();
        let exit = self.run_sandbox(&spec, op, task)?;
        drop(guards);
        check_exit(op, exit)?;
        let options = cache::PackOptions { latest_mtime: self.latest() };
        let index = cache::pack_upper(&staged.upper(), view.view(), &options, std::io::sink())?;
        self.commit(staged, index)
    }

    fn commit(&self, staged: cache::StagedTree, index: LayerIndex) -> Result<Made, ExecutorError> {
        staged.commit(&index)?;
        Ok(Made { index: Some(index) })
    }

    /// The unpacked layers of a chain, bottom up.
    pub(crate) fn trees_of(&self, chain: &Chain) -> Result<Vec<PathBuf>, ExecutorError> {
        let store = &self.session.store;
        let mut trees = Vec::with_capacity(chain.layers().len());
        for layer in chain.layers() {
            // Layers that change nothing would only make look-ups longer.
            if !store.index(layer)?.changes.is_empty() {
                trees.push(store.ensure_tree(layer)?);
            }
        }
        Ok(trees)
    }

    #[expect(clippy::too_many_arguments, reason = "a mount needs the step, its sandbox and its scratch space")]
    fn add_mount(
        &self,
        step: &Step,
        spec: &mut Spec,
        mount: &MountOp,
        scratch: &std::path::Path,
        mount_idx: usize,
        guards: &mut Vec<cache::CacheMount>,
        task: &Task<'_>,
    ) -> Result<(), ExecutorError> {
        match mount {
            MountOp::Bind { source, path, target, writable } => {
                let access = if *writable {
                    let make = |name: &str| {
                        let path = scratch.join(format!("{name}{mount_idx}"));
                        std::fs::create_dir(&path).map(|()| path.clone()).map_err(|source| ExecutorError::Write { path, source })
                    };
                    Access::Discard { upper: make("upper")?, work: make("work")? }
                } else {
                    Access::ReadOnly
                };
                let lower = match source {
                    Source::Scratch => {
                        let empty = scratch.join(format!("empty{mount_idx}"));
                        std::fs::create_dir(&empty)
                            .map_err(|source| ExecutorError::Write { path: empty.clone(), source })?;
                        vec![empty]
                    }
                    Source::Image(_) | Source::Step(_) => {
                        let chain = self.fetch(source)?;
                        self.trees_of(&chain)?
                    }
                    _ => vec![self.materialize(source, path, task)?],
                };
                let source = MountSource::Tree { lower, path: PathBuf::from(os(path)) };
                spec.mounts.push(Mount::Bind { source, target: PathBuf::from(os(target)), access });
            }
            MountOp::Cache { id, target, sharing, seed, read_only, mode, uid, gid } => {
                let sharing = match sharing {
                    Sharing::Shared => cache::Sharing::Shared,
                    Sharing::Private => cache::Sharing::Private,
                    Sharing::Locked => cache::Sharing::Locked,
                };
                // With --no-cache a mount starts empty, and is this build's alone.
                let mut namespace = if step.no_cache { self.session.build_id.clone() } else { String::new() };
                // What a mount starts with is part of what it is: owner, mode, and seed.
                if (*mode, *uid, *gid) != (0o755, 0, 0) {
                    namespace.push_str(&format!(" {mode:o} {uid}:{gid}"));
                }
                if let Some((source, path)) = seed {
                    let chain = chain_id(self.chain(source)?.layers());
                    namespace.push_str(&format!(" {chain:x?} {path}"));
                }
                let mut fill = |folder: &std::path::Path| match seed {
                    None => Ok(()),
                    Some((source, path)) => self
                        .tree(source, task)
                        .and_then(|tree| crate::export::write_folder(&tree, &parser::encode(path), folder, true))
                        .map_err(|error| std::io::Error::other(crate::session::full_message(&error))),
                };
                let (mode, uid, gid) = (*mode, *uid, *gid);
                let request =
                    cache::CacheMountRequest { id, namespace: &namespace, sharing, mode, uid, gid, seed: Some(&mut fill) };
                let mount = self.session.store.cache_mount(request)?;
                let access = if *read_only { Access::ReadOnly } else { Access::ReadWrite };
                let source = MountSource::Tree { lower: vec![mount.path().to_owned()], path: PathBuf::from("/") };
                spec.mounts.push(Mount::Bind { source, target: PathBuf::from(os(target)), access });
                guards.push(mount);
            }
            MountOp::Tmpfs { target, size } => {
                spec.mounts.push(Mount::Tmpfs { target: PathBuf::from(os(target)), size: *size, mode: 0o1777 });
            }
            MountOp::Secret { id, target, env, required, mode, uid, gid } => {
                let value = self.secret(id)?;
                if value.is_none() && *required {
                    return Err(ExecutorError::SecretNotFound { id: id.clone() });
                }
                if let Some(name) = env {
                    let value = OsString::from_vec(value.clone().unwrap_or_default());
                    spec.env.push((os(name), value));
                }
                if let (Some(target), Some(content)) = (target, value) {
                    let target = PathBuf::from(os(target));
                    spec.mounts.push(Mount::File { content, target, mode: *mode, uid: *uid, gid: *gid });
                }
            }
            MountOp::Ssh { id, target, required, .. } => match self.session.ssh.get(id) {
                Some(socket) => {
                    let source = MountSource::Host(socket.clone());
                    let target = PathBuf::from(os(target));
                    if !spec.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                        spec.env.push(("SSH_AUTH_SOCK".into(), target.clone().into_os_string()));
                    }
                    spec.mounts.push(Mount::Bind { source, target, access: Access::ReadWrite });
                }
                None if *required => return Err(ExecutorError::SshNotFound { id: id.clone() }),
                None => {}
            },
        }
        Ok(())
    }

    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ExecutorError> {
        match self.session.secrets.get(id) {
            None => Ok(None),
            Some(Secret::Value(bytes)) => Ok(Some(bytes.clone())),
            Some(Secret::File(path)) => {
                let failed = |source| ExecutorError::Read { path: path.display().to_string(), source };
                let file = std::fs::File::open(path).map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(SECRET_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.len() as u64 > SECRET_LIMIT {
                    return Err(ExecutorError::Unsupported {
                        message: format!("secret `{id}` is longer than {} KiB", SECRET_LIMIT >> 10),
                        hint: "give large data as a bind mount or a build context".to_owned(),
                    });
                }
                Ok(Some(bytes))
            }
        }
    }

    /// A part of a local folder, a repository or a download as a tree of the store, made once for the same content.
    fn materialize(&self, source: &Source, path: &str, task: &Task<'_>) -> Result<PathBuf, ExecutorError> {
        let op = whole(source, path);
        let trees = [self.tree(source, task)?];
        let gathered = copy::gather(&op, &trees)?;
        let mut key = KeyBuilder::new("mounted files");
        key.digest("content", &gathered.content);
        key.text("path", path);
        let (key, recipe) = key.finish();
        let _lock = self.session.store.step_lock(&key)?;
        let layer = match self.session.store.step(&key)? {
            Some(record) => record.layer,
            None => {
                let begun = std::time::Instant::now();
                let made = self.write_layer(|out| {
                    copy::write_copy(&op, &gathered, &trees, &Tree::Empty, self.times(), out)
                })?;
                let layer = made.index.map(|it| it.diff_id);
                self.session.store.put_step(&StepRecord {
                    key,
                    parent: None,
                    layer,
                    same_as: None,
                    description: format!("files for a mount: {path}"),
                    recipe,
                    created: u64::try_from(crate::time::Timestamp::now().secs).unwrap_or(0),
                    duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    last_used: 0,
                })?;
                layer
            }
        };
        match layer {
            Some(layer) => Ok(self.session.store.ensure_tree(&layer)?),
            None => Err(ExecutorError::NotFound { path: path.to_owned() }),
        }
    }

    fn run_sandbox(&self, spec: &Spec, op: &RunOp, task: &Task<'_>) -> Result<Ended, ExecutorError> {
        let log = self.session.store.new_log(&self.session.build_id, &task.log_name())?;
        let child = Arc::new(sandbox::spawn(spec)?);
        for note in child.notes() {
            task.warn(note);
        }
        let guard = {
            let child = child.clone();
            self.session.cancel.on_cancel(move || child.kill())
        };
        let output = Mutex::new(Output { log, tail: VecDeque::new() });
        std::thread::scope(|scope| {
            let stderr = child.take_stderr();
            let reader = scope.spawn(|| forward(stderr, 2, &output, task));
            forward(child.take_stdout(), 1, &output, task);
            drop(reader.join());
        });
        let exit = child.wait()?;
        drop(guard);
        self.session.cancel.check()?;
        let _ = op;
        let output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Ended { exit, tail: output.tail.into_iter().collect() })
    }
}

/// How a command ended, and the last lines of its output.
struct Ended {
    exit: sandbox::Exit,
    tail: Vec<String>,
}

struct Output {
    log: std::fs::File,
    tail: VecDeque<String>,
}

/// Passes the output of a command on, in whole lines where they come soon enough.
fn forward(stream: Option<OwnedFd>, number: u8, output: &Mutex<Output>, task: &Task<'_>) {
    let Some(stream) = stream else { return };
    let mut stream = std::fs::File::from(stream);
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let n_read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n_read) => n_read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        pending.extend_from_slice(&buffer[..n_read]);
        let n_whole = match pending.iter().rposition(|it| *it == b'\n') {
            Some(end) => end + 1,
            // A line without an end is passed on in parts rather than kept.
            None if pending.len() > 64 * 1024 => pending.len(),
            None => continue,
        };
        let rest = pending.split_off(n_whole);
        emit(std::mem::replace(&mut pending, rest), number, output, task);
    }
    if !pending.is_empty() {
        emit(pending, number, output, task);
    }
}

fn emit(bytes: Vec<u8>, number: u8, output: &Mutex<Output>, task: &Task<'_>) {
    {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the command; what is shown is shown all the same.
        let _ = output.log.write_all(&bytes);
        for line in String::from_utf8_lossy(&bytes).lines() {
            if output.tail.len() == N_TAIL_LINES {
                output.tail.pop_front();
            }
            output.tail.push_back(line.chars().take(2000).collect());
        }
    }
    task.log(number, bytes);
}

fn check_exit(op: &RunOp, ended: Ended) -> Result<(), ExecutorError> {
    let command = op.args.join(" ");
    let (tail, out_of_memory) = (ended.tail, ended.exit.oom);
    match (ended.exit.code, ended.exit.signal) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(ExecutorError::ExitCode { command, code, tail, out_of_memory }),
        (None, signal) => {
            Err(ExecutorError::Signal { command, signal: signal.unwrap_or(0), tail, out_of_memory })
        }
    }
}

/// A copy of everything at `path` to the same place, owners and modes as they are.
fn whole(source: &Source, path: &str) -> CopyOp {
    let item = CopyItem::Paths {
        source: source.clone(),
        path: escape_wildcards(path),
        written: path.to_owned(),
        parents: None,
        unpack: false,
        span: parser::span::Span::default(),
    };
    CopyOp {
        items: vec![item],
        dest: path.to_owned(),
        chown: None,
        chmod: None,
        link: false,
        excludes: Vec::new(),
    }
}

/// The path of a mount is no pattern.
fn escape_wildcards(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// Text as bytes for the kernel.
pub(crate) fn os(text: &str) -> OsString {
    OsString::from_vec(parser::encode(text))
}

fn hosts_file(op: &RunOp) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n", op.hostname);
    for (name, address) in &op.extra_hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.into_bytes()
}

/// The machine's resolver configuration; the network of a RUN is the machine's own.
fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}
