//! Whether a node that is not the primary must be recovered.

use kbrecover_rewind::conninfo::ConninfoText;

use super::{Need, Node, standstill, vip};
use crate::files;
use crate::flow::{Decision, Step, StepError, nothing};
use crate::sql::literal;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 2] {
    [
        Step { name: "virtual address", look: vip::look_for_held, act: vip::remove },
        Step { name: STEP, look: look_at_health, act: nothing },
    ]
}

/// The name of the step that may wait for a second look.
pub(super) const STEP: &str = "health";

/// Notes that it was said that the primary knows this node by another name.
const OTHER_NAME_TOLD: &str = "KB_RECOVERY_OTHER_NAME";

fn look_at_health(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("i am standby in cluster,determine if recovery is needed");
    if node.interrupted {
        node.log.line("Something interrupted the last recovery. Go on this time");
    }
    node.need = need(node)?;
    let Some(need) = node.need else {
        return Ok(Decision::Skip("this standby receives from the primary, no recovery is needed".into()));
    };
    if let Some(why) = standstill::reason_to_wait(node)? {
        return Ok(Decision::Refuse(why));
    }
    let primary = node.primary().map_or("", |primary| primary.host.as_str());
    let is_up = node.me().is_some_and(|me| me.is_up);
    let change = i32::from(node.server.is_standby()?);
    Ok(Decision::Skip(format!(
        "primary node/Im node status is changed, primary ip[{primary}], recovery.conf NEED_CHANGE [{change}] (0 is need ), \
         I,m status is [{}] (1 is down), I will be in recovery: {}.",
        i32::from(!is_up),
        need.words()
    )))
}

fn need(node: &Node<'_>) -> Result<Option<Need>, StepError> {
    if files::is_half_rewound(&node.server.data)? {
        return Ok(Some(Need::Unfinished));
    }
    if !node.server.is_standby()? {
        return Ok(Some(Need::OldPrimary));
    }
    if node.server.running()?.is_none() {
        return Ok(Some(Need::Down));
    }
    for round in 0..node.config.retries.max(1) {
        if round > 0 {
            std::thread::sleep(node.config.retry_delay);
        }
        if is_streaming(node)? {
            files::remove(&node.run_file(OTHER_NAME_TOLD))?;
            return Ok(None);
        }
        if receives(node) {
            return Ok(None);
        }
    }
    Ok(Some(Need::NotStreaming))
}

/// Whether the primary knows this node by its name and sends to it.
pub(super) fn is_streaming(node: &Node<'_>) -> Result<bool, StepError> {
    let name = literal(&node.config.node_name);
    let state =
        |prefix: &str| format!("SELECT state FROM {prefix}_stat_replication WHERE application_name = {name}");
    let answer = node.primary_server()?.ask_named(state).map_err(|error| StepError::of(&error))?;
    Ok(answer.rows.iter().flatten().flatten().any(|state| state == "streaming" || state == "catchup"))
}

/// Whether this node's own server receives from one that is a standby itself, the old primary perhaps. That is no
/// primary under another address.
fn receives_from_standby(node: &Node<'_>) -> bool {
    let conninfo = |prefix: &str| format!("SELECT conninfo FROM {prefix}_stat_wal_receiver");
    let Ok(answer) = node.own_server().ask_named(conninfo) else { return false };
    let Some(upstream) = answer.value().and_then(|text| ConninfoText::parse(text).ok()) else { return false };
    let (Some(host), Some(Ok(port))) = (upstream.get("host"), upstream.get("port").map(str::parse)) else {
        return false;
    };
    let in_recovery = |prefix: &str| format!("SELECT {prefix}_is_in_recovery()");
    node.server_at(host, port).ask_named(in_recovery).is_ok_and(|answer| answer.is_true())
}

/// Whether this node's own server says that it receives: the primary may know it under another name or address,
/// which is no reason to stop it. That is said once, and again after the name was right for a while.
fn receives(node: &Node<'_>) -> bool {
    let status = |prefix: &str| format!("SELECT status FROM {prefix}_stat_wal_receiver");
    let receives =
        node.own_server().ask_named(status).is_ok_and(|answer| answer.value() == Some("streaming"))
            && !receives_from_standby(node);
    let told = node.run_file(OTHER_NAME_TOLD);
    if receives && !told.exists() {
        let name = &node.config.node_name;
        node.log.line(&format!(
            "the primary has no row for application_name \"{name}\", but this standby receives: see primary_conninfo"
        ));
        node.log.speak();
        if let Err(error) = files::replace(&told, "") {
            tracing::warn!("{error}");
        }
    }
    receives
}
