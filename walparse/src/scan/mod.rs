//! The parallel scan: many segments at once, one page map and the last common checkpoint.
//!
//! A record belongs to the segment in which it starts. A worker takes a whole segment, skips what is
//! continued from the one before, and reads on into the next to finish its last record. What it found is
//! a [`Fold`]; its seam (first record and its `xl_prev`, last record, where the next one starts) is then
//! checked against the neighbours, so the chain is verified as in a sequential read.
//!
//! The scan goes upwards from the older of fork and control-file checkpoint to the end of the WAL, and
//! then, only if the common checkpoint was not among that, downwards until it is. The checkpoint then says
//! where what has changed is counted from: from there to the end of the checkpoint's segment is read last.
//! That one segment is read twice, each other once.

mod end;
mod fold;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::fold::{Chain, Fold};
use crate::changes::Changes;
use crate::checkpoint::Checkpoint;
use crate::error::{WalFault, WalReadError};
use crate::lsn::Lsn;
use crate::page_map::PageMap;
use crate::reader::{WalEnd, before_page_header};
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::version::{Version, WalGeometry};
use crate::wal_dir::SegmentStore;

/// What to scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest {
    /// The cluster's sizes and version.
    pub geometry: WalGeometry,
    /// The end of the common WAL.
    pub fork: Lsn,
    /// The latest checkpoint whose data is surely on disk: the control file's, or that of a backup label.
    /// The common checkpoint is not looked for beyond it.
    pub newest_checkpoint: Lsn,
    /// WAL must be valid at least up to here.
    pub required_end: Lsn,
    /// How to find the end.
    pub end: EndOfWal,
    /// What to do about a record that changes relation files in an unknown way.
    pub unknown_changes: UnknownChanges,
    /// What to do about blocks that replay will rebuild.
    pub rebuilt: RebuiltBlocks,
}

/// What to do about blocks that replay of the common WAL makes anew, whatever stands there now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RebuiltBlocks {
    /// Tell them from the others: see [`Diverged::rebuilt`].
    Prove {
        /// Replay will start at the common checkpoint's redo position, or here if that is earlier.
        replay_limit: Lsn,
    },
    /// Treat them as all others.
    Ignore,
}

/// What to do about records of unknown effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownChanges {
    /// Stop: what they changed is not in the page map.
    Refuse,
    /// Go on: the page map is not what is wanted.
    Ignore,
}

/// How the end of the WAL is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndOfWal {
    /// The server was stopped: the WAL ends exactly at `required_end`.
    Known,
    /// The server stopped replaying: valid WAL may go on behind `required_end`.
    Open,
    /// The server crashed: as `Open`, and valid WAL behind the end means that something in between was
    /// damaged.
    Crashed,
}

/// What a scan found.
#[derive(Clone, PartialEq, Debug)]
pub struct Scan {
    /// The end of the last record.
    pub end: Lsn,
    /// Where that record starts.
    pub last_record: Lsn,
    /// What stopped the reading; its position is `end`.
    pub stop: WalEnd,
    /// What is beyond the fork; `None` if nothing is.
    pub diverged: Option<Diverged>,
    /// Records read.
    pub records: u64,
    /// Bytes of WAL read.
    pub bytes: u64,
}

