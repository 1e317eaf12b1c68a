//! A hook that is called before every change to the disk and every request to the source. With it, tests record a
//! run, or make it fail at a given point.

use std::fmt;
use std::io;
use std::path::Path;

/// A change to the disk that is about to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the system calls")]
pub enum Change<'a> {
    /// Create an empty file.
    CreateFile { path: &'a Path },
    /// Change the permissions of a file.
    SetMode { path: &'a Path, mode: u32 },
    /// Write bytes to a file.
    Write { path: &'a Path, offset: u64, bytes: &'a [u8] },
    /// Truncate or extend a file.
    SetLength { path: &'a Path, length: u64 },
    /// Create a directory.
    CreateDirectory { path: &'a Path },
    /// Create a symbolic link.
    CreateLink { path: &'a Path, to: &'a Path },
    /// Remove a file or a link.
    RemoveFile { path: &'a Path },
    /// Remove an empty directory.
    RemoveDirectory { path: &'a Path },
    /// Rename a file, replacing the file at `to`.
    Rename { from: &'a Path, to: &'a Path },
    /// fsync a file.
    SyncFile { path: &'a Path },
    /// fsync a directory: the names in it become durable.
    SyncDirectory { path: &'a Path },
    /// syncfs the file system that this directory is on.
    SyncFileSystem { path: &'a Path },
}

/// What to do with an announced change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Make it.
    Make,
    /// Report success without making it. Valid for syncs only, whose effect shows only after a crash of the machine.
    SkipSync,
}

/// Called for the changes and requests of a run, from many threads at once.
pub trait ChangeObserver: fmt::Debug + Send + Sync {
    /// Called before each change.
    ///
    /// # Errors
    /// The error that the change fails with; it is not made.
    fn before(&self, change: Change<'_>) -> io::Result<Verdict>;

    /// Called before each request to the source, and before each piece of data received from it is processed.
    /// `question` describes the request.
    ///
    /// # Errors
    /// The error that the request fails with; it is not sent.
    fn before_question(&self, question: &str) -> io::Result<()>;
}
