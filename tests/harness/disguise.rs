//! A data directory of PostgreSQL made to look like one of a fork, and back.
//!
//! There is no server of the fork here. What a rewind sees of one is its files, so those of a stopped cluster get the
//! fork's names, its control file the fields the fork has more, and its WAL the fork's numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walparse::{
    ControlFile, Flavor, Lsn, SegmentNo, SegmentStore, TimelineHistory, Version, WalDir, WalFileName,
    WalGeometry, WalReader,
};

/// How the fork's files differ from those of the PostgreSQL it was made from, besides their names.
pub struct Disguise {
    /// The flavor's key.
    pub key: &'static str,
    /// Its catalog version.
    pub catalog_version: u32,
    /// What its control file has before the checksum.
    pub control_tail: &'static [u8],
    /// The directory of this version in a tablespace.
    pub version_dir: &'static str,
    /// The magic number of its WAL pages.
    pub wal_magic: u16,
    /// Whether resource managers from the seventh on have numbers higher by two.
    pub shifts_rmgrs: bool,
}

/// V8R3: PostgreSQL 9.6.
pub const KINGBASE_V8R3: Disguise = Disguise {
    key: "kingbase-v8r3",
    catalog_version: 201_608_131,
    control_tail: &[2, 0, 0, 0],
    version_dir: "SYS_V008R003_201608131",
    wal_magic: 0xD093,
    shifts_rmgrs: false,
};

/// V8R6: PostgreSQL 12, two more resource managers, two more fields in the control file.
pub const KINGBASE_V8R6: Disguise = Disguise {
    key: "kingbase-v8r6",
    catalog_version: 202_211_151,
    control_tail: &[1, 0, 0, 0, 0, 0, 0, 0],
    version_dir: "SYS_12_202211151",
    wal_magic: 0xD101,
    shifts_rmgrs: true,
};

impl Disguise {
    /// Makes a stopped cluster's directory the fork's.
    pub fn put_on(&self, data: &Path) {
        let path = data.join("global/pg_control");
        let control = ControlFile::parse(&read(&path)).expect("a good control file");
        let shift = |rmid: u8| if self.shifts_rmgrs && rmid > 5 { rmid + 2 } else { rmid };
        rewrite_wal(data, &control, &control.geometry(), self.wal_magic, shift);
        let at = control.checksum_offset();
        let mut bytes = control.bytes()[..at].to_vec();
        bytes[12..16].copy_from_slice(&self.catalog_version.to_le_bytes());
        bytes.extend_from_slice(self.control_tail);
        write_control(&path, bytes);
        let usual = control.version().tablespace_version_dir();
        rename_all(data, &|name| {
            Some(match name {
                "PG_VERSION" => "SYS_VERSION".to_owned(),
                _ if name == usual => self.version_dir.to_owned(),
                _ => {
                    let (from, to) =
                        [("pg_", "sys_"), ("postgresql.", "kingbase."), ("postmaster.", "kingbase.")]
                            .into_iter()
                            .find(|(from, _)| name.starts_with(from))?;
                    name.replacen(from, to, 1)
                }
            })
        });
    }

    /// Makes it PostgreSQL's again.
    pub fn take_off(&self, data: &Path) {
        let path = data.join("global/sys_control");
        let control = control_of(data, self);
        let version = self.original(&control);
        let shift = |rmid: u8| if self.shifts_rmgrs && rmid > 7 { rmid - 2 } else { rmid };
        rewrite_wal(data, &control, &control.geometry(), version.wal_magic(), shift);
        let at = control.checksum_offset();
        let (known, tail) = control.bytes()[..at].split_at(at - self.control_tail.len());
        assert_eq!(tail, self.control_tail, "the fields nobody knows");
        let mut bytes = known.to_vec();
        bytes[12..16].copy_from_slice(&version.catalog_version().to_le_bytes());
        write_control(&path, bytes);
        rename_all(data, &|name| {
            Some(match name {
                "SYS_VERSION" => "PG_VERSION".to_owned(),
                "kingbase.pid" => "postmaster.pid".to_owned(),
                "kingbase.opts" => "postmaster.opts".to_owned(),
                _ if name == self.version_dir => version.tablespace_version_dir(),
                _ => {
                    let (from, to) = [("sys_", "pg_"), ("kingbase.", "postgresql.")]
                        .into_iter()
                        .find(|(from, _)| name.starts_with(from))?;
                    name.replacen(from, to, 1)
                }
            })
        });
    }

    fn flavor(&self, data: &Path) -> Flavor {
        let is_there = |flavor: &Flavor| flavor.key() == self.key && data.join(flavor.wal_dir()).exists();
        Flavor::all().find(is_there).expect("a row of the table").with_wal_magic(self.wal_magic)
    }

