//! Where the WAL segments of a history are found.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::WalReadError;
use crate::mapped::FileBytes;
use crate::segment::{SegmentNo, SegmentSize};
use crate::timeline::TimelineHistory;

/// Provides the segments of one history by number. It is called from several threads at once.
pub trait SegmentStore: Sync {
    /// The contents of the file that holds `segment` in this history; `None` if there is no such file.
    ///
    /// # Errors
    /// The file exists but cannot be read.
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError>;

    /// The highest segment that has a file in the WAL directory, whether the file is valid or not.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError>;

    /// The name of the segment for messages, usually the path of its file.
    fn describe(&self, segment: SegmentNo) -> String;
}

/// The segments of a history in a directory, for example `pg_wal`.
#[derive(Clone, Debug)]
pub struct WalDir {
    directory: PathBuf,
    history: TimelineHistory,
    segment_size: SegmentSize,
}

impl WalDir {
    /// The segments of `history` in `directory`.
    pub fn new(directory: impl Into<PathBuf>, history: TimelineHistory, segment_size: SegmentSize) -> WalDir {
        WalDir { directory: directory.into(), history, segment_size }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The history.
    pub fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The name of the file that holds `segment` in this history.
    pub fn file_name(&self, segment: SegmentNo) -> String {
        self.segment_size.file_name(self.history.timeline_of_segment(segment, self.segment_size), segment)
    }
}

impl SegmentStore for WalDir {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        let path = self.directory.join(self.file_name(segment));
        match FileBytes::open(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WalReadError::Open { path, source }),
        }
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        let unreadable = |source| WalReadError::Open { path: self.directory.clone(), source };
        let mut newest = None;
        for entry in std::fs::read_dir(&self.directory).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let parsed = name.to_str().and_then(|name| self.segment_size.parse_file_name(name));
            let Some((timeline, segment)) = parsed else { continue };
            if timeline == self.history.timeline_of_segment(segment, self.segment_size) {
                newest = newest.max(Some(segment));
            }
        }
        Ok(newest)
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.directory.join(self.file_name(segment)).display().to_string()
    }
}
