//! `kiln system df`: the columns mean what docker's mean.
//!
//! An image is active if a container, running or not, is made of it; a container if it runs; the rest if a running build holds it.
//! Reclaimable is what removing everything that is not active would free.

use std::collections::{HashMap, HashSet};

use cache::{CacheEntry, CacheMountInfo, NamedImage, Part, Store};
use image::{DiffId, Digest, ImageId};
use runtime::State;
use serde_json::json;

use crate::{
    args::system::DiskArgs,
    commands::{
        Globals,
        images::{layer_size, names_of},
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
    let containers = runtime::sizes(&store).or_failed()?;
    let of_containers: HashSet<ImageId> = containers.iter().map(|(it, ..)| it.image_id).collect();
    let usage = store.disk_usage(&of_containers).or_failed()?;
    let of_all: Part = containers.iter().fold(Part::default(), |mut sum, (_, runs, n_bytes)| {
        sum.n_total += 1;
        sum.n_active += u64::from(*runs);
        sum.n_bytes += n_bytes;
        sum.n_reclaimable += if *runs { 0 } else { *n_bytes };
        sum
    });
    let rows = [
        ("Images", &usage.images),
        ("Containers", &of_all),
        ("Build Cache", &usage.build_cache),
        ("Cache Mounts", &usage.cache_mounts),
        ("Logs", &usage.logs),
        ("Other", &usage.other),
    ];
    let text = match args.format {
        Format::Json => rows.iter().map(|(kind, part)| json_line(kind, part)).collect(),
        Format::Text if args.verbose => {
            let images = images(&store, &store.images().or_failed()?, &containers)?;
            let entries = entries(&store.cache_entries().or_failed()?);
            let mounts = mounts(&store.cache_mounts().or_failed()?);
            let containers = of_containers_table(&containers);
            format!(
                "{}\nImages:\n\n{images}\nContainers:\n\n{containers}\nBuild cache:\n\n{entries}\nCache mounts:\n\n{mounts}",
                table(&rows)
            )
        }
        Format::Text => table(&rows).to_string(),
    };
    print::out(&text)?;
    Ok(Exit::Done)
}

fn table(rows: &[(&str, &Part)]) -> Table {
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for (kind, part) in rows {
        // As in docker, there is no share of nothing.
        let share = match (part.n_reclaimable * 100).checked_div(part.n_bytes) {
            Some(share) => format!(" ({share}%)"),
            None => String::new(),
        };
        let reclaimable = format!("{}{share}", show(part.n_reclaimable));
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

fn images(
    store: &Store,
    images: &[NamedImage],
    containers: &[(State, bool, u64)],
) -> Result<Table> {
    let layers_of = |image: &NamedImage| -> HashSet<DiffId> {
        image.record.platforms.iter().flat_map(|it| it.layers.iter().copied()).collect()
    };
    let mut n_users: HashMap<DiffId, usize> = HashMap::new();
    for diff_id in images.iter().flat_map(layers_of) {
        *n_users.entry(diff_id).or_default() += 1;
    }
    let titles = ["IMAGE", "ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    let mut table = Table::new(&titles);
    for image in images {
        let names: Vec<String> = names_of(image).iter().map(|it| it.familiar()).collect();
        let name = if names.is_empty() { "<none>".to_owned() } else { names.join(", ") };
        let (mut shared, mut unique) = (0, 0);
        for diff_id in layers_of(image) {
            let is_shared = n_users.get(&diff_id).is_some_and(|it| *it > 1);
            let part = if is_shared { &mut shared } else { &mut unique };
            *part += layer_size(store, &diff_id)?;
        }
        let is_of = |it: &&(State, bool, u64)| {
            image.record.platforms.iter().any(|platform| platform.config == it.0.image_id)
        };
        table.row(vec![
            name,
            image.record.id().short(),
            ago(image.record.created),
            show(shared + unique),
            show(shared),
            show(unique),
            containers.iter().filter(is_of).count().to_string(),
        ]);
    }
    Ok(table)
}

fn of_containers_table(containers: &[(State, bool, u64)]) -> Table {
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAME"]);
    for (state, runs, n_bytes) in containers {
        let status = match (runs, state.status) {
            (true, _) => "Up".to_owned(),
            (false, Some(status)) => format!("Exited ({status})"),
            (false, None) => "Dead".to_owned(),
        };
        table.row(vec![
            state.id.short().to_owned(),
            state.image.clone(),
            show(*n_bytes),
            ago(state.created),
            status,
            state.name.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn entries(entries: &[CacheEntry]) -> Table {
    let mut table = Table::new(&["CACHE ID", "CREATED", "LAST USED", "SIZE", "USED BY", "STEP"]);
    for entry in entries {
        let step = &entry.step;
        let mut id = step.key.hex();
        id.truncate(12);
        let mut users: Vec<String> = entry
            .images
            .iter()
            .map(|it| match it.parse::<Digest>() {
                Ok(digest) => digest.short(),
                Err(_) => {
                    image::ImageRef::parse(it).map_or_else(|_| it.clone(), |it| it.familiar())
                }
            })
            .collect();
        if entry.is_in_use {
            users.insert(0, "a running build".to_owned());
        }
        let users = if users.is_empty() { "-".to_owned() } else { users.join(", ") };
        table.row(vec![
            id,
            ago(step.created),
            ago(step.last_used),
            show(entry.n_bytes),
            users,
            step.description.clone(),
        ]);
    }
    table
}

fn mounts(mounts: &[CacheMountInfo]) -> Table {
    let mut table = Table::new(&["ID", "LAST USED", "SIZE"]);
    for it in mounts {
        table.row(vec![it.id.clone(), ago(it.last_used), show(it.n_bytes)]);
    }
    table
}

fn ago(seconds: u64) -> String {
    time::ago(time::now() - i64::try_from(seconds).unwrap_or(0))
}
