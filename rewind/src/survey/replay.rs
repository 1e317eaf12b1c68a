//! Where replay on the rewound target starts, and what must be copied because that replay does not restore it.
//!
//! Replay can start at the last common checkpoint, as after `pg_rewind`, or at the source's newest checkpoint. A
//! rewound directory is a base backup of which a part was already there, and a base backup may start at any checkpoint
//! of the source that was complete before the first byte was copied. A later start needs more blocks, those that the
//! source has changed up to that checkpoint, and less WAL: none before it is copied or replayed.
//!
//! In either case the source's WAL is read, before the target is marked, for what the rules of [`content`] depend on.

use std::collections::BTreeSet;

use walparse::scan::ScanError;
use walparse::{
    ControlFile, FileChanges, FileEvent, FileEventKind, Lsn, PageMap, RunningTransactions, TimelineHistory,
    WalFault,
};

use crate::datadir::config::Configuration;
use crate::datadir::inventory::Inventory;
use crate::options::ReplayFrom;
use crate::outcome::{CheckpointAt, ReplayEstimate, ReplayStart};
use crate::plan::{Clusters, available_wal};
use crate::progress::Event;
use crate::survey::content::{self, ContentError, Since};
use crate::survey::copied_databases::with_changed_template;
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::wal::changed::ChangedBlocks;
use crate::wal::error::WalError;
use crate::wal::replay::ReplayWal;
use crate::wal::source::{OwnCheckpoint, SourceWal};
use crate::wal::target::TargetWal;

/// Below this much WAL between the two checkpoints, replay starts at the common one: the wait is short either way.
const WORTH_A_LATER_START: u64 = 64 << 20;

/// What replay depends on.
pub(super) struct Histories<'a> {
    pub(super) source_history: &'a TimelineHistory,
    pub(super) clusters: &'a Clusters,
    /// The target's WAL.
    pub(super) wal: &'a TargetWal<'a>,
    /// Its files before any rewind.
    pub(super) target_files: &'a Inventory,
    /// The earlier of the two possible starts: the last common checkpoint, or `own_start`.
    pub(super) common: CheckpointAt,
    /// When an unfinished rewind is resumed: the source's checkpoint at which that one was to start replay.
    pub(super) own_start: Option<OwnCheckpoint>,
    /// Where the histories part.
    pub(super) fork: Lsn,
    /// The position from which on the target's WAL was read; `None` if it was not read.
    pub(super) read_since: Option<Lsn>,
    /// What that WAL says about files.
    pub(super) target_changes: &'a FileChanges,
    /// When an unfinished rewind is resumed: the names of the target's own WAL files.
    pub(super) own_wal_files: Option<&'a BTreeSet<String>>,
    /// The data is compared, and nothing is known of the target's WAL. `common` is the source's newest checkpoint.
    pub(super) are_compared: bool,
}

/// The choice.
pub(super) struct Replay {
    pub(super) start: ReplayStart,
    /// That checkpoint, if it is one of the source's own history.
    pub(super) own_start: Option<OwnCheckpoint>,
    /// The copies of databases that replay will repeat.
    pub(super) copies: Vec<FileEvent>,
}

