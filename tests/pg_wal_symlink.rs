//! pg_wal as a symbolic link to a directory elsewhere, on either side.
//!
//!     old/pg_wal ─▶ old-wal/          stays a link, its directory gets the new WAL
//!     new/pg_wal ─▶ new-wal/          is followed, and never becomes a link of the target's

use std::path::Path;

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

/// Moves a stopped server's WAL out of its data directory.
pub fn move_wal_out(server: &Server) {
    let (inside, outside) = (server.data.join("pg_wal"), server.beside(&format!("{}-wal", server.name)));
    std::fs::rename(&inside, &outside).expect("move pg_wal");
    server.relink(&inside, &outside);
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).expect("stat pg_wal").is_symlink()
}

fn rewind(kind: SourceKind, target_has_link: bool, source_has_link: bool) {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    for (server, has_link) in [(&old, target_has_link), (&new, source_has_link)] {
        if has_link {
            move_wal_out(server);
        }
    }
    old.start();
    new.follow(&old);
    new.start();
    let entries = |server: &Server, origin: &str| {
        server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, 3000)"));
    };
    old.sql("CREATE TABLE entry (origin text)");
    let failover = Failover::of(
        old,
        new,
        |old| entries(old, "shared"),
        |old| entries(old, "lost"),
        |new| entries(new, "kept"),
    );
    let Failover { mut old, mut new } = failover;
    old.kill();
    if kind == SourceKind::Directory {
        new.stop();
    }
    Rewind::of(&old).from(&new, kind).run().expect_done();
    assert_eq!(is_link(&old.data.join("pg_wal")), target_has_link, "pg_wal of the target is still a link");
    assert_eq!(is_link(&new.data.join("pg_wal")), source_has_link, "pg_wal of the source is still a link");
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["kept", "shared"]);
    assert_sound(&mut old);
}

#[test]
fn at_the_target() {
    rewind(SourceKind::Server, true, false);
}

#[test]
fn at_a_running_source() {
    rewind(SourceKind::Server, false, true);
}

#[test]
fn at_a_stopped_source() {
    rewind(SourceKind::Directory, false, true);
}

#[test]
fn on_both_sides() {
    rewind(SourceKind::Directory, true, true);
}
