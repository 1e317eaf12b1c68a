//! WAL of the target that is no longer in its pg_wal is looked for elsewhere.
//!
//!     target's WAL  [k: common checkpoint][k+1][k+2: fork][k+3 lost][k+4 lost: end]
//!                    └── the source has these ───┘        └── these only an archive has
//!
//! Places: --wal-dir, the target's restore_command (-c), --restore-command, the source up to the fork.

use std::path::{Path, PathBuf};

use crate::harness::{
    Failover, Rewind, Sandbox, Segment, Server, SourceKind, assert_cured_by_comparing, assert_follows,
    assert_sound, history_switch, next_segment, segments,
};

fn entries(server: &Server, origin: &str) {
    server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, 2000)"));
}

/// The drawing's WAL. The target is stopped; its configuration may be changed before.
pub(crate) fn diverged(sandbox: &Sandbox, source_keeps: &str) -> Failover {
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    new.set("wal_keep_size", source_keeps);
    old.start();
    new.follow(&old);
    new.start();
    let write = |server: &Server, origin: &str| {
        for _ in 0..2 {
            entries(server, origin);
            next_segment(server);
        }
        entries(server, origin);
    };
    old.sql("CREATE TABLE entry (origin text)");
    entries(&old, "shared");
    old.sql("CHECKPOINT");
    let mut failover = Failover::of(
        old,
        new,
        |old| write(old, "shared"),
        |old| write(old, "lost"),
        |new| entries(new, "kept"),
    );
    failover.old.stop();
    failover
}

/// Moves the target's segments that `which` picks to a directory whose name needs quoting.
pub(crate) fn archive(sandbox: &Sandbox, old: &Server, which: impl Fn(&Segment) -> bool) -> PathBuf {
    let archive = sandbox.make_dir("the archive");
    let moved: Vec<_> = segments(&old.data).into_iter().filter(which).collect();
    assert!(!moved.is_empty(), "no segment to move");
    for segment in moved {
        let name = segment.to_string();
        std::fs::rename(old.data.join("pg_wal").join(&name), archive.join(&name)).expect("move a segment");
    }
    archive
}

fn finish(mut old: Server, new: &Server, rewind: Rewind) {
    rewind.run().expect_done();
    assert_follows(&mut old, new);
    assert_eq!(
        old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"),
        0,
        "rows of the target alone"
    );
    assert_sound(&mut old);
}

#[test]
fn all_of_it_in_a_directory() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    finish(old, &new, rewind.arg("--wal-dir").arg(sandbox.make_dir("empty")).arg("--wal-dir").arg(archive));
}

/// The source has not kept the WAL from redo to the fork either: the node needs it to start, so the rewind brings it.
#[test]
fn all_of_it_in_a_directory_and_nowhere_else() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "0");
    new.sql("CHECKPOINT");
    new.sql("CHECKPOINT");
    let fork = Segment::at(1, history_switch(&new, 2));
    let kept: Vec<_> =
        segments(&new.data).into_iter().filter(|segment| segment.number < fork.number).collect();
    assert!(kept.is_empty(), "the source should have removed what lies before {fork}: {kept:?}");
    let archive = archive(&sandbox, &old, |_| true);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    finish(old, &new, rewind.arg("--wal-dir").arg(archive));
}

pub(crate) fn copy_from(archive: &Path) -> String {
    format!("cp \"{}/%f\" \"%p\"", archive.display())
}

#[test]
fn by_a_restore_command_of_the_command_line() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    finish(old, &new, rewind.arg("--restore-command").arg(copy_from(&archive)));
}

/// The target's own setting, in a file that another one includes, overridden once.
#[test]
fn by_the_targets_restore_command() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    old.configure("restore_command = 'false' # overridden below\ninclude_if_exists = 'nothing.conf'\nINCLUDE 'archive.conf'");
    old.write("archive.conf", format!("Restore_Command '{}'\n", copy_from(&archive)));
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    finish(old, &new, rewind.arg("--restore-target-wal"));
}

