//! Builds with the binary, in a store of their own, and looks at what came out.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use image::{
    Digest, Platform,
    document::{ImageConfig, Index, Manifest},
    entry::{Entry, Kind, Time},
    layer::{LayerIndex, Limits, Record, TarReader, TarWriter},
    view::View,
};
use serde_json::{Value, json};

/// A store, a context, and a folder for what is built.
///
/// The store has the image `box`: busybox with its commands; the users `user` (1000, group `users` 1001, and in `extra`
/// 2000) and `other` (7, group 8); the folder `/dir` (0750, 5:6) with the file `old`, and `/link -> dir`.
pub(crate) struct Kiln {
    folder: tempfile::TempDir,
}

/// What was built.
pub(crate) struct Built {
    pub(crate) config: ImageConfig,
    pub(crate) manifest: Manifest,
    pub(crate) index: Index,
    /// What kiln said.
    pub(crate) log: String,
    view: View,
    /// Content of files by layer and path.
    contents: BTreeMap<(usize, Vec<u8>), Vec<u8>>,
}

impl Kiln {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["context", "home"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        let kiln = Self { folder };
        kiln.base("box", json!({ "Env": ["PATH=/bin"], "Cmd": ["sh"] }));
        kiln
    }

    /// Adds an image with the files of `box` and this config.
    pub(crate) fn base(&self, name: &str, config: Value) {
        self.base_for(name, config, &Platform::host());
    }

    pub(crate) fn base_for(&self, name: &str, config: Value, platform: &Platform) {
        let layout = self.folder.path().join(format!("layout-{name}"));
        write_layout(&layout, name, config, platform);
        let output = self.run(&["load", "-i", &layout.to_string_lossy()]);
        assert!(output.status.success(), "{output:?}");
    }

    /// A path beside the context.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the context.
    pub(crate) fn context(&self, name: &str) -> PathBuf {
        self.folder.path().join("context").join(name)
    }

    /// Writes a file of the context, with the folders above.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.context(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.context(name), permissions).expect("changed");
    }

    pub(crate) fn symlink(&self, target: &str, name: &str) {
        std::os::unix::fs::symlink(target, self.context(name)).expect("linked");
    }

    /// A kiln command with a cleared environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path("home"))
            .env("KILN_ROOT", self.path("store"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("kiln runs")
    }

    /// Runs a command that reads `stdin`.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kiln runs");
        // A command that does not read its input closes it.
        let _ = child.stdin.take().expect("piped").write_all(stdin);
        child.wait_with_output().expect("kiln ends")
    }

    /// Builds a Dockerfile with the context.
    pub(crate) fn build(&self, dockerfile: &str) -> Built {
        self.build_with(dockerfile, &[])
    }

    pub(crate) fn build_with(&self, dockerfile: &str, args: &[&str]) -> Built {
        fs::write(self.path("Dockerfile"), dockerfile).expect("written");
        let file = ["-f", "Dockerfile", "context"];
        self.build_args(&[&file, args].concat(), &[])
    }

    /// Builds with these arguments of `kiln build`, and this standard input.
    pub(crate) fn build_args(&self, args: &[&str], stdin: &[u8]) -> Built {
        let out = self.path("out");
        let _ = fs::remove_dir_all(&out);
        let output = format!(
            "type=oci,tar=false,compression=uncompressed,force-compression=true,dest={}",
            out.display()
        );
        let all = [&["build", "--progress=plain", "-o", &output], args].concat();
        let done = self.run_with(&all, stdin);
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{args:?}: {}\n{log}", done.status);
        Built::read(&out, log)
    }

    /// Builds what must fail, and returns what kiln says.
    pub(crate) fn fails(&self, dockerfile: &str, args: &[&str]) -> String {
        fs::write(self.path("Dockerfile"), dockerfile).expect("written");
        let file = ["build", "--progress=plain", "-f", "Dockerfile", "context"];
        let done = self.run(&[&file, args].concat());
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(matches!(done.status.code(), Some(1 | 2)), "{}\n{dockerfile}\n{log}", done.status);
        log
    }
}

