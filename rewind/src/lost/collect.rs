//! Collects the rows that lost transactions have changed, relation by relation, into the spool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use walparse::{DeleteReason, Lsn, Relation};

use super::catalog::Moment;
use super::datum::{Datum, ToastPointer, deform};
use super::error::LostError;
use super::index::Commit;
use super::model::RowOp;
use super::node::Target;
use super::request::LostRequest;
use super::rows::{Address, At, Images, Row, RowEvent, Rows};
use super::spool::Spool;
use super::tables::{Contents, Tables};
use super::toast::{ToastValues, ValueId};

/// A changed row, whose contents are in the spool.
pub(super) struct RawChange {
    /// The place of its transaction in the list of lost ones.
    pub(super) place: u32,
    pub(super) lsn: Lsn,
    /// The place of its relation in the list of relations.
    pub(super) relation: u32,
    pub(super) op: RowOp,
    at: Address,
    /// Where its old and its new row are.
    pub(super) spooled: u64,
    /// Bytes of both, with values that are stored out of line.
    pub(super) length: u32,
    has_external: bool,
}

/// All changed rows.
pub(super) struct Collected {
    pub(super) relations: Vec<Relation>,
    /// By transaction, in the order of the WAL.
    pub(super) changes: Vec<RawChange>,
    has_values: bool,
}

impl Collected {
    /// Follows the relations that lost transactions have touched.
    pub(super) fn collect(
        target: &Target<'_>,
        tables: &Tables<'_>,
        commits: &[&Commit],
        lost: &HashMap<u32, usize>,
        (spool, request): (&mut Spool, &LostRequest<'_>),
    ) -> Result<Collected, LostError> {
        let (relations, has_values) = (target.index.touched(lost).collect(), request.has_values);
        let mut found = Collected { relations, changes: Vec::new(), has_values };
        for place in 0..found.relations.len() {
            request.stop.check()?;
            let relation = found.relations[place];
            if tables.is_never_listed(relation) {
                continue;
            }
            found.add_relation(target, (relation, place), lost, spool)?;
        }
        // In one record the order stays.
        found.changes.sort_by_key(|change| (change.place, change.lsn));
        found.leave_out_hidden(tables, commits);
        Ok(found)
    }

    fn add_relation(
        &mut self,
        target: &Target<'_>,
        (relation, place): (Relation, usize),
        lost: &HashMap<u32, usize>,
        spool: &mut Spool,
    ) -> Result<(), LostError> {
        let first = self.changes.len();
        Rows::follow(target, relation, Images::Hidden, &mut |at, event| {
            let Some(transaction) = lost.get(&at.xid) else { return Ok(()) };
            self.add(at, event, (*transaction, place, first), spool)
        })
    }

    fn add(
        &mut self,
        at: At,
        event: RowEvent,
        (transaction, relation, first): (usize, usize, usize),
        spool: &mut Spool,
    ) -> Result<(), LostError> {
        let (op, address, old, new): (RowOp, Address, Option<_>, Option<_>) = match event {
            RowEvent::Insert { at, new } => (RowOp::Insert, at, None, new),
            RowEvent::Update { to, old, new, .. } => (RowOp::Update, to, old, new),
            RowEvent::Delete { at: address, reason: DeleteReason::Speculative, .. } => {
                // The insertion never counted.
                let inserted = |change: &RawChange| change.at == address && change.op == RowOp::Insert;
                if let Some(back) = self.changes[first..].iter().rposition(inserted) {
                    self.changes.remove(first + back);
                }
                return Ok(());
            }
            RowEvent::Delete { at, old, .. } => (RowOp::Delete, at, old, None),
            RowEvent::Seen { .. } | RowEvent::Inplace { .. } => return Ok(()),
        };
        let rows = || [&old, &new].into_iter().flatten();
        let length = rows().map(|row| row.body.len() as u32).fold(0, u32::saturating_add);
        let has_external = rows().any(|row| has_external(row));
        let spooled = match self.has_values {
            true => spool.push([old.as_deref(), new.as_deref()])?,
            false => 0,
        };
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let (place, relation) = (number(transaction), number(relation));
        let change =
            RawChange { place, lsn: at.lsn, relation, op, at: address, spooled, length, has_external };
        self.changes.push(change);
        Ok(())
    }

    /// Leaves out rows of what was no table of users' when they were written.
    fn leave_out_hidden(&mut self, tables: &Tables<'_>, commits: &[&Commit]) {
        let relations = &self.relations;
        let (mut place, mut known): (u32, HashMap<(u32, usize), bool>) = (0, HashMap::new());
        self.changes.retain(|change| {
            let relation = relations[change.relation as usize];
            if change.place != place {
                place = change.place;
                known.clear();
            }
            // A transaction may fill a copy of a table, put it in the table's place, and go on.
            let key = (change.relation, tables.step(relation, change.lsn));
            *known.entry(key).or_insert_with(|| {
                let xids = commits[change.place as usize].xids();
                let moment = Moment { lsn: change.lsn, xids: &xids };
                !matches!(tables.contents(relation, &moment), Contents::Other)
            })
        });
    }

    /// Finds the values that are stored out of line.
    pub(super) fn out_of_line(
        &mut self,
        target: &Target<'_>,
        tables: &Tables<'_>,
        commits: &[&Commit],
        spool: &mut Spool,
    ) -> Result<ToastValues, LostError> {
        // By database: such relations are named by OIDs.
        let mut wanted: BTreeMap<u32, HashSet<ValueId>> = BTreeMap::new();
        for change in self.changes.iter_mut().filter(|change| change.has_external) {
            let relation = self.relations[change.relation as usize];
            let xids = commits[change.place as usize].xids();
            let table = tables.table(relation, &Moment { lsn: change.lsn, xids: &xids });
            for row in spool.read(change.spooled)?.iter().flatten() {
                for pointer in pointers(row, &table.attributes) {
                    change.length = change.length.saturating_add(pointer.raw_size);
                    let id = (pointer.toast_relation, pointer.value_id);
                    wanted.entry(relation.database).or_default().insert(id);
                }
            }
        }
        let mut found = ToastValues::default();
        for (database, wanted) in wanted {
            let Some(database) = tables.database(Relation { tablespace: 0, database, number: 0 }) else {
                continue;
            };
            let relations: BTreeSet<u32> = wanted.iter().map(|(relation, _)| *relation).collect();
            for oid in relations {
                found.find(target, (oid, database.files_of(oid)), &wanted, spool)?;
            }
        }
        Ok(found)
    }

    /// What is not known of the changes.
    pub(super) fn notes(&self, tables: &Tables<'_>) -> Vec<String> {
        let used: BTreeSet<u32> = self.changes.iter().map(|change| change.relation).collect();
        tables.notes(used.into_iter().map(|place| self.relations[place as usize]))
    }
}

/// Whether values of a row are stored out of line (`HEAP_HASEXTERNAL`).
fn has_external(row: &Row) -> bool {
    row.infomask & 0x0004 != 0
}

fn pointers(row: &Row, attributes: &[super::types::Attribute]) -> Vec<ToastPointer> {
    if !has_external(row) {
        return Vec::new();
    }
    let tuple = row.tuple();
    let pointer = |datum: Datum<'_>| match datum {
        Datum::External(pointer) => Some(pointer),
        _ => None,
    };
    deform(&tuple, attributes).into_iter().filter_map(pointer).collect()
}
