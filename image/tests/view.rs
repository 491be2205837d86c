//! The merged view of layers against a naive model that unpacks them one after another.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use common::{dir, entry, file, with};
use image::{
    DiffId, Digest,
    entry::{Entry, Kind},
    error::ResolveError,
    layer::{Change, LayerIndex},
    view::View,
};
use proptest::prelude::*;

fn layer(changes: Vec<Change>) -> Arc<LayerIndex> {
    Arc::new(LayerIndex::new(DiffId(Digest::of(b"")), 0, changes))
}

fn add(entry: Entry) -> Change {
    let content = matches!(entry.kind, Kind::File { .. }).then_some([7; 32]);
    Change::Entry { entry, content, offset: 0 }
}

fn gone(path: &str) -> Change {
    Change::Whiteout { path: path.into() }
}

fn opaque(path: &str) -> Change {
    Change::Opaque { path: path.into() }
}

fn link(path: &str, target: &str) -> Change {
    add(entry(path, Kind::Symlink { target: target.into() }))
}

fn hard(path: &str, target: &str) -> Change {
    add(entry(path, Kind::Hardlink { target: target.into() }))
}

fn paths(view: &View) -> Vec<String> {
    view.walk(b"").map(|(path, _)| String::from_utf8(path).expect("text")).collect()
}

fn base() -> Arc<LayerIndex> {
    layer(vec![
        add(dir("bin", 0o755)),
        add(file("bin/sh", 0o755, 5)),
        hard("bin/ash", "bin/sh"),
        add(dir("etc", 0o755)),
        add(file("etc/passwd", 0o644, 9)),
        link("lib", "usr/lib"),
        add(dir("usr", 0o755)),
        add(dir("usr/lib", 0o755)),
        add(file("usr/lib/libc.so", 0o644, 3)),
    ])
}

#[test]
fn upper_layers_win() {
    let view = View::new(vec![
        base(),
        layer(vec![
            add(dir("etc", 0o700)),
            add(file("etc/passwd", 0o600, 1)),
            gone("bin/sh"),
            add(file("bin/ls", 0o755, 0)),
        ]),
    ]);
    let mode = |path: &str| view.lookup(path.as_bytes()).map(|it| it.entry.mode);
    assert_eq!(mode("etc"), Some(0o700));
    assert_eq!(mode("etc/passwd"), Some(0o600));
    assert_eq!(mode("bin"), Some(0o755));
    assert_eq!(mode("bin/sh"), None);
    assert_eq!(mode("bin/ls"), Some(0o755));
    assert_eq!(mode("bin/sh/x"), None);
    let children = view.children(b"bin");
    let names: Vec<_> = children.iter().map(|(name, node)| (*name, node.layer)).collect();
    assert_eq!(names, [(&b"ash"[..], 0), (b"ls", 1)]);
    assert!(view.children(b"etc/passwd").is_empty());
    assert!(view.children(b"nowhere").is_empty());
}

#[test]
fn a_whiteout_spares_its_own_layer() {
    let view = View::new(vec![
        base(),
        layer(vec![
            add(dir("etc", 0o711)),
            add(file("etc/new", 0o644, 0)),
            opaque("etc"),
            add(file("bin", 0o600, 0)),
            gone("bin"),
        ]),
    ]);
    assert_eq!(paths(&view), ["bin", "etc", "etc/new", "lib", "usr", "usr/lib", "usr/lib/libc.so"]);
}

#[test]
fn a_file_hides_a_folder_for_good() {
    let upper = layer(vec![add(file("etc", 0o644, 0))]);
    let top = layer(vec![add(dir("etc", 0o755)), add(file("etc/x", 0o644, 0))]);
    let view = View::new(vec![base(), upper, top]);
    assert!(view.lookup(b"etc/passwd").is_none());
    assert_eq!(view.children(b"etc").len(), 1);
}

