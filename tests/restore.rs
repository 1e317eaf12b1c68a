//! `kbrecover restore`: the old primary's directory as it was before the rewind.
//!
//!     before ── a copy of the old primary ──────────────▶ started alone ─┐
//!     old ── rewind ──▶ rewound ── follows the new primary               ├ the same rows
//!              │           │ not started yet                             │
//!              └── kept ───┴── restore ──▶ restored ────▶ started alone ─┘

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, Tree, assert_same_content, command,
    differences, pick, run_command,
};

/// A pair of which each side has changed, made, emptied and dropped things that the other has not. The old one was killed.
fn failover(sandbox: &Sandbox, major: u32) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| {
            old.sql(
                "CREATE TABLE entry (id int PRIMARY KEY, what text); INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 20000) n;
                 CREATE TABLE by_source AS SELECT n, 'shared' AS what FROM generate_series(1, 20000) n;
                 CREATE TABLE dropped_by_source AS SELECT n FROM generate_series(1, 5000) n;
                 CREATE TABLE emptied_by_source AS SELECT n FROM generate_series(1, 5000) n;
                 CREATE TABLE dropped_here AS SELECT n FROM generate_series(1, 5000) n;
                 CREATE TABLE quiet AS SELECT n FROM generate_series(1, 5000) n;
                 CREATE TABLE wide (big text); INSERT INTO wide SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) n",
            );
            old.sql("CREATE DATABASE shared");
            // Before the fork, and replayed by the old primary after its crash.
            old.sql("CHECKPOINT; UPDATE entry SET what = 'before the fork' WHERE id % 7 = 0");
        },
        |old| {
            old.sql("UPDATE entry SET what = 'lost' WHERE id % 3 = 0; DELETE FROM entry WHERE id % 10 = 1; DROP TABLE dropped_here");
            old.sql("CREATE TABLE made_here AS SELECT n FROM generate_series(1, 9000) n; TRUNCATE wide");
            old.sql("CREATE DATABASE lost");
            old.sql_in("lost", "CREATE TABLE there AS SELECT n FROM generate_series(1, 100) n");
            old.sql_in("shared", "CREATE TABLE there AS SELECT n FROM generate_series(1, 100) n");
        },
        |new| {
            new.sql("UPDATE by_source SET what = 'kept'; DROP TABLE dropped_by_source; TRUNCATE emptied_by_source");
            new.sql("DROP DATABASE shared");
            new.sql("VACUUM FULL pg_class");
        },
    );
    old.kill();
    Failover { old, new }
}

fn rewind(target: &Server, source: &Server, kept: &Path, option: &str) {
    let rewind = Rewind::of(target).from(source, SourceKind::Server).arg("--keep-diverged").arg(kept);
    rewind.unverified().arg(option).run().expect_rewound();
}

fn restore(kept: &Path, to: &Path, more: &[&str]) -> Run {
    let mut command = command(["restore"]);
    command.arg(kept).arg("--to").arg(to).args(more);
    run_command(command)
}

/// As [`restore`], with the result as JSON.
fn restored_as_json(kept: &Path, to: &Path, more: &[&str]) {
    let run = restore(kept, to, &[more, &["--format", "json"]].concat());
    let json = run.json();
    assert_eq!((run.code, json["directory"].as_str()), (0, to.to_str()), "{run}");
    let bytes = ["bytes", "bytes_from_rewound"].map(|name| json[name].as_u64());
    assert!(json["files"].as_u64() > Some(100) && bytes[0] > bytes[1] && bytes[1].is_some(), "{run}");
}

fn restored_by(run: Run) -> Run {
    assert!(run.code == 0 && run.stdout.starts_with("restored "), "{run}");
    run
}

fn refused(run: &Run, to: &Path, problem: &str) {
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains(problem), "{run}");
    let is_empty = std::fs::read_dir(to).map_or(true, |mut entries| entries.next().is_none());
    assert!(is_empty, "something was written\n{run}");
}

/// Only the owner may read any of it.
fn assert_private(path: &Path) {
    let mode = path.metadata().expect("stat").permissions().mode() & 0o777;
    assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("list") {
            assert_private(&entry.expect("an entry").path());
        }
    }
}

/// Starts both alone, and compares every row of every table.
fn assert_same_rows(before: &Server, mut restored: Server) {
    let mut before = before.copy(&format!("before-{}", restored.name));
    assert!(!restored.data.join("standby.signal").exists());
    before.start();
    restored.start();
    assert_eq!(restored.value::<i64>("SELECT count(*) FROM entry WHERE what = 'lost'"), 6000);
    assert!(!restored.value::<bool>("SELECT pg_is_in_recovery()"));
    assert_same_content(&before, &restored);
    before.stop();
    restored.stop();
}

