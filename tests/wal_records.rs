//! Real WAL, record by record: our reader against pg_waldump, and the parallel scan against our reader.
//!
//!     server  ── every feature of the data, checkpoints, a kill -9, a switch ──╳ shut down
//!                │                                                             │
//!                └─────────── pg_waldump == WalReader == scan ────────────────┘

use std::collections::BTreeMap;
use std::process::Command;

use walparse::scan::{Diverged, EndOfWal, RebuiltBlocks, ScanRequest, scan};
use walparse::{
    ControlFile, Fork, Lsn, PageMap, Record, SegmentNo, SegmentStore, TimelineHistory, TimelineId, WalDir,
    WalReader, rmgr,
};

use crate::harness::{Installation, Sandbox, Server, record_line, run, server_program, waldump_line};
use crate::{databases, index_types, large_objects, prepared_transactions, sizes, unlogged_tables};

const FEATURES: [&crate::harness::Feature; 6] = [
    &sizes::SIZES,
    &index_types::INDEX_TYPES,
    &databases::DATABASES,
    &unlogged_tables::UNLOGGED_TABLES,
    &prepared_transactions::PREPARED_TRANSACTIONS,
    &large_objects::LARGE_OBJECTS,
];

/// A stopped server that wrote all kinds of records, and was killed once on the way.
fn with_much_wal(mut server: Server, settings: &str) -> (Server, WalDir, ControlFile) {
    server.configure(settings);
    server.start();
    for (index, feature) in FEATURES.iter().enumerate() {
        server.sql(&format!("CREATE DATABASE {}", feature.name));
        let server_there = server.in_database(feature.name);
        (feature.shared)(&server_there);
        (feature.lost)(&server_there);
        if index % 2 == 0 {
            server.sql("CHECKPOINT");
        }
    }
    server
        .sql("CREATE TABLE wide AS SELECT repeat(md5(n::text), 2000) AS text FROM generate_series(1, 200) n");
    server.sql("SELECT pg_switch_wal()");
    server.kill();
    server.start();
    server.sql("UPDATE wide SET text = text || 'x'");
    server.stop();
    let control = server.control_file();
    let history = TimelineHistory::of_first(TimelineId(1));
    let wal = WalDir::new(server.data.join("pg_wal"), history, control.geometry().segment_size);
    (server, wal, control)
}

/// Calls `see` for each record from the start of the oldest segment to the end of the WAL; returns the end.
fn read_all(wal: &WalDir, control: &ControlFile, mut see: impl FnMut(&Record<'_>)) -> Lsn {
    let mut oldest = wal.newest().expect("list segments").expect("a segment");
    while oldest.0 > 1 && wal.open(SegmentNo(oldest.0 - 1)).expect("open a segment").is_some() {
        oldest = SegmentNo(oldest.0 - 1);
    }
    let mut reader = WalReader::new(wal, control.geometry(), Lsn(0));
    reader.seek_first_in(oldest).expect("read a segment").expect("valid WAL").expect("a record");
    loop {
        match reader.read().expect("read WAL") {
            Ok(record) => see(&record),
            Err(end) => return end.position,
        }
    }
}

/// `waldump` is the pg_waldump of the server's version.
fn compare_with_pg_waldump(server: Server, mut waldump: Command, settings: &str) {
    let (server, wal, control) = with_much_wal(server, settings);
    let mut ours = Vec::new();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    read_all(&wal, &control, |record| {
        ours.push(record_line(record, &control, false));
        *kinds.entry(rmgr::name(record.header.rmid, control.version())).or_default() += 1;
    });
    let first =
        ours[0].split_whitespace().skip_while(|word| *word != "lsn").nth(1).expect("an LSN").to_owned();
    waldump.arg("--path").arg(server.data.join("pg_wal")).args(["--start", &first]);
    // It ends with an error where the WAL ends, which is how it should end.
    let output = waldump.output().expect("run pg_waldump");
    let text = String::from_utf8_lossy(&output.stdout);
    let theirs: Vec<String> = text.lines().map(waldump_line).collect();
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "record {index}");
    }
    assert_eq!(ours.len(), theirs.len(), "records read here and by pg_waldump");
    for kind in [
        "XLOG",
        "Transaction",
        "Storage",
        "Database",
        "Heap",
        "Heap2",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "SPGist",
        "BRIN",
        "RelMap",
    ] {
        assert!(kinds.contains_key(kind), "no {kind} record in {kinds:?}");
    }
}

#[test]
fn every_record_is_the_one_pg_waldump_reads() {
    let sandbox = Sandbox::new();
    compare_with_pg_waldump(sandbox.server("server"), server_program("pg_waldump"), "");
}

#[test]
fn every_record_of_version_19_is_the_one_its_pg_waldump_reads() {
    let (sandbox, installation) = (Sandbox::new(), Installation::of(19));
    let server = sandbox.initdb("server", installation, &[]);
    compare_with_pg_waldump(server, installation.program("pg_waldump"), "wal_consistency_checking = all");
}

#[test]
fn with_compressed_images_and_images_for_checking() {
    let sandbox = Sandbox::new();
    let settings = "wal_compression = lz4\nwal_consistency_checking = 'heap,btree'\nwal_level = logical";
    compare_with_pg_waldump(sandbox.server("server"), server_program("pg_waldump"), settings);
}

