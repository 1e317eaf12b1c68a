//! The recovery flow of V8R6 when something is wrong, on three real nodes under repmgr, over real ssh.
//!
//!     node1 (primary) ──> node2 (standby)
//!                     └─> node3 (standby)

use crate::harness::{
    AsServerUser, ControlData, RepmgrCluster, Sandbox, Tree, assert_logged, copy_tree, kill_at_each,
};
use crate::hook_v8r6::fail_over;

/// All servers are down: the one that was the primary brings the cluster up, unless that is switched off. Then two nodes
/// are primaries: nothing is done for a third that is down, and the second does not take the virtual address.
#[test]
fn all_nodes_down_and_two_primaries() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    set_virtual_address(&cluster);
    // From a time when it was the primary.
    cluster.write(&cluster.home(2).join("net/addresses"), "2: eth0 inet 192.0.2.9/24\n");
    for node in 1..=3 {
        assert_eq!(cluster.look(node).code, 0);
    }
    assert_eq!([1, 2, 3].map(|node| cluster.addresses(node)), [HELD, "", ""]);

    a_primary_that_does_not_answer_keeps_its_address(&cluster);
    the_cluster_is_brought_up_by_its_primary(&cluster);
    assert_eq!([1, 2, 3].map(|node| cluster.addresses(node)), [HELD, "", ""]);
    two_primaries_are_left_alone(&cluster);
    a_person_has_decided_which_one_stays(&cluster);
}

/// The virtual address of node 1, as it is shown.
pub const HELD: &str = "2: eth0 inet 192.0.2.9/24 label eth0:2\n";

/// Configures the virtual address on all nodes.
pub fn set_virtual_address(cluster: &RepmgrCluster) {
    for node in 1..=3 {
        let programs = cluster.fake_ip(node).display().to_string();
        cluster.set(node, "virtual_ip", "192.0.2.9/24");
        cluster.set(node, "net_device", "eth0");
        cluster.set(node, "ipaddr_path", &programs);
        cluster.set(node, "arping_path", &programs);
    }
}

fn a_primary_that_does_not_answer_keeps_its_address(cluster: &RepmgrCluster) {
    // A question that the primary does not answer is no reason to leave the address.
    let conninfo = |user: &str| {
        format!("host=127.0.0.1 port={} user={user} dbname=repmgr connect_timeout=5", cluster.port)
    };
    cluster.set(1, "conninfo", &conninfo("nobody_here"));
    assert_eq!(cluster.look(1).code, 0);
    assert_eq!(cluster.addresses(1), HELD);
    assert!(cluster.log(1).contains("but does not respond: no action is taken"), "{}", cluster.log(1));
    cluster.set(1, "conninfo", &conninfo("postgres"));
}

