//! Replication slots of this node: what others receive through it, should it become the primary.
//!
//! A rewind takes them away, and those of an old primary would keep WAL from an age ago. So their names are
//! noted, those of an old primary are dropped while the server is stopped, and what is gone is made again when it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Need, Node, disk};
use crate::flow::{Decision, StepError};
use crate::{files, slots};

/// Where the names are noted, beside the data directory, as the scripts have it.
const NOTE: &str = "tmp_slot";

/// That the note can be written must be known before the server is stopped for it.
pub(super) fn look_at_note(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if slots::physical(&node.server)?.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    match disk::failed(&[note_directory(node).to_owned()], 1) {
        None => Ok(Decision::Skip(String::new())),
        Some(why) => Err(StepError::new(format!("the slots of this node could not be noted: {why}")).hint(
            "The owner of the data directory must be able to write beside it. Nothing has been changed.",
        )),
    }
}

/// Notes the physical slots of this node, and drops those of one that was the primary.
pub(super) fn look_for_old(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let old = slots::physical(&node.server)?;
    if old.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    let names = old.into_iter().collect::<Vec<_>>().join(" ");
    Ok(Decision::Act(match was_primary(node) {
        true => format!("drop the slots [{names}], to be made again"),
        false => format!("note the slots [{names}], to be made again if a rewind takes them away"),
    }))
}

pub(super) fn drop_old(node: &mut Node<'_>) -> Result<String, StepError> {
    let old = slots::physical(&node.server)?;
    let all: BTreeSet<String> = old.iter().cloned().chain(noted(node)?).collect();
    files::replace(&note(node), all.iter().map(|name| format!("{name}\n")).collect::<String>())?;
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

/// Makes the noted slots again.
pub(super) fn look_for_noted(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let names = noted(node)?;
    if names.is_empty() {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act(format!("create the slots [{}]", names.into_iter().collect::<Vec<_>>().join(" "))))
}

pub(super) fn create_noted(node: &mut Node<'_>) -> Result<String, StepError> {
    let server = node.own_server();
    for name in noted(node)? {
        slots::create(&server, &name)?;
    }
    files::remove(&note(node))?;
    Ok(String::new())
}

fn noted(node: &Node<'_>) -> Result<BTreeSet<String>, StepError> {
    let text = files::read(&note(node))?.unwrap_or_default();
    Ok(text.split_whitespace().filter(|name| slots::is_slot_name(name)).map(str::to_owned).collect())
}

fn note(node: &Node<'_>) -> PathBuf {
    note_directory(node).join(NOTE)
}

fn note_directory<'a>(node: &'a Node<'_>) -> &'a Path {
    node.server.data.parent().unwrap_or(&node.server.data)
}
