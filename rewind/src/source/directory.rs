//! The data directory of a stopped server as the source.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::io::Errno;
use walparse::{ControlFile, Flavor};

use super::error::SourceError;
use super::seam::{
    ChunkSink, Comparand, FetchError, FetchRange, MAX_RANGE, Source, WalPosition, assert_valid, block_at,
};
use crate::datadir::config::Configuration;
use crate::datadir::data_path::DataPath;
use crate::datadir::flavor;
use crate::datadir::inventory::Inventory;
use crate::datadir::walk::{plain_files, walk_data_directory};

/// The largest file that is read as a whole, in bytes.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// The number of ranges of one file that a thread reads before the next thread may take over.
const SHARE: usize = 256;

/// The data directory of a stopped server.
///
/// That the server is stopped is not checked here: the caller checks the state in the control file.
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_rewind::source::{DirectorySource, Source};
///
/// let source = DirectorySource::open(Path::new("/srv/pg/new"), None)?;
/// println!("{}: checkpoint at {}", source.name(), source.control_file()?.checkpoint_lsn());
/// for (path, kind) in source.list()?.entries() {
///     println!("{path} {kind:?}");
/// }
/// # Ok::<(), kbrecover_rewind::source::SourceError>(())
/// ```
#[derive(Debug)]
pub struct DirectorySource {
    root: PathBuf,
    flavor: Flavor,
}

impl DirectorySource {
    /// Opens a data directory and detects its product and version. `key` names the product instead
    /// ([`Flavor::keys`]).
    ///
    /// # Errors
    /// `root` is not a directory, its control file is missing or unusable, or the product is ambiguous.
    pub fn open(root: &Path, key: Option<&str>) -> Result<DirectorySource, SourceError> {
        let unusable = |source| SourceError::Directory { path: root.to_owned(), source };
        if !fs::metadata(root).map_err(unusable)?.is_dir() {
            return Err(unusable(ErrorKind::NotADirectory.into()));
        }
        let flavor = flavor::flavor_of_directory(root, key)?;
        let source = DirectorySource { root: root.to_owned(), flavor };
        let flavor = flavor::with_wal_magic_of_directory(flavor, root, &source.control_file()?);
        Ok(DirectorySource { flavor, ..source })
    }

    /// A directory that need not be a data directory.
    #[cfg(test)]
    pub(crate) fn for_test(root: &Path) -> DirectorySource {
        DirectorySource { root: root.to_owned(), flavor: Flavor::all().next().unwrap() }
    }

    /// The path of the data directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The directory named by `archive_dest` in its configuration files.
    fn archive_directory(&self) -> Result<Option<PathBuf>, SourceError> {
        if !self.flavor.has_archive_dest() {
            return Ok(None);
        }
        let configuration = Configuration::read(&self.root, self.flavor.names(), None)?;
        let directory = configuration.get("archive_dest").filter(|directory| !directory.is_empty());
        Ok(directory.map(|directory| self.root.join(directory)))
    }

    fn read_whole(&self, path: &DataPath, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        read_below(&self.root, path, limit)
    }

    /// Why a file that could be opened could not be read.
    fn unreadable(&self, path: &DataPath, ReadError { offset, source }: ReadError) -> SourceError {
        let place = path.below(&self.root);
        if source.kind() == ErrorKind::IsADirectory {
            return SourceError::BecameDirectory { path: path.clone() };
        }
        match self.control_file() {
            Ok(control) if Errno::from_io_error(&source) == Some(Errno::IO) => {
                let block = block_at(path, offset, &control);
                SourceError::Unreadable { path: place, block, source: source.into() }
            }
            _ => SourceError::Read { path: place, source },
        }
    }

    /// Reads ranges of one file and passes them to the sink.
    fn fetch_share(
        &self,
        path: &DataPath,
        share: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError> {
        let place = path.below(&self.root);
        let not_stored = |source: io::Error| FetchError::Sink { path: path.clone(), source };
        let failed = |source: io::Error| SourceError::Read { path: place.clone(), source };
        // pread, not mmap: the file may be truncated under us, and a mapping would then raise SIGBUS.
        let file = match File::open(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return share.iter().try_for_each(|range| sink.write(*range, None).map_err(not_stored));
            }
            file => file.map_err(failed)?,
        };
        let longest = share.iter().map(|range| range.length).max().unwrap_or(0).min(MAX_RANGE);
        let mut buffer = vec![0; longest as usize];
        for range in share {
            // Where the file system can, it copies the range itself (reflink or copy_file_range).
            if sink.copy_from(*range, &file).map_err(not_stored)? {
                continue;
            }
            let read = read_up_to(&file, range.offset, &mut buffer[..range.length as usize]);
            let bytes = read.map_err(|error| self.unreadable(path, error))?;
            sink.write(*range, Some(bytes)).map_err(not_stored)?;
        }
        Ok(())
    }
}

