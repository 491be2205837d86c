//! What the kernel runs programs of other machines with, to explain why one does not start.
//!
//! An emulator is registered with `binfmt_misc`. Without the flag `F` the kernel looks for it in the root of the process, where it is not:
//! the command is then not found though it is there.
//!
//! # Source
//!
//! The kernel's `Documentation/admin-guide/binfmt-misc.rst`.

use std::fs;
use std::path::Path;

/// Where the kernel shows what is registered.
const FOLDER: &str = "/proc/sys/fs/binfmt_misc";

/// One entry of `binfmt_misc`, as its file says.
#[derive(Debug, PartialEq, Eq)]
struct Handler {
    name: String,
    is_enabled: bool,
    interpreter: String,
    flags: String,
    offset: usize,
    magic: Vec<u8>,
    mask: Option<Vec<u8>>,
}

/// Says what to do so that a program for `architecture`, which begins with `header`, can be executed.
pub(crate) fn remedy(architecture: &str, header: &[u8]) -> String {
    remedy_with(&handlers(Path::new(FOLDER)), architecture, header)
}

fn remedy_with(handlers: &[Handler], architecture: &str, header: &[u8]) -> String {
    let mut matching = handlers.iter().filter(|it| it.matches(header));
    let Some(handler) = matching.clone().find(|it| it.is_enabled).or_else(|| matching.next())
    else {
        return format!(
            "build for this machine's platform, or install an emulator for {architecture} (Debian: `qemu-user-static` with `binfmt-support`)"
        );
    };
    let Handler { name, interpreter, .. } = handler;
    if !handler.is_enabled {
        return format!("the emulator is disabled: `echo 1 > {FOLDER}/{name}` enables it");
    }
    if !handler.flags.contains('F') {
        return format!(
            "the kernel looks for the emulator `{interpreter}` in the image: register `{name}` with the flag F of binfmt_misc, as Debian's `qemu-user-static` does"
        );
    }
    format!("the emulator `{interpreter}` does not run it")
}

/// Reads all entries; none where `binfmt_misc` is not mounted.
fn handlers(folder: &Path) -> Vec<Handler> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let handler = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        parse(name, &fs::read_to_string(entry.path()).ok()?)
    };
    entries.flatten().filter_map(handler).collect()
}

fn parse(name: String, text: &str) -> Option<Handler> {
    let field = |key: &str| text.lines().find_map(|it| it.strip_prefix(key)).map(str::trim);
    Some(Handler {
        name,
        is_enabled: text.lines().next()? == "enabled",
        interpreter: field("interpreter ")?.to_owned(),
        flags: field("flags:").unwrap_or_default().to_owned(),
        offset: field("offset ").and_then(|it| it.parse().ok()).unwrap_or(0),
        magic: bytes(field("magic ")?)?,
        mask: field("mask ").and_then(bytes),
    })
}

/// Hexadecimal digits as bytes.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let byte = |it: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

impl Handler {
    /// Says whether it is for files that begin like this. Where the beginning is too short to tell, it is not.
    fn matches(&self, header: &[u8]) -> bool {
        let Some(found) = header.get(self.offset..self.offset.saturating_add(self.magic.len()))
        else {
            return false;
        };
        found.iter().zip(&self.magic).enumerate().all(|(nth, (found, wanted))| {
            let mask = self.mask.as_ref().and_then(|it| it.get(nth)).copied().unwrap_or(0xff);
            (found ^ wanted) & mask == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &[u8; 20] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xb7\0";

    fn entry(first: &str, flags: &str) -> Handler {
        let text = format!(
            "{first}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
        );
        parse("qemu-aarch64".to_owned(), &text).expect("an entry")
    }

    #[test]
    fn what_to_do_depends_on_what_is_registered() {
        let remedy = |handlers: &[Handler]| remedy_with(handlers, "arm64", ARM64);
        assert!(remedy(&[]).contains("install an emulator for arm64"));
        assert!(remedy(&[entry("disabled", "F")]).contains("echo 1 > "));
        let loose = remedy(&[entry("disabled", "F"), entry("enabled", "OP")]);
        assert!(loose.contains("with the flag F"), "{loose}");
        assert!(remedy(&[entry("enabled", "POF")]).contains("does not run it"));
        assert!(
            !entry("enabled", "F").matches(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0")
        );
        assert!(!entry("enabled", "F").matches(b"\x7fELF"));
        assert_eq!(parse("status".to_owned(), "enabled\n"), None);
    }
}
