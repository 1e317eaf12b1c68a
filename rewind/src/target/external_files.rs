//! Files of KingbaseES outside the data directory that a rewind must update: copies of the control file
//! (`control_file_copy`), and the directory to which the server itself archives WAL (`archive_dest`, V8R3).
//!
//! Apart from targets of links in the data directory, these are the only places outside it that are written. They are
//! taken from the target's configuration as it was before the rewind. Nothing is deleted: archived files of the
//! abandoned history are moved aside. These steps happen before the commit, while no server can start, and can be
//! repeated.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walparse::{Lsn, SegmentNo, TimelineHistory, TimelineId, Version, WalFileName, WalGeometry};

use crate::datadir::config::{ConfigError, Configuration};
use crate::datadir::data_path::DataPath;
use crate::datadir::walk::plain_files;
use crate::source::{Source, SourceError};
use crate::target::{Target, TargetError};

/// The paths, as the target's configuration names them; relative ones are relative to the data directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExternalFiles {
    /// Copies of the control file.
    control_copies: Vec<PathBuf>,
    /// The directory to which the server archives WAL.
    archive: Option<PathBuf>,
}

/// Timeline histories and positions that tell which branch an archived file belongs to.
pub(crate) struct Branches<'a> {
    pub(crate) geometry: WalGeometry,
    pub(crate) source_history: &'a TimelineHistory,
    pub(crate) target_history: &'a TimelineHistory,
    /// The redo location of the last common checkpoint: from there on the archive is completed.
    pub(crate) redo: Lsn,
    /// The point of divergence.
    pub(crate) fork: Lsn,
}

impl ExternalFiles {
    /// Reads the paths from the target's configuration. PostgreSQL has no such files.
    pub(crate) fn of_target(
        root: &Path,
        version: Version,
        config_file: Option<&Path>,
    ) -> Result<ExternalFiles, ConfigError> {
        if !version.flavor().is_fork() {
            return Ok(ExternalFiles::default());
        }
        let configuration = Configuration::read(root, version.names(), config_file)?;
        let paths = |name: &str| {
            let value = configuration.get(name).unwrap_or_default().to_owned();
            let paths = value.split(';').map(str::trim).filter(|path| !path.is_empty());
            paths.map(|path| root.join(path)).collect::<Vec<PathBuf>>()
        };
        let archive = if version.flavor().has_archive_dest() { paths("archive_dest") } else { Vec::new() };
        let archive = archive.into_iter().next().filter(|directory| directory.is_dir());
        Ok(ExternalFiles { control_copies: paths("control_file_copy"), archive })
    }

    /// Copies of the control file.
    pub(crate) fn control_copies(&self) -> &[PathBuf] {
        &self.control_copies
    }

    /// Logs what a rewind would do, for a dry run.
    pub(crate) fn announce(&self) {
        for path in &self.control_copies {
            tracing::info!("copy of the control file \"{}\" would be rewritten", path.display());
        }
        if let Some(directory) = &self.archive {
            tracing::info!(
                "in archive \"{}\", WAL of the abandoned history would be moved aside and missing WAL fetched from the source",
                directory.display()
            );
        }
    }

