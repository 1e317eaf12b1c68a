//! Getting WAL back with a `restore_command`.
//!
//! The target is not to be touched while WAL is still being read, so a file is restored into a temporary
//! directory outside of it and read there. Some restore commands tell a rewind from a recovery by `%p`
//! being `.../pg_wal/<file>`: so the temporary directory has a directory of that name in it.

#![expect(clippy::disallowed_methods, reason = "writes to a temporary directory, never to the target")]

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use walparse::WalGeometry;

use crate::command::{self, CommandError, ExitReason};

/// A `restore_command` and the place it restores to. Dropping it removes what was restored.
#[derive(Debug)]
pub struct Archive {
    command: String,
    geometry: WalGeometry,
    working_directory: Option<PathBuf>,
    time_limit: Duration,
    directory: TempDir,
    /// Names that were restored. Locked while the command runs: many commands do not expect to run twice
    /// at the same time.
    restored: Mutex<HashSet<String>>,
}

impl Archive {
    /// How long one call of the command may take, unless told otherwise: time enough for a slow archive,
    /// not for one that hangs.
    pub const TIME_LIMIT: Duration = Duration::from_secs(3600);

    /// Prepares the use of `command` for WAL of this geometry. Nothing is run yet.
    ///
    /// # Errors
    /// The command has `%r` in it, or the temporary directory cannot be made below `temporary`
    /// ([`std::env::temp_dir`] if that is `None`).
    pub fn new(
        command: String,
        geometry: WalGeometry,
        temporary: Option<&Path>,
    ) -> Result<Archive, ArchiveError> {
        if substitute(&command, "", "").is_none() {
            return Err(ArchiveError::RestartPoint);
        }
        let parent = temporary.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let failed = |source| ArchiveError::TemporaryDirectory { path: parent.clone(), source };
        // %p must be absolute: the command runs in another directory.
        let absolute = parent.canonicalize().map_err(failed)?;
        let directory = tempfile::Builder::new()
            .prefix("kbrecover-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(absolute)
            .map_err(failed)?;
        DirBuilder::new()
            .mode(0o700)
            .create(directory.path().join(geometry.version.wal_dir()))
            .map_err(failed)?;
        Ok(Archive {
            command,
            geometry,
            working_directory: None,
            time_limit: Archive::TIME_LIMIT,
            directory,
            restored: Mutex::default(),
        })
    }

    /// Runs the command in this directory: a server runs its own in the data directory.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Archive {
        self.working_directory = Some(directory.to_owned());
        self
    }

    /// Ends a call of the command that takes longer.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Archive {
        self.time_limit = limit;
        self
    }

    /// Restores a file of the WAL directory and says where it is now; `None` if the archive has none.
    /// Calls from several threads wait for each other; a name restored before is not restored again.
    ///
    /// # Errors
    /// The command could not be run, was ended by a signal or reports that it is broken (exit status
    /// above 125), or what it left behind is not a whole segment.
    pub fn fetch(&self, file_name: &str) -> Result<Option<PathBuf>, ArchiveError> {
        let mut restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.path().join(self.geometry.version.wal_dir()).join(file_name);
        if restored.contains(file_name) {
            return Ok(Some(path));
        }
        let found = self.run(file_name, &path)?;
        if found {
            restored.insert(file_name.to_owned());
            tracing::info!("restored file \"{file_name}\" from archive");
        }
        Ok(found.then_some(path))
    }

    fn run(&self, file_name: &str, path: &Path) -> Result<bool, ArchiveError> {
        let command = substitute(&self.command, file_name, &path.to_string_lossy())
            .ok_or(ArchiveError::RestartPoint)?;
        remove_left_over(path)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command]);
        if let Some(directory) = &self.working_directory {
            shell.current_dir(directory);
        }
        let finished = command::run(&mut shell, Some(self.time_limit))
            .map_err(|source| ArchiveError::Run { file_name: file_name.to_owned(), source })?;
        match finished.status.code() {
            Some(0) => self.check_size(file_name, path).map(|()| true),
            Some(code) if code <= 125 => {
                tracing::debug!("could not restore file \"{file_name}\" from archive: {code}");
                remove_left_over(path)?;
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

/// Why nothing could be restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// `%r` names the last restart point of a standby; a rewind has none.
    #[error("cannot use restore_command with %r placeholder")]
    RestartPoint,
    /// There is nowhere to restore to.
    #[error("could not create a temporary directory in \"{}\"", path.display())]
    TemporaryDirectory {
        /// The directory it should be in.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What an earlier try left could not be removed.
    #[error("could not remove file \"{}\"", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command did not run to its end.
    #[error("could not restore file \"{file_name}\" from archive")]
    Run {
        /// The file wanted.
        file_name: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The command does not work at all.
    #[error("could not restore file \"{file_name}\" from archive: restore_command failed: {reason}")]
    Broken {
        /// The file wanted.
        file_name: String,
        /// How the command ended.
        reason: String,
    },
    /// The command reports success and has restored nothing.
    #[error("could not open file \"{file_name}\" restored from archive")]
    Missing {
        /// The file wanted.
        file_name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command has restored something else.
    #[error("unexpected file size for \"{file_name}\": {size} instead of {expected}")]
    Size {
        /// The file wanted.
        file_name: String,
        /// Its size in bytes.
        size: u64,
        /// The size of a segment.
        expected: u64,
    },
}

impl ArchiveError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ArchiveError::RestartPoint => "Give a command without %r with --restore-command.",
            ArchiveError::TemporaryDirectory { .. } | ArchiveError::Remove { .. } => {
                "Set TMPDIR to a directory with room for the WAL files that are missing."
            }
            ArchiveError::Run { .. } | ArchiveError::Broken { .. } => {
                "Try the restore_command by hand, as the user that runs this program, or give another one with \
                 --restore-command."
            }
            ArchiveError::Missing { .. } => {
                "The restore_command must leave the file at %p and end with another status than 0 if it cannot."
            }
            ArchiveError::Size { .. } => {
                "The file in the archive is not whole: give a directory that has it with --wal-dir."
            }
        };
        Some(hint.to_owned())
    }
}

fn remove_left_over(path: &Path) -> Result<(), ArchiveError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ArchiveError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The command with `%f`, `%p` and `%%` replaced; other letters after `%` stay as they are, as in the
/// server. `None` for one with `%r`.
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

    /// A directory with one segment in it.
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
    fn a_segment_is_restored_outside_and_removed_at_the_end() {
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
    fn half_a_file_of_a_failed_call_is_not_kept() {
        let archive = archive("echo half > %p; exit 1");
        assert_eq!(archive.fetch(SEGMENT).unwrap(), None);
        assert_eq!(fs::read_dir(archive.directory.path().join("pg_wal")).unwrap().count(), 0);
    }

    #[test]
    fn success_must_leave_a_whole_segment() {
        let error = archive("true").fetch(SEGMENT).unwrap_err();
        assert!(matches!(error, ArchiveError::Missing { .. }), "{error}");
        let store = store(1000);
        let command = format!("cp {0}/{SEGMENT} %p", store.path().display());
        let error = archive(&command).fetch(SEGMENT).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unexpected file size for \"{SEGMENT}\": 1000 instead of 1048576")
        );
        assert!(archive(&command).fetch("00000002.history").unwrap().is_some(), "no segment, any size");
    }

    #[test]
    fn a_broken_command_is_not_taken_for_an_empty_archive() {
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
    fn one_call_at_a_time_in_the_directory_asked_for() {
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
}
