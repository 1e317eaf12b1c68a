//! Restores a data directory as it was before a rewind: from what the rewind has saved and, unless that is everything, from the
//! rewound directory.
//!
//! ```text
//! DIR/files    ranges that the rewind has overwritten, cut off or removed ──┐
//! DIR/pg_wal   WAL from where the old server would start replay           ──┼──▶ NEWDIR
//! REWOUND      everything else: the rewind has not touched it             ──┘
//! ```
//!
//! Once a server has been started on the rewound directory, replay has changed blocks there that the rewind had left alone, and
//! nobody has their old contents. Its `backup_label` shows that: the server renames it before replay begins. So the label must be
//! the one that this rewind has written, before the copy and after it. Directory and control file come last: without it no server
//! starts on what is not complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use walparse::crc32c_append;

use crate::apply::kept::{
    FILES, KeptError, Manifest, Original, REWOUND, Ranges, Rewound, SavedFile, path, read_manifest, without,
};
use crate::datadir::data_path::DataPath;
use crate::datadir::label::label_path;
use crate::observer::ChangeObserver;
use crate::stop::StopFlag;
use crate::target::TargetError;
use crate::target::disk::Disk;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// What to restore, and where.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// A directory made by [`KeepDiverged`](crate::KeepDiverged).
    pub kept: PathBuf,
    /// The directory to make, which must not exist or be empty.
    pub to: PathBuf,
    /// The rewound directory; `None`: where it was when it was rewound. It is not used if all was saved.
    pub rewound: Option<PathBuf>,
    /// For the directory of each tablespace another one, absolute, which must not exist or be empty: the rewound node has the old
    /// one now.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Stops the run.
    pub stop: StopFlag,
    /// Is told of each change.
    pub observer: Option<Arc<dyn ChangeObserver>>,
}

impl RestoreRequest {
    /// Restores what is in `kept` to `to`.
    pub fn new(kept: PathBuf, to: PathBuf) -> RestoreRequest {
        RestoreRequest {
            kept,
            to,
            rewound: None,
            tablespace_mapping: Vec::new(),
            stop: StopFlag::default(),
            observer: None,
        }
    }
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// Files, WAL among them.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes among them that come from the rewound directory.
    pub from_rewound: u64,
    /// Links and other entries that were no files, and were left out.
    pub left_out: Vec<String>,
}

/// Why a data directory could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] KeptError),
    /// There is no manifest.
    #[error("directory \"{}\" was not made by --keep-diverged: it has no manifest", path.display())]
    NotKept {
        /// The directory.
        path: PathBuf,
    },
    /// Too little was saved.
    #[error("what is kept in \"{}\" is not enough to restore the data directory: {problem}", path.display())]
    NotEnough {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A server on the restored directory would use files of the rewound one.
    #[error("cannot restore a data directory that had files outside of it: \"{outside}\"")]
    Outside {
        /// One of them.
        outside: String,
    },
    /// It is not known where a tablespace shall be.
    #[error("cannot restore the tablespace in \"{location}\": no directory was given for it")]
    NoPlace {
        /// Where it was.
        location: String,
    },
    /// There was no such tablespace.
    #[error("there was no tablespace in \"{}\"", location.display())]
    NoTablespace {
        /// The directory that was given.
        location: PathBuf,
    },
    /// The new directory cannot be used.
    #[error("cannot restore to directory \"{}\": {problem}", path.display())]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        problem: &'static str,
    },
    /// The rewound directory, or a file there, does not have what it had after the rewind.
    #[error("\"{}\" is not as the rewind left it: {problem}", path.display())]
    Rewound {
        /// The directory or file.
        path: PathBuf,
        /// What is different.
        problem: &'static str,
    },
    /// A file could not be read.
    #[error("could not read file \"{}\" to restore it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new directory could not be written.
    #[error(transparent)]
    Write(#[from] TargetError),
}

impl RestoreError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            RestoreError::Manifest(_) | RestoreError::Read { .. } => {
                "Run kbrecover as the user who owns these directories, and make sure that the file is accessible."
            }
            RestoreError::NotKept { .. } => "Name the directory that the rewind was given.",
            RestoreError::NotEnough { .. } | RestoreError::Rewound { .. } => {
                "The lost rows are in its \"lost\" and its WAL. To be able to restore the data directory whatever becomes of the \
                 rewound one, rewind with --keep-diverged-all."
            }
            RestoreError::Outside { .. } => {
                "A server on the restored directory would write there, and the rewound one has these files now."
            }
            RestoreError::NoPlace { location } => {
                return Some(format!(
                    "The rewound node has its files now. Name another directory: --tablespace-mapping {location}=NEWDIR."
                ));
            }
            RestoreError::NoTablespace { .. } => {
                "Name the directory as the link in the data directory did; \"original\" in kept.json lists them."
            }
            RestoreError::Place { .. } => {
                "Name a directory that is empty or does not exist, outside of all others."
            }
            RestoreError::Write(_) => "Remove the new directory, and free space or name another.",
        };
        Some(hint.to_owned())
    }
}

