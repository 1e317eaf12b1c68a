//! The state of the cluster as this node sees it.

use super::cluster::{self, NodeRecord};
use super::config::RepmgrConf;
use crate::flow::StepError;

/// The state of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// `node_id`
    pub id: i32,
    /// `node_name`
    pub name: String,
    /// `primary`, `standby`, or `unreachable`, also if its conninfo is not valid.
    pub role: &'static str,
    /// Whether it receives WAL from the primary. `None` for a primary, and if there is not exactly one primary.
    pub attached: Option<bool>,
}

/// Reads the nodes from this node's server, and then asks each of them for its role.
///
/// # Errors
/// The metadata cannot be read.
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_hooks::v8r6::{RepmgrConf, status};
///
/// let config = RepmgrConf::read(Path::new("/etc/repmgr.conf"))?;
/// for node in status(&config)? {
///     println!("{} {} {}", node.id, node.name, node.role);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn status(conf: &RepmgrConf) -> Result<Vec<NodeStatus>, StepError> {
    let own = conf.own_server();
    let nodes = cluster::nodes(&own)?;
    let server = |node: &NodeRecord| Some(cluster::server(conf, node.conninfo().ok()?, own.prefixes));
    let servers: Vec<_> = nodes.iter().map(server).collect();
    let roles: Vec<_> = servers.iter().map(|server| cluster::is_primary(server.as_ref()?)).collect();
    let is_primary = |(server, role)| Option::filter(server, |_| role == Some(true));
    let primaries: Vec<_> =
        servers.iter().map(Option::as_ref).zip(roles.clone()).filter_map(is_primary).collect();
    let attached = match primaries[..] {
        [primary] => Some(cluster::attached(primary)?),
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
