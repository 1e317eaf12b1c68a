//! The lines of `transactions.json` as they are read: what `json_parts` writes.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use walparse::{Lsn, Relation};

use crate::lost::model::{
    LostChange, LostColumn, LostObject, LostRow, LostTable, LostTransaction, LostValue, OBJECT_KINDS,
    ObjectOp, Quality, RowOp, Undecided,
};
use crate::target::checked_json::from_hex;

/// An LSN as it is written.
///
/// # Errors
/// It is none.
pub(super) fn lsn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[derive(Deserialize)]
pub(super) struct UndecidedLine {
    xid: u32,
    gid: String,
    is_on_source: bool,
}

impl UndecidedLine {
    pub(super) fn undecided(&self) -> Undecided {
        Undecided { xid: self.xid, gid: self.gid.clone(), is_on_source: self.is_on_source }
    }
}

/// A table.
#[derive(Deserialize)]
pub(super) struct Definition {
    database: String,
    schema: Option<String>,
    name: String,
    columns: Vec<DefinedColumn>,
    key: Vec<String>,
    altered: bool,
    large_object: bool,
}

#[derive(Deserialize)]
struct DefinedColumn {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    generated: bool,
}

impl Definition {
    /// `number` stands for the number of its file, which keeps tables apart and is not in an export.
    pub(super) fn table(&self, number: u32) -> LostTable {
        let column = |column: &DefinedColumn| LostColumn {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            is_generated: column.generated,
        };
        let place = |name: &String| self.columns.iter().position(|column| column.name == *name);
        LostTable {
            database: self.database.clone(),
            schema: self.schema.clone(),
            name: self.name.clone(),
            relation: Relation { tablespace: 0, database: 0, number },
            columns: self.columns.iter().map(column).collect(),
            key: self.key.iter().filter_map(place).collect(),
            is_altered: self.altered,
            is_large_object: self.large_object,
        }
    }
}

/// A transaction without its changes.
#[derive(Deserialize)]
pub(super) struct TransactionLine {
    xid: u32,
    subxids: Vec<u32>,
    #[serde(deserialize_with = "lsn")]
    commit_lsn: Lsn,
    commit_time: Option<String>,
    database: Option<String>,
    origin: Option<String>,
    prepared_gid: Option<String>,
}

impl TransactionLine {
    /// # Errors
    /// The time is none.
    pub(super) fn transaction(self) -> Result<LostTransaction, String> {
        let time = self.commit_time.map(|text| text.parse::<Timestamp>()).transpose();
        Ok(LostTransaction {
            xid: self.xid,
            subxids: self.subxids,
            commit_lsn: self.commit_lsn,
            commit_time: time.map_err(|error| error.to_string())?,
            database: self.database,
            origin: self.origin,
            prepared_gid: self.prepared_gid,
        })
    }
}

/// A change of any kind: `op` says which of the fields are there.
#[derive(Deserialize)]
pub(super) struct ChangeLine {
    #[serde(deserialize_with = "lsn")]
    lsn: Lsn,
    op: String,
    database: Option<String>,
    definition: Option<usize>,
    old: Option<Map<String, Value>>,
    new: Option<Map<String, Value>>,
    quality: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    old_name: Option<String>,
    last_value: Option<i64>,
}

/// What `name` gives for one of these.
fn named<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, wanted: &str) -> Option<T> {
    all.iter().copied().find(|one| name(*one) == wanted)
}

impl ChangeLine {
    /// `tables` are those of the definitions.
    ///
    /// # Errors
    /// A field is missing, or has another value than one of these.
    pub(super) fn change(
        self,
        transaction: &LostTransaction,
        tables: &[Arc<LostTable>],
    ) -> Result<LostChange, String> {
        use ObjectOp::{Alter, Create, Drop, Rewrite, Truncate};
        let op = self.op.as_str();
        if let Some(op) = named(&[RowOp::Insert, RowOp::Update, RowOp::Delete], RowOp::name, op) {
            return self.row(op, tables);
        }
        let database = self.database.or_else(|| transaction.database.clone()).unwrap_or_default();
        let name = self.name.ok_or("a name is missing")?;
        if op == "sequence" {
            let last_value = self.last_value.ok_or("last_value is missing")?;
            return Ok(LostChange::Sequence { lsn: self.lsn, database, name, last_value });
        }
        let op = named(&[Create, Alter, Rewrite, Truncate, Drop], ObjectOp::name, op);
        let kind = named(&OBJECT_KINDS, |kind| kind, self.kind.as_deref().unwrap_or_default());
        Ok(LostChange::Object(LostObject {
            lsn: self.lsn,
            op: op.ok_or("op is not known")?,
            kind: kind.ok_or("kind is not known")?,
            database,
            name,
            old_name: self.old_name,
        }))
    }

    fn row(self, op: RowOp, tables: &[Arc<LostTable>]) -> Result<LostChange, String> {
        let table =
            self.definition.and_then(|number| tables.get(number)).ok_or("the definition is missing")?;
        let quality = self.quality.as_deref().unwrap_or_default();
        let quality =
            named(&[Quality::Exact, Quality::FromDisk, Quality::Incomplete], Quality::name, quality);
        let values = |fields: Option<Map<String, Value>>| {
            let mut fields = fields?;
            let value = |column: &LostColumn| fields.remove(&column.name).map_or(LostValue::Unknown, value);
            Some(table.columns.iter().map(value).collect())
        };
        Ok(LostChange::Row(LostRow {
            lsn: self.lsn,
            op,
            table: table.clone(),
            old: values(self.old),
            new: values(self.new),
            quality: quality.ok_or("quality is not known")?,
        }))
    }
}

fn value(value: Value) -> LostValue {
    match value {
        Value::Null => LostValue::Null,
        Value::String(text) => LostValue::Text(text),
        Value::Object(fields) if fields.contains_key("unchanged") => LostValue::Unchanged,
        Value::Object(fields) => {
            let bytes = fields
                .get("bytes")
                .and_then(Value::as_str)
                .and_then(|text| from_hex(text.strip_prefix("\\x")?));
            bytes.map_or(LostValue::Unknown, LostValue::Bytes)
        }
        _ => LostValue::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let read = |text: &str| value(serde_json::from_str(text).unwrap());
        assert_eq!(read("null"), LostValue::Null);
        assert_eq!(read("\"\""), LostValue::Text(String::new()));
        assert_eq!(read("{\"unchanged\": true}"), LostValue::Unchanged);
        assert_eq!(read("{\"unknown\": true}"), LostValue::Unknown);
        assert_eq!(read(r#"{"bytes": "\\x01ff", "type": "t"}"#), LostValue::Bytes(vec![1, 255]));
        assert_eq!(read(r#"{"bytes": "\\x"}"#), LostValue::Bytes(Vec::new()));
        for bad in ["\\\\x0", "01", "\\\\xzz", "\\\\x+1", "\\\\x中"] {
            assert_eq!(read(&format!("{{\"bytes\": \"{bad}\"}}")), LostValue::Unknown, "{bad}");
        }
    }
}
