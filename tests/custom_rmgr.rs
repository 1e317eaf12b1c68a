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

/// A pair whose servers have the extension.
fn pair(sandbox: &Sandbox) -> (Server, Server) {
    let old = sandbox.server("old");
    old.configure(&format!("shared_preload_libraries = '{LIBRARY}'"));
    sandbox.pair_of(old)
}

/// The extension's functions, and a table for them.
fn shared(old: &Server) {
    for name in ["change_byte", "change_byte_unreferenced"] {
        old.sql(&format!(
            "CREATE FUNCTION {name}(oid, bigint, text) RETURNS void LANGUAGE c AS '{LIBRARY}', '{name}'"
        ));
    }
    old.sql(
        "CREATE TABLE entry (n int, origin text);
         INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 20000) n",
    );
    change_byte(old, 0, 'S');
    old.sql("CHECKPOINT");
}

/// The number of rows with this last byte.
fn origins(server: &Server, value: char) -> i64 {
    server.value(&format!("SELECT count(*) FROM entry WHERE origin = 'share{value}'"))
}

#[test]
fn what_its_records_change_is_copied() {
    let sandbox = Sandbox::new();
    let (old, new) = pair(&sandbox);
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
    assert_eq!(
        (origins(&old, 'S'), origins(&old, 'K'), origins(&old, 'L')),
        (1, 2, 0),
        "rows changed in place"
    );
    assert_sound(&mut old);
}

/// Nobody but the extension knows which block such a record changes: only its own replay brings it to the target, from the
/// last common checkpoint on.
#[test]
fn an_unknown_change_is_left_to_replay() {
    let sandbox = Sandbox::new();
    let (old, new) = pair(&sandbox);
    let lost = |old: &Server| change_byte(old, 1, 'L');
    let kept = |new: &Server| {
        new.sql("SELECT change_byte_unreferenced('entry'::regclass, 5, 'U')");
        // A checkpoint at which replay could start.
        new.sql("CHECKPOINT");
        new.sql("CREATE TABLE kept ()");
    };
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, kept);
    old.stop();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "newest"]);
    // Verifying would copy the block, too: nothing in WAL names it.
    rewind.unverified().run().expect_done().expect_said("changes relation files in an unknown way");
    assert_follows(&mut old, &new);
    assert_eq!((origins(&old, 'U'), origins(&old, 'L')), (1, 0), "rows changed in place");
    assert_sound(&mut old);
}
