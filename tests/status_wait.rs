//! `kbrecover status --wait`: follows a rewound node until it streams.
//!
//!     old  ──── shared ────┬── lost ──╳  rewind │ started: replays ──── streams ──▶
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄└── kept ────────────────────────────────────────────▶

use std::time::{Duration, Instant};

use walparse::Lsn;

use crate::harness::{Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, pick, run_kbrecover};

/// A rewound node that is not started yet, and its source.
fn rewound(sandbox: &Sandbox, major: u32) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 3000) n"),
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 200000) n"),
    );
    old.stop();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "common"]);
    rewind.run().expect_done();
    old.follow(&new);
    Failover { old, new }
}

fn wait(node: &Server, arguments: &[&str]) -> Run {
    let directory = node.data.to_str().expect("UTF-8");
    run_kbrecover(["status", "-D", directory, "--wait"].iter().chain(arguments))
}

/// The same as the only role that there is.
fn wait_as_superuser(node: &Server, arguments: &[&str]) -> Run {
    wait(node, &[&["60", "-d", "user=postgres", "--format", "json"], arguments].concat())
}

fn lsn(value: &serde_json::Value) -> Lsn {
    value.as_str().unwrap_or_else(|| panic!("{value} is no position")).parse().expect("an LSN")
}

#[test]
fn a_rewound_node_is_followed_until_it_streams() {
    for major in pick("status --wait: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = rewound(&sandbox, major);
        new.sql("INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 50000) n");
        let end = Lsn(new.wal_end().0);
        old.spawn();
        let run = wait_as_superuser(&old, &[]);
        assert_eq!(run.code, 0, "{run}\n{}", old.log_tail());
        let (object, waited) = (run.json(), &run.json()["wait"]);
        assert_eq!(
            (&object["state"], &waited["result"]),
            (&"server_runs".into(), &"streams".into()),
            "{run}"
        );
        assert_eq!(
            (&waited["streaming"], &waited["positions_from"]),
            (&true.into(), &"session".into()),
            "{run}"
        );
        // What the source had before the node was started has been replayed.
        assert!(lsn(&waited["replayed"]) >= end && lsn(&waited["target"]) >= end, "{end}: {run}");
        assert!(waited["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{run}");
        assert!(old.column("SELECT status FROM pg_stat_wal_receiver") == ["streaming"], "{run}");

        let text = wait(&old, &["0", "-d", "user=postgres"]);
        assert_eq!(text.code, 0, "{text}");
        assert!(
            text.stdout.contains("  The standby streams.\n") && text.stdout.contains("replayed up to"),
            "{text}"
        );
    }
}

/// Who may not log in sees positions to the segment.
#[test]
fn without_a_login_process_titles_tell() {
    for major in pick("status --wait: version without a login", &[10, 12, 15, 18]) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = rewound(&sandbox, major);
        old.set("cluster_name", "a: startup");
        old.start();
        old.catch_up(&new);
        let run = wait(&old, &["60", "-d", "user=nobody", "--format", "json"]);
        assert_eq!(run.code, 0, "{run}\n{}", old.log_tail());
        run.stderr
            .lines()
            .find(|line| line.contains("the position of replay is shown to the segment only"))
            .expect("a warning");
        let waited = &run.json()["wait"];
        assert_eq!(
            (&waited["result"], &waited["positions_from"]),
            (&"streams".into(), &"process_titles".into())
        );
        let replayed = lsn(&waited["replayed"]);
        assert!(replayed.0.is_multiple_of(16 << 20) && replayed <= Lsn(old.wal_end().0), "{run}");

        // A role without privileges may log in, but not see the state of the WAL receiver.
        new.sql("CREATE ROLE plain LOGIN");
        old.catch_up(&new);
        let run = wait(&old, &["60", "-d", "user=plain", "--format", "json"]);
        let waited = &run.json()["wait"];
        assert_eq!(
            (&waited["result"], &waited["positions_from"]),
            (&"streams".into(), &"session".into()),
            "{run}"
        );
    }
}

fn refused_logins(server: &Server) -> usize {
    let log = std::fs::read_to_string(server.log()).expect("read the log");
    log.matches("role \"nobody\" does not exist").count()
}

/// The source is away: the node replays what it has, and waits.
#[test]
fn the_time_is_over() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = rewound(&sandbox, 15);
    new.stop();
    old.start();
    let begin = Instant::now();
    let run = wait(&old, &["2", "-d", "user=postgres", "--format", "json"]);
    assert_eq!(run.code, 8, "{run}");
    assert!(begin.elapsed() >= Duration::from_secs(2), "it did not wait");
    let waited = &run.json()["wait"];
    assert_eq!((&waited["result"], &waited["streaming"]), (&"timed_out".into(), &false.into()), "{run}");
    assert!(run.stderr.contains("replayed up to") && run.stderr.contains("not streaming yet"), "{run}");
    let run = wait(&old, &["2", "-d", "user=nobody"]);
    assert_eq!(run.code, 8, "{run}");
    assert_eq!(refused_logins(&old), 1, "each attempt is a line in the server's log");
    // The source comes back during the wait.
    let directory = old.data.clone();
    let waiting = std::thread::spawn(move || {
        run_kbrecover(["status", "-D", directory.to_str().expect("UTF-8"), "--wait", "-d", "user=postgres"])
    });
    new.start();
    let run = waiting.join().expect("a wait that ended");
    assert_eq!(run.code, 0, "{run}");
}

/// No server, one that ends, and one that is no standby.
#[test]
fn there_is_nothing_to_wait_for() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = rewound(&sandbox, 15);
    let run = wait(&new, &["60", "-d", "user=postgres", "--format", "json"]);
    assert_eq!((run.code, &run.json()["wait"]["result"]), (10, &"no_standby".into()), "{run}");
    let run = wait(&old, &["60", "--format", "json"]);
    assert_eq!((run.code, &run.json()["wait"]["result"]), (9, &"no_server".into()), "{run}");
    assert_eq!(run.json()["state"], "rewound", "{run}");

    new.stop();
    old.start();
    let directory = old.data.clone();
    let waiting = std::thread::spawn(move || {
        run_kbrecover([
            "status",
            "-D",
            directory.to_str().expect("UTF-8"),
            "--wait",
            "60",
            "-d",
            "user=postgres",
        ])
    });
    std::thread::sleep(Duration::from_secs(1));
    old.stop();
    let run = waiting.join().expect("a wait that ended");
    assert_eq!(run.code, 9, "{run}");
    assert!(run.stdout.contains("No server is running on it."), "{run}");

    let run = run_kbrecover(["status", "-D", "/nowhere", "--wait", "1", "--format", "json"]);
    assert_eq!((run.code, &run.json()["state"]), (1, &"unknown".into()), "{run}");
    let run = run_kbrecover(["status", "-D", "/nowhere", "-d", "x"]);
    assert!(run.code == 1 && run.stderr.contains("--wait"), "{run}");
}
