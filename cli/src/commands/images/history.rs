//! `kiln history`.

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{config_of, find, layer_size, platform_of};
use crate::{
    args::images::HistoryArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, Result},
    print::{self, Table},
    progress::line::fit,
    template::Template,
    time,
    values::size::show,
};

/// Shows how an image came to be, the last step first.
///
/// # Errors
///
/// Fails where the image is not there, or the format is not understood.
pub fn run(args: &HistoryArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let image = find(&store, &args.image)?;
    let platform = platform_of(&image, None)?;
    let config = config_of(&store, platform)?;
    let mut layers = platform.layers.iter();
    let mut rows = Vec::new();
    for entry in &config.history {
        let size = match entry.empty_layer {
            true => 0,
            false => layers.next().map_or(Ok(0), |it| layer_size(&store, it))?,
        };
        rows.push((entry, size));
    }
    rows.reverse();
    let id = image.record.id();
    let id = if args.no_trunc { id.to_string() } else { id.short() };
    let now = time::now();
    let row = |n: usize, (entry, size): &(&image::document::History, u64)| {
        let created = entry.created.as_deref().and_then(time::parse);
        let since = created.map_or("N/A".to_owned(), |it| time::ago(now - it));
        let at = created.map_or(String::new(), time::shown);
        let by = entry.created_by.replace('\t', " ");
        json!({
            "ID": if n == 0 { id.as_str() } else { "<missing>" },
            "CreatedSince": since,
            "CreatedAt": at,
            "CreatedBy": if args.no_trunc { by } else { fit(&by, 45).0 },
            "Size": if args.human { show(*size) } else { size.to_string() },
            "Comment": entry.comment,
        })
    };
    let rows: Vec<Value> = rows.iter().enumerate().map(|(n, it)| row(n, it)).collect();
    print::out(&text(args, &rows)?)?;
    Ok(Exit::Done)
}

fn text(args: &HistoryArgs, rows: &[Value]) -> Result<String> {
    let cell = |row: &Value, key: &str| {
        row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if args.quiet {
        return Ok(rows.iter().map(|it| cell(it, "ID") + "\n").collect());
    }
    match args.format.as_deref() {
        None | Some("table") => {
            let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
            let created = if args.human { "CreatedSince" } else { "CreatedAt" };
            for row in rows {
                table.row(
                    ["ID", created, "CreatedBy", "Size", "Comment"]
                        .map(|it| cell(row, it))
                        .to_vec(),
                );
            }
            Ok(table.to_string())
        }
        Some("json") => Ok(rows.iter().map(|it| format!("{it}\n")).collect()),
        Some(format) => {
            let wrong = |message| Failure::input(anyhow!("--format: {message}"));
            let template =
                Template::parse(format.strip_prefix("table ").unwrap_or(format)).map_err(wrong)?;
            let lines = rows.iter().map(|it| template.fill(it, &Value::Null).map(|it| it + "\n"));
            lines.collect::<std::result::Result<String, String>>().map_err(wrong)
        }
    }
}
