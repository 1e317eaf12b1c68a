//! Copying: fetches from the source what the plan lists, and writes it to the target.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walparse::{ControlFile, Lsn};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::options::{SourceLife, SyncChoice};
use crate::plan::files::growth;
use crate::plan::files::{Patch, RewindPlan};
use crate::progress::{Progress, Stage};
use crate::source::page_check::{DamagedBlocks, DamagedPage, PAUSE, PageCheck, TRIES};
use crate::source::{
    ChunkSink, FetchError, FetchRange, MAX_RANGE, RateLimit, Source, SourceError, read_up_to,
};
use crate::target::{Target, TargetError, TargetFile, for_files};

/// Limit on the number of files kept open at once.
const OPEN_FILES: usize = 256;

/// Why the copy stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The source could not be read, or what came from it could not be written.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The size of a file of a stopped source has changed.
    #[error(
        "size of source file \"{path}\" changed concurrently: {expected} bytes expected, {copied} copied"
    )]
    SizeChanged {
        /// The file.
        path: DataPath,
        /// Bytes expected by the listing.
        expected: u64,
        /// Bytes copied.
        copied: u64,
    },
    /// Blocks of the source are damaged. They were not written to the target.
    #[error(transparent)]
    Damaged(#[from] DamagedBlocks),
}

impl CopyError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CopyError::Damaged(error) => Some(error.hint()),
            CopyError::Fetch(FetchError::Source(error @ SourceError::Unreadable { .. })) => error.hint(),
            _ => None,
        }
    }
}

/// Creates the directories and tablespace links that only the source has.
pub(crate) fn create_entries(plan: &RewindPlan, target: &Target) -> Result<(), CopyError> {
    for (old, new) in &plan.relink {
        // The files below the old link would be taken for those of the new tablespace. The link itself is renamed, so that
        // whenever the run is interrupted one link leads to the directory.
        remove(plan, target, |path| is_below(path, old))?;
        target.rename_link(old, new)?;
    }
    for (path, kind) in &plan.create {
        match kind {
            EntryKind::Symlink { target: to } => target.create_tablespace_link(path, to)?,
            _ => target.create_directory(path)?,
        }
    }
    Ok(())
}

/// What is needed to copy from the source to the target.
pub(crate) struct Transfer<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) rate_limit: RateLimit,
    /// How pages of the source are checked, if they have checksums.
    pub(crate) pages: Option<PageCheck<'a>>,
    /// How it will be made durable. With fsync, writeback of each file is started as soon as the file is complete.
    pub(crate) sync: SyncChoice,
    /// Set when something else has failed without which copying is in vain. It then ends with an error.
    pub(crate) in_vain: AtomicBool,
}

impl Transfer<'_> {
    fn check(&self) -> io::Result<()> {
        if self.in_vain.load(Ordering::Relaxed) {
            return Err(io::Error::other("another part of the run has failed"));
        }
        self.target.check_no_server().map_err(io::Error::other)
    }
}

/// Carries out the plan for all files outside the WAL directory. `control` is the target's control file. Returns
/// the bytes fetched.
///
/// # Errors
/// The source could not be read, the target could not be written, or a stopped source has changed.
pub(crate) fn copy_data(
    plan: &RewindPlan,
    control: &ControlFile,
    life: SourceLife,
    transfer: &Transfer<'_>,
) -> Result<u64, CopyError> {
    let target = transfer.target;
    // Files are emptied first, so that nothing of a longer old file remains behind the new contents.
    for_files(&plan.copy, |(path, _)| target.open(path)?.empty())?;
    for_files(&plan.patch, |patch| target.open(&patch.path)?.truncate(patch.size))?;

    let mut requests = Requests::default();
    for (path, size) in &plan.copy {
        requests.add_bytes(path, 0, size.saturating_add(growth(path, control.version())));
    }
    for patch in &plan.patch {
        requests.add_patch(patch);
    }
    for tail in &plan.copy_tail {
        requests.add_bytes(&tail.path, tail.from, tail.to);
    }
    for (path, blocks) in &plan.blocks {
        requests.add_blocks(path, blocks, control.block_size());
    }
    let fetched = fetch(&requests, transfer)?;
    if life == SourceLife::Stopped {
        let whole = plan.copy.iter().map(|(path, size)| (path, *size));
        let parts = plan.patch.iter().map(|patch| (&patch.path, patch.bytes()));
        let tails = plan.copy_tail.iter().map(|tail| (&tail.path, tail.to - tail.from));
        let block_size = u64::from(control.block_size());
        let blocks = plan.blocks.iter().map(|(path, blocks)| (path, blocks.len() * block_size));
        // In the order in which the files were requested.
        let expected = whole.chain(parts).chain(tails).chain(blocks);
        for ((path, expected), copied) in expected.zip(&fetched.per_file) {
            let copied = copied.load(Ordering::Relaxed);
            if copied != expected {
                return Err(CopyError::SizeChanged { path: path.clone(), expected, copied });
            }
        }
    }
    for (path, size) in &plan.truncate {
        target.open(path)?.set_length(*size)?;
    }
    remove(plan, target, |_| true)?;
    Ok(fetched.bytes)
}