    fn original(&self, control: &ControlFile) -> Version {
        let number = control.version().control_version();
        Version::all().find(|version| version.control_version() == number).expect("a version of PostgreSQL")
    }
}

/// The control file of a disguised directory.
pub fn control_of(data: &Path, disguise: &Disguise) -> ControlFile {
    ControlFile::parse_as(&read(&data.join("global/sys_control")), disguise.flavor(data))
        .expect("a good control file")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Writes a control file that ends with its checksum.
fn write_control(path: &Path, mut bytes: Vec<u8>) {
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.resize(8192, 0);
    std::fs::write(path, bytes).expect("write a control file");
}

/// Renames everything whose name has another name, children first; links to tablespaces are followed.
fn rename_all(directory: &Path, other: &dyn Fn(&str) -> Option<String>) {
    let entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("list a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    for path in entries {
        if path.is_dir() {
            rename_all(&path, other);
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");
        if let Some(other) = other(name) {
            std::fs::rename(&path, directory.join(other)).expect("rename");
        }
    }
}

/// Gives all pages of a history's WAL another magic number, and its records other resource managers.
fn rewrite_wal(
    data: &Path,
    control: &ControlFile,
    geometry: &WalGeometry,
    magic: u16,
    rmgr: impl Fn(u8) -> u8,
) {
    let directory = data.join(geometry.version.wal_dir());
    let history = match std::fs::read(directory.join(control.timeline().history_file_name())) {
        Ok(text) => TimelineHistory::parse(control.timeline(), &text).expect("a good history"),
        Err(_) => TimelineHistory::of_first(control.timeline()),
    };
    let size = geometry.segment_size;
    let wal = WalDir::new(&directory, history, size);
    let mut edits: Vec<(Lsn, u8)> = Vec::new();
    for segment in contiguous(&wal, control) {
        let mut reader = WalReader::new(&wal, *geometry, size.start_of(segment));
        let Ok(Some(_)) = reader.seek_first_in(segment).expect("read WAL") else { continue };
        while reader.position() < size.end_of(segment) {
            let Ok(record) = reader.read().expect("read WAL") else { break };
            let mut bytes = record.bytes.to_vec();
            bytes[17] = rmgr(bytes[17]);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[24..]), &bytes[..20]);
            bytes[20..24].copy_from_slice(&crc.to_le_bytes());
            edits.extend([17, 20, 21, 22, 23].map(|at| (position(record.lsn, at, geometry), bytes[at])));
        }
    }
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).expect("list the WAL directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if matches!(WalFileName::parse(name, size), Some(WalFileName::Segment(..))) {
            files.insert(path.clone(), read(&path));
        }
    }
    for (lsn, byte) in edits {
        let path = directory.join(wal.file_name(size.segment_of(lsn)));
        files.get_mut(&path).expect("a segment")[size.offset_of(lsn)] = byte;
    }
    let old = geometry.version.wal_magic().to_le_bytes();
    for (path, mut bytes) in files {
        let pages = bytes.chunks_mut(geometry.wal_block_size as usize);
        pages
            .filter(|page| page.starts_with(&old))
            .for_each(|page| page[..2].copy_from_slice(&magic.to_le_bytes()));
        std::fs::write(path, bytes).expect("write a segment");
    }
}

/// The segments up to the newest, from the oldest that leads to it without a gap.
fn contiguous(wal: &WalDir, control: &ControlFile) -> Vec<SegmentNo> {
    let is_there = |segment: &SegmentNo| wal.directory().join(wal.file_name(*segment)).exists();
    let anchor = control.geometry().segment_size.segment_of(control.checkpoint_lsn());
    let below = (1..=anchor.0).rev().map(SegmentNo).take_while(is_there);
    let newest = wal.newest().expect("list the WAL directory").unwrap_or(anchor);
    let mut segments: Vec<_> = below.collect();
    segments.reverse();
    segments.extend((anchor.0 + 1..=newest.0).map(SegmentNo).take_while(is_there));
    segments
}

/// Where the byte of a record stands that is its `at`-th, page headers left out.
fn position(start: Lsn, at: usize, geometry: &WalGeometry) -> Lsn {
    let block = u64::from(geometry.wal_block_size);
    let (mut lsn, mut left) = (start, at as u64);
    loop {
        let in_page = block - lsn.0 % block;
        if left < in_page {
            return lsn.advance(left);
        }
        left -= in_page;
        let page = lsn.advance(in_page);
        lsn = page.advance(walparse::PageHeader::length_at(page, geometry) as u64);
    }
}
