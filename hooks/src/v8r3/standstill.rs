//! A standby that runs but does not receive: it is stopped only if it stands still from one run to the next.
//!
//! Its primary may just have been restarted, and WAL that is there already is replayed without a primary. What was
//! seen is noted between runs; one that follows another node than the primary is not waited for.

use rewind::source::conninfo::ConninfoText;

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
    /// Whether the run before has seen something, this or another.
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
    node.seen = Some(Seen { text: text.clone(), is_known: before.is_some() });
    let why = match (position, before) {
        (Position::Replaying(_), _) => "but it still replays",
        (_, None) => "it is looked at again by the next run",
        (_, Some(before)) if before != text => "but it has moved since the run before",
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "this standby does not receive from the primary, {why}: nothing is done (--force does not wait)"
    )))
}

/// Notes what was seen for the next run, or that all is well.
pub(super) fn note(node: &Node<'_>) {
    let noted = match &node.seen {
        Some(seen) => files::replace(&node.run_file(FILE), &seen.text),
        None if node.need == Some(Need::NotStreaming) => Ok(()),
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
    /// All that it has received is replayed, up to here.
    At(String),
    /// There is more to replay behind this.
    Replaying(String),
    /// It does not say.
    Unknown,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Position::At(lsn) | Position::Replaying(lsn) => f.write_str(lsn),
            Position::Unknown => f.write_str("?"),
        }
    }
}

fn position(node: &Node<'_>) -> Position {
    let server = node.own_server();
    let question = |replay: &'static str, receive: &'static str| {
        move |prefix: &str| {
            format!(
                "SELECT {prefix}_{replay}()::text || \
                 CASE WHEN {prefix}_{receive}() > {prefix}_{replay}() THEN '+' ELSE '' END"
            )
        }
    };
    let answer = match server.ask_named(question("last_wal_replay_lsn", "last_wal_receive_lsn")) {
        Err(error) if error.is_unknown_name() => {
            server.ask_named(question("last_xlog_replay_location", "last_xlog_receive_location"))
        }
        answer => answer,
    };
    match answer {
        Ok(answer) => answer.value().map_or(Position::Unknown, Position::parse),
        Err(error) if error.is_starting() => Position::Replaying("?".to_owned()),
        Err(_) => Position::Unknown,
    }
}

impl Position {
    fn parse(text: &str) -> Position {
        match text.strip_suffix('+') {
            Some(lsn) => Position::Replaying(lsn.to_owned()),
            None => Position::At(text.to_owned()),
        }
    }
}

/// Whether a node's settings name another node of the pool than its primary: that does not pass by itself.
fn follows_another(node: &Node<'_>) -> bool {
    let shown = node.own_server().ask("SHOW primary_conninfo");
    let text = match &shown {
        Ok(answer) => answer.value().map(str::to_owned),
        // Before 12 it is no setting of the server.
        Err(_) => in_recovery_conf(node),
    };
    let Some(upstream) = text.and_then(|text| ConninfoText::parse(&text).ok()) else { return false };
    let host = upstream.get("host").or(upstream.get("hostaddr"));
    let port = upstream.get("port").unwrap_or("5432");
    let is_it =
        |other: &&super::PoolNode| Some(other.host.as_str()) == host && other.port.to_string() == port;
    node.nodes.iter().find(is_it).is_some_and(|upstream| !upstream.is_primary)
}

fn in_recovery_conf(node: &Node<'_>) -> Option<String> {
    let text = files::read(&node.server.data.join("recovery.conf")).ok()??;
    let settings = rewind::config::parse(text.as_bytes()).ok()?;
    settings.into_iter().rev().find(|setting| setting.name == "primary_conninfo").map(|setting| setting.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_but_not_replayed_counts_as_moving() {
        assert_eq!(Position::parse("0/3000060"), Position::At("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060+"), Position::Replaying("0/3000060".to_owned()));
        assert_eq!(Position::parse("0/3000060+").to_string(), "0/3000060");
    }
}
