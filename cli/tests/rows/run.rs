//! R: what can be said of RUN before it runs.

use planner::plan::{MountOp, Network, Sharing, Source};

use crate::ask::*;

/// The mounts of a RUN in `/w`.
fn mounts(flags: &str) -> Vec<MountOp> {
    let plan =
        plan(&format!("FROM busybox AS other\nFROM busybox\nENV V=v\nWORKDIR /w\nRUN {flags} x\n"));
    runs(&plan)[0].mounts.clone()
}

fn mount(options: &str) -> MountOp {
    mounts(&format!("--mount={options}")).remove(0)
}

fn wrong(options: &str) -> Vec<&'static str> {
    mistakes(&format!("FROM busybox\nRUN --mount={options} x\n"))
}

#[test]
fn r1_shell_and_exec_form() {
    let plan = plan_with(
        "FROM base\nWORKDIR /w\nUSER 1:2\nRUN  a  \"b\"   $C\nRUN [\"a\", \"$C\"]\n",
        |it| {
            let entrypoint = Some(strings(["/never"]));
            it.image("base", image::document::RunConfig { entrypoint, ..Default::default() });
        },
    );
    let runs = runs(&plan);
    assert_eq!(runs[0].args, ["/bin/sh", "-c", "a  \"b\"   $C"]);
    assert_eq!(runs[1].args, ["a", "$C"]);
    assert_eq!((&*runs[0].cwd, &*runs[0].user), ("/w", "1:2"));
}

#[test]
fn r4_bind_mounts() {
    let context = Source::Local("context".to_owned());
    for (options, expected) in [
        (
            "target=a",
            MountOp::Bind {
                source: context.clone(),
                path: "/".into(),
                target: "/w/a".into(),
                writable: false,
            },
        ),
        (
            "type=bind,dst=/a,src=../x/./$V,rw",
            MountOp::Bind {
                source: context.clone(),
                path: "/x/v".into(),
                target: "/a".into(),
                writable: true,
            },
        ),
        (
            "from=other,destination=/a,source=y,readwrite=false",
            MountOp::Bind {
                source: Source::Image(0),
                path: "/y".into(),
                target: "/a".into(),
                writable: false,
            },
        ),
    ] {
        assert_eq!(mount(options), expected, "{options}");
    }
    assert_eq!(mistakes("FROM busybox\nRUN --mount=target=/ x\n"), ["invalid-mount"]);
    assert_eq!(wrong("target=/a,from=$x"), ["mount-variable-in-from"]);
}

#[test]
fn r5_cache_mounts() {
    let MountOp::Cache { id, target, sharing, seed, read_only, mode, uid, gid } =
        mount("type=cache,target=c/../d")
    else {
        panic!()
    };
    // The id is the target before it is joined with the working directory.
    assert_eq!((&*id, &*target), ("/d", "/w/d"));
    assert_eq!((sharing, read_only, mode, uid, gid), (Sharing::Shared, false, 0o755, 0, 0));
    assert_eq!(seed, None);
    let MountOp::Cache { id, sharing, seed, read_only, mode, uid, gid, .. } = mount(
        "type=cache,id=$V,target=/c,sharing=locked,from=other,source=/s,mode=0700,uid=1,gid=2,ro",
    ) else {
        panic!()
    };
    assert_eq!(
        (&*id, sharing, read_only, mode, uid, gid),
        ("v", Sharing::Locked, true, 0o700, 1, 2)
    );
    assert_eq!(seed, Some((Source::Image(0), "/s".to_owned())));
    assert_eq!(wrong("type=cache,target=/c,sharing=mine"), ["mount-unknown-sharing"]);
}

#[test]
fn r7_tmpfs_mounts() {
    assert_eq!(
        mount("type=tmpfs,target=t,size=64m"),
        MountOp::Tmpfs { target: "/w/t".into(), size: Some(64 << 20) }
    );
    for options in ["uid=1", "gid=1", "mode=0700"] {
        assert_eq!(wrong(&format!("type=tmpfs,target=/t,{options}")), ["mount-wrong-option"]);
    }
    assert_eq!(wrong("type=tmpfs,target=/t,size=x"), ["mount-invalid-value"]);
}

