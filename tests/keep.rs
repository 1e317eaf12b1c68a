//! Files that are the node's own: they are neither copied nor removed, and the plan and the report name them.
//!
//!                      target       source       afterwards   with --keep none
//!     postgresql.conf  its own      another      its own      the source's
//!     my_logs/         own.log      theirs.log   own.log      theirs.log     (log_directory = my_logs)
//!     certs/own.key    there        -            there        -
//!     standby.signal   -            there        -            there
//!     extra/           own          theirs       theirs       theirs         kept with --keep 'extra/*'

use std::path::Path;

use crate::harness::{
    Failover, Proxy, Rewind, Sandbox, Server, SourceKind, Then, assert_follows, assert_sound,
};
use crate::interrupted::is_marked;

const OWN: [(&str, &str); 6] = [
    ("postgresql.auto.conf", "primary_conninfo = 'host=dead.invalid user=repl password=s3cret'\n"),
    ("pg_hba.conf", "# of old\nlocal all all trust\nlocal replication all trust\n"),
    ("certs/own.key", "of old"),
    ("my_logs/own.log", "of old"),
    ("es_rep.conf", "# of old"),
    ("extra/own", "of old"),
];

fn diverged(sandbox: &Sandbox) -> Failover {
    let mut failover = Failover::new(
        sandbox,
        |old| {
            old.sql("CREATE TABLE entry AS SELECT n, repeat('shared', 50) AS origin FROM generate_series(1, 5000) n")
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 1000) n"),
    );
    let Failover { old, new } = &mut failover;
    old.stop();
    for server in [&*old, &*new] {
        server.make_dir("my_logs");
        server.make_dir("extra");
    }
    old.make_dir("certs");
    old.configure("# of old\nlog_directory = 'my_logs'\nmax_connections = 15");
    for (name, content) in OWN {
        old.write(name, content);
    }
    new.configure("# of new");
    for (name, content) in
        [("my_logs/theirs.log", "of new"), ("extra/theirs", "of new"), ("standby.signal", "")]
    {
        new.write(name, content);
    }
    failover
}

fn read(data: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(data.join(name)).ok()
}

fn is_own(server: &Server) -> bool {
    let text = read(&server.data, "postgresql.conf").expect("postgresql.conf");
    let (own, theirs) = (text.contains("# of old"), text.contains("# of new"));
    assert_ne!(own, theirs, "a mixture:\n{text}");
    own
}

#[test]
fn usual_ones_stay() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    let expected = [
        "certs/own.key",
        "es_rep.conf",
        "my_logs",
        "pg_hba.conf",
        "pg_ident.conf",
        "postgresql.auto.conf",
        "postgresql.conf",
    ];
    let plan = Rewind::of(&old).from(&new, SourceKind::Server).arg("--dry-run").run_leaving_target_alone();
    let line =
        format!("kept local files: {}\nnot copied from the source: standby.signal", expected.join(", "));
    assert!(plan.stdout.contains(&line), "{plan}");

    let configuration = read(&old.data, "postgresql.conf");
    let run = Rewind::of(&old).from(&new, SourceKind::Server).args(["--format", "json"]).run().expect_done();
    let object = run.json();
    assert_eq!(object["kept"], serde_json::json!(expected), "{run}");
    assert_eq!(object["not_taken"], serde_json::json!(["standby.signal"]), "{run}");
    assert_eq!(object["files"]["kept"], expected.len(), "{run}");
    let run = run
        .expect_said(
            "warning: max_connections is 15 on the target and 20 on the source: a hot standby does not start",
        )
        .expect_said(
            "warning: primary_conninfo of the target is \"user=repl password=******** host=dead.invalid\"",
        )
        .expect_said("warning: the target is not set up as a standby")
        .expect_said(line.lines().next().expect("a line"));
    assert!(!run.stderr.contains("s3cret"), "{run}");

    assert_eq!(read(&old.data, "postgresql.conf"), configuration);
    for (name, content) in OWN.iter().filter(|(name, _)| *name != "extra/own") {
        assert_eq!(read(&old.data, name).as_deref(), Some(*content), "{name}");
    }
    for gone in ["standby.signal", "my_logs/theirs.log", "extra/own"] {
        assert_eq!(read(&old.data, gone), None, "{gone}");
    }
    assert_eq!(read(&old.data, "extra/theirs").as_deref(), Some("of new"));
    old.set("max_connections", "20");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

#[test]
fn none_and_others() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox);
    for glob in ["base/**", "pg_*", "*"] {
        let run = Rewind::of(&old).from(&new, SourceKind::Server).args(["--keep", glob]);
        run.expect_refusal(
            &format!("which --keep \"{glob}\" matches"),
            "makes the server's data the source's",
        );
    }
    let run = Rewind::of(&old).from(&new, SourceKind::Server).args(["--keep", "base/*/2619"]);
    run.expect_refusal("cannot keep \"base/", "makes the server's data the source's");

    let more = old.copy("more");
    let run =
        Rewind::of(&more).from(&new, SourceKind::Server).args(["--keep", "extra/*", "--keep", "extar/*"]);
    let run = run.run().expect_done();
    let told: Vec<_> = run.stderr.lines().filter(|line| line.contains("matches nothing")).collect();
    assert_eq!(
        told,
        ["kbrecover: warning: --keep \"extar/*\" matches nothing on the target or on the source"]
    );
    assert!(is_own(&more));
    assert_eq!(read(&more.data, "extra/own").as_deref(), Some("of old"));
    assert_eq!(read(&more.data, "extra/theirs"), None);

    Rewind::of(&old).from(&new, SourceKind::Server).args(["--keep", "none"]).run().expect_done();
    assert!(!is_own(&old));
    for (name, _) in OWN.iter().filter(|(name, _)| !name.ends_with(".conf")) {
        assert_eq!(read(&old.data, name), None, "{name}");
    }
    for (name, content) in [("standby.signal", ""), ("my_logs/theirs.log", "of new")] {
        assert_eq!(read(&old.data, name).as_deref(), Some(content), "{name}");
    }
}

/// What the first run did not keep may be half the source's: the second run must not keep it.
#[test]
fn the_first_run_decides() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox);
    for (first, second, own) in
        [(vec!["--keep", "none"], vec![], false), (vec![], vec!["--keep", "none"], true)]
    {
        let target = old.copy(if own { "own" } else { "theirs" });
        let measured = Proxy::to(&new, u64::MAX, Then::Cut);
        let plan = Rewind::of(&target).arg("--source-server").arg(measured.conninfo()).arg("--dry-run").run();
        assert_eq!(plan.code, 0, "{plan}");
        // Broken soon after the copying has begun.
        let before_copy = measured.passed();
        let proxy = Proxy::to(&new, before_copy + (1 << 20), Then::Cut);
        let run = Rewind::of(&target).arg("--source-server").arg(proxy.conninfo()).args(first).run();
        assert!(run.code == 2 && is_marked(&target), "{run}");
        Rewind::of(&target).from(&new, SourceKind::Server).args(second).run().expect_done();
        assert_eq!(is_own(&target), own, "configuration after the second run");
    }
}
