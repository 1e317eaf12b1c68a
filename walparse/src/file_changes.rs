//! What WAL says about relation files beyond the blocks that its records refer to.
//!
//! A rewind must know of files that were created, copied or truncated as a whole, and of settings on which it depends
//! that hint bits and full pages were logged at all. Such records are few: they are kept one by one, with their
//! positions. Only relations that were created or truncated may be many; of these the set is kept.

use std::collections::BTreeMap;

use crate::effect::{DatabaseDir, Effect, RunningTransactions};
use crate::lsn::{BlockNumber, Lsn};
use crate::record::RecordHeader;
use crate::relation::Relation;
use crate::rmgr;
use crate::version::Version;

/// The changes of relation files in a stretch of WAL.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct FileChanges {
    /// What happened to directories and settings, in the order of the WAL, over the whole stretch.
    pub events: Vec<FileEvent>,
    /// Relations of which a record created any fork, with the end of the last such record. For an unlogged relation
    /// that is its init fork: its main fork is never mentioned.
    pub created: BTreeMap<Relation, Lsn>,
    /// Relations whose main fork a record truncated.
    pub truncated: BTreeMap<Relation, Truncation>,
    /// The first full-page image that was logged for a hint bit only: the server logged hints there.
    pub first_hint_image: Option<Lsn>,
    /// The first record that changes relation files in an unknown way, where a scan does not refuse these
    /// ([`UnknownChanges::Ignore`](crate::scan::UnknownChanges::Ignore)).
    pub first_unknown: Option<Lsn>,
}

/// How a relation's main fork was truncated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The smallest number of blocks that remained.
    pub blocks: BlockNumber,
    /// The end of the last record that truncated it.
    pub end: Lsn,
}

/// One such event.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FileEvent {
    /// Where its record starts.
    pub lsn: Lsn,
    /// Where its record ends.
    pub end: Lsn,
    /// What happened.
    pub kind: FileEventKind,
}

impl FileEvent {
    /// What the record from `lsn` to `end` does.
    pub fn new(lsn: Lsn, end: Lsn, kind: FileEventKind) -> FileEvent {
        FileEvent { lsn, end, kind }
    }
}

/// The kinds of events.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FileEventKind {
    /// A database directory was made as a copy of the files of another one: `CREATE DATABASE` with the strategy
    /// `file_copy`, and `ALTER DATABASE SET TABLESPACE`.
    CopyDatabase {
        /// The new directory.
        to: DatabaseDir,
        /// The directory that was copied.
        from: DatabaseDir,
    },
    /// Directories of a database were removed.
    DropDatabase(Vec<DatabaseDir>),
    /// A tablespace was created.
    CreateTablespace {
        /// Its OID.
        tablespace: u32,
        /// The directory that it is in.
        path: String,
    },
    /// A tablespace was removed.
    DropTablespace {
        /// Its OID.
        tablespace: u32,
    },
    /// The server was started with other settings than before.
    Settings {
        /// `wal_level`: 0 is `minimal`.
        wal_level: u32,
        /// `wal_log_hints`.
        wal_log_hints: bool,
    },
    /// `full_page_writes` was switched, or a checkpoint says that it is off.
    FullPageWrites {
        /// Whether it is on from here on.
        are_on: bool,
    },
    /// The running transactions were logged. At a shutdown there are none.
    RunningTransactions(RunningTransactions),
}

impl FileChanges {
    /// Adds what the record from `lsn` to `end` says.
    #[inline]
    pub(crate) fn add(
        &mut self,
        (lsn, end): (Lsn, Lsn),
        header: &RecordHeader,
        main_data: &[u8],
        version: Version,
    ) {
        if rmgr::concerns_files(header) || rmgr::is_running_transactions(header, version) {
            self.add_rare((lsn, end), header, main_data, version);
        }
    }

