//! What transactions did: which of them committed in a stretch of WAL, and how many rows they changed in which relation.
//!
//! A record of a row has the transaction ID of its transaction, or of a subtransaction. Only the record that ends the
//! transaction tells whether the change counts, and it may be in a later segment. So the counts of transactions that have not
//! ended yet are kept by transaction ID, and the IDs of those that have ended, for the counts of the stretch before.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use crate::effect::{Effect, Finish, Microseconds};
use crate::lsn::Lsn;
use crate::record::{Fields, RecordHeader};
use crate::relation::Relation;
use crate::rmgr;
use crate::version::Version;

const HEAP2: u8 = 9;
const HEAP: u8 = 10;

const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
const MULTI_INSERT: u8 = 0x50;
const PREPARE: u8 = 0x10;

/// `XLH_DELETE_IS_SUPER`: a speculative insertion is taken back.
const IS_SUPER: u8 = 0x08;

/// The number of transactions whose counts are found at once: more than usually write at the same time.
const RECENT: usize = 64;

/// The changes of rows in a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RowCounts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl RowCounts {
    /// Adds these.
    pub fn add(&mut self, other: RowCounts) {
        self.inserted = self.inserted.wrapping_add(other.inserted);
        self.updated += other.updated;
        self.deleted += other.deleted;
    }

    /// All changes.
    pub fn total(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// The changes of some transactions, by relation. Most transactions change few relations.
type Rows = Vec<(Relation, RowCounts)>;

/// What transactions did in a stretch of WAL.
#[derive(Clone, Debug, Default)]
pub struct Transactions {
    committed: RoaringBitmap,
    times: Option<(Microseconds, Microseconds)>,
    relations: HashMap<Relation, RowCounts>,
    prepared: BTreeMap<u32, String>,
    /// Changes of transactions and subtransactions that have not ended in this stretch.
    open: HashMap<u32, Rows>,
    /// As `open`, for those that have changed something recently: by the last bits of the ID.
    recent: Vec<(u32, Rows)>,
    /// Transactions and subtransactions that committed in this stretch and count.
    counted: RoaringBitmap,
    /// Those that ended otherwise.
    ended: RoaringBitmap,
}

/// Two are equal if they say the same, however they were gathered.
impl PartialEq for Transactions {
    fn eq(&self, other: &Transactions) -> bool {
        self.committed == other.committed
            && self.times == other.times
            && self.relations == other.relations
            && self.prepared == other.prepared
    }
}

impl Transactions {
    /// How many transactions committed.
    pub fn committed(&self) -> u64 {
        self.committed.len()
    }

    /// When the first and the last of them committed.
    pub fn times(&self) -> Option<(Microseconds, Microseconds)> {
        self.times
    }

    /// The rows that they changed, by relation: tables, catalogs and TOAST tables.
    pub fn relations(&self) -> impl Iterator<Item = (Relation, RowCounts)> + '_ {
        self.relations.iter().filter(|(_, rows)| rows.total() > 0).map(|(relation, rows)| (*relation, *rows))
    }

    /// Transactions that were prepared and have not ended, with the identifiers that `PREPARE TRANSACTION` gave them.
    pub fn prepared(&self) -> &BTreeMap<u32, String> {
        &self.prepared
    }

    /// How many of the committed transactions had begun before `next_xid` was the next transaction ID: what they changed before
    /// this stretch is not known.
    pub fn begun_before(&self, next_xid: u32) -> u64 {
        // Transaction IDs are compared modulo 2^32.
        let is_before = |xid: &u32| xid.wrapping_sub(next_xid).cast_signed() < 0;
        self.committed.iter().filter(is_before).count() as u64
    }

    /// Adds what a record does. Transactions that commit with a record that ends at or before `fork` do not count. `relation` is
    /// that of its first block.
    #[inline]
    pub(crate) fn add(
        &mut self,
        header: &RecordHeader,
        end_and_fork: (Lsn, Lsn),
        relation: Option<Relation>,
        main_data: &[u8],
        version: Version,
    ) {
        // Fast path: the IDs of all flavors are small.
        if header.rmid > HEAP + 2 {
            return;
        }
        match rmgr::postgresql_id(header.rmid, version) {
            Some(HEAP | HEAP2) => {
                if header.xid != 0
                    && let Some(relation) = relation
                    && let Some(change) = change(header, main_data, version)
                {
                    self.add_rows(header.xid, relation, change);
                }
            }
            Some(rmgr::TRANSACTION) => self.add_end(header, end_and_fork, main_data, version),
            _ => {}
        }
    }

    fn add_rows(&mut self, xid: u32, relation: Relation, change: Change) {
        if self.recent.is_empty() {
            self.recent = vec![(0, Rows::new()); RECENT];
        }
        let place = &mut self.recent[xid as usize % RECENT];
        if place.0 != xid {
            let rows = std::mem::take(&mut place.1);
            if !rows.is_empty() {
                merge(self.open.entry(place.0).or_default(), rows);
            }
            place.0 = xid;
        }
        let rows = &mut place.1;
        let at = rows.iter().position(|(other, _)| *other == relation).unwrap_or_else(|| {
            rows.push((relation, RowCounts::default()));
            rows.len() - 1
        });
        change.count(&mut rows[at].1);
    }

    /// The changes of a transaction so far, which are forgotten.
    fn take_rows(&mut self, xid: u32) -> Rows {
        let mut rows = self.open.remove(&xid).unwrap_or_default();
        if let Some(place) = self.recent.get_mut(xid as usize % RECENT)
            && place.0 == xid
        {
            merge(&mut rows, std::mem::take(&mut place.1));
            place.0 = 0;
        }
        rows
    }

    /// A record of the resource manager of transactions.
    fn add_end(
        &mut self,
        header: &RecordHeader,
        (end, fork): (Lsn, Lsn),
        main_data: &[u8],
        version: Version,
    ) {
        let is_lost = end > fork;
        if header.info & 0x70 == PREPARE {
            if is_lost && let Some(name) = prepared_name(header.xid, main_data, version) {
                self.prepared.insert(header.xid, name);
            }
            return;
        }
        let Some(Effect::Finish(finish)) = Effect::of(header, main_data, version) else { return };
        let Finish { is_commit, xid, time, subtransactions, .. } = finish;
        let counts = is_commit && is_lost;
        self.prepared.remove(&xid);
        for xid in subtransactions.into_iter().chain([xid]) {
            let rows = self.take_rows(xid);
            match counts {
                true => {
                    self.counted.insert(xid);
                    add_all(&mut self.relations, rows);
                }
                false => _ = self.ended.insert(xid),
            }
        }
        if counts {
            self.committed.insert(xid);
            self.times = join(self.times, Some((time, time)));
        }
    }

    /// Adds the stretch that follows.
    pub(crate) fn append(&mut self, later: Transactions) {
        let Transactions { committed, times, relations, prepared, open, recent, counted, ended } = later;
        for (xid, rows) in std::mem::take(&mut self.recent) {
            if !rows.is_empty() {
                merge(self.open.entry(xid).or_default(), rows);
            }
        }
        let mut done = Vec::new();
        self.open.retain(|xid, rows| {
            if counted.contains(*xid) {
                done.append(rows);
            }
            !counted.contains(*xid) && !ended.contains(*xid)
        });
        add_all(&mut self.relations, done);
        add_all(&mut self.relations, relations);
        self.prepared.retain(|xid, _| !counted.contains(*xid) && !ended.contains(*xid));
        self.prepared.extend(prepared);
        for (xid, rows) in open.into_iter().chain(recent) {
            if !rows.is_empty() {
                merge(self.open.entry(xid).or_default(), rows);
            }
        }
        self.committed |= committed;
        self.counted |= counted;
        self.ended |= ended;
        self.times = join(self.times, times);
    }
}

