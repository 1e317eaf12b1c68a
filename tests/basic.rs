//! The main job: after a failover the old primary is rewound and follows the new one.
//!
//!     old  ──── shared ────┬──── lost ────────╳ stop or kill -9     timeline 1
//!                          │ fork                    │
//!                          │                         ▼ rewind
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ──────────────────────▶       timeline 2
//!
//! Rows shared before the fork are changed on either side after it, pages are added and tables come and go. All four of
//! {clean, crashed} target and {running server, stopped directory} source.

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

/// Accounts, and tables that come and go.
pub fn shared(primary: &Server) {
    primary.sql(
        "CREATE TABLE account (id int PRIMARY KEY, owner text, balance int);
         INSERT INTO account SELECT n, 'shared', 100 FROM generate_series(1, 2000) n;
         CREATE TABLE dropped_by_old AS SELECT n FROM generate_series(1, 1000) n;
         CREATE TABLE dropped_by_new AS SELECT n FROM generate_series(1, 1000) n;
         CREATE SEQUENCE ticket;
         SELECT nextval('ticket')",
    );
    primary.sql("CHECKPOINT");
    // Between the common checkpoint and the fork: replay brings it back, the copy need not.
    primary.sql("UPDATE account SET balance = 200 WHERE id % 10 = 0");
}

pub fn lost(old: &Server) {
    old.sql(
        "UPDATE account SET owner = 'lost' WHERE id % 3 = 0;
         DELETE FROM account WHERE id % 5 = 0;
         INSERT INTO account SELECT n, 'lost', 0 FROM generate_series(2001, 9000) n;
         DROP TABLE dropped_by_old;
         CREATE TABLE created_by_old AS SELECT n FROM generate_series(1, 500) n;
         SELECT nextval('ticket') FROM generate_series(1, 100)",
    );
}

pub fn kept(new: &Server) {
    new.sql(
        "UPDATE account SET owner = 'kept' WHERE id % 4 = 0;
         INSERT INTO account SELECT n, 'kept', 0 FROM generate_series(2001, 3000) n;
         DROP TABLE dropped_by_new;
         CREATE TABLE created_by_new AS SELECT n FROM generate_series(1, 500) n;
         SELECT nextval('ticket') FROM generate_series(1, 7)",
    );
}

fn rewind(kind: SourceKind, end_of_target: fn(&mut Server)) {
    let sandbox = Sandbox::on_disk();
    let failover = Failover::new(&sandbox, shared, lost, kept);
    let fork = failover.fork();
    let Failover { mut old, mut new } = failover;
    end_of_target(&mut old);
    if kind == SourceKind::Directory {
        new.stop();
    }

    let run = Rewind::of(&old).from(&new, kind).run();
    run.expect_done().expect_said(&format!("servers diverged at WAL location {fork} on timeline 1"));

    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    let count = |owner| old.value::<i64>(&format!("SELECT count(*) FROM account WHERE owner = '{owner}'"));
    assert_eq!(
        (count("shared"), count("kept"), count("lost")),
        (1500, 1500, 0),
        "rows shared, kept and lost"
    );
    assert_eq!(
        old.value::<i64>("SELECT count(*) FROM dropped_by_old"),
        1000,
        "a table the target had dropped"
    );
    assert_eq!(
        old.value::<i64>("SELECT count(*) FROM created_by_new"),
        500,
        "a table the source has created"
    );
    assert_sound(&mut old);
}

#[test]
fn clean_target_running_source() {
    rewind(SourceKind::Server, Server::stop);
}

#[test]
fn clean_target_stopped_source() {
    rewind(SourceKind::Directory, Server::stop);
}

#[test]
fn crashed_target_running_source() {
    rewind(SourceKind::Server, Server::kill);
}

#[test]
fn crashed_target_stopped_source() {
    rewind(SourceKind::Directory, Server::kill);
}

/// Hint bits are logged by `wal_log_hints` where there are no checksums.
#[test]
fn without_checksums() {
    let sandbox = Sandbox::on_disk();
    let primary = sandbox.server_without_checksums("old");
    primary.configure("wal_log_hints = on");
    let (old, new) = sandbox.pair_of(primary);
    Failover::of(old, new, shared, lost, kept).rewind_both_ways(|rewound, _| {
        assert_eq!(rewound.value::<i64>("SELECT count(*) FROM account WHERE owner = 'kept'"), 1500);
    });
}
