//! A run that does not come to its end: the target starts no server, and the next run finishes the work.
//!
//!     old     ── 1 ──┬── lost ──╳     rewound from new: the connection breaks, or kbrecover is killed, after
//!     new     ┄┄┄┄┄┄ └── 2 ─────▶     so and so many bytes; then rewound again
//!     third   ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └─ 3 ─▶  in the end from a server that was promoted meanwhile

use std::path::Path;
use std::time::Duration;

use crate::harness::{
    Failover, Proxy, Rewind, Run, Sandbox, Server, SourceKind, Then, Tree, assert_follows, assert_sound,
    record_changes, spawn_kbrecover,
};
use crate::{index_types, sizes};

pub fn diverged(sandbox: &Sandbox) -> Failover {
    let mut failover = Failover::new(
        sandbox,
        |old| {
            (sizes::SIZES.shared)(old);
            (index_types::INDEX_TYPES.shared)(old);
        },
        |old| {
            (sizes::SIZES.lost)(old);
            (index_types::INDEX_TYPES.lost)(old);
        },
        |new| {
            (sizes::SIZES.kept)(new);
            (index_types::INDEX_TYPES.kept)(new);
        },
    );
    failover.old.kill();
    failover
}

pub fn is_marked(target: &Server) -> bool {
    std::fs::read_to_string(target.data.join("backup_label")).is_ok_and(|text| text.starts_with("KBRECOVER"))
}

/// The target is as it was, or it is marked and no server starts on it.
fn assert_untouched_or_unstartable(target: &mut Server, before: &Tree, run: &str) -> bool {
    if !is_marked(target) {
        before.assert_unchanged(&target.data, run);
        return false;
    }
    // Mostly because of the mark; files it reads before that may be half-way, too.
    target.try_start().expect_err("a server started on a half-rewound directory");
    true
}

pub fn finish(mut target: Server, source: &Server, run: Rewind) {
    let run = run.run().expect_done();
    for left in ["kbrecover.journal", "backup_label.kbrecover-new"] {
        assert!(!target.data.join(left).exists(), "{left} was left behind\n{run}");
    }
    assert_follows(&mut target, source);
    assert_sound(&mut target);
}

/// How many bytes a whole run takes from the source.
pub fn bytes_of_a_run(failover: &Failover) -> u64 {
    let proxy = Proxy::to(&failover.new, u64::MAX, Then::Cut);
    let target = failover.old.copy("measured");
    Rewind::of(&target).arg("--source-server").arg(proxy.conninfo()).run().expect_done();
    proxy.passed()
}

#[test]
fn a_broken_connection_leaves_a_target_that_the_next_run_finishes() {
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let total = bytes_of_a_run(&failover);
    let mut marked = 0;
    // Most of them behind the mark: the source's WAL is read before it.
    for (number, part) in [6, 14, 22, 28, 31, 33, 35, 37, 38, 39].into_iter().enumerate() {
        let mut target = failover.old.copy(&format!("cut-{part}"));
        let before = Tree::of(&target.data);
        let proxy = Proxy::to(&failover.new, total * part / 40, Then::Cut);
        let run = Rewind::of(&target).arg("--source-server").arg(proxy.conninfo());
        let run = run.args(["--retry-timeout", "0"]).run();
        let is_marked = assert_untouched_or_unstartable(&mut target, &before, &run.to_string());
        assert_eq!(run.code, if is_marked { 2 } else { 1 }, "{run}");
        marked += u32::from(is_marked);
        if is_marked && number % 3 == 0 {
            let run = Rewind::of(&target).from(&failover.new, SourceKind::Server);
            finish(target, &failover.new, run);
        } else if is_marked {
            let again = Rewind::of(&target).from(&failover.new, SourceKind::Server).run().expect_done();
            again.expect_said("resuming the rewind begun at");
        }
    }
    assert!(marked >= 3, "only {marked} of 10 runs were stopped after the point of no return");
}

fn killed_half_way(failover: &Failover, name: &str, total: u64) -> Server {
    let mut target = failover.old.copy(name);
    let before = Tree::of(&target.data);
    let proxy = Proxy::to(&failover.new, total * 9 / 10, Then::Stall);
    let mut child = spawn_kbrecover(Rewind::of(&target).arg("--source-server").arg(proxy.conninfo()));
    for _ in 0..600 {
        if proxy.passed() > total * 9 / 10 && is_marked(&target) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // What was under way comes to rest.
    std::thread::sleep(Duration::from_millis(200));
    child.kill().expect("kill kbrecover");
    child.wait().expect("wait for kbrecover");
    assert!(assert_untouched_or_unstartable(&mut target, &before, "killed"), "not marked when it was killed");
    target
}

#[test]
fn killed_and_finished_from_a_server_promoted_meanwhile() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let total = bytes_of_a_run(&failover);
    let target = killed_half_way(&failover, "killed", total);
    let other = killed_half_way(&failover, "killed-too", total);

    let mut third = failover.promote_another("third");
    failover.new.sql("CREATE TABLE only_on_new AS SELECT n FROM generate_series(1, 1000) n");
    third.sql("CREATE TABLE only_on_third AS SELECT n FROM generate_series(1, 1000) n");

    let run = Rewind::of(&target).from(&third, SourceKind::Server);
    finish(target, &third, run);
    third.stop();
    let run: Run = Rewind::of(&other).from(&third, SourceKind::Directory).run().expect_done();
    run.expect_said("resuming the rewind begun at");
}

