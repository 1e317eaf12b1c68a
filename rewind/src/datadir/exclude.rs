//! What is not copied although it lies in a data directory.
//!
//! The rules are pg_rewind's (`excludeFiles`, `excludeDirContents` in filemap.c), which took them from base
//! backups; they are the same from 13 to 18, and hold here for every version. pg_rewind of 9.6 and 10 left
//! out less, but their servers, too, empty or rebuild at every start what stands below; and copied slots
//! were a defect. They hold for a path whichever side it was found on.

use walparse::Names;

use crate::datadir::data_path::DataPath;

/// What a path's name says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Nothing: compare both sides.
    Consider,
    /// Never copied; removed from the target.
    Exclude,
    /// Neither copied nor removed here.
    LeaveAlone,
}

/// How a rule finds its paths. Names of the server's own files are those of its flavor.
#[derive(Clone, Copy)]
enum Pattern {
    /// This very path.
    Path(fn(&Names) -> &'static str),
    /// Everything in this directory of the data directory, but not itself.
    ContentsOf(fn(&Names) -> &'static str),
    /// Anything of this name, in any directory, and what is below it.
    Called(fn(&Names) -> &'static str),
    /// Anything whose name begins so, in any directory, and what is below it.
    Prefix(fn(&Names) -> &'static str),
    /// The same, but not in the data directory itself.
    PrefixBelow(&'static str),
    /// Entries of the data directory itself whose names begin so, and what is below them.
    TopPrefix(&'static str),
    /// Anything whose name ends so, in any directory.
    Ending(&'static str),
    /// Any path with these characters somewhere.
    Containing(&'static str),
}

/// The rules; the first that fits counts.
const RULES: &[(Pattern, Disposition)] = &[
    // Read and written by itself, last of all: it makes the rest valid.
    (Pattern::Path(|names| names.control_file), Disposition::LeaveAlone),
    // Left everywhere by macOS file managers, without any part in the cluster.
    (Pattern::Containing(".DS_Store"), Disposition::LeaveAlone),
    // Written beside a file whose place it was to take; left by a run that was killed.
    (Pattern::Ending(".kbrecover-new"), Disposition::Exclude),
    // This program's own: a source that was rewound itself once must not pass its journal on, and the
    // target's is in use.
    (Pattern::TopPrefix("kbrecover."), Disposition::LeaveAlone),
    // Temporary files of sorts and the like; the server removes them when it starts.
    (Pattern::PrefixBelow("pgsql_tmp"), Disposition::Exclude),
    // What ALTER SYSTEM and the log collector write before they rename it; half-written if it is there.
    (Pattern::Called(|names| names.auto_config_draft), Disposition::Exclude),
    (Pattern::Called(|_| "current_logfiles.tmp"), Disposition::Exclude),
    // Caches of the catalogs, which the server makes anew; stale ones would be harmful. Each process writes
    // its own under a longer name first.
    (Pattern::Prefix(|names| names.catalog_cache), Disposition::Exclude),
    // They tell of an earlier restore of the source. The target gets a label of its own.
    (Pattern::Called(|_| "backup_label"), Disposition::Exclude),
    (Pattern::Called(|_| "tablespace_map"), Disposition::Exclude),
    // It lists the files of a backup, of which the rewound directory is none any more.
    (Pattern::Called(|_| "backup_manifest"), Disposition::Exclude),
    // They belong to the server process running on the source.
    (Pattern::Called(|names| names.lock_file), Disposition::Exclude),
    (Pattern::Called(|names| names.opts_file), Disposition::Exclude),
    // Statistics on their way between processes; the server removes them when it starts.
    (Pattern::ContentsOf(|names| names.stat_tmp_dir), Disposition::Exclude),
    // Slots hold back WAL for clients of that one server, and would hold it here for ever.
    (Pattern::ContentsOf(|names| names.slot_dir), Disposition::Exclude),
    // Shared memory in files.
    (Pattern::ContentsOf(|names| names.shared_memory_dir), Disposition::Exclude),
    // State of running sessions and transactions, which is emptied or rebuilt at every start.
    (Pattern::ContentsOf(|names| names.notify_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.serial_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.snapshot_dir), Disposition::Exclude),
    (Pattern::ContentsOf(|names| names.subtrans_dir), Disposition::Exclude),
];

/// What the name of `path` says about it in a data directory with these names.
pub fn disposition(path: &DataPath, names: &Names) -> Disposition {
    RULES
        .iter()
        .find(|(pattern, _)| pattern.fits(path, names))
        .map_or(Disposition::Consider, |(_, disposition)| *disposition)
}

impl Pattern {
    fn fits(self, path: &DataPath, names: &Names) -> bool {
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
    fn every_rule_and_its_neighbours() {
        use Disposition::{Consider, Exclude, LeaveAlone};
        for (path, expected) in [
            ("global/pg_control", LeaveAlone),
            ("global/pg_control.old", Consider),
            ("base/global/pg_control", Consider),
            (".DS_Store", LeaveAlone),
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
            // Nothing says that a server makes it anew.
            ("sys_csnlog/1B9A3", Consider),
            ("backup_label", Exclude),
        ] {
            let found = disposition(&DataPath::parse(path).unwrap(), names("kingbase-v8r6"));
            assert_eq!(found, expected, "{path}");
        }
    }
}