impl<'a> Histories<'a> {
    /// The source's WAL from `redo` on.
    fn replay_wal(&self, input: Input<'a>, redo: Lsn) -> Result<ReplayWal<'a>, WalError> {
        let geometry = self.clusters.source.geometry();
        let source = SourceWal { source: input.source, history: self.source_history, geometry };
        let available = available_wal(input.source, &self.clusters.source, self.source_history)?;
        let stop = &input.options.stop;
        let wal = ReplayWal::new(source, self.wal, self.own_wal_files, self.fork, available, stop);
        wal.check_extent(redo)?;
        Ok(wal)
    }
}

/// Chooses where replay starts, and adds to `changed` what must be copied for it.
///
/// # Errors
/// The source's WAL cannot be read, or replay would not surely make the target's content the source's.
pub(super) fn choose(
    input: Input<'_>,
    histories: &Histories<'_>,
    changed: &mut ChangedBlocks,
) -> Result<Replay, SurveyError> {
    let (source, target) = (&histories.clusters.source, &histories.clusters.target);
    let common = common_start(histories.common, source);
    let source_has_common = histories.read_since.is_none_or(|since| since > common.redo);
    let wal = histories.replay_wal(input, common.redo)?;
    let size = source.geometry().segment_size;
    let from = if source_has_common {
        common.redo
    } else {
        common.redo.max(size.start_of(size.segment_of(histories.fork)))
    };
    let theirs = Theirs::read(&wal, from, newest_start(common, histories.fork, source))?;
    let since = Since {
        start: common.redo,
        fork: histories.fork,
        target: histories.target_changes,
        source: &theirs.files,
        source_has_common,
    };
    if !histories.are_compared {
        content::check_hints(histories.clusters, &since, own_setting(input, histories.clusters))?;
    }

    let estimate = |start: Lsn, more_bytes: u64| ReplayEstimate {
        admits_sessions: RunningTransactions::are_known_after(running_from(&since, start)),
        ..ReplayEstimate::new(start, wal.available(), more_bytes)
    };
    let newest_estimate = theirs.newest.map(|newest| {
        estimate(newest.redo, changed.bytes_missing(&theirs.page_map, histories.target_files, target))
    });
    let common_estimate = estimate(common.redo, 0);
    let newest_estimate = newest_estimate.or(histories.are_compared.then_some(common_estimate));
    let mut choice = ReplayStart::new(common, common_estimate, newest_estimate);
    let rules = Rules { histories, since: &since, wal: &wal };
    if let Some(newest) = theirs.newest.filter(|newest| theirs.is_known_before(newest.redo))
        && rules.takes(newest, input.options.replay_from, &choice)
    {
        choice.checkpoint = newest;
    }
    rules.check(choice.checkpoint.redo)?;
    rules.check_copies(choice.checkpoint.redo)?;
    let is_later = choice.checkpoint.redo > common.redo;
    if is_later {
        changed.named.merge(theirs.page_map);
    }
    changed.add_whole_files(&since.whole_files(is_later), histories.target_files, target);
    input.progress.event(&Event::ReplayStart(choice));
    warn_of_open_transactions(&choice);
    let copies = since.copies_from(choice.checkpoint.redo).cloned().collect();
    let own_start = if is_later || histories.are_compared {
        wal.own_checkpoint(choice.checkpoint)?
    } else {
        histories.own_start
    };
    Ok(Replay { start: choice, own_start, copies })
}

/// The records of running transactions that replay goes through if it starts at `start`.
fn running_from(since: &Since<'_>, start: Lsn) -> impl Iterator<Item = RunningTransactions> {
    since.replayed_from(start).filter_map(|event| match event.kind {
        FileEventKind::RunningTransactions(running) => Some(running),
        _ => None,
    })
}

/// Warns if a server on the rewound target will stream without admitting sessions.
fn warn_of_open_transactions(choice: &ReplayStart) {
    if choice.chosen().admits_sessions {
        return;
    }
    let otherwise = match choice.is_newest() && choice.common.admits_sessions {
        true => "; with --replay-from common it would admit them as soon as it is consistent",
        false => "",
    };
    tracing::warn!(
        "transactions with more than 64 subtransactions are open on the source: a server on the target will stream, but admit no session until they have ended and the source's next checkpoint has been replayed{otherwise}"
    );
}

/// The last common checkpoint, or the source's last one if that is older. The files of a standby, or of a server that
/// has just been promoted, may be as old as its last restartpoint.
fn common_start(common: CheckpointAt, source: &ControlFile) -> CheckpointAt {
    let newest = last_checkpoint(source);
    if newest.redo >= common.redo {
        return common;
    }
    tracing::debug!("replay starts at the source's older checkpoint {}", newest.lsn);
    newest
}

/// The source's last checkpoint, if it is one of its own history.
fn newest_start(common: CheckpointAt, fork: Lsn, source: &ControlFile) -> Option<CheckpointAt> {
    let newest = last_checkpoint(source);
    (newest.redo >= fork && newest.redo > common.redo).then_some(newest)
}

/// The source's newest checkpoint.
pub(super) fn last_checkpoint(control: &ControlFile) -> CheckpointAt {
    let checkpoint = control.checkpoint();
    CheckpointAt { lsn: control.checkpoint_lsn(), redo: checkpoint.redo, timeline: checkpoint.timeline }
}

/// Whether the target is expected to stream sooner if replay starts at the source's newest checkpoint.
fn is_sooner(estimates: &ReplayStart) -> bool {
    estimates.newest.is_some_and(|newest| newest.seconds() < estimates.common.seconds())
}

/// What the source's WAL says.
struct Theirs {
    /// Its newest checkpoint, if replay may start there.
    newest: Option<CheckpointAt>,
    /// The blocks that it has changed up to that checkpoint.
    page_map: PageMap,
    /// What it says about files, up to its end.
    files: FileChanges,
}

impl Theirs {
    fn read(wal: &ReplayWal<'_>, from: Lsn, newest: Option<CheckpointAt>) -> Result<Theirs, WalError> {
        let mut theirs = Theirs { newest, page_map: PageMap::new(), files: FileChanges::default() };
        let (mut from, mut last_record) = (from, Lsn::INVALID);
        if let Some(newest) = newest {
            let before = wal.read(from, newest.redo)?;
            (theirs.page_map, theirs.files, from) = (before.page_map, before.files, newest.redo);
            last_record = before.last_record;
        }
        if wal.available() <= from {
            return Ok(theirs);
        }
        let after = wal.read_to_end(from)?;
        if let Some(found) = after.previous.filter(|_| last_record.is_valid())
            && found != last_record
        {
            let (fault, needed) = (WalFault::PreviousLink { found }, wal.available());
            return Err(WalError::ScanSource(ScanError::BreaksOff { position: from, needed, fault }));
        }
        theirs.files.append(after.files);
        Ok(theirs)
    }

