//! Listing a data directory on this machine: the target, or a stopped source.
//!
//! The only symbolic links that are followed are those of the WAL directory and the tablespaces. So the walk terminates,
//! and reads only directories of the server.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use walparse::Names;

use crate::datadir::data_path::{DataPath, PathError};
use crate::datadir::inventory::{EntryKind, Inventory};

/// The minimum number of files of one directory for which a thread calls `stat`.
const FILES_PER_THREAD: usize = 256;

/// Why a data directory could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// A directory could not be read.
    #[error("could not read directory \"{}\"", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The type and size of a file could not be determined.
    #[error("could not stat file \"{}\"", path.display())]
    Stat {
        /// Its path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A symbolic link could not be read.
    #[error("could not read symbolic link \"{}\"", path.display())]
    Link {
        /// Its path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A file name or path is invalid or too long.
    #[error(transparent)]
    Name(#[from] PathError),
    /// A path was found twice.
    #[error("duplicate file \"{path}\"")]
    Duplicate {
        /// The path.
        path: DataPath,
    },
}

impl WalkError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            WalkError::Directory { source, .. }
            | WalkError::Stat { source, .. }
            | WalkError::Link { source, .. } => permission_hint(source),
            WalkError::Name(_) | WalkError::Duplicate { .. } => None,
        }
    }
}

/// Lists everything below `root`, reading directories in parallel.
///
/// Files that are removed in the meantime are left out. The WAL directory is listed as a directory even if it is a link.
/// Links other than tablespaces, sockets, pipes and devices are listed as [`EntryKind::Other`] and not followed.
///
/// # Errors
/// The root is missing, or a directory or file could not be read.
pub(crate) fn walk_data_directory(root: &Path, names: &Names) -> Result<Inventory, WalkError> {
    let walk = Walk { root, names };
    // A missing root is an error; directories below it may be removed during the walk.
    fs::metadata(root).map_err(|source| WalkError::Stat { path: root.to_owned(), source })?;
    let entries = walk.directory(None)?;
    Inventory::new(entries).map_err(|path| WalkError::Duplicate { path })
}

type Entries = Vec<(DataPath, EntryKind)>;

struct Walk<'a> {
    root: &'a Path,
    names: &'a Names,
}

impl Walk<'_> {
    /// Everything below a directory; `None` is the root.
    fn directory(&self, path: Option<&DataPath>) -> Result<Entries, WalkError> {
        let (mut entries, below) = self.read_directory(path)?;
        let lists: Vec<Entries> =
            below.par_iter().map(|dir| self.directory(Some(dir))).collect::<Result<_, _>>()?;
        entries.extend(lists.into_iter().flatten());
        Ok(entries)
    }

    /// The entries of one directory, and the paths of those to descend into.
    fn read_directory(&self, path: Option<&DataPath>) -> Result<(Entries, Vec<DataPath>), WalkError> {
        let place = path.map_or_else(|| self.root.to_owned(), |path| path.below(self.root));
        let failed = |source| WalkError::Directory { path: place.clone(), source };
        let names: Vec<fs::DirEntry> = match fs::read_dir(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            names => names.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?,
        };
        // All tables of a database are in one directory, so the `stat` calls are distributed, too.
        let listed = names.par_iter().with_min_len(FILES_PER_THREAD).map(|name| self.entry(path, name));
        let entries: Vec<Option<(DataPath, EntryKind)>> = listed.collect::<Result<_, _>>()?;
        let entries: Entries = entries.into_iter().flatten().collect();
        let is_directory =
            |kind: &EntryKind| matches!(kind, EntryKind::Directory | EntryKind::Symlink { .. });
        let below =
            entries.iter().filter(|(_, kind)| is_directory(kind)).map(|(path, _)| path.clone()).collect();
        Ok((entries, below))
    }

    /// One entry of the directory `parent`; `None` if it has been removed, or is never listed.
    fn entry(
        &self,
        parent: Option<&DataPath>,
        name: &fs::DirEntry,
    ) -> Result<Option<(DataPath, EntryKind)>, WalkError> {
        // Readable by root only, and never part of the data: see `exclude`.
        if name.file_name() == "lost+found" {
            return Ok(None);
        }
        let path = match parent {
            None => DataPath::parse(name.file_name().as_bytes())?,
            Some(parent) => parent.child(&name.file_name())?,
        };
        let metadata = match name.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(|source| WalkError::Stat { path: name.path(), source })?,
        };
        let kind = match metadata.file_type() {
            file if file.is_file() => Some(EntryKind::File { size: metadata.len() }),
            dir if dir.is_dir() => Some(EntryKind::Directory),
            link if link.is_symlink() => self.link(&path)?,
            _ => Some(EntryKind::Other),
        };
        Ok(kind.map(|kind| (path, kind)))
    }

    /// How a symbolic link is listed; `None` if it has been removed.
    fn link(&self, path: &DataPath) -> Result<Option<EntryKind>, WalkError> {
        if path.as_bytes() == self.names.wal_dir.as_bytes() {
            return Ok(Some(EntryKind::Directory));
        }
        if path.parent().is_none_or(|parent| parent.as_bytes() != self.names.tablespace_dir.as_bytes()) {
            return Ok(Some(EntryKind::Other));
        }
        let place = path.below(self.root);
        match fs::read_link(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            target => {
                let target = target.map_err(|source| WalkError::Link { path: place, source })?;
                Ok(Some(EntryKind::Symlink { target }))
            }
        }
    }
}

