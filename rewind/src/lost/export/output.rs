//! The files of an export. Only their owner can read them, whatever the umask says.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lost::model::SinkError;
use crate::target::disk::Disk;

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 16;

/// A file that is written from its beginning to its end, with a buffer. Dropping it writes what is in the buffer.
#[derive(Debug)]
pub(crate) struct Output {
    disk: Disk,
    path: PathBuf,
    /// `None` while it is closed.
    file: Option<File>,
    buffer: Vec<u8>,
    /// Bytes that have been written.
    at: u64,
    capacity: usize,
}

impl Output {
    /// Creates a file that does not exist yet.
    pub(crate) fn create(disk: &Disk, path: PathBuf) -> Result<Output, SinkError> {
        Output::with_buffer(disk, path, BUFFER)
    }

    fn with_buffer(disk: &Disk, path: PathBuf, capacity: usize) -> Result<Output, SinkError> {
        let create = || -> io::Result<File> {
            let file = disk.create_file(&path, 0o600)?;
            if file.metadata()?.permissions().mode() & 0o7777 != 0o600 {
                disk.set_mode(&path, 0o600)?;
            }
            Ok(file)
        };
        let file = create().map_err(|source| failed(&path, source))?;
        Ok(Output { disk: disk.clone(), path, file: Some(file), buffer: Vec::new(), at: 0, capacity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes bytes, or collects them for a later write.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes what is in the buffer and makes the file durable.
    pub(crate) fn sync(&mut self) -> Result<(), SinkError> {
        let mut sync = || {
            self.flush()?;
            self.open()?;
            self.file.as_ref().map_or(Ok(()), |file| self.disk.sync_file(file, &self.path))
        };
        sync().map_err(|source| failed(&self.path, source))
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.disk.open_file(&self.path)?);
        }
        Ok(())
    }

    fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open()?;
        if let Some(file) = &self.file {
            self.disk.write(file, &self.path, bytes, self.at)?;
            self.at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes what is in the buffer, and closes the file until more is written.
    fn close(&mut self) -> Result<(), SinkError> {
        self.flush().map_err(|source| failed(&self.path, source))?;
        (self.file, self.buffer) = (None, Vec::new());
        Ok(())
    }
}

impl Write for Output {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > self.capacity {
            self.flush()?;
        }
        if bytes.len() >= self.capacity {
            self.write_now(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_now(&buffer);
        if written.is_ok() {
            buffer.clear();
        }
        self.buffer = buffer;
        written
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What was found is worth more than an error that nobody would see.
        let _ = self.flush();
    }
}

/// The error that a file could not be written.
pub(crate) fn failed(path: &Path, source: io::Error) -> SinkError {
    SinkError { path: path.to_string_lossy().into_owned(), source }
}

/// Bytes that are collected for each of many files.
const SMALL_BUFFER: usize = 1 << 14;

/// The largest number of them that are open at the same time. A process may have 1024 files open by default.
const OPEN: usize = 128;

/// Many files in one directory. Few of them are open at a time.
#[derive(Debug)]
pub(crate) struct Outputs {
    disk: Disk,
    directory: PathBuf,
    outputs: Vec<Output>,
    /// The files that are open, those that were written to last at the end.
    open: Vec<usize>,
}

impl Outputs {
    pub(crate) fn new(disk: &Disk, directory: &Path) -> Outputs {
        let (disk, directory) = (disk.clone(), directory.to_owned());
        Outputs { disk, directory, outputs: Vec::new(), open: Vec::new() }
    }

    /// Creates a file and returns its number. Numbers start at 0.
    pub(crate) fn create(&mut self, name: &str) -> Result<usize, SinkError> {
        let number = self.outputs.len();
        self.make_room()?;
        let path = self.directory.join(name);
        self.outputs.push(Output::with_buffer(&self.disk, path, SMALL_BUFFER)?);
        self.open.push(number);
        Ok(number)
    }

    pub(crate) fn put(&mut self, number: usize, bytes: &[u8]) -> Result<(), SinkError> {
        if self.open.last() != Some(&number) {
            match self.open.iter().position(|open| *open == number) {
                Some(place) => {
                    self.open.remove(place);
                }
                None => self.make_room()?,
            }
            self.open.push(number);
        }
        self.outputs[number].put(bytes)
    }

    /// Gives a file another name.
    pub(crate) fn rename(&mut self, number: usize, name: &str) -> Result<(), SinkError> {
        let (output, path) = (&mut self.outputs[number], self.directory.join(name));
        self.disk.rename(&output.path, &path).map_err(|source| failed(&path, source))?;
        output.path = path;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Makes all of them durable, and their names.
    pub(crate) fn sync(&mut self) -> Result<(), SinkError> {
        let is_many = self.outputs.len() > OPEN;
        for output in &mut self.outputs {
            if !is_many {
                output.sync()?;
            }
            output.close()?;
        }
        self.open.clear();
        if is_many {
            // One call for all of them: each fsync would wait for the disk.
            let synced = self.disk.sync_file_system(&self.directory);
            synced.map_err(|source| failed(&self.directory, source))?;
        }
        self.disk.sync_directory(&self.directory).map_err(|source| failed(&self.directory, source))
    }

    fn make_room(&mut self) -> Result<(), SinkError> {
        if self.open.len() == OPEN {
            let oldest = self.open.remove(0);
            self.outputs[oldest].close()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_has_what_was_put_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = Output::create(&Disk::default(), path.clone()).unwrap();
        let large = vec![b'x'; BUFFER];
        output.put(b"one ").unwrap();
        output.put(&large).unwrap();
        output.put(b" two").unwrap();
        output.close().unwrap();
        output.put(b" three").unwrap();
        drop(output);
        let expected = [b"one ".as_slice(), &large, b" two three"].concat();
        assert_eq!(fs::read(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = Output::create(&Disk::default(), path).unwrap_err();
        assert!(error.to_string().contains("/a\""), "{error}");
    }

    #[test]
    fn thousands_of_files_are_written_with_few_open() {
        let directory = tempfile::tempdir().unwrap();
        let mut outputs = Outputs::new(&Disk::default(), directory.path());
        for number in 0..1000 {
            assert_eq!(outputs.create(&number.to_string()).unwrap(), number);
        }
        for round in 0..2 {
            for number in 0..1000 {
                outputs.put(number, format!("{number} in round {round}\n").as_bytes()).unwrap();
            }
            assert!(outputs.outputs.iter().filter(|output| output.file.is_some()).count() <= OPEN);
        }
        outputs.rename(7, "seven").unwrap();
        outputs.put(7, b"end\n").unwrap();
        outputs.sync().unwrap();
        let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(text("999"), "999 in round 0\n999 in round 1\n");
        assert_eq!(text("seven"), "7 in round 0\n7 in round 1\nend\n");
        assert!(outputs.len() == 1000 && !directory.path().join("7").exists());
    }
}
