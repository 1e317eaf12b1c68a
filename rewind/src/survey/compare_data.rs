//! The survey of a rewind that compares the data of both sides instead of reading the target's WAL.
//!
//! The target may have any history, and its WAL may be gone: it is taken for an old copy of the source, of which some blocks
//! may still be right. Replay starts at the source's newest checkpoint, as after a base backup.

use std::sync::atomic::AtomicBool;

use walparse::{FileChanges, Lsn, TimelineHistory};

use crate::causes::with_causes;
use crate::clock::Clock;
use crate::datadir::inventory::Inventory;
use crate::datadir::keep::Keep;
use crate::datadir::server::target_control;
use crate::options::{Delta, UncleanTarget};
use crate::outcome::{BothSides, CheckpointAt, ComparedData, Divergence};
use crate::plan::{Clusters, Facts, Files, Fork, Resumed};
use crate::survey::compare_notes::{Notes, position_now};
use crate::survey::direction;
use crate::survey::error::SurveyError;
use crate::survey::files::list;
use crate::survey::input::Input;
use crate::survey::preflight::{HintBits, PreflightError};
use crate::survey::relations::compare_relations;
use crate::survey::replay::{self, Histories, Replay, last_checkpoint};
use crate::survey::sides::sides;
use crate::survey::{compare_notes, divergence, fork_wal, preflight, target_side};
use crate::target::external_files::ExternalFiles;
use crate::target::journal::Journal;
use crate::wal::changed::ChangedBlocks;
use crate::wal::history::{source_history, target_history};
use crate::wal::source::{OwnPosition, SourceWal};
use crate::wal::target::TargetWal;

/// Both sides, checked to be copies of one cluster.
struct Checked<'a> {
    clusters: Clusters,
    source_history: TimelineHistory,
    /// The target's WAL, with the target's history as far as it is known.
    wal: TargetWal<'a>,
    /// What that WAL says about files: nothing is known of it.
    file_changes: FileChanges,
    /// Where that history left the source's, if it is known.
    divergence: Option<Divergence>,
    sides: BothSides,
}

impl Checked<'_> {
    /// What replay from `start` depends on. `files` are the target's.
    fn histories<'b>(
        &'b self,
        start: CheckpointAt,
        files: &'b Inventory,
        journal: Option<&'b Journal>,
    ) -> Histories<'b> {
        Histories {
            source_history: &self.source_history,
            clusters: &self.clusters,
            wal: &self.wal,
            target_files: files,
            common: start,
            own_start: None,
            fork: Lsn::INVALID,
            // All of it is the source's own.
            wal_is_compared: true,
            read_since: None,
            target_changes: &self.file_changes,
            own_wal_files: journal.map(|journal| &journal.original.wal),
            compares_data: true,
        }
    }
}

/// What differs, and where replay starts.
struct Found {
    files: Files,
    changed: ChangedBlocks,
    replay: Replay,
    /// What comparing has found; `None` if the journal tells what differs.
    compared: Option<ComparedData>,
    /// A position of the source's history before which all was equal that was found so.
    compared_until: Option<OwnPosition>,
    /// When an unfinished rewind is resumed: the target's files as they are now, and whether the journal lacks any of this.
    resumed: Option<(Inventory, bool)>,
}

/// Finds out what differs: compares both sides, unless the journal of an unfinished rewind tells it.
///
/// # Errors
/// A side cannot be read, or the target cannot be made a copy of the source.
pub(super) fn facts<'a>(
    input: Input<'a>,
    journal: Option<Journal>,
    clock: &mut Clock,
) -> Result<Facts<'a>, SurveyError> {
    let Input { options, target, .. } = input;
    let checked = check(input, journal.as_ref())?;
    clock.end_stage("preflight");

    let known = match &journal {
        Some(journal) => find_again(input, &checked, journal)?,
        None => None,
    };
    let found = match known {
        Some(known) => known,
        None => {
            let found = compare(input, &checked, journal.as_ref())?;
            clock.end_stage("compare");
            found
        }
    };
    let Checked { clusters, source_history, wal, file_changes, divergence, sides } = checked;
    let external = match &journal {
        Some(journal) => journal.outside.clone(),
        None => {
            let version = clusters.target.version();
            ExternalFiles::of_target(target.root(), version, options.config_file.as_deref())?
        }
    };
    let resumed = journal.zip(found.resumed).map(|(journal, (present_files, needs_more))| Resumed {
        present_files,
        original: journal.original,
        keep_diverged: journal.keep_diverged,
        needs_more,
    });
    let fork = Fork {
        source_history,
        divergence,
        common_until: Lsn::INVALID,
        common_checkpoint: None,
        replay_start: found.replay.start,
        own_start: found.replay.own_start,
        file_changes,
        lost: None,
        own_wal: None,
        database_copies: found.replay.copies,
        rebuilt: found.replay.rebuilt,
        search_time: None,
        compared: found.compared,
        compared_until: found.compared_until,
        changed: found.changed,
        verified: None,
        scanned: (0, 0),
    };
    Ok(Facts { sides, clusters, fork, files: found.files, wal, external, resumed })
}

