//! The daemon: on the primary, it brings back the nodes that are missing.
//!
//! It runs on every node, and acts only where the server is the primary. Nothing is done on a node unless it is
//! certain what it is: a standby is started only if its directory says that it is one, an old primary is rejoined
//! only if the configuration says `automatic`, and nothing is done at all while two nodes say that they are
//! primaries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cluster::{self, NodeRecord};
use super::log::{Level, say, thread};
use super::remote::{self, quoted};
use super::{Recovery, RepmgrConf, start_database};
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;

/// What the daemon is given.
pub struct DaemonRequest<'a> {
    /// This node's configuration.
    pub config: &'a RepmgrConf,
    /// How this program is called on the other nodes: its path there.
    pub program: &'a str,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Looks this often, or for ever.
    pub rounds: Option<u32>,
}

/// What the daemon remembers of a node that is missing.
#[derive(Default)]
struct Missing {
    failures: u32,
    next_try: Option<Instant>,
    /// Why nothing was done, so that it is said once.
    said: Option<String>,
}

/// Looks after the cluster, `rounds` times or for ever.
pub fn daemon(request: &DaemonRequest<'_>) {
    let mut missing: BTreeMap<i32, Missing> = BTreeMap::new();
    let mut own = Missing::default();
    let mut rounds = 0;
    say(
        request.log,
        Level::Notice,
        &format!("recovery daemon started, recovery='{}'", request.config.recovery),
    );
    loop {
        if let Err(error) = look(request, &mut missing, &mut own) {
            say_once(request.log, &mut own, Level::Error, &error.to_string());
        }
        rounds += 1;
        if request.rounds.is_some_and(|most| rounds >= most) {
            break;
        }
        std::thread::sleep(request.config.interval);
    }
    say(request.log, Level::Notice, "recovery daemon stopped");
}

fn look(
    request: &DaemonRequest<'_>,
    missing: &mut BTreeMap<i32, Missing>,
    own: &mut Missing,
) -> Result<(), StepError> {
    let DaemonRequest { config, log, .. } = request;
    let server = config.own_server();
    match cluster::is_primary(&server) {
        None => return bring_cluster_up(request, own),
        // Another node looks after this one.
        Some(false) => return Ok(()),
        Some(true) => {}
    }
    own.said = None;
    let nodes = cluster::nodes(&server)?;
    let attached = cluster::attached(&server)?;
    for node in nodes.iter().filter(|node| node.id != config.node_id) {
        if attached.contains(&node.name) {
            missing.remove(&node.id);
            continue;
        }
        let state = missing.entry(node.id).or_default();
        if state.said.is_none() && state.failures == 0 {
            say(log, Level::Debug, &format!("child node: {}; attached: no", node.id));
        }
        if let Err(error) = recover(request, node, &nodes, state) {
            state.failures += 1;
            let pause = Duration::from_secs(5 << state.failures.min(7));
            state.next_try = Some(Instant::now() + pause);
            say(log, Level::Error, &format!("{}{} auto-recovery failed: {error}", thread(), node.shown()));
            if let Some(hint) = &error.hint {
                say(log, Level::Hint, hint);
            }
            say(log, Level::Info, &format!("{}next try in {} seconds", thread(), pause.as_secs()));
        }
    }
    Ok(())
}

