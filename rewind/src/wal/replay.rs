//! The WAL that replay on the rewound target goes through: the source's history.

use walparse::scan::{EndOfWal, ScanError, ScanRequest, Stretch, UnknownChanges, scan_stretch};
use walparse::{
    FileBytes, Lsn, SegmentNo, SegmentSize, SegmentStore, WalFault, WalReadError, before_page_header,
};

use crate::source::{SourceError, read_part};
use crate::stop::StopFlag;
use crate::wal::error::WalError;
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// Segments larger than this are read one at a time: each is in memory as a whole while it is read.
const LARGE_SEGMENT: u64 = 64 << 20;

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

/// The source's WAL and, where the source no longer has a segment, the places that hold copies of the target's.
///
/// A segment is read into memory. It is never written to the target.
pub(crate) struct ReplayWal<'a> {
    pub(crate) source: SourceWal<'a>,
    /// Has the segments before the fork, and finds those that the source no longer has.
    pub(crate) target: &'a TargetWal<'a>,
    /// The position up to which both histories are the same.
    pub(crate) fork: Lsn,
    /// How far the source's WAL is on its disk. Later segments are recycled ones.
    pub(crate) available: Lsn,
    /// Checked before each segment is read.
    pub(crate) stop: &'a StopFlag,
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
        let last = size.segment_before(self.available);
        let path = self.source.path(last)?;
        if read_part(self.source.source, &path, 0, 1)?.is_some() {
            return Ok(());
        }
        let name = self.source.describe(last);
        let elsewhere = self.target.find_elsewhere(&name, false);
        match elsewhere.map_err(|error| WalError::Fetch { name, source: Box::new(error) })? {
            Some(_) => Ok(()),
            None => Err(self.missing(&[last], redo)),
        }
    }

    /// Reads the WAL from `from` up to `to`, a position at which a record starts.
    ///
    /// # Errors
    /// WAL is missing or damaged.
    pub(crate) fn read(&self, from: Lsn, to: Lsn) -> Result<Stretch, WalError> {
        self.read_as(from, to, EndOfWal::Known)
    }

    /// Reads the WAL from `from` to its end on the source's disk.
    ///
    /// # Errors
    /// WAL is missing or damaged.
    pub(crate) fn read_to_end(&self, from: Lsn) -> Result<Stretch, WalError> {
        let geometry = self.source.geometry;
        let end = before_page_header(self.available, &geometry);
        let found = self.read_as(from, from.min(end), EndOfWal::Open)?;
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

    fn read_as(&self, from: Lsn, required_end: Lsn, end: EndOfWal) -> Result<Stretch, WalError> {
        let geometry = self.source.geometry;
        let request = ScanRequest::new(geometry, Lsn(u64::MAX), from, required_end)
            .with_end(end)
            .with_unknown_changes(UnknownChanges::Ignore);
        let read = || scan_stretch(self, &request, from, &|_| {});
        let pool = (geometry.segment_size.bytes() > LARGE_SEGMENT)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(1).build().ok())
            .flatten();
        let found = match pool {
            Some(pool) => pool.install(read),
            None => read(),
        };
        found.map_err(|error| match error {
            // WAL that is missing here is missing for replay.
            ScanError::Missing { all, .. } => self.missing(&all, from),
            other => WalError::ScanSource(other),
        })
    }

    fn missing(&self, segments: &[SegmentNo], redo: Lsn) -> WalError {
        let names = segments.iter().map(|segment| self.source.describe(*segment)).collect();
        WalError::MissingForReplay { names, redo, places: self.target.places() }
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
        let failed =
            |source: SourceError| WalReadError::Fetch { segment: name.clone(), source: Box::new(source) };
        self.stop
            .check()
            .map_err(|stopped| WalReadError::Fetch { segment: name.clone(), source: Box::new(stopped) })?;
        if size.end_of(segment) <= self.fork
            && let Some(bytes) = self.target.open_own(segment)?
        {
            return Ok(Some(bytes));
        }
        let path = self.source.path(segment).map_err(failed)?;
        let length = size.bytes().min(self.available.0 - size.start_of(segment).0);
        if let Some(mut bytes) = read_part(self.source.source, &path, 0, length).map_err(failed)? {
            // What lies beyond the end is not WAL yet.
            bytes.resize(size.bytes() as usize, 0);
            return Ok(Some(FileBytes::Owned(bytes)));
        }
        let elsewhere = self.target.find_elsewhere(&name, false);
        let elsewhere = elsewhere
            .map_err(|error| WalReadError::Fetch { segment: name.clone(), source: Box::new(error) })?;
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
