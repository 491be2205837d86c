//! Which machine a program was made for, to explain why it does not start.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::inside;

/// The architecture of this machine, as Docker writes it.
pub(crate) fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The architecture in the ELF header of a program in `root`, if it is one and not ours, and the beginning of that header.
pub(crate) fn foreign(root: BorrowedFd<'_>, cwd: &Path, path: &CStr) -> Option<(String, [u8; 20])> {
    let path = cwd.join(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let path = inside::join(&inside::components(&path)).ok()?;
    let place = inside::open(root, path.as_c_str()).ok()?;
    if !inside::file_type(std::os::fd::AsFd::as_fd(&place)).ok()?.is_file() {
        return None;
    }
    let file = inside::open_with(root, path.as_c_str(), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let mut header = [0; 20];
    std::fs::File::from(file).read_exact(&mut header).ok()?;
    machine(&header).filter(|found| found != host()).map(|it| (it, header))
}

fn machine(header: &[u8; 20]) -> Option<String> {
    if header[..4] != *b"\x7fELF" {
        return None;
    }
    let is_little_endian = header[5] == 1;
    let number = [header[18], header[19]];
    let number =
        if is_little_endian { u16::from_le_bytes(number) } else { u16::from_be_bytes(number) };
    Some(match number {
        3 => "386".to_owned(),
        8 => "mips".to_owned(),
        20 => "ppc".to_owned(),
        21 if is_little_endian => "ppc64le".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loong64".to_owned(),
        number => format!("machine number {number}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines() {
        let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0";
        assert_eq!(machine(&header).as_deref(), Some("arm64"));
        header[5] = 2;
        header[18..].copy_from_slice(&[0, 22]);
        assert_eq!(machine(&header).as_deref(), Some("s390x"));
        header[0] = b'#';
        assert_eq!(machine(&header), None);
    }
}
