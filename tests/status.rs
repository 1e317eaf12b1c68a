//! `kbrecover status` through the life of an old primary: every state it passes through is told, by text, JSON and exit
//! status, and looking at it changes nothing.
//!
//!     runs ── killed ──┬── rewind at work ── killed ── finished ── started as a standby ── stopped
//!     3       6        │   4                 2         5           3                       0

use crate::harness::{
    Failover, Proxy, Rewind, Run, Sandbox, Server, SourceKind, Then, Tree, assert_follows, run,
    run_kbrecover, server_program, spawn_kbrecover,
};
use crate::interrupted::{bytes_of_a_run, is_marked};

/// Asks twice, and compares state, exit status and words.
fn expect(server: &Server, state: &str, code: i32, words: &str) -> serde_json::Value {
    let ask = |format: &str| {
        run_kbrecover(["status", "-D", server.data.to_str().expect("UTF-8"), "--format", format])
    };
    let (text, json): (Run, Run) = (ask("text"), ask("json"));
    assert_eq!((text.code, json.code), (code, code), "{text}\n{json}");
    assert!(text.stdout.contains(words), "no word of: {words}\n{text}");
    assert!(text.stderr.is_empty() && json.stderr.is_empty(), "{text}\n{json}");
    let object = json.json();
    assert_eq!(object["state"], state, "{json}");
    object
}

fn expect_unchanged(server: &Server, state: &str, code: i32, words: &str) -> serde_json::Value {
    let before = Tree::of(&server.data);
    let object = expect(server, state, code, words);
    before.assert_unchanged(&server.data, "status");
    object
}

