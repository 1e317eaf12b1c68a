//! How many rows the transactions of a stretch of WAL have changed, by relation, and which records tell what those relations
//! are.
//!
//! Records about rows are noted in a list, because there are many of them. From time to time the list is settled: rows of
//! transactions that have committed beyond the fork are added up by relation, those of others that have ended are dropped, and
//! the rest is kept by transaction.
//!
//! A transaction that changes catalogs may change what a relation is. So its rows are kept apart, in parts between two of its
//! changes of catalogs.

use std::collections::{HashMap, HashSet};

use roaring::RoaringBitmap;

use crate::effect::{self, Finish};
use crate::heap::{self, RowChange, RowCounts};
use crate::lsn::Lsn;
use crate::record::RecordHeader;
use crate::relation::Relation;
use crate::rmgr;
use crate::version::Version;

/// Relations with lower numbers belong to the system, unless they were rewritten (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16384;
/// `pg_largeobject`: its rows are users' data.
const LARGE_OBJECTS: u32 = 2613;

/// The size of the cache of relations that are in the list.
const RECENT: usize = 64;

/// So many notes are made before they are settled. They fit into the processor's cache.
const LONGEST_LOG: usize = 1 << 12;

/// Transaction IDs that are further apart than this are looked up one by one.
const WIDEST: u32 = 1 << 22;

/// What transactions have done to a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RelationChanges {
    /// The relation.
    pub relation: Relation,
    /// The changed rows.
    pub rows: RowCounts,
    /// The value that it has reached, if it is a sequence.
    pub last_value: Option<i64>,
    /// Where the record of the last change starts.
    pub last: Lsn,
    /// The transaction that wrote that record.
    pub xid: u32,
}

impl RelationChanges {
    fn none(relation: Relation, xid: u32) -> RelationChanges {
        RelationChanges { relation, rows: RowCounts::default(), last_value: None, last: Lsn::INVALID, xid }
    }

    fn append(&mut self, later: &RelationChanges) {
        self.rows += later.rows;
        if self.last <= later.last {
            (self.last, self.xid) = (later.last, later.xid);
            self.last_value = later.last_value.or(self.last_value);
        } else {
            self.last_value = self.last_value.or(later.last_value);
        }
    }
}

/// A record that has been noted.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Entry {
    lsn: Lsn,
    xid: u32,
    /// The place of the relation in the list.
    relation: u32,
    /// `None` if a catalog was changed.
    change: Option<RowChange>,
}

impl Entry {
    /// Joins the record that follows, if it changes rows in the same way.
    #[inline]
    fn joins(&mut self, next: &Entry) -> bool {
        if (self.xid, self.relation) != (next.xid, next.relation) {
            return false;
        }
        let joined = match (self.change, next.change) {
            (Some(RowChange::Inserted(one)), Some(RowChange::Inserted(other))) => {
                one.checked_add(other).map(RowChange::Inserted)
            }
            (Some(RowChange::Updated(one)), Some(RowChange::Updated(other))) => {
                one.checked_add(other).map(RowChange::Updated)
            }
            (Some(RowChange::Deleted(one)), Some(RowChange::Deleted(other))) => {
                one.checked_add(other).map(RowChange::Deleted)
            }
            _ => None,
        };
        if joined.is_some() {
            (self.change, self.lsn) = (joined, next.lsn);
        }
        joined.is_some()
    }
}

/// The end of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It has committed beyond the fork.
    Lost,
    /// It has committed before the fork.
    Common,
    Aborted,
}

/// A transaction that has not ended in the stretch.
#[derive(Clone, PartialEq, Debug, Default)]
struct Open {
    /// How often it has changed a catalog.
    catalog_changes: u32,
    /// What it has done to relations of users; with each, how often it had changed a catalog before.
    parts: Vec<(u32, RelationChanges)>,
}

