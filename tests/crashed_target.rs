//! The old primary was killed, not stopped: its WAL is read to its real end, and no server program is run on it.
//!
//!     old  ──── shared ────┬──── lost ──╳ kill -9 under load     timeline 1, pg_control: "in production"
//!                          │ fork       │
//!                          │            ▼ rewind as it lies
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ──────────────▶            timeline 2
//!
//! Crash recovery in single-user mode, the other way to learn where its WAL ends, fails with standby.signal and with
//! the configuration outside the data directory. Reading does not.

use crate::harness::{
    ControlData, Failover, Load, Rewind, Sandbox, Segment, Server, SourceKind, Tree, assert_follows,
    assert_sound, bindir, end_with_children, next_segment, segments,
};

/// Fails over in the middle of a write load; the load goes on at the old primary until it is killed.
fn killed_under_load(sandbox: &Sandbox, old: Server, new: Server) -> Failover {
    let load = Load::start(&old);
    new.catch_up(&old);
    load.wait_for_commits(50);
    let mut failover = Failover { old, new };
    // The load goes on: the standby is promoted wherever it is, and the fork lies between any two records.
    failover.new.promote();
    load.wait_for_commits(50);
    failover.old.sql("CHECKPOINT");
    load.wait_for_commits(100);
    failover.old.kill();
    load.join();
    assert_eq!(
        ControlData::of(&failover.old.data).get("Database cluster state"),
        "in production",
        "the state a crash leaves"
    );
    assert!(sandbox.path("old").join("postmaster.pid").exists(), "the lock file a crash leaves");
    failover.new.sql("INSERT INTO load (n, filler) SELECT n, 'kept' FROM generate_series(1, 500) n");
    failover
}

fn rewind(failover: Failover, kind: SourceKind) {
    let Failover { mut old, mut new } = failover;
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
fn under_load_running_source() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    rewind(killed_under_load(&sandbox, old, new), SourceKind::Server);
}

#[test]
fn under_load_stopped_source() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    rewind(killed_under_load(&sandbox, old, new), SourceKind::Directory);
}

/// As cluster managers leave it, which mark the node as a standby before they rewind it.
#[test]
fn with_standby_signal() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let failover = killed_under_load(&sandbox, old, new);
    failover.old.write("standby.signal", "");
    rewind(failover, SourceKind::Server);
}

/// Nobody has waited for the killed postmaster, as in a container without an init: a zombie has its number and keeps no
/// lock.
#[test]
fn with_a_zombie() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |_| (),
        |old| old.sql("CREATE TABLE lost AS SELECT n FROM generate_series(1, 3000) n"),
        |new| new.sql("CREATE TABLE kept AS SELECT n FROM generate_series(1, 3000) n"),
    );
    let mut zombie = old.kill_unreaped();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    zombie.wait().expect("wait for postgres");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// The way of the original, on request: the server recovers the target first.
#[test]
fn recovered_by_the_server_on_request() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { mut old, new } = killed_under_load(&sandbox, old, new);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).arg("--ensure-shutdown");
    rewind.arg("--bindir").arg(bindir()).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A server that is still at its recovery when the run is told to stop does not work on.
#[test]
fn a_stop_ends_the_servers_recovery() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { old, new } = killed_under_load(&sandbox, old, new);
    let bin = sandbox.make_dir("bin");
    let mark = bin.join("mark");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {}/postgres --version\nsleep 600 & echo $! > {}\nwait\n",
        bindir().display(),
        mark.display()
    );
    std::fs::write(bin.join("postgres"), script).expect("write a program");
    std::process::Command::new("chmod").arg("755").arg(bin.join("postgres")).status().expect("run chmod");
    let before = Tree::of(&old.data);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).arg("--ensure-shutdown");
    let mut run = rewind.arg("--bindir").arg(&bin).command();
    let run = run.stderr(std::process::Stdio::piped()).spawn().expect("run kbrecover");
    let (status, said) = end_with_children(run, &mark, || ());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("stopping at the next safe point"), "{said}");
    before.assert_unchanged(&old.data, &said);
}

/// As Debian keeps it: the data directory holds no configuration file, and nobody names the one outside.
#[test]
fn with_configuration_outside_the_directory() {
    let sandbox = Sandbox::new();
    let (mut old, new) = sandbox.pair();
    old.stop();
    let outside = sandbox.make_dir("etc");
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        std::fs::rename(old.data.join(file), outside.join(file)).expect("move a configuration file");
    }
    old.set("config_file", outside.join("postgresql.conf").to_str().expect("a UTF-8 path"));
    old.set("hba_file", outside.join("pg_hba.conf").to_str().expect("a UTF-8 path"));
    old.set("ident_file", outside.join("pg_ident.conf").to_str().expect("a UTF-8 path"));
    old.start();
    rewind(killed_under_load(&sandbox, old, new), SourceKind::Server);
}

/// The WAL ends inside a recycled segment: what follows the end are whole pages of older WAL, not zeros. They are no
/// sign of damage.
///
///     pg_wal of old   ... [5: lost ── end ┊ pages of 2] [6: pages of 3] [7: pages of 4]
#[test]
fn with_recycled_segments_beyond_the_end() {
    let sandbox = Sandbox::new();
    let (mut old, new) = sandbox.pair();
    old.stop();
    old.set("wal_keep_size", "0");
    old.set("min_wal_size", "128MB");
    old.start();
    old.sql("CREATE TABLE filler AS SELECT n, md5(n::text) FROM generate_series(1, 60000) n");
    for _ in 0..3 {
        next_segment(&old);
        old.sql("UPDATE filler SET n = n + 1 WHERE n % 3 = 0");
    }
    new.catch_up(&old);
    old.sql("CHECKPOINT");
    old.sql("INSERT INTO filler SELECT n, 'shared' FROM generate_series(1, 1000) n");
    let now = Segment::at(1, old.wal_end());
    let recycled = segments(&old.data).into_iter().filter(|segment| *segment > now).count();
    assert!(recycled > 0, "the scenario needs recycled segments beyond {now}: {:?}", segments(&old.data));
    rewind(killed_under_load(&sandbox, old, new), SourceKind::Server);
}
