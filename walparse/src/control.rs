//! The control file: parse, verify and modify it.
//!
//! The bytes are kept and patched, so that fields unknown to this program are preserved. The checksum is the CRC-32C
//! of all bytes before it, padding included. A fork may have an unknown number of additional fields before it, so its
//! offset is found by trying.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use crate::checkpoint::Checkpoint;
use crate::control_layout::ControlLayout;
use crate::error::ControlError;
use crate::flavor::Flavor;
use crate::lsn::{Lsn, TimelineId};
use crate::segment::SegmentSize;
use crate::version::{Version, WalGeometry};

/// The size of the file in bytes (`PG_CONTROL_FILE_SIZE`). The bytes after the struct are zero.
pub const CONTROL_FILE_SIZE: usize = 8192;

const STATE: usize = 16;
const TIME: usize = 24;
const CHECK_POINT: usize = 32;

/// The state of the server when it last updated the control file (`DBState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterState {
    /// `DB_STARTUP`
    StartingUp,
    /// `DB_SHUTDOWNED`
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`
    InProduction,
}

impl ClusterState {
    fn from_raw(raw: u32) -> Option<ClusterState> {
        Some(match raw {
            0 => ClusterState::StartingUp,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::InCrashRecovery,
            5 => ClusterState::InArchiveRecovery,
            6 => ClusterState::InProduction,
            _ => return None,
        })
    }

    /// Whether the server was a standby, or recovered from an archive.
    pub fn is_standby(self) -> bool {
        matches!(self, ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery)
    }

    /// Whether the server was shut down cleanly.
    pub fn is_clean(self) -> bool {
        matches!(self, ClusterState::ShutDown | ClusterState::ShutDownInRecovery)
    }
}

impl fmt::Display for ClusterState {
    /// As printed by pg_controldata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClusterState::StartingUp => "starting up",
            ClusterState::ShutDown => "shut down",
            ClusterState::ShutDownInRecovery => "shut down in recovery",
            ClusterState::ShuttingDown => "shutting down",
            ClusterState::InCrashRecovery => "in crash recovery",
            ClusterState::InArchiveRecovery => "in archive recovery",
            ClusterState::InProduction => "in production",
        })
    }
}

/// `wal_level`, as of the last start of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WalLevel {
    /// Not enough for a standby.
    Minimal,
    /// Enough for a standby.
    Replica,
    /// Enough for logical decoding.
    Logical,
}

/// A control file whose checksum and sizes have been verified.
///
/// ```
/// use walparse::ControlFile;
/// # use walparse::{Version, control::testing::ControlFields};
/// # let bytes = ControlFields::clean(Version::find(1800, 202_506_291).unwrap()).build();
///
/// // `bytes` are the contents of `global/pg_control`.
/// let control = ControlFile::parse(&bytes)?;
/// println!("{}: {}", control.version(), control.state());
/// println!("latest checkpoint {} with redo {}", control.checkpoint_lsn(), control.checkpoint().redo);
/// # assert!(control.state().is_clean());
/// # Ok::<(), walparse::ControlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ControlFile {
    bytes: Vec<u8>,
    version: Version,
    /// The offset of the checksum.
    crc_at: usize,
    state: ClusterState,
    checkpoint: Checkpoint,
    geometry: WalGeometry,
    relation_segment_blocks: u32,
}

impl ControlFile {
    /// Parses and verifies a control file of PostgreSQL.
    ///
    /// # Errors
    /// See [`ControlFile::parse_as`].
    pub fn parse(bytes: &[u8]) -> Result<ControlFile, ControlError> {
        let version = Version::find;
        ControlFile::parse_of(bytes, version)
    }

    /// Parses and verifies a control file of this flavor.
    ///
    /// # Errors
    /// The file is too short or too long; its version is not supported (or its byte order is not little-endian); its
    /// checksum does not match (if a server is running, read the file again: it may have been read while being
    /// written); or a size is out of range.
    pub fn parse_as(bytes: &[u8], flavor: Flavor) -> Result<ControlFile, ControlError> {
        ControlFile::parse_of(bytes, |control_version, catalog_version| {
            flavor.version(control_version, catalog_version)
        })
    }

