//! What the cluster looks like from this node.

use super::{RepmgrConf, cluster};
use crate::flow::StepError;

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    /// Its number.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// `primary`, `standby`, or `unreachable`.
    pub role: &'static str,
    /// Whether the primary sends to it; nothing is known where there is not exactly one primary.
    pub attached: Option<bool>,
}

/// Asks this node's server for the nodes, and then each of them.
///
/// # Errors
/// The metadata cannot be read.
pub fn status(conf: &RepmgrConf) -> Result<Vec<NodeStatus>, StepError> {
    let own = conf.own_server();
    let nodes = cluster::nodes(&own)?;
    let servers: Vec<_> =
        nodes.iter().map(|node| cluster::server(conf, &node.conninfo, own.prefixes)).collect();
    let roles: Vec<_> = servers.iter().map(cluster::is_primary).collect();
    let primaries: Vec<_> = (0..nodes.len()).filter(|&place| roles[place] == Some(true)).collect();
    let attached = match primaries[..] {
        [primary] => Some(cluster::attached(&servers[primary])?),
        _ => None,
    };
    Ok(nodes
        .into_iter()
        .zip(roles)
        .map(|(node, role)| NodeStatus {
            id: node.id,
            role: match role {
                Some(true) => "primary",
                Some(false) => "standby",
                None => "unreachable",
            },
            attached: attached
                .as_ref()
                .filter(|_| role != Some(true))
                .map(|names| names.contains(&node.name)),
            name: node.name,
        })
        .collect())
}
