//! The target data directory. Every write to it goes through this module.
//!
//! Two invariants hold:
//!
//! - Writes stay inside the data directory. The exceptions are the targets of links in `pg_tblspc`, the target of a
//!   linked WAL directory, and the files of [`crate::target::external_files`]. Paths are [`DataPath`]s, and a symbolic
//!   link as the last component of a path is never followed.
//! - Every write is recorded until it has been made durable.

pub(crate) mod checked_json;
pub(crate) mod compared;
pub(crate) mod copied;
pub(crate) mod disk;
pub(crate) mod journal;
mod journal_changes;
pub(crate) mod lock_holder;
pub(crate) mod external_files;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use walparse::Names;

use crate::datadir::data_path::DataPath;
use crate::datadir::server;
use crate::observer::ChangeObserver;
use crate::stop::StopFlag;
use crate::target::disk::{Disk, ignore_missing};
use crate::target::lock_holder::Holder;

/// Number of concurrent fsync calls. A disk serves many requests at once, and the file system commits its journal once
/// for all callers that are waiting.
const SYNCS_AT_ONCE: usize = 16;

/// Number of threads that create, truncate or remove files. The kernel serializes changes to the names of one
/// directory, and waiting threads spin, so more threads only cost processor time.
const FILES_AT_ONCE: usize = 4;

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct Target {
    root: PathBuf,
    /// The file names of its flavor; `None` until the flavor is known.
    names: Option<&'static Names>,
    disk: Disk,
    /// The open directory, which holds the `flock` lock.
    _lock: File,
    file_mode: u32,
    directory_mode: u32,
    written: Arc<Mutex<Written>>,
    /// Time of the last check by [`Target::check_no_server`].
    last_server_check: Mutex<Instant>,
}

/// Changes that are not known to be durable.
#[derive(Debug, Default)]
pub(crate) struct Written {
    files: BTreeSet<DataPath>,
    /// Directories in which an entry was created or removed; `None` is the data directory itself.
    directories: BTreeSet<Option<DataPath>>,
    /// Such directories outside the data directory.
    outside: BTreeSet<PathBuf>,
}

/// A failed write to the target data directory, with the system's error as its source.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} \"{}\"", path.display())]
#[non_exhaustive]
pub struct TargetError {
    /// What was being done, as a verb phrase that the path completes: "fsync file".
    pub action: &'static str,
    /// The absolute path of the file or directory.
    pub path: PathBuf,
    /// The error of the system call.
    #[source]
    pub source: io::Error,
}

/// What makes an error of the system's.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let path = path.to_owned();
    move |source| TargetError { action, path, source }
}

impl TargetError {
    /// A hint for the operator: what to do next.
    pub fn hint(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                "The file system is mounted read-only; the log of the operating system may say why. Mount it for writing, and run \
                 the same command again."
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "Free space there, and run the same command again."
            }
            _ => "Run kbrecover as the user who owns the data directory, and check that the file is accessible.",
        }
        .to_owned()
    }
}

/// Why the target data directory could not be locked.
///
/// A run holds an exclusive `flock` lock on the directory itself, if its file system has such locks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The directory cannot be opened, or is no directory.
    #[error("could not open directory \"{}\"", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// Another kbrecover holds the lock.
    #[error("another kbrecover is working on directory \"{}\"{}", path.display(), named(*holder))]
    Taken {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock; `None` if this process is not allowed to see it.
        holder: Option<Holder>,
    },
}

impl LockError {
    /// A hint for the operator: what to do next.
    pub fn hint(&self) -> String {
        match self {
            LockError::Taken { .. } => "Wait for it to finish.".to_owned(),
            LockError::Open { .. } => {
                "Specify the data directory of the stopped server, and run kbrecover as its owner.".to_owned()
            }
        }
    }
}