/// Bytes of every file but WAL.
fn assert_same_bytes(before: &Server, restored: &Server) {
    let is_beside_the_point = |path: &Path| path.starts_with("pg_wal") || path == Path::new("postmaster.pid");
    let left: Vec<String> = differences(&before.data, &restored.data, &is_beside_the_point)
        .into_iter()
        .filter(|line| !line.contains("mode"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn the_old_primary_is_as_it_was() {
    for major in pick("restore: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let Failover { old: mut node, new } = failover(&sandbox, major);
        let before = node.copy("before");
        let (blocks, all) = (sandbox.make_dir("kept-blocks"), sandbox.make_dir("kept-all"));
        let whole = node.copy("whole");
        rewind(&whole, &new, &all, "--keep-diverged-all");
        rewind(&node, &new, &blocks, "--keep-diverged-blocks");
        // What managers do before they start it.
        node.write("standby.signal", "");
        node.configure("work_mem = '77MB'");

        let restored = before.at("restored");
        sandbox.make_dir("restored");
        let was = Tree::of(&node.data);
        let run = restored_by(restore(&blocks, &restored.data, &[]));
        was.assert_unchanged(&node.data, &run.to_string());
        assert_private(&restored.data);
        if major > 12 {
            assert_same_bytes(&before, &restored);
        }
        assert_same_rows(&before, restored);

        // The server of the rewound directory renames the label, and changes blocks that the rewind did not touch.
        node.follow(&new);
        node.start();
        node.catch_up(&new);
        let to = sandbox.make_dir("too-late");
        refused(&restore(&blocks, &to, &[]), &to, "a server has been started on it");
        node.stop();
        refused(&restore(&blocks, &to, &[]), &to, "a server has been started on it");

        let restored = before.at("from-all");
        sandbox.make_dir("from-all");
        std::fs::remove_dir_all(&whole.data).expect("remove the rewound directory");
        restored_as_json(&all, &restored.data, &[]);
        assert_private(&restored.data);
        assert_same_rows(&before, restored);
    }
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15);
    let before = old.copy("before");
    let empty = sandbox.make_dir("empty");
    let to = sandbox.make_dir("to");
    refused(&restore(&empty, &to, &[]), &to, "was not made by --keep-diverged: it has no manifest");
    refused(&restore(&sandbox.path("none"), &to, &[]), &to, "was not made by --keep-diverged");

    let only_wal = sandbox.make_dir("only-wal");
    let of_wal = old.copy("of-wal");
    Rewind::of(&of_wal)
        .from(&new, SourceKind::Server)
        .arg("--keep-diverged")
        .arg(&only_wal)
        .run()
        .expect_rewound();
    refused(
        &restore(&only_wal, &to, &[]),
        &to,
        "is not enough to restore the data directory: the rewind had neither",
    );

    // The time of a rewind, by which one is told from another, is in seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let kept = sandbox.make_dir("kept");
    rewind(&old, &new, &kept, "--keep-diverged-blocks");
    let filled = sandbox.make_dir("filled");
    std::fs::write(filled.join("x"), "x").expect("write");
    let run = restore(&kept, &filled, &[]);
    assert!(run.code == 1 && run.stderr.contains("it is not empty"), "{run}");
    assert_eq!(std::fs::read_dir(&filled).expect("list").count(), 1);
    for inside in [&kept, &old.data] {
        let to = inside.join("new");
        refused(&restore(&kept, &to, &[]), &to, "it is inside a directory that is read");
        assert!(!to.exists());
    }
    refused(&restore(&kept, &to, &["-D", path(&of_wal.data)]), &to, "it has been rewound again");

    // Its label is there, but a file is not what it was; and what was kept is not there.
    let control = kept.join("files/global/pg_control");
    let aside = kept.join("aside");
    std::fs::rename(&control, &aside).expect("rename");
    refused(&restore(&kept, &to, &[]), &to, "could not read file");
    std::fs::rename(&aside, &control).expect("rename");
    let untouched = untouched(&kept, &old.data);
    let length = untouched.metadata().expect("stat").len();
    let file = std::fs::File::options().append(true).open(&untouched).expect("open");
    file.set_len(length + 1).expect("lengthen it");
    refused(&restore(&kept, &to, &[]), &to, "is not as the rewind left it: it has another size");
    file.set_len(length).expect("shorten it");

    // What `--verify` overwrites is not kept.
    let damaged = before.copy("damaged");
    let quiet: String = new.value("SELECT pg_relation_filepath('quiet')");
    let file = std::fs::File::options().write(true).open(damaged.data.join(quiet)).expect("open");
    file.write_all_at(b"damaged", 8192 - 40).expect("damage it");
    let of_damaged = sandbox.make_dir("of-damaged");
    let run = Rewind::of(&damaged).from(&new, SourceKind::Server).unverified().arg("--verify");
    let run = run.arg("--keep-diverged").arg(&of_damaged).arg("--keep-diverged-blocks").run();
    assert!(run.code == 0 && run.stderr.contains("differed from the source's and were copied"), "{run}");
    refused(&restore(&of_damaged, &to, &[]), &to, "--verify has overwritten blocks that were not kept");

    // A manifest that leads elsewhere.
    let manifest = kept.join("kept.json");
    let text = std::fs::read_to_string(&manifest).expect("read");
    let changed = text.replace("\"base/1\"", "\"../../base/1\"");
    assert_ne!(changed, text);
    std::fs::write(&manifest, changed).expect("write");
    refused(&restore(&kept, &to, &[]), &to, "the manifest names the invalid path");
    std::fs::write(&manifest, "{").expect("write");
    refused(&restore(&kept, &to, &[]), &to, "could not read");
    std::fs::write(&manifest, text).expect("write");

    // It may have been moved, and the new directory need not exist.
    let moved = sandbox.path("moved");
    std::fs::rename(&old.data, &moved).expect("rename");
    refused(&restore(&kept, &to, &[]), &to, "a server has been started on it");
    let mut restored = before.at("restored");
    restored.data = sandbox.make_dir("parent").join("new");
    restored_by(restore(&kept, &restored.data, &["-D", path(&moved)]));
    assert_same_rows(&before, restored);
}

/// A tablespace of the old primary belongs to the rewound one now, so it gets a directory of its own.
#[test]
fn tablespaces_get_other_directories() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    old.start();
    let (space, lost_space) = (sandbox.make_dir("space"), sandbox.make_dir("lost-space"));
    old.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    old.sql("CREATE TABLE entry TABLESPACE space AS SELECT n AS id, 'shared' AS what FROM generate_series(1, 18000) n");
    old.stop();
    let mut new = old.copy("new");
    old.start();
    new.follow(&old);
    new.start();
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |_| {},
        |old| {
            old.sql(&format!("CREATE TABLESPACE lost_space LOCATION '{}'", lost_space.display()));
            old.sql("CREATE TABLE there TABLESPACE lost_space AS SELECT n FROM generate_series(1, 1000) n");
            old.sql("UPDATE entry SET what = 'lost' WHERE id % 3 = 0; CHECKPOINT");
        },
        |new| new.sql("DELETE FROM entry WHERE id % 2 = 0"),
    );
    old.stop();
    for option in ["--keep-diverged-blocks", "--keep-diverged-all"] {
        let name = |what: &str| format!("{what}{option}");
        let (kept, to) = (sandbox.make_dir(&name("kept")), sandbox.make_dir(&name("to")));
        let before = old.copy(&name("before"));
        let node = old.copy(&name("node"));
        rewind(&node, &new, &kept, option);
        let was = Tree::of(&node.data);
        refused(&restore(&kept, &to, &[]), &to, "no directory was given for it");
        let text = std::fs::read(kept.join("kept.json")).expect("read kept.json");
        let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let links = manifest["original"]["tablespaces"].as_object().expect("tablespaces");
        let places: Vec<(String, PathBuf)> = links
            .iter()
            .map(|(link, old)| {
                (old.as_str().expect("a path").to_owned(), sandbox.path(&name(&link.replace('/', "-"))))
            })
            .collect();
        assert_eq!(places.len(), 2);
        let mapping: Vec<String> =
            places.iter().map(|(old, new)| format!("--tablespace-mapping={old}={}", new.display())).collect();
        let mut arguments: Vec<&str> = mapping.iter().map(String::as_str).collect();
        arguments.push("-T/nowhere=/else");
        refused(&restore(&kept, &to, &arguments), &to, "there was no tablespace in \"/nowhere\"");
        let into_itself = format!("-T{}={}", places[0].0, to.join("space").display());
        refused(&restore(&kept, &to, &[&into_itself, arguments[1]]), &to, "inside a directory");
        arguments.pop();
        let into_the_old = format!("-T{}={}/space", places[0].0, places[0].0);
        refused(&restore(&kept, &to, &[&into_the_old, arguments[1]]), &to, "inside a directory");
        let mut restored = before.at(&name("restored"));
        restored.data = to.clone();
        restored_by(restore(&kept, &to, &arguments));
        was.assert_unchanged(&node.data, "the rewound node");
        for (_, place) in &places {
            assert_private(place);
        }
        let mut before = before;
        before.start();
        restored.start();
        assert_eq!(restored.value::<i64>("SELECT count(*) FROM entry WHERE what = 'lost'"), 6000, "{option}");
        assert_same_content(&before, &restored);
        before.stop();
        restored.stop();
    }
}

/// A file of which nothing was kept.
fn untouched(kept: &Path, data: &Path) -> PathBuf {
    let text = std::fs::read(kept.join("kept.json")).expect("read kept.json");
    let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let files = manifest["original"]["files"].as_object().expect("files");
    let name = files.keys().find(|name| name.starts_with("base/1/") && manifest["files"].get(name).is_none());
    data.join(name.expect("a file that the rewind has not touched"))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
