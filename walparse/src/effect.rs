//! What records do besides changing blocks: they end transactions; create and drop relations, databases and tablespaces;
//! and mark checkpoints and timelines.
//!
//! To display records only. What a rewind's decisions depend on is in [`rmgr`](crate::rmgr).

use crate::checkpoint::Checkpoint;
use crate::error::WalFault;
use crate::lsn::{BlockNumber, Lsn, TimelineId};
use crate::record::{Fields, RecordHeader};
use crate::relation::{Fork, Relation};
use crate::rmgr;
use crate::version::Version;

/// A time, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Microseconds(pub i64);

/// The effect of a record.
///
/// ```
/// use walparse::{Effect, Lsn, RecordHeader, Version};
///
/// let version = Version::find(1300, 202_209_061).expect("PostgreSQL 15");
/// // A `COMMIT` (resource manager 1, opcode 0x00) with nothing but its time.
/// let header = RecordHeader { total_length: 34, xid: 731, previous: Lsn(0x16B_0374), info: 0x00, rmid: 1, crc: 0 };
/// match Effect::of(&header, &[0; 8], version) {
///     Some(Effect::Finish(finish)) => assert!(finish.is_commit && finish.xid == 731),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A transaction ends.
    Finish(Finish),
    /// The file of a relation fork is created.
    CreateRelation {
        /// The relation.
        relation: Relation,
        /// The fork.
        fork: Fork,
    },
    /// A relation is truncated.
    TruncateRelation {
        /// The relation.
        relation: Relation,
        /// Its new length in blocks.
        blocks: BlockNumber,
    },
    /// A database is created by copying the directory of another one.
    CopyDatabase {
        /// The directory of the new database.
        to: DatabaseDir,
        /// The directory that is copied.
        from: DatabaseDir,
    },
    /// The directory of a database is created, empty; other records fill it.
    CreateDatabase(DatabaseDir),
    /// The directories of a database are removed.
    DropDatabase(Vec<DatabaseDir>),
    /// A tablespace is created.
    CreateTablespace {
        /// Its OID.
        tablespace: u32,
        /// Its location.
        path: String,
    },
    /// A tablespace is dropped.
    DropTablespace {
        /// Its OID.
        tablespace: u32,
    },
    /// The relation map file (`pg_filenode.map`) of a database is replaced.
    UpdateRelationMap(DatabaseDir),
    /// A new timeline starts.
    EndOfRecovery {
        /// When.
        time: Microseconds,
        /// The new timeline.
        timeline: TimelineId,
        /// The timeline before.
        previous: TimelineId,
    },
    /// A named restore point.
    RestorePoint {
        /// When.
        time: Microseconds,
        /// Its name.
        name: String,
    },
    /// A record torn by a crash is marked as overwritten.
    OverwriteContrecord {
        /// Where the torn record starts.
        torn: Lsn,
        /// When.
        time: Microseconds,
    },
    /// `full_page_writes` changes.
    FullPageWrites {
        /// Whether they are on from here on.
        are_on: bool,
    },
    /// The running transactions are logged, for standbys.
    RunningTransactions(RunningTransactions),
    /// Logical decoding is enabled or disabled (since 19).
    LogicalDecoding {
        /// Whether it is enabled from here on.
        is_enabled: bool,
    },
    /// Settings that affect standbys have changed.
    ParameterChange {
        /// `wal_level`
        wal_level: u32,
        /// `wal_log_hints`
        wal_log_hints: bool,
    },
}

/// The directory of a database in a tablespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DatabaseDir {
    /// The tablespace.
    pub tablespace: u32,
    /// The database; 0 for shared relations.
    pub database: u32,
}

/// The transactions that were running when they were logged (`xl_running_xacts`). A standby that has just started admits no
/// session until it knows them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunningTransactions {
    /// Whether subtransactions are missing from the record: a transaction has had more than 64 of them.
    pub is_overflowed: bool,
    /// The next transaction ID.
    pub next_xid: u32,
    /// The oldest ID of a running transaction.
    pub oldest_xid: u32,
}

