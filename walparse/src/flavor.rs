//! The table of flavors: how PostgreSQL and its forks name their files and number their resource managers.
//!
//! A row is found by looking at a data directory, never assumed. Adding a fork means adding a row here; what
//! a version of it puts into its files it has from the PostgreSQL it was made from, whose row is in
//! [`crate::version`].

use std::fmt;

use crate::version::Version;

/// One way to name files: a row of the table, and what was found besides. Copies are cheap.
#[derive(Clone, Copy)]
pub struct Flavor {
    row: &'static FlavorRow,
    wal_magic: Option<u16>,
}

struct FlavorRow {
    key: &'static str,
    product: &'static str,
    /// The PostgreSQL versions it comes in, or was made from.
    majors: &'static [&'static str],
    /// What stands in its version string, for a fork.
    marks: &'static [&'static str],
    is_fork: bool,
    version_dir: VersionDir,
    has_archive_dest: bool,
    names: &'static Names,
    rmgrs: &'static [&'static str],
}

/// How a tablespace's directory of one version is called (`TABLESPACE_VERSION_DIRECTORY`).
#[derive(Clone, Copy)]
enum VersionDir {
    /// Prefix, major version, catalog version.
    Major(&'static str),
    /// Prefix, the product's own version, catalog version; the second is what it usually is.
    Product(&'static str, &'static str),
}

/// The names in a data directory, and of the programs that work on it. Paths are below the data directory.
#[derive(Debug)]
pub struct Names {
    /// The WAL directory.
    pub wal_dir: &'static str,
    /// The directory of the links to tablespaces.
    pub tablespace_dir: &'static str,
    /// The control file.
    pub control_file: &'static str,
    /// The file with the version, in the data directory and in that of each database.
    pub version_file: &'static str,
    /// What the names of most of the server's own directories begin with.
    pub prefix: &'static str,
    /// Where logs go if they go into the data directory and the name has that prefix.
    pub log_dir: &'static str,
    /// The lock file, which names the server's process.
    pub lock_file: &'static str,
    /// The command line of the last start.
    pub opts_file: &'static str,
    /// The main configuration file.
    pub config_file: &'static str,
    /// What `ALTER SYSTEM` writes.
    pub auto_config_file: &'static str,
    /// The same while it is being written.
    pub auto_config_draft: &'static str,
    /// A cache of the catalogs; those being written have longer names.
    pub catalog_cache: &'static str,
    /// Statistics on their way between processes.
    pub stat_tmp_dir: &'static str,
    /// Replication slots.
    pub slot_dir: &'static str,
    /// Shared memory in files.
    pub shared_memory_dir: &'static str,
    /// `NOTIFY`.
    pub notify_dir: &'static str,
    /// Serializable transactions.
    pub serial_dir: &'static str,
    /// Exported snapshots.
    pub snapshot_dir: &'static str,
    /// Subtransactions.
    pub subtrans_dir: &'static str,
    /// The server program.
    pub server_program: &'static str,
    /// The program that starts and stops a server.
    pub ctl_program: &'static str,
    /// The program that shows a control file.
    pub controldata_program: &'static str,
}

const POSTGRESQL_NAMES: Names = Names {
    wal_dir: "pg_wal",
    tablespace_dir: "pg_tblspc",
    control_file: "global/pg_control",
    version_file: "PG_VERSION",
    prefix: "pg_",
    log_dir: "pg_log",
    lock_file: "postmaster.pid",
    opts_file: "postmaster.opts",
    config_file: "postgresql.conf",
    auto_config_file: "postgresql.auto.conf",
    auto_config_draft: "postgresql.auto.conf.tmp",
    catalog_cache: "pg_internal.init",
    stat_tmp_dir: "pg_stat_tmp",
    slot_dir: "pg_replslot",
    shared_memory_dir: "pg_dynshmem",
    notify_dir: "pg_notify",
    serial_dir: "pg_serial",
    snapshot_dir: "pg_snapshots",
    subtrans_dir: "pg_subtrans",
    server_program: "postgres",
    ctl_program: "pg_ctl",
    controldata_program: "pg_controldata",
};

/// As listings of V8R6 and V9 data directories and the vendor's scripts have them. There is `sys_csnlog`
/// besides; nothing says that a server makes it anew at a start, so it is copied like the commit log.
const KINGBASE_NAMES: Names = Names {
    wal_dir: "sys_wal",
    tablespace_dir: "sys_tblspc",
    control_file: "global/sys_control",
    version_file: "SYS_VERSION",
    prefix: "sys_",
    log_dir: "sys_log",
    lock_file: "kingbase.pid",
    opts_file: "kingbase.opts",
    config_file: "kingbase.conf",
    auto_config_file: "kingbase.auto.conf",
    auto_config_draft: "kingbase.auto.conf.tmp",
    catalog_cache: "sys_internal.init",
    stat_tmp_dir: "sys_stat_tmp",
    slot_dir: "sys_replslot",
    shared_memory_dir: "sys_dynshmem",
    notify_dir: "sys_notify",
    serial_dir: "sys_serial",
    snapshot_dir: "sys_snapshots",
    subtrans_dir: "sys_subtrans",
    server_program: "kingbase",
    ctl_program: "sys_ctl",
    controldata_program: "sys_controldata",
};

/// The built-in resource managers of PostgreSQL 9.6 to 18, in the order of their numbers (rmgrlist.h).
pub(crate) static POSTGRESQL_RMGRS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// Two more from the seventh on, as `sys_waldump --rmgr=list` of V8R6 shows them.
const KINGBASE_V8R6_RMGRS: [&str; 24] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "TablespaceEnc",
    "TabcolumnEnc",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

const POSTGRESQL: FlavorRow = FlavorRow {
    key: "postgresql",
    product: "PostgreSQL",
    majors: &["10", "11", "12", "13", "14", "15", "16", "17", "18"],
    marks: &[],
    is_fork: false,
    version_dir: VersionDir::Major("PG"),
    has_archive_dest: false,
    names: &POSTGRESQL_NAMES,
    rmgrs: &POSTGRESQL_RMGRS,
};

const KINGBASE_V8R3: FlavorRow = FlavorRow {
    key: "kingbase-v8r3",
    product: "KingbaseES V8R3",
    majors: &["9.6"],
    marks: &["V008R003", "V008R002", "V008R007"],
    is_fork: true,
    version_dir: VersionDir::Product("SYS", "V008R003"),
    has_archive_dest: true,
    names: &Names { wal_dir: "sys_xlog", ..KINGBASE_NAMES },
    rmgrs: &POSTGRESQL_RMGRS,
};

/// The flavors. Rows of one key are the same to the user, who need not know which directory it is.
static FLAVORS: &[FlavorRow] = &[
    POSTGRESQL,
    FlavorRow { majors: &["9.6"], names: &Names { wal_dir: "pg_xlog", ..POSTGRESQL_NAMES }, ..POSTGRESQL },
    KINGBASE_V8R3,
    // Texts about V8R3 name either directory.
    FlavorRow { names: &KINGBASE_NAMES, ..KINGBASE_V8R3 },
    FlavorRow {
        key: "kingbase-v8r6",
        product: "KingbaseES V8R6",
        majors: &["12"],
        marks: &["V008R006", "V009R"],
        is_fork: true,
        version_dir: VersionDir::Major("SYS"),
        has_archive_dest: false,
        names: &KINGBASE_NAMES,
        rmgrs: &KINGBASE_V8R6_RMGRS,
    },
];

impl Flavor {
    /// All rows of the table.
    pub fn all() -> impl Iterator<Item = Flavor> {
        FLAVORS.iter().map(|row| Flavor { row, wal_magic: None })
    }

