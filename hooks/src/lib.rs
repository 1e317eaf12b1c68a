//! What is done around a rewind with the programs of a server.
//!
//! The engine runs none of them; whoever wants it done the old way hands it one of these.

#![warn(missing_docs)]

mod programs;
mod single_user;

#[cfg(test)]
mod testing;

pub use programs::{ProgramError, ServerVersion, find_server, major_number, server_version};
pub use single_user::SingleUserServer;
