//! Saves data that a rewind discards to a directory before the first change: the target's WAL from the fork on and,
//! on request, the bytes that will be overwritten, truncated or removed, or the whole target.
//!
//! [`kept`](crate::apply::kept) says what is there.
//!
//! All of it is durable before the mark. A run that resumes an earlier one saves in addition what that one has not
//! changed. What it has changed is never read again, so no partly rewound file is saved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rayon::prelude::*;
use walparse::{Lsn, PageHeader, WalFileName, crc32c_append};

use crate::apply::kept::{
    FILES, KeptError, MANIFEST, Manifest, Original, REWOUND, Ranges, Rewound, SavedFile, name, read_manifest,
    without,
};
use crate::datadir::data_path::DataPath;
use crate::datadir::exclude::{Disposition, disposition};
use crate::datadir::inventory::EntryKind;
use crate::datadir::label::{BackupLabel, label_path};
use crate::datadir::server::control_path;
use crate::options::{KeepDiverged, Options, RecoveryConf, SyncChoice};
use crate::plan::Planned;
use crate::shown::Size;
use crate::target::disk::Disk;
use crate::target::{Target, TargetError};

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Why discarded data could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveDivergedError {
    /// The directory cannot be used.
    #[error("cannot save discarded data in directory \"{}\": {problem}", path.display())]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        problem: &'static str,
    },
    /// The unfinished rewind saved nothing, or saved it elsewhere.
    #[error("the unfinished rewind was started {}", begun_with(begun.as_ref()))]
    Other {
        /// What it saved, and where.
        begun: Option<KeepDiverged>,
    },
    /// The manifest of an earlier run cannot be read.
    #[error(transparent)]
    Manifest(#[from] KeptError),
    /// A file of the target could not be read.
    #[error("could not read file \"{}\" to save it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or directory there could not be written.
    #[error(transparent)]
    Write(#[from] TargetError),
}

/// The options that the unfinished rewind was started with.
fn begun_with(begun: Option<&KeepDiverged>) -> String {
    let Some(begun) = begun else {
        return "without --keep-diverged: the data that it discarded is gone".to_owned();
    };
    let more = match (begun.all, begun.blocks) {
        (true, _) => " and --keep-diverged-all",
        (false, true) => " and --keep-diverged-blocks",
        (false, false) => "",
    };
    format!("with --keep-diverged \"{}\"{more}", begun.directory.display())
}

impl SaveDivergedError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            SaveDivergedError::Place { .. } => {
                "Name a directory outside the data directory that is empty or does not exist."
            }
            SaveDivergedError::Other { begun: None } => "Leave out --keep-diverged to finish it.",
            SaveDivergedError::Other { .. } => {
                "Leave the option out: the run then goes on with the options of the unfinished rewind."
            }
            SaveDivergedError::Manifest(_) => {
                "Make sure that this user can read it. Without it, kbrecover cannot determine what has been saved already."
            }
            SaveDivergedError::Read { .. } => {
                "Run kbrecover as the user who owns the data directory, and make sure that the file is accessible."
            }
            SaveDivergedError::Write(_) => {
                "Make sure that this user can write there and that there is enough free space."
            }
        };
        Some(hint.to_owned())
    }
}

/// What to save, and where.
#[derive(Debug)]
pub(crate) struct Saving {
    choice: KeepDiverged,
    /// The manifest of everything that will be in the directory.
    manifest: Manifest,
    /// Names of the WAL files that this run saves.
    wal: Vec<String>,
    /// Files, and their ranges, that this run saves.
    files: Vec<(DataPath, Ranges)>,
    wal_dir: &'static str,
    is_durable: bool,
}

