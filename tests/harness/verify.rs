//! The proofs at the end of a rewind.

use super::compare::assert_same_content;
use super::kbrecover::{Rewind, Run, SourceKind};
use super::program::run;
use super::server::Server;

/// Starts a rewound node as a standby of `source`, a running primary, and proves that it follows: what the source has
/// and what it writes from now on both arrive, and every row of every database is equal.
pub fn assert_follows(node: &mut Server, source: &Server) {
    node.follow(source);
    node.start();
    assert!(node.value::<bool>("SELECT pg_is_in_recovery()"), "{} did not start as a standby", node.name);
    source.sql_in("postgres", "CREATE TABLE IF NOT EXISTS heartbeat (at timestamptz); INSERT INTO heartbeat VALUES (clock_timestamp())");
    node.catch_up(source);
    assert_same_content(node, source);
}

/// Promotes a rewound standby and proves it sound: every index agrees with its table, every page with its checksum.
/// Ends with the node stopped.
pub fn assert_sound(node: &mut Server) {
    // The full check of an index needs a lock that a standby cannot give.
    if node.value("SELECT pg_is_in_recovery()") {
        node.promote();
    }
    if !node.installation.has("pg_amcheck") {
        // Its pages were checked when assert_follows read them all.
        check_btrees(node);
        return node.stop();
    }
    let has_checksums = node.value("SELECT current_setting('data_checksums')::bool");
    let mut amcheck = node.installation.program("pg_amcheck");
    run(amcheck
        .args(["--all", "--heapallindexed", "--parent-check", "--install-missing", "--no-password"])
        .args(["--host", node.host(), "--port", &node.port.to_string(), "--username=postgres"]));
    node.stop();
    if has_checksums {
        run(node.installation.program("pg_checksums").args(["--check", "-D"]).arg(&node.data));
    }
}

/// Rewinds a stopped node to `source`, a running primary, by comparing the data of both. Proves that it follows, with equal
/// content, and is sound.
pub fn assert_rewinds_by_comparing(node: &mut Server, source: &Server) -> Run {
    let rewind = Rewind::of(node).from(source, SourceKind::Server).arg("--compare-data");
    let run = rewind.run().expect_compared();
    assert_follows(node, source);
    assert_sound(node);
    run
}

/// The same after a rewind that was refused; its hint must have named that way out.
pub fn assert_cured_by_comparing(refusal: &Run, node: &mut Server, source: &Server) {
    let is_named = |line: &str| line.contains("hint: ") && line.contains("--compare-data");
    assert!(refusal.stderr.lines().any(is_named), "no hint names --compare-data\n{refusal}");
    // Replay starts behind all that the source has changed, and mends none of it: what differs must be found.
    source.sql("CHECKPOINT");
    assert_rewinds_by_comparing(node, source);
}

/// What pg_amcheck does, with the extension of that version: every B-tree against its table.
fn check_btrees(node: &Server) {
    // Version 1.0, in 10, does not look into the table.
    let options = if node.installation.major < 11 { "" } else { ", true" };
    let check = format!(
        "CREATE EXTENSION IF NOT EXISTS amcheck;
         SELECT bt_index_parent_check(i.indexrelid{options})
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
         WHERE a.amname = 'btree' AND c.relpersistence = 'p' AND i.indisvalid"
    );
    for database in node.column("SELECT datname::text FROM pg_database WHERE datallowconn") {
        node.sql_in(&database, &check);
    }
}
