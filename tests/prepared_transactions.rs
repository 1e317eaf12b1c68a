//! Transactions prepared, and not yet committed, on either side of the fork.
//!
//!     old  ── early, shared ──┬── prepares lost; commits shared ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── prepares kept ── rewind ── commits shared and early ──▶
//!
//! Before a checkpoint such a transaction is a record in WAL, after it a file in pg_twophase.

use crate::harness::{
    Failover, Feature, Installation, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, pick,
};

fn prepare(server: &Server, name: &str) {
    server.sql(&format!(
        "BEGIN; INSERT INTO entry SELECT '{name}' FROM generate_series(1, 500); PREPARE TRANSACTION '{name}'"
    ));
}

/// Prepared transactions.
pub const PREPARED_TRANSACTIONS: Feature = Feature {
    name: "prepared_transactions",
    shared: |old| {
        old.sql("CREATE TABLE entry (origin text)");
        prepare(old, "early");
        old.sql("CHECKPOINT");
        prepare(old, "shared");
    },
    lost: |old| {
        prepare(old, "lost");
        old.sql("CHECKPOINT");
        old.sql("COMMIT PREPARED 'shared'");
    },
    kept: |new| prepare(new, "kept"),
    check: |rewound, source| {
        // One of them for each of the two rewinds; the rewound node must know it to replay its commit.
        let prepared =
            source.column("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1");
        let name = prepared.first().expect("a prepared transaction");
        let rows =
            |node: &Server| node.value::<i64>(&format!("SELECT count(*) FROM entry WHERE origin = '{name}'"));
        assert_eq!(rows(rewound), 0, "rows of {name} before its commit");
        source.sql(&format!("COMMIT PREPARED '{name}'"));
        rewound.catch_up(source);
        assert_eq!(rows(rewound), 500, "rows of {name} after its commit");
        assert_eq!(rewound.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 0);
    },
};

#[test]
fn committed_at_the_source() {
    PREPARED_TRANSACTIONS.rewind_both_ways();
}

#[test]
fn committed_after_promotion() {
    let sandbox = Sandbox::new();
    let Feature { shared, lost, kept, .. } = PREPARED_TRANSACTIONS;
    let Failover { mut old, new } = Failover::new(&sandbox, shared, lost, kept);
    old.stop();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    old.promote();
    assert_eq!(old.column("SELECT gid FROM pg_prepared_xacts ORDER BY 1"), ["early", "kept", "shared"]);
    for name in ["early", "kept", "shared"] {
        old.sql(&format!("COMMIT PREPARED '{name}'"));
    }
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["early", "kept", "shared"]);
    assert_sound(&mut old);
}

/// The source has made a checkpoint since, and so a file of a transaction that replay is yet to prepare. Servers of 17 and
/// 18 lose the transaction if they find the file.
///
///     new  ── C0 ── prepares kept ── C1: writes a file ──▶
///             └ replay starts here, and prepares it again
#[test]
fn files_of_a_later_checkpoint() {
    for major in pick("prepared transactions: version", &[10, 13, 15, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
        let shared = |old: &Server| {
            old.sql("CREATE TABLE entry (origin text)");
            prepare(old, "early");
            old.sql("CHECKPOINT");
        };
        let kept = |new: &Server| {
            new.sql("CHECKPOINT");
            prepare(new, "kept");
            new.sql("CHECKPOINT");
        };
        let Failover { mut old, new } = Failover::of(old, new, shared, |old| prepare(old, "lost"), kept);
        old.kill();
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "common"]);
        rewind.run().expect_done();
        assert_follows(&mut old, &new);
        let log = std::fs::read_to_string(old.log()).expect("read the log");
        assert!(
            !log.contains("two-phase state file for transaction"),
            "the server found such a file:\n{log}"
        );
        new.sql("COMMIT PREPARED 'kept'");
        old.catch_up(&new);
        let rows = |node: &Server| node.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'kept'");
        assert_eq!(rows(&old), 500, "rows on the node");
        old.promote();
        assert_eq!(old.column("SELECT gid FROM pg_prepared_xacts"), ["early"]);
        old.sql("COMMIT PREPARED 'early'");
        assert_sound(&mut old);
    }
}