/// The names and sizes in bytes of the regular files in `dir`, which may be a link to a directory.
pub(crate) fn plain_files(dir: &Path) -> Result<Vec<(String, u64)>, WalkError> {
    let failed = |source| WalkError::Directory { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata.map_err(|source| WalkError::Stat { path: entry.path(), source })?,
        };
        // Names of WAL files are ASCII, so other names can be ignored.
        if let (true, Some(name)) = (metadata.is_file(), OsStr::to_str(&entry.file_name())) {
            files.push((name.to_owned(), metadata.len()));
        }
    }
    Ok(files)
}

/// A hint for the operator if `error` is a lack of permission.
pub(crate) fn permission_hint(error: &std::io::Error) -> Option<String> {
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    denied.then(|| "Run kbrecover as the user who owns the data directory.".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn names() -> &'static Names {
        walparse::Flavor::all().next().unwrap().names()
    }

    fn shown(root: &Path) -> Vec<String> {
        let inventory = walk_data_directory(root, names()).unwrap();
        let line = |(path, kind): &(DataPath, EntryKind)| match kind {
            EntryKind::File { size } => format!("{path} {size}"),
            EntryKind::Directory => format!("{path}/"),
            EntryKind::Symlink { target } => format!("{path} -> {}", target.file_name().unwrap().display()),
            EntryKind::Other => format!("{path} ?"),
        };
        inventory.entries().iter().map(line).collect()
    }

    #[test]
    fn only_the_servers_own_links_are_followed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("data");
        for dir in ["data/base/5", "data/pg_tblspc", "wal", "space/PG_15/5"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        fs::write(root.join("base/5/16384"), [0; 10]).unwrap();
        fs::write(temp.path().join("wal/000000010000000000000001"), b"abc").unwrap();
        fs::write(temp.path().join("space/PG_15/5/1"), b"x").unwrap();
        symlink("../wal", root.join("pg_wal")).unwrap();
        symlink(temp.path().join("space"), root.join("pg_tblspc/16400")).unwrap();
        symlink("/nowhere/gone", root.join("pg_tblspc/16401")).unwrap();
        symlink("/etc/passwd", root.join("postgresql.conf")).unwrap();
        symlink(&root, root.join("base/loop")).unwrap();
        // A tablespace link to the data directory itself is followed once.
        symlink(&root, root.join("pg_tblspc/16402")).unwrap();
        let _socket = UnixListener::bind(root.join("sock")).unwrap();

        let (inside, all): (Vec<_>, Vec<_>) =
            shown(&root).into_iter().partition(|line| line.starts_with("pg_tblspc/16402/"));
        assert_eq!(
            all,
            [
                "base/",
                "base/5/",
                "base/5/16384 10",
                "base/loop ?",
                "pg_tblspc/",
                "pg_tblspc/16400 -> space",
                "pg_tblspc/16400/PG_15/",
                "pg_tblspc/16400/PG_15/5/",
                "pg_tblspc/16400/PG_15/5/1 1",
                "pg_tblspc/16401 -> gone",
                "pg_tblspc/16402 -> data",
                "pg_wal/",
                "pg_wal/000000010000000000000001 3",
                "postgresql.conf ?",
                "sock ?",
            ]
        );
        assert_eq!(inside.len(), 11, "{inside:?}");
        assert_eq!(plain_files(&root.join("pg_wal")).unwrap(), [("000000010000000000000001".to_owned(), 3)]);
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let error = walk_data_directory(&temp.path().join("none"), names()).unwrap_err();
        assert!(matches!(error, WalkError::Stat { .. }), "{error}");
    }

    #[test]
    fn names_are_bytes() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(OsStr::from_bytes(b"\xFFx")), b"").unwrap();
        let inventory = walk_data_directory(temp.path(), names()).unwrap();
        assert_eq!(inventory.entries()[0].0.as_bytes(), b"\xFFx");
    }
}
