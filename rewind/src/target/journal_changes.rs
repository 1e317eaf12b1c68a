//! What the target's WAL says about files, as the journal has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use walparse::{BlockNumber, DatabaseDir, FileChanges, FileEvent, FileEventKind, Lsn, Relation, Truncation};

/// Tablespace, database and relation number.
type StoredRelation = (u32, u32, u32);

/// Tablespace and database.
type StoredDirectory = (u32, u32);

/// [`FileChanges`] as numbers.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredChanges {
    events: Vec<(u64, u64, StoredEvent)>,
    created: Vec<(StoredRelation, u64)>,
    truncated: Vec<(StoredRelation, u32, u64)>,
    first_hint_image: Option<u64>,
    first_unknown: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum StoredEvent {
    CopyDatabase { to: StoredDirectory, from: StoredDirectory },
    DropDatabase(Vec<StoredDirectory>),
    CreateTablespace { tablespace: u32, path: String },
    DropTablespace { tablespace: u32 },
    Settings { wal_level: u32, wal_log_hints: bool },
    FullPageWrites { are_on: bool },
}

impl StoredChanges {
    pub(super) fn of(changes: &FileChanges) -> StoredChanges {
        let event = |event: &FileEvent| Some((event.lsn.0, event.end.0, StoredEvent::of(&event.kind)?));
        let truncated = changes.truncated.iter();
        StoredChanges {
            events: changes.events.iter().filter_map(event).collect(),
            created: changes.created.iter().map(|(relation, end)| (numbers(*relation), end.0)).collect(),
            truncated: truncated.map(|(relation, by)| (numbers(*relation), by.blocks.0, by.end.0)).collect(),
            first_hint_image: changes.first_hint_image.map(|lsn| lsn.0),
            first_unknown: changes.first_unknown.map(|lsn| lsn.0),
        }
    }

    pub(super) fn restore(self) -> FileChanges {
        let mut changes = FileChanges::default();
        let event =
            |(lsn, end, event): (u64, u64, StoredEvent)| FileEvent::new(Lsn(lsn), Lsn(end), event.restore());
        changes.events = self.events.into_iter().map(event).collect();
        changes.created =
            self.created.into_iter().map(|(numbers, end)| (relation(numbers), Lsn(end))).collect();
        let truncation = |(numbers, blocks, end)| {
            (relation(numbers), Truncation { blocks: BlockNumber(blocks), end: Lsn(end) })
        };
        changes.truncated = self.truncated.into_iter().map(truncation).collect::<BTreeMap<_, _>>();
        changes.first_hint_image = self.first_hint_image.map(Lsn);
        changes.first_unknown = self.first_unknown.map(Lsn);
        changes
    }
}

impl StoredEvent {
    /// `None` for a kind of event on which no decision about a target depends.
    fn of(kind: &FileEventKind) -> Option<StoredEvent> {
        let directory = |of: &DatabaseDir| (of.tablespace, of.database);
        Some(match kind {
            FileEventKind::CopyDatabase { to, from } => {
                StoredEvent::CopyDatabase { to: directory(to), from: directory(from) }
            }
            FileEventKind::DropDatabase(of) => StoredEvent::DropDatabase(of.iter().map(directory).collect()),
            FileEventKind::CreateTablespace { tablespace, path } => {
                StoredEvent::CreateTablespace { tablespace: *tablespace, path: path.clone() }
            }
            FileEventKind::DropTablespace { tablespace } => {
                StoredEvent::DropTablespace { tablespace: *tablespace }
            }
            FileEventKind::Settings { wal_level, wal_log_hints } => {
                StoredEvent::Settings { wal_level: *wal_level, wal_log_hints: *wal_log_hints }
            }
            FileEventKind::FullPageWrites { are_on } => StoredEvent::FullPageWrites { are_on: *are_on },
            _ => return None,
        })
    }

    fn restore(self) -> FileEventKind {
        let directory = |(tablespace, database)| DatabaseDir { tablespace, database };
        match self {
            StoredEvent::CopyDatabase { to, from } => {
                FileEventKind::CopyDatabase { to: directory(to), from: directory(from) }
            }
            StoredEvent::DropDatabase(of) => {
                FileEventKind::DropDatabase(of.into_iter().map(directory).collect())
            }
            StoredEvent::CreateTablespace { tablespace, path } => {
                FileEventKind::CreateTablespace { tablespace, path }
            }
            StoredEvent::DropTablespace { tablespace } => FileEventKind::DropTablespace { tablespace },
            StoredEvent::Settings { wal_level, wal_log_hints } => {
                FileEventKind::Settings { wal_level, wal_log_hints }
            }
            StoredEvent::FullPageWrites { are_on } => FileEventKind::FullPageWrites { are_on },
        }
    }
}

fn numbers(relation: Relation) -> StoredRelation {
    (relation.tablespace, relation.database, relation.number)
}

fn relation((tablespace, database, number): StoredRelation) -> Relation {
    Relation { tablespace, database, number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_changes_come_back() {
        let dir = |database| DatabaseDir { tablespace: 1663, database };
        let table = Relation { tablespace: 1663, database: 5, number: 16384 };
        let kinds = [
            FileEventKind::CopyDatabase { to: dir(6), from: dir(5) },
            FileEventKind::DropDatabase(vec![dir(6), dir(7)]),
            FileEventKind::CreateTablespace { tablespace: 9, path: "/space".into() },
            FileEventKind::DropTablespace { tablespace: 9 },
            FileEventKind::Settings { wal_level: 1, wal_log_hints: true },
            FileEventKind::FullPageWrites { are_on: false },
        ];
        let mut changes = FileChanges::default();
        let events = (1..).zip(kinds).map(|(at, kind)| FileEvent::new(Lsn(at * 8), Lsn(at * 8 + 8), kind));
        changes.events = events.collect();
        changes.created = BTreeMap::from([(table, Lsn(88))]);
        changes.truncated = BTreeMap::from([(table, Truncation { blocks: BlockNumber(3), end: Lsn(96) })]);
        (changes.first_hint_image, changes.first_unknown) = (Some(Lsn(104)), Some(Lsn(112)));
        let text = serde_json::to_string(&StoredChanges::of(&changes)).unwrap();
        let stored: StoredChanges = serde_json::from_str(&text).unwrap();
        assert_eq!(stored.restore(), changes);
    }
}