    /// Checks that all of it can be written. Changes nothing.
    pub(crate) fn check(&self) -> Result<(), TargetError> {
        let writable = |directory: &Path| {
            let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            rustix::fs::access(directory, wanted).map_err(|error| TargetError {
                action: "write to directory",
                path: directory.to_owned(),
                source: error.into(),
            })
        };
        for copy in &self.control_copies {
            writable(copy.parent().unwrap_or(Path::new("/")))?;
            if copy.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                let source = std::io::Error::other("it is not a regular file");
                return Err(TargetError { action: "rewrite control file copy", path: copy.clone(), source });
            }
        }
        self.archive.iter().try_for_each(|directory| writable(directory))
    }

    /// Overwrites every copy with `bytes`, the control file that has just been written.
    pub(crate) fn rewrite_control_copies(&self, target: &Target, bytes: &[u8]) -> Result<(), TargetError> {
        self.control_copies.iter().try_for_each(|copy| target.replace_outside(copy, bytes))
    }

    /// Moves archived files of the abandoned history aside, and fetches the source's archived files that are missing.
    pub(crate) fn rewind_archive(
        &self,
        target: &Target,
        source: &dyn Source,
        branches: &Branches<'_>,
    ) -> Result<(), ArchiveRewindError> {
        let Some(directory) = &self.archive else { return Ok(()) };
        // Listed before the source's archive: if both servers archive to the same directory, every file listed here
        // must be found there.
        let own = plain_files(directory).map_err(|error| ArchiveRewindError::List(error.into()))?;
        tracing::info!("Get archive xlog list from source");
        let theirs = match source.archive() {
            Ok(found) => Some(found.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(
                    "could not list the archive of the source; fetching nothing from it, and leaving files that may belong to its history in place: {error}"
                );
                None
            }
        };
        tracing::info!("Rewind archive log from source");
        let mut aside = None;
        let mut kept = Vec::new();
        for (name, size) in own {
            if !branches.is_abandoned(&name, directory, source, theirs.as_deref())? {
                kept.push((name, size));
                continue;
            }
            let to = match aside.take() {
                Some(to) => to,
                None => target.new_directory_outside(directory, "kbrecover.abandoned")?,
            };
            target.move_outside(&directory.join(&name), &to.join(&name))?;
            aside = Some(to);
        }
        if let Some(aside) = aside {
            tracing::info!("moved archived WAL of the abandoned history to \"{}\"", aside.display());
        }
        let theirs = theirs.unwrap_or_default();
        for (name, size) in theirs.iter().filter(|file| branches.is_wanted(file) && !kept.contains(file)) {
            match source.read_archived(name) {
                Ok(Some(bytes)) if bytes.len() as u64 == *size => {
                    target.replace_outside(&directory.join(name), &bytes)?;
                }
                Ok(_) => tracing::warn!(
                    "file \"{name}\" was removed from the archive of the source before it was fetched"
                ),
                Err(error) => {
                    tracing::warn!("could not fetch \"{name}\" from the archive of the source: {error}")
                }
            }
        }
        Ok(())
    }
}

/// Why the target's archive (`archive_dest`) could not be rewound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveRewindError {
    /// The archive directory could not be listed.
    #[error("could not list the archive of the target")]
    List(#[source] SourceError),
    /// An archived file could not be read.
    #[error("could not read archived file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read from the source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file in the archive could not be written or moved.
    #[error(transparent)]
    Write(#[from] TargetError),
}

impl Branches<'_> {
    /// Whether an archived file of the target belongs to the abandoned history. If the file's name fits both histories,
    /// because both sides are on the same timeline, it is compared with the file that the source archived under that
    /// name.
    fn is_abandoned(
        &self,
        name: &str,
        directory: &Path,
        source: &dyn Source,
        theirs: Option<&[(String, u64)]>,
    ) -> Result<bool, ArchiveRewindError> {
        let size = self.geometry.segment_size;
        let differs = |theirs: Option<Vec<u8>>| {
            let path = directory.join(name);
            let ours = std::fs::read(&path).map_err(|source| ArchiveRewindError::Read { path, source })?;
            Ok::<bool, ArchiveRewindError>(theirs.is_none_or(|theirs| theirs != ours))
        };
        match WalFileName::parse(name, size) {
            Some(
                WalFileName::Segment(timeline, segment)
                | WalFileName::Partial(timeline, segment)
                | WalFileName::Backup(timeline, segment),
            ) => {
                if size.end_of(segment) <= self.fork {
                    return Ok(false);
                }
                if timeline != self.source_history.timeline_of_segment(segment, size) {
                    return Ok(true);
                }
                if timeline != self.target_history.timeline_of_segment(segment, size) {
                    return Ok(false);
                }
                let Some(theirs) = theirs else { return Ok(false) };
                if !theirs.iter().any(|(other, _)| other == name) {
                    return Ok(true);
                }
                differs(source.read_archived(name)?)
            }
            Some(WalFileName::History(timeline)) if self.is_of_source(timeline) => {
                let path = format!("{}/{name}", self.geometry.version.wal_dir());
                let path = DataPath::parse(path).map_err(SourceError::from)?;
                match source.read_file(&path)? {
                    None => Ok(false),
                    theirs => differs(theirs),
                }
            }
            Some(WalFileName::History(_)) => Ok(true),
            None => Ok(false),
        }
    }

    /// Whether an archived file of the source is needed for replay from the common checkpoint, or is one of its history
    /// files.
    fn is_wanted(&self, (name, length): &(String, u64)) -> bool {
        let size = self.geometry.segment_size;
        let is_needed = |segment: SegmentNo| size.end_of(segment) > self.redo && *length == size.bytes();
        match WalFileName::parse(name, size) {
            Some(WalFileName::Segment(timeline, segment)) => {
                is_needed(segment) && timeline == self.source_history.timeline_of_segment(segment, size)
            }
            Some(WalFileName::History(timeline)) => self.is_of_source(timeline),
            _ => false,
        }
    }

    fn is_of_source(&self, timeline: TimelineId) -> bool {
        self.source_history.entries().iter().any(|entry| entry.timeline == timeline)
    }
}