#[test]
fn hard_links_are_the_file_they_name() {
    let view = View::new(vec![
        base(),
        layer(vec![
            gone("bin/sh"),
            hard("bin/dash", "bin/ash"),
            hard("loop", "loop"),
            hard("x", "y"),
        ]),
    ]);
    let node = view.lookup(b"bin/ash").expect("it is there");
    assert_eq!(
        (node.entry.kind.clone(), node.content, node.is_hardlink),
        (Kind::File { size: 5 }, Some([7; 32]), true)
    );
    assert_eq!((node.layer, node.change), (0, Some(1)));
    assert_eq!(view.lookup(b"bin/dash").map(|it| it.change), Some(Some(1)));
    assert!(view.lookup(b"bin/sh").is_none());
    for path in [&b"loop"[..], b"x"] {
        let node = view.lookup(path).expect("it is there");
        assert!(matches!(node.entry.kind, Kind::Hardlink { .. }) && node.content.is_none());
    }
}

#[test]
fn a_long_chain_of_hard_links_ends() {
    let chain = (0..100_000).map(|at| hard(&format!("f{at}"), &format!("f{}", at + 1)));
    let view = View::new(vec![layer(chain.collect())]);
    assert!(view.lookup(b"f0").is_some_and(|it| it.content.is_none()));
}

#[test]
fn names_go_through_links_of_lower_layers() {
    let view = View::new(vec![
        base(),
        layer(vec![
            add(file("lib/libm.so", 0o644, 0)),
            gone("lib/libc.so"),
            add(file("new/deep/x", 0o644, 0)),
        ]),
    ]);
    assert!(view.lookup(b"usr/lib/libm.so").is_some());
    assert!(view.lookup(b"usr/lib/libc.so").is_none());
    assert!(view.lookup(b"lib").is_some_and(|it| matches!(it.entry.kind, Kind::Symlink { .. })));
    let implied = view.lookup(b"new/deep").expect("something lies in it");
    assert_eq!((implied.change, implied.entry.mode), (None, 0o755));

    // A folder of the layer's own replaces the link.
    let view = View::new(vec![
        base(),
        layer(vec![add(dir("lib", 0o755)), add(file("lib/libm.so", 0o644, 0))]),
    ]);
    assert!(view.lookup(b"lib/libm.so").is_some());
    assert!(view.lookup(b"usr/lib/libc.so").is_some());
}

#[test]
fn the_root_is_always_there() {
    let view = View::new(Vec::new());
    assert!(view.lookup(b"").is_some_and(|it| it.is_folder()));
    assert!(view.children(b"").is_empty());
    let view = View::new(vec![base(), layer(vec![add(dir("", 0o700))]), layer(vec![opaque("")])]);
    assert_eq!(view.lookup(b"").map(|it| it.entry.mode), Some(0o700));
    assert!(view.children(b"").is_empty());
}

#[test]
fn paths_resolve_inside_of_the_root() {
    let view = View::new(vec![
        base(),
        layer(vec![
            link("abs", "/usr/../bin"),
            link("up", "../../../etc"),
            link("usr/rel", "../abs"),
            link("one", "two"),
            link("two", "one"),
            link("dangling", "not/there"),
        ]),
    ]);
    let resolve = |path: &str, follow| {
        view.resolve(path.as_bytes(), follow).map(|it| String::from_utf8(it).expect("text"))
    };
    for (path, real) in [
        ("", ""),
        ("/", ""),
        ("..", ""),
        ("/lib/libc.so", "usr/lib/libc.so"),
        ("abs/sh", "bin/sh"),
        ("up/./passwd", "etc/passwd"),
        ("usr/rel/sh", "bin/sh"),
        ("lib/..", "usr"),
        ("lib/../x//y/", "usr/x/y"),
        ("dangling/x", "not/there/x"),
        ("missing/../etc", "etc"),
    ] {
        assert_eq!(resolve(path, true).as_deref(), Ok(real), "{path}");
    }
    assert_eq!(resolve("lib", true).as_deref(), Ok("usr/lib"));
    assert_eq!(resolve("lib", false).as_deref(), Ok("lib"));
    assert_eq!(resolve("one", false).as_deref(), Ok("one"));
    assert!(matches!(resolve("one", true), Err(ResolveError::Loop { .. })));
    assert!(matches!(resolve("bin/sh/x", true), Err(ResolveError::NotAFolder { .. })));
}

