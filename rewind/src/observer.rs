//! A watcher of every change to the target and every read of the source: tests stop a run there.

use std::fmt;
use std::io;
use std::path::Path;

/// A change to the disk, about to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the system calls")]
pub enum Change<'a> {
    /// A new, empty file.
    CreateFile { path: &'a Path },
    /// Permissions of a file.
    SetMode { path: &'a Path, mode: u32 },
    /// Bytes in a file.
    Write { path: &'a Path, offset: u64, bytes: &'a [u8] },
    /// A file is cut or lengthened.
    SetLength { path: &'a Path, length: u64 },
    /// A new directory.
    CreateDirectory { path: &'a Path },
    /// A new symbolic link.
    CreateLink { path: &'a Path, to: &'a Path },
    /// A file or a link goes.
    RemoveFile { path: &'a Path },
    /// An empty directory goes.
    RemoveDirectory { path: &'a Path },
    /// A file takes the place of another.
    Rename { from: &'a Path, to: &'a Path },
    /// A file's bytes and length become durable.
    SyncFile { path: &'a Path },
    /// The names in a directory become durable.
    SyncDirectory { path: &'a Path },
    /// Everything in the file system of this directory becomes durable.
    SyncFileSystem { path: &'a Path },
}

/// What becomes of a change that was announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is made.
    Make,
    /// It counts as made. Only a sync may be skipped so: nothing but the loss of the machine tells.
    SkipSync,
}

/// Watches the changes of a run. They come from many threads.
pub trait ChangeObserver: fmt::Debug + Send + Sync {
    /// Called before each change.
    ///
    /// # Errors
    /// What the change fails with instead of being made.
    fn before(&self, change: Change<'_>) -> io::Result<Verdict>;

    /// Called before each question to the source, and before each piece that came from it is taken.
    ///
    /// # Errors
    /// What the question fails with instead of being asked.
    fn before_question(&self, question: &str) -> io::Result<()>;
}
