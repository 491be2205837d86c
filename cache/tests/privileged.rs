//! Needs root: layers with owners, devices and attributes through a real overlay mount and back, and layers that try to get out.
//!
//! Run with `cargo test -p cache --features privileged`.

#[path = "privileged/stack.rs"]
mod stack;
mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use cache::{
    CacheMountRequest, CheckOptions, JournalEntry, PackOptions, PruneOptions, Sharing, Store,
    StoreError, pack_upper,
};
use image::{
    Digest,
    entry::{Entry, Kind, Time},
    layer::{Change, IndexedTarWriter, LayerIndex},
    view::View,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use support::{Overlay, Place, RawTar, listing};

/// cap_net_raw+ep, as `setcap` writes it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn entry(path: &str, mode: u32, uid: u32, gid: u32, kind: Kind) -> Entry {
    let mtime = Time { secs: 1_500_000_000, nanos: 0 };
    Entry { path: path.as_bytes().to_vec(), kind, mode, uid, gid, mtime, xattrs: BTreeMap::new() }
}

/// A base layer with one of everything.
fn base() -> (Vec<u8>, LayerIndex) {
    let mut writer = IndexedTarWriter::new(Vec::new());
    let mut add =
        |entry: Entry, content: &[u8]| writer.append(entry, &mut &*content).expect("an entry");
    let file = |content: &[u8]| Kind::File { size: content.len() as u64 };
    let folder = |path: &str| entry(path, 0o755, 0, 0, Kind::Directory);
    add(folder("bin"), b"");
    let mut ping = entry("bin/ping", 0o755, 0, 0, file(b"ping"));
    ping.xattrs.insert(b"security.capability".to_vec(), CAPABILITY.to_vec());
    ping.xattrs.insert(b"user.note".to_vec(), b"hello\0world".to_vec());
    add(ping, b"ping");
    add(entry("bin/su", 0o4755, 0, 0, file(b"su")), b"su");
    add(folder("dev"), b"");
    add(entry("dev/null", 0o666, 0, 0, Kind::CharDevice { major: 1, minor: 3 }), b"");
    add(entry("dev/vda", 0o660, 0, 6, Kind::BlockDevice { major: 254, minor: 300 }), b"");
    add(entry("home", 0o2770, 1000, 1000, Kind::Directory), b"");
    add(entry("home/a", 0o600, 1000, 1000, file(b"a")), b"a");
    add(entry("home/b", 0o600, 1000, 1000, Kind::Hardlink { target: b"home/a".to_vec() }), b"");
    add(entry("home/pipe", 0o644, 1000, 1000, Kind::Fifo), b"");
    add(entry("run", 0o711, 0, 0, Kind::Directory), b"");
    add(entry("tmp", 0o1777, 0, 0, Kind::Directory), b"");
    for name in ["tmp/replaced", "tmp/removed", "tmp/remade"] {
        add(folder(name), b"");
        add(entry(&format!("{name}/file"), 0o644, 0, 0, file(b"x")), b"x");
        add(folder(&format!("{name}/folder")), b"");
        add(entry(&format!("{name}/folder/deep"), 0o644, 0, 0, file(b"x")), b"x");
    }
    add(entry("tmp/touched", 0o644, 7, 8, file(b"x")), b"x");
    add(entry("tmp/untouched", 0o644, 7, 8, file(b"x")), b"x");
    add(folder("var"), b"");
    add(entry("var/run", 0o777, 3, 4, Kind::Symlink { target: b"/run".to_vec() }), b"");
    writer.finish().expect("the end")
}

