//! Archives WAL of the target that is not archived yet (`archive_status/*.ready`) before the first change, if the
//! options request it. Files are archived as the target's server would do it: with its `archive_command`, timeline
//! histories first and then segments from the oldest on. The status file of each archived file is renamed to
//! `.done`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use walparse::{Version, WalFileName};

use crate::command::{self, CommandError, ExitReason};
use crate::datadir::config::{ConfigError, Configuration};
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::options::Options;
use crate::plan::Planned;
use crate::stop::StopFlag;
use crate::target::{Target, TargetError};
use crate::wal::archive::{Archive, substitute};
use crate::wal::error::name_list;

/// Why WAL could not be archived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveReadyError {
    /// The target's configuration could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `archive_command` is empty.
    #[error("archive_command is not set in the target cluster")]
    NotSet,
    /// WAL is archived by a library (`archive_library`), which only a server can load.
    #[error("the target archives with the library \"{library}\", which only a server can load")]
    Library {
        /// Name of the library.
        library: String,
    },
    /// The command has a placeholder that is not valid for it.
    #[error("cannot use archive_command with %r placeholder")]
    Placeholder,
    /// The command could not be run to its end.
    #[error("could not archive file \"{name}\"")]
    Run {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The command reported a failure.
    #[error("could not archive file \"{name}\": archive_command failed: {reason}{}", last_line(output))]
    Failed {
        /// The file.
        name: String,
        /// Its exit status, as text.
        reason: String,
        /// The end of its output.
        output: String,
    },
    /// A stop was requested. A running command was allowed to finish.
    #[error("the run was asked to stop")]
    Stopped,
    /// The status file of an archived file could not be renamed.
    #[error(transparent)]
    Note(#[from] TargetError),
}

/// The last line of a command's output, to be appended to an error.
fn last_line(output: &str) -> String {
    output.lines().last().map_or_else(String::new, |line| format!(": {line}"))
}

impl ArchiveReadyError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ArchiveReadyError::Config(error) => return error.hint(),
            ArchiveReadyError::Note(_) => return None,
            ArchiveReadyError::NotSet => {
                "Set archive_command in the target's configuration, or leave out --archive-ready.".into()
            }
            ArchiveReadyError::Library { .. } => {
                "Save the WAL with --keep-diverged DIR instead, or let the target's server archive it.".into()
            }
            _ => "Try the archive_command by hand in the data directory, as the user who runs kbrecover. Files that have \
                  been archived are marked as done; the next run tries the others again."
                .into(),
        })
    }
}

/// The target's `archive_command`, and the time limit for archiving one file.
#[derive(Debug)]
pub(crate) struct ArchiveCommand {
    command: String,
    limit: Duration,
}

impl ArchiveCommand {
    /// Reads it from the target's configuration; `None` if the options do not request archiving.
    ///
    /// # Errors
    /// The configuration cannot be read, or has no command that can be run here.
    pub(crate) fn if_asked(
        options: &Options,
        root: &Path,
        version: Version,
    ) -> Result<Option<ArchiveCommand>, ArchiveReadyError> {
        if !options.archive_ready {
            return Ok(None);
        }
        let configuration = Configuration::read(root, version.names(), options.config_file.as_deref())?;
        let setting = |name| configuration.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        if let Some(library) = setting("archive_library") {
            return Err(ArchiveReadyError::Library { library });
        }
        let command = setting("archive_command").ok_or(ArchiveReadyError::NotSet)?;
        substitute(&command, "", "").ok_or(ArchiveReadyError::Placeholder)?;
        Ok(Some(ArchiveCommand { command, limit: Archive::TIME_LIMIT }))
    }

    /// Archives all files that are not archived yet, one after the other, and updates the listing in `planned`.
    ///
    /// # Errors
    /// A file could not be archived, or a stop was requested.
    pub(crate) fn archive_all(
        &self,
        target: &Target,
        planned: &mut Planned<'_>,
        stop: &StopFlag,
    ) -> Result<(), ArchiveReadyError> {
        let version = planned.facts.clusters.target.version();
        let mut waiting = waiting(&planned.facts.files.target, planned);
        // A file that an unfinished run may have overwritten is no longer the target's own.
        if planned.facts.resumed.is_some() {
            let replaced = |name: &str| planned.plan.wal.copy.iter().any(|file| file.name == name);
            waiting.retain(|name| !replaced(name));
        }
        let mut done = Vec::new();
        let result = waiting.into_iter().try_for_each(|name| {
            stop.check().map_err(|_| ArchiveReadyError::Stopped)?;
            if !target.root().join(version.wal_dir()).join(&name).is_file() {
                return Ok(());
            }
            self.archive(target, version, &name, stop)?;
            done.push(name);
            Ok(())
        });
        if !done.is_empty() {
            tracing::info!("archived {} WAL files of the target: {}", done.len(), name_list(&done));
        }
        planned.facts.files.target = with_archived(&planned.facts.files.target, version, &done);
        result
    }