/// The oracle: what the sequential reader finds for the same question.
fn sequential(wal: &WalDir, control: &ControlFile, fork: Lsn, newest: Lsn) -> (Lsn, Option<(Lsn, PageMap)>) {
    let (mut map, mut checkpoint, mut blocks) = (PageMap::new(), None, Vec::new());
    let end = read_all(wal, control, |record| {
        record.decode(&control.geometry(), &mut blocks).expect("decode a record");
        if rmgr::is_checkpoint(&record.header) && record.lsn < fork && record.lsn <= newest {
            map.clear();
            checkpoint = Some(record.lsn);
        }
        for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
            map.insert(block.relation, block.block);
        }
    });
    (end, checkpoint.filter(|_| end > fork).map(|lsn| (lsn, map)))
}

#[test]
fn the_parallel_scan_finds_what_the_reader_finds() {
    let sandbox = Sandbox::new();
    let (_server, wal, control) = with_much_wal(sandbox.server("server"), "");
    let (mut starts, mut checkpoints) = (Vec::new(), Vec::new());
    let end = read_all(&wal, &control, |record| {
        starts.push(record.lsn);
        if rmgr::is_checkpoint(&record.header) {
            checkpoints.push(record.lsn);
        }
    });
    assert!(checkpoints.len() > 4, "checkpoints: {checkpoints:?}");
    let first_fork =
        starts.iter().position(|lsn| *lsn > checkpoints[0]).expect("a record behind the checkpoint");
    let forks = starts[first_fork..]
        .iter()
        .step_by((starts.len() / 12).max(1))
        .copied()
        .chain(checkpoints[1..].iter().copied());
    let mut rebuilt = 0;
    for (index, fork) in forks.enumerate() {
        for newest in [checkpoints[checkpoints.len() - 1], checkpoints[index % checkpoints.len()]] {
            let request = ScanRequest::new(control.geometry(), fork, newest, end).with_end(EndOfWal::Crashed);
            let found = scan(&wal, &request, &|_| {}).expect("scan");
            let diverged =
                found.diverged.map(|Diverged { checkpoint_lsn, page_map, .. }| (checkpoint_lsn, page_map));
            assert_eq!(
                (found.end, diverged),
                sequential(&wal, &control, fork, newest),
                "fork {fork}, newest checkpoint {newest}"
            );
            if index % 4 > 0 {
                continue;
            }
            let prove = RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) };
            let found = scan(&wal, &request.with_rebuilt(prove), &|_| {}).expect("scan");
            if let Some(found) = found.diverged {
                assert_eq!(found.since, found.checkpoint.redo);
                let expected = first_records(&wal, &control, fork, found.since);
                rebuilt += expected.1.len();
                assert_eq!((found.page_map, found.rebuilt), expected, "fork {fork}, redo {}", found.since);
            }
        }
    }
    assert!(rebuilt > 0, "no block is rebuilt anywhere");
}

/// What the first record from `since` on says of each block: all of them, and those that it makes anew.
fn first_records(wal: &WalDir, control: &ControlFile, fork: Lsn, since: Lsn) -> (PageMap, PageMap) {
    let (mut named, mut rebuilt, mut blocks, mut copied) =
        (PageMap::new(), PageMap::new(), Vec::new(), false);
    read_all(wal, control, |record| {
        if record.lsn < since {
            return;
        }
        record.decode(&control.geometry(), &mut blocks).expect("decode a record");
        for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
            let is_new = named.insert(block.relation, block.block);
            let is_replaced = block.will_init || block.image.is_some_and(|image| image.is_applied);
            if is_new && is_replaced && !copied && record.end <= fork {
                rebuilt.insert(block.relation, block.block);
            }
        }
        copied |= record.header.rmid == 4 && record.header.info & 0xF0 == 0;
    });
    (named, rebuilt)
}

/// Every field read from a control file, against the text of pg_controldata.
pub fn assert_same_control(control: &ControlFile, pg_controldata: &str) {
    let theirs: BTreeMap<&str, &str> = pg_controldata
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let setting = |on: bool| if on { "on" } else { "off" };
    for (name, value) in [
        ("pg_control version number", control.version().control_version().to_string()),
        ("Catalog version number", control.version().catalog_version().to_string()),
        ("Database system identifier", control.system_identifier().to_string()),
        ("Database cluster state", control.state().to_string()),
        ("Latest checkpoint location", control.checkpoint_lsn().to_string()),
        ("Latest checkpoint's REDO location", control.checkpoint().redo.to_string()),
        ("Latest checkpoint's TimeLineID", control.checkpoint().timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", control.checkpoint().previous_timeline.to_string()),
        ("Latest checkpoint's full_page_writes", setting(control.checkpoint().full_page_writes).to_owned()),
        ("Minimum recovery ending location", control.min_recovery_point().to_string()),
        ("wal_log_hints setting", setting(control.wal_log_hints()).to_owned()),
        ("Database block size", control.block_size().to_string()),
        ("Blocks per segment of large relation", control.relation_segment_blocks().to_string()),
        ("WAL block size", control.geometry().wal_block_size.to_string()),
        ("Bytes per WAL segment", control.geometry().segment_size.bytes().to_string()),
    ] {
        assert_eq!(theirs.get(name), Some(&value.as_str()), "{name}");
    }
}

#[test]
fn the_control_file_is_read_as_pg_controldata_reads_it() {
    let sandbox = Sandbox::new();
    let (server, _, control) = with_much_wal(sandbox.server("server"), "wal_log_hints = on");
    let mut program = server_program("pg_controldata");
    program.arg(&server.data).env("LC_ALL", "C");
    assert_same_control(&control, &String::from_utf8(run(&mut program).stdout).expect("UTF-8"));
}