/// Whether `path` lies below `directory`.
fn is_below(path: &DataPath, directory: &DataPath) -> bool {
    path.as_bytes().strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Removes what the source does not have, as far as it `is_meant`.
fn remove(plan: &RewindPlan, target: &Target, is_meant: impl Fn(&DataPath) -> bool) -> Result<(), CopyError> {
    let is_file = |kind: &EntryKind| matches!(kind, EntryKind::File { .. });
    // Files in any order, then directories and links, children first.
    let (files, others): (Vec<_>, Vec<_>) =
        plan.remove.iter().filter(|(path, _)| is_meant(path)).partition(|(_, kind)| is_file(kind));
    for_files(&files, |(path, _)| target.remove_file(path))?;
    for (path, kind) in others {
        match kind {
            EntryKind::Directory => target.remove_directory(path)?,
            _ => target.remove_file(path)?,
        }
    }
    Ok(())
}

/// Copies files of the WAL directory. Each is a path, the number of bytes to copy from its start, and its full
/// length: the rest is filled with zeros. Returns the bytes fetched, and the files that the source no longer has.
pub(crate) fn copy_wal(
    files: &[(DataPath, u64, u64)],
    transfer: &Transfer<'_>,
) -> Result<(u64, Vec<DataPath>), CopyError> {
    let mut requests = Requests::default();
    for (path, length, full_length) in files {
        // The file is emptied first: valid WAL must be followed by zeros, not by old contents.
        let file = transfer.target.open(path)?;
        file.empty()?;
        file.set_length(*full_length)?;
        requests.add_bytes(path, 0, *length);
    }
    let fetched = fetch(&requests, transfer)?;
    Ok((
        fetched.bytes,
        fetched.missing.into_iter().map(|file| requests.files[file as usize].clone()).collect(),
    ))
}

/// The ranges to fetch.
#[derive(Default)]
struct Requests {
    files: Vec<DataPath>,
    ranges: Vec<FetchRange>,
    /// The numbers of files that are patched. Such a file is truncated if the source's turns out to be shorter.
    patched: Range<u32>,
}

impl Requests {
    /// Requests the ranges of a patch.
    fn add_patch(&mut self, patch: &Patch) {
        let file = self.add_file(&patch.path);
        if self.patched.is_empty() {
            self.patched.start = file;
        }
        self.patched.end = file + 1;
        let range = |&(offset, length)| FetchRange { file, offset, length };
        self.ranges.extend(patch.ranges.iter().map(range));
    }

    /// Requests the bytes from `from` to `to` of a file, in ranges of at most [`MAX_RANGE`].
    fn add_bytes(&mut self, path: &DataPath, from: u64, to: u64) {
        let file = self.add_file(path);
        let mut offset = from;
        while offset < to {
            let length = (to - offset).min(u64::from(MAX_RANGE)) as u32;
            self.ranges.push(FetchRange { file, offset, length });
            offset += u64::from(length);
        }
    }

    /// Requests single blocks; adjacent ones are joined to one range.
    fn add_blocks(&mut self, path: &DataPath, blocks: &walparse::RelationBlocks, block_size: u32) {
        let file = self.add_file(path);
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

    /// Adds a file, and returns its number.
    fn add_file(&mut self, path: &DataPath) -> u32 {
        self.files.push(path.clone());
        self.files.len() as u32 - 1
    }
}

/// The result of a fetch.
struct Fetched {
    bytes: u64,
    /// Bytes written, by number of the file.
    per_file: Vec<AtomicU64>,
    /// Numbers of the files that the source no longer has.
    missing: BTreeSet<u32>,
}

/// Fetches the ranges and writes them to the target. Files that the source no longer has are removed.
fn fetch(requests: &Requests, transfer: &Transfer<'_>) -> Result<Fetched, CopyError> {
    let mut pending = vec![0; requests.files.len()];
    for range in &requests.ranges {
        pending[range.file as usize] += 1;
    }
    let mut writer = Writer {
        requests,
        transfer,
        open: Mutex::default(),
        pending: pending.into_iter().map(AtomicU32::new).collect(),
        per_file: requests.files.iter().map(|_| AtomicU64::new(0)).collect(),
        missing: Mutex::default(),
        damaged: Mutex::default(),
        replayed_until: None,
    };
    transfer.source.fetch(&requests.files, &requests.ranges, &writer)?;
    fetch_damaged_again(&mut writer)?;
    let Writer { per_file, missing, .. } = writer;
    let missing = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
    for &file in &missing {
        // The file has been removed on the source meanwhile. Replay of its WAL would remove it, too.
        transfer.target.remove_file(&requests.files[file as usize])?;
    }
    let bytes = per_file.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
    Ok(Fetched { bytes, per_file, missing })
}

/// Fetches ranges again in which the checksum of a page was wrong. In the end, pages that replay restores are accepted.
///
/// # Errors
/// A page is damaged, or as for [`fetch`].
fn fetch_damaged_again(writer: &mut Writer<'_>) -> Result<(), CopyError> {
    let Transfer { source, pages, .. } = *writer.transfer;
    let mut tries = 0;
    loop {
        let damaged = writer.take_damaged();
        let (Some((range, page)), Some(check)) = (damaged.first(), pages) else { return Ok(()) };
        if writer.replayed_until.is_some() {
            let path = writer.requests.files[range.file as usize].clone();
            return Err(page.error(path, damaged.len() - 1).into());
        }
        std::thread::sleep(PAUSE);
        tries += 1;
        if tries == TRIES {
            writer.replayed_until = Some(check.wal_end(source).map_err(FetchError::from)?);
        }
        let ranges: Vec<FetchRange> = damaged.iter().map(|(range, _)| *range).collect();
        source.fetch(&writer.requests.files, &ranges, &*writer)?;
    }
}

/// Writes fetched ranges to the target, from many threads at once.
struct Writer<'a> {
    requests: &'a Requests,
    transfer: &'a Transfer<'a>,
    open: Mutex<HashMap<u32, Arc<TargetFile>>>,
    /// Number of ranges not written yet, by number of the file.
    pending: Vec<AtomicU32>,
    per_file: Vec<AtomicU64>,
    missing: Mutex<BTreeSet<u32>>,
    /// Ranges that were not written, with the first damaged page of each.
    damaged: Mutex<Vec<(FetchRange, DamagedPage)>>,
    /// The end of the WAL whose replay restores a page; `None` as long as every wrong checksum counts.
    replayed_until: Option<Lsn>,
}

impl Writer<'_> {
    /// The first damaged page in this range, if pages are checked.
    fn damaged_page(&self, range: FetchRange, bytes: &[u8]) -> Option<DamagedPage> {
        let path = &self.requests.files[range.file as usize];
        self.transfer.pages?.first_damaged(path, range.offset, bytes, self.replayed_until)
    }

    /// The ranges in which a page was damaged since the last call, in the order of the requests.
    fn take_damaged(&mut self) -> Vec<(FetchRange, DamagedPage)> {
        let mut damaged = std::mem::take(self.damaged.get_mut().unwrap_or_else(PoisonError::into_inner));
        damaged.sort_unstable_by_key(|(range, _)| (range.file, range.offset));
        damaged
    }

    /// Whether pages of this file are checked, and the range has a damaged one or cannot be read.
    fn is_doubtful(&self, range: FetchRange, from: &File) -> bool {
        let path = &self.requests.files[range.file as usize];
        if !self.transfer.pages.is_some_and(|pages| pages.applies_to(path)) {
            return false;
        }
        let mut buffer = vec![0; range.length as usize];
        let read = read_up_to(from, range.offset, &mut buffer);
        read.map_or(true, |bytes| self.damaged_page(range, bytes).is_some())
    }

    /// The open file of this number.
    fn file(&self, number: u32) -> Result<Arc<TargetFile>, TargetError> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open().get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.transfer.target.open(&self.requests.files[number as usize])?);
        let mut open = open();
        // Ranges arrive sorted by file, so most of these files are complete.
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        // A file with a single range is not needed again.
        if self.pending[number as usize].load(Ordering::Relaxed) > 1 {
            open.insert(number, Arc::clone(&file));
        }
        Ok(file)
    }

    /// Records that `bytes` of a range have been written.
    fn done(&self, range: FetchRange, file: &TargetFile, bytes: u64) -> io::Result<()> {
        let number = range.file as usize;
        if bytes < u64::from(range.length) && self.requests.patched.contains(&range.file) {
            // The source's file has become shorter since it was compared; bytes beyond its end are not the source's.
            file.truncate(range.offset + bytes).map_err(io::Error::other)?;
        }
        self.per_file[number].fetch_add(bytes, Ordering::Relaxed);
        self.transfer.progress.advance(Stage::Copy, bytes);
        if self.pending[number].fetch_sub(1, Ordering::Relaxed) == 1 {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&range.file);
            if self.transfer.sync == SyncChoice::Fsync {
                file.start_writing();
            }
        }
        self.transfer.rate_limit.spend(bytes);
        Ok(())
    }
}

