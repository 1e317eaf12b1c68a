//! Files in a data directory that a rewind does not copy.
//!
//! The rules are those of pg_rewind (`excludeFiles`, `excludeDirContents` in filemap.c), which are the same from 13 to
//! 18 and were taken from base backups. They are used here for every version. pg_rewind 9.6 and 10 excluded less, but
//! those servers also empty or re-create these files at every start, and copying replication slots was a bug. The rules
//! apply to the paths of both sides.

use walparse::Names;

use crate::datadir::data_path::DataPath;

/// What a rewind does with a path, as far as its name decides it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The name decides nothing: both sides are compared.
    Consider,
    /// Never copied, and removed from the target.
    Exclude,
    /// Neither copied nor removed.
    LeaveAlone,
}

/// Which paths a rule applies to. The names of the server's files depend on the flavor.
#[derive(Clone, Copy)]
enum Pattern {
    /// This path only.
    Path(fn(&Names) -> &'static str),
    /// Everything in this directory, given by its path, but not the directory itself.
    ContentsOf(fn(&Names) -> &'static str),
    /// Entries of this name in any directory, and everything below them.
    Called(fn(&Names) -> &'static str),
    /// Entries whose names have this prefix in any directory, and everything below them.
    Prefix(fn(&Names) -> &'static str),
    /// As `Prefix`, except for entries of the data directory itself.
    PrefixBelow(&'static str),
    /// Entries of the data directory itself whose names have this prefix, and everything below them.
    TopPrefix(&'static str),
    /// Paths with this suffix.
    Ending(&'static str),
    /// Paths that contain this text.
    Containing(&'static str),
}

/// The rules. The first that matches a path applies.
const RULES: &[(Pattern, Disposition)] = &[
    // The control file is written separately at the end, because it makes everything else valid.
    (Pattern::Path(|names| names.control_file), Disposition::LeaveAlone),
    // Created by the file manager of macOS; not part of the cluster.
    (Pattern::Containing(".DS_Store"), Disposition::LeaveAlone),
    // Made by mkfs at the root of a file system, readable by root only.
    (Pattern::Called(|_| "lost+found"), Disposition::LeaveAlone),
    // Sockets of a server whose unix_socket_directories is the data directory, and their lock files.
    (Pattern::TopPrefix(".s.PGSQL."), Disposition::LeaveAlone),
    (Pattern::TopPrefix(".s.KINGBASE."), Disposition::LeaveAlone),
    // A temporary file of an earlier run that was killed before renaming it into place.
    (Pattern::Ending(".kbrecover-new"), Disposition::Exclude),
    // Files of kbrecover. The source's journal of an earlier rewind must not be copied, and the target's is in use.
    (Pattern::TopPrefix("kbrecover."), Disposition::LeaveAlone),
    // Temporary files of queries, which the server removes at startup.
    (Pattern::PrefixBelow("pgsql_tmp"), Disposition::Exclude),
    // Temporary files that ALTER SYSTEM and the logging collector rename into place; possibly incomplete.
    (Pattern::Called(|names| names.auto_config_draft), Disposition::Exclude),
    (Pattern::Called(|_| "current_logfiles.tmp"), Disposition::Exclude),
    // Catalog cache files, which the server re-creates; stale ones would be harmful. A backend writes such a file under
    // a longer temporary name first.
    (Pattern::Prefix(|names| names.catalog_cache), Disposition::Exclude),
    // Left from an earlier restore of the source. The target gets its own backup_label.
    (Pattern::Called(|_| "backup_label"), Disposition::Exclude),
    (Pattern::Called(|_| "tablespace_map"), Disposition::Exclude),
    // It lists the files of a base backup, which the rewound directory no longer matches.
    (Pattern::Called(|_| "backup_manifest"), Disposition::Exclude),
    // These belong to the server process that runs on the source.
    (Pattern::Called(|names| names.lock_file), Disposition::Exclude),
    (Pattern::Called(|names| names.opts_file), Disposition::Exclude),
    // Temporary statistics files, which the server removes at startup.
    (Pattern::ContentsOf(|names| names.stat_tmp_dir), Disposition::Exclude),
    // Replication slots retain WAL for clients of the source, and would retain it on the target forever.
    (Pattern::ContentsOf(|names| names.slot_dir), Disposition::Exclude),
    // Dynamic shared memory.
    (Pattern::ContentsOf(|names| names.shared_memory_dir), Disposition::Exclude),
    // State of running sessions and transactions, which is removed or re-created at startup.
    (Pattern::ContentsOf(|names| names.notify_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.serial_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.snapshot_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.subtrans_dir), Disposition::Exclude),
];

/// What a rewind does with `path`, by its name, in a data directory of the flavor that has these file names.
pub fn disposition(path: &DataPath, names: &Names) -> Disposition {
    RULES
        .iter()
        .find(|(pattern, _)| pattern.matches(path, names))
        .map_or(Disposition::Consider, |(_, disposition)| *disposition)
}

impl Pattern {
    fn matches(self, path: &DataPath, names: &Names) -> bool {
        let bytes = path.as_bytes();
        let starts = |part: &[u8], prefix: &str| part.starts_with(prefix.as_bytes());
        match self {
            Pattern::Path(exact) => bytes == exact(names).as_bytes(),
            Pattern::ContentsOf(dir) => {
                bytes.strip_prefix(dir(names).as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
            }
            Pattern::Called(name) => path.parts().any(|part| part == name(names).as_bytes()),
            Pattern::Prefix(prefix) => path.parts().any(|part| starts(part, prefix(names))),
            Pattern::PrefixBelow(prefix) => path.parts().skip(1).any(|part| starts(part, prefix)),
            Pattern::TopPrefix(prefix) => starts(bytes, prefix),
            Pattern::Ending(end) => bytes.ends_with(end.as_bytes()),
            Pattern::Containing(text) => bytes.windows(text.len()).any(|window| window == text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use walparse::Flavor;

    use super::*;

    fn names(key: &str) -> &'static Names {
        Flavor::all().find(|flavor| flavor.key() == key).unwrap().names()
    }

    #[test]
    fn every_rule_and_near_misses() {
        use Disposition::{Consider, Exclude, LeaveAlone};
        for (path, expected) in [
            ("global/pg_control", LeaveAlone),
            ("global/pg_control.old", Consider),
            ("base/global/pg_control", Consider),
            (".DS_Store", LeaveAlone),
            ("lost+found", LeaveAlone),
            ("pg_tblspc/1/lost+found", LeaveAlone),
            ("lost+found.old", Consider),
            (".s.PGSQL.5432", LeaveAlone),
            (".s.PGSQL.5432.lock", LeaveAlone),
            ("base/.s.PGSQL.5432", Consider),
            ("base/5/._.DS_Store.x", LeaveAlone),
            ("pg_replslot/.DS_Store", LeaveAlone),
            ("kbrecover.journal", LeaveAlone),
            ("kbrecover.d/x", LeaveAlone),
            ("kbrecover", Consider),
            ("kbrecover.journal.kbrecover-new", Exclude),
            ("backup_label.kbrecover-new", Exclude),
            ("base/5/1.kbrecover-new.x", Consider),
            ("base/kbrecover.journal", Consider),
            ("base/pgsql_tmp", Exclude),
            ("base/pgsql_tmp/pgsql_tmp12.0", Exclude),
            ("pg_tblspc/16400/PG_15_202209061/pgsql_tmp/x", Exclude),
            ("pgsql_tmp", Consider),
            ("base/my_pgsql_tmp", Consider),
            ("postgresql.auto.conf.tmp", Exclude),
            ("postgresql.auto.conf", Consider),
            ("current_logfiles.tmp", Exclude),
            ("current_logfiles", Consider),
            ("base/5/pg_internal.init", Exclude),
            ("global/pg_internal.init.4711", Exclude),
            ("pg_internal.ini", Consider),
            ("backup_label", Exclude),
            ("base/backup_label", Exclude),
            ("backup_label.old", Consider),
            ("tablespace_map", Exclude),
            ("tablespace_map.old", Consider),
            ("backup_manifest", Exclude),
            ("postmaster.pid", Exclude),
            ("postmaster.opts", Exclude),
            ("postmaster.opts/x", Exclude),
            ("pg_stat_tmp", Consider),
            ("pg_stat_tmp/global.stat", Exclude),
            ("pg_replslot", Consider),
            ("pg_replslot/slot/state", Exclude),
            ("pg_replslots/x", Consider),
            ("base/pg_replslot/x", Consider),
            ("pg_dynshmem/mmap.1", Exclude),
            ("pg_notify/0000", Exclude),
            ("pg_serial/0000", Exclude),
            ("pg_snapshots/x-1", Exclude),
            ("pg_subtrans/0000", Exclude),
            ("pg_subtrans", Consider),
            ("pg_stat/pgstat.stat", Consider),
            ("base/5/16384", Consider),
            ("standby.signal", Consider),
        ] {
            let found = disposition(&DataPath::parse(path).unwrap(), names("postgresql"));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_fork_has_the_same_rules_with_its_own_names() {
        use Disposition::{Consider, Exclude, LeaveAlone};
        for (path, expected) in [
            ("global/sys_control", LeaveAlone),
            ("global/pg_control", Consider),
            ("base/5/sys_internal.init.7", Exclude),
            ("base/5/pg_internal.init", Consider),
            ("kingbase.pid", Exclude),
            ("kingbase.opts", Exclude),
            ("kingbase.conf", Consider),
            ("kingbase.auto.conf.tmp", Exclude),
            ("es_rep.conf", Consider),
            ("postmaster.pid", Consider),
            ("sys_replslot/slot/state", Exclude),
            ("sys_stat_tmp/db_0.stat", Exclude),
            ("sys_subtrans/0000", Exclude),
            // Not known to be re-created at startup.
            ("sys_csnlog/1B9A3", Consider),
            ("backup_label", Exclude),
        ] {
            let found = disposition(&DataPath::parse(path).unwrap(), names("kingbase-v8r6"));
            assert_eq!(found, expected, "{path}");
        }
    }
}
