//! The floor: the time the machine needs for the input and output of a rewind alone. The same WAL is read, as many bytes
//! are fetched and made durable, and the same files are created and removed, without any analysis or comparison.
//!
//! The parts run one after another, each with several threads. A rewind does some of them concurrently, so its time may
//! be close to their sum, or even less.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use walparse::{Lsn, SegmentSize};

use super::programs::Sample;
use super::workload::Scene;

/// Bytes per request and per write.
const PIECE: u64 = 256 << 10;

/// Limits for a batch of requests: bytes, and pieces or small files.
const BATCH_BYTES: u64 = 2 << 20;
const BATCH_PIECES: usize = 500;

const PAGE: usize = 8192;

/// Number of connections: enough to keep the source busy with a latency of 5 ms.
const CONNECTIONS: usize = 8;

/// Number of concurrent fsync calls.
const SYNCS: usize = 16;

/// The time of each part, in seconds.
pub struct Floor {
    /// Reading the scanned segments with two threads, with one checksum per 256 kB.
    pub scan: f64,
    /// Fetching as many bytes from the source, without storing them.
    pub fetch: f64,
    /// Creating the same files, writing as many bytes, and making them durable.
    pub store: f64,
    /// Removing the same files.
    pub remove: f64,
    /// Bytes in pages (8 kB) in which the rewound target differs from the original one.
    pub different_bytes: u64,
}

/// A range of a file; the path is relative to the data directory.
struct Piece {
    path: String,
    offset: u64,
    length: u64,
}

/// Measures the floor once, for a run of kbrecover. `rewound` is the copy of the scene's old primary that it rewound.
pub fn measure(scene: &Scene, rewound: &Path, port: u16, sample: &Sample) -> Floor {
    let (before, after) = (files(&scene.old.data), files(rewound));
    let only_in = |these: &BTreeMap<String, u64>, those: &BTreeMap<String, u64>| {
        let missing = these.iter().filter(|(path, _)| !those.contains_key(*path));
        missing.map(|(path, size)| (path.clone(), *size)).collect::<Vec<_>>()
    };
    let (made, gone) = (only_in(&after, &before), only_in(&before, &after));
    let table: String = scene.new.value("SELECT pg_relation_filepath('entry')");
    let pieces = pieces(made, &table, before[&table], sample.fetched_bytes);

    let different_bytes = different_bytes(&scene.old.data, rewound);
    let segments = scanned_segments(&scene.old.data.join("pg_wal"), sample.scanned_from);
    let scan = seconds(|| scan(&segments));
    let fetch = seconds(|| fetch(port, &pieces));
    let target = scene.old.copy("floor");
    super::flush_disks();
    let store = seconds(|| store(&target.data, &pieces));
    let remove = seconds(|| {
        in_threads(4, &gone, |(path, _)| std::fs::remove_file(target.data.join(path)).expect("remove"));
        sync_directories(&target.data, gone.iter().map(|(path, _)| path.as_str()));
    });
    super::retire(&target);
    Floor { scan, fetch, store, remove, different_bytes }
}

/// Bytes in pages that differ. A file missing in `before` counts as one of zeros.
fn different_bytes(before: &Path, after: &Path) -> u64 {
    let mut bytes = 0;
    for path in files(after).into_keys() {
        let old = File::open(before.join(&path)).ok();
        let new = File::open(after.join(&path)).expect("open a file");
        let (mut one, mut other) = ([0; PAGE], [0; PAGE]);
        for offset in (0..).step_by(PAGE) {
            let length = new.read_at(&mut one, offset).expect("read a file");
            if length == 0 {
                break;
            }
            let known = old.as_ref().map_or(0, |old| old.read_at(&mut other, offset).expect("read a file"));
            other[known..].fill(0);
            if one[..length] != other[..length] {
                bytes += length as u64;
            }
        }
    }
    bytes
}

/// Ranges with `bytes` bytes in total: the files that were created, then parts of the table.
fn pieces(made: Vec<(String, u64)>, table: &str, table_size: u64, bytes: u64) -> Vec<Piece> {
    let (mut pieces, mut left) = (Vec::new(), bytes);
    for (path, size) in made {
        let length = size.min(left);
        // Less than the size if the fetched bytes run out: WAL files may be mostly zeros, which are not fetched.
        let steps = (0..length.max(1)).step_by(PIECE as usize);
        pieces.extend(steps.map(|offset| Piece {
            path: path.clone(),
            offset,
            length: PIECE.min(length - offset),
        }));
        left -= length;
    }
    let mut offset = 0;
    while left > 0 {
        let length = PIECE.min(left).min(table_size - offset);
        pieces.push(Piece { path: table.to_owned(), offset, length });
        left -= length;
        offset = (offset + length) % table_size;
    }
    pieces
}

