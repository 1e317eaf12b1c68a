//! What `report.html` has of tables, transactions and changes: short forms of what `transactions.json` has. The
//! scripts of the report read them.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::summary::{LostSummary, RelationName, RowCounts, SourceCounts};
use super::text::{hex, iso};
use crate::lost::model::{
    LostColumn, LostHistory, LostRow, LostTransaction, LostValue, RowOp, SourceRow, SourceState,
};

/// Characters of a value that are shown. Longer ones are in `transactions.json`.
pub(crate) const SHOWN: usize = 2000;

/// A change of a row: the table's number, what was done, where, how it is known, the old and the new values.
pub(crate) fn row(number: usize, row: &LostRow) -> impl Serialize {
    let old = row.old.as_ref().map(|values| ValuesPart { values, columns: row, before: None });
    let before = (row.op == RowOp::Update).then_some(row.old.as_ref()).flatten();
    let new = row.new.as_ref().map(|values| ValuesPart { values, columns: row, before });
    (number, row.op as u8, row.lsn.to_string(), row.quality as u8, old, new)
}

struct ValuesPart<'a> {
    values: &'a [LostValue],
    columns: &'a LostRow,
    /// The values before an update. What is the same after it is written as 0.
    before: Option<&'a Vec<LostValue>>,
}

impl Serialize for ValuesPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns = &self.columns.table.columns;
        let mut list = serializer.serialize_seq(Some(columns.len()))?;
        for (number, column) in columns.iter().enumerate() {
            let value = self.values.get(number).unwrap_or(&LostValue::Unknown);
            let before = self.before.and_then(|values| values.get(number));
            match value {
                LostValue::Unchanged if before.is_some() => list.serialize_element(&0)?,
                value if before == Some(value) && *value != LostValue::Unknown => {
                    list.serialize_element(&0)?
                }
                value => put_value(&mut list, value, column)?,
            }
        }
        list.end()
    }
}

fn put_value<S: SerializeSeq>(list: &mut S, value: &LostValue, column: &LostColumn) -> Result<(), S::Error> {
    match value {
        LostValue::Null => list.serialize_element(&()),
        LostValue::Text(text) => put_text(list, text),
        LostValue::Unchanged => list.serialize_element(&["u"]),
        LostValue::Unknown => list.serialize_element(&["x"]),
        LostValue::Bytes(bytes) => {
            let shown = hex(&bytes[..bytes.len().min(SHOWN / 2)]);
            list.serialize_element(&("b", shown, &column.type_name))
        }
    }
}

/// What the source has for a key: the table's number, the values of the key, the name of the state.
pub(crate) fn source_row(number: usize, row: &SourceRow) -> impl Serialize {
    (number, KeyPart(row), row.state.map(SourceState::name))
}

struct KeyPart<'a>(&'a SourceRow);

impl Serialize for KeyPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SourceRow { table, key, .. } = self.0;
        let mut list = serializer.serialize_seq(Some(table.key.len()))?;
        for number in &table.key {
            let value = key.get(*number).unwrap_or(&LostValue::Unknown);
            put_value(&mut list, value, &table.columns[*number])?;
        }
        list.end()
    }
}

fn put_text<S: SerializeSeq>(list: &mut S, text: &str) -> Result<(), S::Error> {
    // A text of so many bytes has no more characters.
    if text.len() <= SHOWN {
        return list.serialize_element(text);
    }
    match text.char_indices().nth(SHOWN) {
        None => list.serialize_element(text),
        Some((end, _)) => list.serialize_element(&("s", &text[..end], text.chars().count())),
    }
}

/// A transaction, whose listed changes follow it.
#[derive(Serialize)]
pub(crate) struct HeadPart<'a> {
    pub(crate) xid: u32,
    pub(crate) subxids: &'a [u32],
    pub(crate) lsn: String,
    pub(crate) time: Option<String>,
    pub(crate) database: Option<&'a str>,
    pub(crate) origin: Option<&'a str>,
    pub(crate) gid: Option<&'a str>,
    /// Rows that were inserted, updated and deleted.
    pub(crate) rows: [u64; 3],
    /// The numbers of their tables.
    pub(crate) tables: Vec<usize>,
    /// Changes on the lines after this one. Earlier ones are in blocks of their own.
    pub(crate) lines: u64,
    /// Changes that are in the report.
    pub(crate) listed: u64,
    /// Rows that are not.
    pub(crate) omitted: u64,
}

impl<'a> HeadPart<'a> {
    pub(crate) fn of(transaction: &'a LostTransaction, rows: &RowCounts) -> HeadPart<'a> {
        HeadPart {
            xid: transaction.xid,
            subxids: &transaction.subxids,
            lsn: transaction.commit_lsn.to_string(),
            time: transaction.commit_time.map(iso),
            database: transaction.database.as_deref(),
            origin: transaction.origin.as_deref(),
            gid: transaction.prepared_gid.as_deref(),
            rows: three(rows),
            tables: Vec::new(),
            lines: 0,
            listed: 0,
            omitted: 0,
        }
    }
}

fn three(rows: &RowCounts) -> [u64; 3] {
    [rows.inserted, rows.updated, rows.deleted]
}

/// What is not in the report, to keep it small.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Omitted {
    pub(crate) rows: u64,
    pub(crate) transactions: u64,
    /// Keys whose state on the source is known.
    pub(crate) keys: u64,
}