    /// Whether all that the records before `end` do to files is known.
    fn is_known_before(&self, end: Lsn) -> bool {
        let Some(unknown) = self.files.first_unknown.filter(|lsn| *lsn < end) else { return true };
        tracing::info!(
            "replay starts at the last common checkpoint: the source's WAL record at {unknown} changes relation files in an unknown way"
        );
        false
    }
}

/// The rules, and what they are applied to.
struct Rules<'a> {
    histories: &'a Histories<'a>,
    since: &'a Since<'a>,
    wal: &'a ReplayWal<'a>,
}

impl Rules<'_> {
    /// Checks that replay from `start` makes the target's content the source's, but for copies of databases.
    fn check(&self, start: Lsn) -> Result<(), ContentError> {
        content::check_replayed(self.histories.clusters, self.since, start, self.histories.target_files)
    }

    /// Checks that replay from `start` copies no database from files that have changed since.
    fn check_copies(&self, start: Lsn) -> Result<(), SurveyError> {
        let geometry = self.histories.clusters.source.geometry();
        let changed = with_changed_template(self.wal, geometry, self.since.copies_from(start));
        let changed = changed.map_err(|error| WalError::ScanSource(error.into()))?;
        Ok(content::changed_template(changed)?)
    }

    /// Whether replay starts at the source's newest checkpoint.
    fn takes(&self, newest: CheckpointAt, choice: ReplayFrom, estimates: &ReplayStart) -> bool {
        let common = estimates.checkpoint.redo;
        match choice {
            ReplayFrom::Newest => true,
            ReplayFrom::Common => false,
            ReplayFrom::Auto => {
                let admits = |estimate: ReplayEstimate| estimate.admits_sessions;
                let is_worth_it = newest.redo.0 - common.0 >= WORTH_A_LATER_START
                    && is_sooner(estimates)
                    && (estimates.newest.is_some_and(admits) || !admits(estimates.common));
                // Replay would copy the files as they are now.
                let copies_before = || self.since.copies_from(common).any(|event| event.lsn < newest.redo);
                is_worth_it || copies_before() || self.check(common).is_err()
            }
        }
    }
}

/// `wal_log_hints` of a target that was a standby, as far as its configuration is found. The control file of a standby
/// has its primary's.
fn own_setting(input: Input<'_>, clusters: &Clusters) -> Option<bool> {
    let control = &clusters.target;
    if !control.state().is_standby() {
        return None;
    }
    let config_file = input.options.config_file.as_deref();
    let configuration = Configuration::read(input.target.root(), control.version().names(), config_file);
    let configuration = configuration.ok().filter(|found| found.file().is_some())?;
    Some(configuration.is_on("wal_log_hints"))
}
