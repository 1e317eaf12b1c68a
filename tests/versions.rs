//! Every version that has a server: a failover, and the old primary rewound from each state it may be left in.
//!
//!     old  ──── shared ────┬──── lost ──── half a record ╳ torn
//!                          │                             └── starts, lost ──╳ kill -9: mended, shut_down
//!                          │                                                └── starts, stops ──╳ clean
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ────────────────────────────────────────────────────────▶
//!
//!     torn        as it lies, from the running new primary, with -R
//!     mended      as it lies, from the running new primary, by a role with the least rights
//!     shut_down   with --ensure-shutdown, from a standby of the new primary, which mended is by then
//!     clean       from the directory of the new primary, stopped

use std::os::unix::fs::FileExt;

use walparse::{Lsn, SegmentSize, TimelineHistory, TimelineId, WalDir, WalReader, rmgr};

use crate::basic;
use crate::harness::{
    Failover, Installation, Rewind, Sandbox, Server, SourceKind, WAL_PAGE_SIZE, assert_follows,
    assert_same_content, assert_sound, insert_position, next_segment,
};
use crate::least_privilege::{conninfo, printed_grants};

pub fn shared(primary: &Server) {
    primary.sql(
        "CREATE TABLE document (id serial, body text, words tsvector, place point);
         INSERT INTO document (body, words, place)
             SELECT repeat(md5(n::text), n), to_tsvector('simple', md5(n::text) || ' word'), point(n, n)
             FROM generate_series(1, 300) n;
         CREATE INDEX ON document USING gin (words);
         CREATE INDEX ON document USING gist (place);
         CREATE INDEX ON document USING spgist (place);
         CREATE INDEX ON document USING hash (body);
         CREATE INDEX ON document USING brin (id);
         CREATE UNLOGGED TABLE scratch AS SELECT n FROM generate_series(1, 100) n;
         CREATE TABLE cut AS SELECT n FROM generate_series(1, 5000) n",
    );
    primary.sql("CREATE DATABASE dropped");
    // Last, since it ends with a checkpoint and some changes behind it.
    basic::shared(primary);
}

pub fn lost(old: &Server) {
    basic::lost(old);
    old.sql(
        "UPDATE document SET body = body || 'lost', words = to_tsvector('simple', 'lost'), place = point(0, id);
         TRUNCATE cut;
         SELECT nextval('document_id_seq') FROM generate_series(1, 100)",
    );
    old.sql("CREATE DATABASE lost");
    old.sql("DROP DATABASE dropped");
    old.sql("BEGIN; UPDATE dropped_by_new SET n = 0; PREPARE TRANSACTION 'lost'");
    old.sql("VACUUM FULL document");
    old.sql("VACUUM");
}

pub fn kept(new: &Server) {
    basic::kept(new);
    new.sql(
        "INSERT INTO document (body, words, place)
             SELECT 'kept', to_tsvector('simple', 'kept ' || n), point(-n, n) FROM generate_series(1, 300) n;
         DELETE FROM cut WHERE n > 1000",
    );
    new.sql("CREATE DATABASE kept");
    new.sql("VACUUM");
}

/// Leaves the server killed, with a record of many pages at the end of its WAL of which all but the first pages never
/// reached the disk. Returns where that record starts, at the earliest.
fn tear(server: &mut Server) -> Lsn {
    next_segment(server);
    let start = insert_position(server).0;
    server.sql("SELECT pg_logical_emit_message(true, 'torn', repeat('x', 200000))");
    assert!(insert_position(server).0 > start + 200_000);
    server.kill();
    let segment_size = server.control_file().geometry().segment_size;
    let cut = (start / WAL_PAGE_SIZE + 3) * WAL_PAGE_SIZE;
    let segment = segment_size.segment_of(Lsn(cut));
    assert_eq!(segment, segment_size.segment_of(Lsn(start + 200_000)));
    let path = server.data.join("pg_wal").join(segment_size.file_name(TimelineId(1), segment));
    let file = std::fs::File::options().write(true).open(&path).expect("open a segment");
    let offset = segment_size.offset_of(Lsn(cut));
    let rest = vec![0; segment_size.bytes() as usize - offset];
    file.write_all_at(&rest, offset as u64).expect("cut the record off");
    Lsn(start)
}

