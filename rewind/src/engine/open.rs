//! Opens both sides: locks the target, connects to the source.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use walparse::Flavor;

use crate::datadir::flavor;
use crate::datadir::label::BackupLabel;
use crate::datadir::server;
use crate::error::RewindError;
use crate::options::{CompareData, Options, SourceChoice};
use crate::source::{DirectorySource, ObservedSource, ServerSource, Source};
use crate::survey::error::SurveyError;
use crate::survey::preflight::{self, PreflightError};
use crate::target::Target;

/// Whether `backup_label` in the data directory `target` is the mark of an unfinished rewind. No server starts on
/// such a directory until the rewind has been run again. False if the file cannot be read.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let target = directory.path();
/// if kbrecover_rewind::is_unfinished(target) {
///     println!("run the rewind again before starting a server");
/// }
/// # assert!(!kbrecover_rewind::is_unfinished(target));
/// # std::fs::write(target.join("backup_label"), "KBRECOVER: unfinished\n")?;
/// # assert!(kbrecover_rewind::is_unfinished(target));
/// # Ok(())
/// # }
/// ```
pub fn is_unfinished(target: &Path) -> bool {
    matches!(server::backup_label(target), Ok(Some(BackupLabel::Unfinished)))
}

/// A locked target.
pub(super) struct OpenTarget {
    pub(super) target: Target,
    pub(super) flavor: Flavor,
    /// Its `backup_label`, if it has one.
    pub(super) label: Option<BackupLabel>,
}

/// Locks the target and checks that no server runs on it. Where data is compared, it may be a base backup.
pub(super) fn open_target(options: &Options, compares: CompareData) -> Result<OpenTarget, RewindError> {
    let target = Target::lock(&options.target)?;
    let flavor = find_flavor(options, &target)?;
    let target = target.controlled_by(flavor.names(), &options.stop, options.observer.clone());
    let is_backup_accepted = compares != CompareData::Off;
    let label = preflight::check_target(target.root(), flavor.names(), &options.stop, is_backup_accepted)
        .map_err(SurveyError::from)?;
    preflight::check_wal_directories(&options.missing_wal.directories).map_err(SurveyError::from)?;
    Ok(OpenTarget { target, flavor, label })
}

/// The target's flavor; for a fork of PostgreSQL with the magic number that its WAL pages have.
fn find_flavor(options: &Options, target: &Target) -> Result<Flavor, SurveyError> {
    let flavor = flavor::flavor_of_directory(target.root(), options.flavor.as_deref())
        .map_err(PreflightError::from)?;
    if !flavor.is_fork() {
        return Ok(flavor);
    }
    let control = server::target_control(target.root(), flavor)?;
    Ok(flavor::with_wal_magic_of_directory(flavor, target.root(), &control))
}

/// Default number of connections: one for each processor, at least 2 and at most 4. In measurements the second one
/// nearly doubled the rate, and more than four gained nothing.
pub(super) fn default_connections() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    NonZeroUsize::new(processors.clamp(2, 4)).unwrap_or(NonZeroUsize::MIN)
}

/// Opens the source. With an observer, all requests to it are announced first.
pub(super) fn open_source(
    options: &Options,
    target: &Target,
    flavor: Flavor,
) -> Result<Box<dyn Source>, SurveyError> {
    let source = open_chosen_source(options, target, flavor)?;
    Ok(match &options.observer {
        Some(observer) => Box::new(ObservedSource { source, observer: Arc::clone(observer) }),
        None => source,
    })
}

fn open_chosen_source(
    options: &Options,
    target: &Target,
    flavor: Flavor,
) -> Result<Box<dyn Source>, SurveyError> {
    match &options.source {
        SourceChoice::Server(conninfo) => {
            let connections = options.jobs.unwrap_or_else(default_connections);
            let expected = (flavor, options.flavor.as_deref());
            let (retry, stop) = (options.retry_timeout, options.stop.clone());
            Ok(Box::new(ServerSource::connect(conninfo, connections, retry, stop, expected)?))
        }
        SourceChoice::Directory(path) => {
            if path.canonicalize().is_ok_and(|path| path == target.root()) {
                return Err(PreflightError::SameDirectory { path: path.clone() }.into());
            }
            if is_unfinished(path) {
                return Err(PreflightError::SourceUnfinished { path: path.clone() }.into());
            }
            Ok(Box::new(DirectorySource::open(path, options.flavor.as_deref())?))
        }
    }
}