fn the_cluster_is_brought_up_by_its_primary(cluster: &RepmgrCluster) {
    for node in [2, 3, 1] {
        cluster.kill_node(node);
    }
    cluster.set(1, "auto_cluster_recovery_level", "0");
    assert_eq!(cluster.look(1).code, 0);
    assert_eq!((cluster.process(1), cluster.addresses(1).as_str()), (None, ""));
    cluster.set(1, "auto_cluster_recovery_level", "1");
    // A node that cannot be reached may be a primary: after so many tries that is a person's matter, and told once.
    let configuration = std::fs::read_to_string(cluster.conf(1)).expect("read repmgr.conf");
    cluster.set(1, "remote_command", "exit 255");
    cluster.set(1, "recovery_max_attempts", "1");
    assert_eq!(cluster.look_times(1, 3).code, 0);
    let told = "could not start the cluster in 1 attempt(s): manual recovery is required";
    assert_eq!(cluster.log(1).matches(told).count(), 1, "{}", cluster.log(1));
    assert_eq!([1, 2, 3].map(|node| cluster.process(node)), [None; 3]);
    cluster.write(&cluster.conf(1), &configuration);
    // A standby brings nothing up, and neither does a primary beside another one.
    assert_eq!(cluster.look(2).code, 0);
    let signal = cluster.data(3).join("standby.signal");
    std::fs::remove_file(&signal).expect("remove standby.signal");
    assert_eq!(cluster.look(1).code, 0);
    assert!(cluster.log(1).contains("there is more than one primary, do nothing"), "{}", cluster.log(1));
    assert_eq!([1, 2, 3].map(|node| cluster.process(node)), [None; 3]);
    cluster.write(&signal, "");
    // A server that answers nobody may be a primary to others.
    let mut sleep = std::process::Command::new("sleep");
    sleep.arg("60").as_server_user().current_dir(cluster.data(3));
    let mut server = sleep.spawn().expect("run sleep");
    cluster.write(&cluster.data(3).join("postmaster.pid"), &format!("{}\n", server.id()));
    assert_eq!(cluster.look(1).code, 0);
    server.kill().and_then(|()| server.wait()).expect("end sleep");
    assert!(
        cluster.log(1).contains("but the server of node \"node3\" (ID: 3) is running"),
        "{}",
        cluster.log(1)
    );
    assert_eq!([1, 2, 3].map(|node| cluster.process(node)), [None; 3]);
    assert_eq!(cluster.look_times(1, 2).code, 0);
    assert!(cluster.log(1).contains("starting the cluster"), "{}", cluster.log(1));
    cluster.wait("the standbys to stream", || cluster.streaming(1) == ["node2", "node3"]);
}

