//! `--secret`: where a secret of the build comes from.

use std::path::PathBuf;

use super::csv;

/// One `--secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// What RUN lines call it.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// Only the id was given: in the variable of that name if it is set, else in the file of that name.
    ById,
}

/// Parses `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`.
///
/// # Errors
///
/// Returns a message that names the field.
pub fn secret(text: &str) -> Result<Secret, String> {
    let (mut id, mut src, mut env, mut kind) = (None, None, None, None);
    for field in csv::fields(text)? {
        let (key, value) = csv::key_value(&field)?;
        let slot = match key.as_str() {
            "id" => &mut id,
            "src" | "source" => &mut src,
            "env" => &mut env,
            "type" if matches!(value, "file" | "env") => &mut kind,
            "type" => return Err(format!("`type={value}` is neither `file` nor `env`")),
            _ => {
                return Err(format!(
                    "`{key}` is no field of a secret; known are `id`, `src`, `env` and `type`"
                ));
            }
        };
        *slot = Some(value.to_owned());
    }
    let id = id.filter(|it| !it.is_empty()).ok_or_else(|| format!("`{text}` has no `id=`"))?;
    let source = match (kind.as_deref(), src, env) {
        (_, Some(_), Some(_)) => return Err(format!("secret `{id}` has both `src` and `env`")),
        (Some("file"), None, Some(_)) => {
            return Err(format!("secret `{id}` has `type=file` and `env`"));
        }
        (Some("env"), Some(name), None) | (_, None, Some(name)) => SecretSource::Env(name),
        (_, Some(path), None) => SecretSource::File(path.into()),
        (Some("env"), None, None) => SecretSource::Env(id.clone()),
        (Some("file"), None, None) => SecretSource::File(id.clone().into()),
        (_, None, None) => SecretSource::ById,
    };
    Ok(Secret { id, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let source = |text| secret(text).map(|it| it.source);
        assert_eq!(source("id=a,src=f"), Ok(SecretSource::File("f".into())));
        assert_eq!(source("id=a,source=f,type=file"), Ok(SecretSource::File("f".into())));
        assert_eq!(source("type=env,id=a,src=V"), Ok(SecretSource::Env("V".to_owned())));
        assert_eq!(source("id=a,env=V"), Ok(SecretSource::Env("V".to_owned())));
        assert_eq!(source("id=a"), Ok(SecretSource::ById));
        for bad in ["src=f", "id=a,frob=1", "id=a,type=x", "id=a,src=f,env=V", "a"] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }
}
