//! The WAL that replay on the rewound target will read: the source's history.

use walparse::scan::{EndOfWal, Scan, ScanError, ScanRequest, UnknownChanges, scan};
use walparse::{FileBytes, Lsn, SegmentNo, SegmentStore, WalFault, WalReadError, before_page_header};

use crate::source::{SourceError, read_part};
use crate::wal::error::WalError;
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// Segments are read into memory one at a time if they are larger than this, else by all threads side by side.
const LARGE_SEGMENT: u64 = 64 << 20;

/// The source's WAL, and where that lacks a segment, the places that hold copies of it.
///
/// A segment is read into memory: it is never written to the target.
pub(crate) struct ReplayWal<'a> {
    pub(crate) source: SourceWal<'a>,
    /// Asked for segments that the source no longer has.
    pub(crate) target: &'a TargetWal<'a>,
    /// The position up to which both histories are the same.
    pub(crate) fork: Lsn,
    /// How far the source's WAL is on its disk. Segments beyond are recycled ones.
    pub(crate) available: Lsn,
}

impl ReplayWal<'_> {
    /// Reads the WAL from the segment of `from` to its end on the source's disk. Created and truncated relations
    /// count from `from` on.
    ///
    /// # Errors
    /// WAL is missing or damaged, or a record changes relation files in an unknown way.
    pub(crate) fn read(&self, from: Lsn) -> Result<Scan, WalError> {
        let geometry = self.source.geometry;
        let end = before_page_header(self.available, &geometry);
        let mut request = ScanRequest::new(geometry, Lsn(u64::MAX), from, from.min(end))
            .with_end(EndOfWal::Open)
            .with_unknown_changes(UnknownChanges::Refuse);
        request.files_since = from;
        let read = || scan(self, &request, &|_| {}).map_err(|error| self.error(error, from));
        let pool = (geometry.segment_size.bytes() > LARGE_SEGMENT)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(1).build().ok())
            .flatten();
        let found = match pool {
            Some(pool) => pool.install(read)?,
            None => read()?,
        };
        // Only the record that the source was writing when it was asked may be incomplete.
        let last_byte = self.available.0.saturating_sub(1);
        let last_page = Lsn(last_byte - last_byte % u64::from(geometry.wal_block_size));
        if found.stop.fault_at < last_page {
            let (position, fault) = (found.end, found.stop.fault);
            if fault == WalFault::NoSegment {
                let segment = geometry.segment_size.segment_of(found.stop.fault_at);
                return Err(self.missing(&[segment], from));
            }
            return Err(WalError::ScanSource(ScanError::BreaksOff {
                position,
                needed: self.available,
                fault,
            }));
        }
        Ok(found)
    }

    /// WAL that is missing here is missing for replay.
    fn error(&self, error: ScanError, from: Lsn) -> WalError {
        match error {
            ScanError::Missing { all, .. } => self.missing(&all, from),
            other => WalError::ScanSource(other),
        }
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
        if size.end_of(segment) <= self.fork
            && let Some(bytes) = self.target.open_own(segment)?
        {
            return Ok(Some(bytes));
        }
        let failed = |source: SourceError| WalReadError::Fetch {
            segment: self.source.describe(segment),
            source: Box::new(source),
        };
        let path = self.source.path(segment).map_err(failed)?;
        let length = size.bytes().min(self.available.0 - size.start_of(segment).0);
        let bytes = read_part(self.source.source, &path, 0, length).map_err(failed)?;
        if let Some(mut bytes) = bytes {
            // What lies beyond the end is not WAL yet.
            bytes.resize(size.bytes() as usize, 0);
            return Ok(Some(FileBytes::Owned(bytes)));
        }
        let name = self.source.describe(segment);
        let elsewhere = self.target.find_elsewhere(&name, false);
        let elsewhere =
            elsewhere.map_err(|error| WalReadError::Fetch { segment: name, source: Box::new(error) })?;
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
