//! Containers as a user sees them: `kiln run` from the command line to what is left behind. Needs root.
//!
//! Run with `cargo test -p cli --features privileged --test privileged`. The image is one static busybox, built by kiln.

mod fixture;

use std::{fs, io::Read, process::Stdio};

use fixture::{Fixture, eventually, processes};
use rustix::process::Signal;

#[test]
fn privileged_statuses_are_those_of_the_process() {
    let it = Fixture::new();
    for (args, status, says) in [
        (&["box"][..], 0, "the command\n"),
        (&["box", "sh", "-c", "exit 7"], 7, ""),
        (&["--init", "box", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["box", "sh", "-c", "kill -9 $$; echo \"$$ lives\""], 0, "1 lives\n"),
        (&["box", "nosuch"], 127, ""),
        (&["box", "/etc/passwd"], 126, ""),
        (&["-u", "nobody", "box"], 125, ""),
        (&["-v", "./x:/proc", "box"], 125, ""),
        (&["--mount", "type=bind,source=./missing,target=/x", "box"], 125, ""),
        (&["-w", "relative", "box"], 125, ""),
        (&["--entrypoint", "", "box"], 125, ""),
        (&["--network", "frob", "box"], 125, ""),
        (&["--restart", "always", "box"], 125, ""),
        (&["--pull", "never", "nosuch"], 125, ""),
        (&["--entrypoint", "echo", "box", "a", "b"], 0, "a b\n"),
    ] {
        // Without --rm, too, nothing is left of what never ran.
        let rm: &[&str] = if status < 125 { &["--rm"] } else { &[] };
        let ran = it.run(&[&["run"], rm, args].concat());
        assert_eq!((ran.out.as_str(), ran.status), (says, Some(status)), "{args:?}: {}", ran.err);
        let is_ours = (125..128).contains(&status);
        assert_eq!(ran.err.starts_with("error: "), is_ours, "{args:?}: {}", ran.err);
        it.run(&["system", "prune", "-f"]);
    }
    it.assert_clean();
}

#[test]
fn privileged_streams() {
    let it = Fixture::new();
    let ran = it
        .run_with(&["run", "--rm", "box", "sh", "-c", "cat; echo o; echo e >&2; test -t 1"], b"in");
    assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.status), ("o\n", "e\n", Some(1)));
    let ran = it.run_with(&["run", "--rm", "-i", "box", "cat"], b"in");
    assert_eq!((ran.out.as_str(), ran.status), ("in", Some(0)));
    let much = vec![b'x'; 3 << 20];
    let ran = it.run_with(&["run", "--rm", "-i", "box", "cat"], &much);
    assert_eq!((ran.out.len(), ran.status), (much.len(), Some(0)));
    // More than it reads, and nobody who reads what it writes.
    let ran = it.run_with(&["run", "--rm", "-i", "box", "head", "-c", "1"], &much);
    assert_eq!((ran.out.as_str(), ran.status), ("x", Some(0)));
    // Process 1 gets an error and no signal.
    for (options, status) in [(&["--init"][..], 141), (&[], 1)] {
        let mut child = it.kiln(&[&["run", "--rm"], options, &["box", "yes"]].concat());
        let mut child = child.stdout(Stdio::piped()).spawn().expect("kiln runs");
        child.stdout.take().expect("piped").read_exact(&mut [0; 2]).expect("it says something");
        assert_eq!(child.wait().expect("it ends").code(), Some(status));
    }
    it.assert_clean();
}

#[test]
fn privileged_signals_reach_the_process() {
    let it = Fixture::new();
    let script = "for s in HUP INT QUIT TERM USR1 USR2; do trap \"echo $s; exit 3\" $s; done";
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let running = it.start(&[], script);
        running.signal(signal);
        assert_eq!(running.end(), (format!("{name}\n"), Some(3)));
    }
    // Below an init it is not the first of its namespace, so what it does not handle ends it.
    let running = it.start(&["--init"], ":");
    running.signal(Signal::TERM);
    assert_eq!(running.end(), (String::new(), Some(143)));
    // As process 1 it hears of nothing; whoever insists is heard by kiln.
    let running = it.start(&[], ":");
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        running.signal(Signal::TERM);
    }
    assert_eq!(running.end(), (String::new(), Some(137)));
    it.assert_clean();
}

