//! What a primary does: it holds the virtual address, and does not wait for standbys that are not there.

use super::{Node, vip};
use crate::flow::{Decision, Step, StepError, nothing};

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 4] {
    [
        Step { name: "server", look: look_for_server, act: nothing },
        Step { name: "virtual address", look: vip::look_for_missing, act: vip::add },
        Step { name: "synchronous standbys", look: look_for_standbys, act: go_asynchronous },
        Step { name: "primary", look: end, act: nothing },
    ]
}

/// The pool may not have seen yet that it is down, and name another one soon. A standby may have been given the
/// primary's address in its configuration.
fn look_for_server(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(_) if node.server.is_standby()? => Decision::Refuse(
            "the pool names this node the primary, but its server is a standby: nothing is done \
             (are KB_LOCALHOST_IP and KB_PORT those of another node?)"
                .into(),
        ),
        Some(_) => Decision::Skip(String::new()),
        None => Decision::Refuse(
            "the pool names this node the primary, but its server is not running: nothing is done".into(),
        ),
    })
}

fn look_for_standbys(node: &mut Node<'_>) -> Result<Decision, StepError> {
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
    Ok(Decision::Act("ASYNC RECOVER MODE: no standby receives, so none is waited for".into()))
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