fn merge(rows: &mut Rows, others: Rows) {
    for (relation, counts) in others {
        match rows.iter_mut().find(|(other, _)| *other == relation) {
            Some((_, sum)) => sum.add(counts),
            None => rows.push((relation, counts)),
        }
    }
}

fn add_all(
    relations: &mut HashMap<Relation, RowCounts>,
    rows: impl IntoIterator<Item = (Relation, RowCounts)>,
) {
    for (relation, counts) in rows {
        relations.entry(relation).or_default().add(counts);
    }
}

fn join(
    one: Option<(Microseconds, Microseconds)>,
    other: Option<(Microseconds, Microseconds)>,
) -> Option<(Microseconds, Microseconds)> {
    match (one, other) {
        (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
        (one, other) => one.or(other),
    }
}

/// What a record does to rows.
#[derive(Clone, Copy)]
enum Change {
    Insert(u64),
    /// An insertion is taken back.
    TakeBack,
    Update,
    Delete,
}

impl Change {
    fn count(self, counts: &mut RowCounts) {
        match self {
            Change::Insert(rows) => counts.inserted += rows,
            // The insertion may be in the stretch before.
            Change::TakeBack => counts.inserted = counts.inserted.wrapping_sub(1),
            Change::Update => counts.updated += 1,
            Change::Delete => counts.deleted += 1,
        }
    }
}

/// What a record of the heap does to rows; `None` for locks, vacuum and the like.
///
/// ```text
/// xl_heap_insert         u16 offnum, u8 flags
/// xl_heap_delete         u32 xmax, u16 offnum, u8 infobits_set, u8 flags
/// xl_heap_multi_insert   u8 flags, u8 padding, u16 ntuples, ...
/// ```
fn change(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<Change> {
    // The highest bit says that the page is initialized.
    match (rmgr::postgresql_id(header.rmid, version)?, header.info & 0x70) {
        (HEAP, INSERT) => Some(Change::Insert(1)),
        (HEAP, DELETE) if main_data.get(7)? & IS_SUPER != 0 => Some(Change::TakeBack),
        (HEAP, DELETE) => Some(Change::Delete),
        (HEAP, UPDATE | HOT_UPDATE) => Some(Change::Update),
        (HEAP2, MULTI_INSERT) => {
            let rows = main_data.get(2..4)?;
            Some(Change::Insert(u64::from(u16::from_le_bytes([rows[0], rows[1]]))))
        }
        _ => None,
    }
}

/// The identifier of a prepared transaction (`TwoPhaseFileHeader` in twophase.c, then the identifier, aligned to 8 bytes).
///
/// ```text
/// u32 magic, u32 length, u32 xid, u32 database, i64 prepared_at, u32 owner, 3 numbers (from 15 on 5), i32 ninvalmsgs,
/// u8 initfileinval, u8 padding, u16 gidlen [, from 11 on u64 origin_lsn, i64 origin_timestamp]
/// ```
fn prepared_name(xid: u32, main_data: &[u8], version: Version) -> Option<String> {
    let numbers = if version.server_version_num() >= 150_000 { 5 } else { 3 };
    let has_origin = version.server_version_num() >= 110_000;
    let mut data = Fields { bytes: main_data };
    data.take(8).ok()?;
    if data.u32().ok()? != xid {
        return None;
    }
    data.take(4 + 8 + 4 + 4 * numbers + 4 + 2).ok()?;
    let length = usize::from(data.u16().ok()?);
    let header = (main_data.len() - data.bytes.len() + if has_origin { 16 } else { 0 }).next_multiple_of(8);
    // With a NUL byte at its end.
    let name = main_data.get(header..)?.get(..length)?;
    Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORK: Lsn = Lsn(1000);

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn relation(number: u32) -> Relation {
        Relation { tablespace: 1663, database: 5, number }
    }

    /// A record: transaction, resource manager and info, relation, main data.
    type Step = (u32, (u8, u8), u32, Vec<u8>);

    fn row(xid: u32, info: u8, number: u32) -> Step {
        (xid, (HEAP, info), number, vec![0; 8])
    }

    /// A commit or an abort with subtransactions, at this second.
    fn end(xid: u32, info: u8, seconds: i64, subtransactions: &[u32]) -> Step {
        let mut data = (seconds * 1_000_000 - 946_684_800_000_000).to_le_bytes().to_vec();
        data.extend(2u32.to_le_bytes());
        data.extend((subtransactions.len() as u32).to_le_bytes());
        data.extend(subtransactions.iter().flat_map(|xid| xid.to_le_bytes()));
        (xid, (1, info | 0x80), 0, data)
    }

    /// The records, each of 8 bytes.
    fn stretch(first: u64, steps: &[Step]) -> Transactions {
        let mut found = Transactions::default();
        for (at, (xid, (rmid, info), number, data)) in steps.iter().enumerate() {
            let header = RecordHeader {
                total_length: 8,
                xid: *xid,
                previous: Lsn(0),
                info: *info,
                rmid: *rmid,
                crc: 0,
            };
            let end = Lsn(8 * (first + at as u64 + 1));
            found.add(&header, (end, FORK), Some(relation(*number)), data, version());
        }
        found
    }

    fn counts(found: &Transactions, number: u32) -> (u64, u64, u64) {
        let rows = found.relations.get(&relation(number)).copied().unwrap_or_default();
        (rows.inserted, rows.updated, rows.deleted)
    }

    #[test]
    fn what_has_committed_after_the_fork_counts() {
        let after = FORK.0 / 8;
        let found = stretch(
            after - 3,
            &[
                row(7, 0x00, 1),       // before the fork, but it commits later
                row(5, 0x00, 1),       // committed before
                end(5, 0x00, 10, &[]), // ends at the fork
                row(8, 0x20, 1),       // a subtransaction of 7
                row(9, 0x10, 1),       // a subtransaction that aborts
                (7, (HEAP2, 0xD0), 2, vec![0, 0, 3, 0]),
                end(9, 0x20, 12, &[]),
                row(7, 0xC0, 2), // a HOT update of a page that is initialized
                end(7, 0x00, 13, &[8]),
                row(10, 0x10, 1),                   // still open at the end
                (11, (HEAP2, 0x10), 1, vec![0; 8]), // vacuum
                row(12, 0x00, 3),
                (12, (HEAP, 0x10), 3, vec![0, 0, 0, 0, 0, 0, 0, IS_SUPER]),
                end(12, 0x00, 15, &[]),
            ],
        );
        assert_eq!(
            (counts(&found, 1), counts(&found, 2), counts(&found, 3)),
            ((1, 1, 0), (3, 1, 0), (0, 0, 0))
        );
        assert_eq!(found.relations().count(), 2);
        assert_eq!(found.committed(), 2);
        assert_eq!(found.times(), Some((Microseconds(13_000_000), Microseconds(15_000_000))));
        assert_eq!([7, 8, 12, 13, u32::MAX].map(|next| found.begun_before(next)), [0, 1, 1, 2, 0]);
    }

    #[test]
    fn prepared_transactions_have_their_identifiers_until_they_end() {
        let prepare = |xid: u32, name: &str| {
            let mut data = vec![0; 72];
            data[8..12].copy_from_slice(&xid.to_le_bytes());
            data[54] = name.len() as u8 + 1;
            data.extend(name.bytes().chain([0]));
            (xid, (1, PREPARE), 0, data)
        };
        let after = FORK.0 / 8;
        let mut commit = end(0, 0x30, 20, &[]);
        commit.3[8] = 0x10;
        commit.3.truncate(12);
        commit.3.extend(7u32.to_le_bytes());
        commit.0 = 90;
        let steps = [row(7, 0x00, 1), prepare(7, "one"), prepare(8, "two"), commit];
        assert_eq!(*stretch(after, &steps).prepared(), BTreeMap::from([(8, "two".to_owned())]));
        assert_eq!(counts(&stretch(after, &steps), 1), (1, 0, 0));
        assert!(stretch(0, &steps[..3]).prepared().is_empty());
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1u32..9, prop::sample::select(vec![0x00u8, 0x10, 0x20, 0x40]), 1u32..4)
                .prop_map(|(xid, info, number)| row(xid * 64, info, number)),
            1 => (1u32..9, prop::sample::select(vec![0x00u8, 0x20]), 1i64..9, prop::collection::vec(1u32..9, 0..3))
                .prop_map(|(xid, info, time, subs)| {
                    end(xid * 64, info, time, &subs.into_iter().map(|xid| xid * 64).collect::<Vec<_>>())
                }),
        ];
        // No transaction goes on after its end.
        let until_the_end = |steps: Vec<Step>| {
            let mut ended = std::collections::BTreeSet::new();
            let mut last = |(xid, (rmid, _), _, data): &Step| {
                let subtransactions = data.get(16..).filter(|_| *rmid == 1).unwrap_or_default();
                let all = subtransactions.chunks(4).map(|xid| u32::from_le_bytes(xid.try_into().unwrap()));
                let all: Vec<u32> = all.chain([*xid]).collect();
                let goes_on = all.iter().all(|xid| !ended.contains(xid));
                if *rmid == 1 && goes_on {
                    ended.extend(all);
                }
                goes_on
            };
            steps.into_iter().filter(|step| last(step)).collect()
        };
        prop::collection::vec(step, 0..150).prop_map(until_the_end)
    }

    proptest! {
        /// However a stretch is divided, its parts joined are equal to the whole.
        #[test]
        fn joined_parts_are_equal_to_the_whole(
            steps in steps(), cut: prop::sample::Index, other: prop::sample::Index, is_upwards: bool
        ) {
            let first = FORK.0 / 8 - 40;
            let whole = stretch(first, &steps);
            let (cut, other) = (cut.index(steps.len() + 1), other.index(steps.len() + 1));
            let (low, high) = (cut.min(other), cut.max(other));
            let part = |from: usize, to: usize| stretch(first + from as u64, &steps[from..to]);
            let (mut one, mut two, three) = (part(0, low), part(low, high), part(high, steps.len()));
            if is_upwards {
                one.append(two);
                one.append(three);
            } else {
                two.append(three);
                one.append(two);
            }
            prop_assert_eq!(one, whole);
        }
    }
}
