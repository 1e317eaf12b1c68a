//! Tells of blocks that differ whether it matters: fetches the source's copy of each, and looks at both.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use walparse::{BlockDifference, BlockNumber, Lsn, Relation, block_difference, block_lsn, is_unused_block};

use crate::datadir::data_path::DataPath;
use crate::source::page_check::{DamagedPage, PAUSE, PageCheck, TRIES};
use crate::source::{ChunkSink, FetchRange, read_up_to};
use crate::survey::error::SurveyError;
use crate::survey::relations::{Comparing, Share};

/// Which blocks may differ, because replay will change them.
///
/// A server writes a changed block to disk at its next checkpoint at the latest, and the source is read from disk: its copy may
/// also be older than the target's.
pub(crate) struct Replayed<'a> {
    /// Those that the source has changed after this LSN of its history.
    pub(crate) theirs_after: Lsn,
    /// Those that the source has changed after this LSN and the target has in an older state: its server may not have written
    /// them yet when it was stopped.
    pub(crate) theirs_newer_after: Lsn,
    /// Those that the target has changed after the first and up to the second LSN, which both histories share as far as the
    /// source's copy on disk may be older.
    pub(crate) ours: (Lsn, Lsn),
    /// Where the history that both share ends. What the target has changed after that is its own.
    pub(crate) shared_until: Lsn,
    /// Those that are left to replay.
    pub(crate) is_left: &'a dyn Fn(Relation, BlockNumber) -> bool,
}

impl Replayed<'_> {
    fn has(&self, (relation, block): (Relation, BlockNumber), ours: &[u8], theirs: &[u8]) -> bool {
        // The source's copy is incomplete if its file has become shorter, or was removed. The LSN of a block is the end of a
        // record.
        let (ours, theirs) = (block_lsn(ours), block_lsn(theirs));
        if (self.is_left)(relation, block) {
            return true;
        }
        if ours.is_some_and(|lsn| lsn > self.shared_until) {
            return false;
        }
        let is_new = theirs.is_none_or(|lsn| {
            lsn > self.theirs_after || (lsn > self.theirs_newer_after && ours.is_none_or(|ours| ours < lsn))
        });
        is_new || ours.is_some_and(|lsn| self.has_ours(lsn))
    }

    /// Whether a block with this LSN was changed last in the history that both share, as far as that is known.
    fn is_shared(&self, lsn: Option<Lsn>) -> bool {
        let (_, until) = self.ours;
        until != Lsn(u64::MAX) && lsn <= Some(until)
    }

    /// Whether the target's copy with this LSN may be newer than the source's on disk.
    pub(crate) fn has_ours(&self, lsn: Lsn) -> bool {
        let (after, until) = self.ours;
        after < lsn && lsn <= until
    }
}

/// The largest number of blocks that are fetched at once, to limit the memory they take.
const AT_ONCE: usize = 1024;

/// What it means that a block of the target differs from the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// Replay will change it.
    Replayed,
    /// Only what a server changes without WAL differs.
    NotLogged,
    /// The contents differ.
    Contents,
}

/// A block that differs.
pub(crate) struct Difference<'a> {
    pub(crate) path: &'a DataPath,
    pub(crate) block: BlockNumber,
    /// Its offset in the file.
    pub(crate) offset: u64,
    pub(crate) meaning: Meaning,
    /// The source's copy.
    pub(crate) theirs: Vec<u8>,
}

/// A block that was fetched and found to differ.
struct Judged {
    range: FetchRange,
    meaning: Meaning,
    theirs: Vec<u8>,
}

impl Judged {
    /// What is wrong with the source's copy, if anything is.
    fn damage(&self, paths: &[DataPath], pages: PageCheck<'_>) -> Option<DamagedPage> {
        pages.first_damaged(&paths[self.range.file as usize], self.range.offset, &self.theirs, None)
    }
}

