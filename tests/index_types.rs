//! One index of every kind, changed on both sides; each is asked for what a sequential scan finds.
//!
//!     old  ── btree hash gin gist spgist brin ──┬── update, delete, insert, vacuum ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── update, delete, insert, vacuum ──▶

use crate::harness::{Feature, Server};

/// A condition for each index.
const QUERIES: [&str; 6] = [
    "id BETWEEN 100 AND 4000",
    "hashed = 'h77'",
    "words @@ 'w5 & w3'",
    "place <@ box '((0,0),(50,50))'",
    "name ^@ 'n1'",
    "at BETWEEN 500 AND 900",
];

const ROWS: &str = "n, 'h' || n % 300, to_tsvector('simple', 'w' || n % 7 || ' w' || n % 11), point(n % 100, n % 97), 'n' || n, n";

fn change(server: &Server, side: u32) {
    server.sql(&format!(
        "UPDATE entry SET hashed = 'h' || id % 77, words = to_tsvector('simple', 'w5 w{side}') WHERE id % 10 = {side};
         UPDATE entry SET place = point(id % 13, {side}), name = 'n1{side}' || id, at = id + {side} WHERE id % 9 = {side};
         DELETE FROM entry WHERE id % 8 = {side};
         INSERT INTO entry SELECT {ROWS} FROM generate_series(10000, {}) n",
        10000 + side * 1500
    ));
    server.sql("VACUUM entry");
    server.sql("SELECT brin_summarize_new_values('entry_at'), gin_clean_pending_list('entry_words')");
    server.sql(&format!("INSERT INTO entry SELECT {ROWS} FROM generate_series(20000, 20500) n"));
}

/// An index of every kind.
pub const INDEX_TYPES: Feature = Feature {
    name: "index_types",
    shared: |old| {
        old.sql(&format!(
            "CREATE TABLE entry (id int PRIMARY KEY, hashed text, words tsvector, place point, name text, at int);
             CREATE INDEX entry_hashed ON entry USING hash (hashed);
             CREATE INDEX entry_words ON entry USING gin (words);
             CREATE INDEX entry_place ON entry USING gist (place);
             CREATE INDEX entry_name ON entry USING spgist (name);
             CREATE INDEX entry_at ON entry USING brin (at) WITH (pages_per_range = 4);
             INSERT INTO entry SELECT {ROWS} FROM generate_series(1, 6000) n"
        ));
        old.sql("CHECKPOINT");
        old.sql("DELETE FROM entry WHERE id % 20 = 0");
    },
    lost: |old| change(old, 4),
    kept: |new| change(new, 1),
    check: |rewound, _| {
        let mut session = rewound.session();
        for condition in QUERIES {
            let mut found = |settings: &str| {
                session.batch_execute(settings).expect("settings of the planner");
                let query = format!(
                    "SELECT coalesce(array_agg(id ORDER BY id), '{{}}') FROM entry WHERE {condition}"
                );
                let plan = session.query(&format!("EXPLAIN {query}"), &[]).expect("explain");
                let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
                (plan.join("\n"), session.query_one(&query, &[]).expect("query").get::<_, Vec<i32>>(0))
            };
            let (seq_plan, expected) =
                found("SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_seqscan = on");
            let (index_plan, rows) =
                found("SET enable_indexscan = on; SET enable_bitmapscan = on; SET enable_seqscan = off");
            assert!(
                seq_plan.contains("Seq Scan") && !index_plan.contains("Seq Scan"),
                "{seq_plan}\n{index_plan}"
            );
            assert!(!expected.is_empty(), "no row has {condition}");
            assert_eq!(rows, expected, "rows by the index where {condition}");
        }
    },
};

#[test]
fn agree_with_their_table() {
    INDEX_TYPES.rewind_both_ways();
}
