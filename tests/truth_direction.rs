//! Which side is the old one: a new primary rewound onto the old one would lose what everybody has written since.
//!
//!     old  ── 1 ──┬── went on, or was started again ──▶    here the source: its timeline 1 is an ancestor
//!     new  ┄┄┄┄┄┄ └── 2 ── what counts ──╳                 here the target

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, Tree, assert_follows, assert_sound, command_as,
    run_command,
};
use crate::truth_proof::{refused, rewind};

fn swapped(sandbox: &Sandbox, end: fn(&mut Server)) -> Failover {
    let mut failover = Failover::new(
        sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |old| old.sql("INSERT INTO entry SELECT 'old' FROM generate_series(1, 3000)"),
        |new| new.sql("UPDATE entry SET origin = 'new'; CREATE TABLE counts AS SELECT 1"),
    );
    end(&mut failover.new);
    failover
}

const WORDS: [&str; 3] = ["timeline 1", "timeline 2", "--allow-older-source"];

#[test]
fn the_new_primary_is_not_rewound_to_the_old_one() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = swapped(&sandbox, |new| {
        new.sql("CHECKPOINT");
        new.stop();
    });
    for mode in [&["--dry-run"][..], &["--check"], &[]] {
        refused(rewind(&new, &old).args(mode), &WORDS);
    }
    old.stop();
    refused(
        Rewind::of(&new).from(&old, SourceKind::Directory),
        &[&WORDS[..], &["are -D and --source-data swapped?"]].concat(),
    );
    old.start();
    rewind(&new, &old).arg("--allow-older-source").run().expect_done();
    assert_follows(&mut new, &old);
    assert_sound(&mut new);
}

/// It is killed before its first checkpoint: the control file's is of timeline 1.
#[test]
fn the_new_primary_was_killed_at_once() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = swapped(&sandbox, Server::kill);
    refused(rewind(&new, &old), &WORDS);
}

/// Two failovers apart.
#[test]
fn the_source_is_older_by_two_timelines() {
    let sandbox = Sandbox::new();
    let mut failover = swapped(&sandbox, |_| ());
    let mut third = failover.promote_another("third");
    third.sql("CREATE TABLE third AS SELECT 1");
    third.stop();
    refused(rewind(&third, &failover.old), &["timeline 1", "timeline 3", "--allow-older-source"]);
}

/// What the original does is done by its name, but not without a word.
#[test]
fn pg_rewind_warns() {
    let sandbox = Sandbox::new();
    let Failover { old, mut new } = swapped(&sandbox, Server::stop);
    let data = new.data.to_str().expect("a path in UTF-8").to_owned();
    let args = ["--no-sync", "-D", &data, "--source-server", &old.conninfo()].map(str::to_owned);
    let run = run_command(command_as("pg_rewind", args));
    assert_eq!(run.code, 0, "{run}");
    let warned = run.stderr.lines().any(|line| line.contains("warning: ") && line.contains("timeline"));
    assert!(warned, "no warning about the timelines\n{run}");
    assert_follows(&mut new, &old);
}

/// The first lines of a plan name both sides: where they are, on which timeline.
#[test]
fn the_plan_names_both_sides() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    let plan = rewind(&old, &new).arg("--dry-run").run_leaving_target_alone();
    assert_eq!(plan.code, 0, "{plan}");
    let first: Vec<&str> = plan.stdout.lines().take(6).collect();
    let line = |place: &str, timeline: &str| {
        first.iter().any(|line| line.contains(place) && line.contains(timeline))
    };
    assert!(line(&old.data.display().to_string(), "timeline 1"), "the target is not named\n{plan}");
    assert!(line(new.host(), "timeline 2"), "the source is not named\n{plan}");
}

/// "Stop it" is bad advice if what runs there is the new primary.
#[test]
fn the_hint_for_a_running_target() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = swapped(&sandbox, |_| ());
    let before = Tree::of(&new.data).len();
    let run = rewind(&new, &old).run();
    assert_eq!(run.code, 1, "{run}");
    assert!(before > 0 && new.value::<bool>("SELECT count(*) = 1 FROM counts"), "{run}");
    let hint = run.stderr.lines().find(|line| line.contains("hint: ")).expect("a hint");
    assert!(hint.to_lowercase().contains("only if"), "{run}");
    assert!(hint.to_lowercase().contains("old primary"), "{run}");
}
