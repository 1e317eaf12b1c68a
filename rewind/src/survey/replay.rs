//! Where replay on the rewound target starts, and what must be copied because that replay does not restore it.
//!
//! Replay can start at the last common checkpoint, as after `pg_rewind`, or at the source's newest checkpoint. A
//! rewound directory is a base backup of which a part was already there, and a base backup may start at any checkpoint
//! of the source that was complete before the first byte was copied. A later start needs more blocks, those that the
//! source has changed up to that checkpoint, and less WAL: none before it is copied or replayed.
//!
//! In either case the source's WAL is read, before the target is marked, for what the rules of [`content`] depend on: all of
//! it, or that from the later start on where the source's summaries say what it has changed before.

use std::collections::BTreeSet;

use walparse::{
    ControlFile, FileChanges, FileEvent, FileEventKind, Lsn, RunningTransactions, TimelineHistory,
};

use crate::datadir::config::Configuration;
use crate::datadir::inventory::Inventory;
use crate::options::ReplayFrom;
use crate::outcome::{CheckpointAt, ReplayEstimate, ReplayStart, SourceChanges};
use crate::plan::{Clusters, available_wal};
use crate::progress::Event;
use crate::survey::content::{self, ContentError, Since};
use crate::survey::copied_databases::with_changed_template;
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::survey::source_changes::Theirs;
use crate::wal::changed::{BySource, ChangedBlocks};
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
    /// Whether the WAL of both sides was compared before that.
    pub(super) wal_is_compared: bool,
    /// The position from which on the target's WAL was read; `None` if it was not read.
    pub(super) read_since: Option<Lsn>,
    /// What that WAL says about files.
    pub(super) target_changes: &'a FileChanges,
    /// When an unfinished rewind is resumed: the names of the target's own WAL files.
    pub(super) own_wal_files: Option<&'a BTreeSet<String>>,
    /// The data is compared, or was by an unfinished rewind, and nothing is known of the target's WAL. `common` is the
    /// checkpoint that was the source's newest one before that.
    pub(super) compares_data: bool,
}

/// The choice.
pub(super) struct Replay {
    pub(super) start: ReplayStart,
    /// That checkpoint, if it is one of the source's own history.
    pub(super) own_start: Option<OwnCheckpoint>,
    /// The copies of databases that replay will repeat.
    pub(super) copies: Vec<FileEvent>,
    /// The blocks that replay from there restores by the source's own WAL. None, if it starts at the common checkpoint.
    pub(super) rebuilt: BySource,
}

