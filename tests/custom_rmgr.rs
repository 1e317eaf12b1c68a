//! WAL of an extension's own resource manager (15 and later), on a server that has such an extension: see `other_sizes.sh`.
//!
//!     old  ──── shared ────┬──── lost, with records of the extension ────╳ kill -9
//!     new  ┄┄┄ streams ┄┄┄ └──── kept, with records of the extension ────▶

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, run_kbrecover,
};

/// PostgreSQL's test module of that name: its records carry a message and name no block.
const EXTENSION: &str = "test_custom_rmgrs";

fn write(server: &Server, what: &str) {
    server.sql(&format!(
        "SELECT {EXTENSION}_insert_wal_record('{what}') FROM generate_series(1, 50);
         INSERT INTO entry SELECT n, '{what}' FROM generate_series(1, 500) n"
    ));
}

#[test]
fn records_that_name_no_block_are_read_over() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    old.configure(&format!("shared_preload_libraries = '{EXTENSION}'"));
    let (old, new) = sandbox.pair_of(old);
    let shared = |old: &Server| {
        old.sql(&format!("CREATE EXTENSION {EXTENSION}; CREATE TABLE entry (n int, origin text)"));
        write(old, "shared");
    };
    let failover = Failover::of(old, new, shared, |old| write(old, "lost"), |new| write(new, "kept"));
    let Failover { mut old, new } = failover;
    old.kill();
    let data = old.data.to_str().expect("UTF-8");
    let shown = run_kbrecover(["inspect", "wal", data, "--stats"]);
    assert_eq!(shown.code, 0, "{shown}");
    let custom = shown.stdout.lines().find(|line| line.starts_with("custom"));
    let count = custom.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count >= 100), "{shown}");

    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
