//! What crosses the network: what differs and little else.
//!
//!     old  ──── shared ────┬──── lost ────╳
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ────  rewind --delta on, off; --max-rate

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::harness::{
    Failover, Rewind, SEGMENT_SIZE, Sandbox, Server, SourceKind, Tree, assert_follows, assert_sound,
};

/// Different rows on both sides, in a table that has pages both sides have left alone.
fn failover(sandbox: &Sandbox) -> Failover {
    let insert = |from: &'static str, rows: u32| {
        move |server: &Server| {
            server.sql(&format!(
                "INSERT INTO entry SELECT n, '{from}' FROM generate_series(1, {rows}) n;
                 UPDATE entry SET origin = '{from}' WHERE n % 1000 = 1"
            ));
            ["VACUUM entry", "CHECKPOINT"].iter().for_each(|statement| server.sql(statement));
        }
    };
    Failover::new(
        sandbox,
        |old| {
            old.sql("CREATE TABLE entry (n int, origin text)");
            insert("shared", 50_000)(old);
        },
        insert("lost", 3000),
        insert("kept", 5000),
    )
}

/// The files of a data directory that are compared byte for byte: no main forks, no WAL, nothing that a rewind leaves out.
fn whole_files(data: &Path) -> BTreeMap<String, Vec<u8>> {
    const LEFT_OUT: [&str; 14] = [
        "backup_label",
        "backup_manifest",
        "global/pg_control",
        "pg_dynshmem/",
        "pg_notify/",
        "pg_replslot/",
        "pg_serial/",
        "pg_snapshots/",
        "pg_stat_tmp/",
        "pg_subtrans/",
        "pg_wal/0",
        "pg_wal/archive_status/",
        "postmaster.",
        "kbrecover.",
    ];
    let is_main_fork = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        (name.starts_with("base/") || name.starts_with("global/"))
            && file.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let (mut files, mut pending) = (BTreeMap::new(), vec![data.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("list a directory").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(data).expect("below").to_str().expect("UTF-8").to_owned();
            let is_left_out = LEFT_OUT.iter().any(|prefix| name.starts_with(prefix))
                || is_main_fork(&name)
                || name.contains("pg_internal.init");
            if path.is_dir() {
                pending.push(path);
            } else if !is_left_out {
                files.insert(name, std::fs::read(&path).expect("read a file"));
            }
        }
    }
    files
}

#[test]
fn little_more_than_what_differs_is_fetched() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let twin = old.copy("twin");
    let (ours, theirs) = (whole_files(&old.data), whole_files(&new.data));
    let differing = theirs.iter().filter(|(name, bytes)| ours.get(*name) != Some(bytes));
    let differing: u64 = differing.map(|(_, bytes)| bytes.len() as u64).sum();
    let same: u64 = theirs
        .iter()
        .filter(|(name, bytes)| ours.get(*name) == Some(bytes))
        .map(|(_, b)| b.len() as u64)
        .sum();
    let fork = crate::harness::history_switch(&new, 2).0;

    let rewind = |target: &Server, delta: &str| {
        let run = Rewind::of(target)
            .from(&new, SourceKind::Server)
            .args(["--format", "json", "--delta", delta])
            .run();
        run.expect_done().json()["bytes"].clone()
    };
    let bytes = rewind(&old, "auto");
    let number = |name: &str| bytes[name].as_u64().unwrap_or_else(|| panic!("no {name} in {bytes}"));
    let wal = new.wal_end().0 - fork / SEGMENT_SIZE * SEGMENT_SIZE;
    let blocks = number("changed") + number("extended");
    assert!(blocks > 0 && differing > 0 && same > 1 << 20, "{blocks} {differing} {same}");
    let needed = blocks + differing + wal;
    let fetched = number("fetched");
    assert!(fetched as f64 <= 1.05 * needed as f64, "{fetched} bytes fetched, {needed} needed: {bytes}");

    let without = rewind(&twin, "off")["fetched"].as_u64().expect("a number");
    assert!(without >= fetched + same - differing, "{fetched} bytes fetched, {without} without comparing");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

#[test]
fn comparing_makes_no_difference_to_the_result() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    for server in [&old, &new] {
        server.write("grown.dat", if server.name == "old" { "a\n".repeat(90) } else { "a\n".repeat(9000) });
        server.write("cut.dat", if server.name == "old" { "b\n".repeat(90_000) } else { "b\n".repeat(90) });
    }
    old.stop();
    new.stop();
    let twin = old.copy("twin");
    Rewind::of(&old).from(&new, SourceKind::Directory).args(["--delta", "on"]).run().expect_done();
    Rewind::of(&twin).from(&new, SourceKind::Directory).args(["--delta", "off"]).run().expect_done();
    let (compared, copied) = (Tree::of(&old.data), Tree::of(&twin.data));
    // Both have the time of the rewind in them.
    let timed = ["backup_label", "global/pg_control"];
    let other = |path: &&Path| !timed.iter().any(|name| *path == Path::new(name));
    let differing: Vec<_> = compared.differences(&copied).map(|(path, ..)| path).filter(other).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert_eq!(std::fs::read(old.data.join("cut.dat")).expect("a file").len(), 180);
    new.start();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

#[test]
fn the_rate_is_kept_to() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let started = Instant::now();
    let rewind =
        Rewind::of(&old).from(&new, SourceKind::Server).args(["--format", "json", "--max-rate", "4M"]);
    let run = rewind.run().expect_done();
    let seconds = started.elapsed().as_secs_f64();
    let fetched = run.json()["bytes"]["fetched"].as_u64().expect("a number");
    assert!(fetched > 2 << 20, "only {fetched} bytes");
    // At least: what is compared and the source's WAL count, too.
    let least = 0.9 * fetched as f64 / f64::from(4 << 20);
    assert!(seconds >= least, "{fetched} bytes in {seconds} s");
}

/// The source's WAL and the files that are compared are read at this rate, too, before anything is changed.
#[test]
fn the_rate_is_kept_to_before_the_mark() {
    let sandbox = Sandbox::new();
    let failover = failover(&sandbox);
    let fork = failover.fork();
    let Failover { mut old, new } = failover;
    new.sql("CREATE TABLE more AS SELECT repeat('x', 500) FROM generate_series(1, 16000)");
    old.stop();
    let wal = new.wal_end().0 - fork.0;
    assert!(wal > 8 << 20, "the scenario needs more WAL than {wal} bytes");
    let same = vec![7; 8 << 20];
    [&old, &new].iter().for_each(|server| server.write("same.dat", &same));
    for (delta, bytes) in [("off", wal), ("on", wal + same.len() as u64)] {
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--dry-run", "-P"]);
        let started = Instant::now();
        let run = rewind.args(["--delta", delta, "--max-rate", "4M"]).run();
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(run.code, 0, "{run}");
        let least = 0.9 * bytes as f64 / f64::from(4 << 20);
        assert!(seconds >= least, "--delta {delta}: {bytes} bytes in {seconds} s\n{run}");
        let shown =
            run.stderr.lines().find_map(|line| line.strip_suffix(" MiB (100%) of the source's WAL read"));
        let (done, total) = shown.and_then(|shown| shown.split_once('/')).expect("the WAL that was read");
        let read = total.parse::<f64>().expect("a number") * f64::from(1 << 20);
        assert!(done.trim() == total && read >= wal as f64 * 0.9, "{total} MiB of {wal} bytes\n{run}");
    }
}
