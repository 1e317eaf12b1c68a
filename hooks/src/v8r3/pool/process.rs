//! The processes of the pool on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long the pool may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);

/// The process of the pool that has started its others; `None` if the pool does not run.
///
/// A process belongs to the pool if it executes the pool's program: that very file, or one that had its name and was replaced
/// by an update.
pub(super) fn find(program: &Path) -> Option<u32> {
    let processes = all(program);
    let is_of_pool = |process: &u32| processes.contains_key(process);
    processes.iter().find(|(_, parent)| !parent.as_ref().is_some_and(is_of_pool)).map(|(process, _)| *process)
}

/// Ends the pool: by SIGINT, upon which it closes its clients' sessions, and after a while by SIGKILL. Returns whether no
/// process of it is left.
pub(super) fn end(program: &Path) -> bool {
    if let Some(first) = find(program) {
        send(first, Signal::INT);
    }
    if wait_until_ended(program, GRACE) {
        return true;
    }
    for process in all(program).into_keys() {
        send(process, Signal::KILL);
    }
    wait_until_ended(program, Duration::from_secs(5))
}

fn wait_until_ended(program: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !all(program).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
    true
}

fn send(process: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(process, signal);
    }
}

/// All processes that execute the program, each with its parent.
fn all(program: &Path) -> BTreeMap<u32, Option<u32>> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let identity = identity(&program);
    let replaced = PathBuf::from(format!("{} (deleted)", program.display()));
    let of_pool = |directory: &Path| {
        let executed = directory.join("exe");
        identity.is_some_and(|ours| self::identity(&executed) == Some(ours))
            || fs::read_link(&executed).is_ok_and(|path| path == replaced)
    };
    let number = |name: &str| name.parse::<u32>().ok();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let process = number(entry.file_name().to_str()?)?;
            of_pool(&entry.path()).then(|| (process, parent(&entry.path())))
        })
        .collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn parent(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_is_found_by_its_file_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("pool");
        fs::copy("/bin/sleep", &program).unwrap();
        assert_eq!(find(&program), None);
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let mut other = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while find(&program).is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(find(&program), Some(child.id()));
        // An update replaces the file.
        fs::remove_file(&program).unwrap();
        assert_eq!(find(&program), Some(child.id()));
        let ender = thread::spawn(move || end(&program));
        child.wait().unwrap();
        assert!(ender.join().unwrap());
        assert!(other.try_wait().unwrap().is_none(), "another program was ended");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
