//! Whether directories can be written. A call that does not return, as on a dead mount, counts as a failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Limit for writing 8 kB.
const LIMIT: Duration = Duration::from_secs(10);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(10);

/// Why a directory cannot be written, after this number of attempts; `None` if all directories can be written.
pub(super) fn failed(directories: &[PathBuf], attempts: u32) -> Option<String> {
    let mut why = None;
    for round in 0..attempts.max(1) {
        if round > 0 {
            thread::sleep(PAUSE);
        }
        why = directories.iter().find_map(|directory| write(directory).err());
        why.as_ref()?;
    }
    why.map(|why| format!("{why} (attempts: {attempts})"))
}

/// Writes a file to a directory with fsync, reads it and removes it.
fn write(directory: &Path) -> Result<(), String> {
    let (sender, result) = channel();
    let place = directory.to_owned();
    // In a thread, because a dead mount may block it forever. It then ends with the process.
    let work = move || {
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix("rw_status_file_").tempfile_in(&place)?;
            file.write_all(&[0; 8192])?;
            file.as_file().sync_all()?;
            let bytes = std::fs::read(file.path())?;
            if bytes.len() == 8192 {
                Ok(())
            } else {
                Err(std::io::Error::other("the file does not contain what was written"))
            }
        };
        // Fails if the limit was exceeded, because the receiver is gone.
        let _ = sender.send(write());
    };
    let started = thread::Builder::new().spawn(work);
    started.map_err(|error| format!("could not start a thread: {error}"))?;
    let shown = directory.display();
    match result.recv_timeout(LIMIT) {
        Ok(written) => written.map_err(|error| format!("could not write to directory \"{shown}\": {error}")),
        Err(_) => Err(format!("writing to directory \"{shown}\" took more than {} seconds", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_owned();
        assert_eq!(failed(std::slice::from_ref(&here), 1), None);
        assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0, "a file is left");
        let gone = here.join("gone");
        let why = failed(&[here, gone.clone()], 1).unwrap();
        assert!(why.contains(&gone.display().to_string()), "{why}");
    }
}
