//! Verifies the WAL that the rewound target will replay.

use walparse::scan::{EndOfWal, ScanError, ScanRequest, UnknownChanges, scan};
use walparse::{
    ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, WalDir, WalGeometry, WalReadError,
    WalReader, before_page_header,
};

use crate::apply::error::ApplyError;
use crate::apply::written_meanwhile::check_written_meanwhile;
use crate::plan::Planned;
use crate::plan::wal::WalPlan;
use crate::target::Target;
use crate::wal::error::WalError;

/// Checks that the source's WAL, which is now on the target, can be read from the redo location to `available`, the
/// end of what the source had on disk. Returns the end of its last record. This is the minRecoveryPoint: every page
/// that was copied has been changed by records before it only, because a page reaches the source's disk after its
/// WAL.
///
/// `control` and `history` are the source's.
///
/// # Errors
/// WAL is missing or invalid, or replay of it would not surely make the target's content the source's.
pub(super) fn verify_wal(
    target: &Target,
    control: &ControlFile,
    history: &TimelineHistory,
    planned: &Planned<'_>,
    plan: &WalPlan,
    available: Lsn,
) -> Result<Lsn, ApplyError> {
    let geometry = control.geometry();
    let directory = target.root().join(geometry.version.wal_dir());
    let store = UpTo {
        wal: WalDir::new(directory, history.clone(), geometry.segment_size),
        last: geometry.segment_size.segment_before(available),
    };
    let start = first_unread(planned, plan, &store, geometry)?;
    let needed = control.checkpoint_lsn().advance(1).max(control.min_recovery_point());
    let required_end = before_page_header(needed, &geometry);
    let request = ScanRequest::new(geometry, Lsn(u64::MAX), start, required_end)
        .with_end(EndOfWal::Open)
        .with_unknown_changes(UnknownChanges::Ignore);
    let found = scan(&store, &request, &|_| {}).map_err(WalError::Incomplete)?;
    // Only the record that the source was just writing may be incomplete.
    let last_byte = available.0.saturating_sub(1);
    let last_page = Lsn(last_byte - last_byte % u64::from(geometry.wal_block_size));
    if found.stop.fault_at < last_page {
        let (position, fault) = (found.end, found.stop.fault);
        let broken = ScanError::BreaksOff { position, needed: available, fault };
        return Err(WalError::Incomplete(broken).into());
    }
    check_written_meanwhile(planned, &store, &found.files)?;
    Ok(found.end)
}

/// Where reading has to start: at the redo location, or in the last segment that is unchanged since the scan of the
/// target verified it. This segment is read again, because its last record may continue in the first new one.
fn first_unread(
    planned: &Planned<'_>,
    plan: &WalPlan,
    store: &UpTo,
    geometry: WalGeometry,
) -> Result<Lsn, ApplyError> {
    let (redo, size) = (planned.facts.fork.replay_start.checkpoint.redo, geometry.segment_size);
    let Some((_, fork)) = planned.facts.fork.verified.filter(|(since, _)| *since <= redo) else {
        return Ok(redo);
    };
    let brought = plan.copy.iter().map(|file| &file.name).chain(&plan.elsewhere);
    let brought = brought.filter_map(|name| size.parse_file_name(name)).map(|(_, segment)| segment);
    let mut segment = brought.min().unwrap_or(size.segment_of(fork)).min(size.segment_of(fork));
    while segment > size.segment_of(redo) {
        segment = SegmentNo(segment.0 - 1);
        let mut reader = WalReader::new(store, geometry, size.start_of(segment));
        let first = reader.seek_first_in(segment).map_err(|error| WalError::Incomplete(error.into()))?;
        // If no record starts in a segment, a long record continues through it.
        if first != Ok(None) {
            break;
        }
    }
    Ok(redo.max(size.start_of(segment)))
}

/// The WAL of the target up to a segment. Segments behind it are ignored.
struct UpTo {
    wal: WalDir,
    last: SegmentNo,
}

impl SegmentStore for UpTo {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        if segment > self.last { Ok(None) } else { self.wal.open(segment) }
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(Some(self.last))
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.wal.describe(segment)
    }
}
