//! Files of a running source change between listing and copy: they vanish, grow, shrink, become directories.
//!
//!     rewind  ── listing ── plan ── mark ─╳── copy ──▶
//!                                         └ the source's files change here

use std::path::Path;

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows};
use crate::interrupted::is_marked;

/// In an undisturbed run the mark is made durable by then, and no file has been opened.
pub const AFTER_THE_MARK: u32 = 11;

fn failover(sandbox: &Sandbox) -> Failover {
    let nothing = |_: &Server| {};
    let kept = |new: &Server| {
        for name in ["vanishing", "growing", "shrinking", "becoming"] {
            new.write(name, name.repeat(5000));
        }
        new.sql("CREATE TABLE kept ()");
    };
    let mut failover = Failover::new(sandbox, nothing, |old| old.sql("CREATE TABLE lost ()"), kept);
    failover.old.kill();
    failover
}

/// A rewind with a shell command run in the source's directory just after the mark.
fn rewind(target: &Server, source: &Server, command: &str) -> Rewind {
    let fault = format!("{AFTER_THE_MARK}:sh cd {} && {command}", source.data.display());
    Rewind::of(target).from(source, SourceKind::Server).env("KBRECOVER_FAULT", fault)
}

fn length(directory: &Path, name: &str) -> Option<u64> {
    directory.join(name).metadata().ok().map(|metadata| metadata.len())
}

#[test]
fn vanishing_growing_shrinking() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    // `growing` stays within what a file may have grown by to arrive complete.
    let command = "rm vanishing && printf x%.0s $(seq 1000) >>growing && truncate -s 100 shrinking";
    rewind(&old, &new, command).run().expect_done();
    assert_eq!(length(&new.data, "vanishing"), None, "the command did not run in time");
    for name in ["vanishing", "growing", "shrinking"] {
        let there = std::fs::read(new.data.join(name)).ok();
        assert!(std::fs::read(old.data.join(name)).ok() == there, "{name} is not what it is on the source");
    }
    assert_follows(&mut old, &new);
}

#[test]
fn becoming_a_directory() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    let run = rewind(&old, &new, "rm becoming && mkdir becoming").run();
    assert_eq!(run.code, 2, "{run}");
    assert!(is_marked(&old) && run.stderr.contains("\"becoming\""), "{run}");
    // What the first run has made of it stands in the way, and the run says so.
    let again = Rewind::of(&old).from(&new, SourceKind::Server).run();
    let again = again.expect_said("file \"becoming\" is of different type in source and target");
    assert_eq!(again.code, 2, "{again}");
    std::fs::remove_file(old.data.join("becoming")).expect("remove a file");
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert!(old.data.join("becoming").is_dir(), "it is what it is on the source");
    assert_follows(&mut old, &new);
}
