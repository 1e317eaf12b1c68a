//! The target: every write the program makes to a data directory goes through here.
//!
//! It keeps two invariants. Nothing outside the data directory is written, but for what a link in
//! `pg_tblspc` or the WAL directory points to, and what [`crate::target::external_files`] is about: paths are [`DataPath`]s and the last part of a path is
//! never followed if it is a link. And everything written is remembered until it has been made durable.

pub(crate) mod disk;
pub(crate) mod journal;
pub(crate) mod lock_holder;
pub(crate) mod external_files;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
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

/// How many threads wait for the disk at once: it takes many requests, and the file system makes one commit for all
/// who wait for one.
const SYNCS_AT_ONCE: usize = 16;

/// How many threads make, cut or remove files at once: names in one directory are changed one after the other
/// anyhow, and whoever waits for that spins.
const FILES_AT_ONCE: usize = 4;

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct Target {
    root: PathBuf,
    /// How its files are called, once that is known.
    names: Option<&'static Names>,
    disk: Disk,
    /// Holds the lock.
    _lock: File,
    file_mode: u32,
    directory_mode: u32,
    written: Arc<Mutex<Written>>,
    last_look: Mutex<Instant>,
}

/// What has been changed and is not known to be durable.
#[derive(Debug, Default)]
pub(crate) struct Written {
    files: BTreeSet<DataPath>,
    /// Directories in which a name came or went; `None` is the data directory itself.
    directories: BTreeSet<Option<DataPath>>,
    /// The same outside the data directory.
    outside: BTreeSet<PathBuf>,
}

/// A write to the target that failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} \"{}\"", path.display())]
pub struct TargetError {
    /// What was being done.
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl TargetError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        "Run kbrecover as the user who owns the data directory, and see that the file is accessible."
            .to_owned()
    }
}

/// Why the target could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be opened.
    #[error("could not open directory \"{}\"", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another run has it.
    #[error("another kbrecover is working on directory \"{}\"{}", path.display(), named(*holder))]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Which one, as far as this process may see it.
        holder: Option<Holder>,
    },
}

impl LockError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            LockError::Taken { .. } => "Wait until it has finished.".to_owned(),
            LockError::Open { .. } => {
                "Give the data directory of the stopped server, and run as its owner.".to_owned()
            }
        }
    }
}

/// Where a small file is written before it takes its place.
pub(crate) fn unfinished_path(path: &DataPath) -> DataPath {
    let name = [path.as_bytes(), b".kbrecover-new"].concat();
    DataPath::parse(name).unwrap_or_else(|_| unreachable!("a path that got longer"))
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
    /// Where a change is noted, and whether this one's was.
    written: Arc<Mutex<Written>>,
    is_noted: AtomicBool,
}

