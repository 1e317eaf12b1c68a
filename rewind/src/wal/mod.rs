//! Where WAL is found: the target's own, the source's, an archive; and the blocks that it names.

pub(crate) mod history;
pub(crate) mod target;
pub(crate) mod source;
pub mod archive;
pub(crate) mod changed;
pub(crate) mod error;
