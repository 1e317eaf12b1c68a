//! `KB_VIP`: the primary holds it, nobody else does.

use super::Node;
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
