//! Resumes an unfinished rewind.

use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use walparse::{ControlFile, Lsn, TimelineHistory};

use crate::clock::Clock;
use crate::datadir::keep::Keep;
use crate::options::Delta;
use crate::outcome::{CheckpointAt, Divergence};
use crate::plan::{Clusters, Facts, Files, Fork, Resumed};
use crate::source::Source;
use crate::survey::announce::{announce_checkpoint, announce_fork};
use crate::survey::error::SurveyError;
use crate::survey::files::list;
use crate::survey::input::Input;
use crate::survey::preflight::HintBits;
use crate::survey::replay::{self, Histories};
use crate::survey::sides::sides;
use crate::survey::{divergence, preflight, target_side};
use crate::target::journal::Journal;
use crate::wal::error::WalError;
use crate::wal::history::source_history;
use crate::wal::source::{OwnCheckpoint, SourceWal};

/// Gathers the facts needed to finish what an earlier run began. What the directory no longer shows is read from the
/// journal. The source is surveyed again, because it may have advanced or be another one.
///
/// # Errors
/// The journal cannot be used, a side cannot be read, or this source diverges before the checkpoint of that run.
pub(super) fn resume<'a>(
    input: Input<'a>,
    journal: Journal,
    clock: &mut Clock,
) -> Result<Facts<'a>, SurveyError> {
    let Input { options, source, label, .. } = input;
    let searched_since = Timestamp::now();
    tracing::info!("resuming the rewind begun at {} from {}", journal.begun_text(), journal.source);
    let mut clusters = Clusters { source: source.control_file()?, target: journal.control.clone(), label };
    preflight::check_sides(options, source, &mut clusters, HintBits::Any)?;
    let source_history = source_history(source, &clusters.source)?;
    let history = TimelineHistory::parse(journal.timeline, &journal.history)
        .map_err(|source| WalError::History { side: "target", source })?;
    let (Some(common_checkpoint), Some(file_changes)) = (journal.checkpoint, journal.file_changes.clone())
    else {
        unreachable!("the caller compares data if the journal needs it")
    };
    let divergence = fork(&source_history, &history, &journal, common_checkpoint)?;
    let sides = sides(input, &clusters, &source_history, &history, None)?;
    let mut wal = target_side::target_wal(input, &clusters.target)?;
    wal.set_history(history);
    wal.set_limits(divergence.lsn, divergence.lsn);
    let keep = Keep::again(&journal.keep)?;
    // Nothing is compared: pages that the earlier run wrote but did not sync would look equal without being on disk.
    let version = clusters.target.version();
    let found = list(input, version, keep)?.compare(Delta::Off, &AtomicBool::new(false))?;
    clock.end_stage("preflight");
    let search_time = (searched_since, Timestamp::now());
    announce_fork(input.progress, divergence);
    announce_checkpoint(input.progress, &common_checkpoint, search_time);
    let original = journal.original_listing(found.target.clone(), &found.source, version);
    let own_start = earlier_start(&journal, source, &source_history, &clusters.source)?;
    let mut changed = journal.changed.clone();
    let histories = Histories {
        source_history: &source_history,
        clusters: &clusters,
        wal: &wal,
        target_files: &original,
        common: own_start.map_or(common_checkpoint, |start| start.at),
        own_start,
        fork: divergence.lsn,
        // By the checksum of that checkpoint.
        wal_is_compared: own_start.is_some(),
        // The target's WAL may be gone. The journal has what it says.
        read_since: Some(journal.changed.since),
        target_changes: &file_changes,
        own_wal_files: Some(&journal.original.wal),
        compares_data: false,
    };
    let replay = replay::choose(input, &histories, &mut changed)?;
    let resumed = Resumed {
        present_files: found.target,
        original: journal.original,
        keep_diverged: journal.keep_diverged,
        needs_more: changed != journal.changed || journal.replay_start != replay.own_start,
    };
    let fork = Fork {
        replay_start: replay.start,
        own_start: replay.own_start,
        file_changes,
        own_wal: None,
        lost: journal.lost.filter(|_| journal.divergence == Some(divergence)),
        database_copies: replay.copies,
        rebuilt: replay.rebuilt,
        source_history,
        divergence: Some(divergence),
        common_until: divergence.lsn,
        common_checkpoint: Some(common_checkpoint),
        search_time: Some(search_time),
        compared: None,
        compared_until: None,
        changed,
        verified: None,
        scanned: (0, 0),
    };
    let files = Files { source: found.source, target: original, compared: found.compared, keep: found.keep };
    Ok(Facts { sides, clusters, fork, files, wal, external: journal.outside, resumed: Some(resumed) })
}

/// Where the target left this source's history, which may be earlier than it left that of the first run's source.
///
/// # Errors
/// That is before `checkpoint`, from which on the first run noted what has changed.
fn fork(
    source: &TimelineHistory,
    target: &TimelineHistory,
    journal: &Journal,
    checkpoint: CheckpointAt,
) -> Result<Divergence, SurveyError> {
    let (timeline, left) = divergence::from_histories(source, target)?;
    let here = left.map(|lsn| Divergence { lsn, timeline });
    let fork = here.into_iter().chain(journal.divergence).min_by_key(|at| at.lsn);
    fork.filter(|fork| fork.lsn > checkpoint.lsn).ok_or_else(|| SurveyError::ForkTooOld {
        fork: fork.map_or(Lsn::INVALID, |fork| fork.lsn),
        checkpoint: checkpoint.lsn,
    })
}

/// Where the earlier run was to start replay, if this source has the same checkpoint and its files are as new. All that
/// was changed before has been noted, and the WAL before it may be gone.
fn earlier_start(
    journal: &Journal,
    source: &dyn Source,
    history: &TimelineHistory,
    control: &ControlFile,
) -> Result<Option<OwnCheckpoint>, WalError> {
    let Some(start) = journal.replay_start else { return Ok(None) };
    let wal = SourceWal { source, history, geometry: control.geometry() };
    Ok((start.at.redo <= control.checkpoint().redo && start.is_in(&wal)?).then_some(start))
}
