//! `kiln system df`.

use std::collections::BTreeMap;

use image::DiffId;
use serde_json::json;

use crate::{
    args::system::DiskArgs,
    commands::{Globals, images::names_of},
    exit::Exit,
    failure::{OrFail, Result},
    print::{self, Table},
    time,
    values::{Format, size::show},
};

/// One line of the table.
struct Row {
    kind: &'static str,
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

/// Shows what takes space. Sizes are those of the layers' tars: a layer that is shared counts once.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn run(args: &DiskArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let layers = store.layers().or_failed()?;
    let size = |it: &cache::LayerRecord| {
        it.tar_size.or(it.blobs.iter().map(|it| it.size).max()).unwrap_or(0)
    };
    let sizes: BTreeMap<DiffId, u64> = layers.iter().map(|it| (it.diff_id, size(it))).collect();
    let images = store.images().or_failed()?;
    let steps = store.steps().or_failed()?;
    let of = |named: bool| -> BTreeMap<DiffId, u64> {
        let images = images.iter().filter(|it| !named || !it.names.is_empty());
        let layers = images.flat_map(|it| &it.record.platforms).flat_map(|it| &it.layers);
        layers.filter_map(|it| sizes.get_key_value(it)).map(|(id, size)| (*id, *size)).collect()
    };
    let (in_images, in_named) = (of(false), of(true));
    let sum = |map: &BTreeMap<DiffId, u64>| map.values().sum::<u64>();
    let cached = sum(&sizes) - sum(&in_images);
    let rows = [
        Row {
            kind: "Images",
            total: images.len(),
            active: images.iter().filter(|it| !it.names.is_empty()).count(),
            size: sum(&in_images),
            reclaimable: sum(&in_images) - sum(&in_named),
        },
        Row {
            kind: "Build Cache",
            total: steps.len(),
            active: steps
                .iter()
                .filter(|it| it.layer.is_some_and(|it| in_images.contains_key(&it)))
                .count(),
            size: cached,
            reclaimable: cached,
        },
    ];
    let mut text = match args.format {
        Format::Json => rows.iter().map(|it| it.json() + "\n").collect(),
        Format::Text => table(&rows),
    };
    if args.verbose && args.format == Format::Text {
        let mut table = Table::new(&["IMAGE", "ID", "SIZE"]);
        for image in &images {
            let names: Vec<String> = names_of(image).iter().map(|it| it.familiar()).collect();
            let layers = image.record.platforms.iter().flat_map(|it| &it.layers);
            let size = layers.filter_map(|it| sizes.get(it)).sum();
            table.row(vec![names.join(", "), image.record.id().short(), show(size)]);
        }
        text += &format!("\nImages:\n\n{table}");
        let mut table = Table::new(&["CACHE ID", "CREATED", "LAST USED", "SIZE", "STEP"]);
        let ago = |seconds: u64| time::ago(time::now() - i64::try_from(seconds).unwrap_or(0));
        for step in &steps {
            let size = step.layer.and_then(|it| sizes.get(&it).copied()).unwrap_or(0);
            let mut id = step.key.hex();
            id.truncate(12);
            table.row(vec![
                id,
                ago(step.created),
                ago(step.last_used),
                show(size),
                step.description.clone(),
            ]);
        }
        text += &format!("\nBuild cache:\n\n{table}");
    }
    print::out(&text)?;
    Ok(Exit::Done)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for row in rows {
        let share = (row.reclaimable * 100).checked_div(row.size).unwrap_or(0);
        let reclaimable = format!("{} ({share}%)", show(row.reclaimable));
        table.row(vec![
            row.kind.to_owned(),
            row.total.to_string(),
            row.active.to_string(),
            show(row.size),
            reclaimable,
        ]);
    }
    table.to_string()
}

impl Row {
    fn json(&self) -> String {
        json!({
            "Type": self.kind,
            "TotalCount": self.total,
            "Active": self.active,
            "Size": self.size,
            "Reclaimable": self.reclaimable,
        })
        .to_string()
    }
}
