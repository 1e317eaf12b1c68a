//! Compares files before they are copied. Most files that would be copied whole and that both sides have are equal,
//! because nothing has changed in them since the fork. Only ranges that differ are transferred.
//!
//! Files are compared while the target's WAL is read. A range that is equal at that moment counts as copied at that
//! moment: replay of the source's WAL repeats all later changes.
//!
//! Coarse ranges are compared first, and then fine ranges within those that differ.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use walparse::Version;

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;
use crate::datadir::keep::Keep;
use crate::options::Delta;
use crate::plan::files::{Compared, growth, whole_on_both};
use crate::source::{ChunkSink, Comparand, FetchError, FetchRange, MAX_RANGE, Pace, Source, read_up_to};

/// Bytes of a coarse range: the size of a file of the commit log.
pub(super) const COARSE: u64 = 256 << 10;

/// Bytes of a fine range. Coarse ranges that differ and are longer than [`WORTH_IT`] are divided into these.
const FINE: u32 = 8 << 10;

/// A range of at most so many bytes is copied without being compared in fine ranges.
const WORTH_IT: u32 = 32 << 10;

/// Bytes compared between two checks whether to go on, without a rate limit.
const SHARE: u64 = 64 << 20;

/// Up to so many bytes in all, comparing is taken to pay: it also saves writing and syncing.
const SURELY_WORTH_IT: u64 = 64 << 20;

/// Bytes that are both fetched and compared, to measure which is faster.
const SAMPLE: u64 = 8 << 20;

/// Bytes transferred for one digest, with the protocol's overhead.
const DIGEST_BYTES: u64 = 64;

/// What is compared.
pub(crate) struct Sides<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) pace: &'a Pace,
    pub(crate) source_files: &'a Inventory,
    pub(crate) target: &'a Path,
    pub(crate) target_files: &'a Inventory,
    pub(crate) keep: &'a Keep,
    pub(crate) version: Version,
}

/// Compares the files that both sides have and that would be copied whole. Stops early if `give_up` is set; files not
/// compared by then are absent from the result.
///
/// # Errors
/// The source could not be read.
pub(crate) fn compare(sides: &Sides<'_>, delta: Delta, give_up: &AtomicBool) -> Result<Compared, FetchError> {
    let mut compared = Compared::default();
    if delta == Delta::Off {
        return Ok(compared);
    }
    let candidates: Vec<(DataPath, u64)> =
        whole_on_both(sides.source_files, sides.target_files, sides.keep, sides.version)
            .map(|(path, to)| (path.clone(), to + growth(path, sides.version)))
            .collect();
    let total: u64 = candidates.iter().map(|(_, length)| length).sum();
    let mut rest = &candidates[..];
    let mut undecided = delta == Delta::Auto && total > SURELY_WORTH_IT;
    while !rest.is_empty() && !give_up.load(Ordering::Relaxed) {
        let (share, left) = rest.split_at(share(rest, share_bytes(sides.pace)));
        rest = left;
        if undecided && !is_faster_than_copying(sides, share)? {
            tracing::debug!("comparing takes longer than copying: the remaining files are copied whole");
            break;
        }
        undecided = false;
        compare_share(sides, share, &mut compared)?;
    }
    tracing::debug!("compared {} of {} files", compared.differing.len(), candidates.len());
    Ok(compared)
}

/// Bytes compared between two checks whether to go on: with a rate limit, about as much as is due in a second.
pub(super) fn share_bytes(pace: &Pace) -> u64 {
    pace.bytes_per_second().clamp(COARSE, SHARE)
}

/// How many of these files are compared next: up to `most` bytes, but at least one file.
fn share(candidates: &[(DataPath, u64)], most: u64) -> usize {
    let mut bytes = 0;
    let fitting = candidates.iter().take_while(|(_, length)| {
        bytes += length;
        bytes <= most
    });
    fitting.count().max(1).min(candidates.len())
}