impl Saving {
    /// Checks the directory and determines what to save; `None` if nothing is to be saved. Nothing is changed.
    ///
    /// # Errors
    /// The directory cannot be used, or the unfinished rewind was started with other options.
    pub(crate) fn prepare(
        options: &Options,
        asked: Option<&KeepDiverged>,
        target: &Target,
        planned: &Planned<'_>,
        source: String,
    ) -> Result<Option<Saving>, SaveDivergedError> {
        let is_resumed = planned.facts.resumed.is_some();
        let asked = asked.map(absolute).transpose()?;
        let chosen = if is_resumed {
            if asked.is_some() && asked.as_ref() != planned.facts.saved_before() {
                return Err(SaveDivergedError::Other { begun: planned.facts.saved_before().cloned() });
            }
            planned.facts.saved_before().cloned()
        } else {
            asked
        };
        let Some(choice) = chosen else { return Ok(None) };
        let directory = choice.directory.clone();
        let version = planned.facts.clusters.target.version();
        check_place(&directory, target.root(), version.names().tablespace_dir, version.wal_dir())?;
        let control_crc32c = crc32c_append(0, planned.facts.clusters.target.bytes());
        let before = match read_manifest(&directory)? {
            Some(before)
                if before.control_crc32c == control_crc32c && before.target == text(target.root()) =>
            {
                // After a run that ended before its mark, nothing has changed and all can be saved again.
                is_resumed.then_some(before)
            }
            Some(_) => return Err(place(&directory, "it contains data saved by another rewind")),
            None if is_resumed => {
                return Err(place(&directory, "the data saved by the unfinished rewind is missing"));
            }
            None if is_filled(&directory) => return Err(place(&directory, "it is not empty")),
            None => None,
        };
        let divergence = planned.facts.fork.divergence;
        let mut manifest = before.unwrap_or_else(|| Manifest {
            format: 1,
            complete: false,
            what: WHAT.replace("pg_wal", version.wal_dir()),
            target: text(target.root()),
            source,
            begun: format!("{:.0}", Timestamp::now()),
            system_identifier: planned.facts.clusters.target.system_identifier(),
            control_crc32c,
            diverged_at: divergence.map_or(Lsn::INVALID, |at| at.lsn).to_string(),
            diverged_from_timeline: divergence.map_or(0, |at| at.timeline.0),
            wal: BTreeSet::new(),
            files: BTreeMap::new(),
            made: BTreeSet::new(),
            verifies: false,
            original: (choice.blocks || choice.all).then(|| original(planned, choice.all)),
        });
        let wal = if is_resumed { Vec::new() } else { own_wal(target.root(), planned, &choice) };
        manifest.wal.extend(wal.iter().cloned());
        manifest.verifies |= options.verify;
        let is_written = options.recovery_conf != RecoveryConf::Leave;
        let wanted = wanted(target.root(), planned, &choice, is_written);
        let files = manifest.add(wanted);
        let is_durable = options.sync != SyncChoice::Off;
        Ok(Some(Saving { choice, manifest, wal, files, wal_dir: version.wal_dir(), is_durable }))
    }

    /// The directory and extent, for the journal.
    pub(crate) fn choice(&self) -> KeepDiverged {
        self.choice.clone()
    }

    /// The directory, and an estimate of the bytes needed in it, including the manifest.
    pub(crate) fn need(&self, planned: &Planned<'_>) -> (&Path, u64) {
        let segment = planned.facts.clusters.target.geometry().segment_size.bytes();
        let files = self.files.iter().flat_map(|(_, ranges)| ranges).map(|(from, to)| to - from + BLOCK);
        let manifest = serde_json::to_vec(&self.manifest).map_or(0, |text| 3 * text.len() as u64);
        let wal = segment.saturating_mul(self.wal.len() as u64);
        (&self.choice.directory, files.fold(wal + manifest, u64::saturating_add))
    }