impl Source for DirectorySource {
    fn data_directory(&self) -> Option<String> {
        Some(self.root.display().to_string())
    }

    fn name(&self) -> String {
        format!("data directory \"{}\"", self.root.display())
    }

    fn control_file(&self) -> Result<ControlFile, SourceError> {
        let path = DataPath::parse(self.flavor.names().control_file)?;
        let shown = || path.below(&self.root).display().to_string();
        let bytes = self.read_whole(&path, 2 * walparse::control::CONTROL_FILE_SIZE as u64)?;
        let bytes = bytes.ok_or_else(|| SourceError::NoControlFile { path: shown() })?;
        ControlFile::parse_as(&bytes, self.flavor)
            .map_err(|source| SourceError::ControlFile { path: shown(), source })
    }

    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        self.read_whole(path, MAX_SMALL_FILE)
    }

    fn list(&self) -> Result<Inventory, SourceError> {
        Ok(walk_data_directory(&self.root, self.flavor.names())?)
    }

    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        Ok(plain_files(&self.root.join(self.flavor.wal_dir()))?)
    }

    fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
        Ok(self.archive_directory()?.map(|directory| plain_files(&directory)).transpose()?)
    }

    fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(directory) = self.archive_directory()? else { return Ok(None) };
        let path = DataPath::parse(name)?;
        read_below(&directory, &path, MAX_SMALL_FILE)
    }

    fn position(&self) -> Result<WalPosition, SourceError> {
        Ok(WalPosition::Stopped)
    }

    /// # Panics
    /// If a range names no file of `files` or is longer than [`MAX_RANGE`].
    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError> {
        assert_valid(files, ranges);
        // Consecutive ranges of a file share one open; a large file is still split among threads.
        let by_file = ranges.chunk_by(|a, b| a.file == b.file);
        let shares: Vec<&[FetchRange]> = by_file.flat_map(|ranges| ranges.chunks(SHARE)).collect();
        shares.into_par_iter().try_for_each(|share| match share.first() {
            Some(first) => self.fetch_share(&files[first.file as usize], share, sink),
            None => Ok(()),
        })
    }

    /// # Panics
    /// If a range names no file of `files` or is longer than [`MAX_RANGE`].
    fn compare(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        part: u32,
        with: &dyn Comparand,
    ) -> Result<(), FetchError> {
        self.fetch(files, ranges, &Contents { with, part })
    }
}

/// Compares contents with those of the other side, in parts.
struct Contents<'a> {
    with: &'a dyn Comparand,
    part: u32,
}

impl ChunkSink for Contents<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> io::Result<()> {
        let mut theirs = Vec::new();
        let bytes = bytes.filter(|_| self.with.read(range, &mut theirs).is_ok());
        for part in range.parts(self.part) {
            let same =
                bytes.is_some_and(|bytes| range.bytes_of(part, bytes) == range.bytes_of(part, &theirs));
            self.with.found(part, same);
        }
        Ok(())
    }
}

/// Reads a file of at most `limit` bytes as a whole.
fn read_below(root: &Path, path: &DataPath, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    let place = path.below(root);
    let mut bytes = Vec::new();
    let read = File::open(&place).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SourceError::Read { path: place, source }),
        Ok(length) if length as u64 > limit => Err(SourceError::TooLarge { path: path.clone(), limit }),
        Ok(_) => Ok(Some(bytes)),
    }
}

/// Why a file could not be read, and from where on.
#[derive(Debug)]
pub(crate) struct ReadError {
    offset: u64,
    source: io::Error,
}

/// Without the offset.
impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        error.source
    }
}

