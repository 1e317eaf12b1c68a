//! `--compare-data`: where WAL does not tell what differs, the data of both sides is compared.
//!
//!     old  ── shared ──┬── lost ──╳     its WAL is gone, its hints were not logged, its pages are damaged ...
//!     new  ┄┄┄┄┄┄┄┄┄┄┄ └── kept ── C1 ──▶     replay starts at C1, as after a base backup

use std::fs;
use std::path::PathBuf;

use crate::harness::{
    Failover, Installation, Rewind, Sandbox, Server, SourceKind, assert_cured_by_comparing, assert_follows,
    assert_rewinds_by_comparing, assert_sound, pick, run, segments, server_program,
};
use crate::{index_types, large_objects, sizes, truth_hints};

pub fn rewind(target: &Server, source: &Server) -> Rewind {
    Rewind::of(target).from(source, SourceKind::Server).arg("--compare-data")
}

fn shared(old: &Server) {
    (sizes::SIZES.shared)(old);
    (index_types::INDEX_TYPES.shared)(old);
    (large_objects::LARGE_OBJECTS.shared)(old);
}

fn lost(old: &Server) {
    (sizes::SIZES.lost)(old);
    (index_types::INDEX_TYPES.lost)(old);
    (large_objects::LARGE_OBJECTS.lost)(old);
    old.sql("CREATE DATABASE lost");
}

fn kept(new: &Server) {
    (sizes::SIZES.kept)(new);
    (index_types::INDEX_TYPES.kept)(new);
    (large_objects::LARGE_OBJECTS.kept)(new);
    new.sql("CREATE DATABASE kept");
    new.sql("CHECKPOINT");
    new.sql("CREATE TABLE after AS SELECT n FROM generate_series(1, 5000) n");
}

pub fn failover(sandbox: &Sandbox) -> Failover {
    Failover::new(sandbox, shared, lost, kept)
}

pub fn remove_wal(server: &Server) {
    for segment in segments(&server.data) {
        fs::remove_file(server.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
    }
}

/// Without its WAL a target could not be rewound at all.
#[test]
fn without_any_wal_of_the_target() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.kill();
    remove_wal(&old);
    let plain = Rewind::of(&old).from(&new, SourceKind::Server);
    let refusal = plain.expect_refusal("could not open file", "");
    assert_cured_by_comparing(&refusal, &mut old, &new);
}

#[test]
fn from_a_stopped_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    old.stop();
    new.stop();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Directory).arg("--compare-data");
    rewind.run().expect_compared();
    new.start();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// Only what WAL cannot tell makes `auto` compare.
#[test]
fn auto_compares_only_if_it_must() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let auto =
        |target: &Server| Rewind::of(target).from(&new, SourceKind::Server).arg("--compare-data=auto").run();
    let run = auto(&old.copy("whole")).expect_done();
    assert!(!run.stderr.contains("MiB of relation files on both sides"), "{run}");
    remove_wal(&old);
    auto(&old).expect_compared().expect_said("the data of both sides is compared instead");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// Hint bits that were never logged are data that differ.
#[test]
fn hints_that_were_never_logged() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = truth_hints::fork(truth_hints::pair(&sandbox, "off"));
    truth_hints::commit_and_read(&mut old, open);
    old.stop();
    let plain = Rewind::of(&old).from(&new, SourceKind::Server);
    let refusal = plain.expect_refusal("wal_log_hints", "");
    assert_cured_by_comparing(&refusal, &mut old, &new);
}

/// Checksums on one side only: every page of the other differs.
#[test]
fn checksums_on_one_side() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    old.stop();
    new.stop();
    run(server_program("pg_checksums").args(["--disable", "--no-sync", "-D"]).arg(&new.data));
    new.configure("wal_log_hints = on");
    new.start();
    assert_rewinds_by_comparing(&mut old, &new);
}