/// What unpacking the layers one after another gives: path → owner (which tells entries apart), kind, and the layer that wrote it.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<Vec<String>, (u32, Kind, usize)>,
}

impl Model {
    fn apply(&mut self, layer: usize, changes: &[Change]) {
        for change in changes {
            let path: Vec<String> = split(change.path());
            match change {
                Change::Entry { entry, .. } => {
                    let path = self.make(layer, &path);
                    if path.is_empty() {
                        continue;
                    }
                    let is_folder = entry.kind == Kind::Directory;
                    let was_folder = self.nodes.get(&path).is_none_or(|it| it.1 == Kind::Directory);
                    if !is_folder || !was_folder {
                        self.nodes.retain(|it, _| !it.starts_with(&path));
                    }
                    self.nodes.insert(path, (entry.uid, entry.kind.clone(), layer));
                }
                Change::Whiteout { .. } => {
                    let path = self.real(&path, false);
                    self.remove(layer, |it| it.starts_with(&path));
                }
                Change::Opaque { .. } => {
                    let path = self.real(&path, true);
                    self.remove(layer, |it| it.len() > path.len() && it.starts_with(&path));
                }
            }
        }
    }

    /// Removes what lower layers have, but keeps folders that something of this layer lies in.
    fn remove(&mut self, layer: usize, is_meant: impl Fn(&Vec<String>) -> bool) {
        let own: Vec<Vec<String>> = self
            .nodes
            .iter()
            .filter(|(_, it)| it.2 == layer)
            .map(|(path, _)| path.clone())
            .collect();
        self.nodes.retain(|path, node| {
            if node.2 == layer || !is_meant(path) {
                return true;
            }
            *node = (0, Kind::Directory, layer);
            own.iter().any(|it| it.starts_with(path))
        });
    }

    /// Follows links in the folders of a path, and makes those that are not there.
    fn make(&mut self, layer: usize, path: &[String]) -> Vec<String> {
        let real = self.real(path, false);
        for n_parts in 1..real.len() {
            let folder = &real[..n_parts];
            let is_folder = self.nodes.get(folder).is_some_and(|it| it.1 == Kind::Directory);
            if !is_folder {
                self.nodes.insert(folder.to_vec(), (0, Kind::Directory, layer));
            }
        }
        real
    }

    /// Follows links in the folders of a path.
    fn real(&self, path: &[String], follow_final: bool) -> Vec<String> {
        let (parent, name) =
            path.split_at(path.len() - usize::from(!follow_final && !path.is_empty()));
        let real = self.follow(parent).unwrap_or_else(|| parent.to_vec());
        [&real, name].concat()
    }

    fn follow(&self, path: &[String]) -> Option<Vec<String>> {
        let mut rest: Vec<String> = path.iter().rev().cloned().collect();
        let (mut real, mut n_links) = (Vec::new(), 0);
        while let Some(part) = rest.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            real.push(part);
            match self.nodes.get(&real).map(|it| &it.1) {
                Some(Kind::Symlink { target }) => {
                    n_links += 1;
                    if n_links > 255 {
                        return None;
                    }
                    real.pop();
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    rest.extend(split(target).into_iter().rev());
                }
                Some(Kind::File { .. }) if !rest.is_empty() => return None,
                _ => {}
            }
        }
        Some(real)
    }
}

fn split(path: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(path).expect("text");
    text.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// Shows a change in a few characters.
fn show(change: &Change) -> String {
    let path = String::from_utf8_lossy(change.path());
    match change {
        Change::Whiteout { .. } => format!("-{path}"),
        Change::Opaque { .. } => format!("!{path}"),
        Change::Entry { entry, .. } => match &entry.kind {
            Kind::Directory => format!("{path}/"),
            Kind::Symlink { target } => format!("{path}->{}", String::from_utf8_lossy(target)),
            _ => path.into_owned(),
        },
    }
}

fn small_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("a-")], 1..4)
        .prop_map(|it| it.join("/"))
}

