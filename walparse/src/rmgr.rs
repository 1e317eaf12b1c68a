//! Resource managers: their IDs and names, and the few records that a rewind must understand.

use byteorder::{ByteOrder, LittleEndian};

use crate::flavor::POSTGRESQL_RMGRS;
use crate::lsn::Lsn;
use crate::record::{BlockRef, Record, RecordHeader};
use crate::version::Version;

const XLOG: u8 = 0;
pub(crate) const TRANSACTION: u8 = 1;
const STORAGE: u8 = 2;
pub(crate) const DATABASE: u8 = 4;
const TABLESPACE: u8 = 5;
pub(crate) const RELATION_MAP: u8 = 7;
const STANDBY: u8 = 8;
pub(crate) const SEQUENCE: u8 = 15;
const FIRST_CUSTOM: u8 = 128;

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const RUNNING_XACTS: u8 = 0x10;
const SWITCH: u8 = 0x40;
const PARAMETER_CHANGE: u8 = 0x60;
const FULL_PAGE_WRITES_CHANGE: u8 = 0x80;
const FULL_PAGE_IMAGE_FOR_HINT: u8 = 0xA0;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// The name as printed by pg_waldump; `custom` and the ID if it is not a built-in resource manager.
pub fn name(rmid: u8, version: Version) -> String {
    match version.flavor().rmgrs().get(usize::from(rmid)) {
        Some(name) => (*name).to_owned(),
        None => format!("custom{rmid:03}"),
    }
}

/// The number of built-in resource managers; their IDs start at 0.
pub fn built_in(version: Version) -> u8 {
    u8::try_from(version.flavor().rmgrs().len()).unwrap_or(u8::MAX)
}

/// The ID in PostgreSQL of the resource manager that has the ID `rmid` in the version's flavor; `None` if PostgreSQL has
/// no such resource manager.
#[inline]
pub(crate) fn postgresql_id(rmid: u8, version: Version) -> Option<u8> {
    let known = version.flavor().rmgrs();
    // Fast path, because this is called for every full-page image.
    if std::ptr::eq(known, POSTGRESQL_RMGRS.as_slice()) {
        return (usize::from(rmid) < known.len()).then_some(rmid);
    }
    postgresql_id_by_name(known.get(usize::from(rmid))?)
}

#[cold]
fn postgresql_id_by_name(name: &str) -> Option<u8> {
    let id = POSTGRESQL_RMGRS.iter().position(|other| *other == name)?;
    u8::try_from(id).ok()
}

/// Whether a record of this version may have this resource manager ID.
pub(crate) fn is_valid_id(rmid: u8, version: Version) -> bool {
    rmid < built_in(version) || (rmid >= FIRST_CUSTOM && version.has_custom_rmgrs())
}

/// Whether the record may be one of those that [`FileChanges`](crate::FileChanges) lists.
#[inline]
pub(crate) fn concerns_files(header: &RecordHeader) -> bool {
    match header.rmid {
        XLOG => matches!(
            header.info & 0xF0,
            CHECKPOINT_SHUTDOWN
                | CHECKPOINT_ONLINE
                | PARAMETER_CHANGE
                | FULL_PAGE_WRITES_CHANGE
                | FULL_PAGE_IMAGE_FOR_HINT
        ),
        STORAGE | DATABASE | TABLESPACE => true,
        _ => false,
    }
}

/// Whether the record is a full-page image that was logged because a hint bit was set (`XLOG_FPI_FOR_HINT`).
pub fn is_hint_image(header: &RecordHeader) -> bool {
    header.rmid == XLOG && header.info & 0xF0 == FULL_PAGE_IMAGE_FOR_HINT
}

/// Whether the record says which transactions are running (`XLOG_RUNNING_XACTS`).
#[inline]
pub(crate) fn is_running_transactions(header: &RecordHeader, version: Version) -> bool {
    header.info & 0xF0 == RUNNING_XACTS && postgresql_id(header.rmid, version) == Some(STANDBY)
}

/// Whether the record is a shutdown checkpoint.
pub(crate) fn is_shutdown(header: &RecordHeader) -> bool {
    header.rmid == XLOG && header.info & 0xF0 == CHECKPOINT_SHUTDOWN
}

/// Whether the record prepares a transaction.
pub fn is_prepare(header: &RecordHeader) -> bool {
    header.rmid == TRANSACTION && header.info & 0x70 == 0x10
}

/// Whether the record commits or rolls back a prepared transaction.
pub(crate) fn ends_prepared(header: &RecordHeader) -> bool {
    header.rmid == TRANSACTION && matches!(header.info & 0x70, 0x30 | 0x40)
}

/// Whether the record is an online or shutdown checkpoint.
pub fn is_checkpoint(header: &RecordHeader) -> bool {
    header.rmid == XLOG && matches!(header.info & 0xF0, CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE)
}

/// Whether the record is an `XLOG_SWITCH`: the next record starts in the next segment.
pub fn is_switch(header: &RecordHeader) -> bool {
    header.rmid == XLOG && header.info & 0xF0 == SWITCH
}

