//! Where WAL is found: the target's own, the source's, an archive; and the blocks that it names.

pub(crate) mod target;
pub mod archive;
pub(crate) mod changed;
