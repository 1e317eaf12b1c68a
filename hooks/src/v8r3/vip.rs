//! `KB_VIP`: the primary holds it, nobody else does.

use super::{Node, refuse};
use crate::flow::{Decision, StepError};

/// Adds the address if the primary lacks it.
pub(super) fn look_for_missing(node: &mut Node<'_>) -> Result<Decision, StepError> {
    match &node.config.vip {
        Some(vip) if !vip.is_held()? => {
            Ok(Decision::Act(format!("add {} to device {}", vip.address, vip.device)))
        }
        _ => Ok(Decision::Skip(String::new())),
    }
}

pub(super) fn add(node: &mut Node<'_>) -> Result<String, StepError> {
    let Some(vip) = &node.config.vip else { return Ok(String::new()) };
    vip.add()?;
    Ok(format!("added virtual address {}", vip.address))
}

/// Takes the address away from a node that is not the primary.
pub(super) fn look_for_held(node: &mut Node<'_>) -> Result<Decision, StepError> {
    match &node.config.vip {
        Some(vip) if vip.is_held()? => {
            // A server that is down needs no address, whoever it is.
            if node.server.running()?.is_some()
                && let Some(why) = refuse::primary_is_own(node)?
            {
                return Ok(Decision::Refuse(why));
            }
            Ok(Decision::Act(format!("remove {} from device {}", vip.address, vip.device)))
        }
        _ => Ok(Decision::Skip(String::new())),
    }
}

pub(super) fn remove(node: &mut Node<'_>) -> Result<String, StepError> {
    let Some(vip) = &node.config.vip else { return Ok(String::new()) };
    vip.remove()?;
    Ok(format!("removed virtual address {}", vip.address))
}
