//! The parallel scan: reads many segments at once and returns the changed blocks and the last common checkpoint.
//!
//! A record belongs to the segment in which it starts. Each worker takes a whole segment, skips a record
//! continued from the segment before, and reads on into the next segment to finish its last record. Its result,
//! a `Fold`, is then checked against its neighbours (first record and its `xl_prev`, last record, start of
//! the next record), so that the chain is verified exactly as in a sequential read.
//!
//! The scan reads forward from the fork or the control file's checkpoint, whichever is older, to the end of the
//! WAL. If the common checkpoint was not in that range, it then reads backward until it finds one. The
//! checkpoint determines where replay starts, and with it which blocks count as changed; the WAL from there to
//! the end of the checkpoint's segment is read last. Only that segment is read twice.

mod chain;
mod end;
mod error;
mod fold;
mod request;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::chain::{Chain, Found};
use self::end::EndFinder;
pub use self::error::ScanError;
use self::fold::Fold;
pub use self::request::{EndOfWal, RebuiltBlocks, ScanRequest, UnknownChanges};
use crate::changed_rows::ChangedRows;
use crate::checkpoint::Checkpoint;
use crate::file_changes::FileChanges;
use crate::lsn::Lsn;
use crate::page_map::PageMap;
use crate::reader::{WalEnd, before_page_header};
use crate::segment::SegmentNo;
use crate::transactions::Transactions;
use crate::wal_dir::SegmentStore;

/// What a scan found.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Scan {
    /// The end of the last record.
    pub end: Lsn,
    /// Where that record starts.
    pub last_record: Lsn,
    /// Why reading stopped; its position is `end`.
    pub stop: WalEnd,
    /// What lies beyond the fork; `None` if the WAL does not extend beyond it.
    pub diverged: Option<Diverged>,
    /// What the records say about files: all of them, or those from [`Diverged::since`] on if the WAL extends beyond the
    /// fork.
    pub files: FileChanges,
    /// The number of records read.
    pub records: u64,
    /// The bytes of WAL read.
    pub bytes: u64,
}

/// What the cluster wrote on its own, beyond the fork.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Diverged {
    /// Where the record of the last common checkpoint starts.
    pub checkpoint_lsn: Lsn,
    /// The contents of that record.
    pub checkpoint: Checkpoint,
    /// The start of the WAL that `page_map` covers: where replay will start; or that checkpoint record, if
    /// rebuilt blocks were not asked for or the WAL before it is missing.
    pub since: Lsn,
    /// Every main-fork block that a record from `since` on refers to.
    pub page_map: PageMap,
    /// The blocks of `page_map` that replay from `since` rebuilds without reading them: the first record
    /// that refers to such a block ends before the fork, and restores a full-page image of the block or
    /// initializes it. Empty if this could not be determined.
    pub rebuilt: PageMap,
    /// The transactions that committed or were prepared beyond the fork.
    pub transactions: Transactions,
    /// The rows that they have changed from `since` on. Empty unless [`ScanRequest::counts_rows`] is set.
    pub rows: ChangedRows,
}

