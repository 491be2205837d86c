//! Variables in the order in which they were last set.

use alloc::{string::String, vec::Vec};

use crate::expand::Environment;

/// A list of variables; setting one again moves it to the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(it, _)| it != name);
        self.0.push((name.into(), value.into()));
    }

    /// Returns a variable's value.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// Returns all variables in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl Environment for Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.value(name)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
