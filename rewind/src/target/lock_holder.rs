//! Finds the process that holds the lock on a data directory, without taking the lock.
//!
//! Taking the lock to see whether it is free would make a run that starts at that moment fail. The kernel lists all
//! locks in `/proc/locks` (see `proc_locks(5)`):
//!
//! ```text
//! 3: FLOCK  ADVISORY  WRITE 4711 fe:01:131077 0 EOF
//! number  kind            process  device:inode (device in hexadecimal)
//! ```

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::shown::time_text;

/// The process that holds the lock on a data directory, and when it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// When it was started, to the second; `None` if `/proc` does not show it.
    pub since: Option<Timestamp>,
}

impl Holder {
    pub(crate) fn of(pid: u32) -> Holder {
        Holder { pid, since: started(pid) }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        let Some(since) = self.since else { return Ok(()) };
        write!(f, ", running since {}", time_text(since, &TimeZone::system()))
    }
}

/// When a process was started, to the second: field 22 of `/proc/PID/stat`, in clock ticks since the system boot.
fn started(pid: u32) -> Option<Timestamp> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2, the program's name in parentheses, may contain anything. Field 3 follows it.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let seconds = ticks / rustix::param::clock_ticks_per_second();
    Timestamp::from_second(boot.checked_add_unsigned(seconds)?).ok()
}

/// The ID of the process that holds a lock on `directory`, an absolute path without links; `None` if there is none
/// that this process is allowed to see.
pub(crate) fn find(directory: &Path) -> Option<u32> {
    let metadata = directory.metadata().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holders = locks.lines().filter_map(|line| holder(line, metadata.ino()));
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    // For some file systems (btrfs, overlayfs) the device shown there differs from the file's. In that case a process
    // counts if it has the directory open.
    let mut found = holders.filter(|&(pid, on)| on == device || has_open(pid, directory));
    found.next().map(|(pid, _)| pid)
}

/// The process that holds a `flock` lock on this inode, and the device (major, minor).
fn holder(line: &str, inode: u64) -> Option<(u32, (u32, u32))> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        // A process that waits for a lock is shown with an arrow in this field.
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let mut place = fields.next()?.split(':');
    let mut hex = || u32::from_str_radix(place.next()?, 16).ok();
    let device = (hex()?, hex()?);
    (place.next()?.parse() == Ok(inode)).then_some((pid, device))
}

fn has_open(pid: u32, directory: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_this_process() {
        let holder = Holder::of(std::process::id());
        let age = Timestamp::now().duration_since(holder.since.unwrap()).as_secs();
        assert!((-2..3600).contains(&age), "{age}");
        assert!(holder.to_string().starts_with(&format!("process {}, running since 20", holder.pid)));
        assert_eq!(Holder::of(u32::MAX).since, None);
    }

    #[test]
    fn parsing_proc_locks() {
        let line = "3: FLOCK  ADVISORY  WRITE 4711 fe:0a:131077 0 EOF";
        assert_eq!(holder(line, 131_077), Some((4711, (0xfe, 0x0a))));
        assert_eq!(holder(line, 131_078), None);
        assert_eq!(holder("3: -> FLOCK  ADVISORY  WRITE 4711 fe:0a:131077 0 EOF", 131_077), None);
        assert_eq!(holder("4: POSIX  ADVISORY  WRITE 4711 fe:0a:131077 0 EOF", 131_077), None);
        for torn in ["", "3:", "3: FLOCK", "3: FLOCK  ADVISORY  WRITE x fe:0a:131077 0 EOF"] {
            assert_eq!(holder(torn, 131_077), None, "{torn}");
        }
    }
}
