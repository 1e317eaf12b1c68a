//! The point of no return: writes the journal, and then the mark in `backup_label` with which no server starts.

use crate::apply::error::ApplyError;
use crate::datadir::label::{self, label_path};
use crate::datadir::server;
use crate::options::KeepDiverged;
use crate::plan::Planned;
use crate::source::Source;
use crate::target::Target;
use crate::target::journal::{Journal, NewJournal};

/// The journal: everything that a later run needs to finish this rewind. `keep_diverged` is where discarded data
/// has been saved.
pub(crate) fn journal<'a>(
    source: &dyn Source,
    planned: &'a Planned<'_>,
    keep_diverged: Option<&'a KeepDiverged>,
) -> NewJournal<'a> {
    NewJournal {
        source: source.name(),
        control: &planned.facts.clusters.target,
        history: planned.facts.wal.history(),
        divergence: planned.facts.fork.divergence,
        checkpoint: planned.facts.fork.common_checkpoint,
        changed: &planned.facts.fork.changed,
        outside: &planned.facts.external,
        files: &planned.facts.files.target,
        original: planned.facts.resumed.as_ref().map(|resumed| &resumed.original),
        file_changes: &planned.facts.fork.file_changes,
        lost: planned.facts.fork.lost.as_ref(),
        replay_start: planned.facts.fork.own_start,
        compared_until: planned.facts.fork.compared_until,
        fetch_bytes: planned.fetch_bytes_again(),
        keep: planned.facts.files.keep.patterns(),
        keep_diverged,
    }
}

/// Writes the journal, and then the mark that says that there is one. If a server has been started meanwhile, both
/// are removed again.
///
/// # Errors
/// A server runs on the target or has run on it since the survey, or a file could not be written.
pub(crate) fn mark(
    target: &Target,
    planned: &Planned<'_>,
    journal: &NewJournal<'_>,
) -> Result<(), ApplyError> {
    journal.write(target)?;
    let label = std::fs::read(label_path().below(target.root())).ok();
    // A server may have been started during the survey. One that starts between this check and the mark is found by
    // the second check.
    let flavor = planned.facts.clusters.target.version().flavor();
    server::check_not_running(target.root(), flavor.names())?;
    if server::target_control(target.root(), flavor)? != planned.facts.clusters.target {
        return Err(ApplyError::TargetChanged { path: target.root().to_owned() });
    }
    target.replace_file(&label_path(), label::mark().as_bytes())?;
    if let Err(error) = server::check_not_running(target.root(), flavor.names()) {
        match label {
            Some(label) => target.replace_file(&label_path(), &label)?,
            None => {
                target.remove_file(&label_path())?;
                // The mark is removed before the journal: a rewind with a mark but no journal could never be
                // finished.
                target.sync(&|| {})?;
            }
        }
        Journal::remove(target)?;
        return Err(error.into());
    }
    Ok(())
}
