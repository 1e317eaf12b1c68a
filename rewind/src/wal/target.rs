//! The target's WAL, wherever it is still available.
//!
//! A segment is searched for in this order:
//!
//! 1. the target's WAL directory;
//! 2. the directories given by the user;
//! 3. the archive, up to the end of the required WAL or the newest segment in the WAL directory: later segments may
//!    have been archived by another server;
//! 4. the source, if the segment ends at or before the fork, where both histories are identical.
//!
//! Fetched files are stored in a temporary directory, so the target's files are not changed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::NamedTempFile;
use walparse::{FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, WalDir, WalGeometry, WalReadError};

use crate::datadir::data_path::DataPath;
use crate::source::{FetchError, Pace, Source, SourceError, store_part};
use crate::wal::archive::{Archive, ArchiveError};
use crate::wal::temporary::Temporary;

/// The places that may have WAL of the target.
pub(crate) struct TargetWal<'a> {
    local: WalDir,
    directories: &'a [PathBuf],
    archive: Option<Archive>,
    /// Where WAL that both sides share may be fetched, if there is a source.
    source: Option<&'a dyn Source>,
    /// At which the source is read. Whether to stop is checked before each segment is opened.
    pace: &'a Pace,
    geometry: WalGeometry,
    /// Up to this position the source's WAL is identical to the target's.
    shared_end: Lsn,
    /// Up to this position the WAL is required, and so is searched for in the archive.
    needed_end: Lsn,
    /// The newest segment in the WAL directory, cached: the directory does not change while WAL is read.
    newest: OnceLock<Option<SegmentNo>>,
    fetched: Mutex<Fetched>,
}

struct Fetched {
    /// The paths of fetched files, by their names.
    paths: HashMap<String, PathBuf>,
    temporary: Temporary,
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchWalError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("could not open file \"{}\"", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not store the file in a temporary directory")]
    Store(#[source] io::Error),
}

impl<'a> TargetWal<'a> {
    /// The WAL of `target` in its own history. Until [`TargetWal::set_limits`] is called, no WAL counts as shared or
    /// required.
    pub(crate) fn new(
        target: &Path,
        history: TimelineHistory,
        geometry: WalGeometry,
        directories: &'a [PathBuf],
        archive: Option<Archive>,
        source: Option<&'a dyn Source>,
        pace: &'a Pace,
    ) -> TargetWal<'a> {
        let wal_dir = target.join(geometry.version.wal_dir());
        let mut temporary = Temporary::new(None);
        temporary.or_in(target);
        TargetWal {
            local: WalDir::new(wal_dir, history, geometry.segment_size),
            directories,
            archive,
            source,
            pace,
            geometry,
            shared_end: Lsn::INVALID,
            needed_end: Lsn::INVALID,
            newest: OnceLock::new(),
            fetched: Mutex::new(Fetched { paths: HashMap::new(), temporary }),
        }
    }

    /// Sets the end of the WAL shared with the source, and the end of the WAL that is required.
    pub(crate) fn set_limits(&mut self, shared_end: Lsn, needed_end: Lsn) {
        (self.shared_end, self.needed_end) = (shared_end, needed_end);
    }

    /// Reads the WAL of this history from now on.
    pub(crate) fn set_history(&mut self, history: TimelineHistory) {
        self.local = WalDir::new(self.local.directory(), history, self.geometry.segment_size);
        self.newest = OnceLock::new();
    }

    /// The names of the files in the WAL directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn local_names(&self) -> Result<Vec<String>, WalReadError> {
        let directory = self.local.directory();
        let unreadable = |source| WalReadError::Open { path: directory.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            names.extend(entry.map_err(unreadable)?.file_name().into_string());
        }
        Ok(names)
    }

    /// The timeline history whose WAL is read.
    pub(crate) fn history(&self) -> &TimelineHistory {
        self.local.history()
    }

    /// Finds a file of the WAL directory by name, in any of the places. `is_shared` as in
    /// [`TargetWal::find_elsewhere`].
    pub(crate) fn find(&self, name: &str, is_shared: bool) -> Result<Option<PathBuf>, FetchWalError> {
        let local = self.local.directory().join(name);
        match local.symlink_metadata() {
            Ok(_) => return Ok(Some(local)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FetchWalError::Open { path: local, source }),
        }
        self.find_elsewhere(name, is_shared)
    }

    /// Finds a file that the WAL directory does not have. `is_shared` says that the source's file of that name would be
    /// identical.
    pub(crate) fn find_elsewhere(
        &self,
        name: &str,
        is_shared: bool,
    ) -> Result<Option<PathBuf>, FetchWalError> {
        if let Some(own) = self.find_own_elsewhere(name)? {
            return Ok(Some(own));
        }
        if is_shared { self.fetch_from_source(name) } else { Ok(None) }
    }