/// Scans the WAL of one history. `progress` is called after each segment with the number of bytes done.
///
/// # Errors
/// WAL that is needed is missing, ends too early or is damaged; or a record has an unknown effect.
///
/// # Examples
/// ```
/// use walparse::scan::{ScanRequest, scan};
/// # use walparse::testing::{BlockSpec, RecordSpec, WalBuilder, small_geometry};
/// use walparse::{BlockNumber, Lsn, Relation, Version};
///
/// # let geometry = small_geometry(Version::find(1800, 202_506_291).unwrap());
/// # let table = Relation { tablespace: 1663, database: 5, number: 16384 };
/// # let mut wal = WalBuilder::new(geometry);
/// # let checkpoint = wal.checkpoint(Lsn(0x10_0028));
/// # let fork = wal.position();
/// # wal.append(&RecordSpec { rmid: 10, blocks: vec![BlockSpec::part(table, BlockNumber(7))], ..Default::default() });
/// // `wal` holds a checkpoint, and after the fork a record that changes block 7 of `table`.
/// // On disk it would be a `WalDir`, with the other values from the control file.
/// let request = ScanRequest::new(geometry, fork, checkpoint, wal.position());
/// let found = scan(&wal, &request, &|_bytes| {})?;
///
/// let diverged = found.diverged.expect("records after the fork");
/// assert_eq!(diverged.checkpoint_lsn, checkpoint);
/// assert!(diverged.page_map.contains(table, BlockNumber(7)));
/// # Ok::<(), walparse::scan::ScanError>(())
/// ```
pub fn scan<S: SegmentStore + ?Sized>(
    store: &S,
    request: &ScanRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Scan, ScanError> {
    let scanner = Scanner { store, request, progress };
    let size = request.geometry.segment_size;
    let lowest = size.segment_of(request.fork.min(request.newest_checkpoint));
    let mut above = scanner.forward(size.start_of(lowest))?;
    let mut scan = Scan {
        end: above.stop.position,
        stop: above.stop,
        last_record: above.last_record,
        diverged: None,
        files: FileChanges::default(),
        records: above.records + above.reread.0,
        bytes: above.bytes + above.reread.1,
    };
    if scan.end <= before_page_header(request.fork, &request.geometry) {
        (_, _, scan.files, _) = above.changes.into_parts();
        return Ok(scan);
    }
    if above.checkpoint.is_none() {
        scanner.backward(lowest, &mut above)?;
    }
    let (checkpoint_lsn, checkpoint) =
        above.checkpoint.ok_or(ScanError::NoCheckpoint { fork: request.fork })?;
    let (since, mut found) = scanner.around(checkpoint_lsn, &checkpoint)?;
    found.changes.append(above.changes);
    if since.is_none() {
        found.changes.forget_proofs();
    }
    (scan.records, scan.bytes) = (found.records + above.records, found.bytes + above.bytes);
    let rows = std::mem::take(&mut found.changes.rows);
    let (page_map, rebuilt, files, transactions) = found.changes.into_parts();
    scan.files = files;
    let since = since.unwrap_or(checkpoint_lsn);
    scan.diverged =
        Some(Diverged { checkpoint_lsn, checkpoint, since, page_map, rebuilt, transactions, rows });
    Ok(scan)
}

/// What the records of a stretch of WAL changed.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Stretch {
    /// The end of the last record.
    pub end: Lsn,
    /// Why reading stopped; its position is `end`.
    pub stop: WalEnd,
    /// Where the last record starts; invalid if there is none.
    pub last_record: Lsn,
    /// The `xl_prev` of the first record: where the record before `start` starts.
    pub previous: Option<Lsn>,
    /// Every main-fork block that a record refers to.
    pub page_map: PageMap,
    /// The blocks of `page_map` that replay of this stretch rebuilds without reading them: the first record that refers to
    /// such a block restores a full-page image of it or initializes it.
    pub rebuilt: PageMap,
    /// What the records say about files.
    pub files: FileChanges,
    /// The number of records read.
    pub records: u64,
    /// The bytes of WAL read.
    pub bytes: u64,
}

