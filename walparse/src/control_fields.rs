//! All fields of the control file, to display them: a table with the name and the offsets of each field.
//!
//! Decisions are made with [`ControlFile`](crate::ControlFile) only. Here a file can be displayed even if its checksum
//! does not match or its catalog version is unknown.

use std::borrow::Cow;
use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use crate::control::{CONTROL_FILE_SIZE, find_crc};
use crate::error::ControlError;
use crate::flavor::Flavor;
use crate::lsn::{Lsn, TimelineId};
use crate::segment::SegmentSize;

/// The layouts (`pg_control_version`), in the order of the table's columns: 9.6, 10, 11, 12, 13 to 16, 17, 18, 19.
const LAYOUTS: [u32; 8] = [960, 1002, 1100, 1201, 1300, 1700, 1800, 1905];

/// The layout does not have the field.
const NONE: u16 = u16::MAX;

/// The fields of a control file.
///
/// ```
/// use walparse::ControlFields;
/// # use walparse::{Version, control::testing::ControlFields as Made};
/// # let bytes = Made::clean(Version::find(1800, 202_506_291).unwrap()).build();
///
/// // `bytes` are the contents of `global/pg_control`.
/// let control = ControlFields::read(&bytes)?;
/// for field in &control.fields {
///     println!("{:<40}{}", format!("{}:", field.label), field.value);
/// }
/// assert!(control.is_checksum_valid);
/// assert_eq!(control.get("state").map(ToString::to_string), Some("shut down".to_owned()));
/// # Ok::<(), walparse::ControlError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ControlFields {
    /// The fields, in the order in which pg_controldata prints them.
    pub fields: Vec<ControlField>,
    /// Whether the checksum matches. It may not if a server was writing the file while it was read.
    pub is_checksum_valid: bool,
}

/// A field of a control file.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ControlField {
    /// Its name in C, or a similar name if it is computed or unknown.
    pub name: Cow<'static, str>,
    /// Its label in the output of pg_controldata, or a similar one if pg_controldata does not print it.
    pub label: Cow<'static, str>,
    /// Its value.
    pub value: FieldValue,
}

/// The value of a field.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum FieldValue {
    /// A number.
    Number(i64),
    /// The system identifier, which may be too large to be represented as a floating-point number.
    Identifier(u64),
    /// A floating-point number.
    Float(f64),
    /// Seconds since 1970-01-01 UTC.
    Time(i64),
    /// A WAL location.
    Lsn(Lsn),
    /// A 64-bit transaction ID, as epoch and xid.
    Xid {
        /// The number of wraparounds.
        epoch: u32,
        /// The xid.
        xid: u32,
    },
    /// Yes or no.
    Flag {
        /// The value.
        is_set: bool,
        /// The words of pg_controldata for true and false.
        words: [&'static str; 2],
    },
    /// One of several words; `unrecognized` and the number if there is no word for it.
    Word(String),
    /// Uninterpreted bytes.
    Bytes(Vec<u8>),
}

