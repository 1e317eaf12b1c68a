//! Where changed rows, and values stored out of line, wait until their transaction's turn: in memory, above a limit in a
//! temporary file without a name.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::error::LostError;
use super::rows::Row;

/// Bytes that are kept in memory if there is a directory for more.
const IN_MEMORY: usize = 64 << 20;

/// Bytes in the order in which they came.
pub(super) struct Spool {
    /// Where the file is made; `None` if everything stays in memory.
    directory: Option<PathBuf>,
    /// What is not in the file yet.
    memory: Vec<u8>,
    file: Option<File>,
    in_file: u64,
}

impl Spool {
    pub(super) fn new(directory: Option<PathBuf>) -> Spool {
        Spool { directory, memory: Vec::new(), file: None, in_file: 0 }
    }

    /// Adds bytes, and returns where they are.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> Result<u64, LostError> {
        let at = self.in_file + self.memory.len() as u64;
        self.memory.extend_from_slice(bytes);
        if self.memory.len() > IN_MEMORY {
            self.spill()?;
        }
        Ok(at)
    }

    /// Adds rows, and returns where they are.
    pub(super) fn push(&mut self, rows: [Option<&Row>; 2]) -> Result<u64, LostError> {
        let start = self.memory.len();
        let at = self.in_file + start as u64;
        self.memory.extend_from_slice(&[0; 4]);
        for row in rows {
            match row {
                Some(row) => write_row(&mut self.memory, row),
                None => self.memory.extend_from_slice(&NO_ROW.to_le_bytes()),
            }
        }
        let length = u32::try_from(self.memory.len() - start - 4).unwrap_or(u32::MAX);
        self.memory[start..start + 4].copy_from_slice(&length.to_le_bytes());
        if self.memory.len() > IN_MEMORY {
            self.spill()?;
        }
        Ok(at)
    }

    fn spill(&mut self) -> Result<(), LostError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let failed = |source| LostError::Spool { directory: directory.clone(), source };
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(directory).map_err(failed)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory).map_err(failed)?;
            self.in_file += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    /// The rows that were added at `at`.
    pub(super) fn read(&self, at: u64) -> Result<[Option<Row>; 2], LostError> {
        let here = match at.checked_sub(self.in_file) {
            Some(at) => (self.memory.len() as u64).saturating_sub(at),
            None => self.in_file - at,
        };
        // Most rows are short: one read has their length and all of them.
        let mut bytes = self.bytes(at, here.min(USUAL) as usize)?;
        let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if bytes.len() < 4 + length {
            bytes = self.bytes(at, 4 + length)?;
        }
        let mut rest = bytes.get(4..).unwrap_or_default();
        let mut next = || {
            let (length, after) = rest.split_first_chunk()?;
            rest = after;
            let length = u32::from_le_bytes(*length);
            let (row, after) = rest.split_at_checked(length as usize).filter(|_| length != NO_ROW)?;
            rest = after;
            read_row(row)
        };
        Ok([next(), next()])
    }

    /// The bytes that were added at `at`.
    pub(super) fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>, LostError> {
        let mut bytes = vec![0; length];
        match at.checked_sub(self.in_file) {
            Some(at) => {
                if let Some(found) = self.memory.get(at as usize..).and_then(|rest| rest.get(..length)) {
                    bytes.copy_from_slice(found);
                }
            }
            None => {
                let (Some(file), Some(directory)) = (&self.file, &self.directory) else { return Ok(bytes) };
                let failed = |source| LostError::Spool { directory: directory.clone(), source };
                file.read_exact_at(&mut bytes, at).map_err(failed)?;
            }
        }
        Ok(bytes)
    }
}

/// Bytes that are read at first.
const USUAL: u64 = 512;
/// In the place of a row's length: there is no row.
const NO_ROW: u32 = u32::MAX;
/// The bytes of a row before its body.
const HEADER: usize = 14;

fn write_row(to: &mut Vec<u8>, row: &Row) {
    let length = u32::try_from(HEADER + row.body.len()).unwrap_or(NO_ROW - 1);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&row.xmin.to_le_bytes());
    to.extend_from_slice(&row.xmax.to_le_bytes());
    to.extend_from_slice(&row.infomask2.to_le_bytes());
    to.extend_from_slice(&row.infomask.to_le_bytes());
    to.extend_from_slice(&[row.header_length, u8::from(row.is_from_disk)]);
    to.extend_from_slice(&row.body);
}

fn read_row(bytes: &[u8]) -> Option<Row> {
    let (header, body) = bytes.split_first_chunk::<HEADER>()?;
    let long = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    Some(Row {
        xmin: long(0),
        xmax: long(4),
        infomask2: short(8),
        infomask: short(10),
        header_length: header[12],
        is_from_disk: header[13] != 0,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: usize) -> Row {
        Row {
            xmin: 700,
            xmax: 701,
            infomask2: 3,
            infomask: 0x0902,
            header_length: 24,
            body: vec![7; length],
            is_from_disk: true,
        }
    }

    #[test]
    fn rows_come_back_from_memory_and_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        for place in [None, Some(directory.path().to_owned())] {
            let mut spool = Spool::new(place);
            let large = row(IN_MEMORY / 3);
            let first = spool.push([None, Some(&row(10))]).unwrap();
            let places: Vec<u64> =
                (0..5).map(|_| spool.push([Some(&large), Some(&row(0))]).unwrap()).collect();
            let last = spool.push([Some(&row(1)), None]).unwrap();
            assert_eq!(spool.read(first).unwrap(), [None, Some(row(10))]);
            for at in places {
                assert_eq!(spool.read(at).unwrap(), [Some(large.clone()), Some(row(0))]);
            }
            assert_eq!(spool.read(last).unwrap(), [Some(row(1)), None]);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
    }
}