    fn parse_of(
        bytes: &[u8],
        find_version: impl FnOnce(u32, u32) -> Option<Version>,
    ) -> Result<ControlFile, ControlError> {
        let front = bytes.get(..16).ok_or(ControlError::TooShort { length: bytes.len() })?;
        let control_version = LittleEndian::read_u32(&front[8..12]);
        let catalog_version = LittleEndian::read_u32(&front[12..16]);
        let version = find_version(control_version, catalog_version)
            .ok_or(ControlError::UnknownVersion { control_version, catalog_version })?;
        let layout = version.control_layout();
        if bytes.len() < layout.crc + 4 || bytes.len() > CONTROL_FILE_SIZE {
            return Err(ControlError::TooShort { length: bytes.len() });
        }
        let crc_at = checked_crc(bytes, layout, version.flavor())?;

        let u32_at = |offset: usize| LittleEndian::read_u32(&bytes[offset..offset + 4]);
        let raw_state = u32_at(STATE);
        let state = ClusterState::from_raw(raw_state).ok_or(ControlError::State { raw: raw_state })?;
        let raw_segment_size = u32_at(layout.xlog_seg_size);
        let segment_size = SegmentSize::new(raw_segment_size)
            .ok_or(ControlError::Size { field: "WAL segment size", value: raw_segment_size })?;
        let power_of_two = |field: &'static str, offset: usize, max: u32| {
            let value = u32_at(offset);
            let fits = value.is_power_of_two() && (1024..=max).contains(&value);
            if fits { Ok(value) } else { Err(ControlError::Size { field, value }) }
        };
        let wal_block_size = power_of_two("WAL block size", layout.xlog_blcksz, 65_536)?;
        let block_size = power_of_two("block size", layout.blcksz, 32_768)?;
        let relation_segment_blocks = u32_at(layout.relseg_size);
        if relation_segment_blocks == 0 {
            return Err(ControlError::Size { field: "blocks per relation segment", value: 0 });
        }
        let checkpoint = Checkpoint::parse(&bytes[layout.check_point_copy..])
            .ok_or(ControlError::TooShort { length: bytes.len() })?;
        let geometry = WalGeometry {
            version,
            system_identifier: LittleEndian::read_u64(&front[0..8]),
            segment_size,
            wal_block_size,
            block_size,
        };
        Ok(ControlFile {
            bytes: bytes.to_vec(),
            version,
            crc_at,
            state,
            checkpoint,
            geometry,
            relation_segment_blocks,
        })
    }

    /// The version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The same control file, of a server whose WAL pages have this magic number.
    pub fn with_wal_magic(mut self, wal_magic: u16) -> ControlFile {
        self.version = self.version.with_wal_magic(wal_magic);
        self.geometry.version = self.version;
        self
    }

    /// The sizes and the system identifier needed to read the cluster's WAL.
    pub fn geometry(&self) -> WalGeometry {
        self.geometry
    }

    /// The identifier that initdb assigned to the cluster. All its copies share it.
    pub fn system_identifier(&self) -> u64 {
        self.geometry.system_identifier
    }

    /// `state`
    pub fn state(&self) -> ClusterState {
        self.state
    }

    /// `checkPoint`: the start of the latest checkpoint record.
    pub fn checkpoint_lsn(&self) -> Lsn {
        self.lsn_at(CHECK_POINT)
    }

    /// `checkPointCopy`: the contents of that record.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Whether `main_data` is that of the latest checkpoint record: its length and its fields are those of the copy.
    pub fn is_checkpoint(&self, main_data: &[u8]) -> bool {
        main_data.len() == self.layout().checkpoint_length()
            && Checkpoint::parse(main_data) == Some(self.checkpoint)
    }

    /// `minRecoveryPoint`: the position up to which WAL must be replayed for consistency; 0/0 on a primary.
    pub fn min_recovery_point(&self) -> Lsn {
        self.lsn_at(self.layout().min_recovery_point)
    }

    /// `minRecoveryPointTLI`
    pub fn min_recovery_point_timeline(&self) -> TimelineId {
        TimelineId(self.u32_at(self.layout().min_recovery_point_tli))
    }

    /// The current timeline: the larger of the checkpoint's timeline and `minRecoveryPointTLI`, because immediately
    /// after a promotion only the latter is the new timeline.
    pub fn timeline(&self) -> TimelineId {
        self.checkpoint.timeline.max(self.min_recovery_point_timeline())
    }

    /// `wal_level`; `None` if the number is unknown.
    pub fn wal_level(&self) -> Option<WalLevel> {
        match self.u32_at(self.layout().wal_level) {
            0 => Some(WalLevel::Minimal),
            1 => Some(WalLevel::Replica),
            2 => Some(WalLevel::Logical),
            _ => None,
        }
    }

    /// `wal_log_hints`, as of the last start of the server.
    pub fn wal_log_hints(&self) -> bool {
        self.bytes[self.layout().wal_log_hints] != 0
    }

    /// Whether data pages have checksums, of any version.
    pub fn has_data_checksums(&self) -> bool {
        self.u32_at(self.layout().data_checksum_version) != 0
    }

    /// Whether every data page has a checksum of the one algorithm that PostgreSQL has. While a server of 19 enables or
    /// disables them, some have none. Nothing is known of a fork's.
    pub fn every_page_has_checksum(&self) -> bool {
        self.u32_at(self.layout().data_checksum_version) == 1 && !self.version.flavor().is_fork()
    }

    /// `blcksz`: the size of a data page in bytes.
    pub fn block_size(&self) -> u32 {
        self.geometry.block_size
    }

    /// `relseg_size`: the number of blocks in a segment file of a relation.
    pub fn relation_segment_blocks(&self) -> u32 {
        self.relation_segment_blocks
    }

    /// `backupStartPoint`: set until recovery from a base backup has reached the end of the backup.
    pub fn backup_start_point(&self) -> Lsn {
        self.lsn_at(self.layout().backup_start_point)
    }

    /// `backupEndPoint`
    pub fn backup_end_point(&self) -> Lsn {
        self.lsn_at(self.layout().backup_end_point)
    }

    /// `backupEndRequired`
    pub fn backup_end_required(&self) -> bool {
        self.bytes[self.layout().backup_end_required] != 0
    }

    /// The bytes that were parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The contents of a control file that makes the server replay WAL up to `min_recovery_point` before it accepts
    /// connections: a copy of this one with the state "in archive recovery", the given minimum recovery point and
    /// the modification time `now` (seconds since 1970), with a correct checksum, padded to 8192 bytes.
    pub fn recovering_to(&self, min_recovery_point: Lsn, timeline: TimelineId, now: i64) -> Vec<u8> {
        let layout = self.layout();
        let mut bytes = self.bytes.clone();
        LittleEndian::write_u32(&mut bytes[STATE..STATE + 4], 5);
        LittleEndian::write_i64(&mut bytes[TIME..TIME + 8], now);
        let at = layout.min_recovery_point;
        LittleEndian::write_u64(&mut bytes[at..at + 8], min_recovery_point.0);
        let at = layout.min_recovery_point_tli;
        LittleEndian::write_u32(&mut bytes[at..at + 4], timeline.0);
        seal_control_bytes(&mut bytes, self.crc_at);
        bytes
    }

    /// The offset of the checksum, which follows all other fields. A fork may have fields unknown to this crate.
    pub fn checksum_offset(&self) -> usize {
        self.crc_at
    }

    fn layout(&self) -> &'static ControlLayout {
        self.version.control_layout()
    }

    fn u32_at(&self, offset: usize) -> u32 {
        LittleEndian::read_u32(&self.bytes[offset..offset + 4])
    }

    fn lsn_at(&self, offset: usize) -> Lsn {
        Lsn(LittleEndian::read_u64(&self.bytes[offset..offset + 8]))
    }
}