impl Open {
    /// The changes of a relation since the transaction changed a catalog.
    fn part(&mut self, relation: Relation, xid: u32) -> &mut RelationChanges {
        let key = (self.catalog_changes, relation);
        let place = self.parts.iter().rposition(|(step, part)| (*step, part.relation) == key);
        let place = place.unwrap_or_else(|| {
            self.parts.push((self.catalog_changes, RelationChanges::none(relation, xid)));
            self.parts.len() - 1
        });
        &mut self.parts[place].1
    }
}

/// Rows that were changed in a stretch of WAL.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChangedRows {
    log: Vec<Entry>,
    /// The ends of transactions, and of subtransactions, since the log was settled.
    ends: Vec<(u32, End)>,
    /// The relations that `log` speaks of.
    relations: Vec<Relation>,
    /// A cache of places in `relations`, by the low bits of the relation's number. Allocated for the first relation.
    recent: Vec<u32>,
    places: HashMap<Relation, u32>,
    /// Values that sequences have reached: where, the transaction, the sequence, the value.
    sequences: Vec<(Lsn, u32, Relation, i64)>,
    /// The transactions that have changed catalogs.
    definers: HashSet<u32, ByXid>,
    /// By transaction.
    open: HashMap<u32, Open, ByXid>,
    /// By transactions that have committed beyond the fork: those that have changed no catalog before.
    lost: HashMap<Relation, RelationChanges>,
    /// The others' changes, part by part.
    lost_with_catalogs: Vec<RelationChanges>,
    /// The IDs of the transactions that have committed beyond the fork, and of their subtransactions.
    committed: RoaringBitmap,
    /// Those of the subtransactions.
    subtransactions: RoaringBitmap,
    /// Transactions that have committed before the fork.
    common: RoaringBitmap,
    aborted: RoaringBitmap,
    /// Those of which the end is in `telling`.
    told: RoaringBitmap,
    catalog_records: Vec<(Relation, Lsn)>,
    telling: Vec<Lsn>,
    misses_ends: bool,
}

impl ChangedRows {
    /// What transactions that committed beyond the fork have done to users' relations. One relation may occur several times.
    pub fn lost(&self) -> impl Iterator<Item = &RelationChanges> {
        self.lost.values().chain(&self.lost_with_catalogs)
    }

    /// The IDs of these transactions, without those of their subtransactions.
    pub fn committed(&self) -> RoaringBitmap {
        &self.committed - &self.subtransactions
    }

    /// The records about rows of catalogs or with images of their blocks, in order. A catalog that was rewritten (by
    /// `VACUUM FULL`) has the number of a user's relation, and its records are not among them.
    pub fn catalog_records(&self) -> &[(Relation, Lsn)] {
        &self.catalog_records
    }

    /// Where other records start that tell what relations are: checkpoints, changes of relation maps and databases, commits of
    /// transactions that have changed catalogs, and all about prepared transactions.
    pub fn telling_records(&self) -> &[Lsn] {
        &self.telling
    }

    /// Whether the commit of a transaction that has changed catalogs is not among [`ChangedRows::telling_records`].
    pub fn misses_ends(&self) -> bool {
        self.misses_ends
    }

    /// Adds a record at `lsn` of another resource manager than `Transaction`. `relation` is that of its first block in a main fork:
    /// the records that matter are about one relation.
    // Not inlined into the loop over the records, so that the decoded fields stay in registers there.
    #[inline(never)]
    pub(crate) fn add(
        &mut self,
        lsn: Lsn,
        (header, main_data): (&RecordHeader, &[u8]),
        relation: Option<Relation>,
        version: Version,
    ) {
        match relation {
            Some(relation) if is_catalog(relation) => self.add_catalog_record(lsn, header, relation, version),
            Some(relation) => match heap::changed_rows(header, main_data, version) {
                Some(change) => {
                    let relation = self.place_of(relation);
                    self.note(Entry { lsn, xid: header.xid, relation, change: Some(change) });
                }
                None if header.rmid == rmgr::SEQUENCE => self.add_sequence(lsn, header, main_data, version),
                None => {}
            },
            None if tells(header) => self.telling.push(lsn),
            None => {}
        }
    }