/// Compares some files and adds what differs to `compared`.
fn compare_share(
    sides: &Sides<'_>,
    share: &[(DataPath, u64)],
    compared: &mut Compared,
) -> Result<(), FetchError> {
    let files: Vec<DataPath> = share.iter().map(|(path, _)| path.clone()).collect();
    let coarse = coarse_ranges(share, u64::MAX);
    let (mut found, fine) = narrowed(sides, &files, &coarse)?;
    found.sort_unstable_by_key(|range| (range.file, range.offset));
    compared.bytes += (coarse.len() + fine) as u64 * DIGEST_BYTES;
    for file in &files {
        compared.differing.insert(file.clone(), Vec::new());
    }
    for range in found {
        let ranges = compared.differing.entry(files[range.file as usize].clone()).or_default();
        match ranges.last_mut() {
            Some((offset, length))
                if *offset + u64::from(*length) == range.offset && *length + range.length <= MAX_RANGE =>
            {
                *length += range.length;
            }
            _ => ranges.push((range.offset, range.length)),
        }
    }
    Ok(())
}

/// The coarse ranges of the first `limit` bytes of all these files together.
fn coarse_ranges(share: &[(DataPath, u64)], limit: u64) -> Vec<FetchRange> {
    let (mut ranges, mut bytes) = (Vec::new(), 0);
    for (file, (_, end)) in share.iter().enumerate() {
        for offset in (0..*end).step_by(COARSE as usize) {
            if bytes >= limit {
                return ranges;
            }
            let length = (end - offset).min(COARSE);
            bytes += length;
            ranges.push(FetchRange { file: file as u32, offset, length: length as u32 });
        }
    }
    ranges
}

/// Compares coarse ranges, and those that differ and are [worth it](WORTH_IT) once more in fine ranges. Returns what differs,
/// in no order, and the number of fine ranges.
fn narrowed(
    sides: &Sides<'_>,
    files: &[DataPath],
    coarse: &[FetchRange],
) -> Result<(Vec<FetchRange>, usize), FetchError> {
    let found = differing(sides, files, coarse, MAX_RANGE)?;
    let (large, mut found): (Vec<_>, Vec<_>) = found.into_iter().partition(|range| range.length > WORTH_IT);
    found.extend(differing(sides, files, &large, FINE)?);
    Ok((found, large.iter().map(|range| range.length.div_ceil(FINE) as usize).sum()))
}

/// Those parts of these ranges, of `part` bytes each, whose bytes differ.
pub(super) fn differing(
    sides: &Sides<'_>,
    files: &[DataPath],
    ranges: &[FetchRange],
    part: u32,
) -> Result<Vec<FetchRange>, FetchError> {
    let ours = TargetFiles { root: sides.target, files, differing: Mutex::default() };
    let (most, mut bytes) = (share_bytes(sides.pace), 0);
    let pieces = ranges.chunk_by(|range, _| {
        bytes += u64::from(range.length);
        let is_full = bytes >= most;
        if is_full {
            bytes = 0;
        }
        !is_full
    });
    for piece in pieces {
        sides.source.compare(files, piece, part, &ours)?;
        spend(sides, files, piece)?;
    }
    Ok(ours.differing.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until it is due that the source has read these ranges.
fn spend(sides: &Sides<'_>, files: &[DataPath], ranges: &[FetchRange]) -> Result<(), FetchError> {
    let Some(first) = ranges.first() else { return Ok(()) };
    let bytes = ranges.iter().map(|range| u64::from(range.length)).sum();
    let path = files[first.file as usize].clone();
    sides.pace.spend(bytes).map_err(|stopped| FetchError::Sink { path, source: stopped.into() })
}

/// Whether comparing a sample of these files takes less time than fetching it. It takes more where hashing on the
/// source costs more than transferring. A rate limit does not count: the source reads as much for either.
fn is_faster_than_copying(sides: &Sides<'_>, share: &[(DataPath, u64)]) -> Result<bool, FetchError> {
    let files: Vec<DataPath> = share.iter().map(|(path, _)| path.clone()).collect();
    let sample = coarse_ranges(share, SAMPLE.min(share_bytes(sides.pace)));
    let ours = TargetFiles { root: sides.target, files: &files, differing: Mutex::default() };
    let time = |work: &mut dyn FnMut() -> Result<(), FetchError>| -> Result<Duration, FetchError> {
        let started = Instant::now();
        work()?;
        Ok(started.elapsed())
    };
    let comparing = time(&mut || sides.source.compare(&files, &sample, MAX_RANGE, &ours))?;
    spend(sides, &files, &sample)?;
    let copying = time(&mut || sides.source.fetch(&files, &sample, &Nowhere))?;
    spend(sides, &files, &sample)?;
    Ok(comparing < copying)
}

/// Files of the target, opened for reading only.
struct TargetFiles<'a> {
    root: &'a Path,
    files: &'a [DataPath],
    differing: Mutex<Vec<FetchRange>>,
}

impl Comparand for TargetFiles<'_> {
    fn read(&self, range: FetchRange, bytes: &mut Vec<u8>) -> io::Result<()> {
        let file = File::open(self.files[range.file as usize].below(self.root))?;
        // A range has at most 256 kB.
        bytes.resize(range.length as usize, 0);
        let filled = read_up_to(&file, range.offset, bytes)?.len();
        bytes.truncate(filled);
        Ok(())
    }

    fn found(&self, part: FetchRange, same: bool) {
        if !same {
            self.differing.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        }
    }
}

