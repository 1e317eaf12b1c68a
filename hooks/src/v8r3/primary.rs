//! The steps on the primary: it holds the virtual address, and replicates asynchronously while no standby is connected.

use super::node::Node;
use super::vip;
use crate::flow::{Decision, Step, StepError, no_action};

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 4] {
    [
        Step::new("server", check_server, no_action),
        Step::new("virtual address", vip::check_missing, vip::add),
        Step::new("synchronous standbys", check_standbys, go_asynchronous),
        Step::new("primary", end, no_action),
    ]
}

/// Refuses if the server is down, in which case the pool may soon report another primary, or if it is a standby, in which
/// case its configuration may contain the address of the primary.
fn check_server(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(_) if node.server.is_standby()? => Decision::Refuse(
            "the pool reports this node as the primary, but its server is a standby: no action is taken \
             (check that KB_LOCALHOST_IP and KB_PORT are those of this node)"
                .into(),
        ),
        Some(_) => Decision::Pass(String::new()),
        None => Decision::Refuse(
            "the pool reports this node as the primary, but its server is not running: no action is taken"
                .into(),
        ),
    })
}

fn check_standbys(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let server = node.own_server();
    let names = server.ask("SHOW synchronous_standby_names").map_err(|error| StepError::of(&error))?;
    if names.value().unwrap_or_default().is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    let count = |prefix: &str| format!("SELECT count(*) FROM {prefix}_stat_replication");
    let standbys = server.ask_named(count).map_err(|error| StepError::of(&error))?;
    if standbys.value() != Some("0") {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act("ASYNC RECOVER MODE: no standby is connected".into()))
}

fn go_asynchronous(node: &mut Node<'_>) -> Result<String, StepError> {
    set_synchronous(&node.own_server(), "")?;
    Ok("ASYNC RECOVER MODE ... DONE".into())
}

/// Sets `synchronous_standby_names` on a server.
pub(super) fn set_synchronous(server: &crate::sql::Server, names: &str) -> Result<(), StepError> {
    let set = format!("ALTER SYSTEM SET synchronous_standby_names TO {}", crate::sql::literal(names));
    server.ask(&set).map_err(|error| StepError::of(&error))?;
    let reloaded = server.ask_named(|prefix| format!("SELECT {prefix}_reload_conf()"));
    reloaded.map(|_| ()).map_err(|error| StepError::of(&error))
}

fn end(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let host = &node.config.local_host;
    Ok(Decision::Finish(format!("I,m node is primary ({host}), nothing to do")))
}
