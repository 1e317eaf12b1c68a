//! Compares the relation files of both sides block by block, where WAL does not tell which blocks differ.
//!
//! Replay starts at a checkpoint that the source had completed before. So it is enough that a block was equal when it was
//! read: what the source changes later is in its WAL, and the first change of a block carries an image of it.

use std::time::{Duration, Instant};

use walparse::{ControlFile, PageMap, RelSegment, RelationBlocks, Version};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::outcome::ComparedData;
use crate::progress::{Event, Stage};
use crate::source::{FetchRange, RateLimit};
use crate::survey::delta::{self, COARSE, SHARE, differing};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::wal::error::WalError;

/// Time between two calls of `check`.
const INTERVAL: Duration = Duration::from_secs(10);

/// A relation file that both sides have.
struct Candidate {
    path: DataPath,
    file: RelSegment,
    /// Bytes that both have, without an incomplete block at the end.
    length: u64,
}

/// Compares all blocks of main forks that both sides have. Returns those that differ. `check` is called now and then.
///
/// # Errors
/// A side cannot be read, the run is to stop, or `check` fails.
pub(super) fn compare_relations(
    sides: &delta::Sides<'_>,
    control: &ControlFile,
    Input { options, progress, .. }: Input<'_>,
    check: &dyn Fn() -> Result<(), WalError>,
) -> Result<(PageMap, ComparedData), SurveyError> {
    let candidates = candidates(sides, control);
    let bytes = candidates.iter().map(|candidate| candidate.length).sum();
    progress.event(&Event::Comparing { bytes });
    progress.begin(Stage::Compare, Some(bytes));
    let rate_limit = RateLimit::new(options.max_rate);
    let mut map = PageMap::new();
    // With a limit, about as much as is due in a second.
    let most = options.max_rate.map_or(SHARE, |rate| rate.get().clamp(COARSE, SHARE));
    let mut checked = Instant::now();
    for share in shares(&candidates, most) {
        options.stop.check().map_err(|_| SurveyError::Stopped)?;
        if checked.elapsed() >= INTERVAL {
            check()?;
            checked = Instant::now();
        }
        let files: Vec<DataPath> = share.files.iter().map(|candidate| candidate.path.clone()).collect();
        let block_size = control.block_size();
        for range in differing(sides, &files, &share.ranges, block_size)? {
            let file = share.files[range.file as usize];
            let first = file.file.segment.saturating_mul(control.relation_segment_blocks());
            let block = |offset: u64| first.saturating_add((offset / u64::from(block_size)) as u32);
            let mut blocks = RelationBlocks::new();
            blocks.insert_range(block(range.offset)..block(range.offset + u64::from(range.length)));
            map.insert_all(file.file.relation, blocks);
        }
        rate_limit.spend(share.bytes);
        progress.advance(Stage::Compare, share.bytes);
    }
    progress.finish(Stage::Compare);
    let compared = ComparedData { files: candidates.len() as u64, bytes, different_blocks: map.len() };
    Ok((map, compared))
}

/// The files to compare. The main fork of an unlogged relation is left out: the server makes it anew when recovery ends.
fn candidates(sides: &delta::Sides<'_>, control: &ControlFile) -> Vec<Candidate> {
    let block_size = u64::from(control.block_size());
    let candidate = |(path, kind): &(DataPath, EntryKind)| {
        let EntryKind::File { size: here } = kind else { return None };
        let file = RelSegment::parse(path.as_str()?, sides.version)?;
        let Some(EntryKind::File { size: there }) = sides.source_files.get(path) else { return None };
        let length = here.min(there) / block_size * block_size;
        let is_compared = length > 0 && !is_unlogged(file, sides.source_files, sides.version);
        is_compared.then(|| Candidate { path: path.clone(), file, length })
    };
    sides.target_files.entries().iter().filter_map(candidate).collect()
}

/// Whether a relation has an init fork.
fn is_unlogged(file: RelSegment, files: &Inventory, version: Version) -> bool {
    let main = RelSegment { segment: 0, ..file }.path(version);
    DataPath::parse(format!("{main}_init")).is_ok_and(|init| files.get(&init).is_some())
}

/// Files, or parts of files, that are compared at a time.
struct Share<'a> {
    files: Vec<&'a Candidate>,
    ranges: Vec<FetchRange>,
    bytes: u64,
}

/// All files, in shares of about so many bytes.
fn shares(candidates: &[Candidate], most: u64) -> impl Iterator<Item = Share<'_>> {
    let mut rest = candidates.iter().map(|candidate| (candidate, 0));
    let mut begun: Option<(&Candidate, u64)> = None;
    std::iter::from_fn(move || {
        let mut share = Share { files: Vec::new(), ranges: Vec::new(), bytes: 0 };
        while share.bytes < most {
            let Some((candidate, mut offset)) = begun.take().or_else(|| rest.next()) else { break };
            let file = share.files.len() as u32;
            share.files.push(candidate);
            while offset < candidate.length && share.bytes < most {
                let length = COARSE.min(candidate.length - offset);
                share.ranges.push(FetchRange { file, offset, length: length as u32 });
                (offset, share.bytes) = (offset + length, share.bytes + length);
            }
            if offset < candidate.length {
                begun = Some((candidate, offset));
            }
        }
        (!share.ranges.is_empty()).then_some(share)
    })
}
