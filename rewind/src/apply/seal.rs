//! Sealing: the last steps of a rewind, after which a server may start on the target.
//!
//! Their order makes the rewind safe. The result of each step is durable before the next one begins:
//!
//! 1. the journal, then the mark (before the first change; see [`crate::apply::mark`])
//! 2. all data; the source's WAL, verified from the redo location to its end; the names of everything that was
//!    created or removed
//! 3. the removal of the diverged WAL; the control file; the recovery configuration
//! 4. the commit: the true backup label, renamed over the mark
//! 5. the removal of the journal
//!
//! Within a step the contents of files become durable before the names in directories. Only what was written is
//! synced, unless the options request syncing whole file systems. These are also synced by a run that resumes
//! another one, because it does not know what that one changed without syncing: a file that was truncated or
//! removed is not changed again. The same applies if the target crashed: what its server wrote last may be in
//! memory only, even if it equals the source's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use jiff::Zoned;
use walparse::{ControlFile, Lsn, TimelineHistory, TimelineId, WalDir};

use crate::apply::copy::Transfer;
use crate::apply::error::ApplyError;
use crate::apply::prepared::remove_later_prepared;
use crate::apply::recovery_conf;
use crate::apply::verify_wal::verify_wal;
use crate::apply::wal::{EarlyWal, copy_files};
use crate::clock::Clock;
use crate::datadir::data_path::wal_path;
use crate::datadir::label::{label, label_path};
use crate::datadir::server;
use crate::options::{Options, SourceLife, SyncChoice};
use crate::outcome::WalSpan;
use crate::plan::wal::WalPlan;
use crate::plan::{Planned, available_wal, plan_wal};
use crate::progress::{Event, Stage};
use crate::source::Source;
use crate::target::compared::ComparedSoFar;
use crate::target::external_files::Branches;
use crate::target::for_files;
use crate::target::journal::Journal;
use crate::threads;
use crate::wal::error::WalError;
use crate::wal::history::source_history;

/// The result of sealing.
pub(crate) struct Sealed {
    /// The WAL that the target must replay.
    pub(crate) replay: WalSpan,
    /// Bytes fetched from the source.
    pub(crate) bytes: u64,
}

/// Makes the target one on which a server can start. `early` is the WAL that was copied along with the data.
///
/// # Errors
/// The source cannot be used to finish, WAL is missing or invalid, or the target could not be written.
pub(crate) fn seal(
    options: &Options,
    clock: &mut Clock,
    transfer: &Transfer<'_>,
    planned: &Planned<'_>,
    early: &EarlyWal,
) -> Result<Sealed, ApplyError> {
    transfer.progress.event(&Event::Sealing);
    let sealing = Sealing::new(options, transfer, planned, early)?;
    let (bytes, end) = sealing.complete_wal()?;
    clock.end_stage("wal");

    sealing.check_not_running()?;
    sealing.remove_later_prepared()?;
    sealing.sync()?;
    sealing.sync_unknown_changes()?;
    sealing.remove_diverged_wal()?;
    let now = Zoned::now();
    sealing.write_control_file(end, &now)?;
    recovery_conf::write_if_asked(options, transfer.target, transfer.source, sealing.control.version())?;
    sealing.sync()?;
    sealing.check_not_running()?;
    sealing.commit(&now)?;
    sealing.remove_journal()?;
    clock.end_stage("seal");
    Ok(Sealed { replay: sealing.replay(end), bytes })
}

/// What all steps of sealing need.
struct Sealing<'a> {
    options: &'a Options,
    transfer: &'a Transfer<'a>,
    planned: &'a Planned<'a>,
    /// The WAL that was copied along with the data.
    early: &'a EarlyWal,
    /// The source's control file, read after all data has been copied.
    control: ControlFile,
    /// The source's history at that time.
    history: TimelineHistory,
    /// How far the source's WAL was on its disk at that time.
    available: Lsn,
    /// The plan of the WAL directory at that time.
    plan: WalPlan,
}

