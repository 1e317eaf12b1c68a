//! What has been compared so far. A comparison that was interrupted goes on from there.
//!
//! While data is compared, nothing is changed, and there is no journal yet. So what has been compared is noted in a file of its
//! own, now and then: `kbrecover.compared`, in the format of [`checked_json`], "KBRCMPR1". It does not count once there is a
//! journal, and is removed together with that. A note that cannot be used is no error: the data is compared again.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};
use walparse::{ControlFile, PageMap};

use crate::datadir::data_path::DataPath;
use crate::target::checked_json::{self, from_hex, read_map, store_map, to_hex};
use crate::target::{Target, TargetError};
use crate::wal::source::{OwnCheckpoint, OwnPosition};

const NAME: &str = "kbrecover.compared";
const MAGIC: &checked_json::Magic = b"KBRCMPR1";

/// What an earlier run has compared.
#[derive(Debug)]
pub(crate) struct ComparedSoFar {
    /// The source's newest checkpoint at that time.
    pub(crate) start: OwnCheckpoint,
    /// A position of the source's history: all that was equal was so before it.
    pub(crate) until: OwnPosition,
    /// The relation files that were compared, and have not been changed since: each up to this offset.
    pub(crate) files: BTreeMap<String, u64>,
    /// The blocks that differ.
    pub(crate) different: PageMap,
    /// The bytes that were to be compared, with those that have been; absent in older notes.
    pub(crate) total: Option<u64>,
}

/// The body, for reading.
#[derive(Deserialize)]
struct Body {
    control: String,
    start: (u64, u64, u32, u32),
    until: (u64, u32, u64, u32),
    /// How far each was compared, and which file it was.
    files: BTreeMap<String, (u64, FileState)>,
    #[serde(deserialize_with = "read_map")]
    different: PageMap,
    #[serde(default)]
    total: Option<u64>,
}

/// What is to be noted. The data may be large, so it is borrowed, not copied.
pub(crate) struct NewNote<'a> {
    /// The target's control file: a server that is started on the target changes it.
    pub(crate) control: &'a ControlFile,
    pub(crate) start: OwnCheckpoint,
    pub(crate) until: OwnPosition,
    /// The files that were compared. Of two entries of one file the last counts.
    pub(crate) files: &'a [(&'a str, u64)],
    pub(crate) different: &'a PageMap,
    pub(crate) total: u64,
}

/// The body, for writing; [`Body`] reads the same fields.
#[derive(Serialize)]
struct NewBody<'a> {
    control: String,
    start: (u64, u64, u32, u32),
    until: (u64, u32, u64, u32),
    #[serde(serialize_with = "store_files")]
    files: &'a [(&'a str, u64, FileState)],
    #[serde(serialize_with = "store_map")]
    different: &'a PageMap,
    total: u64,
}

/// What tells a file from what it was before: its device and inode, the time of the last change of the inode, which cannot be
/// set as that of the contents can, and its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FileState(u64, u64, i64, i64, u64);

impl FileState {
    fn of(root: &Path, path: &str) -> Option<FileState> {
        let file = DataPath::parse(path).ok()?.below(root).symlink_metadata().ok()?;
        Some(FileState(file.dev(), file.ino(), file.ctime(), file.ctime_nsec(), file.size()))
    }
}

