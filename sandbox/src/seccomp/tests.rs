//! The filter, evaluated by an interpreter of classic BPF.

use super::*;

const ALLOW: u32 = 0x7FFF_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const NOTIFY: u32 = 0x7FC0_0000;
const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;

/// Runs a program on one call, as the kernel does.
fn run(program: &[Instruction], arch: u32, number: u32, arg0: u64) -> u32 {
    run_with(program, arch, number, [arg0, 0, 0])
}

fn run_with(program: &[Instruction], arch: u32, number: u32, args: [u64; 3]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => arch,
        16 | 24 | 32 => args[(offset as usize - 16) / 8] as u32,
        20 => (args[0] >> 32) as u32,
        offset => panic!("load at {offset}"),
    };
    let (mut pc, mut acc) = (0_usize, 0_u32);
    loop {
        let it = program[pc];
        pc += 1;
        let branch = |holds: bool| usize::from(if holds { it.jt } else { it.jf });
        match it.code {
            0x20 => acc = word(it.k),
            0x05 => pc += it.k as usize,
            0x15 => pc += branch(acc == it.k),
            0x25 => pc += branch(acc > it.k),
            0x35 => pc += branch(acc >= it.k),
            0x45 => pc += branch(acc & it.k != 0),
            0x06 => return it.k,
            code => panic!("code {code:#x}"),
        }
    }
}

fn number(name: &str, column: usize) -> u32 {
    rows().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"))[column]
        .parse()
        .unwrap_or_else(|_| panic!("{name} has no number in column {column}"))
}