    #[inline]
    fn note(&mut self, entry: Entry) {
        if let Some(last) = self.log.last_mut()
            && last.joins(&entry)
        {
            return;
        }
        if self.log.len() == LONGEST_LOG {
            self.settle();
        }
        self.log.push(entry);
    }

    #[inline]
    fn place_of(&mut self, relation: Relation) -> u32 {
        let cached = self.recent.get(relation.number as usize % RECENT).copied().unwrap_or(u32::MAX);
        if self.relations.get(cached as usize) == Some(&relation) {
            return cached;
        }
        self.find_place_of(relation)
    }

    #[cold]
    fn find_place_of(&mut self, relation: Relation) -> u32 {
        if self.recent.is_empty() {
            self.recent = vec![u32::MAX; RECENT];
        }
        let known = self.places.get(&relation).copied();
        let place = known.unwrap_or_else(|| {
            self.relations.push(relation);
            // A stretch has fewer records than this.
            u32::try_from(self.relations.len() - 1).unwrap_or(u32::MAX)
        });
        self.places.insert(relation, place);
        self.recent[relation.number as usize % RECENT] = place;
        place
    }

    #[cold]
    fn add_catalog_record(&mut self, lsn: Lsn, header: &RecordHeader, relation: Relation, version: Version) {
        if !heap::has_heap_pages(header, version) {
            return;
        }
        self.catalog_records.push((relation, lsn));
        if header.xid != 0 {
            self.definers.insert(header.xid);
            self.note(Entry { lsn, xid: header.xid, relation: 0, change: None });
        }
    }

    #[cold]
    fn add_sequence(&mut self, lsn: Lsn, header: &RecordHeader, main_data: &[u8], version: Version) {
        if let Some((relation, value)) = heap::sequence_value(header, main_data, version) {
            self.sequences.push((lsn, header.xid, relation, value));
        }
    }

    /// Adds a record of the resource manager `Transaction`: `finish`, unless it is of another kind. `is_beyond`: it ends beyond the
    /// fork.
    pub(crate) fn add_transaction(
        &mut self,
        (lsn, is_beyond): (Lsn, bool),
        (header, main_data): (&RecordHeader, &[u8]),
        finish: Option<Finish>,
    ) {
        let Some(finish) = finish else {
            if rmgr::is_prepare(header) {
                self.telling.push(lsn);
            }
            return;
        };
        let Finish { is_commit, xid, subtransactions, .. } = finish;
        let end = match is_commit {
            true if is_beyond => End::Lost,
            true => End::Common,
            false => End::Aborted,
        };
        let has_catalogs = effect::has_invalidations(header, main_data)
            || subtransactions.iter().chain([&xid]).any(|xid| self.definers.contains(xid));
        self.ends.push((xid, end));
        self.ends.extend(subtransactions.iter().map(|xid| (*xid, end)));
        if end == End::Lost {
            self.subtransactions.extend(&subtransactions);
        }
        if (is_commit && has_catalogs) || rmgr::ends_prepared(header) {
            self.telling.push(lsn);
            self.told.insert(xid);
            self.told.extend(subtransactions);
        }
    }

    /// Adds up what the log says of transactions that have ended.
    pub(crate) fn settle(&mut self) {
        let ends = std::mem::take(&mut self.ends);
        let kept = self.open.keys().chain(&self.definers).copied();
        let by_xid = Ends::new(&ends, kept);
        let mut lost: Vec<RelationChanges> =
            self.relations.iter().map(|relation| RelationChanges::none(*relation, 0)).collect();
        let log = std::mem::take(&mut self.log);
        for Entry { lsn, xid, relation, change } in &log {
            match (by_xid.get(*xid), change, lost.get_mut(*relation as usize)) {
                (Fate::Ended(End::Lost), Some(change), Some(lost)) => {
                    lost.rows.add(*change);
                    (lost.last, lost.xid) = (*lsn, *xid);
                }
                (Fate::Ended(_), ..) => {}
                _ => self.add_open((*lsn, *xid), *relation, *change),
            }
        }
        for (lsn, xid, relation, value) in std::mem::take(&mut self.sequences) {
            let part = self.open.entry(xid).or_default().part(relation, xid);
            (part.last_value, part.last) = (Some(value), lsn);
        }
        lost.into_iter().filter(|change| change.last.is_valid()).for_each(|change| self.lose(change));
        self.end(&ends);
        self.definers.retain(|xid| self.open.contains_key(xid));
        // Its memory is used again.
        self.log = log;
        self.log.clear();
    }

