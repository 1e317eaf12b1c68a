//! Transactions prepared, and not yet committed, on either side of the fork.
//!
//!     old  ── early, shared ──┬── prepares lost; commits shared ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── prepares kept ── rewind ── commits shared and early ──▶
//!
//! Before a checkpoint such a transaction is a record in WAL, after it a file in pg_twophase.

use crate::harness::{Failover, Feature, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

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
