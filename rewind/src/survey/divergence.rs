//! Where the two histories part, and the target's WAL beyond that.
//!
//! The history files say it for timelines of different ancestry. They say nothing of two servers that
//! were promoted independently at the same point, nor of WAL that one side wrote and the other never
//! had on the same timeline. So the last bytes of the common WAL are compared as well: if they differ, the
//! true point is looked for segment by segment.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use walparse::scan::{EndOfWal, RebuiltBlocks, Scan, ScanError, ScanRequest, scan};
use walparse::{
    ClusterState, ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, TimelineId,
    WalFault, WalGeometry, WalReadError, WalReader, before_page_header,
};

use crate::error::RewindError;
use crate::outcome::Divergence;
use crate::progress::{Progress, Stage};
use crate::source::{Source, SourceError, WalPosition, read_part};
use crate::survey::preflight::Clusters;
use crate::wal::target::{AroundRecord, FetchWalError, SourceWal, TargetWal};

/// How much of the WAL before a presumed fork is compared: a few pages hold many records, and each
/// record's checksum covers its link to the one before.
const COMPARED_BYTES: u64 = 64 * 1024;

/// How long a standby may take to receive what the target has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the point of divergence could not be found.
#[derive(Debug, thiserror::Error)]
pub enum DivergenceError {
    /// The two clusters never had a timeline in common.
    #[error("could not find common ancestor of the source and target cluster's timelines")]
    NoAncestor,
    /// The WAL differs already where it must be the same, and no older WAL is there on both sides.
    #[error(
        "WAL of source and target differs before {lsn}, and no older WAL is there on both sides to find out since where"
    )]
    Unknown {
        /// The start of the oldest segment that was compared.
        lsn: Lsn,
    },
    /// On one timeline nothing but the WAL tells the histories apart, and one side no longer has it.
    #[error("could not compare the WAL of source and target: there is no \"{file}\"")]
    NotComparable {
        /// The segment that would have to be compared.
        file: String,
    },
    /// The end of the source's WAL could not be found.
    #[error("could not read the end of the WAL of the source at {lsn}")]
    SourceEnd {
        /// Where its last record should be.
        lsn: Lsn,
        /// What stands there.
        #[source]
        source: WalFault,
    },
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// WAL could not be read.
    #[error(transparent)]
    Read(#[from] WalReadError),
}

/// The fork the histories name.
pub(crate) fn from_histories(
    source: &TimelineHistory,
    target: &TimelineHistory,
) -> Result<(TimelineId, Option<Lsn>), DivergenceError> {
    target.common_with(source).ok_or(DivergenceError::NoAncestor)
}

/// Both sides, as far as the search for the divergence needs them.
pub(crate) struct Sides<'a> {
    pub(crate) clusters: &'a Clusters,
    pub(crate) source: &'a dyn Source,
    pub(crate) source_history: &'a TimelineHistory,
    pub(crate) progress: &'a dyn Progress,
    /// Whether a target without WAL of its own is taken for one that leaves the source at its end.
    pub(crate) rewinds_anyway: bool,
    /// Whether to look for blocks that replay rebuilds.
    pub(crate) rebuilt: RebuiltBlocks,
}

/// Where the histories part, and the target's WAL beyond that.
pub(crate) struct Found {
    pub(crate) divergence: Divergence,
    pub(crate) scan: Scan,
}

