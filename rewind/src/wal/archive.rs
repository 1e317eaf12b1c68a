//! Fetching WAL with a `restore_command`.
//!
//! The target's files must not change while its WAL is being read, so files are restored to a temporary directory and read
//! there. Some restore commands recognize a rewind by `%p` being an absolute path `.../pg_wal/FILE`, so the temporary
//! directory contains a directory of that name.

#![expect(clippy::disallowed_methods, reason = "writes to a temporary directory, never to the target")]

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use walparse::WalGeometry;

use crate::command::{self, Background, CommandError, ExitReason};
use crate::wal::temporary::Temporary;

/// A `restore_command`, and the temporary directory to which it restores. Dropping it removes the directory, and ends the
/// processes that the command has left running, which might write there.
///
/// The command is run by `/bin/sh -c`, with the placeholders and exit statuses of PostgreSQL's `restore_command`.
///
/// ```
/// use kbrecover_rewind::archive::Archive;
/// use walparse::{SegmentSize, Version, WalGeometry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = tempfile::tempdir()?;
/// # std::fs::write(store.path().join("00000002.history"), "1\t0/3000000\tno recovery target specified\n")?;
/// let geometry = WalGeometry {
///     version: Version::all().find(|version| version.name() == "15").ok_or("no such version")?,
///     system_identifier: 7_300_000_000_000_000_000,
///     segment_size: SegmentSize::new(16 << 20).ok_or("no such segment size")?,
///     wal_block_size: 8192,
///     block_size: 8192,
/// };
/// let command = format!("cp {}/%f %p", store.path().display());
/// let archive = Archive::new(command, geometry, None)?;
/// let history = archive.fetch("00000002.history")?.ok_or("not in the archive")?;
/// assert!(std::fs::read_to_string(history)?.starts_with("1\t"));
/// assert_eq!(archive.fetch("000000020000000000000003")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Archive {
    command: String,
    geometry: WalGeometry,
    working_directory: Option<PathBuf>,
    time_limit: Duration,
    /// Locked while the command runs, because many restore commands cannot run concurrently.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The paths of the files that have been restored, by their names.
    restored: HashMap<String, PathBuf>,
    /// Declared before the directories, so that these processes end first.
    background: Vec<Background>,
    temporary: Temporary,
}

impl Archive {
    /// The default time limit for one call of the command: enough for a slow archive, and an end for one that hangs.
    pub const TIME_LIMIT: Duration = Duration::from_secs(3600);

    /// Prepares the use of `command` for WAL of this geometry. It restores to a directory below `temporary`
    /// ([`std::env::temp_dir`] if that is `None`), which is made for the first file. Does not run the command.
    ///
    /// # Errors
    /// [`ArchiveError::RestartPoint`] if the command contains `%r`.
    pub fn new(
        command: String,
        geometry: WalGeometry,
        temporary: Option<&Path>,
    ) -> Result<Archive, ArchiveError> {
        if substitute(&command, "", "").is_none() {
            return Err(ArchiveError::RestartPoint);
        }
        let temporary = Temporary::new(temporary);
        Ok(Archive {
            command,
            geometry,
            working_directory: None,
            time_limit: Archive::TIME_LIMIT,
            state: Mutex::new(State { restored: HashMap::new(), background: Vec::new(), temporary }),
        })
    }

