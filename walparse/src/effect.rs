//! What records do besides changing blocks, as far as one wants to see it around a rewind: transactions
//! that end, relations, databases and tablespaces that come and go, checkpoints, timelines.
//!
//! For showing records only. What a rewind decides by is in [`rmgr`](crate::rmgr).

use crate::checkpoint::Checkpoint;
use crate::error::WalFault;
use crate::lsn::{BlockNumber, Lsn};
use crate::record::{Fields, RecordHeader};
use crate::relation::{Fork, Relation};
use crate::rmgr;
use crate::timeline::TimelineId;
use crate::version::Version;

/// A moment, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Microseconds(pub i64);

/// The effect of one record.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A transaction ends.
    Finish(Finish),
    /// A relation's file is made.
    CreateRelation {
        /// The relation.
        relation: Relation,
        /// Which fork of it.
        fork: Fork,
    },
    /// A relation gets shorter.
    TruncateRelation {
        /// The relation.
        relation: Relation,
        /// The blocks it keeps.
        blocks: BlockNumber,
    },
    /// A database is made as a copy of another's directory.
    CopyDatabase {
        /// The new one.
        to: DatabaseDir,
        /// The other.
        from: DatabaseDir,
    },
    /// A database is made, empty: its blocks follow.
    CreateDatabase(DatabaseDir),
    /// A database's directories are removed.
    DropDatabase(Vec<DatabaseDir>),
    /// A tablespace is made.
    CreateTablespace {
        /// Its OID.
        tablespace: u32,
        /// Where it is.
        path: String,
    },
    /// A tablespace is removed.
    DropTablespace {
        /// Its OID.
        tablespace: u32,
    },
    /// A database's map of relation files changes.
    UpdateRelationMap(DatabaseDir),
    /// A new timeline starts.
    EndOfRecovery {
        /// When.
        time: Microseconds,
        /// The new timeline.
        timeline: TimelineId,
        /// The one before.
        previous: TimelineId,
    },
    /// A restore point.
    RestorePoint {
        /// When.
        time: Microseconds,
        /// Its name.
        name: String,
    },
    /// A record torn by a crash is declared void.
    OverwriteContrecord {
        /// Where that one starts.
        torn: Lsn,
        /// When.
        time: Microseconds,
    },
    /// Full-page writes are switched.
    FullPageWrites {
        /// On from here on.
        are_on: bool,
    },
    /// Settings that a standby must know changed.
    ParameterChange {
        /// `wal_level`
        wal_level: u32,
        /// `wal_log_hints`
        wal_log_hints: bool,
    },
}

/// The directory of a database in a tablespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatabaseDir {
    /// The tablespace.
    pub tablespace: u32,
    /// The database; 0 for what all databases share.
    pub database: u32,
}

/// The end of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finish {
    /// Whether its changes count.
    pub is_commit: bool,
    /// The transaction, which the record's header does not name if it had been prepared.
    pub xid: u32,
    /// When.
    pub time: Microseconds,
    /// Its subtransactions that end with it.
    pub subtransactions: Vec<u32>,
    /// The relations whose files are removed with it.
    pub dropped: Vec<Relation>,
}

