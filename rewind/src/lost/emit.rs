//! Hands transactions to a sink, one after the other, with values as text.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use walparse::Lsn;

use super::catalog::{Databases, Moment};
use super::collect::{Collected, RawChange};
use super::datum::{Datum, ToastPointer, deform, text};
use super::error::LostError;
use super::index::{Commit, WalIndex};
use super::model::{LostChange, LostRow, LostSink, LostTransaction, LostValue, Quality, RowOp};
use super::objects::Changes;
use super::rows::Row;
use super::spool::Spool;
use super::tables::{Table, Tables};
use super::toast::ToastValues;
use super::types::Types;
use crate::stop::StopFlag;

/// All that is known of the lost transactions.
pub(super) struct Emitter<'a> {
    pub(super) index: &'a WalIndex,
    pub(super) databases: &'a Databases,
    pub(super) tables: &'a Tables<'a>,
    pub(super) commits: &'a [&'a Commit],
    pub(super) lost: &'a HashMap<u32, usize>,
    pub(super) collected: &'a Collected,
    pub(super) objects: &'a Changes,
    pub(super) toast: &'a ToastValues,
    pub(super) spool: &'a Spool,
    /// Whether values are wanted.
    pub(super) has_values: bool,
    pub(super) stop: &'a StopFlag,
}

impl Emitter<'_> {
    /// Hands over all transactions. Returns of how many rows a part is not known.
    pub(super) fn emit(&self, sink: &mut dyn LostSink) -> Result<u64, LostError> {
        let sequences = self.sequences();
        let mut rest = &self.collected.changes[..];
        let mut incomplete = 0;
        for (place, commit) in self.commits.iter().enumerate() {
            self.stop.check()?;
            let count = rest.iter().take_while(|change| change.place as usize == place).count();
            let (rows, after) = rest.split_at(count);
            rest = after;
            let transaction = self.transaction(commit, rows);
            sink.transaction(&transaction)?;
            let mut others = self.objects.get(&place).cloned().unwrap_or_default();
            others.extend(sequences.get(&place).cloned().unwrap_or_default());
            others.sort_by_key(|(lsn, _)| *lsn);
            let mut others = others.into_iter().peekable();
            let xids = commit.xids();
            for raw in rows {
                while let Some((_, change)) = others.next_if(|(lsn, _)| *lsn <= raw.lsn) {
                    sink.change(&transaction, &change)?;
                }
                let row = self.row(raw, &xids)?;
                incomplete += u64::from(row.quality == Quality::Incomplete);
                sink.change(&transaction, &LostChange::Row(row))?;
            }
            for (_, change) in others {
                sink.change(&transaction, &change)?;
            }
            sink.transaction_end(&transaction)?;
        }
        Ok(incomplete)
    }

    fn transaction(&self, commit: &Commit, rows: &[RawChange]) -> LostTransaction {
        let by_rows = rows.first().map(|raw| self.collected.relations[raw.relation as usize].database);
        let database = commit.database.or(by_rows);
        let origin =
            |number: u16| self.databases.origins.get(&number).cloned().unwrap_or_else(|| number.to_string());
        LostTransaction {
            xid: commit.xid,
            subxids: commit.subxids.clone(),
            commit_lsn: commit.lsn,
            commit_time: Timestamp::from_microsecond(commit.time.0).ok(),
            database: database.map(|oid| self.tables.database_name(oid)),
            origin: (commit.origin != 0).then(|| origin(commit.origin)),
            prepared_gid: commit.gid.clone(),
        }
    }

    /// The last value that each transaction has taken from each sequence.
    fn sequences(&self) -> Changes {
        let mut last: HashMap<(usize, walparse::Relation), (Lsn, i64)> = HashMap::new();
        for value in &self.index.sequences {
            if let Some(place) = self.lost.get(&value.xid) {
                last.insert((*place, value.relation), (value.lsn, value.value));
            }
        }
        let mut changes = Changes::new();
        for ((place, relation), (lsn, last_value)) in last {
            let xids = self.commits[place].xids();
            let moment = Moment { lsn, xids: &xids };
            let name = self.tables.name(relation, &moment);
            let database = self.tables.database_name(relation.database);
            let change = LostChange::Sequence { lsn, database, name, last_value };
            changes.entry(place).or_default().push((lsn, change));
        }
        changes
    }

    fn row(&self, raw: &RawChange, xids: &[u32]) -> Result<LostRow, LostError> {
        let relation = self.collected.relations[raw.relation as usize];
        let table = self.tables.table(relation, &Moment { lsn: raw.lsn, xids });
        if !self.has_values {
            let shown = Arc::clone(&table.shown);
            let (old, new, quality) = (None, None, Quality::Exact);
            return Ok(LostRow { lsn: raw.lsn, op: raw.op, table: shown, old, new, quality });
        }
        let [old, new] = self.spool.read(raw.spooled)?;
        let types = self.tables.database(relation).map(|database| database.types());
        let values = |row: &Option<Row>, other: &Option<Row>| match (row, types) {
            (Some(row), Some(types)) => self.values(row, other.as_ref(), &table, types).map(Some),
            _ => Ok(None),
        };
        let (old_values, new_values) = (values(&old, &new)?, values(&new, &old)?);
        // The catalogs may lack columns.
        let has_more = |row: &Row| row.tuple().columns() > table.attributes.len();
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
        let shown = Arc::clone(&table.shown);
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