impl Built {
    /// Reads the only image of a layout.
    pub(crate) fn read(layout: &Path, log: String) -> Self {
        let index = fs::read(layout.join("index.json")).expect("there is an index");
        let index: Index = serde_json::from_slice(&index).expect("an index");
        let manifest: Manifest = read_blob(layout, &index.manifests[0].digest);
        let config: ImageConfig = read_blob(layout, &manifest.config.digest);
        let (mut layers, mut contents) = (Vec::new(), BTreeMap::new());
        for (layer_idx, layer) in manifest.layers.iter().enumerate() {
            let tar = fs::read(blob_path(layout, &layer.digest)).expect("there is a layer");
            let index = LayerIndex::of_tar(&tar[..], Limits::default()).expect("a good layer");
            layers.push(Arc::new(index));
            let mut reader = TarReader::new(&tar[..]);
            while let Some(record) = reader.next().expect("a good layer") {
                if let Record::Entry(entry @ Entry { kind: Kind::File { .. }, .. }) = record {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).expect("it can be read");
                    contents.insert((layer_idx, entry.path), content);
                }
            }
        }
        Self { config, manifest, index, log, view: View::new(layers), contents }
    }

    /// What a path is: `0644 0:0 TEXT`, `d 0755 0:0`, `-> TARGET`, `p …`, `c …`, or `none`.
    pub(crate) fn at(&self, path: &str) -> String {
        let Some(node) = self.view.lookup(path.as_bytes()) else { return "none".to_owned() };
        let Entry { kind, mode, uid, gid, .. } = node.entry;
        let owner = format!("{mode:04o} {uid}:{gid}");
        match kind {
            Kind::File { .. } | Kind::Hardlink { .. } => {
                let content = &self.contents[&(node.layer, node.entry.path.clone())];
                format!("{owner} {}", String::from_utf8_lossy(content).trim_end())
            }
            Kind::Directory => format!("d {owner}"),
            Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
            Kind::Fifo => format!("p {owner}"),
            Kind::CharDevice { .. } => format!("c {owner}"),
            Kind::BlockDevice { .. } => format!("b {owner}"),
        }
    }

    /// The content of a file, without its final newline.
    pub(crate) fn text(&self, path: &str) -> String {
        let found = self.at(path);
        let text = found.splitn(3, ' ').nth(2);
        text.unwrap_or_else(|| panic!("{path} is {found}\n{}", self.log)).to_owned()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.view.lookup(path.as_bytes()).is_some()
    }

    pub(crate) fn mtime(&self, path: &str) -> Time {
        self.view.lookup(path.as_bytes()).expect("it is there").entry.mtime
    }

    pub(crate) fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let node = self.view.lookup(path.as_bytes()).expect("it is there");
        node.entry.xattrs.get(name.as_bytes()).cloned()
    }

    pub(crate) fn is_hardlink(&self, path: &str) -> bool {
        self.view.lookup(path.as_bytes()).expect("it is there").is_hardlink
    }

    /// The names in a folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let children = self.view.children(path.as_bytes());
        children.iter().map(|it| String::from_utf8_lossy(it.0).into_owned()).collect()
    }

    /// The paths that the last layer has entries for.
    pub(crate) fn last_layer(&self) -> Vec<String> {
        let layer = self.view.layers().last().expect("a layer");
        layer.changes.iter().map(|it| String::from_utf8_lossy(it.path()).into_owned()).collect()
    }

    /// Says whether the step whose name holds `name` was taken from the cache. It must be there.
    pub(crate) fn cached(&self, name: &str) -> bool {
        let line = self.log.lines().find(|it| it.starts_with('#') && it.contains(name));
        let line = line.unwrap_or_else(|| panic!("no step `{name}`\n{}", self.log));
        let number = line.split(' ').next().expect("a number");
        self.log.lines().any(|it| it == format!("{number} CACHED"))
    }
}

pub(crate) fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

pub(crate) fn read_blob<T: serde::de::DeserializeOwned>(layout: &Path, digest: &Digest) -> T {
    let bytes = fs::read(blob_path(layout, digest)).expect("there is a blob");
    serde_json::from_slice(&bytes).expect("a document")
}

/// A tar of entries: path, mode, owner and what it is.
pub(crate) fn tar(entries: &[(&str, u32, u32, u32, What<'_>)]) -> Vec<u8> {
    let mut tar = TarWriter::new_plain(Vec::new());
    for (path, mode, uid, gid, what) in entries {
        let (kind, data): (Kind, &[u8]) = match what {
            What::Folder => (Kind::Directory, b""),
            What::File(data) => (Kind::File { size: data.len() as u64 }, data),
            What::Link(target) => (Kind::Symlink { target: target.as_bytes().to_vec() }, b""),
        };
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            mtime: Time { secs: 1_000_000_000, nanos: 0 },
            xattrs: BTreeMap::new(),
        };
        tar.append(&entry, &mut &*data).expect("a tar");
    }
    tar.finish().expect("a tar")
}

/// What an entry of [`tar`] is.
pub(crate) enum What<'a> {
    Folder,
    File(&'a [u8]),
    Link(&'a str),
}

fn base_layer() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    let list = String::from_utf8(list.stdout).expect("names");
    let passwd =
        b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home:/bin/sh\nother:x:7:8::/:/bin/sh\n";
    let group = b"root:x:0:\nusers:x:1001:\nextra:x:2000:user\nothers:x:8:\n";
    let mut entries = vec![
        ("bin", 0o755, 0, 0, What::Folder),
        ("bin/busybox", 0o755, 0, 0, What::File(&busybox)),
        ("dev", 0o755, 0, 0, What::Folder),
        ("dir", 0o750, 5, 6, What::Folder),
        ("dir/old", 0o640, 5, 6, What::File(b"old\n")),
        ("etc", 0o755, 0, 0, What::Folder),
        ("etc/group", 0o644, 0, 0, What::File(group)),
        ("etc/passwd", 0o644, 0, 0, What::File(passwd)),
        ("link", 0o777, 0, 0, What::Link("dir")),
        ("proc", 0o755, 0, 0, What::Folder),
        ("sys", 0o755, 0, 0, What::Folder),
        ("tmp", 0o1777, 0, 0, What::Folder),
    ];
    let names: Vec<String> =
        list.lines().filter(|it| *it != "busybox").map(|it| format!("bin/{it}")).collect();
    entries.extend(names.iter().map(|it| (it.as_str(), 0o777, 0, 0, What::Link("busybox"))));
    tar(&entries)
}

fn write_layout(folder: &Path, name: &str, config: Value, platform: &Platform) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layer = put("application/vnd.oci.image.layer.v1.tar", &base_layer());
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        "history": [{ "created_by": "makes the base" }],
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let mut manifest = put(manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] =
        json!({ "io.containerd.image.name": format!("docker.io/library/{name}:latest") });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).expect("written");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}
