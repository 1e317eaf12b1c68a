//! Names of the log events of a normal run, for programs that report them in their own words.
//!
//! A named event carries its name in the `tracing` field `milestone`. A run logs each of them at most once.
//! Warnings and errors have no name, except [`NO_STANDBY`].

/// The data directory of the source (level debug; a server reports it to privileged roles only).
pub const SOURCE_DIRECTORY: &str = "source directory";
/// The connections to a running source are open.
pub const CONNECTED: &str = "connected";
/// The point of divergence was found.
pub const DIVERGED: &str = "diverged";
/// The last common checkpoint was found.
pub const COMMON_CHECKPOINT: &str = "common checkpoint";
/// When the search for the last common checkpoint began and ended.
pub const CHECKPOINT_SEARCH: &str = "checkpoint search";
/// The plan is complete (level debug). The fields `fetch_bytes` and `total_bytes` are the bytes to fetch from the
/// source and the bytes in its data directory.
pub const PLANNED: &str = "planned";
/// Copying begins.
pub const COPYING: &str = "copying";
/// All data has been copied; WAL, control file and `backup_label` follow (level debug).
pub const SEALING: &str = "sealing";
/// The rewound target is not configured as a standby (level warning).
pub const NO_STANDBY: &str = "no standby";