#[test]
fn every_state_is_told() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |old| {
            old.sql("CREATE TABLE entry AS SELECT n, repeat('shared', 20) AS origin FROM generate_series(1, 20000) n")
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 1000) n"),
    );
    let running = expect(&failover.old, "server_runs", 3, "a server is running (process ");
    assert!(running["server_pid"].is_u64() && running["kbrecover_pid"].is_null(), "{running}");
    failover.old.kill();
    let killed =
        expect_unchanged(&failover.old, "needs_recovery", 6, "not shut down cleanly (\"in production\")");
    assert_eq!(
        (&killed["stale_lock_file"], &killed["cluster_state"]),
        (&true.into(), &"in production".into())
    );
    assert_eq!((&killed["starts_as"], &killed["rewind"]), (&"primary".into(), &serde_json::Value::Null));

    let proxy = Proxy::to(&failover.new, bytes_of_a_run(&failover) * 7 / 10, Then::Stall);
    let mut child = spawn_kbrecover(Rewind::of(&failover.old).arg("--source-server").arg(proxy.conninfo()));
    for _ in 0..600 {
        if is_marked(&failover.old) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let at_work =
        expect(&failover.old, "kbrecover_runs", 4, &format!("kbrecover is running (process {})", child.id()));
    assert_eq!(at_work["kbrecover_pid"], child.id());
    expect(&failover.old, "kbrecover_runs", 4, "no server starts until it has finished");
    expect(&failover.old, "kbrecover_runs", 4, "to fetch in all ");
    child.kill().expect("kill kbrecover");
    child.wait().expect("wait for kbrecover");

    let unfinished = expect_unchanged(&failover.old, "rewind_unfinished", 2, "has not finished");
    assert!(unfinished["kbrecover_pid"].is_null(), "{unfinished}");
    let rewind = &unfinished["rewind"];
    let source = rewind["source"].as_str().expect("the source's name");
    assert!(source.contains("127.0.0.1") && source.contains(&proxy.port().to_string()), "{rewind}");
    assert_eq!(rewind["divergence"], failover.fork().to_string(), "{rewind}");
    let begun = rewind["begun"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("ISO 8601");
    expect(
        &failover.old,
        "rewind_unfinished",
        2,
        &begun.strftime("started at %Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    expect(&failover.old, "rewind_unfinished", 2, "left to fetch ");

    let done =
        Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(["--format", "json"]).run();
    let fetched = done.json()["bytes"]["to_fetch"].as_u64().expect("bytes to fetch");
    let left = rewind["bytes_left"].as_u64().expect("bytes left");
    // Between the two runs the source may have written a little.
    assert!(left.abs_diff(fetched) < 1 << 20, "{left} bytes were said to be left, {fetched} were fetched");
    assert!(rewind["blocks_left"].as_u64() > Some(0), "{rewind}");

    let rewound = expect_unchanged(&failover.old, "rewound", 5, "Not set up as a standby");
    assert_eq!(rewound["timeline"], 2);
    assert!(rewound["min_recovery_point"].is_string(), "{rewound}");
    failover.old.write("standby.signal", "");
    assert_eq!(expect(&failover.old, "rewound", 5, "Start the server")["starts_as"], "standby");

    assert_follows(&mut failover.old, &failover.new);
    expect(&failover.old, "server_runs", 3, "starts as               standby");
    failover.old.stop();
    let clean = expect_unchanged(&failover.old, "clean", 0, "clean (shut down in recovery)");
    assert_eq!(clean["stale_lock_file"], false);
}

/// A copy that takes long counts down.
#[test]
fn how_far_the_copy_is() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::of_one_table(&sandbox);
    failover.new.sql("CREATE TABLE big AS SELECT repeat('kept', 200) FROM generate_series(1, 12000)");
    let failover = &mut failover;
    let mut child = spawn_kbrecover(
        Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(["--max-rate", "1M"]),
    );
    let data = failover.old.data.to_str().expect("UTF-8");
    let status = |format: &str| run_kbrecover(["status", "-D", data, "--format", format]);
    let noted = (0..600).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Some(status("json").json()["copy"].clone()).filter(|copy| copy.is_object())
    });
    let text = status("text");
    let noted = noted.unwrap_or_else(|| panic!("no word of the copy\n{text}"));
    let of = |name: &str| noted[name].as_u64().unwrap_or_else(|| panic!("no {name} in {noted}"));
    assert!(0 < of("bytes") && of("bytes") < of("bytes_total"), "{noted}");
    assert!((1..60).contains(&of("seconds_left")), "{noted}");
    let line = text.stdout.lines().find(|line| line.starts_with("left to copy ")).expect("a line for people");
    assert!(line.contains(" MiB of ") && line.ends_with(" s left"), "{text}");
    assert!(child.wait().expect("wait for kbrecover").success());
    assert!(status("json").json()["copy"].is_null());
    assert!(!failover.old.data.join("kbrecover.copied").exists());
}

#[test]
fn a_base_backup_and_damage() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.server("one");
    server.start();
    let backup = sandbox.server("backup");
    std::fs::remove_dir_all(&backup.data).expect("remove a directory");
    run(server_program("pg_basebackup")
        .args(["--checkpoint=fast", "-U", "postgres", "-h", server.host(), "-p"])
        .arg(server.port.to_string())
        .arg("-D")
        .arg(&backup.data));
    expect_unchanged(&backup, "base_backup", 7, "a base backup that has not been started yet");

    for (file, content, words) in [
        ("backup_label", "nonsense", "invalid data in file"),
        ("global/pg_control", "short", "could not use control file"),
        ("PG_VERSION", "", ""),
    ] {
        if words.is_empty() {
            std::fs::remove_file(backup.data.join(file)).expect("remove a file");
        } else {
            backup.write(file, content);
        }
        let run = run_kbrecover(["status", "-D", backup.data.to_str().expect("UTF-8"), "--format", "json"]);
        assert_eq!(run.code, 1, "{run}");
        assert!(run.stderr.contains("kbrecover: error: ") && run.stderr.contains(words), "{run}");
        assert_eq!(run.json()["state"], "unknown", "{run}");
        let _ = std::fs::remove_file(backup.data.join("backup_label"));
    }
}
