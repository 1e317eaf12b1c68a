//! What is not copied although it lies in a data directory.
//!
//! The rules are pg_rewind's (`excludeFiles`, `excludeDirContents` in filemap.c), which took them from base
//! backups; they are the same from 13 to 18, and hold here for every version. pg_rewind of 9.6 and 10 left
//! out less, but their servers, too, empty or rebuild at every start what stands below; and copied slots
//! were a defect. They hold for a path whichever side it was found on.

use crate::data_path::DataPath;

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

/// How a rule finds its paths.
#[derive(Debug)]
enum Names {
    /// This very path.
    Path(&'static str),
    /// Everything in this directory of the data directory, but not itself.
    ContentsOf(&'static str),
    /// Anything of this name, in any directory, and what is below it.
    Called(&'static str),
    /// Anything whose name begins so, in any directory, and what is below it.
    Prefix(&'static str),
    /// The same, but not in the data directory itself.
    PrefixBelow(&'static str),
    /// Entries of the data directory itself whose names begin so, and what is below them.
    TopPrefix(&'static str),
    /// Any path with these characters somewhere.
    Containing(&'static str),
}

/// The rules; the first that fits counts.
const RULES: &[(Names, Disposition)] = &[
    // Read and written by itself, last of all: it makes the rest valid.
    (Names::Path("global/pg_control"), Disposition::LeaveAlone),
    // Left everywhere by macOS file managers, without any part in the cluster.
    (Names::Containing(".DS_Store"), Disposition::LeaveAlone),
    // This program's own: a source that was rewound itself once must not pass its journal on, and the
    // target's is in use.
    (Names::TopPrefix("kbrecover."), Disposition::LeaveAlone),
    // Temporary files of sorts and the like; the server removes them when it starts.
    (Names::PrefixBelow("pgsql_tmp"), Disposition::Exclude),
    // What ALTER SYSTEM and the log collector write before they rename it; half-written if it is there.
    (Names::Called("postgresql.auto.conf.tmp"), Disposition::Exclude),
    (Names::Called("current_logfiles.tmp"), Disposition::Exclude),
    // Caches of the catalogs, which the server makes anew; stale ones would be harmful. Each process writes
    // its own under a longer name first.
    (Names::Prefix("pg_internal.init"), Disposition::Exclude),
    // They tell of an earlier restore of the source. The target gets a label of its own.
    (Names::Called("backup_label"), Disposition::Exclude),
    (Names::Called("tablespace_map"), Disposition::Exclude),
    // It lists the files of a backup, of which the rewound directory is none any more.
    (Names::Called("backup_manifest"), Disposition::Exclude),
    // They belong to the server process running on the source.
    (Names::Called("postmaster.pid"), Disposition::Exclude),
    (Names::Called("postmaster.opts"), Disposition::Exclude),
    // Statistics on their way between processes; the server removes them when it starts.
    (Names::ContentsOf("pg_stat_tmp"), Disposition::Exclude),
    // Slots hold back WAL for clients of that one server, and would hold it here for ever.
    (Names::ContentsOf("pg_replslot"), Disposition::Exclude),
    // Shared memory in files.
    (Names::ContentsOf("pg_dynshmem"), Disposition::Exclude),
    // State of running sessions and transactions, which is emptied or rebuilt at every start.
    (Names::ContentsOf("pg_notify"), Disposition::Exclude),
    (Names::ContentsOf("pg_serial"), Disposition::Exclude),
    (Names::ContentsOf("pg_snapshots"), Disposition::Exclude),
    (Names::ContentsOf("pg_subtrans"), Disposition::Exclude),
];

/// What the name of `path` says about it.
pub fn disposition(path: &DataPath) -> Disposition {
    RULES
        .iter()
        .find(|(names, _)| names.fit(path))
        .map_or(Disposition::Consider, |(_, disposition)| *disposition)
}

impl Names {
    fn fit(&self, path: &DataPath) -> bool {
        let bytes = path.as_bytes();
        match self {
            Names::Path(exact) => bytes == exact.as_bytes(),
            Names::ContentsOf(dir) => {
                bytes.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
            }
            Names::Called(name) => path.parts().any(|part| part == name.as_bytes()),
            Names::Prefix(prefix) => path.parts().any(|part| part.starts_with(prefix.as_bytes())),
            Names::PrefixBelow(prefix) => {
                path.parts().skip(1).any(|part| part.starts_with(prefix.as_bytes()))
            }
            Names::TopPrefix(prefix) => bytes.starts_with(prefix.as_bytes()),
            Names::Containing(text) => bytes.windows(text.len()).any(|window| window == text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(disposition(&DataPath::parse(path).unwrap()), expected, "{path}");
        }
    }
}
