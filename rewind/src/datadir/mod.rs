//! What a data directory is: its paths, its files, its label, its configuration, and which product made it.

pub(crate) mod data_path;
pub(crate) mod inventory;
pub(crate) mod walk;
pub(crate) mod exclude;
pub(crate) mod keep;
pub(crate) mod label;
pub(crate) mod flavor;
pub(crate) mod server;
pub mod config;