/// Recovers one node, if that is allowed and certain.
fn recover(
    request: &DaemonRequest<'_>,
    node: &NodeRecord,
    nodes: &[NodeRecord],
    state: &mut Missing,
) -> Result<(), StepError> {
    let DaemonRequest { config, log, .. } = request;
    if config.recovery == Recovery::Manual {
        say_once(
            log,
            state,
            Level::Info,
            &format!("{} is not attached; recovery='manual': it is left to a person", node.shown()),
        );
        return Ok(());
    }
    if state.failures >= config.max_attempts {
        say_once(
            log,
            state,
            Level::Error,
            &format!(
                "{} could not be recovered {} times: it is left to a person",
                node.shown(),
                state.failures
            ),
        );
        return Ok(());
    }
    if state.next_try.is_some_and(|next| Instant::now() < next) {
        return Ok(());
    }
    if let Some(other) = other_primary(config, nodes) {
        let text = format!(
            "{}there may be multiple nodes running as primary, can not do recovery for failed node ({other} is one, too)",
            thread()
        );
        say_once(log, state, Level::Error, &text);
        return Ok(());
    }
    if !config.trusted_servers.is_empty()
        && !config.trusted_servers.iter().any(|host| crate::ping::answers(host, 2))
    {
        say_once(
            log,
            state,
            Level::Error,
            "none of the trusted servers answers: this node may be cut off, nothing is done",
        );
        return Ok(());
    }
    // It may be attaching at this moment, or be up under another upstream.
    if cluster::is_primary(&cluster::server(config, &node.conninfo, config.own_server().prefixes))
        == Some(false)
    {
        say_once(
            log,
            state,
            Level::Info,
            &format!("{} runs as a standby but is not attached: it is left as it is", node.shown()),
        );
        return Ok(());
    }
    let host = node.host();
    say(log, Level::Notice, &format!("{}Now, the primary host ip: {}", thread(), config.own_server().host()));
    if let Err(error) = remote::succeeds(config, host, "/bin/true") {
        say(
            log,
            Level::Info,
            &format!("unable to connect via ES to host \"{host}\", can't confirm if it's a standby node"),
        );
        say(
            log,
            Level::Info,
            &format!("{}can not do auto-recovery because not confirmed a standby node", thread()),
        );
        return Err(error);
    }
    say(
        log,
        Level::Info,
        &format!("{}ES connection to host \"{host}\" succeeded, ready to do auto-recovery", thread()),
    );
    let program = quoted(request.program);
    let file = quoted(&node.config_file);
    let is_standby = remote::succeeds(config, host, &format!("{program} hook v8r6 -f {file} is-standby"))?;
    let (action, script) = if is_standby {
        ("START DATABASE", format!("{program} hook v8r6 -f {file} startdb"))
    } else if config.recovery == Recovery::Automatic {
        let own = config.own_server();
        let (primary, port) = (quoted(own.host()), quoted(own.conninfo.get("port").unwrap_or("5432")));
        ("NODE REJOIN", format!("{program} hook v8r6 -f {file} rejoin -h {primary} -p {port} --force-rewind"))
    } else {
        let text = format!(
            "{} is not a standby, and recovery='{}': it is left to a person",
            node.shown(),
            config.recovery
        );
        say_once(log, state, Level::Info, &text);
        return Ok(());
    };
    state.said = None;
    say(
        log,
        Level::Info,
        &format!("node \"{}\" (ID: {}, HOST: {host}) auto-recovery: {action}", node.name, node.id),
    );
    remote::run(config, log, host, &script)?;
    if action == "START DATABASE" {
        say(
            log,
            Level::Notice,
            &format!("{}node \"{}\" (ID: {}) auto-recovery success", thread(), node.name, node.id),
        );
    } else {
        say(log, Level::Notice, &format!("kbha: node (ID: {}) rejoin success.", node.id));
    }
    Ok(())
}

/// Another node that says that it is a primary.
fn other_primary(config: &RepmgrConf, nodes: &[NodeRecord]) -> Option<String> {
    let prefixes = config.own_server().prefixes;
    nodes
        .iter()
        .filter(|node| node.id != config.node_id)
        .find(|node| cluster::is_primary(&cluster::server(config, &node.conninfo, prefixes)) == Some(true))
        .map(NodeRecord::shown)
}

/// This node's server is down. If it is the only one that was the primary and no other server runs, the whole
/// cluster is down: it is started, and the others then follow.
fn bring_cluster_up(request: &DaemonRequest<'_>, own: &mut Missing) -> Result<(), StepError> {
    let DaemonRequest { config, log, .. } = request;
    let server = config.server();
    if config.cluster_recovery_level == 0
        || config.recovery == Recovery::Manual
        || server.running()?.is_some()
    {
        return Ok(());
    }
    if server.data.join("standby.signal").exists() || crate::files::is_half_rewound(&server.data)? {
        return Ok(());
    }
    if own.next_try.is_some_and(|next| Instant::now() < next) || own.failures >= config.max_attempts {
        return Ok(());
    }
    own.failures += 1;
    own.next_try = Some(Instant::now() + Duration::from_secs(5 << own.failures.min(7)));
    // The metadata is in the server that is down: the last look at the cluster is not kept, so this needs the
    // peers that the configuration names.
    if config.peers.is_empty() {
        say_once(
            log,
            own,
            Level::Info,
            "the server of this node is down; cluster_recovery_peers is not set, so whether another one is the primary is not known: nothing is done",
        );
        return Ok(());
    }
    for peer in &config.peers {
        let mut conninfo = config.conninfo.clone();
        conninfo.remove("hostaddr");
        conninfo.set("host", peer);
        if cluster::is_primary(&cluster::server(config, &conninfo, config.own_server().prefixes)).is_some() {
            say_once(
                log,
                own,
                Level::Info,
                &format!("the server of host \"{peer}\" runs: it looks after this node"),
            );
            return Ok(());
        }
        let file = quoted(&config.file.display().to_string());
        let script = format!("{} hook v8r6 -f {file} is-standby", quoted(request.program));
        if !remote::succeeds(config, peer, &script)? {
            say_once(
                log,
                own,
                Level::Error,
                &format!("host \"{peer}\" is no standby either: there is more than one primary, do nothing"),
            );
            return Ok(());
        }
    }
    say(log, Level::Notice, "all nodes are down and this one was the primary: the cluster is brought up");
    start_database(config, log)
}

fn say_once(log: &RecoveryLog, state: &mut Missing, level: Level, text: &str) {
    if state.said.as_deref() != Some(text) {
        say(log, level, text);
        state.said = Some(text.to_owned());
    }
}