fn two_primaries_are_left_alone(cluster: &RepmgrCluster) {
    cluster.kill_node(3);
    // The new primary comes to no checkpoint: its control file keeps naming the timeline of before.
    let checkpointer =
        cluster.column(2, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    let stopped =
        std::process::Command::new("kill").args(["-STOP", &checkpointer[0]]).status().expect("run kill");
    assert!(stopped.success());
    cluster.sql(2, "SELECT pg_promote()");
    cluster.wait("node 2 to be a primary", || cluster.column(2, "SELECT pg_is_in_recovery()") == ["f"]);
    let processes = [1, 2].map(|node| cluster.process(node));
    let before = cluster.log(1).len();
    for node in [1, 2] {
        assert_eq!(cluster.look(node).code, 0);
    }
    let (first, second) = (cluster.log(1)[before..].to_owned(), cluster.log(2));
    for log in [&first, &second] {
        assert!(log.contains("there may be multiple nodes running as primary"), "{log}");
        assert!(!log.contains("auto-recovery: "), "{log}");
    }
    assert!(second.contains("is not added: node \"node1\" (ID: 1) is also a primary"), "{second}");
    assert_eq!([1, 2].map(|node| cluster.process(node)), processes);
    assert_eq!((cluster.process(3), cluster.addresses(2).as_str()), (None, ""));
}

/// The other's timeline is ahead, as the names of its WAL files tell.
fn a_person_has_decided_which_one_stays(cluster: &RepmgrCluster) {
    cluster.kill_node(2);
    assert_eq!(ControlData::of(&cluster.data(2)).get("Latest checkpoint's TimeLineID"), "1");
    let run = cluster.hook(2, &["rejoin", "-h", "127.0.0.1", "--force-rewind"]);
    assert_eq!(run.code, 1, "{run}");
    assert_logged(
        &run.stderr,
        &[
            "[DETAIL] this node's timeline is 2, rejoin target node's timeline is 1",
            "[ERROR] this node's timeline is ahead of the rejoin target node's timeline",
        ],
    );
    let run = cluster.hook(2, &["rejoin", "-h", "127.0.0.1", "--force-rewind", "--no-check-wal"]);
    assert_eq!(run.code, 0, "{run}");
    cluster.wait("the standbys to stream", || cluster.streaming(1) == ["node2"]);
}

/// A rejoin that is killed before or after the action of any step is simply called again, and so is one whose rewind ends
/// because the disk is full, or is killed: no server starts on what it leaves.
#[test]
fn a_killed_rejoin_is_called_again() {
    const STEPS: [&str; 5] = ["rewind", "slots", "settings", "start", "register"];
    let rejoin = ["rejoin", "-h", "127.0.0.2", "--force-rewind"];
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    fail_over(&cluster);
    // The new primary waits for a standby that is not there.
    cluster.sql(2, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    cluster.sql(2, "SELECT pg_reload_conf()");
    // What is saved before the first change would count among the steps at which the disk is full.
    cluster.set(1, "keep_diverged_dir", "off");
    let before = Tree::of(&cluster.data(1));
    let (slots, slots_before) = (cluster.data(1).join("pg_replslot"), cluster.dir.join("slots"));
    copy_tree(&slots, &slots_before);
    let call = |step: &str, moment: &str| {
        if (step, moment) == ("rewind", "done") {
            rewind_ends_early(&cluster, &rejoin, &before);
        }
        if (step, moment) == ("slots", "begin") {
            // The rewind has taken them away; after one that was not needed they would still be there.
            std::fs::remove_dir(&slots).expect("remove the directory of slots");
            copy_tree(&slots_before, &slots);
            // A removal that was interrupted: no server would start with this.
            cluster.make_dir(&slots.join("half_removed"));
        }
        cluster.hook_command(1, &rejoin)
    };
    kill_at_each(&STEPS, call, || cluster.log(1));
    let run = cluster.hook(1, &rejoin);
    assert_eq!(run.code, 0, "{run}");
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    let registered = "SELECT type || upstream_node_id FROM repmgr.nodes WHERE node_id = 1";
    assert_eq!(cluster.column_in("repmgr", 2, registered), ["standby2"]);
    // Those of its time as the primary would keep WAL for ever.
    assert!(cluster.column(1, "SELECT slot_name FROM pg_replication_slots").is_empty());
}

fn rewind_ends_early(cluster: &RepmgrCluster, rejoin: &[&str], before: &Tree) {
    let faulty = |fault: &str| {
        let mut run = cluster.hook_command(1, rejoin);
        run.env("KBRECOVER_FAULT", fault).output().expect("run kbrecover hook").status.code()
    };
    assert_eq!(faulty("1+:28"), Some(1), "{}", cluster.log(1));
    let log = cluster.log(1);
    assert!(
        log.contains("No space left on device") && log.contains("the data directory is unchanged"),
        "{log}"
    );
    before.assert_unchanged(&cluster.data(1), &log);
    assert_eq!(faulty("40+:28"), Some(1), "{}", cluster.log(1));
    assert!(cluster.log(1).contains("the rewind is unfinished, run the rejoin again"), "{}", cluster.log(1));
    assert_eq!(faulty("5:kill"), None, "{}", cluster.log(1));
    let run = cluster.hook(1, &["startdb", "--format", "json"]);
    assert_eq!((run.code, cluster.process(1)), (1, None), "{run}");
    assert!(run.stderr.contains("no server can start on it"), "{run}");
    let error = run.json()["error"].to_string();
    assert!(error.contains("no server can start on it"), "{run}");
}

/// A node that cannot be reached is tried ever more rarely, and then left to a person.
#[test]
fn failures_are_counted() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.kill_node(2);
    cluster.wait("the primary to see it", || cluster.streaming(1) == ["node3"]);
    cluster.set(1, "remote_command", "echo no way to %h >&2; exit 255");
    cluster.set(1, "recovery_max_attempts", "2");
    assert_eq!(cluster.look_times(1, 9).code, 0);
    let log = cluster.log(1);
    assert_logged(
        &log,
        &[
            "unable to connect via ES to host \"127.0.0.2\", can't confirm if it's a standby node",
            "can not do auto-recovery because not confirmed a standby node",
            "next attempt in 2 seconds",
            "next attempt in 4 seconds",
            "[ERROR] node \"node2\" (ID: 2) could not be recovered in 2 attempt(s): manual recovery is required",
        ],
    );
    assert_eq!(log.matches("auto-recovery failed").count(), 2, "{log}");
    assert_eq!(log.matches("manual recovery is required").count(), 1, "{log}");
    assert_eq!(log.matches("child node: 2; attached: no").count(), 1, "{log}");

    // A standby that the primary knows by another name is left as it is.
    let renamed = format!("host=127.0.0.1 port={} user=postgres application_name=of_old", cluster.port);
    cluster.sql(3, &format!("ALTER SYSTEM SET primary_conninfo = '{renamed}'"));
    cluster.sql(3, "SELECT pg_reload_conf()");
    cluster.wait("the other name", || cluster.streaming(1) == ["of_old"]);
    let process = cluster.process(3);
    assert_eq!(cluster.look_times(1, 3).code, 0);
    let log = cluster.log(1);
    let told = "node \"node3\" (ID: 3) is running as a standby but is not attached: no action is taken";
    assert_eq!((log.matches(told).count(), cluster.process(3)), (1, process), "{log}");

    // A node without the program is not taken for one that is no standby.
    cluster.set(1, "remote_command", "exit 127");
    cluster.set_recovery("automatic");
    assert_eq!(cluster.look(1).code, 0);
    let log = cluster.log(1);
    assert!(
        log.contains("could not determine whether the node is a standby")
            || log.contains("unable to connect"),
        "{log}"
    );
    assert!(!log.contains("NODE REJOIN"), "{log}");

    // A start that seems to succeed but never helps is tried no more often.
    cluster.set(1, "remote_command", "exit 0");
    assert_eq!(cluster.look_times(1, 6).code, 0);
    let log = cluster.log(1);
    assert_eq!(log.matches("auto-recovery: START DATABASE").count(), 2, "{log}");
}

/// Without `log_file` the log is standard error, whatever that is: a socket cannot be opened by name. Root is refused.
#[test]
fn a_log_that_is_no_file() {
    let sandbox = Sandbox::new();
    let conf = sandbox.path("repmgr.conf");
    let data = conf.with_file_name("data");
    std::fs::create_dir(&data).expect("make the data directory");
    let text = format!("node_id=1\nnode_name=a\nconninfo='host=a'\ndata_directory='{}'\n", data.display());
    std::fs::write(&conf, text).expect("write repmgr.conf");
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("make a socket");
    let mut run = crate::harness::command(["hook", "v8r6", "-f"]);
    run.arg(&conf).arg("startdb").stderr(std::os::fd::OwnedFd::from(theirs));
    assert_eq!(run.status().expect("run kbrecover hook").code(), Some(1));
    drop(run);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut ours, &mut said).expect("read the log");
    assert_eq!(said.matches("begin to start server at").count(), 1, "{said}");
    let logfile = format!("-l {} start", data.with_file_name("logfile").display());
    assert!(said.contains(&logfile), "{said}");

    if crate::harness::is_root() {
        let mut run = std::process::Command::new(crate::harness::binary());
        let run =
            run.args(["hook", "v8r6", "-f"]).arg(&conf).arg("daemon").output().expect("run kbrecover hook");
        assert_eq!(run.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&run.stderr).contains("cannot be executed by \"root\""), "{run:?}");
        assert!(!conf.with_file_name("kbha.pid").exists());
    }
}

