//! The parts of `transactions.json`: each is written as one line.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::names::table_name;
use super::summary::{LostSummary, RelationName, RowCounts, SourceCounts};
use super::text::{hex, iso};
use crate::lost::model::{
    LostColumn, LostHistory, LostObject, LostRow, LostTable, LostTransaction, LostValue, SourceRow,
    SourceState, Undecided,
};

/// The version of the format. Fields may be added within a version, and are neither removed nor changed.
pub(crate) const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
pub(crate) struct ClusterPart<'a> {
    directory: &'a str,
    /// As a string: the numbers of many JSON readers have 53 bits.
    system_identifier: String,
    version: &'a str,
}

impl<'a> ClusterPart<'a> {
    pub(crate) fn of(history: &'a LostHistory) -> ClusterPart<'a> {
        ClusterPart {
            directory: &history.directory,
            system_identifier: history.system_identifier.to_string(),
            version: &history.version,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ForkPart {
    lsn: String,
    timeline: u32,
}

impl ForkPart {
    pub(crate) fn of(history: &LostHistory) -> ForkPart {
        ForkPart { lsn: history.fork.to_string(), timeline: history.timeline.0 }
    }
}

#[derive(Serialize)]
pub(crate) struct ReadPart {
    from: String,
    to: String,
}

impl ReadPart {
    pub(crate) fn of(history: &LostHistory) -> ReadPart {
        ReadPart { from: history.read_from.to_string(), to: history.read_to.to_string() }
    }
}

/// A transaction without its changes.
#[derive(Serialize)]
pub(crate) struct TransactionPart<'a> {
    xid: u32,
    subxids: &'a [u32],
    commit_lsn: String,
    commit_time: Option<String>,
    database: Option<&'a str>,
    origin: Option<&'a str>,
    prepared_gid: Option<&'a str>,
}

impl<'a> TransactionPart<'a> {
    pub(crate) fn of(transaction: &'a LostTransaction) -> TransactionPart<'a> {
        TransactionPart {
            xid: transaction.xid,
            subxids: &transaction.subxids,
            commit_lsn: transaction.commit_lsn.to_string(),
            commit_time: transaction.commit_time.map(iso),
            database: transaction.database.as_deref(),
            origin: transaction.origin.as_deref(),
            prepared_gid: transaction.prepared_gid.as_deref(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct RowPart<'a> {
    lsn: String,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    table: &'a str,
    key: Option<ColumnsPart<'a>>,
    old: Option<ColumnsPart<'a>>,
    new: Option<ColumnsPart<'a>>,
    quality: &'static str,
    /// The table's place among the definitions.
    definition: usize,
}

impl<'a> RowPart<'a> {
    /// `definition` and `name` are the table's place among the definitions and its name with its schema.
    pub(crate) fn of(
        transaction: &LostTransaction,
        row: &'a LostRow,
        (definition, name): (usize, &'a str),
    ) -> RowPart<'a> {
        let columns = |values: &'a Option<Vec<LostValue>>| {
            values.as_ref().map(|values| ColumnsPart::all(&row.table, values))
        };
        let identifying = row.old.as_ref().or(row.new.as_ref());
        let key = identifying
            .filter(|_| !row.table.key.is_empty())
            .map(|values| ColumnsPart::key(&row.table, values));
        RowPart {
            lsn: row.lsn.to_string(),
            op: row.op.name(),
            database: elsewhere(transaction, &row.table.database),
            table: name,
            key,
            old: columns(&row.old),
            new: columns(&row.new),
            quality: row.quality.name(),
            definition,
        }
    }
}

/// A table as it was when rows of it were changed. Rows refer to it by its place.
#[derive(Serialize)]
pub(crate) struct DefinitionPart<'a> {
    database: &'a str,
    schema: Option<&'a str>,
    name: &'a str,
    columns: Vec<DefinedColumn<'a>>,
    key: Vec<&'a str>,
    altered: bool,
    large_object: bool,
}

#[derive(Serialize)]
struct DefinedColumn<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    generated: bool,
}

impl<'a> DefinitionPart<'a> {
    pub(crate) fn of(table: &'a LostTable) -> DefinitionPart<'a> {
        let column = |column: &'a LostColumn| DefinedColumn {
            name: &column.name,
            type_name: &column.type_name,
            generated: column.is_generated,
        };
        let name = |place: &usize| table.columns.get(*place).map(|column| column.name.as_str());
        DefinitionPart {
            database: &table.database,
            schema: table.schema.as_deref(),
            name: &table.name,
            columns: table.columns.iter().map(column).collect(),
            key: table.key.iter().filter_map(name).collect(),
            altered: table.is_altered,
            large_object: table.is_large_object,
        }
    }
}

/// The database of a change if it is not that of the transaction.
fn elsewhere<'a>(transaction: &LostTransaction, database: &'a str) -> Option<&'a str> {
    (transaction.database.as_deref() != Some(database)).then_some(database)
}

/// Values by the names of their columns.
pub(crate) struct ColumnsPart<'a> {
    table: &'a LostTable,
    values: &'a [LostValue],
    is_key: bool,
}

impl<'a> ColumnsPart<'a> {
    /// All columns of a row.
    pub(crate) fn all(table: &'a LostTable, values: &'a [LostValue]) -> ColumnsPart<'a> {
        ColumnsPart { table, values, is_key: false }
    }

