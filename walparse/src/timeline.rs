//! Timelines and their history files.
//!
//! A history file, `%08X.history`, lists the ancestors of a timeline, one per line:
//!
//! ```text
//! 1<TAB>0/7159CB8<TAB>no recovery target specified
//!
//! 2<TAB>0/71C5160<TAB>no recovery target specified
//! ```
//!
//! Blank lines are common, because the server copies its parent's file and writes a newline before its own line.
//! Lines that start with `#` are comments. Timeline 1 has no history file.

use crate::error::HistoryError;
use crate::lsn::{Lsn, TimelineId};
use crate::segment::{SegmentNo, SegmentSize};

/// One entry of a history: `timeline` was the current timeline from `begin` to `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it began; 0/0 for the first timeline.
    pub begin: Lsn,
    /// Where the next timeline of the history branched off; `None` for the last entry.
    pub end: Option<Lsn>,
}

/// The history of a timeline: its ancestors, oldest first, and itself. Never empty; only the last entry has no end.
///
/// ```
/// use walparse::{Lsn, TimelineHistory, TimelineId};
///
/// let one = TimelineHistory::of_first(TimelineId(1));
/// let two = TimelineHistory::parse(TimelineId(2), b"1\t0/7159CB8\tno recovery target specified\n")?;
/// assert_eq!(two.timeline_at(Lsn(0x7159CB7)), TimelineId(1));
/// assert_eq!(two.timeline_at(Lsn(0x7159CB8)), TimelineId(2));
/// // Where a server that stayed on timeline 1 has diverged from one promoted to timeline 2.
/// assert_eq!(one.common_with(&two), Some((TimelineId(1), Some(Lsn(0x7159CB8)))));
/// # Ok::<(), walparse::HistoryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    entries: Vec<TimelineEntry>,
}

impl TimelineHistory {
    /// The history of a timeline that has no history file.
    pub fn of_first(timeline: TimelineId) -> TimelineHistory {
        TimelineHistory { entries: vec![TimelineEntry { timeline, begin: Lsn::INVALID, end: None }] }
    }

