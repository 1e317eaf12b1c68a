//! Every question to the source fails once: each fault surfaces, and the next run finishes the work.
//!
//!     questions     1  2  3  4 ... n      control file, history, listings, positions, fetches, pieces that come
//!     one run each  ╳                     fails: untouched (1) or marked (2); the run after it ends as if nothing had been
//!                      ╳
//!                         ╳

use std::path::Path;

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, Tree, assert_follows};
use crate::interrupted::is_marked;

/// EIO.
const ERROR: (&str, &str) = ("5", "Input/output error");

/// How many pieces fail; there are thousands.
const PIECES: usize = 12;

/// The numbers of the questions to fail: all of them, and some of the pieces.
fn questions(record: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(record).expect("the record of the questions");
    let all: Vec<(usize, String)> = text.lines().map(str::to_owned).enumerate().collect();
    let (pieces, questions): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, what)| what == "piece");
    assert!(questions.len() > 10 && pieces.len() > 2 * PIECES, "{} and {}", questions.len(), pieces.len());
    let step = pieces.len() / PIECES;
    questions.into_iter().chain(pieces.into_iter().step_by(step)).map(|(at, what)| (at + 1, what)).collect()
}

fn fail_each(sandbox: &Sandbox, failover: &Failover, kind: SourceKind) {
    let record = sandbox.make_dir("records").join("questions");
    let rewind = |target: &Server| Rewind::of(target).from(&failover.new, kind);
    let undisturbed = failover.old.copy("undisturbed");
    rewind(&undisturbed).env("KBRECOVER_QUESTIONS", &record).run().expect_done();
    let undisturbed = Tree::of(&undisturbed.data);
    let (mut untouched, mut marked) = (0, 0);
    for (number, question) in questions(&record) {
        let target = failover.old.copy(&format!("target-{number}"));
        let before = Tree::of(&target.data);
        let fault = format!("{number}:{}", ERROR.0);
        let run = rewind(&target).env("KBRECOVER_SOURCE_FAULT", fault).run();
        let told = run.stderr.lines().any(|line| line.contains("error: ") && line.ends_with(ERROR.1));
        assert!(told, "question {number} ({question}) failed, and nobody was told\n{run}");
        assert_eq!(run.code, if is_marked(&target) { 2 } else { 1 }, "question {number} ({question})\n{run}");
        match run.code {
            1 => {
                before.assert_unchanged(&target.data, &run.to_string());
                untouched += 1;
            }
            _ => marked += 1,
        }
        let again = rewind(&target).run().expect_done();
        if kind == SourceKind::Directory {
            let now = Tree::of(&target.data);
            let times = ["backup_label", "global/pg_control"];
            let differences: Vec<_> = undisturbed
                .differences(&now)
                .filter(|(path, _, _)| !times.iter().any(|name| path.as_os_str() == *name))
                .collect();
            assert!(differences.is_empty(), "{number} ({question}): {differences:?}\n{again}");
        }
        std::fs::remove_dir_all(&target.data).expect("remove a target");
    }
    eprintln!("{untouched} faults before and {marked} after the point of no return");
    assert!(untouched > 3 && marked > 3, "{untouched} and {marked}");
}

fn diverged(sandbox: &Sandbox) -> Failover {
    let fill = |server: &Server, what: &str| {
        server.sql(&format!(
            "CREATE TABLE {what} AS SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n"
        ));
        server.sql("UPDATE shared SET n = n + 1");
    };
    Failover::new(
        sandbox,
        |old| old.sql("CREATE TABLE shared AS SELECT n FROM generate_series(1, 5000) n"),
        |old| fill(old, "lost"),
        |new| fill(new, "kept"),
    )
}

#[test]
fn every_question_to_a_directory_fails_once() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.old.kill();
    failover.new.stop();
    fail_each(&sandbox, &failover, SourceKind::Directory);
}

#[test]
fn every_question_to_a_server_fails_once() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.old.kill();
    fail_each(&sandbox, &failover, SourceKind::Server);
    let mut target = failover.old.copy("last");
    Rewind::of(&target).from(&failover.new, SourceKind::Server).run().expect_done();
    assert_follows(&mut target, &failover.new);
}
