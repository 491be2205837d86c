//! `kiln system prune`, `kiln image prune` and `kiln builder prune`.

use anyhow::anyhow;
use cache::{NamedImage, PruneOptions, Store};
use image::{Digest, document::ImageConfig};

use super::reset::confirmed;
use crate::{
    args::system::{PruneArgs, PruneWhat},
    commands::{
        Globals,
        images::{config_of, platform_of},
    },
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    values::{boolean, duration::duration, size::show},
};

/// Removes what nobody needs.
///
/// # Errors
///
/// Fails where a filter is not understood, nobody can be asked, or something cannot be removed.
pub fn run(args: &PruneArgs, globals: &Globals) -> Result<Exit> {
    let mut chosen = choose(args)?;
    if !args.force && !confirmed(&warning(args))? {
        return Ok(Exit::Failed);
    }
    let store = globals.store()?;
    chosen.options.keep_bytes = store
        .keep_bytes(args.max_used_space, args.min_free_space, args.reserved_space)
        .or_failed()?;
    if !chosen.labels.is_empty() {
        chosen.options.only_images = Some(labelled(&store, &chosen.labels)?);
    }
    let options = chosen.options;
    let options = match options.all_images {
        true => without_used(&store, options)?,
        false => options,
    };
    // First the containers: images stay while one of them runs.
    let removed = match args.what {
        PruneWhat::Everything => runtime::remove_ended(&store).or_failed()?,
        _ => runtime::Removed::default(),
    };
    let report = store.prune(&options).or_failed()?;
    let mut text = String::new();
    let mut list = |title: &str, names: Vec<String>| {
        if !names.is_empty() {
            text += &format!("{title}:\n{}\n\n", names.join("\n"));
        }
    };
    list("Deleted Containers", removed.ids.iter().map(ToString::to_string).collect());
    list("Deleted Images", report.images.clone());
    list("Deleted build cache objects", report.steps.iter().map(|it| it.hex()).collect());
    list("Deleted cache mounts", report.cache_mounts.clone());
    print::out(&format!(
        "{text}Total reclaimed space: {}\n",
        show(report.n_bytes + removed.n_bytes)
    ))?;
    Ok(Exit::Done)
}

/// What a command line asks for.
#[derive(Debug)]
struct Chosen {
    options: PruneOptions,
    labels: Vec<Label>,
}

/// A filter by label, and whether images are to have it.
#[derive(Debug, PartialEq)]
struct Label {
    name: String,
    value: Option<String>,
    is_wanted: bool,
}

impl Label {
    fn parse(text: &str, is_wanted: bool) -> Self {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        Self { name: name.to_owned(), value, is_wanted }
    }

    fn accepts(&self, config: &ImageConfig) -> bool {
        let found = config.config.labels.get(&self.name);
        let is_there = match (&self.value, found) {
            (Some(value), Some(found)) => value == found,
            (None, found) => found.is_some(),
            (Some(_), None) => false,
        };
        is_there == self.is_wanted
    }
}

fn choose(args: &PruneArgs) -> Result<Chosen> {
    let steps = args.what != PruneWhat::Images;
    let images = args.what != PruneWhat::Cache;
    let mut options = PruneOptions {
        dangling_images: images,
        all_images: images && args.all,
        steps,
        all_steps: steps && args.all,
        cache_mounts: steps && args.all,
        trees: args.what == PruneWhat::Everything && args.all,
        logs: args.what == PruneWhat::Everything,
        ..PruneOptions::default()
    };
    let mut labels = Vec::new();
    for filter in &args.filters {
        let wrong = |message: String| Failure::input(anyhow!("--filter: {message}"));
        let known = match args.what {
            PruneWhat::Images => "known are until=24h, label=NAME, label!=NAME and dangling=BOOL",
            PruneWhat::Cache => "known are until=24h, id=START and description=TEXT",
            PruneWhat::Everything => {
                "known are until=24h, label=NAME, label!=NAME, id=START and description=TEXT"
            }
        };
        match filter.split_once('=') {
            Some(("until", text)) => options.until = Some(duration(text).map_err(wrong)?),
            Some(("label", text)) if images => labels.push(Label::parse(text, true)),
            Some(("label!", text)) if images => labels.push(Label::parse(text, false)),
            Some(("dangling", text)) if !steps => {
                options.all_images = !boolean(text).map_err(wrong)?;
            }
            Some(("id", text)) if steps => options.ids.push(text.to_owned()),
            Some(("description", text)) if steps => options.description = Some(text.to_owned()),
            _ => return Err(wrong(format!("`{filter}` is not known")).hint(known)),
        }
    }
    Ok(Chosen { options, labels })
}