    /// Saves everything, durably.
    ///
    /// # Errors
    /// A file of the target could not be read, or its copy could not be written.
    pub(crate) fn copy(mut self, target: &Target) -> Result<(), SaveDivergedError> {
        let disk = target.disk();
        let mut made = Made::default();
        made.directory(disk, &self.choice.directory)?;
        if !self.manifest.complete {
            self.write_manifest(target)?;
        }
        let wal = self.choice.directory.join(self.wal_dir);
        let files = self.choice.directory.join(FILES);
        let mut jobs = Vec::new();
        if !self.wal.is_empty() {
            made.directory(disk, &wal)?;
        }
        for name in &self.wal {
            let from = target.root().join(self.wal_dir).join(name);
            let length = from.metadata().map_or(0, |metadata| metadata.len());
            jobs.push((from, wal.join(name), vec![(0, length)]));
        }
        for (path, ranges) in &self.files {
            made.directories(disk, &self.choice.directory, path)?;
            jobs.push((path.below(target.root()), path.below(&files), ranges.clone()));
        }
        let is_fresh = !self.manifest.complete;
        jobs.par_iter().try_for_each(|(from, to, ranges)| {
            copy_ranges(disk, from, to, ranges, Writing { is_fresh, is_durable: self.is_durable })
        })?;
        if self.is_durable {
            made.sync(disk)?;
        }
        self.manifest.complete = true;
        self.write_manifest(target)?;
        let bytes: u64 = jobs.iter().flat_map(|(.., ranges)| ranges).map(|(from, to)| to - from).sum();
        tracing::info!(
            "saved {} of discarded data in \"{}\": {} WAL files, parts of {} files",
            Size(bytes),
            self.choice.directory.display(),
            self.wal.len(),
            self.files.len()
        );
        Ok(())
    }

    fn write_manifest(&self, target: &Target) -> Result<(), SaveDivergedError> {
        let text = serde_json::to_vec_pretty(&self.manifest).unwrap_or_default();
        Ok(target.replace_outside(&self.choice.directory.join(MANIFEST), &text)?)
    }
}

/// Notes in the directory what the rewind has made of the target. `verified` is the number of blocks that verifying it has copied in a
/// run that resumed no other.
///
/// # Errors
/// A file could not be read, or the note not written.
pub(crate) fn note_rewound(
    directory: &Path,
    target: &Target,
    verified: Option<u64>,
) -> Result<(), SaveDivergedError> {
    let verifies = read_manifest(directory)?.is_none_or(|manifest| manifest.verifies);
    let path = label_path().below(target.root());
    let label = std::fs::read(&path).map_err(|source| SaveDivergedError::Read { path, source })?;
    // What a run has copied that was killed is not known.
    let note = Rewound { label_crc32c: crc32c_append(0, &label), is_exact: !verifies || verified == Some(0) };
    let note = serde_json::to_vec(&note).unwrap_or_default();
    Ok(target.replace_outside(&directory.join(REWOUND), &note)?)
}

/// The explanation in the manifest.
const WHAT: &str = "Data that a rewind of the target discarded. pg_wal: its WAL from the fork on. files: bytes of its files \
                    before the rewind at their offsets, with holes between them; a range is the first byte and the byte \
                    behind the last one. made: files that the rewind created. original: what the target consisted of. \
                    To restore it: kbrecover restore.";

/// Bytes that file systems usually allocate at a time.
const BLOCK: u64 = 4096;

impl Manifest {
    /// Adds ranges to save, except those saved already and those in files that an earlier run created. Returns what
    /// is new.
    fn add(&mut self, wanted: Wanted) -> Vec<(DataPath, Ranges)> {
        let mut new = Vec::new();
        for (path, (size, ranges)) in wanted.files {
            let name = name(&path);
            if self.made.contains(&name) {
                continue;
            }
            let saved = self.files.entry(name).or_insert_with(|| SavedFile { size, ranges: Vec::new() });
            // Bytes behind its original end were written by an earlier run.
            let ranges = ranges.into_iter().map(|(from, to)| (from, to.min(saved.size)));
            let missing = without(&ranges.filter(|(from, to)| from <= to).collect(), &saved.ranges);
            if saved.ranges.is_empty() || !missing.is_empty() {
                saved.ranges.extend(&missing);
                saved.ranges.sort_unstable();
                new.push((path, missing));
            }
        }
        let files = &self.files;
        self.made.extend(wanted.made.iter().map(name).filter(|name| !files.contains_key(name)));
        new
    }
}

