//! Resource managers: their numbers and names, and the few of their records a rewind must understand.

use byteorder::{ByteOrder, LittleEndian};

use crate::flavor::POSTGRESQL_RMGRS;
use crate::lsn::Lsn;
use crate::record::{BlockRef, Record, RecordHeader};
use crate::version::Version;

const XLOG: u8 = 0;
const TRANSACTION: u8 = 1;
const STORAGE: u8 = 2;
const DATABASE: u8 = 4;
const FIRST_CUSTOM: u8 = 128;

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const SWITCH: u8 = 0x40;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// The name pg_waldump prints; extensions' managers are `custom` and their number.
pub fn name(rmid: u8, version: Version) -> String {
    match version.flavor().rmgrs().get(usize::from(rmid)) {
        Some(name) => (*name).to_owned(),
        None => format!("custom{rmid:03}"),
    }
}

/// How many resource managers are built in; their numbers begin with 0.
pub fn built_in(version: Version) -> u8 {
    u8::try_from(version.flavor().rmgrs().len()).unwrap_or(u8::MAX)
}

/// The number PostgreSQL has for the resource manager that has this one in the version's flavor; `None` for
/// one that PostgreSQL does not have.
#[inline]
pub(crate) fn postgresql_id(rmid: u8, version: Version) -> Option<u8> {
    let known = version.flavor().rmgrs();
    // Asked for each image: the usual answer must be quick.
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

/// Whether a record of this version may carry this number.
pub(crate) fn is_valid_id(rmid: u8, version: Version) -> bool {
    rmid < built_in(version) || (rmid >= FIRST_CUSTOM && version.has_custom_rmgrs())
}

/// Whether the record is a checkpoint, online or at shutdown.
pub fn is_checkpoint(header: &RecordHeader) -> bool {
    header.rmid == XLOG && matches!(header.info & 0xF0, CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE)
}

/// Whether the record ends its segment (`XLOG_SWITCH`): the next one starts in the next segment.
pub fn is_switch(header: &RecordHeader) -> bool {
    header.rmid == XLOG && header.info & 0xF0 == SWITCH
}

/// For `XLOG_OVERWRITE_CONTRECORD`: where the torn record starts that it declares void.
pub fn overwritten_record(record: &Record<'_>, main_data: &[u8]) -> Option<Lsn> {
    let is_overwrite = record.header.rmid == XLOG && record.header.info & 0xF0 == OVERWRITE_CONTRECORD;
    let lsn = main_data.get(..8).filter(|_| is_overwrite)?;
    Some(Lsn(LittleEndian::read_u64(lsn)))
}

/// Whether replay of the record makes the page of `block` anew, whatever stands there: it restores an image of
/// it, or initialises it. What replay does for a resource manager that PostgreSQL does not have is not known.
///
/// Source: `XLogReadBufferForRedoExtended` (xlogutils.c), which in both cases does not read the page.
pub fn rebuilds(header: &RecordHeader, block: &BlockRef, version: Version) -> bool {
    (block.will_init || block.image.is_some_and(|image| image.is_applied))
        && postgresql_id(header.rmid, version).is_some()
}

/// Whether replay of the record copies relation files as they stand at that time: a database made as a copy of
/// another's directory, or moved. Or it may, for all that is known.
pub fn may_copy_files(header: &RecordHeader, version: Version) -> bool {
    let is_unknown = || postgresql_id(header.rmid, version).is_none();
    (header.rmid == DATABASE && header.info & 0xF0 == 0x00)
        || (header.is_special_relation_update() && is_unknown())
}

/// Whether a record that changes relation files beyond its block references
/// ([`RecordHeader::is_special_relation_update`]) is of a kind that needs nothing more.
pub fn is_known_relation_change(header: &RecordHeader, version: Version) -> bool {
    let info = header.info & 0xF0;
    match header.rmid {
        // A database made on the target only is absent from the source and removed; one made on both
        // sides is made again by replay.
        DATABASE if info == 0x00 => true,
        // Its files are missing on the target and copied.
        DATABASE if info == version.database_drop_info() => true,
        // A database made block by block: its blocks are in the records, its files in the listings.
        DATABASE => version.database_drop_info() == 0x20 && info == 0x10,
        // Created and truncated relations show in the listings: a file too many is removed, one too
        // short gets its missing end.
        STORAGE => matches!(info, 0x10 | 0x20),
        // Relations dropped at the end of a transaction are missing on the target and copied.
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
    fn names_and_numbers() {
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
    fn a_fork_has_two_more_and_later_numbers() {
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
        // What the two do to relations nobody knows.
        for rmid in [6, 7] {
            assert!(
                !is_known_relation_change(&header(rmid, 0x01), fork)
                    && !is_known_relation_change(&header(rmid, 0x11), fork)
            );
        }
        assert!(is_known_relation_change(&header(2, 0x11), fork));
    }

    #[test]
    fn the_code_for_a_dropped_database_moved() {
        let is_known = |info, name| is_known_relation_change(&header(DATABASE, info), version(name));
        assert!(is_known(0x11, "9.6") && is_known(0x11, "14") && !is_known(0x21, "14"));
        assert!(is_known(0x11, "15") && is_known(0x21, "15") && is_known(0x21, "18"));
    }

    #[test]
    fn unknown_relation_changes_are_not_taken_for_known_ones() {
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
