//! The crash sweep: one failover with everything in it, whose rewind is stopped at hundreds of its changes to the disk,
//! by a failing system call and by kill -9; and run again.
//!
//!     change   1 ... journal, mark ... 400 ... copy ... 2000 ... seal ... commit, end
//!                  ╳ 28 (ENOSPC)     ╳ kill        ╳ 5 (EIO)    ╳ kill     stopped here, and here, and here
//!                  └▶ untouched      └▶ marked     └▶ marked    └▶ done but for the journal
//!                     again: each ends as the run that nobody stopped, file by file

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use kbrecover_rewind::Condition;

use crate::harness::{
    Change, Failover, Feature, Installation, Rewind, Run, Sandbox, Server, SourceKind, assert_follows,
    assert_sound, changed_in_place, differences, forget_time, linked_copy, pick, record_changes, remove_copy,
};
use crate::{extra_files, large_objects, prepared_transactions, sizes, tablespaces, unlogged_tables};

/// Features and the database each is in: few databases, for each is 300 files to copy.
const FEATURES: [(&str, &Feature); 6] = [
    ("postgres", &sizes::SIZES),
    ("postgres", &large_objects::LARGE_OBJECTS),
    ("postgres", &extra_files::EXTRA_FILES),
    ("one", &unlogged_tables::UNLOGGED_TABLES),
    ("one", &prepared_transactions::PREPARED_TRANSACTIONS),
    ("other", &tablespaces::IN_PLACE),
];

/// Errors of a disk that is full, breaks, is closed to us, or is read-only; and of a quota.
const ERRORS: [i32; 5] = [28, 5, 13, 30, 122];

/// A crashed old primary and its stopped successor, both small: WAL segments of 1 MB, WAL and a tablespace elsewhere.
pub fn everything(sandbox: &Sandbox) -> Failover {
    let old = sandbox.initdb("old", Installation::usual(), &["--wal-segsize=1"]);
    old.configure("wal_keep_size = 256MB\nallow_in_place_tablespaces = on\nautovacuum = off");
    everything_of(sandbox, old)
}

fn everything_of(sandbox: &Sandbox, mut old: Server) -> Failover {
    crate::pg_wal_symlink::move_wal_out(&old);
    old.start();
    let space = sandbox.make_dir("space");
    old.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    old.sql("CREATE DATABASE one TABLESPACE space");
    old.sql("CREATE DATABASE other");
    old.stop();
    let mut new = old.copy("new");
    old.start();
    new.follow(&old);
    new.start();
    let each = |server: &Server, part: fn(&Feature) -> fn(&Server)| {
        for (database, feature) in FEATURES {
            part(feature)(&server.in_database(database));
        }
    };
    let mut failover = Failover::of(
        old,
        new,
        |old| {
            each(old, |feature| feature.shared);
            old.write("server.key", "shared");
        },
        |old| each(old, |feature| feature.lost),
        |new| {
            each(new, |feature| feature.kept);
            new.write("server.key", "kept, and longer");
        },
    );
    failover.old.kill();
    failover.new.stop();
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    std::fs::set_permissions(failover.old.data.join("server.key"), read_only).expect("close a file");
    failover
}

/// One thread, so that the same change comes at the same place of each run; nothing of this node's own is kept.
pub fn rewind_of(target: &Server, source: &Server) -> Rewind {
    // All cases must do the same, and the harness chooses by the name of the thread.
    let rewind = Rewind::of(target).unverified().from(source, SourceKind::Directory);
    rewind.args(["--jobs", "1", "--keep", "none"]).synced()
}

pub fn is_our_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("kbrecover.") || name.ends_with(".kbrecover-new")
}

/// What a stopped run left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Left {
    Untouched,
    Marked,
    Finished,
}

/// Options with which a rewind is swept.
pub type Options = &'static [&'static str];

/// By WAL, and by comparing the data of both sides.
pub const BY_WAL: Options = &[];
pub const BY_COMPARING: Options = &["--compare-data"];

/// What all cases start from, and end at.
pub struct Sweep<'a> {
    pub failover: &'a Failover,
    options: Options,
    pub changed: BTreeSet<PathBuf>,
    /// The target after a run that nobody stopped.
    pub reference: Server,
}

