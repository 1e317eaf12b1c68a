//! Finds the point of divergence, and scans the target's WAL beyond it.
//!
//! The timeline history files give this point for different timelines. They do not show that two servers were
//! promoted independently at the same point, nor that one side wrote WAL on the common timeline that the other
//! never received. Therefore the last bytes of the presumed common WAL are compared as well. If they differ, the
//! true point is searched segment by segment.

use std::path::PathBuf;

use walparse::scan::{EndOfWal, RebuiltBlocks, Scan, ScanError, ScanRequest, scan};
use walparse::{
    ClusterState, ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, TimelineId,
    WalFault, WalGeometry, WalReadError, WalReader, before_page_header,
};

use crate::outcome::Divergence;
use crate::plan::Clusters;
use crate::progress::{Progress, Stage};
use crate::source::{Source, SourceError, read_part};
use crate::wal::error::WalError;
use crate::wal::source::{REMOVABLE, SourceWal, source_end};
use crate::wal::target::{FetchWalError, TargetWal};

/// Bytes of WAL compared before a presumed fork. A few pages contain many records, and the checksum of each record
/// covers its link to the one before (`xl_prev`).
const COMPARED_BYTES: u64 = 64 * 1024;

/// Why the point of divergence could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DivergenceError {
    /// The two clusters never had a timeline in common.
    #[error("could not find common ancestor of the source and target cluster's timelines")]
    NoAncestor,
    /// The WAL differs where it should be the same, and one side has no older WAL to compare.
    #[error(
        "could not find the point of divergence: WAL of source and target differs before {lsn}, and older WAL does not exist on both sides"
    )]
    Unknown {
        /// The start of the oldest segment that was compared.
        lsn: Lsn,
    },
    /// Both are on one timeline, where only WAL can show a divergence, and one side no longer has it.
    #[error("could not compare the WAL of source and target: {file} does not exist")]
    NotComparable {
        /// The missing segment, with its side.
        file: String,
    },
    /// WAL could not be found or read.
    #[error(transparent)]
    Wal(#[from] WalError),
}

impl From<SourceError> for DivergenceError {
    fn from(error: SourceError) -> DivergenceError {
        DivergenceError::Wal(error.into())
    }
}

impl From<WalReadError> for DivergenceError {
    fn from(error: WalReadError) -> DivergenceError {
        DivergenceError::Wal(error.into())
    }
}

impl DivergenceError {
    /// Whether it does not matter if data is compared.
    pub(crate) fn is_cured_by_comparing(&self) -> bool {
        match self {
            DivergenceError::Wal(error) => error.is_cured_by_comparing(),
            _ => true,
        }
    }

    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            DivergenceError::Wal(error) => return error.hint(),
            DivergenceError::NotComparable { .. } => {
                "Both are on one timeline, and only this WAL can show whether the target has diverged. Take a new base backup or, if you are sure that the target has not diverged, start it as a standby that can restore WAL from an archive."
            }
            DivergenceError::NoAncestor | DivergenceError::Unknown { .. } => {
                "The target cannot be rewound to this source. Take a new base backup."
            }
        };
        Some(hint.to_owned())
    }
}

/// The fork by the history files: the last common timeline, and where the target left it (`None`: both end on it).
///
/// # Errors
/// The histories have no timeline in common.
pub(crate) fn from_histories(
    source: &TimelineHistory,
    target: &TimelineHistory,
) -> Result<(TimelineId, Option<Lsn>), DivergenceError> {
    target.common_with(source).ok_or(DivergenceError::NoAncestor)
}

/// What the search for the point of divergence needs.
pub(crate) struct Sides<'a> {
    pub(crate) clusters: &'a Clusters,
    pub(crate) source: &'a dyn Source,
    pub(crate) source_history: &'a TimelineHistory,
    pub(crate) progress: &'a dyn Progress,
    /// Whether a target without diverged WAL is rewound all the same, as if it had diverged at the end of its WAL.
    pub(crate) rewinds_anyway: bool,
    /// Whether to find blocks that replay rebuilds.
    pub(crate) rebuilt: RebuiltBlocks,
}

/// The point of divergence, and the scan of the target's WAL.
pub(crate) struct Found {
    pub(crate) divergence: Divergence,
    pub(crate) scan: Scan,
    /// Whether WAL of both sides was compared before that point.
    pub(crate) is_compared: bool,
}