    /// Archives the file `name` of the WAL directory, and renames its status file.
    fn archive(
        &self,
        target: &Target,
        version: Version,
        name: &str,
        stop: &StopFlag,
    ) -> Result<(), ArchiveReadyError> {
        let path = format!("{}/{name}", version.wal_dir());
        let text = substitute(&self.command, name, &path).ok_or(ArchiveReadyError::Placeholder)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &text]).current_dir(target.root());
        // A command that is stopped halfway could leave a partial segment under its final name in the archive.
        let finished = command::run_to_its_end(&mut shell, Some(self.limit))
            .map_err(|source| ArchiveReadyError::Run { name: name.to_owned(), source })?;
        if !finished.status.success() {
            let reason = ExitReason(finished.status).to_string();
            return Err(ArchiveReadyError::Failed { name: name.to_owned(), reason, output: finished.output });
        }
        let is_stopped = stop.is_requested();
        if is_stopped {
            // The status file must be renamed: most commands refuse to archive a file a second time.
            stop.clean_up();
        }
        if let (Some(ready), Some(done)) =
            (status_path(version, name, "ready"), status_path(version, name, "done"))
        {
            target.rename(&ready, &done)?;
        }
        if is_stopped { Err(ArchiveReadyError::Stopped) } else { Ok(()) }
    }
}

/// Logs what will happen to WAL that is not archived yet.
pub(crate) fn announce(options: &Options, planned: &Planned<'_>) {
    let (waiting, unarchived) = (&planned.plan.wal.waiting, &planned.plan.wal.unarchived);
    let wal_dir = planned.facts.clusters.target.version().wal_dir();
    let sum = waiting.len() + unarchived.len();
    if sum == 0 {
        return;
    }
    if options.archive_ready {
        let names: Vec<String> = waiting.iter().chain(unarchived).cloned().collect();
        tracing::info!(
            "{sum} WAL files that exist only on the target are not archived yet: {}",
            name_list(&names)
        );
        return;
    }
    if !waiting.is_empty() {
        tracing::warn!(
            "{} WAL files that exist only on the target are not archived yet and stay in \"{wal_dir}\": {}; a standby \
             archives them only with archive_mode = always, and otherwise removes them in time; --archive-ready \
             archives them first",
            waiting.len(),
            name_list(waiting)
        );
    }
    if !unarchived.is_empty() {
        tracing::warn!(
            "{} WAL files of the target are not archived yet and cannot stay, because the source has different files \
             of these names or may create them: {}; --archive-ready archives them first, --keep-diverged DIR \
             saves them",
            unarchived.len(),
            name_list(unarchived)
        );
    }
}

/// The names of the target's own files that are not archived yet, in the order in which a server archives them.
fn waiting(files: &Inventory, planned: &Planned<'_>) -> Vec<String> {
    let control = &planned.facts.clusters.target;
    let directory = format!("{}/archive_status/", control.version().wal_dir());
    let size = control.geometry().segment_size;
    let own = planned.facts.own_wal_files();
    let names = files.entries().iter().filter_map(|(path, kind)| {
        let name = path.as_str()?.strip_prefix(&directory)?.strip_suffix(".ready")?;
        let is_own = own.is_none_or(|own| own.contains(name));
        (matches!(kind, EntryKind::File { .. }) && is_own && WalFileName::parse(name, size).is_some())
            .then(|| name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
    names
}

/// The status file of a WAL file; `state` is `ready` or `done`.
fn status_path(version: Version, name: &str, state: &str) -> Option<DataPath> {
    DataPath::parse(format!("{}/archive_status/{name}.{state}", version.wal_dir())).ok()
}

/// The listing after these files were archived.
fn with_archived(files: &Inventory, version: Version, names: &[String]) -> Inventory {
    let renamed: Vec<_> = names
        .iter()
        .filter_map(|name| Some((status_path(version, name, "ready")?, status_path(version, name, "done")?)))
        .collect();
    let entries = files.entries().iter().map(|(path, kind)| {
        let done = renamed.iter().find(|(ready, _)| ready == path).map(|(_, done)| done);
        (done.unwrap_or(path).clone(), kind.clone())
    });
    Inventory::new(entries.collect()).unwrap_or_else(|_| files.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SEGMENT: &str = "000000010000000000000003";

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn archive(command: &str, limit: Duration) -> (Result<(), ArchiveReadyError>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let status = directory.path().join("pg_wal/archive_status");
        fs::create_dir_all(&status).unwrap();
        fs::write(directory.path().join("pg_wal").join(SEGMENT), "wal").unwrap();
        fs::write(status.join(format!("{SEGMENT}.ready")), "").unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let command = ArchiveCommand { command: command.to_owned(), limit };
        (command.archive(&target, version(), SEGMENT, &StopFlag::default()), directory)
    }

    fn has_status(directory: &Path, state: &str) -> bool {
        directory.join(format!("pg_wal/archive_status/{SEGMENT}.{state}")).exists()
    }

    #[test]
    fn an_archived_file_is_marked_as_done() {
        let (result, directory) = archive("cp %p archived-%f", Duration::from_secs(60));
        result.unwrap();
        assert_eq!(fs::read(directory.path().join(format!("archived-{SEGMENT}"))).unwrap(), b"wal");
        assert!(has_status(directory.path(), "done") && !has_status(directory.path(), "ready"));
    }

    #[test]
    fn a_failed_or_hanging_command_is_reported_and_the_file_stays_ready() {
        let (result, directory) = archive("echo no room >&2; exit 3", Duration::from_secs(60));
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "could not archive file \"{SEGMENT}\": archive_command failed: child process exited with exit code 3: \
                 no room"
            )
        );
        assert!(error.hint().is_some() && has_status(directory.path(), "ready"));
        let (result, directory) = archive("sleep 60", Duration::from_millis(50));
        let is_timed_out = |error: &ArchiveReadyError| {
            matches!(error, ArchiveReadyError::Run { source: CommandError::TimedOut { .. }, .. })
        };
        assert!(is_timed_out(&result.unwrap_err()) && has_status(directory.path(), "ready"));
    }
}
