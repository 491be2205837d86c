//! `kiln save`.

use std::io::{self, IsTerminal};

use anyhow::anyhow;
use image::ImageRef;
use registry::{Named, archive};

use super::{display, export, session};
use crate::{
    args::images::{ArchiveFormat, SaveArgs},
    commands::{
        Globals,
        build::outputs::to_file,
        images::{find, names_of},
    },
    exit::Exit,
    failure::{Failure, OrFail, Result},
    values::Dest,
};

/// Writes images to an archive.
///
/// # Errors
///
/// Fails where one of them is not there, or the archive cannot be written.
pub fn run(args: &SaveArgs, globals: &Globals) -> Result<Exit> {
    if args.output.is_none() && io::stdout().is_terminal() {
        let message =
            anyhow!("standard output is a terminal, and an archive is not to be read there");
        return Err(Failure::input(message).hint("name a file with --output, or redirect"));
    }
    let session = session(globals, display::quiet())?;
    let _lease = session.store.lease().or_failed()?;
    let mut images: Vec<Named> = Vec::new();
    for text in &args.images {
        let image = find(&session.store, text)?;
        // Layers stay as they are, and uncompressed where they never were anything else.
        let export = export::export(&session, &image, args.platform.as_deref(), None)?;
        let asked = ImageRef::parse(text).ok().map(|it| it.with_default_tag());
        // An image that is asked for by its id has no name in the archive, as in docker.
        let names = asked.filter(|it| names_of(&image).contains(it));
        let is_same = |it: &&mut Named| it.export == export;
        match images.iter_mut().find(is_same) {
            Some(known) => known.names.extend(names.filter(|it| !known.names.contains(it))),
            None => images.push(Named { names: names.into_iter().collect(), export }),
        }
    }
    let format = match args.format {
        ArchiveFormat::Docker => archive::Format::Docker,
        ArchiveFormat::Oci => archive::Format::Oci,
    };
    let dest = args.output.clone().map(Dest::Path);
    to_file(dest.as_ref(), |out| {
        let out = archive::write_archive(out, format, &images, &session)?;
        out.flush()
            .map_err(|source| executor::ExecutorError::Write { path: "archive".into(), source })
    })?;
    Ok(Exit::Done)
}
