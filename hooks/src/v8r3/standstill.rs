//! A standby that runs but does not receive: it is stopped only if it stands still from one run to the next.
//!
//! Its primary may just have been restarted, and WAL that is there already is replayed without a primary. What was
//! seen is noted between runs; one that follows another node than the primary is not waited for.

use kbrecover_rewind::conninfo::ConninfoText;

use super::refuse::primary_conninfo;
use super::{Asked, Need, Node};
use crate::files;
use crate::flow::StepError;

/// Where it is noted what the run before saw.
const FILE: &str = "KB_RECOVERY_STANDSTILL";

/// What is compared from run to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// As it is noted: the server's process and the position that it has replayed to.
    text: String,
    /// Whether the run before has seen something and told of it, so that nothing need be said.
    is_known: bool,
}

/// Why a standby that does not receive is left as it is this time.
pub(super) fn reason_to_wait(node: &mut Node<'_>) -> Result<Option<String>, StepError> {
    if node.need != Some(Need::NotStreaming) || node.asked == Asked::ByHand || follows_another(node) {
        return Ok(None);
    }
    let Some(process) = node.server.running()? else { return Ok(None) };
    let position = position(node);
    let before = files::read_note(&node.run_file(FILE));
    let text = format!("{process} {position}\n");
    let waits_for_others = match position {
        Position::Starting => Some("but it accepts no connections yet"),
        Position::Held(_) => Some("but its replay is paused or delayed"),
        Position::At(_) | Position::Unknown => None,
    };
    // What may last for ever is told each time.
    let is_known = before.is_some() && waits_for_others.is_none();
    node.seen = Some(Seen { text: text.clone(), is_known });
    let why = match (waits_for_others, before) {
        (Some(why), _) => why,
        (_, None) => "it is looked at again by the next run",
        (_, Some(before)) if before != text => "but it has moved since the run before",
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "this standby does not receive from the primary, {why}: nothing is done (--force does not wait)"
    )))
}

/// Notes what was seen for the next run, or that all is well; a run that has not come so far leaves the note.
pub(super) fn note(node: &Node<'_>, is_well: bool) {
    let noted = match &node.seen {
        Some(seen) => files::replace(&node.run_file(FILE), &seen.text),
        None if node.need == Some(Need::NotStreaming) || !is_well => Ok(()),
        None => files::remove(&node.run_file(FILE)),
    };
    if let Err(error) = noted {
        tracing::warn!("{error}");
    }
}

impl Seen {
    /// Whether an earlier run has told that this standby does not receive.
    pub(super) fn was_told(&self) -> bool {
        self.is_known
    }
}

/// How far a server has come by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Position {
    /// It has replayed up to here. More may be there: WAL that came last mostly ends in the middle of a record.
    At(String),
    /// It has replayed up to here and was told to wait: replay is paused, or applied with a delay.
    Held(String),
    /// It accepts no connections yet.
    Starting,
    /// It does not say.
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
    let question = |replay: &'static str, receive: &'static str, paused: &'static str| {
        move |prefix: &str| {
            format!(
                "SELECT {prefix}_{replay}()::text || CASE WHEN {prefix}_{paused}() \
                 OR {prefix}_{receive}() > {prefix}_{replay}() \
                 AND coalesce(current_setting('recovery_min_apply_delay', true), '0') <> '0' \
                 THEN '{HELD}' ELSE '' END"
            )
        }
    };
    let now = question("last_wal_replay_lsn", "last_wal_receive_lsn", "is_wal_replay_paused");
    let answer = match server.ask_named(now) {
        Err(error) if error.is_unknown_name() => server.ask_named(question(
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

/// What our question says behind the position of a server that was told to wait.
const HELD: &str = " held";

impl Position {
    fn parse(text: &str) -> Position {
        match text.strip_suffix(HELD) {
            Some(lsn) => Position::Held(lsn.to_owned()),
            None => Position::At(text.to_owned()),
        }
    }
}

/// Whether a node's settings name another node of the pool than its primary: that does not pass by itself.
fn follows_another(node: &Node<'_>) -> bool {
    let shown = node.own_server().ask("SHOW primary_conninfo");
    let upstream = match &shown {
        Ok(answer) => answer.value().and_then(|text| ConninfoText::parse(text).ok()),
        // Before 12 it is no setting of the server.
        Err(_) => in_recovery_conf(node),
    };
    let Some(upstream) = upstream else { return false };
    let port = upstream.get("port").unwrap_or("5432");
    let is_it = |other: &&super::PoolNode| {
        Some(other.host.as_str()) == upstream.host() && other.port.to_string() == port
    };
    node.nodes.iter().find(is_it).is_some_and(|upstream| !upstream.is_primary)
}

fn in_recovery_conf(node: &Node<'_>) -> Option<ConninfoText> {
    let text = files::read(&node.server.data.join("recovery.conf")).ok()??;
    primary_conninfo(&kbrecover_rewind::config::parse(text.as_bytes()).ok()?).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_told_to_wait_says_so() {
        assert_eq!(Position::parse("0/3000060"), Position::At("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060 held"), Position::Held("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060 held").to_string(), "0/3000060");
    }
}