impl fmt::Display for FieldValue {
    /// As printed by pg_controldata, except for times, which are printed in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldValue::Number(number) | FieldValue::Time(number) => number.fmt(f),
            FieldValue::Identifier(number) => number.fmt(f),
            FieldValue::Float(number) => number.fmt(f),
            FieldValue::Lsn(lsn) => lsn.fmt(f),
            FieldValue::Xid { epoch, xid } => write!(f, "{epoch}:{xid}"),
            FieldValue::Flag { is_set, words: [yes, no] } => f.write_str(if *is_set { yes } else { no }),
            FieldValue::Word(word) => f.write_str(word),
            FieldValue::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl ControlFields {
    /// Parses a control file of PostgreSQL.
    ///
    /// # Errors
    /// See [`ControlFields::read_as`].
    pub fn read(bytes: &[u8]) -> Result<ControlFields, ControlError> {
        ControlFields::read_with(bytes, false)
    }

    /// Parses a control file of this flavor. Additional fields of a fork, which are unknown, are returned as numbers
    /// of four bytes.
    ///
    /// # Errors
    /// The file is too short or too long, or its `pg_control_version` is unknown (or its byte order is not
    /// little-endian).
    pub fn read_as(bytes: &[u8], flavor: Flavor) -> Result<ControlFields, ControlError> {
        ControlFields::read_with(bytes, flavor.is_fork())
    }

    fn read_with(bytes: &[u8], has_unknown_fields: bool) -> Result<ControlFields, ControlError> {
        let too_short = || ControlError::TooShort { length: bytes.len() };
        let front = bytes.get(..16).ok_or_else(too_short)?;
        let control_version = LittleEndian::read_u32(&front[8..12]);
        let catalog_version = LittleEndian::read_u32(&front[12..16]);
        let column = LAYOUTS.iter().position(|&layout| layout == control_version);
        let column = column.ok_or(ControlError::UnknownVersion { control_version, catalog_version })?;
        if bytes.len() > CONTROL_FILE_SIZE {
            return Err(too_short());
        }
        let mut layout = Layout { bytes, column, crc_at: 0 };
        let usual = layout.offset_of("crc").unwrap_or_default();
        let known_end = layout.offset_of("data_checksum_version").unwrap_or_default() + 4;
        let found = if has_unknown_fields { find_crc(bytes, known_end) } else { None };
        layout.crc_at = found.unwrap_or(usual);
        let mut fields = Vec::with_capacity(ROWS.len());
        for row in ROWS.iter().filter(|row| row.is_shown(column)) {
            if row.kind == Kind::Crc {
                fields.extend((usual..layout.crc_at).step_by(4).filter_map(|at| layout.unknown(at)));
            }
            let value = layout.value(row).ok_or_else(too_short)?;
            fields.push(ControlField { name: row.name.into(), label: row.label.into(), value });
        }
        Ok(ControlFields { fields, is_checksum_valid: layout.is_checksum_valid() })
    }

    /// The value of the field with this C name.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.value)
    }
}

/// How the bytes of a field are interpreted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    U32,
    I32,
    Identifier,
    Float,
    Time,
    Lsn,
    /// The name of the WAL file that contains the location.
    WalFile,
    /// `nextXid`: in the layouts up to 1100 the epoch is in the four bytes before the xid; since 1201 both are one
    /// 64-bit number.
    Xid,
    /// `nextMultiOffset`, which has 64 bits since 1905.
    MultiOffset,
    State,
    WalLevel,
    OnOff,
    YesNo,
    ByValue,
    Signed,
    /// `enableIntTimes`, constant since 10.
    IntTimes,
    Nonce,
    Crc,
}

struct Row {
    name: &'static str,
    label: &'static str,
    kind: Kind,
    /// The offset in each layout.
    offsets: [u16; 8],
}

impl Row {
    /// pg_controldata prints the storage type of times even for layouts without that field.
    fn is_shown(&self, column: usize) -> bool {
        self.offsets[column] != NONE || self.kind == Kind::IntTimes
    }
}

const fn row(name: &'static str, label: &'static str, kind: Kind, offsets: [u16; 8]) -> Row {
    Row { name, label, kind, offsets }
}