    /// A record of a transaction that is kept by itself.
    fn add_open(&mut self, (lsn, xid): (Lsn, u32), relation: u32, change: Option<RowChange>) {
        let open = self.open.entry(xid).or_default();
        match (change, self.relations.get(relation as usize)) {
            (Some(change), Some(relation)) => {
                let part = open.part(*relation, xid);
                part.rows.add(change);
                part.last = lsn;
            }
            _ => open.catalog_changes += 1,
        }
    }

    /// These transactions have ended, some of which are kept by themselves.
    fn end(&mut self, ends: &[(u32, End)]) {
        let of = |wanted: End| ends.iter().filter(move |(_, end)| *end == wanted).map(|(xid, _)| *xid);
        self.committed.extend(of(End::Lost));
        self.common.extend(of(End::Common));
        self.aborted.extend(of(End::Aborted));
        if self.open.is_empty() {
            return;
        }
        for (xid, end) in ends {
            if let Some(open) = self.open.remove(xid).filter(|_| *end == End::Lost) {
                self.lose_open(open);
            }
        }
    }

    /// The rows of this transaction count.
    fn lose_open(&mut self, open: Open) {
        for (step, part) in open.parts {
            match step {
                0 => self.lose(part),
                _ => self.lost_with_catalogs.push(part),
            }
        }
    }

    fn lose(&mut self, part: RelationChanges) {
        self.lost.entry(part.relation).and_modify(|known| known.append(&part)).or_insert(part);
    }

    /// Adds the stretch that follows.
    pub(crate) fn append(&mut self, mut later: ChangedRows) {
        self.settle();
        later.settle();
        for (xid, mut open) in std::mem::take(&mut self.open) {
            let is_lost = later.committed.contains(xid);
            if is_lost || later.common.contains(xid) {
                self.misses_ends |= open.catalog_changes > 0 && !later.told.contains(xid);
            }
            if is_lost {
                self.lose_open(open);
            } else if !later.common.contains(xid) && !later.aborted.contains(xid) {
                if let Some(rest) = later.open.remove(&xid) {
                    let before = open.catalog_changes;
                    open.catalog_changes += rest.catalog_changes;
                    open.parts.extend(rest.parts.into_iter().map(|(step, part)| (step + before, part)));
                }
                self.open.insert(xid, open);
            }
        }
        self.open.extend(later.open);
        later.lost.into_values().for_each(|part| self.lose(part));
        self.definers.extend(later.definers);
        self.lost_with_catalogs.extend(later.lost_with_catalogs);
        self.committed |= later.committed;
        self.subtransactions |= later.subtransactions;
        self.common |= later.common;
        self.aborted |= later.aborted;
        self.told |= later.told;
        self.catalog_records.extend(later.catalog_records);
        self.telling.extend(later.telling);
        self.misses_ends |= later.misses_ends;
    }
}

/// What a list of ends says of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Ended(End),
    /// It has not ended, or it is kept by itself.
    Kept,
}

/// The ends of transactions by their IDs.
struct Ends {
    first: u32,
    /// From that ID on.
    fates: Vec<Fate>,
}

