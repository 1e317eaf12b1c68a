//! The bytes of a file, mapped into memory if that is safe.
//!
//! Reading a mapped file that has been truncated raises SIGBUS, which would terminate the program. So a file is mapped
//! only under a read lease (`F_SETLEASE`): while the lease is held, the kernel delays every open for writing and every
//! truncation of the file, for up to `/proc/sys/fs/lease-break-time` seconds (45 by default, far longer than a segment
//! is in use). No lease can be taken on a file that is open for writing or belongs to another user, or on some file
//! systems. Such a file is read into memory, and so is one that cannot be mapped.

#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// How many bytes of a mapping are populated, and later released, at a time. Every release interrupts all processors
/// that run this program, so it must not be done too often.
const WINDOW: usize = 1 << 20;

/// The contents of a file.
#[derive(Debug)]
pub enum FileBytes {
    /// A memory mapping.
    Mapped(LeasedMap),
    /// A copy in memory.
    Owned(Vec<u8>),
    /// A copy in memory that others use, too.
    Shared(Arc<Vec<u8>>),
}

/// A mapping of a file on which a lease is held.
#[derive(Debug)]
pub struct LeasedMap {
    map: Mmap,
    /// Holds the lease; closed after the mapping is removed, as fields are dropped in order.
    _file: File,
}

impl FileBytes {
    /// Opens the file at `path` for sequential reading.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is a directory.
    pub fn open(path: &Path) -> io::Result<FileBytes> {
        let mut file = File::open(path)?;
        if take_lease(&file) && file.metadata()?.len() > 0 {
            // SAFETY: the mapping is read-only, private to this value, and not longer than the file. The lease
            // prevents writing to and truncating the file as long as the mapping exists.
            let map = unsafe { Mmap::map(&file) };
            // Where it cannot be mapped, because the address space is limited for example, it is read.
            if let Ok(map) = map {
                // A hint only: without it the scan is slower but still correct.
                let _ = map.advise(Advice::Sequential);
                return Ok(FileBytes::Mapped(LeasedMap { map, _file: file }));
            }
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(FileBytes::Owned(bytes))
    }

    /// Populates a window of the mapping that starts at `at`, which is cheaper than a fault for each page, and releases
    /// the window before it, so that a large file does not take much memory. Returns the end of the window. Errors
    /// are ignored, because this only affects speed.
    pub(crate) fn move_window(&self, at: usize) -> usize {
        let end = at.saturating_add(WINDOW);
        if let FileBytes::Mapped(leased) = self
            && at < leased.map.len()
        {
            let map = &leased.map;
            let _ = map.advise_range(Advice::PopulateRead, at, WINDOW.min(map.len() - at));
            if let Some(before) = at.checked_sub(WINDOW) {
                // SAFETY: nothing writes to this mapping, so its pages are those of the file; a released page that
                // is still used is read from the file again.
                let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, before, WINDOW) };
            }
        }
        end
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(leased) => &leased.map,
            FileBytes::Owned(bytes) => bytes,
            FileBytes::Shared(bytes) => bytes,
        }
    }
}

/// `F_SETSIG` from Linux's `fcntl.h`, which the libc crate does not define on every platform.
const F_SETSIG: libc::c_int = 10;

/// Takes a read lease on a file that is open for reading only. Closing the file releases the lease.
fn take_lease(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // The kernel sends a signal when another process waits for the lease. The default, SIGIO, would terminate the
    // program; SIGURG is ignored.
    // SAFETY: both calls take integers only, and the file descriptor is open.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const LENGTH: usize = 1 << 20;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        std::fs::write(&path, vec![7; LENGTH]).unwrap();
        (directory, path)
    }

    fn truncate(path: &Path) {
        OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    }

    #[test]
    fn truncating_a_mapped_file_waits_until_it_is_unmapped() {
        let (_directory, path) = file();
        let bytes = FileBytes::open(&path).unwrap();
        let is_mapped = matches!(bytes, FileBytes::Mapped(_));
        thread::scope(|scope| {
            let truncating = scope.spawn(|| truncate(&path));
            thread::sleep(Duration::from_millis(200));
            // Without the lease this would raise SIGBUS.
            assert_eq!(bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 7 * LENGTH);
            assert_eq!(truncating.is_finished(), !is_mapped, "only a mapped file delays truncation");
            drop(bytes);
            truncating.join().unwrap();
        });
        assert_eq!(FileBytes::open(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_open_for_writing_is_read_into_memory() {
        let (_directory, path) = file();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        let bytes = FileBytes::open(&path).unwrap();
        assert!(matches!(bytes, FileBytes::Owned(_)));
        writer.set_len(0).unwrap();
        assert_eq!(bytes.len(), LENGTH);
    }

    #[test]
    fn a_directory_or_a_missing_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(FileBytes::open(directory.path()).is_err());
        assert!(FileBytes::open(&directory.path().join("none")).is_err());
    }
}