/// What is known at the end.
#[derive(Serialize)]
pub(crate) struct TailPart<'a> {
    read: super::json_parts::ReadPart,
    undecided: Vec<super::json_parts::UndecidedPart<'a>>,
    notes: &'a [String],
    transactions: u64,
    without_changes: u64,
    first_commit: Option<String>,
    last_commit: Option<String>,
    /// How many databases there are.
    databases: usize,
    rows: [u64; 3],
    tables: Vec<TableRows<'a>>,
    objects: Vec<ObjectLine<'a>>,
    sequences: Vec<SequenceLine<'a>>,
    large_objects: u64,
    omitted_rows: u64,
    omitted_transactions: u64,
    /// Keys whose state on the source is not in the report.
    omitted_keys: u64,
    complete: bool,
    /// Whether only what was asked for is in the report.
    filtered: bool,
}

#[derive(Serialize)]
struct TableRows<'a> {
    database: &'a str,
    name: &'a str,
    rows: [u64; 3],
    /// What the source has for its keys; null if it was not asked.
    source: Option<&'a SourceCounts>,
}

#[derive(Serialize)]
struct ObjectLine<'a> {
    database: &'a str,
    op: &'static str,
    kind: &'static str,
    name: &'a str,
    old_name: Option<&'a str>,
}

#[derive(Serialize)]
struct SequenceLine<'a> {
    database: &'a str,
    name: &'a str,
    /// As a string: JavaScript's numbers have 53 bits.
    last_value: String,
}

impl<'a> TailPart<'a> {
    pub(crate) fn of(history: &'a LostHistory, summary: &'a LostSummary, omitted: Omitted) -> TailPart<'a> {
        let table = |(table, rows): (&'a RelationName, &RowCounts)| TableRows {
            database: &table.database,
            name: &table.name,
            rows: three(rows),
            source: summary.on_source.as_ref().and_then(|tables| tables.get(table)),
        };
        let objects = summary.objects.iter().map(|object| ObjectLine {
            database: &object.database,
            op: object.op.name(),
            kind: object.kind,
            name: &object.name,
            old_name: object.old_name.as_deref(),
        });
        let sequences = summary.sequences.iter().map(|(sequence, value)| SequenceLine {
            database: &sequence.database,
            name: &sequence.name,
            last_value: value.to_string(),
        });
        TailPart {
            read: super::json_parts::ReadPart::of(history),
            undecided: history.undecided.iter().map(super::json_parts::UndecidedPart::of).collect(),
            notes: &history.notes,
            transactions: summary.transactions,
            without_changes: summary.without_changes,
            first_commit: summary.first_commit.map(iso),
            last_commit: summary.last_commit.map(iso),
            databases: summary.databases.len(),
            rows: three(&summary.rows),
            tables: summary.tables.iter().map(table).collect(),
            objects: objects.collect(),
            sequences: sequences.collect(),
            large_objects: summary.large_objects,
            omitted_rows: omitted.rows,
            omitted_transactions: omitted.transactions,
            omitted_keys: omitted.keys,
            complete: summary.is_complete,
            filtered: summary.is_filtered,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{json, to_value};

    use super::*;
    use crate::lost::export::made_up::{row as made_row, table_of, text};

    #[test]
    fn an_update_has_what_is_the_same_only_once() {
        let columns = ["a", "b", "c", "d", "e"].map(|name| (name, "text"));
        let table = Arc::new(table_of("d", "s", "t", &columns, &[0]));
        use LostValue::{Bytes, Null, Unchanged, Unknown};
        let old = vec![text("1"), Null, text("x"), Unchanged, Unknown];
        let new = vec![text("1"), Null, Bytes(vec![1]), Unchanged, Unknown];
        let change = made_row(&table, RowOp::Update, Some(old), Some(new));
        assert_eq!(
            to_value(row(7, &change)).unwrap(),
            json!([
                7,
                1,
                "0/2001148",
                0,
                ["1", null, "x", ["u"], ["x"]],
                [0, 0, ["b", "\\x01", "text"], 0, ["x"]]
            ])
        );
    }

    #[test]
    fn long_values_are_shortened_by_characters() {
        let table = Arc::new(table_of("d", "s", "t", &[("a", "text")], &[]));
        let change = |value| made_row(&table, RowOp::Insert, None, Some(vec![value]));
        let value = |shown| to_value(row(0, &change(shown))).unwrap()[5][0].clone();
        assert_eq!(value(text(&"表".repeat(SHOWN))), json!("表".repeat(SHOWN)));
        assert_eq!(value(text(&"表".repeat(SHOWN + 1))), json!(["s", "表".repeat(SHOWN), SHOWN + 1]));
        assert_eq!(value(LostValue::Bytes(vec![0; 9999]))[1].as_str().unwrap().len(), 2 + SHOWN);
    }
}