fn small_change() -> impl Strategy<Value = Change> {
    let target = prop_oneof![
        small_path(),
        small_path().prop_map(|it| format!("/{it}")),
        small_path().prop_map(|it| format!("../{it}")),
    ];
    prop_oneof![
        3 => small_path().prop_map(|it| add(file(&it, 0o644, 0))),
        4 => small_path().prop_map(|it| add(dir(&it, 0o711))),
        2 => (small_path(), target).prop_map(|(path, target)| link(&path, &target)),
        2 => small_path().prop_map(|it| gone(&it)),
        1 => small_path().prop_map(|it| opaque(&it)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_view_is_what_unpacking_gives(
        layers in proptest::collection::vec(proptest::collection::vec(small_change(), 0..7), 1..5)
    ) {
        let mut model = Model::default();
        let mut indexes = Vec::new();
        let mut owner = 0;
        let mut text = String::new();
        for (n, mut changes) in layers.into_iter().enumerate() {
            for change in &mut changes {
                if let Change::Entry { entry, .. } = change {
                    owner += 1;
                    entry.uid = owner;
                }
            }
            text += &format!("layer {n}: {}\n", changes.iter().map(show).collect::<Vec<_>>().join(", "));
            model.apply(n, &changes);
            indexes.push(layer(changes));
        }
        let view = View::new(indexes);

        let seen: Vec<_> = view.walk(b"").map(|(path, node)| (split(&path), node.entry.uid)).collect();
        let expected: Vec<_> = model.nodes.iter().map(|(path, node)| (path.clone(), node.0)).collect();
        prop_assert_eq!(&seen, &expected, "{}", text);

        let names = ["a", "b", "a-"];
        for first in names {
            for second in names {
                for path in [vec![first], vec![first, second], vec![first, second, "a"]] {
                    let key: Vec<String> = path.iter().map(|it| (*it).to_owned()).collect();
                    let found = view.lookup(path.join("/").as_bytes()).map(|it| it.entry.uid);
                    prop_assert_eq!(found, model.nodes.get(&key).map(|it| it.0), "{:?} in {}", path, text);
                    let listed: Vec<_> = view.children(path.join("/").as_bytes()).iter().map(|it| it.1.entry.uid).collect();
                    let below = model.nodes.iter().filter(|(it, _)| it.len() == key.len() + 1 && it.starts_with(&key));
                    prop_assert_eq!(listed, below.map(|it| it.1.0).collect::<Vec<_>>(), "{:?} in {}", path, text);
                    if let Some(real) = model.follow(&key) {
                        prop_assert_eq!(view.resolve(path.join("/").as_bytes(), true).map(|it| split(&it)), Ok(real));
                    }
                }
            }
        }
    }
}

#[test]
fn a_large_layer_is_sorted_once() {
    let entries = |n: u32| {
        (0..n)
            .map(|at| add(with(file(&format!("d{}/f{at}", at % 500), 0o644, 1), |it| it.uid = at)))
    };
    let big = layer(entries(20_000).collect());
    for _ in 0..100 {
        let view = View::new(vec![big.clone(), layer(vec![gone("d7")])]);
        assert!(view.lookup(b"d7/f7").is_none());
        assert!(view.lookup(b"d8/f8").is_some());
    }
}

/// With the third power of the depth this takes most of a minute.
#[test]
fn deep_paths_are_resolved_in_time() {
    const DEPTH: usize = 2000;
    let deep = |n: usize| vec!["a"; n].join("/");
    let mut changes: Vec<Change> =
        (1..DEPTH).map(|n| add(entry(&deep(n), Kind::Directory))).collect();
    changes.push(link(&deep(DEPTH), "."));
    let through = format!("{}/x", deep(DEPTH));
    let view = View::new(vec![layer(changes), layer(vec![add(file(&through, 0o644, 1))])]);
    let expected = format!("{}/x", deep(DEPTH - 1));
    for path in [&through, &format!("{}/a/../a/x", deep(DEPTH))] {
        assert_eq!(view.resolve(path.as_bytes(), true), Ok(expected.clone().into_bytes()));
    }
    assert!(view.lookup(expected.as_bytes()).is_some());
}
