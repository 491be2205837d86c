//! What a `RUN --device=…` says.

use alloc::{borrow::ToOwned, string::String};

use crate::{csv, values};

/// A device that a step wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Its CDI name, a class, or `*`; empty where none is given.
    pub name: String,
    /// The step fails without it.
    pub required: bool,
}

/// Reads the value of `--device`.
///
/// # Errors
///
/// Says what is wrong with the value.
///
/// # Source
///
/// BuildKit, `frontend/dockerfile/instructions/commands_rundevice.go`.
pub fn parse(value: &str) -> Result<Device, &'static str> {
    let mut device = Device::default();
    for field in csv::fields(value)? {
        let (key, argument) = match field.split_once('=') {
            Some((key, argument)) => (key.to_lowercase(), Some(argument)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), argument) {
            ("required", None) => device.required = true,
            ("required", Some(argument)) => {
                device.required =
                    values::boolean(argument).ok_or("`required` takes `true` or `false`")?;
            }
            ("name", Some(_)) if !device.name.is_empty() => return Err("it has two names"),
            ("name", Some(argument)) => device.name = argument.to_owned(),
            // The name of a device may hold a `=` itself.
            _ if device.name.is_empty() => device.name = field,
            (_, Some(_)) => return Err("it has an unknown option"),
            (_, None) => return Err("each option is `KEY=VALUE`"),
        }
    }
    Ok(device)
}
