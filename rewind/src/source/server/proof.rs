//! Whether another session may take the place of one that is lost: the server there must go on from where the run has
//! got to.

use walparse::{Lsn, TimelineHistory, TimelineId};

use super::queries::Witness;
use crate::source::seam::WalPosition;

/// What is known of the source so far.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) system_identifier: u64,
    /// Nothing that was read is of later WAL than this, ...
    end: Lsn,
    /// ... on this timeline.
    timeline: TimelineId,
    /// Nor is it older than what replay from here on makes good.
    pub(super) redo: Lsn,
    /// Counts the servers that were the source. What comes from an earlier one is not taken.
    pub(super) server: u64,
}

/// Why a server cannot be gone on with.
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

    /// What was read before this witness is bounded by it.
    pub(super) fn advance(&mut self, witness: &Witness) {
        let end = match witness.position {
            WalPosition::Primary { flush, .. } => flush,
            // A standby writes no page before its minRecoveryPoint is behind it.
            _ => witness.control.min_recovery_point(),
        };
        if end >= self.end {
            (self.end, self.timeline) = (end, witness.control.timeline());
        }
    }

    /// Why the server with this history cannot go on from here; `None` if it can.
    pub(super) fn problem(&self, witness: &Witness, history: &TimelineHistory) -> Option<Problem> {
        let control = &witness.control;
        let problem = |text: String, may_pass| Some(Problem { text, may_pass });
        let (ours, theirs) = (self.system_identifier, control.system_identifier());
        if ours != theirs {
            return problem(format!("it is of another system ({theirs}, not {ours})"), false);
        }
        let Seen { end, timeline, redo, .. } = *self;
        let available = match witness.position {
            WalPosition::Primary { flush, .. } => flush,
            WalPosition::Standby { received, .. } => received,
            WalPosition::Stopped => control.checkpoint_lsn(),
        };
        if available < end {
            return problem(format!("its WAL ends at {available}, but the source had come to {end}"), true);
        }
        let there = history.timeline_at(Lsn(end.0.saturating_sub(1)));
        if there != timeline {
            // A standby may not have noticed its primary's promotion yet.
            let is_behind = history.timeline() < timeline;
            return problem(format!("at {end} it is on timeline {there}, not {timeline}"), is_behind);
        }
        let oldest = control.checkpoint().redo;
        if oldest < redo {
            return problem(
                format!("its data is only as new as its checkpoint at {oldest}, not {redo}"),
                true,
            );
        }
        None
    }
}
