//! Bringing back one node from the primary: reasons not to do it first, then a look at the node, then its recovery
//! on its own machine.

use super::Recovery;
use super::cluster::NodeRecord;
use super::daemon::{Daemon, Missing};
use super::log::{Level, say, thread};
use super::remote::{self, quoted};
use crate::flow::StepError;

/// Recovers a node, if that is allowed and certain.
pub(super) fn recover(daemon: &Daemon<'_>, node: &NodeRecord, state: &mut Missing) -> Result<(), StepError> {
    let (config, log) = (&daemon.config, daemon.log);
    if let Some((level, why)) = reason_to_leave(daemon, node, state) {
        state.say_once(log, level, &why);
        return Ok(());
    }
    if !state.is_due() {
        return Ok(());
    }
    if let Some((level, why)) = reason_to_wait(daemon, node)? {
        state.say_once(log, level, &why);
        return Ok(());
    }
    let is_standby = look_at(daemon, node)?;
    let (host, program) = (node.host(), quoted(daemon.program));
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
                "{} is not a standby, and recovery='{recovery}': it is left to a person",
                node.shown()
            );
            state.say_once(log, Level::Info, &text);
            return Ok(());
        }
    };
    state.news();
    let (name, id) = (&node.name, node.id);
    say(log, Level::Info, &format!("node \"{name}\" (ID: {id}, HOST: {host}) auto-recovery: {action}"));
    remote::run(daemon, host, &script)?;
    // Whether it helped is not certain before the node is seen attached.
    state.tried(config);
    // In the words of the product, which has others for each.
    let text = match is_standby {
        true => format!("{}node \"{name}\" (ID: {id}) auto-recovery success", thread()),
        false => format!("kbha: node (ID: {id}) rejoin success."),
    };
    say(log, Level::Notice, &text);
    Ok(())
}

/// Why a node is a person's matter for good.
fn reason_to_leave(daemon: &Daemon<'_>, node: &NodeRecord, state: &Missing) -> Option<(Level, String)> {
    let shown = node.shown();
    if daemon.config.recovery == Recovery::Manual {
        let text = format!("{shown} is not attached; recovery='manual': it is left to a person");
        return Some((Level::Info, text));
    }
    let tries = state.tries;
    (tries >= daemon.config.max_attempts).then(|| {
        let text = format!("{shown} could not be recovered {tries} times: it is left to a person");
        (Level::Error, text)
    })
}

/// Why nothing is done just now.
fn reason_to_wait(daemon: &Daemon<'_>, node: &NodeRecord) -> Result<Option<(Level, String)>, StepError> {
    if let Some(other) = daemon.other_primary() {
        let text = format!(
            "{}there may be multiple nodes running as primary, can not do recovery for failed node ({other} is one, too)",
            thread()
        );
        return Ok(Some((Level::Error, text)));
    }
    if daemon.is_cut_off()? {
        let text = "none of the trusted servers answers: this node may be cut off, nothing is done";
        return Ok(Some((Level::Error, text.to_owned())));
    }
    // It may be attaching at this moment, or be up under another upstream.
    Ok((daemon.asks_primary(node) == Some(false)).then(|| {
        (Level::Info, format!("{} runs as a standby but is not attached: it is left as it is", node.shown()))
    }))
}

/// Whether the node is a standby, in the words of its own directory.
fn look_at(daemon: &Daemon<'_>, node: &NodeRecord) -> Result<bool, StepError> {
    let (log, host) = (daemon.log, node.host());
    let own = daemon.config.own_server();
    say(log, Level::Notice, &format!("{}Now, the primary host ip: {}", thread(), own.host()));
    if let Err(error) = remote::status(daemon, host, "/bin/true") {
        if daemon.stop.is_requested() {
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
    remote::is_standby(daemon, host, &node.config_file)
}
