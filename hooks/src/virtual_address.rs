//! The address that moves with the primary. It is added to and removed from a network device by `ip`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason};

use crate::flow::StepError;
use crate::host;

/// A virtual address and the programs that change it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VirtualAddress {
    /// `address/mask`
    pub address: String,
    /// The network device.
    pub device: String,
    /// The program `ip`.
    pub ip: PathBuf,
    /// The program `arping`.
    pub arping: PathBuf,
}

impl VirtualAddress {
    /// An address on a device. The programs are searched for on `PATH` unless a directory is given.
    pub(crate) fn new(
        address: String,
        device: String,
        ip: Option<&Path>,
        arping: Option<&Path>,
    ) -> VirtualAddress {
        let program = |directory: Option<&Path>, name: &str| {
            directory.map_or_else(|| PathBuf::from(name), |directory| directory.join(name))
        };
        VirtualAddress { address, device, ip: program(ip, "ip"), arping: program(arping, "arping") }
    }

    /// Whether a device of this machine has the address.
    ///
    /// # Errors
    /// `ip` cannot be run.
    pub(crate) fn is_held(&self) -> Result<bool, StepError> {
        let shown = run(Command::new(&self.ip).args(["-o", "addr", "show"]))?;
        let address = self.host();
        let is_it = |word: &str| word.split('/').next().is_some_and(|word| host::is_same(word, address));
        Ok(shown.split_whitespace().any(is_it))
    }

    /// Adds the address, and announces it to other hosts by `arping`.
    ///
    /// # Errors
    /// `ip` failed.
    pub(crate) fn add(&self) -> Result<(), StepError> {
        let VirtualAddress { address, device, .. } = self;
        let label = format!("{device}:2");
        let mut ip = Command::new(&self.ip);
        ip.args(["addr", "add", address, "dev", device]);
        // A longer label is not allowed. The label is not needed, only convenient.
        if label.len() <= 15 {
            ip.args(["label", &label]);
        }
        run(&mut ip)?;
        let mut arping = Command::new(&self.arping);
        arping.args(["-U", "-c", "3", "-w", "3", "-I", device, self.host()]);
        // Only a warning: without the announcement, other hosts learn the new place of the address a little later.
        if let Err(error) = run(&mut arping) {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    /// Removes the address.
    ///
    /// # Errors
    /// `ip` failed.
    pub(crate) fn remove(&self) -> Result<(), StepError> {
        run(Command::new(&self.ip).args(["addr", "del", &self.address, "dev", &self.device])).map(drop)
    }

    /// The address without its mask.
    fn host(&self) -> &str {
        self.address.split('/').next().unwrap_or(&self.address)
    }
}

fn run(command: &mut Command) -> Result<String, StepError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let finished = command::run_quietly(command, Some(Duration::from_secs(20)))
        .map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(finished.output);
    }
    let why = ExitReason(finished.status);
    Err(StepError::new(format!("\"{program}\" failed: {why} ({})", finished.output.trim())).hint(
        "Changing addresses requires privileges: set the set-user-ID bit of this program, or configure no virtual address.",
    ))
}