    /// The columns of the key.
    pub(crate) fn key(table: &'a LostTable, values: &'a [LostValue]) -> ColumnsPart<'a> {
        ColumnsPart { table, values, is_key: true }
    }
}

impl Serialize for ColumnsPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut put = |number: usize| match self.table.columns.get(number) {
            Some(column) => {
                let value = self.values.get(number).unwrap_or(&LostValue::Unknown);
                map.serialize_entry(&column.name, &ValuePart { value, type_name: &column.type_name })
            }
            None => Ok(()),
        };
        match self.is_key {
            true => self.table.key.iter().try_for_each(|number| put(*number))?,
            false => (0..self.table.columns.len()).try_for_each(put)?,
        }
        map.end()
    }
}

/// A value: a string, null, or an object that says why it is neither.
struct ValuePart<'a> {
    value: &'a LostValue,
    type_name: &'a str,
}

impl Serialize for ValuePart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |serializer: S, name, value| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(name, value)?;
            map.end()
        };
        match self.value {
            LostValue::Null => serializer.serialize_none(),
            LostValue::Text(text) => serializer.serialize_str(text),
            LostValue::Unchanged => entry(serializer, "unchanged", &true),
            LostValue::Unknown => entry(serializer, "unknown", &true),
            LostValue::Bytes(bytes) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("bytes", &hex(bytes))?;
                map.serialize_entry("type", self.type_name)?;
                map.end()
            }
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ObjectPart<'a> {
    lsn: String,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    kind: &'static str,
    name: &'a str,
    old_name: Option<&'a str>,
}

impl<'a> ObjectPart<'a> {
    pub(crate) fn of(transaction: &LostTransaction, object: &'a LostObject) -> ObjectPart<'a> {
        ObjectPart {
            lsn: object.lsn.to_string(),
            op: object.op.name(),
            database: elsewhere(transaction, &object.database),
            kind: object.kind,
            name: &object.name,
            old_name: object.old_name.as_deref(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SequencePart<'a> {
    lsn: String,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    name: &'a str,
    last_value: i64,
}

impl<'a> SequencePart<'a> {
    pub(crate) fn of(
        transaction: &LostTransaction,
        lsn: walparse::Lsn,
        database: &'a str,
        name: &'a str,
        last_value: i64,
    ) -> SequencePart<'a> {
        let database = elsewhere(transaction, database);
        SequencePart { lsn: lsn.to_string(), op: "sequence", database, name, last_value }
    }
}

#[derive(Serialize)]
pub(crate) struct UndecidedPart<'a> {
    xid: u32,
    gid: &'a str,
    is_on_source: bool,
}

impl<'a> UndecidedPart<'a> {
    pub(crate) fn of(undecided: &'a Undecided) -> UndecidedPart<'a> {
        UndecidedPart { xid: undecided.xid, gid: &undecided.gid, is_on_source: undecided.is_on_source }
    }
}

#[derive(Serialize)]
pub(crate) struct TotalsPart<'a> {
    transactions: u64,
    without_changes: u64,
    first_commit: Option<String>,
    last_commit: Option<String>,
    rows: RowCounts,
    from_disk: u64,
    incomplete: u64,
    large_objects: u64,
    tables: Vec<TablePart<'a>>,
}

#[derive(Serialize)]
struct TablePart<'a> {
    database: &'a str,
    table: &'a str,
    #[serde(flatten)]
    rows: RowCounts,
}

impl<'a> TotalsPart<'a> {
    pub(crate) fn of(summary: &'a LostSummary) -> TotalsPart<'a> {
        let table = |(table, rows): (&'a RelationName, &RowCounts)| TablePart {
            database: &table.database,
            table: &table.name,
            rows: *rows,
        };
        TotalsPart {
            transactions: summary.transactions,
            without_changes: summary.without_changes,
            first_commit: summary.first_commit.map(iso),
            last_commit: summary.last_commit.map(iso),
            rows: summary.rows,
            from_disk: summary.from_disk,
            incomplete: summary.incomplete,
            large_objects: summary.large_objects,
            tables: summary.tables.iter().map(table).collect(),
        }
    }
}

/// What the source has for a key.
#[derive(Serialize)]
pub(crate) struct SourceRowPart<'a> {
    database: &'a str,
    table: String,
    key: ColumnsPart<'a>,
    state: Option<&'static str>,
}

impl<'a> SourceRowPart<'a> {
    pub(crate) fn of(row: &'a SourceRow) -> SourceRowPart<'a> {
        SourceRowPart {
            database: &row.table.database,
            table: table_name(&row.table),
            key: ColumnsPart::key(&row.table, &row.key),
            state: row.state.map(SourceState::name),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SourceTablePart<'a> {
    database: &'a str,
    table: &'a str,
    #[serde(flatten)]
    keys: SourceCounts,
}

/// What the source has, in numbers.
pub(crate) fn source_tables(summary: &LostSummary) -> Vec<SourceTablePart<'_>> {
    let tables = summary.on_source.iter().flatten();
    tables
        .map(|(table, keys)| SourceTablePart { database: &table.database, table: &table.name, keys: *keys })
        .collect()
}