impl Sweep<'_> {
    /// Makes the reference; and what it changed on the disk.
    pub fn new(failover: &Failover, options: Options) -> (Sweep<'_>, Vec<Change>) {
        let rewind = |target: &Server| rewind_of(target, &failover.new).args(options);
        let reference = failover.old.copy("reference");
        let changes = record_changes(rewind(&reference), &reference);
        remove_copy(reference);
        let changed = changed_in_place(&changes);
        // Once more on a copy that shares what stays with all the others.
        let reference = linked_copy(&failover.old, "reference", &changed);
        let run = rewind(&reference).run().expect_rewound();
        assert_eq!(run.stderr.contains("on both sides"), options == BY_COMPARING, "{run}");
        forget_time(&reference.data);
        (Sweep { failover, options, changed, reference }, changes)
    }

    fn rewind(&self, target: &Server) -> Rewind {
        rewind_of(target, &self.failover.new).args(self.options)
    }

    /// A copy of the target on which the run was stopped.
    fn stopped(&self, name: &str, fault: &str) -> (Server, Option<Run>) {
        let target = linked_copy(&self.failover.old, name, &self.changed);
        let run = self.rewind(&target).env("KBRECOVER_FAULT", fault).run_unless_killed();
        (target, run)
    }

    /// Proves that the directory is as it was, or that no server starts on it, or that all is done.
    fn check(&self, target: &Server, run: Option<&Run>, fault: &str) -> Left {
        let said = run.map_or_else(String::new, Run::to_string);
        let status = kbrecover_rewind::status(&target.data).expect("status");
        let left = match status.condition {
            Condition::Unfinished => {
                assert!(status.journal_problem.is_none(), "{fault}: marked without a journal\n{said}");
                Left::Marked
            }
            Condition::Rewound => Left::Finished,
            _ => {
                let changed = differences(&self.failover.old.data, &target.data, &is_our_own);
                assert!(changed.is_empty(), "{fault}: no mark, but {changed:#?}\n{said}");
                Left::Untouched
            }
        };
        if let Some(run) = run {
            let expected = if left == Left::Untouched { 1 } else { 2 };
            let is_cleaning_up = left == Left::Finished && run.code == 0;
            assert!(run.code == expected || is_cleaning_up, "{fault}: {left:?} and {run}");
            let words = if is_cleaning_up { "warning: " } else { "error: " };
            assert!(run.stderr.contains(words), "{fault}: nothing was said\n{run}");
        }
        left
    }

    /// Runs it again to the end, and compares every file.
    pub fn finish(&self, target: &Server, fault: &str) {
        let run = self.rewind(target).run();
        assert_eq!(run.code, 0, "{fault}, and run again: {run}");
        forget_time(&target.data);
        let wrong = differences(&self.reference.data, &target.data, &|_| false);
        assert!(wrong.is_empty(), "{fault}, and run again: {wrong:#?}\n{run}");
    }

    /// One case from begin to end.
    fn case(&self, name: &str, fault: &str) -> Left {
        let (target, run) = self.stopped(name, fault);
        let said = run.as_ref().map_or_else(String::new, Run::to_string);
        assert_eq!(run.is_none(), fault.ends_with("kill"), "{fault} did not happen: {said}");
        let left = self.check(&target, run.as_ref(), fault);
        self.finish(&target, fault);
        remove_copy(target);
        left
    }
}

/// Which changes to stop at, counted from 1: all of the beginning and of the end, some of each kind, and an even spread.
fn chosen(changes: &[Change], count: usize) -> BTreeSet<usize> {
    let total = changes.len();
    let mut chosen: BTreeSet<usize> = (1..=14).chain(total - 39..=total).collect();
    let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, change) in changes.iter().enumerate() {
        by_kind.entry(&change.kind).or_default().push(at + 1);
    }
    for places in by_kind.values() {
        let step = places.len().div_ceil(12);
        chosen.extend(places.iter().step_by(step));
    }
    let seal =
        changes.iter().rposition(|change| change.kind == "write" && change.path.ends_with("pg_control"));
    let seal = seal.expect("a control file is written");
    chosen.extend(seal - 15..=(seal + 5).min(total));
    let rest: Vec<usize> = (1..=total).filter(|at| !chosen.contains(at)).collect();
    let missing = count.saturating_sub(chosen.len());
    chosen.extend((0..missing).map(|number| rest[number * rest.len() / missing]));
    chosen
}

/// Stops at each of the places, on two threads; says how often what was left.
fn sweep(sweep: &Sweep<'_>, faults: &[String]) -> BTreeMap<Left, usize> {
    let next = AtomicUsize::new(0);
    let found = std::thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                let name = format!("case{:?}", std::thread::current().id()).replace(['(', ')'], "");
                found.push(sweep.case(&name, fault));
            }
            found
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().expect("a case failed")).concat()
    });
    let mut counts = BTreeMap::new();
    for left in found {
        *counts.entry(left).or_default() += 1;
    }
    counts
}

fn assert_all_kinds(changes: &[Change]) {
    let kinds: BTreeSet<&str> = changes.iter().map(|change| change.kind.as_str()).collect();
    let expected = [
        "chmod",
        "create",
        "fsync",
        "fsync_directory",
        "mkdir",
        "rename",
        "rmdir",
        "syncfs",
        "truncate",
        "unlink",
        "write",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "kinds of changes");
}

