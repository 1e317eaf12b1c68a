//! Physical replication slots of this node, which other nodes use if it becomes the primary.
//!
//! A rewind removes them, and the slots of an old primary would retain obsolete WAL. Therefore their names are recorded,
//! the slots of an old primary are dropped while its server is stopped, and all recorded slots are created again once the
//! server is running.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::disk;
use super::node::{Need, Node};
use crate::flow::{Decision, StepError};
use crate::{files, slots};

/// The file with the recorded names, in the parent of the data directory, as in the KingbaseES scripts.
const RECORD: &str = "tmp_slot";

/// Checks that the names can be recorded, before the server is stopped.
pub(super) fn check_record(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if slots::physical(&node.server)?.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    match disk::failed(&[record_directory(node).to_owned()], 1) {
        None => Ok(Decision::Pass(String::new())),
        Some(why) => Err(StepError::new(format!("could not record the replication slots of this node: {why}")).hint(
            "The owner of the data directory needs write permission for its parent directory. Nothing has been changed.",
        )),
    }
}

/// Records the physical slots of this node, and drops them if it was the primary.
pub(super) fn check_old(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let old = slots::physical(&node.server)?;
    if old.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    let names = old.into_iter().collect::<Vec<_>>().join(" ");
    Ok(Decision::Act(match was_primary(node) {
        true => format!("drop the slots [{names}] and create them again later"),
        false => format!("record the slots [{names}] and create them again if a rewind removes them"),
    }))
}

pub(super) fn drop_old(node: &mut Node<'_>) -> Result<String, StepError> {
    let old = slots::physical(&node.server)?;
    let all: BTreeSet<String> = old.iter().cloned().chain(recorded(node)?).collect();
    files::replace(&record(node), all.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    if was_primary(node) {
        for name in &old {
            slots::drop_stopped(&node.server, name)?;
        }
    }
    Ok(String::new())
}

fn was_primary(node: &Node<'_>) -> bool {
    matches!(node.need, Some(Need::OldPrimary | Need::Unfinished))
}

/// Creates the recorded slots again.
pub(super) fn check_recorded(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let names = recorded(node)?;
    if names.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act(format!("create the slots [{}]", names.into_iter().collect::<Vec<_>>().join(" "))))
}

pub(super) fn create_recorded(node: &mut Node<'_>) -> Result<String, StepError> {
    let server = node.own_server();
    for name in recorded(node)? {
        slots::create(&server, &name)?;
    }
    files::remove(&record(node))?;
    Ok(String::new())
}

fn recorded(node: &Node<'_>) -> Result<BTreeSet<String>, StepError> {
    let text = files::read(&record(node))?.unwrap_or_default();
    Ok(text.split_whitespace().filter(|name| slots::is_slot_name(name)).map(str::to_owned).collect())
}

fn record(node: &Node<'_>) -> PathBuf {
    record_directory(node).join(RECORD)
}

fn record_directory<'a>(node: &'a Node<'_>) -> &'a Path {
    node.server.data.parent().unwrap_or(&node.server.data)
}