#[test]
fn r8_secret_mounts() {
    let secret = |id: &str, target: Option<&str>, env: Option<&str>| MountOp::Secret {
        id: id.into(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    assert_eq!(mount("type=secret,id=a/b"), secret("a/b", Some("/run/secrets/b"), None));
    assert_eq!(mount("type=secret,target=/x/y"), secret("y", Some("/x/y"), None));
    assert_eq!(mount("type=secret,source=s,target=y"), secret("s", Some("/w/y"), None));
    assert_eq!(mount("type=secret,id=a,env=E"), secret("a", None, Some("E")));
    assert_eq!(mount("type=secret,id=a,env=E,target=/f"), secret("a", Some("/f"), Some("E")));
    assert!(matches!(
        mount("type=secret,id=a,required,mode=0440,uid=7"),
        MountOp::Secret { required: true, mode: 0o440, uid: 7, gid: 0, .. }
    ));
    assert_eq!(wrong("type=secret"), ["mount-unnamed-secret"]);
    assert_eq!(wrong("type=secret,id=a,source=b"), ["mount-source-and-id"]);
}

#[test]
fn r9_ssh_mounts() {
    let found = mounts(
        "--mount=type=ssh --mount=type=ssh,id=b,required,mode=0660,uid=1,gid=2 --mount=type=ssh,target=/s",
    );
    let ssh = |id: &str, target: &str| MountOp::Ssh {
        id: id.into(),
        target: target.into(),
        required: false,
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    assert_eq!(found[0], ssh("default", "/run/buildkit/ssh_agent.0"));
    assert!(
        matches!(&found[1], MountOp::Ssh { id, target, required: true, mode: 0o660, uid: 1, gid: 2 }
        if id == "b" && target == "/run/buildkit/ssh_agent.1")
    );
    assert_eq!(found[2], ssh("default", "/s"));
}

#[test]
fn r10_order_case_and_quotes_of_mount_options() {
    assert_eq!(wrong("required,type=secret,id=a"), ["mount-wrong-option"]);
    assert_eq!(wrong("size=1m,type=tmpfs,target=/t"), ["mount-wrong-option"]);
    assert!(matches!(mount("TYPE=tmpfs,TarGet=/t"), MountOp::Tmpfs { .. }));
    assert!(
        matches!(mount("type=bind,\\\"source=a,b\\\",target=/t"), MountOp::Bind { path, .. } if path == "/a,b")
    );
    assert!(matches!(mount("type=cache,target=/c,uid=${V#v}9"), MountOp::Cache { uid: 9, .. }));
    let found = diagnostics("FROM busybox\nRUN --mount=typ=cache,target=/c x\n");
    assert_eq!(found[0].code(), "mount-unknown-option");
    assert!(found[0].hint.as_deref().is_some_and(|it| it.contains("type")), "{found:?}");
    let found = diagnostics("FROM busybox\nRUN --mount=type=cach,target=/c x\n");
    assert!(found[0].hint.as_deref().is_some_and(|it| it.contains("cache")), "{found:?}");
}

#[test]
fn r11_networks() {
    let of = |flag: &str, all: Option<&str>| {
        let text = format!("FROM busybox\nRUN {flag} x\n");
        let plan = plan_with(&text, |it| {
            it.request.network = all.map(str::to_owned);
            it.request.entitlements = vec!["network.host".to_owned()];
        });
        runs(&plan)[0].network
    };
    assert_eq!(of("", None), Network::Default);
    assert_eq!(of("--network=none", None), Network::None);
    assert_eq!(of("--network=host", None), Network::Host);
    assert_eq!(of("", Some("none")), Network::None);
    assert_eq!(of("--network=default", Some("none")), Network::None);
    assert_eq!(of("--network=none", Some("host")), Network::None);
    assert_eq!(mistakes("FROM busybox\nRUN --network=host x\n"), ["not-allowed"]);
    assert_eq!(mistakes("FROM busybox\nRUN --network=bridge x\n"), ["invalid-network"]);
}

#[test]
fn r12_security() {
    assert_eq!(mistakes("FROM busybox\nRUN --security=insecure x\n"), ["not-allowed"]);
    assert_eq!(mistakes("FROM busybox\nRUN --security=most x\n"), ["invalid-security"]);
    let plan =
        plan_with("FROM busybox\nRUN --security=insecure x\nRUN --security=sandbox y\n", |it| {
            it.request.entitlements = vec!["security.insecure".to_owned()];
        });
    let runs = runs(&plan);
    assert!(runs[0].insecure && !runs[1].insecure);
}

#[test]
fn r13_devices_are_read_and_refused() {
    use parser::ast::Kind;
    let Kind::Run(run) = in_stage("RUN --device=vendor.com/class=name,required x") else {
        panic!()
    };
    assert_eq!(run.devices.len(), 1);
    assert_eq!(
        mistakes("FROM busybox\nRUN --device=vendor.com/gpu=all x\n"),
        ["device-unsupported"]
    );
    assert_eq!(mistakes("FROM busybox\nRUN --device=a=b=c,,x=y x\n"), ["invalid-device"]);
}
