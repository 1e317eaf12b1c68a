//! `lost`: what a rewind of a directory gives up.

use std::path::Path;

use walparse::Lsn;

use super::entry::on_thread_of_its_own;
use super::look_up::{look_up, system_identifier};
use super::open::{self, OpenTarget};
use super::with_jobs;
use crate::apply::kept::LOST;
use crate::apply::save_diverged::is_inside;
use crate::causes::with_causes;
use crate::datadir::flavor::flavor_of_directory;
use crate::error::{Failure, RewindError, TargetState};
use crate::lost::export::{Export, ExportError, ExportOptions, LookUp, LostSummary, list_exported, shown};
use crate::lost::{LostError, LostHistory, LostRequest, LostSink, list};
use crate::options::{CompareData, Options};
use crate::progress::{Progress, Stage};
use crate::source::Pace;
use crate::survey::own_history::{Other, OwnHistory, OwnInput, own_history};
use crate::target::disk::Disk;

/// Where the target's own history begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// Where it has left the history of [`Options::source`].
    Source,
    /// At this position. [`Options::source`] is not used.
    Fork(Lsn),
    /// As a rewind has listed it: [`Options::target`] is the directory of its `--keep-diverged`. [`Options::source`] is asked, if
    /// it is a running server, what it has by now.
    Exported,
}

/// Lists the transactions that a stopped or crashed data directory, [`Options::target`], has of its own, in the order of their
/// commits, with every row that they have changed. Changes nothing.
///
/// Of the options, those count that say how the source is read and where WAL is searched. Blocks as [`run`](crate::run) does.
///
/// # Errors
/// WAL is missing or damaged, a server runs on the directory, the source cannot be read, or the sink failed.
///
/// ```no_run
/// use kbrecover_rewind::{ExportOptions, LostCounter, Options, Silent, Since, SourceChoice};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = SourceChoice::Directory("/backup/new_primary".into());
/// let options = Options::new("/var/lib/postgresql/18/main".into(), source);
/// let mut counter = LostCounter::default();
/// kbrecover_rewind::lost(&options, Since::Source, &ExportOptions::default(), &mut counter, &Silent)?;
/// print!("{}", counter.summary());
/// # Ok(())
/// # }
/// ```
pub fn lost(
    options: &Options,
    since: Since,
    asked: &ExportOptions,
    sink: impl LostSink + Send,
    progress: &dyn Progress,
) -> Result<LostHistory, Failure> {
    ended(options, || {
        let mut sink = shown(asked, look_up_since(options, since), sink)
            .map_err(|error| LostError::from(ExportError::from(error)))?;
        with_jobs(options, |options| lost_here(options, since, &mut sink, None, progress)).flatten()
    })
}

/// As [`lost`], and writes what was found to files in `directory`, which must not exist or be empty. Rows that do not fit into
/// memory wait in a file there.
///
/// # Errors
/// As [`lost`]; also if the files cannot be written.
pub fn export_lost(
    options: &Options,
    since: Since,
    directory: &Path,
    asked: &ExportOptions,
    progress: &dyn Progress,
) -> Result<LostSummary, Failure> {
    ended(options, || {
        check_outside(directory, options)?;
        let disk = Disk::new(options.stop.clone(), options.observer.clone());
        let mut files = Export::create(directory, &disk, asked, look_up_since(options, since))
            .map_err(LostError::from)?;
        let listed =
            with_jobs(options, |options| lost_here(options, since, &mut files, Some(directory), progress))
                .flatten();
        if let Err(error) = listed {
            // What was found so far is not lost.
            options.stop.clean_up();
            let reason = format!("{}.", with_causes(&error));
            if let Err(also) = files.end_early(&reason) {
                tracing::warn!("could not end the export: {also}");
            }
            return Err(error);
        }
        Ok(files.finish().map_err(LostError::from)?)
    })
}

/// Asks the source what it has in the place of lost rows, if it is a running server.
fn look_up_since(options: &Options, since: Since) -> Option<LookUp<'_>> {
    match since {
        Since::Source | Since::Exported => look_up(options),
        Since::Fork(_) => None,
    }
}

/// Checks that a running source belongs to the cluster whose transactions were lost.
fn check_same_cluster(options: &Options, history: &LostHistory) -> Result<(), LostError> {
    let problem = match system_identifier(options) {
        None => return Ok(()),
        Some(Ok(found)) if found == history.system_identifier.to_string() => return Ok(()),
        Some(Ok(found)) => format!("its system identifier is {found}, not {}", history.system_identifier),
        Some(Err(problem)) => problem,
    };
    Err(LostError::AnotherCluster { problem })
}

/// Refuses a directory in the data directory, where servers and rewinds would take it for theirs.
fn check_outside(directory: &Path, options: &Options) -> Result<(), LostError> {
    // What is no data directory is refused when it is opened.
    let Ok(flavor) = flavor_of_directory(&options.target, options.flavor.as_deref()) else { return Ok(()) };
    let existing = directory.ancestors().find_map(|path| path.canonicalize().ok());
    let names = flavor.names();
    match existing.filter(|path| is_inside(path, &options.target, names.tablespace_dir, names.wal_dir)) {
        None => Ok(()),
        Some(_) => {
            let problem = "it is inside the data directory or a part of it";
            Err(ExportError::Place { path: directory.to_owned(), problem }.into())
        }
    }
}

fn ended<T: Send>(
    options: &Options,
    work: impl FnOnce() -> Result<T, RewindError> + Send,
) -> Result<T, Failure> {
    let result = on_thread_of_its_own(work);
    let result = result.unwrap_or_else(|source| Err(RewindError::Thread { source }));
    result.map_err(|error| {
        let is_stopped =
            options.stop.is_requested() || matches!(error, RewindError::Lost(LostError::Stopped));
        let error = if is_stopped { RewindError::Stopped } else { error };
        Failure { error: Box::new(error), target: TargetState::Untouched }
    })
}

fn lost_here(
    options: &Options,
    since: Since,
    sink: &mut (dyn LostSink + Send),
    spool: Option<&Path>,
    progress: &dyn Progress,
) -> Result<LostHistory, RewindError> {
    if since == Since::Exported {
        let check = |history: &LostHistory| check_same_cluster(options, history);
        return Ok(list_exported(&options.target.join(LOST), &options.stop, sink, &check)?);
    }
    let OpenTarget { target, flavor, label } = open::open_target(options, CompareData::Off)?;
    let source = match since {
        Since::Source => Some(open::open_source(options, &target, flavor)?),
        Since::Fork(_) | Since::Exported => None,
    };
    let pace = Pace::new(options.max_rate, &options.stop);
    let input = OwnInput { options, progress, target: &target, flavor, label, pace: &pace };
    let other = match (&source, since) {
        (Some(source), _) => Other::Source(source.as_ref()),
        (None, Since::Fork(fork)) => Other::Fork(fork),
        (None, _) => unreachable!("the source was opened above"),
    };
    progress.begin(Stage::Scan, None);
    let OwnHistory { control, wal, divergence, start, end } = own_history(&input, other)?;
    let request = LostRequest {
        root: target.root(),
        control: &control,
        wal: &wal,
        fork: divergence,
        start,
        end: end.max(start),
        has_values: true,
        spool: spool.map(Path::to_path_buf),
        stop: &options.stop,
        progress: &|bytes| progress.advance(Stage::Scan, bytes),
    };
    let history = list(&request, sink)?;
    progress.finish(Stage::Scan);
    Ok(history)
}
