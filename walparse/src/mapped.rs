//! The bytes of a file, mapped into memory where that is safe.
//!
//! A file that somebody truncates while it is mapped would end the program with SIGBUS, which no code here
//! could catch. So a file is mapped only under a read lease (`F_SETLEASE`): while we hold it, the kernel
//! makes anyone wait who opens the file for writing or truncates it, for as long as
//! `/proc/sys/fs/lease-break-time` says (45 seconds, far longer than a segment is in use). There is no
//! lease on a file that is open for writing already, on one that belongs to another user, and on some
//! file systems; such a file is read.

#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// Bytes of a mapped file that are asked for at once. When they are given back, all processors that run this program
/// must be told, which takes longer the more often it is done.
const WINDOW: usize = 1 << 20;

/// The bytes of a whole file.
#[derive(Debug)]
pub enum FileBytes {
    /// A mapping.
    Mapped(LeasedMap),
    /// A copy in memory.
    Owned(Vec<u8>),
}

/// A mapping of a file on which we hold a lease.
#[derive(Debug)]
pub struct LeasedMap {
    map: Mmap,
    /// Holds the lease; closed after the mapping is gone.
    _file: File,
}

impl FileBytes {
    /// The file at `path`, to be read from front to back.
    ///
    /// # Errors
    /// It cannot be opened, is no file, or cannot be read.
    pub fn open(path: &Path) -> io::Result<FileBytes> {
        let mut file = File::open(path)?;
        if take_lease(&file) && file.metadata()?.len() > 0 {
            // SAFETY: the mapping is read-only and private to this value, and is not longer than the file,
            // which the lease keeps from being written to or cut as long as the mapping lives.
            let map = unsafe { Mmap::map(&file)? };
            // Only a hint: without it the scan is slower, not wrong.
            let _ = map.advise(Advice::Sequential);
            return Ok(FileBytes::Mapped(LeasedMap { map, _file: file }));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(FileBytes::Owned(bytes))
    }

    /// Asks for the bytes from `at` on, which costs less than one fault for each page, and gives back those that
    /// were asked for before: however large the file, only a window of it takes memory. Returns where the
    /// window ends. An error is no harm.
    pub(crate) fn move_window(&self, at: usize) -> usize {
        let end = at.saturating_add(WINDOW);
        if let FileBytes::Mapped(leased) = self
            && at < leased.map.len()
        {
            let map = &leased.map;
            let _ = map.advise_range(Advice::PopulateRead, at, WINDOW.min(map.len() - at));
            if let Some(before) = at.checked_sub(WINDOW) {
                // SAFETY: nobody writes to this mapping, so its pages have nothing that the file has not; one
                // that is still looked at is read from the file again.
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
        }
    }
}

/// `F_SETSIG` of Linux's `fcntl.h`, which the libc crate does not have on every platform.
const F_SETSIG: libc::c_int = 10;

/// Takes a read lease on a file that is open for reading only; it ends when the file is closed.
fn take_lease(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // Whoever waits for the lease is announced by a signal, which would end the program if it were the
    // usual SIGIO. SIGURG is ignored.
    // SAFETY: both calls take integers only, and the descriptor is open.
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
    fn who_truncates_a_mapped_file_waits_until_it_is_unmapped() {
        let (_directory, path) = file();
        let bytes = FileBytes::open(&path).unwrap();
        let is_mapped = matches!(bytes, FileBytes::Mapped(_));
        thread::scope(|scope| {
            let truncating = scope.spawn(|| truncate(&path));
            thread::sleep(Duration::from_millis(200));
            // Without the lease this would be the end of the whole program.
            assert_eq!(bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 7 * LENGTH);
            assert_eq!(truncating.is_finished(), !is_mapped, "a file that is not mapped stops nobody");
            drop(bytes);
            truncating.join().unwrap();
        });
        assert_eq!(FileBytes::open(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_read() {
        let (_directory, path) = file();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        let bytes = FileBytes::open(&path).unwrap();
        assert!(matches!(bytes, FileBytes::Owned(_)));
        writer.set_len(0).unwrap();
        assert_eq!(bytes.len(), LENGTH);
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(FileBytes::open(directory.path()).is_err());
        assert!(FileBytes::open(&directory.path().join("none")).is_err());
    }
}