    /// Restores to a directory below `place` if the temporary directory cannot be written to or has no room.
    #[must_use]
    pub fn or_in(mut self, place: &Path) -> Archive {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).temporary.or_in(place);
        self
    }

    /// Runs the command in this directory instead of the current one. A server runs its restore_command in the data
    /// directory.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Archive {
        self.working_directory = Some(directory.to_owned());
        self
    }

    /// Ends a call of the command after `limit` instead of [`Archive::TIME_LIMIT`].
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Archive {
        self.time_limit = limit;
        self
    }

    /// Restores a file of the WAL directory by its name and returns the absolute path of the copy, or `None` if the
    /// archive does not have the file (exit status 1 to 125).
    ///
    /// Concurrent calls wait for each other. A file that has been restored before is not restored again.
    ///
    /// # Errors
    /// The command could not be run or exceeded the time limit, it was ended by a signal or with an exit status above
    /// 125, or it reported success without leaving the file, or with a segment of the wrong size. Exit statuses have the
    /// meaning that PostgreSQL gives them (`RestoreArchivedFile` in xlogarchive.c).
    pub fn fetch(&self, file_name: &str) -> Result<Option<PathBuf>, ArchiveError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = state.restored.get(file_name) {
            return Ok(Some(path.clone()));
        }
        let path = self.directory(&mut state.temporary)?.join(file_name);
        if !self.run(file_name, &path, &mut state.background)? {
            return Ok(None);
        }
        state.restored.insert(file_name.to_owned(), path.clone());
        tracing::info!("restored file \"{file_name}\" from archive");
        Ok(Some(path))
    }

    /// The directory to restore to.
    fn directory(&self, temporary: &mut Temporary) -> Result<PathBuf, ArchiveError> {
        let failed = |(path, source)| ArchiveError::TemporaryDirectory { path, source };
        let made = temporary.with_room(self.geometry.segment_size.bytes()).map_err(failed)?;
        let directory = made.join(self.geometry.version.wal_dir());
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(failed((made, source))),
            _ => Ok(directory),
        }
    }

    fn run(
        &self,
        file_name: &str,
        path: &Path,
        background: &mut Vec<Background>,
    ) -> Result<bool, ArchiveError> {
        let command = substitute(&self.command, file_name, &path.to_string_lossy())
            .ok_or(ArchiveError::RestartPoint)?;
        remove_leftover(path)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command]);
        if let Some(directory) = &self.working_directory {
            shell.current_dir(directory);
        }
        let (finished, left) = command::run_leaving(&mut shell, Some(self.time_limit))
            .map_err(|source| ArchiveError::Run { file_name: file_name.to_owned(), source })?;
        // Processes that prefetch for the next calls may run on until the end.
        background.retain(Background::is_running);
        background.extend(left);
        match finished.status.code() {
            Some(0) => self.check_size(file_name, path).map(|()| true),
            Some(code) if code <= 125 => {
                tracing::debug!("could not restore file \"{file_name}\" from archive: {code}");
                remove_leftover(path)?;
                Ok(false)
            }
            _ => Err(ArchiveError::Broken {
                file_name: file_name.to_owned(),
                reason: ExitReason(finished.status).to_string(),
            }),
        }
    }

    fn check_size(&self, file_name: &str, path: &Path) -> Result<(), ArchiveError> {
        let size = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(ArchiveError::Missing { file_name: file_name.to_owned(), source }),
        };
        let segment_size = self.geometry.segment_size;
        let expected = segment_size.bytes();
        if segment_size.parse_file_name(file_name).is_some() && size != expected {
            return Err(ArchiveError::Size { file_name: file_name.to_owned(), size, expected });
        }
        Ok(())
    }
}

/// Why a file could not be restored from the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The command contains `%r`, the file of a standby's last restartpoint. A rewind has none.
    #[error("cannot use restore_command with %r placeholder")]
    RestartPoint,
    /// The temporary directory could not be created.
    #[error("could not create a temporary directory in \"{}\"", path.display())]
    TemporaryDirectory {
        /// The parent directory.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A file left by an earlier call could not be removed.
    #[error("could not remove file \"{}\"", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The command could not be started, or exceeded the time limit.
    #[error("could not restore file \"{file_name}\" from archive")]
    Run {
        /// The file wanted.
        file_name: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The command was ended by a signal, or with an exit status above 125.
    #[error("could not restore file \"{file_name}\" from archive: restore_command failed: {reason}")]
    Broken {
        /// The file wanted.
        file_name: String,
        /// How the command ended.
        reason: String,
    },
    /// The command reported success without restoring the file.
    #[error("could not open file \"{file_name}\" restored from archive")]
    Missing {
        /// The file wanted.
        file_name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command restored a segment file of the wrong size.
    #[error("unexpected file size for \"{file_name}\": {size} instead of {expected}")]
    Size {
        /// The file wanted.
        file_name: String,
        /// Its size in bytes.
        size: u64,
        /// The cluster's segment size in bytes.
        expected: u64,
    },
}

impl ArchiveError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ArchiveError::RestartPoint => "Specify a command without %r with --restore-command.",
            ArchiveError::TemporaryDirectory { .. } | ArchiveError::Remove { .. } => {
                "Set TMPDIR to a directory with enough space for the missing WAL files."
            }
            ArchiveError::Run { .. } | ArchiveError::Broken { .. } => {
                "Try the restore_command manually, as the user who runs kbrecover, or specify another one with \
                 --restore-command."
            }
            ArchiveError::Missing { .. } => {
                "The restore_command must write the file to %p, and exit with a nonzero status if it cannot."
            }
            ArchiveError::Size { .. } => {
                "The file in the archive is incomplete. Specify a directory that has the complete file with --wal-dir."
            }
        };
        Some(hint.to_owned())
    }
}