/// The fields of `ControlFileData`; those of `checkPointCopy` are fields of `CheckPoint`. The offsets were computed by
/// `offsetof` from the released headers; the labels are those of pg_controldata.
#[rustfmt::skip]
static ROWS: &[Row] = &[
    row("pg_control_version", "pg_control version number", Kind::U32, [8; 8]),
    row("catalog_version_no", "Catalog version number", Kind::U32, [12; 8]),
    row("system_identifier", "Database system identifier", Kind::Identifier, [0; 8]),
    row("state", "Database cluster state", Kind::State, [16; 8]),
    row("time", "pg_control last modified", Kind::Time, [24; 8]),
    row("checkPoint", "Latest checkpoint location", Kind::Lsn, [32; 8]),
    row("prevCheckPoint", "Prior checkpoint location", Kind::Lsn, [40, 40, NONE, NONE, NONE, NONE, NONE, NONE]),
    row("checkPointCopy.redo", "Latest checkpoint's REDO location", Kind::Lsn, [48, 48, 40, 40, 40, 40, 40, 40]),
    row("redo_wal_file", "Latest checkpoint's REDO WAL file", Kind::WalFile, [48, 48, 40, 40, 40, 40, 40, 40]),
    row("checkPointCopy.ThisTimeLineID", "Latest checkpoint's TimeLineID", Kind::U32, [56, 56, 48, 48, 48, 48, 48, 48]),
    row("checkPointCopy.PrevTimeLineID", "Latest checkpoint's PrevTimeLineID", Kind::U32, [60, 60, 52, 52, 52, 52, 52, 52]),
    row("checkPointCopy.fullPageWrites", "Latest checkpoint's full_page_writes", Kind::OnOff, [64, 64, 56, 56, 56, 56, 56, 56]),
    row("checkPointCopy.wal_level", "Latest checkpoint's wal_level", Kind::WalLevel, [NONE, NONE, NONE, NONE, NONE, 60, 60, 60]),
    row("checkPointCopy.logicalDecodingEnabled", "Latest checkpoint's logical decoding", Kind::OnOff, [NONE, NONE, NONE, NONE, NONE, NONE, NONE, 64]),
    row("checkPointCopy.nextXid", "Latest checkpoint's NextXID", Kind::Xid, [72, 72, 64, 64, 64, 64, 64, 72]),
    row("checkPointCopy.nextOid", "Latest checkpoint's NextOID", Kind::U32, [76, 76, 68, 72, 72, 72, 72, 80]),
    row("checkPointCopy.nextMulti", "Latest checkpoint's NextMultiXactId", Kind::U32, [80, 80, 72, 76, 76, 76, 76, 84]),
    row("checkPointCopy.nextMultiOffset", "Latest checkpoint's NextMultiOffset", Kind::MultiOffset, [84, 84, 76, 80, 80, 80, 80, 88]),
    row("checkPointCopy.oldestXid", "Latest checkpoint's oldestXID", Kind::U32, [88, 88, 80, 84, 84, 84, 84, 96]),
    row("checkPointCopy.oldestXidDB", "Latest checkpoint's oldestXID's DB", Kind::U32, [92, 92, 84, 88, 88, 88, 88, 100]),
    row("checkPointCopy.oldestActiveXid", "Latest checkpoint's oldestActiveXID", Kind::U32, [120, 120, 112, 120, 120, 120, 120, 128]),
    row("checkPointCopy.oldestMulti", "Latest checkpoint's oldestMultiXid", Kind::U32, [96, 96, 88, 92, 92, 92, 92, 104]),
    row("checkPointCopy.oldestMultiDB", "Latest checkpoint's oldestMulti's DB", Kind::U32, [100, 100, 92, 96, 96, 96, 96, 108]),
    row("checkPointCopy.oldestCommitTsXid", "Latest checkpoint's oldestCommitTsXid", Kind::U32, [112, 112, 104, 112, 112, 112, 112, 120]),
    row("checkPointCopy.newestCommitTsXid", "Latest checkpoint's newestCommitTsXid", Kind::U32, [116, 116, 108, 116, 116, 116, 116, 124]),
    row("checkPointCopy.time", "Time of latest checkpoint", Kind::Time, [104, 104, 96, 104, 104, 104, 104, 112]),
    row("unloggedLSN", "Fake LSN counter for unlogged rels", Kind::Lsn, [128, 128, 120, 128, 128, 128, 128, 136]),
    row("minRecoveryPoint", "Minimum recovery ending location", Kind::Lsn, [136, 136, 128, 136, 136, 136, 136, 144]),
    row("minRecoveryPointTLI", "Min recovery ending loc's timeline", Kind::U32, [144, 144, 136, 144, 144, 144, 144, 152]),
    row("backupStartPoint", "Backup start location", Kind::Lsn, [152, 152, 144, 152, 152, 152, 152, 160]),
    row("backupEndPoint", "Backup end location", Kind::Lsn, [160, 160, 152, 160, 160, 160, 160, 168]),
    row("backupEndRequired", "End-of-backup record required", Kind::YesNo, [168, 168, 160, 168, 168, 168, 168, 176]),
    row("wal_level", "wal_level setting", Kind::WalLevel, [172, 172, 164, 172, 172, 172, 172, 180]),
    row("wal_log_hints", "wal_log_hints setting", Kind::OnOff, [176, 176, 168, 176, 176, 176, 176, 184]),
    row("MaxConnections", "max_connections setting", Kind::I32, [180, 180, 172, 180, 180, 180, 180, 188]),
    row("max_worker_processes", "max_worker_processes setting", Kind::I32, [184, 184, 176, 184, 184, 184, 184, 192]),
    row("max_wal_senders", "max_wal_senders setting", Kind::I32, [NONE, NONE, NONE, 188, 188, 188, 188, 196]),
    row("max_prepared_xacts", "max_prepared_xacts setting", Kind::I32, [188, 188, 180, 192, 192, 192, 192, 200]),
    row("max_locks_per_xact", "max_locks_per_xact setting", Kind::I32, [192, 192, 184, 196, 196, 196, 196, 204]),
    row("track_commit_timestamp", "track_commit_timestamp setting", Kind::OnOff, [196, 196, 188, 200, 200, 200, 200, 208]),
    row("maxAlign", "Maximum data alignment", Kind::U32, [200, 200, 192, 204, 204, 204, 204, 212]),
    row("floatFormat", "Floating-point format", Kind::Float, [208, 208, 200, 208, 208, 208, 208, 216]),
    row("blcksz", "Database block size", Kind::U32, [216, 216, 208, 216, 216, 216, 216, 224]),
    row("relseg_size", "Blocks per segment of large relation", Kind::U32, [220, 220, 212, 220, 220, 220, 220, 228]),
    row("slru_pages_per_segment", "Pages per SLRU segment", Kind::U32, [NONE, NONE, NONE, NONE, NONE, NONE, NONE, 232]),
    row("xlog_blcksz", "WAL block size", Kind::U32, [224, 224, 216, 224, 224, 224, 224, 236]),
    row("xlog_seg_size", "Bytes per WAL segment", Kind::U32, [228, 228, 220, 228, 228, 228, 228, 240]),
    row("nameDataLen", "Maximum length of identifiers", Kind::U32, [232, 232, 224, 232, 232, 232, 232, 244]),
    row("indexMaxKeys", "Maximum columns in an index", Kind::U32, [236, 236, 228, 236, 236, 236, 236, 248]),
    row("toast_max_chunk_size", "Maximum size of a TOAST chunk", Kind::U32, [240, 240, 232, 240, 240, 240, 240, 252]),
    row("loblksize", "Size of a large-object chunk", Kind::U32, [244, 244, 236, 244, 244, 244, 244, 256]),
    row("enableIntTimes", "Date/time type storage", Kind::IntTimes, [248, NONE, NONE, NONE, NONE, NONE, NONE, NONE]),
    row("float4ByVal", "Float4 argument passing", Kind::ByValue, [249, 248, 240, 248, NONE, NONE, NONE, NONE]),
    row("float8ByVal", "Float8 argument passing", Kind::ByValue, [250, 249, 241, 249, 248, 248, 248, 260]),
    row("data_checksum_version_init", "Data page checksum version at initdb", Kind::U32, [NONE, NONE, NONE, NONE, NONE, NONE, NONE, 264]),
    row("data_checksum_version", "Data page checksum version", Kind::U32, [252, 252, 244, 252, 252, 252, 252, 268]),
    row("default_char_signedness", "Default char data signedness", Kind::Signed, [NONE, NONE, NONE, NONE, NONE, NONE, 256, 272]),
    row("mock_authentication_nonce", "Mock authentication nonce", Kind::Nonce, [NONE, 256, 248, 256, 256, 256, 257, 273]),
    row("crc", "Checksum of these data", Kind::Crc, [256, 288, 280, 288, 288, 288, 292, 308]),
];

