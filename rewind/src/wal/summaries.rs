//! Which blocks the source has changed in a stretch of its history, from the summaries of its WAL.
//!
//! A server of version 17 or later with `summarize_wal = on` notes for each stretch between two checkpoints which blocks its
//! records refer to. That WAL then need not be read, and need not exist.

use std::time::{Duration, Instant};

use walparse::scan::{ScanRequest, UnknownChanges, scan_stretch};
use walparse::{DatabaseDir, Lsn, PageMap, Relation, TimelineHistory, WalGeometry, after_page_header};

use crate::source::{SummarizedBlocks, WalSummary};
use crate::wal::changed::WholeFiles;
use crate::wal::error::WalError;
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// How long to wait for the summarizer, which is woken by each checkpoint, to reach the last one.
const SUMMARIZER_CATCH_UP: Duration = Duration::from_secs(2);

/// What the source has changed in a stretch of its history.
#[derive(Debug)]
pub(crate) struct Summarized {
    /// Blocks of main forks that records refer to.
    pub(crate) page_map: PageMap,
    /// Files of which other blocks may have changed, too.
    pub(crate) whole: WholeFiles,
}

/// The stretch of the source's history that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Where it starts: the redo position of a checkpoint that both histories should share.
    pub(crate) start: Lsn,
    /// Where it ends: the redo position of a checkpoint of the source.
    pub(crate) end: Lsn,
    /// Where the histories part.
    pub(crate) fork: Lsn,
    /// Whether the WAL of both sides was compared before the fork.
    pub(crate) is_compared: bool,
}

