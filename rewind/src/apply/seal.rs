//! Sealing: the last stretch, after which a server may start on the target.
//!
//! The order is the safety. What is in one step is durable before the next begins:
//!
//! 1. the journal, then the mark (before the first change; see [`crate::engine`])
//! 2. all data, the source's WAL (brought here and read through from redo to its end), and the names of
//!    everything that was made or removed
//! 3. the removal of the other branch's WAL; the control file; the recovery configuration
//! 4. the commit: the true backup label, renamed over the mark
//! 5. the removal of the journal
//!
//! Within a step the contents of files become durable first, then the names in directories. Only what was
//! written is synced, unless whole file systems are asked for. A run that resumes another syncs the file
//! systems as well, because it does not know what the other one changed and never synced: a file that was
//! cut or removed then needs nothing more from this one. So does one whose target crashed: what that server
//! wrote last, and is found to be the same as on the source, may be nowhere but in memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use jiff::Zoned;
use walparse::scan::{EndOfWal, ScanError, ScanRequest, UnknownChanges, scan};
use walparse::{
    ControlFile, FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, WalDir, WalGeometry, WalReadError,
    WalReader, before_page_header,
};

use crate::apply::copy::Transfer;
use crate::apply::recovery_conf;
use crate::apply::wal::{EarlyWal, copy_files, wal_path};
use crate::clock::Clock;
use crate::datadir::data_path::DataPath;
use crate::datadir::label::label;
use crate::error::RewindError;
use crate::milestone;
use crate::options::{Options, SourceLife, SyncChoice};
use crate::outcome::WalSpan;
use crate::plan::wal::{WalCopy, WalPlan};
use crate::plan::{Planned, available_wal, plan_wal};
use crate::progress::{Progress, Stage};
use crate::source::Source;
use crate::survey::preflight::{self, control_path};
use crate::survey::source_history;
use crate::target::external_files::Branches;
use crate::target::journal::Journal;
use crate::target::{Target, for_files};

/// What sealing came to.
pub(crate) struct Sealed {
    pub(crate) replay: WalSpan,
    pub(crate) bytes: u64,
}