    /// The keys of the table, each once.
    pub fn keys() -> Vec<&'static str> {
        let mut keys: Vec<_> = FLAVORS.iter().map(|row| row.key).collect();
        keys.dedup();
        keys
    }

    /// What users and programs call it, for example `kingbase-v8r6`.
    pub fn key(self) -> &'static str {
        self.row.key
    }

    /// The product, for example `KingbaseES V8R6`.
    pub fn product(self) -> &'static str {
        self.row.product
    }

    /// Whether its formats are known only from the PostgreSQL it was made from.
    pub fn is_fork(self) -> bool {
        self.row.is_fork
    }

    /// Its names.
    pub fn names(self) -> &'static Names {
        self.row.names
    }

    /// The name of its WAL directory.
    pub fn wal_dir(self) -> &'static str {
        self.row.names.wal_dir
    }

    /// Whether its server archives into a directory by itself (`archive_dest`).
    pub fn has_archive_dest(self) -> bool {
        self.row.has_archive_dest
    }

    /// What its version string contains, one of these; nothing for PostgreSQL.
    pub fn marks(self) -> &'static [&'static str] {
        self.row.marks
    }

    /// The version of this flavor whose control file carries this pair of numbers. PostgreSQL has one catalog
    /// version to each; a fork counts its own.
    pub fn version(self, control_version: u32, catalog_version: u32) -> Option<Version> {
        let version = self.versions().find(|version| version.control_version() == control_version)?;
        if self.row.is_fork {
            return Some(version.with_catalog(catalog_version));
        }
        self.versions().find(|version| {
            (version.control_version(), version.catalog_version()) == (control_version, catalog_version)
        })
    }

    /// Whether one of its versions has control files of this version.
    pub fn has_control_version(self, control_version: u32) -> bool {
        self.versions().any(|version| version.control_version() == control_version)
    }

    /// Its versions, a fork's with the catalog version of PostgreSQL.
    pub(crate) fn versions(self) -> impl Iterator<Item = Version> {
        self.row.majors.iter().filter_map(move |name| Version::of(self, name))
    }

    /// The same with this magic number in its WAL pages, which was found there.
    pub fn with_wal_magic(self, wal_magic: u16) -> Flavor {
        Flavor { wal_magic: Some(wal_magic), ..self }
    }

    /// The magic number that was found.
    pub(crate) fn wal_magic(self) -> Option<u16> {
        self.wal_magic
    }

    /// The names of its resource managers, by number.
    pub(crate) fn rmgrs(self) -> &'static [&'static str] {
        self.row.rmgrs
    }

    /// The usual name of a tablespace's directory of a version.
    pub(crate) fn tablespace_version_dir(self, major: &str, catalog: u32) -> String {
        match self.row.version_dir {
            VersionDir::Major(prefix) => format!("{prefix}_{major}_{catalog}"),
            VersionDir::Product(prefix, product) => format!("{prefix}_{product}_{catalog}"),
        }
    }

    /// Whether this is such a name.
    pub(crate) fn is_tablespace_version_dir(self, name: &str, major: &str, catalog: u32) -> bool {
        let (prefix, middle) = match self.row.version_dir {
            VersionDir::Major(prefix) => (prefix, Some(major)),
            VersionDir::Product(prefix, _) => (prefix, None),
        };
        let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) else {
            return false;
        };
        rest.rsplit_once('_').is_some_and(|(found, number)| {
            middle.is_none_or(|middle| found == middle) && number == catalog.to_string()
        })
    }
}

