//! Databases created and dropped, in both ways PostgreSQL 15 has of creating one.
//!
//!     old  ── both ──┬── creates lost_*, both_*; drops dropped_by_old ──╳
//!     new  ┄┄┄┄┄┄┄┄┄ └── creates kept_*, both_*; drops dropped_by_new ──▶
//!
//! FILE_COPY writes no page to WAL, only that a directory was copied; WAL_LOG writes every page.

use std::path::Path;

use crate::harness::{
    Change, Failover, Feature, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound,
    record_changes,
};
use crate::interrupted::is_marked;

const STRATEGIES: [&str; 2] = ["wal_log", "file_copy"];

fn create(server: &Server, name: &str) {
    for strategy in STRATEGIES {
        let database = format!("{name}_{strategy}");
        server.sql(&format!("CREATE DATABASE {database} TEMPLATE pattern STRATEGY {strategy}"));
        server.sql_in(&database, &format!("UPDATE entry SET origin = '{database}' WHERE id % 2 = 0"));
    }
}

fn drop(server: &Server, name: &str) {
    for strategy in STRATEGIES {
        server.sql(&format!("DROP DATABASE {name}_{strategy}"));
    }
}

/// Databases of both strategies.
pub const DATABASES: Feature = Feature {
    name: "databases",
    shared: |old| {
        old.sql("CREATE DATABASE pattern");
        old.sql_in(
            "pattern",
            "CREATE TABLE entry AS SELECT n AS id, 'pattern' AS origin FROM generate_series(1, 2000) n",
        );
        create(old, "dropped_by_old");
        create(old, "dropped_by_new");
        old.sql("CHECKPOINT");
        // After the common checkpoint, before the fork: replay creates it again.
        create(old, "shared");
    },
    lost: |old| {
        create(old, "lost");
        create(old, "both");
        drop(old, "dropped_by_old");
        old.sql_in("shared_file_copy", "DELETE FROM entry WHERE id % 3 = 0");
    },
    kept: |new| {
        // The same OIDs as the target's, in another order: directories of one name hold different databases.
        create(new, "both");
        create(new, "kept");
        drop(new, "dropped_by_new");
        new.sql_in("shared_wal_log", "DELETE FROM entry WHERE id % 3 = 0");
    },
    check: |rewound, _| {
        let names =
            "SELECT datname::text FROM pg_database WHERE datname ~ '(pattern|wal_log|file_copy)$' ORDER BY 1";
        let mut expected = vec!["pattern".to_string()];
        for name in ["both", "dropped_by_old", "kept", "shared"] {
            expected.extend(STRATEGIES.map(|strategy| format!("{name}_{strategy}")));
        }
        expected.sort();
        assert_eq!(rewound.column(names), expected);
        // A dropped database leaves no directory.
        let list = std::fs::read_dir(rewound.data.join("base")).expect("list base");
        let names = list.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut there: Vec<String> = names.filter(|name| name != "pgsql_tmp").collect();
        there.sort();
        let oids = "SELECT oid::text FROM pg_database WHERE dattablespace = 1663 ORDER BY oid::text";
        assert_eq!(there, rewound.column(oids), "directories in base and databases");
    },
};

#[test]
fn created_and_dropped() {
    DATABASES.rewind_both_ways();
}

/// Killed when the file PG_VERSION of a new database has been made and not written; run again.
#[test]
fn killed_while_a_database_is_copied() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |_| (),
        |old| old.sql("CREATE TABLE lost ()"),
        |new| new.sql("CREATE DATABASE kept"),
    );
    failover.old.kill();
    failover.new.stop();
    let Failover { mut old, mut new } = failover;
    let rewind = |target: &Server| Rewind::of(target).from(&new, SourceKind::Directory).args(["--jobs", "1"]);
    let undisturbed = old.copy("undisturbed");
    let changes = record_changes(rewind(&undisturbed), &undisturbed);
    let is_version = |change: &Change| {
        change.kind == "write" && change.path.file_name() == Some(Path::new("PG_VERSION").as_os_str())
    };
    let at = changes.iter().position(is_version).expect("a file PG_VERSION is copied") + 1;
    let killed = rewind(&old).env("KBRECOVER_FAULT", format!("{at}:kill")).run_unless_killed();
    assert!(killed.is_none() && is_marked(&old), "not killed at change {at}");
    rewind(&old).run().expect_done();
    new.start();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
