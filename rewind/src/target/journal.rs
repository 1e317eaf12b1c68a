//! The journal: what a later run needs to finish an interrupted rewind.
//!
//! The journal is made durable in the data directory before the first change, together with the mark in
//! `backup_label`, and removed after the commit. A run that finds the mark reads from the journal what the data
//! directory no longer shows: the page map (the target's WAL may be gone), the original file sizes, and the original
//! control file. Everything else is planned again, so the source may have advanced, or may be another server.
//!
//! The file is `kbrecover.journal`. Its format, described in [`checked_json`], is "KBRJRNL1". Fields that were added later are
//! absent in older journals, and older versions ignore them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize, Serializer};
use walparse::{
    ControlFile, FileChanges, Flavor, Lsn, PageMap, RelSegment, TimelineHistory, TimelineId, Version,
};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::options::KeepDiverged;
use crate::outcome::{CheckpointAt, Divergence, LostTransactions};
use crate::shown::time_text;
use crate::target::checked_json::{self, Measured, from_hex, read_map, store_map, to_hex};
use crate::target::external_files::ExternalFiles;
use crate::target::journal_changes::StoredChanges;
use crate::target::{Target, TargetError};
use crate::wal::changed::ChangedBlocks;
use crate::wal::source::{OwnCheckpoint, OwnPosition};

const NAME: &str = "kbrecover.journal";
const MAGIC: &checked_json::Magic = b"KBRJRNL1";

/// Why the journal of an unfinished rewind, `kbrecover.journal`, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file is missing or cannot be read.
    #[error("could not open journal \"{}\" of the unfinished rewind", path.display())]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The file is damaged, or was written by another version of kbrecover.
    #[error("journal \"{}\" of the unfinished rewind is damaged or was written by another version: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the first run recorded.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    /// When the first run began, in ISO 8601; in older journals local time with its zone.
    pub(crate) begun: String,
    /// Its source, for messages.
    pub(crate) source: String,
    /// The target's control file before the first change.
    pub(crate) control: ControlFile,
    /// The timeline that its server was on.
    pub(crate) timeline: TimelineId,
    /// The history of that timeline, in the form of a history file.
    pub(crate) history: Vec<u8>,
    /// `None` if that run compared data and the histories did not tell it.
    pub(crate) divergence: Option<Divergence>,
    /// The last common checkpoint, as found in the target's WAL; `None` if that run compared data.
    pub(crate) checkpoint: Option<CheckpointAt>,
    pub(crate) changed: ChangedBlocks,
    /// What the target's WAL from `changed.since` on says about files; absent in older journals.
    pub(crate) file_changes: Option<FileChanges>,
    /// The transactions that are given up; absent in older journals.
    pub(crate) lost: Option<LostTransactions>,
    /// The checkpoint of the source's own history at which replay was to start, if it was not the common one; `changed`
    /// has all blocks that this needs.
    pub(crate) replay_start: Option<OwnCheckpoint>,
    /// If that run compared data: what was equal was so before this position of the source's history.
    pub(crate) compared_until: Option<OwnPosition>,
    /// Files outside the data directory, as named by the configuration that the rewind replaces.
    pub(crate) outside: ExternalFiles,
    /// The number of bytes that the first plan fetches, which a later run fetches again. Absent in older journals.
    pub(crate) fetch_bytes: Option<u64>,
    /// The patterns of kept local files. A later run uses the same ones: otherwise it could keep a file that the first
    /// run copied in part. Empty in older journals.
    pub(crate) keep: Vec<String>,
    /// Where the discarded data was saved; absent in older journals.
    pub(crate) keep_diverged: Option<KeepDiverged>,
    /// The target's own files before the first run.
    pub(crate) original: OriginalFiles,
}