    #[cold]
    fn add_rare(
        &mut self,
        (lsn, end): (Lsn, Lsn),
        header: &RecordHeader,
        main_data: &[u8],
        version: Version,
    ) {
        if rmgr::is_hint_image(header) {
            self.first_hint_image.get_or_insert(lsn);
            return;
        }
        let kind = match Effect::of(header, main_data, version) {
            Some(Effect::CopyDatabase { to, from }) => FileEventKind::CopyDatabase { to, from },
            Some(Effect::DropDatabase(directories)) => FileEventKind::DropDatabase(directories),
            Some(Effect::CreateTablespace { tablespace, path }) => {
                FileEventKind::CreateTablespace { tablespace, path }
            }
            Some(Effect::DropTablespace { tablespace }) => FileEventKind::DropTablespace { tablespace },
            Some(Effect::ParameterChange { wal_level, wal_log_hints }) => {
                FileEventKind::Settings { wal_level, wal_log_hints }
            }
            Some(Effect::FullPageWrites { are_on }) => FileEventKind::FullPageWrites { are_on },
            Some(Effect::Checkpoint(checkpoint)) if !checkpoint.full_page_writes => {
                FileEventKind::FullPageWrites { are_on: false }
            }
            Some(Effect::Checkpoint(_)) if rmgr::is_shutdown(header) => {
                let none = RunningTransactions { is_overflowed: false, next_xid: 0, oldest_xid: 0 };
                FileEventKind::RunningTransactions(none)
            }
            Some(Effect::RunningTransactions(running)) => FileEventKind::RunningTransactions(running),
            Some(Effect::CreateRelation { relation, .. }) => {
                self.created.insert(relation, end);
                return;
            }
            Some(Effect::TruncateRelation { relation, blocks }) => {
                self.truncate(relation, Truncation { blocks, end });
                return;
            }
            _ => return,
        };
        self.events.push(FileEvent { lsn, end, kind });
    }

    /// Adds the changes of the stretch that follows.
    pub fn append(&mut self, later: FileChanges) {
        self.events.extend(later.events);
        self.created.extend(later.created);
        for (relation, truncation) in later.truncated {
            self.truncate(relation, truncation);
        }
        self.first_hint_image = self.first_hint_image.or(later.first_hint_image);
        self.first_unknown = self.first_unknown.or(later.first_unknown);
    }

    fn truncate(&mut self, relation: Relation, later: Truncation) {
        let of_relation = self.truncated.entry(relation).or_insert(later);
        *of_relation = Truncation { blocks: of_relation.blocks.min(later.blocks), end: later.end };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relation::Relation;

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn add(changes: &mut FileChanges, at: u64, (rmid, info): (u8, u8), words: &[u32]) {
        let header = RecordHeader { total_length: 24, xid: 5, previous: Lsn(0), info, rmid, crc: 0 };
        let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        changes.add((Lsn(at), Lsn(at + 8)), &header, &data, version());
    }

    #[test]
    fn stretches_are_joined_in_their_order() {
        let relation = |number| Relation { tablespace: 1663, database: 5, number };
        let (mut one, mut other) = (FileChanges::default(), FileChanges::default());
        add(&mut one, 8, (4, 0x01), &[6, 1663, 5, 1663]);
        add(&mut one, 16, (2, 0x11), &[1663, 5, 77, 0]);
        add(&mut one, 24, (2, 0x11), &[1663, 5, 77, 2]);
        add(&mut one, 32, (2, 0x21), &[12, 1663, 5, 79, 1]);
        add(&mut one, 40, (0, 0xA0), &[]);
        // A heap insert and a commit concern no files.
        add(&mut one, 48, (10, 0x00), &[1, 2, 3, 4]);
        add(&mut other, 64, (2, 0x21), &[7, 1663, 5, 79, 1]);
        add(&mut other, 72, (0, 0x80), &[0]);
        add(&mut other, 80, (0, 0xA0), &[]);
        one.append(other);
        let dir = |database| DatabaseDir { tablespace: 1663, database };
        assert_eq!(
            one.events,
            [
                FileEvent {
                    lsn: Lsn(8),
                    end: Lsn(16),
                    kind: FileEventKind::CopyDatabase { to: dir(6), from: dir(5) }
                },
                FileEvent {
                    lsn: Lsn(72),
                    end: Lsn(80),
                    kind: FileEventKind::FullPageWrites { are_on: false }
                },
            ]
        );
        assert_eq!(one.created, BTreeMap::from([(relation(77), Lsn(32))]));
        let truncation = Truncation { blocks: BlockNumber(7), end: Lsn(72) };
        assert_eq!(one.truncated, BTreeMap::from([(relation(79), truncation)]));
        assert_eq!(one.first_hint_image, Some(Lsn(40)));
    }
}
