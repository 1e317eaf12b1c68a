//! Paths below a data directory.
//!
//! File names come from disks and servers and are not trusted. They are checked once, when a [`DataPath`] is created.
//! Every write to the target goes to a `DataPath` joined to the data directory, so no write can leave it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path relative to a data directory. Its components are separated by `/`; none is empty, `.` or `..`, or contains a
/// NUL byte.
///
/// A path consists of bytes, not necessarily UTF-8, and paths are ordered byte by byte.
///
/// ```
/// use std::path::Path;
/// use kbrecover_rewind::DataPath;
///
/// let path = DataPath::parse("base/5/16384")?;
/// assert_eq!(path.below(Path::new("/data")), Path::new("/data/base/5/16384"));
/// assert!(DataPath::parse("../etc/passwd").is_err());
/// # Ok::<(), kbrecover_rewind::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataPath(Box<[u8]>);

/// The longest file name and the longest path on Linux, in bytes (`NAME_MAX`, and `PATH_MAX` without its NUL).
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;

/// The path for display in a message. Control characters are escaped, so that a file name cannot add lines to a log or
/// send control sequences to a terminal.
fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(path).chars().take(MAX_PATH) {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

impl DataPath {
    /// Checks an untrusted path.
    ///
    /// # Errors
    /// The path is empty or absolute, has an empty component or one that is `.` or `..`, contains a NUL byte, has a
    /// component of more than 255 bytes, or is longer than 4095 bytes.
    pub fn parse(path: impl AsRef<[u8]>) -> Result<DataPath, PathError> {
        let path = path.as_ref();
        let unsafe_part = |part: &[u8]| {
            part.is_empty() || part == b"." || part == b".." || part.len() > MAX_NAME || part.contains(&0)
        };
        if path.len() > MAX_PATH || path.split(|&byte| byte == b'/').any(unsafe_part) {
            return Err(PathError { path: shown(path) });
        }
        Ok(DataPath(path.into()))
    }

    /// The path of the entry `name` of this directory.
    ///
    /// # Errors
    /// As [`DataPath::parse`]; also if the name contains a `/`.
    pub fn child(&self, name: &OsStr) -> Result<DataPath, PathError> {
        let joined = [&self.0, b"/".as_slice(), name.as_bytes()].concat();
        if name.as_bytes().contains(&b'/') {
            return Err(PathError { path: shown(&joined) });
        }
        DataPath::parse(joined)
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.parts().next_back().unwrap_or_default()
    }

    /// The components, outermost first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The path of the parent directory; `None` for an entry of the data directory itself.
    pub fn parent(&self) -> Option<DataPath> {
        let slash = self.0.iter().rposition(|&byte| byte == b'/')?;
        Some(DataPath(self.0[..slash].into()))
    }

    /// The path of the file if the data directory is `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// A path that was rejected because it could lead out of the data directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("file path is unsafe: \"{path}\"")]
#[non_exhaustive]
pub struct PathError {
    /// The path for display, with control characters escaped.
    pub path: String,
}

/// The path of the file `name` of the WAL directory `directory`, for names from a listing.
pub(crate) fn wal_path(directory: &str, name: &str) -> Result<DataPath, PathError> {
    DataPath::parse(format!("{directory}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_directory_are_accepted() {
        for good in ["PG_VERSION", "base/5/16384.1", "a b/'c'\n", "..x/y..", ".DS_Store"] {
            assert_eq!(DataPath::parse(good).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b"] {
            assert!(DataPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(DataPath::parse([0x66, 0xFF]).unwrap().as_str().is_none());
        let name = "x".repeat(255);
        assert!(DataPath::parse(format!("base/{name}")).is_ok());
        assert!(DataPath::parse(format!("base/{name}x")).is_err());
        assert!(
            DataPath::parse("a/".repeat(2047) + "b").is_ok() && DataPath::parse("a/".repeat(2048)).is_err()
        );
    }

    #[test]
    fn control_characters_are_escaped_for_display() {
        let path = DataPath::parse("base/a\nkbrecover: Done!\x1b[2Jé").unwrap();
        assert_eq!(path.to_string(), "base/a\\nkbrecover: Done!\\u{1b}[2Jé");
        let error = DataPath::parse("../\r").unwrap_err();
        assert_eq!(error.to_string(), "file path is unsafe: \"../\\r\"");
    }

    #[test]
    fn parts_and_parents() {
        let path = DataPath::parse("base/5/16384").unwrap();
        assert_eq!(path.file_name(), b"16384");
        assert_eq!(path.parent().unwrap().to_string(), "base/5");
        assert_eq!(DataPath::parse("base").unwrap().parent(), None);
        assert_eq!(path.below(Path::new("/d")), Path::new("/d/base/5/16384"));
        assert!(path.child(OsStr::new("..")).is_err() && path.child(OsStr::new("a/b")).is_err());
    }
}