/// The journal's body, for reading.
#[derive(Deserialize)]
struct Body {
    begun: String,
    source: String,
    control: String,
    /// Magic number of the WAL pages; absent in older journals.
    #[serde(default)]
    wal_magic: Option<u16>,
    #[serde(default)]
    outside: ExternalFiles,
    history: String,
    /// The target's timeline; absent in older journals, which have that of the control file.
    #[serde(default)]
    timeline: Option<u32>,
    /// LSN and timeline.
    divergence: Option<(u64, u32)>,
    /// LSN, redo and timeline.
    checkpoint: Option<(u64, u64, u32)>,
    #[serde(deserialize_with = "read_map")]
    page_map: PageMap,
    /// Blocks that replay restores, which need not be copied if replay starts at the first position of `rebuilt_by`
    /// and WAL is common up to the second. Empty in older journals.
    #[serde(default, deserialize_with = "read_map")]
    rebuilt: PageMap,
    #[serde(default)]
    rebuilt_by: (u64, u64),
    #[serde(default)]
    file_changes: Option<StoredChanges>,
    /// Their number, the times of the first and the last commit in microseconds, identifiers of undecided ones.
    #[serde(default)]
    lost: Option<(u64, Option<(i64, i64)>, Vec<String>)>,
    #[serde(default)]
    replay_start: Option<(u64, u64, u32, u32)>,
    #[serde(default)]
    compared_until: Option<(u64, u32, u64, u32)>,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    keep_diverged: Option<KeepDiverged>,
    #[serde(default)]
    fetch_bytes: Option<u64>,
    relation_files: BTreeMap<String, u64>,
    wal_files: BTreeSet<String>,
}

/// A journal to be written. The data may be large, so it is borrowed, not copied.
pub(crate) struct NewJournal<'a> {
    pub(crate) source: String,
    pub(crate) control: &'a ControlFile,
    pub(crate) history: &'a TimelineHistory,
    pub(crate) divergence: Option<Divergence>,
    pub(crate) checkpoint: Option<CheckpointAt>,
    pub(crate) changed: &'a ChangedBlocks,
    pub(crate) file_changes: &'a FileChanges,
    pub(crate) lost: Option<&'a LostTransactions>,
    pub(crate) replay_start: Option<OwnCheckpoint>,
    pub(crate) compared_until: Option<OwnPosition>,
    pub(crate) outside: &'a ExternalFiles,
    /// The target's files.
    pub(crate) files: &'a Inventory,
    /// The target's own files as an earlier journal has them, if `files` has those of that run, too.
    pub(crate) original: Option<&'a OriginalFiles>,
    pub(crate) fetch_bytes: u64,
    pub(crate) keep: &'a [String],
    pub(crate) keep_diverged: Option<&'a KeepDiverged>,
}

/// The journal's body, for writing; [`Body`] reads the same fields.
#[derive(Serialize)]
struct NewBody<'a> {
    begun: String,
    source: &'a str,
    control: String,
    wal_magic: u16,
    history: String,
    timeline: u32,
    divergence: Option<(u64, u32)>,
    checkpoint: Option<(u64, u64, u32)>,
    #[serde(serialize_with = "store_map")]
    page_map: &'a PageMap,
    #[serde(serialize_with = "store_map")]
    rebuilt: &'a PageMap,
    rebuilt_by: (u64, u64),
    file_changes: StoredChanges,
    lost: Option<(u64, Option<(i64, i64)>, &'a [String])>,
    replay_start: Option<(u64, u64, u32, u32)>,
    compared_until: Option<(u64, u32, u64, u32)>,
    outside: &'a ExternalFiles,
    keep: &'a [String],
    keep_diverged: Option<&'a KeepDiverged>,
    fetch_bytes: u64,
    relation_files: RelationFiles<'a>,
    wal_files: Vec<&'a str>,
}

/// The target's own files before the first run.
#[derive(Clone, Debug)]
pub(crate) struct OriginalFiles {
    /// The sizes of its relation files, in bytes, by path.
    pub(crate) relations: BTreeMap<String, u64>,
    /// The names of the files in its WAL directory.
    pub(crate) wal: BTreeSet<String>,
}

/// Serializes relation files as a map from path to size: those of an earlier journal, or those of an inventory.
struct RelationFiles<'a>(Option<&'a OriginalFiles>, &'a Inventory, Version);

impl Serialize for RelationFiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(original) = self.0 {
            return serializer.collect_map(&original.relations);
        }
        serializer.collect_map(self.1.entries().iter().filter_map(|(path, kind)| {
            let EntryKind::File { size } = kind else { return None };
            let name = path.as_str()?;
            RelSegment::parse(name, self.2).map(|_| (name, *size))
        }))
    }
}