/// Fills `buffer` from `offset`; returns a shorter slice only at the end of the file.
pub(crate) fn read_up_to<'a>(file: &File, offset: u64, buffer: &'a mut [u8]) -> Result<&'a [u8], ReadError> {
    let mut filled = 0;
    while filled < buffer.len() {
        let offset = offset.saturating_add(filled as u64);
        match file.read_at(&mut buffer[filled..], offset) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(ReadError { offset, source }),
        }
    }
    Ok(&buffer[..filled])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use walparse::Version;
    use walparse::control::testing::ControlFields;

    use super::*;

    #[derive(Default)]
    struct Collected(Mutex<BTreeMap<(u32, u64), Option<Vec<u8>>>>);

    impl ChunkSink for Collected {
        fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> io::Result<()> {
            let earlier =
                self.0.lock().unwrap().insert((range.file, range.offset), bytes.map(<[u8]>::to_vec));
            assert!(earlier.is_none());
            if range.length == 13 { Err(io::Error::other("full")) } else { Ok(()) }
        }
    }

    fn range(file: u32, offset: u64, length: u32) -> FetchRange {
        FetchRange { file, offset, length }
    }

    #[test]
    fn ranges_come_whole_short_empty_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a"), b"0123456789").unwrap();
        fs::create_dir(temp.path().join("dir")).unwrap();
        let source = DirectorySource { root: temp.path().to_owned(), flavor: Flavor::all().next().unwrap() };
        let files: Vec<_> = ["a", "gone", "dir"].map(|name| DataPath::parse(name).unwrap()).into();

        let sink = Collected::default();
        let ranges = [range(0, 2, 3), range(1, 0, 5), range(0, 8, 8), range(0, 50, 1), range(0, u64::MAX, 0)];
        source.fetch(&files, &ranges, &sink).unwrap();
        let got = sink.0.into_inner().unwrap();
        assert_eq!(got[&(0, 2)].as_deref(), Some(b"234".as_slice()));
        assert_eq!(got[&(0, 8)].as_deref(), Some(b"89".as_slice()));
        assert_eq!(got[&(0, 50)].as_deref(), Some(b"".as_slice()));
        assert_eq!(got[&(1, 0)], None);
        assert_eq!(got.len(), ranges.len());

        let error = source.fetch(&files, &[range(2, 0, 1)], &Collected::default()).unwrap_err();
        assert_eq!(error.to_string(), "file \"dir\" has become a directory in the source");
        let error = source.fetch(&files, &[range(0, 0, 13)], &Collected::default()).unwrap_err();
        assert!(matches!(error, FetchError::Sink { .. }), "{error}");
    }

    /// What is not mapped cannot be read from the memory of a process: the kernel says EIO, as of a bad sector.
    #[test]
    fn a_block_that_cannot_be_read_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let version = Version::find(1300, 202_209_061).unwrap();
        fs::create_dir_all(temp.path().join("global")).unwrap();
        fs::create_dir_all(temp.path().join("base/5")).unwrap();
        fs::write(temp.path().join("global/pg_control"), ControlFields::clean(version).build()).unwrap();
        for name in ["base/5/16384.1", "base/5/16384_vm"] {
            std::os::unix::fs::symlink("/proc/self/mem", temp.path().join(name)).unwrap();
        }
        let source = DirectorySource::for_test(temp.path());
        for (name, block) in [("base/5/16384.1", 131_072 + 3), ("base/5/16384_vm", 3)] {
            let files = [DataPath::parse(name).unwrap()];
            let error = source.fetch(&files, &[range(0, 3 * 8192, 8192)], &Collected::default()).unwrap_err();
            let place = temp.path().join(name);
            let expected = format!("could not read block {block} of source file \"{}\"", place.display());
            assert_eq!(error.to_string(), expected);
            let FetchError::Source(error) = error else { panic!("{error}") };
            assert!(error.hint().unwrap().contains("another server"));
        }
    }

    #[test]
    fn what_is_no_data_directory_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let open = |path: &Path| DirectorySource::open(path, None).unwrap_err();
        assert!(matches!(open(&temp.path().join("none")), SourceError::Directory { .. }));
        assert!(matches!(open(temp.path()), SourceError::NoControlFile { .. }));
        fs::create_dir(temp.path().join("global")).unwrap();
        fs::write(temp.path().join("global/pg_control"), [0; 8192]).unwrap();
        assert!(matches!(open(temp.path()), SourceError::ControlFile { .. }));
        assert!(matches!(open(&temp.path().join("global/pg_control")), SourceError::Directory { .. }));
    }

    /// Bytes of each range here, and whether each part was the same.
    struct Ours(&'static [u8], Mutex<Vec<(u64, u32, bool)>>);

    impl Comparand for Ours {
        fn read(&self, _: FetchRange, bytes: &mut Vec<u8>) -> io::Result<()> {
            bytes.extend_from_slice(self.0);
            Ok(())
        }

        fn found(&self, part: FetchRange, same: bool) {
            self.1.lock().unwrap().push((part.offset, part.length, same));
        }
    }

    #[test]
    fn ranges_are_compared_in_parts() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a"), b"..0123456789").unwrap();
        let source = DirectorySource { root: temp.path().to_owned(), flavor: Flavor::all().next().unwrap() };
        let files: Vec<_> = ["a", "gone"].map(|name| DataPath::parse(name).unwrap()).into();
        let compare = |file, bytes| {
            let ours = Ours(bytes, Mutex::default());
            source.compare(&files, &[range(file, 2, 10)], 4, &ours).unwrap();
            ours.1.into_inner().unwrap()
        };
        let parts = |same: [bool; 3]| vec![(2, 4, same[0]), (6, 4, same[1]), (10, 2, same[2])];
        assert_eq!(compare(0, b"0123456789"), parts([true; 3]));
        assert_eq!(compare(0, b"0123x56789"), parts([true, false, true]));
        assert_eq!(compare(0, b"012345"), parts([true, false, false]));
        assert_eq!(compare(1, b""), parts([false; 3]));
    }
}