impl fmt::Debug for ControlFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlFile")
            .field("geometry", &self.geometry)
            .field("state", &self.state)
            .field("checkpoint_lsn", &self.checkpoint_lsn())
            .field("checkpoint", &self.checkpoint)
            .field("min_recovery_point", &self.min_recovery_point())
            .finish_non_exhaustive()
    }
}

fn seal_control_bytes(bytes: &mut Vec<u8>, crc_at: usize) {
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    LittleEndian::write_u32(&mut bytes[crc_at..crc_at + 4], crc);
    bytes.resize(CONTROL_FILE_SIZE, 0);
}

/// The offset of the checksum, if it matches.
fn checked_crc(bytes: &[u8], layout: &ControlLayout, flavor: Flavor) -> Result<usize, ControlError> {
    if flavor.is_fork() {
        let known_end = layout.data_checksum_version + 4;
        return find_crc(bytes, known_end).ok_or(ControlError::NoChecksum);
    }
    let stored = LittleEndian::read_u32(&bytes[layout.crc..layout.crc + 4]);
    let computed = crc32c::crc32c(&bytes[..layout.crc]);
    if stored == computed { Ok(layout.crc) } else { Err(ControlError::Checksum { stored, computed }) }
}

/// The first offset, in steps of four from `from`, at which there is the checksum of all bytes before it. The field is
/// aligned to four bytes. There are about two thousand such offsets, so a chance match occurs in one of two million
/// files.
pub(crate) fn find_crc(bytes: &[u8], from: usize) -> Option<usize> {
    let mut crc = crc32c::crc32c(bytes.get(..from)?);
    bytes[from..].chunks_exact(4).zip((from..).step_by(4)).find_map(|(word, at)| {
        if LittleEndian::read_u32(word) == crc {
            return Some(at);
        }
        crc = crc32c::crc32c_append(crc, word);
        None
    })
}

