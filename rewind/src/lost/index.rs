//! One pass over the target's WAL: who has committed, and which records concern which relation.
//!
//! What the records say about rows is read later, relation by relation ([`Rows`](super::rows)): of a large history few relations
//! matter, and only one of them has to be in memory at a time. The index takes 8 bytes for each record about rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use walparse::{
    BlockRef, ChangedRows, DatabaseDir, Effect, Finish, Fork, Lsn, Microseconds, Payload, Record, Relation,
    SegmentStore, WalGeometry, WalReader, has_heap_pages, next_xid, prepared_name, relation_map_update, rmgr,
    sequence_value,
};

use super::error::LostError;
use crate::stop::StopFlag;

/// What one pass over the WAL has found.
#[derive(Default)]
pub(super) struct WalIndex {
    /// Where it starts.
    pub(super) start: Lsn,
    /// All commits, in the order of the WAL.
    pub(super) commits: Vec<Commit>,
    /// How transactions have ended, subtransactions among them.
    pub(super) ends: HashMap<u32, End>,
    /// The records about rows of a relation or with images of its blocks, in order.
    pub(super) records: BTreeMap<Relation, Vec<Lsn>>,
    /// The transactions that have written records about a relation.
    touched: BTreeMap<Relation, RoaringBitmap>,
    /// New contents of relation map files.
    pub(super) maps: Vec<MapUpdate>,
    /// Values that sequences have reached.
    pub(super) sequences: Vec<SequenceValue>,
    /// Databases that were created or dropped.
    pub(super) databases: Vec<DatabaseEvent>,
    /// Prepared transactions that are undecided: the identifier, and where they were prepared.
    pub(super) prepared: BTreeMap<u32, (String, Lsn)>,
    /// The next transaction ID at each checkpoint whose redo position is in this WAL.
    pub(super) next_xids: Vec<u32>,
    /// The identifiers of all transactions that were prepared here.
    gids: HashMap<u32, String>,
}

/// A commit.
pub(super) struct Commit {
    pub(super) lsn: Lsn,
    /// The end of its record.
    pub(super) end: Lsn,
    pub(super) xid: u32,
    pub(super) subxids: Vec<u32>,
    pub(super) time: Microseconds,
    pub(super) database: Option<u32>,
    /// The replication origin; 0 if none.
    pub(super) origin: u16,
    pub(super) gid: Option<String>,
}

impl Commit {
    /// Its ID and those of its subtransactions.
    pub(super) fn xids(&self) -> Vec<u32> {
        [self.xid].into_iter().chain(self.subxids.iter().copied()).collect()
    }
}

/// The end of a transaction.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) lsn: Lsn,
    pub(super) is_commit: bool,
}

/// A relation map file as it was written.
pub(super) struct MapUpdate {
    pub(super) dir: DatabaseDir,
    pub(super) contents: Vec<u8>,
}

/// A value that a sequence has reached.
pub(super) struct SequenceValue {
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
    pub(super) relation: Relation,
    pub(super) value: i64,
}

/// A database was created or dropped.
pub(super) struct DatabaseEvent {
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
    pub(super) database: u32,
    pub(super) is_drop: bool,
}