impl Comparing<'_> {
    /// Passes each of these blocks to `found`, with what it means that it differs.
    ///
    /// # Errors
    /// A side cannot be read, the source's copy of such a block is damaged, or `found` fails.
    pub(crate) fn each_difference<E: From<SurveyError>>(
        &self,
        share: &Share<'_>,
        ranges: &[FetchRange],
        replayed: &Replayed<'_>,
        found: &mut dyn FnMut(Difference<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let paths = share.paths();
        let judge = |ranges: &[FetchRange]| self.judge(share, &paths, ranges, replayed);
        for ranges in ranges.chunks(AT_ONCE) {
            for Judged { range, meaning, theirs } in self.judge_surely(&paths, ranges, &judge)? {
                let (_, block) = share.block(range, self.control);
                let path = &paths[range.file as usize];
                found(Difference { path, block, offset: range.offset, meaning, theirs })?;
            }
        }
        Ok(())
    }

    /// Judges these blocks, and once more those that may have been read while the server wrote them, with the new contents behind
    /// the old header.
    fn judge_surely(
        &self,
        paths: &[DataPath],
        ranges: &[FetchRange],
        judge: &dyn Fn(&[FetchRange]) -> Result<Vec<Judged>, SurveyError>,
    ) -> Result<Vec<Judged>, SurveyError> {
        let mut sure = Vec::new();
        let mut before = Vec::new();
        let mut doubtful = ranges.to_vec();
        for tries in 0..=TRIES {
            let judged = judge(&doubtful)?;
            let (right, rest): (Vec<_>, Vec<_>) =
                judged.into_iter().partition(|block| self.is_sure(paths, block, &before));
            sure.extend(right);
            if rest.is_empty() {
                break;
            }
            if tries == TRIES {
                self.check_source(paths, &rest)?;
                sure.extend(rest);
                break;
            }
            std::thread::sleep(PAUSE);
            doubtful = rest.iter().map(|block| block.range).collect();
            before = rest;
        }
        Ok(sure)
    }

    /// Whether the source's copy of a block is surely not torn. Without checksums, it is not if it was the same before.
    fn is_sure(&self, paths: &[DataPath], block: &Judged, before: &[Judged]) -> bool {
        match (block.meaning, self.pages) {
            (Meaning::Replayed, _) => true,
            (_, Some(pages)) => block.damage(paths, pages).is_none(),
            (Meaning::NotLogged, None) => true,
            (Meaning::Contents, None) => {
                let place = |judged: &Judged| (judged.range.file, judged.range.offset);
                let at = before.binary_search_by_key(&place(block), place);
                at.is_ok_and(|at| before[at].theirs == block.theirs)
            }
        }
    }

    /// Checks that none of these blocks is damaged on the source.
    fn check_source(&self, paths: &[DataPath], blocks: &[Judged]) -> Result<(), SurveyError> {
        let Some(pages) = self.pages else { return Ok(()) };
        let mut damaged =
            blocks.iter().filter_map(|block| Some((block.range.file, block.damage(paths, pages)?)));
        match damaged.next() {
            Some((file, first)) => Err(first.error(paths[file as usize].clone(), damaged.count()).into()),
            None => Ok(()),
        }
    }

    /// Fetches these blocks and compares them with the target's. Those that are equal by now are left out.
    fn judge(
        &self,
        share: &Share<'_>,
        paths: &[DataPath],
        ranges: &[FetchRange],
        replayed: &Replayed<'_>,
    ) -> Result<Vec<Judged>, SurveyError> {
        let fetched = Fetched::default();
        self.sides.source.fetch(paths, ranges, &fetched)?;
        let bytes = ranges.iter().map(|range| u64::from(range.length)).sum();
        self.sides.pace.spend(bytes).map_err(|_| SurveyError::Stopped)?;
        let mut judged = Vec::new();
        for (range, theirs) in fetched.blocks.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let ours = self.ours(&paths[range.file as usize], range)?;
            let meaning = match meaning(&ours, &theirs, replayed) {
                Some(_) if replayed.has(share.block(range, self.control), &ours, &theirs) => {
                    Some(Meaning::Replayed)
                }
                other => other,
            };
            judged.extend(meaning.map(|meaning| Judged { range, meaning, theirs }));
        }
        judged.sort_unstable_by_key(|judged| (judged.range.file, judged.range.offset));
        Ok(judged)
    }

    /// The target's copy of a block, as far as its file has it.
    fn ours(&self, path: &DataPath, range: FetchRange) -> Result<Vec<u8>, SurveyError> {
        let full = path.below(self.sides.target);
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; range.length as usize];
            let file = match File::open(&full) {
                // The source has had no such file when it was to be copied.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other?,
            };
            let length = read_up_to(&file, range.offset, &mut bytes)?.len();
            bytes.truncate(length);
            Ok(bytes)
        };
        read().map_err(|source| SurveyError::ReadBlock { path: full.clone(), offset: range.offset, source })
    }
}

/// What it means that these two copies differ, before it is asked whether replay will change the block; `None` if they do not.
///
/// That the LSN alone differs does not matter in the history that both share: replay of what follows changes such blocks alike.
fn meaning(ours: &[u8], theirs: &[u8], replayed: &Replayed<'_>) -> Option<Meaning> {
    // Servers extend files by unused blocks without WAL.
    if !theirs.is_empty() && is_unused_block(ours) && is_unused_block(theirs) {
        return None;
    }
    match block_difference(ours, theirs) {
        BlockDifference::None => None,
        BlockDifference::NotLogged => Some(Meaning::NotLogged),
        BlockDifference::Lsn if replayed.is_shared(block_lsn(ours).max(block_lsn(theirs))) => {
            Some(Meaning::NotLogged)
        }
        BlockDifference::Lsn | BlockDifference::Contents => Some(Meaning::Contents),
    }
}

/// The source's copies of some blocks.
#[derive(Default)]
struct Fetched {
    blocks: Mutex<Vec<(FetchRange, Vec<u8>)>>,
}

impl ChunkSink for Fetched {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> io::Result<()> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push((range, bytes.unwrap_or_default().to_vec()));
        Ok(())
    }
}
