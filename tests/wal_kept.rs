//! After a rewind the source must keep its WAL until the target has streamed it. What is not sure to be kept is told, with the
//! command that keeps it.

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, assert_follows, pick,
};

const HINT: &str = "kbrecover: hint: The source may remove WAL before the target has streamed it";

/// A new primary that keeps no WAL for standbys by a setting.
fn failover(sandbox: &Sandbox, major: u32) -> Failover {
    let old = sandbox.initdb("old", Installation::of(major), &[]);
    old.configure(if major < 13 { "wal_keep_segments = 0" } else { "wal_keep_size = 0" });
    let (old, new) = sandbox.pair_of(old);
    Failover::of_one_table_in(old, new)
}

fn rewind(target: &Server, source: &Server) -> Run {
    Rewind::of(target).from(source, SourceKind::Server).args(["--format", "json"]).run().expect_done()
}

/// The command in the hint makes a slot, the setting in it names that; then the node finds its WAL, and the hint does not
/// come again.
#[test]
fn the_hint_keeps_wal() {
    for major in pick("wal kept: version", &[10, 12, 13, 15, 18]) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox, major);
        let mut again = old.copy("again");
        let run = rewind(&old, &new).expect_said(HINT);
        let kept = run.json()["wal_kept"].clone();
        assert_eq!((&kept["by"], &kept["slot"]), (&"nothing".into(), &"rewound_standby".into()), "{run}");
        let command = kept["command"].as_str().expect("a command");
        run.expect_said(&format!("run on the source: {command};"));
        new.sql(command);
        for n in 0..4 {
            new.sql(&format!("INSERT INTO entry VALUES ('{n}')"));
            new.sql("SELECT pg_switch_wal()");
            new.sql("CHECKPOINT");
        }
        name_slot(&mut old, &new);
        assert_follows(&mut old, &new);
        old.stop();

        new.sql(&format!("SELECT pg_drop_replication_slot('rewound_standby'); {command}"));
        name_slot(&mut again, &new);
        let run = rewind(&again, &new);
        assert!(!run.stderr.contains(HINT), "{run}");
        assert_eq!(run.json()["wal_kept"]["by"], "slot", "{run}");
    }
}

fn name_slot(node: &mut Server, source: &Server) {
    node.follow(source);
    if node.installation.major < 12 {
        let path = node.data.join("recovery.conf");
        let text = std::fs::read_to_string(path).expect("read recovery.conf");
        node.write("recovery.conf", format!("{text}primary_slot_name = 'rewound_standby'\n"));
    } else {
        node.configure("primary_slot_name = 'rewound_standby'");
    }
}

#[test]
fn a_setting_or_an_archive_is_enough() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15);
    let archived = old.copy("archived");
    archived.configure("restore_command = 'false'");
    let run = rewind(&archived, &new);
    assert!(run.json()["wal_kept"]["by"] == "archive" && !run.stderr.contains(HINT), "{run}");
    new.sql("ALTER SYSTEM SET wal_keep_size = '1GB'");
    new.sql("SELECT pg_reload_conf()");
    new.wait_for("the setting", "SELECT current_setting('wal_keep_size') = '1GB'");
    let run = rewind(&old, &new);
    assert!(run.json()["wal_kept"]["by"] == "setting" && !run.stderr.contains(HINT), "{run}");
}
