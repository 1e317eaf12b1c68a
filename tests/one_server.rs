//! Several servers behind one address: a load balancer, a Kubernetes Service, a virtual IP address.
//!
//!     old      ── 1 ──┬── lost ──╳     rewound through a proxy that leads each new connection to the next server
//!     new      ┄┄┄┄┄┄ └── 2 ──┬─▶      the source
//!     twin                    ├─▶      a copy of it that went its own way on the same timeline
//!     standby                 └┄▶      follows new
//!
//! All blocks come from one server, or the run does not finish. Nor does it fail for want of a second connection.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use kbrecover_rewind::StopFlag;
use kbrecover_rewind::conninfo::{Conninfo, ProcessEnvironment};
use kbrecover_rewind::source::{DirectorySource, ServerSource, SlotState, Source, SourceError};
use walparse::Version;

use crate::harness::{
    Failover, Installation, Proxy, Rewind, Run, Running, Sandbox, Server, Then, assert_follows,
};
use crate::interrupted::{finish, is_marked};
use crate::least_privilege;

const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbrecover'";

/// An old primary, the new one, and a copy of that.
struct Site {
    failover: Failover,
    twin: Server,
}

impl Site {
    /// `prepare` runs on the old primary before the histories part.
    fn new(sandbox: &Sandbox, prepare: impl Fn(&Server)) -> Site {
        let mut failover = Failover::new(
            sandbox,
            |old| {
                prepare(old);
                old.sql(
                    "CREATE TABLE quiet AS SELECT n, 'shared' AS origin, repeat('x', 1000) AS filler
                     FROM generate_series(1, 25000) n",
                );
                // Replay starts here, so it does not make these blocks anew.
                old.sql("CHECKPOINT");
            },
            |old| old.sql("UPDATE quiet SET origin = 'lost'"),
            |new| new.sql("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n"),
        );
        failover.old.kill();
        failover.new.stop();
        let mut twin = failover.new.copy("twin");
        failover.new.start();
        twin.start();
        // New has not changed these blocks since the histories parted, so no WAL of its makes them good. Frozen rows are
        // visible whatever the commit log says.
        twin.sql("UPDATE quiet SET origin = 'twin'");
        twin.sql("VACUUM (FREEZE) quiet");
        twin.sql("CHECKPOINT");
        Site { failover, twin }
    }

    fn new_server(&self) -> &Server {
        &self.failover.new
    }

    fn target(&self, name: &str) -> Server {
        self.failover.old.copy(name)
    }

    /// The bytes that a run takes from the source.
    fn bytes_of_a_run(&self) -> u64 {
        let proxy = Proxy::to(self.new_server(), u64::MAX, Then::Cut);
        rewind(&self.target("measured"), &proxy.conninfo()).run().expect_done();
        proxy.passed()
    }

    /// A run that is held at half of its bytes.
    fn held(&self, name: &str, total: u64, more: &[&str]) -> (Server, Proxy, Running) {
        let target = self.target(name);
        let proxy = Proxy::to(self.new_server(), total * 3 / 4, Then::Hold);
        let run = rewind(&target, &proxy.conninfo()).args(more).start();
        proxy.wait_until_there();
        (target, proxy, run)
    }
}

fn rewind(target: &Server, conninfo: &str) -> Rewind {
    Rewind::of(target).args(["-j", "4", "--source-server", conninfo])
}

/// Reads the rewound node before anything else can heal it.
fn assert_of_one_server(mut target: Server, source: &Server, run: &Run) {
    target.follow(source);
    target.start();
    target.catch_up(source);
    let origins = target.column("SELECT DISTINCT origin || ' ' || count(*) FROM quiet GROUP BY origin");
    assert_eq!(origins, ["shared 25000"], "{run}");
    assert_follows(&mut restarted(target), source);
}

fn restarted(mut server: Server) -> Server {
    server.stop();
    server
}