fn remove_leftover(path: &Path) -> Result<(), ArchiveError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ArchiveError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The command with `%f`, `%p` and `%%` replaced. As in the server, `%` followed by another letter is left as it is.
/// `None` if the command contains `%r`.
pub(crate) fn substitute(command: &str, file_name: &str, path: &str) -> Option<String> {
    let mut result = String::with_capacity(command.len());
    let mut rest = command;
    while let Some(at) = rest.find('%') {
        result.push_str(&rest[..at]);
        let (text, used) = match rest.as_bytes().get(at + 1) {
            Some(b'f') => (file_name, 2),
            Some(b'p') => (path, 2),
            Some(b'%') => ("%", 2),
            Some(b'r') => return None,
            _ => ("%", 1),
        };
        result.push_str(text);
        rest = &rest[at + used..];
    }
    result.push_str(rest);
    Some(result)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;
    use walparse::{SegmentSize, Version};

    use super::*;

    const SEGMENT: &str = "000000010000000000000003";

    fn geometry() -> WalGeometry {
        WalGeometry {
            version: Version::all().last().unwrap(),
            system_identifier: 1,
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            wal_block_size: 8192,
            block_size: 8192,
        }
    }

    fn archive(command: &str) -> Archive {
        Archive::new(command.to_owned(), geometry(), None).unwrap()
    }

    /// A directory with one segment of `size` bytes in it.
    fn store(size: usize) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SEGMENT), vec![7; size]).unwrap();
        dir
    }

    #[test]
    fn placeholders() {
        let text = |command| substitute(command, "F", "/p/F");
        assert_eq!(text("cp /a/%f \"%p\"").as_deref(), Some("cp /a/F \"/p/F\""));
        assert_eq!(text("date +%%s %x é%f%").as_deref(), Some("date +%s %x éF%"));
        assert_eq!(text("%%r %%f").as_deref(), Some("%r %f"));
        assert_eq!(text("clean %r"), None);
        let error = Archive::new("x %r".to_owned(), geometry(), None).unwrap_err();
        assert_eq!(error.to_string(), "cannot use restore_command with %r placeholder");
    }

    #[test]
    fn a_segment_is_restored_once_and_removed_on_drop() {
        let store = store(1 << 20);
        let archive = archive(&format!("cp {}/%f %p", store.path().display()));
        let path = archive.fetch(SEGMENT).unwrap().unwrap();
        assert!(path.is_absolute() && path.ends_with(format!("pg_wal/{SEGMENT}")));
        assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
        let root = path.parent().unwrap().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);

        fs::remove_file(store.path().join(SEGMENT)).unwrap();
        assert_eq!(archive.fetch(SEGMENT).unwrap(), Some(path), "restored once, not twice");
        assert_eq!(archive.fetch("000000010000000000000004").unwrap(), None);
        drop(archive);
        assert!(!root.exists());
    }

    #[test]
    fn a_partial_file_of_a_failed_call_is_removed() {
        let archive = archive("echo half > %p; exit 1");
        assert_eq!(archive.fetch(SEGMENT).unwrap(), None);
        let directory = archive.directory(&mut archive.state.lock().unwrap().temporary).unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    }

    #[test]
    fn a_successful_call_must_leave_a_complete_segment() {
        let error = archive("true").fetch(SEGMENT).unwrap_err();
        assert!(matches!(error, ArchiveError::Missing { .. }), "{error}");
        let store = store(1000);
        let command = format!("cp {0}/{SEGMENT} %p", store.path().display());
        let error = archive(&command).fetch(SEGMENT).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unexpected file size for \"{SEGMENT}\": 1000 instead of 1048576")
        );
        assert!(
            archive(&command).fetch("00000002.history").unwrap().is_some(),
            "a history file may have any size"
        );
    }

    #[test]
    fn a_failing_command_is_an_error_and_not_an_empty_archive() {
        for (command, reason) in [
            ("kill -15 $$", "terminated by signal 15"),
            ("exit 200", "exit code 200"),
            ("/nonexistent/tool %f", "command not found"),
        ] {
            let error = archive(command).fetch(SEGMENT).unwrap_err();
            assert!(error.to_string().ends_with(reason), "{error}");
            assert!(error.hint().is_some());
        }
        let archive = archive("sleep 10").time_limit(Duration::from_millis(50));
        assert!(matches!(
            archive.fetch(SEGMENT),
            Err(ArchiveError::Run { source: CommandError::TimedOut { .. }, .. })
        ));
    }

    #[test]
    fn calls_are_serialized_and_run_in_the_given_directory() {
        let dir = store(1 << 20);
        let script = format!("mkdir busy || exit 200; sleep 0.05; rmdir busy; cp {SEGMENT} %p");
        let archive = archive(&script).in_directory(dir.path());
        let names: Vec<_> = (1..5).map(|n| format!("00000001000000000000000{n}")).collect();
        let found = std::thread::scope(|scope| {
            let fetch = |name| archive.fetch(name).unwrap().is_some();
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || fetch(name))).collect();
            threads.into_iter().all(|thread| thread.join().unwrap())
        });
        assert!(found);
    }

    #[test]
    fn what_the_command_has_left_running_is_ended_and_leaves_nothing() {
        let (store, place) = (store(1 << 20), tempfile::tempdir().unwrap());
        let late = place.path().join("late");
        let command = format!(
            "cp {}/{SEGMENT} %p; (sleep 1; mkdir -p $(dirname %p)/prefetch; touch {}) &",
            store.path().display(),
            late.display()
        );
        let archive = Archive::new(command, geometry(), Some(place.path())).unwrap();
        assert!(archive.fetch(SEGMENT).unwrap().is_some());
        drop(archive);
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
