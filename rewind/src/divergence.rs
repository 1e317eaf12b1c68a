//! Where the two histories part, and the target's WAL beyond that.
//!
//! The history files say it for timelines of different ancestry. They say nothing of two servers that
//! were promoted independently at the same point, nor of WAL that one side wrote and the other never
//! had on the same timeline. So the last bytes of the common WAL are compared as well: if they differ, the
//! true point is looked for segment by segment.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use walparse::scan::{EndOfWal, Scan, ScanError, ScanRequest, scan};
use walparse::{
    ClusterState, ControlFile, Lsn, SegmentNo, SegmentStore, TimelineHistory, TimelineId, WalFault,
    WalGeometry, WalReadError, WalReader, before_page_header,
};

use crate::error::RewindError;
use crate::outcome::Divergence;
use crate::preflight::Clusters;
use crate::progress::{Progress, Stage};
use crate::source::{Source, SourceError, WalPosition, read_part};
use crate::target_wal::{SourceWal, TargetWal};

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
    // Until more is known, segments below the checkpoint's may be asked of the source.
    wal.set_limits(presumed.unwrap_or(control.checkpoint_lsn()), control.checkpoint_lsn().advance(1));
    let required_end = required_end(wal, control)?;
    wal.set_limits(presumed.unwrap_or(control.checkpoint_lsn()), required_end);
    let scan_to = |wal: &TargetWal<'_>, fork: Lsn| {
        let request = ScanRequest {
            geometry,
            fork,
            newest_checkpoint: sides.clusters.newest_target_checkpoint(),
            required_end,
            end: match control.state() {
                ClusterState::ShutDown => EndOfWal::Known,
                ClusterState::ShutDownInRecovery => EndOfWal::Open,
                _ if sides.clusters.label.is_some() => EndOfWal::Open,
                _ => EndOfWal::Crashed,
            },
        };
        scan(wal, &request, &|bytes| sides.progress.advance(Stage::Scan, bytes))
            .map_err(|error| scan_error(error, wal))
    };
    let source_wal = SourceWal { source: sides.source, history: sides.source_history, geometry };
    let first = scan_to(wal, presumed.unwrap_or(Lsn(u64::MAX)))?;
    let source = &sides.clusters.source;
    let (common_end, comparable) = match presumed {
        Some(fork) => (fork, fork),
        None => source_end(sides.source, source, sides.source_history, first.end)?,
    };
    let limit = first.end.min(comparable);
    let mut divergence = confirm(wal, &source_wal, limit)?;
    if divergence.lsn < limit {
        tracing::info!("source and target wrote different WAL from {} on", divergence.lsn);
    } else if first.end <= common_end {
        divergence.lsn = common_end;
        return Ok(Found { divergence, scan: Scan { diverged: None, ..first } });
    } else {
        // The target wrote on where the source left its history, or where that ends.
        divergence.lsn = match presumed {
            Some(fork) => fork,
            None => {
                let segment = geometry.segment_size.segment_before(common_end);
                record_boundary(wal, segment, common_end, &geometry)?
            }
        };
    }
    if presumed == Some(divergence.lsn) {
        return Ok(Found { divergence, scan: first });
    }
    wal.set_limits(divergence.lsn, required_end);
    let scan = scan_to(wal, divergence.lsn)?;
    Ok(Found { divergence, scan })
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
fn source_end(
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
                return Ok((received, received));
            }
            WalPosition::Standby { .. } => std::thread::sleep(Duration::from_millis(50)),
            WalPosition::Stopped => {
                let end = stopped_end(&SourceWal { source, history, geometry }, control)?;
                return Ok((end, end));
            }
        }
    }
}

/// The end of the WAL that a stopped server's data directory depends on: of its last checkpoint record,
/// or the minRecoveryPoint if that is later.
pub(crate) fn stopped_end<S: SegmentStore + ?Sized>(
    store: &S,
    control: &ControlFile,
) -> Result<Lsn, DivergenceError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(store, control.geometry(), lsn);
    match reader.read()? {
        Ok(record) => Ok(record.end.max(control.min_recovery_point())),
        Err(end) => Err(DivergenceError::SourceEnd { lsn, source: end.fault }),
    }
}

/// Looks whether the WAL of both sides is the same up to `presumed`, and finds the true fork if not.
fn confirm(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    presumed: Lsn,
) -> Result<Divergence, DivergenceError> {
    let size = source.geometry.segment_size;
    let mut segment = size.segment_before(presumed);
    let mut end = presumed;
    let mut from = size.start_of(segment).max(Lsn(presumed.0.saturating_sub(COMPARED_BYTES)));
    let mut fork = presumed;
    while let Compared::Differs { at } = compare(target, source, segment, from, end)? {
        fork = at;
        // Only the tail was compared so far: the first difference may lie before it.
        if from > size.start_of(segment) {
            (from, end) = (size.start_of(segment), at.advance(1));
            continue;
        }
        if segment.0 <= 1 {
            break;
        }
        segment = SegmentNo(segment.0 - 1);
        (from, end) = (size.start_of(segment), size.end_of(segment));
        if !is_comparable(target, source, segment)? {
            return Err(DivergenceError::Unknown { lsn: size.end_of(segment) });
        }
    }
    if fork != presumed {
        fork = record_boundary(target, segment, fork, &source.geometry)?;
    }
    let last_common = Lsn(fork.0.saturating_sub(1));
    Ok(Divergence { lsn: fork, timeline: target.history().timeline_at(last_common) })
}

/// The end of the last record of the target that lies wholly before `limit`, looked for from the
/// segment below the one it is in.
fn record_boundary(
    target: &TargetWal<'_>,
    segment: SegmentNo,
    limit: Lsn,
    geometry: &WalGeometry,
) -> Result<Lsn, DivergenceError> {
    let first = if target.open(SegmentNo(segment.0.saturating_sub(1).max(1)))?.is_some() {
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

enum Compared {
    /// The same, or one side no longer has it: nothing speaks against the presumption.
    Same,
    Differs {
        at: Lsn,
    },
}

fn is_comparable(
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
    segment: SegmentNo,
) -> Result<bool, DivergenceError> {
    Ok(target.open(segment)?.is_some() && read_part(source.source, &source.path(segment)?, 0, 1)?.is_some())
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
    let Some(ours) = target.open(segment)? else { return Ok(Compared::Same) };
    let path = source.path(segment)?;
    let mut at = from;
    while at < end {
        let offset = (at.0 - size.start_of(segment).0) as usize;
        let length = (end.0 - at.0).min(u64::from(crate::source::MAX_RANGE)) as usize;
        let Some(theirs) = read_part(source.source, &path, offset as u64, length as u64)? else {
            tracing::debug!("the source no longer has \"{path}\": the common WAL was not compared");
            return Ok(Compared::Same);
        };
        let ours = ours.get(offset..offset + length).unwrap_or_default();
        if let Some(differs) = first_difference(ours, &theirs, at, source.geometry.wal_block_size) {
            return Ok(Compared::Differs { at: differs });
        }
        at = at.advance(length as u64);
    }
    Ok(Compared::Same)
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
