//! The source goes away while it is read, and comes back: the run waits for it and finishes.
//!
//!     old     ── 1 ──┬── lost ──╳     rewound from new through a proxy that cuts, garbles or holds the connections
//!     new     ┄┄┄┄┄┄ └── 2 ──╳ ▶ ▶    restarted, killed, its sessions ended
//!     third   ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ ▶    takes its place, if it has what new had

use std::time::{Duration, Instant};

use crate::harness::{
    Failover, Installation, Proxy, Rewind, Run, Running, Sandbox, Server, SourceKind, Then, Tree,
    assert_follows,
};
use crate::interrupted::{diverged, finish, is_marked};

const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbrecover'";

fn rewind(target: &Server, conninfo: &str) -> Rewind {
    Rewind::of(target).arg("--source-server").arg(conninfo)
}

/// What a run of any length must leave: the files of a rewind that nothing disturbed. Those that hold the time differ,
/// and the segment in which even a quiet server now and then notes which transactions are running.
fn assert_as_undisturbed(target: &Server, undisturbed: &Tree, run: &Run) {
    let times = ["backup_label", "global/pg_control", "pg_wal/000000020000000000000003"];
    let now = Tree::of(&target.data);
    let differences: Vec<_> = undisturbed
        .differences(&now)
        .filter(|(path, _, _)| !times.iter().any(|name| path.as_os_str() == *name))
        .map(|(path, there, here)| format!("{} ({there}, {here})", path.display()))
        .collect();
    assert!(differences.is_empty(), "differs from an undisturbed run: {}\n{run}", differences.join(", "));
}

/// A source that changes nothing by itself, the bytes of a run, and what a run leaves.
fn quiet(failover: &Failover) -> (u64, Tree) {
    let proxy = Proxy::to(&failover.new, u64::MAX, Then::Cut);
    // The first run may set hint bits on the source.
    rewind(&failover.old.copy("first"), &proxy.conninfo()).run().expect_done();
    failover.new.sql("CHECKPOINT");
    let before = proxy.passed();
    let undisturbed = failover.old.copy("undisturbed");
    rewind(&undisturbed, &proxy.conninfo()).run().expect_done();
    (proxy.passed() - before, Tree::of(&undisturbed.data))
}

#[test]
fn connections_cut_anywhere() {
    const CUTS: u64 = 16;
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let (total, undisturbed) = quiet(&failover);
    let mut told = 0;
    for cut in 0..CUTS {
        let target = failover.old.copy(&format!("cut-{cut}"));
        let proxy = Proxy::to(&failover.new, 700 + total * cut / CUTS, Then::CutOnce);
        let run = rewind(&target, &proxy.conninfo()).run();
        assert_eq!(proxy.faults(), 1, "cut {cut} of {total} bytes never came\n{run}");
        if run.code == 1 && cut == 0 {
            // Not connected yet: a wrong connection string would look the same.
            continue;
        }
        let run = run.expect_done();
        told += run.stderr.matches("trying again for up to 60 s").count();
        assert_as_undisturbed(&target, &undisturbed, &run);
        std::fs::remove_dir_all(&target.data).expect("remove a target");
    }
    assert!(told as u64 >= CUTS - 2, "only {told} of {CUTS} cuts were spoken of");
}

#[test]
fn connections_cut_again_and_again() {
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let (total, undisturbed) = quiet(&failover);
    let target = failover.old.copy("again");
    let proxy = Proxy::to(&failover.new, total / 4, Then::CutAgain);
    // Small pieces get through between two cuts; large batches would not.
    let run = rewind(&target, &proxy.conninfo()).run().expect_done();
    assert!(proxy.faults() >= 3, "only {} cuts\n{run}", proxy.faults());
    assert_as_undisturbed(&target, &undisturbed, &run);
}

#[test]
fn garbled_and_silent_connections() {
    let sandbox = Sandbox::new();
    let failover = diverged(&sandbox);
    let (total, undisturbed) = quiet(&failover);
    for (part, then) in [(2, Then::Garble), (4, Then::Garble), (3, Then::StallOne)] {
        let target = failover.old.copy(&format!("{then:?}-{part}"));
        let proxy = Proxy::to(&failover.new, total * part / 5, then);
        let begun = Instant::now();
        let run = rewind(&target, &proxy.conninfo()).args(["--retry-timeout", "15"]).run().expect_done();
        assert_eq!(proxy.faults(), 1, "{run}");
        if then == Then::StallOne {
            assert!(begun.elapsed().as_secs() >= 15, "nobody waited for the silent server\n{run}");
        }
        assert_as_undisturbed(&target, &undisturbed, &run);
    }
}

