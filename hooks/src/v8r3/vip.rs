//! `KB_VIP`: the virtual address, held by the primary and by no other node.

use super::node::Node;
use super::refuse;
use crate::flow::{Decision, StepError};

/// On the primary: whether the address has to be added.
pub(super) fn check_missing(node: &mut Node<'_>) -> Result<Decision, StepError> {
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

/// On another node: whether the address has to be removed.
pub(super) fn check_held(node: &mut Node<'_>) -> Result<Decision, StepError> {
    match &node.config.vip {
        Some(vip) if vip.is_held()? => {
            // A server that is down does not need the address, so only a running one is compared with the primary.
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
