//! The state of a node as its files tell it, which another node asks for before it starts a cluster whose servers are all down.

use serde::{Deserialize, Serialize};
use walparse::{Lsn, TimelineEntry};

use super::config::{HaModule, server_of};
use crate::flow::StepError;
use crate::{files, latest_wal};

/// What decides whether a node may be the primary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeState {
    /// Whether its server is running.
    pub running: bool,
    /// Whether its data directory is that of a standby.
    pub standby: bool,
    /// Whether a rewind of its data directory is unfinished.
    pub unfinished: bool,
    /// The system identifier, as a decimal number.
    pub system_identifier: String,
    /// The latest timeline of which it has WAL.
    pub timeline: u32,
    /// Where this timeline comes from: each timeline with the position at which it began; empty if the history is not known.
    #[serde(default)]
    pub history: Vec<String>,
    /// The position that its data have certainly come to: its latest checkpoint, or its minimum recovery point.
    pub position: String,
}

impl NodeState {
    /// The position as a number.
    pub(super) fn lsn(&self) -> Option<Lsn> {
        self.position.parse().ok()
    }
}

/// Reads the state of this node. Changes nothing.
///
/// # Errors
/// A file cannot be read.
pub fn node_state(config: &HaModule) -> Result<NodeState, StepError> {
    let server = server_of(config);
    let control = latest_wal::control(&server)?;
    let recovered = control.min_recovery_point_timeline().0;
    let timeline = latest_wal::timeline(&server)?.max(recovered);
    let history = latest_wal::history(&server, timeline).map_or_else(
        |_| Vec::new(),
        |history| {
            let shown = |entry: &TimelineEntry| format!("{} from {}", entry.timeline, entry.begin);
            history.entries().iter().map(shown).collect()
        },
    );
    Ok(NodeState {
        running: server.running()?.is_some(),
        standby: server.is_standby()?,
        unfinished: files::is_half_rewound(&server.data)?,
        system_identifier: control.system_identifier().to_string(),
        timeline,
        history,
        position: control.checkpoint_lsn().max(control.min_recovery_point()).to_string(),
    })
}
