//! The sandbox in a user namespace, entered by root: what differs from that of root, and what must not.
//!
//! A process moves into the namespace as a whole and while it has one thread, so these are functions called one after the other.
//! The whole way, with a user who is nobody and subordinate ids, is `scripts/rootless`.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the other tests")]
mod fixture;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use fixture::{Fixture, listing};
use sandbox::{Isolation, Mount, Network};

fn main() {
    sandbox::isolate(Isolation::Rootless).unwrap();
    sandbox::require().unwrap();
    let tests: &[(&str, fn())] = &[
        ("changes_are_in_the_upper_directory", changes_are_in_the_upper_directory),
        ("devices_are_those_of_the_machine", devices_are_those_of_the_machine),
        ("system_file_systems", system_file_systems),
        ("networks", networks),
        ("isolated_networks", isolated_networks),
        ("users", users),
        ("limits_are_notes_or_hold", limits_are_notes_or_hold),
        ("mounts", mounts),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        test();
        println!("test privileged_rootless_{name} ... ok");
    }
    // A failure is a panic, which ends the program before this.
    println!("\ntest result: ok. {} passed; 0 failed", tests.len());
}

fn changes_are_in_the_upper_directory() {
    let root = Fixture::new();
    std::fs::create_dir_all(root.lower().join("old/deep")).unwrap();
    std::fs::write(root.lower().join("old/deep/a"), "a").unwrap();
    let ran = root.sh(
        "rm /etc/motd && rm -r /old && mkdir /old && echo b >/old/b && chmod 700 /root && ls /old",
    );
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "b\n"), "{}", ran.err);
    assert_eq!(listing(&root.upper()), ["etc", "etc/motd", "old", "old/b", "root"]);
    let gone = std::fs::symlink_metadata(root.upper().join("etc/motd")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 2];
    let n_bytes = rustix::fs::getxattr(root.upper().join("old"), "user.overlay.opaque", &mut value);
    assert_eq!((n_bytes.unwrap(), value[0]), (1, b'y'));
    assert!(listing(&root.work()).is_empty());
}

fn devices_are_those_of_the_machine() {
    let root = Fixture::new();
    let ran = root.sh(
        "head -c 3 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x >/dev/null; echo x >/dev/full; echo $?",
    );
    assert_eq!(ran.out, "3\n4\n1\n", "{}", ran.err);
    assert_ne!(root.sh("mknod /tmp-node c 1 3").code, Some(0));
    assert_ne!(root.sh("mknod /tmp-node b 8 0").code, Some(0));
}

fn system_file_systems() {
    let root = Fixture::new();
    let ran = root.sh("cat /proc/1/comm >/dev/null && echo $$ && cat /proc/kcore /proc/keys; ls /sys/firmware /proc/acpi");
    assert!(ran.out.starts_with("1\n"), "{ran:?}");
    assert!(!ran.out.contains("keyring"), "{ran:?}");
    for path in
        ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/proc/keys"]
    {
        assert_ne!(root.sh(&format!("echo x >{path}")).code, Some(0), "{path}");
    }
    // Of everything that came with `/sys`, nothing can be written to.
    let ran = root.sh("grep -E ' /sys[ /]' /proc/mounts | grep -vE ' ro[, ]'; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x");
    assert_eq!(ran.out, "");
    assert_ne!(ran.code, Some(0));
}

fn networks() {
    let root = Fixture::new();
    let mut spec = root.spec(["/bin/sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/flags"]);
    spec.network = Network::None;
    let ran = root.run(&spec);
    assert_eq!(ran.out, "lo\n0x9\n", "{}", ran.err);
}

fn isolated_networks() {
    let found = sandbox::isolated().unwrap();
    assert!(["pasta", "slirp4netns"].contains(&found.describe()), "{found:?}");
    let hidden = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hidden.local_addr().unwrap().port();
    let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let open_port = open.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in open.incoming() {
            let _ = std::io::Write::write_all(&mut client.unwrap(), b"hello\n");
        }
    });
    let root = Fixture::new();
    let gateway = sandbox::gateway(Network::Isolated);
    let mut spec = root.spec([
        "/bin/sh",
        "-c",
        &format!(
            "for a in 127.0.0.1 {gateway} $(ip route | awk '/default/ {{ print $3 }}'); do nc -w 3 $a {port} </dev/null 2>/dev/null && echo reached $a; done; nc {gateway} {open_port} </dev/null; ls /sys/class/net; cat /etc/resolv.conf"
        ),
    ]);
    spec.network = Network::Isolated;
    spec.resolv_conf = Some(sandbox::resolv_conf(Network::Isolated));
    let ran = root.run(&spec);
    let resolver = if found.describe() == "pasta" { "169.254.1.1" } else { "10.0.2.3" };
    let start = format!("hello\neth0\nlo\nnameserver {resolver}\n");
    assert!(ran.out.starts_with(&start), "{ran:?}");
}

fn users() {
    let root = Fixture::new();
    let mut spec =
        root.spec(["/bin/sh", "-c", "id -u; id -g; cat /proc/self/status | grep CapEff"]);
    spec.user = "33:42".to_owned();
    let ran = root.run(&spec);
    assert_eq!(ran.out, "33\n42\nCapEff:\t0000000000000000\n", "{}", ran.err);
    let ran = root.sh("grep -E 'Cap(Bnd|Eff|Prm)' /proc/self/status | cut -f2; mount -t tmpfs x /root; unshare -r true");
    assert_eq!(ran.out, "00000000a80425fb\n".repeat(3));
    assert_ne!(ran.code, Some(0));
}

fn limits_are_notes_or_hold() {
    let root = Fixture::new();
    let mut spec = root.spec(["/bin/true"]);
    spec.cgroup.pids = Some(50);
    let child = sandbox::spawn(&spec).unwrap();
    assert!(child.notes().iter().all(|it| it.contains("not enforced")));
    assert!(child.wait().unwrap().is_success());
}

fn mounts() {
    let root = Fixture::new();
    let mut spec = root.spec([
        "/bin/sh",
        "-c",
        "stat -c '%u %a' /run/secrets/s; cat /run/secrets/s; df /scratch >/dev/null",
    ]);
    spec.mounts.push(Mount::File {
        content: b"hush".to_vec(),
        target: "/run/secrets/s".into(),
        mode: 0o440,
        uid: 7,
        gid: 8,
    });
    spec.mounts.push(Mount::Tmpfs { target: "/scratch".into(), size: None, mode: 0o1777 });
    let ran = root.run(&spec);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "7 440\nhush"), "{}", ran.err);
    assert!(listing(&root.upper()).is_empty());
}
