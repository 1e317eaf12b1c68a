//! Compares the relation files of both sides block by block, where WAL does not tell which blocks differ.
//!
//! Replay starts at a checkpoint that the source had completed before. So it is enough that a block was equal when it was
//! read: what the source changes later is in its WAL, and the first change of a block carries an image of it.

use std::collections::BTreeMap;
use std::ops::Range;

use walparse::{BlockNumber, ControlFile, PageMap, RelSegment, Relation, RelationBlocks, Version};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::outcome::ComparedData;
use crate::progress::{Event, Progress, Stage};
use crate::source::FetchRange;
use crate::source::page_check::PageCheck;
use crate::survey::compare_notes::Notes;
use crate::survey::delta::{self, COARSE, differing, share_bytes};
use crate::survey::error::SurveyError;
use crate::wal::changed::relation_files;
use crate::wal::error::WalError;

/// A relation file, or a part of one.
pub(crate) struct Candidate {
    path: DataPath,
    file: RelSegment,
    /// Where the part to compare begins, and where it ends: both are multiples of the block size.
    part: Range<u64>,
}

/// Compares all blocks of main forks that both sides have, but for those that an earlier run has compared. Returns those that
/// differ, with those that only the target has: a later run may find that the source's files have become longer. `check` is
/// called now and then.
///
/// # Errors
/// A side cannot be read, the run is to stop, or `check` fails.
pub(super) fn compare_relations(
    sides: &delta::Sides<'_>,
    control: &ControlFile,
    notes: &mut Notes<'_>,
    check: &dyn Fn() -> Result<(), WalError>,
) -> Result<(PageMap, ComparedData), SurveyError> {
    let comparing = Comparing { sides, control, progress: notes.input.progress, pages: None };
    let all = candidates(sides, control);
    let rest: Vec<Candidate> = all.iter().filter_map(|file| file.after(&notes.files)).collect();
    notes.total = all.iter().map(|file| file.part.end).sum();
    let mut finished = 0;
    let mut compared =
        comparing.each_share(&rest, |bytes| Event::Comparing { bytes }, &mut |share, found| {
            for range in found {
                let (relation, block) = share.block(range, control);
                notes.different.insert(relation, block);
            }
            finished += share.finished();
            if notes.are_due() {
                check()?;
                notes.write(rest[..finished].iter().filter_map(Candidate::end))?;
            }
            Ok::<(), SurveyError>(())
        })?;
    let mut different = std::mem::take(&mut notes.different);
    compared.different_blocks = different.len();
    add_not_compared(&mut different, sides, control, &all);
    Ok((different, compared))
}

/// Compares the main forks of both sides.
pub(crate) struct Comparing<'a> {
    pub(crate) sides: &'a delta::Sides<'a>,
    pub(crate) control: &'a ControlFile,
    pub(crate) progress: &'a dyn Progress,
    /// How the source's copies of blocks that differ are checked, if they have checksums.
    pub(crate) pages: Option<PageCheck<'a>>,
}

impl Comparing<'_> {
    /// Compares these files, and calls `found` for each share of them with the blocks that differ. `announce` makes the event for this number of bytes. Returns what was compared.
    ///
    /// # Errors
    /// A side cannot be read, the run is to stop, or `found` fails.
    pub(crate) fn each_share<E: From<SurveyError>>(
        &self,
        candidates: &[Candidate],
        announce: impl FnOnce(u64) -> Event,
        found: &mut dyn FnMut(&Share<'_>, Vec<FetchRange>) -> Result<(), E>,
    ) -> Result<ComparedData, E> {
        let Comparing { sides, control, progress, .. } = *self;
        let bytes = candidates.iter().map(Candidate::bytes).sum();
        progress.event(&announce(bytes));
        progress.begin(Stage::Compare, Some(bytes));
        for share in shares(candidates, share_bytes(sides.pace)) {
            sides.pace.check().map_err(|_| SurveyError::Stopped)?;
            let blocks = differing(sides, &share.paths(), &share.ranges, control.block_size());
            found(&share, blocks.map_err(SurveyError::from)?)?;
            progress.advance(Stage::Compare, share.bytes);
        }
        progress.finish(Stage::Compare);
        Ok(ComparedData { files: candidates.len() as u64, bytes, different_blocks: 0 })
    }
}

impl Candidate {
    pub(crate) fn bytes(&self) -> u64 {
        self.part.end - self.part.start
    }

    /// What is left of it if these files were compared up to these offsets; `None` if nothing.
    fn after(&self, compared: &BTreeMap<String, u64>) -> Option<Candidate> {
        let offset = self.path.as_str().and_then(|path| compared.get(path)).copied().unwrap_or(0);
        let part = self.part.start.max(offset)..self.part.end;
        (!part.is_empty()).then(|| Candidate { path: self.path.clone(), file: self.file, part })
    }

    /// Its path, and where it ends.
    fn end(&self) -> Option<(&str, u64)> {
        Some((self.path.as_str()?, self.part.end))
    }
}

