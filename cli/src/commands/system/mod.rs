//! The store and the machine: `kiln system`, `kiln info`, `kiln logs`.

pub mod check;
pub mod df;
pub mod info;
pub mod logs;
pub mod prune;
pub mod reset;
