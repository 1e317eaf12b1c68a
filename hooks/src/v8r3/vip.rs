//! The virtual address: the primary holds it, nobody else does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rewind::command::{self, ExitReason};

use super::Node;
use crate::flow::{Decision, StepError};

/// Adds the address if the primary lacks it.
pub(super) fn look_for_missing(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let Some(vip) = &node.config.vip else { return Ok(Decision::Skip(String::new())) };
    if holds(node, vip)? {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act(format!("add {vip} to device {}", node.config.device)))
}

pub(super) fn add(node: &mut Node<'_>) -> Result<String, StepError> {
    let Some(vip) = &node.config.vip else { return Ok(String::new()) };
    let device = &node.config.device;
    run(ip(node).args(["addr", "add", vip, "dev", device, "label", &format!("{device}:2")]))?;
    let mut arping = Command::new(in_directory(node.config.ip_programs.1.as_deref(), "arping"));
    arping.args(["-U", "-c", "3", "-w", "3", "-I", device, address(vip)]);
    // The address is there; neighbours that were not told learn it a little later.
    if let Err(error) = run(&mut arping) {
        tracing::warn!("{error}");
    }
    Ok(format!("added virtual address {vip}"))
}

/// Takes the address away from a node that is not the primary.
pub(super) fn look_for_held(node: &mut Node<'_>) -> Result<Decision, StepError> {
    match &node.config.vip {
        Some(vip) if holds(node, vip)? => {
            Ok(Decision::Act(format!("remove {vip} from device {}", node.config.device)))
        }
        _ => Ok(Decision::Skip(String::new())),
    }
}

pub(super) fn remove(node: &mut Node<'_>) -> Result<String, StepError> {
    let Some(vip) = &node.config.vip else { return Ok(String::new()) };
    run(ip(node).args(["addr", "del", vip, "dev", &node.config.device]))?;
    Ok(format!("removed virtual address {vip}"))
}

fn holds(node: &Node<'_>, vip: &str) -> Result<bool, StepError> {
    let shown = run(ip(node).args(["-o", "addr", "show"]))?;
    let address = address(vip);
    Ok(shown.split_whitespace().any(|word| word.split('/').next() == Some(address)))
}

fn address(vip: &str) -> &str {
    vip.split('/').next().unwrap_or(vip)
}

fn ip(node: &Node<'_>) -> Command {
    Command::new(in_directory(node.config.ip_programs.0.as_deref(), "ip"))
}

fn in_directory(directory: Option<&Path>, program: &str) -> PathBuf {
    directory.map_or_else(|| PathBuf::from(program), |directory| directory.join(program))
}

fn run(command: &mut Command) -> Result<String, StepError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let finished = command::run_quietly(command, Some(Duration::from_secs(20)))
        .map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(finished.output);
    }
    let why = ExitReason(finished.status);
    Err(StepError::new(format!("\"{program}\" failed: {why} ({})", finished.output.trim()))
        .hint("Changing addresses needs rights: give the program the capability cap_net_admin, or set KB_VIP to nothing."))
}