/// Does to a mounted tree what builds do.
fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    fs::remove_file(at("bin/su")).expect("removed");
    fs::remove_dir_all(at("tmp/removed")).expect("removed");
    fs::remove_dir_all(at("tmp/replaced")).expect("removed");
    fs::write(at("tmp/replaced"), "a file now").expect("written");
    fs::remove_dir_all(at("tmp/remade")).expect("removed");
    fs::create_dir_all(at("tmp/remade/folder")).expect("made");
    fs::write(at("tmp/remade/folder/new"), "new").expect("written");
    fs::remove_file(at("tmp/touched")).expect("removed");
    fs::create_dir(at("tmp/touched")).expect("made");
    // Copied up and not changed.
    drop(File::options().append(true).open(at("tmp/untouched")).expect("opened"));
    fs::remove_file(at("var/run")).expect("removed");
    fs::create_dir(at("var/run")).expect("made");
    fs::set_permissions(at("home"), fs::Permissions::from_mode(0o2755)).expect("changed");
    fs::set_permissions(at("home/a"), fs::Permissions::from_mode(0o640)).expect("changed");
    fs::hard_link(at("home/a"), at("home/c")).expect("linked");
    fs::write(at("home/name\nwith \u{e4} and space"), "x").expect("written");
    chown(at("home/pipe"), Some(5), Some(6)).expect("changed");
    mknodat(
        CWD,
        at("dev/zero"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(1, 5),
    )
    .expect("made");
    fs::remove_file(at("dev/null")).expect("removed");
    let tool = at("bin/tool");
    fs::write(&tool, "tool").expect("written");
    lsetxattr(&tool, "security.capability", CAPABILITY, XattrFlags::empty()).expect("set");
    lsetxattr(&tool, "user.note", b"kept", XattrFlags::empty()).expect("set");
    lsetxattr(&tool, "trusted.note", b"dropped", XattrFlags::empty()).expect("set");
    symlink("/does/not/exist", at("bin/link")).expect("linked");
    rustix::fs::chownat(
        CWD,
        at("bin/link"),
        Some(rustix::fs::Uid::from_raw(9)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .expect("changed");
    drop(UnixListener::bind(at("tmp/socket")).expect("bound"));
    fs::create_dir_all(at("tmp/a/b/c")).expect("made");
    fs::write(at("tmp/gone"), "x").expect("written");
    fs::remove_file(at("tmp/gone")).expect("removed");
    let long = "d".repeat(200);
    fs::create_dir_all(at(&format!("tmp/{long}/{long}"))).expect("made");
    fs::write(at(&format!("tmp/{long}/{long}/{long}")), "deep").expect("written");
}

fn without(mut listing: BTreeMap<String, String>, name: &str) -> BTreeMap<String, String> {
    listing.remove(name);
    // These never get into a layer.
    listing
        .values_mut()
        .for_each(|it| *it = it.replace(" trusted.note=[100, 114, 111, 112, 112, 101, 100]", ""));
    listing
}

#[test]
fn privileged_what_a_run_changed_comes_back_as_it_was() {
    let place = Place::new();
    let (tar, base) = base();
    place.store.import_layer(&tar[..], None, None, true).expect("imported");
    let tree = place.store.ensure_tree(&base.diff_id).expect("a tree");
    assert_eq!(fs::metadata(tree.join("bin/su")).expect("a file").mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(tree.join("dev/vda")).expect("a device").rdev(), makedev(254, 300));
    assert_eq!(fs::metadata(tree.join("home")).expect("a folder").mode() & 0o7777, 0o2770);
    assert_eq!(fs::metadata(tree.join("home")).expect("a folder").mtime(), 1_500_000_000);
    assert_eq!(fs::metadata(tree.join("home/a")).expect("a file").nlink(), 2);

    let staged = place.store.stage_tree().expect("staged");
    let lower = View::new(vec![place.store.index(&base.diff_id).expect("an index")]);
    let upper = Some((staged.upper(), staged.work()));
    let overlay = Overlay::mount(
        &place.folder.path().join("mnt"),
        std::slice::from_ref(&tree),
        upper.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path())),
    );
    change(overlay.path());
    let expected = without(listing(overlay.path()), "tmp/socket");
    drop(overlay);

    let mut packed = Vec::new();
    let index =
        pack_upper(&staged.upper(), &lower, &PackOptions::default(), &mut packed).expect("packed");
    check_changes(&index);
    let again =
        pack_upper(&staged.upper(), &lower, &PackOptions::default(), io::sink()).expect("packed");
    assert_eq!(again, index, "the same folder gives the same layer");
    let view =
        View::new(vec![lower.layers().next().expect("a layer").clone(), index.clone().into()]);
    let in_view: Vec<String> =
        view.walk(b"").map(|(path, _)| String::from_utf8_lossy(&path).into_owned()).collect();
    let mut names: Vec<String> = expected.keys().filter(|it| !it.is_empty()).cloned().collect();
    names.sort();
    let mut sorted = in_view.clone();
    sorted.sort();
    assert_eq!(sorted, names);

    let record = staged.commit(&index).expect("committed");
    let mut remade = Vec::new();
    place.store.write_tar(&record.diff_id, &mut remade).expect("made again");
    assert!(remade == packed, "the tar made again is the one that was packed");

    // As it is here, and as somebody sees it who pulled it.
    let elsewhere = Place::new();
    for tar in [&tar, &packed] {
        elsewhere.store.import_layer(&tar[..], None, None, false).expect("imported");
    }
    for place in [&place, &elsewhere] {
        let trees =
            [&base.diff_id, &index.diff_id].map(|it| place.store.ensure_tree(it).expect("a tree"));
        let overlay = Overlay::mount(&place.folder.path().join("mnt"), &trees, None);
        assert_eq!(without(listing(overlay.path()), "tmp/socket"), expected);
    }
}

