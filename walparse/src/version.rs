//! The table of PostgreSQL versions: everything that differs between them on disk, one row each.
//!
//! A row is found from the control file, never assumed. A fork has the row of the version it was made from,
//! with its own names and numbers, which are in [`crate::flavor`].

use std::fmt;

use crate::control::ControlLayout;
use crate::flavor::{Flavor, Names};
use crate::segment::SegmentSize;

/// One supported server version: a row of the table in its flavor. Copies are cheap.
#[derive(Clone, Copy)]
pub struct Version {
    flavor: Flavor,
    row: &'static VersionRow,
    catalog_version: u32,
}

/// What one major version puts on disk.
struct VersionRow {
    name: &'static str,
    server_version_num: u32,
    control_version: u32,
    catalog_version: u32,
    wal_magic: u16,
    control: &'static ControlLayout,
    image_bits: ImageBits,
    has_toplevel_xid: bool,
    has_custom_rmgrs: bool,
    database_drop_info: u8,
}

/// The meaning of `bimg_info`, which changed twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ImageBits {
    pub(crate) has_hole: u8,
    pub(crate) compressed: u8,
    /// `None`: every image is applied, as in the versions before the flag was there.
    pub(crate) apply: Option<u8>,
}

const IMAGE_9_6: ImageBits = ImageBits { has_hole: 0x01, compressed: 0x02, apply: None };
const IMAGE_10: ImageBits = ImageBits { apply: Some(0x04), ..IMAGE_9_6 };
const IMAGE_15: ImageBits = ImageBits { has_hole: 0x01, compressed: 0x04 | 0x08 | 0x10, apply: Some(0x02) };

