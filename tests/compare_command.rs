//! `kbrecover compare`: has a stopped node what its source has?
//!
//!     primary  ──── shared ────────── since ──▶
//!     standby  ┄┄┄┄┄┄┄┄┄┄┄┄┄╳ stopped: complete to here

use std::fs::OpenOptions;

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, Tree, assert_follows, command, pick,
    run_command,
};
use crate::truth_full_pages::set_full_page_writes;
use crate::verify::{damage, failover, file_of_quiet, hints_without_images, quiet_table};

/// Compares, and proves that the node is, byte for byte, what it was.
fn compare(node: &Server, source: &Server, kind: SourceKind) -> Run {
    let before = Tree::of(&node.data);
    let mut command = command(["compare", "--format", "json", "--target-data"]);
    command.arg(&node.data);
    match kind {
        SourceKind::Server => command.arg("--source-server").arg(source.conninfo()),
        SourceKind::Directory => command.arg("--source-data").arg(&source.data),
    };
    let run = run_command(command);
    before.assert_unchanged(&node.data, &run.to_string());
    run
}

fn count(run: &Run, what: &str) -> u64 {
    run.json()["blocks"][what].as_u64().unwrap_or_else(|| panic!("no count of {what}\n{run}"))
}

#[track_caller]
fn assert_equal(run: &Run) {
    assert_eq!(run.code, 0, "{run}");
    assert_eq!((&run.json()["outcome"], count(run, "different")), (&"equal".into(), 0), "{run}");
}

/// A stopped standby, and its primary.
fn pair(sandbox: &Sandbox, old: Server) -> (Server, Server) {
    let (primary, mut standby) = sandbox.pair_of(old);
    quiet_table(&primary);
    standby.catch_up(&primary);
    standby.stop();
    (primary, standby)
}

/// What the primary changes later is a class of its own.
#[test]
fn a_standby_has_what_its_primary_had() {
    for major in pick("compare: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let old = sandbox.initdb("old", Installation::of(major), &[]);
        let (mut primary, mut standby) = pair(&sandbox, old);
        assert_equal(&compare(&standby, &primary, SourceKind::Server));
        primary.sql(
            "UPDATE busy SET filler = 'since' WHERE id % 100 = 0; CREATE TABLE since AS SELECT * FROM busy; CHECKPOINT",
        );
        let run = compare(&standby, &primary, SourceKind::Server);
        assert_equal(&run);
        assert!(count(&run, "replayed") > 40, "{run}");
        primary.stop();
        assert_equal(&compare(&standby, &primary, SourceKind::Directory));
        primary.start();
        standby.start();
        standby.catch_up(&primary);
        standby.stop();
        assert_equal(&compare(&standby, &primary, SourceKind::Server));
    }
}

/// What the standby had replayed and not yet written when it was stopped is on the primary's disk after a checkpoint.
#[test]
fn a_checkpoint_after_the_stop_makes_no_difference() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (primary, mut standby) = pair(&sandbox, old);
    standby.start();
    primary.sql("UPDATE busy SET filler = 'late' WHERE id % 3 = 0; SELECT nextval('ticket')");
    standby.catch_up(&primary);
    standby.stop();
    primary.sql("CHECKPOINT");
    assert_equal(&compare(&standby, &primary, SourceKind::Server));
}

/// The primary has set hint bits that its standby has not, and LSNs with them.
#[test]
fn hints_that_were_logged_without_images_make_no_difference() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (primary, mut standby) = pair(&sandbox, old);
    standby.start();
    hints_without_images(&primary);
    set_full_page_writes(&primary, "on");
    primary.sql("CHECKPOINT");
    standby.catch_up(&primary);
    standby.sql("CHECKPOINT");
    standby.stop();
    let run = compare(&standby, &primary, SourceKind::Server);
    assert_equal(&run);
    assert!(count(&run, "not_logged") > 100, "{run}");
}

/// A standby that was started as a primary by mistake is on the source's timeline, and differs.
#[test]
fn a_second_primary_on_one_timeline_is_told() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (primary, mut standby) = pair(&sandbox, old);
    std::fs::remove_file(standby.data.join("standby.signal")).expect("remove standby.signal");
    standby.start();
    standby.sql("UPDATE busy SET filler = 'wrong' WHERE id % 3 = 0");
    standby.stop();
    let run = compare(&standby, &primary, SourceKind::Server);
    assert_eq!(run.code, 2, "{run}");
    assert!(count(&run, "different") > 0, "{run}");
}

