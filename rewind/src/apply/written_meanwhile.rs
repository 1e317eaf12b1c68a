//! Applies the rules for equal content once more, to the WAL that the source wrote while it was copied.

use walparse::{FileChanges, SegmentStore};

use crate::apply::error::ApplyError;
use crate::plan::Planned;
use crate::survey::content::{self, Since};
use crate::survey::copied_databases::with_changed_template;
use crate::wal::error::WalError;

/// Checks that replay of the WAL that is now on the target makes its content the source's. `store` has this WAL, and
/// `changes` is what it says about files from the end of the survey or earlier on.
///
/// # Errors
/// A rule is not met. The next run finds a later checkpoint of the source.
pub(super) fn check_written_meanwhile<S: SegmentStore + ?Sized>(
    planned: &Planned<'_>,
    store: &S,
    changes: &FileChanges,
) -> Result<(), ApplyError> {
    let facts = &planned.facts;
    let start = facts.fork.replay_start.checkpoint.redo;
    let since = Since {
        start,
        fork: facts.fork.common_until,
        target: &FileChanges::default(),
        source: changes,
        source_has_common: true,
        is_summarized: false,
        compares_data: facts.fork.is_by_comparing(),
    };
    content::check_replayed(&facts.clusters, &since, start, &facts.files.target)?;
    // A database that was copied before may have been copied from files that have changed since the survey.
    let events = facts.fork.database_copies.iter().chain(since.copies_from(start));
    let changed = with_changed_template(store, facts.clusters.source.geometry(), events);
    let changed = changed.map_err(|error| WalError::Incomplete(error.into()))?;
    Ok(content::changed_template(changed)?)
}