/// The path of `backup_label`.
pub(crate) fn label_path() -> DataPath {
    DataPath::parse("backup_label").unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

/// Makes the target one on which a server can start.
pub(crate) fn seal(
    options: &Options,
    clock: &mut Clock,
    transfer: &Transfer<'_>,
    planned: &Planned<'_>,
    early: &EarlyWal,
) -> Result<Sealed, RewindError> {
    let Transfer { source, target, progress, .. } = *transfer;
    tracing::debug!(milestone = milestone::SEALING, "all data has been copied");
    // After all data: no page that was copied is newer than what the WAL says from here on.
    let control = source.control_file()?;
    if options.source.life() == SourceLife::Stopped && control != planned.clusters.source {
        return Err(RewindError::SourceModified);
    }
    let history = current_history(source, &control, planned)?;
    let available = available_wal(source, &control, &history)?;
    let plan = plan_wal(planned, &history, source, available)?;
    let (brought, durable) = std::thread::scope(|scope| {
        let durable = match options.sync {
            // The data becomes durable while the WAL comes. Taken before anything of that is opened, so that
            // nothing is written after it counts as durable.
            SyncChoice::Fsync => Some(target.take_unsynced()),
            SyncChoice::Syncfs | SyncChoice::Off => None,
        };
        let durable = durable.map(|data| scope.spawn(move || target.sync_these(data, &|| {})));
        let brought = bring_wal(transfer, planned, &plan.copy, &plan.elsewhere, early).and_then(|bytes| {
            progress.finish(Stage::Copy);
            Ok((bytes, verify_wal(target, &control, &history, planned, &plan, available)?))
        });
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (brought, durable.map_or(Ok(()), join))
    });
    let (bytes, end) = brought?;
    durable?;
    clock.end_stage("wal");

    preflight::check_not_running(target.root(), control.version().names())?;
    sync(options, target, progress, planned)?;
    // What a run before this one, or a server that crashed, left unsynced is not known by name.
    let is_unsynced = planned.own_wal_files.is_some() || !planned.clusters.target.state().is_clean();
    if is_unsynced && options.sync == SyncChoice::Fsync {
        target.sync_file_systems(planned.clusters.target.version().names())?;
    }
    for_files(&plan.remove, |path| target.remove_file(path))?;
    mark_archived(target, planned, &plan.copy, early)?;
    let branches = Branches {
        geometry: control.geometry(),
        source_history: &history,
        target_history: planned.wal.history(),
        redo: planned.checkpoint.redo,
        fork: planned.divergence.lsn,
    };
    planned.outside.rewind_archive(target, source, &branches)?;
    let timeline = history.timeline_at(Lsn(end.0.saturating_sub(1)));
    let now = Zoned::now();
    let new_control = control.recovering_to(end, timeline, now.timestamp().as_second());
    target.overwrite_file(&control_path(control.version().names()), &new_control)?;
    planned.outside.rewrite_control_copies(target, &new_control)?;
    recovery_conf::write_if_asked(options, target, control.version())?;
    sync(options, target, progress, planned)?;
    let geometry = control.geometry();
    preflight::check_not_running(target.root(), control.version().names())?;
    options.stop.close().map_err(|_| RewindError::Stopped)?;
    target.replace_file(&label_path(), label(&planned.checkpoint, geometry.segment_size, &now).as_bytes())?;
    // The commit has been made: from here on the target is rewound.
    Journal::remove(target)?;
    if options.sync != SyncChoice::Off {
        target.sync(&|| {})?;
    }
    clock.end_stage("seal");

    let size = geometry.segment_size;
    let start = planned.checkpoint.redo;
    let replay = WalSpan {
        start,
        start_file: size.file_name(planned.checkpoint.timeline, size.segment_of(start)),
        end,
        end_timeline: timeline,
        end_file: size.file_name(timeline, size.segment_before(end)),
    };
    Ok(Sealed { replay, bytes })
}

/// The source's history now. A promotion meanwhile is fine as long as the fork is where it was.
fn current_history(
    source: &dyn Source,
    control: &ControlFile,
    planned: &Planned<'_>,
) -> Result<TimelineHistory, RewindError> {
    let (before, after) = (planned.clusters.source.timeline(), control.timeline());
    if before == after {
        return Ok(planned.source_history.clone());
    }
    let history = source_history(source, control)?;
    let goes_on = planned.source_history.common_with(&history).is_some_and(|(common, left)| {
        common == before && left.is_none_or(|left| left > planned.divergence.lsn)
    });
    if goes_on { Ok(history) } else { Err(RewindError::SourceForked { before, after }) }
}

/// Brings the rest of the WAL that replay needs.
fn bring_wal(
    transfer: &Transfer<'_>,
    planned: &Planned<'_>,
    copy: &[WalCopy],
    elsewhere: &[String],
    early: &EarlyWal,
) -> Result<u64, RewindError> {
    let wal_dir = planned.clusters.target.version().wal_dir();
    for name in elsewhere.iter().filter(|name| !early.names.contains(*name)) {
        let failed = |source| RewindError::FetchWal { name: name.clone(), source };
        let path = wal_path(wal_dir, name)?;
        let found = planned.wal.find_elsewhere(name, false).map_err(|error| failed(Box::new(error)))?;
        let found = found.ok_or_else(|| RewindError::WalVanished { path: path.clone() })?;
        let file = transfer.target.open(&path)?;
        file.empty()?;
        // In pieces: a segment may have a gigabyte.
        let mut from = File::open(found).map_err(|error| failed(Box::new(error)))?;
        let (mut buffer, mut offset) = (vec![0; 1 << 20], 0);
        loop {
            let count = from.read(&mut buffer).map_err(|error| failed(Box::new(error)))?;
            if count == 0 {
                break;
            }
            file.write_at(&buffer[..count], offset)?;
            offset += count as u64;
        }
    }
    let mut rest = Vec::new();
    for file in copy.iter().filter(|file| !early.names.contains(&file.name)) {
        rest.push((wal_path(wal_dir, &file.name)?, file));
    }
    copy_files(rest, transfer)
}

/// Makes sure that the WAL that is now on the target can be read from redo to its end; returns the end of its
/// last record, which is the minRecoveryPoint: every page copied was changed by a record before it, because a
/// page never reaches the source's disk before its WAL does.
fn verify_wal(
    target: &Target,
    control: &ControlFile,
    history: &TimelineHistory,
    planned: &Planned<'_>,
    plan: &WalPlan,
    available: Lsn,
) -> Result<Lsn, RewindError> {
    let geometry = control.geometry();
    let directory = target.root().join(geometry.version.wal_dir());
    let store = UpTo {
        wal: WalDir::new(directory, history.clone(), geometry.segment_size),
        last: geometry.segment_size.segment_before(available),
    };
    let start = first_unread(planned, plan, &store, geometry)?;
    let needed = control.checkpoint_lsn().advance(1).max(control.min_recovery_point());
    let required_end = before_page_header(needed, &geometry);
    let request = ScanRequest::new(geometry, Lsn(u64::MAX), start, required_end)
        .with_end(EndOfWal::Open)
        .with_unknown_changes(UnknownChanges::Ignore);
    let found = scan(&store, &request, &|_| {}).map_err(RewindError::IncompleteWal)?;
    // Only the record that the source was writing when it was asked may be incomplete.
    let last_byte = available.0.saturating_sub(1);
    let last_page = Lsn(last_byte - last_byte % u64::from(geometry.wal_block_size));
    if found.stop.fault_at < last_page {
        let (position, fault) = (found.end, found.stop.fault);
        return Err(RewindError::IncompleteWal(ScanError::BreaksOff { position, needed: available, fault }));
    }
    Ok(found.end)
}

/// From where on the WAL has to be read: from redo, or from the last segment that is as the scan of the target
/// read it. That one is read again because its last record may go on in the first one that is new.
fn first_unread(
    planned: &Planned<'_>,
    plan: &WalPlan,
    store: &UpTo,
    geometry: WalGeometry,
) -> Result<Lsn, RewindError> {
    let (redo, size) = (planned.checkpoint.redo, geometry.segment_size);
    let Some((_, fork)) = planned.verified.filter(|(since, _)| *since <= redo) else { return Ok(redo) };
    let brought = plan.copy.iter().map(|file| &file.name).chain(&plan.elsewhere);
    let brought = brought.filter_map(|name| size.parse_file_name(name)).map(|(_, segment)| segment);
    let mut segment = brought.min().unwrap_or(size.segment_of(fork)).min(size.segment_of(fork));
    while segment > size.segment_of(redo) {
        segment = SegmentNo(segment.0 - 1);
        let mut reader = WalReader::new(store, geometry, size.start_of(segment));
        let first =
            reader.seek_first_in(segment).map_err(|error| RewindError::IncompleteWal(error.into()))?;
        // One in which no record starts is the middle of a long one.
        if first != Ok(None) {
            break;
        }
    }
    Ok(redo.max(size.start_of(segment)))
}

/// The WAL of the target up to a segment, whatever lies behind it.
struct UpTo {
    wal: WalDir,
    last: SegmentNo,
}

impl SegmentStore for UpTo {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        if segment > self.last { Ok(None) } else { self.wal.open(segment) }
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(Some(self.last))
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.wal.describe(segment)
    }
}

