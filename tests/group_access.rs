//! Directories that the group may read: what the rewind makes, the group may read too.
//!
//!     old/  0750, files 0640   ──▶  after the rewind still 0750 and 0640, every one
//!     old/  0700, files 0600   ──▶  after the rewind still 0700 and 0600, though the source's are open

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, run};

/// Opens a cluster as `initdb --allow-group-access` makes it.
pub fn allow_group_access(server: &Server) {
    run(Command::new("chmod").args(["-R", "g+rX"]).arg(&server.data));
}

fn assert_modes(data: &Path, directory: u32, file: u32) {
    let mut pending = vec![data.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("stat");
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            assert_eq!(mode, directory, "mode {mode:o} of {}", path.display());
            pending
                .extend(std::fs::read_dir(&path).expect("list").map(|entry| entry.expect("an entry").path()));
        } else {
            assert_eq!(mode, file, "mode {mode:o} of {}", path.display());
        }
    }
}

fn rewind(kind: SourceKind, target_is_open: bool) {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    let new = old.copy("new");
    allow_group_access(if target_is_open { &old } else { &new });
    let (mut old, mut new) = (old, new);
    old.start();
    new.follow(&old);
    new.start();
    let Failover { mut old, mut new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 3000) n"),
        |old| old.sql("INSERT INTO entry SELECT n, 'lost' FROM generate_series(1, 3000) n"),
        |new| {
            new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 3000) n");
            new.sql("CREATE DATABASE kept");
            new.sql("CREATE TABLE kept AS SELECT n FROM generate_series(1, 3000) n");
        },
    );
    old.stop();
    if kind == SourceKind::Directory {
        new.stop();
    }
    Rewind::of(&old).from(&new, kind).run().expect_done();
    let (directory, file) = if target_is_open { (0o750, 0o640) } else { (0o700, 0o600) };
    assert_modes(&old.data, directory, file);
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
    assert_modes(&old.data, directory, file);
}

#[test]
fn open_target_running_source() {
    rewind(SourceKind::Server, true);
}

#[test]
fn open_target_stopped_source() {
    rewind(SourceKind::Directory, true);
}

#[test]
fn closed_target_open_source() {
    rewind(SourceKind::Directory, false);
}
