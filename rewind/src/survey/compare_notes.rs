//! Notes how far a comparison has come, so that one that is interrupted need not begin anew.
//!
//! Nothing has been changed when it goes on, so that the target's files are those that were compared, unless a server was started
//! on it. The source must have, in its history, the checkpoint from which the first run was to replay and the position that it
//! had when the note was written: then replay brings all that has changed since, as it does for a rewind that is resumed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use walparse::{ControlFile, Lsn, PageMap};

use crate::options::{Mode, SyncChoice};
use crate::plan::available_wal;
use crate::source::{Source, WalPosition};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::target::TargetError;
use crate::target::compared::{ComparedSoFar, NewNote};
use crate::wal::history::source_history;
use crate::wal::source::{OwnCheckpoint, OwnPosition, SourceWal};

/// The least time between two notes.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writing notes takes at most this part of the time.
const SHARE: u32 = 20;

/// What has been compared so far, and where it is noted.
pub(super) struct Notes<'a> {
    pub(super) input: Input<'a>,
    /// The target's control file.
    control: &'a ControlFile,
    /// The checkpoint from which all later changes of what was equal are replayed; `None` if nothing is noted.
    start: Option<OwnCheckpoint>,
    /// A position of the source's history before which all was equal that an earlier run has found so.
    until: Option<OwnPosition>,
    /// The files that an earlier run has compared, each up to this offset.
    pub(super) files: BTreeMap<String, u64>,
    /// The blocks that differ.
    pub(super) different: PageMap,
    /// The bytes to compare, with those that an earlier run has compared.
    pub(super) total: u64,
    due: Instant,
}

impl<'a> Notes<'a> {
    /// Notes of a comparison that begins, or goes on with what an `earlier` one has noted. `start` is the checkpoint from which all
    /// later changes of what is equal are replayed; without it nothing is noted, and neither is by a run that changes nothing.
    pub(super) fn new(
        input: Input<'a>,
        control: &'a ControlFile,
        start: Option<OwnCheckpoint>,
        earlier: Option<ComparedSoFar>,
    ) -> Notes<'a> {
        let start = start.filter(|_| input.options.mode == Mode::Rewind);
        let due = Instant::now() + INTERVAL;
        let (until, files, different) = match earlier {
            Some(ComparedSoFar { until, files, different, .. }) => (Some(until), files, different),
            None => (None, BTreeMap::new(), PageMap::new()),
        };
        Notes { input, control, start, until, files, different, total: 0, due }
    }

    /// A position of the source's history before which all was equal that this run and earlier ones have found so. The source's
    /// WAL is needed from `start` on.
    ///
    /// # Errors
    /// The source could not be read.
    pub(super) fn position_now(&self, start: Lsn) -> Result<Option<OwnPosition>, SurveyError> {
        Ok(position_now(self.input.source, start)?.map(|now| now.later(self.until)))
    }

    pub(super) fn are_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Notes what has been compared: these files, beside those of the earlier run. That this fails is told once.
    ///
    /// # Errors
    /// The source could not be read.
    pub(super) fn write<'f>(
        &mut self,
        files: impl Iterator<Item = (&'f str, u64)>,
    ) -> Result<(), SurveyError> {
        let began = Instant::now();
        if let Some(start) = self.start
            && let Some(until) = self.position_now(start.at.redo)?
            && let Err(error) = self.write_note(start, until, files)
        {
            tracing::warn!("{error}: if this run is interrupted, the next one compares all data again");
            self.start = None;
        }
        self.due = Instant::now() + INTERVAL.max(began.elapsed() * SHARE);
        Ok(())
    }

    fn write_note<'f>(
        &self,
        start: OwnCheckpoint,
        until: OwnPosition,
        files: impl Iterator<Item = (&'f str, u64)>,
    ) -> Result<(), TargetError> {
        let Notes { input, control, files: earlier, different, total, .. } = self;
        // What is equal may be so in memory only.
        if input.options.sync != SyncChoice::Off {
            input.target.sync_file_systems(control.version().names())?;
        }
        let mut all: Vec<(&str, u64)> = earlier.iter().map(|(path, end)| (path.as_str(), *end)).collect();
        for (path, end) in files {
            all.push((path, end));
        }
        NewNote { control, start, until, files: &all, different, total: *total }.write(input.target)
    }
}

/// What an earlier run has compared, if that serves with this source. What was compared must have been so in the history that
/// the source has.
///
/// # Errors
/// The source could not be read.
pub(super) fn earlier(
    input: Input<'_>,
    control: &ControlFile,
    wal: &SourceWal<'_>,
    source: &ControlFile,
) -> Result<Option<ComparedSoFar>, SurveyError> {
    let Some(noted) = ComparedSoFar::read(input.target.root(), control) else { return Ok(None) };
    if !noted.start.is_in(wal)? || !noted.until.is_in(wal, source)? {
        tracing::info!(
            "this source is not known to have all that an earlier run has found equal: the data is compared again"
        );
        return Ok(None);
    }
    Ok(Some(noted))
}

/// The position of the source now: its files have no change that its WAL has only later. Its WAL is needed from `start` on.
///
/// # Errors
/// The source could not be read.
pub(super) fn position_now(source: &dyn Source, start: Lsn) -> Result<Option<OwnPosition>, SurveyError> {
    let control = source.control_file()?;
    let history = source_history(source, &control)?;
    let now = match source.position()? {
        // A standby writes no page before its control file names the end of the record that is being replayed.
        WalPosition::Standby { replayed, .. } => replayed.max(control.min_recovery_point()),
        _ => available_wal(source, &control, &history)?,
    };
    let wal = SourceWal { source, history: &history, geometry: control.geometry() };
    Ok(OwnPosition::new(&wal, start, now)?)
}
