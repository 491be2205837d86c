//! Measures what a sandbox costs: the time from a description to the end of a command that does
//! nothing, with the mount of an overlay and the clean-up.
//!
//! Run as root: `cargo run --release -p sandbox --example overhead [count [root]]`. The root is a
//! directory with `/bin/true`; without it, one is made from a static `/bin/busybox`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{Network, Root, Seccomp, Spec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(300), |it| it.parse())?;
    let dir = tempfile::tempdir()?;
    let root = match args.next() {
        Some(root) => PathBuf::from(root),
        None => busybox_root(dir.path())?,
    };
    let spec = |network, seccomp, number: usize| -> std::io::Result<Spec> {
        let step = dir.path().join(format!("step-{number}"));
        let (upper, work) = (step.join("upper"), step.join("work"));
        std::fs::create_dir_all(&upper)?;
        std::fs::create_dir_all(&work)?;
        let root = Root::Overlay { lower: vec![root.clone()], upper, work };
        let mut spec = Spec::new(root, ["/bin/true"]);
        spec.hosts = Some(b"127.0.0.1 localhost\n".to_vec());
        spec.resolv_conf = Some(b"nameserver 127.0.0.1\n".to_vec());
        spec.network = network;
        spec.seccomp = seccomp;
        Ok(spec)
    };

    let mut plain = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        std::process::Command::new("/bin/true").status()?;
        plain.push(start.elapsed());
    }
    report("fork and exec, no sandbox", &mut plain);
    for (name, network, seccomp) in [
        ("sandbox, host network", Network::Host, Seccomp::Default),
        ("sandbox, host network, no filter", Network::Host, Seccomp::Unconfined),
        ("sandbox, isolated network", Network::Isolated, Seccomp::Default),
        ("sandbox, no network", Network::None, Seccomp::Default),
    ] {
        let (mut starts, mut totals) = (Vec::new(), Vec::new());
        for number in 0..count {
            let spec = spec(network, seccomp, number)?;
            let start = Instant::now();
            let child = sandbox::spawn(&spec)?;
            starts.push(start.elapsed());
            let exit = child.wait()?;
            totals.push(start.elapsed());
            assert!(exit.is_success(), "{exit:?}");
            std::fs::remove_dir_all(dir.path().join(format!("step-{number}")))?;
        }
        report(&format!("{name}, until started"), &mut starts);
        report(&format!("{name}, until gone"), &mut totals);
    }
    Ok(())
}

fn busybox_root(dir: &Path) -> std::io::Result<PathBuf> {
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/true"))?;
    Ok(root)
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{name:45} median {:6.2} ms   90% {:6.2} ms   min {:6.2} ms",
        at(0.5),
        at(0.9),
        at(0.0)
    );
}
