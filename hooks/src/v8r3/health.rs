//! Whether a node that is not the primary must be recovered.

use kbrecover_rewind::conninfo::ConninfoText;

use super::node::{Need, Node};
use super::{standstill, vip};
use crate::files;
use crate::flow::{Decision, Step, StepError, no_action};
use crate::sql::literal;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 2] {
    [Step::new("virtual address", vip::check_held, vip::remove), Step::new(STEP, check_health, no_action)]
}

/// The name of the step that may postpone a recovery until the next run has checked the node again.
pub(super) const STEP: &str = "health";

/// The state file that exists after a run has reported that the primary knows this node by another name.
const OTHER_NAME_REPORTED: &str = "KB_RECOVERY_OTHER_NAME";

fn check_health(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("i am standby in cluster,determine if recovery is needed");
    if node.interrupted {
        node.log.line("Something interrupted the last recovery. Go on this time");
    }
    node.need = need(node)?;
    let Some(need) = node.need else {
        return Ok(Decision::Pass(
            "this standby receives WAL from the primary, no recovery is needed".into(),
        ));
    };
    if let Some(why) = standstill::reason_to_wait(node)? {
        return Ok(Decision::Refuse(why));
    }
    let primary = node.primary().map_or("", |primary| primary.host.as_str());
    let is_up = node.me().is_some_and(|me| me.is_up);
    let change = i32::from(node.server.is_standby()?);
    Ok(Decision::Pass(format!(
        "primary node/Im node status is changed, primary ip[{primary}], recovery.conf NEED_CHANGE [{change}] (0 is need ), \
         I,m status is [{}] (1 is down), I will be in recovery: {}.",
        i32::from(!is_up),
        need.description()
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
            files::remove(&node.run_file(OTHER_NAME_REPORTED))?;
            return Ok(None);
        }
        if receives(node) {
            return Ok(None);
        }
    }
    Ok(Some(Need::NotStreaming))
}

/// Whether the primary sends WAL to this node under its configured name.
pub(super) fn is_streaming(node: &Node<'_>) -> Result<bool, StepError> {
    let name = literal(&node.config.node_name);
    let state =
        |prefix: &str| format!("SELECT state FROM {prefix}_stat_replication WHERE application_name = {name}");
    let answer = node.primary_server()?.ask_named(state).map_err(|error| StepError::of(&error))?;
    Ok(answer.rows.iter().flatten().flatten().any(|state| state == "streaming" || state == "catchup"))
}

/// Whether this node's own server receives WAL from a server that is itself a standby, such as the old primary, and not
/// from the primary under another address.
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

/// Whether this node receives WAL according to its own server. The primary may know it by another name or address, which is
/// no reason to stop it. This is reported once, and again only after the name has been correct in between.
fn receives(node: &Node<'_>) -> bool {
    let status = |prefix: &str| format!("SELECT status FROM {prefix}_stat_wal_receiver");
    let receives =
        node.own_server().ask_named(status).is_ok_and(|answer| answer.value() == Some("streaming"))
            && !receives_from_standby(node);
    let reported = node.run_file(OTHER_NAME_REPORTED);
    if receives && !reported.exists() {
        let name = &node.config.node_name;
        node.log.line(&format!(
            "the primary has no row for application_name \"{name}\", but this standby receives WAL: check primary_conninfo"
        ));
        node.log.release();
        if let Err(error) = files::replace(&reported, "") {
            tracing::warn!("{error}");
        }
    }
    receives
}
