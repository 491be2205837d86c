//! Somebody who swaps a folder for a link and back, all the while, in what kiln unpacks, mounts and writes to.
//!
//! In each case a careless program that works in the same place, at the same time, is led to the canary first.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    images::{Layer, image},
    lab::{Lab, SECRET, make_canary, snapshot},
    naive,
    tars::Tar,
};

/// How long a careless program may take to fall into the trap.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who swaps things as fast as can be, until this is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    n_swapped: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Swaps what is at the two paths.
    fn of(one: PathBuf, other: PathBuf) -> Self {
        Self::each(move || vec![(one.clone(), other.clone())])
    }

    /// Swaps what is found.
    fn each(find: impl Fn() -> Vec<(PathBuf, PathBuf)> + Send + 'static) -> Self {
        let (stop, n_swapped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_stopped, count) = (Arc::clone(&stop), Arc::clone(&n_swapped));
        let thread = std::thread::spawn(move || {
            let mut last = None;
            while !is_stopped.load(Ordering::Relaxed) {
                for (one, other) in find() {
                    if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                        last = Some((one, other));
                    }
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            // As it was in the beginning.
            let is_odd = count.load(Ordering::Relaxed) % 2 == 1;
            if let Some((one, other)) = last.filter(|_| is_odd) {
                let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
            }
        });
        Self { stop, n_swapped, thread: Some(thread) }
    }

    /// How often it has swapped something.
    fn n_swapped(&self) -> usize {
        self.n_swapped.load(Ordering::Relaxed)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The control: does something careless until the canary has changed, and makes a new canary.
fn trips(canary: &Path, mut careless: impl FnMut()) {
    let (before, started) = (snapshot(canary), Instant::now());
    while snapshot(canary) == before {
        assert!(started.elapsed() < PATIENCE, "the race is not real");
        careless();
    }
    fs::remove_dir_all(canary).expect("removed");
    make_canary(canary);
}

/// Layers are unpacked in the store, where nobody else is; should somebody be, nothing is written to by its path.
#[test]
fn privileged_a_layer_is_not_unpacked_through_a_swapped_folder() {
    let lab = Lab::with_box();
    let canary = lab.canary();
    let mut tar = Tar::new().folder("swapped").folder("swapped/deep");
    for n in 0..400 {
        tar = tar.file(&format!("swapped/f{n}"), "x").folder(&format!("swapped/d{n}"));
        tar = tar
            .symlink(&format!("swapped/deep/l{n}"), "x")
            .file(&format!("swapped/deep/f{n}"), "x");
    }
    let tar = tar.end();
    symlink(&canary, lab.path("link")).expect("linked");
    let careless = lab.path("careless");
    fs::create_dir_all(careless.join("swapped/deep")).expect("made");
    let swapper = Swapper::of(careless.join("swapped"), lab.path("link"));
    trips(&canary, || naive::unpack(&tar, &careless, &careless));
    drop(swapper);
    assert!(fs::symlink_metadata(lab.path("link")).expect("there").is_symlink());

    let before = snapshot(&canary);
    fs::create_dir(lab.path("context")).expect("made");
    let (tmp, link) = (lab.path("store/tmp"), lab.path("link"));
    let load = |n: usize| {
        // Another layer each time, or it would be there already.
        let archive = Tar::new().folder(&format!("n{n}")).data(&tar).end();
        let archive = image(&[Layer::plain(archive)], |_, _| ()).archive();
        fs::write(lab.path("hostile.tar"), archive).expect("written");
        assert_eq!(lab.run(&["load", "-i", "hostile.tar"]).status, Some(0));
    };
    let text =
        "FROM hostile\nCOPY --from=box /bin/busybox /busybox\nRUN [\"/busybox\", \"true\"]\n";
    fs::write(lab.path("context/Dockerfile"), text).expect("written");
    load(0);
    let ran = lab.run(&["build", "-q", "context"]);
    assert_eq!(ran.status, Some(0), "undisturbed: {}", ran.err);
    let swapper = Swapper::each(move || {
        // The staged trees of each process have names of their own: `tmp/PROCESS/NUMBER/upper`.
        let below = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
            let entries = folders.iter().filter_map(|it| fs::read_dir(it).ok()).flatten();
            entries.flatten().map(|it| it.path()).collect()
        };
        let staged = below(below(vec![tmp.clone()]));
        let all = staged.into_iter().map(|it| it.join("upper/swapped"));
        all.filter(|it| it.symlink_metadata().is_ok()).map(|it| (it, link.clone())).collect()
    });
    let mut n_built = 0;
    for n in 1..=5 {
        load(n);
        n_built += usize::from(lab.run(&["build", "-q", "context"]).status == Some(0));
        assert!(snapshot(&canary) == before, "the canary is not what it was");
    }
    // It may notice, but must not always.
    println!("{n_built} of 5 were built, {} times swapped", swapper.n_swapped());
    assert!(swapper.n_swapped() > 8, "there was no race");
}

/// A context that is mounted, not copied, while it changes.
#[test]
fn privileged_a_mount_of_a_swapped_folder_shows_nothing_of_what_is_outside() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let context = lab.path("context");
    fs::create_dir_all(context.join("swapped")).expect("made");
    fs::write(context.join("swapped/secret"), "inside").expect("written");
    symlink(lab.canary(), context.join("link")).expect("linked");
    let text = "FROM box\nRUN --mount=type=bind,source=swapped,target=/m cat /m/secret\n";
    fs::write(context.join("Dockerfile"), text).expect("written");
    let swapper = Swapper::of(context.join("swapped"), context.join("link"));
    let started = Instant::now();
    while naive::read(&context, "swapped/secret").is_none_or(|it| it != SECRET.as_bytes()) {
        assert!(started.elapsed() < PATIENCE, "the race is not real");
    }
    for _ in 0..15 {
        let ran = lab.run(&["build", "--no-cache", "--progress", "plain", "context"]);
        assert!(!ran.err.contains(SECRET), "{}", ran.err);
    }
    drop(swapper);
    lab.check("a mount", &before);
}

