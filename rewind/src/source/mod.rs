//! The seam to where the good history is: a running server or a stopped data directory.
//!
//! A source is only ever read. It is called from ordinary threads; what is asynchronous about a server
//! stays inside its implementation.

mod directory;
mod error;
mod observed;
mod parts;
mod seam;
mod server;

pub use crate::datadir::walk::WalkError;
pub use directory::DirectorySource;
pub use error::SourceError;
pub(crate) use observed::ObservedSource;
pub(crate) use parts::{read_part, store_part};
pub use seam::{ChunkSink, Comparand, FetchError, FetchRange, MAX_RANGE, Source, WalPosition};
pub use server::ServerSource;
pub use server::error::{ConnectProblem, ServerError};
pub use server::grants::grants;
pub use server::question::{Answer, ask};