/// The temporary path under which a file is written before it is renamed into place.
pub(crate) fn unfinished_path(path: &DataPath) -> DataPath {
    let name = [path.as_bytes(), b".kbrecover-new"].concat();
    DataPath::parse(name).unwrap_or_else(|_| unreachable!("a valid path with a longer file name"))
}

fn named(holder: Option<Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": {holder}"))
}

/// A file of the target that is open for writing.
#[derive(Debug)]
pub(crate) struct TargetFile {
    disk: Disk,
    file: File,
    path: PathBuf,
    name: DataPath,
    /// Where changed files are recorded, and whether this one has been.
    written: Arc<Mutex<Written>>,
    is_noted: AtomicBool,
}

impl Target {
    /// Locks the data directory at `root` for this run. Writes nothing.
    pub(crate) fn lock(root: &Path) -> Result<Target, LockError> {
        let unreadable = |source| LockError::Open { path: root.to_owned(), source };
        // An absolute path stays valid if the working directory changes.
        let root = root.canonicalize().map_err(unreadable)?;
        let directory = File::open(&root).map_err(unreadable)?;
        let metadata = directory.metadata().map_err(unreadable)?;
        if !metadata.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = lock_holder::find(&root).map(Holder::of);
                return Err(LockError::Taken { path: root, holder });
            }
            // The lock only keeps a second run away.
            Err(TryLockError::Error(source)) if is_refused(&source) => {
                let shown = root.display();
                tracing::warn!(
                    "could not lock directory \"{shown}\", so see to it that nothing else works on it: {source}"
                );
            }
            Err(TryLockError::Error(source)) => return Err(LockError::Open { path: root, source }),
        }
        let group_reads = metadata.mode() & 0o050 == 0o050;
        let (directory_mode, file_mode) = if group_reads { (0o750, 0o640) } else { (0o700, 0o600) };
        Ok(Target {
            root,
            names: None,
            disk: Disk::default(),
            _lock: directory,
            file_mode,
            directory_mode,
            written: Arc::default(),
            last_server_check: Mutex::new(Instant::now()),
        })
    }

    /// Sets the file names, now that the flavor is known. From here on changes are announced to `observer`, and are
    /// refused once `stop` has been requested.
    pub(crate) fn controlled_by(
        self,
        names: &'static Names,
        stop: &StopFlag,
        observer: Option<Arc<dyn ChangeObserver>>,
    ) -> Target {
        Target { names: Some(names), disk: Disk::new(stop.clone(), observer), ..self }
    }

    /// The data directory, as an absolute path.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The disk, for writes outside the data directory; the caller makes those durable.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Opens a file for writing, creating it if it does not exist.
    pub(crate) fn open(&self, path: &DataPath) -> Result<TargetFile, TargetError> {
        let full = path.below(&self.root);
        let opened = match self.disk.open_file(&full) {
            // Key files are often read-only for their owner. Their contents are replaced like those of other files.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_own_file(&full) => {
                self.disk.set_mode(&full, self.file_mode).and_then(|()| self.disk.open_file(&full))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remember_entry(path);
                self.remember(|written| written.files.insert(path.clone()));
                self.disk.create_file(&full, self.file_mode)
            }
            other => other,
        };
        let file = opened.map_err(|source| TargetError {
            action: "open for writing",
            path: full.clone(),
            source,
        })?;
        let (disk, written) = (self.disk.clone(), Arc::clone(&self.written));
        Ok(TargetFile {
            disk,
            file,
            path: full,
            name: path.clone(),
            written,
            is_noted: AtomicBool::new(false),
        })
    }

    /// Checks that [`Target::open`] would succeed on an existing file. Changes nothing.
    pub(crate) fn check_writable(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        match self.disk.open_file(&full) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_closed_own_file(&full) => {
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Ok(()),
            Err(source) => Err(TargetError { action: "open for writing", path: full, source }),
        }
    }

    /// Checks that entries can be created and removed in a directory (`None`: the data directory itself), if it
    /// exists. Changes nothing.
    pub(crate) fn check_directory(&self, path: Option<&DataPath>) -> Result<(), TargetError> {
        let full = path.map_or_else(|| self.root.clone(), |path| path.below(&self.root));
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        match rustix::fs::access(&full, wanted) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(TargetError { action: "write to directory", path: full, source: error.into() }),
        }
    }

    /// Checks that an existing file has no attribute, such as immutable, that prevents its removal. The permissions of
    /// its directory are checked by [`Target::check_directory`].
    pub(crate) fn check_removable(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        let is_link = full.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        match rustix::fs::access(&full, rustix::fs::Access::WRITE_OK) {
            Err(error @ (rustix::io::Errno::PERM | rustix::io::Errno::ROFS)) if !is_link => {
                Err(TargetError { action: "remove", path: full, source: error.into() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that a tablespace directory can be created at `directory` or, if it exists, that entries can be created in
    /// it. Changes nothing.
    pub(crate) fn check_tablespace(&self, directory: &Path) -> Result<(), TargetError> {
        let access = |path: &Path| {
            rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        };
        let found = match access(directory) {
            // Only the last component of the path is created.
            Err(rustix::io::Errno::NOENT) => access(directory.parent().unwrap_or(Path::new("/"))),
            other => other,
        };
        let path = directory.to_owned();
        found.map_err(|error| TargetError { action: "create directory", path, source: error.into() })
    }

    /// Creates a directory. An existing directory is not an error.
    pub(crate) fn create_directory(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember_entry(path);
        match self.disk.create_directory(&full, self.directory_mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_real_directory(&full) => Ok(()),
            other => other.map_err(|source| TargetError { action: "create directory", path: full, source }),
        }
    }

    /// Creates a link below `pg_tblspc` to the directory `to`, and that directory if it does not exist.
    pub(crate) fn create_tablespace_link(&self, path: &DataPath, to: &Path) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember(|written| written.outside.extend(to.parent().map(Path::to_owned)));
        match self.disk.create_directory(to, self.directory_mode) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(TargetError { action: "create directory", path: to.to_owned(), source });
            }
            _ => {}
        }
        self.remember_entry(path);
        match self.disk.create_link(&full, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && full.is_symlink() => Ok(()),
            other => {
                other.map_err(|source| TargetError { action: "create symbolic link", path: full, source })
            }
        }
    }

    /// Renames a link. It is not an error if an earlier run has done so.
    pub(crate) fn rename_link(&self, from: &DataPath, to: &DataPath) -> Result<(), TargetError> {
        let (from_path, to_path) = (from.below(&self.root), to.below(&self.root));
        self.remember_entry(from);
        self.remember_entry(to);
        match self.disk.rename(&from_path, &to_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && to_path.is_symlink() => Ok(()),
            other => other.map_err(|source| TargetError { action: "rename link", path: from_path, source }),
        }
    }

    /// Removes a file or a link. A missing one is not an error.
    pub(crate) fn remove_file(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember(|written| written.files.remove(path));
        self.remember_entry(path);
        self.disk.remove_file(&full).map_err(|source| TargetError {
            action: "remove file",
            path: full,
            source,
        })
    }

    /// Removes an empty directory. A missing one is not an error. A directory that is not empty, because it holds files
    /// that a rewind never touches, is left in place with a warning.
    pub(crate) fn remove_directory(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember(|written| written.directories.remove(&Some(path.clone())));
        self.remember_entry(path);
        match self.disk.remove_directory(&full) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!("directory \"{path}\" is not empty and was not removed");
                Ok(())
            }
            other => other.map_err(|source| TargetError { action: "remove directory", path: full, source }),
        }
    }

    /// Replaces a small file atomically and durably: after a crash either the old or the new contents are there.
    pub(crate) fn replace_file(&self, path: &DataPath, bytes: &[u8]) -> Result<(), TargetError> {
        self.replace_file_with(path, |file| file.write_all(bytes))
    }

    /// As [`Target::replace_file`] for a file that may be large: `write` writes it piece by piece.
    pub(crate) fn replace_file_with(
        &self,
        path: &DataPath,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        self.replace(&path.below(&self.root), &unfinished_path(path).below(&self.root), write)
    }

    /// Replaces a small file atomically, but not durably.
    pub(crate) fn replace_fleeting(&self, path: &DataPath, bytes: &[u8]) -> Result<(), TargetError> {
        let (full, temporary) = (path.below(&self.root), unfinished_path(path).below(&self.root));
        self.write_new(&temporary, |file| file.write_all(bytes))?;
        self.disk.rename(&temporary, &full).map_err(failed("rename into place", &full))
    }

    /// Removes a file that [`Target::replace_file_with`] writes, and its temporary file, as far as they exist.
    pub(crate) fn remove_replaced(&self, path: &DataPath) -> Result<(), TargetError> {
        let paths = [path.clone(), unfinished_path(path)];
        let mut there = paths.iter().filter(|path| path.below(&self.root).symlink_metadata().is_ok());
        there.try_for_each(|path| self.remove_file(path))
    }

    fn replace(
        &self,
        full: &Path,
        temporary: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        let disk = &self.disk;
        let file = self.write_new(temporary, write)?;
        disk.sync_file(&file, temporary).map_err(failed("fsync file", temporary))?;
        disk.rename(temporary, full).map_err(failed("rename into place", full))?;
        let parent = full.parent().unwrap_or(&self.root);
        disk.sync_directory(parent).map_err(failed("fsync directory", parent))
    }

    /// Writes a temporary file, in place of one that an earlier run has left.
    fn write_new(
        &self,
        temporary: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<File, TargetError> {
        let disk = &self.disk;
        if temporary.symlink_metadata().is_ok() {
            disk.remove_file(temporary).map_err(failed("remove file", temporary))?;
        }
        let file = disk.create_file(temporary, self.file_mode).map_err(failed("create file", temporary))?;
        let pieces = Pieces { disk, file: &file, path: temporary, offset: 0 };
        let mut pieces = BufWriter::with_capacity(PIECE, pieces);
        let written = write(&mut pieces).and_then(|()| pieces.flush());
        drop(pieces.into_parts());
        written.map_err(failed("write file", temporary))?;
        Ok(file)
    }

    /// Renames a file, durably.
    pub(crate) fn rename(&self, from: &DataPath, to: &DataPath) -> Result<(), TargetError> {
        self.move_outside(&from.below(&self.root), &to.below(&self.root))
    }

    /// As [`Target::replace_file`], for a file outside the data directory that the target's configuration names.
    pub(crate) fn replace_outside(&self, path: &Path, bytes: &[u8]) -> Result<(), TargetError> {
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(".kbrecover-new");
        self.replace(path, Path::new(&temporary), |file| file.write_all(bytes))
    }

    /// Renames a file outside the data directory, durably.
    pub(crate) fn move_outside(&self, from: &Path, to: &Path) -> Result<(), TargetError> {
        let failed = |source| TargetError { action: "move file", path: from.to_owned(), source };
        self.disk.rename(from, to).map_err(failed)?;
        [from, to].into_iter().filter_map(Path::parent).try_for_each(|directory| {
            self.disk.sync_directory(directory).map_err(|source| TargetError {
                action: "fsync directory",
                path: directory.to_owned(),
                source,
            })
        })
    }

    /// Creates a directory named `name.N` in `parent`, with the lowest N from 1 that is not in use. Returns its path.
    pub(crate) fn new_directory_outside(&self, parent: &Path, name: &str) -> Result<PathBuf, TargetError> {
        let mut number = 1u64;
        loop {
            let path = parent.join(format!("{name}.{number}"));
            match self.disk.create_directory(&path, self.directory_mode) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(TargetError { action: "create directory", path, source }),
            }
        }
    }

    /// Overwrites a file of fixed length in place and makes it durable. The control file is written this way: all its
    /// data is in the first 512 bytes, which a disk writes atomically.
    pub(crate) fn overwrite_file(&self, path: &DataPath, bytes: &[u8]) -> Result<(), TargetError> {
        let file = self.open(path)?;
        file.write_at(bytes, 0)?;
        self.disk.sync_file(&file.file, &file.path).map_err(|source| file.failed("fsync file", source))
    }

    /// Makes everything written since the last call durable: first each changed file, then each changed directory.
    /// `done` is called once for each file.
    pub(crate) fn sync(&self, done: &(dyn Fn() + Sync)) -> Result<(), TargetError> {
        self.sync_these(self.take_unsynced(), done)
    }

    /// Takes the list of changes that are not known to be durable. The caller becomes responsible for syncing them.
    pub(crate) fn take_unsynced(&self) -> Written {
        self.remember(std::mem::take)
    }

    /// Makes these changes durable. `done` is called once for each file.
    pub(crate) fn sync_these(&self, written: Written, done: &(dyn Fn() + Sync)) -> Result<(), TargetError> {
        let files: Vec<DataPath> = written.files.into_iter().collect();
        many_at_once(&files, SYNCS_AT_ONCE, |path| {
            done();
            let path = path.below(&self.root);
            // A file that was written and then removed needs no fsync.
            let synced = File::open(&path).and_then(|file| self.disk.sync_file(&file, &path));
            ignore_missing(synced).map_err(|source| TargetError { action: "fsync file", path, source })
        })?;
        let below = |directory: Option<DataPath>| {
            directory.map_or_else(|| self.root.clone(), |path| path.below(&self.root))
        };
        let directories = written.directories.into_iter().map(below).chain(written.outside);
        many_at_once(&directories.collect::<Vec<_>>(), SYNCS_AT_ONCE, |path| {
            ignore_missing(self.disk.sync_directory(path)).map_err(|source| TargetError {
                action: "fsync directory",
                path: path.clone(),
                source,
            })
        })
    }

    /// Syncs the whole file systems (`syncfs`) of the data directory, of the WAL directory and of the tablespaces,
    /// including data written by other programs.
    pub(crate) fn sync_file_systems(&self, names: &Names) -> Result<(), TargetError> {
        let written = self.remember(std::mem::take);
        let mut places = vec![self.root.clone(), self.root.join(names.wal_dir)];
        let spaces = self.root.join(names.tablespace_dir);
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TargetError { action, path, source }
        };
        for entry in std::fs::read_dir(&spaces).map_err(failed("list directory", &spaces))? {
            places.push(entry.map_err(failed("list directory", &spaces))?.path());
        }
        let outside = written.outside;
        places.extend(outside.iter().cloned());
        // Nothing was written through a dangling link.
        places.retain(|place| place.is_dir());
        let mut devices = BTreeSet::new();
        for place in &places {
            if !place.metadata().is_ok_and(|metadata| devices.insert(metadata.dev())) {
                continue;
            }
            match self.disk.sync_file_system(place) {
                Err(error) if is_refused(&error) => {
                    tracing::debug!("syncing all files one by one, because syncfs is refused: {error}");
                    places
                        .iter()
                        .filter(|place| !outside.contains(*place))
                        .try_for_each(|place| self.sync_below(place))?;
                    return outside.iter().try_for_each(|directory| {
                        let synced = ignore_missing(self.disk.sync_directory(directory));
                        synced.map_err(failed("fsync directory", directory))
                    });
                }
                synced => synced.map_err(failed("sync file system of", place))?,
            }
        }
        Ok(())
    }

    /// Makes a directory durable with all that is in it and can be read: the server has written nothing else.
    fn sync_below(&self, directory: &Path) -> Result<(), TargetError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TargetError { action, path, source }
        };
        let entries = match std::fs::read_dir(directory) {
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
                return Ok(());
            }
            entries => entries.map_err(failed("list directory", directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list directory", directory))?;
            let (path, kind) = (entry.path(), entry.file_type());
            match kind.map_err(failed("look at", &path))? {
                kind if kind.is_dir() => self.sync_below(&path)?,
                kind if kind.is_file() => {
                    let synced = File::open(&path).and_then(|file| self.disk.sync_file(&file, &path));
                    match synced {
                        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                        synced => ignore_missing(synced).map_err(failed("fsync file", &path))?,
                    }
                }
                _ => {}
            }
        }
        ignore_missing(self.disk.sync_directory(directory)).map_err(failed("fsync directory", directory))
    }

    /// Checks, at most once a second, that no server has been started on the directory in the meantime.
    pub(crate) fn check_no_server(&self) -> Result<(), TargetError> {
        let Some(names) = self.names else { return Ok(()) };
        let mut last = self.last_server_check.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        *last = Instant::now();
        server::check_not_running(&self.root, names).map(drop).map_err(|error| TargetError {
            action: "continue working on directory",
            path: self.root.clone(),
            source: io::Error::other(error),
        })
    }

    /// The number of files that [`Target::sync`] would make durable.
    pub(crate) fn unsynced_files(&self) -> u64 {
        self.remember(|written| written.files.len() as u64)
    }

    fn remember_entry(&self, path: &DataPath) {
        self.remember(|written| written.directories.insert(path.parent()));
    }

    fn remember<T>(&self, change: impl FnOnce(&mut Written) -> T) -> T {
        change(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TargetFile {
    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.note();
        let written = self.disk.write(&self.file, &self.path, bytes, offset);
        written.map_err(|source| self.failed("write to file", source))
    }

    /// Copies the bytes at `offset` of another file to the same offset, within the file system. Returns the number of
    /// bytes copied, or `None` if the file system cannot do that.
    pub(crate) fn copy_from(
        &self,
        from: &File,
        offset: u64,
        length: u64,
    ) -> Result<Option<u64>, TargetError> {
        self.note();
        let copied = self.disk.copy_range(from, &self.file, offset, length);
        copied.map_err(|source| self.failed("write to file", source))
    }

    /// Starts writeback of what has been written.
    pub(crate) fn start_writing(&self) {
        self.disk.start_writing(&self.file);
    }

    /// Truncates the file to zero length.
    pub(crate) fn empty(&self) -> Result<(), TargetError> {
        self.truncate(0)
    }

    /// Truncates the file to `length` bytes if it is longer.
    pub(crate) fn truncate(&self, length: u64) -> Result<(), TargetError> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() <= length => Ok(()),
            _ => self.set_length(length),
        }
    }

    /// Truncates the file to `length` bytes, or extends it with zeros.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), TargetError> {
        self.note();
        let set = self.disk.set_length(&self.file, &self.path, length);
        set.map_err(|source| self.failed("truncate file", source))
    }

    /// Records before the first change that the file must be synced. It records this only once, so the caller of
    /// [`Target::take_unsynced`] must ensure that no file is open for writing at that time.
    fn note(&self) {
        if !self.is_noted.swap(true, Ordering::Relaxed) {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.files.insert(self.name.clone());
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TargetError {
        TargetError { action, path: self.path.clone(), source }
    }
}

/// Does `work`, which creates, truncates or removes files, for each item, on [`FILES_AT_ONCE`] threads.
pub(crate) fn for_files<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), TargetError> + Sync,
) -> Result<(), TargetError> {
    many_at_once(items, FILES_AT_ONCE, work)
}