/// What the plan changes.
#[derive(Default)]
struct Wanted {
    /// The size of each file, and the ranges that change.
    files: BTreeMap<DataPath, (u64, Ranges)>,
    /// Files that the plan creates.
    made: Vec<DataPath>,
}

/// What the plan changes: the files written last and, if that is asked for, all others; or everything.
fn wanted(root: &Path, planned: &Planned<'_>, choice: &KeepDiverged, recovery_conf: bool) -> Wanted {
    let mut wanted = Wanted::default();
    let size_of = |path: &DataPath| match planned.facts.files.target.get(path) {
        Some(EntryKind::File { size }) => Some(*size),
        _ => None,
    };
    let mut whole = |path: &DataPath, size: Option<u64>| match size {
        Some(size) => drop(wanted.files.insert(path.clone(), (size, vec![(0, size)]))),
        None => wanted.made.push(path.clone()),
    };
    let is_resumed = planned.facts.resumed.is_some();
    // These files change last. The plan does not contain them.
    let names = planned.facts.clusters.target.version().names();
    let mut last = vec![control_path(names), label_path()];
    if recovery_conf {
        let files = [names.auto_config_file, "recovery.conf"];
        last.extend(files.into_iter().filter_map(|path| DataPath::parse(path).ok()));
    }
    for path in last {
        match path.below(root).symlink_metadata() {
            Ok(found) if found.is_file() && !is_resumed => whole(&path, Some(found.len())),
            Err(_) if path == label_path() => whole(&path, None),
            _ => {}
        }
    }
    if choice.all || choice.blocks {
        // Files of the data directory itself are small, and people and managers change them. Those of prepared transactions may be
        // removed at the end.
        let prepared = format!("{}twophase", names.prefix);
        let is_small = |path: &DataPath| {
            path.parent().is_none() || path.parts().next().is_some_and(|part| part == prepared.as_bytes())
        };
        let files = planned.facts.files.target.entries().iter();
        files
            .filter(|(path, kind)| {
                is_file(kind) && is_original(path, planned) && (choice.all || is_small(path))
            })
            .for_each(|(path, _)| whole(path, size_of(path)));
    }
    if !choice.blocks || choice.all {
        return wanted;
    }
    let plan = &planned.plan;
    let copied = plan.copy.iter().map(|(path, _)| path).chain(plan.patch.iter().map(|patch| &patch.path));
    let removed = plan.remove.iter().filter(|(_, kind)| matches!(kind, EntryKind::File { .. }));
    copied.chain(removed.map(|(path, _)| path)).for_each(|path| whole(path, size_of(path)));
    let block_size = u64::from(planned.facts.clusters.target.block_size());
    let mut parts: BTreeMap<&DataPath, Ranges> = BTreeMap::new();
    for (path, blocks) in &plan.blocks {
        let ranges = parts.entry(path).or_default();
        for block in blocks {
            let from = u64::from(block) * block_size;
            match ranges.last_mut() {
                Some((_, end)) if *end == from => *end += block_size,
                _ => ranges.push((from, from + block_size)),
            }
        }
    }
    for tail in &plan.copy_tail {
        parts.entry(&tail.path).or_default().push((tail.from, u64::MAX));
    }
    for (path, size) in &plan.truncate {
        parts.entry(path).or_default().push((*size, u64::MAX));
    }
    for (path, ranges) in parts {
        if let Some(size) = size_of(path) {
            let ranges = ranges.into_iter().map(|(from, to)| (from, to.min(size)));
            let ranges = ranges.filter(|(from, to)| from < to).collect();
            wanted.files.insert(path.clone(), (size, ranges));
        }
    }
    wanted
}

fn is_file(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::File { .. })
}

/// Whether a path belongs to what can be restored: not to WAL, nor to a process that ran on the target.
fn is_original(path: &DataPath, planned: &Planned<'_>) -> bool {
    let version = planned.facts.clusters.target.version();
    let names = version.names();
    let is_wal = path.parts().next() == Some(version.wal_dir().as_bytes());
    let is_control = path == &control_path(names);
    let is_of_process = path.as_bytes() == names.lock_file.as_bytes();
    is_control || !(is_wal || is_of_process || disposition(path, names) == Disposition::LeaveAlone)
}

