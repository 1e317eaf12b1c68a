//! The lost transactions in the JSON report of a rewind.

use kbrecover_rewind::{LostSummary, LostTransactions, ObjectSummary, RelationName, RowCounts};
use serde::Serialize;

/// The transactions that are given up.
#[derive(Serialize)]
pub(super) struct LostObject<'a> {
    committed: u64,
    first: Option<String>,
    last: Option<String>,
    undecided: &'a [String],
    /// What they have done; null if this run has not looked at it.
    tables: Option<Vec<LostTableObject<'a>>>,
    objects: Option<Vec<LostChangeObject<'a>>>,
    sequences: Option<Vec<LostSequenceObject<'a>>>,
    notes: &'a [String],
}

/// Changed rows of a table.
#[derive(Serialize)]
struct LostTableObject<'a> {
    database: &'a str,
    table: &'a str,
    #[serde(flatten)]
    rows: RowCounts,
}

/// A relation or database that was created, altered, rewritten, truncated or dropped.
#[derive(Serialize)]
struct LostChangeObject<'a> {
    database: &'a str,
    op: &'static str,
    kind: &'static str,
    name: &'a str,
    old_name: Option<&'a str>,
}

/// The value that a sequence has reached at most.
#[derive(Serialize)]
struct LostSequenceObject<'a> {
    database: &'a str,
    sequence: &'a str,
    last_value: i64,
}

impl<'a> LostObject<'a> {
    pub(super) fn of(lost: &'a LostTransactions) -> LostObject<'a> {
        let summary = lost.summary.as_deref();
        let tables = |summary: &'a LostSummary| {
            let table = |(name, rows): (&'a RelationName, &RowCounts)| LostTableObject {
                database: &name.database,
                table: &name.name,
                rows: *rows,
            };
            summary.tables.iter().map(table).collect()
        };
        let objects = |summary: &'a LostSummary| {
            let object = |object: &'a ObjectSummary| LostChangeObject {
                database: &object.database,
                op: object.op.name(),
                kind: object.kind,
                name: &object.name,
                old_name: object.old_name.as_deref(),
            };
            summary.objects.iter().map(object).collect()
        };
        let sequences = |summary: &'a LostSummary| {
            let sequence = |(name, value): (&'a RelationName, &i64)| LostSequenceObject {
                database: &name.database,
                sequence: &name.name,
                last_value: *value,
            };
            summary.sequences.iter().map(sequence).collect()
        };
        LostObject {
            committed: lost.committed,
            first: lost.times.map(|(first, _)| format!("{first:.6}")),
            last: lost.times.map(|(_, last)| format!("{last:.6}")),
            undecided: &lost.undecided,
            tables: summary.map(tables),
            objects: summary.map(objects),
            sequences: summary.map(sequences),
            notes: summary.map_or(&[], |summary| &summary.notes),
        }
    }
}