/// The server that takes over has less than the first run copied: what goes beyond it must not stay.
#[test]
fn killed_and_finished_from_a_server_that_has_less() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.new.sql("CREATE TABLE growing AS SELECT n FROM generate_series(1, 1000) n; CHECKPOINT");
    failover.new.stop();
    let mut third = failover.new.copy("third");
    failover.new.start();
    failover.new.sql("INSERT INTO growing SELECT n FROM generate_series(1, 100000) n");
    // One table both sides have from before the fork, too.
    failover.new.sql("INSERT INTO pg_description SELECT 1, 1, n, 'x' FROM generate_series(1, 20000) n");
    failover.new.sql("CHECKPOINT");
    let measured = failover.old.copy("measured");
    let run = |target: &Server| Rewind::of(target).from(&failover.new, SourceKind::Server);
    let changes = record_changes(run(&measured), &measured);
    let seal = changes.iter().rposition(|change| change.path.ends_with("pg_control")).expect("a seal");
    let target = failover.old.copy("killed");
    let killed = run(&target).env("KBRECOVER_FAULT", format!("{}:kill", seal - 3)).run_unless_killed();
    assert!(killed.is_none() && is_marked(&target), "not killed half-way");

    failover.new.kill();
    third.follow(&failover.new);
    third.start();
    third.promote();
    third.sql("CREATE TABLE only_on_third AS SELECT n FROM generate_series(1, 1000) n");
    let again = Rewind::of(&target).from(&third, SourceKind::Server);
    let mut target = target;
    again.run().expect_done().expect_said("resuming the rewind begun at");
    assert_follows(&mut target, &third);
    let size = |server: &Server| -> i64 { server.value("SELECT pg_relation_size('pg_description')") };
    assert_eq!(size(&target), size(&third), "blocks of the first source have stayed");
    assert_sound(&mut target);
}

/// The journal as version 0.1 wrote it lacks what the target's WAL says of files: the data is compared instead. What that
/// version saved of the discarded data stays, and what else is discarded is added.
#[test]
fn a_run_of_version_0_1_is_finished() {
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let kept = |name: &str| sandbox.make_dir(name).join("kept");
    let run = |target: &Server| Rewind::of(target).from(&failover.new, SourceKind::Server);
    let keeping = |target: &Server, kept: &Path| {
        run(target).args(["--jobs", "1", "--keep-diverged-blocks", "--keep-diverged"]).arg(kept)
    };
    let measured = failover.old.copy("measured");
    let changes = record_changes(keeping(&measured, &kept("kept-of-measured")), &measured);
    let mark = changes.iter().position(|change| change.to == Path::new("backup_label")).expect("a mark");
    let seal = changes.iter().rposition(|change| change.path.ends_with("pg_control")).expect("a seal");
    let mut target = failover.old.copy("killed");
    let kept = kept("kept-of-killed");
    let fault = format!("{}:kill", (mark + seal) / 2);
    let killed = keeping(&target, &kept).env("KBRECOVER_FAULT", fault).run_unless_killed();
    assert!(killed.is_none() && is_marked(&target), "not killed half-way");
    let journal = target.data.join("kbrecover.journal");
    let journal = std::fs::read(journal).expect("read the journal");
    let mut body: serde_json::Value = serde_json::from_slice(&journal[12..]).expect("JSON");
    for later in ["file_changes", "replay_start", "compared_until"] {
        body.as_object_mut().expect("an object").remove(later).expect("a field that 0.1 did not have");
    }
    let body = body.to_string();
    let crc = walparse::crc32c_append(0, body.as_bytes()).to_le_bytes();
    target.write("kbrecover.journal", [&journal[..8], &crc, body.as_bytes()].concat());

    let again = run(&target).run();
    assert_eq!(again.code, 0, "{again}");
    again.expect_said("an older version began the unfinished rewind").expect_said("MiB of relation files");
    let manifest = std::fs::read(kept.join("kept.json")).expect("read the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!((&manifest["format"], &manifest["complete"]), (&1.into(), &true.into()));
    assert_follows(&mut target, &failover.new);
    assert_sound(&mut target);
}

#[test]
fn a_damaged_journal_is_refused() {
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let total = bytes_of_a_run(&failover);
    let target = killed_half_way(&failover, "killed", total);
    target.write("kbrecover.journal", "KBRJRNL1 nonsense");
    let run = Rewind::of(&target).from(&failover.new, SourceKind::Server).run();
    assert_eq!(run.code, 2, "{run}");
    run.expect_said("is damaged or was written by another version").expect_said("new base backup");
}
