//! `--compare-data`, interrupted while it compares: what has been compared is not compared again, if it surely is still so.
//!
//!     old  ── shared ──┬── lost ──╳     is compared with new, killed on the way, and compared again
//!     new  ┄┄┄┄┄┄┄┄┄┄┄ └── kept ──▶     goes on meanwhile

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::compare_data::{failover, remove_wal, rewind};
use crate::harness::{
    Failover, Run, Sandbox, Server, Tree, assert_follows, assert_sound, run_kbrecover, spawn_kbrecover,
};
use crate::interrupted::is_marked;
use crate::verify::damage;

const NOTE: &str = "kbrecover.compared";

/// Compares slowly, and is killed when it has noted that this file has been compared.
pub fn cut(target: &Server, source: &Server, file: &str) {
    let mut run = spawn_kbrecover(rewind(target, source).args(["--max-rate", "1M"]));
    let begun = Instant::now();
    let noted = || fs::read(target.data.join(NOTE)).unwrap_or_default();
    while !String::from_utf8_lossy(&noted()).contains(&format!("\"{file}\":")) {
        assert!(begun.elapsed() < Duration::from_secs(180), "{file} has not been compared");
        assert!(run.try_wait().expect("wait for kbrecover").is_none(), "the run ended before it was cut");
        std::thread::sleep(Duration::from_millis(50));
    }
    run.kill().expect("kill kbrecover");
    run.wait().expect("wait for kbrecover");
    assert!(!is_marked(target), "it has begun to copy");
}

/// Relation files that come early when data is compared: those of `template1`.
const EARLY: [&str; 2] = ["base/1/1247", "base/1/1249"];

fn compared_bytes(run: &Run) -> u64 {
    run.json()["compared"]["bytes"].as_u64().unwrap_or_else(|| panic!("nothing was compared\n{run}"))
}

/// What `kbrecover status` tells of a comparison of so many bytes that has been cut.
fn assert_status_tells_how_far(target: &Server, total: u64) {
    let status =
        |format| run_kbrecover(["status", "-D", target.data.to_str().expect("UTF-8"), "--format", format]);
    let (text, json) = (status("text"), status("json"));
    let comparison = &json.json()["comparison"];
    let number = |name: &str| comparison[name].as_u64().unwrap_or_else(|| panic!("no {name}\n{json}"));
    assert_eq!(number("bytes_total"), total, "{json}");
    let (bytes, files) = (number("bytes"), number("files"));
    assert!(bytes > 0 && bytes < total && files > 1, "{json}");
    let line = text.stdout.lines().find(|line| line.starts_with("compared so far ")).expect("a line");
    assert!(line.contains(&format!(" in {files} relation files, ")), "{text}");
}

/// Only a file that was changed in between is compared once more.
#[test]
fn it_goes_on_where_it_was_cut() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.kill();
    remove_wal(&old);
    let json = ["--format", "json"];
    let whole = rewind(&old, &new).arg("--dry-run").args(json).run();
    cut(&old, &new, EARLY[1]);
    assert_status_tells_how_far(&old, compared_bytes(&whole));
    new.sql(
        "UPDATE after SET n = -n WHERE n % 3 = 0;
         CREATE TABLE meanwhile AS SELECT n FROM generate_series(1, 3000) n",
    );
    new.sql("CHECKPOINT");
    new.sql("DELETE FROM meanwhile WHERE n % 2 = 0");
    damage(&old, EARLY[0], 5000, b"damage");
    let planned = rewind(&old, &new).arg("--dry-run").args(json).run_leaving_target_alone();
    planned.expect_said("an earlier run has compared");
    let run = rewind(&old, &new).args(json).run();
    assert_eq!(run.code, 0, "{run}");
    let here = fs::read(old.data.join(EARLY[0])).expect("read a file");
    assert_ne!(
        &here[5000..5006],
        b"damage",
        "a file that was changed after it had been compared was left\n{run}"
    );
    assert!(!old.data.join(NOTE).exists(), "the note was left\n{run}");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
    assert!(compared_bytes(&run) + (3 << 20) < compared_bytes(&whole), "{run}\n{whole}");
}

/// The second run compares with a standby whose files are older than where the first run was to start replay: what was equal then
/// is brought up to date by replay from there.
#[test]
fn another_source_with_older_files() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::new(
        &sandbox,
        |old| {
            // In two transactions: a standby has the rows as those of a first command.
            old.sql("CREATE TABLE stale (n int, origin text)");
            old.sql("INSERT INTO stale SELECT n, 'shared' FROM generate_series(1, 20000) n");
            old.sql("VACUUM (FREEZE) stale");
            // So that there is time for a note when the table before it has been compared.
            old.sql("CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 20000)");
            old.sql("CHECKPOINT");
        },
        |old| old.sql("CREATE TABLE lost AS SELECT n FROM generate_series(1, 1000) n"),
        |_| (),
    );
    old.kill();
    remove_wal(&old);
    new.stop();
    let mut standby = new.copy("standby");
    new.start();
    standby.follow(&new);
    standby.start();
    new.sql("CHECKPOINT");
    standby.catch_up(&new);
    standby.sql("CHECKPOINT");
    new.sql("UPDATE stale SET origin = 'kept' WHERE n % 2 = 0");
    new.sql("CHECKPOINT");
    // It has replayed the changes, and has not written them.
    standby.catch_up(&new);
    let stale: String = new.value("SELECT pg_relation_filepath('stale')");
    let blocks = |server: &Server| fs::read(server.data.join(&stale)).expect("read a table");
    assert!(
        blocks(&standby).starts_with(&blocks(&old)) && !blocks(&new).starts_with(&blocks(&old)),
        "the scenario needs a stale file"
    );
    cut(&old, &new, EARLY[1]);
    cut(&old, &standby, &stale);
    standby.sql("CHECKPOINT");
    let run = rewind(&old, &standby).run().expect_compared();
    run.expect_said("an earlier run has compared");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A server was started on the target since.
#[test]
fn a_server_in_between_makes_it_begin_anew() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    cut(&old, &new, EARLY[1]);
    let before = Tree::of(&old.data);
    old.start();
    old.sql_in("template1", "CREATE TABLE in_between AS SELECT n FROM generate_series(1, 1000) n");
    old.stop();
    assert!(
        before.differences(&Tree::of(&old.data)).any(|(path, ..)| path == Path::new(EARLY[1])),
        "the scenario needs a change"
    );
    let run = rewind(&old, &new).run().expect_compared();
    run.expect_said("a server has been started on the target since its data was compared");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
