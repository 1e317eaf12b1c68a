//! What was lost, in the form that it is shown and exported in.

use std::sync::Arc;

use jiff::Timestamp;
use walparse::{Lsn, Relation, TimelineId};

/// Where the lost transactions come from, and what is known of the whole of them. It is complete when the last transaction has
/// been seen.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LostHistory {
    /// The data directory.
    pub directory: String,
    /// Its system identifier.
    pub system_identifier: u64,
    /// The version of its server, for example `PostgreSQL 15`.
    pub version: String,
    /// The point of divergence: the first byte of WAL that the source does not have.
    pub fork: Lsn,
    /// The last common timeline.
    pub timeline: TimelineId,
    /// Where the WAL that was read starts. Changes before it are not known.
    pub read_from: Lsn,
    /// Where it ends.
    pub read_to: Lsn,
    /// Transactions that were prepared and are undecided.
    pub undecided: Vec<Undecided>,
    /// What is not known, as sentences.
    pub notes: Vec<String>,
    /// What the source has by now in the place of the changed rows; `None` if it was not asked.
    pub on_source: Option<OnSource>,
    /// Whether reading will reach, or has reached, its end. Only a listing that was exported may have ended before.
    pub is_complete: bool,
}

/// What the source has by now in the place of the changed rows.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct OnSource {
    /// Each key of a changed row.
    pub rows: Vec<SourceRow>,
}

/// What the source has for one key.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct SourceRow {
    /// The table.
    pub table: Arc<LostTable>,
    /// The key, by column; columns that do not belong to it are not known.
    pub key: Vec<LostValue>,
    /// What it has; `None` if that is not known.
    pub state: Option<SourceState>,
}

/// What the source has for a key, compared with the row before the first and after the last lost change of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SourceState {
    /// The row as it was before; or none, where there was none.
    Same,
    /// The row as the lost changes have made it; or none, where they have deleted it.
    Equal,
    /// Another row.
    Changed,
    /// No row, where there was one before and after.
    Gone,
}

impl SourceState {
    /// The name in exports: `same`, `equal`, `changed` or `gone`.
    pub fn name(self) -> &'static str {
        match self {
            SourceState::Same => "same",
            SourceState::Equal => "equal",
            SourceState::Changed => "changed",
            SourceState::Gone => "gone",
        }
    }
}

/// A transaction that was prepared and neither committed nor rolled back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Undecided {
    /// Its transaction ID.
    pub xid: u32,
    /// The identifier that `PREPARE TRANSACTION` gave it.
    pub gid: String,
    /// Whether it was prepared before the point of divergence: then the source has it, too.
    pub is_on_source: bool,
}

/// A committed transaction that a rewind gives up.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LostTransaction {
    /// Its transaction ID.
    pub xid: u32,
    /// Those of its subtransactions that committed.
    pub subxids: Vec<u32>,
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// When it committed.
    pub commit_time: Option<Timestamp>,
    /// The name of its database, or the OID where the name is not known; `None` if it has changed nothing of a database.
    pub database: Option<String>,
    /// The replication origin that it came from.
    pub origin: Option<String>,
    /// The identifier that `PREPARE TRANSACTION` gave it, if it was prepared.
    pub prepared_gid: Option<String>,
}

/// What a transaction has done.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum LostChange {
    /// A row was inserted, updated or deleted.
    Row(LostRow),
    /// A table, sequence, view or another relation was created, altered, rewritten, truncated or dropped, or a database was
    /// created or dropped.
    Object(LostObject),
    /// A sequence has reached at least this value. Values are logged in advance, up to 32 of them.
    Sequence {
        /// Where.
        lsn: Lsn,
        /// The database.
        database: String,
        /// The name, with its schema.
        name: String,
        /// The value.
        last_value: i64,
    },
}

/// A changed row.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LostRow {
    /// Where the record of the change starts.
    pub lsn: Lsn,
    /// What was done.
    pub op: RowOp,
    /// The table, as it was then.
    pub table: Arc<LostTable>,
    /// The row before, by column; `None` for an insertion, or if it is not known.
    pub old: Option<Vec<LostValue>>,
    /// The row after, by column; `None` for a deletion, or if it is not known.
    pub new: Option<Vec<LostValue>>,
    /// How it is known.
    pub quality: Quality,
}

/// What was done to a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RowOp {
    /// It was inserted.
    Insert,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

impl RowOp {
    /// The name in exports: `insert`, `update` or `delete`.
    pub fn name(self) -> &'static str {
        match self {
            RowOp::Insert => "insert",
            RowOp::Update => "update",
            RowOp::Delete => "delete",
        }
    }
}

/// How a row is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Quality {
    /// From WAL, byte for byte.
    Exact,
    /// A part of it is from a page on disk: WAL has no image of it.
    FromDisk,
    /// A part of it is not known.
    Incomplete,
}

impl Quality {
    /// The name in exports: `exact`, `from_disk` or `incomplete`.
    pub fn name(self) -> &'static str {
        match self {
            Quality::Exact => "exact",
            Quality::FromDisk => "from_disk",
            Quality::Incomplete => "incomplete",
        }
    }
}

