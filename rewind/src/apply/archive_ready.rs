//! WAL of the target that still waits for archiving: it is archived before the first change if that is asked
//! for, as the target's server would do it: with its `archive_command`, histories first and then the oldest
//! segment, and each file that is done is noted as such.

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
pub enum ArchiveReadyError {
    /// The configuration could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no command.
    #[error("archive_command is not set in the target cluster")]
    NotSet,
    /// A library archives, and only a server can load it.
    #[error("the target archives with the library \"{library}\", which only a server can use")]
    Library {
        /// Its name.
        library: String,
    },
    /// The command has a placeholder that it must not have.
    #[error("cannot use archive_command with %r placeholder")]
    Placeholder,
    /// The command did not run to its end.
    #[error("could not archive file \"{name}\"")]
    Run {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The command says that it failed.
    #[error("could not archive file \"{name}\": archive_command failed: {reason}{}", said(output))]
    Failed {
        /// The file.
        name: String,
        /// How it ended.
        reason: String,
        /// What it said at last.
        output: String,
    },
    /// The run was asked to stop; a command that ran was let finish.
    #[error("the run was asked to stop")]
    Stopped,
    /// What is done could not be noted.
    #[error(transparent)]
    Note(#[from] TargetError),
}

fn said(output: &str) -> String {
    output.lines().last().map_or_else(String::new, |line| format!(": {line}"))
}

impl ArchiveReadyError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ArchiveReadyError::Config(error) => return error.hint(),
            ArchiveReadyError::Note(_) => return None,
            ArchiveReadyError::NotSet => {
                "Set archive_command in the target's configuration, or leave out --archive-ready.".into()
            }
            ArchiveReadyError::Library { .. } => {
                "Copy the WAL with --keep-diverged DIR instead, or let the target's server archive it.".into()
            }
            _ => "Try the archive_command by hand in the data directory, as the user that runs this program. What \
                  has been archived is noted; the rest is tried again by the next run."
                .into(),
        })
    }
}

/// The target's way to archive.
#[derive(Debug)]
pub(crate) struct ArchiveCommand {
    command: String,
    limit: Duration,
}

impl ArchiveCommand {
    /// Reads it from the target's configuration, if the options ask for archiving.
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

    /// Archives whatever waits, one file after the other; `planned` knows afterwards that it does no longer.
    pub(crate) fn archive_all(
        &self,
        target: &Target,
        planned: &mut Planned<'_>,
        stop: &StopFlag,
    ) -> Result<(), ArchiveReadyError> {
        let version = planned.facts.clusters.target.version();
        let mut waiting = waiting(&planned.facts.files.target, planned);
        // What an unfinished run may have overwritten is no longer the target's own.
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
        // Ended in the middle, it could leave half a segment in the archive under its full name.
        let finished = command::run_to_its_end(&mut shell, Some(self.limit))
            .map_err(|source| ArchiveReadyError::Run { name: name.to_owned(), source })?;
        if !finished.status.success() {
            let reason = ExitReason(finished.status).to_string();
            return Err(ArchiveReadyError::Failed { name: name.to_owned(), reason, output: finished.output });
        }
        let is_stopped = stop.is_requested();
        if is_stopped {
            // It is in the archive, where most commands refuse to put it a second time.
            stop.clean_up();
        }
        if let (Some(ready), Some(done)) = (note(version, name, "ready"), note(version, name, "done")) {
            target.rename(&ready, &done)?;
        }
        if is_stopped { Err(ArchiveReadyError::Stopped) } else { Ok(()) }
    }
}

/// Says what becomes of WAL that waits for archiving.
pub(crate) fn announce(options: &Options, planned: &Planned<'_>) {
    let (waiting, unarchived) = (&planned.plan.wal.waiting, &planned.plan.wal.unarchived);
    let wal_dir = planned.facts.clusters.target.version().wal_dir();
    let sum = waiting.len() + unarchived.len();
    if sum == 0 {
        return;
    }
    if options.archive_ready {
        let names: Vec<String> = waiting.iter().chain(unarchived).cloned().collect();
        tracing::info!("{sum} WAL files that only the target has wait for archiving: {}", name_list(&names));
        return;
    }
    if !waiting.is_empty() {
        tracing::warn!(
            "{} WAL files that only the target has wait for archiving and stay in \"{wal_dir}\": {}; a standby \
             archives them only with archive_mode = always, and else removes them one day: --archive-ready \
             archives them first",
            waiting.len(),
            name_list(waiting)
        );
    }
    if !unarchived.is_empty() {
        tracing::warn!(
            "{} WAL files of the target wait for archiving and cannot stay, because the source has others of \
             these names or may make them: {}; --archive-ready archives them first, --keep-diverged DIR copies \
             them",
            unarchived.len(),
            name_list(unarchived)
        );
    }
}

/// The names of the target's own files that wait, in the order in which a server archives them.
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

fn note(version: Version, name: &str, state: &str) -> Option<DataPath> {
    DataPath::parse(format!("{}/archive_status/{name}.{state}", version.wal_dir())).ok()
}

/// The listing after these were archived.
fn with_archived(files: &Inventory, version: Version, names: &[String]) -> Inventory {
    let renamed: Vec<_> = names
        .iter()
        .filter_map(|name| Some((note(version, name, "ready")?, note(version, name, "done")?)))
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

    fn is_noted(directory: &Path, state: &str) -> bool {
        directory.join(format!("pg_wal/archive_status/{SEGMENT}.{state}")).exists()
    }

    #[test]
    fn what_is_archived_is_noted() {
        let (result, directory) = archive("cp %p archived-%f", Duration::from_secs(60));
        result.unwrap();
        assert_eq!(fs::read(directory.path().join(format!("archived-{SEGMENT}"))).unwrap(), b"wal");
        assert!(is_noted(directory.path(), "done") && !is_noted(directory.path(), "ready"));
    }

    #[test]
    fn what_fails_or_hangs_is_told_and_still_waits() {
        let (result, directory) = archive("echo no room >&2; exit 3", Duration::from_secs(60));
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "could not archive file \"{SEGMENT}\": archive_command failed: child process exited with exit code 3: \
                 no room"
            )
        );
        assert!(error.hint().is_some() && is_noted(directory.path(), "ready"));
        let (result, directory) = archive("sleep 60", Duration::from_millis(50));
        let is_timed_out = |error: &ArchiveReadyError| {
            matches!(error, ArchiveReadyError::Run { source: CommandError::TimedOut { .. }, .. })
        };
        assert!(is_timed_out(&result.unwrap_err()) && is_noted(directory.path(), "ready"));
    }
}
