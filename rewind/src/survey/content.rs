//! Whether replay can make the target's content the source's: the rules that WAL and control files must meet.
//!
//! A block that no record refers to may stay as it is only if no *unlogged* change of it is possible on either side, and
//! what replay does to whole files must not depend on files that have changed since. Each rule refuses before the
//! first change what it cannot prove.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walparse::{DatabaseDir, FileChanges, FileEvent, FileEventKind, Lsn, TimelineId, WalLevel};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::plan::Clusters;
use crate::wal::changed::WholeFiles;

/// `wal_level = minimal` in WAL records.
const MINIMAL: u32 = 0;

/// Why the content of the rewound target would not surely be the source's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Data checksums are enabled on one side only: each page of the other side would be invalid there.
    #[error("data checksums are enabled in the {side} cluster only")]
    ChecksumsDiffer {
        /// "source" or "target".
        side: &'static str,
    },
    /// The target set hint bits without writing them to WAL.
    #[error("hint bits were not written to WAL on the target after {from}: {reason}")]
    HintsNotLogged {
        /// Since where.
        from: Lsn,
        /// How that is known.
        reason: &'static str,
    },
    /// Pages that are torn by reading them from the running source could not be repaired.
    #[error(
        "full_page_writes was off on the source at {lsn}, after its last checkpoint, whose redo is {checkpoint}"
    )]
    FullPageWrites {
        /// The record that says so.
        lsn: Lsn,
        /// The redo position of that checkpoint.
        checkpoint: Lsn,
    },
    /// The source wrote data without WAL.
    #[error("wal_level was minimal on the source at or after {start}, where replay would start")]
    WalLevelMinimal {
        /// Where replay would start.
        start: Lsn,
    },
    /// Replay would copy a database from files that have changed since the source copied them.
    #[error(
        "the source copied database {} in tablespace {} to database {} in tablespace {} at {lsn}, and the copied files have changed since",
        from.database, from.tablespace, to.database, to.tablespace
    )]
    CopiedDatabase {
        /// The record of the copy.
        lsn: Lsn,
        /// The directory that was copied.
        from: DatabaseDir,
        /// The new directory.
        to: DatabaseDir,
    },
    /// Replay would point a tablespace's link to another directory.
    #[error(
        "tablespace {tablespace} is at {link:?} on the target, and replay of the WAL record at {lsn} would point it to {recorded:?}"
    )]
    Tablespace {
        /// Its OID.
        tablespace: u32,
        /// The record that creates it.
        lsn: Lsn,
        /// The target's link.
        link: PathBuf,
        /// The directory in the record.
        recorded: PathBuf,
    },
    /// The source is on a timeline from which the target's branched off: most likely the sides are swapped.
    #[error(
        "the source is on timeline {source_timeline}, which is older than timeline {target_timeline} of the target"
    )]
    OlderSource {
        /// The source's timeline.
        source_timeline: TimelineId,
        /// The target's timeline.
        target_timeline: TimelineId,
    },
}

impl ContentError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            ContentError::ChecksumsDiffer { .. } => {
                "Take a new base backup. If wal_log_hints was on all the time on the target, make both sides alike with pg_checksums on the stopped target, and run again.".into()
            }
            ContentError::HintsNotLogged { .. } => {
                "Changes of the target can be missed without them. Take a new base backup; for the next time, keep wal_log_hints = on or enable data checksums.".into()
            }
            ContentError::FullPageWrites { .. } => {
                "Set full_page_writes = on on the source, run CHECKPOINT there, and run again.".into()
            }
            ContentError::WalLevelMinimal { .. } => {
                "Set wal_level = replica on the source, restart it, run CHECKPOINT there, and run again: replay then starts at that checkpoint.".into()
            }
            ContentError::CopiedDatabase { .. } => {
                "Replay from there would give the new database later contents. Run CHECKPOINT on the source, and run again (without --replay-from common): replay then starts after the copy.".into()
            }
            ContentError::Tablespace { .. } => {
                "Two servers must not share a directory. Run CHECKPOINT on the source, and run again: replay then starts after that record. Or point the target's link to the directory in the record, if that is the target's own.".into()
            }
            ContentError::OlderSource { .. } => {
                "Is the target really the old primary? A rewind would discard the newer timeline. If that is what you want, give --allow-older-source.".into()
            }
        }
    }
}

