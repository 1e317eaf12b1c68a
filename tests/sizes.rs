//! Relations that grow and shrink, on either side.
//!
//!                      before the fork    target after    source after
//!     grown_by_old     ████               ████████        ████
//!     grown_by_new     ████               ████            ████████
//!     cut_by_old       ████████           ██              ████████
//!     cut_by_new       ████████           ████████        ██
//!     truncated_*      ████               (empty, a new file)
//!     rewritten_*      ████               VACUUM FULL, CLUSTER, ALTER TYPE: all rows in a new file

use crate::harness::{Feature, Server};

fn create(primary: &Server, table: &str, rows: u32) {
    primary.sql(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, filler text);
         INSERT INTO {table} SELECT n, repeat('x', 200) FROM generate_series(1, {rows}) n"
    ));
}

/// Ends with fewer pages: VACUUM gives the empty ones at the end back.
fn cut(server: &Server, table: &str) {
    server.sql(&format!("DELETE FROM {table} WHERE id > 300"));
    server.sql(&format!("VACUUM (TRUNCATE) {table}"));
    let pages = server.value::<i64>(&format!("SELECT pg_relation_size('{table}') / 8192"));
    assert!(pages < 20, "VACUUM should have cut {table}, which has {pages} pages");
}

fn grow(server: &Server, table: &str) {
    server.sql(&format!(
        "INSERT INTO {table} SELECT n, repeat('y', 200) FROM generate_series(100001, 106000) n"
    ));
}

fn rewrite(server: &Server, side: &str) {
    server.sql(&format!("VACUUM FULL rewritten_{side}"));
    server.sql(&format!("CLUSTER rewritten_{side} USING rewritten_{side}_pkey"));
    server.sql(&format!("ALTER TABLE rewritten_{side} ALTER id TYPE bigint; REINDEX TABLE grown_by_{side}"));
    // Mapped relations: their file numbers stand in pg_filenode.map, which is no relation file.
    server.sql("VACUUM FULL pg_class");
    server.sql("VACUUM FULL pg_database");
}

/// Relations whose sizes differ.
pub const SIZES: Feature = Feature {
    name: "sizes",
    shared: |old| {
        for side in ["old", "new"] {
            for table in ["grown_by", "cut_by", "truncated_by", "rewritten_by"] {
                create(old, &format!("{table}_{side}"), 3000);
            }
            old.sql(&format!(
                "ALTER TABLE rewritten_by_{side} RENAME TO rewritten_{side};
                              ALTER INDEX rewritten_by_{side}_pkey RENAME TO rewritten_{side}_pkey"
            ));
        }
        create(old, "cut_by_both", 3000);
        old.sql("CREATE TABLE cut_then_grown_by_new AS TABLE cut_by_both; ALTER TABLE cut_then_grown_by_new ADD PRIMARY KEY (id)");
        old.sql("CHECKPOINT");
    },
    lost: |old| {
        grow(old, "grown_by_old");
        cut(old, "cut_by_old");
        cut(old, "cut_by_both");
        old.sql("TRUNCATE truncated_by_old; INSERT INTO truncated_by_old VALUES (1, 'lost')");
        old.sql("UPDATE cut_then_grown_by_new SET filler = 'lost' WHERE id % 50 = 0");
        rewrite(old, "old");
        old.sql("DELETE FROM rewritten_new WHERE id % 2 = 0; DELETE FROM cut_by_new WHERE id % 2 = 0");
    },
    kept: |new| {
        grow(new, "grown_by_new");
        cut(new, "cut_by_new");
        cut(new, "cut_by_both");
        cut(new, "cut_then_grown_by_new");
        grow(new, "cut_then_grown_by_new");
        new.sql("TRUNCATE truncated_by_new; INSERT INTO truncated_by_new VALUES (1, 'kept')");
        rewrite(new, "new");
        new.sql("DELETE FROM rewritten_old WHERE id % 3 = 0; DELETE FROM cut_by_old WHERE id % 3 = 0");
    },
    check: |rewound, _| {
        let rows = |table: &str| rewound.value::<i64>(&format!("SELECT count(*) FROM {table}"));
        assert_eq!((rows("grown_by_old"), rows("grown_by_new")), (3000, 9000), "rows of what grew");
        assert_eq!((rows("cut_by_old"), rows("cut_by_new")), (2000, 300), "rows of what was cut");
        assert_eq!(
            (rows("truncated_by_old"), rows("truncated_by_new")),
            (3000, 1),
            "rows of what was truncated"
        );
        assert_eq!(
            (rows("rewritten_old"), rows("rewritten_new")),
            (2000, 3000),
            "rows of what was rewritten"
        );
    },
};

#[test]
fn grown_cut_truncated_and_rewritten() {
    SIZES.rewind_both_ways();
}
