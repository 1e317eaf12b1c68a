//! The first steps on every node: its disks, the network, and the pool.

use kbrecover_rewind::source::Answer;

use super::node::Node;
use super::pool_nodes::PoolNode;
use super::{disk, pool_nodes};
use crate::flow::{Decision, Step, StepError, no_action};
use crate::ping;
use crate::recovery_log::timestamp;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 3] {
    [
        Step::new("disk", check_disks, stop_for_disk),
        Step::new("network", check_gateways, stop_for_network),
        Step::new("pool", query_pool, no_action),
    ]
}

fn check_disks(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("check read/write on mount point");
    let failed = disk::failed(&node.config.mount_points, node.config.disk_retries);
    match failed {
        None => Ok(Decision::Pass("success to check the read/write on mount point".into())),
        Some(why) if node.config.stops_on_disk_failure => {
            Ok(Decision::Act(format!("{why}; USE_CHECK_DISK is on: stop the server of this node")))
        }
        Some(why) => Ok(Decision::Skip(format!("{why}; USE_CHECK_DISK is off: do nothing"))),
    }
}

fn stop_for_disk(node: &mut Node<'_>) -> Result<String, StepError> {
    stop(node)?;
    Err(StepError::new("a mount point could not be written, so the server of this node was stopped"))
}

fn check_gateways(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("check if the network is ok");
    let config = node.config;
    for round in 0..config.retries.max(1) {
        if round > 0 {
            std::thread::sleep(config.retry_delay);
        }
        for gateway in &config.gateways {
            if ping::responds(gateway, config.ping_times)? {
                return Ok(Decision::Pass(format!("ping trust ip {gateway} success")));
            }
        }
    }
    let why = format!("none of the trusted gateways responds ({})", config.gateways.join(", "));
    if !config.stops_without_gateway {
        return Ok(Decision::Refuse(format!(
            "{why}: this node may be isolated from the network, no action is taken and its server is not stopped"
        )));
    }
    Ok(Decision::Act(format!("{why}; STOP_DB_WITHOUT_GATEWAY is on: stop the server of this node")))
}

fn stop_for_network(node: &mut Node<'_>) -> Result<String, StepError> {
    stop(node)?;
    Err(StepError::new("the network is down, so the server of this node was stopped"))
}

/// Stops the server and removes the virtual address, the latter even if the server could not be stopped: another node has to
/// be able to take the address.
fn stop(node: &Node<'_>) -> Result<(), StepError> {
    let running = node.server.running();
    let stopped = running.and_then(|process| process.map_or(Ok(()), |_| node.server.stop()));
    let Some(vip) = &node.config.vip else { return stopped };
    let removed = vip.is_held().and_then(|is_held| if is_held { vip.remove() } else { Ok(()) });
    if let (Err(error), Err(_)) = (&removed, &stopped) {
        node.log.line(&format!("{} ERROR: {error}", timestamp()));
    }
    stopped.and(removed)
}

fn query_pool(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("determine if i am master or standby");
    let config = node.config;
    let answer = match node.query_pool() {
        Ok(answer) => answer,
        Err(error) if config.starts_when_all_are_down => return Ok(look_at_all(node, &error.message)),
        Err(error) => return Err(error),
    };
    for line in lines(&answer) {
        node.log.line(&line);
    }
    node.nodes = pool_nodes::read(&answer).map_err(StepError::new)?;
    if config.starts_when_all_are_down && !node.nodes.iter().any(|node| node.is_primary) {
        return Ok(look_at_all(node, "no primary node in kingbasecluster"));
    }
    if let Some(why) = reason_to_end(&node.nodes) {
        return Ok(Decision::Refuse(why.into()));
    }
    if node.me().is_none() {
        let (host, port) = (&config.local_host, config.port);
        return Err(StepError::new(format!("the pool does not know this node ({host}, port {port})"))
            .hint("KB_LOCALHOST_IP and KB_PORT must be the host and port of this node in the configuration of the pool."));
    }
    Ok(Decision::Pass(String::new()))
}

fn look_at_all(node: &mut Node<'_>, why: &str) -> Decision {
    node.all_down = true;
    Decision::Skip(format!("{why}; MAX_AVAILABLE_LEVEL is on: looking at all nodes"))
}

const NO_PRIMARY: &str = "no primary node in kingbasecluster, nothing to do";

/// Why the flow cannot act in a cluster of these nodes.
fn reason_to_end(nodes: &[PoolNode]) -> Option<&'static str> {
    match nodes.iter().filter(|node| node.is_primary).count() {
        0 => Some(NO_PRIMARY),
        1 => None,
        _ => Some("the pool reports more than one primary, do nothing and exit"),
    }
}

/// A result as lines of text.
fn lines(table: &Answer) -> Vec<String> {
    let cell = |cell: &Option<String>| cell.clone().unwrap_or_default();
    let mut lines = vec![table.columns.join(" | ")];
    lines.extend(table.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" | ")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_must_be_exactly_one_primary() {
        let ends = |primaries: [bool; 2]| {
            let node = |is_primary| PoolNode { id: 0, host: "a".into(), port: 1, is_up: true, is_primary };
            reason_to_end(&primaries.map(node))
        };
        assert!(ends([false, false]).is_some_and(|why| why.starts_with("no primary node")));
        assert_eq!(ends([false, true]), None);
        assert!(ends([true, true]).is_some_and(|why| why.contains("more than one primary")));
    }
}