impl Effect {
    /// What a record with this header and main data does; `None` if that is none of the above, or if the
    /// data is not what it should be.
    pub fn of(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<Effect> {
        let mut data = Fields { bytes: main_data };
        match rmgr::postgresql_id(header.rmid, version)? {
            0 => of_xlog(header.info & 0xF0, &mut data),
            1 => finish(header, &mut data, version).map(Effect::Finish),
            2 => of_storage(header.info & 0xF0, &mut data),
            4 => of_database(header.info & 0xF0, &mut data, version),
            5 => of_tablespace(header.info & 0xF0, &mut data),
            7 => database_dir(&mut data).map(Effect::UpdateRelationMap),
            _ => return None,
        }
        .ok()
    }
}

type Parsed<T> = Result<T, WalFault>;

/// No record of ours: the same as data that is too short, for there is nobody to tell.
const OTHER: WalFault = WalFault::Fragment("no such effect");

fn of_xlog(opcode: u8, data: &mut Fields<'_>) -> Parsed<Effect> {
    Ok(match opcode {
        0x00 | 0x10 => Effect::Checkpoint(Checkpoint::parse(data.bytes).ok_or(OTHER)?),
        0x60 => {
            // wal_level is the last of five or, from 12 on, six numbers; two flags follow in the last four bytes.
            let numbers = data.bytes.len().saturating_sub(8);
            data.take(numbers)?;
            Effect::ParameterChange { wal_level: data.u32()?, wal_log_hints: data.u8()? != 0 }
        }
        0x70 => Effect::RestorePoint { time: time(data)?, name: text(data.bytes) },
        0x80 => Effect::FullPageWrites { are_on: data.u8()? != 0 },
        0x90 => Effect::EndOfRecovery {
            time: time(data)?,
            timeline: TimelineId(data.u32()?),
            previous: TimelineId(data.u32()?),
        },
        0xD0 => Effect::OverwriteContrecord { torn: Lsn(data.u64()?), time: time(data)? },
        _ => return Err(OTHER),
    })
}

/// The parts of the main data of a commit or abort, in this order; each is there if its bit is set in
/// `xinfo`, which itself is there if the highest bit of the info byte is.
///
/// ```text
/// i64 xact_time, u32 xinfo, [0x01] u32 db, u32 ts, [0x02] i32 n, n * u32 xid,
/// [0x04] i32 n, n * relation, [0x100] i32 n, n * dropped statistics, [0x08] i32 n, n * 16 bytes,
/// [0x10] u32 xid of the prepared transaction, ...
/// ```
fn finish(header: &RecordHeader, data: &mut Fields<'_>, version: Version) -> Parsed<Finish> {
    let is_commit = match header.info & 0x70 {
        0x00 | 0x30 => true,
        0x20 | 0x40 => false,
        _ => return Err(OTHER),
    };
    let time = time(data)?;
    let xinfo = if header.info & 0x80 != 0 { data.u32()? } else { 0 };
    let has = |bit: u32| xinfo & bit != 0;
    if has(0x01) {
        data.take(8)?;
    }
    let xids = if has(0x02) { items(data, 4)? } else { &[] };
    let relations = if has(0x04) { items(data, 12)? } else { &[] };
    if has(0x100) {
        items(data, if version.server_version_num() >= 180_000 { 16 } else { 12 })?;
    }
    if has(0x08) {
        items(data, 16)?;
    }
    let xid = if has(0x10) { data.u32()? } else { header.xid };
    let subtransactions = xids.chunks_exact(4).map(|xid| Fields { bytes: xid }.u32());
    let dropped = relations.chunks_exact(12).map(|bytes| relation(&mut Fields { bytes }));
    Ok(Finish {
        is_commit,
        xid,
        time,
        subtransactions: subtransactions.collect::<Parsed<_>>()?,
        dropped: dropped.collect::<Parsed<_>>()?,
    })
}

fn of_storage(opcode: u8, data: &mut Fields<'_>) -> Parsed<Effect> {
    Ok(match opcode {
        0x10 => {
            let relation = relation(data)?;
            let fork = u8::try_from(data.u32()?).ok().and_then(Fork::from_raw).ok_or(OTHER)?;
            Effect::CreateRelation { relation, fork }
        }
        0x20 => {
            let blocks = BlockNumber(data.u32()?);
            Effect::TruncateRelation { relation: relation(data)?, blocks }
        }
        _ => return Err(OTHER),
    })
}

fn of_database(opcode: u8, data: &mut Fields<'_>, version: Version) -> Parsed<Effect> {
    if opcode == version.database_drop_info() {
        return drop_database(data, version);
    }
    Ok(match opcode {
        0x00 => Effect::CopyDatabase { to: database_dir(data)?, from: database_dir(data)? },
        0x10 => Effect::CreateDatabase(database_dir(data)?),
        _ => return Err(OTHER),
    })
}

/// Up to 12 a database and a tablespace, from 13 on a database and a list of tablespaces.
fn drop_database(data: &mut Fields<'_>, version: Version) -> Parsed<Effect> {
    if version.server_version_num() < 130_000 {
        return Ok(Effect::DropDatabase(vec![database_dir(data)?]));
    }
    let database = data.u32()?;
    let dirs = items(data, 4)?.chunks_exact(4).map(|bytes| {
        let tablespace = Fields { bytes }.u32()?;
        Ok(DatabaseDir { tablespace, database })
    });
    dirs.collect::<Parsed<_>>().map(Effect::DropDatabase)
}

fn of_tablespace(opcode: u8, data: &mut Fields<'_>) -> Parsed<Effect> {
    let tablespace = data.u32()?;
    match opcode {
        0x00 => Ok(Effect::CreateTablespace { tablespace, path: text(data.bytes) }),
        0x10 => Ok(Effect::DropTablespace { tablespace }),
        _ => Err(OTHER),
    }
}

fn database_dir(data: &mut Fields<'_>) -> Parsed<DatabaseDir> {
    let database = data.u32()?;
    Ok(DatabaseDir { tablespace: data.u32()?, database })
}

fn relation(data: &mut Fields<'_>) -> Parsed<Relation> {
    Ok(Relation { tablespace: data.u32()?, database: data.u32()?, number: data.u32()? })
}

/// The bytes of a list: its number of items, then the items, `size` bytes each.
fn items<'a>(data: &mut Fields<'a>, size: usize) -> Parsed<&'a [u8]> {
    let count = data.u32()? as usize;
    data.take(count.checked_mul(size).ok_or(OTHER)?)
}