impl<'a> Sealing<'a> {
    /// Reads the state of the source. This must come after all data has been copied: then no page that was copied
    /// is newer than the WAL that the source has on disk now.
    fn new(
        options: &'a Options,
        transfer: &'a Transfer<'a>,
        planned: &'a Planned<'a>,
        early: &'a EarlyWal,
    ) -> Result<Sealing<'a>, ApplyError> {
        let source = transfer.source;
        let control = source.control_file()?;
        if options.source.life() == SourceLife::Stopped && control != planned.facts.clusters.source {
            return Err(ApplyError::SourceModified);
        }
        let history = current_history(source, &control, planned)?;
        let available = available_wal(source, &control, &history)?;
        let plan = plan_wal(&planned.facts, &history, source, available)?;
        Ok(Sealing { options, transfer, planned, early, control, history, available, plan })
    }

    /// Copies the rest of the WAL and verifies all of it, while the data becomes durable. Returns the bytes fetched
    /// and the end of the last record.
    fn complete_wal(&self) -> Result<(u64, Lsn), ApplyError> {
        let Transfer { target, progress, .. } = *self.transfer;
        let data = match self.options.sync {
            // Taken before any WAL file is opened: what is written from here on does not count as synced.
            SyncChoice::Fsync => Some(target.take_unsynced()),
            SyncChoice::Syncfs | SyncChoice::Off => None,
        };
        let copy = || {
            let bytes = self.copy_wal()?;
            progress.finish(Stage::Copy);
            let Sealing { control, history, planned, plan, available, .. } = self;
            Ok::<_, ApplyError>((bytes, verify_wal(target, control, history, planned, plan, *available)?))
        };
        let (copied, durable) = match data {
            Some(data) => threads::both(copy, || target.sync_these(data, &|| {})),
            None => (copy(), Ok(())),
        };
        let copied = copied?;
        durable?;
        Ok(copied)
    }

    /// Copies the rest of the WAL that replay needs, from the source or from where else it is. Returns the bytes
    /// fetched from the source.
    fn copy_wal(&self) -> Result<u64, ApplyError> {
        let wal_dir = self.planned.facts.clusters.target.version().wal_dir();
        for name in self.plan.elsewhere.iter().filter(|name| !self.early.names.contains(*name)) {
            self.copy_from_elsewhere(wal_dir, name)?;
        }
        let mut rest = Vec::new();
        for file in self.plan.copy.iter().filter(|file| !self.early.names.contains(&file.name)) {
            rest.push((wal_path(wal_dir, &file.name)?, file));
        }
        copy_files(rest, self.transfer)
    }

    /// Copies a segment that neither side has from an archive or another directory.
    fn copy_from_elsewhere(&self, wal_dir: &str, name: &str) -> Result<(), ApplyError> {
        let failed = |source| WalError::Fetch { name: name.to_owned(), source };
        let path = wal_path(wal_dir, name)?;
        let found =
            self.planned.facts.wal.find_elsewhere(name, false).map_err(|error| failed(Box::new(error)))?;
        let found = found.ok_or_else(|| WalError::Vanished { path: path.clone() })?;
        let file = self.transfer.target.open(&path)?;
        file.empty()?;
        // In pieces: a segment may have a gigabyte.
        let mut from = File::open(found).map_err(|error| failed(Box::new(error)))?;
        let (mut buffer, mut offset) = (vec![0; 1 << 20], 0);
        loop {
            let count = from.read(&mut buffer).map_err(|error| failed(Box::new(error)))?;
            if count == 0 {
                return Ok(());
            }
            file.write_at(&buffer[..count], offset)?;
            offset += count as u64;
        }
    }

    /// Removes the state files of transactions that replay prepares.
    fn remove_later_prepared(&self) -> Result<(), ApplyError> {
        let (target, geometry) = (self.transfer.target, self.control.geometry());
        let directory = target.root().join(geometry.version.wal_dir());
        let store = WalDir::new(directory, self.history.clone(), geometry.segment_size);
        remove_later_prepared(target, &store, geometry, &self.planned.facts.fork.replay_start.checkpoint)
    }

    /// Fails if a server has been started on the target.
    fn check_not_running(&self) -> Result<(), ApplyError> {
        server::check_not_running(self.transfer.target.root(), self.control.version().names())?;
        Ok(())
    }

    /// Makes everything written so far durable, as the options say.
    fn sync(&self) -> Result<(), ApplyError> {
        let Transfer { target, progress, .. } = *self.transfer;
        match self.options.sync {
            SyncChoice::Off => {}
            SyncChoice::Fsync => {
                progress.begin(Stage::Sync, Some(target.unsynced_files()));
                target.sync(&|| progress.advance(Stage::Sync, 1))?;
                progress.finish(Stage::Sync);
            }
            SyncChoice::Syncfs => {
                progress.begin(Stage::Sync, None);
                self.sync_file_systems()?;
                progress.finish(Stage::Sync);
            }
        }
        Ok(())
    }

    /// Makes durable what an unfinished run, or a server that crashed, wrote but did not sync: its paths are not
    /// known.
    fn sync_unknown_changes(&self) -> Result<(), ApplyError> {
        let facts = &self.planned.facts;
        let is_unsynced = facts.resumed.is_some() || !facts.clusters.target.state().is_clean();
        if is_unsynced && self.options.sync == SyncChoice::Fsync { self.sync_file_systems() } else { Ok(()) }
    }

    fn sync_file_systems(&self) -> Result<(), ApplyError> {
        let names = self.planned.facts.clusters.target.version().names();
        Ok(self.transfer.target.sync_file_systems(names)?)
    }

    /// Removes the diverged WAL from the WAL directory, and makes the target's archive directory, if there is one
    /// to rewind, match the source's history.
    fn remove_diverged_wal(&self) -> Result<(), ApplyError> {
        let Transfer { source, target, .. } = *self.transfer;
        let facts = &self.planned.facts;
        for_files(&self.plan.remove, |path| target.remove_file(path))?;
        self.mark_archived()?;
        let start = facts.fork.replay_start.checkpoint.redo;
        let fork = facts.fork.divergence.map_or(start, |divergence| divergence.lsn);
        let redo = facts.fork.common_checkpoint.map_or(start.min(fork), |checkpoint| checkpoint.redo);
        let branches = Branches {
            geometry: self.control.geometry(),
            source_history: &self.history,
            target_history: facts.wal.history(),
            redo,
            fork,
        };
        Ok(facts.external.rewind_archive(target, source, &branches)?)
    }

    /// Marks every file that was copied completely as archived. It comes from a server that archives it, and a
    /// standby treats the files that it receives in the same way.
    fn mark_archived(&self) -> Result<(), ApplyError> {
        let target = self.transfer.target;
        let status = format!("{}/archive_status", self.planned.facts.clusters.target.version().wal_dir());
        if !target.root().join(&status).is_dir() {
            return Ok(());
        }
        let whole = self.plan.copy.iter().filter(|file| file.length == file.full_length);
        // Files copied early may no longer be on the source.
        let names = whole.map(|file| &file.name).chain(&self.early.names);
        for name in names.collect::<BTreeSet<_>>() {
            target.open(&wal_path(&status, &format!("{name}.done"))?)?;
        }
        Ok(())
    }

    /// Writes the source's control file with `end` as the minRecoveryPoint, so that a server begins with archive
    /// recovery.
    fn write_control_file(&self, end: Lsn, now: &Zoned) -> Result<(), ApplyError> {
        let target = self.transfer.target;
        let control = self.control.recovering_to(end, self.timeline_of_end(end), now.timestamp().as_second());
        target.overwrite_file(&server::control_path(self.control.version().names()), &control)?;
        Ok(self.planned.facts.external.rewrite_control_copies(target, &control)?)
    }

    /// Commits the rewind: replaces the mark by the true backup label.
    fn commit(&self, now: &Zoned) -> Result<(), ApplyError> {
        self.options.stop.close().map_err(|_| ApplyError::Stopped)?;
        let start = &self.planned.facts.fork.replay_start.checkpoint;
        let label = label(start, self.control.geometry().segment_size, now);
        Ok(self.transfer.target.replace_file(&label_path(), label.as_bytes())?)
    }

    /// Removes the journal, and the note of what was compared. The target is already rewound.
    fn remove_journal(&self) -> Result<(), ApplyError> {
        Journal::remove(self.transfer.target)?;
        ComparedSoFar::remove(self.transfer.target)?;
        if self.options.sync != SyncChoice::Off {
            self.transfer.target.sync(&|| {})?;
        }
        Ok(())
    }

    /// The timeline of the last byte before `end`.
    fn timeline_of_end(&self, end: Lsn) -> TimelineId {
        self.history.timeline_at(Lsn(end.0.saturating_sub(1)))
    }

    /// The WAL that the target must replay.
    fn replay(&self, end: Lsn) -> WalSpan {
        let size = self.control.geometry().segment_size;
        let replay_start = &self.planned.facts.fork.replay_start.checkpoint;
        let (start, timeline) = (replay_start.redo, self.timeline_of_end(end));
        WalSpan {
            start,
            start_file: size.file_name(replay_start.timeline, size.segment_of(start)),
            end,
            end_timeline: timeline,
            end_file: size.file_name(timeline, size.segment_before(end)),
        }
    }
}

/// The source's history now. It may have been promoted meanwhile if its new timeline begins after the fork, and after the WAL
/// on which blocks depend that were not copied.
fn current_history(
    source: &dyn Source,
    control: &ControlFile,
    planned: &Planned<'_>,
) -> Result<TimelineHistory, ApplyError> {
    let planned_history = &planned.facts.fork.source_history;
    let history = source_history(source, control)?;
    let (before, after) = (planned_history.timeline(), history.timeline());
    let fork = &planned.facts.fork;
    let until = fork.common_until.max(fork.replay_start.checkpoint.redo);
    let compared_until = fork.compared_until.map_or(Lsn::INVALID, |position| position.lsn);
    let needed = fork.rebuilt.until.max(compared_until);
    let goes_on = planned_history.common_with(&history).is_some_and(|(common, left)| {
        common == before && left.is_none_or(|left| left > until && left >= needed)
    });
    if goes_on { Ok(history) } else { Err(ApplyError::SourceForked { before, after }) }
}