impl WalIndex {
    /// Reads the WAL from `start`, where a record starts, to `end`, the end of the last record.
    ///
    /// # Errors
    /// WAL is missing or damaged before `end`, or a stop was requested.
    pub(super) fn read(
        store: &dyn SegmentStore,
        geometry: &WalGeometry,
        (start, end): (Lsn, Lsn),
        stop: &StopFlag,
        progress: &dyn Fn(u64),
    ) -> Result<WalIndex, LostError> {
        let mut index = WalIndex { start, ..WalIndex::default() };
        let mut reader = WalReader::new(store, *geometry, start);
        let mut blocks = Vec::new();
        let mut announced = start;
        while reader.position() < end {
            let record = match reader.read()? {
                Ok(record) => record,
                Err(stopped) => {
                    return Err(LostError::WalEnds {
                        position: stopped.position,
                        needed: end,
                        fault: stopped.fault,
                    });
                }
            };
            let decoded = record.decode(geometry, &mut blocks);
            let payload = decoded.map_err(|fault| LostError::Record { lsn: record.lsn, fault })?;
            index.add(&record, &payload, &blocks, geometry);
            let done = record.end.0 - announced.0;
            if done >= geometry.segment_size.bytes() {
                announced = record.end;
                progress(done);
                stop.check()?;
            }
        }
        Ok(index)
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        payload: &Payload<'_>,
        blocks: &[BlockRef],
        geometry: &WalGeometry,
    ) {
        let header = &record.header;
        if has_heap_pages(header, geometry.version) {
            for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
                let records = self.records.entry(block.relation).or_default();
                if records.last() != Some(&record.lsn) {
                    records.push(record.lsn);
                }
                if header.xid != 0 {
                    self.touched.entry(block.relation).or_default().insert(header.xid);
                }
            }
            return;
        }
        if let Some((relation, value)) = sequence_value(header, payload.main_data, geometry.version) {
            let (lsn, xid) = (record.lsn, header.xid);
            self.sequences.push(SequenceValue { lsn, xid, relation, value });
            return;
        }
        if let Some((dir, contents)) = relation_map_update(header, payload.main_data, geometry.version) {
            self.maps.push(MapUpdate { dir, contents: contents.to_vec() });
            return;
        }
        if rmgr::is_prepare(header) {
            if let Some(gid) = prepared_name(header.xid, payload.main_data, geometry.version) {
                self.prepared.insert(header.xid, (gid.clone(), record.lsn));
                self.gids.insert(header.xid, gid);
            }
            return;
        }
        match Effect::of(header, payload.main_data, geometry.version) {
            Some(Effect::Finish(finish)) => self.add_end(record, payload, finish),
            Some(Effect::Checkpoint(checkpoint)) if checkpoint.redo >= self.start => {
                self.next_xids.extend(next_xid(payload.main_data, geometry.version));
            }
            Some(Effect::CreateDatabase(dir) | Effect::CopyDatabase { to: dir, .. }) => {
                self.add_database(record, dir.database, false);
            }
            Some(Effect::DropDatabase(dirs)) => {
                for database in dirs.iter().map(|dir| dir.database).collect::<BTreeSet<_>>() {
                    self.add_database(record, database, true);
                }
            }
            _ => {}
        }
    }

    fn add_database(&mut self, record: &Record<'_>, database: u32, is_drop: bool) {
        let (lsn, xid) = (record.lsn, record.header.xid);
        self.databases.push(DatabaseEvent { lsn, xid, database, is_drop });
    }

    fn add_end(&mut self, record: &Record<'_>, payload: &Payload<'_>, finish: Finish) {
        let Finish { is_commit, xid, time, database, subtransactions, .. } = finish;
        let end = End { lsn: record.lsn, is_commit };
        for xid in subtransactions.iter().chain([&xid]) {
            self.ends.insert(*xid, end);
        }
        self.prepared.remove(&xid);
        if is_commit {
            self.commits.push(Commit {
                lsn: record.lsn,
                end: record.end,
                xid,
                subxids: subtransactions,
                time,
                database,
                origin: payload.origin,
                gid: self.gids.get(&xid).cloned(),
            });
        }
    }

    /// Reads only the records that tell what relations are, as the scan of the WAL from `start` on has found them. The index has
    /// the commits of transactions that have changed catalogs, and no records about tables.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(super) fn of_scanned(
        store: &dyn SegmentStore,
        geometry: &WalGeometry,
        start: Lsn,
        rows: &ChangedRows,
    ) -> Result<WalIndex, LostError> {
        let mut index = WalIndex { start, ..WalIndex::default() };
        let mut reader = WalReader::new(store, *geometry, start);
        let mut blocks = Vec::new();
        for lsn in rows.telling_records() {
            reader.move_to(*lsn);
            let record = reader.read()?.map_err(|end| LostError::Record { lsn: *lsn, fault: end.fault })?;
            let decoded = record.decode(geometry, &mut blocks);
            let payload = decoded.map_err(|fault| LostError::Record { lsn: *lsn, fault })?;
            index.add(&record, &payload, &blocks, geometry);
        }
        for (relation, lsn) in rows.catalog_records() {
            index.records.entry(*relation).or_default().push(*lsn);
        }
        Ok(index)
    }

    /// The relations about which lost transactions have written records.
    pub(super) fn touched(&self, lost: &HashMap<u32, usize>) -> impl Iterator<Item = Relation> {
        let is_lost = |xids: &RoaringBitmap| xids.iter().any(|xid| lost.contains_key(&xid));
        self.touched.iter().filter(move |(_, xids)| is_lost(xids)).map(|(relation, _)| *relation)
    }

    /// The commits beyond the fork.
    pub(super) fn lost_commits(&self, fork: Lsn) -> impl Iterator<Item = &Commit> {
        self.commits.iter().filter(move |commit| commit.end > fork)
    }

    /// Whether all records of a transaction are in this WAL: its ID was assigned after the redo position of a checkpoint that
    /// is in it.
    pub(super) fn has_all_of(&self, xid: u32) -> bool {
        // Transaction IDs are compared modulo 2^32.
        self.next_xids.iter().any(|next| xid.wrapping_sub(*next).cast_signed() >= 0)
    }
}

/// The places of transactions in their list, by their IDs and those of their subtransactions.
pub(super) fn places(commits: &[&Commit]) -> HashMap<u32, usize> {
    let with_place = commits.iter().enumerate();
    with_place.flat_map(|(place, commit)| commit.xids().into_iter().map(move |xid| (xid, place))).collect()
}

/// What is said of transactions whose beginning is not in the WAL.
pub(super) fn note_of_begun_before(count: u64, start: Lsn) -> String {
    format!(
        "{count} transactions began before the WAL that is here: their changes before {start} are not listed."
    )
}