/// Finds the true point of divergence, and scans the target's WAL beyond it. `presumed` is the fork by the history
/// files; `None` if both sides end on the same timeline. [`Scan::diverged`] is `None` if the target has not
/// diverged.
///
/// # Errors
/// WAL is missing or invalid, or the point of divergence cannot be determined.
pub(crate) fn find(
    sides: &Sides<'_>,
    wal: &mut TargetWal<'_>,
    presumed: Option<Lsn>,
) -> Result<Found, DivergenceError> {
    let control = &sides.clusters.target;
    let geometry = control.geometry();
    let required_end = require_own(wal, control)?;
    let scan_to = |wal: &TargetWal<'_>, fork: Lsn| scan_target(sides, wal, fork, required_end);
    let source_wal = SourceWal { source: sides.source, history: sides.source_history, geometry };
    let first = match (scan_to(wal, presumed.unwrap_or(Lsn(u64::MAX))), presumed) {
        // WAL missing before the fork may be taken from the source, once the WAL of both is known to be the same
        // there.
        (Err(missing), Some(fork)) if is_incomplete(&missing) => {
            let limit = fork.min(required_end);
            if !matches!(confirm(wal, &source_wal, limit)?, Confirmation::Same) {
                return Err(missing);
            }
            wal.set_limits(limit, required_end);
            scan_to(wal, fork)?
        }
        (first, _) => first?,
    };
    let awaited = presumed.map_or(first.end, |fork| fork.min(first.end));
    let (source_end, comparable) =
        source_end(sides.source, &sides.clusters.source, sides.source_history, awaited)?;
    let common_end = presumed.map_or(source_end, |fork| fork.min(source_end));
    let confirmed = confirm(wal, &source_wal, awaited.min(comparable))?;
    let is_compared = !matches!(confirmed, Confirmation::Unknown { .. });
    let lsn = match confirmed {
        Confirmation::Differs { fork } => {
            tracing::info!("WAL of source and target differs from {fork} on");
            fork
        }
        Confirmation::Unknown { file } if presumed.is_none() => {
            return Err(DivergenceError::NotComparable { file });
        }
        _ if first.end <= common_end && sides.rewinds_anyway => {
            let divergence = Divergence { lsn: first.end, timeline: timeline_before(wal, first.end) };
            wal.set_limits(first.end, required_end);
            // With a fork inside the last record, all changes since the checkpoint before it count as diverged.
            return Ok(Found { divergence, scan: scan_to(wal, Lsn(first.end.0 - 1))?, is_compared });
        }
        _ if first.end <= common_end => {
            let divergence = Divergence { lsn: common_end, timeline: timeline_before(wal, common_end) };
            let mut scan = first;
            scan.diverged = None;
            return Ok(Found { divergence, scan, is_compared });
        }
        _ if presumed == Some(common_end) => common_end,
        // The target has WAL beyond the end of the source's.
        _ => record_boundary(wal, geometry.segment_size.segment_before(common_end), common_end, &geometry)?,
    };
    let divergence = Divergence { lsn, timeline: timeline_before(wal, lsn) };
    if presumed == Some(lsn) {
        return Ok(Found { divergence, scan: first, is_compared });
    }
    wal.set_limits(lsn, required_end);
    Ok(Found { divergence, scan: scan_to(wal, lsn)?, is_compared })
}

/// Scans a target that has not diverged from its last checkpoint on, as if it had diverged at `end`, the end of its
/// WAL. Replay from that checkpoint on brings all later changes of the source.
pub(crate) fn since_checkpoint(
    sides: &Sides<'_>,
    wal: &mut TargetWal<'_>,
    end: Lsn,
) -> Result<Found, DivergenceError> {
    let required_end = require_own(wal, &sides.clusters.target)?;
    wal.set_limits(end, required_end);
    // One byte behind the start of its record, so that this is the last checkpoint before the fork.
    let fork = sides.clusters.newest_target_checkpoint().advance(1);
    let scan = scan_target(sides, wal, fork, required_end)?;
    let divergence = Divergence { lsn: end, timeline: timeline_before(wal, end) };
    // On one timeline WAL has been compared before.
    Ok(Found { divergence, scan, is_compared: true })
}

