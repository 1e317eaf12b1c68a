//! What is in a directory in which a rewind has saved what it discards: its manifest.
//!
//! ```text
//! DIR/kept.json          the manifest, which is written last
//! DIR/rewound.json       which directory the rewind has made of the target, written at its end
//! DIR/pg_wal/NAME        WAL files of the target (under the flavor's name of that directory)
//! DIR/files/PATH         bytes of files of the target at their offsets, with holes between them
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::datadir::data_path::DataPath;
use crate::target::checked_json::{from_hex, to_hex};

/// The name of the manifest.
pub const MANIFEST: &str = "kept.json";
/// The directory with the export of lost transactions.
pub const LOST: &str = "lost";
/// The name of the file that describes the rewound directory.
pub(crate) const REWOUND: &str = "rewound.json";
/// The directory with parts of files.
pub(crate) const FILES: &str = "files";

/// The manifest cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read \"{}\", the manifest of data saved by an earlier run: {problem}", path.display())]
pub struct KeptError {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub problem: String,
}

/// Ranges of a file in order: the first byte, and the byte behind the last one.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// The manifest: what is in the directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// Whether everything listed has been saved.
    pub(crate) complete: bool,
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) source: String,
    pub(crate) begun: String,
    pub(crate) system_identifier: u64,
    /// CRC-32C of the target's control file before the first change. It shows whether this is still the same target.
    pub(crate) control_crc32c: u32,
    pub(crate) diverged_at: String,
    pub(crate) diverged_from_timeline: u32,
    /// Names of the WAL files saved.
    pub(crate) wal: BTreeSet<String>,
    /// What is saved of each file, by its path.
    pub(crate) files: BTreeMap<String, SavedFile>,
    /// Paths of files that the rewind creates.
    pub(crate) made: BTreeSet<String>,
    /// Whether one of the runs may have copied more blocks than were planned and saved (`--verify`).
    #[serde(default)]
    pub(crate) verifies: bool,
    /// What the target consisted of, if so much is saved that it can be restored. Absent in directories of older versions.
    #[serde(default)]
    pub(crate) original: Option<Original>,
}

/// What is saved of one file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    /// Size of the whole file on the target.
    pub(crate) size: u64,
    /// The ranges saved.
    pub(crate) ranges: Ranges,
}

/// What the target consisted of.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Original {
    /// Whether all of it is saved, so that the rewound directory is not needed to restore it.
    pub(crate) whole: bool,
    /// The WAL directory, and the control file.
    pub(crate) wal_dir: String,
    pub(crate) control_file: String,
    pub(crate) directories: BTreeSet<String>,
    /// Sizes of its files, except WAL.
    pub(crate) files: BTreeMap<String, u64>,
    /// Files outside the data directory, except those in tablespaces. Older versions have the directories of tablespaces here.
    pub(crate) outside: Vec<String>,
    /// The links to tablespaces, and where they led.
    #[serde(default)]
    pub(crate) tablespaces: BTreeMap<String, String>,
    /// Links and other entries that are neither files nor directories.
    pub(crate) others: Vec<String>,
}

/// Which directory the rewind has made of the target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Rewound {
    /// CRC-32C of its `backup_label`. It says when the rewind ended, and a server that starts renames it before replay.
    pub(crate) label_crc32c: u32,
    /// Whether nothing was overwritten that is not saved.
    pub(crate) is_exact: bool,
}

/// The manifest in a directory; `None` if there is none.
pub(crate) fn read_manifest(directory: &Path) -> Result<Option<Manifest>, KeptError> {
    let path = directory.join(MANIFEST);
    let invalid = |problem: String| KeptError { path: path.clone(), problem };
    match std::fs::read(&path) {
        Ok(text) => {
            let manifest: Manifest =
                serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
            if manifest.format == 1 { Ok(Some(manifest)) } else { Err(invalid("unknown format".to_owned())) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// A path as it is written in the manifest; in hexadecimal if it is not UTF-8.
pub(crate) fn name(path: &DataPath) -> String {
    path.as_str().map_or_else(|| format!("hex:{}", to_hex(path.as_bytes())), str::to_owned)
}

/// The path of that name; `None` if it is none of a data directory.
pub(crate) fn path(name: &str) -> Option<DataPath> {
    let Some(digits) = name.strip_prefix("hex:") else { return DataPath::parse(name).ok() };
    DataPath::parse(from_hex(digits)?).ok()
}

/// The parts of `ranges` that are not in `others`; both are in order.
pub(crate) fn without(ranges: &Ranges, others: &Ranges) -> Ranges {
    let mut left = Vec::new();
    for &(mut from, to) in ranges {
        let first = from;
        for &(start, end) in others.iter().filter(|(start, end)| *start < to && *end > first) {
            if start > from {
                left.push((from, start));
            }
            from = from.max(end);
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_saved_already_are_left_out() {
        assert_eq!(without(&vec![(0, 100)], &vec![]), [(0, 100)]);
        assert_eq!(without(&vec![(0, 100)], &vec![(10, 20), (50, 120)]), [(0, 10), (20, 50)]);
        assert_eq!(without(&vec![(0, 10), (20, 30)], &vec![(5, 25)]), [(0, 5), (25, 30)]);
        assert_eq!(without(&vec![(5, 10)], &vec![(0, 20)]), []);
        assert_eq!(without(&vec![(0, 0)], &vec![]), []);
    }

    #[test]
    fn names_are_paths_again() {
        for bytes in [b"base/1/2".as_slice(), b"log/\xff"] {
            let whole = DataPath::parse(bytes).unwrap();
            assert_eq!(path(&name(&whole)), Some(whole));
        }
        for wrong in ["../etc/passwd", "/etc/passwd", "", "hex:2e2e", "hex:2", "hex:zz", "hex:é"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}
