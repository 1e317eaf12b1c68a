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
    /// The source wrote data without WAL.
    #[error("wal_level is minimal on the source")]
    WalLevelMinimal,
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
            ContentError::WalLevelMinimal => {
                "Set wal_level = replica on the source, and take a new base backup.".into()
            }
            ContentError::Tablespace { .. } => {
                "Two servers must not share a directory. Point the target's link to the directory in the record if that is the target's own, or take a new base backup.".into()
            }
            ContentError::OlderSource { .. } => {
                "Is the target really the old primary? A rewind would discard the newer timeline. If that is what you want, give --allow-older-source.".into()
            }
        }
    }
}

/// What the target's WAL says about files and settings since replay's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since<'a> {
    /// Where replay starts.
    pub(crate) start: Lsn,
    /// Where the histories part.
    pub(crate) fork: Lsn,
    /// Common up to the fork, the target's own beyond.
    pub(crate) target: &'a FileChanges,
}

impl Since<'_> {
    /// Events that both histories share.
    fn common(&self) -> impl Iterator<Item = &FileEvent> {
        self.target.events.iter().filter(|event| event.lsn >= self.start && event.end <= self.fork)
    }

    /// Events of the target's own history.
    fn ours(&self) -> impl Iterator<Item = &FileEvent> {
        self.target.events.iter().filter(|event| event.end > self.fork)
    }

    /// Database directories that the target copied as files after the fork.
    pub(crate) fn copied_on_target(&self) -> impl Iterator<Item = DatabaseDir> {
        self.ours().filter_map(|event| match event.kind {
            FileEventKind::CopyDatabase { to, .. } => Some(to),
            _ => None,
        })
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
        // The source's control file has its setting since its start, which usually is that at the fork.
        None => Some(source.wal_log_hints() || since.target.first_hint_image.is_some_and(|lsn| lsn < first)),
    };
    match before {
        Some(true) => Ok(()),
        Some(false) => refuse(since.fork, "wal_log_hints was off at the fork"),
        None => refuse(since.fork, "WAL does not tell whether wal_log_hints was on at the fork"),
    }
}

/// Checks that the source's WAL has all of its changes.
pub(crate) fn check_wal_level(clusters: &Clusters) -> Result<(), ContentError> {
    match clusters.source.wal_level() {
        Some(WalLevel::Minimal) => Err(ContentError::WalLevelMinimal),
        _ => Ok(()),
    }
}

/// Checks that replay leaves the target's tablespace links as they are. Replay of a record that creates a tablespace
/// points its link to the directory in the record, whoever uses that (`create_tablespace_directories`).
pub(crate) fn check_tablespaces(
    since: &Since<'_>,
    target: &Inventory,
    tablespace_dir: &str,
) -> Result<(), ContentError> {
    let mut created: BTreeMap<u32, (Lsn, &str)> = BTreeMap::new();
    for event in since.common() {
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