/// CVE-2021-30465, CVE-2024-45310: the place for a mount, inside of another mount that somebody changes.
#[test]
fn privileged_no_place_to_mount_on_is_made_through_a_swapped_folder() {
    let lab = Lab::with_box();
    let (canary, shared) = (lab.canary(), lab.path("shared"));
    fs::create_dir_all(shared.join("swapped")).expect("made");
    // In the container, too, the canary is beside it.
    symlink("../canary", shared.join("link")).expect("linked");
    let _swapper = Swapper::of(shared.join("swapped"), shared.join("link"));
    trips(&canary, || {
        let _ = naive::mount_point(&shared, "swapped/new/place");
        let _ = fs::remove_dir_all(shared.join("swapped/new"));
        let _ = fs::remove_dir_all(shared.join("link/new"));
    });
    let before = snapshot(&canary);
    let mount = |from: &Path, to: &str| format!("{}:{to}", from.display());
    let (shared_mount, canary_mount) = (mount(&shared, "/shared"), mount(&canary, "/canary"));
    let mut n_run = 0;
    for _ in 0..25 {
        let args = ["run", "--rm", "-v", &shared_mount, "-v", &canary_mount];
        let place = ["--tmpfs", "/shared/swapped/new/place", "box"];
        let look = ["sh", "-c", "grep -c /canary/ /proc/self/mountinfo"];
        let ran = lab.run(&[&args[..], &place, &look].concat());
        n_run += usize::from(ran.out == "0\n");
        assert!(!ran.out.starts_with(['1', '2']), "mounted on the canary: {}", ran.out);
        assert!(snapshot(&canary) == before, "the canary is not what it was");
        for name in ["swapped/new", "link/new"] {
            // Whichever of the two is the folder now.
            let _ = fs::remove_dir_all(shared.join(name));
        }
    }
    println!("{n_run} of 25 were run");
    lab.check("a place to mount on", &before);
}

/// CVE-2025-52881: two RUNs share a cache, and one of them leads the mounts of the other to /proc.
#[test]
fn privileged_a_shared_cache_does_not_lead_mounts_to_proc() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    for (name, text) in [
        (
            "racer",
            "FROM box\nRUN --mount=type=cache,id=race,target=/c while [ ! -e /c/stop ]; do rm -rf /c/x; mkdir -p /c/x/self; rm -rf /c/x; ln -s /proc /c/x; rm -f /c/x; done\n",
        ),
        (
            "victim",
            "FROM box\nARG n\nRUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/x/self/attr echo FA''CT $(grep -c '/proc/.*attr' /proc/self/mountinfo) $(ls /proc/self/attr | wc -l)\n",
        ),
        ("stop", "FROM box\nRUN --mount=type=cache,id=race,target=/c touch /c/stop\n"),
    ] {
        fs::create_dir(lab.path(name)).expect("made");
        fs::write(lab.path(name).join("Dockerfile"), text).expect("written");
    }
    let racer = lab.kiln(&["build", "-q", "racer"]);
    std::thread::scope(|scope| {
        let racing = scope.spawn(|| lab.finish(racer, b""));
        let (mut n_run, mut n_refused, started) = (0, 0, Instant::now());
        while n_run + n_refused < 25 || n_refused == 0 {
            assert!(started.elapsed() < PATIENCE * 2, "{n_run} were run, {n_refused} refused");
            // Another step each time; `--no-cache` would give it a cache of its own.
            let n = format!("n={n_run}.{n_refused}");
            let ran = lab.run(&["build", "--progress", "plain", "--build-arg", &n, "victim"]);
            match ran.err.lines().find_map(|it| it.split_once(" FACT ")) {
                Some((_, fact)) => {
                    assert!(fact.starts_with("0 "), "mounted on /proc: {fact}");
                    n_run += 1;
                }
                None => {
                    assert!(ran.err.contains("mount"), "{}", ran.err);
                    n_refused += 1;
                }
            }
        }
        let ran = lab.run(&["build", "-q", "stop"]);
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        racing.join().expect("it ends");
        println!("{n_run} were run, {n_refused} refused");
    });
    lab.check("a shared cache", &before);
}

