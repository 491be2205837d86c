//! `kiln system prune`, `kiln image prune` and `kiln builder prune`.

use std::time::Duration;

use anyhow::anyhow;
use cache::PruneOptions;

use super::reset::confirmed;
use crate::{
    args::system::{PruneArgs, PruneWhat},
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    values::size::show,
};

/// Removes what nobody needs.
///
/// # Errors
///
/// Fails where a filter is not understood, nobody can be asked, or something cannot be removed.
pub fn run(args: &PruneArgs, globals: &Globals) -> Result<Exit> {
    let options = options(args)?;
    if !args.force && !confirmed(&warning(args))? {
        return Ok(Exit::Failed);
    }
    let store = globals.store()?;
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

fn options(args: &PruneArgs) -> Result<PruneOptions> {
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
        keep_bytes: args.keep,
        ..PruneOptions::default()
    };
    for filter in &args.filters {
        let wrong = |message: String| Failure::input(anyhow!("--filter: {message}"));
        let known = "known are until=24h, id=START and description=TEXT";
        match filter.split_once('=') {
            Some(("until", text)) => options.until = Some(duration(text).map_err(wrong)?),
            Some(("id", text)) => options.ids.push(text.to_owned()),
            Some(("description", text)) => options.description = Some(text.to_owned()),
            _ => return Err(wrong(format!("`{filter}` is not known")).hint(known)),
        }
    }
    Ok(options)
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

/// Parses Go's durations: `24h`, `1h30m`, `10s`; and days, `7d`.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as `24h` or `1h30m`");
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let (number, after) =
            rest.split_at(rest.find(|it: char| !it.is_ascii_digit()).ok_or_else(wrong)?);
        let unit = after.chars().next().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|it| it.checked_mul(factor));
        seconds = part.and_then(|it| seconds.checked_add(it)).ok_or_else(wrong)?;
        rest = &after[unit.len_utf8()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in ["", "h", "5", "5x", "1h-", "99999999999999999999h", "5é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_pruned() {
        let args = PruneArgs { what: PruneWhat::Images, ..PruneArgs::default() };
        let chosen = options(&args).expect("options");
        assert!(chosen.dangling_images && !chosen.all_images && !chosen.steps && !chosen.logs);
        let args =
            PruneArgs { all: true, filters: vec!["until=24h".to_owned()], ..PruneArgs::default() };
        let chosen = options(&args).expect("options");
        assert!(
            chosen.all_images
                && chosen.all_steps
                && chosen.until == Some(Duration::from_secs(86_400))
        );
        assert!(
            options(&PruneArgs { filters: vec!["frob=1".to_owned()], ..PruneArgs::default() })
                .is_err()
        );
    }
}
