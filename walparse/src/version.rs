//! The table of PostgreSQL versions: everything that differs between them on disk, one row per major version.
//!
//! The version of a cluster is read from its control file, never assumed. A fork has the row of the version it is
//! based on; its names and resource managers are in `flavor.rs`.

use std::fmt;

use crate::control_layout::ControlLayout;
use crate::flavor::{Flavor, Names};
use crate::segment::SegmentSize;

/// A supported server version: a row of the table, and its flavor. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Version {
    flavor: Flavor,
    row: &'static VersionRow,
    catalog_version: u32,
}

/// The on-disk formats of one major version.
struct VersionRow {
    name: &'static str,
    server_version_num: u32,
    control_version: u32,
    catalog_version: u32,
    wal_magic: u16,
    control: &'static ControlLayout,
    page_flags: PageFlags,
    image_bits: ImageBits,
    has_toplevel_xid: bool,
    has_custom_rmgrs: bool,
    database_drop_info: u8,
}

/// The flags of `xlp_info` that changed in 19.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageFlags {
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`
    pub(crate) overwrite: u16,
    /// `XLP_ALL_FLAGS`
    pub(crate) all: u16,
}

const PAGE_9_6: PageFlags = PageFlags { overwrite: 0x0008, all: 0x000F };
/// Without `XLP_BKP_REMOVABLE`, which was 0x0004.
const PAGE_19: PageFlags = PageFlags { overwrite: 0x0004, all: 0x0007 };

/// The bits of `bimg_info`, which changed in 10 and in 15.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ImageBits {
    pub(crate) has_hole: u8,
    pub(crate) compressed: u8,
    /// `None` in versions without this flag, in which every image is applied.
    pub(crate) apply: Option<u8>,
}

impl ImageBits {
    /// How an image with this `bimg_info` is compressed, if it is compressed.
    pub(crate) fn method(self, info: u8) -> Compression {
        match info & self.compressed {
            0x08 => Compression::Lz4,
            0x10 => Compression::Zstd,
            _ => Compression::Pglz,
        }
    }
}

/// A method of compressing full-page images. Those other than `pglz` exist since 15.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compression {
    Pglz,
    Lz4,
    Zstd,
}

const IMAGE_9_6: ImageBits = ImageBits { has_hole: 0x01, compressed: 0x02, apply: None };
const IMAGE_10: ImageBits = ImageBits { apply: Some(0x04), ..IMAGE_9_6 };
const IMAGE_15: ImageBits = ImageBits { has_hole: 0x01, compressed: 0x04 | 0x08 | 0x10, apply: Some(0x02) };

/// All supported versions, oldest first.
///
/// Sources: `XLOG_PAGE_MAGIC` (xlog_internal.h), `PG_CONTROL_VERSION` (pg_control.h),
/// `CATALOG_VERSION_NO` (catversion.h), `XLP_*` (xlog_internal.h), `BKPIMAGE_*` (xlogrecord.h), `XLOG_DBASE_*`
/// (dbcommands_xlog.h); for 19, the headers of 19rc1.
/// These numbers do not change between the minor releases of a version.
static VERSIONS: &[VersionRow] = &[
    VersionRow {
        name: "9.6",
        server_version_num: 90_600,
        control_version: 960,
        catalog_version: 201_608_131,
        wal_magic: 0xD093,
        control: &ControlLayout::V960,
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
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
        page_flags: PAGE_9_6,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
    VersionRow {
        name: "19",
        server_version_num: 190_000,
        control_version: 1905,
        catalog_version: 202_610_061,
        wal_magic: 0xD122,
        control: &ControlLayout::V1905,
        page_flags: PAGE_19,
        image_bits: IMAGE_15,
        has_toplevel_xid: true,
        has_custom_rmgrs: true,
        database_drop_info: 0x20,
    },
];

impl Flavor {
    /// The version of this flavor with these numbers in its control file. Each version of PostgreSQL has one
    /// catalog version; a fork may have any.
    pub fn version(self, control_version: u32, catalog_version: u32) -> Option<Version> {
        let version = self.versions().find(|version| version.control_version() == control_version)?;
        if self.is_fork() {
            return Some(version.with_catalog(catalog_version));
        }
        self.versions().find(|version| {
            (version.control_version(), version.catalog_version()) == (control_version, catalog_version)
        })
    }

    /// Whether one of its versions has this control file version.
    pub fn has_control_version(self, control_version: u32) -> bool {
        self.versions().any(|version| version.control_version() == control_version)
    }

    /// Its versions; those of a fork have the catalog version of PostgreSQL.
    pub(crate) fn versions(self) -> impl Iterator<Item = Version> {
        self.majors().iter().filter_map(move |name| Version::of(self, name))
    }
}

impl Version {
    /// The version of PostgreSQL with these numbers in its control file.
    ///
    /// ```
    /// let version = walparse::Version::find(1300, 202_209_061).expect("a supported version");
    /// assert_eq!(version.to_string(), "PostgreSQL 15");
    /// assert_eq!(version.tablespace_version_dir(), "PG_15_202209061");
    /// ```
    pub fn find(control_version: u32, catalog_version: u32) -> Option<Version> {
        Flavor::all()
            .filter(|flavor| !flavor.is_fork())
            .find_map(|flavor| flavor.version(control_version, catalog_version))
    }

    /// All supported versions of PostgreSQL, oldest first.
    pub fn all() -> impl Iterator<Item = Version> {
        VERSIONS.iter().filter_map(|row| Version::find(row.control_version, row.catalog_version))
    }

    /// All versions of all flavors. Those of a fork get a catalog version that no version of PostgreSQL has.
    pub fn of_all_flavors() -> impl Iterator<Item = Version> {
        let forks = Flavor::all().filter(|flavor| flavor.is_fork());
        Version::all()
            .chain(forks.flat_map(Flavor::versions).map(|version| version.with_catalog(202_211_151)))
    }

    /// The version with this name and flavor.
    pub(crate) fn of(flavor: Flavor, name: &str) -> Option<Version> {
        let row = VERSIONS.iter().find(|row| row.name == name)?;
        Some(Version { flavor, row, catalog_version: row.catalog_version })
    }

    pub(crate) fn with_catalog(self, catalog_version: u32) -> Version {
        Version { catalog_version, ..self }
    }

    /// The flavor.
    pub fn flavor(self) -> Flavor {
        self.flavor
    }

    /// The names of the files and programs.
    pub fn names(self) -> &'static Names {
        self.flavor.names()
    }

    /// The major version of PostgreSQL as in `PG_VERSION`, for example `15`.
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

    /// The magic number of WAL pages: the one found in the WAL of a fork, or that of the PostgreSQL version.
    pub fn wal_magic(self) -> u16 {
        self.flavor.wal_magic().unwrap_or(self.row.wal_magic)
    }

    /// The same version with another magic number in its WAL pages.
    pub fn with_wal_magic(self, wal_magic: u16) -> Version {
        Version { flavor: self.flavor.with_wal_magic(wal_magic), ..self }
    }

    /// Whether [`Version::wal_magic`] is that of the PostgreSQL version.
    pub fn has_known_wal_magic(self) -> bool {
        self.wal_magic() == self.row.wal_magic
    }

    /// The name of the WAL directory in the data directory.
    pub fn wal_dir(self) -> &'static str {
        self.flavor.wal_dir()
    }

    /// The usual name of the directory that holds this version's files in a tablespace, for example
    /// `PG_15_202209061` (`TABLESPACE_VERSION_DIRECTORY`).
    pub fn tablespace_version_dir(self) -> String {
        self.flavor.tablespace_version_dir(self.row.name, self.catalog_version)
    }

    /// Whether `name` is the name of such a directory. That of a fork may contain any version of the product.
    pub fn is_tablespace_version_dir(self, name: &str) -> bool {
        self.flavor.is_tablespace_version_dir(name, self.row.name, self.catalog_version)
    }

    pub(crate) fn control_layout(self) -> &'static ControlLayout {
        self.row.control
    }

    pub(crate) fn page_flags(self) -> PageFlags {
        self.row.page_flags
    }

    pub(crate) fn image_bits(self) -> ImageBits {
        self.row.image_bits
    }

    /// Whether a record may contain the top-level transaction ID (`XLR_BLOCK_ID_TOPLEVEL_XID`, since 14).
    pub(crate) fn has_toplevel_xid(self) -> bool {
        self.row.has_toplevel_xid
    }

    /// Whether extensions may have the resource manager IDs 128 to 255 (since 15).
    pub(crate) fn has_custom_rmgrs(self) -> bool {
        self.row.has_custom_rmgrs
    }

    /// `XLOG_DBASE_DROP`, which changed in 15.
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