/// What WAL says about files and settings on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since<'a> {
    /// The earliest position at which replay may start. What happened before it does not matter.
    pub(crate) start: Lsn,
    /// Where the histories part.
    pub(crate) fork: Lsn,
    /// The target's WAL: common up to the fork, its own beyond.
    pub(crate) target: &'a FileChanges,
    /// The source's WAL.
    pub(crate) source: &'a FileChanges,
    /// The source's WAL was read from `start` on, because the target's was not. Otherwise it was read from the fork on.
    pub(crate) source_has_common: bool,
    /// The source's WAL was read only from its newest checkpoint on, where replay starts. What it has changed before is known
    /// from the summaries of that WAL.
    pub(crate) is_summarized: bool,
    /// Data is compared, or was by an unfinished rewind, with the source's files as they were after the checkpoint at which
    /// replay starts, or later.
    pub(crate) compares_data: bool,
}

impl Since<'_> {
    /// Events that both histories share.
    fn common(&self) -> impl Iterator<Item = &FileEvent> {
        let side = if self.source_has_common { self.source } else { self.target };
        side.events.iter().filter(|event| event.lsn >= self.start && event.end <= self.fork)
    }

    /// Events of the source's own history.
    fn theirs(&self) -> impl Iterator<Item = &FileEvent> {
        self.source.events.iter().filter(|event| event.end > self.fork)
    }

    /// Events of the target's own history.
    fn ours(&self) -> impl Iterator<Item = &FileEvent> {
        self.target.events.iter().filter(|event| event.end > self.fork)
    }

    /// Events of the source's history.
    pub(crate) fn of_source(&self) -> impl Iterator<Item = &FileEvent> {
        self.common().chain(self.theirs())
    }

    /// Events that replay goes through if it starts at `start`.
    pub(crate) fn replayed_from(&self, start: Lsn) -> impl Iterator<Item = &FileEvent> {
        self.of_source().filter(move |event| event.lsn >= start)
    }

    /// The copies of databases that replay repeats if it starts at `start`.
    pub(crate) fn copies_from(&self, start: Lsn) -> impl Iterator<Item = &FileEvent> {
        self.replayed_from(start).filter(|event| copied_directory(event).is_some())
    }

    /// The files that must be copied whole. With `is_later`, replay starts at the source's newest checkpoint.
    ///
    /// Up to the fork both sides made the same changes, and the target has them on disk if it was shut down cleanly. If
    /// it crashed, replay repeats them, unless it starts later.
    pub(crate) fn whole_files(&self, is_later: bool) -> WholeFiles {
        let after = if is_later { Lsn::INVALID } else { self.fork };
        let sides = [self.target, self.source];
        let created = sides.into_iter().flat_map(|side| &side.created).filter(|(_, end)| **end > after);
        let mut whole = WholeFiles {
            relations: created.map(|(relation, _)| *relation).collect(),
            directories: self.ours().filter_map(copied_directory).collect(),
            truncated: BTreeMap::new(),
        };
        // Replay truncates what the source truncated, unless it starts later.
        let sides = if is_later { &sides[..] } else { &sides[..1] };
        for (relation, truncation) in sides.iter().flat_map(|side| &side.truncated) {
            if truncation.end > after {
                let left = whole.truncated.entry(*relation).or_insert(truncation.blocks);
                *left = truncation.blocks.min(*left);
            }
        }
        if is_later {
            whole.directories.extend(self.of_source().filter_map(copied_directory));
        }
        whole
    }
}

/// The error for a copy of a database whose files have changed since.
pub(crate) fn changed_template(event: Option<&FileEvent>) -> Result<(), ContentError> {
    match event {
        Some(FileEvent { lsn, kind: FileEventKind::CopyDatabase { to, from }, .. }) => {
            Err(ContentError::CopiedDatabase { lsn: *lsn, from: *from, to: *to })
        }
        _ => Ok(()),
    }
}

/// The directory that a record makes as a copy of another one.
fn copied_directory(event: &FileEvent) -> Option<DatabaseDir> {
    match event.kind {
        FileEventKind::CopyDatabase { to, .. } => Some(to),
        _ => None,
    }
}