/// The parts of main forks that only the source has: whole files, or what lies behind the end of the target's.
pub(super) fn missing(sides: &delta::Sides<'_>, control: &ControlFile) -> Vec<Candidate> {
    let block_size = u64::from(control.block_size());
    let missing = |(path, kind): &(DataPath, EntryKind)| {
        let EntryKind::File { size: there } = kind else { return None };
        let file = RelSegment::parse(path.as_str()?, sides.version)?;
        let here = match sides.target_files.get(path) {
            Some(EntryKind::File { size }) => *size,
            _ => 0,
        };
        let part = here / block_size * block_size..there / block_size * block_size;
        let is_missing = !part.is_empty() && !is_unlogged(file, sides.source_files, sides.version);
        is_missing.then(|| Candidate { path: path.clone(), file, part })
    };
    sides.source_files.entries().iter().filter_map(missing).collect()
}

/// Adds the blocks of the target's that were not compared, because the source's file does not have them.
fn add_not_compared(
    map: &mut PageMap,
    sides: &delta::Sides<'_>,
    control: &ControlFile,
    candidates: &[Candidate],
) {
    let mut candidates = candidates.iter().peekable();
    for (file, blocks) in relation_files(sides.target_files, control) {
        let candidate = candidates.next_if(|candidate| candidate.file == file);
        let compared = candidate.map_or(0, |candidate| candidate.part.end / u64::from(control.block_size()));
        let rest = blocks.start.saturating_add(compared as u32)..blocks.end;
        if !rest.is_empty() && !is_unlogged(file, sides.source_files, sides.version) {
            let mut all = RelationBlocks::new();
            all.insert_range(rest);
            map.insert_all(file.relation, all);
        }
    }
}

/// The main forks that both sides have, as far as both have them. The main fork of an unlogged relation is left out: the server
/// makes it anew when recovery ends.
pub(crate) fn candidates(sides: &delta::Sides<'_>, control: &ControlFile) -> Vec<Candidate> {
    let block_size = u64::from(control.block_size());
    let candidate = |(path, kind): &(DataPath, EntryKind)| {
        let EntryKind::File { size: here } = kind else { return None };
        let file = RelSegment::parse(path.as_str()?, sides.version)?;
        let Some(EntryKind::File { size: there }) = sides.source_files.get(path) else { return None };
        let length = here.min(there) / block_size * block_size;
        let is_compared = length > 0 && !is_unlogged(file, sides.source_files, sides.version);
        is_compared.then(|| Candidate { path: path.clone(), file, part: 0..length })
    };
    sides.target_files.entries().iter().filter_map(candidate).collect()
}

/// Whether a relation has an init fork.
pub(super) fn is_unlogged(file: RelSegment, files: &Inventory, version: Version) -> bool {
    let main = RelSegment { segment: 0, ..file }.path(version);
    DataPath::parse(format!("{main}_init")).is_ok_and(|init| files.get(&init).is_some())
}

/// Files, or parts of files, that are compared at a time.
pub(crate) struct Share<'a> {
    files: Vec<&'a Candidate>,
    pub(super) ranges: Vec<FetchRange>,
    pub(super) bytes: u64,
}

impl Share<'_> {
    /// The paths of its files, in the order of their numbers.
    pub(crate) fn paths(&self) -> Vec<DataPath> {
        self.files.iter().map(|candidate| candidate.path.clone()).collect()
    }

    /// The number of files of which it has the end.
    fn finished(&self) -> usize {
        let last = self.ranges.last().zip(self.files.last());
        let is_cut = last.is_some_and(|(range, file)| range.offset + u64::from(range.length) < file.part.end);
        self.files.len() - usize::from(is_cut)
    }

    /// The block that is stored in this range, which is that of one block.
    pub(crate) fn block(&self, range: FetchRange, control: &ControlFile) -> (Relation, BlockNumber) {
        let file = self.files[range.file as usize].file;
        (file.relation, file.block_at(range.offset, control))
    }
}

/// All files, in shares of about so many bytes.
pub(super) fn shares(candidates: &[Candidate], most: u64) -> impl Iterator<Item = Share<'_>> {
    let mut rest = candidates.iter().map(|candidate| (candidate, candidate.part.start));
    let mut begun: Option<(&Candidate, u64)> = None;
    std::iter::from_fn(move || {
        let mut share = Share { files: Vec::new(), ranges: Vec::new(), bytes: 0 };
        while share.bytes < most {
            let Some((candidate, mut offset)) = begun.take().or_else(|| rest.next()) else { break };
            let file = share.files.len() as u32;
            share.files.push(candidate);
            while offset < candidate.part.end && share.bytes < most {
                let length = COARSE.min(candidate.part.end - offset);
                share.ranges.push(FetchRange { file, offset, length: length as u32 });
                (offset, share.bytes) = (offset + length, share.bytes + length);
            }
            if offset < candidate.part.end {
                begun = Some((candidate, offset));
            }
        }
        (!share.ranges.is_empty()).then_some(share)
    })
}