impl NewJournal<'_> {
    /// The size of the journal file in bytes.
    pub(crate) fn size(&self) -> u64 {
        let mut measured = Measured::default();
        // Encoding into a counter cannot fail.
        let _ = self.encode(&mut measured);
        measured.length
    }

    /// Writes the journal durably.
    pub(crate) fn write(&self, target: &Target) -> Result<(), TargetError> {
        target.replace_file_with(&path(), |file| self.encode(file))
    }

    fn encode(&self, to: &mut dyn Write) -> io::Result<()> {
        let version = self.control.version();
        let wal_dir = format!("{}/", version.wal_dir());
        let files = self.files.entries().iter();
        let files = files.filter(|(_, kind)| matches!(kind, EntryKind::File { .. }));
        let body = NewBody {
            begun: format!("{:.0}", Timestamp::now()),
            source: &self.source,
            control: to_hex(self.control.bytes()),
            wal_magic: version.wal_magic(),
            history: to_hex(self.history.to_text().as_bytes()),
            timeline: self.history.timeline().0,
            divergence: self.divergence.map(|at| (at.lsn.0, at.timeline.0)),
            checkpoint: self.checkpoint.map(|at| (at.lsn.0, at.redo.0, at.timeline.0)),
            page_map: &self.changed.named,
            rebuilt: &self.changed.rebuilt,
            rebuilt_by: (self.changed.since.0, self.changed.fork.0),
            file_changes: StoredChanges::of(self.file_changes),
            lost: self.lost.map(|lost| {
                let times = lost.times.map(|(first, last)| (first.as_microsecond(), last.as_microsecond()));
                (lost.committed, times, lost.undecided.as_slice())
            }),
            replay_start: self.replay_start.map(OwnCheckpoint::to_parts),
            compared_until: self.compared_until.map(OwnPosition::to_parts),
            outside: self.outside,
            keep: self.keep,
            keep_diverged: self.keep_diverged,
            fetch_bytes: self.fetch_bytes,
            relation_files: RelationFiles(self.original, self.files, version),
            wal_files: match self.original {
                Some(original) => original.wal.iter().map(String::as_str).collect(),
                None => files.filter_map(|(path, _)| path.as_str()?.strip_prefix(&wal_dir)).collect(),
            },
        };
        checked_json::write(MAGIC, &body, to)
    }
}

impl Journal {
    /// Removes the journal and its temporary file, as far as they exist.
    pub(crate) fn remove(target: &Target) -> Result<(), TargetError> {
        target.remove_replaced(&path())
    }

    /// Reads the journal in a data directory of this flavor.
    pub(crate) fn read(root: &Path, flavor: Flavor) -> Result<Journal, JournalError> {
        let path = path().below(root);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(JournalError::Open { path, source }),
        };
        Journal::decode(file, flavor).map_err(|problem| JournalError::Invalid { path, problem })
    }

    /// When the first run began, as people read it.
    pub(crate) fn begun_text(&self) -> String {
        match self.begun.parse() {
            Ok(time) => time_text(time, &TimeZone::system()),
            Err(_) => self.begun.clone(),
        }
    }

    /// Whether it does not say what differs: the first run had compared data, or the version of that run did not note
    /// what the target's WAL says about files.
    pub(crate) fn needs_comparing(&self) -> bool {
        self.checkpoint.is_none() || self.file_changes.is_none()
    }

    /// The target's inventory as the plan must see it: `now` with corrected relation files.
    ///
    /// The size of a relation file is its original size, or its present size if that is smaller: blocks appended by the
    /// first run must be copied again, and truncated blocks are gone. A relation file that did not exist originally is
    /// left out if the source has it, so that it is copied whole.
    pub(crate) fn original_listing(&self, now: Inventory, source: &Inventory, version: Version) -> Inventory {
        let mut entries = Vec::new();
        for (path, kind) in now.entries() {
            let relation = path.as_str().filter(|name| RelSegment::parse(name, version).is_some());
            match (relation, kind) {
                (Some(name), EntryKind::File { size }) => match self.original.relations.get(name) {
                    Some(original) => {
                        entries.push((path.clone(), EntryKind::File { size: *size.min(original) }));
                    }
                    None if source.get(path).is_some() => {}
                    None => entries.push((path.clone(), kind.clone())),
                },
                _ => entries.push((path.clone(), kind.clone())),
            }
        }
        // The paths are unique because those in `now` are.
        Inventory::new(entries).unwrap_or(now)
    }

    fn decode(file: impl Read + Seek, flavor: Flavor) -> Result<Journal, String> {
        let body: Body = checked_json::read(MAGIC, file)?;
        let changed = ChangedBlocks {
            named: body.page_map,
            rebuilt: body.rebuilt,
            since: Lsn(body.rebuilt_by.0),
            fork: Lsn(body.rebuilt_by.1),
        };
        let control = from_hex(&body.control).ok_or("invalid control file")?;
        let flavor = match body.wal_magic {
            Some(magic) if flavor.is_fork() => flavor.with_wal_magic(magic),
            _ => flavor,
        };
        let control = ControlFile::parse_as(&control, flavor).map_err(|error| error.to_string())?;
        Ok(Journal {
            begun: body.begun,
            source: body.source,
            timeline: body.timeline.map_or_else(|| control.timeline(), TimelineId),
            control,
            history: from_hex(&body.history).ok_or("invalid history")?,
            divergence: body
                .divergence
                .map(|(lsn, timeline)| Divergence { lsn: Lsn(lsn), timeline: TimelineId(timeline) }),
            checkpoint: body.checkpoint.map(checkpoint_at),
            changed,
            file_changes: body.file_changes.map(StoredChanges::restore),
            lost: body.lost.map(|(committed, times, undecided)| {
                let time = |time| Timestamp::from_microsecond(time).ok();
                let times = times.and_then(|(first, last)| time(first).zip(time(last)));
                LostTransactions { committed, times, undecided, summary: None }
            }),
            replay_start: body.replay_start.map(OwnCheckpoint::from_parts),
            compared_until: body.compared_until.map(OwnPosition::from_parts),
            outside: body.outside,
            fetch_bytes: body.fetch_bytes,
            keep: body.keep,
            keep_diverged: body.keep_diverged,
            original: OriginalFiles { relations: body.relation_files, wal: body.wal_files },
        })
    }
}