/// Restores a data directory.
///
/// # Errors
/// Not all of it is known, or a file could not be read or written.
pub(crate) fn restore(request: &RestoreRequest) -> Result<Restored, RestoreError> {
    let kept = &request.kept;
    let manifest = read_manifest(kept)?.ok_or_else(|| RestoreError::NotKept { path: kept.clone() })?;
    let original = original(kept, &manifest)?;
    let base = match original.whole {
        true => None,
        false => Some(Base::open(request, &manifest)?),
    };
    let tablespaces = tablespaces(request, original)?;
    let work =
        Restoring { kept, to: &request.to, original, tablespaces, manifest: &manifest, base: base.as_ref() };
    work.check_places()?;
    let (jobs, control) = work.jobs()?;
    let disk = Disk::new(request.stop.clone(), request.observer.clone());
    work.make_directories(&disk)?;
    jobs.par_iter().try_for_each(|job| job.copy(&disk))?;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::from(TargetError { action, path, source })
    };
    if let Some(base) = &base {
        base.check()?;
    }
    for place in work.places() {
        disk.sync_file_system(place).map_err(failed("synchronize the file system of", place))?;
    }
    control.copy(&disk)?;
    disk.sync_file_system(&request.to).map_err(failed("synchronize the file system of", &request.to))?;
    let all = || jobs.iter().chain([&control]);
    Ok(Restored {
        files: jobs.len() + 1,
        bytes: all().map(|job| job.size).sum(),
        from_rewound: all().map(|job| job.gaps().iter().map(|(from, to)| to - from).sum::<u64>()).sum(),
        left_out: original.others.clone(),
    })
}

/// What the target consisted of, if so much was saved.
fn original<'a>(kept: &Path, manifest: &'a Manifest) -> Result<&'a Original, RestoreError> {
    let lacking =
        |problem: &str| RestoreError::NotEnough { path: kept.to_owned(), problem: problem.to_owned() };
    if !manifest.complete {
        return Err(lacking("the rewind ended while it was saving"));
    }
    let original = manifest.original.as_ref().ok_or_else(|| {
        lacking(
            "the rewind had neither --keep-diverged-blocks nor --keep-diverged-all, so it has kept WAL only",
        )
    })?;
    match original.outside.first() {
        Some(outside) => Err(RestoreError::Outside { outside: outside.clone() }),
        None => Ok(original),
    }
}

/// The rewound directory.
struct Base {
    root: PathBuf,
    /// The CRC-32C of its label.
    label: u32,
}

impl Base {
    fn open(request: &RestoreRequest, manifest: &Manifest) -> Result<Base, RestoreError> {
        let note = request.kept.join(REWOUND);
        let text = match std::fs::read(&note) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let problem = "the rewind has not noted its end".to_owned();
                return Err(RestoreError::NotEnough { path: request.kept.clone(), problem });
            }
            Err(source) => return Err(RestoreError::Read { path: note, source }),
        };
        let rewound: Rewound = serde_json::from_slice(&text)
            .map_err(|error| KeptError { path: note, problem: error.to_string() })?;
        if !rewound.is_exact {
            let problem = "--verify has overwritten blocks that were not kept, or may have".to_owned();
            return Err(RestoreError::NotEnough { path: request.kept.clone(), problem });
        }
        let root = request.rewound.clone().unwrap_or_else(|| PathBuf::from(&manifest.target));
        let base = Base { root, label: rewound.label_crc32c };
        base.check()?;
        Ok(base)
    }

    /// Checks that no server has begun to replay on it, and that no other rewind has changed it.
    fn check(&self) -> Result<(), RestoreError> {
        let changed = |problem| RestoreError::Rewound { path: self.root.clone(), problem };
        match std::fs::read(label_path().below(&self.root)) {
            Ok(label) if crc32c_append(0, &label) == self.label => Ok(()),
            Ok(_) => Err(changed("it has been rewound again")),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(changed(
                "a server has been started on it, so its files have changed, and what they had is not known",
            )),
            Err(source) => Err(RestoreError::Read { path: label_path().below(&self.root), source }),
        }
    }
}

