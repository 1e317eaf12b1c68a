//! What is done around a rewind: programs of a server, and the recovery flows of cluster managers.
//!
//! The engine runs no program; whoever wants crash recovery done the old way hands it a [`SingleUserServer`].
//! A recovery flow ([`v8r3`]) is a table of steps ([`flow`]) that decides whether this node must be
//! recovered, and brings it back.

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
mod ping;
mod slots;
pub mod pid_file;
pub mod virtual_address;

#[cfg(test)]
mod testing;

pub use programs::{ProgramError, ServerVersion, find_server, major_number, server_version};
pub use rejoin::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
pub use single_user::SingleUserServer;

/// An error with its sources, for a message that has to be one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
