//! Temporary directories for WAL that is fetched.
//!
//! They are made in the system's temporary directory. Where that cannot be written to or has no room, as in a container with
//! a read-only root, they are made in the target's data directory, under a name that a rewind leaves alone. Each is removed
//! when the run ends.

#![expect(
    clippy::disallowed_methods,
    reason = "writes to temporary directories, never to the target's files"
)]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Begins the names of the directories. In a data directory, names with `kbrecover.` are neither copied nor removed by a
/// rewind.
const PREFIX: &str = "kbrecover.tmp-";

/// Temporary directories, made when they are needed.
#[derive(Debug)]
pub(super) struct Temporary {
    /// Where the next directories may be made, the preferred place first.
    places: Vec<PathBuf>,
    made: Vec<TempDir>,
}

impl Temporary {
    /// Directories below `place` or, if that is `None`, below [`std::env::temp_dir`].
    pub(super) fn new(place: Option<&Path>) -> Temporary {
        let place = place.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Temporary { places: vec![place], made: Vec::new() }
    }

    /// Directories are made below `place` if the places before cannot be written to or have no room.
    pub(super) fn or_in(&mut self, place: &Path) {
        self.places.push(place.to_owned());
    }

    /// The absolute path of a directory with room for `needed` bytes or, if no place has that, of the last one.
    ///
    /// # Errors
    /// No directory can be made: the preferred place, and why.
    pub(super) fn with_room(&mut self, needed: u64) -> Result<PathBuf, (PathBuf, io::Error)> {
        let mut unusable = Vec::new();
        loop {
            if let Some(made) = self.made.last()
                && (self.places.is_empty() || has_room(made.path(), needed))
            {
                return Ok(made.path().to_owned());
            }
            if self.places.is_empty() {
                self.places = unusable.iter().map(|(place, _): &(PathBuf, _)| place.clone()).collect();
                return Err(unusable.swap_remove(0));
            }
            let place = self.places.remove(0);
            match make(&place) {
                Ok(made) => self.made.push(made),
                Err(error) => unusable.push((place, error)),
            }
        }
    }
}

fn make(place: &Path) -> io::Result<TempDir> {
    // A restore_command may run in another directory.
    let absolute = place.canonicalize()?;
    tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(absolute)
}

fn has_room(directory: &Path, needed: u64) -> bool {
    let found = rustix::fs::statvfs(directory);
    found.is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >= needed)
}

/// Removes temporary directories that a killed run has left in the data directory `root`, which must be locked.
pub(crate) fn remove_stale(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            // It does no harm if it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_place_is_used_if_the_first_will_not_do() {
        let [small, large] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let below =
            |made: &Path, place: &TempDir| made.parent() == place.path().canonicalize().ok().as_deref();
        let mut temporary = Temporary::new(Some(small.path()));
        temporary.or_in(large.path());
        assert!(below(&temporary.with_room(1).unwrap(), &small));
        assert!(below(&temporary.with_room(u64::MAX).unwrap(), &large), "no place has so much");
        assert!(below(&temporary.with_room(1).unwrap(), &large));
        drop(temporary);
        assert_eq!(fs::read_dir(small.path()).unwrap().chain(fs::read_dir(large.path()).unwrap()).count(), 0);

        let nowhere = small.path().join("none");
        let mut temporary = Temporary::new(Some(&nowhere));
        for _ in 0..2 {
            assert_eq!(temporary.with_room(1).unwrap_err().0, nowhere);
        }
        temporary.or_in(large.path());
        assert!(below(&temporary.with_room(1).unwrap(), &large));
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kbrecover.tmp-x/pg_wal")).unwrap();
        fs::write(root.path().join("kbrecover.journal"), "").unwrap();
        remove_stale(root.path());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