/// The new directory of each tablespace, by its link.
fn tablespaces<'a>(
    request: &'a RestoreRequest,
    original: &'a Original,
) -> Result<BTreeMap<&'a str, &'a Path>, RestoreError> {
    let mapping = &request.tablespace_mapping;
    let is_known = |old: &Path| original.tablespaces.values().any(|location| Path::new(location) == old);
    if let Some((unknown, _)) = mapping.iter().find(|(old, _)| !is_known(old)) {
        return Err(RestoreError::NoTablespace { location: unknown.clone() });
    }
    let place = |(link, location): (&'a String, &String)| {
        let found = mapping.iter().find(|(old, _)| Path::new(location) == old);
        let (_, new) = found.ok_or_else(|| RestoreError::NoPlace { location: location.clone() })?;
        Ok((link.as_str(), new.as_path()))
    };
    original.tablespaces.iter().map(place).collect()
}

/// Checks that a new directory is none, or empty, and neither in one of the others nor around one that is yet to be made.
fn check_place(place: &Path, others: &[&Path]) -> Result<(), RestoreError> {
    let refused = |problem| Err(RestoreError::Place { path: place.to_owned(), problem });
    if !place.is_absolute() {
        return refused("it is not absolute");
    }
    match std::fs::read_dir(place) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return refused("it is not empty");
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound && place.symlink_metadata().is_err() => {}
        Err(_) => return refused("it is not a directory that this user can read"),
    }
    let place = resolved(place);
    let mut others = others.iter().map(|other| resolved(other));
    match others.any(|other| place.starts_with(&other) || other.starts_with(&place)) {
        true => refused("it is inside a directory that is read or made, or around one"),
        false => Ok(()),
    }
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let whole = |part: &Path| Some(part.canonicalize().ok()?.join(path.strip_prefix(part).ok()?));
    path.ancestors().find_map(whole).unwrap_or_else(|| path.to_owned())
}

/// What all steps need.
struct Restoring<'a> {
    kept: &'a Path,
    to: &'a Path,
    original: &'a Original,
    /// The new directory of each tablespace, by its link.
    tablespaces: BTreeMap<&'a str, &'a Path>,
    manifest: &'a Manifest,
    base: Option<&'a Base>,
}

/// A file to restore.
struct Job {
    /// Where its saved ranges are.
    saved: PathBuf,
    /// Where the rest of it is.
    rest: Option<PathBuf>,
    to: PathBuf,
    size: u64,
    ranges: Ranges,
}

