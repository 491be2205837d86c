//! An image and a request become a process.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cache::{Store, StoreError};
use image::{DiffId, ImageId, document::ImageConfig, layer::LayerIndex, view::View};
use sandbox::{Exit, Root, Spec};

use crate::{
    attach::Attachment,
    command,
    container::{self, Container, Draft, State},
    error::RuntimeError,
    files, mounts, ports,
    request::RunRequest,
};

/// The image to run, all of whose layers are in the store.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// What to call it.
    pub name: &'a str,
    /// The digest of its config.
    pub id: ImageId,
    /// Its layers from the bottom up.
    pub layers: &'a [DiffId],
    /// Its config.
    pub config: &'a ImageConfig,
}

/// Runs a container to its end, with the streams, the terminal and the signals of this process.
///
/// `note` hears one sentence of each thing that was asked for and cannot be had, and `started` that the command runs.
///
/// # Errors
///
/// - [`RuntimeError::NoCommand`] and its neighbours for a request that cannot be,
/// - [`RuntimeError::Store`] if a layer is missing or malformed,
/// - [`RuntimeError::Sandbox`] if the process cannot be started,
/// - [`RuntimeError::Io`] for the files of the container.
///
/// Nothing of the container is left then.
pub fn run(
    store: &Store,
    image: Image<'_>,
    request: &RunRequest,
    note: &mut dyn FnMut(&str),
    started: &mut dyn FnMut(&State),
) -> Result<Exit, RuntimeError> {
    // What is certain to fail does so before anything is unpacked.
    sandbox::require_mounts()?;
    command::merge(&image.config.config, request, "")?;
    let attachment = Attachment::new(request)?;
    let ports = ports::take(&request.ports)?;
    container::reap(store)?;

    // While this lives, nobody collects the layers that the container stands on.
    let _lease = store.lease()?;
    let view = view(store, image.layers)?;
    let lower = store.stack(&view)?;
    let draft = Draft {
        name: request.name.as_deref(),
        image: image.name,
        image_id: image.id,
        labels: &request.labels,
        ports: ports.iter().filter_map(|it| it.shown().ok()).collect(),
        stop_signal: stop_signal(&image, request),
        stop_timeout: request.stop_timeout,
        remove: request.remove,
    };
    let mut container = Container::create(store, &draft)?;
    let hostname =
        request.hostname.clone().unwrap_or_else(|| container.state().id.short().to_owned());
    let command = command::merge(&image.config.config, request, &hostname)?;
    files::write(container.folder(), request, &hostname)?;

    let root = root(&container, lower.clone(), &view)?;
    let volumes = image.config.config.volumes.keys().map(Path::new);
    let mut spec = Spec::new(root, &command.args);
    spec.mounts = mounts::all(&container, request, volumes, &lower, &view)?;
    spec.link_owners = cache::owners::link_owners(&view);
    drop(view);
    spec.read_only = request.read_only;
    spec.env = command.env;
    spec.cwd = PathBuf::from(command.workdir);
    spec.create_cwd = true;
    spec.user = command.user;
    spec.hostname = hostname;
    spec.network = request.network;
    spec.shm_size = request.shm_size;
    spec.ulimits = request.ulimits.clone();
    spec.cgroup = request.limits.clone();
    spec.capabilities = request.capabilities.clone();
    spec.seccomp = request.seccomp;
    spec.init = request.init;
    spec.no_new_privs = request.no_new_privs;
    spec.privileged = request.privileged;
    spec.stdio = attachment.stdio();

    let log = if request.detached { Some(container.make_log()?) } else { None };
    let shown = command.args.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    container.started(shown)?;
    let child = sandbox::spawn(&spec)?;
    for it in ports {
        child.publish(it.listener, it.container)?;
    }
    for text in child.notes() {
        note(&text);
    }
    started(container.state());
    let exit = attachment.run(&child, container.folder(), log.as_ref())?;
    drop(child);
    sandbox::release();
    container.ended(exit.shell_status())?;
    Ok(exit)
}

/// What asks the command to end, by request or by the image.
fn stop_signal(image: &Image<'_>, request: &RunRequest) -> Option<String> {
    let of_image = Some(&image.config.config.stop_signal).filter(|it| !it.is_empty());
    request.stop_signal.as_ref().or(of_image).cloned()
}

fn view(store: &Store, layers: &[DiffId]) -> Result<View, StoreError> {
    let indexes: Vec<Arc<LayerIndex>> =
        layers.iter().map(|it| store.index(it)).collect::<Result<_, _>>()?;
    Ok(View::new(indexes))
}

/// An overlay whose upper folder looks like the root of the image: that is the one a process sees.
fn root(container: &Container, lower: Vec<PathBuf>, view: &View) -> Result<Root, RuntimeError> {
    let (upper, work) = (container.make("upper")?, container.make("work")?);
    if let Some(node) = view.lookup(b"") {
        let entry = node.entry;
        cache::owners::give(&upper, entry.uid, entry.gid)
            .map_err(RuntimeError::io("set the owner of", &upper))?;
        let mode = std::fs::Permissions::from_mode(entry.mode & 0o7777);
        std::fs::set_permissions(&upper, mode)
            .map_err(RuntimeError::io("set the mode of", &upper))?;
    }
    Ok(Root::Overlay { lower, upper, work })
}
