//! Many changes at a time: their values are printed by all processors, and they reach the sink in order.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use walparse::Lsn;

use super::datum::{Datum, ToastPointer, deform, text};
use super::error::LostError;
use super::model::{LostChange, LostPart, LostRow, LostSink, LostTransaction, LostValue, Quality, RowOp};
use super::rows::Row;
use super::spool::Spool;
use super::tables::Table;
use super::toast::ToastValues;
use super::types::Types;

/// Changes that are handed over at once.
const CHANGES: usize = 4096;
/// Bytes of rows, as they are spooled, above which fewer are.
const BYTES: u64 = 4 << 20;

/// A change that waits.
pub(super) enum Item<'a> {
    Row(RawRow<'a>),
    Other(LostChange),
}

/// A changed row as it is in the spool.
pub(super) struct RawRow<'a> {
    pub(super) lsn: Lsn,
    pub(super) op: RowOp,
    pub(super) spooled: u64,
    pub(super) length: u32,
    pub(super) table: Arc<Table>,
    /// The types of its database; `None` if they are not known.
    pub(super) types: Option<&'a dyn Types>,
}

/// Changes of transactions that follow each other.
#[derive(Default)]
pub(super) struct Batch<'a> {
    items: Vec<Item<'a>>,
    parts: Vec<Part>,
    bytes: u64,
    /// Rows of which a part is not known, of all batches.
    pub(super) incomplete: u64,
}

struct Part {
    transaction: LostTransaction,
    begins: bool,
    items: Range<usize>,
    ends: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn begin(&mut self, transaction: LostTransaction) {
        let at = self.items.len();
        self.parts.push(Part { transaction, begins: true, items: at..at, ends: false });
    }

    pub(super) fn add(&mut self, item: Item<'a>) {
        if let Item::Row(row) = &item {
            self.bytes += u64::from(row.length);
        }
        self.items.push(item);
        if let Some(part) = self.parts.last_mut() {
            part.items.end = self.items.len();
        }
    }

    /// The transaction that has begun last has no more changes.
    pub(super) fn end(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.ends = true;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() + self.parts.len() >= CHANGES || self.bytes >= BYTES
    }

    /// Empties it. A transaction that has not ended goes on with the next changes.
    pub(super) fn hand_over(
        &mut self,
        printer: &RowPrinter<'_>,
        sink: &mut dyn LostSink,
    ) -> Result<(), LostError> {
        let (items, parts) = (mem::take(&mut self.items), mem::take(&mut self.parts));
        self.bytes = 0;
        let printed: Result<Vec<LostChange>, LostError> = items
            .into_par_iter()
            .with_min_len(64)
            .map(|item| match item {
                Item::Row(row) => Ok(LostChange::Row(printer.row(&row)?)),
                Item::Other(change) => Ok(change),
            })
            .collect();
        let changes = printed?;
        let is_incomplete = |change: &&LostChange| matches!(change, LostChange::Row(row) if row.quality == Quality::Incomplete);
        self.incomplete += changes.iter().filter(is_incomplete).count() as u64;
        let passed = parts.iter().map(|part| LostPart {
            transaction: &part.transaction,
            begins: part.begins,
            changes: changes.get(part.items.clone()).unwrap_or_default(),
            ends: part.ends,
        });
        sink.parts(&passed.collect::<Vec<_>>())?;
        if let Some(last) = parts.into_iter().next_back().filter(|last| !last.ends) {
            self.parts.push(Part { begins: false, items: 0..0, ..last });
        }
        Ok(())
    }
}

/// Makes text of the values of rows.
pub(super) struct RowPrinter<'a> {
    pub(super) toast: &'a ToastValues,
    pub(super) spool: &'a Spool,
    /// Whether values are wanted.
    pub(super) has_values: bool,
}