impl Restoring<'_> {
    /// The new directories.
    fn places(&self) -> impl Iterator<Item = &Path> {
        self.tablespaces.values().copied().chain([self.to])
    }

    /// Checks that the new directories are none, or empty, and apart from all others: the rewound node has the old directories of
    /// tablespaces now.
    fn check_places(&self) -> Result<(), RestoreError> {
        let base = self.base.map(|base| base.root.as_path());
        let old_tablespaces = self.original.tablespaces.values().map(Path::new);
        let mut others: Vec<&Path> = [self.kept].into_iter().chain(base).chain(old_tablespaces).collect();
        for place in self.places() {
            check_place(place, &others)?;
            others.push(place);
        }
        Ok(())
    }

    /// All files but the control file, and that one. All that they need is there.
    fn jobs(&self) -> Result<(Vec<Job>, Job), RestoreError> {
        let mut jobs = Vec::new();
        for name in &self.manifest.wal {
            let path = self.path(&format!("{}/{name}", self.original.wal_dir))?;
            let saved = path.below(self.kept);
            let size = size_of(&saved)?;
            jobs.push(Job { saved, rest: None, to: path.below(self.to), size, ranges: vec![(0, size)] });
        }
        let mut control = None;
        for (name, &size) in &self.original.files {
            let job = self.file(&self.path(name)?, size, self.manifest.files.get(name))?;
            match *name == self.original.control_file {
                true => control = Some(job),
                false => jobs.push(job),
            }
        }
        Ok((jobs, control.ok_or_else(|| self.lacking("the control file is not there".to_owned()))?))
    }

    fn file(&self, path: &DataPath, size: u64, saved: Option<&SavedFile>) -> Result<Job, RestoreError> {
        let ranges = saved.map(|saved| saved.ranges.clone()).unwrap_or_default();
        let job = Job {
            saved: path.below(&self.kept.join(FILES)),
            rest: self.base.map(|base| path.below(&base.root)),
            to: path.below(self.to),
            size,
            ranges,
        };
        let is_in_order = job.ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        let is_valid = is_in_order && job.ranges.iter().all(|(from, to)| from <= to && *to <= size);
        if !is_valid || saved.is_some_and(|saved| saved.size != size) {
            return Err(self.lacking(format!("the manifest contradicts itself about \"{path}\"")));
        }
        let end = job.ranges.last().map_or(0, |(_, end)| *end);
        if saved.is_some() && size_of(&job.saved)? < end {
            return Err(self.lacking(format!("\"{}\" is too short", job.saved.display())));
        }
        let end = job.gaps().last().map(|(_, end)| *end);
        match (&job.rest, end) {
            (None, Some(_)) => return Err(self.lacking(format!("\"{path}\" is not there"))),
            (Some(rest), end) if end.is_some() || saved.is_none() => {
                let found = size_of(rest)?;
                if found < end.unwrap_or(0) || saved.is_none() && found != size {
                    let problem = "it has another size";
                    return Err(RestoreError::Rewound { path: rest.clone(), problem });
                }
            }
            _ => {}
        }
        Ok(job)
    }

    /// Makes the directory, those of the tablespaces, and all below them.
    fn make_directories(&self, disk: &Disk) -> Result<(), RestoreError> {
        let names = &self.original.directories;
        let mut below: BTreeSet<DataPath> =
            names.iter().map(|name| self.path(name)).collect::<Result<_, _>>()?;
        let mut links = BTreeMap::new();
        for (link, place) in &self.tablespaces {
            let link = self.path(link)?;
            below.insert(link.clone());
            links.insert(link, *place);
        }
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TargetError { action, path, source }
        };
        for place in self.places() {
            match disk.create_directory(place, 0o700) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => disk.set_mode(place, 0o700),
                made => made,
            }
            .map_err(failed("create directory", place))?;
        }
        // In this order a directory comes before what is in it, and a link before what it leads to.
        for path in &below {
            let full = path.below(self.to);
            match links.get(path) {
                Some(place) => {
                    disk.create_link(&full, place).map_err(failed("create tablespace link", &full))?;
                }
                None => disk.create_directory(&full, 0o700).map_err(failed("create directory", &full))?,
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<DataPath, RestoreError> {
        path(name).ok_or_else(|| self.lacking(format!("the manifest names the invalid path \"{name}\"")))
    }

    fn lacking(&self, problem: String) -> RestoreError {
        RestoreError::NotEnough { path: self.kept.to_owned(), problem }
    }
}

/// The size of a regular file.
fn size_of(path: &Path) -> Result<u64, RestoreError> {
    let unread = |source| RestoreError::Read { path: path.to_owned(), source };
    let found = path.symlink_metadata().map_err(unread)?;
    if found.is_file() { Ok(found.len()) } else { Err(unread(io::Error::other("it is not a regular file"))) }
}

impl Job {
    /// The ranges that come from the rewound directory.
    fn gaps(&self) -> Ranges {
        without(&vec![(0, self.size)], &self.ranges)
    }

    fn copy(&self, disk: &Disk) -> Result<(), RestoreError> {
        let failed = |source| TargetError { action: "write file", path: self.to.clone(), source };
        let file = disk.create_file(&self.to, 0o600).map_err(failed)?;
        disk.set_length(&file, &self.to, self.size).map_err(failed)?;
        self.copy_ranges(disk, &self.saved, &file, &self.ranges)?;
        match &self.rest {
            Some(rest) => self.copy_ranges(disk, rest, &file, &self.gaps()),
            None => Ok(()),
        }
    }

    fn copy_ranges(
        &self,
        disk: &Disk,
        from: &Path,
        file: &File,
        ranges: &Ranges,
    ) -> Result<(), RestoreError> {
        let unread = |source| RestoreError::Read { path: from.to_owned(), source };
        let failed = |source| TargetError { action: "write file", path: self.to.clone(), source };
        let mut ranges = ranges.iter().filter(|(from, to)| from < to).peekable();
        if ranges.peek().is_none() {
            return Ok(());
        }
        let source = File::open(from).map_err(unread)?;
        let mut buffer = Vec::new();
        for &(mut at, end) in ranges {
            match disk.copy_range(&source, file, at, end - at).map_err(failed)? {
                Some(copied) if copied == end - at => continue,
                Some(_) => return Err(unread(ErrorKind::UnexpectedEof.into())),
                None => buffer.resize(PIECE, 0),
            }
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let piece = &mut buffer[..length];
                source.read_exact_at(piece, at).map_err(unread)?;
                disk.write(file, &self.to, piece, at).map_err(failed)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }
}
