//! The system calls that change something on disk, one function each.
//!
//! Each call fails once the run has been asked to stop. If there is an observer, each call is announced to it first;
//! tests use this to record changes, to make one fail, or to kill the program before it.

#![expect(clippy::disallowed_methods, reason = "only this module may write to disk")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::observer::{Change, ChangeObserver, Verdict};
use crate::stop::StopFlag;

/// Makes the changes, under the control of a stop flag and an observer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    stop: StopFlag,
    observer: Option<Arc<dyn ChangeObserver>>,
}

impl Disk {
    pub(crate) fn new(stop: StopFlag, observer: Option<Arc<dyn ChangeObserver>>) -> Disk {
        Disk { stop, observer }
    }

    /// Opens an existing file for writing, which changes nothing yet. A symbolic link is not followed.
    pub(crate) fn open_file(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
    }

    pub(crate) fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.announce(Change::CreateFile { path })?;
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
    }

    pub(crate) fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.announce(Change::SetMode { path, mode })?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    pub(crate) fn write(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.announce(Change::Write { path, offset, bytes })?;
        file.write_all_at(bytes, offset)
    }

    /// Copies `length` bytes at `offset` of `from` to the same offset of `file` with `copy_file_range`, which shares the
    /// blocks if the file system supports that. Returns the number of bytes copied, fewer than `length` if `from` ends
    /// earlier; `None` if the kernel cannot copy between these two files.
    pub(crate) fn copy_range(
        &self,
        from: &File,
        file: &File,
        offset: u64,
        length: u64,
    ) -> io::Result<Option<u64>> {
        self.stop.check()?;
        // An observer must see the bytes.
        if self.observer.is_some() {
            return Ok(None);
        }
        let (mut read_at, mut write_at) = (offset, offset);
        while write_at < offset + length {
            let rest = usize::try_from(offset + length - write_at).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(from, Some(&mut read_at), file, Some(&mut write_at), rest);
            match copied {
                // Some file systems return 0 where they should return an error.
                Ok(0) if write_at == offset => return Ok(None),
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                // The files are on different file systems, or copying is not supported. Any other failure recurs
                // when the bytes are written, and is reported then.
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(write_at - offset))
    }

    /// Starts writeback of a file, to shorten the fsync at the end.
    pub(crate) fn start_writing(&self, file: &File) {
        // DONTNEED starts writeback of dirty pages, which stay in the cache. It is only a hint, so errors are ignored.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    pub(crate) fn set_length(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        self.announce(Change::SetLength { path, length })?;
        file.set_len(length)
    }

    pub(crate) fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.announce(Change::CreateDirectory { path })?;
        DirBuilder::new().mode(mode).create(path)
    }

    pub(crate) fn create_link(&self, path: &Path, to: &Path) -> io::Result<()> {
        self.announce(Change::CreateLink { path, to })?;
        symlink(to, path)
    }

    /// A missing file is not an error.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.announce(Change::RemoveFile { path })?;
        ignore_missing(fs::remove_file(path))
    }

    /// A missing directory is not an error.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.announce(Change::RemoveDirectory { path })?;
        ignore_missing(fs::remove_dir(path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.announce(Change::Rename { from, to })?;
        fs::rename(from, to)
    }

    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        match self.announce(Change::SyncFile { path })? {
            Verdict::Make => file.sync_all(),
            Verdict::SkipSync => Ok(()),
        }
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self.announce(Change::SyncDirectory { path })? {
            Verdict::Make => File::open(path)?.sync_all(),
            Verdict::SkipSync => Ok(()),
        }
    }

    pub(crate) fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        match self.announce(Change::SyncFileSystem { path })? {
            Verdict::Make => Ok(rustix::fs::syncfs(File::open(path)?)?),
            Verdict::SkipSync => Ok(()),
        }
    }

    fn announce(&self, change: Change<'_>) -> io::Result<Verdict> {
        self.stop.check()?;
        self.observer.as_ref().map_or(Ok(Verdict::Make), |observer| observer.before(change))
    }
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