impl Target {
    /// Locks the data directory at `root` for this run; writes nothing.
    pub(crate) fn lock(root: &Path) -> Result<Target, LockError> {
        let unreadable = |source| LockError::Open { path: root.to_owned(), source };
        // Absolute, because a later change of the working directory must not move the target.
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
            last_look: Mutex::new(Instant::now()),
        })
    }

    /// The same target, whose names are known by now. Its changes are announced to `observer`, and are
    /// refused once a stop is asked for.
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

    /// For what is written elsewhere, and made durable by who writes it.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Opens a file for writing, and makes it if there is none.
    pub(crate) fn open(&self, path: &DataPath) -> Result<TargetFile, TargetError> {
        let full = path.below(&self.root);
        let opened = match self.disk.open_file(&full) {
            // Read-only for its owner, as keys often are: its contents are to be replaced all the same.
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

    /// Whether [`Target::open`] would succeed on a file that is there; nothing is changed.
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

    /// Whether names can be made and removed in a directory (`None`: the data directory itself), if it is
    /// there already; nothing is changed.
    pub(crate) fn check_directory(&self, path: Option<&DataPath>) -> Result<(), TargetError> {
        let full = path.map_or_else(|| self.root.clone(), |path| path.below(&self.root));
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        match rustix::fs::access(&full, wanted) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(TargetError { action: "write to directory", path: full, source: error.into() }),
        }
    }

    /// Whether a file that is there could be removed from its directory, as far as the file itself tells: one
    /// that was made immutable cannot.
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

    /// Whether a tablespace can be made at `directory`, or names in it if it is there already.
    pub(crate) fn check_tablespace(&self, directory: &Path) -> Result<(), TargetError> {
        let access = |path: &Path| {
            rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        };
        let found = match access(directory) {
            // Only the last part of the path is made.
            Err(rustix::io::Errno::NOENT) => access(directory.parent().unwrap_or(Path::new("/"))),
            other => other,
        };
        let path = directory.to_owned();
        found.map_err(|error| TargetError { action: "create directory", path, source: error.into() })
    }

    /// Makes a directory; one that is there already is no error.
    pub(crate) fn create_directory(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember_entry(path);
        match self.disk.create_directory(&full, self.directory_mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_real_directory(&full) => Ok(()),
            other => other.map_err(|source| TargetError { action: "create directory", path: full, source }),
        }
    }

    /// Makes a link below `pg_tblspc` to the directory `to`, which is made if there is none.
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

    /// Removes a file or a link; one that is gone already is no error.
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

    /// Removes an empty directory; one that is gone already is no error, and one that still holds something
    /// that is never touched is left with a warning.
    pub(crate) fn remove_directory(&self, path: &DataPath) -> Result<(), TargetError> {
        let full = path.below(&self.root);
        self.remember(|written| written.directories.remove(&Some(path.clone())));
        self.remember_entry(path);
        match self.disk.remove_directory(&full) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!("directory \"{path}\" is not empty and stays");
                Ok(())
            }
            other => other.map_err(|source| TargetError { action: "remove directory", path: full, source }),
        }
    }

    /// Puts a small file in place as a whole, durably: the old one or the new one is there, nothing else.
    pub(crate) fn replace_file(&self, path: &DataPath, bytes: &[u8]) -> Result<(), TargetError> {
        self.replace_file_with(path, |file| file.write_all(bytes))
    }

    /// The same for a file that may be large: `write` makes it piece by piece.
    pub(crate) fn replace_file_with(
        &self,
        path: &DataPath,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        self.replace(&path.below(&self.root), &unfinished_path(path).below(&self.root), write)
    }

    fn replace(
        &self,
        full: &Path,
        temporary: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TargetError { action, path, source }
        };
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
        disk.sync_file(&file, temporary).map_err(failed("fsync file", temporary))?;
        disk.rename(temporary, full).map_err(failed("rename into place", full))?;
        let parent = full.parent().unwrap_or(&self.root);
        disk.sync_directory(parent).map_err(failed("fsync directory", parent))
    }

    /// Renames a file, durably.
    pub(crate) fn rename(&self, from: &DataPath, to: &DataPath) -> Result<(), TargetError> {
        self.move_outside(&from.below(&self.root), &to.below(&self.root))
    }

    /// [`Target::replace_file`] for a file outside the data directory that the target's configuration names.
    pub(crate) fn replace_outside(&self, path: &Path, bytes: &[u8]) -> Result<(), TargetError> {
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(".kbrecover-new");
        self.replace(path, Path::new(&temporary), |file| file.write_all(bytes))
    }

    /// Renames a file outside the data directory, into a directory made by [`Target::new_directory_outside`].
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

    /// Makes a directory with a name that is not taken yet: `name` and a number.
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

    /// Overwrites a file of fixed length in place and makes it durable: how the control file is written,
    /// whose first 512 bytes the disk takes as a whole.
    pub(crate) fn overwrite_file(&self, path: &DataPath, bytes: &[u8]) -> Result<(), TargetError> {
        let file = self.open(path)?;
        file.write_at(bytes, 0)?;
        self.disk.sync_file(&file.file, &file.path).map_err(|source| file.failed("fsync file", source))
    }

    /// Makes everything written since the last call durable, file by file: first what is in the files, then
    /// the names in the directories. `done` is called for each file.
    pub(crate) fn sync(&self, done: &(dyn Fn() + Sync)) -> Result<(), TargetError> {
        self.sync_these(self.take_unsynced(), done)
    }

    /// What is not known to be durable; it is the caller's now to see to it.
    pub(crate) fn take_unsynced(&self) -> Written {
        self.remember(std::mem::take)
    }

    /// Makes this durable; `done` is called for each file.
    pub(crate) fn sync_these(&self, written: Written, done: &(dyn Fn() + Sync)) -> Result<(), TargetError> {
        let files: Vec<DataPath> = written.files.into_iter().collect();
        many_at_once(&files, SYNCS_AT_ONCE, |path| {
            done();
            let path = path.below(&self.root);
            // Something that was written and then removed needs no fsync.
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

    /// Makes durable whatever stands in the file systems of the data directory, of the WAL directory and of
    /// the tablespaces, whoever wrote it.
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
        places.extend(written.outside);
        let mut devices = BTreeSet::new();
        for place in places {
            // A link to nowhere: nothing was written there.
            let Ok(metadata) = place.metadata() else { continue };
            if metadata.is_dir() && devices.insert(metadata.dev()) {
                self.disk.sync_file_system(&place).map_err(failed("sync file system of", &place))?;
            }
        }
        Ok(())
    }

    /// Looks now and then, at most once in a second, whether somebody has started a server here.
    pub(crate) fn check_alone(&self) -> Result<(), TargetError> {
        let Some(names) = self.names else { return Ok(()) };
        let mut last = self.last_look.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        *last = Instant::now();
        server::check_not_running(&self.root, names).map(drop).map_err(|error| TargetError {
            action: "go on with directory",
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

    /// Copies the same bytes of another file within the file system; returns how many there were, or `None`
    /// if that cannot be done.
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

    /// Lets the disk begin with what was written.
    pub(crate) fn start_writing(&self) {
        self.disk.start_writing(&self.file);
    }

    /// Empties the file, if there is anything in it.
    pub(crate) fn empty(&self) -> Result<(), TargetError> {
        self.cut(0)
    }

    /// Cuts the file if it is longer than that.
    pub(crate) fn cut(&self, length: u64) -> Result<(), TargetError> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() <= length => Ok(()),
            _ => self.set_length(length),
        }
    }

    /// Cuts or lengthens the file.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), TargetError> {
        self.note();
        let cut = self.disk.set_length(&self.file, &self.path, length);
        cut.map_err(|source| self.failed("truncate file", source))
    }

    /// Notes, before the first change, that there is one to make durable. Who takes [`Target::take_unsynced`]
    /// sees to it that no file is open then.
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

/// Makes, cuts or removes files: does it for all of these.
pub(crate) fn for_files<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), TargetError> + Sync,
) -> Result<(), TargetError> {
    many_at_once(items, FILES_AT_ONCE, work)
}

/// Does something that waits for the disk for all of these, so many at once, processors or not.
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
            // If no more threads are to be had, those that run do it all.
            if std::thread::Builder::new().name("disk".to_owned()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A regular file (no link to one) that belongs to the user we are.
fn is_own_file(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.uid() == own)
}

/// The same, and only its mode keeps us from writing: with an attribute (immutable, append-only) on it the
/// reason would be another.
fn is_closed_own_file(path: &Path) -> bool {
    is_own_file(path)
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ACCESS)
}

fn is_real_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// What is written to a file at once, at most.
const PIECE: usize = 1 << 20;

/// Writes a file from front to back.
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
    fn read_only_files_of_our_own_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("server.key");
        fs::write(&key, "old").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let target = Target::lock(directory.path()).unwrap();
        target.check_writable(&path("server.key")).unwrap();
        target.check_writable(&path("not there")).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o400, "changed by the check");
        target.open(&path("server.key")).unwrap().write_at(b"new", 0).unwrap();
        assert_eq!(fs::read(&key).unwrap(), b"new");
    }

    #[test]
    fn a_tablespace_is_made_in_a_directory_that_is_there() {
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
