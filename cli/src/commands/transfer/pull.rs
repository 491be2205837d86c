//! `kiln pull`.

use anyhow::anyhow;
use cache::ImageRecord;
use executor::Session;
use image::{ImageRef, Platform};

use super::{display, failed, name, session};
use crate::{
    args::registry::PullArgs,
    commands::{Globals, registry_failure, wait},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

/// Downloads an image. The registry is asked in any case.
///
/// # Errors
///
/// Fails where it cannot be had.
pub fn run(args: &PullArgs, globals: &Globals) -> Result<Exit> {
    let asked = name(&args.image)?;
    let platform = platform(args.platform.as_deref())?;
    let listener = if args.quiet { display::quiet() } else { display::layers(display::PULL) };
    let session = session(globals, listener)?;
    let _lease = session.store.lease().or_failed()?;
    let names = if args.all_tags {
        if asked.tag.is_some() || asked.digest.is_some() {
            return Err(Failure::input(anyhow!(
                "`{}` has a tag, and --all-tags takes none",
                args.image
            )));
        }
        let tags = wait(session.client.tags(&asked))?.map_err(registry_failure)?;
        tags.into_iter().map(|tag| ImageRef { tag: Some(tag), ..asked.clone() }).collect()
    } else {
        if asked.tag.is_none() && asked.digest.is_none() && !args.quiet {
            print::out("Using default tag: latest\n")?;
        }
        vec![asked.with_default_tag()]
    };
    for name in &names {
        let say = |text: &str| if args.quiet { Ok(()) } else { print::out(text) };
        let pulled = pull(&session, name, &platform, &say)?;
        say(&format!("{}\n", pulled.status))?;
        print::out(&format!("{name}\n"))?;
    }
    Ok(Exit::Done)
}

/// An image that came.
#[derive(Debug)]
pub struct Pulled {
    /// What it is.
    pub record: ImageRecord,
    /// Whether it is another than before, as docker says it.
    pub status: String,
}

/// Downloads one image, and says what docker says on the way.
///
/// # Errors
///
/// Fails where it cannot be had.
pub fn pull(
    session: &Session,
    name: &ImageRef,
    platform: &Platform,
    say: &dyn Fn(&str) -> Result<()>,
) -> Result<Pulled> {
    let repository = ImageRef { tag: None, digest: None, ..name.clone() };
    let path = repository.path.clone();
    let label = name.digest.map_or_else(|| name.tag_or_latest().to_owned(), |_| name.to_string());
    say(&format!("{label}: Pulling from {path}\n"))?;
    let before = session.store.resolve(&name.to_string()).or_failed()?;
    let record = session.pull_image(name, platform).map_err(failed)?;
    say(&format!("Digest: {}\n", record.target.digest))?;
    let is_same = before.is_some_and(|it| {
        it.record.target.digest == record.target.digest
            && it.record.platforms.len() == record.platforms.len()
    });
    let status = match is_same {
        true => format!("Status: Image is up to date for {}", name.familiar()),
        false => format!("Status: Downloaded newer image for {}", name.familiar()),
    };
    Ok(Pulled { record, status })
}

/// Reads a `--platform`; without one it is that of this machine.
///
/// # Errors
///
/// Fails where it is none.
pub fn platform(text: Option<&str>) -> Result<Platform> {
    let host = Platform::host();
    match text {
        Some(text) => Platform::parse(text, &host).or_input(),
        None => Ok(host),
    }
}
