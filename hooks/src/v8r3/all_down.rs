//! `MAX_AVAILABLE_LEVEL`: all servers of the cluster are down, and so the pool names no primary. The node that was the
//! primary starts its own server, if every other node can be asked and no other node may be the one to start.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason, Telling};

use super::node::Node;
use super::node_state::{NodeState, node_state};
use super::{pcp, pool_nodes, recovery, vip};
use crate::flow::{Decision, Step, StepError, no_action};
use crate::host;
use crate::latest_wal;
use crate::remote::{Remote, quoted};

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 5] {
    [
        Step::new("this node", check_own, no_action),
        Step::new("other nodes", check_others, no_action),
        Step::new("start", recovery::check_start, recovery::start),
        Step::new("virtual address", vip::check_missing, vip::add),
        Step::new("attach", check_attach, attach),
    ]
}

/// Limit for a question to another node.
const LIMIT: Duration = Duration::from_secs(30);

/// No questions to a person, and a limit for a host that does not respond.
const SSH_OPTIONS: &str = "-q -o ConnectTimeout=10 -o StrictHostKeyChecking=no";

fn check_own(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let own = node_state(node.config)?;
    if own.unfinished {
        let why = "the rewind of this node is unfinished: its server is not started without a primary";
        return Ok(Decision::Refuse(why.into()));
    }
    if own.standby {
        let why = "this node is a standby: the old primary has to start first";
        return Ok(Decision::Refuse(why.into()));
    }
    Ok(Decision::Pass("this node was the primary".into()))
}

fn check_others(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let config = node.config;
    let is_own = |host: &&String| host::is_same(host, &config.local_host);
    if !config.all_hosts.iter().any(|host| is_own(&host)) {
        return Err(StepError::new(format!("KB_ALL_IP does not contain this node, {}", config.local_host))
            .hint("KB_ALL_IP in HAmodule.conf is an array of the hosts of all nodes."));
    }
    let own = node_state(config)?;
    for host in config.all_hosts.iter().filter(|host| !is_own(host)) {
        let other = ask(node, host)?;
        node.log.line(&format!(
            "node {host}: running {}, standby {}, timeline {}, position {}",
            other.running, other.standby, other.timeline, other.position
        ));
        if let Some(why) = reason_not_to_start(node, &own, host, &other)? {
            return Ok(Decision::Refuse(why));
        }
    }
    Ok(Decision::Pass("no other node is or was the primary".into()))
}

/// Why this node must not be the primary beside another one of this state.
fn reason_not_to_start(
    node: &Node<'_>,
    own: &NodeState,
    host: &str,
    other: &NodeState,
) -> Result<Option<String>, StepError> {
    Ok(if !other.standby {
        Some(format!(
            "there is more than one primary DB({}, {host}), do nothing and exit",
            node.config.local_host
        ))
    } else if other.running && !own.running {
        Some(format!("the server of {host} is running, do nothing and exit"))
    } else if other.system_identifier != own.system_identifier {
        Some(format!("the data of {host} are those of another database system, do nothing and exit"))
    } else if other.timeline > own.timeline {
        Some(format!(
            "{host} has timeline {}, and this node has only timeline {}: another node was promoted after this one, do nothing and exit",
            other.timeline, own.timeline
        ))
    } else if other.timeline == own.timeline && other.history != own.history {
        Some(format!(
            "{host} has another timeline {} than this node: two nodes were promoted at different points, do nothing and exit",
            other.timeline
        ))
    } else if own.running || other.timeline < own.timeline {
        None
    } else {
        let end = latest_wal::end(&node.server)?;
        let is_ahead = other.lsn().is_none_or(|position| position > end);
        is_ahead.then(|| {
            let position = &other.position;
            format!(
                "{host} has come to {position}, and the WAL of this node ends at {end}: do nothing and exit"
            )
        })
    })
}

/// Asks another node for its state.
fn ask(node: &Node<'_>, host: &str) -> Result<NodeState, StepError> {
    let remote = Remote { template: node.config.remote_command.as_deref(), ssh_options: SSH_OPTIONS };
    let file = std::path::absolute(&node.config.file).unwrap_or_else(|_| node.config.file.clone());
    let file = file.display().to_string();
    let script = format!("{} hook v8r3 -f {} state --format json", quoted(node.program), quoted(&file));
    let failed = |why: &str| {
        StepError::new(format!("could not ask {host} for its state: {why}; nothing is started while a node is unknown"))
            .hint(format!(
                "This user must reach every host of KB_ALL_IP by ssh without a password, and {} must be there at the same path, as must HAmodule.conf.",
                node.program
            ))
    };
    let mut command: Command = remote.command(host, &script)?;
    let finished = command::run_until(&mut command, LIMIT, Telling::Nothing, &Default::default())
        .map_err(|error| failed(&StepError::of(&error).message))?;
    if !finished.status.success() {
        return Err(failed(&format!("{} ({})", ExitReason(finished.status), finished.output.trim())));
    }
    let state = finished.output.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    state.ok_or_else(|| failed("its answer is not understood"))
}

/// The pool is told of the primary. A pool that has no node which is up accepts no queries, only its control programs.
fn check_attach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let Ok(answer) = node.query_pool() else {
        return Ok(match pcp::own_number(node) {
            Ok(Some(number)) => Decision::Act(format!("attach pool... IM Node is {number}")),
            Ok(None) => return Err(StepError::new("the pool does not know this node")),
            Err(error) => {
                let why = error.message;
                Decision::Finish(format!(
                    "the pool does not answer yet, the next run attaches this node: {why}"
                ))
            }
        });
    };
    node.nodes = pool_nodes::read(&answer).map_err(StepError::new)?;
    match node.me() {
        Some(me) if me.is_primary => Ok(Decision::Skip(String::new())),
        Some(me) if me.is_up => Ok(Decision::Act(format!("make node {} the primary of the pool", me.id))),
        Some(me) => Ok(Decision::Act(format!("attach pool... IM Node is {}", me.id))),
        None => Err(StepError::new("the pool does not know this node")),
    }
}

fn attach(node: &mut Node<'_>) -> Result<String, StepError> {
    match node.me() {
        Some(me) if me.is_up => pcp::run(node, pcp::PROMOTE)?,
        Some(_) => pcp::run(node, pcp::ATTACH)?,
        None => pcp::call(node, pcp::ATTACH, pcp::own_number(node)?).map(drop)?,
    }
    Ok("attach end..".into())
}
