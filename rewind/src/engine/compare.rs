//! `compare`: whether a stopped node has what its source has.

use super::entry::on_thread_of_its_own;
use super::open::{self, OpenTarget};
use super::with_jobs;
use crate::error::{Failure, RewindError, TargetState};
use crate::options::{CompareData, Options};
use crate::outcome::Comparison;
use crate::progress::Progress;
use crate::source::Pace;
use crate::survey::compare_node::compare_node;
use crate::survey::input::Input;

/// Compares the relations of a stopped data directory, [`Options::target`], with the source's, block by block. Changes nothing.
///
/// Of the options, those that say how the source is read count: connections, rates, retries, [`Options::stop`]. Blocks as
/// [`run`](crate::run) does.
///
/// # Errors
/// A side cannot be read, a server runs on the directory, or the two are not copies of one cluster.
///
/// ```no_run
/// use kbrecover_rewind::{Options, Silent, SourceChoice};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = SourceChoice::Directory("/backup/new_primary".into());
/// let options = Options::new("/var/lib/postgresql/18/main".into(), source);
/// let comparison = kbrecover_rewind::compare(&options, &Silent)?;
/// println!("{} blocks differ", comparison.blocks.different);
/// # Ok(())
/// # }
/// ```
pub fn compare(options: &Options, progress: &dyn Progress) -> Result<Comparison, Failure> {
    let compared =
        on_thread_of_its_own(|| with_jobs(options, |options| compare_here(options, progress)).flatten());
    let result = compared.unwrap_or_else(|source| Err(RewindError::Thread { source }));
    result.map_err(|error| {
        let error = if options.stop.is_requested() { RewindError::Stopped } else { error };
        Failure { error: Box::new(error), target: TargetState::Untouched }
    })
}

fn compare_here(options: &Options, progress: &dyn Progress) -> Result<Comparison, RewindError> {
    let OpenTarget { target, flavor, label } = open::open_target(options, CompareData::On)?;
    let source = open::open_source(options, &target, flavor)?;
    let pace = Pace::new(options.max_rate, &options.stop);
    let source = source.as_ref();
    let input = Input { options, progress, target: &target, flavor, label, source, pace: &pace };
    Ok(compare_node(input)?)
}