/// Leaves those images out that a container is made of, as docker does.
fn without_used(store: &Store, options: PruneOptions) -> Result<PruneOptions> {
    // A prune of everything removes containers that have ended, and what they are made of with them.
    let stays = |is_running: bool| is_running || !options.logs;
    let containers = runtime::containers(store).or_failed()?;
    let used: Vec<_> =
        containers.iter().filter(|it| stays(it.1)).map(|(it, _)| it.image_id).collect();
    if used.is_empty() {
        return Ok(options);
    }
    let is_free = |it: &NamedImage| {
        !it.record.platforms.iter().any(|platform| used.contains(&platform.config))
    };
    let images = store.images().or_failed()?;
    let free = images.iter().filter(|it| is_free(it)).map(|it| it.record.target.digest);
    let some = options.only_images.clone();
    let only = free.filter(|it| some.as_ref().is_none_or(|some| some.contains(it))).collect();
    Ok(PruneOptions { only_images: Some(only), ..options })
}

/// Returns the images that all filters by label accept.
fn labelled(store: &Store, labels: &[Label]) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for image in store.images().or_failed()? {
        let Ok(platform) = platform_of(&image, None) else { continue };
        let config = config_of(store, platform)?;
        if labels.iter().all(|it| it.accepts(&config)) {
            found.push(image.record.target.digest);
        }
    }
    Ok(found)
}

fn warning(args: &PruneArgs) -> String {
    let what = match (args.what, args.all) {
        (PruneWhat::Images, false) => "all images without a name",
        (PruneWhat::Images, true) => "all images",
        (PruneWhat::Cache, false) => "the cache of all steps that no image needs",
        (PruneWhat::Cache, true) => "the whole build cache",
        (PruneWhat::Everything, false) => {
            "containers that have ended, images without a name, the cache of steps that no image needs, and logs"
        }
        (PruneWhat::Everything, true) => {
            "containers that have ended, all images, the whole build cache, and logs"
        }
    };
    format!("This removes {what}.")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn chosen(what: PruneWhat, all: bool, filters: &[&str]) -> Result<Chosen> {
        let filters = filters.iter().map(|it| (*it).to_owned()).collect();
        choose(&PruneArgs { what, all, filters, ..PruneArgs::default() })
    }

    #[test]
    fn what_is_pruned() {
        let of_images = chosen(PruneWhat::Images, false, &[]).expect("options").options;
        assert!(of_images.dangling_images && !of_images.all_images);
        assert!(!of_images.steps && !of_images.logs);
        let all = chosen(PruneWhat::Everything, true, &["until=24h"]).expect("options").options;
        assert!(all.all_images && all.all_steps);
        assert_eq!(all.until, Some(Duration::from_secs(86_400)));
        let undangling = chosen(PruneWhat::Images, false, &["dangling=false"]).expect("options");
        assert!(undangling.options.all_images);
        for (what, filter) in [
            (PruneWhat::Everything, "frob=1"),
            (PruneWhat::Cache, "label=x"),
            (PruneWhat::Images, "id=x"),
            (PruneWhat::Cache, "dangling=true"),
        ] {
            assert!(chosen(what, false, &[filter]).is_err(), "{filter}");
        }
    }

    #[test]
    fn labels_are_wanted_or_not() {
        let labels = chosen(PruneWhat::Images, true, &["label=a=1", "label!=b"]).expect("options");
        let mut config = ImageConfig::default();
        let accepts = |config: &ImageConfig| labels.labels.iter().all(|it| it.accepts(config));
        assert!(!accepts(&config));
        config.config.labels.insert("a".to_owned(), "1".to_owned());
        assert!(accepts(&config));
        config.config.labels.insert("b".to_owned(), String::new());
        assert!(!accepts(&config));
    }
}
