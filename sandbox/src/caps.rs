//! Capabilities by name and number.

use crate::error::SandboxError;
use crate::spec::Capabilities;

/// Names of the capabilities; the position is the number.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The set that Docker, containerd and BuildKit grant.
pub(crate) const DEFAULT: u64 = 0xa804_25fb;

/// The set of all capabilities that have a name here.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability, by its name in small letters without `cap_`.
pub(crate) fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|it| *it == name).map(|number| 1 << number)
}

impl Capabilities {
    /// Reads the names that `--cap-add` and `--cap-drop` take, applied to the default set.
    ///
    /// `ALL` is every capability; a name may have the prefix `CAP_`, in any case. Dropping all comes
    /// first, as in Docker: `--cap-drop=ALL --cap-add=CHOWN` leaves one.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Invalid`] for a name the kernel does not have.
    pub fn parse(add: &[String], drop: &[String]) -> Result<Self, SandboxError> {
        let mut set = DEFAULT;
        if drop.iter().any(|it| it.eq_ignore_ascii_case("all")) {
            set = 0;
        }
        if add.iter().any(|it| it.eq_ignore_ascii_case("all")) {
            set = ALL;
        }
        let named = |it: &&String| !it.eq_ignore_ascii_case("all");
        for name in drop.iter().filter(named) {
            set &= !lookup(name)?;
        }
        for name in add.iter().filter(named) {
            set |= lookup(name)?;
        }
        Ok(match set {
            DEFAULT => Self::Default,
            ALL => Self::All,
            set => Self::List(names(set)),
        })
    }

    /// The set as bits.
    pub(crate) fn bits(&self) -> Result<u64, SandboxError> {
        match self {
            Self::Default => Ok(DEFAULT),
            Self::All => Ok(ALL),
            Self::List(names) => names.iter().try_fold(0, |set, name| Ok(set | lookup(name)?)),
        }
    }
}

fn names(set: u64) -> Vec<String> {
    let has = |number: &usize| set & (1 << number) != 0;
    (0..NAMES.len()).filter(has).map(|number| NAMES[number].to_owned()).collect()
}

fn lookup(name: &str) -> Result<u64, SandboxError> {
    let lower = name.to_ascii_lowercase();
    bit(lower.strip_prefix("cap_").unwrap_or(&lower)).ok_or_else(|| SandboxError::Invalid {
        what: "capability",
        value: name.to_owned(),
        reason: "the kernel has no such capability",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dockers() {
        let fourteen = [
            "chown",
            "dac_override",
            "fsetid",
            "fowner",
            "mknod",
            "net_raw",
            "setgid",
            "setuid",
            "setfcap",
            "setpcap",
            "net_bind_service",
            "sys_chroot",
            "kill",
            "audit_write",
        ];
        let list = Capabilities::List(fourteen.map(str::to_owned).to_vec());
        assert_eq!(list.bits().unwrap(), DEFAULT);
    }

    #[test]
    fn adding_and_dropping() {
        let parse = |add: &[&str], drop: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            Capabilities::parse(&own(add), &own(drop)).and_then(|it| it.bits())
        };
        assert_eq!(parse(&[], &[]).unwrap(), DEFAULT);
        assert_eq!(parse(&["CAP_SYS_ADMIN"], &[]).unwrap(), DEFAULT | 1 << 21);
        assert_eq!(parse(&["chown"], &["ALL"]).unwrap(), 1);
        assert_eq!(parse(&["all"], &["cap_chown"]).unwrap(), ALL & !1);
        assert_eq!(parse(&[], &["nosuch"]).unwrap_err().code(), "invalid-sandbox");
    }
}
