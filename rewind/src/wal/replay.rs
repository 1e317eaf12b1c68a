//! The WAL that replay on the rewound target goes through: the source's history.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walparse::scan::{EndOfWal, ScanError, ScanRequest, Stretch, UnknownChanges, scan_stretch};
use walparse::{
    FileBytes, Lsn, SegmentNo, SegmentSize, SegmentStore, WalFault, WalReadError, before_page_header,
};

use crate::outcome::CheckpointAt;
use crate::progress::{Progress, Stage};
use crate::source::{Pace, SourceError, read_part, read_part_at};
use crate::threads;
use crate::wal::error::WalError;
use crate::wal::source::{OwnCheckpoint, SourceWal, record_checksum};
use crate::wal::summaries::{self, Summarized, Wanted};
use crate::wal::target::{FetchWalError, TargetWal};

/// At most this much of the source's WAL is read at the same time, and as much is remembered: each segment is in memory as
/// a whole.
const AT_A_TIME: u64 = 128 << 20;

/// Limit on the segments that replay may have to read: 16 TB with segments of 16 MB.
const MAX_SEGMENTS: u64 = 1 << 20;

/// Checks that replay from `redo` to `end` is not impossibly long.
///
/// # Errors
/// It is.
pub(crate) fn check_length(redo: Lsn, end: Lsn, size: SegmentSize) -> Result<(), WalError> {
    if size.segment_of(end).0.saturating_sub(size.segment_of(redo).0) > MAX_SEGMENTS {
        return Err(WalError::TooLong { redo, end });
    }
    Ok(())
}

/// The source's WAL and, where the source no longer has a segment, the places that hold copies of it.
///
/// A segment is read into memory. It is never written to the target.
pub(crate) struct ReplayWal<'a> {
    source: SourceWal<'a>,
    target: &'a TargetWal<'a>,
    /// When an unfinished rewind is resumed: the names of the target's own files. That run may have copied others,
    /// possibly incompletely.
    own_files: Option<&'a BTreeSet<String>>,
    fork: Lsn,
    available: Lsn,
    /// At which the source is read. Whether to stop is checked before each segment is opened.
    pace: &'a Pace,
    progress: &'a dyn Progress,
    /// The segments that were read last. Most are needed twice: by what reads them, and for the end of the last record
    /// of the segment before.
    recent: Mutex<VecDeque<(SegmentNo, Arc<Vec<u8>>)>>,
}

impl<'a> ReplayWal<'a> {
    /// The WAL of `source`, which is on its disk up to `available`. `target` has the segments before `fork`, up to which
    /// both histories are the same.
    pub(crate) fn new(
        source: SourceWal<'a>,
        target: &'a TargetWal<'a>,
        own_files: Option<&'a BTreeSet<String>>,
        fork: Lsn,
        available: Lsn,
        pace: &'a Pace,
        progress: &'a dyn Progress,
    ) -> ReplayWal<'a> {
        ReplayWal { source, target, own_files, fork, available, pace, progress, recent: Mutex::default() }
    }

    /// How far the source's WAL is on its disk.
    pub(crate) fn available(&self) -> Lsn {
        self.available
    }

    /// A checkpoint of the source, with what tells it from others; `None` if its record cannot be read.
    ///
    /// # Errors
    /// The source could not be read.
    pub(crate) fn own_checkpoint(&self, at: CheckpointAt) -> Result<Option<OwnCheckpoint>, WalError> {
        let checksum = record_checksum(&self.source, at.lsn)?;
        Ok(checksum.map(|checksum| OwnCheckpoint { at, checksum }))
    }

    /// What the source has changed between two redo positions, by the summaries of its WAL; `None` if these do not say.
    /// `is_compared`: the WAL of both sides was compared before the fork.
    ///
    /// # Errors
    /// The source could not be read.
    pub(crate) fn summarized(
        &self,
        start: Lsn,
        end: Lsn,
        is_compared: bool,
    ) -> Result<Option<Summarized>, WalError> {
        summaries::read(&self.source, self.target, Wanted { start, end, fork: self.fork, is_compared })
    }

    /// The number of segments that are read at the same time.
    fn segments_at_a_time(&self) -> usize {
        let segments = (AT_A_TIME / self.source.geometry.segment_size.bytes()).max(1);
        rayon::current_num_threads().min(segments as usize)
    }
}