fn store_files<S: Serializer>(files: &&[(&str, u64, FileState)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(files.iter().map(|(path, end, state)| (path, (end, state))))
}

impl<'a> NewNote<'a> {
    /// Writes the note durably, in place of an earlier one.
    pub(crate) fn write(self, target: &Target) -> Result<(), TargetError> {
        let state = |(path, end): &(&'a str, u64)| Some((*path, *end, FileState::of(target.root(), path)?));
        // Only once, for the body is serialized twice.
        let files: Vec<_> = self.files.iter().filter_map(state).collect();
        let body = NewBody {
            control: to_hex(self.control.bytes()),
            start: self.start.to_parts(),
            until: self.until.to_parts(),
            files: &files,
            different: self.different,
            total: self.total,
        };
        target.replace_file_with(&path(), |file| checked_json::write(MAGIC, &body, file))
    }
}

impl ComparedSoFar {
    /// Reads the note in a data directory that has this control file. `None` if there is none, or if it tells nothing of the
    /// directory as it is now.
    pub(crate) fn read(root: &Path, control: &ControlFile) -> Option<ComparedSoFar> {
        let file = File::open(path().below(root)).ok()?;
        let body: Body = match checked_json::read(MAGIC, file) {
            Ok(body) => body,
            Err(problem) => {
                tracing::warn!("file \"{NAME}\" is not used: {problem}");
                return None;
            }
        };
        if from_hex(&body.control).as_deref() != Some(control.bytes()) {
            tracing::info!("a server has been started on the target since its data was compared");
            return None;
        }
        let files = body.files.into_iter();
        let unchanged = files
            .filter(|(path, (_, state))| FileState::of(root, path) == Some(*state))
            .map(|(path, (end, _))| (path, end));
        Some(ComparedSoFar {
            start: OwnCheckpoint::from_parts(body.start),
            until: OwnPosition::from_parts(body.until),
            files: unchanged.collect(),
            different: body.different,
            total: body.total,
        })
    }

    /// Removes the note and its temporary file, as far as they exist.
    pub(crate) fn remove(target: &Target) -> Result<(), TargetError> {
        target.remove_replaced(&path())
    }
}

fn path() -> DataPath {
    DataPath::parse(NAME).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::control::testing::ControlFields;
    use walparse::{BlockNumber, Relation, Version};

    const START: OwnCheckpoint = OwnCheckpoint {
        at: crate::outcome::CheckpointAt {
            lsn: walparse::Lsn(0x600_0060),
            redo: walparse::Lsn(0x600_0028),
            timeline: walparse::TimelineId(2),
        },
        checksum: 5,
    };
    const UNTIL: OwnPosition = OwnPosition {
        lsn: walparse::Lsn(0x700_0000),
        timeline: walparse::TimelineId(2),
        from: walparse::Lsn(0x6FF_0000),
        checksum: 7,
    };

    fn control(version: Version) -> ControlFile {
        ControlFile::parse(&ControlFields::clean(version).build()).unwrap()
    }

    fn note(target: &Target, control: &ControlFile) {
        let mut different = PageMap::new();
        different.insert(Relation { tablespace: 1663, database: 5, number: 1 }, BlockNumber(7));
        let files = &[("base/5/2", 8192), ("base/5/1", 8192), ("base/5/2", 16384), ("base/5/gone", 8192)];
        let note =
            NewNote { control, start: START, until: UNTIL, files, different: &different, total: 1 << 20 };
        note.write(target).unwrap();
    }

    #[test]
    fn a_note_serves_as_long_as_nothing_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let ours = control(Version::find(1300, 202_209_061).unwrap());
        let read = || ComparedSoFar::read(target.root(), &ours);
        assert!(read().is_none());
        let base = directory.path().join("base/5");
        std::fs::create_dir_all(&base).unwrap();
        for name in ["1", "2"] {
            std::fs::write(base.join(name), "x").unwrap();
        }
        note(&target, &ours);
        let found = read().unwrap();
        assert_eq!((found.start, found.until), (START, UNTIL));
        assert_eq!((found.files.len(), found.files["base/5/2"], found.different.len()), (2, 16384, 1));
        assert_eq!(found.total, Some(1 << 20));
        // Changed, with a time of the contents that is older.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let file = File::options().write(true).open(base.join("1")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(read().unwrap().files.into_keys().collect::<Vec<_>>(), ["base/5/2"]);
        // Another directory in its place, with files that are older.
        std::fs::rename(&base, directory.path().join("base/aside")).unwrap();
        std::fs::create_dir(&base).unwrap();
        std::fs::write(base.join("2"), "x").unwrap();
        assert!(read().unwrap().files.is_empty());

        let other = control(Version::find(1300, 202_307_071).unwrap());
        assert!(ComparedSoFar::read(target.root(), &other).is_none());
        let name = directory.path().join(NAME);
        let mut bytes = std::fs::read(&name).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&name, bytes).unwrap();
        assert!(read().is_none());
        ComparedSoFar::remove(&target).unwrap();
        ComparedSoFar::remove(&target).unwrap();
        assert!(!name.exists());
    }
}