/// Compares both sides, but for what an earlier run has compared.
fn compare(input: Input<'_>, checked: &Checked<'_>, journal: Option<&Journal>) -> Result<Found, SurveyError> {
    let Input { options, target, source, .. } = input;
    let clusters = &checked.clusters;
    let version = clusters.target.version();
    let keep = match journal {
        Some(journal) => Keep::again(&journal.keep)?,
        None => target_side::keep(options, target.root(), version.names())?,
    };
    let listed = list(input, version, keep)?;
    let choose = |start: CheckpointAt| {
        let mut changed = ChangedBlocks { since: start.redo, ..ChangedBlocks::default() };
        let replay = replay::choose(input, &checked.histories(start, &listed.target, journal), &mut changed)?;
        Ok::<_, SurveyError>((start, changed, replay))
    };
    let wal = SourceWal { source, history: &checked.source_history, geometry: clusters.source.geometry() };
    let earlier = match journal {
        // What has been written since would be taken for what was compared.
        Some(_) => None,
        None => compare_notes::earlier(input, &clusters.target, &wal, &clusters.source)?,
    };
    let (earlier, (start, mut changed, replay)) = match earlier {
        None => (None, choose(last_checkpoint(&clusters.source))?),
        Some(earlier) => match choose(earlier.start.at) {
            Err(error) if !error.is_of_access() => {
                tracing::info!("{}: the data is compared again", with_causes(&error));
                (None, choose(last_checkpoint(&clusters.source))?)
            }
            chosen => (Some(earlier), chosen?),
        },
    };
    if let Some(earlier) = &earlier {
        tracing::info!("an earlier run has compared {} files: going on from there", earlier.files.len());
    }
    // A source that is a standby, or has just been promoted, may have files that are older than where the earlier run was to start.
    let first = replay.start.checkpoint;
    let start = if first.redo < start.redo { first } else { start };
    let redo = start.redo;
    source.replayed_from(redo);
    // Comparing may take hours, and replay needs this WAL.
    let replayed = checked.histories(start, &listed.target, journal).replay_wal(input, redo)?;
    let first = clusters.source.geometry().segment_size.segment_of(redo);
    let check = || replayed.check_present(first, redo);
    let own_start = journal.is_none().then(|| replayed.own_checkpoint(start)).transpose()?.flatten();
    let mut notes = Notes::new(input, &clusters.target, own_start, earlier);
    let (different, compared) = compare_relations(&listed.sides(), &clusters.target, &mut notes, &check)?;
    changed.named.merge(different);
    let compared_until = notes.position_now(redo)?;
    let files = listed.compare(Delta::On, &AtomicBool::new(false))?;
    let resumed = journal.map(|_| (files.target.clone(), true));
    Ok(Found { files, changed, replay, compared: Some(compared), compared_until, resumed })
}

/// What differs by the journal of an unfinished rewind that had compared data; `None` if it does not tell that of this source.
///
/// A block that was equal had the content that the source's files had when it was read: at the checkpoint where replay was to
/// start, or later, but before the position that the journal has. If the history of this source has both, replay of it brings
/// all later changes of the block, the first of them with an image of the page, and makes nothing of it that the source has
/// not had. So only what differed, and what could not be compared, is copied again.
fn find_again(
    input: Input<'_>,
    checked: &Checked<'_>,
    journal: &Journal,
) -> Result<Option<Found>, SurveyError> {
    let control = &checked.clusters.source;
    let wal =
        SourceWal { source: input.source, history: &checked.source_history, geometry: control.geometry() };
    let known = match (journal.checkpoint, journal.replay_start, journal.compared_until) {
        (None, Some(start), Some(until)) if start.is_in(&wal)? && until.is_in(&wal, control)? => {
            known(input, checked, journal, start.at)
        }
        (None, ..) => {
            tracing::info!(
                "this source is not known to have all that the unfinished rewind has found equal: the data is compared again"
            );
            return Ok(None);
        }
        (Some(_), ..) => return Ok(None),
    };
    match known {
        Err(error) if !error.is_of_access() => {
            tracing::info!("{}: the data is compared again", with_causes(&error));
            Ok(None)
        }
        known => known.map(Some),
    }
}

/// What differs by the journal, if replay starts at `start` or later.
fn known(
    input: Input<'_>,
    checked: &Checked<'_>,
    journal: &Journal,
    start: CheckpointAt,
) -> Result<Found, SurveyError> {
    let version = checked.clusters.target.version();
    let listed = list(input, version, Keep::again(&journal.keep)?)?;
    // As in any run that is resumed, nothing is compared.
    let files = listed.compare(Delta::Off, &AtomicBool::new(false))?;
    let original = journal.original_listing(files.target.clone(), &files.source, version);
    let mut changed = journal.changed.clone();
    let replay = replay::choose(input, &checked.histories(start, &original, Some(journal)), &mut changed)?;
    tracing::info!(
        "resuming the rewind begun at {} from {}: the data of both sides has been compared",
        journal.begun_text(),
        journal.source
    );
    let now = position_now(input.source, replay.start.checkpoint.redo)?;
    let compared_until = now.map(|now| now.later(journal.compared_until));
    let needs_more = changed != journal.changed || replay.own_start != journal.replay_start;
    let resumed = Some((files.target, needs_more));
    let files = Files { target: original, ..files };
    Ok(Found { files, changed, replay, compared: None, compared_until, resumed })
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
    let mut wal = target_side::target_wal(input, &clusters.target)?;
    let divergence = find_history(&mut wal, &clusters, journal, &source_history);
    let history = divergence.is_some().then(|| wal.history());
    direction::check(options, &source_history, &clusters.target, history)?;
    let sides = sides(input, &clusters, &source_history, wal.history(), None)?;
    let file_changes = FileChanges::default();
    Ok(Checked { clusters, source_history, wal, file_changes, divergence, sides })
}

/// Sets the history of the target's WAL as far as it is known, and returns where it left the source's, if that is known.
pub(super) fn find_history(
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