impl RowPrinter<'_> {
    fn row(&self, raw: &RawRow<'_>) -> Result<LostRow, LostError> {
        if !self.has_values {
            let shown = Arc::clone(&raw.table.shown);
            let (old, new, quality) = (None, None, Quality::Exact);
            return Ok(LostRow { lsn: raw.lsn, op: raw.op, table: shown, old, new, quality });
        }
        let [old, new] = self.spool.read(raw.spooled)?;
        let values = |row: &Option<Row>, other: &Option<Row>| match (row, raw.types) {
            (Some(row), Some(types)) => self.values(row, other.as_ref(), &raw.table, types).map(Some),
            _ => Ok(None),
        };
        let (old_values, new_values) = (values(&old, &new)?, values(&new, &old)?);
        // The catalogs may lack columns.
        let has_more = |row: &Row| row.tuple().columns() > raw.table.attributes.len();
        let is_unknown = |row: &Option<Row>, values: &Option<Vec<LostValue>>| {
            row.as_ref().is_none_or(has_more)
                || values.as_ref().is_none_or(|values| values.contains(&LostValue::Unknown))
        };
        let is_incomplete = (raw.op != RowOp::Insert && is_unknown(&old, &old_values))
            || (raw.op != RowOp::Delete && is_unknown(&new, &new_values));
        let is_from_disk = [&old, &new].into_iter().flatten().any(|row| row.is_from_disk);
        let quality = match (is_incomplete, is_from_disk) {
            (true, _) => Quality::Incomplete,
            (false, true) => Quality::FromDisk,
            (false, false) => Quality::Exact,
        };
        let shown = Arc::clone(&raw.table.shown);
        Ok(LostRow { lsn: raw.lsn, op: raw.op, table: shown, old: old_values, new: new_values, quality })
    }

    /// The values of a row; `other` is the row before or after.
    fn values(
        &self,
        row: &Row,
        other: Option<&Row>,
        table: &Table,
        types: &dyn Types,
    ) -> Result<Vec<LostValue>, LostError> {
        let (tuple, other) = (row.tuple(), other.map(Row::tuple));
        let data = deform(&tuple, &table.attributes);
        let others = other.as_ref().map(|tuple| deform(tuple, &table.attributes)).unwrap_or_default();
        let mut values = Vec::new();
        for (place, (datum, column)) in data.into_iter().zip(&table.attributes).enumerate() {
            if column.is_dropped {
                continue;
            }
            let value = match datum {
                Datum::External(pointer) => match self.toast.get(&pointer, self.spool)? {
                    Some(bytes) => {
                        text(&Datum::Bytes(bytes.into()), column.type_oid, column.type_modifier, types)
                    }
                    None if is_same(others.get(place), &pointer) => LostValue::Unchanged,
                    None => LostValue::Unknown,
                },
                datum => text(&datum, column.type_oid, column.type_modifier, types),
            };
            values.push(value);
        }
        Ok(values)
    }
}

/// Whether a value is stored at the same place.
fn is_same(other: Option<&Datum<'_>>, pointer: &ToastPointer) -> bool {
    let Some(Datum::External(other)) = other else { return false };
    (other.toast_relation, other.value_id) == (pointer.toast_relation, pointer.value_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::{table, transaction};
    use crate::lost::model::{LostHistory, SinkError};

    /// What a sink was told.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl LostSink for Told {
        fn begin(&mut self, _: &LostHistory) -> Result<(), SinkError> {
            Ok(())
        }

        fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
            self.0.push(format!("begin {}", transaction.xid));
            Ok(())
        }

        fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
            let lsn = match change {
                LostChange::Row(row) => row.lsn,
                LostChange::Sequence { lsn, .. } => *lsn,
                LostChange::Object(object) => object.lsn,
            };
            self.0.push(format!("{} {}", transaction.xid, lsn.0));
            Ok(())
        }

        fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
            self.0.push(format!("end {}", transaction.xid));
            Ok(())
        }

        fn end(&mut self, _: &LostHistory) -> Result<(), SinkError> {
            Ok(())
        }
    }

    /// Hands over three transactions, the second of them without changes, after each so many changes.
    fn told(at_once: u64) -> Vec<String> {
        let table = Arc::new(Table { shown: Arc::new(table("d", "s", "t")), attributes: Vec::new() });
        let (toast, spool) = (ToastValues::default(), Spool::new(None));
        let printer = RowPrinter { toast: &toast, spool: &spool, has_values: false };
        let (mut batch, mut sink) = (Batch::default(), Told::default());
        for (xid, changes) in [(1, 0..500), (2, 500..500), (3, 500..700)] {
            batch.begin(transaction(xid, "d"));
            for number in changes {
                let (lsn, table) = (Lsn(number), Arc::clone(&table));
                batch.add(match number % 7 {
                    0 => {
                        let (database, name) = ("d".to_owned(), "q".to_owned());
                        Item::Other(LostChange::Sequence { lsn, database, name, last_value: 1 })
                    }
                    _ => {
                        let (op, spooled, length) = (RowOp::Insert, 0, 0);
                        Item::Row(RawRow { lsn, op, spooled, length, table, types: None })
                    }
                });
                if number % at_once == at_once - 1 {
                    batch.hand_over(&printer, &mut sink).unwrap();
                }
            }
            batch.end();
        }
        batch.hand_over(&printer, &mut sink).unwrap();
        sink.0
    }

    #[test]
    fn changes_keep_their_order_however_many_are_handed_over_at_once() {
        let whole = told(1000);
        assert_eq!(whole.len(), 700 + 6);
        assert_eq!(whole[..3], ["begin 1", "1 0", "1 1"]);
        assert_eq!(whole[500..506], ["1 499", "end 1", "begin 2", "end 2", "begin 3", "3 500"]);
        for at_once in [1, 100, 333] {
            assert_eq!(told(at_once), whole);
        }
    }
}
