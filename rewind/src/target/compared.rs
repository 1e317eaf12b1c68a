//! What has been compared so far. A comparison that was interrupted goes on from there.
//!
//! While data is compared, nothing is changed, and there is no journal yet. So what has been compared is noted in a file of its
//! own, now and then: `kbrecover.compared`, in the format of [`checked_json`], "KBRCMPR1". It is removed when the journal is
//! written. A note that cannot be used is no error: the data is compared again.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, Serializer};
use walparse::{ControlFile, PageMap};

use crate::datadir::data_path::DataPath;
use crate::target::checked_json::{self, from_hex, read_map, store_map, to_hex};
use crate::target::{Target, TargetError, unfinished_path};
use crate::wal::source::{OwnCheckpoint, OwnPosition};

const NAME: &str = "kbrecover.compared";
const MAGIC: &checked_json::Magic = b"KBRCMPR1";

/// What an earlier run has compared.
#[derive(Debug)]
pub(crate) struct ComparedSoFar {
    /// When it began.
    pub(crate) begun: SystemTime,
    /// The source's newest checkpoint at that time.
    pub(crate) start: OwnCheckpoint,
    /// A position of the source's history: all that was equal was so before it.
    pub(crate) until: OwnPosition,
    /// The relation files that were compared, each up to this offset.
    pub(crate) files: BTreeMap<String, u64>,
    /// The blocks that differ.
    pub(crate) different: PageMap,
}

/// The body, for reading.
#[derive(Deserialize)]
struct Body {
    control: String,
    /// Since the Unix epoch.
    begun: Duration,
    start: (u64, u64, u32, u32),
    until: (u64, u32, u64, u32),
    files: BTreeMap<String, u64>,
    #[serde(deserialize_with = "read_map")]
    different: PageMap,
}

/// What is to be noted. The data may be large, so it is borrowed, not copied.
pub(crate) struct NewNote<'a> {
    /// The target's control file: a server that is started on the target changes it.
    pub(crate) control: &'a ControlFile,
    pub(crate) begun: SystemTime,
    pub(crate) start: OwnCheckpoint,
    pub(crate) until: OwnPosition,
    /// The files that were compared. Of two entries of one file the last counts.
    pub(crate) files: &'a [(&'a str, u64)],
    pub(crate) different: &'a PageMap,
}

/// The body, for writing; [`Body`] reads the same fields.
#[derive(Serialize)]
struct NewBody<'a> {
    control: String,
    begun: Duration,
    start: (u64, u64, u32, u32),
    until: (u64, u32, u64, u32),
    #[serde(serialize_with = "store_files")]
    files: &'a [(&'a str, u64)],
    #[serde(serialize_with = "store_map")]
    different: &'a PageMap,
}

fn store_files<S: Serializer>(files: &&[(&str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(files.iter().copied())
}

impl NewNote<'_> {
    /// Writes the note durably, in place of an earlier one.
    pub(crate) fn write(self, target: &Target) -> Result<(), TargetError> {
        let body = NewBody {
            control: to_hex(self.control.bytes()),
            begun: self.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            start: self.start.to_parts(),
            until: self.until.to_parts(),
            files: self.files,
            different: self.different,
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
        Some(ComparedSoFar {
            begun: SystemTime::UNIX_EPOCH.checked_add(body.begun)?,
            start: OwnCheckpoint::from_parts(body.start),
            until: OwnPosition::from_parts(body.until),
            files: body.files,
            different: body.different,
        })
    }

    /// Forgets the files that have been changed since. The time of the last change of an inode cannot be set, as that of the
    /// contents can.
    pub(crate) fn forget_changed(&mut self, root: &Path) {
        let begun = self.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let is_older = |path: &str| -> Option<bool> {
            let metadata = DataPath::parse(path).ok()?.below(root).symlink_metadata().ok()?;
            let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
            let changed = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
            Some(changed < begun)
        };
        self.files.retain(|path, _| is_older(path) == Some(true));
    }

    /// Removes the note and its temporary file, as far as they exist.
    pub(crate) fn remove(target: &Target) -> Result<(), TargetError> {
        let paths = [path(), unfinished_path(&path())];
        let mut there = paths.iter().filter(|path| path.below(target.root()).symlink_metadata().is_ok());
        there.try_for_each(|path| target.remove_file(path))
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

    fn note(target: &Target, control: &ControlFile, begun: SystemTime) {
        let mut different = PageMap::new();
        different.insert(Relation { tablespace: 1663, database: 5, number: 1 }, BlockNumber(7));
        let files = &[("base/5/2", 8192), ("base/5/1", 8192), ("base/5/2", 16384), ("base/5/gone", 8192)];
        let note = NewNote { control, begun, start: START, until: UNTIL, files, different: &different };
        note.write(target).unwrap();
    }

    #[test]
    fn a_note_serves_as_long_as_nothing_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let ours = control(Version::find(1300, 202_209_061).unwrap());
        assert!(ComparedSoFar::read(target.root(), &ours).is_none());
        let base = directory.path().join("base/5");
        std::fs::create_dir_all(&base).unwrap();
        std::fs::write(base.join("1"), "x").unwrap();
        std::fs::write(base.join("2"), "x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        note(&target, &ours, SystemTime::now());
        let mut read = ComparedSoFar::read(target.root(), &ours).unwrap();
        assert_eq!((read.start, read.until), (START, UNTIL));
        assert_eq!((read.files.len(), read.files["base/5/2"], read.different.len()), (3, 16384, 1));
        // Changed, with a time of the contents that is older.
        std::thread::sleep(Duration::from_millis(20));
        let file = File::options().write(true).open(base.join("1")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        read.forget_changed(target.root());
        assert_eq!(read.files.into_keys().collect::<Vec<_>>(), ["base/5/2"]);

        let other = control(Version::find(1300, 202_307_071).unwrap());
        assert!(ComparedSoFar::read(target.root(), &other).is_none());
        let name = directory.path().join(NAME);
        let mut bytes = std::fs::read(&name).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&name, bytes).unwrap();
        assert!(ComparedSoFar::read(target.root(), &ours).is_none());
        ComparedSoFar::remove(&target).unwrap();
        ComparedSoFar::remove(&target).unwrap();
        assert!(!name.exists());
    }
}