/// Scans the target's WAL beyond a known point of divergence.
pub(crate) fn beyond(
    clusters: &Clusters,
    wal: &mut TargetWal<'_>,
    fork: Lsn,
    progress: &dyn Progress,
) -> Result<Found, DivergenceError> {
    let required_end = require_own(wal, &clusters.target)?;
    let rebuilt = RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) };
    let request = request(clusters, fork, required_end, rebuilt);
    let advance = |bytes| progress.advance(Stage::Scan, bytes);
    let scan = scan(wal, &request, &advance).map_err(|error| scan_error(error, wal))?;
    let divergence = Divergence { lsn: fork, timeline: timeline_before(wal, fork) };
    Ok(Found { divergence, scan, is_compared: true })
}

/// Reads the target's WAL to its end to find errors in it.
pub(crate) fn check_end(wal: &mut TargetWal<'_>, clusters: &Clusters) -> Result<(), DivergenceError> {
    let required_end = require_own(wal, &clusters.target)?;
    let request = request(clusters, Lsn(u64::MAX), required_end, RebuiltBlocks::Ignore);
    Ok(scan(wal, &request, &|_| {}).map(|_| ()).map_err(|error| scan_error(error, wal))?)
}

/// Whether the source's WAL goes on from `end`: its history reaches that far, and the WAL before it is the same as
/// the target's.
pub(crate) fn goes_on_from(
    wal: &TargetWal<'_>,
    source: &SourceWal<'_>,
    control: &ControlFile,
    end: Lsn,
) -> Result<bool, DivergenceError> {
    let (source_end, comparable) = source_end(source.source, control, source.history, end)?;
    let is_within = end <= source_end && end <= comparable;
    Ok(is_within && matches!(confirm(wal, source, end)?, Confirmation::Same))
}

/// Scans the target's WAL for changes beyond `fork`.
fn scan_target(
    sides: &Sides<'_>,
    wal: &TargetWal<'_>,
    fork: Lsn,
    required_end: Lsn,
) -> Result<Scan, DivergenceError> {
    let request = request(sides.clusters, fork, required_end, sides.rebuilt);
    let progress = |bytes| sides.progress.advance(Stage::Scan, bytes);
    Ok(scan(wal, &request, &progress).map_err(|error| scan_error(error, wal))?)
}

/// The request to scan the target's WAL from the last checkpoint before `fork` on.
fn request(clusters: &Clusters, fork: Lsn, required_end: Lsn, rebuilt: RebuiltBlocks) -> ScanRequest {
    let control = &clusters.target;
    let end = match control.state() {
        ClusterState::ShutDown => EndOfWal::Known,
        ClusterState::ShutDownInRecovery => EndOfWal::Open,
        _ if clusters.label.is_some() => EndOfWal::Open,
        _ => EndOfWal::Crashed,
    };
    ScanRequest::new(control.geometry(), fork, clusters.newest_target_checkpoint(), required_end)
        .with_end(end)
        .with_rebuilt(rebuilt)
        .with_counted_rows()
}

/// The timeline of the last byte before `lsn`.
fn timeline_before(wal: &TargetWal<'_>, lsn: Lsn) -> TimelineId {
    wal.history().timeline_at(Lsn(lsn.0.saturating_sub(1)))
}

/// Limits the WAL to the target's own, and returns how far it must exist. WAL of the source is not used in place of
/// the target's before both have been compared.
fn require_own(wal: &mut TargetWal<'_>, control: &ControlFile) -> Result<Lsn, DivergenceError> {
    wal.set_limits(Lsn::INVALID, control.checkpoint_lsn().advance(1));
    let required_end = required_end(wal, control)?;
    wal.set_limits(Lsn::INVALID, required_end);
    Ok(required_end)
}

/// How far the target's WAL must exist: to the end of its last checkpoint record or to its minRecoveryPoint,
/// whichever is later.
fn required_end(wal: &TargetWal<'_>, control: &ControlFile) -> Result<Lsn, DivergenceError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(wal, control.geometry(), lsn);
    let end = match reader.read().map_err(|error| WalError::Scan(error.into()))? {
        Ok(record) if walparse::rmgr::is_checkpoint(&record.header) => {
            return Ok(record.end.max(control.min_recovery_point()));
        }
        Ok(record) => (record.lsn, WalFault::Fragment("not the checkpoint record the control file names")),
        Err(end) => (end.fault_at, end.fault),
    };
    let needed = lsn.advance(1);
    let error = if end.1 == WalFault::NoSegment {
        let segment = control.geometry().segment_size.segment_of(end.0);
        ScanError::Missing { segment, file: wal.describe(segment), needed, all: vec![segment] }
    } else {
        ScanError::BreaksOff { position: lsn, needed, fault: end.1 }
    };
    Err(scan_error(error, wal).into())
}

