//! The target's WAL, wherever it still is.
//!
//! A segment is looked for in the target's WAL directory, then in the directories given, in the archive
//! (up to the newest segment that is here: what an archive has behind that may be others'), and, wholly
//! below the fork, on the source, whose history is the same there. What is fetched goes to a temporary
//! directory: the target stays untouched.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::{NamedTempFile, TempDir};
use walparse::{FileBytes, Lsn, SegmentNo, SegmentStore, TimelineHistory, WalDir, WalGeometry, WalReadError};

use crate::datadir::data_path::DataPath;
use crate::source::{FetchError, Source, SourceError, store_part};
use crate::stop::StopFlag;
use crate::wal::archive::{Archive, ArchiveError};

/// The places WAL of the target may be in.
pub(crate) struct TargetWal<'a> {
    local: WalDir,
    directories: &'a [PathBuf],
    archive: Option<Archive>,
    source: &'a dyn Source,
    /// Reading may take long, and may end at any segment.
    stop: StopFlag,
    geometry: WalGeometry,
    /// Up to here the source's WAL is the target's.
    shared_end: Lsn,
    /// Up to here other places than the WAL directory are asked.
    needed_end: Lsn,
    /// The newest segment in the WAL directory, once it was asked for: nothing changes there meanwhile.
    newest: OnceLock<Option<SegmentNo>>,
    fetched: Mutex<Fetched>,
}

#[derive(Default)]
struct Fetched {
    names: HashSet<String>,
    directory: Option<TempDir>,
}

/// Why a place could not hand out a file.
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
    #[error("could not store it in a temporary directory")]
    Store(#[source] io::Error),
}

impl<'a> TargetWal<'a> {
    /// The WAL of `target` in its own history; nothing is shared or needed before [`TargetWal::set_limits`].
    pub(crate) fn new(
        target: &Path,
        history: TimelineHistory,
        geometry: WalGeometry,
        directories: &'a [PathBuf],
        archive: Option<Archive>,
        source: &'a dyn Source,
        stop: StopFlag,
    ) -> TargetWal<'a> {
        let wal_dir = target.join(geometry.version.wal_dir());
        TargetWal {
            local: WalDir::new(wal_dir, history, geometry.segment_size),
            directories,
            archive,
            source,
            stop,
            geometry,
            shared_end: Lsn::INVALID,
            needed_end: Lsn::INVALID,
            newest: OnceLock::new(),
            fetched: Mutex::default(),
        }
    }

    /// Says how far the history is shared with the source, and how far WAL must be there.
    pub(crate) fn set_limits(&mut self, shared_end: Lsn, needed_end: Lsn) {
        (self.shared_end, self.needed_end) = (shared_end, needed_end);
    }

    /// Reads the WAL in this history from now on.
    pub(crate) fn set_history(&mut self, history: TimelineHistory) {
        self.local = WalDir::new(self.local.directory(), history, self.geometry.segment_size);
        self.newest = OnceLock::new();
    }

    /// The history the WAL is read in.
    pub(crate) fn history(&self) -> &TimelineHistory {
        self.local.history()
    }

    /// A file of the WAL directory by name, if any place has it.
    pub(crate) fn find(&self, name: &str, is_shared: bool) -> Result<Option<PathBuf>, FetchWalError> {
        let local = self.local.directory().join(name);
        match local.symlink_metadata() {
            Ok(_) => return Ok(Some(local)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FetchWalError::Open { path: local, source }),
        }
        self.find_elsewhere(name, is_shared)
    }

    /// A file that the WAL directory does not have. `is_shared` says that the source's would be the same.
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

    /// A copy in one of the directories given.
    fn find_copy(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// The same from places that hold WAL of the target itself.
    fn find_own_elsewhere(&self, name: &str) -> Result<Option<PathBuf>, FetchWalError> {
        match (self.find_copy(name), &self.archive) {
            (Some(path), _) => Ok(Some(path)),
            (None, Some(archive)) => Ok(archive.fetch(name)?),
            (None, None) => Ok(None),
        }
    }

    /// The bytes of a segment as the target itself wrote it: the source is not asked, for what is the
    /// target's own is compared with it.
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

    /// The places that were or would be asked, for messages.
    pub(crate) fn places(&self) -> String {
        let mut places = vec![format!("\"{}\"", self.local.directory().display())];
        places.extend(self.directories.iter().map(|directory| format!("\"{}\"", directory.display())));
        if self.archive.is_some() {
            places.push("the archive (restore_command)".to_owned());
        }
        places.push("the source".to_owned());
        places.join(", ")
    }

    /// A copy of a file of the source's WAL directory, in the temporary directory.
    ///
    /// Nothing is locked while it is fetched: threads that wait for each other's work would wait for ever.
    fn fetch_from_source(&self, name: &str) -> Result<Option<PathBuf>, FetchWalError> {
        if let Some(path) = self.fetched().get(name) {
            return Ok(Some(path));
        }
        let path = format!("{}/{name}", self.geometry.version.wal_dir());
        let Ok(path) = DataPath::parse(path) else { return Ok(None) };
        let directory = self.fetched().directory().map_err(FetchWalError::Store)?;
        let file = NamedTempFile::new_in(&directory).map_err(FetchWalError::Store)?;
        if !store_part(self.source, &path, self.geometry.segment_size.bytes(), file.as_file())? {
            return Ok(None);
        }
        let mut fetched = self.fetched();
        // Another thread may have been faster; its copy may be mapped by now and stays as it is.
        if let Some(path) = fetched.get(name) {
            return Ok(Some(path));
        }
        let to = directory.join(name);
        file.persist(&to).map_err(|error| FetchWalError::Store(error.error))?;
        fetched.names.insert(name.to_owned());
        tracing::info!("fetched WAL file \"{name}\" from the source");
        Ok(Some(to))
    }

    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetched {
    /// The temporary directory, made if it is not there yet.
    fn directory(&mut self) -> io::Result<PathBuf> {
        if self.directory.is_none() {
            self.directory = Some(tempfile::tempdir()?);
        }
        Ok(self.directory.as_ref().map(|directory| directory.path().to_owned()).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<PathBuf> {
        let directory = self.directory.as_ref().filter(|_| self.names.contains(name))?;
        Some(directory.path().join(name))
    }
}

impl SegmentStore for TargetWal<'_> {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        self.stop.check().map_err(|stopped| WalReadError::Fetch {
            segment: self.local.file_name(segment),
            source: Box::new(stopped),
        })?;
        if let Some(bytes) = self.local.open(segment)? {
            return Ok(Some(bytes));
        }
        let size = self.geometry.segment_size;
        let name = self.local.file_name(segment);
        // Behind the end of what is here, an archive may have what others wrote. A directory that was given
        // has what the user says is the target's.
        let is_behind =
            segment > size.segment_before(self.needed_end) && Some(segment) > self.newest_here()?;
        let found = if is_behind {
            Ok(self.find_copy(&name))
        } else {
            self.find_elsewhere(&name, size.end_of(segment) <= self.shared_end)
        };
        let failed = |source| WalReadError::Fetch { segment: name.clone(), source: Box::new(source) };
        let Some(path) = found.map_err(failed)? else { return Ok(None) };
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
