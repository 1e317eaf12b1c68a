//! Whether directories can be written, also when a mount has gone: a call that does not come back counts as
//! no.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long writing 8 kB may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(10);

/// Why the first directory that cannot be written cannot be, after `tries` tries; `None` if all can.
pub(super) fn failed(directories: &[PathBuf], tries: u32) -> Option<String> {
    let mut why = None;
    for round in 0..tries.max(1) {
        if round > 0 {
            thread::sleep(PAUSE);
        }
        why = directories.iter().find_map(|directory| write(directory).err());
        why.as_ref()?;
    }
    why.map(|why| format!("{why} ({tries} tries)"))
}

/// Writes a file in a directory, makes it durable, reads it and lets it go.
fn write(directory: &Path) -> Result<(), String> {
    let (sender, result) = channel();
    let place = directory.to_owned();
    // A thread, because a dead mount may hold it for ever; it then ends with the process.
    thread::spawn(move || {
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix("rw_status_file_").tempfile_in(&place)?;
            file.write_all(&[0; 8192])?;
            file.as_file().sync_all()?;
            let bytes = std::fs::read(file.path())?;
            if bytes.len() == 8192 {
                Ok(())
            } else {
                Err(std::io::Error::other("what was written is not there"))
            }
        };
        // Nobody listens any more if it took too long.
        let _ = sender.send(write());
    });
    let shown = directory.display();
    match result.recv_timeout(LIMIT) {
        Ok(written) => written.map_err(|error| format!("could not write in directory \"{shown}\": {error}")),
        Err(_) => Err(format!("writing in directory \"{shown}\" took more than {} seconds", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_owned();
        assert_eq!(failed(std::slice::from_ref(&here), 1), None);
        assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0, "something was left");
        let gone = here.join("gone");
        let why = failed(&[here, gone.clone()], 1).unwrap();
        assert!(why.contains(&gone.display().to_string()), "{why}");
    }
}