/// Notes every whole file that was copied as archived: it came from a server that sees to that, and a
/// standby treats what it receives in the same way.
fn mark_archived(
    target: &Target,
    planned: &Planned<'_>,
    copied: &[WalCopy],
    early: &EarlyWal,
) -> Result<(), RewindError> {
    let status = format!("{}/archive_status", planned.clusters.target.version().wal_dir());
    if !target.root().join(&status).is_dir() {
        return Ok(());
    }
    let whole = copied.iter().filter(|file| file.length == file.full_length).map(|file| &file.name);
    // The source may no longer have what was copied early.
    for name in whole.chain(&early.names).collect::<BTreeSet<_>>() {
        target.open(&wal_path(&status, &format!("{name}.done"))?)?;
    }
    Ok(())
}

fn sync(
    options: &Options,
    target: &Target,
    progress: &dyn Progress,
    planned: &Planned<'_>,
) -> Result<(), RewindError> {
    match options.sync {
        SyncChoice::Off => {}
        SyncChoice::Fsync => {
            progress.begin(Stage::Sync, Some(target.unsynced_files()));
            target.sync(&|| progress.advance(Stage::Sync, 1))?;
            progress.finish(Stage::Sync);
        }
        SyncChoice::Syncfs => {
            progress.begin(Stage::Sync, None);
            target.sync_file_systems(planned.clusters.target.version().names())?;
            progress.finish(Stage::Sync);
        }
    }
    Ok(())
}