#[test]
fn blocks_of_two_servers_are_not_mixed() {
    let sandbox = Sandbox::new();
    let mut site = Site::new(&sandbox, |_| {});
    site.failover.new.stop();
    let mut standby = site.failover.new.copy("standby");
    site.failover.new.start();
    standby.follow(&site.failover.new);
    standby.start();
    for (name, other) in [("twin", &site.twin), ("standby", &standby)] {
        let target = site.target(&format!("target-{name}"));
        let proxy = Proxy::between(&[Some(site.new_server()), Some(other)], u64::MAX, Then::Cut);
        let run = rewind(&target, &proxy.conninfo()).run().expect_done();
        let run = run.expect_said("continuing with 2 of 4 connections");
        let run = run.expect_said("another server of the same cluster answers at this address");
        assert_of_one_server(target, site.new_server(), &run);
    }
}

/// With the four functions only, and without those that everybody may call by default.
#[test]
fn with_few_privileges() {
    let sandbox = Sandbox::new();
    let site = Site::new(&sandbox, least_privilege::create_role);
    let revokes = [
        "SELECT",
        "REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time() FROM PUBLIC",
        "REVOKE SELECT ON pg_locks FROM PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock_shared(bigint) FROM PUBLIC",
    ];
    for (number, revoke) in revokes.into_iter().enumerate() {
        for server in [site.new_server(), &site.twin] {
            server.sql(revoke);
        }
        let target = site.target(&format!("target-{number}"));
        let proxy = Proxy::between(&[Some(site.new_server()), Some(&site.twin)], u64::MAX, Then::Cut);
        let conninfo = proxy.conninfo().replace("user=postgres", "user=rewind_user");
        let run = rewind(&target, &conninfo).run().expect_done();
        let run = run.expect_said("continuing with 2 of 4 connections");
        assert_of_one_server(target, site.new_server(), &run);
    }
}

/// All connections are used where they lead to one server, of any version, primary or standby.
#[test]
fn one_server_is_recognised() {
    for major in [10, 12, 18] {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
        let fill = |server: &Server| server.sql("CREATE TABLE filled AS SELECT generate_series(1, 1000)");
        let mut failover = Failover::of(old, new, |_| {}, fill, fill);
        failover.old.kill();
        let run = rewind(&failover.old, &failover.new.conninfo()).arg("--dry-run").run();
        assert_eq!(run.code, 0, "{run}");
        run.expect_said("4 connection(s)");

        failover.new.stop();
        let mut standby = failover.new.copy("standby");
        failover.new.start();
        standby.follow(&failover.new);
        standby.start();
        standby.catch_up(&failover.new);
        let run = rewind(&failover.old, &standby.conninfo()).run();
        run.expect_done().expect_said("4 connection(s)");
        assert_follows(&mut failover.old, &failover.new);
    }
}

/// A connection that hangs, is refused by a limit, or is lost and cannot be replaced.
#[test]
fn no_run_fails_for_want_of_a_further_connection() {
    let sandbox = Sandbox::new();
    let site = Site::new(&sandbox, least_privilege::create_role);
    let new = site.new_server();

    let target = site.target("hanging");
    let proxy = Proxy::between(&[Some(new), None], u64::MAX, Then::Cut);
    let begun = Instant::now();
    let run = rewind(&target, &proxy.conninfo()).run().expect_done();
    let run = run.expect_said("continuing with 2 of 4 connections").expect_said("timeout expired");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}\n{run}", begun.elapsed());
    assert_of_one_server(target, new, &run);

    let conninfo = least_privilege::conninfo(new);
    for (name, limit) in [("role", "ROLE rewind_user"), ("database", "DATABASE postgres")] {
        new.sql(&format!("ALTER {limit} CONNECTION LIMIT 1"));
        let target = site.target(name);
        let run = rewind(&target, &conninfo).run().expect_done();
        let run = run.expect_said("continuing with 1 of 4 connections").expect_said("too many connections");
        new.sql(&format!("ALTER {limit} CONNECTION LIMIT -1"));
        assert_of_one_server(target, new, &run);
    }

    let total = site.bytes_of_a_run();
    for (name, more) in [("lost", &[][..]), ("lost-for-good", &["--retry-timeout", "0"])] {
        let target = site.target(name);
        let proxy = Proxy::to(new, total / 2, Then::Hold);
        let conninfo = proxy.conninfo().replace("user=postgres", "user=rewind_user");
        let run = rewind(&target, &conninfo).args(more).start();
        proxy.wait_until_there();
        new.sql("ALTER ROLE rewind_user CONNECTION LIMIT 1");
        // The first one is the oldest.
        let others = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
                      WHERE application_name = 'kbrecover'
                      AND backend_start > (SELECT min(backend_start) FROM pg_stat_activity
                                           WHERE application_name = 'kbrecover')";
        assert_eq!(new.column(others).len(), 3);
        proxy.go_on();
        let run = run.wait().expect_done().expect_said("continuing with fewer connections");
        new.sql("ALTER ROLE rewind_user CONNECTION LIMIT -1");
        assert_of_one_server(target, new, &run);
    }
}

