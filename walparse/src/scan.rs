//! The parallel scan: many segments at once, one page map and the last common checkpoint.
//!
//! A record belongs to the segment in which it starts. A worker takes a whole segment, skips what is
//! continued from the one before, and reads on into the next to finish its last record. What it found is
//! a [`Fold`]; its seam (first record and its `xl_prev`, last record, where the next one starts) is then
//! checked against the neighbours, so the chain is verified as in a sequential read.
//!
//! The scan goes upwards from the older of fork and control-file checkpoint to the end of the WAL, and
//! then, only if the common checkpoint was not among that, downwards until it is. Each segment is read
//! once.

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::error::{WalFault, WalReadError};
use crate::lsn::Lsn;
use crate::page_map::PageMap;
use crate::reader::{WalEnd, WalReader, after_page_header, before_page_header};
use crate::record::{BlockRef, Record};
use crate::relation::Fork;
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::timeline::TimelineId;
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
    /// Every block named since that record.
    pub page_map: PageMap,
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
    let mut found = scanner.upwards(lowest)?;
    let mut scan = Scan {
        end: found.stop.position,
        stop: found.stop,
        last_record: found.last_record,
        diverged: None,
        records: found.records,
        bytes: found.bytes,
    };
    if scan.end <= before_page_header(request.fork, &request.geometry) {
        return Ok(scan);
    }
    if found.checkpoint.is_none() {
        scanner.downwards(lowest, &mut found)?;
        (scan.records, scan.bytes) = (found.records, found.bytes);
    }
    let (checkpoint_lsn, checkpoint) =
        found.checkpoint.ok_or(ScanError::NoCheckpoint { fork: request.fork })?;
    scan.diverged = Some(Diverged { checkpoint_lsn, checkpoint, page_map: found.page_map });
    Ok(scan)
}

/// What is known after some segments.
struct Found {
    page_map: PageMap,
    checkpoint: Option<(Lsn, Checkpoint)>,
    /// First record: its start and its `xl_prev`.
    first: Option<(Lsn, Lsn)>,
    last_record: Lsn,
    stop: WalEnd,
    records: u64,
    bytes: u64,
}

/// What one worker found in one segment.
struct Fold {
    page_map: PageMap,
    checkpoint: Option<(Lsn, Checkpoint)>,
    /// Where the first record starts (a torn one counts), and the `xl_prev` of the first whole one.
    first: Option<(Lsn, Lsn)>,
    /// Last record that starts here.
    last: Option<Lsn>,
    /// Where the next record starts (in a later segment), unless the WAL ends before.
    next: Lsn,
    timelines: (TimelineId, TimelineId),
    end: Option<WalEnd>,
    records: u64,
    bytes: u64,
}