/// The server has declared a record from `start` on void.
fn assert_overwritten(server: &Server, start: Lsn) {
    let geometry = server.control_file().geometry();
    let history = TimelineHistory::of_first(TimelineId(1));
    let wal = WalDir::new(server.data.join("pg_wal"), history, geometry.segment_size);
    let mut reader = WalReader::new(&wal, geometry, Lsn(0));
    let first = reader.seek_first_in(geometry.segment_size.segment_of(start)).expect("read a segment");
    first.expect("valid WAL").expect("a record");
    let mut blocks = Vec::new();
    while let Ok(record) = reader.read().expect("read WAL") {
        let payload = record.decode(&geometry, &mut blocks).expect("decode a record");
        if rmgr::overwritten_record(&record, payload.main_data).is_some_and(|torn| torn >= start) {
            return;
        }
    }
    panic!("no record of {} has been declared void from {start} on", server.name);
}

fn rewind_in_every_way(major: u32) {
    let sandbox = Sandbox::new();
    let installation = Installation::of(major);
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", installation, &[]));
    let with_role = |primary: &Server| {
        shared(primary);
        primary.sql(&printed_grants(major));
    };
    let Failover { old: mut torn, mut new } = Failover::of(old, new, with_role, lost, kept);
    let start = tear(&mut torn);
    let mut mended = torn.copy("mended");

    let run = Rewind::of(&torn).from(&new, SourceKind::Server).arg("-R").run().expect_done();
    // Both have the same settings, most of them the version's defaults.
    assert!(!run.stderr.contains("a hot standby does not start with a lower value"), "{run}");
    torn.start();
    assert!(torn.value::<bool>("SELECT pg_is_in_recovery()"), "-R makes a standby");
    torn.catch_up(&new);
    assert_same_content(&torn, &new);
    assert_sound(&mut torn);

    mended.start();
    assert_overwritten(&mended, start);
    mended.sql("UPDATE account SET owner = 'lost again' WHERE id % 7 = 0");
    mended.kill();
    let mut shut_down = mended.copy("shut_down");
    let mut clean = mended.copy("clean");
    clean.start();
    clean.stop();
    // As a role that has what `kbrecover grants` gives it.
    // From the common checkpoint: it will be a source, and has to have the WAL from the fork on.
    let rewind = Rewind::of(&mended).arg("--source-server").arg(conninfo(&new));
    rewind.args(["--replay-from", "common"]).run().expect_done();
    assert_follows(&mut mended, &new);

    let rewind = Rewind::of(&shut_down).from(&mended, SourceKind::Server).arg("--ensure-shutdown");
    let run = rewind.arg("--bindir").arg(&installation.bindir).run().expect_done();
    run.expect_said("for target server to complete crash recovery");
    assert_follows(&mut shut_down, &new);
    assert_sound(&mut shut_down);
    assert_sound(&mut mended);

    new.stop();
    Rewind::of(&clean).from(&new, SourceKind::Directory).run().expect_done();
    new.start();
    assert_follows(&mut clean, &new);
    assert_sound(&mut clean);
}

#[test]
fn pg10() {
    rewind_in_every_way(10);
}

#[test]
fn pg11() {
    rewind_in_every_way(11);
}

#[test]
fn pg12() {
    rewind_in_every_way(12);
}

#[test]
fn pg13() {
    rewind_in_every_way(13);
}

#[test]
fn pg14() {
    rewind_in_every_way(14);
}

#[test]
fn pg15() {
    rewind_in_every_way(15);
}

#[test]
fn pg16() {
    rewind_in_every_way(16);
}

#[test]
fn pg17() {
    rewind_in_every_way(17);
}

#[test]
fn pg18() {
    rewind_in_every_way(18);
}

#[test]
fn pg19() {
    rewind_in_every_way(19);
}

/// A failover of a cluster whose segments have another size than the usual 16 MB, in megabytes.
fn with_segments_of(sandbox: &Sandbox, megabytes: u32, major: u32, options: &[&str]) -> Failover {
    let size = format!("--wal-segsize={megabytes}");
    let old = sandbox.initdb("old", Installation::of(major), &[&[size.as_str()], options].concat());
    assert_eq!(
        old.control_file().geometry().segment_size,
        SegmentSize::new(megabytes << 20).expect("a size")
    );
    let (old, new) = sandbox.pair_of(old);
    Failover::of(old, new, shared, lost, kept)
}

#[test]
fn segments_of_1_megabyte() {
    with_segments_of(&Sandbox::new(), 1, 11, &[]).rewind_both_ways(|_, _| ());
}

#[test]
fn segments_of_64_megabytes() {
    with_segments_of(&Sandbox::new(), 64, 14, &[]).rewind_both_ways(|_, _| ());
}

#[test]
fn segments_of_1_gigabyte() {
    // Files with holes: what is never written need not be read either.
    let sandbox = Sandbox::on_disk();
    let options = ["--set", "wal_init_zero=off"];
    let Failover { mut old, new } = with_segments_of(&sandbox, 1024, 18, &options);
    old.kill();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