impl PartialEq for Flavor {
    fn eq(&self, other: &Flavor) -> bool {
        std::ptr::eq(self.row, other.row) && self.wal_magic == other.wal_magic
    }
}

impl Eq for Flavor {}

impl fmt::Debug for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.row.key, self.row.names.wal_dir)
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row.product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_versions_and_keys_stand_together() {
        for flavor in Flavor::all() {
            assert_eq!(flavor.versions().count(), flavor.row.majors.len(), "{flavor:?}");
            let names = flavor.names();
            assert!(
                names.wal_dir.starts_with(names.prefix) && names.tablespace_dir.starts_with(names.prefix)
            );
            assert_eq!(flavor.rmgrs()[..6], POSTGRESQL_RMGRS[..6], "what a rewind interprets");
        }
        assert_eq!(Flavor::keys(), ["postgresql", "kingbase-v8r3", "kingbase-v8r6"]);
    }

    #[test]
    fn a_fork_counts_its_own_catalog_versions() {
        let flavor = |key: &str| Flavor::all().find(|flavor| flavor.key() == key).unwrap();
        assert!(flavor("postgresql").version(1201, 202_211_151).is_none());
        let version = flavor("kingbase-v8r6").version(1201, 202_211_151).unwrap();
        assert_eq!((version.name(), version.catalog_version()), ("12", 202_211_151));
        assert_eq!(version.tablespace_version_dir(), "SYS_12_202211151");
        assert!(flavor("kingbase-v8r6").version(960, 201_608_131).is_none());
        assert_eq!(flavor("kingbase-v8r3").version(960, 201_608_131).unwrap().name(), "9.6");
    }

    #[test]
    fn a_tablespace_directory_need_not_have_the_usual_name() {
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