/// Checks that the target logged its hint bits since the fork, in any of two ways. `own_setting` is `wal_log_hints` of a
/// target that was a standby, whose control file has its primary's.
///
/// Source: `XLogHintBitIsNeeded` and `MarkBufferDirtyHint` (bufmgr.c); records of `XLOG_PARAMETER_CHANGE` are written
/// when a server starts with other settings.
pub(crate) fn check_hints(
    clusters: &Clusters,
    since: &Since<'_>,
    own_setting: Option<bool>,
) -> Result<(), ContentError> {
    let (target, source) = (&clusters.target, &clusters.source);
    match (source.has_data_checksums(), target.has_data_checksums()) {
        (true, true) => return Ok(()),
        (true, false) => return Err(ContentError::ChecksumsDiffer { side: "source" }),
        (false, true) => return Err(ContentError::ChecksumsDiffer { side: "target" }),
        (false, false) => {}
    }
    let refuse = |from, reason| Err(ContentError::HintsNotLogged { from, reason });
    if own_setting == Some(false) {
        return refuse(since.fork, "the target was a standby, and wal_log_hints is off in its configuration");
    }
    let setting = |event: &FileEvent| match event.kind {
        FileEventKind::Settings { wal_level, wal_log_hints } => Some((event.lsn, wal_level, wal_log_hints)),
        _ => None,
    };
    let mut first = None;
    for (lsn, wal_level, wal_log_hints) in since.ours().filter_map(setting) {
        first = first.or(Some(lsn));
        if !wal_log_hints {
            return refuse(lsn, "wal_log_hints was off");
        }
        // A server that stays at minimal writes no such record when other settings change.
        if wal_level == MINIMAL {
            return refuse(
                lsn,
                "wal_level was minimal, so that WAL does not tell whether wal_log_hints was on",
            );
        }
    }
    let Some(first) = first else { return Ok(()) };
    // What held from the fork to the first record of the target's own.
    let before = match since.common().filter_map(setting).last() {
        Some((_, _, wal_log_hints)) => Some(wal_log_hints),
        // Summaries do not tell of settings.
        None if !since.is_summarized && since.theirs().all(|event| setting(event).is_none()) => {
            Some(source.wal_log_hints())
        }
        None => since.target.first_hint_image.filter(|lsn| *lsn < first).map(|_| true),
    };
    match before {
        Some(true) => Ok(()),
        Some(false) => refuse(since.fork, "wal_log_hints was off at the fork"),
        None => refuse(since.fork, "WAL does not tell whether wal_log_hints was on at the fork"),
    }
}

/// Checks that replay from `start` makes the target's content the source's, but for copies of databases. `target` has the
/// target's files before any rewind.
pub(crate) fn check_replayed(
    clusters: &Clusters,
    since: &Since<'_>,
    start: Lsn,
    target: &Inventory,
) -> Result<(), ContentError> {
    check_source_settings(clusters, since, start)?;
    check_tablespaces(since, start, target, clusters.target.version().names().tablespace_dir)
}

/// Checks that pages read from the source can be repaired by replay from `start`, and that its WAL has all changes.
///
/// A page that is torn by reading it was being written, and so was changed after the source's last checkpoint: the first
/// record since then must carry an image of it. That the last checkpoint itself saw full-page writes on is checked
/// before. A page that an unfinished rewind compared was read after the checkpoint that was the last one then.
fn check_source_settings(clusters: &Clusters, since: &Since<'_>, start: Lsn) -> Result<(), ContentError> {
    let last = clusters.source.checkpoint().redo;
    let checkpoint = if since.compares_data { last.min(start) } else { last };
    let off = FileEventKind::FullPageWrites { are_on: false };
    if let Some(event) = since.replayed_from(checkpoint).find(|event| event.kind == off) {
        return Err(ContentError::FullPageWrites { lsn: event.lsn, checkpoint });
    }
    let is_minimal = |event: &FileEvent| match event.kind {
        FileEventKind::Settings { wal_level, .. } => Some(wal_level == MINIMAL),
        _ => None,
    };
    // No summary covers WAL that was written at this level.
    let before = since.of_source().filter(|event| event.lsn < start && !since.is_summarized);
    let at_start = before.filter_map(is_minimal).last();
    if clusters.source.wal_level() == Some(WalLevel::Minimal)
        || at_start == Some(true)
        || since.replayed_from(start).any(|event| is_minimal(event) == Some(true))
    {
        return Err(ContentError::WalLevelMinimal { start });
    }
    Ok(())
}

/// Checks that replay from `start` leaves the target's tablespace links as they are. Replay of a record that creates a
/// tablespace points its link to the directory in the record, whoever uses that (`create_tablespace_directories`).
fn check_tablespaces(
    since: &Since<'_>,
    start: Lsn,
    target: &Inventory,
    tablespace_dir: &str,
) -> Result<(), ContentError> {
    let mut created: BTreeMap<u32, (Lsn, &str)> = BTreeMap::new();
    for event in since.replayed_from(start) {
        match &event.kind {
            FileEventKind::CreateTablespace { tablespace, path } => {
                created.insert(*tablespace, (event.lsn, path));
            }
            FileEventKind::DropTablespace { tablespace } => _ = created.remove(tablespace),
            _ => {}
        }
    }
    for (tablespace, (lsn, recorded)) in created {
        let Ok(path) = DataPath::parse(format!("{tablespace_dir}/{tablespace}")) else { continue };
        if let Some(EntryKind::Symlink { target: link }) = target.get(&path)
            && link != Path::new(recorded)
        {
            let (link, recorded) = (link.clone(), recorded.into());
            return Err(ContentError::Tablespace { tablespace, lsn, link, recorded });
        }
    }
    Ok(())
}
