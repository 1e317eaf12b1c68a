//! Reasons not to recover a node, all of them looked at before anything is stopped.

use kbrecover_rewind::config::Setting;
use kbrecover_rewind::conninfo::ConninfoText;

use super::{Asked, Need, Node, recovery_settings};
use crate::files;
use crate::flow::{Decision, StepError};
use crate::sql::{Server, literal};

/// The template of this node's recovery settings, below `KB_ETC_PATH`.
pub(super) const TEMPLATE: &str = "recovery.done";

/// An old primary is recovered only if that was allowed: what it alone has written is lost.
pub(super) fn look_for_permission(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let may = node.config.auto_primary_recovery || node.asked == Asked::ByHand;
    if node.need != Some(Need::OldPrimary) || may {
        return Ok(Decision::Skip(String::new()));
    }
    let file = node.server.data.join("recovery.conf");
    let mut text =
        format!("the kingbase has no file \"{}\", maybe it's primary, can not do recovery.", file.display());
    if file.exists() {
        text = "the kingbase is not standby, can not do recovery.".into();
    }
    if node.server.running()?.is_some() {
        text.push_str(" ITS SERVER IS RUNNING: there may be two primaries.");
    }
    Ok(Decision::Refuse(format!(
        "{text} AUTO_PRIMARY_RECOVERY is off: look at the data that only this node has, then run this with --force."
    )))
}

/// The files from which the node's configuration is restored must be there and name a standby.
pub(super) fn look_at_templates(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let path = node.config.etc.join(TEMPLATE);
    let Some(template) = recovery_settings::template(node)? else {
        return Err(StepError::new(format!("template \"{}\" is missing", path.display()))
            .hint("It holds standby_mode, primary_conninfo and primary_slot_name of this node. Nothing has been changed."));
    };
    if primary_conninfo(&template)?.is_none() {
        return Err(StepError::new(format!("template \"{}\" sets no primary_conninfo", path.display()))
            .hint("Nothing has been changed."));
    }
    Ok(Decision::Skip(String::new()))
}

/// The new primary must let us in, be a primary, and be another server than the one that would be stopped.
pub(super) fn look_at_primary(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let primary = node.primary_server()?;
    let answer =
        primary.ask_named(|prefix| format!("SELECT {prefix}_is_in_recovery()")).map_err(|error| {
            StepError::of(&error)
                .hint("The primary must be reachable with KB_USER and KB_PASS. Nothing has been changed.")
        })?;
    if answer.is_true() {
        return Ok(Decision::Refuse(format!(
            "{} is the primary for the pool, but its server is in recovery: nothing to do yet",
            primary.name()
        )));
    }
    Ok(primary_is_own(node)?.map_or(Decision::Skip(String::new()), Decision::Refuse))
}

/// Why a node is left alone that the pool knows by another address, as its primary.
pub(super) fn primary_is_own(node: &Node<'_>) -> Result<Option<String>, StepError> {
    let primary = node.primary_server()?;
    Ok(is_own(node, &primary)?.then(|| {
        format!(
            "the primary, {}, is the very server of this node: KB_LOCALHOST_IP and KB_PORT are those of another node",
            primary.name()
        )
    }))
}

/// Whether a server is that of this node's data directory: its lock file names process, directory and time of the start.
fn is_own(node: &Node<'_>, server: &Server) -> Result<bool, StepError> {
    let name = node.server.names().lock_file;
    let Some(own) = files::read_bytes(&node.server.data.join(name))? else { return Ok(false) };
    // In hex, since the name of a directory may be in any encoding; by the function that a rewind reads files with.
    let question = |prefix: &str| {
        let (name, most) = (literal(name), own.len() + 1);
        format!("SELECT encode({prefix}_read_binary_file({name}, 0, {most}, true), 'hex')")
    };
    let theirs = server.ask_named(question).map_err(|error| {
        StepError::of(&error).hint(
            "Is the primary this node's own server? It must be reachable, and KB_USER a superuser. Nothing has been changed.",
        )
    })?;
    let own: Vec<_> = own.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(theirs.value() == Some(&own.concat()))
}

/// `primary_conninfo` among recovery settings.
pub(super) fn primary_conninfo(settings: &[Setting]) -> Result<Option<ConninfoText>, StepError> {
    let Some(setting) = settings.iter().rev().find(|setting| setting.name == "primary_conninfo") else {
        return Ok(None);
    };
    ConninfoText::parse(&setting.value).map(Some).map_err(|error| {
        StepError::new(format!(
            "primary_conninfo of template \"{TEMPLATE}\" is no connection string: {error}"
        ))
    })
}
