//! `virtual_ip`: the primary holds it, nobody else does.
//!
//! An address that cannot be moved does not keep other nodes from being recovered.

use super::daemon::Daemon;
use super::log::Level;
use crate::flow::StepError;

/// Takes the address, unless another node may have it, too.
pub(super) fn hold(daemon: &mut Daemon<'_>) {
    let done = take(daemon);
    told(daemon, done);
}

/// Leaves the address.
pub(super) fn leave(daemon: &mut Daemon<'_>) {
    let done = match &daemon.config.virtual_ip {
        Some(address) => address.is_held().and_then(|is_held| {
            let text = format!("removed virtual address {}", address.address);
            if is_held { address.remove().map(|()| Some(text)) } else { Ok(None) }
        }),
        None => Ok(None),
    };
    told(daemon, done);
}

fn take(daemon: &Daemon<'_>) -> Result<Option<String>, StepError> {
    let Some(address) = &daemon.config.virtual_ip else { return Ok(None) };
    if address.is_held()? {
        return Ok(None);
    }
    if let Some(other) = daemon.other_primary() {
        return Err(StepError::new(format!(
            "virtual address {} is not taken: {other} is a primary, too",
            address.address
        )));
    }
    address.add()?;
    Ok(Some(format!("added virtual address {}", address.address)))
}

fn told(daemon: &mut Daemon<'_>, done: Result<Option<String>, StepError>) {
    let (level, text) = match done {
        Ok(None) => return daemon.address.news(),
        Ok(Some(text)) => (Level::Notice, text),
        Err(error) => (Level::Error, error.to_string()),
    };
    daemon.address.say_once(daemon.log, level, &text);
}