impl Ends {
    /// Of transactions whose IDs are far apart nothing is said.
    fn new(ends: &[(u32, End)], kept: impl Iterator<Item = u32>) -> Ends {
        let xids = || ends.iter().map(|(xid, _)| *xid);
        let (first, last) = (xids().min().unwrap_or_default(), xids().max().unwrap_or_default());
        if last - first > WIDEST {
            return Ends { first, fates: Vec::new() };
        }
        let mut fates = vec![Fate::Kept; (last - first) as usize + 1];
        for (xid, end) in ends {
            fates[(xid - first) as usize] = Fate::Ended(*end);
        }
        for xid in kept {
            if let Some(fate) = fates.get_mut(xid.wrapping_sub(first) as usize) {
                *fate = Fate::Kept;
            }
        }
        Ends { first, fates }
    }

    #[inline]
    fn get(&self, xid: u32) -> Fate {
        self.fates.get(xid.wrapping_sub(self.first) as usize).copied().unwrap_or(Fate::Kept)
    }
}

/// Transaction IDs are numbers that count up: they need no mixing that costs time.
#[derive(Clone, Copy, Default)]
struct ByXid;

impl std::hash::BuildHasher for ByXid {
    type Hasher = XidHasher;

    fn build_hasher(&self) -> XidHasher {
        XidHasher(0)
    }
}

struct XidHasher(u64);

impl std::hash::Hasher for XidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, xid: u32) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(xid)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Whether a record without blocks tells what relations are. The IDs are the same in all flavors.
fn tells(header: &RecordHeader) -> bool {
    rmgr::is_checkpoint(header) || matches!(header.rmid, rmgr::DATABASE | rmgr::RELATION_MAP)
}

