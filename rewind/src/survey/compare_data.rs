//! The survey of a rewind that compares the data of both sides instead of reading the target's WAL.
//!
//! The target may have any history, and its WAL may be gone: it is taken for an old copy of the source, of which some blocks
//! may still be right. Replay starts at the source's newest checkpoint, as after a base backup.

use std::sync::atomic::AtomicBool;

use walparse::{FileChanges, Lsn, TimelineHistory};

use crate::clock::Clock;
use crate::datadir::keep::Keep;
use crate::datadir::server::target_control;
use crate::options::{Delta, UncleanTarget};
use crate::outcome::{BothSides, Divergence};
use crate::plan::{Clusters, Facts, Fork, Resumed};
use crate::survey::direction;
use crate::survey::error::SurveyError;
use crate::survey::files::list;
use crate::survey::input::Input;
use crate::survey::preflight::{HintBits, PreflightError};
use crate::survey::relations::compare_relations;
use crate::survey::replay::{self, Histories, last_checkpoint};
use crate::survey::sides::sides;
use crate::survey::{divergence, fork_wal, preflight, target_side};
use crate::target::external_files::ExternalFiles;
use crate::target::journal::Journal;
use crate::wal::changed::ChangedBlocks;
use crate::wal::history::{source_history, target_history};
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// Both sides, checked to be copies of one cluster.
struct Checked<'a> {
    clusters: Clusters,
    source_history: TimelineHistory,
    /// The target's WAL, with the target's history as far as it is known.
    wal: TargetWal<'a>,
    /// Where that history left the source's, if it is known.
    divergence: Option<Divergence>,
    sides: BothSides,
}

/// Compares both sides. `journal` is that of an unfinished rewind, and tells what the target was before.
///
/// # Errors
/// A side cannot be read, or the target cannot be made a copy of the source.
pub(super) fn facts<'a>(
    input: Input<'a>,
    journal: Option<Journal>,
    clock: &mut Clock,
) -> Result<Facts<'a>, SurveyError> {
    let Input { options, target, source, .. } = input;
    let Checked { clusters, source_history, wal, divergence, sides } = check(input, journal.as_ref())?;
    clock.end_stage("preflight");

    let start = last_checkpoint(&clusters.source);
    source.replayed_from(start.redo);
    let version = clusters.target.version();
    let keep = match &journal {
        Some(journal) => Keep::again(&journal.keep)?,
        None => target_side::keep(options, target.root(), version.names())?,
    };
    let listed = list(input, version, keep)?;
    let histories = Histories {
        source_history: &source_history,
        clusters: &clusters,
        wal: &wal,
        target_files: &listed.target,
        common: start,
        own_start: None,
        fork: Lsn::INVALID,
        wal_is_compared: false,
        read_since: None,
        target_changes: &FileChanges::default(),
        own_wal_files: journal.as_ref().map(|journal| &journal.original.wal),
        compares_data: true,
    };
    let mut changed = ChangedBlocks { since: start.redo, ..ChangedBlocks::default() };
    let replay = replay::choose(input, &histories, &mut changed)?;
    // Comparing may take hours, and replay needs this WAL.
    let replayed = histories.replay_wal(input, start.redo)?;
    let first = clusters.source.geometry().segment_size.segment_of(start.redo);
    let check = || replayed.check_present(first, start.redo);
    let (different, compared) = compare_relations(&listed.sides(), &clusters.target, input, &check)?;
    changed.named.merge(different);
    let files = listed.compare(Delta::On, &AtomicBool::new(false))?;
    clock.end_stage("compare");

    let external = match &journal {
        Some(journal) => journal.outside.clone(),
        None => ExternalFiles::of_target(target.root(), version, options.config_file.as_deref())?,
    };
    let resumed = journal.map(|journal| Resumed {
        present_files: files.target.clone(),
        original: journal.original,
        keep_diverged: journal.keep_diverged,
        needs_more: true,
    });
    let fork = Fork {
        source_history,
        divergence,
        common_until: Lsn::INVALID,
        common_checkpoint: None,
        replay_start: replay.start,
        own_start: replay.own_start,
        file_changes: FileChanges::default(),
        database_copies: replay.copies,
        rebuilt: replay.rebuilt,
        search_time: None,
        compared: Some(compared),
        changed,
        verified: None,
        scanned: (0, 0),
    };
    Ok(Facts { sides, clusters, fork, files, wal, external, resumed })
}

/// Checks that the target can be made a copy of the source, and reads the histories of both as far as they are known.
fn check<'a>(input: Input<'a>, journal: Option<&Journal>) -> Result<Checked<'a>, SurveyError> {
    let Input { options, target, source, label, .. } = input;
    let ours = match journal {
        Some(journal) => journal.control.clone(),
        None => target_control(target.root(), input.flavor)?,
    };
    // Before anything else is read of the source: replay starts at the checkpoint that it has now.
    let mut clusters = Clusters { source: source.control_file()?, target: ours, label };
    preflight::check_sides(options, source, &mut clusters, HintBits::Any)?;
    let state = clusters.target.state();
    if matches!(options.unclean_target, UncleanTarget::Refuse) && !state.is_clean() && label.is_none() {
        return Err(PreflightError::TargetNotClean { state }.into());
    }
    let source_history = source_history(source, &clusters.source)?;
    let geometry = clusters.source.geometry();
    fork_wal::check_source(&clusters.source, &SourceWal { source, history: &source_history, geometry })?;
    let mut wal = target_side::target_wal(options, target, &clusters.target, source)?;
    let divergence = find_history(&mut wal, &clusters, journal, &source_history);
    let history = divergence.is_some().then(|| wal.history());
    direction::check(options, &source_history, &clusters.target, history)?;
    let sides = sides(input, &clusters, &source_history, wal.history(), None)?;
    Ok(Checked { clusters, source_history, wal, divergence, sides })
}

/// Sets the history of the target's WAL as far as it is known, and returns where it left the source's, if that is known.
fn find_history(
    wal: &mut TargetWal<'_>,
    clusters: &Clusters,
    journal: Option<&Journal>,
    source_history: &TimelineHistory,
) -> Option<Divergence> {
    let history = match journal {
        Some(journal) => TimelineHistory::parse(journal.timeline, &journal.history).ok()?,
        None => match target_history(wal, &clusters.target) {
            Ok(history) => history,
            Err(error) => {
                tracing::debug!("the history of the target is not known: {error}");
                return None;
            }
        },
    };
    let common = divergence::from_histories(source_history, &history).ok();
    wal.set_history(history);
    let (timeline, left) = common?;
    Some(Divergence { lsn: left?, timeline })
}
