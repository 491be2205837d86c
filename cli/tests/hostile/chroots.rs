//! RUN where nothing can be mounted: what a command finds that wants out of its chroot.
//!
//! Root of this machine may do more than a container's, so there is more to be found here than there. `scripts/container` tries
//! the rest, which takes a language to write in.

use std::fs;

use crate::{
    images::{Layer, image},
    lab::{Lab, Ran, SECRET, snapshot},
    tars::Tar,
};

/// Runs shell lines in a chroot; what they say after `FACT`.
fn facts(lab: &Lab, image: &str, script: &str) -> (Vec<String>, Ran) {
    let _ = fs::create_dir(lab.path("context"));
    let text = format!(
        "FROM {image}\nCOPY --from=box /bin/busybox /busybox\nRUN [\"/busybox\", \"sh\", \"/script\"]\n"
    );
    let text = text.replace("RUN", "COPY script /script\nRUN");
    fs::write(lab.path("context/Dockerfile"), text).expect("written");
    fs::write(lab.path("context/script"), script).expect("written");
    let args = ["build", "--isolation", "chroot", "--no-cache", "--progress", "plain", "context"];
    let mut command = lab.kiln(&args);
    command.env("SENTINEL", SECRET);
    let ran = lab.finish(command, b"");
    let said = ran.err.lines().filter_map(|it| it.split_once(" FACT "));
    (said.map(|(_, it)| it.to_owned()).collect(), ran)
}

#[test]
fn privileged_a_handle_on_proc_leads_nowhere() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let script = "PATH=/bin
say() { echo FA''CT \"$@\"; }
exec 3</proc 4</proc/self 5</proc/self/fd 6</proc/sys
say of others: $(cat /proc/self/fd/3/1/stat /proc/self/fd/3/1/cmdline /proc/self/fd/4/../1/stat 2>/dev/null | wc -c)
say of kiln: $(cat $(seq $$ -1 $(($$ > 3000 ? $$ - 3000 : 2)) | sed 's#.*#/proc/self/fd/3/&/environ#') 2>/dev/null | grep -c the-canary)
say names of others: $(ls /proc/self/fd/3/ /proc 2>/dev/null | grep -cx 1)
for p in sys/kernel/core_pattern sys/kernel/modprobe sysrq-trigger sys/fs/binfmt_misc/register cpuinfo; do
  (: 3<>/proc/$p) 2>/dev/null && say written to: $p
  (exec 7</proc/$p && : 8<>/proc/self/fd/7) 2>/dev/null && say written to again: $p
done
sleep 7 & child=$!
say fds: $(ls /proc/self/fd | head -n 3 | tr '\\n' ' ') child: $(ls /proc | grep -cx $child) own: $(ls -d /proc/$$ | wc -l) exe: $(readlink /proc/$child/exe)
say links: $(ls -l /proc/self/fd | grep -c -e '-> /dev/null') task: $(ls /proc/self/task | wc -l) sys: $(ls /proc/sys | grep -cx kernel)
cd /tmp && say cwd: $(cat /proc/self/cwd/../script 2>/dev/null | wc -c) $(ls /proc/self/cwd/ | wc -l)
kill $child
";
    let (facts, ran) = facts(&lab, "box", script);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let expected = [
        "of others: 0",
        "of kiln: 0",
        "names of others: 0",
        "fds: 0 1 2 child: 1 own: 1 exe: /busybox",
        "links: 1 task: 1 sys: 1",
        "cwd: 0 0",
    ];
    assert_eq!(facts, expected, "{}", ran.err);
    lab.check("proc", &before);
}

/// The tree is real, so its device nodes are: which of them work is not for the image to say.
#[test]
fn privileged_devices_of_an_image_do_not_work() {
    let lab = Lab::with_box();
    // In octal: the kernel's log.
    let tar = Tar::new().device('c', "log", "1", "13").device('c', "null", "1", "3");
    let archive = image(&[Layer::plain(tar.end())], |_, _| ()).archive();
    fs::write(lab.path("hostile.tar"), archive).expect("written");
    let loaded = lab.run(&["load", "-i", "hostile.tar"]);
    assert_eq!(loaded.status, Some(0), "{}", loaded.err);
    let script = "b=/busybox
for i in log null; do ($b true 3>>/$i) 2>/dev/null && $b echo FA''CT $i works; done
$b true
";
    let (facts, ran) = facts(&lab, "hostile", script);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert_eq!(facts, ["null works"], "{}", ran.err);
}
