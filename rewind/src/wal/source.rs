//! The source's WAL, read through [`Source`], and its end.

use std::time::{Duration, Instant};

use walparse::{
    ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, TimelineId, WalGeometry,
    WalReadError, WalReader, before_page_header, crc32c_append,
};

use crate::datadir::data_path::DataPath;
use crate::outcome::CheckpointAt;
use crate::source::{Source, SourceError, WalPosition, read_part};
use crate::wal::error::WalError;

/// How long to wait for a source that is a standby to receive WAL up to the target's end.
const STANDBY_CATCH_UP: Duration = Duration::from_secs(2);

/// Bytes of WAL of which the checksum is taken to tell one history from another. A few pages contain many records, and the
/// checksum of each record covers its link to the one before.
const PROVEN_BYTES: u64 = 64 * 1024;

/// `XLP_BKP_REMOVABLE` in `xlp_info`, the third byte of a page (xlog_internal.h). It does not concern the contents.
pub(crate) const REMOVABLE: u8 = 0x04;

/// The source's segments in its own timeline history.
pub(crate) struct SourceWal<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) history: &'a TimelineHistory,
    pub(crate) geometry: WalGeometry,
}

impl SourceWal<'_> {
    /// The name of a segment's file.
    pub(crate) fn describe(&self, segment: SegmentNo) -> String {
        let size = self.geometry.segment_size;
        size.file_name(self.history.timeline_of_segment(segment, size), segment)
    }

    /// The path of a segment's file below the data directory.
    pub(crate) fn path(&self, segment: SegmentNo) -> Result<DataPath, SourceError> {
        let name = self.describe(segment);
        Ok(DataPath::parse(format!("{}/{name}", self.geometry.version.wal_dir()))?)
    }
}

/// A checkpoint of the source's own history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnCheckpoint {
    pub(crate) at: CheckpointAt,
    /// The checksum of its record. Another server may have a timeline of the same number with other records.
    pub(crate) checksum: u32,
}

impl OwnCheckpoint {
    /// In the form in which it is stored: LSN, redo, timeline, checksum of the record.
    pub(crate) fn to_parts(self) -> (u64, u64, u32, u32) {
        (self.at.lsn.0, self.at.redo.0, self.at.timeline.0, self.checksum)
    }

    /// From the form in which it is stored.
    pub(crate) fn from_parts((lsn, redo, timeline, checksum): (u64, u64, u32, u32)) -> OwnCheckpoint {
        let at = CheckpointAt { lsn: Lsn(lsn), redo: Lsn(redo), timeline: TimelineId(timeline) };
        OwnCheckpoint { at, checksum }
    }

    /// Whether this source's history has the same checkpoint.
    ///
    /// # Errors
    /// The source could not be read.
    pub(crate) fn is_in(&self, wal: &SourceWal<'_>) -> Result<bool, WalError> {
        let CheckpointAt { lsn, redo, timeline } = self.at;
        let is_on_timeline = wal.history.timeline_at(redo) == timeline;
        Ok(is_on_timeline && record_checksum(wal, lsn)? == Some(self.checksum))
    }
}

/// A position in the source's own history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnPosition {
    pub(crate) lsn: Lsn,
    /// The timeline of the last byte before.
    pub(crate) timeline: TimelineId,
    /// From here on the WAL before it counts for the checksum.
    pub(crate) from: Lsn,
    /// The checksum of that WAL. Another server may have a timeline of the same number with other WAL.
    pub(crate) checksum: u32,
}

impl OwnPosition {
    /// In the form in which it is stored: LSN, timeline, start of the WAL that counts, its checksum.
    pub(crate) fn to_parts(self) -> (u64, u32, u64, u32) {
        (self.lsn.0, self.timeline.0, self.from.0, self.checksum)
    }

    /// From the form in which it is stored.
    pub(crate) fn from_parts((lsn, timeline, from, checksum): (u64, u32, u64, u32)) -> OwnPosition {
        OwnPosition { lsn: Lsn(lsn), timeline: TimelineId(timeline), from: Lsn(from), checksum }
    }

    /// A position of the source's history, with what tells it from those of others by the WAL between `start` and there; `None`
    /// if the source does not have that WAL, or `lsn` is not behind `start`.
    ///
    /// # Errors
    /// The source could not be read.
    pub(crate) fn new(wal: &SourceWal<'_>, start: Lsn, lsn: Lsn) -> Result<Option<OwnPosition>, WalError> {
        if lsn <= start {
            return Ok(None);
        }
        let from = start.max(Lsn(lsn.0.saturating_sub(PROVEN_BYTES)));
        let timeline = wal.history.timeline_at(Lsn(lsn.0.saturating_sub(1)));
        let checksum = wal_checksum(wal, from, lsn)?;
        Ok(checksum.map(|checksum| OwnPosition { lsn, timeline, from, checksum }))
    }

    /// The later one of two positions of one history.
    pub(crate) fn later(self, other: Option<OwnPosition>) -> OwnPosition {
        other.filter(|other| other.lsn > self.lsn).unwrap_or(self)
    }

