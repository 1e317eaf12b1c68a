//! A standby that is running but does not receive WAL is stopped only if its replay position stays the same from one run
//! to the next.
//!
//! Its primary may just have been restarted, and WAL that has already been received is replayed without a primary. The
//! position is recorded between runs. A standby that follows another node than the primary is recovered without waiting.

use kbrecover_rewind::conninfo::ConninfoText;

use super::node::{Need, Node, Standstill, Trigger};
use super::pool_nodes::PoolNode;
use super::recovery_settings::primary_conninfo;
use crate::files;
use crate::flow::StepError;
use crate::host;

/// The state file with the position that the previous run found.
const FILE: &str = "KB_RECOVERY_STANDSTILL";

/// Why a standby that does not receive WAL is not stopped in this run.
pub(super) fn reason_to_wait(node: &mut Node<'_>) -> Result<Option<String>, StepError> {
    if node.need != Some(Need::NotStreaming) || node.trigger == Trigger::Manual || follows_another(node) {
        return Ok(None);
    }
    let Some(process) = node.server.running()? else { return Ok(None) };
    let position = position(node);
    let before = files::read_state_file(&node.run_file(FILE));
    let text = format!("{process} {position}\n");
    let own_reason = match position {
        Position::Starting => Some("but it does not accept connections yet"),
        Position::Held(_) => Some("but its replay is paused or delayed"),
        Position::At(_) | Position::Unknown => None,
    };
    // A cause that may persist is reported by each run.
    let is_reported = before.is_some() && own_reason.is_none();
    node.standstill = Some(Standstill { text: text.clone(), is_reported });
    let why = match (own_reason, before) {
        (Some(why), _) => why,
        (_, None) => "the next run checks it again",
        (_, Some(before)) if before != text => "but its replay position has changed since the previous run",
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "this standby does not receive WAL from the primary, {why}: no action is taken (--force does not wait)"
    )))
}

/// Records the state for the next run, or removes the record of a healthy standby. A run that ended before the state was
/// determined leaves the record.
pub(super) fn record(node: &Node<'_>, is_success: bool) {
    let recorded = match &node.standstill {
        Some(standstill) => files::replace(&node.run_file(FILE), &standstill.text),
        None if node.need == Some(Need::NotStreaming) || !is_success => Ok(()),
        None => files::remove(&node.run_file(FILE)),
    };
    if let Err(error) = recorded {
        tracing::warn!("{error}");
    }
}

/// The replay position of a standby.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Position {
    /// It has replayed up to this LSN. It may have received more, as WAL usually ends in the middle of a record.
    At(String),
    /// It has replayed up to this LSN; replay is paused or delayed.
    Held(String),
    /// It does not accept connections yet.
    Starting,
    /// It cannot be determined.
    Unknown,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Position::At(lsn) | Position::Held(lsn) => f.write_str(lsn),
            Position::Starting => f.write_str("starting"),
            Position::Unknown => f.write_str("?"),
        }
    }
}

fn position(node: &Node<'_>) -> Position {
    let server = node.own_server();
    let query = |replay: &'static str, receive: &'static str, paused: &'static str| {
        move |prefix: &str| {
            format!(
                "SELECT {prefix}_{replay}()::text || CASE WHEN {prefix}_{paused}() \
                 OR {prefix}_{receive}() > {prefix}_{replay}() \
                 AND coalesce(current_setting('recovery_min_apply_delay', true), '0') <> '0' \
                 THEN '{HELD}' ELSE '' END"
            )
        }
    };
    let current = query("last_wal_replay_lsn", "last_wal_receive_lsn", "is_wal_replay_paused");
    let answer = match server.ask_named(current) {
        Err(error) if error.is_unknown_name() => server.ask_named(query(
            "last_xlog_replay_location",
            "last_xlog_receive_location",
            "is_xlog_replay_paused",
        )),
        answer => answer,
    };
    match answer {
        Ok(answer) => answer.value().map_or(Position::Unknown, Position::parse),
        Err(error) if error.is_starting() => Position::Starting,
        Err(_) => Position::Unknown,
    }
}

/// The suffix that the query adds to the position if replay is paused or delayed.
const HELD: &str = " held";

impl Position {
    fn parse(text: &str) -> Position {
        match text.strip_suffix(HELD) {
            Some(lsn) => Position::Held(lsn.to_owned()),
            None => Position::At(text.to_owned()),
        }
    }
}

/// Whether a node's settings point to a node of the pool that is not the primary. Waiting does not change that.
fn follows_another(node: &Node<'_>) -> bool {
    let shown = node.own_server().ask("SHOW primary_conninfo");
    let upstream = match &shown {
        Ok(answer) => answer.value().and_then(|text| ConninfoText::parse(text).ok()),
        // Before version 12, it is not a parameter of the server.
        Err(_) => conninfo_of_recovery_conf(node),
    };
    let Some(upstream) = upstream else { return false };
    let port = upstream.get("port").unwrap_or("5432");
    let is_upstream = |other: &&PoolNode| {
        upstream.host().is_some_and(|host| host::is_same(host, &other.host)) && other.port.to_string() == port
    };
    node.nodes.iter().find(is_upstream).is_some_and(|upstream| !upstream.is_primary)
}

fn conninfo_of_recovery_conf(node: &Node<'_>) -> Option<ConninfoText> {
    let text = files::read(&node.server.data.join("recovery.conf")).ok()??;
    primary_conninfo(&kbrecover_rewind::config::parse(text.as_bytes()).ok()?).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paused_replay_is_part_of_the_position() {
        assert_eq!(Position::parse("0/3000060"), Position::At("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060 held"), Position::Held("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060 held").to_string(), "0/3000060");
    }
}
