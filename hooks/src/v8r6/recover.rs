//! Recovers one node from the primary: first the reasons not to act, then the node's role, then its recovery, which
//! runs on the node's own machine.

use super::cluster::NodeRecord;
use super::config::Recovery;
use super::context::{Backoff, Context};
use super::log::{Level, say, thread};
use super::remote;
use crate::flow::StepError;
use crate::remote::quoted;

/// Whether the next attempt to recover a node may begin now. Reports once if none will be made.
pub(super) fn is_due(context: &Context<'_>, node: &NodeRecord, backoff: &mut Backoff) -> bool {
    match reason_to_give_up(context, node, backoff) {
        Some((level, why)) => {
            backoff.report_once(context.log, level, &why);
            false
        }
        None => backoff.is_due(),
    }
}

/// Starts or rejoins a node if the node's role is certain and the configuration allows it.
pub(super) fn recover(
    context: &Context<'_>,
    node: &NodeRecord,
    backoff: &mut Backoff,
) -> Result<(), StepError> {
    let (config, log) = (&context.config, context.log);
    if let Some((level, why)) = reason_to_wait(context, node)? {
        backoff.report_once(log, level, &why);
        return Ok(());
    }
    let is_standby = is_standby(context, node)?;
    let (host, program) = (node.host()?, quoted(context.program));
    let file = quoted(&node.config_file);
    let (action, script) = match (is_standby, config.recovery) {
        (true, _) => ("START DATABASE", format!("{program} hook v8r6 -f {file} startdb")),
        (false, Recovery::Automatic) => {
            let own = config.own_server();
            let (primary, port) = (quoted(own.host()), quoted(own.port()));
            let rejoin = format!("rejoin -h {primary} -p {port} --force-rewind");
            ("NODE REJOIN", format!("{program} hook v8r6 -f {file} {rejoin}"))
        }
        (false, recovery) => {
            let text = format!(
                "{} is not a standby, and recovery='{recovery}': manual recovery is required",
                node.shown()
            );
            backoff.report_once(log, Level::Info, &text);
            return Ok(());
        }
    };
    backoff.forget_message();
    let (name, id) = (&node.name, node.id);
    say(log, Level::Info, &format!("node \"{name}\" (ID: {id}, HOST: {host}) auto-recovery: {action}"));
    remote::run(context, host, &script)?;
    // Counted although the command succeeded: only an attached node is recovered.
    backoff.record_attempt(config);
    // KingbaseES logs a different line for each of the two.
    let text = match is_standby {
        true => format!("{}node \"{name}\" (ID: {id}) auto-recovery success", thread()),
        false => format!("kbha: node (ID: {id}) rejoin success."),
    };
    say(log, Level::Notice, &text);
    Ok(())
}

/// Why the daemon no longer tries to recover a node.
fn reason_to_give_up(context: &Context<'_>, node: &NodeRecord, backoff: &Backoff) -> Option<(Level, String)> {
    let shown = node.shown();
    if context.config.recovery == Recovery::Manual {
        let text = format!("{shown} is not attached; recovery='manual': manual recovery is required");
        return Some((Level::Info, text));
    }
    let attempts = backoff.attempts;
    (attempts >= context.config.max_attempts).then(|| {
        let text =
            format!("{shown} could not be recovered in {attempts} attempt(s): manual recovery is required");
        (Level::Error, text)
    })
}

/// Why a node is not recovered in this round.
fn reason_to_wait(context: &Context<'_>, node: &NodeRecord) -> Result<Option<(Level, String)>, StepError> {
    if let Some(other) = context.other_primary() {
        let text = format!(
            "{}there may be multiple nodes running as primary, can not do recovery for failed node ({other} is also one)",
            thread()
        );
        return Ok(Some((Level::Error, text)));
    }
    if context.is_isolated()? {
        let text = "none of the trusted servers responds: this node may be isolated from the network, no action is taken";
        return Ok(Some((Level::Error, text.to_owned())));
    }
    // It may be about to attach, or follow another upstream node.
    Ok((context.is_primary(node) == Some(false)).then(|| {
        let text =
            format!("{} is running as a standby but is not attached: no action is taken", node.shown());
        (Level::Info, text)
    }))
}

/// Whether the node is a standby according to its data directory.
fn is_standby(context: &Context<'_>, node: &NodeRecord) -> Result<bool, StepError> {
    let (log, host) = (context.log, node.host()?);
    let own = context.config.own_server();
    say(log, Level::Notice, &format!("{}Now, the primary host ip: {}", thread(), own.host()));
    if let Err(error) = remote::status(context, host, "/bin/true") {
        if context.stop.is_requested() {
            return Err(error);
        }
        let text =
            format!("unable to connect via ES to host \"{host}\", can't confirm if it's a standby node");
        say(log, Level::Info, &text);
        let text = format!("{}can not do auto-recovery because not confirmed a standby node", thread());
        say(log, Level::Info, &text);
        return Err(error);
    }
    let text = format!("{}ES connection to host \"{host}\" succeeded, ready to do auto-recovery", thread());
    say(log, Level::Info, &text);
    remote::is_standby(context, host, &node.config_file)
}
