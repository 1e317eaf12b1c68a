#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod programs;
mod single_user;

pub mod cron;
pub mod flow;
pub mod v8r3;
pub mod v8r6;

mod rejoin;
pub mod recovery_log;
pub mod server;
pub mod sql;
pub mod secret;
pub mod settings;
pub mod shell_config;
mod files;
pub mod guard;
mod host;
mod keep;
mod latest_wal;
pub mod pid_file;
mod ping;
mod remote;
mod slots;
pub mod virtual_address;

#[cfg(test)]
mod testing;

pub use programs::{ProgramError, ServerVersion, find_server, major_number, server_version};
pub use rejoin::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
pub use single_user::SingleUserServer;