impl<'a> Histories<'a> {
    /// The source's WAL from `redo` on.
    pub(super) fn replay_wal(&self, input: Input<'a>, redo: Lsn) -> Result<ReplayWal<'a>, WalError> {
        let geometry = self.clusters.source.geometry();
        let source = SourceWal { source: input.source, history: self.source_history, geometry };
        let available = available_wal(input.source, &self.clusters.source, self.source_history)?;
        let Input { pace, progress, .. } = input;
        let wal = ReplayWal::new(source, self.wal, self.own_wal_files, self.fork, available, pace, progress);
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
    let common = common_start(histories.common, &histories.clusters.source);
    let wal = histories.replay_wal(input, common.redo)?;
    let newest = newest_start(common, histories.fork, &histories.clusters.source);
    let source_has_common = histories.read_since.is_none_or(|since| since > common.redo);
    let choice = Choice { input, histories, wal: &wal, common, newest, source_has_common };
    let (theirs, start) = choice.decide(changed)?;
    choice.settle(theirs, start, changed)
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

/// The two possible starts, and what the choice depends on.
struct Choice<'a> {
    input: Input<'a>,
    histories: &'a Histories<'a>,
    wal: &'a ReplayWal<'a>,
    common: CheckpointAt,
    newest: Option<CheckpointAt>,
    /// The source's WAL is read from the common start on, because the target's was not. Otherwise it is read from the
    /// fork on.
    source_has_common: bool,
}

impl Choice<'_> {
    /// Finds out what the source has changed, by the cheapest way that serves, and chooses the start.
    ///
    /// Summaries serve for a start at the newest checkpoint only. So they are asked where that start is likely, and where
    /// no other is possible: where WAL before it is missing.
    fn decide(&self, changed: &ChangedBlocks) -> Result<(Theirs, ReplayStart), SurveyError> {
        let asked = self.input.options.replay_from;
        let is_likely = match asked {
            ReplayFrom::Newest => true,
            ReplayFrom::Common => false,
            ReplayFrom::Auto => self.is_worth_it(),
        };
        let early = if is_likely { self.of_summaries()? } else { None };
        let theirs = match early {
            Some(theirs) if asked == ReplayFrom::Newest || is_sooner(&self.estimates(&theirs, changed)) => {
                theirs
            }
            early => match Theirs::of_wal(self.wal, self.needed_from(), self.newest) {
                Ok(theirs) => return Ok(self.by_wal(theirs, changed)),
                Err(missing @ WalError::MissingForReplay { .. }) if asked != ReplayFrom::Common => {
                    let late = if is_likely { early } else { self.of_summaries()? };
                    late.ok_or_else(|| self.without(missing))?
                }
                Err(error) => return Err(error.into()),
            },
        };
        let newest = theirs.newest.unwrap_or(self.common);
        let theirs = theirs.read_on(self.wal, newest.redo)?;
        let start = ReplayStart { checkpoint: newest, ..self.estimates(&theirs, changed) };
        if asked == ReplayFrom::Auto
            && !start.chosen().admits_sessions
            && let Ok(theirs) = Theirs::of_wal(self.wal, self.needed_from(), self.newest)
        {
            return Ok(self.by_wal(theirs, changed));
        }
        Ok((theirs, start))
    }

    /// Chooses the start, knowing what all of the source's WAL says.
    fn by_wal(&self, theirs: Theirs, changed: &ChangedBlocks) -> (Theirs, ReplayStart) {
        let mut start = self.estimates(&theirs, changed);
        if let Some(newest) = theirs.newest.filter(|newest| theirs.is_known_before(newest.redo))
            && self.takes(newest, &self.since(&theirs), &start)
        {
            start.checkpoint = newest;
        }
        (theirs, start)
    }

    /// Checks that replay from `start` makes the target's content the source's, and adds to `changed` what must be copied.
    fn settle(
        &self,
        theirs: Theirs,
        start: ReplayStart,
        changed: &mut ChangedBlocks,
    ) -> Result<Replay, SurveyError> {
        let (redo, files) = (start.checkpoint.redo, self.histories.target_files);
        let target = &self.histories.clusters.target;
        let since = self.since(&theirs);
        self.check_hints(&since)?;
        self.check(&since, redo)?;
        self.check_copies(&since, redo)?;
        let copies = since.copies_from(redo).cloned().collect();
        let is_later = redo > self.common.redo;
        changed.add_whole_files(&since.whole_files(is_later), files, target);
        if is_later {
            changed.add_whole_files(&theirs.whole, files, target);
            changed.named.merge(theirs.page_map);
        }
        self.input.progress.event(&Event::ReplayStart(start));
        warn_of_open_transactions(&start);
        let own_start = match is_later || self.histories.compares_data {
            true => self.wal.own_checkpoint(start.checkpoint)?,
            false => self.histories.own_start,
        };
        let rebuilt = if is_later { theirs.rebuilt } else { BySource::default() };
        Ok(Replay { start, own_start, copies, rebuilt })
    }

    /// What the source has changed by its summaries, if these serve: they cover its history from the common start to its
    /// newest checkpoint, and the rules of [`content`] need no other record of that WAL.
    ///
    /// The rules hold: settings, tablespaces and copies of databases matter only where replay goes through them, and WAL is
    /// read from the newest checkpoint on. What was created, truncated, dropped or copied before is in the summaries.
    /// `wal_level` was not minimal, or there were none. Of records of extensions' resource managers a source with such
    /// an extension gives no summaries. There remains whether the target logged its hint bits, which the source's settings
    /// may have to tell if there are no data checksums.
    fn of_summaries(&self) -> Result<Option<Theirs>, WalError> {
        let Some(newest) = self.newest else { return Ok(None) };
        let Some(theirs) =
            Theirs::of_summaries(self.wal, self.common.redo, newest, self.histories.wal_is_compared)?
        else {
            return Ok(None);
        };
        if let Err(error) = self.check_hints(&self.since(&theirs)) {
            tracing::debug!("the source's WAL is read in place of its summaries: {error}");
            return Ok(None);
        }
        Ok(Some(theirs))
    }

    /// Where the source's WAL begins to be needed if it is to say what the source has changed.
    fn needed_from(&self) -> Lsn {
        let size = self.histories.clusters.source.geometry().segment_size;
        if self.source_has_common {
            self.common.redo
        } else {
            self.common.redo.max(size.start_of(size.segment_of(self.histories.fork)))
        }
    }

    /// The error for WAL that is missing. If all of it lies before the newest checkpoint, replay could start there.
    fn without(&self, missing: WalError) -> WalError {
        let size = self.histories.clusters.source.geometry().segment_size;
        match (missing, self.newest) {
            (WalError::MissingForReplay { names, redo, places, .. }, Some(newest)) => {
                let number = |name: &String| size.parse_file_name(name).map(|(_, segment)| segment);
                let is_before = |name| number(name).is_some_and(|at| at < size.segment_of(newest.redo));
                let later = names.iter().all(is_before).then_some(newest.redo);
                WalError::MissingForReplay { names, redo, places, later }
            }
            (missing, _) => missing,
        }
    }

    /// Whether there is enough WAL between the two starts.
    fn is_worth_it(&self) -> bool {
        self.newest.is_some_and(|newest| newest.redo.0 - self.common.redo.0 >= WORTH_A_LATER_START)
    }

    fn since<'s>(&'s self, theirs: &'s Theirs) -> Since<'s> {
        Since {
            start: self.common.redo,
            fork: self.histories.fork,
            target: self.histories.target_changes,
            source: &theirs.files,
            source_has_common: self.source_has_common,
            is_summarized: theirs.known_from == SourceChanges::Summaries,
            compares_data: self.histories.compares_data,
        }
    }

    /// The estimates, with the common start as the one that is chosen.
    fn estimates(&self, theirs: &Theirs, changed: &ChangedBlocks) -> ReplayStart {
        let (files, since) = (self.histories.target_files, self.since(theirs));
        let estimate = |start: Lsn, more_bytes: u64| ReplayEstimate {
            admits_sessions: RunningTransactions::are_known_after(running_from(&since, start)),
            ..ReplayEstimate::new(start, self.wal.available(), more_bytes)
        };
        let newest = theirs.newest.map(|newest| {
            let more = changed.bytes_missing(&theirs.page_map, files, &self.histories.clusters.target);
            estimate(newest.redo, more)
        });
        let common = estimate(self.common.redo, 0);
        let newest = newest.or(self.histories.compares_data.then_some(common));
        let estimates = ReplayStart::new(self.common, common, newest);
        ReplayStart { source_changes: theirs.known_from, ..estimates }
    }

    /// Whether replay starts at the source's newest checkpoint.
    fn takes(&self, newest: CheckpointAt, since: &Since<'_>, estimates: &ReplayStart) -> bool {
        let common = self.common.redo;
        match self.input.options.replay_from {
            ReplayFrom::Newest => true,
            ReplayFrom::Common => false,
            ReplayFrom::Auto => {
                // Replay would copy the files as they are now.
                let copies_before = || since.copies_from(common).any(|event| event.lsn < newest.redo);
                let admits = |estimate: ReplayEstimate| estimate.admits_sessions;
                let keeps_nobody_out = estimates.newest.is_some_and(admits) || !admits(estimates.common);
                self.is_worth_it() && is_sooner(estimates) && keeps_nobody_out
                    || copies_before()
                    || self.check(since, common).is_err()
            }
        }
    }

    /// Checks that the target logged its hint bits, unless they are compared.
    fn check_hints(&self, since: &Since<'_>) -> Result<(), ContentError> {
        if self.histories.compares_data {
            return Ok(());
        }
        let clusters = self.histories.clusters;
        content::check_hints(clusters, since, own_setting(self.input, clusters))
    }

    /// Checks that replay from `start` makes the target's content the source's, but for copies of databases.
    fn check(&self, since: &Since<'_>, start: Lsn) -> Result<(), ContentError> {
        content::check_replayed(self.histories.clusters, since, start, self.histories.target_files)
    }

    /// Checks that replay from `start` copies no database from files that have changed since.
    fn check_copies(&self, since: &Since<'_>, start: Lsn) -> Result<(), SurveyError> {
        let geometry = self.histories.clusters.source.geometry();
        let changed = with_changed_template(self.wal, geometry, since.copies_from(start));
        let changed = changed.map_err(|error| WalError::ScanSource(error.into()))?;
        Ok(content::changed_template(changed)?)
    }
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