/// Whatever lies in the directory: flipped bytes, missing and cut files, what an operator left.
#[test]
fn a_target_in_ruins() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let base = old.data.join("base/5");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&base).expect("list").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for (number, path) in files.iter().enumerate() {
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let mut bytes = fs::read(path).expect("read a file");
        match number % 7 {
            0 => fs::remove_file(path).expect("remove a file"),
            1 => {
                bytes.truncate(bytes.len() / 2);
                fs::write(path, bytes).expect("cut a file");
            }
            _ => {
                bytes.iter_mut().skip(number * 131 % 8000).step_by(8192).for_each(|byte| *byte ^= 0x55);
                fs::write(path, bytes).expect("damage a file");
            }
        }
    }
    fs::remove_dir_all(old.data.join("pg_xact")).expect("remove pg_xact");
    old.write("tablespace_map", "16384 /nowhere\n");
    old.write("recovery.signal", "");
    old.write("backup_label", "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\n");
    old.make_dir("base/99999");
    old.write("base/99999/1259", vec![7; 8192]);
    assert_rewinds_by_comparing(&mut old, &new);
}

/// A fork that cannot be told, and a system identifier that is right: the target was reset.
#[test]
fn after_pg_resetwal() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    run(server_program("pg_resetwal").arg("-f").arg(&old.data));
    assert_rewinds_by_comparing(&mut old, &new);
}

/// An old copy, to which neither WAL nor an archive leads any more.
#[test]
fn an_old_copy() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    old.start();
    shared(&old);
    old.stop();
    let mut copy = old.copy("copy");
    let (mut old, new) = sandbox.pair_of(old);
    old.sql(
        "CREATE TABLE later AS SELECT n FROM generate_series(1, 10000) n; DELETE FROM entry WHERE id % 5 = 0",
    );
    new.catch_up(&old);
    let mut failover = Failover { old, new };
    failover.fail_over();
    kept(&failover.new);
    old = failover.old;
    old.stop();
    assert_rewinds_by_comparing(&mut copy, &failover.new);
}

/// A base backup without WAL, on which no server was ever started.
#[test]
fn a_base_backup() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    shared(&old);
    let mut backup = old.at("backup");
    let server = ["--username", "postgres", "--host", old.host(), "--port", &old.port.to_string()];
    let options = ["--checkpoint", "fast", "--wal-method", "none", "--no-sync", "--pgdata"];
    run(server_program("pg_basebackup").args(server).args(options).arg(&backup.data));
    old.sql("DELETE FROM entry WHERE id % 3 = 0");
    let mut failover = Failover { old, new };
    failover.fail_over();
    kept(&failover.new);
    failover.old.stop();
    let plain = Rewind::of(&backup).from(&failover.new, SourceKind::Server);
    let refusal = plain.expect_refusal("belongs to a base backup", "");
    assert_cured_by_comparing(&refusal, &mut backup, &failover.new);
}

/// The sides swapped: a node that is ahead is no target, by whatever means.
#[test]
fn an_older_source_is_refused() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    new.stop();
    let swapped = rewind(&new, &old);
    swapped.expect_refusal("older than timeline 2 of the target", "--allow-older-source");
    old.stop();
}

/// A dry run compares and changes nothing.
#[test]
fn a_dry_run_tells_what_differs() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let run = rewind(&old, &new).args(["--dry-run", "--format", "json"]).run_leaving_target_alone();
    let json = run.json();
    assert_eq!(json["outcome"], "planned", "{run}");
    let compared = &json["compared"];
    assert!(compared["different_blocks"].as_u64().is_some_and(|count| count > 10), "{run}");
    assert!(compared["bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{run}");
}

/// A source that writes and makes checkpoints while it is compared.
#[test]
fn a_busy_source() {
    for major in pick("compare data: version", &[10, 12, 13, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let old = sandbox.initdb("old", Installation::of(major), &[]);
        let (old, new) = sandbox.pair_of(old);
        let table = "CREATE TABLE entry AS SELECT n AS id, repeat('x', 200) AS filler FROM generate_series(1, 40000) n";
        let Failover { mut old, new } = Failover::of(
            old,
            new,
            |old| old.sql(table),
            |old| old.sql("UPDATE entry SET filler = 'lost' WHERE id % 3 = 0"),
            |new| new.sql("UPDATE entry SET filler = 'kept' WHERE id % 7 = 0"),
        );
        old.kill();
        let running = rewind(&old, &new).args(["--max-rate", "20M"]).start();
        for turn in 0..6 {
            new.sql(&format!("UPDATE entry SET filler = 'meanwhile' WHERE id % 10 = {turn}"));
            new.sql(if turn % 2 == 0 { "CHECKPOINT" } else { "VACUUM entry" });
        }
        running.wait().expect_compared();
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}