#[test]
fn a_lost_connection_is_not_replaced_by_one_to_another_server() {
    let sandbox = Sandbox::new();
    let site = Site::new(&sandbox, |_| {});
    let total = site.bytes_of_a_run();

    let (target, proxy, run) = site.held("away", total, &["--retry-timeout", "2"]);
    proxy.lead_to(&site.twin);
    site.new_server().sql(END_SESSIONS);
    proxy.go_on();
    let run = run.wait();
    assert_eq!(run.code, 2, "{run}");
    run.expect_said("another server of the same cluster answers at this address");
    assert!(is_marked(&target));
    proxy.lead_to(site.new_server());
    let again = rewind(&target, &proxy.conninfo());
    finish(target, site.new_server(), again);

    // The address leads to both of them from then on.
    let (target, proxy, run) = site.held("dealt", total, &[]);
    proxy.deal(&[Some(&site.twin), Some(site.new_server())]);
    site.new_server().sql(END_SESSIONS);
    proxy.go_on();
    let run = run.wait().expect_done().expect_said("connection to the source re-established");
    assert_of_one_server(target, site.new_server(), &run);
}

/// The source is restarted, and the address leads to another server as well.
#[test]
fn a_restarted_source_is_told_from_another_server() {
    let sandbox = Sandbox::new();
    let mut site = Site::new(&sandbox, |_| {});
    let total = site.bytes_of_a_run();
    let (target, proxy, run) = site.held("target", total, &[]);
    proxy.deal(&[Some(&site.twin), Some(&site.failover.new)]);
    site.failover.new.stop();
    site.failover.new.start();
    proxy.go_on();
    let run = run.wait().expect_done().expect_said("connection to the source re-established");
    assert_of_one_server(target, &site.failover.new, &run);
}

fn connect(conninfo: &str) -> Result<ServerSource, SourceError> {
    let conninfo = Conninfo::parse(conninfo, &ProcessEnvironment::PostgreSql).expect("a connection string");
    let flavor = Version::all().last().expect("a version").flavor();
    let (patience, stop) = (Duration::from_secs(5), StopFlag::default());
    ServerSource::connect(&conninfo, NonZeroUsize::MIN, patience, stop, (flavor, None))
}