#[test]
fn privileged_orphans_are_reaped() {
    let it = Fixture::new();
    let script = "(sh -c 'sleep 0.1 & sleep 0.1 &') ; sleep 0.5; cat /proc/[0-9]*/stat | grep -c ' Z '; true";
    assert_eq!(it.sh(&["--init"], script), "0\n");
    // Those that still run end with the process.
    it.sh(&[], "sleep 7321 & true");
    assert_eq!(processes("sleep\x007321"), 0);
}

#[test]
fn privileged_mounts() {
    let it = Fixture::new();
    fs::write(it.path("file"), "of the host\n").expect("written");
    let options = ["-v", "./made/here:/m", "-v", "./file:/deep/file:ro"];
    let said = it.sh(
        &options,
        "echo x > /m/new; cat /deep/file; echo y 2>/dev/null > /deep/file || echo no",
    );
    assert_eq!(said, "of the host\nno\n");
    assert_eq!(fs::read_to_string(it.path("made/here/new")).expect("written"), "x\n");

    let options = ["--read-only", "--tmpfs", "/t:size=1m", "-v", "/v", "-v", "/data"];
    let script = "for f in /x /etc/hosts /t/x /v/x /data/x; do (echo x > $f) 2>/dev/null && echo $f; done; true";
    assert_eq!(it.sh(&options, script), "/t/x\n/v/x\n/data/x\n");
    // A volume starts with what the image has there, and its changes are its container's alone.
    let script = "cat /data/seed; stat -c '%a %u' /data; rm /data/seed; ls /data";
    assert_eq!(it.sh(&["-v", "/data"], script), "seed\n750 1000\n");
    assert_eq!(it.sh(&[], "ls /data"), "seed\n");

    let options = ["--hostname", "here", "--add-host", "db:10.0.0.1", "--network", "none"];
    let said = it.sh(&options, "hostname; cat /etc/hostname; tail -n 2 /etc/hosts; echo '1.1.1.1 x' >> /etc/hosts; ls /sys/class/net");
    assert_eq!(said, "here\nhere\n127.0.1.1\there\n10.0.0.1\tdb\nlo\n");
    it.assert_clean();
}

#[test]
fn privileged_who_runs_where_with_what() {
    let it = Fixture::new();
    let script = "id -u; id -g; pwd; echo $HOME $COLOUR $X; echo out > /dev/stdout";
    let said = it.sh(&["-u", "app", "-w", "/new/dir", "-e", "X=1"], script);
    assert_eq!(said, "1000\n1000\n/new/dir\n/home/app red 1\nout\n");
    assert_eq!(it.sh(&["-u", "7:8"], "id -u; id -g; pwd"), "7\n8\n/\n");
    fs::write(it.path("vars"), "# a comment\nA=1\nCOLOUR=blue\nHOME\n").expect("written");
    let home = it.path("").display().to_string().trim_end_matches('/').to_owned();
    let said =
        it.sh(&["--env-file", "vars", "-e", "A=2", "-e", "NOT_THERE"], "echo $A $COLOUR $HOME");
    assert_eq!(said, format!("2 blue {home}\n"));
    assert_eq!(it.sh(&["-e", "COLOUR"], "echo ${COLOUR-gone}"), "gone\n");
    assert_eq!(it.sh(&[], "test $HOSTNAME = $(hostname) && echo ${#HOSTNAME}"), "12\n");
}

#[test]
fn privileged_what_it_may_do() {
    let it = Fixture::new();
    let may = |options: &[&str], script: &str| {
        let script = format!("({script}) >/dev/null 2>&1 && echo yes || echo no");
        it.sh(options, &script) == "yes\n"
    };
    assert!(may(&[], "chown 5 /tmp"));
    assert!(!may(&["--cap-drop", "ALL"], "chown 5 /tmp"));
    assert!(may(&["--cap-drop", "ALL", "--cap-add", "chown"], "chown 5 /tmp"));
    assert!(!may(&[], "mount -t tmpfs x /tmp"));
    assert!(may(&["--privileged"], "mount -t tmpfs x /tmp"));
    assert!(may(
        &["--security-opt", "no-new-privileges"],
        "grep 'NoNewPrivs:.1' /proc/self/status"
    ));
    assert!(may(&["--security-opt", "seccomp=unconfined"], "grep 'Seccomp:.0' /proc/self/status"));
    assert!(may(&[], "grep 'Seccomp:.2' /proc/self/status"));
    assert_eq!(it.sh(&["--ulimit", "nofile=77:88"], "ulimit -n; ulimit -Hn"), "77\n88\n");
    assert_eq!(it.sh(&["--shm-size", "1m"], "df -k /dev/shm | awk 'END { print $2 }'"), "1024\n");
}

