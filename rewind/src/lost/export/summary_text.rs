//! The summary of what was lost as text for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use jiff::Timestamp;

use super::summary::{LostSummary, ObjectSummary, RelationName, RowCounts, SourceCounts};
use super::text::{counted, one_line};
use crate::lost::model::{ObjectOp, Undecided};

/// Names that are listed of one kind in the short text.
const FEW: usize = 10;

impl fmt::Display for LostSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} ~{} -{}", self.inserted, self.updated, self.deleted)
    }
}

impl LostSummary {
    /// The text for a plan or log, with up to ten tables, objects and so on of a kind.
    pub fn short_text(&self) -> String {
        self.text_of(FEW)
    }

    /// The text with everything.
    pub fn text(&self) -> String {
        self.text_of(usize::MAX)
    }

    fn text_of(&self, most: usize) -> String {
        let mut text = self.first_line();
        self.put_tables(&mut text, most);
        self.put_objects(&mut text, most);
        self.put_sequences(&mut text, most);
        if self.large_objects > 0 || self.large_object_pages.total() > 0 {
            let pages = self.large_object_pages;
            let objects = counted(self.large_objects, "large object");
            let _ = writeln!(text, "  {objects} changed, by pages: {pages}");
        }
        if self.without_changes > 0 && self.without_changes < self.transactions {
            let number = self.without_changes;
            let _ = writeln!(text, "  {number} of these transactions changed no rows (locks, maintenance)");
        }
        self.put_qualities(&mut text, most);
        self.put_undecided(&mut text, most);
        for line in self.on_source_lines() {
            let _ = writeln!(text, "{line}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "Note: {}", one_line(note));
        }
        if !self.is_complete {
            text.push_str(
                "This is not complete: reading ended early. More may be lost than is counted here.\n",
            );
        }
        text
    }

    fn first_line(&self) -> String {
        if self.transactions == 0 {
            let line = match (self.is_complete, self.is_filtered) {
                (true, false) => "A rewind gives up no committed transaction: 0 transactions will be lost.",
                (true, true) => "A rewind gives up none of the transactions that were asked for.",
                (false, _) => "No committed transaction that a rewind gives up was found so far.",
            };
            return format!("{line}\n");
        }
        let at_least = if self.is_complete { "" } else { "at least " };
        let mut line =
            format!("A rewind gives up {at_least}{}", counted(self.transactions, "committed transaction"));
        if self.is_filtered {
            line.push_str(" asked for,");
        }
        if let Some((first, last)) = self.first_commit.zip(self.last_commit) {
            let _ = write!(line, " of {}", span(first, last));
        }
        let databases = self.databases.iter().map(|name| one_line(name)).collect::<Vec<_>>();
        match databases.as_slice() {
            [] => {}
            [one] => {
                let _ = write!(line, " (database {one})");
            }
            [..] => {
                let _ = write!(line, " (databases {})", few(&databases, FEW));
            }
        }
        let ending =
            if self.transactions == self.without_changes { ", which changed no rows.\n" } else { ":\n" };
        line + ending
    }

    /// `name` with its database, if there are several.
    fn name(&self, database: &str, name: &str) -> String {
        let name = if self.databases.len() > 1 { format!("{database}: {name}") } else { name.to_owned() };
        one_line(&name)
    }

    fn put_tables(&self, text: &mut String, most: usize) {
        let names = self.tables.keys().map(|table| self.name(&table.database, &table.name));
        let names = names.take(most).collect::<Vec<_>>();
        let width =
            names.iter().map(|name| name.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (name, rows) in names.iter().zip(self.tables.values()) {
            let _ = writeln!(text, "  {name:<width$}  {rows}");
        }
        if let Some(more) = self.tables.len().checked_sub(most).filter(|more| *more > 0) {
            let mut rest = RowCounts::default();
            for rows in self.tables.values().skip(most) {
                rest.inserted += rows.inserted;
                rest.updated += rows.updated;
                rest.deleted += rows.deleted;
            }
            let _ = writeln!(text, "  and {}: {rest}", counted(more as u64, "more table"));
        }
    }

    fn put_objects(&self, text: &mut String, most: usize) {
        let mut groups: BTreeMap<(ObjectOp, &str), Vec<String>> = BTreeMap::new();
        for object in &self.objects {
            groups.entry((object.op, object.kind)).or_default().push(self.object_name(object));
        }
        for ((op, kind), names) in groups {
            let kind = match (names.len(), kind) {
                (1, kind) => kind.to_owned(),
                (_, "index") => "indexes".to_owned(),
                (_, kind) => format!("{kind}s"),
            };
            let _ = writeln!(text, "  {kind} {}: {}", done(op), few(&names, most));
        }
    }

    fn object_name(&self, object: &ObjectSummary) -> String {
        let name = match object.kind {
            "database" => one_line(&object.name),
            _ => self.name(&object.database, &object.name),
        };
        match &object.old_name {
            Some(old) => format!("{name} (was {})", one_line(old)),
            None => name,
        }
    }

    fn put_sequences(&self, text: &mut String, most: usize) {
        for (sequence, value) in self.sequences.iter().take(most) {
            let name = self.name(&sequence.database, &sequence.name);
            let _ = writeln!(text, "  sequence {name} had reached {value}");
        }
        if let Some(more) = self.sequences.len().checked_sub(most).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {}", counted(more as u64, "more sequence"));
        }
    }

    /// What the source has by now, a line for each table.
    pub(crate) fn on_source_lines(&self) -> Vec<String> {
        let tables = self.on_source.iter().flatten();
        let line = |(table, counts): (&RelationName, &SourceCounts)| {
            let SourceCounts { same, equal, changed, gone, unknown } = counts;
            let mut line = format!(
                "On the source now, keys of {}: {same} as before, {equal} as the lost changes made them, {changed} changed, \
                 {gone} gone",
                self.name(&table.database, &table.name)
            );
            if *unknown > 0 {
                let _ = write!(line, ", {unknown} not known");
            }
            line
        };
        tables.map(line).collect()
    }

    fn put_qualities(&self, text: &mut String, most: usize) {
        if self.from_disk > 0 {
            let rows = counted(self.from_disk, "row");
            let _ =
                writeln!(text, "  {rows} known from the page on disk, because WAL has no image of the page");
        }
        if self.incomplete > 0 {
            let _ = writeln!(text, "  {} known in part only", counted(self.incomplete, "row"));
        }
        if !self.as_bytes.is_empty() {
            let values = counted(self.as_bytes.values().sum(), "value");
            let types = self.as_bytes.iter().map(|(name, number)| format!("{} ({number})", one_line(name)));
            let _ = writeln!(
                text,
                "  {values} shown as bytes, of types whose text is not known: {}",
                few(&types.collect::<Vec<_>>(), most)
            );
        }
    }

    fn put_undecided(&self, text: &mut String, most: usize) {
        let named = |undecided: &Undecided| match undecided.is_on_source {
            true => format!("{} (the new primary has it, too)", one_line(&undecided.gid)),
            false => one_line(&undecided.gid),
        };
        let names = self.undecided.iter().map(named).collect::<Vec<_>>();
        match names.len() {
            0 => {}
            1 => {
                let _ = writeln!(text, "1 transaction is prepared and undecided: {}", names[0]);
            }
            number => {
                let _ =
                    writeln!(text, "{number} transactions are prepared and undecided: {}", few(&names, most));
            }
        }
    }
}

/// Up to `most` names, and how many more there are.
fn few(names: &[String], most: usize) -> String {
    match names.len().checked_sub(most).filter(|more| *more > 0) {
        Some(more) => format!("{}, and {more} more", names[..most].join(", ")),
        None => names.join(", "),
    }
}

fn done(op: ObjectOp) -> &'static str {
    match op {
        ObjectOp::Create => "created",
        ObjectOp::Alter => "altered",
        ObjectOp::Rewrite => "rewritten",
        ObjectOp::Truncate => "truncated",
        ObjectOp::Drop => "dropped",
    }
}

