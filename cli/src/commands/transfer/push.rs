//! `kiln push`.

use anyhow::anyhow;
use image::{ImageRef, compress::Compression};

use super::{display, export, failed, name, session};
use crate::{
    args::registry::PushArgs,
    commands::{
        Globals,
        images::{find, names_of},
    },
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

/// Uploads an image.
///
/// # Errors
///
/// Fails where there is no such image, or the registry does not take it.
pub fn run(args: &PushArgs, globals: &Globals) -> Result<Exit> {
    let listener = if args.quiet { display::quiet() } else { display::layers(display::PUSH) };
    let session = session(globals, listener)?;
    let _lease = session.store.lease().or_failed()?;
    let destination = args.destination.as_deref().map(name).transpose()?;
    let pairs: Vec<(String, ImageRef)> = if args.all_tags {
        all_tags(&session, &args.image)?
    } else {
        let to = match destination {
            Some(to) => to,
            None => name(&args.image).map_err(|it| {
                it.hint("an image without a name needs one to be pushed under: kiln push ID NAME")
            })?,
        };
        vec![(args.image.clone(), to.with_default_tag())]
    };
    for (nth, (from, to)) in pairs.iter().enumerate() {
        let image = find(&session.store, from)?;
        if nth == 0 && !args.quiet {
            print::out(&format!("The push refers to repository [{}]\n", to.repository()))?;
        }
        let export =
            export::export(&session, &image, args.platform.as_deref(), Some(Compression::GZIP))?;
        session.push(&export, std::slice::from_ref(to)).map_err(failed)?;
        let root = export.root_descriptor().or_failed()?;
        print::out(&match args.quiet {
            true => format!("{}\n", root.digest),
            false => {
                format!("{}: digest: {} size: {}\n", to.tag_or_latest(), root.digest, root.size)
            }
        })?;
    }
    Ok(Exit::Done)
}

/// All names that the store has of a repository.
fn all_tags(session: &executor::Session, text: &str) -> Result<Vec<(String, ImageRef)>> {
    let asked = name(text)?;
    if asked.tag.is_some() || asked.digest.is_some() {
        return Err(Failure::input(anyhow!("`{text}` has a tag, and --all-tags takes none")));
    }
    let images = session.store.images().or_failed()?;
    let names = images.iter().flat_map(names_of);
    let of_repository = |it: &ImageRef| it.repository() == asked.repository() && it.tag.is_some();
    let mut found: Vec<_> = names.filter(of_repository).map(|it| (it.to_string(), it)).collect();
    found.sort();
    if found.is_empty() {
        return Err(Failure::failed(anyhow!("there is no image of `{text}` in the store"))
            .hint("`kiln images` lists what is there"));
    }
    Ok(found)
}
