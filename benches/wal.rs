//! Benchmarks of the parts of walparse.
//!
//!     cargo bench -p kbrecover-walparse --bench wal [-- FILTER]
//!     cargo test -p kbrecover-walparse --bench wal                  runs each benchmark once, on little data
//!
//! The scan reads files that are generated here. It is compared with two threads that read the same files and compute one
//! checksum per file, and with two threads that compute one checksum per span of the average record length. The latter is
//! an upper bound for the scan, because every record has a checksum. The three run alternately. The medians and their
//! ratios are printed in wall time and in CPU time, which is more reliable on a busy machine.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes its input files")]
#![allow(clippy::print_stdout, reason = "it prints its results")]
#![allow(missing_docs, reason = "criterion_group generates public functions")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use tempfile::TempDir;
use walparse::scan::{RebuiltBlocks, ScanRequest, scan};
use walparse::testing::{BlockChange, BlockSpec, RecordSpec, WalBuilder};
use walparse::{
    BlockNumber, Lsn, PageMap, Relation, SegmentSize, TimelineHistory, TimelineId, Version, WalDir,
    WalGeometry, WalReader,
};

const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn geometry(segment_size: u32) -> WalGeometry {
    WalGeometry {
        version: Version::find(1300, 202_209_061).expect("version 15"),
        system_identifier: 1,
        segment_size: SegmentSize::new(segment_size).expect("a segment size"),
        wal_block_size: 8192,
        block_size: 8192,
    }
}

/// A typical mixture of records.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Updates of few blocks: records of 60 to 130 bytes, and a commit after every nine of them.
    Short,
    /// The same for many blocks, with a full-page image in one of eight records.
    Images,
}

impl Load {
    fn record(self, index: u64) -> RecordSpec {
        let random = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let number = 16384 + (random % 3) as u32 * 6;
        let (blocks, length) = match self {
            Load::Short => (500, 20 + random % 70),
            Load::Images if index.is_multiple_of(8) => (100_000, 8000),
            Load::Images => (100_000, 20 + random % 70),
        };
        let change = if length == 8000 { BlockChange::Image } else { BlockChange::Part };
        let block = BlockSpec {
            relation: Relation { number, ..TABLE },
            fork: 0,
            block: BlockNumber((random / 3 % blocks) as u32),
            change,
        };
        let is_commit = index / 8 % 10 == 9;
        RecordSpec {
            rmid: if is_commit { 1 } else { 10 },
            info: if is_commit { 0 } else { 0x20 },
            blocks: if is_commit { Vec::new() } else { vec![block] },
            main_data: vec![7; if is_commit { 10 } else { length as usize }],
        }
    }
}

/// WAL in files: a checkpoint, the fork, and then records of a given total size.
struct Files {
    directory: TempDir,
    request: ScanRequest,
    bytes: u64,
}

impl Files {
    fn make(load: Load, megabytes: u64, segment_size: u32) -> Files {
        let geometry = geometry(segment_size);
        let mut wal = WalBuilder::new(geometry);
        let start = geometry.segment_size.bytes();
        let checkpoint = wal.checkpoint(Lsn(start + 40));
        let fork = wal.position();
        let mut index = 0;
        while wal.position().0 - start < megabytes << 20 {
            // Eight sessions at once, whose transactions have ten records each.
            wal.xid = (1000 + index / 80 * 8 + index % 8) as u32;
            wal.append(&load.record(index));
            index += 1;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (number, bytes) in wal.segments() {
            let name = geometry.segment_size.file_name(TimelineId(1), walparse::SegmentNo(*number));
            std::fs::write(directory.path().join(name), bytes).expect("write a segment");
        }
        let request = ScanRequest::new(geometry, fork, checkpoint, wal.position())
            .with_rebuilt(RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) });
        Files { directory, request, bytes: wal.position().0 - start }
    }

    fn segment_size(&self) -> u64 {
        self.request.geometry.segment_size.bytes()
    }

    fn scan(&self) -> u64 {
        self.scan_as(&self.request)
    }

    fn scan_as(&self, request: &ScanRequest) -> u64 {
        let size = request.geometry.segment_size;
        let wal = WalDir::new(self.directory.path(), TimelineHistory::of_first(TimelineId(1)), size);
        scan(&wal, request, &|_| {}).expect("scan").records
    }

    fn paths(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).expect("list");
        entries.map(|entry| entry.expect("entry").path()).collect()
    }

    /// Only reads the files and computes a checksum of each, or of each span of `length` bytes.
    fn read_and_sum(&self, length: Option<usize>) -> u32 {
        self.paths().into_par_iter().map(|path| sum(&path, length)).reduce(|| 0, |a, b| a ^ b)
    }
}

