//! Reports the progress of a run to its caller.

use std::fmt;

use jiff::Timestamp;

use crate::outcome::{CheckpointAt, Divergence, ReplayStart};
use crate::shown::Size;

/// The stages whose progress is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the target's WAL; counted in bytes.
    Scan,
    /// Listing the files of both sides; not counted.
    Inventory,
    /// Reading the source's WAL, from where replay may start to its end; counted in bytes.
    SourceWal,
    /// Comparing the data of both sides; counted in bytes.
    Compare,
    /// Copying from the source; counted in bytes.
    Copy,
    /// Making the changes durable; counted in files.
    Sync,
}

/// An event of a normal run. A run reports each of them at most once, in this order. Its text ([`fmt::Display`]) is the
/// message that kbrecover shows for it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connections to a running source are open.
    Connected {
        /// Host and port, or the socket.
        server: String,
        /// `server_version_num`.
        version: u32,
        /// The number of connections.
        connections: usize,
    },
    /// The data directory of the source is known. A server reports it to privileged roles only.
    SourceDirectory {
        /// On the source's machine.
        directory: String,
    },
    /// The point of divergence was found.
    Diverged(Divergence),
    /// The last common checkpoint was found.
    CommonCheckpoint(CheckpointAt),
    /// The search for the last common checkpoint has ended.
    CheckpointSearch {
        /// When it began.
        since: Timestamp,
        /// When it ended.
        until: Timestamp,
    },
    /// It was chosen where replay starts.
    ReplayStart(ReplayStart),
    /// The data of both sides is about to be compared.
    Comparing {
        /// Bytes of relation files on each side.
        bytes: u64,
    },
    /// The plan is complete.
    Planned {
        /// Bytes to fetch from the source.
        fetch_bytes: u64,
        /// Bytes in its data directory.
        total_bytes: u64,
    },
    /// Copying begins.
    Copying {
        /// Bytes to fetch from the source.
        fetch_bytes: u64,
    },
    /// All data has been copied, and is about to be compared with the source's.
    Verifying {
        /// Bytes of relation files.
        bytes: u64,
    },
    /// All data has been copied; WAL, control file and `backup_label` follow.
    Sealing,
}

impl Event {
    /// Logs the event with `tracing`: what an operator need not know at level debug, everything else at level info.
    pub fn log(&self) {
        match self {
            Event::SourceDirectory { .. } | Event::Planned { .. } | Event::Sealing => {
                tracing::debug!("{self}")
            }
            _ => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { server, version, connections } => {
                write!(f, "connected to {server}, version {version}, {connections} connection(s)")
            }
            Event::SourceDirectory { directory } => write!(f, "datadir_source = {directory}"),
            Event::Diverged(Divergence { lsn, timeline }) => {
                write!(f, "servers diverged at WAL location {lsn} on timeline {timeline}")
            }
            Event::CommonCheckpoint(CheckpointAt { lsn, timeline, .. }) => {
                write!(f, "rewinding from last common checkpoint at {lsn} on timeline {timeline}")
            }
            Event::CheckpointSearch { since, until } => {
                write!(f, "common checkpoint found in {:.2} s", until.duration_since(*since).as_secs_f64())
            }
            Event::ReplayStart(start) => write_replay_start(f, start),
            Event::Comparing { bytes } => {
                write!(f, "comparing {} of relation files on both sides", Size(*bytes))
            }
            Event::Planned { fetch_bytes, total_bytes } => {
                write!(f, "{fetch_bytes} bytes are to be copied, of {total_bytes} that the source has")
            }
            Event::Copying { fetch_bytes } => {
                write!(f, "copying {} from the source", Size(*fetch_bytes))
            }
            Event::Verifying { bytes } => {
                write!(f, "verifying {} of relation files", Size(*bytes))
            }
            Event::Sealing => f.write_str("all data has been copied"),
        }
    }
}

fn write_replay_start(f: &mut fmt::Formatter<'_>, start: &ReplayStart) -> fmt::Result {
    let (chosen, at) = (start.chosen(), start.checkpoint);
    let which = if start.is_newest() { "source's newest" } else { "last common" };
    write!(
        f,
        "replay starts at {}, redo of the {which} checkpoint: {} of WAL",
        at.redo,
        Size(chosen.wal_bytes)
    )?;
    if chosen.more_bytes > 0 {
        write!(f, ", {} of blocks", Size(chosen.more_bytes))?;
    }
    write!(f, ", about {:.0} s", chosen.seconds())?;
    let Some(newest) = start.newest else { return Ok(()) };
    let (other, which) =
        if start.is_newest() { (start.common, "last common") } else { (newest, "source's newest") };
    write!(
        f,
        " ({which} checkpoint: {}, about {:.0} s)",
        Size(other.wal_bytes + other.more_bytes),
        other.seconds()
    )?;
    if !start.is_newest() {
        return Ok(());
    }
    write!(f, "; the source's changes are known from {}", start.source_changes)
}

/// Receives the progress of a run. Its methods are called from many threads at once.
pub trait Progress: Send + Sync {
    /// A stage begins. `total` is its size in the stage's unit, if that is known.
    fn begin(&self, stage: Stage, total: Option<u64>);
    /// `amount` more is done, in the stage's unit.
    fn advance(&self, stage: Stage, amount: u64);
    /// The stage has ended.
    fn finish(&self, stage: Stage);
    /// Something that belongs to a normal run has happened. By default it is logged: see [`Event::log`].
    fn event(&self, event: &Event) {
        event.log();
    }
}

/// Reports nothing; events are logged.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: u64) {}
    fn finish(&self, _: Stage) {}
}
