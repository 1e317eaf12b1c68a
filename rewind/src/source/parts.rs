//! Reading a part of one source file into memory or into another file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::SourceError;
use super::rate_limit::Pace;
use super::seam::{ChunkSink, FetchError, FetchRange, MAX_RANGE, Source};
use crate::datadir::data_path::DataPath;
use crate::stop::StopFlag;

/// Reads `length` bytes of a file from `offset`, fewer at its end; `None` if the file does not exist.
pub(crate) fn read_part(
    source: &dyn Source,
    path: &DataPath,
    offset: u64,
    length: u64,
) -> Result<Option<Vec<u8>>, SourceError> {
    read_part_at(source, path, (offset, length), &Pace::new(None, &StopFlag::default()))
}

/// As [`read_part`] with an offset and a length, at this pace.
pub(crate) fn read_part_at(
    source: &dyn Source,
    path: &DataPath,
    (offset, length): (u64, u64),
    pace: &Pace,
) -> Result<Option<Vec<u8>>, SourceError> {
    let collected = Collected { pace, parts: Mutex::default() };
    let ranges: Vec<_> = ranges_of(offset, length).collect();
    for ranges in ranges.chunks(64) {
        source.fetch(std::slice::from_ref(path), ranges, &collected)?;
    }
    let parts = collected.parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = Vec::with_capacity(parts.values().flatten().map(|part| part.len()).sum());
    for (at, part) in parts {
        let Some(part) = part else { return Ok(None) };
        // The file may have changed in between: bytes after a short part are not contiguous with it.
        if at == offset + bytes.len() as u64 {
            bytes.extend_from_slice(&part);
        }
    }
    Ok(Some(bytes))
}

/// Copies the first `length` bytes of a source file into `to`, at this pace. Returns whether the source file exists.
pub(crate) fn store_part(
    source: &dyn Source,
    path: &DataPath,
    length: u64,
    to: &File,
    pace: &Pace,
) -> Result<bool, FetchError> {
    let store = Store { file: to, pace, is_missing: AtomicBool::new(false) };
    let ranges: Vec<_> = ranges_of(0, length).collect();
    for ranges in ranges.chunks(64) {
        source.fetch(std::slice::from_ref(path), ranges, &store)?;
    }
    Ok(!store.is_missing.into_inner())
}

/// Splits a part of file 0 into ranges of at most [`MAX_RANGE`] bytes.
fn ranges_of(offset: u64, length: u64) -> impl Iterator<Item = FetchRange> {
    (0..length).step_by(MAX_RANGE as usize).map(move |done| FetchRange {
        file: 0,
        offset: offset + done,
        length: (length - done).min(u64::from(MAX_RANGE)) as u32,
    })
}

/// Writes fetched data into a file, at the same offsets.
struct Store<'a> {
    file: &'a File,
    pace: &'a Pace,
    is_missing: AtomicBool,
}

impl ChunkSink for Store<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> std::io::Result<()> {
        match bytes {
            Some(bytes) => {
                self.file.write_all_at(bytes, range.offset)?;
                Ok(self.pace.spend(bytes.len() as u64)?)
            }
            None => {
                self.is_missing.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn is_slow(&self) -> bool {
        self.pace.is_limited()
    }
}

/// Collects fetched data in memory, by offset.
struct Collected<'a> {
    pace: &'a Pace,
    parts: Mutex<BTreeMap<u64, Option<Vec<u8>>>>,
}

impl ChunkSink for Collected<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> std::io::Result<()> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(range.offset, bytes.map(<[u8]>::to_vec));
        drop(parts);
        Ok(self.pace.spend(bytes.map_or(0, <[u8]>::len) as u64)?)
    }

    fn is_slow(&self) -> bool {
        self.pace.is_limited()
    }
}