/// Compares the changes of the layer, in order, with what they must be.
fn check_changes(index: &LayerIndex) {
    let long = "d".repeat(200);
    let shown: Vec<String> = index
        .changes
        .iter()
        .map(|it| match it {
            Change::Entry { entry, .. } => {
                String::from_utf8_lossy(&entry.path).replace(&long, "LONG")
            }
            Change::Whiteout { path } => format!("-{}", String::from_utf8_lossy(path)),
            Change::Opaque { path } => format!("!{}", String::from_utf8_lossy(path)),
        })
        .collect();
    let expected = [
        "bin",
        "-bin/su",
        "bin/link",
        "bin/tool",
        "dev",
        "-dev/null",
        "dev/zero",
        "home",
        "home/a",
        "home/c",
        "home/name\nwith \u{e4} and space",
        "home/pipe",
        "tmp",
        "-tmp/removed",
        "tmp/a",
        "tmp/a/b",
        "tmp/a/b/c",
        "tmp/LONG",
        "tmp/LONG/LONG",
        "tmp/LONG/LONG/LONG",
        "tmp/remade",
        "-tmp/remade/file",
        "tmp/remade/folder",
        "-tmp/remade/folder/deep",
        "tmp/remade/folder/new",
        "tmp/replaced",
        "tmp/touched",
        "var",
        "var/run",
    ];
    assert_eq!(shown, expected);
    let tool = index.changes.iter().find_map(|it| match it {
        Change::Entry { entry, .. } if entry.path == b"bin/tool" => Some(entry),
        _ => None,
    });
    let names: Vec<&[u8]> = tool.expect("the tool").xattrs.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [b"security.capability".as_slice(), b"user.note"]);
}

#[test]
fn privileged_whiteouts_do_not_let_through_what_was_below() {
    let place = Place::new();
    let lower = RawTar::new()
        .folder("a")
        .file("a/old", "old")
        .folder("b")
        .file("b/old", "old")
        .file("c", "c")
        .end();
    // Whiteouts before and after what takes their place, and of a folder that only something below it implies.
    let upper = RawTar::new()
        .file(".wh.a", "")
        .folder("a")
        .file("a/new", "new")
        .file("b/new", "new")
        .file(".wh.b", "")
        .file("c", "new")
        .file(".wh.c", "")
        .end();
    let layers = [lower, upper]
        .map(|tar| place.store.import_layer(&tar[..], None, None, true).expect("imported"));
    let trees = layers.each_ref().map(|it| place.store.ensure_tree(&it.diff_id).expect("a tree"));
    let overlay = Overlay::mount(&place.folder.path().join("mnt"), &trees, None);
    let names: Vec<String> = listing(overlay.path()).into_keys().collect();
    assert_eq!(names, ["", "a", "a/new", "b", "b/new", "c"]);
    assert_eq!(fs::read_to_string(overlay.path().join("c")).expect("a file"), "new");
    let indexes =
        layers.iter().map(|it| place.store.index(&it.diff_id).expect("an index")).collect();
    let in_view: Vec<Vec<u8>> = View::new(indexes).walk(b"").map(|(path, _)| path).collect();
    assert_eq!(
        in_view,
        [b"a".as_slice(), b"a/new", b"b", b"b/new", b"c"],
        "the view is of the same opinion"
    );
}