/// A table, as it was when a row was changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct LostTable {
    /// The database's name, or its OID where the name is not known.
    pub database: String,
    /// The schema; `None` if the name of the table is not known.
    pub schema: Option<String>,
    /// The table's name, or the number of its file where the name is not known.
    pub name: String,
    /// The file of the table.
    pub relation: Relation,
    /// Its columns, without those that were dropped.
    pub columns: Vec<LostColumn>,
    /// The columns that identify a row, as places in `columns`: those of the primary key or else of a unique index without
    /// expressions, predicate and nullable columns. Empty if there are none.
    pub key: Vec<usize>,
    /// Whether the table's definition was changed, or the table created or dropped, by a lost transaction.
    pub is_altered: bool,
    /// Whether it is a large object's page (`pg_largeobject`): its columns are `loid`, `pageno` and `data`.
    pub is_large_object: bool,
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct LostColumn {
    /// Its name.
    pub name: String,
    /// The name of its type as SQL takes it, with the schema unless that is `pg_catalog`, and without a length.
    pub type_name: String,
    /// Whether the server computes its values (`GENERATED ALWAYS AS (...)`).
    pub is_generated: bool,
}

/// A value of a column.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LostValue {
    /// NULL.
    Null,
    /// As the server prints it, in UTF-8.
    Text(String),
    /// The bytes of a value of a type whose text form is not known here, or that are not valid text, without the header of its
    /// length.
    Bytes(Vec<u8>),
    /// The change left it as it was, and it is stored outside of the row where it is no longer found. The source still has it.
    Unchanged,
    /// It is not known.
    Unknown,
}

/// A changed relation or database.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LostObject {
    /// Where.
    pub lsn: Lsn,
    /// What was done.
    pub op: ObjectOp,
    /// What it is: one of [`OBJECT_KINDS`].
    pub kind: &'static str,
    /// The database that it is in, or that it is.
    pub database: String,
    /// Its name, with its schema.
    pub name: String,
    /// Its name before, if it was renamed.
    pub old_name: Option<String>,
}

/// What a changed relation or database can be.
pub const OBJECT_KINDS: [&str; 10] = [
    "table",
    "partitioned table",
    "index",
    "view",
    "materialized view",
    "sequence",
    "foreign table",
    "type",
    "relation",
    "database",
];

/// What was done to a relation or database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectOp {
    /// It was created.
    Create,
    /// It was altered or renamed.
    Alter,
    /// Its file was replaced, with the same rows (`CLUSTER`, `VACUUM FULL`, some forms of `ALTER TABLE`).
    Rewrite,
    /// It was truncated.
    Truncate,
    /// It was dropped.
    Drop,
}

impl ObjectOp {
    /// The name in exports: `create`, `alter`, `rewrite`, `truncate` or `drop`.
    pub fn name(self) -> &'static str {
        match self {
            ObjectOp::Create => "create",
            ObjectOp::Alter => "alter",
            ObjectOp::Rewrite => "rewrite",
            ObjectOp::Truncate => "truncate",
            ObjectOp::Drop => "drop",
        }
    }
}

/// Changes of a transaction that follow each other; all of them, if it `begins` and `ends`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LostPart<'a> {
    /// The transaction.
    pub transaction: &'a LostTransaction,
    /// Whether the changes are its first ones.
    pub begins: bool,
    /// The changes, in the order of the WAL.
    pub changes: &'a [LostChange],
    /// Whether they are its last ones.
    pub ends: bool,
}

/// Takes what was lost, transaction by transaction in the order of their commits. An error ends the listing.
pub trait LostSink {
    /// Before the first transaction. What is not known yet is empty.
    ///
    /// # Errors
    /// Writing failed.
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError>;

    /// A transaction begins; its changes follow.
    ///
    /// # Errors
    /// Writing failed.
    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError>;

    /// A change of the transaction that began last, in the order of the WAL.
    ///
    /// # Errors
    /// Writing failed.
    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError>;

    /// After the last change of a transaction.
    ///
    /// # Errors
    /// Writing failed.
    fn transaction_end(&mut self, _transaction: &LostTransaction) -> Result<(), SinkError> {
        Ok(())
    }

    /// Many changes at once. What they are is what the other calls would be told one after the other.
    ///
    /// # Errors
    /// Writing failed.
    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        one_by_one(self, parts)
    }

    /// After the last transaction, with all that is known.
    ///
    /// # Errors
    /// Writing failed.
    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError>;
}

/// Passes on changes one after the other.
pub(super) fn one_by_one(
    sink: &mut (impl LostSink + ?Sized),
    parts: &[LostPart<'_>],
) -> Result<(), SinkError> {
    for part in parts {
        if part.begins {
            sink.transaction(part.transaction)?;
        }
        part.changes.iter().try_for_each(|change| sink.change(part.transaction, change))?;
        if part.ends {
            sink.transaction_end(part.transaction)?;
        }
    }
    Ok(())
}

/// Why an export could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write file \"{path}\"")]
#[non_exhaustive]
pub struct SinkError {
    /// The file.
    pub path: String,
    /// Why.
    #[source]
    pub source: std::io::Error,
}
