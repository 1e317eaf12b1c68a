//! The recovery flow of V8R3 when something is wrong: on the node, in the network, with the pool, or with the run itself.
//!
//!     pool ── node1 (primary) ──> node2 (standby)
//!                             └─> node3 (standby)

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::{PoolCluster, Sandbox, Tree, kill_at_each};
use crate::hook_v8r3::fail_over;

/// Reasons to refuse are looked at before anything is stopped, and no password gets into a log.
#[test]
fn what_must_not_go_on_stops_nothing() {
    let sandbox = Sandbox::new();
    let mut cluster = PoolCluster::start(&sandbox);
    addresses_of_another_node(&cluster);
    cluster.sql(1, "CREATE ROLE plain LOGIN");
    cluster.sql(2, "SELECT pg_create_physical_replication_slot('slot_node1')");
    cluster.catch_up(2, 1);
    // Node 2 runs but does not receive: it must be recovered.
    cluster.sql(2, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'");
    cluster.sql(2, "SELECT pg_reload_conf()");
    cluster.wait("the standby to be alone", || cluster.streaming(1) == ["node3"]);
    let process = cluster.process(2);
    taken_note_of_by_the_first_run(&cluster);
    waits_after_two_failures(&cluster);
    wrong_settings(&cluster);
    no_password_is_told(&cluster);
    assert_eq!(cluster.process(2), process, "the server was stopped meanwhile");

    // A person does not wait.
    let run = cluster.hook(2, &["--force"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    cluster.wait("the standbys to stream", || cluster.streaming(1) == ["node2", "node3"]);
    assert_eq!(cluster.hook(2, &[]).code, 0, "{}", cluster.log(2));
    assert!(!note(&cluster).exists(), "a standby that receives again is begun with anew");

    let process = cluster.process(2);
    cluster.stop_pool();
    let run = cluster.hook(2, &[]);
    assert_eq!((run.code, cluster.process(2)), (66, process), "{run}");
}

/// Node 2's flow ends with this code and these words, and its server goes on.
fn refused_with(arguments: &[&str], cluster: &PoolCluster, code: i32, words: &str) {
    let process = cluster.process(2);
    let run = cluster.hook(2, arguments);
    assert_eq!(run.code, code, "{run}\n{}", cluster.log(2));
    assert!(
        cluster.log(2).contains(words) || run.stderr.contains(words),
        "no {words:?} in\n{}\n{run}",
        cluster.log(2)
    );
    assert!(process.is_some(), "no server runs");
    assert_eq!(cluster.process(2), process, "the server was stopped: {words}");
}

fn refused(cluster: &PoolCluster, code: i32, words: &str) {
    refused_with(&[], cluster, code, words);
}

/// Where a run leaves word for the next one.
fn note(cluster: &PoolCluster) -> PathBuf {
    cluster.home(2).join("run/KB_RECOVERY_STANDSTILL")
}

/// The primary may just have been restarted: the first run only takes note, and a dry run not even that.
fn taken_note_of_by_the_first_run(cluster: &PoolCluster) {
    assert_eq!(cluster.hook(2, &["--dry-run"]).code, 1);
    refused(cluster, 1, "does not receive WAL from the primary, the next run checks it again");
    // Another position than the run before saw.
    let (note, process) = (note(cluster), cluster.process(2));
    let seen = std::fs::read_to_string(&note).expect("read the note");
    cluster.write(&note, &seen.replace("0/", "1/"));
    let log = cluster.log(2);
    let run = cluster.hook(2, &["--format", "json"]);
    assert!(
        run.code == 1 && run.stdout.contains("but its replay position has changed since the previous run"),
        "{run}"
    );
    assert_eq!((cluster.process(2), cluster.log(2)), (process, log), "it was told before");
    assert_eq!(std::fs::read_to_string(&note).expect("read the note"), seen);
}

/// It fails twice in a row: the third try waits, and says nothing about that each minute.
fn waits_after_two_failures(cluster: &PoolCluster) {
    let process = cluster.process(2);
    let template = cluster.home(2).join("db/etc/recovery.done");
    let aside = cluster.home(2).join("db/etc/recovery.aside");
    std::fs::rename(&template, &aside).expect("take the template away");
    refused(cluster, 66, "recovery.done\" is missing");
    // With a value in GBK it would name another directory.
    let text = std::fs::read(&aside).expect("read the template");
    let text = [&text, &b"\nrestore_command = 'cp /\xCA\xFD/%f %p'\n"[..]].concat();
    std::fs::write(&template, text).expect("write a template");
    refused(cluster, 66, "the value of restore_command is not UTF-8");
    let log = cluster.log(2);
    let run = cluster.hook(2, &["--format", "json"]);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stdout.contains("recovery has failed 2 times in a row: the next attempt is in"), "{run}");
    assert_eq!(cluster.log(2), log);
    assert_eq!(cluster.process(2), process);
    std::fs::rename(&aside, &template).expect("put the template back");
}

fn wrong_settings(cluster: &PoolCluster) {
    // Its slots are noted beside the data directory.
    let beside = cluster.home(2).join("db");
    let allow = |mode| std::fs::set_permissions(&beside, Permissions::from_mode(mode)).expect("chmod");
    allow(0o555);
    refused_with(&["--force"], cluster, 66, "could not record the replication slots of this node");
    allow(0o755);

    // Whether the primary is this very server is not told to everybody.
    cluster.set(2, "KB_USER", "plain");
    refused_with(&["--force"], cluster, 66, "permission denied for function pg_read_binary_file");
    cluster.set(2, "KB_USER", "postgres");

    cluster.set(2, "KB_GATEWAY_IP", "not-a-host.invalid");
    refused(cluster, 1, "none of the trusted gateways responds");
    cluster.set(2, "KB_GATEWAY_IP", "127.0.0.1");

    cluster.set(2, "ALL_NODE_NAME", "");
    refused(cluster, 66, "does not set ALL_NODE_NAME");
    cluster.set(2, "ALL_NODE_NAME", "(node1 node2 node3)");
}

/// A role that the servers ask for a password, with a wrong one: c2VjcmV0LXdvcmQ= is "secret-word".
fn no_password_is_told(cluster: &PoolCluster) {
    for node in 1..=3 {
        let hba = std::fs::read_to_string(cluster.data(node).join("pg_hba.conf")).expect("read pg_hba.conf");
        cluster.write(
            &cluster.data(node).join("pg_hba.conf"),
            &format!("host all flow all scram-sha-256\n{hba}"),
        );
    }
    cluster.sql(1, "CREATE ROLE flow SUPERUSER LOGIN PASSWORD 'another-word'");
    cluster.sql(1, "SELECT pg_reload_conf()");
    cluster.set(2, "KB_USER", "flow");
    cluster.set(2, "KB_PASS", "c2VjcmV0LXdvcmQ=");
    refused(cluster, 66, "ksql execute failed");
    let log = cluster.log(2);
    assert!(!log.contains("secret-word") && !log.contains("c2VjcmV0"), "{log}");
    cluster.set(2, "KB_USER", "postgres");
    cluster.set(2, "KB_PASS", "");
}

/// The primary with the address of another node in its configuration is not taken for an old primary, and a standby with
/// the primary's address not for the primary.
fn addresses_of_another_node(cluster: &PoolCluster) {
    let processes = [1, 2].map(|node| cluster.process(node));
    cluster.set(1, "KB_LOCALHOST_IP", "127.0.0.2");
    cluster.set(2, "KB_LOCALHOST_IP", "127.0.0.1");
    // In a directory with a name in GBK.
    let lock_file = cluster.data(1).join("postmaster.pid");
    let old = std::fs::read(&lock_file).expect("read the lock file");
    let mut lines: Vec<_> = old.split(|byte| *byte == b'\n').collect();
    lines[1] = b"/\xb6\xcb";
    std::fs::write(&lock_file, lines.join(&b'\n')).expect("write the lock file");
    let run = cluster.hook(1, &["--force"]);
    std::fs::write(&lock_file, old).expect("write the lock file");
    let log = cluster.log(1);
    assert!(run.code == 1 && log.contains("is this node's own server"), "{run}\n{log}");

    for node in [1, 2] {
        let programs = cluster.fake_ip(node).display().to_string();
        for (key, value) in [("KB_VIP", "192.0.2.9/24"), ("DEV", "eth0"), ("CMD_IP_PATH", &programs)] {
            cluster.set(node, key, value);
        }
    }
    let held = "2: eth0 inet 192.0.2.9/24\n";
    cluster.write(&cluster.home(1).join("net/addresses"), held);
    for node in [1, 2] {
        let run = cluster.hook(node, &[]);
        assert_eq!(run.code, 1, "{run}\n{}", cluster.log(node));
    }
    assert!(cluster.log(2).contains("but its server is a standby"), "{}", cluster.log(2));
    assert_eq!([1, 2].map(|node| cluster.addresses(node)), [held, ""]);
    assert_eq!([1, 2].map(|node| cluster.process(node)), processes);
    cluster.set(2, "KB_LOCALHOST_IP", "127.0.0.2");
}

/// A healthy server is stopped for a dead gateway or a dead disk only where the configuration says so.
#[test]
fn a_server_is_stopped_only_if_that_is_configured() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    let process = cluster.process(2);
    cluster.set(2, "KB_GATEWAY_IP", "not-a-host.invalid");
    assert_eq!(cluster.hook(2, &[]).code, 1);
    assert_eq!(cluster.process(2), process);
    cluster.set(2, "STOP_DB_WITHOUT_GATEWAY", "1");
    let programs = cluster.fake_ip(2).display().to_string();
    for (key, value) in [("KB_VIP", "192.0.2.9/24"), ("DEV", "eth0"), ("CMD_IP_PATH", &programs)] {
        cluster.set(2, key, value);
    }
    cluster.write(&cluster.home(2).join("net/addresses"), "2: eth0 inet 192.0.2.9/24\n");
    assert_eq!(cluster.hook(2, &[]).code, 66);
    assert_eq!((cluster.process(2), cluster.addresses(2).as_str()), (None, ""), "{}", cluster.log(2));
    cluster.set(2, "KB_GATEWAY_IP", "127.0.0.1");
    cluster.wait_for_pool(2, false);
    let run = cluster.hook(2, &["--force"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));

    let process = cluster.process(2);
    cluster.set(2, "MOUNT_POINT_DIR_LIST", "(/nonexistent/mount)");
    cluster.set(2, "USE_CHECK_DISK", "0");
    let run = cluster.hook(2, &[]);
    assert_eq!((run.code, cluster.process(2)), (0, process), "{run}\n{}", cluster.log(2));
    cluster.set(2, "USE_CHECK_DISK", "1");
    assert_eq!(cluster.hook(2, &[]).code, 66);
    assert_eq!(cluster.process(2), None, "{}", cluster.log(2));
    assert!(
        cluster.log(2).contains("could not write to directory \"/nonexistent/mount\""),
        "{}",
        cluster.log(2)
    );
}

/// The primary knows a standby by another name: it is left alone, and that is said once.
#[test]
fn a_standby_of_another_name_is_left_alone() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    cluster.set(2, "NODE_NAME", "node2_of_old");
    let process = cluster.process(2);
    for _ in 0..3 {
        let run = cluster.hook(2, &[]);
        assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    }
    assert_eq!(cluster.process(2), process);
    assert_eq!(cluster.log(2).matches("has no row for application_name").count(), 1, "{}", cluster.log(2));

    // A person is told that another run is at work; cron comes again.
    let lock = std::fs::File::open(cluster.home(2).join("run/kb.lock")).expect("open the lock file");
    lock.lock().expect("take the lock");
    let codes = [&[][..], &["--force"], &["--dry-run"]].map(|arguments| cluster.hook(2, arguments).code);
    assert_eq!(codes, [0, 1, 1]);
    // One that cannot be used, as another user's, ends each run: the log says so.
    let mut run = crate::harness::command(["hook", "v8r3", "--run-dir", "/nonexistent", "--config"]);
    run.arg(cluster.module(2));
    let run = crate::harness::run_command(run);
    assert_eq!(run.code, 66, "{run}");
    assert!(cluster.log(2).contains("could not use file \"/nonexistent/kb.lock\""), "{}", cluster.log(2));

    // Cron is told of it only for the owner of the data directory.
    let data = cluster.data(2);
    let owner = std::process::Command::new("stat").args(["-c", "%U"]).arg(&data).output().expect("run stat");
    let owner = String::from_utf8(owner.stdout).expect("the owner's name");
    let file = cluster.home(2).join("run/KINGBASECRON");
    let install = |user: &str| {
        cluster.hook(2, &["install", "--cron-file", file.to_str().expect("a UTF-8 path"), "--user", user])
    };
    for other in ["daemon", "nobody-of-this-name"] {
        let run = install(other);
        assert_eq!((run.code, file.exists()), (1, false), "{run}");
    }
    // A line of cron has no quotes, and % ends a command.
    for name in ["a b.conf", "a%b.conf"] {
        let odd = cluster.home(2).join("run").join(name);
        std::fs::copy(cluster.module(2), &odd).expect("copy HAmodule.conf");
        let mut run = crate::harness::command(["hook", "v8r3", "--config"]);
        run.arg(&odd).args(["install", "--user", owner.trim(), "--cron-file"]).arg(&file);
        let run = crate::harness::run_command(run);
        assert_eq!((run.code, file.exists()), (1, false), "{run}");
        assert!(run.stderr.contains("the path must not contain a space or \"%\""), "{run}");
    }
    let call = |action: &str| {
        let path = file.to_str().expect("a UTF-8 path");
        let run = cluster.hook(2, &[action, "--cron-file", path, "--format", "json"]);
        (run.code, run.json()["state"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(call("status"), (3, "not installed".to_owned()));
    let run = install(owner.trim());
    assert_eq!((run.code, file.exists()), (0, true), "{run}");
    assert_eq!(call("status"), (0, "enabled".to_owned()));
    assert_eq!(call("disable"), (0, "disabled".to_owned()));
    assert_eq!(call("status"), (3, "disabled".to_owned()));
}

/// A run that is killed before or after the action of any step is simply run again; so is one whose rewind is killed, or
/// ends because the disk is full: the server is not started on what it leaves.
#[test]
fn a_killed_run_is_run_again() {
    const STEPS: [&str; 9] = [
        "slots",
        "rewind",
        "configuration",
        "recovery settings",
        "slot on the primary",
        "start",
        "slots of this node",
        "synchronous standbys",
        "attach",
    ];
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    fail_over(&cluster);
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    // What is saved before the first change would count among the steps at which the disk is full.
    cluster.set(1, "KEEP_DIVERGED_DIR", "off");
    // The standby that is left still runs when it has to be recovered.
    for step in ["detach", "stop"] {
        for moment in ["begin", "done"] {
            let mut run = cluster.hook_command(3, &["--force"]);
            let output = run
                .env("KBRECOVER_STEP_FAULT", format!("{step}:{moment}"))
                .output()
                .expect("run kbrecover hook");
            assert_eq!(output.status.code(), None, "{step}:{moment}\n{}", cluster.log(3));
        }
    }
    let run = cluster.hook(3, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(3));
    cluster.wait("the standby to stream", || cluster.streaming(2).contains(&"node3".to_owned()));

    // The mode of the old primary is among what is changed.
    let auto = cluster.data(1).join("postgresql.auto.conf");
    cluster.write(&auto, "synchronous_standby_names = ''\n");

    // What an earlier run has done is not done again.
    let call = |step: &str, moment: &str| {
        if (step, moment) == ("rewind", "done") {
            rewind_ends_early(&cluster);
        }
        if (step, moment) == ("slots", "done") {
            // As if the run before had been killed between one slot and the next.
            cluster.write(&cluster.home(1).join("db/tmp_slot"), "slot_node2\n");
            std::fs::remove_dir_all(cluster.data(1).join("pg_replslot/slot_node2")).expect("remove a slot");
        }
        if step == "synchronous standbys" {
            cluster.sql(2, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"node1\", \"node3\")'");
            cluster.sql(2, "SELECT pg_reload_conf()");
        }
        cluster.hook_command(1, &["--force"])
    };
    kill_at_each(&STEPS, call, || cluster.log(1));
    kill_while_it_does_not_stream(&cluster);
    let run = cluster.hook(1, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    let log = cluster.log(1);
    assert!(log.contains("Something interrupted the last recovery. Go on this time"), "{log}");
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    cluster.wait_for_pool(1, true);
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    let slots = "SELECT slot_name FROM pg_replication_slots ORDER BY 1";
    assert_eq!(cluster.column(1, slots), ["slot_node2", "slot_node3"]);
}

/// The step "streaming" has something to do only while the primary does not let the standby in.
fn kill_while_it_does_not_stream(cluster: &PoolCluster) {
    let hba = cluster.data(2).join("pg_hba.conf");
    let old = std::fs::read_to_string(&hba).expect("read pg_hba.conf");
    let told = "streaming: wait until this node receives WAL from the primary";
    for moment in ["begin", "done"] {
        cluster.stop_node(1);
        // Else it would notice in the middle of what follows, and answer nobody for a while.
        cluster.wait_for_pool(1, false);
        cluster.write(&hba, &format!("host replication all all reject\n{old}"));
        cluster.sql(2, "SELECT pg_reload_conf()");
        let before = cluster.log(1).matches(told).count();
        let mut run = cluster.hook_command(1, &["--force"]);
        run.env("KBRECOVER_STEP_FAULT", format!("streaming:{moment}"));
        let mut run = run.spawn().expect("run kbrecover hook");
        cluster.wait("the step to begin", || cluster.log(1).matches(told).count() > before);
        cluster.write(&hba, &old);
        cluster.sql(2, "SELECT pg_reload_conf()");
        let status = run.wait().expect("wait for kbrecover hook");
        assert_eq!(status.code(), None, "streaming:{moment}\n{}", cluster.log(1));
    }
}

/// Twice a rewind does not come to its end: the disk is full from the first change on, and then the run is killed.
fn rewind_ends_early(cluster: &PoolCluster) {
    let before = Tree::of(&cluster.data(1));
    let mut run = cluster.hook_command(1, &["--force"]);
    let output = run.env("KBRECOVER_FAULT", "1+:28").output().expect("run kbrecover hook");
    assert_eq!(output.status.code(), Some(66), "{}", cluster.log(1));
    let log = cluster.log(1);
    assert!(log.contains("No space left on device"), "{log}");
    assert!(log.contains("the data directory is unchanged: the server is not started"), "{log}");
    before.assert_unchanged(&cluster.data(1), &log);

    let mut run = cluster.hook_command(1, &["--force"]);
    let output = run.env("KBRECOVER_FAULT", "40+:28").output().expect("run kbrecover hook");
    assert_eq!(output.status.code(), Some(66), "{}", cluster.log(1));
    let log = cluster.log(1);
    assert!(log.contains("the rewind is unfinished: the server is not started"), "{log}");
    let mut run = cluster.hook_command(1, &["--force"]);
    let output = run.env("KBRECOVER_FAULT", "5:kill").output().expect("run kbrecover hook");
    assert_eq!(output.status.code(), None, "{}", cluster.log(1));
    assert_eq!(cluster.process(1), None);
}