/// Stops at so many places, or at a part of them: every `step`-th of those from `first` on. Proves each case; returns how many
/// there were and how often what was left.
fn stop_anywhere(
    options: Options,
    count: usize,
    (first, step): (usize, usize),
) -> (usize, BTreeMap<Left, usize>) {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let (all, changes) = Sweep::new(&failover, options);
    assert_all_kinds(&changes);
    let before = crate::harness::Tree::of(&failover.old.data);
    let places: Vec<usize> = chosen(&changes, count).into_iter().skip(first).step_by(step).collect();
    let errors = places.iter().enumerate().map(|(number, at)| {
        // A full disk stays full; a bad sector is one.
        let lasting = if number % 2 == 0 { "+" } else { "" };
        format!("{at}{lasting}:{}", ERRORS[number % ERRORS.len()])
    });
    let kills = places.iter().map(|at| format!("{at}:kill"));
    let faults: Vec<String> = errors.chain(kills).collect();
    let counts = sweep(&all, &faults);
    #[expect(clippy::print_stdout, reason = "how much was tried is part of the result")]
    {
        println!("{} changes, stopped {} times: {counts:?}", changes.len(), faults.len());
    }
    before.assert_unchanged(&failover.old.data, "the sweep wrote into what its copies share");
    (faults.len(), counts)
}

#[test]
fn stopped_anywhere_and_run_again() {
    for part in pick("crash sweep: part", &[0, 1]) {
        let (count, counts) = stop_anywhere(BY_WAL, 300, (part, 2));
        assert!(count >= 300 && counts[&Left::Marked] > 240, "{counts:?}");
        assert!(counts[&Left::Untouched] >= 4 && counts[&Left::Finished] >= 1, "{counts:?}");
    }
}

/// A run that compares is stopped in other places, and the next one compares again what is half the target's and half the
/// source's.
#[test]
fn stopped_anywhere_while_comparing_and_run_again() {
    for part in pick("crash sweep: part of the comparing one", &[0, 1, 2, 3, 4, 5]) {
        let (count, counts) = stop_anywhere(BY_COMPARING, 300, (part, 6));
        assert!(count >= 98 && counts[&Left::Marked] > 70 && counts[&Left::Untouched] >= 2, "{counts:?}");
    }
}

/// On the servers themselves: no start half-way, single-user neither; and the content afterwards.
#[test]
fn stopped_and_started() {
    let sandbox = Sandbox::new();
    let mut failover = everything(&sandbox);
    let (all, changes) = Sweep::new(&failover, BY_WAL);
    let total = changes.len();
    let (mut resumed, mut by_mark) = (Vec::new(), 0);
    for (number, at) in [total / 6, total / 2, total - 60, total - 12, total - 4].into_iter().enumerate() {
        let fault = format!("{at}:kill");
        let mut target = failover.old.copy(&format!("started-{number}"));
        let run = rewind_of(&target, &failover.new).env("KBRECOVER_FAULT", &fault).run_unless_killed();
        assert!(run.is_none(), "{fault} did not happen");
        assert_eq!(all.check(&target, None, &fault), Left::Marked, "{fault}");
        let log = target.try_start().expect_err("a server started on a half-rewound directory");
        by_mark += usize::from(log.contains("invalid data in file \"backup_label\""));
        let mut single = target.installation.program("postgres");
        let single = single.args(["--single", "-D"]).arg(&target.data).arg("postgres").stdin(Stdio::null());
        let output = single.output().expect("run postgres");
        assert!(!output.status.success(), "{fault}: a single-user server started");
        resumed.push(target);
    }
    // Files that a server reads before the label may be half-way, too.
    assert!(by_mark >= 3, "only {by_mark} of 5 servers were kept from starting by the mark");
    // The last ones are finished from a server that was promoted meanwhile.
    let later = resumed.split_off(2);
    failover.new.start();
    for mut target in resumed {
        let again =
            Rewind::of(&target).from(&failover.new, SourceKind::Server).args(["--keep", "none", "-R"]);
        again.run().expect_done().expect_said("resuming the rewind begun at");
        assert_follows(&mut target, &failover.new);
        assert_sound(&mut target);
    }
    let third = failover.promote_another("third");
    failover.new.sql("CREATE TABLE only_on_new AS SELECT n FROM generate_series(1, 1000) n");
    failover.new.kill();
    third.sql("CREATE TABLE only_on_third AS SELECT n FROM generate_series(1, 1000) n");
    for mut target in later {
        let again = Rewind::of(&target).from(&third, SourceKind::Server).args(["--keep", "none"]).run();
        again.expect_done().expect_said("resuming the rewind begun at");
        assert_follows(&mut target, &third);
        assert_sound(&mut target);
    }
}