/// postgresql.auto.conf comes last; and the main file may lie elsewhere.
#[test]
fn by_the_targets_restore_command_outside_the_directory() {
    let sandbox = Sandbox::new();
    let Failover { old, mut new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    let outside = sandbox.make_dir("etc").join("postgresql.conf");
    std::fs::rename(old.data.join("postgresql.conf"), &outside).expect("move postgresql.conf");
    let quoted = copy_from(&archive).replace('"', "''");
    old.write(
        "postgresql.auto.conf",
        format!("# Do not edit this file manually!\nrestore_command = '{quoted}'\n"),
    );
    new.stop();
    let rewind = Rewind::of(&old)
        .from(&new, SourceKind::Directory)
        .args(["-c", "--keep", "none", "--config-file"])
        .arg(outside);
    rewind.run().expect_done();
    let mut old = old;
    new.start();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// Up to the fork the source's history is the target's.
fn on_the_source(kind: SourceKind) {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = diverged(&sandbox, "512MB");
    let fork = Segment::at(1, history_switch(&new, 2));
    for segment in segments(&old.data).into_iter().filter(|segment| segment.number < fork.number) {
        std::fs::remove_file(old.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
    }
    if kind == SourceKind::Directory {
        new.stop();
    }
    Rewind::of(&old).from(&new, kind).run().expect_done();
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

#[test]
fn on_a_running_source() {
    on_the_source(SourceKind::Server);
}

#[test]
fn on_a_stopped_source() {
    on_the_source(SourceKind::Directory);
}

/// Nobody has it: the error names the file as it is looked for, for cluster managers fetch it by that name.
#[test]
fn nowhere() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox, "512MB");
    let lost = Segment { number: Segment::at(1, history_switch(&new, 2)).number + 1, timeline: 1 };
    let path = old.data.join(format!("pg_wal/{lost}"));
    std::fs::remove_file(&path).expect("remove a segment");
    let rewind = || Rewind::of(&old).from(&new, SourceKind::Server);
    let error = format!("could not open file \"{}\": No such file or directory", path.display());
    let refusal = rewind().expect_refusal(&error, "restore_command");
    rewind().arg("--wal-dir").arg(sandbox.make_dir("empty")).expect_refusal(&error, "restore_command");
    rewind().arg("--restore-command").arg("false").expect_refusal(&lost.to_string(), "");
    // Says that it found it, and has not.
    rewind().arg("--restore-command").arg("true").expect_refusal(&lost.to_string(), "");
    rewind()
        .arg("--restore-command")
        .arg("head -c 1000 /dev/zero > %p")
        .expect_refusal(&lost.to_string(), "");
    rewind()
        .arg("--restore-target-wal")
        .expect_refusal("restore_command is not set in the target cluster", "restore_command");
    assert_cured_by_comparing(&refusal, &mut old, &new);
}

/// A crashed server's WAL with a hole in it does not end at the hole: what lies behind was flushed, and pages with it.
#[test]
fn hole_in_the_wal_of_a_crashed_target() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox, "512MB");
    old.start();
    old.sql("CHECKPOINT");
    for _ in 0..3 {
        entries(&old, "lost");
        next_segment(&old);
    }
    entries(&old, "lost");
    old.sql("SELECT 1");
    let end = old.wal_end();
    old.kill();
    let hole = Segment { number: Segment::at(1, end).number - 2, timeline: 1 };
    let archive = archive(&sandbox, &old, |segment| *segment == hole);
    let name = hole.to_string();
    let rewind = || Rewind::of(&old).from(&new, SourceKind::Server);
    let refusal = rewind().expect_refusal(&format!("{name}\": No such file or directory"), &name);
    assert_cured_by_comparing(&refusal, &mut old.copy("compared"), &new);
    rewind().arg("--ensure-shutdown").expect_refusal(&format!("{name}\": No such file or directory"), &name);
    rewind()
        .arg("--wal-dir")
        .arg(sandbox.path("nowhere"))
        .expect_refusal("could not open WAL directory", "--wal-dir");
    let rewind = rewind().arg("--wal-dir").arg(&archive);
    finish(old, &new, rewind);
}

/// The end of the WAL is in a directory, too: it is read on there.
#[test]
fn end_of_the_wal_of_a_crashed_target() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox, "512MB");
    old.start();
    old.sql("CHECKPOINT");
    let begin = Segment::at(1, old.wal_end()).number;
    for _ in 0..3 {
        entries(&old, "lost");
        next_segment(&old);
    }
    old.sql("UPDATE entry SET origin = 'lost' WHERE origin = 'shared'");
    old.sql("SELECT pg_switch_wal()");
    old.kill();
    let archive = archive(&sandbox, &old, |segment| segment.number > begin + 1);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).arg("--wal-dir").arg(&archive);
    finish(old, &new, rewind);
}
