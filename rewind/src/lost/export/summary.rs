//! Counts what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use roaring::RoaringBitmap;
use serde::Serialize;

use super::filter::is_filtered;
use super::names::table_name;
use super::per_table::PerTable;
use crate::lost::model::{
    LostChange, LostHistory, LostObject, LostRow, LostSink, LostTable, LostTransaction, LostValue, ObjectOp,
    OnSource, Quality, RowOp, SinkError, SourceState, Undecided,
};

/// What was lost, in numbers and names. `Display` is the text for people.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct LostSummary {
    /// Committed transactions.
    pub transactions: u64,
    /// Those of them that have changed nothing that is listed: row locks, sequences within what was logged in advance,
    /// maintenance.
    pub without_changes: u64,
    /// The earliest time of a commit.
    pub first_commit: Option<Timestamp>,
    /// The latest.
    pub last_commit: Option<Timestamp>,
    /// The databases of these transactions and of their changes.
    pub databases: BTreeSet<String>,
    /// Changed rows of all tables. Pages of large objects are not among them.
    pub rows: RowCounts,
    /// Changed rows by table.
    pub tables: BTreeMap<RelationName, RowCounts>,
    /// Relations and databases that were created, altered, rewritten, truncated or dropped.
    pub objects: BTreeSet<ObjectSummary>,
    /// The last value that each sequence has reached.
    pub sequences: BTreeMap<RelationName, i64>,
    /// Large objects with changed pages.
    pub large_objects: u64,
    /// Changed pages of these.
    pub large_object_pages: RowCounts,
    /// Rows of which a part is from a page on disk: WAL has no image of it.
    pub from_disk: u64,
    /// Rows of which a part is not known.
    pub incomplete: u64,
    /// Values whose text is not known, which are shown as bytes, by the names of their types.
    pub as_bytes: BTreeMap<String, u64>,
    /// Transactions that were prepared and are undecided.
    pub undecided: Vec<Undecided>,
    /// What the source has by now in the place of the changed rows, by table; `None` if it was not asked.
    pub on_source: Option<BTreeMap<RelationName, SourceCounts>>,
    /// What is not known, as sentences.
    pub notes: Vec<String>,
    /// Whether all of WAL was read. Otherwise there may be more than is counted here.
    pub is_complete: bool,
    /// Whether only what a [`LostFilter`](super::LostFilter) asks for is counted.
    pub is_filtered: bool,
}

/// The name of a table or sequence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RelationName {
    /// The database.
    pub database: String,
    /// The name with its schema.
    pub name: String,
}

/// Numbers of changed rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RowCounts {
    /// Inserted.
    pub inserted: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted.
    pub deleted: u64,
}

impl RowCounts {
    /// Counts more rows.
    pub fn add(&mut self, op: RowOp, rows: u64) {
        match op {
            RowOp::Insert => self.inserted += rows,
            RowOp::Update => self.updated += rows,
            RowOp::Delete => self.deleted += rows,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

impl std::ops::AddAssign for RowCounts {
    fn add_assign(&mut self, other: RowCounts) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }
}

impl From<walparse::RowCounts> for RowCounts {
    fn from(rows: walparse::RowCounts) -> RowCounts {
        RowCounts { inserted: rows.inserted, updated: rows.updated, deleted: rows.deleted }
    }
}

/// Numbers of keys by what the source has for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SourceCounts {
    /// See [`SourceState::Same`].
    pub same: u64,
    /// See [`SourceState::Equal`].
    pub equal: u64,
    /// See [`SourceState::Changed`].
    pub changed: u64,
    /// See [`SourceState::Gone`].
    pub gone: u64,
    /// Not known.
    pub unknown: u64,
}

impl SourceCounts {
    fn add(&mut self, state: Option<SourceState>) {
        let count = match state {
            Some(SourceState::Same) => &mut self.same,
            Some(SourceState::Equal) => &mut self.equal,
            Some(SourceState::Changed) => &mut self.changed,
            Some(SourceState::Gone) => &mut self.gone,
            None => &mut self.unknown,
        };
        *count += 1;
    }

    fn by_table(on_source: &OnSource) -> BTreeMap<RelationName, SourceCounts> {
        let mut tables: BTreeMap<RelationName, SourceCounts> = BTreeMap::new();
        for row in &on_source.rows {
            let name = RelationName { database: row.table.database.clone(), name: table_name(&row.table) };
            tables.entry(name).or_default().add(row.state);
        }
        tables
    }
}

/// A relation or database that was created, altered, rewritten, truncated or dropped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct ObjectSummary {
    /// The database that it is in, or that it is.
    pub database: String,
    /// What was done.
    pub op: ObjectOp,
    /// What it is, as in [`crate::LostObject::kind`].
    pub kind: &'static str,
    /// Its name, with its schema.
    pub name: String,
    /// Its name before, if it was renamed.
    pub old_name: Option<String>,
}

/// Counts what passes through. It needs memory for each table and object, and none for rows.
#[derive(Debug, Default)]
pub struct LostCounter {
    summary: LostSummary,
    /// The number of each table in `counts`: tables of one name share it.
    tables: PerTable<usize>,
    counts: Vec<RowCounts>,
    names: BTreeMap<RelationName, usize>,
    large_objects: RoaringBitmap,
    /// Changes of the transaction that began last.
    changes: u64,
}

impl LostCounter {
    /// What was counted so far.
    pub fn summary(&self) -> LostSummary {
        let counted = |(name, number): (&RelationName, &usize)| (name.clone(), self.counts[*number]);
        let tables = self.names.iter().map(counted).filter(|(_, rows)| rows.total() > 0);
        LostSummary {
            tables: tables.collect(),
            large_objects: self.large_objects.len(),
            ..self.summary.clone()
        }
    }