struct Scanner<'a, S: SegmentStore + ?Sized> {
    store: &'a S,
    request: &'a ScanRequest,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<S: SegmentStore + ?Sized> Scanner<'_, S> {
    /// Segments in one go: enough to keep all threads busy, few enough that their maps stay small.
    fn group(&self) -> u64 {
        8 * rayon::current_num_threads() as u64
    }

    /// Reads from `lowest` to the end of the WAL.
    fn upwards(&self, lowest: SegmentNo) -> Result<Found, ScanError> {
        let highest = self.highest(lowest)?;
        let mut chain = Chain { scanner: self, found: Found::nothing(), timeline: TimelineId(0), next: None };
        let mut segment = lowest;
        let mut wal_end = None;
        while wal_end.is_none() && segment <= highest {
            let last = SegmentNo((segment.0 + self.group() - 1).min(highest.0));
            for fold in self.fold_all(segment, last) {
                wal_end = chain.append(fold?)?;
                if wal_end.is_some() {
                    break;
                }
            }
            segment = last.next();
        }
        let end = wal_end.unwrap_or_else(|| chain.end_behind(highest));
        chain.found.stop = end;
        self.judge_end(&end, highest)?;
        Ok(chain.found)
    }

    /// Reads from below `upper` back to the last common checkpoint.
    fn downwards(&self, upper: SegmentNo, above: &mut Found) -> Result<(), ScanError> {
        let mut upper = upper;
        while above.checkpoint.is_none() && upper.0 > 1 {
            let lower = SegmentNo(upper.0.saturating_sub(rayon::current_num_threads() as u64).max(1));
            let folds = self.fold_all(lower, SegmentNo(upper.0 - 1));
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

    /// The folds of a range of segments, in order.
    fn fold_all(&self, first: SegmentNo, last: SegmentNo) -> Vec<Result<Fold, ScanError>> {
        (first.0..=last.0).into_par_iter().map(|segment| self.fold(SegmentNo(segment))).collect()
    }

    /// Reads the records that start in one segment.
    fn fold(&self, segment: SegmentNo) -> Result<Fold, ScanError> {
        let geometry = &self.request.geometry;
        let (start, stop) = (geometry.segment_size.start_of(segment), geometry.segment_size.end_of(segment));
        let mut fold = Fold::starting_at(start);
        let mut reader = WalReader::new(self.store, *geometry, start);
        match reader.seek_first_in(segment)? {
            Err(end) => fold.end = Some(end),
            Ok(None) => fold.next = stop,
            Ok(Some(first)) => fold.next = first,
        }
        fold.timelines.0 = reader.timeline();
        let mut blocks = Vec::new();
        while fold.end.is_none() && fold.next < stop && !self.is_past_end(fold.next) {
            match reader.read()? {
                Err(end) => fold.end = Some(end),
                // Behind a record torn at the end of the segment the next one starts in a later segment.
                Ok(record) if record.lsn >= stop => {
                    fold.next = record.lsn;
                }
                Ok(record) => fold.add(&record, self.request, &mut blocks)?,
            }
        }
        fold.timelines.1 = reader.timeline();
        (self.progress)(geometry.segment_size.bytes());
        Ok(fold)
    }

    fn is_past_end(&self, lsn: Lsn) -> bool {
        self.request.end == EndOfWal::Known && lsn >= self.request.required_end
    }

    /// The highest segment that can be part of the WAL.
    fn highest(&self, lowest: SegmentNo) -> Result<SegmentNo, ScanError> {
        let needed = self.request.geometry.segment_size.segment_before(self.request.required_end).max(lowest);
        if self.request.end == EndOfWal::Known {
            return Ok(needed);
        }
        let newest = self.store.newest()?.unwrap_or(needed);
        for segment in (needed.0 + 1..=newest.0).rev().map(SegmentNo) {
            if self.first_record_in(segment)?.is_some() {
                return Ok(segment);
            }
        }
        Ok(needed)
    }

    /// The first record of a segment whose first page is valid.
    fn first_record_in(&self, segment: SegmentNo) -> Result<Option<Lsn>, ScanError> {
        let start = self.request.geometry.segment_size.start_of(segment);
        let mut reader = WalReader::new(self.store, self.request.geometry, start);
        Ok(reader.seek_first_in(segment)?.ok().flatten())
    }

    /// Decides whether the end found may be the end.
    fn judge_end(&self, end: &WalEnd, highest: SegmentNo) -> Result<(), ScanError> {
        let request = self.request;
        let size = request.geometry.segment_size;
        if end.position < before_page_header(request.required_end, &request.geometry) {
            if end.fault == WalFault::NoSegment {
                let segment = size.segment_of(end.fault_at);
                return Err(self.missing(segment, request.required_end)?);
            }
            return Err(ScanError::BreaksOff {
                position: end.position,
                needed: request.required_end,
                fault: end.fault,
            });
        }
        if request.end == EndOfWal::Crashed
            && let Some(later) = self.valid_wal_behind(end, highest)?
        {
            if end.fault == WalFault::NoSegment {
                return Err(self.missing(size.segment_of(end.fault_at), later)?);
            }
            return Err(ScanError::Damaged { position: end.position, later, fault: end.fault });
        }
        Ok(())
    }

    /// Names every missing segment from the first missing one to where WAL is needed.
    fn missing(&self, segment: SegmentNo, needed: Lsn) -> Result<ScanError, ScanError> {
        let last = self.request.geometry.segment_size.segment_before(needed).max(segment);
        let mut all = vec![segment];
        for other in (segment.0 + 1..=last.0).map(SegmentNo) {
            if self.store.open(other)?.is_none() {
                all.push(other);
            }
        }
        Ok(ScanError::Missing { segment, file: self.store.describe(segment), needed, all })
    }

    /// A valid record behind the end that follows others behind it: proof that the end is none.
    ///
    /// Pages alone prove nothing: those of a record that a crash tore, or left from an earlier crash,
    /// look valid too.
    fn valid_wal_behind(&self, end: &WalEnd, highest: SegmentNo) -> Result<Option<Lsn>, ScanError> {
        let geometry = &self.request.geometry;
        let size = geometry.segment_size;
        let block = u64::from(geometry.wal_block_size);
        let last_page = size.end_of(size.segment_of(end.fault_at));
        let mut page = Lsn(end.fault_at.0 - end.fault_at.0 % block).advance(block);
        while page < last_page && end.fault != WalFault::NoSegment {
            if let Some(later) = self.linked_record(page, end)? {
                return Ok(Some(later));
            }
            page = page.advance(block);
        }
        for segment in (size.segment_of(end.fault_at).0 + 1..=highest.0).map(SegmentNo) {
            if let Some(first) = self.first_record_in(segment)?
                && let Some(later) = self.linked_record(first, end)?
            {
                return Ok(Some(later));
            }
        }
        Ok(None)
    }

    /// The record at (or on the page at) `lsn`, if it is valid and follows one behind `end`.
    fn linked_record(&self, lsn: Lsn, end: &WalEnd) -> Result<Option<Lsn>, ScanError> {
        let mut reader = WalReader::new(self.store, self.request.geometry, lsn);
        let Some(start) = reader.seek_on_page(lsn)? else { return Ok(None) };
        Ok(reader.read()?.ok().filter(|record| record.header.previous >= end.position).map(|_| start))
    }
}

impl Fold {
    fn starting_at(start: Lsn) -> Fold {
        Fold {
            page_map: PageMap::new(),
            checkpoint: None,
            first: None,
            last: None,
            next: start,
            timelines: (TimelineId(0), TimelineId(0)),
            end: None,
            records: 0,
            bytes: 0,
        }
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        request: &ScanRequest,
        blocks: &mut Vec<BlockRef>,
    ) -> Result<(), ScanError> {
        let undecodable = |source| WalReadError::Undecodable { lsn: record.lsn, source };
        let payload = record.decode(&request.geometry, blocks).map_err(undecodable)?;
        let header = &record.header;
        // `next` is where this record was looked for: before it if a torn one stands there.
        self.first.get_or_insert((self.next, header.previous));
        (self.last, self.next) = (Some(record.lsn), record.end);
        self.records += 1;
        self.bytes += u64::from(header.total_length);
        if rmgr::is_checkpoint(header) && record.lsn < request.fork && record.lsn <= request.newest_checkpoint
        {
            let checkpoint = Checkpoint::parse(payload.main_data);
            let checkpoint = checkpoint.ok_or(undecodable(WalFault::Fragment("checkpoint too short")))?;
            // What was changed before a common checkpoint is the same on both sides.
            self.page_map.clear();
            self.checkpoint = Some((record.lsn, checkpoint));
        }
        for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
            self.page_map.insert(block.relation, block.block);
        }
        if request.unknown_changes == UnknownChanges::Refuse
            && header.is_special_relation_update()
            && !rmgr::is_known_relation_change(header, request.geometry.version)
        {
            return Err(ScanError::UnknownRelationChange {
                lsn: record.lsn,
                rmid: header.rmid,
                info: header.info,
                version: request.geometry.version,
            });
        }
        Ok(())
    }
}

impl Found {
    fn nothing() -> Found {
        Found {
            page_map: PageMap::new(),
            checkpoint: None,
            first: None,
            last_record: Lsn::INVALID,
            stop: WalEnd { position: Lsn::INVALID, fault_at: Lsn::INVALID, fault: WalFault::NoSegment },
            records: 0,
            bytes: 0,
        }
    }

    /// Adds the segment below all others, and checks the seam.
    fn prepend<S: SegmentStore + ?Sized>(
        &mut self,
        fold: Fold,
        scanner: &Scanner<'_, S>,
    ) -> Result<(), ScanError> {
        let geometry = &scanner.request.geometry;
        let needed = self.first.map_or(scanner.request.fork, |(start, _)| start);
        if let Some(end) = fold.end {
            if end.fault == WalFault::NoSegment {
                let segment = geometry.segment_size.segment_of(end.fault_at);
                let file = scanner.store.describe(segment);
                return Err(ScanError::Missing { segment, file, needed, all: vec![segment] });
            }
            return Err(ScanError::BreaksOff { position: end.position, needed, fault: end.fault });
        }
        if let Some(seam) = fold.last.and(self.first)
            && let Some(fault) = seam_fault(seam, fold.last, Some(fold.next), geometry)
        {
            return Err(ScanError::BreaksOff { position: fold.next, needed, fault });
        }
        self.first = fold.first.or(self.first);
        self.page_map.merge(fold.page_map);
        self.checkpoint = fold.checkpoint;
        self.records += fold.records;
        self.bytes += fold.bytes;
        Ok(())
    }
}

/// The segments read so far, from the lowest up.
struct Chain<'a, 'b, S: SegmentStore + ?Sized> {
    scanner: &'a Scanner<'b, S>,
    found: Found,
    timeline: TimelineId,
    next: Option<Lsn>,
}

impl<S: SegmentStore + ?Sized> Chain<'_, '_, S> {
    /// Adds the next segment; the end of the WAL, if it is there.
    fn append(&mut self, fold: Fold) -> Result<Option<WalEnd>, ScanError> {
        let geometry = &self.scanner.request.geometry;
        let expected = self.next.unwrap_or(fold.next);
        if let Some(end) = fold.end.filter(|_| fold.first.is_none()) {
            return Ok(Some(WalEnd { position: self.next.unwrap_or(end.position), ..end }));
        }
        let last = Some(self.found.last_record).filter(|lsn| lsn.is_valid());
        if let Some((start, _)) = fold.first {
            let older = (fold.timelines.0 < self.timeline)
                .then_some(WalFault::PageTimeline { found: fold.timelines.0, after: self.timeline });
            let fault = fold.first.and_then(|seam| seam_fault(seam, last, self.next, geometry)).or(older);
            if let Some(fault) = fault {
                return Ok(Some(WalEnd { position: expected, fault_at: start, fault }));
            }
        }
        self.timeline = self.timeline.max(fold.timelines.1);
        // A segment in which no record starts is one record's continuation, whose end is known already.
        self.next = if fold.first.is_some() { Some(fold.next) } else { self.next.max(Some(fold.next)) };
        let found = &mut self.found;
        found.first = found.first.or(fold.first);
        found.last_record = fold.last.unwrap_or(found.last_record);
        found.records += fold.records;
        found.bytes += fold.bytes;
        if fold.checkpoint.is_some() {
            found.checkpoint = fold.checkpoint;
            found.page_map = fold.page_map;
        } else {
            found.page_map.merge(fold.page_map);
        }
        Ok(fold.end)
    }

    /// The end when every segment was read through.
    fn end_behind(&self, highest: SegmentNo) -> WalEnd {
        let stop = self.scanner.request.geometry.segment_size.end_of(highest);
        WalEnd { position: self.next.unwrap_or(stop), fault_at: stop, fault: WalFault::NoSegment }
    }
}

/// What is wrong between a segment's first record (its start and `xl_prev`) and what was read below it.
fn seam_fault(
    (start, previous): (Lsn, Lsn),
    last: Option<Lsn>,
    next: Option<Lsn>,
    geometry: &WalGeometry,
) -> Option<WalFault> {
    if next.is_some_and(|next| after_page_header(next, geometry) != start) {
        return Some(WalFault::Continuation);
    }
    if last.is_some_and(|last| last != previous) {
        return Some(WalFault::PreviousLink { found: previous });
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lsn::BlockNumber;
    use crate::relation::Relation;
    use crate::testing::{RecordSpec, WalBuilder, small_geometry};

    fn geometry() -> WalGeometry {
        small_geometry(Version::find(1300, 202_209_061).unwrap())
    }

    fn touch(number: u32, block: u32, length: usize) -> RecordSpec {
        let relation = Relation { tablespace: 1663, database: 5, number };
        RecordSpec {
            rmid: 10,
            info: 0,
            blocks: vec![(relation, BlockNumber(block))],
            main_data: vec![1; length],
        }
    }

    fn quiet(_: u64) {}

    /// The same answer from the sequential reader: the scan's oracle.
    fn sequential(wal: &WalBuilder, request: &ScanRequest, start: Lsn) -> (Lsn, Lsn, Option<(Lsn, PageMap)>) {
        let mut reader = WalReader::new(wal, request.geometry, start);
        let (mut map, mut checkpoint, mut last, mut blocks) =
            (PageMap::new(), None, Lsn::INVALID, Vec::new());
        let end = loop {
            let record = match reader.read().unwrap() {
                Ok(record) => record,
                Err(end) => break end.position,
            };
            record.decode(&request.geometry, &mut blocks).unwrap();
            last = record.lsn;
            if rmgr::is_checkpoint(&record.header) && last < request.fork && last <= request.newest_checkpoint
            {
                map.clear();
                checkpoint = Some(last);
            }
            blocks.iter().for_each(|block| map.insert(block.relation, block.block));
        };
        (end, last, checkpoint.filter(|_| end > request.fork).map(|lsn| (lsn, map)))
    }

    fn parallel(
        wal: &WalBuilder,
        request: &ScanRequest,
    ) -> Result<(Lsn, Lsn, Option<(Lsn, PageMap)>), ScanError> {
        let scan = scan(wal, request, &quiet)?;
        Ok((scan.end, scan.last_record, scan.diverged.map(|found| (found.checkpoint_lsn, found.page_map))))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Touch { number: u32, block: u32, length: usize },
        Checkpoint,
        Switch,
        Tear { length: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let touch =
            (0u32..5, 0u32..200_000, prop_oneof![0usize..300, 4_000usize..30_000, 700_000usize..1_500_000])
                .prop_map(|(number, block, length)| Step::Touch { number: 16384 + number, block, length });
        let step = prop_oneof![
            20 => touch,
            2 => Just(Step::Checkpoint),
            1 => Just(Step::Switch),
            1 => (8_000usize..20_000).prop_map(|length| Step::Tear { length }),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// Writes the steps behind a first checkpoint; the checkpoints and all record starts.
    fn write(steps: &[Step]) -> (WalBuilder, Vec<Lsn>, Vec<Lsn>) {
        let mut wal = WalBuilder::new(geometry());
        let first = wal.checkpoint(Lsn((1 << 20) + 40));
        let (mut checkpoints, mut starts) = (vec![first], vec![first]);
        for step in steps {
            match step {
                Step::Touch { number, block, length } => {
                    starts.push(wal.append(&touch(*number, *block, *length)))
                }
                Step::Switch => starts.push(wal.switch()),
                Step::Tear { length } => wal.tear(&touch(1, 1, *length)),
                Step::Checkpoint => {
                    let lsn = wal.checkpoint(first);
                    checkpoints.push(lsn);
                    starts.push(lsn);
                }
            }
        }
        (wal, checkpoints, starts)
    }

    proptest! {
           #![proptest_config(ProptestConfig::with_cases(96))]

           #[test]
           fn scan_equals_the_sequential_reader(
               steps in steps(),
               fork in any::<prop::sample::Index>(),
               newest in any::<prop::sample::Index>(),
           ) {
               let (wal, checkpoints, starts) = write(&steps);
               let fork = *fork.get(&starts);
               let fork = if fork == starts[0] { fork.advance(8) } else { fork };
               let newest = *newest.get(&checkpoints);
               let request = ScanRequest {
                   geometry: geometry(), fork, newest_checkpoint: newest, required_end: newest, end: EndOfWal::Crashed,
    unknown_changes: UnknownChanges::Refuse,
               };
               prop_assert_eq!(parallel(&wal, &request).unwrap(), sequential(&wal, &request, Lsn(1 << 20)));
           }

           #[test]
           fn damage_is_found_as_the_sequential_reader_finds_it(
               steps in steps(),
               at in 0u64..6_000_000,
               mask in 1u8..,
               missing in prop::option::of(2u64..6),
           ) {
               let (mut wal, checkpoints, _) = write(&steps);
               wal.damage(Lsn((1 << 20) + 500 + at), mask);
               if let Some(missing) = missing {
                   wal.remove(SegmentNo(missing));
               }
               let request = ScanRequest {
                   geometry: geometry(),
                   fork: checkpoints[0].advance(8),
                   newest_checkpoint: checkpoints[0],
                   required_end: checkpoints[0],
                   end: EndOfWal::Open,
    unknown_changes: UnknownChanges::Refuse,
               };
               prop_assert_eq!(parallel(&wal, &request).unwrap(), sequential(&wal, &request, Lsn(1 << 20)));
           }
       }

    fn long_wal() -> (WalBuilder, Vec<Lsn>) {
        let mut wal = WalBuilder::new(geometry());
        let mut checkpoints = Vec::new();
        for round in 0..6 {
            checkpoints.push(wal.checkpoint(wal.position()));
            for block in 0..200 {
                wal.append(&touch(16384 + round, block, 6_000));
            }
        }
        (wal, checkpoints)
    }

    #[test]
    fn the_common_checkpoint_is_before_the_fork_and_not_beyond_the_newest_flushed_one() {
        let (wal, checkpoints) = long_wal();
        let find = |fork: Lsn, newest: Lsn| {
            let request = ScanRequest {
                geometry: geometry(),
                fork,
                newest_checkpoint: newest,
                required_end: newest,
                end: EndOfWal::Open,
                unknown_changes: UnknownChanges::Refuse,
            };
            scan(&wal, &request, &quiet).unwrap().diverged.unwrap().checkpoint_lsn
        };
        assert_eq!(find(checkpoints[3], checkpoints[5]), checkpoints[2]);
        assert_eq!(find(checkpoints[3].advance(1), checkpoints[5]), checkpoints[3]);
        // A standby has received checkpoints that it never made its own: its data may be older.
        assert_eq!(find(checkpoints[5], checkpoints[1]), checkpoints[1]);
    }

    #[test]
    fn valid_wal_behind_a_damaged_record_is_damage_after_a_crash_only() {
        let (mut wal, checkpoints) = long_wal();
        let request = |end| ScanRequest {
            geometry: geometry(),
            fork: checkpoints[0].advance(1),
            newest_checkpoint: checkpoints[0],
            required_end: checkpoints[0],
            end,
            unknown_changes: UnknownChanges::Refuse,
        };
        assert!(scan(&wal, &request(EndOfWal::Crashed), &quiet).is_ok());
        let at = checkpoints[2].advance(5_000);
        wal.damage(at, 1);
        let open = scan(&wal, &request(EndOfWal::Open), &quiet).unwrap();
        assert!(open.end <= at && open.end > checkpoints[2]);
        match scan(&wal, &request(EndOfWal::Crashed), &quiet) {
            Err(ScanError::Damaged { position, later, .. }) => assert!(position == open.end && later > at),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn missing_and_broken_segments_are_named() {
        let (wal, checkpoints) = long_wal();
        let request = ScanRequest {
            geometry: geometry(),
            fork: checkpoints[1],
            newest_checkpoint: checkpoints[5],
            required_end: wal.position(),
            end: EndOfWal::Known,
            unknown_changes: UnknownChanges::Refuse,
        };
        assert_eq!(scan(&wal, &request, &quiet).unwrap().end, wal.position());
        let mut without = wal.clone();
        without.remove(SegmentNo(4));
        without.remove(SegmentNo(6));
        match scan(&without, &request, &quiet) {
            Err(ScanError::Missing { segment, all, .. }) => {
                assert_eq!((segment, all), (SegmentNo(4), vec![SegmentNo(4), SegmentNo(6)]));
            }
            other => panic!("{other:?}"),
        }
        // Below the fork, too, where the checkpoint is looked for.
        let mut without = wal.clone();
        without.remove(SegmentNo(1));
        assert!(matches!(
            scan(&without, &request, &quiet),
            Err(ScanError::Missing { segment: SegmentNo(1), .. })
        ));
        let mut broken = wal.clone();
        broken.damage(checkpoints[3].advance(3_000), 1);
        assert!(matches!(scan(&broken, &request, &quiet), Err(ScanError::BreaksOff { .. })));
    }

    /// It is lost, and must be found: what follows it was flushed, and pages with it.
    #[test]
    fn a_hole_in_the_wal_of_a_crashed_server_is_no_end() {
        let (mut wal, checkpoints) = long_wal();
        let request = ScanRequest {
            geometry: geometry(),
            fork: checkpoints[0].advance(1),
            newest_checkpoint: checkpoints[0],
            required_end: checkpoints[0],
            end: EndOfWal::Crashed,
            unknown_changes: UnknownChanges::Refuse,
        };
        wal.remove(SegmentNo(3));
        match scan(&wal, &request, &quiet) {
            Err(ScanError::Missing { segment: SegmentNo(3), all, needed, .. }) => {
                assert_eq!(all, [SegmentNo(3)]);
                assert!(needed > geometry().segment_size.end_of(SegmentNo(3)), "{needed}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn relation_changes_of_an_unknown_kind_stop_the_scan() {
        let (mut wal, checkpoints) = long_wal();
        let request = |wal: &WalBuilder| ScanRequest {
            geometry: geometry(),
            fork: checkpoints[1],
            newest_checkpoint: checkpoints[0],
            required_end: wal.position(),
            end: EndOfWal::Known,
            unknown_changes: UnknownChanges::Refuse,
        };
        wal.append(&RecordSpec { rmid: 2, info: 0x11, main_data: vec![0; 16], ..RecordSpec::default() });
        assert!(scan(&wal, &request(&wal), &quiet).is_ok());
        let lsn = wal.append(&RecordSpec {
            rmid: 128,
            info: 0x01,
            main_data: vec![0; 16],
            ..RecordSpec::default()
        });
        match scan(&wal, &request(&wal), &quiet) {
            Err(ScanError::UnknownRelationChange { lsn: found, rmid: 128, .. }) => assert_eq!(found, lsn),
            other => panic!("{other:?}"),
        }
    }
}
