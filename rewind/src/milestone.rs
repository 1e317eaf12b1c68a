//! The events of a normal run, by name: for programs that tell it in words of their own.
//!
//! Such an event has a field `milestone` with one of these values. All are passed once, in this order, by
//! a run that rewinds; what is out of the ordinary has no name.

/// Where the source's data is (debug; not every role may know that of a server).
pub const SOURCE_DIRECTORY: &str = "source directory";
/// The source is a server, and connections to it are open.
pub const CONNECTED: &str = "connected";
/// Where the histories part.
pub const DIVERGED: &str = "diverged";
/// The last checkpoint both histories share.
pub const COMMON_CHECKPOINT: &str = "common checkpoint";
/// When it was looked for.
pub const CHECKPOINT_SEARCH: &str = "checkpoint search";
/// Everything is decided (debug). The fields `fetch_bytes` and `total_bytes` say how much will be copied of
/// how much there is.
pub const PLANNED: &str = "planned";
/// Copying begins.
pub const COPYING: &str = "copying";
/// All data is there; WAL, control file and label are next (debug).
pub const SEALING: &str = "sealing";
/// The rewound target is not set up to follow anyone.
pub const NO_STANDBY: &str = "no standby";
