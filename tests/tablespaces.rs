//! Tablespaces, real and in-place.
//!
//!     old/pg_tblspc/16384 ─▶ old-space/      after the rewind each node still has its own directory
//!     new/pg_tblspc/16384 ─▶ new-space/
//!     old/pg_tblspc/16390 ─▶ lost-space/     created after the fork at the target: its files and its link go
//!     new/pg_tblspc/16385/                   in-place: no link but a directory; created after the fork at the source

use std::path::PathBuf;

use crate::harness::{Failover, Feature, Sandbox, Server};

fn create(server: &Server, tablespace: &str, directory: &std::path::Path) {
    server.sql(&format!("CREATE TABLESPACE {tablespace} LOCATION '{}'", directory.display()));
}

/// A directory in the data directory instead of a link out of it. A node that has one needs the setting to start, too.
fn create_in_place(server: &Server, tablespace: &str) {
    server.sql(&format!("CREATE TABLESPACE {tablespace} LOCATION ''"));
}

fn links(server: &Server) -> Vec<PathBuf> {
    let list = std::fs::read_dir(server.data.join("pg_tblspc")).expect("list pg_tblspc");
    list.filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok()).collect()
}

#[test]
fn real() {
    let sandbox = Sandbox::new();
    let (old_space, lost_space) = (sandbox.make_dir("space"), sandbox.make_dir("lost-space"));
    let mut old = sandbox.server("old");
    old.start();
    create(&old, "space", &old_space);
    old.sql(
        "CREATE TABLE entry (id int PRIMARY KEY USING INDEX TABLESPACE space, origin text) TABLESPACE space;
             INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 3000) n",
    );
    old.sql("CREATE DATABASE there TABLESPACE space");
    old.sql_in(
        "there",
        "CREATE TABLE entry AS SELECT n AS id, 'shared' AS origin FROM generate_series(1, 3000) n",
    );
    // A copy gives every node a directory of its own, as pg_basebackup --tablespace-mapping does.
    old.stop();
    let mut new = old.copy("new");
    old.start();
    new.follow(&old);
    new.start();

    let failover = Failover::of(
        old,
        new,
        |old| old.sql("UPDATE entry SET origin = 'shared again' WHERE id % 10 = 0"),
        |old| {
            old.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0; INSERT INTO entry SELECT n, 'lost' FROM generate_series(3001, 9000) n");
            old.sql_in("there", "UPDATE entry SET origin = 'lost' WHERE id % 3 = 0");
            create(old, "lost_space", &lost_space);
            old.sql("CREATE TABLE lost TABLESPACE lost_space AS SELECT n FROM generate_series(1, 1000) n");
            // Its creation must not be replayed in a copy, which would come to share the directory.
            old.sql("CHECKPOINT");
        },
        |new| {
            new.sql("UPDATE entry SET origin = 'kept' WHERE id % 4 = 0; CREATE TABLE kept TABLESPACE space AS SELECT n FROM generate_series(1, 1000) n");
            new.sql_in("there", "UPDATE entry SET origin = 'kept' WHERE id % 4 = 0");
        },
    );
    failover.rewind_both_ways(|rewound, _| {
        let own = sandbox.path(if rewound.name == "old" { "space" } else { "clean-space" });
        assert_eq!(links(rewound), [own], "the tablespaces of {}", rewound.name);
    });
    let left = std::fs::read_dir(&lost_space).expect("list the lost tablespace").count();
    assert_eq!(left, 0, "files left in the directory of the target's own tablespace");
}

/// In-place tablespaces, which are directories on both sides.
pub const IN_PLACE: Feature = Feature {
    name: "in_place_tablespaces",
    shared: |old| {
        create_in_place(old, "in_place");
        create_in_place(old, "in_place_dropped");
        old.sql("CREATE TABLE entry TABLESPACE in_place AS SELECT n AS id, 'shared' AS origin FROM generate_series(1, 3000) n");
        old.sql("CHECKPOINT");
    },
    lost: |old| {
        old.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0");
        create_in_place(old, "in_place_lost");
        old.sql("CREATE TABLE lost TABLESPACE in_place_lost AS SELECT n FROM generate_series(1, 1000) n");
    },
    kept: |new| {
        new.sql("UPDATE entry SET origin = 'kept' WHERE id % 4 = 0");
        new.sql("DROP TABLESPACE in_place_dropped");
        create_in_place(new, "in_place_kept");
        new.sql("CREATE TABLE kept TABLESPACE in_place_kept AS SELECT n FROM generate_series(1, 1000) n");
    },
    check: |rewound, _| {
        let names = "SELECT spcname::text FROM pg_tablespace WHERE spcname LIKE 'in_place%' ORDER BY 1";
        assert_eq!(rewound.column(names), ["in_place", "in_place_kept"]);
        let list = std::fs::read_dir(rewound.data.join("pg_tblspc")).expect("list pg_tblspc");
        let mut there: Vec<String> =
            list.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        there.sort();
        let oids = rewound.column("SELECT oid::text FROM pg_tablespace WHERE oid > 16383 ORDER BY oid::text");
        assert_eq!(there, oids, "entries of pg_tblspc and tablespaces");
    },
};

#[test]
fn in_place() {
    IN_PLACE.rewind_both_ways();
}
