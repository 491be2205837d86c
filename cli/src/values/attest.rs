//! `--attest`, and its short forms `--provenance` and `--sbom`: what to say of an image beside the image.

use executor::attest::{Provenance, SlsaVersion};

use super::{boolean, csv, one_of};

/// One attestation that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attest {
    /// Of what and how the image was made; nothing if that is not to be said.
    Provenance(Option<Provenance>),
    /// What is in the image is not to be listed. That it is to be is refused.
    NoSbom,
}

const TYPES: [&str; 2] = ["provenance", "sbom"];

/// Parses `type=provenance,mode=max`.
///
/// # Errors
///
/// Returns a message that names the field that is wrong, or says what is not there.
pub fn attest(text: &str) -> Result<Attest, String> {
    let fields = csv::fields(text)?;
    let pairs = fields.iter().map(|it| csv::key_value(it)).collect::<Result<Vec<_>, _>>()?;
    match pairs.iter().find(|(key, _)| key == "type").map(|(_, value)| *value) {
        Some("provenance") => parsed_provenance(&pairs),
        Some("sbom") => parsed_sbom(&pairs),
        Some(other) => {
            Err(format!("`{other}` is no type of attestation; it is one of {}", one_of(&TYPES)))
        }
        None => Err(format!("`{text}` has no `type=`; it is one of {}", one_of(&TYPES))),
    }
}

/// Parses the value of `--provenance`: `true`, `false`, or `mode=max,…`.
///
/// # Errors
///
/// As [`attest`].
pub fn provenance(text: &str) -> Result<Attest, String> {
    attest(&long_form("provenance", text))
}

/// Parses the value of `--sbom`, of which only `false` is supported.
///
/// # Errors
///
/// As [`attest`].
pub fn sbom(text: &str) -> Result<Attest, String> {
    attest(&long_form("sbom", text))
}

fn long_form(kind: &str, text: &str) -> String {
    match boolean(text) {
        Ok(is_wanted) => format!("type={kind},disabled={}", !is_wanted),
        Err(_) => format!("type={kind},{text}"),
    }
}

fn parsed_provenance(pairs: &[(String, &str)]) -> Result<Attest, String> {
    let mut out = Provenance::default();
    let mut is_disabled = false;
    for (key, value) in pairs {
        let truth = || boolean(value).map_err(|message| format!("`{key}`: {message}"));
        match key.as_str() {
            "type" => {}
            "disabled" => is_disabled = truth()?,
            "mode" => {
                out.is_max = match *value {
                    "min" => false,
                    "max" | "full" => true,
                    _ => return Err(format!("`mode={value}` is neither `min` nor `max`")),
                }
            }
            "version" => {
                out.version = match *value {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    _ => return Err(format!("`version={value}` is neither `v1` nor `v0.2`")),
                }
            }
            "builder-id" => out.builder_id = (*value).to_owned(),
            "reproducible" => out.is_reproducible = truth()?,
            "inline-only" => out.inline_only = truth()?,
            "filename" => {
                if matches!(*value, "" | "." | "..") || value.contains(['/', '\0']) {
                    return Err(format!("`filename={value}` is no name of a file"));
                }
                out.filename = (*value).to_owned();
            }
            _ => return Err(format!("`{key}` is no attribute of provenance that kiln knows")),
        }
    }
    Ok(Attest::Provenance((!is_disabled).then_some(out)))
}

fn parsed_sbom(pairs: &[(String, &str)]) -> Result<Attest, String> {
    let disabled = pairs.iter().rfind(|(key, _)| key == "disabled").map(|(_, value)| *value);
    match disabled.map(boolean).transpose()? {
        Some(true) => Ok(Attest::NoSbom),
        _ => Err("kiln runs no scanner, so it cannot list what is in an image; \
                  scan the image afterwards, an archive of `-o type=oci` for example"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let max = Provenance::default();
        let min = Provenance { is_max: false, ..max.clone() };
        let some = |it: &Provenance| Ok(Attest::Provenance(Some(it.clone())));
        assert_eq!(provenance("true"), some(&max));
        assert_eq!(provenance("mode=min"), some(&min));
        assert_eq!(provenance("false"), Ok(Attest::Provenance(None)));
        assert_eq!(attest("type=provenance,mode=min"), some(&min));
        assert_eq!(attest("type=provenance,disabled=true"), Ok(Attest::Provenance(None)));
        let old = Provenance { version: SlsaVersion::V02, builder_id: "b".to_owned(), ..max };
        assert_eq!(provenance("mode=max,version=v0.2,builder-id=b"), some(&old));
        assert_eq!(sbom("false"), Ok(Attest::NoSbom));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("mode=min", "type="),
            ("type=vsa", "`vsa`"),
            ("type=provenance,mode=some", "mode=some"),
            ("type=provenance,version=v2", "version=v2"),
            ("type=provenance,frob=1", "`frob`"),
            ("type=provenance,filename=../x", "filename=../x"),
            ("type=provenance,reproducible=perhaps", "`perhaps`"),
            ("type=sbom", "scanner"),
            ("type=sbom,generator=a/b", "scanner"),
        ] {
            let message = attest(text).err().unwrap_or_default();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
