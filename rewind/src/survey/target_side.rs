//! What the options say about the target: where its WAL is searched, which files are kept, and what is done if it was
//! not shut down cleanly.

use std::path::{Path, PathBuf};

use walparse::{ControlFile, Names, TimelineHistory};

use crate::datadir::config::{Configuration, recovery};
use crate::datadir::keep::{Keep, KeepError};
use crate::datadir::server;
use crate::options::{Mode, Options, RestoreCommand, UncleanTarget};
use crate::plan::Clusters;
use crate::source::{Pace, Source};
use crate::survey::divergence::{self, DivergenceError};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::survey::preflight::{self, PreflightError};
use crate::target::Target;
use crate::wal::archive::Archive;
use crate::wal::error::WalError;
use crate::wal::history::target_history;
use crate::wal::target::TargetWal;

/// Handles a target that was not shut down cleanly as the options say. After crash recovery, `clusters` has the new
/// control file.
///
/// # Errors
/// The options refuse such a target, its WAL cannot be read, or crash recovery failed.
pub(super) fn settle_unclean(input: Input<'_>, clusters: &mut Clusters) -> Result<(), SurveyError> {
    let Input { options, target, .. } = input;
    let state = clusters.target.state();
    // On a rewound directory a server would end recovery and write WAL of its own.
    if state.is_clean() || clusters.label.is_some() {
        return Ok(());
    }
    let recovery = match &options.unclean_target {
        UncleanTarget::Recover(recovery) => recovery,
        UncleanTarget::Refuse => return Err(PreflightError::TargetNotClean { state }.into()),
        UncleanTarget::Accept => {
            tracing::info!(
                "target was not shut down cleanly (\"{state}\"): reading its WAL to the last valid record"
            );
            return Ok(());
        }
    };
    if options.mode != Mode::Rewind {
        tracing::info!("dry run: the target's server would be executed to complete crash recovery");
        return Ok(());
    }
    // The server takes a missing segment for the end of WAL, and overwrites what follows: records behind it would be
    // lost.
    let mut wal = target_wal(input, &clusters.target)?;
    wal.set_history(target_history(&wal, &clusters.target)?);
    match divergence::check_end(&mut wal, clusters) {
        Err(DivergenceError::Wal(WalError::Scan(error))) => {
            tracing::warn!("{error}: recovery will end there")
        }
        other => other?,
    }
    recovery.recover(target.root(), &clusters.target)?;
    let flavor = clusters.target.version().flavor();
    clusters.target = server::target_control(target.root(), flavor)?;
    clusters.label = preflight::check_target(target.root(), flavor.names(), &options.stop, false)?;
    Ok(())
}

/// The rules for local files that are kept: those of the options and, if these include the standard ones, the
/// target's `log_directory`.
pub(super) fn keep(options: &Options, root: &Path, names: &Names) -> Result<Keep, KeepError> {
    let mut log_directory = None;
    if options.keep.has_standard() {
        match Configuration::read(root, names, options.config_file.as_deref()) {
            Ok(configuration) => log_directory = configuration.get("log_directory").map(PathBuf::from),
            Err(error) => tracing::debug!("could not determine the target's log_directory: {error}"),
        }
    }
    // A log directory outside the data directory is not touched by a rewind.
    let below = log_directory.as_deref().map(|path| path.strip_prefix(root).unwrap_or(path));
    Keep::new(&options.keep, below.filter(|path| path.is_relative()))
}

/// The target's WAL, with all places where missing segments are searched. Its timeline history must be set before
/// use.
pub(super) fn target_wal<'a>(input: Input<'a>, control: &ControlFile) -> Result<TargetWal<'a>, SurveyError> {
    let Input { options, target, source, pace, .. } = input;
    target_wal_with(options, target, Some(source), pace, control)
}

/// As [`target_wal`]; without a source, if there is none.
pub(super) fn target_wal_with<'a>(
    options: &'a Options,
    target: &Target,
    source: Option<&'a dyn Source>,
    pace: &'a Pace,
    control: &ControlFile,
) -> Result<TargetWal<'a>, SurveyError> {
    let unknown = TimelineHistory::of_first(control.timeline());
    let archive = archive(options, target, control)?;
    let directories = &options.missing_wal.directories;
    Ok(TargetWal::new(target.root(), unknown, control.geometry(), directories, archive, source, pace))
}

/// The archive that missing WAL is restored from, if the options name one.
fn archive(
    options: &Options,
    target: &Target,
    control: &ControlFile,
) -> Result<Option<Archive>, SurveyError> {
    let command = match &options.missing_wal.restore_command {
        RestoreCommand::Off => return Ok(None),
        RestoreCommand::Given(command) => command.clone(),
        RestoreCommand::FromTarget => {
            let config_file = options.config_file.as_deref();
            let configuration = recovery::configuration(target.root(), control.version(), config_file)?;
            configuration.restore_command()?.to_owned()
        }
    };
    let archive = Archive::new(command, control.geometry(), None).map_err(WalError::from)?;
    Ok(Some(archive.in_directory(target.root()).or_in(target.root())))
}