/// One start or rejoin of a node at a time, whoever asks; and one that is ended ends what it has started, also what takes
/// no notice of SIGTERM.
#[test]
fn one_at_a_time_and_nothing_is_left_behind() {
    let sandbox = Sandbox::new();
    let home = sandbox.make_dir("home");
    let (conf, mark) = (home.join("repmgr.conf"), home.join("mark"));
    let text = format!(
        "node_id=1\nnode_name=a\nconninfo='host=127.0.0.1 port=1'\ndata_directory='{}'\n\
         service_start_command='(trap \"\" TERM; exec sleep 600) & echo $! > {}; wait'\n",
        home.join("data").display(),
        mark.display()
    );
    std::fs::create_dir(home.join("data")).expect("make the data directory");
    std::fs::write(&conf, text).expect("write repmgr.conf");
    let call = |arguments: &[&str]| {
        let mut run = crate::harness::command(["hook", "v8r6", "-f"]);
        run.arg(&conf).args(arguments).stderr(std::process::Stdio::piped());
        run
    };
    let started = call(&["startdb"]).spawn().expect("run kbrecover hook");
    let holder = format!("a start or rejoin of this node is already running (process {})", started.id());
    let (status, said) = crate::harness::end_with_children(started, &mark, || {
        for (arguments, is_kept_away) in [
            (&["startdb"][..], true),
            (&["rejoin", "-h", "127.0.0.1"], true),
            (&["rejoin", "-h", "127.0.0.1", "--dry-run"], false),
        ] {
            let run = crate::harness::run_command(call(arguments));
            assert_eq!((run.code, run.stderr.contains(&holder)), (1, is_kept_away), "{arguments:?} {run}");
        }
    });
    assert_ne!(status.code(), Some(0), "{said}");
    assert!(said.contains("received SIGTERM, stopping; the next run continues"), "{said}");
}