impl ReplayWal<'_> {
    /// Checks that the WAL from `redo` on is of a possible length, and that its last segment exists.
    ///
    /// # Errors
    /// It is too long, or its last segment is missing: what follows would search for one segment after the other.
    pub(crate) fn check_extent(&self, redo: Lsn) -> Result<(), WalError> {
        let size = self.source.geometry.segment_size;
        check_length(redo, self.available, size)?;
        if self.available <= redo {
            return Ok(());
        }
        self.check_present(size.segment_before(self.available), redo)
    }

    /// Checks that a segment exists, on the source or elsewhere. Replay starts at `redo`.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check_present(&self, segment: SegmentNo, redo: Lsn) -> Result<(), WalError> {
        let path = self.source.path(segment)?;
        if read_part(self.source.source, &path, 0, 1)?.is_some() {
            return Ok(());
        }
        let name = self.source.describe(segment);
        let elsewhere = self.find_elsewhere(segment, &name);
        match elsewhere.map_err(|error| WalError::Fetch { name, source: Box::new(error) })? {
            Some(_) => Ok(()),
            None => Err(self.missing(&[segment], redo)),
        }
    }

    /// Reports the progress of `read`, which reads the WAL from `from` to its end on the source's disk.
    pub(crate) fn reporting<T>(&self, from: Lsn, read: impl FnOnce() -> T) -> T {
        let bytes = self.available.0.saturating_sub(from.0);
        self.progress.begin(Stage::SourceWal, Some(bytes));
        let read = read();
        self.progress.finish(Stage::SourceWal);
        read
    }

    /// Reads the WAL from `from` up to `to`, a position at which a record starts.
    ///
    /// # Errors
    /// WAL is missing or damaged.
    pub(crate) fn read(&self, from: Lsn, to: Lsn) -> Result<Stretch, WalError> {
        self.read_as((from, to), to, EndOfWal::Known)
    }

    /// Reads the WAL from `from` to its end on the source's disk.
    ///
    /// # Errors
    /// WAL is missing or damaged.
    pub(crate) fn read_to_end(&self, from: Lsn) -> Result<Stretch, WalError> {
        let geometry = self.source.geometry;
        let end = before_page_header(self.available, &geometry);
        let found = self.read_as((from, self.available), from.min(end), EndOfWal::Open)?;
        // Only the record that the source was writing when it was asked may be incomplete.
        let last_byte = self.available.0.saturating_sub(1);
        let last_page = Lsn(last_byte - last_byte % u64::from(geometry.wal_block_size));
        if found.stop.fault_at >= last_page {
            return Ok(found);
        }
        if found.stop.fault == WalFault::NoSegment {
            let segment = geometry.segment_size.segment_of(found.stop.fault_at);
            return Err(self.missing(&[segment], from));
        }
        let (position, fault) = (found.end, found.stop.fault);
        Err(WalError::ScanSource(ScanError::BreaksOff { position, needed: self.available, fault }))
    }

    /// Reads the WAL from `from` to about `to`.
    fn read_as(&self, (from, to): (Lsn, Lsn), required_end: Lsn, end: EndOfWal) -> Result<Stretch, WalError> {
        let geometry = self.source.geometry;
        let request = ScanRequest::new(geometry, Lsn(u64::MAX), from, required_end)
            .with_end(end)
            .with_unknown_changes(UnknownChanges::Ignore);
        // Whole segments are counted, also the first and the last one, of which only a part is read.
        let left = AtomicU64::new(to.0.saturating_sub(from.0));
        let progress = |bytes: u64| {
            let subtract = |left: u64| Some(left.saturating_sub(bytes));
            let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
            self.progress.advance(Stage::SourceWal, bytes.min(before.unwrap_or_default()));
        };
        let read = || scan_stretch(self, &request, from, &progress);
        let found = match rayon::ThreadPoolBuilder::new().num_threads(self.segments_at_a_time()).build() {
            Ok(pool) => pool.install(read),
            Err(_) => read(),
        };
        found.map_err(|error| match error {
            // WAL that is missing here is missing for replay.
            ScanError::Missing { all, .. } => self.missing(&all, from),
            other => WalError::ScanSource(other),
        })
    }

    /// Finds a segment that the source does not have: the one that an unfinished run has copied, or a copy in another
    /// place. If both histories have a file of this name beyond the fork, a copy may be of the wrong one.
    fn find_elsewhere(&self, segment: SegmentNo, name: &str) -> Result<Option<PathBuf>, FetchWalError> {
        let size = self.source.geometry.segment_size;
        if self.own_files.is_some_and(|own| !own.contains(name)) {
            return self.target.find(name, false);
        }
        let is_ambiguous = size.end_of(segment) > self.fork
            && self.target.history().timeline_of_segment(segment, size)
                == self.source.history.timeline_of_segment(segment, size);
        if is_ambiguous { Ok(None) } else { self.target.find_elsewhere(name, false) }
    }

    /// Fetches a segment, unless it is remembered; `None` if the source does not have it. One is fetched at a time, over
    /// all connections, and the scan goes on meanwhile with those that it has.
    ///
    /// The source is read on a thread of its own. Rayon would run other jobs on a thread that waits, and such a job could
    /// wait for the same lock forever.
    fn fetch(&self, segment: SegmentNo) -> Result<Option<Arc<Vec<u8>>>, SourceError> {
        let size = self.source.geometry.segment_size;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = recent.iter().find(|(number, _)| *number == segment) {
            return Ok(Some(Arc::clone(bytes)));
        }
        let path = self.source.path(segment)?;
        let length = size.bytes().min(self.available.0 - size.start_of(segment).0);
        let read = || read_part_at(self.source.source, &path, (0, length), self.pace);
        let read = match std::thread::scope(|scope| threads::start(scope, read).map(threads::join)) {
            Ok(read) => read,
            // Only a data directory is read by jobs of Rayon.
            Err(_) if self.source.source.connected().is_some() => read(),
            Err(source) => Err(SourceError::Runtime { source }),
        };
        let Some(mut bytes) = read? else {
            return Ok(None);
        };
        // What lies beyond the end is not WAL yet.
        bytes.resize(size.bytes() as usize, 0);
        let bytes = Arc::new(bytes);
        if recent.len() > self.segments_at_a_time() {
            recent.pop_front();
        }
        recent.push_back((segment, Arc::clone(&bytes)));
        Ok(Some(bytes))
    }

    fn missing(&self, segments: &[SegmentNo], redo: Lsn) -> WalError {
        let names = segments.iter().map(|segment| self.source.describe(*segment)).collect();
        WalError::MissingForReplay { names, redo, places: self.target.places(), later: None }
    }
}

impl SegmentStore for ReplayWal<'_> {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        let geometry = &self.source.geometry;
        let size = geometry.segment_size;
        if segment > size.segment_before(self.available) {
            return Ok(None);
        }
        let name = self.source.describe(segment);
        let failed = |error: Box<dyn Error + Send + Sync>| WalReadError::Fetch {
            segment: name.clone(),
            source: error,
        };
        self.pace.check().map_err(|stopped| failed(stopped.into()))?;
        let is_own = self.own_files.is_none_or(|own| own.contains(&name));
        if is_own
            && size.end_of(segment) <= self.fork
            && let Some(bytes) = self.target.open_own(segment)?
        {
            return Ok(Some(bytes));
        }
        if let Some(bytes) = self.fetch(segment).map_err(|error| failed(error.into()))? {
            return Ok(Some(FileBytes::Shared(bytes)));
        }
        let elsewhere = self.find_elsewhere(segment, &name).map_err(|error| failed(error.into()))?;
        let Some(path) = elsewhere else { return Ok(None) };
        FileBytes::open(&path).map(Some).map_err(|source| WalReadError::Open { path, source })
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(Some(self.source.geometry.segment_size.segment_before(self.available)))
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.source.describe(segment)
    }
}