/// All supported versions, oldest first.
///
/// Sources: `XLOG_PAGE_MAGIC` (xlog_internal.h), `PG_CONTROL_VERSION` (pg_control.h),
/// `CATALOG_VERSION_NO` (catversion.h), `BKPIMAGE_*` (xlogrecord.h), `XLOG_DBASE_*` (dbcommands_xlog.h).
/// None of these numbers changes between the minor releases of a version.
static VERSIONS: &[VersionRow] = &[
    VersionRow {
        name: "9.6",
        server_version_num: 90_600,
        control_version: 960,
        catalog_version: 201_608_131,
        wal_magic: 0xD093,
        control: &ControlLayout::V960,
        image_bits: IMAGE_9_6,
        has_toplevel_xid: false,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "10",
        server_version_num: 100_000,
        control_version: 1002,
        catalog_version: 201_707_211,
        wal_magic: 0xD097,
        control: &ControlLayout::V1002,
        image_bits: IMAGE_10,
        has_toplevel_xid: false,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "11",
        server_version_num: 110_000,
        control_version: 1100,
        catalog_version: 201_809_051,
        wal_magic: 0xD098,
        control: &ControlLayout::V1100,
        image_bits: IMAGE_10,
        has_toplevel_xid: false,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "12",
        server_version_num: 120_000,
        control_version: 1201,
        catalog_version: 201_909_212,
        wal_magic: 0xD101,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_10,
        has_toplevel_xid: false,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "13",
        server_version_num: 130_000,
        control_version: 1300,
        catalog_version: 202_007_201,
        wal_magic: 0xD106,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_10,
        has_toplevel_xid: false,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "14",
        server_version_num: 140_000,
        control_version: 1300,
        catalog_version: 202_107_181,
        wal_magic: 0xD10D,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_10,
        has_toplevel_xid: true,
        has_custom_rmgrs: false,
        database_drop_info: 0x10,
    },
    VersionRow {
        name: "15",
        server_version_num: 150_000,
        control_version: 1300,
        catalog_version: 202_209_061,
        wal_magic: 0xD110,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
    VersionRow {
        name: "16",
        server_version_num: 160_000,
        control_version: 1300,
        catalog_version: 202_307_071,
        wal_magic: 0xD113,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
    VersionRow {
        name: "17",
        server_version_num: 170_000,
        control_version: 1700,
        catalog_version: 202_406_281,
        wal_magic: 0xD116,
        control: &ControlLayout::V1201,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
    VersionRow {
        name: "18",
        server_version_num: 180_000,
        control_version: 1800,
        catalog_version: 202_506_291,
        wal_magic: 0xD118,
        control: &ControlLayout::V1800,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
];

impl Version {
    /// The PostgreSQL version whose control file carries this pair of numbers.
    pub fn find(control_version: u32, catalog_version: u32) -> Option<Version> {
        Flavor::all()
            .filter(|flavor| !flavor.is_fork())
            .find_map(|flavor| flavor.version(control_version, catalog_version))
    }

    /// All supported versions of PostgreSQL, oldest first.
    pub fn all() -> impl Iterator<Item = Version> {
        VERSIONS.iter().filter_map(|row| Version::find(row.control_version, row.catalog_version))
    }

    /// All versions of all flavors, forks with a catalog version of their own.
    pub fn of_all_flavors() -> impl Iterator<Item = Version> {
        let forks = Flavor::all().filter(|flavor| flavor.is_fork());
        Version::all()
            .chain(forks.flat_map(Flavor::versions).map(|version| version.with_catalog(202_211_151)))
    }

    /// The version of this name in a flavor.
    pub(crate) fn of(flavor: Flavor, name: &str) -> Option<Version> {
        let row = VERSIONS.iter().find(|row| row.name == name)?;
        Some(Version { flavor, row, catalog_version: row.catalog_version })
    }

    pub(crate) fn with_catalog(self, catalog_version: u32) -> Version {
        Version { catalog_version, ..self }
    }

    /// Whose version it is.
    pub fn flavor(self) -> Flavor {
        self.flavor
    }

    /// The names of its files and programs.
    pub fn names(self) -> &'static Names {
        self.flavor.names()
    }

    /// The major version of PostgreSQL as `PG_VERSION` has it, for example `15`.
    pub fn name(self) -> &'static str {
        self.row.name
    }

    /// The smallest `server_version_num` of this major version, for example 150000.
    pub fn server_version_num(self) -> u32 {
        self.row.server_version_num
    }

    /// `pg_control_version`.
    pub fn control_version(self) -> u32 {
        self.row.control_version
    }

    /// `catalog_version_no`.
    pub fn catalog_version(self) -> u32 {
        self.catalog_version
    }

    /// The magic number of every WAL page: the one that was found, or that of the PostgreSQL version.
    pub fn wal_magic(self) -> u16 {
        self.flavor.wal_magic().unwrap_or(self.row.wal_magic)
    }

    /// The same with another magic number.
    pub fn with_wal_magic(self, wal_magic: u16) -> Version {
        Version { flavor: self.flavor.with_wal_magic(wal_magic), ..self }
    }

    /// Whether that magic number is the PostgreSQL version's.
    pub fn has_known_wal_magic(self) -> bool {
        self.wal_magic() == self.row.wal_magic
    }

    /// The name of the WAL directory below the data directory.
    pub fn wal_dir(self) -> &'static str {
        self.flavor.wal_dir()
    }

    /// The usual name of the directory a tablespace keeps this version's files in, for example
    /// `PG_15_202209061` (`TABLESPACE_VERSION_DIRECTORY`).
    pub fn tablespace_version_dir(self) -> String {
        self.flavor.tablespace_version_dir(self.row.name, self.catalog_version)
    }

    /// Whether this is the name of such a directory. A fork may have the product's version in it, of which
    /// there are many.
    pub fn is_tablespace_version_dir(self, name: &str) -> bool {
        self.flavor.is_tablespace_version_dir(name, self.row.name, self.catalog_version)
    }

    pub(crate) fn control_layout(self) -> &'static ControlLayout {
        self.row.control
    }

    pub(crate) fn image_bits(self) -> ImageBits {
        self.row.image_bits
    }

    /// Whether a record may carry the top-level transaction (fragment id 252; from 14 on).
    pub(crate) fn has_toplevel_xid(self) -> bool {
        self.row.has_toplevel_xid
    }

    /// Whether resource managers 128 to 255 may be those of extensions (from 15 on).
    pub(crate) fn has_custom_rmgrs(self) -> bool {
        self.row.has_custom_rmgrs
    }

    /// `XLOG_DBASE_DROP`, whose code moved in 15.
    pub(crate) fn database_drop_info(self) -> u8 {
        self.row.database_drop_info
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        std::ptr::eq(self.row, other.row)
            && self.flavor == other.flavor
            && self.catalog_version == other.catalog_version
    }
}

impl Eq for Version {}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flavor.is_fork() {
            return write!(f, "{} (PostgreSQL {})", self.flavor, self.row.name);
        }
        write!(f, "{} {}", self.flavor, self.row.name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one must know of a cluster to read its WAL; all of it comes from the control file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalGeometry {
    /// The version that wrote the WAL.
    pub version: Version,
    /// The cluster's system identifier, repeated in the first page of every segment.
    pub system_identifier: u64,
    /// The size of a segment file.
    pub segment_size: SegmentSize,
    /// The size of a WAL page in bytes (`xlog_blcksz`).
    pub wal_block_size: u32,
    /// The size of a data page in bytes (`blcksz`).
    pub block_size: u32,
}
