//! Variables in the order in which they were last set.
//!
//! A Dockerfile of thousands of lines has thousands of states of its variables, each little different from the one before.
//! So copies share all that they have in common: the variables are the leaves of a tree in which the hash of a name is
//! the way, four bits for each step, and setting one makes anew only the nodes on its way.

use alloc::{borrow::ToOwned, string::String, sync::Arc, vec::Vec};
use core::fmt;

use crate::expand::Environment;

/// How many bits of a hash choose the way at a node.
const STEP_BITS: u32 = 4;

/// A list of variables; setting one again moves it to the end. Copying takes no time.
#[derive(Clone, Default)]
pub struct Variables {
    root: Option<Arc<Node>>,
    /// How often one was set.
    n_set: u64,
    /// Names that differ only in the case of their letters are one, as on Windows.
    no_case: bool,
}

#[derive(Debug, Clone)]
enum Node {
    Branch([Option<Arc<Node>>; 1 << STEP_BITS]),
    /// Variables whose names have this hash: one, but for accidents.
    Leaf(u64, Vec<Variable>),
}

#[derive(Debug, Clone)]
struct Variable {
    name: Arc<str>,
    value: Arc<str>,
    /// When it was set.
    number: u64,
}

impl Variables {
    /// Makes names that differ only in case one name. There must be no variables yet.
    pub(crate) fn without_case() -> Self {
        Self { no_case: true, ..Self::default() }
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// What names that are one have in common.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.no_case { name.to_ascii_lowercase() } else { name.to_owned() }
    }

    /// Says whether two names are one.
    fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.no_case && one.eq_ignore_ascii_case(other)
    }

    fn hash(&self, name: &str) -> u64 {
        match self.no_case {
            true => hash(name.bytes().map(|it| it.to_ascii_lowercase())),
            false => hash(name.bytes()),
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        let variable = Variable { name: name.into(), value: value.into(), number: self.n_set };
        self.n_set += 1;
        let hash = self.hash(name);
        insert(&mut self.root, hash, 0, variable, self.no_case);
    }

    /// Returns a variable's value.
    pub fn value(&self, name: &str) -> Option<&str> {
        let hash = self.hash(name);
        let mut node = self.root.as_ref()?;
        let mut shift = 0;
        loop {
            match &**node {
                Node::Branch(children) => node = children[slot(hash, shift)].as_ref()?,
                Node::Leaf(_, variables) => {
                    let found = variables.iter().find(|it| self.is_same(&it.name, name));
                    return found.map(|it| &*it.value);
                }
            }
            shift += STEP_BITS;
        }
    }

    /// Returns all variables in order, names and values.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let mut found: Vec<&Variable> = Vec::new();
        let mut rest: Vec<&Arc<Node>> = self.root.iter().collect();
        while let Some(node) = rest.pop() {
            match &**node {
                Node::Branch(children) => rest.extend(children.iter().flatten()),
                Node::Leaf(_, variables) => found.extend(variables),
            }
        }
        found.sort_unstable_by_key(|it| it.number);
        found.into_iter().map(|it| (&*it.name, &*it.value)).collect()
    }
}

fn insert(
    place: &mut Option<Arc<Node>>,
    new_hash: u64,
    shift: u32,
    variable: Variable,
    no_case: bool,
) {
    let Some(node) = place else {
        *place = Some(Arc::new(Node::Leaf(new_hash, alloc::vec![variable])));
        return;
    };
    if let Node::Leaf(old_hash, _) = **node
        && old_hash != new_hash
    {
        let mut children = <[Option<Arc<Node>>; 1 << STEP_BITS]>::default();
        children[slot(old_hash, shift)] = Some(node.clone());
        *node = Arc::new(Node::Branch(children));
    }
    match Arc::make_mut(node) {
        Node::Branch(children) => {
            let place = &mut children[slot(new_hash, shift)];
            insert(place, new_hash, shift + STEP_BITS, variable, no_case);
        }
        Node::Leaf(_, variables) => {
            let is_same = |a: &str, b: &str| a == b || no_case && a.eq_ignore_ascii_case(b);
            variables.retain(|it| !is_same(&it.name, &variable.name));
            variables.push(variable);
        }
    }
}

/// The child in which a hash goes on. Hashes that differ part before their bits end.
fn slot(hash: u64, shift: u32) -> usize {
    hash.checked_shr(shift).unwrap_or(0) as usize % (1 << STEP_BITS)
}

/// FNV-1a, whose lower bits are mixed well enough.
fn hash(name: impl Iterator<Item = u8>) -> u64 {
    name.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl PartialEq for Variables {
    fn eq(&self, other: &Self) -> bool {
        self.pairs() == other.pairs()
    }
}

impl Eq for Variables {}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs()).finish()
    }
}

impl Environment for Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.value(name)
    }

    fn names(&self) -> Vec<&str> {
        self.pairs().into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn one_set_again_moves_to_the_end_and_copies_stay() {
        let mut variables = Variables::default();
        for name in ["a", "b", "c"] {
            variables.set(name, "1");
        }
        let copy = variables.clone();
        variables.set("a", "2");
        assert_eq!(variables.pairs(), [("b", "1"), ("c", "1"), ("a", "2")]);
        assert_eq!(copy.pairs(), [("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!((variables.value("a"), copy.value("a")), (Some("2"), Some("1")));
        assert_eq!(variables.value("d"), None);
        assert_ne!(variables, copy);
    }

    #[test]
    fn many_are_all_there() {
        let mut variables = Variables::default();
        for n in 0..10_000 {
            variables.set(&format!("NAME_{}", n % 3_000), &format!("{n}"));
        }
        assert_eq!(variables.pairs().len(), 3_000);
        assert_eq!(variables.pairs()[0], ("NAME_1000", "7000"));
        assert_eq!(variables.value("NAME_999"), Some("9999"));
    }
}
