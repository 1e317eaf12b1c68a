//! Hands transactions to a sink, one after the other.

use std::collections::HashMap;

use jiff::Timestamp;
use walparse::Lsn;

use super::batch::{Batch, Item, RawRow, RowPrinter};
use super::catalog::{Databases, Moment};
use super::collect::{Collected, RawChange};
use super::error::LostError;
use super::index::{Commit, WalIndex};
use super::model::{LostChange, LostSink, LostTransaction};
use super::objects::Changes;
use super::spool::Spool;
use super::tables::Tables;
use super::toast::ToastValues;
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
        let printer = RowPrinter { toast: self.toast, spool: self.spool, has_values: self.has_values };
        let sequences = self.sequences();
        let mut batch = Batch::default();
        let mut rest = &self.collected.changes[..];
        for (place, commit) in self.commits.iter().enumerate() {
            let count = rest.iter().take_while(|change| change.place as usize == place).count();
            let (rows, after) = rest.split_at(count);
            rest = after;
            let mut others = self.objects.get(&place).cloned().unwrap_or_default();
            others.extend(sequences.get(&place).cloned().unwrap_or_default());
            others.sort_by_key(|(lsn, _)| *lsn);
            let mut others = others.into_iter().peekable();
            let xids = commit.xids();
            batch.begin(self.transaction(commit, rows));
            for raw in rows {
                while let Some((_, change)) = others.next_if(|(lsn, _)| *lsn <= raw.lsn) {
                    batch.add(Item::Other(change));
                }
                batch.add(self.row(raw, &xids));
                if batch.is_full() {
                    self.hand_over(&mut batch, &printer, sink)?;
                }
            }
            others.for_each(|(_, change)| batch.add(Item::Other(change)));
            batch.end();
            if batch.is_full() {
                self.hand_over(&mut batch, &printer, sink)?;
            }
        }
        self.hand_over(&mut batch, &printer, sink)?;
        Ok(batch.incomplete)
    }

    fn hand_over(
        &self,
        batch: &mut Batch<'_>,
        printer: &RowPrinter<'_>,
        sink: &mut dyn LostSink,
    ) -> Result<(), LostError> {
        self.stop.check()?;
        batch.hand_over(printer, sink)
    }

    /// A changed row and its table, which must be looked up in the order of the WAL.
    fn row(&self, raw: &RawChange, xids: &[u32]) -> Item<'_> {
        let relation = self.collected.relations[raw.relation as usize];
        Item::Row(RawRow {
            lsn: raw.lsn,
            op: raw.op,
            spooled: raw.spooled,
            length: raw.length,
            table: self.tables.table(relation, &Moment { lsn: raw.lsn, xids }),
            types: self.tables.database(relation).map(|database| database.types()),
        })
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
}