impl RunningTransactions {
    /// Whether a standby that starts with these records, in the order of the WAL, knows all running transactions after the
    /// last one; if there are none, it does.
    ///
    /// Source: `ProcArrayApplyRecoveryInfo` (procarray.c). After an overflowed record it waits for one that is not, or for the
    /// end of all transactions that had begun by then.
    pub fn are_known_after(records: impl IntoIterator<Item = RunningTransactions>) -> bool {
        let mut pending = None;
        for running in records {
            // Transaction IDs are compared modulo 2^32.
            let have_ended = |last: u32| last.wrapping_sub(running.oldest_xid).cast_signed() < 0;
            if !running.is_overflowed || pending.is_some_and(have_ended) {
                return true;
            }
            pending = pending.or(Some(running.next_xid.wrapping_sub(1)));
        }
        pending.is_none()
    }
}

/// The end of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finish {
    /// Whether it commits; otherwise it aborts.
    pub is_commit: bool,
    /// The transaction ID. If the transaction was prepared, this is not the one in the record header.
    pub xid: u32,
    /// When.
    pub time: Microseconds,
    /// The database; `None` if the record does not say it, as when nothing local to a database has changed.
    pub database: Option<u32>,
    /// The subtransactions that end with it.
    pub subtransactions: Vec<u32>,
    /// The relations whose files are removed with it.
    pub dropped: Vec<Relation>,
}

impl Finish {
    /// The end of a transaction; `None` if this record of the resource manager `Transaction` is none, or is malformed.
    pub(crate) fn of(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<Finish> {
        finish(header, &mut Fields { bytes: main_data }, version).ok()
    }
}

impl Effect {
    /// The effect of a record with this header and main data; `None` if it has no such effect or if the main data is
    /// malformed.
    pub fn of(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<Effect> {
        let mut data = Fields { bytes: main_data };
        match rmgr::postgresql_id(header.rmid, version)? {
            0 => of_xlog(header.info & 0xF0, &mut data),
            1 => finish(header, &mut data, version).map(Effect::Finish),
            2 => of_storage(header.info & 0xF0, &mut data),
            4 => of_database(header.info & 0xF0, &mut data, version),
            5 => of_tablespace(header.info & 0xF0, &mut data),
            7 => database_dir(&mut data).map(Effect::UpdateRelationMap),
            8 => of_standby(header.info & 0xF0, &mut data),
            _ => return None,
        }
        .ok()
    }
}

/// The relation map file of a database as a record has written it; `None` for other records.
pub fn relation_map_update<'a>(
    header: &RecordHeader,
    main_data: &'a [u8],
    version: Version,
) -> Option<(DatabaseDir, &'a [u8])> {
    if rmgr::postgresql_id(header.rmid, version)? != 7 {
        return None;
    }
    let mut data = Fields { bytes: main_data };
    let dir = database_dir(&mut data).ok()?;
    let length = data.u32().ok()? as usize;
    Some((dir, data.take(length).ok()?))
}

type Parsed<T> = Result<T, WalFault>;

/// The record has no such effect. Handled like malformed data, as [`Effect::of`] does not tell them apart.
const OTHER: WalFault = WalFault::Fragment("no such effect");

fn of_xlog(opcode: u8, data: &mut Fields<'_>) -> Parsed<Effect> {
    Ok(match opcode {
        0x00 | 0x10 => Effect::Checkpoint(Checkpoint::parse(data.bytes).ok_or(OTHER)?),
        0x60 => {
            // wal_level is the last of five (before 12) or six numbers; it is followed by two flags, padded to four bytes.
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
        0xF0 => Effect::LogicalDecoding { is_enabled: data.u8()? != 0 },
        0xD0 => Effect::OverwriteContrecord { torn: Lsn(data.u64()?), time: time(data)? },
        _ => return Err(OTHER),
    })
}

/// The main data of a commit or abort has these parts, in this order. A part is present if its bit is set in `xinfo`,
/// which is present if the highest bit of the info byte is set.
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
    let database = if has(0x01) { Some(database_dir(data)?.database) } else { None };
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
        database,
        subtransactions: subtransactions.collect::<Parsed<_>>()?,
        dropped: dropped.collect::<Parsed<_>>()?,
    })
}