    /// Counts changed rows of a table, without a look at them.
    pub(in crate::lost) fn add_rows(&mut self, table: &Arc<LostTable>, rows: RowCounts) {
        if table.is_large_object {
            self.summary.large_object_pages += rows;
            return;
        }
        let (names, counts, summary) = (&mut self.names, &mut self.counts, &mut self.summary);
        let made = self.tables.get(table, |_| {
            let name = RelationName { database: table.database.clone(), name: table_name(table) };
            summary.databases.insert(table.database.clone());
            Ok::<_, Infallible>(*names.entry(name).or_insert_with(|| {
                counts.push(RowCounts::default());
                counts.len() - 1
            }))
        });
        let Ok(number) = made;
        self.counts[*number] += rows;
        self.summary.rows += rows;
    }

    /// Notes what was done to a relation or database.
    pub(in crate::lost) fn add_object(&mut self, object: LostObject) {
        self.summary.databases.insert(object.database.clone());
        self.summary.objects.insert(ObjectSummary {
            database: object.database,
            op: object.op,
            kind: object.kind,
            name: object.name,
            old_name: object.old_name,
        });
    }

    /// Notes the value that a sequence has reached.
    pub(in crate::lost) fn add_sequence(&mut self, name: RelationName, last_value: i64) {
        self.summary.sequences.insert(name, last_value);
    }

    fn row(&mut self, row: &LostRow) {
        match row.quality {
            Quality::Exact => {}
            Quality::FromDisk => self.summary.from_disk += 1,
            Quality::Incomplete => self.summary.incomplete += 1,
        }
        let mut rows = RowCounts::default();
        rows.add(row.op, 1);
        self.add_rows(&row.table, rows);
        if row.table.is_large_object {
            let values = row.new.as_ref().or(row.old.as_ref());
            if let Some(LostValue::Text(id)) = values.and_then(|values| values.first()) {
                self.large_objects.extend(id.parse::<u32>());
            }
            return;
        }
        let summary = &mut self.summary;
        for values in [&row.old, &row.new].into_iter().flatten() {
            for (column, value) in row.table.columns.iter().zip(values) {
                if matches!(value, LostValue::Bytes(_)) {
                    match summary.as_bytes.get_mut(&column.type_name) {
                        Some(number) => *number += 1,
                        None => {
                            summary.as_bytes.insert(column.type_name.clone(), 1);
                        }
                    }
                }
            }
        }
    }
}

impl LostSink for LostCounter {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        *self = LostCounter::default();
        self.summary.is_filtered = is_filtered(history);
        Ok(())
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        let summary = &mut self.summary;
        summary.transactions += 1;
        if let Some(time) = transaction.commit_time {
            summary.first_commit = Some(summary.first_commit.map_or(time, |first| first.min(time)));
            summary.last_commit = Some(summary.last_commit.map_or(time, |last| last.max(time)));
        }
        if let Some(database) = &transaction.database
            && !summary.databases.contains(database)
        {
            summary.databases.insert(database.clone());
        }
        self.changes = 0;
        Ok(())
    }

    fn change(&mut self, _: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        self.changes += 1;
        match change {
            LostChange::Row(row) => self.row(row),
            LostChange::Object(object) => self.add_object(object.clone()),
            LostChange::Sequence { database, name, last_value, .. } => {
                let name = RelationName { database: database.clone(), name: name.clone() };
                self.add_sequence(name, *last_value);
            }
        }
        Ok(())
    }

    fn transaction_end(&mut self, _: &LostTransaction) -> Result<(), SinkError> {
        self.summary.without_changes += u64::from(self.changes == 0);
        Ok(())
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.summary.undecided.clone_from(&history.undecided);
        self.summary.notes.clone_from(&history.notes);
        self.summary.on_source = history.on_source.as_ref().map(SourceCounts::by_table);
        self.summary.is_complete = history.is_complete;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::{HOSTILE, play};

    #[test]
    fn the_made_up_history_is_counted() {
        let mut counter = LostCounter::default();
        play(&mut counter).unwrap();
        let summary = counter.summary();
        assert_eq!((summary.transactions, summary.without_changes), (5, 1));
        assert_eq!(summary.databases, BTreeSet::from(["shop".to_owned(), HOSTILE.to_owned()]));
        assert_eq!(summary.rows, RowCounts { inserted: 6, updated: 3, deleted: 2 });
        let tables = summary.tables.iter().map(|(table, rows)| (table.name.as_str(), rows.total()));
        let evil = format!("{0}.{0}", super::super::names::quoted(HOSTILE));
        assert_eq!(tables.collect::<Vec<_>>(), [(&*evil, 1), ("public.\"Log\"", 2), ("sales.payment", 8)]);
        assert_eq!((summary.large_objects, summary.large_object_pages.inserted), (1, 1));
        assert_eq!((summary.from_disk, summary.incomplete), (0, 1));
        assert_eq!(summary.as_bytes, BTreeMap::from([("tsvector".to_owned(), 1)]));
        assert_eq!(summary.sequences.values().collect::<Vec<_>>(), [&99_999]);
        assert_eq!(summary.objects.len(), 2);
        assert!(summary.is_complete && summary.undecided.len() == 1 && summary.notes.len() == 1);
        let micros = |time: Option<Timestamp>| time.unwrap().as_microsecond() % 1000;
        assert_eq!((micros(summary.first_commit), micros(summary.last_commit)), (764, 773));
    }

    #[test]
    fn counting_starts_anew_with_a_history() {
        let mut counter = LostCounter::default();
        play(&mut counter).unwrap();
        let once = counter.summary();
        play(&mut counter).unwrap();
        assert_eq!(counter.summary(), once);
    }
}