/// The error of a scan; for missing WAL with all missing files and the places that were searched.
/// Whether a segment is missing, or its file is cut off.
fn is_incomplete(error: &DivergenceError) -> bool {
    let DivergenceError::Wal(error) = error else { return false };
    matches!(
        error,
        WalError::Missing { .. }
            | WalError::Scan(
                ScanError::BreaksOff { fault: WalFault::FileTooShort, .. }
                    | ScanError::Damaged { fault: WalFault::FileTooShort, .. }
            )
    )
}

fn scan_error(error: ScanError, wal: &TargetWal<'_>) -> WalError {
    match error {
        ScanError::Missing { file, needed, all, .. } => {
            let name = |segment: &SegmentNo| {
                let path = PathBuf::from(wal.describe(*segment));
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            };
            WalError::Missing { file, all: all.iter().map(name).collect(), needed, places: wal.places() }
        }
        other => WalError::Scan(other),
    }
}

/// The result of comparing the WAL of both sides.
enum Confirmation {
    /// No difference was found.
    Same,
    /// It differs from `fork` on, which is the end of a record.
    Differs { fork: Lsn },
    /// One side no longer has the segment.
    Unknown { file: String },
}

/// Compares the WAL of both sides up to `presumed`, and finds the true fork if it differs.
fn confirm(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    presumed: Lsn,
) -> Result<Confirmation, DivergenceError> {
    let size = source.geometry.segment_size;
    let mut segment = size.segment_before(presumed);
    let (mut from, mut end) = (last_bytes(size.start_of(segment), presumed), presumed);
    let mut compared = compare(target, source, segment, from, end)?;
    if compared == Compared::Same && presumed.0 - from.0 < COMPARED_BYTES && segment.0 > 1 {
        // Too few bytes to prove it: compare the end of the segment before as well, if both have it.
        let before = SegmentNo(segment.0 - 1);
        let last = last_bytes(size.start_of(before), size.end_of(before));
        if let differs @ Compared::Differs { .. } =
            compare(target, source, before, last, size.end_of(before))?
        {
            (segment, from, end, compared) = (before, last, size.end_of(before), differs);
        }
    }
    let mut fork = None;
    loop {
        match compared {
            Compared::Same => break,
            Compared::Gone { file } if fork.is_none() => return Ok(Confirmation::Unknown { file }),
            Compared::Gone { .. } => return Err(DivergenceError::Unknown { lsn: end }),
            Compared::Differs { at } => fork = Some(at),
        }
        // Only the end of the segment has been compared, so the first difference may lie before it.
        if from > size.start_of(segment) {
            (from, end) = (size.start_of(segment), fork.unwrap_or(end).advance(1));
        } else if fork.is_some_and(|at| has_whole_record(target, source, segment, at).unwrap_or(false)) {
            // Each record is linked to the one before: equal records prove that all WAL before them is equal.
            break;
        } else if segment.0 > 1 {
            segment = SegmentNo(segment.0 - 1);
            (from, end) = (size.start_of(segment), size.end_of(segment));
        } else {
            break;
        }
        compared = compare(target, source, segment, from, end)?;
    }
    match fork {
        None => Ok(Confirmation::Same),
        Some(at) => {
            let fork = record_boundary(target, size.segment_before(at), at, &source.geometry)?;
            Ok(Confirmation::Differs { fork })
        }
    }
}

/// Whether a whole record starts in `segment` and ends before `at`.
fn has_whole_record(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    segment: SegmentNo,
    at: Lsn,
) -> Result<bool, WalReadError> {
    let size = source.geometry.segment_size;
    let mut reader = WalReader::new(target, source.geometry, size.start_of(segment));
    if !matches!(reader.seek_first_in(segment)?, Ok(Some(_))) {
        return Ok(false);
    }
    Ok(reader.read()?.is_ok_and(|record| record.end <= at))
}

/// Start of the last [`COMPARED_BYTES`] before `end`, but not before `start`.
fn last_bytes(start: Lsn, end: Lsn) -> Lsn {
    start.max(Lsn(end.0.saturating_sub(COMPARED_BYTES)))
}

