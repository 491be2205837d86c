//! The sandbox with one id: what programs see of owners, ids and devices, and what is left on the disk.
//!
//! A process moves into the namespace as a whole and while it has one thread, so these are functions called one after the other.
//! The whole way, with a user who is nobody, is `scripts/rootless`.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the other tests")]
mod fixture;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use fixture::{Fixture, listing};
use sandbox::{Isolation, Mount};

fn main() {
    sandbox::isolate(Isolation::SingleId).unwrap();
    sandbox::require().unwrap();
    assert!(sandbox::keeps_owners());
    let tests: &[(&str, fn())] = &[
        ("owners_are_in_an_attribute", owners_are_in_an_attribute),
        ("set_group_folders_hand_down", set_group_folders_hand_down),
        ("links_and_pipes", links_and_pipes),
        ("devices_are_files", devices_are_files),
        ("ids_are_given_up_for_good", ids_are_given_up_for_good),
        ("orphans_stay_who_they_were", orphans_stay_who_they_were),
        ("others_files_are_closed", others_files_are_closed),
        ("a_root_of_ones_own", a_root_of_ones_own),
        ("mounted_files_have_owners", mounted_files_have_owners),
        ("the_kernel_answers_about_handles_and_errors", the_kernel_answers),
        ("many_ask_at_once", many_ask_at_once),
        ("what_is_made_at_once_has_its_owner", what_is_made_at_once_has_its_owner),
        ("a_killed_command_ends_at_once", a_killed_command_ends_at_once),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        test();
        println!("test privileged_single_id_{name} ... ok");
    }
    // A failure is a panic, which ends the program before this.
    println!("\ntest result: ok. {} passed; 0 failed", tests.len());
}

/// Runs a script that must succeed; returns what it prints.
fn sh(root: &Fixture, user: &str, script: &str) -> String {
    let mut spec = root.spec(["/bin/sh", "-ec", script]);
    spec.user = user.to_owned();
    let ran = root.run(&spec);
    assert_eq!(ran.code, Some(0), "{script}: {ran:?}");
    ran.out
}

fn attribute(path: &std::path::Path) -> Option<String> {
    let mut value = [0; 64];
    let n_bytes = rustix::fs::lgetxattr(path, "user.kiln.stat", &mut value).ok()?;
    Some(String::from_utf8(value[..n_bytes].to_vec()).unwrap())
}

fn owners_are_in_an_attribute() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "touch f; mkdir d; chown 5:6 f; chown 7 d; stat -c %u:%g f d; chown 0:0 d; stat -c %u:%g d; chmod 6755 f; chown 5 f; stat -c %a f",
    );
    assert_eq!(out, "5:6\n7:0\n0:0\n755\n");
    assert_eq!(attribute(&root.upper().join("f")).as_deref(), Some("5:6"));
    assert_eq!(attribute(&root.upper().join("d")), None);
    assert_eq!(std::fs::metadata(root.upper().join("f")).unwrap().uid(), 0);
    // What comes from a layer below keeps its owner when it is copied up.
    let motd = root.lower().join("etc/motd");
    rustix::fs::setxattr(&motd, "user.kiln.stat", b"8:9", rustix::fs::XattrFlags::empty()).unwrap();
    let out = sh(&root, "", "stat -c %u:%g /etc/motd; echo x >>/etc/motd; stat -c %u:%g /etc/motd");
    assert_eq!(out, "8:9\n8:9\n");
    assert_eq!(attribute(&root.upper().join("etc/motd")).as_deref(), Some("8:9"));
}

fn set_group_folders_hand_down() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "mkdir d; chown 3:4 d; chmod 2777 d; touch d/f; mkdir d/s; stat -c '%u:%g %a' d/f d/s; umask 077; touch d/g; stat -c %a d/g",
    );
    assert_eq!(out, "0:4 644\n0:4 2755\n600\n");
}

