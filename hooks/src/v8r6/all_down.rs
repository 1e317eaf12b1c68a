//! `auto_cluster_recovery_level`: starts a cluster whose servers are all down.
//!
//! The node that was the primary starts its own server, provided that it was the only one. Its daemon then starts the
//! standbys as usual.

use super::config::Recovery;
use super::context::{Backoff, Context};
use super::log::{Level, say};
use super::remote;
use super::start::start_database;
use crate::files;
use crate::flow::StepError;

/// Starts this node's server if this node was the primary and no other node is or was one.
pub(super) fn start_cluster(context: &Context<'_>, backoff: &mut Backoff) -> Result<(), StepError> {
    let config = &context.config;
    let server = config.server();
    if config.cluster_recovery_level == 0
        || config.recovery == Recovery::Manual
        || server.running()?.is_some()
        || server.is_standby()?
        || files::is_half_rewound(&server.data)?
    {
        return Ok(());
    }
    let attempts = backoff.attempts;
    if attempts >= config.max_attempts {
        let text =
            format!("could not start the cluster in {attempts} attempt(s): manual recovery is required");
        backoff.report_once(context.log, Level::Error, &text);
        return Ok(());
    }
    if !backoff.is_due() {
        return Ok(());
    }
    match reason_not_to_start(context) {
        Ok(None) => {}
        Ok(Some(why)) => {
            backoff.report_once(context.log, Level::Info, &why);
            return Ok(());
        }
        Err(error) => {
            backoff.record_attempt(config);
            return Err(error);
        }
    }
    let text = "all nodes are down and this node was the primary: starting the cluster";
    say(context.log, Level::Notice, text);
    // Counted before the result is known: a server that starts and soon stops again must reach the limit, too.
    backoff.record_attempt(config);
    let _lock = config.lock()?;
    start_database(config, context.log)
}

fn reason_not_to_start(context: &Context<'_>) -> Result<Option<String>, StepError> {
    if context.is_isolated()? {
        let text =
            "the server of this node is down, and none of the trusted servers responds: no action is taken";
        return Ok(Some(text.to_owned()));
    }
    if context.known.is_empty() {
        let text =
            "the server of this node is down, and the other nodes are not known yet: no action is taken";
        return Ok(Some(text.to_owned()));
    }
    for node in context.known.others(context.config.node_id) {
        // If the node cannot be reached, remote::runs fails: it may be a primary that other nodes can reach.
        let host = node.host()?;
        if context.responds(&node)? || remote::runs(context, host, &node.config_file)? {
            let text =
                format!("the server of this node is down, but the server of {} is running", node.shown());
            return Ok(Some(text));
        }
        if !remote::is_standby(context, host, &node.config_file)? {
            let text = format!(
                "the server of this node is down, and {} is not a standby either: there is more than one primary, do nothing",
                node.shown()
            );
            return Ok(Some(text));
        }
    }
    Ok(None)
}
