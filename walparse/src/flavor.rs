//! The table of flavors: how PostgreSQL and its forks name their files and number their resource managers.
//!
//! The flavor of a data directory is detected, never assumed. To support a fork, add a row here. Its file formats are
//! those of the PostgreSQL version it is based on, whose row is in `version.rs`.

use std::fmt;

/// PostgreSQL or a fork: a row of the table, and the WAL magic number if it was read from WAL. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Flavor {
    row: &'static FlavorRow,
    wal_magic: Option<u16>,
}

struct FlavorRow {
    key: &'static str,
    product: &'static str,
    /// The major versions of PostgreSQL that have this flavor, or on which the fork is based.
    majors: &'static [&'static str],
    /// Strings of which a fork's version string contains one.
    marks: &'static [&'static str],
    is_fork: bool,
    version_dir: VersionDir,
    has_archive_dest: bool,
    names: &'static Names,
    rmgrs: &'static [&'static str],
}

/// The form of the directory name in a tablespace (`TABLESPACE_VERSION_DIRECTORY`).
#[derive(Clone, Copy)]
enum VersionDir {
    /// Prefix, major version and catalog version.
    Major(&'static str),
    /// Prefix, product version and catalog version; with the usual product version.
    Product(&'static str, &'static str),
}

/// The names of the files in a data directory and of the server's programs. Paths are relative to the data directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Names {
    /// The WAL directory.
    pub wal_dir: &'static str,
    /// The directory of the symbolic links to tablespaces.
    pub tablespace_dir: &'static str,
    /// The control file.
    pub control_file: &'static str,
    /// The file with the major version, in the data directory and in the directory of each database.
    pub version_file: &'static str,
    /// The prefix of the names of most of the server's directories.
    pub prefix: &'static str,
    /// The log directory, if it is in the data directory and its name has that prefix.
    pub log_dir: &'static str,
    /// The lock file, with the process ID of the server.
    pub lock_file: &'static str,
    /// The file with the command line of the last start.
    pub opts_file: &'static str,
    /// The main configuration file.
    pub config_file: &'static str,
    /// The file that `ALTER SYSTEM` writes.
    pub auto_config_file: &'static str,
    /// The temporary file that replaces it.
    pub auto_config_draft: &'static str,
    /// The relation cache file; temporary ones have a suffix.
    pub catalog_cache: &'static str,
    /// The directory of temporary statistics files.
    pub stat_tmp_dir: &'static str,
    /// The directory of replication slots.
    pub slot_dir: &'static str,
    /// The directory of dynamic shared memory.
    pub shared_memory_dir: &'static str,
    /// The directory of `LISTEN`/`NOTIFY` state.
    pub notify_dir: &'static str,
    /// The directory of serializable transactions.
    pub serial_dir: &'static str,
    /// The directory of exported snapshots.
    pub snapshot_dir: &'static str,
    /// The directory of subtransaction state.
    pub subtrans_dir: &'static str,
    /// The server program.
    pub server_program: &'static str,
    /// The program that starts and stops a server.
    pub ctl_program: &'static str,
    /// The program that prints the control file.
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

/// From listings of V8R6 and V9 data directories and from the vendor's scripts. There is also `sys_csnlog`; it is
/// copied like the commit log, because nothing shows that a server recreates it at startup.
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

/// The built-in resource managers of PostgreSQL 9.6 to 19, indexed by ID (rmgrlist.h).
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

/// As printed by `sys_waldump --rmgr=list` of V8R6: two more than PostgreSQL, with the IDs 6 and 7.
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
    majors: &["10", "11", "12", "13", "14", "15", "16", "17", "18", "19"],
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

/// The flavors. Rows with the same key are one flavor to the user; they differ in the WAL directory.
static FLAVORS: &[FlavorRow] = &[
    POSTGRESQL,
    FlavorRow { majors: &["9.6"], names: &Names { wal_dir: "pg_xlog", ..POSTGRESQL_NAMES }, ..POSTGRESQL },
    KINGBASE_V8R3,
    // Documents about V8R3 mention both names of the WAL directory.
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
    /// All flavors. Two of them may have the same key and differ in the WAL directory.
    pub fn all() -> impl Iterator<Item = Flavor> {
        FLAVORS.iter().map(|row| Flavor { row, wal_magic: None })
    }

    /// The distinct keys.
    pub fn keys() -> Vec<&'static str> {
        let mut keys: Vec<_> = FLAVORS.iter().map(|row| row.key).collect();
        keys.dedup();
        keys
    }

    /// The name for users and programs, for example `kingbase-v8r6`.
    pub fn key(self) -> &'static str {
        self.row.key
    }

    /// The name of the product, for example `KingbaseES V8R6`.
    pub fn product(self) -> &'static str {
        self.row.product
    }

    /// Whether it is a fork, whose formats are known only from the PostgreSQL version it is based on.
    pub fn is_fork(self) -> bool {
        self.row.is_fork
    }

    /// The names of its files and programs.
    pub fn names(self) -> &'static Names {
        self.row.names
    }

    /// The name of the WAL directory.
    pub fn wal_dir(self) -> &'static str {
        self.row.names.wal_dir
    }

    /// Whether the server can archive WAL into a directory on its own (`archive_dest`).
    pub fn has_archive_dest(self) -> bool {
        self.row.has_archive_dest
    }

    /// Strings of which the version string contains one; empty for PostgreSQL.
    pub fn marks(self) -> &'static [&'static str] {
        self.row.marks
    }

    /// The same flavor with the WAL magic number found in its WAL.
    pub fn with_wal_magic(self, wal_magic: u16) -> Flavor {
        Flavor { wal_magic: Some(wal_magic), ..self }
    }

    /// Whether its WAL magic number was found in WAL. Otherwise it is taken to be that of the PostgreSQL version.
    pub fn has_found_wal_magic(self) -> bool {
        self.wal_magic.is_some()
    }

    /// The major versions of PostgreSQL that have this flavor, or on which the fork is based.
    pub(crate) fn majors(self) -> &'static [&'static str] {
        self.row.majors
    }

    /// The WAL magic number that was found, if it was looked for.
    pub(crate) fn wal_magic(self) -> Option<u16> {
        self.wal_magic
    }

    /// The names of its built-in resource managers, indexed by ID.
    pub(crate) fn rmgrs(self) -> &'static [&'static str] {
        self.row.rmgrs
    }

    /// The usual name of the directory of a version in a tablespace.
    pub(crate) fn tablespace_version_dir(self, major: &str, catalog: u32) -> String {
        match self.row.version_dir {
            VersionDir::Major(prefix) => format!("{prefix}_{major}_{catalog}"),
            VersionDir::Product(prefix, product) => format!("{prefix}_{product}_{catalog}"),
        }
    }

    /// Whether `name` is the name of such a directory.
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
    fn every_flavor_has_versions_and_rows_of_a_key_are_adjacent() {
        for flavor in Flavor::all() {
            assert_eq!(flavor.versions().count(), flavor.row.majors.len(), "{flavor:?}");
            let names = flavor.names();
            assert!(
                names.wal_dir.starts_with(names.prefix) && names.tablespace_dir.starts_with(names.prefix)
            );
            assert_eq!(
                flavor.rmgrs()[..6],
                POSTGRESQL_RMGRS[..6],
                "the resource managers that a rewind interprets"
            );
        }
        assert_eq!(Flavor::keys(), ["postgresql", "kingbase-v8r3", "kingbase-v8r6"]);
    }
}