/// Two times in UTC, the day of the second one only if it is another day.
fn span(first: Timestamp, last: Timestamp) -> String {
    let (day, time) = ("%Y-%m-%d", "%H:%M:%S");
    let full = format!("{day} {time}");
    let from = first.strftime(&full);
    if first.strftime(&full).to_string() == last.strftime(&full).to_string() {
        return format!("{from} UTC");
    }
    let is_same_day = first.strftime(day).to_string() == last.strftime(day).to_string();
    let to = if is_same_day { last.strftime(time) } else { last.strftime(&full) };
    format!("{from} .. {to} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::{history, play};
    use crate::lost::export::summary::LostCounter;
    use crate::lost::model::LostSink;

    #[test]
    fn the_made_up_history_is_told() {
        let mut counter = LostCounter::default();
        play(&mut counter).unwrap();
        let text = counter.summary().to_string();
        let lines = text.lines().collect::<Vec<_>>();
        assert!(lines[0].starts_with(
            "A rewind gives up 5 committed transactions of 2026-11-30 00:53:20 UTC (databases ../x'\"$kb$\\u{a}"
        ));
        for expected in [
            "  shop: public.\"Log\"   +2 ~0 -0",
            "  shop: sales.payment  +3 ~3 -2",
            "  table created: shop: public.newt",
            "  table truncated: shop: public.\"Log\"",
            "  sequence shop: sales.payment_id_seq had reached 99999",
            "  1 large object changed, by pages: +1 ~0 -0",
            "  1 of these transactions changed no rows (locks, maintenance)",
            "  1 row known in part only",
            "  1 value shown as bytes, of types whose text is not known: tsvector (1)",
            "Note: Something is not known.",
        ] {
            assert!(lines.contains(&expected), "{expected:?} is missing in\n{text}");
        }
        assert!(text.contains("1 transaction is prepared and undecided: p ../x"));
        assert!(text.contains("(the new primary has it, too)"));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn nothing_lost_is_said_outright() {
        let mut counter = LostCounter::default();
        counter.begin(&history()).unwrap();
        assert!(counter.summary().to_string().contains("No committed transaction"));
        assert!(counter.summary().to_string().contains("This is not complete"));
        counter.end(&history()).unwrap();
        assert!(counter.summary().to_string().contains("0 transactions will be lost.\n"));
        let filtered = LostSummary { is_filtered: true, ..counter.summary() };
        assert!(!filtered.to_string().contains("0 transactions"));
    }

    #[test]
    fn the_short_text_says_how_many_there_are_more() {
        let mut summary = LostSummary { transactions: 1, is_complete: true, ..LostSummary::default() };
        for number in 0..12 {
            let name = RelationName { database: "a".to_owned(), name: format!("public.t{number:02}") };
            summary.tables.insert(name, RowCounts { inserted: 1, updated: 2, deleted: 0 });
        }
        let text = summary.short_text();
        assert!(text.ends_with("  public.t09  +1 ~2 -0\n  and 2 more tables: +2 ~4 -0\n"), "{text}");
        assert_eq!(summary.to_string().lines().count(), 13);
    }

    #[test]
    fn a_span_names_a_day_once() {
        let time = |seconds: i64| Timestamp::from_second(1_796_000_000 + seconds).unwrap();
        assert_eq!(span(time(0), time(0)), "2026-11-30 00:53:20 UTC");
        assert_eq!(span(time(0), time(5)), "2026-11-30 00:53:20 .. 00:53:25 UTC");
        assert_eq!(span(time(0), time(86_400)), "2026-11-30 00:53:20 .. 2026-12-01 00:53:20 UTC");
    }
}
