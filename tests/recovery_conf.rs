//! `--write-recovery-conf`: the rewound node needs nothing but to be started.
//!
//!     old  ──┬── lost ──╳  rewind -R  start ┄┄┄┄▶     standby.signal, primary_conninfo in postgresql.auto.conf
//!     new    └── kept ──────────────────────────▶     streams, over TCP

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_same_content, assert_sound};

/// The source listens on TCP, whose port `new` keeps.
fn failover(sandbox: &Sandbox) -> Failover {
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    old.start();
    new.listen_on_loopback();
    new.follow(&old);
    new.start();
    Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |_| (),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    )
}

fn over_tcp(server: &Server) -> String {
    format!(r"host=127.0.0.1 port={} user=postgres dbname=postgres application_name='it\'s me'", server.port)
}

/// Starts the node with no setting from the command line.
fn start_and_stream(old: &mut Server, new: &Server) {
    assert!(old.data.join("standby.signal").exists(), "standby.signal");
    let written =
        std::fs::read_to_string(old.data.join("postgresql.auto.conf")).expect("read postgresql.auto.conf");
    assert!(written.contains("primary_conninfo = "), "{written}");
    old.start();
    old.catch_up(new);
    let receiver = old.value::<String>(
        "SELECT status || ' from ' || sender_host || ':' || sender_port FROM pg_stat_wal_receiver",
    );
    assert_eq!(receiver, format!("streaming from 127.0.0.1:{}", new.port));
    assert_same_content(old, new);
    assert_sound(old);
}

#[test]
fn after_a_rewind() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.sql("UPDATE entry SET origin = 'lost'");
    old.kill();
    let rewind = Rewind::of(&old).arg("--source-server").arg(over_tcp(&new)).arg("--write-recovery-conf");
    rewind.run().expect_done();
    start_and_stream(&mut old, &new);
}

/// Also when there is nothing to rewind: the node is to follow all the same.
#[test]
fn when_no_rewind_is_needed() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    old.start();
    new.listen_on_loopback();
    new.follow(&old);
    new.start();
    old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
    old.stop();
    new.promote();
    new.sql("UPDATE entry SET origin = 'kept'");
    Rewind::of(&old).arg("--source-server").arg(over_tcp(&new)).arg("-R").run().expect_not_needed();
    start_and_stream(&mut old, &new);
}

/// It needs a server to follow.
#[test]
fn refused_with_a_source_directory() {
    let sandbox = Sandbox::new();
    let (mut old, mut new) = sandbox.pair();
    new.promote();
    old.stop();
    new.stop();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Directory).arg("--write-recovery-conf");
    let run = rewind.run_leaving_target_alone();
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("--source-server"), "{run}");
}