#[test]
fn privileged_names_are_taken_until_the_container_goes() {
    let it = Fixture::new();
    let run = |rest: &[&str]| it.run(&[&["run", "--name", "one"], rest].concat());
    let first = it.start(&["--init", "--name", "one"], ":");
    assert!(run(&["box"]).err.contains("the name `one` is in use by container"));
    first.signal(Signal::TERM);
    first.end();
    assert_eq!(run(&["box"]).status, Some(0));
    let again = run(&["box"]);
    assert_eq!(again.status, Some(125));
    assert!(again.err.contains("`kiln rm` removes a container that has ended"), "{}", again.err);
    assert_eq!(it.containers(), 1);
    let running = it.start(&["--init"], ":");
    let pruned = it.run(&["system", "prune", "-f"]);
    assert!(pruned.out.starts_with("Deleted Containers:\n"), "{}", pruned.out);
    assert_eq!(it.containers(), 1, "the one that runs stays");
    assert_eq!(run(&["--rm", "box"]).status, Some(0));
    running.signal(Signal::TERM);
    running.end();
    it.assert_clean();
}

#[test]
fn privileged_terminal() {
    let it = Fixture::new();
    let mut terminal = it.on_terminal(&["run", "--rm", "-it", "-e", "PS1=shell> ", "box", "sh"]);
    terminal.expect("shell> ");
    assert!(terminal.is_raw());
    terminal.send("stty size; tty; echo $TERM; sh -c 'echo sleeps; exec sleep 100'\r");
    terminal.expect("30 100\r\n/dev/pts/0\r\nxterm\r\nsleeps");
    terminal.send("\x03");
    terminal.expect("shell> ");
    terminal.resize(40, 120);
    terminal.send("sleep 0.2; stty size\r");
    terminal.expect("40 120");
    terminal.send("exit 9\r");
    assert_eq!(terminal.wait(), Some(9));
    assert!(!terminal.is_raw());

    // Whatever ends it, the terminal is given back.
    let mut terminal = it.on_terminal(&[
        "run",
        "--init",
        "--rm",
        "-it",
        "box",
        "sh",
        "-c",
        "echo ready; kill -9 $$",
    ]);
    assert_eq!(terminal.wait(), Some(137));
    assert!(!terminal.is_raw());

    // Without -i the terminal stays as it is, and Ctrl-C is a signal.
    let script = "trap 'echo got it; exit 4' INT; echo ready; while :; do sleep 0.02; done";
    for options in [&["run", "--rm", "-t", "box"][..], &["run", "--rm", "box"]] {
        let mut terminal = it.on_terminal(&[options, &["sh", "-c", script]].concat());
        terminal.expect("ready");
        assert!(!terminal.is_raw());
        terminal.send("\x03");
        terminal.expect("got it");
        assert_eq!(terminal.wait(), Some(4));
    }

    let mut terminal = it.on_terminal(&["run", "--rm", "-it", "box", "sh"]);
    terminal.expect("# ");
    terminal.hang_up();
    terminal.wait();
    it.assert_clean();
}

#[test]
fn privileged_a_killed_kiln_leaves_nothing_for_long() {
    let it = Fixture::new();
    let mut running = it.start(&["-v", "/data", "--read-only"], "sleep 7654 &");
    eventually("the other process", || processes("sleep\x007654") == 1);
    assert_eq!(it.containers(), 1);
    running.child.kill().expect("it runs");
    running.child.wait().expect("it ends");
    eventually("the end of the processes", || processes("sleep\x007654") == 0);
    assert_eq!(it.run(&["images", "-q"]).status, Some(0));
    it.assert_clean();

    // One that was to be kept is, and does not count as running.
    let script = "echo ready; sleep 7655";
    let mut child = it.kiln(&["run", "--name", "kept", "box", "sh", "-c", script]);
    let mut child = child.stdout(Stdio::null()).spawn().expect("kiln runs");
    eventually("the container", || it.containers() == 1 && processes("sleep\x007655") == 1);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    it.run(&["images"]);
    assert_eq!(it.containers(), 1);
    it.run(&["system", "prune", "-f"]);
    it.assert_clean();
}