/// `TimestampTz`: microseconds since 2000-01-01 UTC.
fn time(data: &mut Fields<'_>) -> Parsed<Microseconds> {
    const EPOCH: i64 = 946_684_800_000_000;
    data.u64().map(|since| Microseconds(since.cast_signed().saturating_add(EPOCH)))
}

/// Text up to its NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn effect(rmid: u8, info: u8, words: &[u32]) -> Option<Effect> {
        let header = RecordHeader { total_length: 24, xid: 5, previous: Lsn(0), info, rmid, crc: 0 };
        let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Effect::of(&header, &data, version())
    }

    #[test]
    fn a_commit_names_its_subtransactions_and_dropped_relations() {
        let all = [
            0, 0, 0x11F, 16384, 1663, // time, xinfo, database
            2, 7, 8, // subtransactions
            1, 1663, 16384, 99, // relations
            1, 2, 16384, 99, // statistics
            1, 0, 0, 0, 0, // invalidations
            6, // prepared as
        ];
        let finish = Finish {
            is_commit: true,
            xid: 6,
            time: Microseconds(946_684_800_000_000),
            subtransactions: vec![7, 8],
            dropped: vec![Relation { tablespace: 1663, database: 16384, number: 99 }],
        };
        assert_eq!(effect(1, 0xB0, &all), Some(Effect::Finish(finish)));
        for length in 0..all.len() {
            assert_eq!(effect(1, 0xB0, &all[..length]), None, "{length} words");
        }
        match effect(1, 0x20, &[0, 0]) {
            Some(Effect::Finish(finish)) => assert!(!finish.is_commit && finish.xid == 5),
            other => panic!("{other:?}"),
        }
        assert_eq!(effect(1, 0x80, &[0, 0, 2, u32::MAX, 1]), None);
    }

    #[test]
    fn databases_and_files() {
        let dir = |tablespace, database| DatabaseDir { tablespace, database };
        assert_eq!(
            effect(4, 0x01, &[5, 1663, 1, 1664]),
            Some(Effect::CopyDatabase { to: dir(1663, 5), from: dir(1664, 1) })
        );
        assert_eq!(
            effect(4, 0x21, &[5, 2, 1663, 77]),
            Some(Effect::DropDatabase(vec![dir(1663, 5), dir(77, 5)]))
        );
        assert_eq!(effect(4, 0x21, &[5, 3, 1663, 77]), None);
        let relation = Relation { tablespace: 1663, database: 5, number: 6 };
        assert_eq!(
            effect(2, 0x11, &[1663, 5, 6, 3]),
            Some(Effect::CreateRelation { relation, fork: Fork::Init })
        );
        assert_eq!(effect(2, 0x11, &[1663, 5, 6, 4]), None);
        assert_eq!(
            effect(2, 0x21, &[12, 1663, 5, 6, 7]),
            Some(Effect::TruncateRelation { relation, blocks: BlockNumber(12) })
        );
        assert_eq!(effect(10, 0x00, &[1, 2, 3, 4]), None);
    }
}