/// For an `XLOG_OVERWRITE_CONTRECORD`: the start of the torn record that it marks as overwritten.
pub fn overwritten_record(record: &Record<'_>, main_data: &[u8]) -> Option<Lsn> {
    let is_overwrite = record.header.rmid == XLOG && record.header.info & 0xF0 == OVERWRITE_CONTRECORD;
    let lsn = main_data.get(..8).filter(|_| is_overwrite)?;
    Some(Lsn(LittleEndian::read_u64(lsn)))
}

/// Whether replay of the record rebuilds the page of `block` without reading it: it restores a full-page image or
/// initializes the page. `false` for resource managers that PostgreSQL does not have, because what their replay does is
/// unknown.
///
/// Source: `XLogReadBufferForRedoExtended` (xlogutils.c), which does not read the page in either case.
pub fn rebuilds(header: &RecordHeader, block: &BlockRef, version: Version) -> bool {
    (block.will_init || block.image.is_some_and(|image| image.is_applied))
        && postgresql_id(header.rmid, version).is_some()
}

/// Whether replay of the record copies relation files in their current state (a database is created by copying files or
/// moved to another tablespace), or may do so because its effect is unknown.
pub fn may_copy_files(header: &RecordHeader, version: Version) -> bool {
    let is_unknown = || postgresql_id(header.rmid, version).is_none();
    (header.rmid == DATABASE && header.info & 0xF0 == 0x00)
        || (header.is_special_relation_update() && is_unknown())
}

/// Whether a rewind can ignore that a record changes relation files beyond its block references
/// ([`RecordHeader::is_special_relation_update`]), because comparing the lists of files is enough.
pub fn is_known_relation_change(header: &RecordHeader, version: Version) -> bool {
    let info = header.info & 0xF0;
    match header.rmid {
        // A database created only on the target does not exist on the source and is removed; one created on both
        // sides is created again by replay.
        DATABASE if info == 0x00 => true,
        // The dropped files are missing on the target and are copied.
        DATABASE if info == version.database_drop_info() => true,
        // CREATE_WAL_LOG: the blocks are in the WAL, the files in the lists of files.
        DATABASE => version.database_drop_info() == 0x20 && info == 0x10,
        // Created and truncated files appear in the lists of files: a file that exists only on the target is removed,
        // and the missing tail of a truncated file is copied.
        STORAGE => matches!(info, 0x10 | 0x20),
        // Relations dropped by a commit or an abort are missing on the target and are copied.
        TRANSACTION => matches!(header.info & 0x70, 0x00 | 0x20 | 0x30 | 0x40),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> Version {
        Version::all().find(|version| version.name() == name).unwrap()
    }

    fn header(rmid: u8, info: u8) -> RecordHeader {
        RecordHeader { total_length: 24, xid: 0, previous: Lsn(0), info, rmid, crc: 0 }
    }

    #[test]
    fn names_and_ids() {
        assert_eq!(
            [0, 21, 130].map(|rmid| name(rmid, version("15"))),
            ["XLOG", "LogicalMessage", "custom130"]
        );
        for version in Version::all() {
            assert!(is_valid_id(21, version) && !is_valid_id(22, version) && !is_valid_id(127, version));
        }
        assert!(is_valid_id(128, version("15")) && is_valid_id(255, version("18")));
        assert!(!is_valid_id(128, version("14")) && !is_valid_id(255, version("9.6")));
    }

    #[test]
    fn a_fork_has_two_more_resource_managers_and_shifted_ids() {
        let fork =
            Version::of_all_flavors().find(|version| version.flavor().key() == "kingbase-v8r6").unwrap();
        assert_eq!(
            [6, 8, 12, 23].map(|rmid| name(rmid, fork)),
            ["TablespaceEnc", "MultiXact", "Heap", "LogicalMessage"]
        );
        assert_eq!(
            [5, 6, 7, 8, 23, 24].map(|rmid| postgresql_id(rmid, fork)),
            [Some(5), None, None, Some(6), Some(21), None]
        );
        assert!(is_valid_id(23, fork) && !is_valid_id(24, fork) && !is_valid_id(128, fork));
        // The effect of those two on relation files is unknown.
        for rmid in [6, 7] {
            assert!(
                !is_known_relation_change(&header(rmid, 0x01), fork)
                    && !is_known_relation_change(&header(rmid, 0x11), fork)
            );
        }
        assert!(is_known_relation_change(&header(2, 0x11), fork));
    }

    #[test]
    fn the_info_of_a_dropped_database_changed_in_15() {
        let is_known = |info, name| is_known_relation_change(&header(DATABASE, info), version(name));
        assert!(is_known(0x11, "9.6") && is_known(0x11, "14") && !is_known(0x21, "14"));
        assert!(is_known(0x11, "15") && is_known(0x21, "15") && is_known(0x21, "18"));
    }

    #[test]
    fn unknown_relation_changes_are_not_accepted() {
        let version = version("15");
        for (rmid, info) in
            [(4, 0x01), (4, 0x11), (4, 0x21), (2, 0x11), (2, 0x21), (1, 0x81), (1, 0x21), (1, 0xB1)]
        {
            assert!(is_known_relation_change(&header(rmid, info), version), "{rmid} {info:x}");
        }
        for (rmid, info) in [(4, 0x31), (2, 0x31), (1, 0x11), (0, 0x01), (10, 0x01), (128, 0x01)] {
            assert!(!is_known_relation_change(&header(rmid, info), version), "{rmid} {info:x}");
        }
    }
}
