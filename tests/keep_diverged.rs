//! `--keep-diverged`: what a rewind gives up is kept elsewhere, and with it the directory can be made what it was.
//!
//!     target as it was ── rewind, killed on the way, run again ──▶ rewound
//!            │                                                       │ the bytes kept, put back;
//!            └───────────────── the same ◀───────────────────────────┘ what was made, removed
//!
//! Where the second run has a newer source, that touches more: it is kept, too, and nothing half-copied is.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::crash_sweep::{everything, is_our_own, rewind_of};
use crate::harness::{Change, Failover, Rewind, Sandbox, Server, SourceKind, differences, record_changes};

fn names(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

fn manifest(kept: &Path) -> Value {
    let text = std::fs::read(kept.join("kept.json")).expect("read kept.json");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(manifest["complete"], true);
    manifest
}

/// Everything that is not told of one by one: directories come and go with what is in them.
fn is_beside_the_point(path: &Path) -> bool {
    is_our_own(path) || path.starts_with("pg_wal")
}

/// Puts back what was kept. Returns how many files.
fn undo(kept: &Path, rewound: &Path) -> usize {
    let manifest = manifest(kept);
    for made in names(&manifest["made"]) {
        let _ = std::fs::remove_file(rewound.join(made));
    }
    let files = manifest["files"].as_object().expect("files");
    for (name, file) in files {
        let path = rewound.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
        let to = std::fs::File::options().write(true).create(true).truncate(false).open(&path);
        let to = to.unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        let size = file["size"].as_u64().expect("a size");
        let from = std::fs::File::open(kept.join("files").join(name)).expect("what was kept");
        for range in file["ranges"].as_array().expect("ranges") {
            let at = |number: usize| range[number].as_u64().expect("a position");
            let mut bytes = vec![0; (at(1) - at(0)) as usize];
            from.read_exact_at(&mut bytes, at(0)).expect("the bytes kept");
            to.write_all_at(&bytes, at(0)).expect("put them back");
        }
        to.set_len(size).expect("cut it");
    }
    files.len()
}

/// Proves that what was kept makes `rewound` what `before` is; all but directories, modes and WAL.
fn assert_undone(kept: &Path, before: &Server, rewound: &Server, what: &str) {
    let count = undo(kept, &rewound.data);
    assert!(count > 20, "{what}: only {count} files were kept");
    let left: Vec<String> = differences(&before.data, &rewound.data, &is_beside_the_point)
        .into_iter()
        .filter(|line| line.contains(" bytes and ") || is_file_of(line, &before.data, &rewound.data))
        .collect();
    assert!(left.is_empty(), "{what}: {left:#?}");
    let manifest = manifest(kept);
    let wal = names(&manifest["wal"]);
    assert!(wal.iter().any(|name| name.len() == 24), "{what}: no segment was kept: {wal:?}");
    for name in &wal {
        let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let is_same = read(before.data.join("pg_wal").join(name)) == read(kept.join("pg_wal").join(name));
        assert!(is_same, "{what}: {name} is not what it was");
    }
    // Nothing else lies there.
    let listed: BTreeSet<&str> = wal.into_iter().collect();
    for entry in std::fs::read_dir(kept.join("pg_wal")).expect("list the WAL kept") {
        let name = entry.expect("an entry").file_name();
        assert!(listed.contains(name.to_str().expect("a name")), "{what}: {name:?} is not listed");
    }
}

/// Whether a line of differences is of a file that is on one side only.
fn is_file_of(line: &str, one: &Path, other: &Path) -> bool {
    let path = line.rsplit_once("\": ").map_or("", |(path, _)| path.trim_start_matches('"'));
    line.ends_with("true and false") && one.join(path).is_file()
        || line.ends_with("false and true") && other.join(path).is_file()
}

fn keeping(target: &Server, source: &Server, kept: &Path) -> Rewind {
    rewind_of(target, source).arg("--keep-diverged").arg(kept).arg("--keep-diverged-blocks")
}

/// Rewinds with all changes recorded; these, and the number of the mark among them.
fn recorded(rewind: Rewind, target: &Server) -> (Vec<Change>, usize) {
    let changes = record_changes(rewind, target);
    let mark = changes.iter().position(|change| change.to == Path::new("backup_label")).expect("a mark");
    (changes, mark)
}

#[test]
fn what_was_kept_makes_the_directory_what_it_was() {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let Failover { old, new } = &failover;
    let reference = old.copy("uninterrupted");
    let spare = |name: &str| sandbox.make_dir(&format!("{name}-parent")).join("kept");
    let kept = spare("whole");
    let (changes, mark) = recorded(keeping(&reference, new, &kept), &reference);
    assert_undone(&kept, old, &reference, "in one run");

    // Every byte of it is on disk before the mark.
    let mut unsynced: BTreeSet<&Path> = BTreeSet::new();
    for change in &changes[..mark] {
        match change.kind.as_str() {
            "write" | "create" => drop(unsynced.insert(&change.path)),
            "fsync" => drop(unsynced.remove(change.path.as_path())),
            "rename" if unsynced.remove(change.path.as_path()) => drop(unsynced.insert(&change.to)),
            _ => {}
        }
    }
    unsynced.retain(|path| path.starts_with(&kept));
    assert!(unsynced.is_empty(), "not durable before the mark: {unsynced:?}");
    // Except for the note that the rewind has ended.
    let is_late = |change: &&Change| {
        change.path.starts_with(&kept) && !change.path.display().to_string().contains("/rewound.json")
    };
    let late = changes[mark..].iter().filter(is_late).find(|change| change.path != kept);
    assert!(late.is_none(), "kept after the mark: {late:?}");

    let total = changes.len();
    for at in
        [mark / 3, mark - 2, mark + 2, mark + (total - mark) / 3, mark + (total - mark) * 2 / 3, total - 8]
    {
        let target = old.copy(&format!("killed-{at}"));
        let kept = spare(&format!("killed-{at}"));
        let run =
            keeping(&target, new, &kept).env("KBRECOVER_FAULT", format!("{at}:kill")).run_unless_killed();
        assert!(run.is_none(), "change {at} of {total} did not happen");
        // The option need not be given again.
        let again =
            if at % 2 == 0 || at <= mark { keeping(&target, new, &kept) } else { rewind_of(&target, new) };
        let run = again.run();
        assert_eq!(run.code, 0, "killed at change {at} of {total}, and run again: {run}");
        assert_undone(&kept, old, &target, &format!("killed at change {at} of {total}"));
    }
}

#[test]
fn a_newer_source_adds_to_it() {
    let sandbox = Sandbox::new();
    let mut failover = everything(&sandbox);
    let undisturbed = failover.old.copy("undisturbed");
    let rewind = keeping(&undisturbed, &failover.new, &sandbox.make_dir("first"));
    let (changes, mark) = recorded(rewind, &undisturbed);
    let target = failover.old.copy("target");
    let kept = sandbox.make_dir("parent").join("kept");
    let fault = format!("{}:kill", mark + (changes.len() - mark) / 2);
    let run = keeping(&target, &failover.new, &kept).env("KBRECOVER_FAULT", fault).run_unless_killed();
    assert!(run.is_none(), "not killed");
    assert!(kbrecover_rewind::is_unfinished(&target.data), "killed before the mark");
    let before = manifest(&kept)["files"].as_object().expect("files").len();
    failover.new.start();
    failover.new.sql(
        "DROP TABLE IF EXISTS heartbeat; CREATE TABLE later AS SELECT n FROM generate_series(1, 20000) n",
    );
    failover.new.sql("VACUUM FULL pg_class");
    failover.new.sql("VACUUM FULL pg_attribute");
    failover.new.stop();
    let run = rewind_of(&target, &failover.new).run();
    assert_eq!(run.code, 0, "{run}");
    let after = manifest(&kept)["files"].as_object().expect("files").len();
    assert!(after > before, "{before} files were kept, and then {after}");
    assert_undone(&kept, &failover.old, &target, "with a newer source");
}

#[test]
fn places_that_will_not_do() {
    let sandbox = Sandbox::new();
    let failover = Failover::of_one_table(&sandbox);
    let Failover { old, new } = &failover;
    let rewind = |kept: &Path| Rewind::of(old).from(new, SourceKind::Server).arg("--keep-diverged").arg(kept);
    let refused = |kept: &Path, problem: &str| {
        rewind(kept).expect_refusal(problem, "outside the data directory that is empty or does not exist");
    };
    refused(&old.data.join("kept"), "it is inside the data directory");
    refused(&old.data.join("pg_wal/kept"), "it is inside the data directory");
    refused(&sandbox.path("none/kept"), "its parent directory does not exist");
    let filled = sandbox.make_dir("filled");
    std::fs::write(filled.join("x"), "x").expect("write");
    refused(&filled, "it is not empty");
    refused(&filled.join("x"), "it is not a directory");

    // A check makes nothing.
    let kept = sandbox.make_dir("kept-parent").join("kept");
    assert_eq!(rewind(&kept).arg("--check").run_leaving_target_alone().code, 0);
    assert!(!kept.exists());
    let copy = old.copy("copy");
    rewind(&kept)
        .run()
        .expect_done()
        .expect_said("of discarded data in")
        .expect_said(&format!("lost: kept in {kept:?}"));
    assert!(!kept.join("files/base").exists(), "blocks were kept without being asked for");
    assert_eq!(names(&manifest(&kept)["made"]), ["backup_label"]);
    let again = |target: &Server, kept: &Path| {
        Rewind::of(target).from(new, SourceKind::Server).arg("--keep-diverged").arg(kept)
    };
    again(&copy, &kept).expect_refusal("it contains data saved by another rewind", "empty or does not exist");

    // What an unfinished run did not keep is gone.
    let run = Rewind::of(&copy).from(new, SourceKind::Server).env("KBRECOVER_FAULT", "40:kill");
    assert!(run.run_unless_killed().is_none() && kbrecover_rewind::is_unfinished(&copy.data));
    let run = again(&copy, &sandbox.make_dir("late")).run();
    assert_eq!(run.code, 2, "{run}");
    run.expect_said("started without --keep-diverged").expect_said("Leave out --keep-diverged");
    Rewind::of(&copy).from(new, SourceKind::Server).run().expect_done();
}