#[test]
fn privileged_an_opaque_root_hides_all_that_is_below() {
    let place = Place::new();
    let tars = [
        RawTar::new().file("a", "").folder("b").file("b/old", "").end(),
        RawTar::new().file(".wh..wh..opq", "").folder("b").file("b/new", "").end(),
        RawTar::new().file("c", "").end(),
    ];
    let layers =
        tars.map(|tar| place.store.import_layer(&tar[..], None, None, true).expect("imported"));
    let indexes =
        layers.iter().map(|it| place.store.index(&it.diff_id).expect("an index")).collect();
    let view = View::new(indexes);
    let trees = place.store.stack(&view).expect("a stack");
    assert_eq!(trees.len(), 2);
    let overlay = Overlay::mount(&place.folder.path().join("mnt"), &trees, None);
    let names: Vec<String> = listing(overlay.path()).into_keys().collect();
    assert_eq!(names, ["", "b", "b/new", "c"]);
    let in_view: Vec<Vec<u8>> = view.walk(b"").map(|(path, _)| path).collect();
    assert_eq!(in_view, [b"b".as_slice(), b"b/new", b"c"], "the view is of the same opinion");
}

/// Layers that want out, or in where they must not: each must fail, or stay inside.
fn hostile(canary: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let outside = canary.display().to_string();
    let up = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let secret = format!("{outside}/secret");
    let tar = RawTar::new;
    vec![
        ("file above the root", tar().file("../escaped", "x").end()),
        ("file far above the root", tar().file(&format!("{up}/new"), "x").end()),
        ("climbing out in the middle", tar().file("a/../../escaped", "x").end()),
        ("absolute path", tar().file(&secret, "x").end()),
        ("two slashes", tar().file(&format!("/{secret}"), "x").end()),
        ("through an absolute link", tar().symlink("l", &outside).file("l/secret", "x").end()),
        ("through a relative link", tar().symlink("l", &up).file("l/secret", "x").end()),
        (
            "through two links",
            tar().symlink("l", &outside).symlink("m", "l").file("m/secret", "x").end(),
        ),
        (
            "through a link in a folder",
            tar().folder("d").symlink("d/l", &up).file("d/l/new", "x").end(),
        ),
        (
            "link replaced while in use",
            tar().folder("d").file("d/a", "x").symlink("d", &outside).file("d/secret", "x").end(),
        ),
        ("file onto a link", tar().symlink("l", &secret).file("l", "x").end()),
        (
            "folder onto a link",
            tar().symlink("l", &outside).folder("l").file("l/secret", "x").end(),
        ),
        ("folder made through a link", tar().symlink("l", &outside).folder("l/new").end()),
        ("hard link to an absolute path", tar().hardlink("h", &secret).file("h", "x").end()),
        ("hard link above the root", tar().hardlink("h", &format!("{up}/secret")).end()),
        (
            "hard link through a link",
            tar().symlink("l", &outside).hardlink("h", "l/secret").file("h", "x").end(),
        ),
        (
            "hard link to a link, then written",
            tar().symlink("l", &secret).hardlink("h", "l").file("h", "x").end(),
        ),
        ("hard link to a folder", tar().folder("d").hardlink("h", "d").end()),
        ("hard link to the root", tar().hardlink("h", "/").end()),
        ("hard link to nothing", tar().hardlink("h", "missing").end()),
        ("root as a link", tar().symlink(".", &outside).file("secret", "x").end()),
        ("root as a link with slash", tar().symlink("./", &outside).file("secret", "x").end()),
        ("root as a file", tar().file("/", "x").end()),
        ("root removed", tar().file(".wh.", "").end()),
        ("whiteout of the folder itself", tar().file("d/.wh..", "").end()),
        ("whiteout of the folder above", tar().file("d/.wh...", "").end()),
        ("whiteout above the root", tar().file("../.wh.secret", "").end()),
        ("whiteout through a link", tar().symlink("l", &outside).file("l/.wh.secret", "").end()),
        ("opaque through a link", tar().symlink("l", &outside).file("l/.wh..wh..opq", "").end()),
        (
            "device through a link",
            tar().symlink("l", &outside).device("l/dev", "0000001", "0000003").end(),
        ),
        ("pipe through a link", tar().symlink("l", &outside).fifo("l/pipe").end()),
        ("device that is a whiteout", tar().device("w", "0000000", "0000000").end()),
        ("device out of range", tar().device("w", "7777777", "7777777").end()),
        ("links in a circle", tar().symlink("a", "b").symlink("b", "a").file("a/x", "x").end()),
        (
            "link through proc",
            tar().symlink("l", "/proc/self/root").file(&format!("l{secret}"), "x").end(),
        ),
        ("folder below a file", tar().file("f", "x").file("f/x", "x").end()),
        ("an owner that is none", tar().file("f", "").owned_by("\u{0}").end()),
        ("a path with a NUL", tar().pax(&[("path", b"a\0b")]).file("x", "x").end()),
        (
            "a path that climbs, extended",
            tar().pax(&[("path", format!("{up}/new").as_bytes())]).file("x", "x").end(),
        ),
        (
            "a link that climbs, extended",
            tar().pax(&[("linkpath", secret.as_bytes())]).hardlink("x", "y").file("x", "x").end(),
        ),
        ("a size that is a lie", tar().pax(&[("size", b"99999999999999")]).file("x", "x").end()),
        (
            "overlay redirect",
            tar()
                .pax(&[("SCHILY.xattr.trusted.overlay.redirect", outside.as_bytes())])
                .folder("d")
                .end(),
        ),
        (
            "overlay redirect of a user",
            tar()
                .pax(&[("SCHILY.xattr.user.overlay.redirect", outside.as_bytes())])
                .folder("d")
                .end(),
        ),
        (
            "overlay opaque",
            tar().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).folder("d").end(),
        ),
        (
            "a label",
            tar()
                .pax(&[("SCHILY.xattr.security.selinux", b"system_u:object_r:x:s0")])
                .file("f", "x")
                .end(),
        ),
        (
            "random bytes",
            (0..4096_u32).map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect(),
        ),
        ("cut in a header", tar().file("f", "x").end()[..300].to_vec()),
        ("cut in a file", tar().file("f", &"x".repeat(2000)).end()[..1024].to_vec()),
    ]
}

