//! Blocks that are read from a running source may be torn. Replay repairs them from the image that the first change since a
//! checkpoint brings, if full_page_writes was on.
//!
//!     new  ── fork ── C ── full_page_writes off ── changes ── on ──▶           refused
//!                                                               └── C' ──▶     replay starts at C': fine

use crate::harness::{Failover, Sandbox, Server};
use crate::truth_proof::{assert_refuses, assert_rewinds, refused, rewind};

/// Returns when WAL says so.
pub fn set_full_page_writes(server: &Server, setting: &str) {
    server.sql(&format!("ALTER SYSTEM SET full_page_writes = {setting}"));
    let before: String = server.value("SELECT pg_current_wal_insert_lsn()::text");
    server.sql("SELECT pg_reload_conf()");
    server.wait_for("the new setting", &format!("SELECT pg_current_wal_insert_lsn() > '{before}'"));
}

#[test]
fn off_for_a_while_on_the_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    new.sql("CHECKPOINT");
    set_full_page_writes(&new, "off");
    new.sql("UPDATE entry SET origin = 'kept too' WHERE ctid < '(5,0)'");
    set_full_page_writes(&new, "on");
    let words = ["full_page_writes", "CHECKPOINT"];
    assert_refuses(&old, &new, &words);
    // Replay would start where it cannot repair pages in that mode, too.
    refused(rewind(&old, &new).arg("--compare-data"), &words);
    new.sql("CHECKPOINT");
    assert_rewinds(&mut old, &new);
}
