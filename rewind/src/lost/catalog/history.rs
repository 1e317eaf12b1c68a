//! The rows of a catalog through time: all versions of each, with when they came and went.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use walparse::{Lsn, Relation};

use crate::lost::error::LostError;
use crate::lost::node::Target;
use crate::lost::rows::{Address, At, Images, Row, RowEvent, Rows, rows_on_disk};
use crate::lost::status::Statuses;

/// When and by which transaction something was done to a row. Before the WAL that was read, [`Lsn::INVALID`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
}

/// A version of a row.
#[derive(Clone, Debug)]
pub(super) struct Version<T> {
    pub(super) value: T,
    pub(super) came: Done,
    pub(super) went: Option<Done>,
    /// The version that took its place, if it was updated in the WAL that was read.
    pub(super) next: Option<usize>,
    /// Whether it has taken the place of another version, be that known or not.
    pub(super) is_update: bool,
    infomask: u16,
}

/// A moment in a transaction: what others have committed by then counts, and what the transaction itself has done.
pub(in crate::lost) struct Moment<'a> {
    pub(in crate::lost) lsn: Lsn,
    /// Its ID and those of its subtransactions.
    pub(in crate::lost) xids: &'a [u32],
}

impl<T> Version<T> {
    /// Whether a transaction sees this version at a moment.
    pub(super) fn is_visible(&self, moment: &Moment<'_>, statuses: &Statuses<'_>) -> bool {
        let is_done = |done: Done, infomask: Option<u16>| {
            if moment.xids.contains(&done.xid) {
                return done.lsn <= moment.lsn;
            }
            statuses.committed_at(done.xid, infomask).is_some_and(|lsn| lsn <= moment.lsn)
        };
        is_done(self.came, Some(self.infomask)) && !self.went.is_some_and(|went| is_done(went, None))
    }

    /// Whether it came or went in the WAL that was read.
    pub(super) fn is_recent(&self) -> bool {
        self.came.lsn != Lsn::INVALID || self.went.is_some()
    }

    /// Whether it ever counted: whoever wrote it has committed.
    pub(super) fn has_counted(&self, statuses: &Statuses<'_>) -> bool {
        statuses.committed_at(self.came.xid, Some(self.infomask)).is_some()
    }

    pub(super) fn map<U>(&self, value: impl FnOnce(&T) -> Option<U>) -> Option<Version<U>> {
        Some(Version {
            value: value(&self.value)?,
            came: self.came,
            went: self.went,
            next: self.next,
            is_update: self.is_update,
            infomask: self.infomask,
        })
    }
}

/// All versions of the rows of a catalog's file.
pub(super) fn read(target: &Target<'_>, relation: Relation) -> Result<Vec<Version<Arc<Row>>>, LostError> {
    let mut history = History::default();
    Rows::follow(target, relation, Images::Shown, &mut |at, event| {
        history.add(at, event);
        Ok(())
    })?;
    let seen = std::mem::take(&mut history.seen);
    rows_on_disk(target, relation, &seen, &mut |address, row| {
        history.add_from_disk(address, row);
        Ok(())
    })?;
    Ok(history.versions)
}

#[derive(Default)]
struct History {
    versions: Vec<Version<Arc<Row>>>,
    /// The version at each address.
    current: HashMap<Address, usize>,
    /// Blocks of which an image or an initialization was seen: those on disk may be older.
    seen: HashSet<u32>,
    /// Which transactions have put a row where.
    put: HashSet<(Address, u32)>,
    /// How rows have ended that were not known: those that blocks on disk may have.
    ended: HashMap<Address, (Done, Option<usize>)>,
}

impl History {
    fn add(&mut self, at: At, event: RowEvent) {
        let done = Done { lsn: at.lsn, xid: at.xid };
        match event {
            RowEvent::Seen { block, rows } => {
                // What the first image of a block shows was there before.
                let lsn = if self.seen.insert(block) { Lsn::INVALID } else { at.lsn };
                for (number, row) in rows {
                    // The record itself says what it writes.
                    if row.xmin != at.xid || at.xid == 0 || lsn == Lsn::INVALID {
                        self.add_seen(lsn, (block, number), row);
                    }
                }
            }
            RowEvent::Insert { at: address, new: Some(new) } => _ = self.put(address, new, done),
            RowEvent::Delete { at: address, .. } => self.end(address, done, None),
            RowEvent::Update { from, to, old, new } => {
                if let Some(old) = old
                    && !self.current.contains_key(&from)
                {
                    let came = Done { lsn: Lsn::INVALID, xid: old.xmin };
                    self.put(from, old, came);
                }
                let next = new.map(|new| {
                    let ended = self.current.get(&from).copied();
                    let next = self.put(to, new, done);
                    self.versions[next].is_update = true;
                    (ended, next)
                });
                match next {
                    Some((Some(ended), next)) => self.end_version(ended, done, Some(next)),
                    Some((None, next)) => _ = self.ended.insert(from, (done, Some(next))),
                    None => self.end(from, done, None),
                }
            }
            RowEvent::Inplace { at: address, new } => match self.current.get(&address) {
                Some(&version) => self.versions[version].value = new,
                None => {
                    let came = Done { lsn: Lsn::INVALID, xid: new.xmin };
                    self.put(address, new, came);
                }
            },
            RowEvent::Insert { new: None, .. } => {}
        }
    }

    /// Adds a row that a block shows, unless it is known.
    fn add_seen(&mut self, lsn: Lsn, address: Address, row: Row) {
        let known = self.current.get(&address).map(|&version| &self.versions[version]);
        if known.is_some_and(|known| known.came.xid == row.xmin) {
            return;
        }
        let went = (row.xmax != 0).then_some(Done { lsn, xid: row.xmax });
        let came = Done { lsn, xid: row.xmin };
        self.put(address, Arc::new(row), came);
        if let Some(version) = self.versions.last_mut() {
            version.went = went;
        }
    }

    /// Adds a row of a block on disk that is not known from WAL. The block may be older than what WAL says of its row, and
    /// newer than rows that WAL has put there.
    fn add_from_disk(&mut self, address: Address, row: Row) {
        if self.put.contains(&(address, row.xmin)) {
            return;
        }
        let ended = self.ended.get(&address).copied();
        self.add_seen(Lsn::INVALID, address, row);
        if let (Some((done, next)), Some(version)) = (ended, self.versions.last_mut()) {
            (version.went, version.next) = (Some(done), next);
        }
    }

    /// Returns the version.
    fn put(&mut self, address: Address, row: Arc<Row>, came: Done) -> usize {
        self.put.insert((address, came.xid));
        // An image shows what its own record has inserted: then it is this row.
        if let Some(&known) = self.current.get(&address)
            && self.versions[known].came.xid == came.xid
            && self.versions[known].value.body == row.body
        {
            self.versions[known].came = came;
            return known;
        }
        let version = self.versions.len();
        self.current.insert(address, version);
        let infomask = row.infomask;
        self.versions.push(Version { value: row, came, went: None, next: None, is_update: false, infomask });
        version
    }

    fn end(&mut self, address: Address, done: Done, next: Option<usize>) {
        match self.current.get(&address) {
            Some(&version) => self.end_version(version, done, next),
            None => _ = self.ended.insert(address, (done, next)),
        }
    }

    fn end_version(&mut self, version: usize, done: Done, next: Option<usize>) {
        self.versions[version].went = Some(done);
        self.versions[version].next = next;
    }
}
