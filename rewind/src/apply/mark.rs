//! The point of no return: the journal, then the mark in `backup_label` that keeps every server from starting.

use crate::apply::error::ApplyError;
use crate::datadir::label::{self, label_path};
use crate::datadir::server;
use crate::options::KeepDiverged;
use crate::plan::Planned;
use crate::source::Source;
use crate::target::Target;
use crate::target::journal::{Journal, NewJournal};

/// What a second run must know.
pub(crate) fn journal<'a>(
    source: &dyn Source,
    planned: &'a Planned<'_>,
    keep_diverged: Option<&'a KeepDiverged>,
) -> NewJournal<'a> {
    NewJournal {
        source: source.name(),
        control: &planned.facts.clusters.target,
        history: planned.facts.wal.history().to_text(),
        divergence: planned.facts.fork.divergence,
        checkpoint: planned.facts.fork.common_checkpoint,
        changed: &planned.facts.fork.changed,
        outside: &planned.facts.external,
        files: &planned.facts.files.target,
        fetch_bytes: planned.fetch_bytes_again(),
        keep: planned.facts.files.keep.patterns(),
        keep_diverged,
    }
}

/// The point of no return: the journal first, then the mark that says there is one.
pub(crate) fn mark(
    target: &Target,
    planned: &Planned<'_>,
    journal: &NewJournal<'_>,
) -> Result<(), ApplyError> {
    journal.write(target)?;
    let label = std::fs::read(label_path().below(target.root())).ok();
    // The survey may have taken long: nobody must have started a server meanwhile. One that starts after the
    // first look and before the mark is seen by the second.
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
                // Before the journal: a mark without one could never be finished.
                target.sync(&|| {})?;
            }
        }
        Journal::remove(target)?;
        return Err(error.into());
    }
    Ok(())
}
