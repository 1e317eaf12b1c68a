//! Reasons not to recover a node. All of them are checked before a server is stopped.

use super::node::{Need, Node, Trigger};
use super::pcp;
use super::recovery_settings::{self, TEMPLATE, primary_conninfo};
use crate::flow::{Decision, Run, StepError};
use crate::sql::{Server, literal};
use crate::{files, programs};

/// An old primary is recovered only if that is allowed, because changes that exist only there are lost.
pub(super) fn check_permission(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let may = node.config.auto_primary_recovery || node.trigger == Trigger::Manual;
    if node.need != Some(Need::OldPrimary) || may {
        return Ok(Decision::Pass(String::new()));
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
        "{text} AUTO_PRIMARY_RECOVERY is off: with --dry-run --force this shows what would be done and lost; then run it with --force."
    )))
}

/// The programs that the later steps run must be there.
pub(super) fn check_programs(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let control = node.server.program(node.server.names().ctl_program);
    for path in [control, pcp::path(node, pcp::ATTACH), pcp::path(node, pcp::DETACH)] {
        if !programs::is_executable(&path) {
            return Err(StepError::new(format!("\"{}\" is no program that this user can run", path.display())).hint(
                "KB_PATH is the directory of the server's programs, or the one above their bin; the pool's are there or in \
                 CLUSTER_BIN_PATH. Nothing has been changed.",
            ));
        }
    }
    Ok(Decision::Pass(String::new()))
}

/// The template of the recovery settings must exist and set `primary_conninfo`.
pub(super) fn check_template(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let path = node.config.etc.join(TEMPLATE);
    let Some(template) = recovery_settings::template(node)? else {
        return Err(StepError::new(format!("template \"{}\" is missing", path.display()))
            .hint("It contains standby_mode, primary_conninfo and primary_slot_name of this node. Nothing has been changed."));
    };
    if primary_conninfo(&template)?.is_none() {
        return Err(StepError::new(format!("template \"{}\" does not set primary_conninfo", path.display()))
            .hint("Nothing has been changed."));
    }
    Ok(Decision::Pass(String::new()))
}

/// The new primary must accept our connection, not be in recovery, and not be the server that would be stopped.
pub(super) fn check_primary(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let primary = node.primary_server()?;
    let answer =
        primary.ask_named(|prefix| format!("SELECT {prefix}_is_in_recovery()")).map_err(|error| {
            StepError::of(&error)
                .hint("The primary must be reachable with KB_USER and KB_PASS. Nothing has been changed.")
        })?;
    if answer.is_true() {
        return Ok(Decision::Refuse(format!(
            "the pool reports {} as the primary, but its server is in recovery: nothing to do yet",
            primary.name()
        )));
    }
    Ok(primary_is_own(node)?.map_or(Decision::Pass(String::new()), Decision::Refuse))
}

/// In a dry run: the logins that only the last steps need, at the pool's control port and for replication at the primary. A
/// run does not give up because of them: a standby that is started is better than none.
pub(super) fn check_logins(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if node.run == Run::Real {
        return Ok(Decision::Skip(String::new()));
    }
    pcp::call(node, pcp::COUNT, None)?;
    let template = recovery_settings::template(node)?.unwrap_or_default();
    if let Some(conninfo) = recovery_settings::conninfo_to_primary(node, &template)? {
        let role = conninfo.get("user").unwrap_or_default().to_owned();
        let (prefixes, limit) = (node.server.prefixes(), node.config.connect_timeout);
        let primary = Server { conninfo, prefixes, limit };
        primary.try_replication().map_err(|error| {
            let why = StepError::of(&error).message;
            StepError::new(format!("role \"{role}\" of primary_conninfo in {TEMPLATE} cannot replicate: {why}")).hint(
                "The role needs the attribute REPLICATION, and pg_hba.conf of the primary a line for it and the database \"replication\".",
            )
        })?;
    }
    Ok(Decision::Pass("the control port of the pool and the primary's replication answer".into()))
}

/// Refuses a node that is itself the primary, known to the pool by another address.
pub(super) fn primary_is_own(node: &Node<'_>) -> Result<Option<String>, StepError> {
    let primary = node.primary_server()?;
    Ok(is_own(node, &primary)?.then(|| {
        format!(
            "the primary, {}, is this node's own server: KB_LOCALHOST_IP and KB_PORT are those of another node",
            primary.name()
        )
    }))
}

/// Whether a server is the one of this node's data directory: both have the same lock file, which contains the process ID,
/// the data directory and the start time.
fn is_own(node: &Node<'_>, server: &Server) -> Result<bool, StepError> {
    let name = node.server.names().lock_file;
    let Some(own) = files::read_bytes(&node.server.data.join(name))? else { return Ok(false) };
    // In hex, because the path of the directory may be in any encoding; with the function that a rewind needs anyway.
    let query = |prefix: &str| {
        let (name, length) = (literal(name), own.len() + 1);
        format!("SELECT encode({prefix}_read_binary_file({name}, 0, {length}, true), 'hex')")
    };
    let theirs = server.ask_named(query).map_err(|error| {
        StepError::of(&error).hint(
            "This checks whether the primary is this node's own server. It must be reachable, and KB_USER must be a superuser. Nothing has been changed.",
        )
    })?;
    let own: Vec<_> = own.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(theirs.value() == Some(&own.concat()))
}
