//! Whether a run can continue with the server of a new connection: its WAL must contain everything that has been read.

use walparse::{Lsn, TimelineHistory, TimelineId};

use super::queries::Witness;
use crate::source::seam::WalPosition;

/// What has been seen of the source so far.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) system_identifier: u64,
    /// Upper bound of the WAL position of everything read, ...
    end: Lsn,
    /// ... on this timeline.
    timeline: TimelineId,
    /// Lower bound: replay from here brings everything read up to date.
    pub(super) redo: Lsn,
    /// The number of servers that were the source before the present one. Results of those are not accepted.
    pub(super) server: u64,
}

/// Why a run cannot continue with a server.
#[derive(PartialEq, Debug)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) may_pass: bool,
}

impl Seen {
    pub(super) fn first(witness: &Witness) -> Seen {
        let control = &witness.control;
        let mut seen = Seen {
            system_identifier: control.system_identifier(),
            end: Lsn::INVALID,
            timeline: control.timeline(),
            redo: control.checkpoint().redo,
            server: 0,
        };
        seen.advance(witness);
        seen
    }

    /// Records a witness: the upper bound of what was read before it.
    pub(super) fn advance(&mut self, witness: &Witness) {
        let end = match witness.position {
            WalPosition::Primary { flush, .. } => flush,
            // A standby advances minRecoveryPoint before it writes a page of later WAL.
            _ => witness.control.min_recovery_point(),
        };
        if end >= self.end {
            (self.end, self.timeline) = (end, witness.control.timeline());
        }
    }

    /// Why the run cannot continue with the server that has this history; `None` if it can.
    pub(super) fn problem(&self, witness: &Witness, history: &TimelineHistory) -> Option<Problem> {
        let control = &witness.control;
        let problem = |text: String, may_pass| Some(Problem { text, may_pass });
        let (ours, theirs) = (self.system_identifier, control.system_identifier());
        if ours != theirs {
            return problem(format!("it belongs to another database system ({theirs}, not {ours})"), false);
        }
        let Seen { end, timeline, redo, .. } = *self;
        let available = match witness.position {
            WalPosition::Primary { flush, .. } => flush,
            WalPosition::Standby { received, .. } => received,
            WalPosition::Stopped => control.checkpoint_lsn(),
        };
        if available < end {
            return problem(format!("its WAL ends at {available}, but the source had reached {end}"), true);
        }
        let there = history.timeline_at(Lsn(end.0.saturating_sub(1)));
        if there != timeline {
            // A standby may not have received the new timeline yet.
            let is_behind = history.timeline() < timeline;
            return problem(format!("at {end} it is on timeline {there}, not {timeline}"), is_behind);
        }
        let oldest = control.checkpoint().redo;
        if oldest < redo {
            return problem(
                format!("its data may be as old as its checkpoint at {oldest}, but replay starts at {redo}"),
                true,
            );
        }
        None
    }
}