    /// A copy in one of the directories given by the user.
    fn find_copy(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// Finds a file in the places that hold WAL written by the target: the given directories and the archive.
    fn find_own_elsewhere(&self, name: &str) -> Result<Option<PathBuf>, FetchWalError> {
        match (self.find_copy(name), &self.archive) {
            (Some(path), _) => Ok(Some(path)),
            (None, Some(archive)) => Ok(archive.fetch(name)?),
            (None, None) => Ok(None),
        }
    }

    /// The bytes of a segment as the target itself wrote it. The source is not asked, because the segment is going to be
    /// compared with the source's.
    pub(crate) fn open_own(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        if let Some(bytes) = self.local.open(segment)? {
            return Ok(Some(bytes));
        }
        let name = self.local.file_name(segment);
        let failed = |source| WalReadError::Fetch { segment: name.clone(), source: Box::new(source) };
        let Some(path) = self.find_own_elsewhere(&name).map_err(failed)? else { return Ok(None) };
        FileBytes::open(&path).map(Some).map_err(|source| WalReadError::Open { path, source })
    }

    fn newest_here(&self) -> Result<Option<SegmentNo>, WalReadError> {
        if let Some(newest) = self.newest.get() {
            return Ok(*newest);
        }
        let newest = self.local.newest()?;
        Ok(*self.newest.get_or_init(|| newest))
    }

    /// All places in the order of the search, for messages.
    pub(crate) fn places(&self) -> String {
        let mut places = vec![format!("\"{}\"", self.local.directory().display())];
        places.extend(self.directories.iter().map(|directory| format!("\"{}\"", directory.display())));
        if self.archive.is_some() {
            places.push("the archive (restore_command)".to_owned());
        }
        if self.source.is_some() {
            places.push("the source".to_owned());
        }
        places.join(", ")
    }

    /// Fetches a file of the source's WAL directory to the temporary directory; `None` if the source does not have it.
    ///
    /// No lock is held while fetching. Rayon runs other jobs on a thread that waits, and such a job could wait for the
    /// same lock forever.
    fn fetch_from_source(&self, name: &str) -> Result<Option<PathBuf>, FetchWalError> {
        if let Some(path) = self.fetched().paths.get(name) {
            return Ok(Some(path.clone()));
        }
        let Some(source) = self.source else { return Ok(None) };
        let path = format!("{}/{name}", self.geometry.version.wal_dir());
        let Ok(path) = DataPath::parse(path) else { return Ok(None) };
        let size = self.geometry.segment_size.bytes();
        let directory = self.fetched().temporary.with_room(size);
        let directory = directory.map_err(|(_, source)| FetchWalError::Store(source))?;
        let file = NamedTempFile::new_in(&directory).map_err(FetchWalError::Store)?;
        if !store_part(source, &path, size, file.as_file(), self.pace)? {
            return Ok(None);
        }
        let mut fetched = self.fetched();
        // Another thread may have fetched the file in the meantime. Its copy may be in use, so it is left as it is.
        if let Some(path) = fetched.paths.get(name) {
            return Ok(Some(path.clone()));
        }
        let to = directory.join(name);
        file.persist(&to).map_err(|error| FetchWalError::Store(error.error))?;
        fetched.paths.insert(name.to_owned(), to.clone());
        tracing::info!("fetched WAL file \"{name}\" from the source");
        Ok(Some(to))
    }

    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentStore for TargetWal<'_> {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        self.pace.check().map_err(|stopped| WalReadError::Fetch {
            segment: self.local.file_name(segment),
            source: Box::new(stopped),
        })?;
        let size = self.geometry.segment_size;
        let local = self.local.open(segment)?;
        // A file of another size is damaged: a whole one is preferred, if there is one elsewhere.
        if local.as_ref().is_some_and(|bytes| bytes.len() as u64 == size.bytes()) {
            return Ok(local);
        }
        let name = self.local.file_name(segment);
        // Beyond the newest segment here, an archive may have segments of another server. The directories given by the
        // user are trusted to hold the target's WAL.
        let is_beyond =
            segment > size.segment_before(self.needed_end) && Some(segment) > self.newest_here()?;
        let found = if is_beyond {
            Ok(self.find_copy(&name))
        } else {
            self.find_elsewhere(&name, size.end_of(segment) <= self.shared_end)
        };
        let failed = |source| WalReadError::Fetch { segment: name.clone(), source: Box::new(source) };
        let Some(path) = found.map_err(failed)? else { return Ok(local) };
        FileBytes::open(&path).map(Some).map_err(|source| WalReadError::Open { path, source })
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        let mut newest = self.newest_here()?;
        for directory in self.directories {
            let history = self.local.history().clone();
            let copies = WalDir::new(directory, history, self.geometry.segment_size);
            newest = newest.max(copies.newest()?);
        }
        Ok(newest)
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.local.describe(segment)
    }
}