fn checkpoint_at((lsn, redo, timeline): (u64, u64, u32)) -> CheckpointAt {
    CheckpointAt { lsn: Lsn(lsn), redo: Lsn(redo), timeline: TimelineId(timeline) }
}

fn path() -> DataPath {
    DataPath::parse(NAME).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::control::testing::ControlFields;
    use walparse::{BlockNumber, Relation, RelationBlocks};

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn flavor() -> Flavor {
        version().flavor()
    }

    fn listing(entries: &[(&str, u64)]) -> Inventory {
        let entries = entries
            .iter()
            .map(|(path, size)| (DataPath::parse(path).unwrap(), EntryKind::File { size: *size }));
        Inventory::new(entries.collect()).unwrap()
    }

    fn changed() -> ChangedBlocks {
        let table = Relation { tablespace: 1663, database: 5, number: 16384 };
        let mut changed =
            ChangedBlocks { since: Lsn(0x400_0028), fork: Lsn(0x500_0000), ..ChangedBlocks::default() };
        for block in [0, 7, 100_000, u32::MAX] {
            changed.named.insert(table, BlockNumber(block));
        }
        changed.rebuilt.insert(table, BlockNumber(7));
        changed
    }

    fn write(files: &Inventory, write: impl FnOnce(NewJournal<'_>)) {
        write(NewJournal {
            source: "somewhere".into(),
            control: &control(),
            history: &TimelineHistory::parse(TimelineId(2), b"1\t0/1\tx\n").unwrap(),
            divergence: Some(Divergence { lsn: Lsn(0x500_0000), timeline: TimelineId(1) }),
            checkpoint: Some(checkpoint_at((0x400_0060, 0x400_0028, 1))),
            changed: &changed(),
            outside: &ExternalFiles::default(),
            files,
            original: None,
            file_changes: &FileChanges::default(),
            lost: Some(&lost()),
            replay_start: Some(replay_start()),
            compared_until: Some(compared_until()),
            fetch_bytes: 1 << 20,
            keep: &["x".into()],
            keep_diverged: None,
        });
    }

    fn lost() -> LostTransactions {
        let time = |text: &str| text.parse().unwrap();
        let times = Some((time("2026-11-30T10:00:00.123456Z"), time("2026-11-30T10:00:01Z")));
        LostTransactions { committed: 7, times, undecided: vec!["p".to_owned()], summary: None }
    }

    fn replay_start() -> OwnCheckpoint {
        let at = CheckpointAt { lsn: Lsn(0x600_0060), redo: Lsn(0x600_0028), timeline: TimelineId(2) };
        OwnCheckpoint { at, checksum: 0xDEAD_BEEF }
    }

    fn compared_until() -> OwnPosition {
        OwnPosition { lsn: Lsn(0x700_0000), timeline: TimelineId(2), from: Lsn(0x6FF_0000), checksum: 7 }
    }

    fn control() -> ControlFile {
        ControlFile::parse(&ControlFields::clean(version()).build()).unwrap()
    }

    fn journal(files: &Inventory) -> Journal {
        let mut bytes = Vec::new();
        write(files, |journal| journal.encode(&mut bytes).unwrap());
        decode(&bytes).unwrap()
    }

    fn decode(bytes: &[u8]) -> Result<Journal, String> {
        Journal::decode(io::Cursor::new(bytes), flavor())
    }

    #[test]
    fn a_journal_round_trips_and_damage_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        assert!(matches!(Journal::read(target.root(), flavor()), Err(JournalError::Open { .. })));
        let files = listing(&[("base/5/16384", 8192), ("base/5/PG_VERSION", 3), ("pg_wal/x", 1)]);
        write(&files, |journal| journal.write(&target).unwrap());
        let read = Journal::read(target.root(), flavor()).unwrap();
        assert_eq!((read.changed, read.control), (changed(), control()));
        assert_eq!((read.source.as_str(), read.history.as_slice()), ("somewhere", b"1\t0/1\n".as_slice()));
        assert_eq!(read.divergence, Some(Divergence { lsn: Lsn(0x500_0000), timeline: TimelineId(1) }));
        assert_eq!(read.checkpoint, Some(checkpoint_at((0x400_0060, 0x400_0028, 1))));
        assert_eq!((read.fetch_bytes, read.keep), (Some(1 << 20), vec!["x".to_owned()]));
        assert_eq!(read.lost, Some(lost()));
        assert_eq!((read.replay_start, read.compared_until), (Some(replay_start()), Some(compared_until())));
        assert_eq!(read.original.relations, BTreeMap::from([("base/5/16384".to_owned(), 8192)]));
        assert_eq!(read.original.wal, BTreeSet::from(["x".to_owned()]));
        let bytes = std::fs::read(directory.path().join(NAME)).unwrap();
        write(&files, |journal| assert_eq!(journal.size(), bytes.len() as u64));
        for at in [0, 8, 20, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
        assert!(decode(&bytes[..10]).is_err() && decode(&[]).is_err());
        Journal::remove(&target).unwrap();
        Journal::remove(&target).unwrap();
    }

    /// The body as version 0.1.0 wrote it.
    #[test]
    fn a_journal_of_version_0_1_is_read() {
        let mut blocks = Vec::new();
        RelationBlocks::from([7, 8]).serialize_into(&mut blocks).unwrap();
        let (blocks, control) = (to_hex(&blocks), to_hex(control().bytes()));
        let wal_magic = version().wal_magic();
        let body = format!(
            r#"{{"begun":"2026-11-29 10:00:00 UTC","source":"somewhere","control":"{control}","wal_magic":{wal_magic},"#
        ) + r#""history":"","timeline":1,"divergence":[83886080,1],"checkpoint":[67108960,67108904,1],"#
            + &format!(
                r#""page_map":[[1663,5,16384,"{blocks}"]],"rebuilt":[],"rebuilt_by":[67108904,83886080],"#
            )
            + r#""outside":{"archive":null,"control_copies":[]},"keep":[],"keep_diverged":null,"fetch_bytes":8192,"#
            + r#""relation_files":{"base/5/16384":8192},"wal_files":["000000010000000000000004"]}"#;
        let crc = walparse::crc32c_append(0, body.as_bytes()).to_le_bytes();
        let read = decode(&[&MAGIC[..], &crc, body.as_bytes()].concat()).unwrap();
        assert_eq!((read.changed.named.len(), read.changed.fork), (2, Lsn(0x500_0000)));
        assert_eq!(read.checkpoint, Some(checkpoint_at((0x400_0060, 0x400_0028, 1))));
        assert!(read.needs_comparing() && read.replay_start.is_none() && read.compared_until.is_none());
        assert!(!journal(&listing(&[])).needs_comparing());
    }

    #[test]
    fn original_sizes_count_unless_the_file_is_shorter_now() {
        let journal = journal(&listing(&[("base/5/1", 100), ("base/5/2", 100), ("base/5/3", 100)]));
        let now =
            listing(&[("base/5/1", 300), ("base/5/2", 40), ("base/5/8", 7), ("base/5/9", 7), ("log", 5)]);
        let source = listing(&[("base/5/8", 10)]);
        let original = journal.original_listing(now, &source, version());
        // The first run created 8 and 9. 8 is copied again; 9 does not exist on this source.
        assert_eq!(original, listing(&[("base/5/1", 100), ("base/5/2", 40), ("base/5/9", 7), ("log", 5)]));
    }
}
