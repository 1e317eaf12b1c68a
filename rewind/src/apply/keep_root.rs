//! A directory that gets a directory for each rewind in which discarded data is saved, and keeps a limited number of them.
//!
//! It is meant for runs that nobody watches: what cannot be saved there, for lack of space or of permissions, is no reason not to
//! recover. The run warns and goes on.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::apply::kept::MANIFEST;
use crate::options::KeepRoot;
use crate::target::disk::{Disk, ignore_missing};

/// The directory for a rewind of `target` that begins now: `ROOT/NAME-20261130T161500Z`.
pub(crate) fn directory(root: &KeepRoot, target: &Path, now: Timestamp) -> PathBuf {
    root.directory.join(format!("{}{}", prefix(target), now.strftime("%Y%m%dT%H%M%SZ")))
}

fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or(OsStr::new("data"));
    format!("{}-", name.to_string_lossy())
}

/// Creates the root if it does not exist.
///
/// # Errors
/// It cannot be created.
pub(crate) fn create(root: &KeepRoot, disk: &Disk) -> io::Result<()> {
    match disk.create_directory(&root.directory, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes directories of earlier rewinds of `target` beside `current`, that of the present one, the oldest first, until the limits
/// hold.
///
/// # Errors
/// A directory cannot be read or removed.
pub(crate) fn retire(root: &KeepRoot, target: &Path, current: &Path, disk: &Disk) -> io::Result<()> {
    let prefix = prefix(target);
    let mut names: Vec<PathBuf> = Vec::new();
    // The path of the present one has no links, as the root's may have.
    for entry in fs::read_dir(current.parent().unwrap_or(&root.directory))? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(OsStr::to_str).is_some_and(|name| is_of(name, &prefix));
        if is_ours && path != current && path.join(MANIFEST).is_file() {
            names.push(path);
        }
    }
    // The times in the names sort them.
    names.sort();
    let sized = names.into_iter().map(|path| size_of(&path).map(|size| (path, size)));
    let mut earlier: VecDeque<(PathBuf, u64)> = sized.collect::<io::Result<_>>()?;
    let mut bytes: u64 = size_of(current)? + earlier.iter().map(|(_, size)| size).sum::<u64>();
    while let Some((oldest, size)) = earlier.front() {
        let is_too_many = root.most.is_some_and(|most| earlier.len() + 1 > most.get());
        let is_too_old = root.days.is_some_and(|days| is_older(oldest, days.get()));
        let is_too_large = root.bytes.is_some_and(|most| bytes > most.get());
        if !(is_too_many || is_too_old || is_too_large) {
            break;
        }
        tracing::info!("removing \"{}\", the data that an earlier rewind has discarded", oldest.display());
        remove(oldest, disk)?;
        bytes -= size;
        earlier.pop_front();
    }
    Ok(())
}

/// Removes what could not be saved whole, as far as that is possible: the rewind may need its space.
pub(crate) fn discard(directory: &Path, disk: &Disk) {
    if let Err(error) = ignore_missing(remove(directory, disk)) {
        tracing::warn!("could not remove \"{}\": {error}", directory.display());
    }
}

/// Whether a name is the prefix and a time.
fn is_of(name: &str, prefix: &str) -> bool {
    let time = name.strip_prefix(prefix).unwrap_or_default();
    time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

fn is_older(path: &Path, days: u64) -> bool {
    let limit = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
    let modified = path.join(MANIFEST).metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > limit))
}

/// The bytes of all files below a directory, as they are on disk.
fn size_of(directory: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Removes a directory and all below it. Links are removed, and not followed.
pub(crate) fn remove(directory: &Path, disk: &Disk) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.symlink_metadata()?.is_dir() {
            true => remove(&path, disk)?,
            false => disk.remove_file(&path)?,
        }
    }
    disk.remove_directory(directory)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU64, NonZeroUsize};

    use super::*;

    fn made(root: &Path, name: &str, bytes: usize) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.join("pg_wal")).unwrap();
        fs::write(path.join(MANIFEST), "{}").unwrap();
        fs::write(path.join("pg_wal/1"), vec![1; bytes]).unwrap();
        path
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go_first_and_nothing_that_is_not_ours() {
        let place = tempfile::tempdir().unwrap();
        let target = Path::new("/data/main");
        let of = |root: &Path| KeepRoot::new(root.to_owned());
        let root = of(place.path());
        let current = directory(&root, target, Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(current.file_name().unwrap(), "main-20231114T221320Z");
        made(place.path(), "main-20231114T221320Z", 100_000);
        for name in ["main-20230101T000000Z", "main-20230201T000000Z", "other-20230101T000000Z", "main-2023"]
        {
            made(place.path(), name, 100_000);
        }
        fs::create_dir(place.path().join("main-20220101T000000Z")).unwrap();
        let retire = |root: &KeepRoot| retire(root, target, &current, &Disk::default()).unwrap();
        retire(&KeepRoot { most: NonZeroUsize::new(3), ..of(place.path()) });
        assert_eq!(names(place.path()).len(), 6);
        retire(&KeepRoot { most: NonZeroUsize::new(2), ..of(place.path()) });
        assert_eq!(
            names(place.path()),
            [
                "main-20220101T000000Z",
                "main-2023",
                "main-20230201T000000Z",
                "main-20231114T221320Z",
                "other-20230101T000000Z"
            ]
        );
        retire(&KeepRoot { most: None, days: NonZeroU64::new(1), ..of(place.path()) });
        assert_eq!(names(place.path()).len(), 5, "they were made a moment ago");
        retire(&KeepRoot { most: None, bytes: NonZeroU64::new(150_000), ..of(place.path()) });
        assert_eq!(names(place.path()).len(), 4);
        assert!(current.is_dir());
    }

    #[test]
    fn the_root_may_be_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let real = real.canonicalize().unwrap();
        let current = made(&real, "main-20231114T221320Z", 10);
        made(&real, "main-20230101T000000Z", 10);
        let root = KeepRoot { most: NonZeroUsize::new(1), ..KeepRoot::new(link) };
        retire(&root, Path::new("/data/main"), &current, &Disk::default()).unwrap();
        assert_eq!(names(&real), ["main-20231114T221320Z"]);
    }
}