/// The target's own history.
#[derive(Clone, PartialEq, Debug)]
pub struct Diverged {
    /// Where the record of the last common checkpoint starts.
    pub checkpoint_lsn: Lsn,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Since where the changed blocks are counted: where replay will start, or that record if it could not
    /// be looked for what replay rebuilds.
    pub since: Lsn,
    /// Every block of a main fork named since then.
    pub page_map: PageMap,
    /// Those among them that replay from `since` makes anew without looking at what stands on disk: the
    /// first record that names such a block ends before the fork and restores an image of it or
    /// initialises it. Empty if that could not be found out.
    pub rebuilt: PageMap,
}

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A segment is nowhere to be found.
    #[error("could not find WAL segment {segment}, which holds WAL up to {needed}")]
    Missing {
        /// Its number.
        segment: SegmentNo,
        /// Its file, as the store calls it.
        file: String,
        /// How far WAL is needed.
        needed: Lsn,
        /// All segments of the needed range that are missing, where the range is known.
        all: Vec<SegmentNo>,
    },
    /// WAL ends before it may.
    #[error("WAL of the target breaks off at {position}, before {needed}")]
    BreaksOff {
        /// Where it ends.
        position: Lsn,
        /// Where it must come to.
        needed: Lsn,
        /// What stands at its end.
        #[source]
        fault: WalFault,
    },
    /// Valid WAL goes on behind an apparent end.
    #[error("WAL of the target is damaged at {position}: valid WAL goes on at {later}")]
    Damaged {
        /// The apparent end.
        position: Lsn,
        /// A record behind it.
        later: Lsn,
        /// What stands at the apparent end.
        #[source]
        fault: WalFault,
    },
    /// There is no checkpoint before the fork.
    #[error("could not find a checkpoint before {fork} in the WAL of the target")]
    NoCheckpoint {
        /// The fork.
        fork: Lsn,
    },
    /// A record changes relation files in an unknown way.
    #[error(
        "WAL record modifies a relation, but record type is not recognized: lsn: {lsn}, rmid: {rmid}, rmgr: {}, info: {info:02X}",
        rmgr::name(*rmid, *version)
    )]
    UnknownRelationChange {
        /// Where it starts.
        lsn: Lsn,
        /// Its resource manager.
        rmid: u8,
        /// Its info byte.
        info: u8,
        /// The version that numbers resource managers so.
        version: Version,
    },
    /// WAL could not be read.
    #[error(transparent)]
    Read(#[from] WalReadError),
}

