//! `kiln tag` and `kiln rmi`.

use anyhow::{Context, anyhow};
use cache::{NamedImage, Store};
use image::ImageRef;

use super::{find, names_of};
use crate::{
    args::images::{RemoveArgs, TagArgs},
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

/// Gives an image another name.
///
/// # Errors
///
/// Fails where there is no such image, or the name cannot be one.
pub fn tag(args: &TagArgs, globals: &Globals) -> Result<Exit> {
    let name = ImageRef::parse(&args.target)
        .with_context(|| format!("`{}` cannot be a name", args.target))
        .or_input()?;
    if name.digest.is_some() {
        return Err(Failure::input(anyhow!("`{}` cannot be a name: it has a digest", args.target)));
    }
    let store = globals.store()?;
    let image = find(&store, &args.source)?;
    store.tag(&name.with_default_tag(), &image.record).or_failed()?;
    Ok(Exit::Done)
}

/// Removes names, and images that lost their last one.
///
/// # Errors
///
/// Fails where one of them is not there, has several names, or is used by a container; the others have been removed.
pub fn remove(args: &RemoveArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let mut failed = None;
    for text in &args.images {
        let removed =
            find(&store, text).and_then(|image| remove_one(&store, text, &image, args.force));
        match removed {
            Ok(lines) => print::out(&lines)?,
            // What is not there need not be removed.
            Err(_) if args.force && matches!(store.resolve(text), Ok(None)) => {}
            Err(failure) => {
                failure.show();
                failed = Some(failure.exit);
            }
        }
    }
    failed.map_or(Ok(Exit::Done), |exit| Err(Failure::shown(exit)))
}

fn remove_one(store: &Store, text: &str, image: &NamedImage, force: bool) -> Result<String> {
    let names = names_of(image);
    let asked = ImageRef::parse(text).ok().map(|it| it.with_default_tag());
    let gone: Vec<ImageRef> = match asked.filter(|it| names.contains(it)) {
        Some(name) => vec![name],
        None if names.len() > 1 && !force => {
            let has: Vec<String> = names.iter().map(ImageRef::familiar).collect();
            let failure =
                Failure::failed(anyhow!("image `{text}` has several names: {}", has.join(", ")));
            return Err(failure.hint("remove it by name, or all of them with --force"));
        }
        None => names.clone(),
    };
    if gone.len() == names.len() && !force {
        refuse_used(store, text, image)?;
    }
    let mut lines = String::new();
    for name in &gone {
        store.untag(name).or_failed()?;
        lines += &format!("Untagged: {}\n", name.familiar());
    }
    if gone.len() == names.len() {
        store.remove_image(&image.record.target.digest).or_failed()?;
        lines += &format!("Deleted: {}\n", image.record.id());
    }
    Ok(lines)
}

/// Refuses to remove an image that a container is made of.
fn refuse_used(store: &Store, text: &str, image: &NamedImage) -> Result<()> {
    let containers = runtime::containers(store).or_failed()?;
    let used = containers
        .iter()
        .find(|(state, _)| image.record.platforms.iter().any(|it| it.config == state.image_id));
    let Some((state, is_running)) = used else { return Ok(()) };
    let container = state.name.as_deref().unwrap_or(state.id.short());
    let (what, hint) = match is_running {
        true => ("runs", "end it with `kiln stop`, or use --force"),
        false => ("has ended", "remove it with `kiln rm`, or use --force"),
    };
    let message =
        anyhow!("conflict: image `{text}` is used by container `{container}`, which {what}");
    Err(Failure::failed(message).hint(hint))
}