/// Reads the WAL from `start`, which must be the start of a record or of a segment, to the end that `request` describes.
/// Neither the fork nor the checkpoint of the request matters. `progress` as for [`scan`].
///
/// # Errors
/// WAL that is needed is missing, ends too early or is damaged; or a record has an unknown effect.
///
/// # Examples
/// ```
/// use walparse::scan::{ScanRequest, scan_stretch};
/// # use walparse::testing::{BlockSpec, RecordSpec, WalBuilder, small_geometry};
/// use walparse::{BlockNumber, Lsn, Relation, Version};
///
/// # let geometry = small_geometry(Version::find(1800, 202_506_291).unwrap());
/// # let table = Relation { tablespace: 1663, database: 5, number: 16384 };
/// # let mut wal = WalBuilder::new(geometry);
/// # wal.checkpoint(Lsn(0x10_0028));
/// # let redo = wal.position();
/// # wal.append(&RecordSpec { rmid: 10, blocks: vec![BlockSpec::part(table, BlockNumber(7))], ..Default::default() });
/// // `wal` holds a record at `redo` that changes block 7 of `table`.
/// let request = ScanRequest::new(geometry, redo, redo, wal.position());
/// let found = scan_stretch(&wal, &request, redo, &|_bytes| {})?;
///
/// assert_eq!((found.end, found.records), (wal.position(), 1));
/// assert!(found.page_map.contains(table, BlockNumber(7)));
/// # Ok::<(), walparse::scan::ScanError>(())
/// ```
pub fn scan_stretch<S: SegmentStore + ?Sized>(
    store: &S,
    request: &ScanRequest,
    start: Lsn,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Stretch, ScanError> {
    // Without a fork, no record is taken for the checkpoint from which blocks count.
    let request = ScanRequest { fork: Lsn(u64::MAX), ..*request };
    let found = Scanner { store, request: &request, progress }.forward(start)?;
    let previous = found.previous();
    let Found { stop, last_record, records, bytes, changes, .. } = found;
    let (page_map, rebuilt, files, _) = changes.into_parts();
    Ok(Stretch { end: stop.position, stop, last_record, previous, page_map, rebuilt, files, records, bytes })
}

struct Scanner<'a, S: SegmentStore + ?Sized> {
    store: &'a S,
    request: &'a ScanRequest,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<S: SegmentStore + ?Sized> Scanner<'_, S> {
    /// Reads from `start`, where a segment or a record starts, to the end of the WAL. If the checkpoint is found, the
    /// changes are only those of later segments.
    fn forward(&self, start: Lsn) -> Result<Found, ScanError> {
        let lowest = self.request.geometry.segment_size.segment_of(start);
        let highest = self.end_finder().highest(lowest)?;
        let mut chain = Chain::new(&self.request.geometry);
        let end = self.chain(&mut chain, start, highest, |found, has_checkpoint| {
            // Without a fork there is nothing to read again.
            if has_checkpoint && self.request.fork != Lsn(u64::MAX) {
                found.forget();
            }
        })?;
        let end = end.unwrap_or_else(|| chain.end_after(highest));
        chain.found.stop = end;
        self.end_finder().check(&end, highest)?;
        Ok(chain.found)
    }

    /// Reads backward from below `upper` to the segment of the last common checkpoint.
    fn backward(&self, upper: SegmentNo, above: &mut Found) -> Result<(), ScanError> {
        let mut upper = upper;
        while above.checkpoint.is_none() && upper.0 > 1 {
            let lower = SegmentNo(upper.0.saturating_sub(rayon::current_num_threads() as u64).max(1));
            let folds = self.fold_all(lower, SegmentNo(upper.0 - 1), Lsn::INVALID);
            for fold in folds.into_iter().rev() {
                self.prepend(fold?, above)?;
                if above.checkpoint.is_some() {
                    break;
                }
            }
            upper = lower;
        }
        Ok(())
    }

    fn prepend(&self, fold: Fold, above: &mut Found) -> Result<(), ScanError> {
        let needed = above.start().unwrap_or(self.request.fork);
        if let Some(end) = fold.end {
            return Err(self.end_finder().broken_off(&end, needed));
        }
        let position = fold.next;
        above.prepend(fold, &self.request.geometry).map_err(|fault| ScanError::BreaksOff {
            position,
            needed,
            fault,
        })
    }

    /// Reads from where replay will start to the end of the checkpoint's segment. Returns where replay starts,
    /// or `None` if rebuilt blocks were not asked for or the WAL before the checkpoint is missing: then
    /// reading starts at the checkpoint record.
    fn around(&self, lsn: Lsn, checkpoint: &Checkpoint) -> Result<(Option<Lsn>, Found), ScanError> {
        if let RebuiltBlocks::Prove { replay_limit } = self.request.rebuilt {
            let start = checkpoint.redo.min(replay_limit).min(lsn);
            // Not an error: without that WAL no block is proven to be rebuilt, and all are copied.
            if let Ok(found) = self.stretch(start, lsn) {
                return Ok((Some(start), found));
            }
        }
        Ok((None, self.stretch(lsn, lsn)?))
    }

    /// Reads from the record at `start` to the end of the segment in which the record at `needed` starts.
    fn stretch(&self, start: Lsn, needed: Lsn) -> Result<Found, ScanError> {
        let last = self.request.geometry.segment_size.segment_of(needed);
        let mut chain = Chain::new(&self.request.geometry);
        let end = self.chain(&mut chain, start, last, |_, _| {})?;
        match end {
            Some(end) if chain.found.last_record < needed => Err(self.end_finder().broken_off(&end, needed)),
            _ => Ok(chain.found),
        }
    }

    /// Appends the segments from that of `start` to `last`; stops early at the end of the WAL, which it returns.
    /// `see` is called after each segment and told whether it holds a checkpoint.
    fn chain(
        &self,
        chain: &mut Chain<'_>,
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

    /// The number of segments read at a time: enough to keep all threads busy, few enough to keep the
    /// results in memory small.
    fn group(&self) -> u64 {
        8 * rayon::current_num_threads() as u64
    }

    /// Reads a range of segments in parallel, without the records before `from`; the results are in order.
    fn fold_all(&self, first: SegmentNo, last: SegmentNo, from: Lsn) -> Vec<Result<Fold, ScanError>> {
        let count = (last.0 - first.0) as usize + 1;
        let folds = (0..count).into_par_iter().with_max_len(1);
        folds.map(|index| self.fold(SegmentNo(first.0 + index as u64), from)).collect()
    }

    fn fold(&self, segment: SegmentNo, from: Lsn) -> Result<Fold, ScanError> {
        let fold = Fold::of(self.store, self.request, segment, from)?;
        (self.progress)(self.request.geometry.segment_size.bytes());
        Ok(fold)
    }

    fn end_finder(&self) -> EndFinder<'_, S> {
        EndFinder { store: self.store, request: self.request }
    }
}