/// Scans the WAL of one history. `progress` is called with the bytes of each segment that is done.
///
/// # Errors
/// Missing, broken or damaged WAL in the range that is needed, and records of unknown effect.
pub fn scan<S: SegmentStore + ?Sized>(
    store: &S,
    request: &ScanRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Scan, ScanError> {
    let scanner = Scanner { store, request, progress };
    let size = request.geometry.segment_size;
    let lowest = size.segment_of(request.fork.min(request.newest_checkpoint));
    let mut above = scanner.upwards(lowest)?;
    let mut scan = Scan {
        end: above.stop.position,
        stop: above.stop,
        last_record: above.last_record,
        diverged: None,
        records: above.records + above.reread.0,
        bytes: above.bytes + above.reread.1,
    };
    if scan.end <= before_page_header(request.fork, &request.geometry) {
        return Ok(scan);
    }
    if above.checkpoint.is_none() {
        scanner.downwards(lowest, &mut above)?;
    }
    let (checkpoint_lsn, checkpoint) =
        above.checkpoint.ok_or(ScanError::NoCheckpoint { fork: request.fork })?;
    let (since, mut found) = scanner.around(checkpoint_lsn, &checkpoint)?;
    found.changes.go_on_with(above.changes);
    if since.is_none() {
        found.changes.forget_proofs();
    }
    (scan.records, scan.bytes) = (found.records + above.records, found.bytes + above.bytes);
    let (page_map, rebuilt) = found.changes.into_maps();
    let since = since.unwrap_or(checkpoint_lsn);
    scan.diverged = Some(Diverged { checkpoint_lsn, checkpoint, since, page_map, rebuilt });
    Ok(scan)
}

/// What is known after some segments.
struct Found {
    changes: Changes,
    checkpoint: Option<(Lsn, Checkpoint)>,
    /// First record: its start and its `xl_prev`.
    first: Option<(Lsn, Lsn)>,
    last_record: Lsn,
    stop: WalEnd,
    records: u64,
    bytes: u64,
    /// Records and bytes that are not counted in these and in the changes, for they are to be read again.
    reread: (u64, u64),
}

impl Found {
    fn nothing() -> Found {
        Found {
            changes: Changes::default(),
            checkpoint: None,
            first: None,
            last_record: Lsn::INVALID,
            stop: WalEnd { position: Lsn::INVALID, fault_at: Lsn::INVALID, fault: WalFault::NoSegment },
            records: 0,
            bytes: 0,
            reread: (0, 0),
        }
    }
}

struct Scanner<'a, S: SegmentStore + ?Sized> {
    store: &'a S,
    request: &'a ScanRequest,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<S: SegmentStore + ?Sized> Scanner<'_, S> {
    /// Reads from `lowest` to the end of the WAL. The changes are those behind the segment of the
    /// checkpoint, if that is there.
    fn upwards(&self, lowest: SegmentNo) -> Result<Found, ScanError> {
        let highest = self.highest(lowest)?;
        let start = self.request.geometry.segment_size.start_of(lowest);
        let mut chain = Chain::new(self);
        let end = self.chain(&mut chain, start, highest, |found, has_checkpoint| {
            if has_checkpoint {
                found.reread = (found.records, found.bytes);
                (found.records, found.bytes) = (0, 0);
                found.changes = Changes::default();
            }
        })?;
        let end = end.unwrap_or_else(|| chain.end_behind(highest));
        chain.found.stop = end;
        self.judge_end(&end, highest)?;
        Ok(chain.found)
    }

    /// Reads from below `upper` back to the segment of the last common checkpoint.
    fn downwards(&self, upper: SegmentNo, above: &mut Found) -> Result<(), ScanError> {
        let mut upper = upper;
        while above.checkpoint.is_none() && upper.0 > 1 {
            let lower = SegmentNo(upper.0.saturating_sub(rayon::current_num_threads() as u64).max(1));
            let folds = self.fold_all(lower, SegmentNo(upper.0 - 1), Lsn::INVALID);
            for fold in folds.into_iter().rev() {
                above.prepend(fold?, self)?;
                if above.checkpoint.is_some() {
                    break;
                }
            }
            upper = lower;
        }
        Ok(())
    }

    /// Reads from where replay will start to the end of the segment of the checkpoint, and says where that
    /// is. If the WAL from there on is not to be had, or not asked for, from the checkpoint itself.
    fn around(&self, lsn: Lsn, checkpoint: &Checkpoint) -> Result<(Option<Lsn>, Found), ScanError> {
        if let RebuiltBlocks::Prove { replay_limit } = self.request.rebuilt {
            let start = checkpoint.redo.min(replay_limit).min(lsn);
            // WAL below the checkpoint may be missing: then nothing is proven, and all is copied.
            if let Ok(found) = self.stretch(start, lsn) {
                return Ok((Some(start), found));
            }
        }
        Ok((None, self.stretch(lsn, lsn)?))
    }

    /// Reads from the record at `start` to the end of the segment in which the record at `needed` starts.
    fn stretch(&self, start: Lsn, needed: Lsn) -> Result<Found, ScanError> {
        let last = self.request.geometry.segment_size.segment_of(needed);
        let mut chain = Chain::new(self);
        let end = self.chain(&mut chain, start, last, |_, _| {})?;
        match end {
            Some(end) if chain.found.last_record < needed => Err(self.broken_off(&end, needed)),
            _ => Ok(chain.found),
        }
    }

    /// Appends the segments from that of `start` to `last`, up to the end of the WAL if that is there.
    fn chain(
        &self,
        chain: &mut Chain<'_, '_, S>,
        start: Lsn,
        last: SegmentNo,
        mut see: impl FnMut(&mut Found, bool),
    ) -> Result<Option<WalEnd>, ScanError> {
        let mut segment = self.request.geometry.segment_size.segment_of(start);
        while segment <= last {
            let group_end = SegmentNo((segment.0 + self.group() - 1).min(last.0));
            for fold in self.fold_all(segment, group_end, start) {
                let fold = fold?;
                let has_checkpoint = fold.checkpoint.is_some();
                let end = chain.append(fold);
                see(&mut chain.found, has_checkpoint);
                if end.is_some() {
                    return Ok(end);
                }
            }
            segment = group_end.next();
        }
        Ok(None)
    }

    /// Segments in one go: enough to keep all threads busy, few enough that their maps stay small.
    fn group(&self) -> u64 {
        8 * rayon::current_num_threads() as u64
    }

    /// The folds of a range of segments, in order; none has records before `from`.
    fn fold_all(&self, first: SegmentNo, last: SegmentNo, from: Lsn) -> Vec<Result<Fold, ScanError>> {
        let count = (last.0 - first.0) as usize + 1;
        let folds = (0..count).into_par_iter().with_max_len(1);
        folds.map(|index| self.fold(SegmentNo(first.0 + index as u64), from)).collect()
    }

    fn is_past_end(&self, lsn: Lsn) -> bool {
        self.request.end == EndOfWal::Known && lsn >= self.request.required_end
    }

    /// WAL ends before it may.
    fn broken_off(&self, end: &WalEnd, needed: Lsn) -> ScanError {
        if end.fault == WalFault::NoSegment {
            let segment = self.request.geometry.segment_size.segment_of(end.fault_at);
            return ScanError::Missing {
                segment,
                file: self.store.describe(segment),
                needed,
                all: vec![segment],
            };
        }
        ScanError::BreaksOff { position: end.position, needed, fault: end.fault }
    }
}