#[test]
fn privileged_hostile_layers_stay_inside() {
    let place = Place::new();
    let canary = place.folder.path().join("canary");
    fs::create_dir_all(canary.join("folder")).expect("a folder");
    fs::write(canary.join("secret"), "secret").expect("a file");
    fs::write(canary.join("folder/file"), "file").expect("a file");
    let snapshot = |path: &Path| {
        let mut lines = listing(path);
        for (name, line) in &mut lines {
            let metadata = fs::symlink_metadata(path.join(name)).expect("metadata");
            *line += &format!(
                " {}.{} {}.{}",
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec()
            );
        }
        lines
    };
    let before = snapshot(&canary);
    let above = fs::read_dir(place.folder.path()).expect("a folder").count();
    for (name, tar) in hostile(&canary) {
        let started = std::time::Instant::now();
        let result = place.store.import_layer(&tar[..], None, None, true);
        assert!(started.elapsed().as_secs() < 2, "{name}: too slow");
        assert_eq!(snapshot(&canary), before, "{name}: the canary is not what it was");
        assert_eq!(fs::read_dir(place.folder.path()).expect("a folder").count(), above, "{name}");
        match result {
            Ok(record) => {
                check_tree(name, &place.store.ensure_tree(&record.diff_id).expect("a tree"))
            }
            Err(err) => assert!(!err.to_string().is_empty(), "{name}"),
        }
    }
    drop(place.store.stage_blob().expect("still usable"));
    let folders = ["oci/blobs/sha256", "trees", "tmp"]
        .map(|it| fs::read_dir(place.store.root().join(it)).expect("a folder").count());
    assert_eq!(
        folders[0],
        place.store.layers().expect("a list").len(),
        "nothing is left of those that were refused"
    );
    assert_eq!(folders[1], folders[0]);
    assert_eq!(folders[2], 2, "the staging folder and its lock");
}