/// Discards what is fetched only to measure the time.
struct Nowhere;

impl ChunkSink for Nowhere {
    fn write(&self, _: FetchRange, _: Option<&[u8]>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::datadir::keep::KeepRules;
    use crate::datadir::walk::walk_data_directory;
    use crate::source::DirectorySource;
    use crate::stop::StopFlag;

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn write(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn only_the_ranges_that_differ_are_found() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log: Vec<u8> = (0..600_000_u32).map(|n| (n / 100) as u8).collect();
        let mut changed = log.clone();
        changed[300_000] ^= 1;
        changed[599_999] ^= 1;
        for (name, here, there) in [
            ("pg_xact/0000", &log[..], &changed[..]),
            ("pg_xact/0001", &log[..8192], &log[..8192]),
            ("pg_hba.conf", b"local all", b"local all all"),
            ("postgresql.conf", b"port = 5433", b"port = 543"),
            ("kept", b"a", b"b"),
            ("base/5/16384", b"a relation", b"is not copied whole"),
            ("base/5/16384_vm", b"", b"x"),
        ] {
            write(ours.path(), name, here);
            write(theirs.path(), name, there);
        }
        write(theirs.path(), "only/there", b"x");
        let list = |root: &Path| walk_data_directory(root, version().names()).unwrap();
        let (source_files, target_files) = (list(theirs.path()), list(ours.path()));
        let source = DirectorySource::for_test(theirs.path());
        let pace = Pace::new(None, &StopFlag::default());
        let sides = Sides {
            source: &source,
            pace: &pace,
            source_files: &source_files,
            target: ours.path(),
            target_files: &target_files,
            keep: &Keep::new(&KeepRules::parse(&["none".to_owned(), "kept".to_owned()]).unwrap(), None)
                .unwrap(),
            version: version(),
        };
        let found = compare(&sides, Delta::On, &AtomicBool::new(false)).unwrap();
        let found: Vec<_> =
            found.differing.iter().map(|(path, ranges)| (path.to_string(), &ranges[..])).collect();
        // A file that is empty on one side is copied without being compared.
        let expected: [(_, &[(u64, u32)]); 4] = [
            ("pg_hba.conf".to_owned(), &[(0, 13 + 8192)]),
            ("pg_xact/0000".to_owned(), &[(294_912, 8192), (598_016, 8192)]),
            ("pg_xact/0001".to_owned(), &[]),
            ("postgresql.conf".to_owned(), &[(0, 10 + 8192)]),
        ];
        assert_eq!(found, expected);
        assert_eq!(compare(&sides, Delta::Off, &AtomicBool::new(false)).unwrap(), Compared::default());
        let given_up = compare(&sides, Delta::Auto, &AtomicBool::new(true)).unwrap();
        assert_eq!(given_up, Compared::default());
    }
}