/// End of the target's last record that lies wholly before `limit`. It is searched from the segment before
/// `segment` on, in which a record that goes on in `segment` may start.
fn record_boundary(
    target: &TargetWal<'_>,
    segment: SegmentNo,
    limit: Lsn,
    geometry: &WalGeometry,
) -> Result<Lsn, DivergenceError> {
    let first = if target.open_own(SegmentNo(segment.0.saturating_sub(1).max(1)))?.is_some() {
        SegmentNo(segment.0.saturating_sub(1).max(1))
    } else {
        segment
    };
    let mut reader = WalReader::new(target, *geometry, geometry.segment_size.start_of(first));
    if !matches!(reader.seek_first_in(first)?, Ok(Some(_))) {
        return Ok(limit);
    }
    loop {
        let boundary = reader.position();
        match reader.read()? {
            Ok(record) if record.end <= limit => {}
            _ => return Ok(before_page_header(boundary, geometry)),
        }
    }
}

/// The result of comparing one range of WAL.
#[derive(PartialEq)]
enum Compared {
    Same,
    Differs {
        at: Lsn,
    },
    /// One side does not have the file.
    Gone {
        file: String,
    },
}

/// Compares `from..end`, which lies in `segment`.
fn compare(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    segment: SegmentNo,
    from: Lsn,
    end: Lsn,
) -> Result<Compared, DivergenceError> {
    let size = source.geometry.segment_size;
    let Some(ours) = target.open_own(segment)? else {
        return Ok(Compared::Gone { file: format!("file \"{}\" of the target", target.describe(segment)) });
    };
    let offset = (from.0 - size.start_of(segment).0) as usize;
    let length = (end.0.saturating_sub(from.0)) as usize;
    let Some(theirs) = source_part(target, source, segment, offset, length)? else {
        return Ok(Compared::Gone { file: format!("file \"{}\" of the source", source.describe(segment)) });
    };
    let ours = ours.get(offset..offset + length).unwrap_or_default();
    let differs = first_difference(ours, &theirs, from, source.geometry.wal_block_size);
    Ok(differs.map_or(Compared::Same, |at| Compared::Differs { at }))
}

/// Bytes of a segment of the source's history; `None` if there are none. If the source no longer has the segment,
/// it is searched where missing WAL of the target is searched. This requires that its name differs from that of the
/// target's segment.
fn source_part(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    segment: SegmentNo,
    offset: usize,
    length: usize,
) -> Result<Option<Vec<u8>>, DivergenceError> {
    let part = read_part(source.source, &source.path(segment)?, offset as u64, length as u64)?;
    let name = source.describe(segment);
    if part.is_some() || target.describe(segment).ends_with(&name) {
        return Ok(part);
    }
    let failed =
        |error: FetchWalError| WalReadError::Fetch { segment: name.clone(), source: Box::new(error) };
    let Some(path) = target.find_elsewhere(&name, false).map_err(failed)? else { return Ok(None) };
    let bytes = FileBytes::open(&path).map_err(|source| WalReadError::Open { path, source })?;
    Ok(bytes.get(offset..offset + length).map(<[u8]>::to_vec))
}

/// The first byte at which two copies of the WAL from `at` on differ. `block` is the size of a WAL page in bytes.
fn first_difference(ours: &[u8], theirs: &[u8], at: Lsn, block: u32) -> Option<Lsn> {
    let mut pairs = ours.iter().zip(theirs).enumerate();
    let differs = pairs.find(|(index, (ours, theirs))| {
        let in_page = (at.0 + *index as u64) % u64::from(block);
        ours != theirs && !(in_page == 2 && **ours ^ **theirs == REMOVABLE)
    });
    let shorter = (ours.len() != theirs.len()).then_some(ours.len().min(theirs.len()));
    differs.map(|(index, _)| index).or(shorter).map(|index| at.advance(index as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_removable_flag_is_no_difference() {
        let page = vec![0u8; 8192];
        let mut other = page.clone();
        other[2] = 0x04;
        assert_eq!(first_difference(&page, &other, Lsn(8192), 8192), None);
        other[3] = 1;
        assert_eq!(first_difference(&page, &other, Lsn(8192), 8192), Some(Lsn(8195)));
        assert_eq!(first_difference(&page, &page[..100], Lsn(8192), 8192), Some(Lsn(8292)));
        // The same byte elsewhere in a page is a difference.
        assert_eq!(first_difference(&page[..4], &[0, 0, 4, 0], Lsn(8200), 8192), Some(Lsn(8202)));
    }
}