/// A run that is held at half of its bytes.
fn held(failover: &Failover, name: &str, total: u64, more: &[&str]) -> (Server, Proxy, Running) {
    let target = failover.old.copy(name);
    // The source's WAL has been read, and data is being copied.
    let proxy = Proxy::to(&failover.new, total * 3 / 4, Then::Hold);
    let run = rewind(&target, &proxy.conninfo()).args(more).start();
    proxy.wait_until_there();
    (target, proxy, run)
}

#[test]
fn source_restarted_killed_and_sessions_ended() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let (total, _) = quiet(&failover);
    let what: [(&str, &dyn Fn(&mut Server)); 3] = [
        ("restarted", &|new| {
            new.stop();
            new.start();
        }),
        ("killed", &|new| {
            new.sql("INSERT INTO grown_by_new SELECT n, 'unflushed' FROM generate_series(200001, 210000) n");
            new.kill();
            new.start();
        }),
        ("ended", &|new| {
            new.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbrecover'",
            );
        }),
    ];
    for (name, happens) in what {
        let (mut target, proxy, run) = held(&failover, name, total, &[]);
        happens(&mut failover.new);
        proxy.go_on();
        let run = run
            .wait()
            .expect_done()
            .expect_said("lost connection to the source")
            .expect_said("connection to the source re-established");
        assert_eq!(
            run.stderr.matches("lost connection to the source").count(),
            1,
            "more than one message per outage\n{run}"
        );
        assert_follows(&mut target, &failover.new);
        target.stop();
    }
}

#[test]
fn given_up_in_time_and_finished_later() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let (total, _) = quiet(&failover);
    for seconds in ["0", "1"] {
        let (target, proxy, run) =
            held(&failover, &format!("given-up-{seconds}"), total, &["--retry-timeout", seconds]);
        failover.new.stop();
        proxy.go_on();
        let run = run.wait();
        assert_eq!(run.code, 2, "{run}");
        assert_eq!(run.stderr.contains("within 1 s"), seconds == "1", "{run}");
        assert!(is_marked(&target), "{run}");
        failover.new.start();
        let again = Rewind::of(&target).from(&failover.new, SourceKind::Server);
        finish(target, &failover.new, again);
    }
}

/// A standby of the source that has all it has, and has made its own checkpoint of it.
fn third(failover: &mut Failover, follows: bool) -> Server {
    failover.new.stop();
    let mut third = failover.new.copy("third");
    failover.new.start();
    third.follow(&failover.new);
    if !follows {
        third.set("primary_conninfo", "host=/nowhere");
    }
    third.start();
    third
}

fn two_hosts(first: &Proxy, second: &Proxy) -> String {
    let (first, second) = (first.port(), second.port());
    format!("host=127.0.0.1,127.0.0.1 port={first},{second} user=postgres dbname=postgres")
}

#[test]
fn another_host_of_the_string_takes_over() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let (total, _) = quiet(&failover);
    let mut third = third(&mut failover, true);
    third.catch_up(&failover.new);
    let mut target = failover.old.copy("target");
    let proxy = Proxy::to(&failover.new, total / 2, Then::Hold);
    let spare = Proxy::to(&third, u64::MAX, Then::Cut);
    let run = rewind(&target, &two_hosts(&proxy, &spare)).start();
    proxy.wait_until_there();
    failover.new.stop();
    proxy.go_on();
    let run = run.wait().expect_done();
    run.expect_said(&format!("continuing with server at \"127.0.0.1\", port {}", spare.port()));
    third.promote();
    assert_follows(&mut target, &third);
}

/// A server that lacks what has been read already would leave pages from a future it does not know.
#[test]
fn a_server_that_is_behind_or_another_one_is_refused() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let behind = third(&mut failover, false);
    failover.new.sql("CREATE TABLE later AS SELECT n FROM generate_series(1, 1000) n");
    let (total, _) = quiet(&failover);
    let mut other = sandbox.stranger("other");
    other.start();
    let mut diverged = failover.old.copy("diverged");
    diverged.start();
    diverged.sql("SELECT pg_switch_wal()");
    diverged.sql("CREATE TABLE far_ahead AS SELECT repeat('x', 1000) FROM generate_series(1, 60000)");

    for (name, server, words) in [
        ("is-behind", &behind, "its WAL ends at"),
        ("is-other", &other, "it belongs to another database system"),
        ("is-diverged", &diverged, "it is on timeline 1, not 2"),
    ] {
        let (target, proxy, run) = held(&failover, name, total, &["--retry-timeout", "1"]);
        proxy.lead_to(server);
        failover.new.sql(END_SESSIONS);
        proxy.go_on();
        let run = run.wait();
        assert_eq!(run.code, 2, "{run}");
        let run = run.expect_said("cannot take the place of the source").expect_said(words);
        assert!(is_marked(&target), "{run}");
    }
}