#[test]
fn the_table_is_whole() {
    let mut names = Vec::new();
    for row in rows() {
        names.push(row[0]);
        let known =
            ["allow", "deny", "absent", "no-new-namespaces", "socket-family", "personality"];
        let is_cap = row[6]
            .strip_prefix("cap:")
            .is_some_and(|caps| caps.split(',').all(|name| caps::bit(name).is_some()));
        assert!(is_cap || known.contains(&row[6]), "{row:?}");
    }
    assert_eq!(names.len(), 481);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 481);
    let n_lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(n_lines, 481, "every line is a row");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn verdicts_of_the_default_profile() {
    let program = filter(caps::DEFAULT);
    assert!(program.len() < 4096);
    let call = |name: &str, arg0: u64| run(&program, X86_64, number(name, 1), arg0);

    for name in [
        "read",
        "write",
        "openat",
        "openat2",
        "execve",
        "execveat",
        "fork",
        "vfork",
        "wait4",
        "mmap",
        "futex",
        "chroot",
        "mknod",
        "mknodat",
        "setuid",
        "setgroups",
        "capset",
        "prctl",
        "seccomp",
        "ptrace",
        "process_vm_readv",
        "statx",
        "rseq",
        "close_range",
        "faccessat2",
        "fchmodat2",
        "landlock_create_ruleset",
        "memfd_secret",
        "name_to_handle_at",
        "mseal",
        "listmount",
        "statmount",
        "setxattrat",
        "cachestat",
        "uretprobe",
        "epoll_pwait2",
        "arch_prctl",
    ] {
        assert_eq!(call(name, 0), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "pivot_root",
        "fsopen",
        "fsmount",
        "fsconfig",
        "move_mount",
        "open_tree",
        "mount_setattr",
        "bpf",
        "perf_event_open",
        "syslog",
        "quotactl",
        "fanotify_init",
        "open_by_handle_at",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "init_module",
        "finit_module",
        "delete_module",
        "acct",
        "settimeofday",
        "clock_settime",
        "iopl",
        "ioperm",
        "mbind",
        "set_mempolicy",
        "kcmp",
        "pidfd_getfd",
        "process_madvise",
        "io_uring_setup",
        "io_uring_enter",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "swapon",
        "uselib",
        "move_pages",
        "migrate_pages",
        "vhangup",
        "sethostname",
        "lookup_dcookie",
        "file_setattr",
        "open_tree_attr",
        "_sysctl",
        "sysfs",
        "ustat",
    ] {
        assert_eq!(call(name, 0), EPERM, "{name}");
    }
    assert_eq!(call("clone3", 0), ENOSYS);
    for unknown in [334 + 40, 470, 9999, u32::MAX] {
        assert_eq!(run(&program, X86_64, unknown, 0), ENOSYS, "{unknown}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn arguments_are_checked() {
    let program = filter(caps::DEFAULT);
    let call = |name: &str, arg0: u64| run(&program, X86_64, number(name, 1), arg0);
    for flags in [0x11, 0x003d_0f00, 0x0120_0011] {
        assert_eq!(call("clone", flags), ALLOW, "{flags:#x}");
    }
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(call("clone", 0x11 | 1 << bit), EPERM, "bit {bit}");
    }
    for family in 0..50_u64 {
        let is_allowed = SOCKET_FAMILIES
            .iter()
            .any(|(low, high)| (u64::from(*low)..=u64::from(*high)).contains(&family));
        let want = if is_allowed { ALLOW } else { EPERM };
        assert_eq!(call("socket", family), want, "{family}");
        // The kernel drops the upper half, and so must the filter.
        assert_eq!(call("socket", family | 1 << 32), want, "{family}");
    }
    assert_eq!(call("socket", 1), ALLOW, "unix");
    assert_eq!(call("socket", 16), ALLOW, "netlink");
    assert_eq!(call("socket", 38), EPERM, "alg");
    assert_eq!(call("socket", 40), EPERM, "vsock");
    for (value, want) in [
        (0, ALLOW),
        (8, ALLOW),
        (0x20000, ALLOW),
        (0x20008, ALLOW),
        (0xffff_ffff, ALLOW),
        (0x0040_0000, EPERM),
        (1, EPERM),
    ] {
        assert_eq!(call("personality", value), want, "{value:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_abis_of_the_machine() {
    let program = filter(caps::DEFAULT);
    let i386 = |name: &str| run(&program, I386, number(name, 2), 0);
    assert_eq!(i386("read"), ALLOW);
    assert_eq!(i386("socketcall"), ALLOW, "its arguments lie in memory, which no filter reads");
    assert_eq!(i386("mount"), EPERM);
    assert_eq!(i386("vm86"), EPERM);
    assert_eq!(i386("umount"), EPERM);
    assert_eq!(run(&program, I386, number("socket", 2), 40), EPERM);
    // The same number means another call on each ABI.
    assert_eq!(run(&program, I386, 26, 0), ALLOW, "ptrace");
    let x32 = |name: &str| run(&program, X86_64, number(name, 3) | X32_BIT, 0);
    assert_eq!(x32("read"), ALLOW);
    assert_eq!(x32("mount"), EPERM);
    assert_eq!(x32("execve"), ALLOW);
    assert_eq!(x32("keyctl"), EPERM);
    assert_eq!(run(&program, 0xC000_00B7, 63, 0), ENOSYS, "another architecture");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn capabilities_open_calls() {
    let admin = filter(caps::DEFAULT | caps::bit("sys_admin").unwrap());
    let call = |name: &str, arg0| run(&admin, X86_64, number(name, 1), arg0);
    for name in ["mount", "unshare", "setns", "bpf", "clone3", "fsopen"] {
        assert_eq!(call(name, 0), ALLOW, "{name}");
    }
    assert_eq!(call("clone", 0x1002_0000), ALLOW);
    assert_eq!(call("reboot", 0), EPERM);
    assert_eq!(call("keyctl", 0), EPERM);
    let none = filter(0);
    assert_eq!(run(&none, X86_64, number("chroot", 1), 0), EPERM);
    assert_eq!(run(&none, X86_64, number("read", 1), 0), ALLOW);
}

#[test]
fn every_call_of_every_abi_gets_its_verdict() {
    let program = filter(caps::DEFAULT);
    for abi in &ABIS {
        for row in rows() {
            let Ok(number) = row[abi.column].parse::<u32>() else { continue };
            let number = if abi.is_x32 { number | X32_BIT } else { number };
            let want = match verdict(row[6], caps::DEFAULT, &SOCKET_FAMILIES) {
                Action::Allow => ALLOW,
                Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
                // Zero is allowed by all checks there are.
                Action::AllowIf(_) => ALLOW,
                action => panic!("{action:?} is for a supervisor"),
            };
            assert_eq!(run(&program, abi.audit_arch, number, 0), want, "{row:?}");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_supervisor_is_asked() {
    let ask = |name: &str| match name {
        "stat" | "mount" | "io_uring_setup" => Some(Ask::Always),
        "openat" => Some(Ask::IfBits(2, 0x40)),
        "listxattrat" => Some(Ask::Absent),
        _ => None,
    };
    let program = supervised(caps::DEFAULT, true, ask);
    let call = |name: &str, args| run_with(&program, X86_64, number(name, 1), args);
    assert_eq!(call("stat", [0; 3]), NOTIFY);
    assert_eq!(call("openat", [0, 0, 0x40]), NOTIFY);
    assert_eq!(call("openat", [0x40, 0x40, 0x80]), ALLOW);
    assert_eq!(call("read", [0; 3]), ALLOW);
    assert_eq!(call("listxattrat", [0; 3]), ENOSYS);
    // What is forbidden is not asked about.
    assert_eq!(call("mount", [0; 3]), EPERM);
    assert_eq!(call("io_uring_setup", [0; 3]), EPERM);
    // Other forms of the calls would not be understood.
    assert_eq!(run(&program, I386, number("stat", 2), 0), ENOSYS);
    assert_eq!(run(&program, X86_64, number("stat", 3) | X32_BIT, 0), ENOSYS);

    let free = supervised(caps::ALL, false, ask);
    let call = |name: &str| run(&free, X86_64, number(name, 1), 0);
    assert_eq!(call("mount"), NOTIFY);
    assert_eq!(call("reboot"), ALLOW);
    assert_eq!(call("io_uring_setup"), EPERM);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn limits_of_others_are_not_set_without_a_pid_namespace() {
    let shared = without_namespaces(caps::DEFAULT, true, |_| None);
    for (arch, column) in [(X86_64, 1), (I386, 2)] {
        let number = number("prlimit64", column);
        assert_eq!(run(&shared, arch, number, 0), ALLOW);
        assert_eq!(run(&shared, arch, number, 1), EPERM);
        assert_eq!(run(&filter(caps::DEFAULT), arch, number, 1), ALLOW);
    }
}