/// Damage is told by file and block; what servers change without WAL is none.
#[test]
fn damage_is_told() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (primary, standby) = pair(&sandbox, old);
    let file = file_of_quiet(&primary);
    // Each server sets hint bits of its own; this one is PD_HAS_FREE_LINES.
    damage(&standby, &file, 3 * 8192 + 10, &[5]);
    let run = compare(&standby, &primary, SourceKind::Server);
    assert_equal(&run);
    assert!(count(&run, "not_logged") > 0, "{run}");
    damage(&standby, &file, 7 * 8192 + 8192 - 100, b"damage");
    damage(&standby, &file, 9 * 8192, &[0; 8192]);
    let run = compare(&standby, &primary, SourceKind::Server);
    assert_eq!(run.code, 2, "{run}");
    let json = run.json();
    assert_eq!(json["outcome"], "different", "{run}");
    assert_eq!(
        json["different_files"],
        serde_json::json!([{"path": file, "blocks": 2, "first": 7}]),
        "{run}"
    );
    let mut text = command(["compare", "-D"]);
    text.arg(&standby.data).arg("--source-server").arg(primary.conninfo());
    let run = run_command(text);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stdout.contains(&format!("{file}: 2 blocks, the first is block 7")), "{run}");
}

/// A file that ends too early, one that goes on too long, and one that is not there.
#[test]
fn missing_and_surplus_blocks_are_told() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (primary, standby) = pair(&sandbox, old);
    let file = file_of_quiet(&primary);
    let length = |node: &Server, blocks: u64| {
        let file = OpenOptions::new().write(true).open(node.data.join(&file)).expect("open a relation");
        file.set_len(blocks * 8192).expect("set its length");
    };
    let blocks: u64 = primary.value::<i64>("SELECT pg_relation_size('quiet') / 8192") as u64;
    let cut = standby.copy("cut");
    length(&cut, blocks - 3);
    let run = compare(&cut, &primary, SourceKind::Server);
    assert_eq!((run.code, count(&run, "different")), (2, 3), "{run}");
    // A server extends files by zeros without WAL.
    let longer = standby.copy("longer");
    length(&longer, blocks + 4);
    assert_equal(&compare(&longer, &primary, SourceKind::Server));
    damage(&longer, &file, (blocks + 2) * 8192 + 50, b"garbage");
    let run = compare(&longer, &primary, SourceKind::Server);
    assert_eq!((run.code, count(&run, "different")), (2, 1), "{run}");
    std::fs::remove_file(standby.data.join(&file)).expect("remove a relation");
    standby.write("base/5/999999", vec![7; 8192]);
    let run = compare(&standby, &primary, SourceKind::Server);
    assert_eq!((run.code, count(&run, "different")), (2, blocks), "{run}");
    assert_eq!(run.json()["surplus_files"], serde_json::json!(["base/5/999999"]), "{run}");
}

/// An old primary whose history has left the new one's differs, until it has been rewound.
#[test]
fn a_diverged_node_is_told() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { mut old, new } = failover(old, new);
    old.stop();
    let run = compare(&old, &new, SourceKind::Server);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.json()["diverged_at"].is_string() && count(&run, "different") > 0, "{run}");
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    let run = compare(&old, &new, SourceKind::Server);
    assert_equal(&run);
    assert_follows(&mut old, &new);
    old.stop();
    assert_equal(&compare(&old, &new, SourceKind::Server));
}

/// A block that is damaged on the source is not blamed on the node. Equal blocks are not looked at.
#[test]
fn a_damaged_block_of_the_source_is_refused() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (mut primary, standby) = pair(&sandbox, old);
    let file = file_of_quiet(&primary);
    primary.sql("CHECKPOINT");
    primary.stop();
    // In the data of a tuple, and in the unused space of the page.
    for offset in [8192 - 100, 60] {
        let damaged = primary.copy(&format!("damaged-{offset}"));
        damage(&damaged, &file, 6 * 8192 + offset, b"damage");
        let run = compare(&standby, &damaged, SourceKind::Directory);
        assert_eq!((run.code, &run.json()["outcome"]), (1, &"failed".into()), "{run}");
        let words = format!("checksum of block 6 of source file \"{file}\" is wrong");
        assert!(run.stderr.contains(&words), "standard error does not say: {words}\n{run}");
    }
    assert_equal(&compare(&standby, &primary, SourceKind::Directory));
}

/// What cannot be compared: exit status 1, and nothing is said about blocks.
#[test]
fn what_cannot_be_compared_is_refused() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let (mut primary, mut standby) = pair(&sandbox, old);
    let stranger = sandbox.stranger("stranger");
    let refused = |run: Run, words: &str| {
        assert_eq!((run.code, &run.json()["outcome"]), (1, &"failed".into()), "{run}");
        assert!(run.stderr.contains(words), "standard error does not say: {words}\n{run}");
    };
    refused(compare(&stranger, &primary, SourceKind::Server), "from different systems");
    standby.start();
    let mut running = command(["compare", "--format", "json", "-D"]);
    running.arg(&standby.data).arg("--source-server").arg(primary.conninfo());
    refused(run_command(running), "must be shut down");
    standby.stop();
    standby.write("backup_label", "KBRECOVER: unfinished\n");
    refused(compare(&standby, &primary, SourceKind::Server), "has not finished");
    std::fs::remove_file(standby.data.join("backup_label")).expect("remove the label");
    standby.start();
    standby.promote();
    primary.kill();
    refused(compare(&primary, &standby, SourceKind::Server), "was not shut down cleanly");
}
