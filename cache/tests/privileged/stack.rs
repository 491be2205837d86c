//! Stacks of more layers than overlay takes show what all their layers make.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use cache::{PackOptions, Store, pack_upper};
use image::{DiffId, layer::LayerIndex, view::View};
use rustix::fs::{XattrFlags, lremovexattr, lsetxattr};

use super::support::{Overlay, Place, listing};

/// Enough for a group of groups of sixteen, and some.
const N_LAYERS: usize = 280;

/// The same numbers at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Everything below a folder, sorted.
fn paths(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut names: Vec<PathBuf> =
        fs::read_dir(root).expect("a folder").map(|it| it.expect("a name").path()).collect();
    names.sort();
    for path in names {
        let is_folder = fs::symlink_metadata(&path).expect("metadata").is_dir();
        found.push(path.clone());
        if is_folder {
            found.extend(paths(&path));
        }
    }
    found
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(it) if it.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

/// Changes one thing, which depends on the names that are there and on the numbers.
fn change(root: &Path, random: &mut Random) {
    let all = paths(root);
    // Few names, so that changes meet.
    let depth = |it: &Path| it.strip_prefix(root).expect("below").components().count();
    let is_folder =
        |it: &&PathBuf| depth(it) < 3 && fs::symlink_metadata(it).expect("metadata").is_dir();
    let folders: Vec<&PathBuf> = all.iter().filter(is_folder).collect();
    let folder = match random.below(folders.len() + 1) {
        0 => root,
        n => folders[n - 1],
    };
    let name = folder.join(["a", "b", "c"][random.below(3)]);
    let some = match all.is_empty() {
        true => root.to_owned(),
        false => all[random.below(all.len())].clone(),
    };
    let is_link = fs::symlink_metadata(&some).expect("metadata").is_symlink();
    match random.below(12) {
        0..3 => {
            remove(&name);
            fs::write(&name, format!("{}", random.below(1000))).expect("written");
        }
        3 | 4 if !name.is_dir() => {
            remove(&name);
            fs::create_dir(&name).expect("made");
        }
        5 if some != root => remove(&some),
        6 if !is_link => {
            let mode = [0o755, 0o700, 0o1777][random.below(3)];
            fs::set_permissions(&some, PermissionsExt::from_mode(mode)).expect("set");
        }
        7 if !is_link => {
            chown(&some, Some(random.below(3) as u32), Some(7)).expect("given");
        }
        8 if !is_link => match random.below(2) {
            0 => lsetxattr(&some, "user.note", b"x", XattrFlags::empty()).expect("set"),
            _ => drop(lremovexattr(&some, "user.note")),
        },
        9 => {
            remove(&name);
            symlink("../target", &name).expect("linked");
        }
        // A folder in the place of another one, of which nothing is to be seen.
        _ => {
            remove(&name);
            fs::create_dir(&name).expect("made");
            fs::write(name.join("b"), "").expect("written");
            fs::create_dir(name.join("c")).expect("made");
        }
    }
}

/// A listing without times, and without what several names say of each other.
fn shown(root: &Path) -> BTreeMap<String, String> {
    let mut lines = listing(root);
    lines.remove("");
    for line in lines.values_mut() {
        let is_kept = |it: &&str| !it.starts_with('=') && it.parse::<i64>().is_err();
        *line = line.split(' ').filter(is_kept).collect::<Vec<_>>().join(" ");
    }
    lines
}

/// Changes, layer after layer, what is hard to get right in a group of sixteen: a folder that hides one below the group, what is
/// removed from it that is below, too, and an attribute that goes.
fn change_group(root: &Path, nth: usize) {
    let folder = root.join("z");
    match nth % 16 {
        0 => {
            remove(&folder);
            fs::create_dir(&folder).expect("made");
            fs::write(folder.join(format!("new-{nth}")), "").expect("written");
        }
        _ if !folder.is_dir() => {}
        1 => lsetxattr(&folder, "user.note", b"z", XattrFlags::empty()).expect("set"),
        2 => drop(lremovexattr(&folder, "user.note")),
        3 | 5 => fs::write(folder.join("x"), "").expect("written"),
        4 => remove(&folder.join("x")),
        _ => {}
    }
}

/// Mounts stacks. `mount(2)` takes no more than a page of names, so they are short.
struct Mounts {
    place: Place,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    fn mount(&mut self, layers: &[DiffId], upper: Option<(&Path, &Path)>) -> Overlay {
        let root = self.place.folder.path();
        // There is one folder at least, whatever the layers are.
        let mut lower = vec![root.join("none")];
        let _ = fs::create_dir(&lower[0]);
        for folder in self.place.store.stack(&view(&self.place.store, layers)).expect("a stack") {
            let known = self.links.iter().find(|it| it.0 == folder).map(|it| it.1.clone());
            lower.push(known.unwrap_or_else(|| {
                let link = root.join(self.links.len().to_string());
                symlink(&folder, &link).expect("a link");
                self.links.push((folder, link.clone()));
                link
            }));
        }
        Overlay::mount(&root.join("mnt"), &lower, upper)
    }

    fn run(&mut self, layers: &[DiffId], change: impl FnOnce(&Path)) -> LayerIndex {
        let staged = self.place.store.stage_tree().expect("staged");
        let overlay = self.mount(layers, Some((&staged.upper(), &staged.work())));
        change(overlay.path());
        drop(overlay);
        let lower = view(&self.place.store, layers);
        let index = pack_upper(&staged.upper(), &lower, &PackOptions::default(), io::sink());
        let index = index.expect("packed");
        staged.commit(&index).expect("committed");
        index
    }
}

fn view(store: &Store, layers: &[DiffId]) -> View {
    View::new(layers.iter().map(|it| store.index(it).expect("an index")).collect())
}

#[test]
fn privileged_a_tall_stack_shows_what_its_layers_make() {
    let place = Place::new();
    let _lease = place.store.lease().expect("a lease");
    // An ordinary folder is changed in the same way.
    let plain = place.folder.path().join("plain");
    fs::create_dir(&plain).expect("a folder");
    let mut mounts = Mounts { place, links: Vec::new() };
    let mut layers: Vec<DiffId> = Vec::new();
    let mut tallest = 0;
    for nth in 0..N_LAYERS {
        let change = |root: &Path| {
            let mut random = Random((nth as u64 + 1) * 7919);
            (0..3).for_each(|_| change(root, &mut random));
            change_group(root, nth);
        };
        let index = mounts.run(&layers, change);
        layers.push(index.diff_id);
        change(&plain);
        if nth % 4 == 0 || nth % 16 == 15 {
            let overlay = mounts.mount(&layers, None);
            assert_eq!(shown(overlay.path()), shown(&plain), "after {} layers", nth + 1);
        }
        tallest = tallest.max(
            mounts.place.store.stack(&view(&mounts.place.store, &layers)).expect("a stack").len(),
        );
    }
    assert!(tallest <= 64, "{tallest} folders are mounted");
    let in_view: Vec<String> = view(&mounts.place.store, &layers)
        .walk(b"")
        .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
        .collect();
    let mut names: Vec<String> = shown(&plain).into_keys().collect();
    names.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    assert_eq!(in_view, names);
}
