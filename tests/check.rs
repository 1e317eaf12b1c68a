//! `--check` tries what a rewind could fail with and stops before the first change; a rewind tries the same first.
//!
//!     closed directory on the target · closed file on the source · a file for which there is no room
//!         ──▶ refused, byte for byte unchanged, by --check and without it
//!     all mended ──▶ --check says yes, and the rewind succeeds

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Failover, Rewind, Sandbox, SourceKind, assert_follows};

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("change a mode");
}

/// Refused by the check, and by the rewind itself before its first change.
fn refused(failover: &Failover, error: &str, hint: &str) {
    for check in [&["--check"][..], &[]] {
        let run = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(check);
        run.expect_refusal(error, hint);
    }
}

#[test]
fn what_would_fail_is_found_before_the_first_change() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::of_one_table(&sandbox);
    let Failover { old, new } = &failover;
    new.make_dir("extra");
    new.write("extra/file", "of the source");

    // A directory in which a file of the source must be made.
    old.make_dir("extra");
    set_mode(&old.data.join("extra"), 0o500);
    refused(&failover, "could not write to directory", "as the user who owns the data directory");
    set_mode(&failover.old.data.join("extra"), 0o700);

    // A file the source's own server cannot read.
    set_mode(&failover.new.data.join("extra/file"), 0);
    refused(&failover, "could not open file \"extra/file\"", "exclude it with --keep");
    set_mode(&failover.new.data.join("extra/file"), 0o600);

    // A file of 8 TB, nearly all of it a hole.
    let huge = std::fs::File::create(failover.new.data.join("extra/file")).expect("make a file");
    let Ok(()) = huge.set_len(8 << 40) else { panic!("this file system takes no file of 8 TB") };
    refused(&failover, "not enough free space: the file system of", "--ignore-free-space");
    let run = Rewind::of(&failover.old)
        .from(&failover.new, SourceKind::Server)
        .args(["--check", "--ignore-free-space"])
        .run_leaving_target_alone();
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stderr.contains("warning: not enough free space"), "{run}");
    huge.set_len(100).expect("cut it");

    let check = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server);
    let run = check.args(["--check", "--format", "json"]).run_leaving_target_alone();
    assert_eq!(run.code, 0, "{run}");
    let object = run.json();
    assert_eq!(object["outcome"], "checked", "{run}");
    let fetched = object["bytes"]["to_fetch"].as_u64().expect("bytes to fetch");
    let space = object["space"].as_array().expect("file systems");
    assert_eq!(space.len(), 1, "{run}");
    let (needed, available) = (space[0]["needed"].as_u64(), space[0]["available"].as_u64());
    assert!(needed > Some(0) && needed < Some(fetched + (64 << 20)) && available > needed, "{run}");
    let text = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).arg("--check").run();
    assert!(text.stdout.contains("All checks passed; ready to rewind."), "{text}");

    Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).run().expect_done();
    assert_follows(&mut failover.old, &failover.new);
    failover.old.stop();
    let run = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).arg("--check");
    run.run_leaving_target_alone().expect_not_needed();
}
