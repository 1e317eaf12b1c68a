//! The journal: what a second run must know to finish what a first one began.
//!
//! It is made durable in the data directory before the first change, together with the mark in
//! `backup_label`, and removed after the commit. A run that finds the mark takes from here what the
//! directory no longer tells: the page map (the target's WAL may be gone), how long the files were, and
//! the control file as it was. Everything else is planned anew, so the source may have moved on, or be
//! another one.
//!
//! ```text
//! kbrecover.journal:  8 bytes "KBRJRNL1"    the format; another one is refused
//!                     u32 LE                CRC-32C of the body
//!                     body                  JSON, the page map in it as hexadecimal roaring bitmaps
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walparse::{ControlFile, Flavor, Lsn, PageMap, RelSegment, Relation, TimelineId, Version};

use crate::data_path::DataPath;
use crate::inventory::{EntryKind, Inventory};
use crate::outcome::{CommonCheckpoint, Divergence};
use crate::target::{Target, TargetError, unfinished_path};

const NAME: &str = "kbrecover.journal";
const MAGIC: &[u8; 8] = b"KBRJRNL1";

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is none.
    #[error("could not open journal \"{}\" of the unfinished rewind", path.display())]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is damaged, or of another version of this program.
    #[error("journal \"{}\" of the unfinished rewind is damaged or of another version: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the first run found and the directory no longer shows.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    /// When and from where the first run began, for messages.
    pub(crate) begun: String,
    pub(crate) source: String,
    /// The target's control file before the first change.
    pub(crate) control: ControlFile,
    /// Its timeline history, in the form of a history file.
    pub(crate) history: Vec<u8>,
    pub(crate) divergence: Divergence,
    /// The last common checkpoint, as found in the target's WAL.
    pub(crate) checkpoint: CommonCheckpoint,
    pub(crate) page_map: PageMap,
    /// What the first plan fetches; a second run fetches about as much again.
    pub(crate) fetch_bytes: Option<u64>,
    /// What is kept: a file that was half copied must not be kept by the next run. Nothing in older journals.
    pub(crate) keep: Vec<String>,
    /// The sizes of the target's relation files.
    relation_files: BTreeMap<String, u64>,
    /// The files in its WAL directory.
    pub(crate) wal_files: BTreeSet<String>,
}

/// The body as it is stored.
#[derive(Serialize, Deserialize)]
struct Body {
    begun: String,
    source: String,
    control: String,
    /// Of the WAL pages; absent in older journals.
    #[serde(default)]
    wal_magic: Option<u16>,
    history: String,
    /// LSN and timeline.
    divergence: (u64, u32),
    /// LSN, redo and timeline.
    checkpoint: (u64, u64, u32),
    /// Tablespace, database, relation, blocks.
    page_map: Vec<(u32, u32, u32, String)>,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    fetch_bytes: Option<u64>,
    relation_files: BTreeMap<String, u64>,
    wal_files: BTreeSet<String>,
}

impl Journal {
    /// Notes what the plan was made from, how much it fetches and what is kept. `files` is the target's listing.
    pub(crate) fn new(
        source: String,
        control: &ControlFile,
        history: Vec<u8>,
        (divergence, checkpoint): (Divergence, CommonCheckpoint),
        page_map: PageMap,
        files: &Inventory,
        (fetch_bytes, keep): (u64, &[String]),
    ) -> Journal {
        let version = control.version();
        let wal_dir = format!("{}/", version.wal_dir());
        let (mut relation_files, mut wal_files) = (BTreeMap::new(), BTreeSet::new());
        for (path, kind) in files.entries() {
            let (Some(name), EntryKind::File { size }) = (path.as_str(), kind) else { continue };
            if RelSegment::parse(name, version).is_some() {
                relation_files.insert(name.to_owned(), *size);
            } else if let Some(name) = name.strip_prefix(&wal_dir) {
                wal_files.insert(name.to_owned());
            }
        }
        let begun = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let control = control.clone();
        Journal {
            begun,
            source,
            control,
            history,
            divergence,
            checkpoint,
            page_map,
            fetch_bytes: Some(fetch_bytes),
            keep: keep.to_vec(),
            relation_files,
            wal_files,
        }
    }

