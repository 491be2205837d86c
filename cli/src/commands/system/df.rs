//! `kiln system df`.

use cache::{CacheEntry, NamedImage, Part, Store};
use serde_json::json;

use crate::{
    args::system::DiskArgs,
    commands::{
        Globals,
        images::{names_of, size_of},
    },
    exit::Exit,
    failure::{OrFail, Result},
    print::{self, Table},
    time,
    values::{Format, size::show},
};

/// Shows what takes space.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn run(args: &DiskArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let usage = store.disk_usage().or_failed()?;
    let rows = [
        ("Images", &usage.images),
        ("Build Cache", &usage.build_cache),
        ("Cache Mounts", &usage.cache_mounts),
        ("Logs", &usage.logs),
        ("Other", &usage.other),
    ];
    let text = match args.format {
        Format::Json => rows.iter().map(|(kind, part)| json_line(kind, part)).collect(),
        Format::Text if args.verbose => {
            let images = images(&store, &store.images().or_failed()?)?;
            let entries = entries(&store.cache_entries().or_failed()?);
            format!("{}\nImages:\n\n{images}\nBuild cache:\n\n{entries}", table(&rows))
        }
        Format::Text => table(&rows).to_string(),
    };
    print::out(&text)?;
    Ok(Exit::Done)
}

fn table(rows: &[(&str, &Part)]) -> Table {
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for (kind, part) in rows {
        let share = (part.n_reclaimable * 100).checked_div(part.n_bytes).unwrap_or(0);
        let reclaimable = format!("{} ({share}%)", show(part.n_reclaimable));
        let counts = [part.n_total.to_string(), part.n_active.to_string()];
        let [total, active] = counts;
        table.row(vec![(*kind).to_owned(), total, active, show(part.n_bytes), reclaimable]);
    }
    table
}

fn json_line(kind: &str, part: &Part) -> String {
    let line = json!({
        "Type": kind,
        "TotalCount": part.n_total,
        "Active": part.n_active,
        "Size": part.n_bytes,
        "Reclaimable": part.n_reclaimable,
    });
    format!("{line}\n")
}

fn images(store: &Store, images: &[NamedImage]) -> Result<Table> {
    let mut table = Table::new(&["IMAGE", "ID", "SIZE"]);
    for image in images {
        let names: Vec<String> = names_of(image).iter().map(|it| it.familiar()).collect();
        let size = image
            .record
            .platforms
            .iter()
            .map(|it| size_of(store, &it.layers))
            .sum::<Result<u64>>()?;
        table.row(vec![names.join(", "), image.record.id().short(), show(size)]);
    }
    Ok(table)
}

fn entries(entries: &[CacheEntry]) -> Table {
    let mut table = Table::new(&["CACHE ID", "CREATED", "LAST USED", "SIZE", "STEP"]);
    let ago = |seconds: u64| time::ago(time::now() - i64::try_from(seconds).unwrap_or(0));
    for entry in entries {
        let step = &entry.step;
        let mut id = step.key.hex();
        id.truncate(12);
        table.row(vec![
            id,
            ago(step.created),
            ago(step.last_used),
            show(entry.n_bytes),
            step.description.clone(),
        ]);
    }
    table
}
