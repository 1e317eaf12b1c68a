//! `auto_cluster_recovery_level`: a cluster whose servers are all down is brought up by the node that was its
//! primary, if there is exactly one; its standbys are then started as usual.

use super::daemon::Daemon;
use super::log::{Level, say};
use super::{Recovery, remote, start_database};
use crate::files;
use crate::flow::StepError;

/// Starts this node's server if it was the primary and no other node is or was.
pub(super) fn bring_up(daemon: &mut Daemon<'_>) -> Result<(), StepError> {
    let config = &daemon.config;
    let server = config.server();
    if config.cluster_recovery_level == 0
        || config.recovery == Recovery::Manual
        || server.running()?.is_some()
        || server.is_standby()?
        || files::is_half_rewound(&server.data)?
    {
        return Ok(());
    }
    let tries = daemon.own.tries;
    if tries >= config.max_attempts {
        let text = format!(
            "the cluster could not be brought up {tries} times: the server of this node is left to a person"
        );
        daemon.own.say_once(daemon.log, Level::Error, &text);
        return Ok(());
    }
    if !daemon.own.is_due() {
        return Ok(());
    }
    match reason_not_to(daemon) {
        Ok(None) => {}
        Ok(Some(why)) => {
            daemon.own.say_once(daemon.log, Level::Info, &why);
            return Ok(());
        }
        Err(error) => {
            daemon.own.tried(&daemon.config);
            return Err(error);
        }
    }
    let text = "all nodes are down and this one was the primary: the cluster is brought up";
    say(daemon.log, Level::Notice, text);
    // One that ends again and again is not started for ever.
    daemon.own.tried(&daemon.config);
    let _lock = daemon.config.lock()?;
    start_database(&daemon.config, daemon.log)
}

fn reason_not_to(daemon: &Daemon<'_>) -> Result<Option<String>, StepError> {
    if daemon.is_cut_off()? {
        let text =
            "the server of this node is down, and none of the trusted servers answers: nothing is done";
        return Ok(Some(text.to_owned()));
    }
    if daemon.known.is_empty() {
        let text = "the server of this node is down, and no daemon has seen the cluster yet: nothing is done";
        return Ok(Some(text.to_owned()));
    }
    for node in daemon.known.others(daemon.config.node_id) {
        // One that cannot be reached may be a primary that others can reach.
        if daemon.answers(&node) || remote::runs(daemon, node.host(), &node.config_file)? {
            return Ok(Some(format!("the server of this node is down, but that of {} runs", node.shown())));
        }
        if !remote::is_standby(daemon, node.host(), &node.config_file)? {
            let text = format!(
                "the server of this node is down, and {} is no standby either: there is more than one primary, do nothing",
                node.shown()
            );
            return Ok(Some(text));
        }
    }
    Ok(None)
}