/// What is needed to read the WAL of a cluster. All of it is in the control file ([`ControlFile::geometry`]) and,
/// except for the size of data pages, in the first page of every segment ([`PageHeader::describe_segment`]).
///
/// [`ControlFile::geometry`]: crate::ControlFile::geometry
/// [`PageHeader::describe_segment`]: crate::PageHeader::describe_segment
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalGeometry {
    /// The version that wrote the WAL.
    pub version: Version,
    /// The system identifier of the cluster.
    pub system_identifier: u64,
    /// The size of a segment file.
    pub segment_size: SegmentSize,
    /// The size of a WAL page in bytes (`xlog_blcksz`).
    pub wal_block_size: u32,
    /// The size of a data page in bytes (`blcksz`).
    pub block_size: u32,
}

/// The geometry of a cluster with the smallest segment size, 1 MiB. For tests.
#[cfg(any(test, feature = "testing"))]
pub fn small_geometry(version: Version) -> WalGeometry {
    WalGeometry {
        version,
        system_identifier: 0x1234_5678_9ABC_DEF0,
        segment_size: SegmentSize::new(1 << 20).unwrap_or_else(|| unreachable!("1 MiB is a segment size")),
        wal_block_size: 8192,
        block_size: 8192,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_may_have_any_catalog_version() {
        let flavor = |key: &str| Flavor::all().find(|flavor| flavor.key() == key).unwrap();
        assert!(flavor("postgresql").version(1201, 202_211_151).is_none());
        let version = flavor("kingbase-v8r6").version(1201, 202_211_151).unwrap();
        assert_eq!((version.name(), version.catalog_version()), ("12", 202_211_151));
        assert_eq!(version.tablespace_version_dir(), "SYS_12_202211151");
        assert!(flavor("kingbase-v8r6").version(960, 201_608_131).is_none());
        assert_eq!(flavor("kingbase-v8r3").version(960, 201_608_131).unwrap().name(), "9.6");
    }

    #[test]
    fn the_tablespace_directory_of_a_fork_may_contain_any_product_version() {
        let is_one = |key: &str, control, catalog, name: &str| {
            let flavor =
                Flavor::all().find(|row| row.key() == key && row.has_control_version(control)).unwrap();
            flavor.version(control, catalog).unwrap().is_tablespace_version_dir(name)
        };
        for name in ["SYS_V008R002_201608131", "SYS_V008R003_201608131"] {
            assert!(is_one("kingbase-v8r3", 960, 201_608_131, name));
            assert!(!is_one("kingbase-v8r3", 960, 201_608_132, name));
        }
        assert!(is_one("kingbase-v8r6", 1201, 202_404_121, "SYS_12_202404121"));
        assert!(!is_one("kingbase-v8r6", 1201, 202_404_121, "SYS_V008_202404121"));
        assert!(is_one("postgresql", 960, 201_608_131, "PG_9.6_201608131"));
        for name in ["PG_12_201909212", "SYS_9.6_201608131", "PG_9.6_0201608131", "PG_9.6", "PG_"] {
            assert!(!is_one("postgresql", 960, 201_608_131, name), "{name}");
        }
    }
}
