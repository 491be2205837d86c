//! The merged tree of a chain of layers, from their indexes, without unpacking.

use crate::layer::Change;

/// The changes of one layer sorted by path.
#[derive(Debug, Clone)]
pub(crate) struct Order;

impl Order {
    pub(crate) fn of(_changes: &[Change]) -> Self {
        Self
    }
}
