//! The bytes of a file, mapped into memory: the only unsafe code of the project.

#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::{Advice, Mmap};

/// The bytes of a whole file.
///
/// Mapped files belong to a stopped server whose directory the caller has locked: a file that somebody
/// truncates while it is mapped would end the program with SIGBUS, as no code here can catch.
#[derive(Debug)]
pub enum FileBytes {
    /// A mapping.
    Mapped(Mmap),
    /// A copy in memory.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the file at `path` for reading from front to back; an empty file gives no bytes.
    pub fn map(path: &Path) -> io::Result<FileBytes> {
        FileBytes::map_file(&File::open(path)?)
    }

    /// Maps an open file for reading from front to back.
    pub fn map_file(file: &File) -> io::Result<FileBytes> {
        if file.metadata()?.len() == 0 {
            return Ok(FileBytes::Owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only and private to this value. Another process could change the
        // bytes under it; they are then merely other bytes, which every reader here checks anyway.
        // Truncation is excluded by the contract above.
        let map = unsafe { Mmap::map(file)? };
        // Only a hint: without it the scan is slower, not wrong.
        let _ = map.advise(Advice::Sequential);
        Ok(FileBytes::Mapped(map))
    }

    /// Asks for all pages now, which costs less than one fault for each; an error is no harm.
    pub fn populate(&self) {
        if let FileBytes::Mapped(map) = self {
            let _ = map.advise(Advice::PopulateRead);
        }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}