#[test]
fn privileged_images_leave_and_come_back() {
    let it = Fixture::new();
    let saved = it.run(&["save", "-o", "box.tar", "box"]);
    assert_eq!((saved.out.as_str(), saved.err.as_str(), saved.status), ("", "", Some(0)));
    let id = it.run(&["images", "-q", "--no-trunc", "box"]).out;
    it.run(&["rmi", "box"]);
    it.run(&["system", "prune", "-a", "-f"]);
    assert_eq!(it.run(&["run", "--rm", "--pull", "never", "box"]).status, Some(125));
    assert_eq!(it.run(&["load", "-i", "box.tar"]).out, "Loaded image: box:latest\n");
    assert_eq!(it.run(&["images", "-q", "--no-trunc", "box"]).out, id);
    assert_eq!(it.sh(&[], "cat /data/seed"), "seed\n");
    let short = id.trim().trim_start_matches("sha256:").get(..6).expect("an id").to_owned();
    assert_eq!(it.run(&["run", "--rm", &short]).out, "the command\n");
    it.run(&["tag", "box", "other:1"]);
    let oci = it.run(&["save", "--format", "oci", "-o", "two.tar", "box", "other:1"]);
    assert_eq!((oci.err.as_str(), oci.status), ("", Some(0)));
    let loaded = it.run(&["load", "-i", "two.tar"]).out;
    assert_eq!(loaded, "Loaded image: box:latest\nLoaded image: other:1\n");
}

#[test]
fn privileged_in_the_background() {
    let it = Fixture::new();
    let script = "echo begun; echo warned >&2; trap 'echo ended; exit 3' TERM; for n in $(seq 3000); do sleep 0.02; done";
    let run = ["run", "-d", "--name", "back", "box", "sh", "-c", script];
    let ran = it.run(&run);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let id = ran.out.trim_end();
    assert!(id.len() == 64 && id.bytes().all(|it| it.is_ascii_hexdigit()), "{id}");
    assert_eq!(it.run(&["ps", "-q", "--no-trunc"]).out, ran.out);
    // Two streams come in any order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    eventually("the output", || sorted(&it.run(&["logs", "back"]).out) == "begun warned");
    let last = it.run(&["logs", "-n", "1", &id[..12]]).out;
    assert!(it.run(&["logs", "back"]).out.ends_with(&format!("\n{last}")), "{last}");
    // The end of a container ends what follows it.
    let mut follows =
        it.kiln(&["logs", "-f", "back"]).stdout(Stdio::piped()).spawn().expect("runs");
    assert_eq!(it.run(&["stop", "back"]).out, "back\n");
    let mut all = String::new();
    follows.stdout.take().expect("piped").read_to_string(&mut all).expect("text");
    assert!(follows.wait().expect("it ends").success());
    assert!(sorted(&all) == "begun ended warned" && all.ends_with("\nended\n"), "{all}");
    let shown = it.run(&["ps", "-a", "--format", "{{.Status}}"]).out;
    assert!(shown.starts_with("Exited (3)"), "{shown}");
    assert_eq!(it.run(&["rm", "back"]).status, Some(0));

    // What does not begin is said to who waits, with docker's status.
    for (args, status) in [
        (&["-d", "box", "nosuch"][..], 127),
        (&["-d", "-u", "nobody", "box"], 125),
        (&["-d", "--pull", "never", "nosuch"], 125),
    ] {
        let ran = it.run(&[&["run"], args].concat());
        assert_eq!((ran.out.as_str(), ran.status), ("", Some(status)), "{args:?}");
        assert!(ran.err.starts_with("error: "), "{args:?}: {}", ran.err);
    }
    // With --rm nothing is left when it has ended.
    let ran = it.run(&["run", "-d", "-t", "--rm", "box", "sleep", "0.1"]);
    assert_eq!((ran.out.len(), ran.status), (65, Some(0)), "{}", ran.err);
    eventually("its end", || it.run(&["ps", "-aq"]).out.is_empty());
    assert_eq!(it.run(&["logs", "back"]).status, Some(1));
    it.assert_clean();
}

