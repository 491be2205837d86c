//! `kiln run`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, anyhow};
use cache::{NamedImage, PlatformImage};
use executor::Session;
use image::document::ImageConfig;
use runtime::{Bind, Image, Port, RunRequest, RuntimeError, State, Tmpfs};
use sandbox::{Capabilities, Network, Seccomp};

use super::{
    Globals,
    images::{config_of, find, names_of, platform_of},
    transfer::{display, failed, name, pull, session},
};
use crate::{
    args::run::{PullPolicy, RunArgs},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    values::{
        BindMount, Mount, Pair, SecurityOption, TmpfsMount, pair, publish::exposed, signal::signal,
    },
};

/// The status where kiln failed, and not the process; docker's.
pub const OUR_FAULT: u8 = 125;

/// Tells a kiln that it is the one in the background.
const DETACHED: &str = "KILN_DETACHED";

/// Runs a container to its end.
///
/// # Errors
///
/// Fails where the image cannot be had, an option is wrong, or the process cannot be started. The status is then 125 to 127.
pub fn run(args: RunArgs, globals: &Globals) -> Result<Exit> {
    start(args, globals).map_err(ours)
}

fn ours(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Process(_) => failure,
        _ => failure.exit(Exit::Process(OUR_FAULT)),
    }
}

/// Has a container run in the background, if that is asked for and this is not the kiln that does it. To be called before this process
/// enters a namespace: the other one is to be what this one was.
///
/// # Errors
///
/// Fails where no other kiln can be started. What goes wrong there is said there, and only its status comes from here.
pub fn detach(args: &RunArgs) -> Result<Option<Exit>> {
    match args.detach && std::env::var_os(DETACHED).is_none() {
        true => start_other().map(Some).map_err(ours),
        false => Ok(None),
    }
}

/// Starts a kiln for the background, with the command line of this one, and waits until its container runs or has failed to. It
/// says the container's id, and what went wrong says it on our standard error.
fn start_other() -> Result<Exit> {
    let mut args = std::env::args_os();
    let mut kiln = Command::new("/proc/self/exe");
    kiln.arg0(args.next().unwrap_or_default()).args(args).env(DETACHED, "yes");
    let child = kiln.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.context("cannot start kiln for the background").or_failed()?;
    let mut id = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut id).context("cannot hear of the container").or_failed()?;
    }
    if id.is_empty() {
        let status = child.wait().context("cannot wait for kiln").or_failed()?;
        let code = status.code().and_then(|it| u8::try_from(it).ok());
        return Ok(Exit::Process(code.unwrap_or(OUR_FAULT)));
    }
    print::out(&id)?;
    Ok(Exit::Process(0))
}

/// Says the id of the container that runs now, and lets go of the streams: the kiln that waits for us goes on.
fn say_started(state: &State) -> std::io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // Until now Ctrl-C was for this kiln, too. That fails only for one that leads a session already.
    let _ = rustix::process::setsid();
    // Whoever does not listen any more has no need to hear of it.
    let _ = print::out(&format!("{}\n", state.id));
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn start(args: RunArgs, globals: &Globals) -> Result<Exit> {
    let mut request = request(&args)?;
    let listener = if args.quiet { display::quiet() } else { display::layers(display::PULL) };
    let session = session(globals, listener)?;
    // Until the container holds its layers itself.
    let lease = session.store.lease().or_failed()?;
    let image = obtain(&session, &args)?;
    let config = config_of(&session.store, &image)?;
    let store = session.store.clone();
    // Nothing of the pull is to be left in memory while the container runs.
    drop(session);
    if args.publish_all {
        publish_exposed(&mut request, &args, &config);
    }
    settle_network(&mut request, args.network.is_some());
    let of_image = config.config.stop_signal.as_str();
    if request.stop_signal.is_none() && !of_image.is_empty() && signal(of_image).is_err() {
        print::err(&format!(
            "warning: the STOPSIGNAL of the image, `{of_image}`, is no signal; `kiln stop` sends TERM\n"
        ));
    }
    request.command = args.command;
    let image =
        Image { name: &args.image, id: image.config, layers: &image.layers, config: &config };
    let mut note = |text: &str| print::err(&format!("warning: {text}\n"));
    let mut started = |state: &State| {
        if args.detach {
            // Without /dev/null it keeps the streams, and who started it waits.
            let _ = say_started(state);
        }
    };
    let exit =
        runtime::run(&store, image, &request, &mut note, &mut started).map_err(of_runtime)?;
    drop(lease);
    if exit.oom {
        print::err(
            "warning: a process of the container was killed because the memory limit was reached\n",
        );
    }
    if exit.too_many_processes {
        print::err(
            "warning: a process of the container could not be started because the limit of processes was reached\n",
        );
    }
    Ok(Exit::Process(u8::try_from(exit.shell_status()).unwrap_or(OUR_FAULT)))
}

