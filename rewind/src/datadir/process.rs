//! Whether a process is a server that runs on a data directory, as far as the kernel tells.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, getppid, test_kill_process};
use walparse::Names;

/// The ID of a server process whose working directory is this data directory, as it is for every process of a server.
/// Such a process may exist without a valid lock file if only the postmaster was killed, or if the lock file was
/// removed.
pub(super) fn find_server(root: &Path, names: &Names) -> Option<u32> {
    let root = root.canonicalize().ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let is_here = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == root);
        // The working directory of an operator's shell may be the same.
        let is_server = || {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.contains(names.server_program)
        };
        is_here() && is_server()
    })
}

/// Whether the process in a lock file may be the server of the data directory `root`.
pub(super) fn may_be_server(pid: u32, root: &Path, names: &Names) -> bool {
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => root.canonicalize().is_ok_and(|root| root == directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_proc() => false,
        // Without /proc, or where it hides the processes of others.
        Err(_) => {
            is_alive(pid)
                && !is_own(pid)
                && !is_of_another_user(pid, root)
                && !runs_another_program(pid, names)
        }
    }
}

/// The processes that a server has started.
pub(super) fn children(server: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(server)).collect()
}

/// The arguments of a process; none if it has ended, or cannot be seen. A process of a server overwrites those of `postgres`
/// with its title, and the rest with NULs. They are the first ones, unless the program was started by the dynamic linker.
pub(super) fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).trim_end().to_owned()).collect()
}

/// Whether /proc shows processes.
fn has_proc() -> bool {
    fs::read_link("/proc/self").is_ok()
}

/// Whether the process exists. One that this user may not signal belongs to another user: a server must be run by
/// the owner of its data directory.
fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    !matches!(test_kill_process(pid), Err(Errno::SRCH | Errno::PERM))
}

/// Whether it is this process or one of its ancestors. In a container these often have the process IDs that a server
/// had before the last restart.
fn is_own(pid: u32) -> bool {
    let mut ancestors = vec![std::process::id()];
    ancestors.extend(getppid().and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok()));
    while let Some(parent) = ancestors.last().and_then(|last| parent_of(*last)) {
        if parent == 0 || ancestors.contains(&parent) {
            break;
        }
        ancestors.push(parent);
    }
    ancestors.contains(&pid)
}

/// The parent of a process, from line 4 of /proc/PID/stat.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, and may contain any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_of_another_user(pid: u32, root: &Path) -> bool {
    let owner = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.uid());
    let process = owner(Path::new(&format!("/proc/{pid}")));
    process.is_some_and(|process| Some(process) != owner(root))
}

/// Whether the process is known to run another program than a server.
fn runs_another_program(pid: u32, names: &Names) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| !name.contains(names.server_program))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> &'static Names {
        walparse::Flavor::all().next().unwrap().names()
    }

    #[test]
    fn a_process_elsewhere_or_gone_is_no_server() {
        let directory = tempfile::tempdir().unwrap();
        for pid in [std::process::id(), 1, i32::MAX as u32, u32::MAX] {
            assert!(!may_be_server(pid, directory.path(), names()), "{pid}");
        }
    }

    #[test]
    fn this_process_and_its_ancestors_are_known() {
        assert!(is_own(std::process::id()) && is_own(1) && !is_own(u32::MAX));
        assert!(is_alive(std::process::id()) && !is_alive(u32::MAX));
    }

    #[test]
    fn a_server_works_in_its_directory() {
        let here = std::env::current_dir().unwrap();
        // Without a directory of its own, this process would be taken for the server of the one it works in.
        assert!(may_be_server(std::process::id(), &here, names()));
    }
}