/// The bytes of a control file and its layout.
struct Layout<'a> {
    bytes: &'a [u8],
    column: usize,
    /// The offset of the checksum.
    crc_at: usize,
}

impl Layout<'_> {
    /// `None` if the bytes end before the field.
    fn value(&self, row: &Row) -> Option<FieldValue> {
        let at = usize::from(row.offsets[self.column]);
        Some(match row.kind {
            Kind::U32 => FieldValue::Number(i64::from(self.u32(at)?)),
            Kind::I32 => FieldValue::Number(i64::from(self.u32(at)?.cast_signed())),
            Kind::Identifier => FieldValue::Identifier(self.u64(at)?),
            Kind::Float => FieldValue::Float(f64::from_bits(self.u64(at)?)),
            Kind::Time => FieldValue::Time(self.u64(at)?.cast_signed()),
            Kind::Lsn => FieldValue::Lsn(Lsn(self.u64(at)?)),
            Kind::WalFile => FieldValue::Word(self.wal_file(Lsn(self.u64(at)?))?),
            Kind::Xid if LAYOUTS[self.column] <= 1100 => {
                FieldValue::Xid { epoch: self.u32(at.checked_sub(4)?)?, xid: self.u32(at)? }
            }
            Kind::Xid => FieldValue::Xid { epoch: self.u32(at + 4)?, xid: self.u32(at)? },
            Kind::MultiOffset if LAYOUTS[self.column] >= 1905 => {
                FieldValue::Number(i64::try_from(self.u64(at)?).unwrap_or(i64::MAX))
            }
            Kind::MultiOffset => FieldValue::Number(i64::from(self.u32(at)?)),
            Kind::State => FieldValue::Word(word(self.u32(at)?, &STATES)),
            Kind::WalLevel => FieldValue::Word(word(self.u32(at)?, &["minimal", "replica", "logical"])),
            Kind::OnOff => self.flag(at, ["on", "off"])?,
            Kind::YesNo => self.flag(at, ["yes", "no"])?,
            Kind::ByValue => self.flag(at, ["by value", "by reference"])?,
            Kind::Signed => self.flag(at, ["signed", "unsigned"])?,
            Kind::IntTimes => {
                let words = ["64-bit integers", "floating-point numbers"];
                let is_set = row.offsets[self.column] == NONE || *self.bytes.get(at)? != 0;
                FieldValue::Flag { is_set, words }
            }
            Kind::Nonce => FieldValue::Bytes(self.bytes.get(at..at + 32)?.to_vec()),
            Kind::Crc => FieldValue::Word(format!("{:08x}", self.u32(self.crc_at)?)),
        })
    }

    fn flag(&self, at: usize, words: [&'static str; 2]) -> Option<FieldValue> {
        Some(FieldValue::Flag { is_set: *self.bytes.get(at)? != 0, words })
    }

    /// The name of the segment file that contains `lsn` on the checkpoint's timeline.
    fn wal_file(&self, lsn: Lsn) -> Option<String> {
        let size = SegmentSize::new(self.u32(self.offset_of("xlog_seg_size")?)?);
        let timeline = TimelineId(self.u32(self.offset_of("checkPointCopy.ThisTimeLineID")?)?);
        Some(match size {
            Some(size) => size.file_name(timeline, size.segment_of(lsn)),
            None => "unknown: invalid WAL segment size".to_owned(),
        })
    }

    fn is_checksum_valid(&self) -> bool {
        self.bytes.get(..self.crc_at).map(crc32c::crc32c) == self.u32(self.crc_at)
    }

    /// An unknown field of four bytes.
    fn unknown(&self, at: usize) -> Option<ControlField> {
        Some(ControlField {
            name: format!("unknown_{at}").into(),
            label: format!("Unknown field at offset {at}").into(),
            value: FieldValue::Number(i64::from(self.u32(at)?)),
        })
    }

    fn offset_of(&self, name: &str) -> Option<usize> {
        ROWS.iter().find(|row| row.name == name).map(|row| usize::from(row.offsets[self.column]))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..at + 4).map(LittleEndian::read_u32)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes.get(at..at + 8).map(LittleEndian::read_u64)
    }
}