/// What was accepted must have nothing in it that reaches out when it is mounted.
fn check_tree(name: &str, tree: &Path) {
    assert!(fs::symlink_metadata(tree).expect("a tree").is_dir(), "{name}");
    for (path, line) in listing(tree) {
        let is_marked = line.contains("overlay.redirect")
            || line.contains("overlay.metacopy")
            || line.contains("selinux");
        assert!(!is_marked, "{name}: {path}: {line}");
        assert!(
            !line.contains("overlay.opaque") || name.starts_with("opaque"),
            "{name}: {path}: {line}"
        );
        let is_secret =
            !line.contains("->") && line.contains(&format!("{:?}", blake3::hash(b"secret")));
        assert!(!is_secret, "{name}: {path} shows what is outside");
    }
}

/// What careless hardening breaks, and real images have.
#[test]
fn privileged_what_real_images_have_works() {
    let place = Place::new();
    let unpack = |tar: Vec<u8>| -> PathBuf {
        let record = place.store.import_layer(&tar[..], None, None, true).expect("imported");
        place.store.ensure_tree(&record.diff_id).expect("a tree")
    };
    let text = |path: PathBuf| fs::read_to_string(path).expect("a file");

    let tree = unpack(RawTar::new().file("a", "x").hardlink("b", "/a").hardlink("c", "./a").end());
    assert_eq!(fs::metadata(tree.join("b")).expect("a file").nlink(), 3, "absolute hard links");

    let tree = unpack(
        RawTar::new()
            .folder("run")
            .folder("var")
            .symlink("var/run", "/run")
            .file("var/run/pid", "1")
            .end(),
    );
    assert_eq!(text(tree.join("run/pid")), "1", "a link to an absolute path leads inside");

    let tree = unpack(RawTar::new().symlink("var/run", "/run").file("var/run/pid", "1").end());
    assert_eq!(text(tree.join("run/pid")), "1", "also if the folder is only in a lower layer");

    let tree = unpack(
        RawTar::new()
            .symlink("lib", "usr/lib")
            .folder("usr")
            .folder("usr/lib")
            .file("lib/x", "1")
            .end(),
    );
    assert_eq!(text(tree.join("usr/lib/x")), "1");

    let tree = unpack(
        RawTar::new()
            .folder("a")
            .folder("a/b")
            .symlink("a/b/up", "../../c")
            .file("a/b/up/x", "1")
            .end(),
    );
    assert_eq!(text(tree.join("c/x")), "1", "a relative link that climbs inside the root");

    let tree = unpack(RawTar::new().symlink("up", "../../../../c").file("up/x", "1").end());
    assert_eq!(text(tree.join("c/x")), "1", "the root is above itself");

    let tree = unpack(RawTar::new().file("./etc/passwd", "root").file("/etc/group", "root").end());
    assert_eq!(text(tree.join("etc/passwd")) + &text(tree.join("etc/group")), "rootroot");
    assert_eq!(fs::metadata(tree.join("etc")).expect("a folder").mode() & 0o7777, 0o755);

    let tree = unpack(
        RawTar::new()
            .file("f", "old")
            .file("f", "new")
            .folder("d")
            .file("d/x", "x")
            .folder("d")
            .end(),
    );
    assert_eq!(
        text(tree.join("f")) + &text(tree.join("d/x")),
        "newx",
        "the last one wins, folders keep what is in them"
    );

    let tree = unpack(
        RawTar::new()
            .folder("d")
            .file("d/x", "x")
            .file("d", "file")
            .symlink("f", "d")
            .folder("f")
            .end(),
    );
    assert_eq!(text(tree.join("d")), "file");
    assert!(fs::symlink_metadata(tree.join("f")).expect("a folder").is_dir());

    let tree = unpack(RawTar::new().header(b'5', "./", "", 0o1700, 0).file("x", "x").end());
    assert_eq!(
        fs::metadata(&tree).expect("a folder").mode() & 0o7777,
        0o1700,
        "the root has an entry"
    );

    let tree = unpack(RawTar::new().header(b'5', "ro", "", 0o555, 0).file("ro/x", "x").end());
    assert_eq!(fs::metadata(tree.join("ro")).expect("a folder").mode() & 0o7777, 0o555);

    let tree = unpack(RawTar::new().symlink("l", "/etc/../../x").hardlink("m", "l").end());
    assert_eq!(
        fs::read_link(tree.join("m")).expect("a link"),
        Path::new("/etc/../../x"),
        "targets stay as they are"
    );

    let tree = unpack(RawTar::new().device("null", "0000001", "0000003").fifo("pipe").end());
    assert_eq!(fs::metadata(tree.join("null")).expect("a device").rdev(), makedev(1, 3));
    File::options()
        .write(true)
        .open(tree.join("null"))
        .and_then(|mut it| it.write_all(b"x"))
        .expect("it is a device");
}

