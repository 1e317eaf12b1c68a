//! A dry run says what would be done, to the block, and does nothing.
//!
//!     old  ──┬── lost ──╳  --dry-run: unchanged  │  rewind: does what was said
//!     new    └── kept ──────────────────────────────▶

use crate::harness::{Failover, Rewind, Run, Sandbox, Server, SourceKind, assert_follows};

/// The position after these words in what a run printed.
fn position_after(run: &Run, words: &str) -> String {
    let text = format!("{}\n{}", run.stdout, run.stderr);
    let rest = text.split_once(words).unwrap_or_else(|| panic!("nobody said: {words}\n{run}")).1;
    rest.split_whitespace().next().expect("a position").to_string()
}

fn dry_run_then_rewind(kind: SourceKind, end_of_target: fn(&mut Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::new(
        &sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'; CREATE TABLE lost ()"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000); CREATE TABLE kept ()"),
    );
    end_of_target(&mut old);
    if kind == SourceKind::Directory {
        new.stop();
    }
    let mut dry_run = Rewind::of(&old).from(&new, kind).arg("--dry-run");
    if kind == SourceKind::Server {
        dry_run = dry_run.arg("--write-recovery-conf");
    }
    let plan = dry_run.run_leaving_target_alone();
    assert_eq!(plan.code, 0, "exit code of a dry run\n{plan}");
    let json =
        Rewind::of(&old).from(&new, kind).args(["--dry-run", "--format", "json"]).run_leaving_target_alone();
    assert_eq!(json.json()["outcome"], "planned", "{json}");
    assert!(
        json.json()["files"].is_object() && json.json()["bytes"].is_object(),
        "files and bytes per action\n{json}"
    );

    let done = Rewind::of(&old).from(&new, kind).run().expect_done();
    let fork = position_after(&done, "servers diverged at WAL location ");
    let checkpoint = position_after(&done, "rewinding from last common checkpoint at ");
    assert!(
        plan.stdout.contains(&fork) && plan.stdout.contains(&checkpoint),
        "the plan has other positions\n{plan}\n{done}"
    );
    assert_eq!(json.json()["divergence"]["lsn"], fork.as_str(), "{json}");
    assert_eq!(json.json()["checkpoint"]["lsn"], checkpoint.as_str(), "{json}");
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
}

#[test]
fn clean_target_stopped_source() {
    dry_run_then_rewind(SourceKind::Directory, Server::stop);
}

/// A crashed target can be planned for as well: nothing has to be recovered first.
#[test]
fn crashed_target_running_source() {
    dry_run_then_rewind(SourceKind::Server, Server::kill);
}