/// Finds the true fork, and scans the target's WAL with it. `presumed` is what the histories say; `None`
/// if both end on the same timeline.
pub(crate) fn find(
    sides: &Sides<'_>,
    wal: &mut TargetWal<'_>,
    presumed: Option<Lsn>,
) -> Result<Found, RewindError> {
    let control = &sides.clusters.target;
    let geometry = control.geometry();
    let required_end = require_own(wal, control)?;
    let scan_to = |wal: &TargetWal<'_>, fork: Lsn| scan_target(sides, wal, fork, required_end);
    let source_wal = SourceWal { source: sides.source, history: sides.source_history, geometry };
    let first = match (scan_to(wal, presumed.unwrap_or(Lsn(u64::MAX))), presumed) {
        // What is missing below the fork the source may have, once it is known to be the same there.
        (Err(missing @ RewindError::MissingWal { .. }), Some(fork)) => {
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
    let lsn = match confirm(wal, &source_wal, awaited.min(comparable))? {
        Confirmation::Differs { fork } => {
            tracing::info!("source and target wrote different WAL from {fork} on");
            fork
        }
        Confirmation::Unknown { file } if presumed.is_none() => {
            return Err(DivergenceError::NotComparable { file }.into());
        }
        _ if first.end <= common_end && sides.rewinds_anyway => {
            let divergence = Divergence { lsn: first.end, timeline: timeline_before(wal, first.end) };
            wal.set_limits(first.end, required_end);
            // A fork inside the last record: everything since the checkpoint before it counts.
            return Ok(Found { divergence, scan: scan_to(wal, Lsn(first.end.0 - 1))? });
        }
        _ if first.end <= common_end => {
            let divergence = Divergence { lsn: common_end, timeline: timeline_before(wal, common_end) };
            let mut scan = first;
            scan.diverged = None;
            return Ok(Found { divergence, scan });
        }
        _ if presumed == Some(common_end) => common_end,
        // The target wrote on where the source's WAL ends.
        _ => record_boundary(wal, geometry.segment_size.segment_before(common_end), common_end, &geometry)?,
    };
    let divergence = Divergence { lsn, timeline: timeline_before(wal, lsn) };
    if presumed == Some(lsn) {
        return Ok(Found { divergence, scan: first });
    }
    wal.set_limits(lsn, required_end);
    Ok(Found { divergence, scan: scan_to(wal, lsn)? })
}

/// For a target that has not diverged: what it wrote since its last checkpoint, as if the histories parted
/// at the end of its WAL. Replay from that checkpoint on brings all that the source has since.
pub(crate) fn since_checkpoint(
    sides: &Sides<'_>,
    wal: &mut TargetWal<'_>,
    end: Lsn,
) -> Result<Found, RewindError> {
    let required_end = require_own(wal, &sides.clusters.target)?;
    wal.set_limits(end, required_end);
    // Just behind the start of its record: that is then the last checkpoint before the fork.
    let fork = sides.clusters.newest_target_checkpoint().advance(1);
    let scan = scan_target(sides, wal, fork, required_end)?;
    Ok(Found { divergence: Divergence { lsn: end, timeline: timeline_before(wal, end) }, scan })
}

/// Reads the target's WAL to its end, for nothing but the errors on the way.
pub(crate) fn check_end(wal: &mut TargetWal<'_>, clusters: &Clusters) -> Result<(), RewindError> {
    let required_end = require_own(wal, &clusters.target)?;
    let request = request(clusters, Lsn(u64::MAX), required_end, RebuiltBlocks::Ignore);
    scan(wal, &request, &|_| {}).map(|_| ()).map_err(|error| scan_error(error, wal))
}

/// Whether the target's WAL up to `end` is the source's, as far as can be seen.
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

/// Scans the target's WAL for what lies beyond `fork`.
fn scan_target(
    sides: &Sides<'_>,
    wal: &TargetWal<'_>,
    fork: Lsn,
    required_end: Lsn,
) -> Result<Scan, RewindError> {
    let request = request(sides.clusters, fork, required_end, sides.rebuilt);
    let progress = |bytes| sides.progress.advance(Stage::Scan, bytes);
    scan(wal, &request, &progress).map_err(|error| scan_error(error, wal))
}

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
}

/// The timeline of the last byte before `lsn`.
fn timeline_before(wal: &TargetWal<'_>, lsn: Lsn) -> TimelineId {
    wal.history().timeline_at(Lsn(lsn.0.saturating_sub(1)))
}

/// Limits the WAL to what is the target's own, and says how far that must be there. Nothing of the source's
/// is taken for the target's own before both have been compared.
fn require_own(wal: &mut TargetWal<'_>, control: &ControlFile) -> Result<Lsn, RewindError> {
    wal.set_limits(Lsn::INVALID, control.checkpoint_lsn().advance(1));
    let required_end = required_end(wal, control)?;
    wal.set_limits(Lsn::INVALID, required_end);
    Ok(required_end)
}

/// How far the target's WAL must be there: the end of its last checkpoint, or its minRecoveryPoint.
fn required_end(wal: &TargetWal<'_>, control: &ControlFile) -> Result<Lsn, RewindError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(wal, control.geometry(), lsn);
    let end = match reader.read().map_err(|error| RewindError::Scan(error.into()))? {
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
    Err(scan_error(error, wal))
}

/// Missing WAL has words of its own.
fn scan_error(error: ScanError, wal: &TargetWal<'_>) -> RewindError {
    match error {
        ScanError::Missing { file, needed, all, .. } => {
            let name = |segment: &SegmentNo| {
                let path = PathBuf::from(wal.describe(*segment));
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            };
            RewindError::MissingWal {
                file,
                all: all.iter().map(name).collect(),
                needed,
                places: wal.places(),
            }
        }
        other => RewindError::Scan(other),
    }
}

/// The end of the source's WAL, and how far of that is on its disk to be compared.
///
/// A standby that still receives may be about to get what the target has, so it is given a moment; a
/// target that is still ahead then could not follow it, whoever is right.
pub(crate) fn source_end(
    source: &dyn Source,
    control: &ControlFile,
    history: &TimelineHistory,
    target_end: Lsn,
) -> Result<(Lsn, Lsn), DivergenceError> {
    let geometry = control.geometry();
    let patience = Instant::now() + PATIENCE;
    loop {
        match source.position()? {
            WalPosition::Primary { insert, flush } => {
                return Ok((before_page_header(insert, &geometry), flush.min(insert)));
            }
            WalPosition::Standby { received, .. } if received >= target_end || Instant::now() >= patience => {
                let end = received.max(control.min_recovery_point());
                return Ok((end, end));
            }
            WalPosition::Standby { .. } => std::thread::sleep(Duration::from_millis(50)),
            WalPosition::Stopped => {
                let wal = SourceWal { source, history, geometry };
                let around = AroundRecord { wal: &wal, lsn: control.checkpoint_lsn(), pages: 2 };
                let end = stopped_end(&around, control)?;
                return Ok((end, end));
            }
        }
    }
}

/// The end of the WAL that a stopped server's data directory depends on: of its last checkpoint record,
/// or the minRecoveryPoint if that is later.
fn stopped_end<S: SegmentStore + ?Sized>(store: &S, control: &ControlFile) -> Result<Lsn, DivergenceError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(store, control.geometry(), lsn);
    match reader.read()? {
        Ok(record) => Ok(record.end.max(control.min_recovery_point())),
        Err(end) => Err(DivergenceError::SourceEnd { lsn, source: end.fault }),
    }
}

/// What comparing both sides came to.
enum Confirmation {
    /// The same, as far as was looked.
    Same,
    /// Different from the record at `fork` on.
    Differs { fork: Lsn },
    /// One side no longer has the segment.
    Unknown { file: String },
}

/// Looks whether the WAL of both sides is the same up to `presumed`, and finds the true fork if not.
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
        // Too little for a proof: so the end of the segment before it, too, if both have it.
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
        // Only the end was compared so far: the first difference may lie before it.
        if from > size.start_of(segment) {
            (from, end) = (size.start_of(segment), fork.unwrap_or(end).advance(1));
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

/// Where the last [`COMPARED_BYTES`] before `end` begin, but not before `start`.
fn last_bytes(start: Lsn, end: Lsn) -> Lsn {
    start.max(Lsn(end.0.saturating_sub(COMPARED_BYTES)))
}

/// The end of the last record of the target that lies wholly before `limit`, looked for from the
/// segment below the one it is in.
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
        return Ok(Compared::Gone { file: target.describe(segment) });
    };
    let offset = (from.0 - size.start_of(segment).0) as usize;
    let length = (end.0.saturating_sub(from.0)) as usize;
    let Some(theirs) = source_part(target, source, segment, offset, length)? else {
        return Ok(Compared::Gone { file: format!("{} of the source", source.describe(segment)) });
    };
    let ours = ours.get(offset..offset + length).unwrap_or_default();
    let differs = first_difference(ours, &theirs, from, source.geometry.wal_block_size);
    Ok(differs.map_or(Compared::Same, |at| Compared::Differs { at }))
}

/// Bytes of a segment in the source's history: from the source or, if it no longer has them, from where
/// the target's missing WAL is looked for, provided the name tells the source's file from the target's.
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

/// Where two copies of the WAL from `at` on first differ.
fn first_difference(ours: &[u8], theirs: &[u8], at: Lsn, block: u32) -> Option<Lsn> {
    /// `XLP_BKP_REMOVABLE` in `xlp_info`, the third byte of a page: it says nothing of the contents.
    const REMOVABLE: u8 = 0x04;
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
        // The same byte inside a page is one.
        assert_eq!(first_difference(&page[..4], &[0, 0, 4, 0], Lsn(8200), 8192), Some(Lsn(8202)));
    }
}