/// The segments that hold WAL from `from` on.
fn scanned_segments(wal: &Path, from: Lsn) -> Vec<PathBuf> {
    let size = SegmentSize::new(16 << 20).expect("the default size");
    let is_scanned = |name: &String| {
        let Some((_, segment)) = size.parse_file_name(name) else { return false };
        // The header of a recycled segment still has its previous address.
        let mut address = [0; 8];
        let file = File::open(wal.join(name)).expect("open WAL");
        file.read_exact_at(&mut address, 8).expect("read WAL");
        segment >= size.segment_of(from) && u64::from_le_bytes(address) == size.start_of(segment).0
    };
    let segments: Vec<PathBuf> =
        files(wal).into_keys().filter(is_scanned).map(|name| wal.join(name)).collect();
    assert!(!segments.is_empty(), "no WAL from {from} on");
    segments
}

fn scan(segments: &[PathBuf]) {
    in_threads(2, segments, |path| {
        let file = File::open(path).expect("open WAL");
        let (mut buffer, mut offset) = (vec![0; PIECE as usize], 0);
        loop {
            let length = file.read_at(&mut buffer, offset).expect("read WAL");
            if length == 0 {
                return;
            }
            std::hint::black_box(crc32c::crc32c(&buffer[..length]));
            offset += length as u64;
        }
    });
}

fn fetch(port: u16, pieces: &[Piece]) {
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let query = "SELECT pg_read_binary_file(path, start, length, true)
                 FROM unnest($1::text[], $2::int8[], $3::int8[]) AS piece (path, start, length)";
    let batches = batches(pieces);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(batches.len()) {
            scope.spawn(|| {
                let mut client = postgres::Client::connect(&conninfo, postgres::NoTls).expect("connect");
                let query = client.prepare(query).expect("prepare");
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let paths: Vec<&str> = batch.iter().map(|piece| piece.path.as_str()).collect();
                    let starts: Vec<i64> = batch.iter().map(|piece| piece.offset as i64).collect();
                    let lengths: Vec<i64> = batch.iter().map(|piece| piece.length as i64).collect();
                    client.query(&query, &[&paths, &starts, &lengths]).expect("fetch");
                }
            });
        }
    });
}

/// Divides the pieces into batches, as a rewind does.
fn batches(pieces: &[Piece]) -> Vec<&[Piece]> {
    let (mut batches, mut rest) = (Vec::new(), pieces);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(BATCH_PIECES).take_while(|piece| {
            bytes += piece.length;
            bytes <= BATCH_BYTES
        });
        let (batch, left) = rest.split_at(fitting.count().max(1));
        batches.push(batch);
        rest = left;
    }
    batches
}

fn store(target: &Path, pieces: &[Piece]) {
    let bytes = vec![7; PIECE as usize];
    in_threads(2, &batches(pieces), |batch| {
        for piece in *batch {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(target.join(&piece.path));
            let file = file.expect("create a file");
            file.write_all_at(&bytes[..piece.length as usize], piece.offset).expect("write");
        }
    });
    let mut paths: Vec<&str> = pieces.iter().map(|piece| piece.path.as_str()).collect();
    paths.dedup();
    in_threads(SYNCS, &paths, |path| {
        File::open(target.join(path)).and_then(|file| file.sync_all()).expect("fsync");
    });
    sync_directories(target, paths.into_iter());
}

/// Syncs the directories of the files that were created or removed.
fn sync_directories<'a>(target: &Path, paths: impl Iterator<Item = &'a str>) {
    let directories: BTreeSet<_> = paths.filter_map(|path| Path::new(path).parent()).collect();
    for directory in directories {
        File::open(target.join(directory)).and_then(|file| file.sync_all()).expect("fsync a directory");
    }
}

/// All files below a directory, by relative path, with their sizes in bytes.
pub fn files(root: &Path) -> BTreeMap<String, u64> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("list") {
            let path = entry.expect("entry").path();
            let metadata = path.symlink_metadata().expect("metadata");
            if metadata.is_dir() {
                pending.push(path);
            } else if metadata.is_file() {
                let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8");
                found.insert(name.to_owned(), metadata.len());
            }
        }
    }
    found
}

fn in_threads<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}
