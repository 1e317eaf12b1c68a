//! The source's WAL, read through the seam, and where it ends.

use std::time::{Duration, Instant};

use walparse::{
    ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, WalGeometry, WalReadError,
    WalReader, before_page_header,
};

use crate::datadir::data_path::DataPath;
use crate::source::{Source, SourceError, WalPosition, read_part};
use crate::wal::error::WalError;

/// How long a standby may take to receive what the target has.
const PATIENCE: Duration = Duration::from_secs(2);

/// The segments of the source in its own history, read through the seam.
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

/// The pages from the one on in which a record of the source starts, and the first two of every segment, without
/// fetching a segment of perhaps a gigabyte. All else reads as zeros, and so as no WAL.
pub(crate) struct AroundRecord<'a> {
    pub(crate) wal: &'a SourceWal<'a>,
    pub(crate) lsn: Lsn,
    /// How many pages; two are enough for a record as short as a checkpoint's.
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
        // Memory that is never written to is not taken.
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

/// The end of the source's WAL, and how far of that is on its disk to be compared.
///
/// A standby that still receives may be about to get what the target has, so it is given a moment; a
/// target that is still ahead then could not follow it, whoever is right.
pub(crate) fn source_end(
    source: &dyn Source,
    control: &ControlFile,
    history: &TimelineHistory,
    target_end: Lsn,
) -> Result<(Lsn, Lsn), WalError> {
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
fn stopped_end<S: SegmentStore + ?Sized>(store: &S, control: &ControlFile) -> Result<Lsn, WalError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(store, control.geometry(), lsn);
    match reader.read()? {
        Ok(record) => Ok(record.end.max(control.min_recovery_point())),
        Err(end) => Err(WalError::SourceEnd { lsn, source: end.fault }),
    }
}