/// Finds the image in the store, or else in its registry, as `--pull` says.
fn obtain(session: &Session, args: &RunArgs) -> Result<PlatformImage> {
    let platform = args.platform.as_deref();
    let wanted_platform = pull::platform(platform)?;
    let here = match args.pull {
        PullPolicy::Always => None,
        PullPolicy::Never => Some(find(&session.store, &args.image)?),
        PullPolicy::Missing => session.store.resolve(&args.image).or_failed()?,
    };
    if let Some(image) = here {
        match platform_of(&image, platform) {
            Ok(found) => return whole(session, &image, found),
            // Another platform of an image that is here may be had.
            Err(failure) if args.pull == PullPolicy::Never => return Err(failure),
            Err(_) => {}
        }
    }
    let wanted = match name(&args.image) {
        Ok(wanted) => wanted.with_default_tag(),
        // It may have been meant as an id.
        Err(failure) if !is_id(&args.image) => return Err(failure),
        Err(failure) => return Err(find(&session.store, &args.image).err().unwrap_or(failure)),
    };
    if args.pull == PullPolicy::Missing {
        let of_platform = platform.map(|it| format!(" for {it}")).unwrap_or_default();
        print::err(&format!("Unable to find image '{}'{of_platform} locally\n", wanted.familiar()));
    }
    let say = |text: &str| {
        if !args.quiet {
            print::err(text);
        }
        Ok(())
    };
    let pulled = pull::pull(session, &wanted, &wanted_platform, &say)?;
    say(&format!("{}\n", pulled.status))?;
    let names = [wanted.to_string()].into();
    platform_of(&NamedImage { names, record: pulled.record }, platform).cloned()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Of a base image only what a build needed may have come.
fn whole(session: &Session, image: &NamedImage, platform: &PlatformImage) -> Result<PlatformImage> {
    session.complete(names_of(image).first(), platform).map_err(failed)?;
    Ok(platform.clone())
}

fn request(args: &RunArgs) -> Result<RunRequest> {
    let mut request = RunRequest {
        name: args.name.clone(),
        remove: args.rm,
        detached: args.detach,
        interactive: args.interactive,
        tty: args.tty,
        entrypoint: args.entrypoint.clone().map(OsString::from),
        env: environment(args)?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        read_only: args.read_only,
        network: network(args.network.as_deref())?,
        add_hosts: args.add_hosts.iter().map(|it| (it.name.clone(), it.address.clone())).collect(),
        shm_size: args.shm_size,
        ulimits: args.ulimits.iter().map(|it| (it.name.clone(), it.soft, it.hard)).collect(),
        limits: args.limits.limits()?,
        capabilities: Capabilities::parse(&args.cap_add, &args.cap_drop).or_input()?,
        privileged: args.privileged,
        ports: args.publish.iter().flat_map(|it| it.0.iter().copied()).collect(),
        init: args.init,
        stop_signal: args.stop_signal.clone(),
        stop_timeout: args.stop_timeout,
        labels: args
            .labels
            .iter()
            .map(|it| (it.key.clone(), it.value.clone().unwrap_or_default()))
            .collect(),
        ..RunRequest::default()
    };
    for option in &args.security_opt {
        match option {
            SecurityOption::NoNewPrivileges(value) => request.no_new_privs = *value,
            SecurityOption::NoFilter => request.seccomp = Seccomp::Unconfined,
            SecurityOption::Nothing => {}
        }
    }
    args.volumes.iter().for_each(|it| add_bind(&mut request, it));
    args.tmpfs.iter().for_each(|it| add_tmpfs(&mut request, it));
    for mount in &args.mounts {
        match mount {
            Mount::Bind(bind) => add_bind(&mut request, bind),
            Mount::Tmpfs(tmpfs) => add_tmpfs(&mut request, tmpfs),
        }
    }
    Ok(request)
}

fn add_bind(request: &mut RunRequest, bind: &BindMount) {
    match &bind.source {
        Some(source) => request.binds.push(Bind {
            source: source.clone(),
            target: bind.target.clone(),
            read_only: bind.read_only,
            create: bind.create,
        }),
        None => request.volumes.push(bind.target.clone()),
    }
}

fn add_tmpfs(request: &mut RunRequest, tmpfs: &TmpfsMount) {
    let TmpfsMount { target, size, mode } = tmpfs.clone();
    request.tmpfs.push(Tmpfs { target, size, mode });
}

/// Adds the ports that the image exposes, and those of `--expose`, unless they are published already.
fn publish_exposed(request: &mut RunRequest, args: &RunArgs, config: &ImageConfig) {
    let mut known: BTreeSet<u16> = request.ports.iter().map(|it| it.container).collect();
    for text in config.config.exposed_ports.keys().chain(&args.expose) {
        match exposed(text) {
            Ok(ports) => {
                let new = ports.filter(|it| known.insert(*it));
                request.ports.extend(new.map(|container| Port {
                    address: None,
                    host: 0,
                    container,
                }));
            }
            Err(message) => print::err(&format!("warning: not published: {message}\n")),
        }
    }
}

/// Ports are those of an isolated network; in another there is nothing to publish.
fn settle_network(request: &mut RunRequest, is_chosen: bool) {
    match (request.ports.is_empty(), request.network) {
        (true, _) | (false, Network::Isolated) => {}
        (false, _) if !is_chosen => request.network = Network::Isolated,
        (false, network) => {
            let mode = if network == Network::Host { "host" } else { "none" };
            print::err(&format!(
                "warning: published ports are discarded with `--network {mode}`\n"
            ));
            request.ports.clear();
        }
    }
}

fn network(mode: Option<&str>) -> Result<Network> {
    match mode {
        None | Some("host" | "default") => Ok(Network::Host),
        Some("isolated" | "bridge") => Ok(Network::Isolated),
        Some("none") => Ok(Network::None),
        Some(mode) => Err(Failure::input(anyhow!("there is no network `{mode}`"))
            .hint("known are `host`, which is the default so far, `isolated` and `none`")),
    }
}

/// The variables of files, and those given above them. One without a value has that of our own environment, or goes.
fn environment(args: &RunArgs) -> Result<Vec<(OsString, Option<OsString>)>> {
    let mut pairs = Vec::new();
    for path in &args.env_files {
        pairs.extend(env_file(path)?);
    }
    pairs.extend(args.env.iter().cloned());
    let resolve = |it: Pair| {
        let value = it.value.map(OsString::from).or_else(|| std::env::var_os(&it.key));
        (OsString::from(it.key), value)
    };
    Ok(pairs.into_iter().map(resolve).collect())
}

fn env_file(path: &Path) -> Result<Vec<Pair>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .or_input()?;
    pair::lines(&text).map_err(|(line, message)| {
        Failure::input(anyhow!("`{}` line {line}: {message}", path.display()))
    })
}

fn of_runtime(error: RuntimeError) -> Failure {
    let status = error.exit_status();
    Failure::failed(error).exit(Exit::Process(status))
}
