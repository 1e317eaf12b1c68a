//! Everything that changes the target, in the order of the run: saving what is given up, copying, WAL, sealing.

pub(crate) mod archive_ready;
pub(crate) mod save_diverged;
pub(crate) mod copy;
pub(crate) mod rate_limit;
pub(crate) mod wal;
pub(crate) mod seal;
pub(crate) mod recovery_conf;
pub(crate) mod startup_warnings;
