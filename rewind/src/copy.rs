//! Copying: what the plan says is fetched from the source and written as it comes.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::data_path::DataPath;
use crate::inventory::EntryKind;
use crate::options::SourceLife;
use crate::plan::RewindPlan;
use crate::progress::{Progress, Stage};
use crate::source::{ChunkSink, FetchError, FetchRange, MAX_RANGE, Source};
use crate::target::{Target, TargetError, TargetFile};

/// How much more than the listed size is asked of a file that is copied whole: one that has grown since
/// arrives complete if it is small, and its growth is noticed if it is not.
const GROWTH: u64 = 8192;

/// Files kept open at once.
const OPEN_FILES: usize = 256;

/// Why the copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The source could not be read, or what came from it could not be written.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A stopped source changed.
    #[error(
        "size of source file \"{path}\" changed concurrently: {expected} bytes expected, {copied} copied"
    )]
    SizeChanged {
        /// The file.
        path: DataPath,
        /// Its size in the listing.
        expected: u64,
        /// What came.
        copied: u64,
    },
}

/// Makes the directories and tablespace links that only the source has.
pub(crate) fn create_entries(plan: &RewindPlan, target: &Target) -> Result<(), CopyError> {
    for (path, kind) in &plan.create {
        match kind {
            EntryKind::Symlink { target: to } => target.create_tablespace_link(path, to)?,
            _ => target.create_directory(path)?,
        }
    }
    Ok(())
}

/// Makes the target's data files those of the plan: everything but the WAL directory's files.
pub(crate) fn copy_data(
    plan: &RewindPlan,
    block_size: u32,
    source: &dyn Source,
    life: SourceLife,
    target: &Target,
    progress: &dyn Progress,
) -> Result<u64, CopyError> {
    // Emptied first, so that nothing of a longer old file stays behind the new contents.
    plan.copy.par_iter().try_for_each(|(path, _)| target.open(path)?.set_length(0))?;

    let mut order = Order::default();
    for (path, size) in &plan.copy {
        order.whole_file(path, *size);
    }
    let whole_files = order.files.len();
    for tail in &plan.copy_tail {
        order.stretch(&tail.path, tail.from, tail.to);
    }
    for (path, blocks) in &plan.blocks {
        order.blocks(path, blocks, block_size);
    }
    let fetched = fetch(&order, source, target, progress)?;
    if life == SourceLife::Stopped {
        for ((path, expected), copied) in plan.copy.iter().zip(&fetched.per_file[..whole_files]) {
            let copied = copied.load(Ordering::Relaxed);
            if copied != *expected {
                return Err(CopyError::SizeChanged { path: path.clone(), expected: *expected, copied });
            }
        }
    }
    for (path, size) in &plan.truncate {
        target.open(path)?.set_length(*size)?;
    }
    for (path, kind) in &plan.remove {
        match kind {
            EntryKind::Directory => target.remove_directory(path)?,
            _ => target.remove_file(path)?,
        }
    }
    Ok(fetched.bytes)
}

/// Copies the front `length` bytes of files of the WAL directory and fills them up to `full_length`.
/// Returns the bytes fetched, and the files that the source no longer has.
pub(crate) fn copy_wal(
    files: &[(DataPath, u64, u64)],
    source: &dyn Source,
    target: &Target,
    progress: &dyn Progress,
) -> Result<(u64, Vec<DataPath>), CopyError> {
    let mut order = Order::default();
    for (path, length, full_length) in files {
        // Emptied first: behind the valid WAL there must be zeros, not what stood there before.
        let file = target.open(path)?;
        file.set_length(0)?;
        file.set_length(*full_length)?;
        order.stretch(path, 0, *length);
    }
    let fetched = fetch(&order, source, target, progress)?;
    let missing = fetched.missing.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((fetched.bytes, missing.into_iter().map(|file| order.files[file as usize].clone()).collect()))
}

/// What to fetch.
#[derive(Default)]
struct Order {
    files: Vec<DataPath>,
    ranges: Vec<FetchRange>,
}

impl Order {
    fn whole_file(&mut self, path: &DataPath, size: u64) {
        self.stretch(path, 0, size.saturating_add(GROWTH));
    }

    fn stretch(&mut self, path: &DataPath, from: u64, to: u64) {
        let file = self.add(path);
        let mut offset = from;
        while offset < to {
            let length = (to - offset).min(u64::from(MAX_RANGE)) as u32;
            self.ranges.push(FetchRange { file, offset, length });
            offset += u64::from(length);
        }
    }

