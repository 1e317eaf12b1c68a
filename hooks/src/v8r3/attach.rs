//! The last steps on a standby: it receives WAL, synchronous replication is set as configured, and the pool uses it.

use std::time::{Duration, Instant};

use super::node::Node;
use super::{health, pcp, pool_nodes, primary, slots};
use crate::flow::{Decision, Step, StepError, no_action};
use crate::sql::literal;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 5] {
    [
        // Not among the steps of the recovery: the run after one that was interrupted may find nothing to recover.
        Step::new("slots of this node", slots::check_recorded, slots::create_recorded),
        Step::new("streaming", check_stream, wait_for_stream),
        Step::new("lag", check_lag, no_action),
        Step::new("synchronous standbys", check_mode, set_mode),
        Step::new("attach", check_attach, attach),
    ]
}

/// The file beside the log that has what a server prints at its start, as of the script.
pub(super) const STARTED: &str = "kbstart";

/// Limit for a standby to connect to the primary.
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// The names of the function for the difference of two LSNs, of the function for the flushed LSN, and of the column with the
/// LSN that a standby has written.
type LagNames = (&'static str, &'static str, &'static str);

const LAG: LagNames = ("wal_lsn_diff", "current_wal_flush_lsn", "write_lsn");
const LAG_BEFORE_10: LagNames = ("xlog_location_diff", "current_xlog_flush_location", "write_location");

fn check_stream(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if node.need.is_none() || health::is_streaming(node)? {
        return Ok(Decision::Pass(String::new()));
    }
    Ok(Decision::Act("wait until this node receives WAL from the primary".into()))
}

fn wait_for_stream(node: &mut Node<'_>) -> Result<String, StepError> {
    let deadline = Instant::now() + STREAM_LIMIT;
    while !health::is_streaming(node)? {
        if Instant::now() >= deadline {
            let started = node.config.log.with_file_name(STARTED);
            return Err(StepError::new("can not get the replication of myself").hint(format!(
                "The server is running but does not receive WAL. Its log, or \"{}\", says why: the role or password of \
                 primary_conninfo in recovery.done, pg_hba.conf of the primary, a slot, missing WAL.",
                started.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(String::new())
}

fn check_lag(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let name = literal(&node.config.node_name);
    let lag = |names: &LagNames| {
        let (difference, flushed, written) = *names;
        let name = name.clone();
        move |prefix: &str| {
            format!(
                "SELECT max({prefix}_{difference}({prefix}_{flushed}(), {written})) FROM {prefix}_stat_replication \
                 WHERE application_name = {name}"
            )
        }
    };
    let primary = node.primary_server()?;
    let answer = match primary.ask_named(lag(&LAG)) {
        Err(error) if error.is_unknown_name() => primary.ask_named(lag(&LAG_BEFORE_10)),
        answer => answer,
    };
    let answer = answer.map_err(|error| StepError::of(&error))?;
    // Without a row, the primary knows this node by another name, and its lag is unknown.
    let lag = answer.value().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    if lag > node.config.max_lag as f64 {
        let most = node.config.max_lag >> 20;
        return Ok(Decision::Refuse(format!(
            "Im Node is standby,the gap between my LSN and primary LSN is too large,the data difference exceeds {most} M,exit script"
        )));
    }
    Ok(Decision::Pass(String::new()))
}

fn check_mode(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let names = node
        .primary_server()?
        .ask("SHOW synchronous_standby_names")
        .map_err(|error| StepError::of(&error))?;
    let is_synchronous = !names.value().unwrap_or_default().is_empty();
    Ok(match (node.config.synchronous, is_synchronous) {
        (true, false) => Decision::Act("SYNC RECOVER MODE ...".into()),
        (false, true) => Decision::Act("ASYNC RECOVER MODE ...".into()),
        _ => Decision::Skip(String::new()),
    })
}

fn set_mode(node: &mut Node<'_>) -> Result<String, StepError> {
    let primary = node.primary_server()?;
    if !node.config.synchronous {
        primary::set_synchronous(&primary, "")?;
        return Ok("ASYNC RECOVER MODE ... DONE".into());
    }
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let names: Vec<_> = node.config.node_names.iter().map(quoted).collect();
    primary::set_synchronous(&primary, &format!("1 ({})", names.join(", ")))?;
    Ok("SYNC RECOVER MODE ... DONE".into())
}

fn check_attach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.nodes = pool_nodes::read(&node.query_pool()?).map_err(StepError::new)?;
    match node.me() {
        Some(me) if me.is_up => Ok(Decision::Pass("ALL NODES ARE UP STATUS!".into())),
        Some(me) => Ok(Decision::Act(format!("attach pool... IM Node is {}", me.id))),
        None => Err(StepError::new("the pool no longer knows this node")),
    }
}

fn attach(node: &mut Node<'_>) -> Result<String, StepError> {
    pcp::run(node, pcp::ATTACH)?;
    Ok("attach end..".into())
}