/// What the source's summaries say about its history; `None` if they do not cover it.
///
/// A summary ends at the redo position of a checkpoint, at a few other records that tell of `wal_level`, or at the end of a
/// timeline. None covers WAL that was written at `wal_level = minimal`. So summaries that lie end to end prove that all
/// changes between both ends were logged.
///
/// If the WAL of both sides could not be compared, the histories might be different ones whose timelines have the same
/// numbers. Then the target's WAL around the start must name the blocks that the source's summaries of it name.
///
/// Source: `SummarizeWAL` (walsummarizer.c).
///
/// # Errors
/// The source could not be read.
pub(crate) fn read(
    wal: &SourceWal<'_>,
    target: &TargetWal<'_>,
    wanted: Wanted,
) -> Result<Option<Summarized>, WalError> {
    let Wanted { start, end, .. } = wanted;
    let deadline = Instant::now() + SUMMARIZER_CATCH_UP;
    loop {
        let summaries = wal.source.wal_summaries()?;
        match tile(&summaries.present, wal.history, &wal.geometry, (start, end)) {
            Ok(_) if !wanted.is_compared && !is_shared(wal, target, &summaries.present, wanted)? => {
                tracing::debug!(
                    "the source's WAL summaries do not show that the target has its checkpoint {start}"
                );
                return Ok(None);
            }
            Ok(tiles) => return Ok(wal.source.summarized(&tiles)?.map(Summarized::of)),
            Err(reached) => {
                // The summarizer goes forward. It may reach the end, and closes no gap that lies behind it.
                let is_behind = summaries.present.iter().all(|summary| summary.end <= reached);
                if !(summaries.goes_on && is_behind) || Instant::now() >= deadline {
                    tracing::debug!("the source's WAL summaries cover {start} to {reached}, not to {end}");
                    return Ok(None);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the target's WAL around the start names the same blocks as the source's summaries: from there to the last summary
/// that ends before the fork, and before it as far back as is needed to find a block that is named. Stretches in which
/// nothing happens are alike on all servers.
fn is_shared(
    wal: &SourceWal<'_>,
    target: &TargetWal<'_>,
    present: &[WalSummary],
    Wanted { start, fork, .. }: Wanted,
) -> Result<bool, WalError> {
    let same_blocks = |(start, end)| compare(wal, target, present, (start, end));
    let last =
        tile(present, wal.history, &wal.geometry, (start, fork)).map_or_else(|reached| reached, |_| fork);
    let mut found = same_blocks((start, last))?;
    let mut start = start;
    while found == Some(Blocks::None) {
        let Some(before) = present
            .iter()
            .find(|summary| summary.start < summary.end && is_one_place(wal, summary.end, start))
        else {
            break;
        };
        found = same_blocks((before.start, start))?;
        start = before.start;
    }
    Ok(found == Some(Blocks::Same))
}

/// The blocks that both sides name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blocks {
    /// The same ones.
    Same,
    /// Neither names any.
    None,
}

/// Compares a stretch of the target's WAL with the source's summaries of it; `None` if they differ or one is missing.
fn compare(
    wal: &SourceWal<'_>,
    target: &TargetWal<'_>,
    present: &[WalSummary],
    (start, end): (Lsn, Lsn),
) -> Result<Option<Blocks>, WalError> {
    let Ok(tiles) = tile(present, wal.history, &wal.geometry, (start, end)) else { return Ok(None) };
    if tiles.is_empty() {
        return Ok(Some(Blocks::None));
    }
    let start = after_page_header(start, &wal.geometry);
    let request =
        ScanRequest::new(wal.geometry, end, start, end).with_unknown_changes(UnknownChanges::Ignore);
    let Ok(ours) = scan_stretch(target, &request, start, &|_| {}) else { return Ok(None) };
    let Some(theirs) = wal.source.summarized(&tiles)?.map(Summarized::of) else { return Ok(None) };
    let is_same = is_one_place(wal, ours.end, end) && theirs.agrees_with(&ours.page_map);
    let blocks = if ours.page_map.is_empty() { Blocks::None } else { Blocks::Same };
    Ok(is_same.then_some(blocks))
}

/// Whether two positions are the same but for a page header.
fn is_one_place(wal: &SourceWal<'_>, one: Lsn, other: Lsn) -> bool {
    after_page_header(one, &wal.geometry) == after_page_header(other, &wal.geometry)
}

/// The summaries that lie end to end from `start` to `end` in `history`.
///
/// # Errors
/// The position up to which they do.
fn tile(
    present: &[WalSummary],
    history: &TimelineHistory,
    geometry: &WalGeometry,
    (start, end): (Lsn, Lsn),
) -> Result<Vec<WalSummary>, Lsn> {
    // One summary may end before a page header, and the next one start after it.
    let record_start = |lsn: Lsn| after_page_header(lsn, geometry);
    let (mut reached, end) = (record_start(start), record_start(end));
    let mut tiles = Vec::new();
    while reached < end {
        let timeline = history.timeline_at(reached);
        let switch = history.entries().iter().find(|entry| entry.timeline == timeline);
        let limit = switch.and_then(|entry| entry.end).map_or(end, |switch| end.min(record_start(switch)));
        let follows = |summary: &&WalSummary| {
            let (start, end) = (record_start(summary.start), record_start(summary.end));
            summary.timeline == timeline && start == reached && end > reached && end <= limit
        };
        let next = present.iter().filter(follows).max_by_key(|summary| summary.end).ok_or(reached)?;
        tiles.push(*next);
        reached = record_start(next.end);
    }
    Ok(tiles)
}

impl Summarized {
    /// Whether `blocks` are named here and no others, as far as summaries say so: not behind a limit.
    fn agrees_with(&self, blocks: &PageMap) -> bool {
        let exact = |map: &PageMap, relation: Relation| {
            let limit = self.whole.first_block(relation).unwrap_or(u32::MAX);
            map.blocks(relation).map(|blocks| blocks.range(..limit).collect::<Vec<_>>()).unwrap_or_default()
        };
        let relations = self.page_map.relations().into_iter().chain(blocks.relations());
        relations.map(|(relation, _)| relation).all(|of| exact(&self.page_map, of) == exact(blocks, of))
    }

    fn of(blocks: SummarizedBlocks) -> Summarized {
        let mut whole = WholeFiles::default();
        for (relation, limit) in blocks.limits {
            match (relation.number, limit.0) {
                (0, _) => whole
                    .directories
                    .push(DatabaseDir { tablespace: relation.tablespace, database: relation.database }),
                (_, 0) => _ = whole.relations.insert(relation),
                _ => _ = whole.truncated.insert(relation, limit),
            }
        }
        Summarized { page_map: blocks.named, whole }
    }
}

#[cfg(test)]
mod tests {
    use walparse::testing::small_geometry;
    use walparse::{BlockNumber, TimelineId, Version};

    use super::*;

    fn summary(timeline: u32, start: u64, end: u64) -> WalSummary {
        WalSummary { timeline: TimelineId(timeline), start: Lsn(start), end: Lsn(end) }
    }

    fn tiles(present: &[WalSummary], from: u64, to: u64) -> Result<usize, u64> {
        let geometry = small_geometry(Version::find(1800, 202_506_291).unwrap());
        // Timeline 2 begins at a page boundary, timeline 3 within a page.
        let history = TimelineHistory::parse(TimelineId(3), b"1\t0/E00000\n2\t0/E01500\n").unwrap();
        let found = tile(present, &history, &geometry, (Lsn(from), Lsn(to)));
        found.map(|tiles| tiles.len()).map_err(|reached| reached.0)
    }

    #[test]
    fn summaries_lie_end_to_end_along_the_history() {
        let whole = [
            summary(1, 0xD0_2000, 0xE0_0000),
            summary(3, 0xE0_1500, 0xE0_1800),
            summary(2, 0xE0_0028, 0xE0_1500),
            summary(1, 0xD0_0100, 0xD0_2000),
            summary(3, 0xE0_1800, 0xE0_1900),
            // The end of timeline 1 on a server that was its primary for longer.
            summary(1, 0xE0_0028, 0xE0_1500),
            summary(2, 0xE0_1500, 0xE0_1700),
        ];
        let header = 0xD0_2000 + 0x18;
        assert_eq!(tiles(&whole, 0xD0_0100, 0xE0_1800), Ok(4));
        assert_eq!(tiles(&whole, header, 0xE0_1900), Ok(4));
        assert_eq!(tiles(&whole, 0xE0_1500, 0xE0_1900), Ok(2));
        // Neither side is within a summary: what lies before or behind it is not all that it has.
        assert_eq!(tiles(&whole, 0xD0_0200, 0xE0_1800), Err(0xD0_0200));
        assert_eq!(tiles(&whole, 0xD0_0100, 0xE0_1880), Err(0xE0_1800));
        // A gap.
        assert_eq!(tiles(&whole[1..], 0xD0_0100, 0xE0_1800), Err(header));
        // Of another history.
        let branch = [whole[0], summary(1, 0xE0_0028, 0xE0_1800)];
        assert_eq!(tiles(&branch, header, 0xE0_1800), Err(0xE0_0028));
        let branch = [whole[0], summary(1, 0xE0_0028, 0xE0_1500), whole[1]];
        assert_eq!(tiles(&branch, header, 0xE0_1800), Err(0xE0_0028));
        let beyond = [summary(1, header, 0xE0_1500), summary(2, 0xE0_1500, 0xE0_1800)];
        assert_eq!(tiles(&beyond, header, 0xE0_1800), Err(header));
        assert_eq!(tiles(&[], 0xD0_0100, 0xD0_0100), Ok(0));
    }

    #[test]
    fn limits_are_files_and_directories() {
        let relation = |number| Relation { tablespace: 1663, database: 5, number };
        let mut blocks = SummarizedBlocks::default();
        for (number, limit) in [(7, 0), (8, 9), (8, 3), (8, 5), (0, 0)] {
            blocks.limit(relation(number), BlockNumber(limit));
        }
        let whole = Summarized::of(blocks).whole;
        assert_eq!(whole.relations.into_iter().collect::<Vec<_>>(), [relation(7)]);
        assert_eq!(whole.truncated.into_iter().collect::<Vec<_>>(), [(relation(8), BlockNumber(3))]);
        assert_eq!(whole.directories, [DatabaseDir { tablespace: 1663, database: 5 }]);
    }

    #[test]
    fn blocks_behind_a_limit_are_not_compared() {
        let relation = |number| Relation { tablespace: 1663, database: 5, number };
        let map = |blocks: &[(u32, u32)]| {
            let mut map = PageMap::new();
            blocks.iter().for_each(|(number, block)| _ = map.insert(relation(*number), BlockNumber(*block)));
            map
        };
        let mut blocks = SummarizedBlocks { named: map(&[(7, 1), (8, 2), (8, 9)]), ..Default::default() };
        blocks.limit(relation(8), BlockNumber(5));
        let said = Summarized::of(blocks);
        assert!(said.agrees_with(&map(&[(7, 1), (8, 2), (8, 6)])));
        for other in [&[(7, 1), (8, 3)][..], &[(7, 1)], &[(7, 1), (8, 2), (9, 0)], &[]] {
            assert!(!said.agrees_with(&map(other)), "{other:?}");
        }
    }
}