/// The words of pg_controldata for `DBState`.
const STATES: [&str; 7] = [
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
];

fn word(raw: u32, words: &[&str]) -> String {
    words.get(raw as usize).map_or_else(|| format!("unrecognized ({raw})"), |word| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::ControlFields as Made;
    use crate::version::Version;

    #[test]
    fn fields_are_read_at_the_offsets_of_each_layout() {
        for version in Version::all() {
            let made = Made {
                raw_state: 5,
                min_recovery_point: Lsn(0x2_0000_00A0),
                min_recovery_point_timeline: TimelineId(9),
                segment_size: 64 << 20,
                wal_log_hints: true,
                data_checksum_version: 7,
                redo: Lsn(0x1_0800_0028),
                timeline: TimelineId(3),
                ..Made::clean(version)
            };
            let control = ControlFields::read(&made.build()).unwrap();
            assert!(control.is_checksum_valid, "{version}");
            for (name, text) in [
                ("system_identifier", 0x1234_5678_9ABC_DEF0_u64.to_string()),
                ("state", "in archive recovery".to_owned()),
                ("minRecoveryPoint", "2/A0".to_owned()),
                ("minRecoveryPointTLI", "9".to_owned()),
                ("wal_log_hints", "on".to_owned()),
                ("wal_level", "replica".to_owned()),
                ("xlog_seg_size", (64 << 20).to_string()),
                ("redo_wal_file", "000000030000000100000002".to_owned()),
                ("data_checksum_version", "7".to_owned()),
                ("checkPointCopy.fullPageWrites", "on".to_owned()),
            ] {
                assert_eq!(control.get(name).map(ToString::to_string), Some(text), "{version}: {name}");
            }
        }
    }

    #[test]
    fn unknown_fields_of_a_fork_are_listed_before_the_checksum() {
        let fork =
            Version::of_all_flavors().find(|version| version.flavor().key() == "kingbase-v8r6").unwrap();
        let made = Made { tail: [1, 0, 0, 0, 9, 2, 0, 0].into(), ..Made::clean(fork) }.build();
        let control = ControlFields::read_as(&made, fork.flavor()).unwrap();
        assert!(control.is_checksum_valid);
        let value = |name| control.get(name).map(ToString::to_string);
        assert_eq!((value("unknown_288"), value("unknown_292")), (Some("1".into()), Some("521".into())));
        assert_eq!(value("unknown_296"), None);
        assert!(!ControlFields::read(&made).unwrap().is_checksum_valid);
    }

    /// Files made by real servers, compared with the output of their pg_controldata.
    #[test]
    fn files_of_real_servers_are_read() {
        let file = |bytes: &[u8]| {
            let control = ControlFields::read(bytes).unwrap();
            assert!(control.is_checksum_valid);
            move |name: &str| control.get(name).map(ToString::to_string).unwrap_or_default()
        };
        let pg96 = file(include_bytes!("../../tests/fuzz/corpus/control_file/pg96"));
        assert_eq!(pg96("system_identifier"), "7710879115915758665");
        assert_eq!(
            (pg96("prevCheckPoint"), pg96("checkPointCopy.nextXid")),
            ("0/32D9578".into(), "0:626".into())
        );
        assert_eq!((pg96("MaxConnections"), pg96("max_wal_senders")), ("60".into(), String::new()));
        assert_eq!(
            (pg96("enableIntTimes"), pg96("float4ByVal")),
            ("64-bit integers".into(), "by value".into())
        );
        let pg12 = file(include_bytes!("../../tests/fuzz/corpus/control_file/pg12"));
        assert_eq!((pg12("MaxConnections"), pg12("max_wal_senders")), ("60".into(), "8".into()));
        assert_eq!((pg12("checkPointCopy.nextXid"), pg12("unloggedLSN")), ("0:564".into(), "0/3E8".into()));
        assert_eq!(
            pg12("mock_authentication_nonce"),
            "534cd0095f99e34ba4bc59772d9243acc9ba8a13e0bbd7d7dcf3ebc924122244"
        );
        let pg19 = file(include_bytes!("../../tests/fuzz/corpus/control_file/pg19"));
        for (name, text) in [
            ("state", "shut down"),
            ("checkPointCopy.redo", "0/439DEE8"),
            ("checkPointCopy.logicalDecodingEnabled", "off"),
            ("checkPointCopy.nextXid", "0:741"),
            ("checkPointCopy.nextOid", "16465"),
            ("checkPointCopy.nextMulti", "2"),
            ("checkPointCopy.nextMultiOffset", "3"),
            ("checkPointCopy.oldestXid", "654"),
            ("checkPointCopy.oldestMultiDB", "5"),
            ("checkPointCopy.newestCommitTsXid", "740"),
            ("unloggedLSN", "0/3E8"),
            ("max_locks_per_xact", "128"),
            ("track_commit_timestamp", "on"),
            ("slru_pages_per_segment", "32"),
            ("toast_max_chunk_size", "1996"),
            ("float8ByVal", "by value"),
            ("data_checksum_version", "1"),
            ("default_char_signedness", "signed"),
            ("mock_authentication_nonce", "deec1e2fe08a6a8f610d5d150ff80dcb645b404218ea1f268423c76e475976ab"),
        ] {
            assert_eq!(pg19(name), text, "{name}");
        }
    }

    /// No two fields of a layout overlap, and the checksum is the last field.
    #[test]
    fn fields_do_not_overlap() {
        for (column, layout) in LAYOUTS.iter().enumerate() {
            let there = ROWS.iter().filter(|row| row.offsets[column] != NONE && row.kind != Kind::WalFile);
            let mut spans: Vec<_> = there
                .map(|row| {
                    let length = match row.kind {
                        Kind::Identifier | Kind::Float | Kind::Time | Kind::Lsn => 8,
                        Kind::Xid => 8,
                        Kind::MultiOffset if *layout >= 1905 => 8,
                        Kind::Nonce => 32,
                        Kind::OnOff | Kind::YesNo | Kind::ByValue | Kind::Signed | Kind::IntTimes => 1,
                        _ => 4,
                    };
                    let epoch_first = row.kind == Kind::Xid && *layout <= 1100;
                    let at = row.offsets[column] - if epoch_first { 4 } else { 0 };
                    (at, at + length, row.name)
                })
                .collect();
            spans.sort_unstable();
            for pair in spans.windows(2) {
                assert!(pair[0].1 <= pair[1].0, "layout {layout}: {} and {}", pair[0].2, pair[1].2);
            }
            assert_eq!(spans.last().unwrap().2, "crc", "layout {layout}");
        }
    }

    #[test]
    fn a_checksum_mismatch_is_reported_and_other_files_are_rejected() {
        let mut bytes = Made::clean(Version::all().next().unwrap()).build();
        bytes[100] ^= 1;
        assert!(!ControlFields::read(&bytes).unwrap().is_checksum_valid);
        bytes[16] = 99;
        let state = ControlFields::read(&bytes).unwrap().get("state").unwrap().to_string();
        assert_eq!(state, "unrecognized (99)");
        for length in [0, 15, 16, 100, 250] {
            assert!(ControlFields::read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(ControlFields::read(&[bytes.clone(), bytes.clone()].concat()).is_err());
        bytes[8..12].copy_from_slice(&1300u32.to_be_bytes());
        assert!(matches!(ControlFields::read(&bytes), Err(ControlError::UnknownVersion { .. })));
    }
}
