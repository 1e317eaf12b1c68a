//! What replay on the rewound target will go through: the source's WAL since the fork is read before the target is marked,
//! and the rules of [`content`] are applied to it.

use walparse::{ClusterState, FileChanges, Lsn, TimelineHistory};

use crate::datadir::config::Configuration;
use crate::datadir::inventory::Inventory;
use crate::plan::{Clusters, available_wal};
use crate::source::Source;
use crate::survey::content::{self, Since};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::survey::source_wal::check_copied_databases;
use crate::wal::changed::WholeFiles;
use crate::wal::replay::ReplayWal;
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// The stretch of WAL that replay goes through.
pub(super) struct Replayed<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) source_history: &'a TimelineHistory,
    pub(super) clusters: &'a Clusters,
    pub(super) wal: &'a TargetWal<'a>,
    /// Where replay starts.
    pub(super) start: Lsn,
    /// The position from which on the target's WAL has been read.
    pub(super) known_since: Lsn,
    /// Where the histories part.
    pub(super) fork: Lsn,
}

impl Replayed<'_> {
    /// Checks that replay makes the target's content the source's. `ours` is what the target's WAL says about files.
    /// Returns the files that must be copied whole.
    ///
    /// # Errors
    /// The source's WAL cannot be read, or a rule is not met.
    pub(super) fn check(
        &self,
        input: Input<'_>,
        target_files: &Inventory,
        ours: &FileChanges,
    ) -> Result<WholeFiles, SurveyError> {
        let theirs = self.read()?;
        let since = Since { start: self.start, fork: self.fork, target: ours, source: &theirs };
        content::check_hints(self.clusters, &since, self.own_setting(input))?;
        content::check_source_settings(self.clusters, &since)?;
        let names = self.clusters.target.version().names();
        content::check_tablespaces(&since, target_files, names.tablespace_dir)?;
        check_copied_databases(&self.replay_wal()?, &since)?;
        Ok(WholeFiles {
            relations: ours.created.union(&theirs.created).copied().collect(),
            directories: since.copied_on_target().collect(),
            truncated: ours.truncated.clone(),
        })
    }

    /// Reads the source's WAL from the fork on, or from replay's start if the target's could not be read from there.
    fn read(&self) -> Result<FileChanges, SurveyError> {
        let from = if self.known_since <= self.start { self.fork } else { self.start };
        let wal = self.replay_wal()?;
        if wal.available <= from {
            return Ok(FileChanges::default());
        }
        Ok(wal.read(from)?.files)
    }

    fn replay_wal(&self) -> Result<ReplayWal<'_>, SurveyError> {
        let geometry = self.clusters.source.geometry();
        Ok(ReplayWal {
            source: SourceWal { source: self.source, history: self.source_history, geometry },
            target: self.wal,
            fork: self.fork,
            available: available_wal(self.source, &self.clusters.source, self.source_history)?,
        })
    }

    /// `wal_log_hints` of a target that was a standby, as far as its configuration is found. The control file of a standby
    /// has its primary's.
    fn own_setting(&self, input: Input<'_>) -> Option<bool> {
        let control = &self.clusters.target;
        if !matches!(control.state(), ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery) {
            return None;
        }
        let config_file = input.options.config_file.as_deref();
        let configuration = Configuration::read(input.target.root(), control.version().names(), config_file);
        let configuration = configuration.ok().filter(|found| found.file().is_some())?;
        Some(configuration.get("wal_log_hints").is_some_and(is_true))
    }
}

/// Whether the server takes a value for true: any unambiguous prefix of these words.
fn is_true(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    !value.is_empty()
        && value != "o"
        && ["on", "true", "yes", "1"].iter().any(|word| word.starts_with(&value))
}