#[test]
fn source_promoted_during_the_copy() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    let (total, _) = quiet(&failover);
    let mut third = third(&mut failover, true);
    third.catch_up(&failover.new);
    for loses_connection in [false, true] {
        let mut target = failover.old.copy(&format!("target-{loses_connection}"));
        let proxy = Proxy::to(&third, total / 2, Then::Hold);
        let run = rewind(&target, &proxy.conninfo()).start();
        proxy.wait_until_there();
        if !loses_connection {
            third.promote();
        }
        third.sql("CREATE TABLE IF NOT EXISTS only_on_third AS SELECT n FROM generate_series(1, 1000) n");
        if loses_connection {
            third.sql(END_SESSIONS);
        }
        proxy.go_on();
        run.wait().expect_done();
        assert_follows(&mut target, &third);
        target.stop();
    }
}

/// The source keeps no WAL for others, and a copy takes longer than it keeps its own.
#[test]
fn wal_recycled_during_a_long_copy() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::usual(), &["--wal-segsize=1"]));
    let fill = |server: &Server| {
        server.sql("CREATE TABLE filled AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
    };
    let mut failover = Failover::of(old, new, |_| {}, fill, fill);
    failover.old.kill();
    let (total, _) = quiet(&failover);
    let mut target = failover.old.copy("target");
    let proxy = Proxy::to(&failover.new, total * 8 / 10, Then::Slow);
    let run = rewind(&target, &proxy.conninfo()).start();
    while proxy.faults() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    failover.new.session().batch_execute("ALTER SYSTEM SET wal_keep_size = 0").expect("ALTER SYSTEM");
    failover.new.sql("SELECT pg_reload_conf()");
    let segment = failover.new.value::<String>("SELECT pg_walfile_name(pg_current_wal_lsn())");
    failover.new.sql("CREATE TABLE later (n int); INSERT INTO later VALUES (1)");
    failover.new.sql("SELECT pg_switch_wal()");

    let (here, there) =
        (failover.new.data.join("pg_wal").join(&segment), target.data.join("pg_wal").join(&segment));
    let is_copied = || std::fs::read(&there).is_ok_and(|bytes| bytes.iter().any(|&byte| byte != 0));
    let begun = Instant::now();
    while !is_copied() && begun.elapsed() < Duration::from_secs(240) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_marked(&target), "the run has not waited for {segment} to be recycled");
    failover.new.sql("SELECT pg_switch_wal(); CHECKPOINT");
    assert!(!here.exists(), "{segment} was not recycled");
    run.wait().expect_done();
    assert_follows(&mut target, &failover.new);
}

/// WAL that the source completes during the copy cannot be written: the copy, which would be in vain, ends at once.
#[test]
fn wal_that_cannot_be_copied_ends_the_copy() {
    let sandbox = Sandbox::new();
    let fill = |server: &Server| {
        server.sql("CREATE TABLE filled AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    };
    let mut failover = Failover::new(&sandbox, |_| {}, fill, fill);
    // Replay starts here, so no WAL is complete before the data is copied.
    failover.new.sql("CHECKPOINT");
    failover.old.kill();
    let mut target = failover.old.copy("target");
    let rewind = || Rewind::of(&target).from(&failover.new, SourceKind::Server);
    let run = rewind().args(["--max-rate", "1M", "--replay-from", "newest"]).start();
    let begun = Instant::now();
    while !is_marked(&target) {
        assert!(begun.elapsed() < Duration::from_secs(120), "the copy does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let wal = target.data.join("pg_wal");
    let set_mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&wal, permissions).expect("chmod pg_wal");
    };
    // The segment that is being written is the first one that is copied: replay starts in it.
    set_mode(0o500);
    failover.new.sql("CREATE TABLE later (n int); SELECT pg_switch_wal()");
    let begun = Instant::now();
    let run = run.wait();
    let took = begun.elapsed();
    set_mode(0o700);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("pg_wal/") && run.stderr.contains("Permission denied"), "{run}");
    assert!(took < Duration::from_secs(12), "it ended after {took:?}: {run}");
    rewind().run().expect_rewound();
    assert_follows(&mut target, &failover.new);
}