/// What the target consists of.
fn original(planned: &Planned<'_>, whole: bool) -> Original {
    let version = planned.facts.clusters.target.version();
    let mut original = Original {
        whole,
        wal_dir: version.wal_dir().to_owned(),
        control_file: name(&control_path(version.names())),
        outside: planned.facts.external.control_copies().iter().map(|path| text(path)).collect(),
        ..Original::default()
    };
    for (path, kind) in planned.facts.files.target.entries() {
        match kind {
            EntryKind::Directory => drop(original.directories.insert(name(path))),
            EntryKind::Symlink { target } => {
                original.tablespaces.insert(name(path), text(target));
            }
            EntryKind::File { size } if is_original(path, planned) => {
                original.files.insert(name(path), *size);
            }
            EntryKind::Other if is_original(path, planned) => original.others.push(name(path)),
            EntryKind::File { .. } | EntryKind::Other => {}
        }
    }
    original
}

/// The target's own WAL files that contain WAL or history from the fork on. If more than WAL is saved, also the WAL from
/// before the fork that the target's server would replay. Recycled and preallocated segments are left out.
fn own_wal(root: &Path, planned: &Planned<'_>, choice: &KeepDiverged) -> Vec<String> {
    let mut from = planned.facts.fork.common_until;
    if choice.blocks || choice.all {
        from = from.min(planned.facts.clusters.target.checkpoint().redo);
        if let Some(BackupLabel::Start { redo, .. }) = planned.facts.clusters.label {
            from = from.min(redo);
        }
    }
    let geometry = planned.facts.clusters.target.geometry();
    let (size, wal_dir) = (geometry.segment_size, geometry.version.wal_dir());
    let is_used = |name: &str, start: Lsn| {
        let mut page = vec![0; PageHeader::length_at(start, &geometry)];
        let read =
            File::open(root.join(wal_dir).join(name)).and_then(|file| file.read_exact_at(&mut page, 0));
        // A segment that cannot be read is reported when it is copied.
        read.is_err() || PageHeader::check(&page, start, &geometry).is_ok()
    };
    let names = planned.facts.files.target.entries().iter().filter_map(|(path, kind)| {
        let name = path.as_str()?.strip_prefix(wal_dir)?.strip_prefix('/')?;
        matches!(kind, EntryKind::File { .. }).then_some(name)
    });
    let wanted = names.filter(|name| match WalFileName::parse(name, size) {
        Some(WalFileName::Segment(_, segment)) => {
            size.end_of(segment) > from && is_used(name, size.start_of(segment))
        }
        Some(WalFileName::Partial(_, segment) | WalFileName::Backup(_, segment)) => {
            size.end_of(segment) > from
        }
        Some(WalFileName::History(_)) => true,
        None => false,
    });
    wanted.map(str::to_owned).collect()
}

/// How files are written.
#[derive(Clone, Copy)]
struct Writing {
    /// Whether existing files are left over from a run that ended before its mark, and are overwritten.
    is_fresh: bool,
    is_durable: bool,
}

/// Copies ranges of the file `from` to the same offsets of the file `to`.
fn copy_ranges(
    disk: &Disk,
    from: &Path,
    to: &Path,
    ranges: &Ranges,
    writing: Writing,
) -> Result<(), SaveDivergedError> {
    let unread = |source| SaveDivergedError::Read { path: from.to_owned(), source };
    let failed = |source| TargetError { action: "write file", path: to.to_owned(), source };
    let source = File::open(from).map_err(unread)?;
    let file = match disk.open_file(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => disk.create_file(to, 0o600),
        Ok(file) if writing.is_fresh => disk.set_length(&file, to, 0).map(|()| file),
        other => other,
    };
    let file = file.map_err(failed)?;
    let mut buffer = vec![0; PIECE];
    for &(mut at, end) in ranges {
        // Large files share their blocks with the copy where the file system can do that.
        at += disk.copy_range(&source, &file, at, end - at).map_err(failed)?.unwrap_or(0);
        while at < end {
            let piece = &mut buffer[..usize::try_from(end - at).unwrap_or(PIECE).min(PIECE)];
            source.read_exact_at(piece, at).map_err(unread)?;
            disk.write(&file, to, piece, at).map_err(failed)?;
            at += piece.len() as u64;
        }
    }
    if writing.is_durable {
        disk.sync_file(&file, to).map_err(failed)?;
    }
    Ok(())
}

