//! Which device nodes work: rules of version 1, or a program of version 2.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::{Hierarchies, PREFIX, write};
use crate::sys;

/// Device nodes that work in a sandbox, as rules of the version 1 controller: all may be made, and
/// these be opened: null, zero, full, random, urandom, tty, ptmx, and terminals.
const DEVICE_RULES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The group that decides about device nodes, shared by all sandboxes of this process.
#[derive(Debug)]
pub(crate) struct DeviceGroup {
    /// The directory of a version 2 group, for a process to be started in.
    pub(crate) start_in: Option<OwnedFd>,
    /// The file by which a process joins.
    pub(crate) join: Option<OwnedFd>,
    dir: PathBuf,
}

/// Number of sandboxes in the group, which exists while there are any.
static IN_DEVICE_GROUP: Mutex<usize> = Mutex::new(0);

impl DeviceGroup {
    /// Makes the group if it is not there; `None` if this machine has no such controller or does
    /// not let us use it.
    ///
    /// Version 2 comes first: a process can be started in such a group, while joining one means
    /// waiting for every processor of the machine, which takes milliseconds.
    pub(crate) fn enter() -> Option<Self> {
        let found = Hierarchies::get();
        let mut count = IN_DEVICE_GROUP.lock().unwrap_or_else(|it| it.into_inner());
        let is_first = *count == 0;
        let enter = |above: &Path, is_v2: bool| -> std::io::Result<Self> {
            let dir = above.join(format!("{PREFIX}{}", std::process::id()));
            if is_first {
                make_device_group(&dir, is_v2)?;
            }
            let join = OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?;
            let start_in = if is_v2 { Some(File::open(&dir)?.into()) } else { None };
            Ok(Self { start_in, join: Some(join.into()), dir })
        };
        let v2 = found.v2.as_deref().and_then(|above| enter(above, true).ok());
        let group = v2.or_else(|| enter(found.v1("devices")?, false).ok())?;
        *count += 1;
        Some(group)
    }
}

impl Drop for DeviceGroup {
    fn drop(&mut self) {
        let mut count = IN_DEVICE_GROUP.lock().unwrap_or_else(|it| it.into_inner());
        *count -= 1;
        if *count == 0 {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn make_device_group(group: &Path, is_v2: bool) -> std::io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let set = || {
        if is_v2 {
            return attach_device_program(group);
        }
        write(&group.join("devices.deny"), "a")?;
        let mut allow = OpenOptions::new().write(true).open(group.join("devices.allow"))?;
        DEVICE_RULES.iter().try_for_each(|rule| allow.write_all(rule.as_bytes()))
    };
    set().inspect_err(|_| {
        let _ = fs::remove_dir(group);
    })
}

/// Makes the rules hold in a version 2 group.
pub(super) fn attach_device_program(group: &Path) -> std::io::Result<()> {
    sys::attach_device_program(File::open(group)?.as_fd(), device_program()?.as_fd())?;
    Ok(())
}

/// The rules of [`DEVICE_RULES`] as a program, loaded once.
fn device_program() -> rustix::io::Result<&'static OwnedFd> {
    static LOADED: OnceLock<rustix::io::Result<OwnedFd>> = OnceLock::new();
    LOADED
        .get_or_init(|| sys::load_device_program(&device_instructions()))
        .as_ref()
        .map_err(|it| *it)
}

/// In the machine language of the kernel: the context in register 1 has the access (high half) and
/// type (low half) of a node, its major and its minor number; the result in register 0 is 1 to allow.
fn device_instructions() -> Vec<u64> {
    const DENY: i16 = i16::MAX;
    const ALLOW: i16 = i16::MAX - 1;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const JUMP_IF_NOT: u8 = 0x55;
    let instruction = |code: u8, to: u8, from: u8, offset: i16, value: i32| {
        let [o0, o1] = offset.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        [code, from << 4 | to, o0, o1, v0, v1, v2, v3]
    };
    let load = |to, offset| instruction(0x61, to, 1, offset, 0);
    let mut code = vec![
        load(2, 0),
        load(3, 4),
        load(4, 8),
        instruction(0xbf, 5, 2, 0, 0),                // access := both
        instruction(0x77, 5, 0, 0, 16),               // access := access >> 16
        instruction(0x57, 2, 0, 0, 0xffff),           // type := type & 0xffff
        instruction(JUMP_IF_EQUAL, 5, 0, ALLOW, 1),   // making a node
        instruction(JUMP_IF_NOT, 2, 0, DENY, 2),      // not a character device
        instruction(JUMP_IF_EQUAL, 3, 0, ALLOW, 136), // terminals
    ];
    let minors_of_5 = [0, 1, 2];
    let minors_of_1 = [3, 5, 7, 8, 9];
    code.push(instruction(JUMP_IF_NOT, 3, 0, minors_of_5.len() as i16 + 1, 5));
    code.extend(minors_of_5.map(|minor| instruction(JUMP_IF_EQUAL, 4, 0, ALLOW, minor)));
    code.push(instruction(0x05, 0, 0, DENY, 0));
    code.push(instruction(JUMP_IF_NOT, 3, 0, DENY, 1));
    code.extend(minors_of_1.map(|minor| instruction(JUMP_IF_EQUAL, 4, 0, ALLOW, minor)));
    let deny_at = code.len() as i16;
    code.push(instruction(0xb7, 0, 0, 0, 0));
    code.push(instruction(0x95, 0, 0, 0, 0));
    code.push(instruction(0xb7, 0, 0, 0, 1));
    code.push(instruction(0x95, 0, 0, 0, 0));
    // Jumps count from the next instruction.
    for (index, it) in code.iter_mut().enumerate() {
        let target = match i16::from_le_bytes([it[2], it[3]]) {
            DENY => deny_at,
            ALLOW => deny_at + 2,
            _ => continue,
        };
        [it[2], it[3]] = (target - index as i16 - 1).to_le_bytes();
    }
    code.into_iter().map(u64::from_ne_bytes).collect()
}