/// CVE-2025-31133: what is masked is covered with the null device, and whose that is must not be for an image to say.
#[test]
fn privileged_what_is_masked_does_not_depend_on_the_image() {
    let lab = Lab::with_box();
    let (canary, before) = (lab.canary(), snapshot(&lab.canary()));
    let secret = canary.join("secret").display().to_string();
    let tar = Tar::new().folder("dev").symlink("dev/null", &secret).symlink("dev/zero", &secret);
    let tar = tar.folder("swapped").symlink("swapped/null", &secret).end();
    let root = lab.path("careless");
    naive::unpack(&tar, &root, &root);
    assert_eq!(naive::read(&root, "dev/null").as_deref(), Some(SECRET.as_bytes()), "the control");
    fs::write(lab.path("hostile.tar"), image(&[Layer::plain(tar)], |_, _| ()).archive())
        .expect("written");
    assert_eq!(lab.run(&["load", "-i", "hostile.tar"]).status, Some(0));
    let look = "RUN [\"/busybox\", \"sh\", \"-c\", \"PATH=/; b=/busybox; \
        $b echo FA''CT $($b stat -c %t:%T /dev/null /proc/keys) $($b head -c 5 /proc/keys | $b wc -c) $($b ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | $b grep -vc :) \
        $($b umount /proc/keys 2>/dev/null && $b echo umounted) $($b rm /proc/keys 2>/dev/null && $b echo removed) $($b touch /sys/firmware/x 2>/dev/null && $b echo touched)\"]\n";
    fs::create_dir(lab.path("context")).expect("made");
    let text = format!("FROM hostile\nCOPY --from=box /bin/busybox /busybox\n{look}");
    fs::write(lab.path("context/Dockerfile"), text).expect("written");
    let build = || lab.run(&["build", "--no-cache", "--progress", "plain", "context"]);
    let fact = |ran: &crate::lab::Ran| {
        let line = ran.err.lines().find_map(|it| it.split_once(" FACT "));
        line.map(|(_, it)| it.to_owned())
    };
    let first = build();
    let expected = fact(&first).unwrap_or_else(|| panic!("{}", first.err));
    assert!(expected.starts_with("1:3 1:3 0"), "{expected}");
    assert!(!expected.contains("ed"), "{expected}");
    // And while its unpacked layer changes.
    let trees = lab.path("store/trees");
    let swapper = Swapper::each(move || {
        let all = fs::read_dir(&trees).into_iter().flatten().flatten().map(|it| it.path());
        let with = all.flat_map(|it| [it.clone(), it.join("fs"), it.join("tree")]);
        let with = with.filter(|it| it.join("swapped").symlink_metadata().is_ok());
        with.map(|it| (it.join("dev"), it.join("swapped"))).collect()
    });
    for _ in 0..10 {
        let ran = build();
        if let Some(fact) = fact(&ran) {
            assert_eq!(fact, expected, "{}", ran.err);
        }
        assert!(!ran.err.contains(SECRET), "{}", ran.err);
    }
    assert!(swapper.n_swapped() > 20, "there was no race");
    assert!(snapshot(&canary) == before, "the canary is not what it was");
}

/// A folder that is exported into, while somebody changes it.
#[test]
fn privileged_an_export_writes_nothing_through_a_swapped_folder() {
    let lab = Lab::with_box();
    let (canary, out) = (lab.canary(), lab.path("out"));
    let context = lab.path("context");
    fs::create_dir_all(context.join("swapped")).expect("made");
    for n in 0..200 {
        fs::write(context.join(format!("swapped/f{n}")), "x").expect("written");
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY swapped /swapped\n")
        .expect("written");
    fs::create_dir_all(out.join("swapped")).expect("made");
    symlink(&canary, out.join("link")).expect("linked");
    let _swapper = Swapper::of(out.join("swapped"), out.join("link"));
    trips(&canary, || {
        for n in 0..20 {
            let _ = naive::write(&out.join("swapped"), &format!("f{n}"), b"x");
        }
    });
    let before = snapshot(&canary);
    for _ in 0..15 {
        let ran = lab.run(&["build", "-q", "-o", "out", "context"]);
        assert!(snapshot(&canary) == before, "the canary is not what it was: {}", ran.err);
    }
    lab.check("an export", &before);
}