/// Does `work` for each item on up to `at_once` threads. The work waits for the disk, so the number of threads does not
/// depend on the number of processors. Returns the first error.
fn many_at_once<T: Sync>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> Result<(), TargetError> + Sync,
) -> Result<(), TargetError> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(at_once) {
            // If no more threads can be started, those already running do all the work.
            if std::thread::Builder::new().name("disk".to_owned()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Whether a system call is not there: the file system lacks it, or a filter of system calls keeps it away.
fn is_refused(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let missing = [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP, Errno::NOLCK];
    Errno::from_io_error(error).is_some_and(|errno| missing.contains(&errno))
}

/// Whether this is a regular file (not a link to one) owned by the effective user.
fn is_own_file(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.uid() == own)
}

/// Whether this is such a file and only its mode prevents writing. An immutable or append-only file gives another
/// error.
fn is_closed_own_file(path: &Path) -> bool {
    is_own_file(path)
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ACCESS)
}

fn is_real_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// The largest single write to a file, in bytes.
const PIECE: usize = 1 << 20;

/// Writes a file sequentially.
struct Pieces<'a> {
    disk: &'a Disk,
    file: &'a File,
    path: &'a Path,
    offset: u64,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(self.file, self.path, bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn path(text: &str) -> DataPath {
        DataPath::parse(text).unwrap()
    }

    #[test]
    fn the_hint_fits_the_cause() {
        let hint = |number: rustix::io::Errno| {
            let source = io::Error::from_raw_os_error(number.raw_os_error());
            TargetError { action: "write file", path: "/d/f".into(), source }.hint()
        };
        assert!(hint(rustix::io::Errno::ROFS).contains("mounted read-only"));
        assert!(hint(rustix::io::Errno::NOSPC).contains("Free space"));
        assert!(hint(rustix::io::Errno::DQUOT).contains("Free space"));
        assert!(hint(rustix::io::Errno::ACCESS).contains("the user who owns"));
    }

    #[test]
    fn a_second_run_on_the_same_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = Target::lock(directory.path()).unwrap();
        assert!(matches!(Target::lock(directory.path()), Err(LockError::Taken { .. })));
        drop(first);
        assert!(Target::lock(directory.path()).is_ok());
        assert!(matches!(Target::lock(&directory.path().join("x")), Err(LockError::Open { .. })));
    }

    #[test]
    fn links_are_not_followed_out_of_the_directory() {
        let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.path().join("link")).unwrap();
        let target = Target::lock(directory.path()).unwrap();
        assert!(target.open(&path("link")).is_err());
        target.replace_file(&path("link"), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(directory.path().join("link")).unwrap(), b"new");
    }

    #[test]
    fn own_read_only_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("server.key");
        fs::write(&key, "old").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let target = Target::lock(directory.path()).unwrap();
        target.check_writable(&path("server.key")).unwrap();
        target.check_writable(&path("not there")).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o400, "the check changed the mode");
        target.open(&path("server.key")).unwrap().write_at(b"new", 0).unwrap();
        assert_eq!(fs::read(&key).unwrap(), b"new");
    }

    #[test]
    fn a_tablespace_needs_an_existing_parent_directory() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        target.check_tablespace(directory.path()).unwrap();
        target.check_tablespace(&directory.path().join("new")).unwrap();
        target.check_tablespace(&directory.path().join("none/new")).unwrap_err();
    }

    #[test]
    fn modes_follow_the_data_directory() {
        for (mode, file_mode, directory_mode) in [(0o700, 0o600, 0o700), (0o750, 0o640, 0o750)] {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let target = Target::lock(directory.path()).unwrap();
            target.create_directory(&path("d")).unwrap();
            target.open(&path("d/f")).unwrap().write_at(b"x", 3).unwrap();
            let mode_of = |name: &str| fs::metadata(directory.path().join(name)).unwrap().mode() & 0o777;
            assert_eq!((mode_of("d/f"), mode_of("d")), (file_mode, directory_mode));
            assert_eq!(target.unsynced_files(), 1);
            target.sync(&|| {}).unwrap();
            assert_eq!(target.unsynced_files(), 0);
        }
    }
}
