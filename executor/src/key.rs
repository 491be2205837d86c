//! Keys of steps: what a step's result depends on, hashed.
//!
//! Every field is written with its name and its length, so that no two different inputs share an encoding. What does not
//! change the bytes of the result (proxy variables, values of secrets, limits of memory, cache mounts' contents, names in
//! progress) is not in a key. Changing what is written, or in which order, orphans every cache on disk: bump
//! [`KEY_VERSION`] in the same commit.

use cache::StepKey;
use serde_json::{Map, Value};

/// Part of every key.
pub const KEY_VERSION: u32 = 2;

/// Collects what a key depends on, and keeps the readable part of it to explain misses.
pub(crate) struct KeyBuilder {
    hasher: blake3::Hasher,
    recipe: Map<String, Value>,
}

impl KeyBuilder {
    /// Starts a key of one kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        let mut this = Self { hasher: blake3::Hasher::new(), recipe: Map::new() };
        this.raw("version", &KEY_VERSION.to_le_bytes());
        this.text("kind", kind);
        this
    }

    /// Adds a field that is shown when a miss is explained.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.raw(name, value.as_bytes());
        self.show(name, Value::from(value));
    }

    /// Adds a field that is a digest, shown in short form.
    pub(crate) fn digest(&mut self, name: &str, value: &[u8; 32]) {
        self.raw(name, value);
        let hex: String = value[..16].iter().map(|it| format!("{it:02x}")).collect();
        self.show(name, Value::from(hex));
    }

    /// Adds a list of texts.
    pub(crate) fn texts<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<&str> = values.into_iter().collect();
        self.raw(name, &(values.len() as u64).to_le_bytes());
        for value in &values {
            self.field(value.as_bytes());
        }
        self.show(name, Value::from(values));
    }

    /// Adds a field that is not shown.
    pub(crate) fn raw(&mut self, name: &str, value: &[u8]) {
        self.field(name.as_bytes());
        self.field(value);
    }

    /// Keeps a field for the recipe. Names that come again are counted: `bind`, `bind 2`.
    fn show(&mut self, name: &str, value: Value) {
        let mut key = name.to_owned();
        let mut n_seen = 1;
        while self.recipe.contains_key(&key) {
            n_seen += 1;
            key = format!("{name} {n_seen}");
        }
        self.recipe.insert(key, value);
    }

    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Returns the key, and what it was made of.
    pub(crate) fn finish(self) -> (StepKey, Value) {
        (StepKey(self.hasher.finalize().into()), Value::Object(self.recipe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let key = |fields: &[(&str, &str)]| {
            let mut builder = KeyBuilder::new("test");
            for (name, value) in fields {
                builder.text(name, value);
            }
            builder.finish().0.0
        };
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", ""), ("b", "")]), key(&[("a", "b")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