fn sum(path: &Path, length: Option<usize>) -> u32 {
    let file = File::open(path).expect("open");
    let mut buffer = vec![0; 256 << 10];
    let (mut crc, mut offset) = (0, 0);
    loop {
        let count = file.read_at(&mut buffer, offset).expect("read");
        if count == 0 {
            return crc;
        }
        crc = match length {
            None => crc32c::crc32c_append(crc, &buffer[..count]),
            Some(length) => {
                let sums = buffer[..count].chunks(length).map(|record| walparse::crc32c_append(0, record));
                sums.fold(crc, |all, crc| all ^ crc)
            }
        };
        offset += count as u64;
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

fn scans(c: &mut Criterion) {
    let megabytes = if is_test() { 3 } else { 512 };
    let mut group = c.benchmark_group("scan");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for segment_size in if is_test() { vec![1 << 20] } else { vec![16 << 20, 64 << 20] } {
        for load in [Load::Short, Load::Images] {
            let files = Files::make(load, megabytes, segment_size);
            group.throughput(Throughput::Bytes(files.bytes));
            for threads in [1, 2] {
                let pool = pool(threads);
                let name = format!("{load:?}, segments of {} MB", segment_size >> 20);
                group.bench_function(BenchmarkId::new(name, threads), |b| {
                    b.iter(|| pool.install(|| black_box(files.scan())));
                });
            }
            compare_with_reading(load, &files);
        }
    }
    group.finish();
}

/// Prints the speed of the scan and of reading alone, measured alternately, with two threads.
fn compare_with_reading(load: Load, files: &Files) {
    let pool = pool(2);
    let time = |work: &(dyn Fn() + Sync)| {
        let (started, used) = (Instant::now(), cpu_time());
        pool.install(work);
        [started.elapsed().as_secs_f64(), cpu_time() - used]
    };
    let record = files.bytes as f64 / files.scan() as f64;
    let works: [&(dyn Fn() + Sync); 4] = [
        &|| _ = black_box(files.read_and_sum(None)),
        &|| _ = black_box(files.read_and_sum(Some(record as usize))),
        &|| _ = black_box(files.scan()),
        &|| _ = black_box(files.scan_as(&files.request.with_counted_rows())),
    ];
    let mut times: [Vec<[f64; 2]>; 4] = Default::default();
    for _ in 0..if is_test() { 1 } else { 15 } {
        for (work, times) in works.into_iter().zip(&mut times) {
            times.push(time(work));
        }
    }
    println!("{load:?}, {record:.0} bytes per record, segments of {} MB:", files.segment_size() >> 20);
    for (index, what) in ["wall", "CPU"].into_iter().enumerate() {
        let [by_file, by_record, scan, counting] = times.each_ref().map(|times| {
            let mut times: Vec<_> = times.iter().map(|time| time[index]).collect();
            times.sort_by(f64::total_cmp);
            files.bytes as f64 / 1e9 / times[times.len() / 2]
        });
        println!(
            "  {what:<4}  scan {scan:.2} GB/s; reading and a checksum per file {by_file:.2} GB/s (scan: {:.0} % of it); \
             reading and a checksum per record {by_record:.2} GB/s (scan: {:.0} % of it); \
             a scan that counts rows takes {:+.1} %",
            100.0 * scan / by_file,
            100.0 * scan / by_record,
            100.0 * (scan / counting - 1.0)
        );
    }
}

/// The CPU time of all threads, in seconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn checksums(c: &mut Criterion) {
    let bytes: Vec<u8> =
        (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut group = c.benchmark_group("crc");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for length in [20, 64, 100, 256, 512, 1024, 8192, 1 << 20] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::new("ours", length), |b| {
            b.iter(|| walparse::crc32c_append(0, black_box(&bytes[..length])));
        });
        group.bench_function(BenchmarkId::new("crc32c", length), |b| {
            b.iter(|| crc32c::crc32c(black_box(&bytes[..length])));
        });
    }
    group.finish();
}

/// Decoding of records with different contents.
fn decoding(c: &mut Criterion) {
    let part = BlockSpec::part(TABLE, BlockNumber(7));
    let blocks = |count: u32, change| -> Vec<BlockSpec> {
        (0..count).map(|block| BlockSpec { block: BlockNumber(block), change, ..part }).collect()
    };
    let mut group = c.benchmark_group("decode");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for (shape, blocks, length) in [
        ("no block", vec![], 20),
        ("one block", blocks(1, BlockChange::Part), 60),
        ("one image", blocks(1, BlockChange::Image), 60),
        ("four blocks", blocks(4, BlockChange::Part), 200),
        ("thirty-two images", blocks(32, BlockChange::Image), 0),
    ] {
        let geometry = geometry(1 << 20);
        let mut wal = WalBuilder::new(geometry);
        wal.append(&RecordSpec { rmid: 10, info: 0, blocks, main_data: vec![7; length] });
        let mut reader = WalReader::new(&wal, geometry, Lsn(1 << 20));
        let record = reader.read().expect("read").expect("a record");
        let mut found = Vec::new();
        group.bench_function(shape, |b| {
            b.iter(|| black_box(&record).decode(&geometry, &mut found).expect("decode").main_data.len());
        });
    }
    group.finish();
}

fn page_maps(c: &mut Criterion) {
    let blocks = if is_test() { 1_000 } else { 1_000_000 };
    let mut group = c.benchmark_group("page map");
    group.throughput(Throughput::Elements(blocks));
    let scattered = |seed: u64| {
        let mut map = PageMap::new();
        for index in 0..blocks {
            let random = (index + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let relation = Relation { number: 16384 + (random >> 60) as u32, ..TABLE };
            map.insert(relation, BlockNumber((random >> 33) as u32 % 1_000_000));
        }
        map
    };
    group.bench_function("insert scattered", |b| b.iter(|| scattered(0)));
    group.bench_function("insert in a row", |b| {
        b.iter(|| {
            let mut map = PageMap::new();
            (0..blocks).for_each(|block| _ = map.insert(TABLE, BlockNumber(block as u32)));
            map
        });
    });
    let (one, other) = (scattered(0), scattered(1 << 40));
    group.bench_function("merge", |b| {
        b.iter_batched(
            || (one.clone(), other.clone()),
            |(mut one, other)| {
                one.merge(other);
                one
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, checksums, decoding, page_maps, scans);
criterion_main!(benches);