/// Whether a transaction that ends with this record has changed catalogs: it has messages for the caches of others. With
/// `wal_level = minimal` they are not logged.
pub(crate) fn has_invalidations(header: &RecordHeader, main_data: &[u8]) -> bool {
    let has_flags = header.info & 0x80 != 0;
    has_flags && main_data.get(8).is_some_and(|flags| flags & 0x08 != 0)
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

/// A database and a tablespace up to 12, a database and a list of tablespaces since 13.
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

/// Numbers of transactions and of subtransactions, a flag padded to four bytes, and transaction IDs.
fn of_standby(opcode: u8, data: &mut Fields<'_>) -> Parsed<Effect> {
    if opcode != 0x10 {
        return Err(OTHER);
    }
    data.take(8)?;
    let is_overflowed = data.u8()? != 0;
    data.take(3)?;
    Ok(Effect::RunningTransactions(RunningTransactions {
        is_overflowed,
        next_xid: data.u32()?,
        oldest_xid: data.u32()?,
    }))
}

fn database_dir(data: &mut Fields<'_>) -> Parsed<DatabaseDir> {
    let database = data.u32()?;
    Ok(DatabaseDir { tablespace: data.u32()?, database })
}

pub(crate) fn relation(data: &mut Fields<'_>) -> Parsed<Relation> {
    Ok(Relation { tablespace: data.u32()?, database: data.u32()?, number: data.u32()? })
}

/// The bytes of a list: the number of items, followed by the items of `size` bytes each.
fn items<'a>(data: &mut Fields<'a>, size: usize) -> Parsed<&'a [u8]> {
    let count = data.u32()? as usize;
    data.take(count.checked_mul(size).ok_or(OTHER)?)
}

/// A `TimestampTz`: microseconds since 2000-01-01 UTC.
fn time(data: &mut Fields<'_>) -> Parsed<Microseconds> {
    const EPOCH: i64 = 946_684_800_000_000;
    data.u64().map(|since| Microseconds(since.cast_signed().saturating_add(EPOCH)))
}

/// Text terminated by a NUL.
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
    fn a_commit_lists_its_subtransactions_and_dropped_relations() {
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
            database: Some(16384),
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
    fn records_of_databases_and_relation_files() {
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

    #[test]
    fn running_transactions_may_lack_subtransactions() {
        let of = |flag| effect(8, 0x10, &[1, 0, flag, 731, 700, 730, 700]);
        let expected = |is_overflowed| {
            Some(Effect::RunningTransactions(RunningTransactions {
                is_overflowed,
                next_xid: 731,
                oldest_xid: 700,
            }))
        };
        // Of the flag's four bytes three are padding, which may have any value.
        assert_eq!((of(1), of(0xFFFF_FF00)), (expected(true), expected(false)));
        assert_eq!((effect(8, 0x00, &[1, 0, 1, 731, 700]), effect(8, 0x10, &[1, 0, 1, 731])), (None, None));
    }

    #[test]
    fn a_standby_waits_for_transactions_that_it_does_not_know() {
        let overflowed =
            |next_xid, oldest_xid| RunningTransactions { is_overflowed: true, next_xid, oldest_xid };
        let known = RunningTransactions { is_overflowed: false, next_xid: 900, oldest_xid: 900 };
        let are_known =
            |records: &[RunningTransactions]| RunningTransactions::are_known_after(records.iter().copied());
        assert!(are_known(&[]) && are_known(&[known]) && are_known(&[known, overflowed(900, 800)]));
        assert!(
            !are_known(&[overflowed(731, 700)]) && !are_known(&[overflowed(731, 700), overflowed(800, 730)])
        );
        assert!(are_known(&[overflowed(731, 700), known]));
        // Those of the first record have ended; others run.
        assert!(are_known(&[overflowed(731, 700), overflowed(800, 731)]));
        assert!(are_known(&[overflowed(u32::MAX, u32::MAX - 9), overflowed(90, 7)]));
    }
}