    /// Neighbouring blocks make one range.
    fn blocks(&mut self, path: &DataPath, blocks: &walparse::RelationBlocks, block_size: u32) {
        let file = self.add(path);
        let mut open: Option<FetchRange> = None;
        for block in blocks {
            let offset = u64::from(block) * u64::from(block_size);
            match &mut open {
                Some(range)
                    if range.offset + u64::from(range.length) == offset
                        && range.length + block_size <= MAX_RANGE =>
                {
                    range.length += block_size;
                }
                _ => {
                    self.ranges.extend(open);
                    open = Some(FetchRange { file, offset, length: block_size });
                }
            }
        }
        self.ranges.extend(open);
    }

    fn add(&mut self, path: &DataPath) -> u32 {
        self.files.push(path.clone());
        self.files.len() as u32 - 1
    }
}

/// What came of a fetch.
struct Fetched {
    bytes: u64,
    /// Bytes written, by file.
    per_file: Vec<AtomicU64>,
    missing: Mutex<Vec<u32>>,
}

fn fetch(
    order: &Order,
    source: &dyn Source,
    target: &Target,
    progress: &dyn Progress,
) -> Result<Fetched, CopyError> {
    let writer = Writer {
        files: &order.files,
        target,
        progress,
        open: Mutex::default(),
        per_file: order.files.iter().map(|_| AtomicU64::new(0)).collect(),
        missing: Mutex::default(),
    };
    source.fetch(&order.files, &order.ranges, &writer)?;
    let Writer { per_file, missing, .. } = writer;
    let gone = missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for &file in &gone {
        // Removed on the source meanwhile: replay of its WAL would remove it, too.
        target.remove_file(&order.files[file as usize])?;
    }
    let bytes = per_file.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
    Ok(Fetched { bytes, per_file, missing })
}

/// Writes what is fetched into the target, from many threads.
struct Writer<'a> {
    files: &'a [DataPath],
    target: &'a Target,
    progress: &'a dyn Progress,
    open: Mutex<HashMap<u32, Arc<TargetFile>>>,
    per_file: Vec<AtomicU64>,
    missing: Mutex<Vec<u32>>,
}

impl Writer<'_> {
    fn file(&self, number: u32) -> Result<Arc<TargetFile>, TargetError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        // Ranges come sorted by file, so the files open now are mostly done with when there are too many.
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        let file = Arc::new(self.target.open(&self.files[number as usize])?);
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

impl ChunkSink for Writer<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> io::Result<()> {
        let Some(bytes) = bytes else {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            if !missing.contains(&range.file) {
                missing.push(range.file);
            }
            return Ok(());
        };
        if !bytes.is_empty() {
            self.target.check_alone().map_err(io::Error::other)?;
            let file = self.file(range.file).map_err(io::Error::other)?;
            file.write_at(bytes, range.offset).map_err(io::Error::other)?;
            self.per_file[range.file as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.progress.advance(Stage::Copy, bytes.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::RelationBlocks;

    #[test]
    fn neighbouring_blocks_are_fetched_together_up_to_the_limit() {
        let path = DataPath::parse("base/5/16384").unwrap();
        let mut order = Order::default();
        let blocks: RelationBlocks = [0, 1, 2, 9].into_iter().chain(1000..1200).collect();
        order.blocks(&path, &blocks, 8192);
        let ranges: Vec<_> =
            order.ranges.iter().map(|range| (range.offset / 8192, range.length / 8192)).collect();
        assert_eq!(ranges, [(0, 3), (9, 1), (1000, 128), (1128, 72)]);
    }

    #[test]
    fn a_whole_file_is_asked_for_with_room_to_have_grown() {
        let path = DataPath::parse("x").unwrap();
        let mut order = Order::default();
        order.whole_file(&path, 0);
        order.whole_file(&path, 3 << 20);
        let ranges: Vec<_> =
            order.ranges.iter().map(|range| (range.file, range.offset, range.length)).collect();
        let mib = 1 << 20;
        assert_eq!(
            ranges,
            [(0, 0, 8192), (1, 0, mib), (1, 1 << 20, mib), (1, 2 << 20, mib), (1, 3 << 20, 8192)]
        );
    }
}
