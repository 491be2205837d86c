//! Limits that control groups enforce, as root, on whichever version of them this machine has.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, finish};
use sandbox::CgroupLimits;

/// Control groups of this process, and of those that started it for one sandbox.
fn groups() -> Vec<String> {
    let own = format!("kiln-{}", std::process::id());
    let mut out = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for below in [hierarchy.path(), hierarchy.path().join("kiln-parent-test")] {
            let groups = std::fs::read_dir(below).into_iter().flatten().flatten();
            let names = groups.map(|it| it.path().display().to_string());
            out.extend(names.filter(|it| it.contains(&own)));
        }
    }
    out
}

fn eventually_gone(what: &str) {
    let started = Instant::now();
    // Groups of threads that start the next sandbox, and of sandboxes of other tests, may be there.
    while groups().iter().any(|it| it.contains(what)) {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", groups());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn privileged_a_fork_bomb_is_contained() {
    let it = Fixture::new();
    // As many as it can have; each waits for its children, so that none is lost.
    let bomb = "bomb() { bomb & bomb & wait; }; (sleep 2; kill -9 -1) & bomb 2>/dev/null; true";
    let spec = it.spec(["/bin/sh", "-c", bomb]);
    assert_eq!(spec.cgroup, CgroupLimits::usual());
    let child = sandbox::spawn(&spec).unwrap();
    assert!(child.notes().is_empty());
    let is_bomb = |it: &std::fs::DirEntry| {
        std::fs::read(it.path().join("cmdline"))
            .is_ok_and(|it| it.windows(6).any(|it| it == b"bomb()"))
    };
    // It may be over soon: a shell that cannot fork gives up.
    let mut most = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        most = most.max(std::fs::read_dir("/proc").unwrap().flatten().filter(is_bomb).count());
    }
    assert!((2..=2050).contains(&most), "{most}");
    // The machine can be used meanwhile.
    let started = Instant::now();
    let other = Fixture::new();
    assert_eq!(other.sh("echo fine").out, "fine\n");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    child.kill();
    let exit = child.wait().unwrap();
    assert!(exit.too_many_processes, "{exit:?}");
}

#[test]
fn privileged_a_small_number_of_processes() {
    let it = Fixture::new();
    let line = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let mut spec = it.spec(["/bin/sh", "-c", line]);
    spec.cgroup = CgroupLimits { pids: Some(5), is_pids_asked: true, ..CgroupLimits::default() };
    for _ in 0..2 {
        let ran = finish(sandbox::spawn(&spec).unwrap());
        assert!(ran.err.contains("can't fork"), "{ran:?}");
    }
    spec.args[2] = "sleep 0.1 & sleep 0.1 & wait".into();
    let child = sandbox::spawn(&spec).unwrap();
    let exit = child.wait().unwrap();
    assert!(exit.is_success() && !exit.too_many_processes, "{exit:?}");
}

#[test]
fn privileged_memory_limit() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "tail -c 200m /dev/zero > /dev/null"]);
    spec.cgroup.memory = Some(32 << 20);
    spec.cgroup.memory_swap = Some(32 << 20);
    let ran = finish(sandbox::spawn(&spec).unwrap());
    assert!(ran.oom && ran.code != Some(0), "{ran:?}");
}

#[test]
fn privileged_processors_and_a_parent() {
    let it = Fixture::new();
    let line = "grep -E '(memory|cpu|pids|cpuset):|:cpu' /proc/self/cgroup; awk '/Cpus_allowed_list/ { print $2 }' /proc/self/status";
    let mut spec = it.spec(["/bin/sh", "-c", line]);
    spec.cgroup.parent = Some("/kiln-parent-test".into());
    spec.cgroup.cpuset_cpus = Some("0".to_owned());
    spec.cgroup.cpus = Some(0.5);
    spec.cgroup.cpu_shares = Some(512);
    let child = sandbox::spawn(&spec).unwrap();
    assert_eq!(child.notes(), [""; 0]);
    let ran = finish(child);
    assert_eq!(ran.out.lines().last(), Some("0"), "{ran:?}");
    eventually_gone("kiln-parent-test");

    // The group above holds for what is below it.
    for hierarchy in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
        let limit = Path::new(hierarchy).join("kiln-parent-test/pids.max");
        if limit.exists() {
            std::fs::write(&limit, "4").unwrap();
        }
    }
    let line = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let mut spec = it.spec(["/bin/sh", "-c", line]);
    spec.cgroup.parent = Some("/kiln-parent-test".into());
    let ran = finish(sandbox::spawn(&spec).unwrap());
    assert!(ran.err.contains("can't fork"), "{ran:?}");
    eventually_gone("kiln-parent-test");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join("kiln-parent-test"));
    }
    let _ = std::fs::remove_dir("/sys/fs/cgroup/kiln-parent-test");
}

#[test]
fn privileged_a_limit_of_processors_holds() {
    let it = Fixture::new();
    // The shell says how long it had a processor: on a busy machine it has less of one in any case.
    let line = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; times";
    let mut spec = it.spec(["/bin/sh", "-c", line]);
    spec.cgroup.cpus = Some(0.05);
    let started = Instant::now();
    let ran = finish(sandbox::spawn(&spec).unwrap());
    let wall = started.elapsed().as_secs_f64();
    let seconds = |text: &str| -> f64 {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let used: f64 = ran.out.lines().next().unwrap().split_whitespace().map(seconds).sum();
    assert!(used > 0.02 && used < wall * 0.15, "{used} of {wall}");
}