#[test]
fn privileged_root_writes_nothing_into_a_users_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("store");
    drop(Store::open(&root).expect("a new store"));
    let all = || {
        let mut found = vec![root.clone()];
        let mut nth = 0;
        while let Some(path) = found.get(nth).cloned() {
            nth += 1;
            if path.is_dir() {
                found.extend(
                    fs::read_dir(path).expect("a folder").map(|it| it.expect("a name").path()),
                );
            }
        }
        found
    };
    all().iter().for_each(|it| chown(it, Some(1000), Some(1000)).expect("given away"));

    let store = Store::open(&root).expect("reading is no harm");
    let entry = JournalEntry { line: [1; 32], build: "1".to_owned(), print: 1, is_again: false };
    let mount = CacheMountRequest {
        id: "a",
        namespace: "",
        sharing: Sharing::Shared,
        mode: 0o755,
        uid: 0,
        gid: 0,
        seed: None,
    };
    let digest = Digest::of(b"");
    for (what, result) in [
        ("a lease", store.lease().map(drop)),
        ("a lock", store.lock("a").map(drop)),
        ("a log", store.new_log("1", "1").map(drop)),
        ("the list of a build", store.save_build_steps("1", &[])),
        ("the journal", store.put_journal(&entry, b"")),
        ("a cache mount", store.cache_mount(mount).map(drop)),
        ("a blob", store.put_blob(b"x").map(drop)),
        ("a download", store.resume_blob(&digest).map(drop)),
        ("a tree", store.stage_tree().map(drop)),
        ("a prune", store.prune(&PruneOptions::everything()).map(drop)),
        ("a reset", store.reset()),
        ("a check", store.check(CheckOptions::default()).map(drop)),
    ] {
        let refused = matches!(result, Err(StoreError::AnotherUser { owner: 1000, user: 0, .. }));
        assert!(refused, "{what}: {result:?}");
    }
    drop(store);
    let others: Vec<_> =
        all().into_iter().filter(|it| fs::metadata(it).expect("there").uid() != 1000).collect();
    assert_eq!(others, [] as [PathBuf; 0]);
}
