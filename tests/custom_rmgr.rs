//! WAL of an extension's own resource manager (15 and later): what its records change is copied like all else. The
//! extension is `custom_rmgr.c`, and the server one that `other_sizes.sh` makes.
//!
//!     old  ──── shared ────┬──── lost: the extension changes rows in place ────╳ kill -9
//!     new  ┄┄┄ streams ┄┄┄ └──── kept: and others here ───────────────────────▶

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, run_kbrecover,
};

/// Its library, by which the server finds it.
const LIBRARY: &str = "kbrecover_test";

fn change_byte(server: &Server, block: u32, value: char) {
    server.sql(&format!("SELECT change_byte('entry'::regclass, {block}, '{value}')"));
}

#[test]
fn what_its_records_change_is_copied() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    old.configure(&format!("shared_preload_libraries = '{LIBRARY}'"));
    let (old, new) = sandbox.pair_of(old);
    let shared = |old: &Server| {
        old.sql(&format!(
            "CREATE FUNCTION change_byte(oid, bigint, text) RETURNS void LANGUAGE c AS '{LIBRARY}', 'change_byte';
             CREATE TABLE entry (n int, origin text);
             INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 20000) n"
        ));
        change_byte(old, 0, 'S');
        old.sql("CHECKPOINT");
    };
    let lost = |old: &Server| {
        [1, 3, 5].iter().for_each(|block| change_byte(old, *block, 'L'));
        // A commit, with which all before it is on the disk.
        old.sql("CREATE TABLE lost ()");
    };
    let kept = |new: &Server| [3, 7].iter().for_each(|block| change_byte(new, *block, 'K'));
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, kept);
    old.kill();
    let data = old.data.to_str().expect("UTF-8").to_owned();
    let shown = run_kbrecover(["inspect", "wal", &data, "--rmgr", "custom200"]);
    assert_eq!(shown.code, 0, "{shown}");
    assert_eq!(shown.stdout.lines().filter(|line| line.starts_with("rmgr: custom200")).count(), 4, "{shown}");

    let run = Rewind::of(&old).from(&new, SourceKind::Server).args(["--format", "json"]).run().expect_done();
    assert!(run.json()["files"]["changed"].as_u64() >= Some(1), "{run}");
    assert_follows(&mut old, &new);
    let origins = |server: &Server, value: char| {
        server.value::<i64>(&format!("SELECT count(*) FROM entry WHERE origin = 'share{value}'"))
    };
    assert_eq!(
        (origins(&old, 'S'), origins(&old, 'K'), origins(&old, 'L')),
        (1, 2, 0),
        "rows changed in place"
    );
    assert_sound(&mut old);
}
