//! `--annotation`: notes on manifests, indexes and descriptors.

/// One `--annotation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it goes, and for which platform (as written) if not for all.
    pub targets: Vec<(AnnotationKind, Option<String>)>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where an annotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationKind {
    /// The image manifest.
    Manifest,
    /// The descriptor of the manifest in its index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The descriptor of the index in an OCI layout.
    IndexDescriptor,
}

/// Parses `[TYPE[PLATFORM],…:]KEY=VALUE`, for example `manifest[linux/amd64],index:org.example=1`.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn annotation(text: &str) -> Result<Annotation, String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form `key=value`"))?;
    let (targets, key) = match name.split_once(':') {
        Some((types, key)) => (types.split(',').map(target).collect::<Result<_, _>>()?, key),
        None => (vec![(AnnotationKind::Manifest, None)], name),
    };
    if key.is_empty() {
        return Err(format!("`{text}` has no key"));
    }
    Ok(Annotation { targets, key: key.to_owned(), value: value.to_owned() })
}

/// Reads what follows `annotation` in an attribute of `--output`: `.KEY`, `-index.KEY`, `-manifest[linux/amd64].KEY`, …
///
/// # Errors
///
/// Returns a message that names the attribute.
pub fn attribute(rest: &str, value: &str) -> Result<Annotation, String> {
    let wrong =
        || format!("`annotation{rest}` is not of the form `annotation[-TYPE][PLATFORM].KEY`");
    let at = match rest.find(']') {
        Some(end) => end + 1,
        None => rest.find('.').ok_or_else(wrong)?,
    };
    let (head, key) = rest.split_at(at);
    let key = key.strip_prefix('.').filter(|it| !it.is_empty()).ok_or_else(wrong)?;
    let head = match head.strip_prefix('-') {
        Some(head) => head.to_owned(),
        None => format!("manifest{head}"),
    };
    let target = target(&head).map_err(|_| wrong())?;
    Ok(Annotation { targets: vec![target], key: key.to_owned(), value: value.to_owned() })
}

fn target(text: &str) -> Result<(AnnotationKind, Option<String>), String> {
    let (kind, platform) = match text.split_once('[') {
        Some((kind, rest)) => {
            let platform = rest
                .strip_suffix(']')
                .ok_or_else(|| format!("`{text}` has a bracket that is not closed"))?;
            (kind, Some(platform.to_owned()))
        }
        None => (text, None),
    };
    let kind = match kind {
        "manifest" => AnnotationKind::Manifest,
        "manifest-descriptor" => AnnotationKind::ManifestDescriptor,
        "index" => AnnotationKind::Index,
        "index-descriptor" => AnnotationKind::IndexDescriptor,
        other => {
            return Err(format!(
                "`{other}` is no type of annotation; there are manifest, manifest-descriptor, index and index-descriptor"
            ));
        }
    };
    Ok((kind, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_platforms() {
        use AnnotationKind::{Index, Manifest};
        let parsed = annotation("manifest[linux/amd64],index:a.b=c=d");
        let targets = vec![(Manifest, Some("linux/amd64".to_owned())), (Index, None)];
        assert_eq!(
            parsed,
            Ok(Annotation { targets, key: "a.b".to_owned(), value: "c=d".to_owned() })
        );
        for wrong in ["x", "x:y=z", "index:=v", "manifset:k=v", "index,:k=v"] {
            assert!(annotation(wrong).is_err(), "{wrong}");
        }
        assert_eq!(attribute("-index.a.b", "v").map(|it| it.targets), Ok(vec![(Index, None)]));
        let targets = vec![(Manifest, Some("linux/arm64".to_owned()))];
        assert_eq!(attribute("[linux/arm64].a", "v").map(|it| it.targets), Ok(targets));
        assert!(attribute("frob", "v").is_err());
    }
}
