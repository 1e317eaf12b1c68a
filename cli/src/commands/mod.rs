//! The commands, one module each.

mod common;
pub(crate) mod compare;
pub(crate) mod grants;
pub(crate) mod hook;
pub(crate) mod inspect;
pub(crate) mod lost;
pub(crate) mod package;
pub(crate) mod restore;
pub(crate) mod rewind;
pub(crate) mod status;
