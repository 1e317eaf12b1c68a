//! `virtual_ip`: held by the primary and by no other node.
//!
//! A failure here is logged and does not prevent the recovery of other nodes.

use super::context::{Backoff, Context};
use super::log::Level;
use crate::flow::StepError;

/// Adds the address to this node unless another node is also a primary.
pub(super) fn hold(context: &Context<'_>, backoff: &mut Backoff) {
    report(context, backoff, add(context));
}

/// Removes the address from this node.
pub(super) fn release(context: &Context<'_>, backoff: &mut Backoff) {
    report(context, backoff, remove(context));
}

fn add(context: &Context<'_>) -> Result<Option<String>, StepError> {
    let Some(address) = &context.config.virtual_ip else { return Ok(None) };
    if address.is_held()? {
        return Ok(None);
    }
    if let Some(other) = context.other_primary() {
        return Err(StepError::new(format!(
            "virtual address {} is not added: {other} is also a primary",
            address.address
        )));
    }
    address.add()?;
    Ok(Some(format!("added virtual address {}", address.address)))
}

fn remove(context: &Context<'_>) -> Result<Option<String>, StepError> {
    let Some(address) = &context.config.virtual_ip else { return Ok(None) };
    if !address.is_held()? {
        return Ok(None);
    }
    address.remove()?;
    Ok(Some(format!("removed virtual address {}", address.address)))
}

fn report(context: &Context<'_>, backoff: &mut Backoff, done: Result<Option<String>, StepError>) {
    let (level, text) = match done {
        Ok(None) => return backoff.forget_message(),
        Ok(Some(text)) => (Level::Notice, text),
        Err(error) => (Level::Error, error.to_string()),
    };
    backoff.report_once(context.log, level, &text);
}
