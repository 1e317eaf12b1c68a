//! Ownership and permissions of the files that a run creates.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Mode;

use crate::failure::SetupError;

/// Refuses to run as root: the server's user could not write the files that root creates.
pub(crate) fn refuse_root() -> Result<(), SetupError> {
    if rustix::process::geteuid().is_root() { Err(SetupError::Root) } else { Ok(()) }
}

/// Gives files created in the data directory the permissions that its server would give them: they are
/// not owned by root, and readable for the group exactly if the directory is.
pub(crate) fn adopt_owner_of(target: &Path) -> Result<(), SetupError> {
    refuse_root()?;
    let metadata =
        fs::metadata(target).map_err(|source| SetupError::Permissions { path: target.to_owned(), source })?;
    rustix::process::umask(umask_for(metadata.mode()));
    Ok(())
}

fn umask_for(mode: u32) -> Mode {
    let group_may_read = mode & 0o050 == 0o050;
    Mode::from_raw_mode(if group_may_read { 0o027 } else { 0o077 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_access_is_that_of_the_data_directory() {
        for (mode, umask) in [(0o40700, 0o077), (0o40750, 0o027), (0o40740, 0o077), (0o40755, 0o027)] {
            assert_eq!(umask_for(mode).as_raw_mode(), umask);
        }
    }
}
