//! `kiln images`.

use anyhow::anyhow;
use cache::{NamedImage, Store};
use image::{ImageRef, document::ImageConfig};
use serde_json::{Value, json};

use super::{config_of, find, names_of, platform_of, size_of};
use crate::{
    args::images::ListArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, Result},
    print::{self, Table},
    template::Template,
    time,
    values::{boolean, duration::duration, size::show},
};

/// One line of the list.
#[derive(Debug)]
struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created: i64,
    size: u64,
}

/// Lists images.
///
/// # Errors
///
/// Fails where a filter or format is not understood, or the store cannot be read.
pub fn run(args: &ListArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let filters =
        args.filters.iter().map(|it| Filter::parse(it, &store)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for image in store.images().map_err(Failure::failed)? {
        // An image of which no platform is here has nothing to show.
        let Ok(platform) = platform_of(&image, None) else { continue };
        let config = config_of(&store, platform)?;
        let created = created(&image, &config);
        if !filters.iter().all(|it| it.accepts(&image, &config, created)) {
            continue;
        }
        let size = size_of(&store, &platform.layers)?;
        let digest = image.record.target.digest.to_string();
        let id = match args.no_trunc {
            true => image.record.id().to_string(),
            false => image.record.id().short(),
        };
        let names = names_of(&image).into_iter().filter(|name| wanted(args.name.as_deref(), name));
        let names: Vec<ImageRef> =
            names.filter(|name| filters.iter().all(|it| it.accepts_name(name))).collect();
        let row = |repository, tag| Row {
            repository,
            tag,
            digest: digest.clone(),
            id: id.clone(),
            created,
            size,
        };
        for name in &names {
            let tag = name.tag.clone().unwrap_or_else(|| "<none>".to_owned());
            let repository = ImageRef { tag: None, digest: None, ..name.clone() };
            rows.push(row(repository.familiar(), tag));
        }
        let unnamed = image.names.is_empty()
            && args.name.is_none()
            && filters.iter().all(Filter::accepts_unnamed);
        if unnamed {
            rows.push(row("<none>".to_owned(), "<none>".to_owned()));
        }
    }
    // The newest first, as docker has it; equally old ones by name.
    rows.sort_by(|a: &Row, b: &Row| {
        (b.created, &a.repository, &a.tag).cmp(&(a.created, &b.repository, &b.tag))
    });
    print::out(&text(args, &rows)?)?;
    Ok(Exit::Done)
}

/// Returns when an image was made, in seconds since the epoch.
fn created(image: &NamedImage, config: &ImageConfig) -> i64 {
    let of_config = config.created.as_deref().and_then(time::parse);
    of_config.unwrap_or_else(|| i64::try_from(image.record.created).unwrap_or(0))
}

fn wanted(pattern: Option<&str>, name: &ImageRef) -> bool {
    let Some(pattern) = pattern else { return true };
    if pattern.contains(['*', '?']) {
        return Filter::Reference(pattern.to_owned()).accepts_name(name);
    }
    match ImageRef::parse(pattern) {
        Ok(pattern) => {
            pattern.repository() == name.repository()
                && (pattern.tag.is_none() || pattern.tag == name.tag)
        }
        Err(_) => false,
    }
}

fn text(args: &ListArgs, rows: &[Row]) -> Result<String> {
    if args.quiet {
        let mut ids: Vec<&str> = Vec::new();
        for row in rows {
            if !ids.contains(&row.id.as_str()) {
                ids.push(&row.id);
            }
        }
        return Ok(ids.iter().map(|it| format!("{it}\n")).collect());
    }
    let now = time::now();
    match args.format.as_deref() {
        None | Some("table") => {
            let mut titles = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
            if args.digests {
                titles.insert(2, "DIGEST");
            }
            let mut table = Table::new(&titles);
            for row in rows {
                let age = time::ago(now - row.created);
                let mut cells = vec![
                    row.repository.clone(),
                    row.tag.clone(),
                    row.id.clone(),
                    age,
                    show(row.size),
                ];
                if args.digests {
                    cells.insert(2, row.digest.clone());
                }
                table.row(cells);
            }
            Ok(table.to_string())
        }
        Some("json") => Ok(rows.iter().map(|it| format!("{}\n", it.json(now))).collect()),
        Some(format) => {
            let columns = format.strip_prefix("table ");
            let template = Template::parse(columns.unwrap_or(format));
            let template =
                template.map_err(|message| Failure::input(anyhow!("--format: {message}")))?;
            let fill = |value: &Value| {
                let line = template.fill(value, &Value::Null);
                line.map_err(|message| Failure::input(anyhow!("--format: {message}")))
            };
            if columns.is_some() {
                // As in docker: a head made by the same template, and columns apart by tabs.
                let head = fill(&titles())?;
                let mut table = Table::new(&head.split('\t').collect::<Vec<_>>());
                for row in rows {
                    table.row(fill(&row.json(now))?.split('\t').map(str::to_owned).collect());
                }
                return Ok(table.to_string());
            }
            rows.iter().map(|it| Ok(fill(&it.json(now))? + "\n")).collect()
        }
    }
}

/// The titles of the columns.
fn titles() -> Value {
    json!({
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
    })
}

impl Row {
    fn json(&self, now: i64) -> Value {
        json!({
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "ID": self.id,
            "CreatedSince": time::ago(now - self.created),
            "CreatedAt": time::shown(self.created),
            "Size": show(self.size),
        })
    }
}

/// One `--filter`.
enum Filter {
    Reference(String),
    Label(String, Option<String>),
    Dangling(bool),
    /// `before=IMAGE`, and `until=24h`.
    Before(i64),
    Since(i64),
}

impl Filter {
    fn parse(text: &str, store: &Store) -> Result<Self> {
        let wrong = |message: String| Failure::input(anyhow!("--filter: {message}"));
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| wrong(format!("`{text}` is not of the form `name=value`")))?;
        let created = |text: &str| {
            let image = find(store, text)?;
            let config = config_of(store, platform_of(&image, None)?)?;
            Ok::<i64, Failure>(created(&image, &config))
        };
        Ok(match key {
            "reference" => Self::Reference(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "dangling" => Self::Dangling(boolean(value).map_err(wrong)?),
            "before" => Self::Before(created(value)?),
            "since" => Self::Since(created(value)?),
            "until" => match (duration(value), time::parse(value)) {
                (Ok(age), _) => {
                    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                    Self::Before(time::now().saturating_sub(age))
                }
                (Err(_), Some(seconds)) => Self::Before(seconds),
                (Err(message), None) => return Err(wrong(message)),
            },
            other => {
                let known = "known are reference, label, dangling, before, since and until";
                return Err(wrong(format!("`{other}` is not known")).hint(known));
            }
        })
    }

    fn accepts(&self, image: &NamedImage, config: &ImageConfig, created: i64) -> bool {
        match self {
            Self::Reference(_) => true,
            Self::Label(name, None) => config.config.labels.contains_key(name),
            Self::Label(name, Some(value)) => config.config.labels.get(name) == Some(value),
            Self::Dangling(wanted) => image.names.is_empty() == *wanted,
            Self::Before(limit) => created < *limit,
            Self::Since(limit) => created > *limit,
        }
    }

    fn accepts_name(&self, name: &ImageRef) -> bool {
        let Self::Reference(pattern) = self else { return true };
        let repository = ImageRef { tag: None, digest: None, ..name.clone() };
        let forms =
            [name.familiar(), repository.familiar(), name.to_string(), repository.to_string()];
        forms.iter().any(|it| matches(pattern.as_bytes(), it.as_bytes()))
    }

    fn accepts_unnamed(&self) -> bool {
        !matches!(self, Self::Reference(_))
    }
}

/// Matches `*` and `?`, neither of which crosses a `/`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut star) = ((0, 0), None);
    loop {
        let (p, t) = at;
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                at = (p + 1, t);
                continue;
            }
            (Some(b'?'), Some(c)) if *c != b'/' => {
                at = (p + 1, t + 1);
                continue;
            }
            (Some(a), Some(b)) if a == b => {
                at = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        // The last star takes one character more, if it may.
        match star {
            Some((after, taken)) if text.get(taken).is_some_and(|it| *it != b'/') => {
                star = Some((after, taken + 1));
                at = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("app", "app", true),
            ("a*", "app:1", true),
            ("a*:?", "app:1", true),
            ("a*", "a/b", false),
            ("*/b*", "a/bc", true),
            ("", "", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_without_tag_means_all_tags() {
        let name = ImageRef::parse("app:1").expect("a name");
        assert!(wanted(Some("app"), &name) && wanted(Some("app:1"), &name) && wanted(None, &name));
        assert!(!wanted(Some("app:2"), &name) && !wanted(Some("APP"), &name));
    }

    #[test]
    fn names_and_patterns() {
        let name = ImageRef::parse("busybox:1").expect("a name");
        for (pattern, is_wanted) in [
            ("busybox", true),
            ("busybox:1", true),
            ("busybox:2", false),
            ("bus*", true),
            ("bus*:1", true),
            ("*:2", false),
            ("b?x", false),
        ] {
            assert_eq!(wanted(Some(pattern), &name), is_wanted, "{pattern}");
        }
    }
}
