//! A file system that is really full: a small one in memory, mounted for this test.
//!
//!     copy of the target ┬ free: too little for ...     refused, untouched; with --ignore-free-space:
//!                        ├ ... the journal              status 1, untouched
//!                        ├ ... the data, or the WAL     status 2, marked
//!                        └ made larger                  run again: as if there had been room
//!
//! To mount takes CAP_SYS_ADMIN. Without it the scenario fails, unless KBRECOVER_TESTS_WITHOUT_MOUNT is set: then it says
//! that nothing was tried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use kbrecover_rewind::Condition;

use crate::crash_sweep::{self, everything, is_our_own};
use crate::harness::{
    Failover, Rewind, Run, Sandbox, Server, copy_tree, could_not_mount, differences, forget_time,
    give_to_server_user, remove_copy, run,
};

/// Room enough for all copies at once; only what is used takes memory.
const ROOM: u64 = 1 << 30;

/// With much WAL to copy, so that the disk can become full with it.
fn rewind_of(target: &Server, source: &Server) -> Rewind {
    crash_sweep::rewind_of(target, source).args(["--replay-from", "common"])
}

/// A file system of its own size; unmounted when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, bytes: u64) -> Option<SmallDisk> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "kbrecover-tests"]).arg(&at);
        let output = mount.output().expect("run mount");
        if !output.status.success() {
            could_not_mount("a full disk", &String::from_utf8_lossy(&output.stderr));
            return None;
        }
        let disk = SmallDisk(at);
        give_to_server_user(&disk.0);
        Some(disk)
    }

    pub(crate) fn used(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).expect("look at the file system");
        (space.f_blocks - space.f_bfree) * space.f_frsize
    }

    pub(crate) fn resize(&self, bytes: u64) {
        run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.0));
    }

    /// Makes it so small that this much is free.
    pub(crate) fn leave(&self, bytes: u64) {
        self.resize(self.used() + bytes);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Which part of the work there was no room for.
fn failed_at(run: &Run) -> &'static str {
    let error = run.stderr.lines().find(|line| line.contains("error: ")).expect("an error line");
    assert!(error.contains("No space left on device"), "{run}");
    match error {
        _ if error.contains("kbrecover.journal") => "journal",
        _ if error.contains("/pg_wal/") => "WAL",
        _ => "data",
    }
}

/// What is on the small disk of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum There {
    All,
    AllButWal,
}

struct Case<'a> {
    sandbox: &'a Sandbox,
    disk: &'a SmallDisk,
    failover: &'a Failover,
    reference: &'a Server,
    there: There,
}

impl Case<'_> {
    /// A copy of the target on the small disk, with its own WAL directory and tablespace.
    fn copy(&self, number: usize) -> Server {
        self.disk.resize(ROOM);
        let name = format!("{:?}-{number}", self.there);
        let copy = self.failover.old.copy(self.disk.0.join(&name).to_str().expect("a UTF-8 name"));
        if self.there == There::AllButWal {
            let link = copy.data.join("pg_wal");
            let (here, away) = (std::fs::read_link(&link).expect("a link"), self.sandbox.path(&name));
            copy_tree(&here, &away);
            std::fs::remove_dir_all(here).expect("remove a directory");
            copy.relink(&link, &away);
        }
        copy
    }

    /// What a rewind adds there, as the check before it has it, without the margin.
    fn need(&self) -> u64 {
        let copy = self.copy(0);
        let run = rewind_of(&copy, &self.failover.new).args(["--check", "--format", "json"]).run();
        let object = run.json();
        let space = object["space"].as_array().unwrap_or_else(|| panic!("no needs: {run}"));
        let is_there = |need: &&serde_json::Value| {
            need["directory"].as_str().is_some_and(|path| Path::new(path).starts_with(&self.disk.0))
        };
        let need = space.iter().find(is_there).unwrap_or_else(|| panic!("not of the small disk: {run}"));
        remove_copy(copy);
        need["needed"].as_u64().expect("a number") - (8 << 20)
    }

    /// Rewinds with so much room, and again with more; says where there was no room.
    fn fill(&self, number: usize, room: u64) -> &'static str {
        let target = self.copy(number);
        self.disk.leave(room);
        let what = format!("{room} bytes free, {:?} there", self.there);
        rewind_of(&target, &self.failover.new).expect_refusal("not enough free space: ", "Free space there");
        let run = rewind_of(&target, &self.failover.new).arg("--ignore-free-space").run();
        let status = kbrecover_rewind::status(&target.data).expect("status");
        let part = if run.code == 0 { "nowhere" } else { failed_at(&run) };
        if run.code == 1 {
            let changed = differences(&self.failover.old.data, &target.data, &is_our_own);
            assert!(changed.is_empty(), "{what}: no mark, but {changed:#?}\n{run}");
        } else if run.code != 0 {
            assert_eq!((run.code, status.condition), (2, Condition::Unfinished), "{what}: {run}");
            assert!(status.journal_problem.is_none(), "{what}: marked without a journal\n{run}");
        }
        self.disk.resize(ROOM);
        if run.code != 0 {
            let again = rewind_of(&target, &self.failover.new).run();
            assert_eq!(again.code, 0, "{what}, and run again with room: {again}");
        }
        forget_time(&target.data);
        let wrong = differences(&self.reference.data, &target.data, &|_| false);
        assert!(wrong.is_empty(), "{what}, and run again: {wrong:#?}");
        remove_copy(target);
        part
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let Some(disk) = SmallDisk::mount(sandbox.make_dir("disk"), ROOM) else { return };
    let reference = failover.old.copy("reference");
    rewind_of(&reference, &failover.new).run().expect_done();
    forget_time(&reference.data);

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for there in [There::All, There::AllButWal] {
        let case = Case { sandbox: &sandbox, disk: &disk, failover: &failover, reference: &reference, there };
        let need = case.need();
        for number in 0..7 {
            // The first two have no room for the journal.
            let room = [0, 4096].get(number).copied().unwrap_or(need * (number as u64).saturating_sub(1) / 6);
            *counts.entry(case.fill(1 + number, room.next_multiple_of(4096))).or_default() += 1;
        }
    }
    #[expect(clippy::print_stdout, reason = "how much was tried is part of the result")]
    {
        println!("a full disk, {} times: {counts:?}", counts.values().sum::<usize>());
    }
    for part in ["journal", "data", "WAL"] {
        assert!(counts.get(part).is_some_and(|count| *count > 0), "never full at {part}: {counts:?}");
    }

    // The room that --keep-diverged takes counts, too.
    let small = sandbox.path("disk").join("kept");
    disk.leave(1 << 20);
    let keeping = rewind_of(&failover.old, &failover.new).arg("--keep-diverged").arg(&small);
    let run =
        keeping.arg("--keep-diverged-blocks").expect_refusal("not enough free space: ", "Free space there");
    assert!(run.stderr.contains(&disk.0.display().to_string()), "{run}");
}