    /// Whether this source's history has the same position, and the source has its WAL up to there. A standby is given a
    /// moment to receive it.
    ///
    /// # Errors
    /// The source could not be read.
    pub(crate) fn is_in(&self, wal: &SourceWal<'_>, control: &ControlFile) -> Result<bool, WalError> {
        let (_, on_disk) = source_end(wal.source, control, wal.history, self.lsn)?;
        Ok(on_disk >= self.lsn && OwnPosition::new(wal, self.from, self.lsn)? == Some(*self))
    }
}

/// The checksum of the source's WAL from `from` to `end`; `None` if a part of it does not exist.
fn wal_checksum(wal: &SourceWal<'_>, from: Lsn, end: Lsn) -> Result<Option<u32>, WalError> {
    let (size, page) = (wal.geometry.segment_size, u64::from(wal.geometry.wal_block_size));
    let (mut at, mut checksum) = (from, 0);
    while at < end {
        let segment = size.segment_of(at);
        let length = end.min(size.end_of(segment)).0 - at.0;
        let part = read_part(wal.source, &wal.path(segment)?, size.offset_of(at) as u64, length)?;
        let Some(mut bytes) = part.filter(|part| part.len() as u64 == length) else { return Ok(None) };
        for (lsn, byte) in (at.0..).zip(&mut bytes) {
            if lsn % page == 2 {
                *byte &= !REMOVABLE;
            }
        }
        checksum = crc32c_append(checksum, &bytes);
        at = at.advance(length);
    }
    Ok(Some(checksum))
}

/// The checksum of the source's record at `lsn`, which tells it from a record of another history; `None` if there is no
/// valid record. Checkpoint records have the time, and so none is like another.
///
/// # Errors
/// The source could not be read.
pub(crate) fn record_checksum(wal: &SourceWal<'_>, lsn: Lsn) -> Result<Option<u32>, WalError> {
    let around = AroundRecord { wal, lsn, pages: 2 };
    let mut reader = WalReader::new(&around, wal.geometry, lsn);
    Ok(reader.read()?.ok().filter(|record| record.lsn == lsn).map(|record| record.header.crc))
}

/// A few pages of the source's WAL: the first two of every segment, and `pages` pages starting with the one in which the
/// record at `lsn` starts. All other pages read as zeros, which is not valid WAL. This avoids fetching whole segments,
/// which may be a gigabyte each.
pub(crate) struct AroundRecord<'a> {
    pub(crate) wal: &'a SourceWal<'a>,
    pub(crate) lsn: Lsn,
    /// Number of pages. Two are enough for a checkpoint record.
    pub(crate) pages: u64,
}

impl SegmentStore for AroundRecord<'_> {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        let failed = |source: SourceError| WalReadError::Fetch {
            segment: self.describe(segment),
            source: Box::new(source),
        };
        let geometry = &self.wal.geometry;
        let (size, block) = (geometry.segment_size, u64::from(geometry.wal_block_size));
        let path = self.wal.path(segment).map_err(failed)?;
        // Zeroed memory that is never written to is not allocated by the kernel.
        let mut bytes = vec![0; size.bytes() as usize];
        let mut stretches = vec![(0, 2)];
        if size.segment_of(self.lsn) == segment {
            let offset = size.offset_of(self.lsn) as u64;
            stretches.push((offset - offset % block, self.pages));
        }
        for (offset, pages) in stretches {
            let length = (pages * block).min(size.bytes() - offset);
            let part = read_part(self.wal.source, &path, offset, length).map_err(failed)?;
            let Some(part) = part else { return Ok(None) };
            bytes[offset as usize..][..part.len()].copy_from_slice(&part);
        }
        Ok(Some(FileBytes::Owned(bytes)))
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(None)
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.wal.describe(segment)
    }
}

/// The end of the source's WAL, and the end of the part that has been flushed and can be compared.
///
/// A standby may be about to receive WAL that the target already has, so [`STANDBY_CATCH_UP`] is allowed for that. A
/// target that is still ahead afterwards cannot follow this source.
pub(crate) fn source_end(
    source: &dyn Source,
    control: &ControlFile,
    history: &TimelineHistory,
    target_end: Lsn,
) -> Result<(Lsn, Lsn), WalError> {
    let geometry = control.geometry();
    let deadline = Instant::now() + STANDBY_CATCH_UP;
    loop {
        match source.position()? {
            WalPosition::Primary { insert, flush } => {
                return Ok((before_page_header(insert, &geometry), flush.min(insert)));
            }
            WalPosition::Standby { received, .. } if received >= target_end || Instant::now() >= deadline => {
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

/// The end of the WAL that the data directory of a stopped server depends on: the end of its last checkpoint record or
/// its minRecoveryPoint, whichever is later.
fn stopped_end<S: SegmentStore + ?Sized>(store: &S, control: &ControlFile) -> Result<Lsn, WalError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(store, control.geometry(), lsn);
    match reader.read()? {
        Ok(record) => Ok(record.end.max(control.min_recovery_point())),
        Err(end) => Err(WalError::SourceEnd { lsn, source: end.fault }),
    }
}
