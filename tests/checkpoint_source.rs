//! `--checkpoint-source`: the source makes a checkpoint before the rewind looks at it, and replay starts there.
//!
//!     old  ──── shared ────┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄└── kept, no checkpoint ──── CHECKPOINT: replay starts here ──▶

use walparse::Lsn;

use crate::harness::{
    Failover, Installation, Proxy, Rewind, Run, Sandbox, Server, SourceKind, Then, assert_follows,
    assert_sound, pick,
};
use crate::interrupted::is_marked;
use crate::least_privilege;

fn failover(sandbox: &Sandbox, major: u32) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n"),
        |old| old.sql("UPDATE entry SET origin = 'lost' WHERE n % 5 = 0"),
        |new| new.sql("UPDATE entry SET origin = 'kept' WHERE n % 7 = 0"),
    );
    old.stop();
    Failover { old, new }
}

fn from_newest(target: &Server) -> Rewind {
    Rewind::of(target).args(["--replay-from", "newest", "--checkpoint-source"])
}

fn replay_start(run: &Run) -> Lsn {
    run.json()["replay_start"]["redo"].as_str().expect("a position").parse().expect("an LSN")
}

#[test]
fn replay_starts_at_a_checkpoint_made_for_it() {
    for major in pick("checkpoint source: version", &[10, 13, 15, 18]) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox, major);
        let written_until = new.value::<String>(if major < 10 {
            "SELECT pg_current_xlog_insert_location()::text"
        } else {
            "SELECT pg_current_wal_insert_lsn()::text"
        });
        let written_until: Lsn = written_until.parse().expect("an LSN");
        assert!(new.newest_redo() < written_until, "the scenario needs WAL after the last checkpoint");
        let run =
            from_newest(&old).from(&new, SourceKind::Server).args(["--format", "json"]).run().expect_done();
        let run = run.expect_said("requesting a checkpoint from the source");
        assert!(new.newest_redo() >= written_until, "no checkpoint was made\n{run}");
        assert_eq!(replay_start(&run), new.newest_redo(), "{run}");
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

/// Neither a dry run nor a check makes the source write, but both tell that the role may not.
#[test]
fn nothing_is_requested_if_nothing_is_to_be_changed() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15);
    new.sql(&least_privilege::printed_grants(15));
    let before = new.newest_redo();
    for mode in ["--dry-run", "--check"] {
        let run = from_newest(&old).from(&new, SourceKind::Server).arg(mode).run_leaving_target_alone();
        assert_eq!(run.code, 0, "{run}");
        run.expect_said("no checkpoint is requested from the source, because nothing is to be changed");
        let plain = from_newest(&old).arg(mode).arg("--source-server").arg(least_privilege::conninfo(&new));
        plain.expect_refusal("role \"rewind_user\" may not request a checkpoint", "GRANT pg_checkpoint");
    }
    assert_eq!(new.newest_redo(), before, "the source made a checkpoint");
}

#[test]
fn a_role_that_may_not_is_refused() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 15);
    new.sql(&least_privilege::printed_grants(15));
    let before = new.newest_redo();
    let rewind = || from_newest(&old).arg("--source-server").arg(least_privilege::conninfo(&new));
    rewind().expect_refusal(
        "role \"rewind_user\" may not request a checkpoint of the source server",
        "As a superuser, run on the primary: GRANT pg_checkpoint TO \"rewind_user\";",
    );
    assert_eq!(new.newest_redo(), before, "the source made a checkpoint");
    new.sql("GRANT pg_checkpoint TO rewind_user");
    rewind().run().expect_done();
    assert!(new.newest_redo() > before);
    assert_follows(&mut old, &new);
}

/// Before 15 no role but a superuser may.
#[test]
fn before_15_the_hint_names_a_superuser() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 13);
    new.sql(&least_privilege::printed_grants(13));
    let rewind = from_newest(&old).arg("--source-server").arg(least_privilege::conninfo(&new));
    rewind.expect_refusal("may not request a checkpoint", "Run CHECKPOINT on the source as a superuser");
}

/// A resumed run starts replay at a checkpoint that is made for it, too.
#[test]
fn a_resumed_run_requests_one() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 15);
    let measured = old.copy("measured");
    let through = |proxy: &Proxy| ["--source-server".to_owned(), proxy.conninfo()];
    let proxy = Proxy::to(&new, u64::MAX, Then::Cut);
    Rewind::of(&measured).args(through(&proxy)).run().expect_done();
    let proxy = Proxy::to(&new, proxy.passed() * 19 / 20, Then::Cut);
    let run = Rewind::of(&old).args(through(&proxy)).args(["--retry-timeout", "0"]).run();
    assert!(run.code == 2 && is_marked(&old), "the scenario needs a run that is cut in the middle\n{run}");
    new.sql("UPDATE entry SET origin = 'later' WHERE n % 11 = 0");
    let before = new.newest_redo();
    let run = from_newest(&old).from(&new, SourceKind::Server).args(["--format", "json"]).run().expect_done();
    assert!(new.newest_redo() > before && replay_start(&run) == new.newest_redo(), "{run}");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A stopped source has made one.
#[test]
fn a_stopped_source_needs_none() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox, 15);
    new.stop();
    let at_shutdown = new.newest_redo();
    let run =
        from_newest(&old).from(&new, SourceKind::Directory).args(["--format", "json"]).run().expect_done();
    let run = run.expect_said("a stopped source has made one when it was shut down");
    assert_eq!(replay_start(&run), at_shutdown, "{run}");
    new.start();
    assert_follows(&mut old, &new);
}

/// A standby makes a restartpoint, at the last checkpoint of its primary that it has replayed.
///
///     a  ────┬── kept ── CHECKPOINT ──▶     timeline 1
///     b  ┄┄┄┄│┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶     the source
///     c      └── lost ──╳                    timeline 2
#[test]
fn a_standby_makes_a_restartpoint() {
    let sandbox = Sandbox::new();
    let (a, b, mut c) = sandbox.trio();
    a.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 3000) n");
    c.catch_up(&a);
    c.promote();
    c.sql("UPDATE entry SET origin = 'lost' WHERE n % 3 = 0");
    c.stop();
    a.sql("UPDATE entry SET origin = 'kept' WHERE n % 4 = 0");
    a.sql("CHECKPOINT");
    b.catch_up(&a);
    assert!(b.newest_redo() < a.newest_redo(), "the scenario needs a standby without a restartpoint");
    let rewind =
        from_newest(&c).from(&b, SourceKind::Server).args(["--format", "json", "--allow-older-source"]);
    let run = rewind.run().expect_done();
    let run = run.expect_said("requesting a restartpoint from the source, which is a standby");
    assert_eq!(b.newest_redo(), a.newest_redo(), "{run}");
    assert_eq!(replay_start(&run), a.newest_redo(), "{run}");
    assert_follows(&mut c, &a);
}
