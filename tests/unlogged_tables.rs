//! Unlogged tables: their changes are in no WAL, and recovery empties them from their init fork.
//!
//!     old  ──── shared ────┬── rows, a new table ──╳         the target's rows are worth nothing after the rewind
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── rows, a new table ────▶       and the source's are not worth copying

use crate::harness::{Failover, Feature, Rewind, Sandbox, SourceKind, assert_follows, assert_sound};

/// Unlogged tables, and tables that become logged or unlogged.
pub const UNLOGGED_TABLES: Feature = Feature {
    name: "unlogged_tables",
    shared: |old| {
        old.sql(
            "CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY, filler text);
             INSERT INTO scratch SELECT n, 'shared' FROM generate_series(1, 3000) n;
             CREATE UNLOGGED TABLE becomes_logged AS SELECT n FROM generate_series(1, 3000) n;
             CREATE TABLE becomes_unlogged AS SELECT n FROM generate_series(1, 3000) n;",
        );
        old.sql("CHECKPOINT");
    },
    lost: |old| {
        old.sql(
            "INSERT INTO scratch SELECT n, 'lost' FROM generate_series(3001, 9000) n;
             CREATE UNLOGGED TABLE lost AS SELECT n FROM generate_series(1, 1000) n;",
        );
        old.sql("CHECKPOINT");
    },
    kept: |new| {
        new.sql(
            "INSERT INTO scratch SELECT n, 'kept' FROM generate_series(1, 5000) n;
             INSERT INTO becomes_logged SELECT n FROM generate_series(1, 2000) n;
             ALTER TABLE becomes_logged SET LOGGED;
             ALTER TABLE becomes_unlogged SET UNLOGGED;
             CREATE UNLOGGED TABLE kept AS SELECT n FROM generate_series(1, 1000) n;",
        );
        new.sql("CHECKPOINT");
    },
    check: |rewound, _| {
        // The promotion of the source has emptied it, too.
        assert_eq!(
            rewound.value::<i64>("SELECT count(*) FROM becomes_logged"),
            2000,
            "rows of what became logged"
        );
        assert!(rewound.value::<bool>("SELECT to_regclass('lost') IS NULL"), "the target's own table");
    },
};

#[test]
fn unreadable_on_a_standby() {
    UNLOGGED_TABLES.rewind_both_ways();
}

#[test]
fn empty_after_promotion() {
    let sandbox = Sandbox::new();
    let Feature { shared, lost, kept, .. } = UNLOGGED_TABLES;
    let Failover { mut old, new } = Failover::new(&sandbox, shared, lost, kept);
    old.kill();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    old.promote();
    for table in ["scratch", "becomes_unlogged", "kept"] {
        assert_eq!(
            old.value::<i64>(&format!("SELECT count(*) FROM {table}")),
            0,
            "rows of {table} after promotion"
        );
        old.sql(&format!("INSERT INTO {table} SELECT 1"));
    }
    assert_sound(&mut old);
}
