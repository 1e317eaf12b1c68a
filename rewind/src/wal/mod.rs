//! Where WAL is found (the target, the source, an archive), and which blocks it changed.

pub(crate) mod history;
pub(crate) mod target;
pub(crate) mod source;
pub(crate) mod replay;
pub(crate) mod summaries;
pub mod archive;
pub(crate) mod temporary;
pub(crate) mod changed;
pub(crate) mod error;
