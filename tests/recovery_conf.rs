//! `--write-recovery-conf`: the rewound node needs nothing but to be started.
//!
//!     old  ──┬── lost ──╳  rewind -R  start ┄┄┄┄▶     standby.signal, primary_conninfo in postgresql.auto.conf
//!     new    └── kept ──────────────────────────▶     streams, over TCP

use std::os::unix::fs::PermissionsExt;

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, assert_same_content, assert_sound, command, command_as,
    give_to_server_user, run_command, server_program,
};

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

/// A line without the parameters that libpq has had since 16: the original writes all that the libpq which it is linked to knows,
/// and that may be newer than its server.
fn without_later_parameters(line: &str) -> String {
    let later = ["sslnegotiation=", "sslcertmode=", "gssdelegation=", "load_balance_hosts="];
    let words = line.strip_suffix('\'').expect("a quote at the end").split(' ');
    let kept = words.filter(|word| !later.iter().any(|name| word.starts_with(name)));
    kept.collect::<Vec<_>>().join(" ") + "'"
}

/// As `pg_rewind` the line is the original's, to the last character; under its own name a password is left out that
/// the standby finds by itself.
#[test]
fn written_as_by_the_original() {
    let sandbox = Sandbox::new();
    let mut source = sandbox.server("source");
    let targets = ["original", "persona", "own"].map(|name| source.copy(name));
    source.listen_on_loopback();
    source.start();
    let home = sandbox.make_dir("home");
    let passfile = home.join("it's a file");
    std::fs::write(&passfile, "*:*:replication:*:a b'c\\\\d\n").expect("write a password file");
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).expect("close it");
    give_to_server_user(&passfile);
    let quoted = passfile.to_str().expect("UTF-8").replace('\'', r"\'");
    let conninfo = [
        &over_tcp(&source),
        &format!("passfile='{quoted}'"),
        r"options='-c work_mem=1MB' fallback_application_name=x connect_timeout=9 password='a b\'c\\d'",
    ]
    .join(" ");
    let commands =
        [server_program("pg_rewind"), command_as("pg_rewind", [] as [&str; 0]), command(["rewind"])];
    let mut written = Vec::new();
    for (mut command, target) in commands.into_iter().zip(&targets) {
        command.args(["-R", "--source-server", &conninfo, "--target-pgdata"]).arg(&target.data);
        let run = run_command(command);
        assert_eq!(run.code, 0, "{run}");
        assert!(target.data.join("standby.signal").exists(), "{run}");
        let text = std::fs::read_to_string(target.data.join("postgresql.auto.conf")).expect("read");
        written.push(without_later_parameters(text.lines().last().expect("a line")));
    }
    assert!(written[0].contains("password="), "{}", written[0]);
    assert_eq!(written[1], written[0], "ours, the original's");
    let password = r"password=''a b\\''c\\\\d'' ";
    assert_eq!(written[2], written[0].replace(password, ""), "under its own name");
    assert_ne!(written[2], written[0]);
}