fn links_and_pipes() {
    let root = Fixture::new();
    std::os::unix::fs::symlink("x", root.lower().join("old")).unwrap();
    let mut spec = root.spec([
        "/bin/sh",
        "-ec",
        "ln -s x l; chown -h 5:6 l; stat -c %u:%g l old; mv old new; stat -c %u:%g new; ln -s y old; stat -c %u:%g old; mkfifo p; chown 9 p; rm l; ln -s z l; stat -c %u:%g l",
    ]);
    spec.link_owners = vec![(b"old".to_vec(), 70_000, 8)];
    let child = sandbox::spawn(&spec).unwrap();
    let mut out = String::new();
    let stdout = child.take_stdout().unwrap();
    std::io::Read::read_to_string(&mut std::fs::File::from(stdout), &mut out).unwrap();
    assert_eq!(child.wait().unwrap().code, Some(0));
    assert_eq!(out, "5:6\n70000:8\n70000:8\n0:0\n0:0\n");
    let owners = child.take_link_owners();
    let owner = |name: &str| {
        let number = std::fs::symlink_metadata(root.upper().join(name)).unwrap().ino();
        owners.iter().find(|(inode, _)| inode.number == number).map(|(_, owner)| *owner)
    };
    assert_eq!(owner("new"), Some((70_000, 8)));
    assert_eq!(owner("old"), Some((0, 0)));
    assert_eq!(owner("p"), Some((9, 0)));
}

fn devices_are_files() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "mknod c c 1 3; mknod b b 8 1; chown 5 b; stat -c '%F %t:%T %u %a' c b; mknod w c 0 0 2>/dev/null || echo no; test -c c; test -b b; echo x >/dev/null",
    );
    assert_eq!(out, "character special file 1:3 0 644\nblock special file 8:1 5 644\nno\n");
    let file = std::fs::symlink_metadata(root.upper().join("b")).unwrap();
    assert!(file.is_file() && !file.file_type().is_block_device());
    assert_eq!(attribute(&root.upper().join("b")).as_deref(), Some("5:0:b:8:1"));
}

fn ids_are_given_up_for_good() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "33:34",
        "id -u; id -g; id -G; touch /x 2>/dev/null || echo no; mknod /tmp/x c 1 3 2>/dev/null || echo no",
    );
    assert_eq!(out, "33\n34\n34\nno\nno\n");
    let ran = root.sh("chroot / /bin/sh -c 'id -u'; cat /proc/self/uid_map");
    assert_eq!(ran.out.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "1"], "{ran:?}");
}

fn orphans_stay_who_they_were() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "33",
        "cd /tmp 2>/dev/null || cd /dev/shm; sh -c '(sleep 0.2; touch late) & exit 0'; while ! [ -e late ]; do sleep 0.05; done; stat -c %u late",
    );
    assert_eq!(out, "33\n");
}

fn others_files_are_closed() {
    let root = Fixture::new();
    let file = root.lower().join("secret");
    std::fs::write(&file, "x").unwrap();
    let set = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set(&file, 0o640);
    set(&root.lower().join("root"), 0o700);
    std::fs::write(root.lower().join("root/f"), "y").unwrap();
    rustix::fs::setxattr(&file, "user.kiln.stat", b"0:34", rustix::fs::XattrFlags::empty())
        .unwrap();
    let try_all = "cat /secret 2>/dev/null || echo no; cat /root/f 2>/dev/null || echo no; echo z 2>/dev/null >>/secret || echo no; rm -f /secret 2>/dev/null || echo no; chmod 777 /secret 2>/dev/null || echo no; cat /etc/motd; mkdir /etc 2>&1 | grep -c exists";
    assert_eq!(sh(&root, "33:33", try_all), "no\nno\nno\nno\nno\nwelcome\n1\n");
    assert_eq!(sh(&root, "33:34", try_all), "xno\nno\nno\nno\nwelcome\n1\n");
    // The way to the working directory does not count.
    let out = sh(&root, "", "mkdir -p /own/deep; chown 33 /own/deep; chmod 700 /own; echo made");
    assert_eq!(out, "made\n");
}