#[test]
fn privileged_stopping() {
    let it = Fixture::new();
    let built =
        it.run_with(&["build", "-q", "-t", "gentle", "-"], b"FROM box\nSTOPSIGNAL SIGWINCH\n");
    assert_eq!(built.status, Some(0), "{}", built.err);
    let waits = |signal: &str| {
        format!("trap 'exit 5' {signal}; echo ready; for n in $(seq 3000); do sleep 0.02; done")
    };
    // What is sent, with what options to run and stop, how it ends.
    for (image, signal, run, stop, status) in [
        ("gentle", "WINCH", &[][..], &[][..], "5"),
        ("gentle", "USR1", &["--stop-signal", "usr1"], &[], "5"),
        ("box", "37", &["--stop-signal", "RTMIN+3"], &[], "5"),
        ("gentle", "INT", &[], &["-s", "SIGINT"], "5"),
        ("gentle", "INT", &["--stop-timeout", "1"], &[], "137"),
        ("gentle", "INT", &[], &["-t", "0"], "137"),
        ("box", "TERM", &[], &["-s", "9"], "137"),
    ] {
        let script = waits(signal);
        let command = ["-d", "--name", "one", image, "sh", "-c", &script];
        assert_eq!(it.run(&[&["run"], run, &command].concat()).status, Some(0), "{signal}");
        eventually("its trap", || it.run(&["logs", "one"]).out == "ready\n");
        assert_eq!(it.run(&[&["stop"], stop, &["one"]].concat()).out, "one\n");
        let shown = it.run(&["ps", "-a", "--format", "{{.Status}}"]).out;
        assert!(
            shown.starts_with(&format!("Exited ({status})")),
            "{signal} {run:?} {stop:?}: {shown}"
        );
        assert_eq!(it.run(&["rm", "one"]).status, Some(0));
    }
    // Other signals are passed on one after the other, and a store is not taken from below a container.
    let script = "trap 'echo w' WINCH; trap 'echo i' INT; trap 'exit 0' TERM; echo ready; for n in $(seq 3000); do sleep 0.02; done";
    it.run(&["run", "-d", "--name", "one", "box", "sh", "-c", script]);
    eventually("its traps", || it.run(&["logs", "one"]).out == "ready\n");
    // The third one of a kind that a terminal sends is no more than the first.
    let mut said = "ready\n".to_owned();
    for (signal, line) in [("WINCH", "w\n"), ("int", "i\n"), ("SIGINT", "i\n"), ("2", "i\n")] {
        assert_eq!(it.run(&["kill", "-s", signal, "one"]).out, "one\n");
        said.push_str(line);
        eventually(signal, || it.run(&["container", "logs", "one"]).out == said);
    }
    let refused = it.run(&["system", "reset", "--force"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.err.contains("containers run that use the store: one"), "{}", refused.err);
    assert!(it.run(&["inspect", "one"]).err.contains("`one` is a container"));
    assert_eq!(it.run(&["kill", "-s", "NOPE", "one"]).status, Some(2));
    let odd = it.run_with(&["build", "-q", "-t", "odd", "-"], b"FROM box\nSTOPSIGNAL 99\n");
    assert_eq!(odd.status, Some(0), "{}", odd.err);
    let odd = it.run(&["run", "--rm", "odd", "true"]);
    assert!(
        odd.status == Some(0) && odd.err.contains("STOPSIGNAL of the image, `99`"),
        "{}",
        odd.err
    );
    assert_eq!(it.run(&["rm", "-f", "one", "none"]).status, Some(0), "as in docker");
    assert_eq!(it.run(&["rm", "none"]).status, Some(1));
    it.assert_clean();
}

#[test]
fn privileged_published_ports() {
    let it = Fixture::new();
    // Each connection is answered with what it says, and hung up on at its end.
    let serves = "for p in 7000 7001; do nc -ll -p $p -e cat & done; sleep 0.2";
    let options = ["--name", "web", "-p", "127.0.0.1::7000", "-p", "7001", "-p", "7002/tcp"];
    let running = it.start(&options, serves);
    let shown = it.run(&["ps", "--format", "{{.Ports}}"]).out;
    let port = |container: u16| -> u16 {
        let end = shown.find(&format!("->{container}/tcp")).expect("it is listed");
        let (_, number) = shown[..end].rsplit_once(':').expect("an address");
        number.parse().expect("a port")
    };
    assert!(shown.starts_with("127.0.0.1:") && shown.contains(", 0.0.0.0:"), "{shown}");
    let much: Vec<u8> = (0..3_000_000_u32).map(|it| (it % 251) as u8).collect();
    for (port, sent) in [(port(7000), &b"hello"[..]), (port(7001), &much), (port(7001), b"")] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let mut into = stream.try_clone().expect("a handle");
        let sent_too = sent.to_vec();
        let writer = std::thread::spawn(move || {
            std::io::Write::write_all(&mut into, &sent_too).expect("it takes all");
            into.shutdown(std::net::Shutdown::Write).expect("open until now");
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        writer.join().expect("all was sent");
        assert!(answer == sent, "{} of {} bytes", answer.len(), sent.len());
    }
    // Nobody listens in the container: the connection is taken, and ends.
    let mut nobody = std::net::TcpStream::connect(("127.0.0.1", port(7002))).expect("taken");
    assert!(nobody.read_to_end(&mut Vec::new()).is_ok_and(|it| it == 0));

    let taken = format!("{}:80", port(7001));
    let ran = it.run(&["run", "--rm", "-p", &taken, "box"]);
    assert_eq!((ran.out.as_str(), ran.status), ("", Some(125)), "{}", ran.err);
    assert!(ran.err.contains("cannot publish at") && ran.err.contains("hint: "), "{}", ran.err);
    let ran = it.run(&["run", "--rm", "-p", &taken, "--network", "host", "box", "true"]);
    assert_eq!(ran.status, Some(0));
    assert!(ran.err.contains("published ports are discarded"), "{}", ran.err);
    for wrong in ["53:53/udp", "80:", "300000"] {
        assert_eq!(it.run(&["run", "-p", wrong, "box"]).status, Some(125), "{wrong}");
    }
    running.signal(Signal::KILL);
    drop(running);
    let is_free = || std::net::TcpStream::connect(("127.0.0.1", port(7001))).is_err();
    eventually("the end of the port", is_free);
    it.run(&["system", "prune", "-f"]);
    it.assert_clean();
}

#[test]
fn privileged_isolated_networks() {
    let it = Fixture::new();
    let hidden = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = hidden.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in hidden.incoming() {
            let _ = std::io::Write::write_all(&mut client.expect("a client"), b"reached\n");
        }
    });
    let asks =
        format!("nc 127.0.0.1 {port} </dev/null >/dev/null 2>&1 && echo reached || echo hidden");
    assert_eq!(it.sh(&[], &asks), "reached\n");
    assert_eq!(it.sh(&["--network", "isolated"], &asks), "hidden\n");
    let hosts = "grep -c 'host.test' /etc/hosts; ! grep -q '127.*host.test' /etc/hosts; ls /sys/class/net | grep -c eth0";
    let options = ["--network", "bridge", "--add-host", "host.test:host-gateway"];
    assert_eq!(it.sh(&options, hosts), "1\n1\n");

    // RUN is isolated unless something else is asked for.
    let text = format!("FROM box\nRUN ({asks}) >/said\n");
    fs::create_dir(it.path("net")).expect("made");
    fs::write(it.path("net/Dockerfile"), text).expect("written");
    let config = it.path("kiln.toml");
    let said = |network: &str, configured: &str| {
        fs::write(&config, format!("[build]\n{configured}")).expect("written");
        let args = ["build", "-q", "--no-cache", "--network", network, "-t", "net", "net"];
        let ran = it.kiln(&args).env("KILN_CONFIG", &config).output().expect("kiln runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let ran = it.run(&["run", "--rm", "net", "cat", "/said"]);
        assert_eq!((ran.err.as_str(), ran.status), ("", Some(0)));
        ran.out
    };
    assert_eq!(said("default", ""), "hidden\n");
    assert_eq!(said("isolated", ""), "hidden\n");
    assert_eq!(said("none", ""), "hidden\n");
    assert_eq!(said("host", ""), "reached\n");
    assert_eq!(said("default", "network = \"host\"\n"), "reached\n");
    assert_eq!(said("isolated", "network = \"host\"\n"), "hidden\n");
    it.run(&["rmi", "net"]);
    it.assert_clean();
}

#[test]
fn privileged_limits() {
    let it = Fixture::new();
    let ran = it.run(&["run", "--rm", "--memory", "1", "box"]);
    assert_eq!(ran.status, Some(125));
    assert!(ran.err.contains("at least 6m"), "{}", ran.err);
    let forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2 & done; wait";
    let ran = it.run(&["run", "--rm", "--pids-limit", "5", "box", "sh", "-c", forks]);
    assert!(ran.err.contains("the limit of processes was reached"), "{}", ran.err);
    assert_eq!(it.sh(&["--pids-limit", "-1", "--cpus", "0.5", "--memory", "64m"], forks), "");

    // The output of a RUN is clipped, and the end of it is in the error.
    fs::create_dir(it.path("much")).expect("made");
    let text = "FROM box\nRUN yes | head -c 5000000; echo the end; false\n";
    fs::write(it.path("much/Dockerfile"), text).expect("written");
    let ran = it.run(&["build", "--progress", "plain", "much"]);
    assert!(ran.err.contains("[output clipped, log limit of 2097152 bytes reached]"));
    assert!(ran.err.contains("the end") && ran.status == Some(1));
    it.assert_clean();
}