    /// Bytes it will have.
    pub(crate) fn size(&self) -> u64 {
        self.encode().len() as u64
    }

    /// Makes the journal durable.
    pub(crate) fn write(&self, target: &Target) -> Result<(), TargetError> {
        target.replace_file(&path(), &self.encode())
    }

    /// Removes the journal, if there is one, and what is left of one that was not written to its end.
    pub(crate) fn remove(target: &Target) -> Result<(), TargetError> {
        let paths = [path(), unfinished_path(&path())];
        let mut there = paths.iter().filter(|path| path.below(target.root()).symlink_metadata().is_ok());
        there.try_for_each(|path| target.remove_file(path))
    }

    /// Reads the journal in a data directory of this flavor.
    pub(crate) fn read(root: &Path, flavor: Flavor) -> Result<Journal, JournalError> {
        let path = path().below(root);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(JournalError::Open { path, source }),
        };
        Journal::decode(&bytes, flavor).map_err(|problem| JournalError::Invalid { path, problem })
    }

    /// The target's listing as the plan must see it. A relation file counts as long as it was at first,
    /// or is now if that is less: what a first run appended must be copied again, and what it cut off is
    /// gone. One that was not there at first is copied whole, so it is left out if the source has it.
    pub(crate) fn original(&self, now: Inventory, source: &Inventory, version: Version) -> Inventory {
        let mut entries = Vec::new();
        for (path, kind) in now.entries() {
            let relation = path.as_str().filter(|name| RelSegment::parse(name, version).is_some());
            match (relation, kind) {
                (Some(name), EntryKind::File { size }) => match self.relation_files.get(name) {
                    Some(original) => {
                        entries.push((path.clone(), EntryKind::File { size: *size.min(original) }));
                    }
                    None if source.get(path).is_some() => {}
                    None => entries.push((path.clone(), kind.clone())),
                },
                _ => entries.push((path.clone(), kind.clone())),
            }
        }
        // No path comes twice, because none did in what was listed.
        Inventory::new(entries).unwrap_or(now)
    }

    fn encode(&self) -> Vec<u8> {
        let blocks = self.page_map.relations().into_iter().map(|(relation, blocks)| {
            let mut bytes = Vec::with_capacity(blocks.serialized_size());
            // Writing to memory does not fail.
            let _ = blocks.serialize_into(&mut bytes);
            (relation.tablespace, relation.database, relation.number, to_hex(&bytes))
        });
        let body = Body {
            begun: self.begun.clone(),
            source: self.source.clone(),
            control: to_hex(self.control.bytes()),
            wal_magic: Some(self.control.version().wal_magic()),
            history: to_hex(&self.history),
            divergence: (self.divergence.lsn.0, self.divergence.timeline.0),
            checkpoint: (self.checkpoint.lsn.0, self.checkpoint.redo.0, self.checkpoint.timeline.0),
            page_map: blocks.collect(),
            fetch_bytes: self.fetch_bytes,
            keep: self.keep.clone(),
            relation_files: self.relation_files.clone(),
            wal_files: self.wal_files.clone(),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn decode(bytes: &[u8], flavor: Flavor) -> Result<Journal, String> {
        let (magic, rest) = bytes.split_at_checked(MAGIC.len()).ok_or("too short")?;
        if magic != MAGIC {
            return Err("unknown format".into());
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or("too short")?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err("incorrect checksum".into());
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut page_map = PageMap::new();
        for (tablespace, database, number, blocks) in &body.page_map {
            let blocks = from_hex(blocks).ok_or("invalid page map")?;
            let blocks =
                walparse::RelationBlocks::deserialize_from(&blocks[..]).map_err(|error| error.to_string())?;
            page_map.insert_all(
                Relation { tablespace: *tablespace, database: *database, number: *number },
                blocks,
            );
        }
        let control = from_hex(&body.control).ok_or("invalid control file")?;
        let flavor = match body.wal_magic {
            Some(magic) if flavor.is_fork() => flavor.with_wal_magic(magic),
            _ => flavor,
        };
        let (lsn, redo, timeline) = body.checkpoint;
        Ok(Journal {
            begun: body.begun,
            source: body.source,
            control: ControlFile::parse_as(&control, flavor).map_err(|error| error.to_string())?,
            history: from_hex(&body.history).ok_or("invalid history")?,
            divergence: Divergence { lsn: Lsn(body.divergence.0), timeline: TimelineId(body.divergence.1) },
            checkpoint: CommonCheckpoint { lsn: Lsn(lsn), redo: Lsn(redo), timeline: TimelineId(timeline) },
            page_map,
            fetch_bytes: body.fetch_bytes,
            keep: body.keep,
            relation_files: body.relation_files,
            wal_files: body.wal_files,
        })
    }
}

fn path() -> DataPath {
    DataPath::parse(NAME).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::BlockNumber;
    use walparse::control::testing::ControlFields;

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

    fn journal(files: &Inventory) -> Journal {
        let mut page_map = PageMap::new();
        for block in [0, 7, 100_000, u32::MAX] {
            page_map.insert(Relation { tablespace: 1663, database: 5, number: 16384 }, BlockNumber(block));
        }
        let control = ControlFile::parse(&ControlFields::clean(version()).build()).unwrap();
        let divergence = Divergence { lsn: Lsn(0x500_0000), timeline: TimelineId(1) };
        let checkpoint =
            CommonCheckpoint { lsn: Lsn(0x400_0060), redo: Lsn(0x400_0028), timeline: TimelineId(1) };
        Journal::new(
            "somewhere".into(),
            &control,
            b"1\t0/1\tx\n".into(),
            (divergence, checkpoint),
            page_map,
            files,
            (1 << 20, &["x".into()]),
        )
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        assert!(matches!(Journal::read(target.root(), flavor()), Err(JournalError::Open { .. })));
        let written = journal(&listing(&[("base/5/16384", 8192), ("pg_wal/x", 1)]));
        written.write(&target).unwrap();
        let read = Journal::read(target.root(), flavor()).unwrap();
        assert_eq!(read.page_map, written.page_map);
        assert_eq!(
            (read.control, read.divergence, read.checkpoint),
            (written.control, written.divergence, written.checkpoint)
        );
        assert_eq!(
            (read.history, read.relation_files, read.wal_files, read.keep),
            (written.history, written.relation_files, written.wal_files, written.keep)
        );
        let bytes = std::fs::read(directory.path().join(NAME)).unwrap();
        for at in [0, 8, 20, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Journal::decode(&damaged, flavor()).is_err(), "byte {at}");
        }
        assert!(Journal::decode(&bytes[..10], flavor()).is_err() && Journal::decode(&[], flavor()).is_err());
        Journal::remove(&target).unwrap();
        Journal::remove(&target).unwrap();
    }

    #[test]
    fn sizes_are_those_at_first_unless_the_file_is_shorter_now() {
        let journal = journal(&listing(&[("base/5/1", 100), ("base/5/2", 100), ("base/5/3", 100)]));
        let now =
            listing(&[("base/5/1", 300), ("base/5/2", 40), ("base/5/8", 7), ("base/5/9", 7), ("log", 5)]);
        let source = listing(&[("base/5/8", 10)]);
        let original = journal.original(now, &source, version());
        // 8 is from the first run and copied again; 9 is from the first run, too, and unknown to this source.
        assert_eq!(original, listing(&[("base/5/1", 100), ("base/5/2", 40), ("base/5/9", 7), ("log", 5)]));
    }
}
