//! The source of a rewind: a running server or the data directory of a stopped one.
//!
//! A source is only read, never written. The interface ([`Source`]) is synchronous and may be called from any
//! number of threads; the asynchronous client for a running server is private to its implementation.

mod directory;
mod error;
mod observed;
pub(crate) mod page_check;
mod parts;
mod rate_limit;
mod seam;
mod server;

pub use crate::datadir::walk::WalkError;
pub use directory::DirectorySource;
pub(crate) use directory::read_up_to;
pub use error::SourceError;
pub(crate) use observed::ObservedSource;
pub use page_check::DamagedBlocks;
pub(crate) use parts::{read_part, read_part_at, store_part};
pub(crate) use rate_limit::{Pace, RateLimit};
pub use seam::{
    ChunkSink, Comparand, Connected, FetchError, FetchRange, MAX_RANGE, SlotState, Source, SummarizedBlocks,
    WalPosition, WalSummaries, WalSummary,
};
pub use server::ServerSource;
pub use server::error::{ConnectProblem, ServerError};
pub use server::grants::grants;
pub use server::question::{Answer, ask, ask_for_replication};