fn a_root_of_ones_own() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "mkdir -p r/bin r/d; cp /bin/busybox r/bin/; ln -s /d r/link; chroot r /bin/busybox sh -ec 'cd /d; busybox touch f /link/g; busybox chown 5:6 f; busybox chown 7 /link/../d/g; busybox mknod ../c c 1 3; busybox stat -c %u f /d/g'; stat -c %u:%g r/d/f; test -c r/c",
    );
    assert_eq!(out, "5\n7\n5:6\n");
}

fn mounted_files_have_owners() {
    let root = Fixture::new();
    let mut spec = root.spec(["/bin/sh", "-ec", "stat -c '%u:%g %a' /run/s; cat /run/s"]);
    spec.user = "7".to_owned();
    spec.mounts.push(Mount::File {
        content: b"hush".to_vec(),
        target: "/run/s".into(),
        mode: 0o400,
        uid: 7,
        gid: 8,
    });
    let ran = root.run(&spec);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "7:8 400\nhush"), "{}", ran.err);
    assert!(listing(&root.upper()).is_empty());
}

fn the_kernel_answers() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "stat -L -c %F /dev/stdout; chown 5 /dev/stdout; chown 5 /proc/self/fd/1; stat -c %F /proc/self/exe /proc/1; stat /missing 2>&1 | grep -c 'No such'; stat /etc/motd/x 2>&1 | grep -c 'Not a dir'; chown 5 /missing 2>&1 | grep -c 'No such'",
    );
    assert_eq!(out, "fifo\nsymbolic link\ndirectory\n1\n1\n1\n");
}

fn many_ask_at_once() {
    let root = Fixture::new();
    let out = sh(
        &root,
        "",
        "for n in 1 2 3 4 5 6 7 8; do (touch f$n; for m in 1 2 3 4 5 6 7 8 9; do chown $n:$m f$n; done; [ $(stat -c %u:%g f$n) = $n:9 ] || echo wrong) & done; wait",
    );
    assert_eq!(out, "");
}

/// Something is made in a folder that is not there when it is asked for, and is a moment later.
fn what_is_made_at_once_has_its_owner() {
    let root = Fixture::new();
    let everybodys = root.lower().join("all");
    std::fs::create_dir(&everybodys).unwrap();
    std::fs::set_permissions(&everybodys, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "cd /all; (for i in $(seq 300); do mkdir d$i; done) & \
        n=0; for i in $(seq 300); do until true >d$i/f; do n=$((n+1)); [ $n -lt 1000000 ] || exit 9; done 2>/dev/null; done; wait; \
        stat -c %u:%g d* d*/f | sort -u; stat -c %n d*/f | wc -l";
    assert_eq!(sh(&root, "1000:1000", script), "1000:1000\n300\n");
    // Where the supervisor cannot see what the kernel sees, the kernel answers.
    let script = "echo 5 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj; cd /; echo 6 >proc/self/oom_score_adj; \
        cat /proc/self/oom_score_adj; ln -s ../proc/self/oom_score_adj /all/o; echo 7 >/all/o; cat /proc/self/oom_score_adj; \
        ln -s /proc/self/fd /all/fd; echo x >/all/fd/1; echo y >/dev/fd/1";
    assert_eq!(sh(&root, "1000:1000", script), "5\n6\n7\nx\ny\n");
}

fn a_killed_command_ends_at_once() {
    let root = Fixture::new();
    let spec = root.spec(["/bin/sh", "-c", "while :; do stat / >/dev/null; done"]);
    for n in 0..20 {
        let child = sandbox::spawn(&spec).unwrap();
        std::thread::sleep(Duration::from_millis(n));
        let start = Instant::now();
        child.kill();
        assert!(!child.wait().unwrap().is_success());
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
