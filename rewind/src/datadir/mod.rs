//! The parts of a data directory: paths, files, lock file, `backup_label`, configuration, and the product that created
//! it.

pub(crate) mod data_path;
pub(crate) mod inventory;
pub(crate) mod walk;
pub(crate) mod exclude;
pub(crate) mod keep;
pub(crate) mod label;
pub(crate) mod mounts;
pub(crate) mod flavor;
pub(crate) mod server;
pub(crate) mod starts_as;
pub(crate) mod running;
mod process;
pub mod config;