    /// Parses the history file of `timeline`.
    ///
    /// # Errors
    /// A line does not start with a timeline and an LSN, the timelines do not increase, or one of them is not less
    /// than `timeline`. These are the rules of `readTimeLineHistory` (timeline.c).
    pub fn parse(timeline: TimelineId, text: &[u8]) -> Result<TimelineHistory, HistoryError> {
        let mut entries: Vec<TimelineEntry> = Vec::new();
        let mut begin = Lsn::INVALID;
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line_number = index + 1;
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let syntax = || HistoryError::Syntax { timeline, line_number, line: line.to_owned() };
            let mut words = line.split_whitespace();
            let parent =
                words.next().and_then(|word| word.parse().ok()).map(TimelineId).ok_or_else(syntax)?;
            let end: Lsn = words.next().and_then(|word| word.parse().ok()).ok_or_else(syntax)?;
            if parent.0 == 0 || entries.last().is_some_and(|last| last.timeline >= parent) {
                return Err(HistoryError::Order { timeline, line_number });
            }
            if parent >= timeline {
                return Err(HistoryError::NotOlder { timeline, parent, line_number });
            }
            entries.push(TimelineEntry { timeline: parent, begin, end: Some(end) });
            begin = end;
        }
        entries.push(TimelineEntry { timeline, begin, end: None });
        Ok(TimelineHistory { entries })
    }

    /// The contents of a history file with these entries, without the reasons.
    pub fn to_text(&self) -> String {
        let closed = self.entries.iter().filter_map(|entry| Some((entry.timeline, entry.end?)));
        closed.map(|(timeline, end)| format!("{timeline}\t{end}\n")).collect()
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[TimelineEntry] {
        &self.entries
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.entries[self.entries.len() - 1].timeline
    }

    /// The timeline that was current at `lsn`. The byte at a switch point belongs to the newer timeline.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let newest = self.entries.iter().rev().find(|entry| entry.begin <= lsn);
        newest.unwrap_or(&self.entries[0]).timeline
    }

    /// The timeline whose file holds all of `segment` in this history: the newest one that begins before the end of
    /// the segment, because a promotion copies the segment of the switch point up to there.
    pub fn timeline_of_segment(&self, segment: SegmentNo, size: SegmentSize) -> TimelineId {
        let end = size.end_of(segment);
        let newest = self.entries.iter().rev().find(|entry| entry.begin < end);
        newest.unwrap_or(&self.entries[0]).timeline
    }

    /// The last position that two histories share, and its timeline; `None` if they share no timeline.
    ///
    /// Entries are the same if timeline **and** begin agree. The position is where the first of the two histories
    /// leaves the last common entry. It is [`None`] if both end with that entry: they are on the same timeline.
    pub fn common_with(&self, other: &TimelineHistory) -> Option<(TimelineId, Option<Lsn>)> {
        let pairs = self.entries.iter().zip(&other.entries);
        let (ours, theirs) =
            pairs.take_while(|(a, b)| a.timeline == b.timeline && a.begin == b.begin).last()?;
        let left = match (ours.end, theirs.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Some((ours.timeline, left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_history_round_trips(
            steps in prop::collection::vec((1u32..1000, any::<u64>(), "[ -~]{0,20}", 0usize..3), 0..12),
        ) {
            let (mut text, mut timeline, mut expected) = (String::new(), 0, Vec::new());
            for (step, end, reason, blank_lines) in steps {
                timeline += step;
                text += &format!("{timeline}\t{}\t{reason}\n{}", Lsn(end), "\n".repeat(blank_lines));
                expected.push((TimelineId(timeline), Some(Lsn(end))));
            }
            let own = TimelineId(timeline + 1);
            expected.push((own, None));
            let history = TimelineHistory::parse(own, text.as_bytes()).unwrap();
            let entries = history.entries();
            prop_assert_eq!(entries.iter().map(|e| (e.timeline, e.end)).collect::<Vec<_>>(), expected);
            // Each entry begins where the one before it ends.
            prop_assert!(entries.windows(2).all(|pair| pair[0].end == Some(pair[1].begin)));
            prop_assert_eq!(history.common_with(&history), Some((own, None)));
        }

        #[test]
        fn no_text_panics(text in "[0-9A-F/#\t\n x]{0,80}") {
            let _ = TimelineHistory::parse(TimelineId(50), text.as_bytes());
        }
    }

    fn history(timeline: u32, text: &str) -> TimelineHistory {
        TimelineHistory::parse(TimelineId(timeline), text.as_bytes()).unwrap()
    }

    #[test]
    fn blank_lines_and_comments_are_skipped() {
        let h = history(3, "1\t0/7159CB8\tno recovery target specified\n\n# note\n2\t0/71C5160\tx y\n");
        let spans: Vec<_> = h.entries().iter().map(|e| (e.timeline.0, e.begin.0, e.end)).collect();
        assert_eq!(
            spans,
            [(1, 0, Some(Lsn(0x7159CB8))), (2, 0x7159CB8, Some(Lsn(0x71C5160))), (3, 0x71C5160, None)]
        );
    }

    #[test]
    fn text_round_trips() {
        for h in [TimelineHistory::of_first(TimelineId(1)), history(7, "1\t0/500\tx\n4\t1/0\ty\n")] {
            assert_eq!(TimelineHistory::parse(h.timeline(), h.to_text().as_bytes()), Ok(h));
        }
    }

    #[test]
    fn invalid_files_are_rejected() {
        for bad in
            ["x\t0/1\n", "1\n", "1\t01\n", "2\t0/1\n1\t0/2\n", "1\t0/1\n1\t0/2\n", "3\t0/1\n", "0\t0/1\n"]
        {
            assert!(TimelineHistory::parse(TimelineId(3), bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_common_position_is_where_the_first_history_leaves() {
        let one = TimelineHistory::of_first(TimelineId(1));
        let two = history(2, "1\t0/500\tx\n");
        assert_eq!(one.common_with(&two), Some((TimelineId(1), Some(Lsn(0x500)))));
        // Both promoted to timeline 2, at different points.
        let other_two = history(2, "1\t0/480\tx\n");
        assert_eq!(other_two.common_with(&two), Some((TimelineId(1), Some(Lsn(0x480)))));
        // Two timelines branched off timeline 2.
        let three = history(3, "1\t0/500\tx\n2\t0/900\tx\n");
        let four = history(4, "1\t0/500\tx\n2\t0/800\tx\n");
        assert_eq!(three.common_with(&four), Some((TimelineId(2), Some(Lsn(0x800)))));
        assert_eq!(three.common_with(&three), Some((TimelineId(3), None)));
        assert_eq!(one.common_with(&TimelineHistory::of_first(TimelineId(2))), None);
    }

    #[test]
    fn a_segment_with_a_switch_point_belongs_to_the_newer_timeline() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let h = history(2, "1\t0/580000\tx\n");
        assert_eq!(h.timeline_of_segment(SegmentNo(4), size), TimelineId(1));
        assert_eq!(h.timeline_of_segment(SegmentNo(5), size), TimelineId(2));
        // If the switch point is a segment boundary, the segment before it belongs to the old timeline.
        let h = history(2, "1\t0/500000\tx\n");
        assert_eq!(h.timeline_of_segment(SegmentNo(4), size), TimelineId(1));
        assert_eq!(h.timeline_of_segment(SegmentNo(5), size), TimelineId(2));
        assert_eq!(h.timeline_at(Lsn(0x4FFFFF)), TimelineId(1));
        assert_eq!(h.timeline_at(Lsn(0x500000)), TimelineId(2));
    }
}