/// What `-R` needs of the source: a role that may replicate, a slot, and a login that succeeds.
#[test]
fn what_a_standby_needs() {
    let sandbox = Sandbox::new();
    for major in [10, 15, 18] {
        let installation = if major == 15 { Installation::usual() } else { Installation::of(major) };
        let mut server = sandbox.initdb(&format!("server{major}"), installation, &[]);
        let hba = "local all all trust\nlocal replication postgres,repl trust\nhost all postgres all trust\n\
                   host all repl all md5\nhost replication repl all md5\n";
        server.write("pg_hba.conf", hba);
        server.listen_on_loopback();
        server.start();
        server.sql("CREATE ROLE plain SUPERUSER LOGIN; CREATE ROLE repl SUPERUSER REPLICATION LOGIN PASSWORD 'right'");
        server.sql("SELECT pg_create_physical_replication_slot('there')");
        server.set("wal_level", "logical");
        server.stop();
        server.start();
        server.sql("SELECT pg_create_logical_replication_slot('logical', 'pgoutput')");
        let as_role = |role: &str| server.conninfo().replace("user=postgres", &format!("user={role}"));

        let source = connect(&server.conninfo()).expect("connect");
        assert_eq!(source.may_replicate().expect("ask"), Some(true));
        source.try_replication_login().expect("log in for replication");
        for (name, state) in [
            ("there", SlotState::Physical { is_active: false, restart_lsn: None }),
            ("logical", SlotState::Logical),
            ("nowhere", SlotState::Missing),
        ] {
            assert_eq!(source.replication_slot(name).expect("ask"), Some(state), "{name}");
        }
        drop(source);

        // A superuser may; pg_hba.conf does not let this one in.
        let source = connect(&as_role("plain")).expect("connect");
        assert_eq!(source.may_replicate().expect("ask"), Some(true));
        let error = source.try_replication_login().expect_err("pg_hba.conf has no line");
        assert!(matches!(error, SourceError::ReplicationLogin { .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("database \"replication\"")), "{error:?}");

        // A password file has another password for replication.
        let passfile = sandbox.path(&format!("passfile{major}"));
        for (replication, succeeds) in [("right", true), ("wrong", false)] {
            let text = format!("*:*:replication:repl:{replication}\n*:*:*:repl:right\n");
            std::fs::write(&passfile, text).expect("write a password file");
            std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .expect("close a password file");
            let conninfo = format!(
                "host=127.0.0.1 port={} user=repl dbname=postgres passfile={}",
                server.port,
                passfile.display()
            );
            let source = connect(&conninfo).expect("connect");
            assert_eq!(source.try_replication_login().is_ok(), succeeds, "{major} {replication}");
        }
        if major > 10 {
            // Before 11 the files can be read by superusers only.
            server.sql(&least_privilege::printed_grants(major));
            let source = connect(&as_role("rewind_user")).expect("connect");
            assert_eq!(source.may_replicate().expect("ask"), Some(false));
            server.sql("ALTER ROLE rewind_user REPLICATION");
            assert_eq!(source.may_replicate().expect("ask"), Some(true));
            server.sql("REVOKE SELECT ON pg_roles, pg_replication_slots FROM PUBLIC");
            assert_eq!(source.may_replicate().expect("ask"), None);
            assert_eq!(source.replication_slot("there").expect("ask"), None);
        }
        server.stop();
        let source = DirectorySource::open(&server.data, None).expect("open");
        assert_eq!(source.may_replicate().expect("ask"), None);
        assert_eq!(source.replication_slot("there").expect("ask"), None);
        source.try_replication_login().expect("nothing to do");
    }
}

/// How much WAL a server keeps for standbys, by a slot and by a setting, and who may request a checkpoint.
#[test]
fn what_keeps_wal_and_who_may_checkpoint() {
    let sandbox = Sandbox::new();
    for (major, kept) in [(12, 100 * (16 << 20)), (13, 1 << 30), (18, 1 << 30)] {
        let mut server = sandbox.initdb(&format!("server{major}"), Installation::of(major), &[]);
        server.start();
        server.sql("SELECT pg_create_physical_replication_slot('keeps', true)");
        let restart_lsn = "SELECT restart_lsn::text FROM pg_replication_slots";
        let restart_lsn = Some(server.value::<String>(restart_lsn).parse().expect("an LSN"));

        let source = connect(&server.conninfo()).expect("connect");
        let state = Some(SlotState::Physical { is_active: false, restart_lsn });
        assert_eq!(source.replication_slot("keeps").expect("ask"), state);
        assert_eq!(source.kept_wal().expect("ask"), Some(kept), "{major}");
        source.check_may_checkpoint().expect("a superuser may");

        server.sql(&least_privilege::printed_grants(major));
        let conninfo = server.conninfo().replace("user=postgres", "user=rewind_user");
        let source = connect(&conninfo).expect("connect");
        let error = source.check_may_checkpoint().expect_err("no superuser");
        let granted = "GRANT pg_checkpoint TO \"rewind_user\"";
        assert_eq!(error.hint().is_some_and(|hint| hint.contains(granted)), major >= 15, "{error:?}");
        if major >= 15 {
            server.sql(granted);
            source.check_may_checkpoint().expect("it has been granted");
            source.checkpoint().expect("a checkpoint");
        } else {
            let refused = source.checkpoint().expect_err("the server refuses, too");
            assert!(matches!(refused, SourceError::Query { .. }), "{refused:?}");
        }
        server.sql("REVOKE SELECT ON pg_settings FROM PUBLIC");
        assert_eq!(source.kept_wal().expect("ask"), None);
        server.stop();
        let source = DirectorySource::open(&server.data, None).expect("open");
        assert_eq!(source.kept_wal().expect("ask"), None);
        source.checkpoint().expect("nothing to do");
    }
}