/// Builds control files, for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use super::*;

    /// The fields that a test can choose.
    #[derive(Clone, Debug)]
    pub struct ControlFields {
        /// The version.
        pub version: Version,
        /// The system identifier.
        pub system_identifier: u64,
        /// `state` as stored: 1 shut down, 5 in archive recovery, 6 in production.
        pub raw_state: u32,
        /// `checkPoint`
        pub checkpoint_lsn: Lsn,
        /// `checkPointCopy.redo`
        pub redo: Lsn,
        /// `checkPointCopy.ThisTimeLineID`
        pub timeline: TimelineId,
        /// `minRecoveryPoint`
        pub min_recovery_point: Lsn,
        /// `minRecoveryPointTLI`
        pub min_recovery_point_timeline: TimelineId,
        /// WAL segment size in bytes.
        pub segment_size: u32,
        /// `wal_log_hints`
        pub wal_log_hints: bool,
        /// `data_checksum_version`
        pub data_checksum_version: u32,
        /// `blcksz`
        pub block_size: u32,
        /// Additional fields of a fork, between the last known field and the checksum.
        pub tail: Vec<u8>,
    }

    impl ControlFields {
        /// A cluster that was shut down, with segments of 1 MiB and data checksums.
        pub fn clean(version: Version) -> ControlFields {
            ControlFields {
                version,
                system_identifier: 0x1234_5678_9ABC_DEF0,
                raw_state: 1,
                checkpoint_lsn: Lsn(0x10_0028),
                redo: Lsn(0x10_0028),
                timeline: TimelineId(1),
                min_recovery_point: Lsn(0),
                min_recovery_point_timeline: TimelineId(0),
                segment_size: 1 << 20,
                wal_log_hints: false,
                data_checksum_version: 1,
                block_size: 8192,
                tail: Vec::new(),
            }
        }

        /// The contents of a control file with these fields and a correct checksum.
        pub fn build(&self) -> Vec<u8> {
            let layout = self.version.control_layout();
            let crc_at = layout.crc + self.tail.len();
            let mut bytes = vec![0; crc_at + 8];
            bytes[layout.crc..crc_at].copy_from_slice(&self.tail);
            let mut put32 = |at: usize, value: u32| LittleEndian::write_u32(&mut bytes[at..at + 4], value);
            put32(8, self.version.control_version());
            put32(12, self.version.catalog_version());
            put32(STATE, self.raw_state);
            put32(layout.check_point_copy + 8, self.timeline.0);
            put32(layout.check_point_copy + 12, self.timeline.0);
            put32(layout.min_recovery_point_tli, self.min_recovery_point_timeline.0);
            put32(layout.wal_level, 1);
            put32(layout.blcksz, self.block_size);
            put32(layout.relseg_size, 131_072);
            put32(layout.xlog_blcksz, 8192);
            put32(layout.xlog_seg_size, self.segment_size);
            put32(layout.data_checksum_version, self.data_checksum_version);
            let mut put64 = |at: usize, value: u64| LittleEndian::write_u64(&mut bytes[at..at + 8], value);
            put64(0, self.system_identifier);
            put64(CHECK_POINT, self.checkpoint_lsn.0);
            put64(layout.check_point_copy, self.redo.0);
            put64(layout.min_recovery_point, self.min_recovery_point.0);
            bytes[layout.check_point_copy + 16] = 1;
            bytes[layout.wal_log_hints] = u8::from(self.wal_log_hints);
            seal_control_bytes(&mut bytes, crc_at);
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::ControlFields;
    use super::*;

    proptest! {
        #[test]
        fn fields_round_trip_and_a_patch_changes_nothing_else(
            version in prop::sample::select(Version::of_all_flavors().collect::<Vec<_>>()),
            (block_shift, tail) in (13u32..=15, prop::collection::vec(any::<u32>(), 0..8)),
            ids: (u64, u32, u32, u32),
            positions: (u64, u64, u64),
            raw_state in 0u32..7,
            shift in 20u32..=30,
            wal_log_hints: bool,
            now: i64,
        ) {
            let fields = ControlFields {
                version,
                system_identifier: ids.0,
                raw_state,
                checkpoint_lsn: Lsn(positions.0),
                redo: Lsn(positions.1),
                timeline: TimelineId(ids.1),
                min_recovery_point: Lsn(positions.2),
                min_recovery_point_timeline: TimelineId(ids.2),
                segment_size: 1 << shift,
                wal_log_hints,
                data_checksum_version: ids.3,
                block_size: 1 << block_shift,
                tail: if version.flavor().is_fork() { words(&tail) } else { Vec::new() },
            };
            let control = ControlFile::parse_as(&fields.build(), version.flavor()).unwrap();
            prop_assert_eq!((control.version(), control.block_size()), (version, 1 << block_shift));
            prop_assert_eq!(control.checksum_offset(), version.control_layout().crc + fields.tail.len());
            prop_assert_eq!(control.system_identifier(), ids.0);
            prop_assert_eq!((control.checkpoint_lsn(), control.checkpoint().redo), (fields.checkpoint_lsn, fields.redo));
            prop_assert_eq!(control.timeline(), fields.timeline.max(fields.min_recovery_point_timeline));
            prop_assert_eq!(control.min_recovery_point(), fields.min_recovery_point);
            prop_assert_eq!(control.geometry().segment_size.bytes(), 1 << shift);
            prop_assert_eq!(control.wal_log_hints(), wal_log_hints);
            prop_assert_eq!(control.has_data_checksums(), ids.3 != 0);
            prop_assert_eq!(control.every_page_has_checksum(), ids.3 == 1 && !version.flavor().is_fork());
            prop_assert_eq!(Some(control.state()), ClusterState::from_raw(raw_state));

            let patched = control.recovering_to(Lsn(positions.0), TimelineId(ids.3), now);
            prop_assert_eq!(patched.len(), CONTROL_FILE_SIZE);
            let layout = version.control_layout();
            let is_patched = |at: usize| {
                let fields = [(STATE, 4), (TIME, 8), (layout.min_recovery_point, 8), (layout.min_recovery_point_tli, 4), (control.checksum_offset(), 4)];
                fields.iter().any(|(start, length)| (*start..start + length).contains(&at))
            };
            for (at, (old, new)) in control.bytes().iter().zip(&patched).enumerate() {
                prop_assert!(old == new || is_patched(at), "byte {}", at);
            }
        }
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn additional_fields_of_a_fork_are_preserved_and_covered_by_the_checksum() {
        let version =
            Version::of_all_flavors().find(|version| version.flavor().key() == "kingbase-v8r6").unwrap();
        let tail = words(&[1, 0, 0xDEAD_BEEF]);
        let bytes = ControlFields { tail: tail.clone(), ..ControlFields::clean(version) }.build();
        let control = ControlFile::parse_as(&bytes, version.flavor()).unwrap();
        let patched = control.recovering_to(Lsn(0x30_0100), TimelineId(7), 99);
        assert_eq!(patched[288..300], tail);
        assert_eq!(ControlFile::parse_as(&patched, version.flavor()).unwrap().checksum_offset(), 300);
        for at in 16..300 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(
                ControlFile::parse_as(&damaged, version.flavor()),
                Err(ControlError::NoChecksum),
                "{at}"
            );
        }
        // PostgreSQL has no such fields.
        assert!(ControlFile::parse(&bytes).is_err());
    }

    #[test]
    fn fields_and_patches_round_trip_in_every_version() {
        for version in Version::all() {
            let bytes = ControlFields::clean(version).build();
            let control = ControlFile::parse(&bytes).unwrap();
            assert_eq!(control.version(), version);
            assert_eq!(control.checkpoint_lsn(), Lsn(0x10_0028));
            assert!(control.state().is_clean() && control.has_data_checksums());

            let patched =
                ControlFile::parse(&control.recovering_to(Lsn(0x30_0100), TimelineId(7), 99)).unwrap();
            assert_eq!(patched.state(), ClusterState::InArchiveRecovery);
            assert_eq!(patched.min_recovery_point(), Lsn(0x30_0100));
            assert_eq!(patched.timeline(), TimelineId(7));
            assert_eq!(patched.checkpoint(), control.checkpoint());
        }
    }

    #[test]
    fn every_flipped_bit_before_the_checksum_is_detected() {
        for version in Version::all() {
            let bytes = ControlFields::clean(version).build();
            for at in 0..version.control_layout().crc {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(ControlFile::parse(&damaged).is_err(), "{version}, byte {at}");
            }
        }
    }

    #[test]
    fn short_input_is_rejected() {
        for version in Version::all() {
            let bytes = ControlFields::clean(version).build();
            for length in [0, 1, 15, 16, 100, version.control_layout().crc + 3] {
                assert!(ControlFile::parse(&bytes[..length]).is_err(), "{version}, {length}");
            }
            assert!(ControlFile::parse(&bytes[..512]).is_ok(), "{version}");
        }
    }
}