/// Directories in which names were created.
#[derive(Default)]
struct Made {
    directories: BTreeSet<PathBuf>,
}

impl Made {
    /// Creates a directory if it does not exist.
    fn directory(&mut self, disk: &Disk, path: &Path) -> Result<(), TargetError> {
        self.directories.insert(path.to_owned());
        match disk.create_directory(path, 0o700) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Ok(()) => {
                self.directories.extend(path.parent().map(Path::to_owned));
                Ok(())
            }
            Err(source) => Err(TargetError { action: "create directory", path: path.to_owned(), source }),
        }
    }

    /// Creates the directories that `path` needs below `files`.
    fn directories(&mut self, disk: &Disk, directory: &Path, path: &DataPath) -> Result<(), TargetError> {
        let files = directory.join(FILES);
        let mut above = vec![files.clone()];
        let mut parent = path.parent();
        while let Some(path) = parent {
            above.insert(1, path.below(&files));
            parent = path.parent();
        }
        above
            .iter()
            .filter(|path| !self.directories.contains(*path))
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .try_for_each(|path| self.directory(disk, path))
    }

    /// Makes the names in all these directories durable.
    fn sync(&self, disk: &Disk) -> Result<(), TargetError> {
        self.directories.iter().try_for_each(|path| {
            disk.sync_directory(path).map_err(|source| TargetError {
                action: "fsync directory",
                path: path.clone(),
                source,
            })
        })
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn place(path: &Path, problem: &'static str) -> SaveDivergedError {
    SaveDivergedError::Place { path: path.to_owned(), problem }
}

/// The same with an absolute path, so that the working directory does not matter. The directory itself need not
/// exist.
fn absolute(asked: &KeepDiverged) -> Result<KeepDiverged, SaveDivergedError> {
    let path = &asked.directory;
    let found = path.canonicalize().or_else(|_| {
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        parent.canonicalize().map(|parent| parent.join(name))
    });
    let directory = found.map_err(|_| place(path, "its parent directory does not exist"))?;
    if directory.to_str().is_none() {
        return Err(place(path, "its name is not UTF-8"));
    }
    Ok(KeepDiverged { directory, ..asked.clone() })
}

/// Whether a path without links is inside a data directory, its tablespaces or its WAL directory.
pub(crate) fn is_inside(directory: &Path, root: &Path, tablespaces: &str, wal_dir: &str) -> bool {
    let links = std::fs::read_dir(root.join(tablespaces)).into_iter().flatten().flatten();
    let places = links.map(|entry| entry.path()).chain([root.to_owned(), root.join(wal_dir)]);
    places.filter_map(|path| path.canonicalize().ok()).any(|inside| directory.starts_with(inside))
}

/// Checks that the directory is outside the data directory and its tablespaces, and writable.
fn check_place(
    directory: &Path,
    root: &Path,
    tablespaces: &str,
    wal_dir: &str,
) -> Result<(), SaveDivergedError> {
    if is_inside(directory, root, tablespaces, wal_dir) {
        return Err(place(directory, "it is inside the data directory or a part of it"));
    }
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let to_write = if directory.exists() { Some(directory) } else { directory.parent() };
    match to_write.map(|path| rustix::fs::access(path, wanted)) {
        _ if directory.exists() && !directory.is_dir() => Err(place(directory, "it is not a directory")),
        Some(Ok(())) => Ok(()),
        _ => Err(place(directory, "this user cannot write there")),
    }
}

/// Whether there are entries in a directory.
fn is_filled(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}