#[inline]
fn is_catalog(relation: Relation) -> bool {
    relation.number < FIRST_OF_USERS && relation.number != LARGE_OBJECTS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const FORK: Lsn = Lsn(1000);

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    /// A record of 8 bytes.
    #[derive(Clone, Debug)]
    enum Step {
        Row { xid: u32, number: u32, change: RowChangeOf },
        Catalog { xid: u32 },
        Sequence { xid: u32, value: i64 },
        End { xid: u32, subtransaction: Option<u32>, is_commit: bool },
        Checkpoint,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum RowChangeOf {
        Insert,
        InsertMany(u16),
        Update,
        Delete,
        TakeBack,
    }

    fn relation(number: u32) -> Relation {
        Relation { tablespace: 1663, database: 5, number }
    }

    fn add(found: &mut ChangedRows, lsn: Lsn, step: &Step) {
        let (rmid, info, xid, main_data, relation) = match *step {
            Step::Row { xid, number, change } => {
                let (rmid, info, main_data) = match change {
                    RowChangeOf::Insert => (10, 0x00, vec![1, 0, 0]),
                    RowChangeOf::InsertMany(count) => (9, 0x50, [&[0, 0][..], &count.to_le_bytes()].concat()),
                    RowChangeOf::Update => (10, 0x40, vec![0; 14]),
                    RowChangeOf::Delete => (10, 0x10, vec![0; 8]),
                    RowChangeOf::TakeBack => (10, 0x10, vec![0, 0, 0, 0, 1, 0, 0, 0x08]),
                };
                (rmid, info, xid, main_data, Some(self::relation(number)))
            }
            Step::Catalog { xid } => (10, 0x00, xid, vec![1, 0, 0], Some(self::relation(1259))),
            Step::Sequence { xid, value } => {
                let mut data: Vec<u8> =
                    [1663u32, 5, 20000].iter().flat_map(|part| part.to_le_bytes()).collect();
                data.extend([0; 22]);
                data.push(24);
                data.push(0);
                data.extend(value.to_le_bytes());
                (15, 0x00, xid, data, Some(self::relation(20000)))
            }
            Step::End { xid, subtransaction, is_commit } => {
                let mut data = vec![0; 8];
                data.extend((if subtransaction.is_some() { 2u32 } else { 0 }).to_le_bytes());
                if let Some(subtransaction) = subtransaction {
                    data.extend(1u32.to_le_bytes());
                    data.extend(subtransaction.to_le_bytes());
                }
                (1, if is_commit { 0x80 } else { 0xA0 }, xid, data, None)
            }
            Step::Checkpoint => (0, 0x10, 0, Vec::new(), None),
        };
        let header = RecordHeader { total_length: 8, xid, previous: Lsn(0), info, rmid, crc: 0 };
        if rmid == rmgr::TRANSACTION {
            let finish = Finish::of(&header, &main_data, version());
            found.add_transaction((lsn, lsn.advance(8) > FORK), (&header, &main_data), finish);
        } else {
            found.add(lsn, (&header, &main_data), relation, version());
        }
    }

    fn stretch(first: u64, steps: &[Step]) -> ChangedRows {
        let mut found = ChangedRows::default();
        for (at, step) in steps.iter().enumerate() {
            add(&mut found, Lsn(8 * (first + at as u64)), step);
        }
        found.settle();
        found
    }

    /// By relation, without regard to parts.
    fn totals(found: &ChangedRows) -> BTreeMap<u32, RowCounts> {
        let mut totals: BTreeMap<u32, RowCounts> = BTreeMap::new();
        for change in found.lost() {
            *totals.entry(change.relation.number).or_default() += change.rows;
        }
        totals
    }

    fn insert(xid: u32, number: u32) -> Step {
        Step::Row { xid, number, change: RowChangeOf::Insert }
    }

    fn commit(xid: u32) -> Step {
        Step::End { xid, subtransaction: None, is_commit: true }
    }

    #[test]
    fn rows_count_if_their_transaction_commits_beyond_the_fork() {
        let fork = FORK.0 / 8;
        let rows = [
            Step::Row { xid: 7, number: 20001, change: RowChangeOf::InsertMany(5) },
            Step::Row { xid: 7, number: 20001, change: RowChangeOf::Update },
            Step::Row { xid: 7, number: 20002, change: RowChangeOf::Delete },
            insert(7, 20003),
            Step::Row { xid: 7, number: 20003, change: RowChangeOf::TakeBack },
        ];
        let with = |end: Step| [&rows[..], &[end]].concat();
        let counts = |inserted, updated, deleted| RowCounts { inserted, updated, deleted };
        let all = BTreeMap::from([
            (20001, counts(5, 1, 0)),
            (20002, counts(0, 0, 1)),
            (20003, RowCounts::default()),
        ]);
        assert_eq!(totals(&stretch(fork, &with(commit(7)))), all);
        // The rows are before the fork, the commit beyond it.
        assert_eq!(totals(&stretch(fork - 5, &with(commit(7)))), all);
        let of_parent = Step::End { xid: 6, subtransaction: Some(7), is_commit: true };
        assert_eq!(totals(&stretch(fork, &with(of_parent))), all);
        let rolled_back = Step::End { xid: 7, subtransaction: None, is_commit: false };
        let none =
            [stretch(fork - 6, &with(commit(7))), stretch(fork, &with(rolled_back)), stretch(fork, &rows)];
        assert!(none.iter().all(|found| totals(found).is_empty()));
        assert_eq!(stretch(fork, &with(commit(7))).committed().into_iter().collect::<Vec<_>>(), [7]);
    }

    /// The cache has one place for both relations. The IDs of the transactions are far apart, or not.
    #[test]
    fn relations_and_transactions_are_distinguished() {
        let (one, other) = (20001, 20001 + RECENT as u32);
        for xid in [6, 1 << 30] {
            let steps =
                [insert(5, one), insert(xid, other), insert(5, one), insert(7, other), commit(5), commit(7)];
            let steps = [&steps[..], &[commit(xid), insert(9, one)]].concat();
            let counts = |inserted| RowCounts { inserted, ..RowCounts::default() };
            let found = totals(&stretch(FORK.0 / 8, &steps));
            assert_eq!(found, BTreeMap::from([(one, counts(2)), (other, counts(2))]));
        }
    }

    /// What a relation was is known only between two changes of catalogs.
    #[test]
    fn parts_end_where_the_transaction_changes_a_catalog() {
        let steps = [
            insert(7, 20001),
            Step::Catalog { xid: 7 },
            insert(7, 20001),
            Step::Catalog { xid: 8 },
            insert(7, 20001),
            commit(7),
            insert(9, 20001),
            commit(9),
        ];
        let first = FORK.0 / 8;
        let found = stretch(first, &steps);
        let mut parts: Vec<_> =
            found.lost().map(|part| (part.last.0 / 8 - first, part.xid, part.rows.inserted)).collect();
        parts.sort_unstable();
        assert_eq!(
            parts,
            [(4, 7, 2), (6, 9, 2)],
            "those before the change of a catalog are joined with others'"
        );
        let at = |place: u64| Lsn(8 * (first + place));
        assert_eq!(found.telling_records(), [at(5)]);
        assert_eq!(found.catalog_records(), [(relation(1259), at(1)), (relation(1259), at(3))]);
        assert!(!found.misses_ends());
        // Its end does not say, as with wal_level = minimal, that it has changed a catalog.
        let mut parts = stretch(first, &steps[..2]);
        parts.append(stretch(first + 2, &steps[2..]));
        assert!(parts.misses_ends());
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let xid = || 1u32..90;
        let change = prop_oneof![
            Just(RowChangeOf::Insert),
            (1u16..9).prop_map(RowChangeOf::InsertMany),
            Just(RowChangeOf::Update),
            Just(RowChangeOf::Delete),
        ];
        let step = prop_oneof![
            8 => (xid(), 20001u32..20004, change)
                .prop_map(|(xid, number, change)| Step::Row { xid, number, change }),
            1 => xid().prop_map(|xid| Step::Catalog { xid }),
            1 => (xid(), 0i64..1000).prop_map(|(xid, value)| Step::Sequence { xid, value }),
            3 => (xid(), prop::option::of(xid()), any::<bool>())
                .prop_map(|(xid, subtransaction, is_commit)| Step::End { xid, subtransaction, is_commit }),
            1 => Just(Step::Checkpoint),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// IDs are used once: nothing of a transaction comes behind its end.
    fn without_what_comes_behind_an_end(steps: Vec<Step>) -> Vec<Step> {
        let mut ended = std::collections::BTreeSet::new();
        let is_over = |step: &Step| {
            let xids = match *step {
                Step::Row { xid, .. } | Step::Catalog { xid } | Step::Sequence { xid, .. } => vec![xid],
                Step::End { xid, subtransaction, .. } => [xid].into_iter().chain(subtransaction).collect(),
                Step::Checkpoint => Vec::new(),
            };
            let is_over = xids.iter().any(|xid| ended.contains(xid));
            if matches!(step, Step::End { .. }) {
                ended.extend(xids);
            }
            !is_over
        };
        steps.into_iter().filter(is_over).collect()
    }

    proptest! {
        /// However a stretch is divided, its parts joined have the counts of the whole.
        #[test]
        fn stretches_join(steps in steps(), cuts in prop::collection::vec(0usize..200, 0..4)) {
            let steps = without_what_comes_behind_an_end(steps);
            let first = FORK.0 / 8 - 50;
            let whole = stretch(first, &steps);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(steps.len())).collect();
            cuts.extend([0, steps.len()]);
            cuts.sort_unstable();
            let mut joined = ChangedRows::default();
            for pair in cuts.windows(2) {
                joined.append(stretch(first + pair[0] as u64, &steps[pair[0]..pair[1]]));
            }
            prop_assert_eq!(totals(&joined), totals(&whole));
            prop_assert_eq!(joined.committed(), whole.committed());
            prop_assert_eq!(&joined.catalog_records, &whole.catalog_records);
            if !joined.misses_ends {
                prop_assert_eq!(&joined.telling, &whole.telling);
            }
            let last = |found: &ChangedRows| {
                let sequences = found.lost().filter(|change| change.relation.number == 20000);
                sequences.max_by_key(|change| change.last).map(|change| change.last_value)
            };
            prop_assert_eq!(last(&joined), last(&whole));
            prop_assert_eq!(joined.open.len(), whole.open.len());
        }
    }
}