/// Up to 11 a server stays in the group of the program that starts it: that one is not ended with the run.
#[test]
fn a_server_that_is_being_started_goes_on() {
    let sandbox = Sandbox::new();
    let home = sandbox.make_dir("home");
    let (conf, program) = (home.join("repmgr.conf"), home.join("pg_ctl"));
    let (begun, ended) = (home.join("begun"), home.join("ended"));
    let text = format!(
        "node_id=1\nnode_name=a\nconninfo='host=127.0.0.1 port=1'\ndata_directory='{0}/data'\npg_bindir='{0}'\n",
        home.display()
    );
    std::fs::create_dir(home.join("data")).expect("make the data directory");
    std::fs::write(&conf, text).expect("write repmgr.conf");
    let script = format!("#!/bin/sh\ntouch {}\nsleep 4\ntouch {}\n", begun.display(), ended.display());
    std::fs::write(&program, script).expect("write pg_ctl");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("make pg_ctl executable");
    let mut run = crate::harness::command(["hook", "v8r6", "-f"]);
    let mut run = run
        .arg(&conf)
        .arg("startdb")
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("run kbrecover hook");
    let wait_for = |path: &std::path::Path| {
        let is_there = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            path.exists()
        });
        assert!(is_there, "{} is not there", path.display());
    };
    wait_for(&begun);
    let killed = std::process::Command::new("kill").arg(run.id().to_string()).status().expect("run kill");
    assert!(killed.success());
    assert_eq!(run.wait().expect("wait for kbrecover hook").code(), None);
    assert!(!ended.exists(), "it was waited for");
    wait_for(&ended);
}

/// Every connection is encrypted and asks for a password: those of the flow, of the engine, and of the standby.
#[test]
fn servers_that_insist_on_tls() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.sql(1, "CREATE ROLE esrep SUPERUSER LOGIN PASSWORD 'of-the-cluster'");
    let passwords = cluster.dir.join("passwords");
    cluster.write(&passwords, "*:*:*:esrep:of-the-cluster\n");
    std::process::Command::new("chmod").arg("600").arg(&passwords).status().expect("run chmod");
    for node in 1..=3 {
        cluster.use_tls(
            node,
            "hostssl all,replication esrep all scram-sha-256\nhost all,replication esrep all reject\n",
        );
        let conninfo = format!(
            "host=127.0.0.{node} port={} user=esrep dbname=repmgr connect_timeout=5 sslmode=require passfile={}",
            cluster.port,
            passwords.display()
        );
        cluster.set(node, "conninfo", &conninfo);
        let update = format!("UPDATE repmgr.nodes SET conninfo = '{conninfo}' WHERE node_id = {node}");
        cluster.execute_in("repmgr", 1, &update);
    }
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    fail_over(&cluster);
    cluster.set_recovery("automatic");
    assert_eq!(cluster.look(2).code, 0);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    let log = cluster.log(1);
    assert_logged(&log, &["Done!", "NODE REJOIN successful"]);
    assert!(!log.contains("of-the-cluster") && !cluster.log(2).contains("of-the-cluster"), "{log}");
    let encrypted = "SELECT s.ssl FROM pg_stat_ssl AS s JOIN pg_stat_replication AS r USING (pid)";
    assert_eq!(cluster.column(2, encrypted), ["t"]);
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
}