impl ChunkSink for Writer<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> io::Result<()> {
        let Some(bytes) = bytes else {
            self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(range.file);
            return Ok(());
        };
        self.transfer.check()?;
        if let Some(page) = self.damaged_page(range, bytes) {
            self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push((range, page));
            return Ok(());
        }
        let file = self.file(range.file).map_err(io::Error::other)?;
        if !bytes.is_empty() {
            file.write_at(bytes, range.offset).map_err(io::Error::other)?;
        }
        self.done(range, &file, bytes.len() as u64)
    }

    fn is_slow(&self) -> bool {
        self.transfer.rate_limit.is_limited()
    }

    fn copy_from(&self, range: FetchRange, from: &File) -> io::Result<bool> {
        self.transfer.check()?;
        // Then it is read for `write`, which says what is wrong.
        if self.is_doubtful(range, from) {
            return Ok(false);
        }
        let file = self.file(range.file).map_err(io::Error::other)?;
        let copied = file.copy_from(from, range.offset, u64::from(range.length));
        match copied.map_err(io::Error::other)? {
            None => Ok(false),
            Some(bytes) => self.done(range, &file, bytes).map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::source::DirectorySource;
    use walparse::BlockNumber;
    use walparse::RelationBlocks;
    use walparse::control::testing::ControlFields;

    #[test]
    fn adjacent_blocks_are_fetched_together_up_to_the_limit() {
        let path = DataPath::parse("base/5/16384").unwrap();
        let mut requests = Requests::default();
        let blocks: RelationBlocks = [0, 1, 2, 9].into_iter().chain(1000..1050).collect();
        requests.add_blocks(&path, &blocks, 8192);
        let ranges: Vec<_> =
            requests.ranges.iter().map(|range| (range.offset / 8192, range.length / 8192)).collect();
        assert_eq!(ranges, [(0, 3), (9, 1), (1000, 32), (1032, 18)]);
    }

    #[test]
    fn long_files_are_fetched_in_parts() {
        let path = DataPath::parse("x").unwrap();
        let mut requests = Requests::default();
        requests.add_bytes(&path, 0, 8192);
        requests.add_bytes(&path, 0, (3 << 18) + 8192);
        let ranges: Vec<_> =
            requests.ranges.iter().map(|range| (range.file, range.offset, range.length)).collect();
        let most = 1 << 18;
        assert_eq!(
            ranges,
            [(0, 0, 8192), (1, 0, most), (1, 1 << 18, most), (1, 2 << 18, most), (1, 3 << 18, 8192)]
        );
    }

    fn transfer<'a>(
        source: &'a DirectorySource,
        target: &'a Target,
        pages: Option<PageCheck<'a>>,
    ) -> Transfer<'a> {
        let (rate_limit, sync) = (RateLimit::new(None), SyncChoice::Fsync);
        let in_vain = AtomicBool::default();
        Transfer { source, target, progress: &Silent, rate_limit, pages, sync, in_vain }
    }

    /// Patches a file that is `here` on the target and `there` on the source, and returns its new contents. `size`
    /// and `ranges` are those of the [`Patch`].
    fn patched(here: &[u8], there: &[u8], size: u64, ranges: &[(u64, u32)]) -> Result<Vec<u8>, CopyError> {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(ours.path().join("a"), here).unwrap();
        std::fs::write(theirs.path().join("a"), there).unwrap();
        let target = Target::lock(ours.path()).unwrap();
        let source = DirectorySource::for_test(theirs.path());
        let transfer = transfer(&source, &target, None);
        let patch = Patch { path: DataPath::parse("a").unwrap(), size, ranges: ranges.to_vec() };
        target.open(&patch.path)?.truncate(size)?;
        let mut requests = Requests::default();
        requests.add_patch(&patch);
        fetch(&requests, &transfer)?;
        Ok(std::fs::read(ours.path().join("a")).unwrap())
    }

    #[test]
    fn a_patched_file_ends_where_the_sources_does() {
        assert_eq!(patched(b"0123456789", b"01x3", 4, &[(2, 100)]).unwrap(), b"01x3");
        // The source's bytes do not differ from the target's.
        assert_eq!(patched(b"0123456789", b"0123", 4, &[]).unwrap(), b"0123");
        // The source's file has grown since it was listed, or become shorter.
        assert_eq!(patched(b"0123", b"0123456", 4, &[(0, 100)]).unwrap(), b"0123456");
        assert_eq!(patched(b"0123456789", b"012", 10, &[(2, 3), (5, 100)]).unwrap(), b"012");
    }

    /// A page with this `pd_lsn` and the checksum of that block.
    fn page(block: u32, lsn: u32) -> Vec<u8> {
        let mut page = vec![b'S'; 8192];
        page[..8].copy_from_slice(&[[0; 4], lsn.to_le_bytes()].concat());
        let wrong = walparse::check_page(&page, BlockNumber(block)).unwrap_err();
        page[8..10].copy_from_slice(&wrong.calculated.to_le_bytes());
        page
    }

    /// Copies the blocks of a source file whose cluster has checksums, replays from 0/1000, and ends at 0/2000. Returns what
    /// the target, which had other bytes, has then.
    fn copied(name: &str, blocks: &[Vec<u8>]) -> (Result<Fetched, CopyError>, Vec<u8>) {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [&ours, &theirs] {
            std::fs::create_dir_all(root.path().join("base/5")).unwrap();
        }
        std::fs::write(ours.path().join(name), vec![b'T'; 8192 * blocks.len()]).unwrap();
        std::fs::write(theirs.path().join(name), blocks.concat()).unwrap();
        let fields = ControlFields { checkpoint_lsn: Lsn(0x2000), ..ControlFields::clean(version()) };
        let control = ControlFile::parse(&fields.build()).unwrap();
        let target = Target::lock(ours.path()).unwrap();
        let source = DirectorySource::for_test(theirs.path());
        let transfer = transfer(&source, &target, PageCheck::of(&control, Lsn(0x1000)));
        let mut requests = Requests::default();
        let numbers = (0..blocks.len() as u32).collect();
        requests.add_blocks(&DataPath::parse(name).unwrap(), &numbers, 8192);
        let fetched = fetch(&requests, &transfer);
        (fetched, std::fs::read(ours.path().join(name)).unwrap())
    }

    fn version() -> walparse::Version {
        walparse::Version::find(1300, 202_209_061).unwrap()
    }

    #[test]
    fn a_damaged_block_is_not_copied_unless_replay_restores_it() {
        let damaged = |block: u32, lsn: u32| {
            let mut page = page(block, lsn);
            page[5000] ^= 1;
            page
        };
        let first = 2 * 131_072;
        let good = vec![page(first, 0x800), vec![0; 8192], page(first + 2, 0x3000)];
        assert_eq!(copied("base/5/16384.2", &good).1, good.concat());
        // Changed before replay starts, or after the end of WAL.
        for lsn in [0xFF8, 0x2008] {
            let blocks = [good[0].clone(), damaged(first + 1, lsn), good[2].clone()];
            let (fetched, found) = copied("base/5/16384.2", &blocks);
            let error = fetched.err().unwrap();
            let said = format!("checksum of block {} of source file \"base/5/16384.2\" is wrong", first + 1);
            assert!(error.to_string().starts_with(&said), "{error}");
            assert!(error.hint().unwrap().contains("another source"));
            assert!(found == vec![b'T'; 3 * 8192], "a range with a damaged block was written");
            // The server does not trust these.
            assert_eq!(copied("base/5/16384_fsm", &blocks).1, blocks.concat());
        }
        for lsn in [0x1000, 0x2000] {
            let blocks = [good[0].clone(), damaged(first + 1, lsn), good[2].clone()];
            assert_eq!(copied("base/5/16384.2", &blocks).1, blocks.concat());
        }
    }
}
