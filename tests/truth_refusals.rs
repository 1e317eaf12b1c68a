//! What real set-ups have in a data directory, and what is no reason to refuse.
//!
//!     .s.PGSQL.5432     a socket: unix_socket_directories is the data directory
//!     lost+found        of a file system's root, which only root may read
//!     pg_stat_tmp ──▶   a link into memory, as many had up to 14
//!     pg_wal/…          segments of a wrong size that nobody needs

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{
    Failover, Rewind, SEGMENT_SIZE, Sandbox, Segment, Server, SourceKind, assert_follows, assert_sound,
    history_switch, is_root, next_segment, segments,
};
use crate::truth_proof::{assert_rewinds, rewind};

/// `lost+found` as mkfs makes it. A test that is not run by root makes one that nobody may read.
fn lost_and_found(directory: &Path) {
    let path = directory.join("lost+found");
    fs::create_dir(&path).expect("make lost+found");
    let mode = if is_root() { 0o700 } else { 0o000 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("close lost+found");
}

fn with_lost_and_found(on_target: bool, on_source: bool, below: &str) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    for (server, is_there) in [(&old, on_target), (&new, on_source)] {
        if is_there {
            lost_and_found(&server.data.join(below));
        }
    }
    assert_rewinds(&mut old, &new);
    assert_eq!(old.data.join(below).join("lost+found").exists(), on_target, "that of the target");
}

#[test]
fn lost_and_found_on_the_target() {
    with_lost_and_found(true, false, "");
}

#[test]
fn lost_and_found_on_the_source() {
    with_lost_and_found(false, true, "");
}

#[test]
fn lost_and_found_on_both() {
    with_lost_and_found(true, true, "");
}

#[test]
fn lost_and_found_in_pg_wal_on_both() {
    with_lost_and_found(true, true, "pg_wal");
}

#[test]
fn lost_and_found_in_pg_wal_on_the_target() {
    with_lost_and_found(true, false, "pg_wal");
}

/// Each server's socket, beside the usual one.
fn listen_in_data_directory(server: &mut Server) {
    let both = format!("{},{}", server.host(), server.data.display());
    server.set("unix_socket_directories", &both);
}

fn with_sockets(on_target: bool, on_source: bool, kind: SourceKind) {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    if on_target {
        listen_in_data_directory(&mut old);
    }
    if on_source {
        listen_in_data_directory(&mut new);
    }
    old.start();
    new.follow(&old);
    new.start();
    let Failover { mut old, mut new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    // Its socket stays behind.
    old.kill();
    let socket = |server: &Server| server.data.join(format!(".s.PGSQL.{}", server.port));
    assert_eq!((socket(&old).exists(), socket(&new).exists()), (on_target, on_source));
    if kind == SourceKind::Directory {
        new.stop();
        Rewind::of(&old).from(&new, kind).run().expect_done();
        new.start();
        crate::harness::assert_follows(&mut old, &new);
    } else {
        assert_rewinds(&mut old, &new);
    }
    assert!(!old.data.join(format!(".s.PGSQL.{}", new.port)).exists(), "the source's socket was copied");
}

#[test]
fn sockets_in_both_data_directories() {
    with_sockets(true, true, SourceKind::Server);
}

#[test]
fn socket_in_the_sources_data_directory() {
    with_sockets(false, true, SourceKind::Server);
}

#[test]
fn socket_in_the_targets_data_directory() {
    with_sockets(true, false, SourceKind::Server);
}

#[test]
fn sockets_in_both_data_directories_source_stopped() {
    with_sockets(true, true, SourceKind::Directory);
}

/// A link to a directory beside the data directory, with a file in it.
fn with_links(name: &str, on_target: bool, on_source: bool) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    for (server, is_link) in [(&old, on_target), (&new, on_source)] {
        if is_link {
            let memory = sandbox.make_dir(&format!("{}-memory", server.name));
            fs::write(memory.join(&server.name), "x").expect("write a file");
            fs::remove_dir_all(server.data.join(name)).expect("remove a directory");
            server.relink(&server.data.join(name), &memory);
        }
    }
    assert_rewinds(&mut old, &new);
    assert_eq!(old.data.join(name).is_symlink(), on_target, "{name} of the target");
    assert!(!sandbox.path("old-memory").join("new").exists(), "a file of the source was copied");
}

#[test]
fn pg_stat_tmp_is_a_link_on_both() {
    with_links("pg_stat_tmp", true, true);
}

#[test]
fn pg_stat_tmp_is_a_link_on_the_target() {
    with_links("pg_stat_tmp", true, false);
}

#[test]
fn pg_stat_tmp_is_a_link_on_the_source() {
    with_links("pg_stat_tmp", false, true);
}

/// Cut or empty segments of the target: older than replay needs, of the other branch, and named for times to come. Whatever
/// is left has the right size, for the server stops at one that has not.
#[test]
fn segments_of_a_wrong_size() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |old| {
            // Segments from before replay's start are kept.
            old.sql("ALTER SYSTEM SET wal_keep_size = '1GB'");
            old.sql("SELECT pg_reload_conf()");
            old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
            (0..3).for_each(|_| next_segment(old));
            old.sql("CHECKPOINT");
        },
        |old| {
            old.sql("UPDATE entry SET origin = 'lost'");
            next_segment(old);
        },
        |new| {
            new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)");
            // Replay does not start before the common checkpoint.
            new.sql("CHECKPOINT");
            next_segment(new);
        },
    );
    failover.old.stop();
    let Failover { mut old, new } = failover;
    let cut = |name: &str, size: u64| {
        let path = old.data.join("pg_wal").join(name);
        if !path.exists() {
            old.write(&format!("pg_wal/{name}"), "");
        }
        let file = fs::File::options().write(true).open(path).expect("open a segment");
        file.set_len(size).expect("cut a segment");
    };
    let oldest = segments(&old.data)[0];
    cut(&oldest.to_string(), SEGMENT_SIZE / 2);
    cut("000000010000000000000030", 0);
    cut("000000010000000000000031", 8192);
    cut("000000020000000000000032", SEGMENT_SIZE / 2);
    rewind(&old, &new).run().expect_done();
    for segment in segments(&old.data) {
        let size = fs::metadata(old.data.join(format!("pg_wal/{segment}"))).expect("a segment").len();
        assert_eq!(size, SEGMENT_SIZE, "{segment}");
    }
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A cut segment between the common checkpoint and the fork: replay needs it, and the source has it.
#[test]
fn common_segment_of_a_wrong_size() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |old| {
            old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
            old.sql("CHECKPOINT");
            for _ in 0..2 {
                old.sql("INSERT INTO entry SELECT 'shared, too' FROM generate_series(1, 3000)");
                next_segment(old);
            }
            // The segment of the fork has common WAL, by which both are known to be of one history.
            old.sql("INSERT INTO entry SELECT 'shared at last' FROM generate_series(1, 3000)");
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    failover.old.stop();
    let Failover { mut old, new } = failover;
    let of_fork = Segment::at(1, history_switch(&new, 2));
    let common = Segment { number: of_fork.number - 1, ..of_fork };
    let file = fs::File::options().write(true).open(old.data.join(format!("pg_wal/{common}")));
    file.expect("open a segment").set_len(8192).expect("cut a segment");
    assert_rewinds(&mut old, &new);
}
