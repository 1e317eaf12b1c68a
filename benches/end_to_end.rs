//! kbrecover against pg_rewind on the same failover, in one run.
//!
//!     cargo bench --bench end_to_end -- [--megabytes 2048] [--runs 5]
//!
//! A primary goes on alone after its standby was promoted and writes so many megabytes of WAL over few blocks;
//! then it is stopped. Both programs rewind fresh copies of it from the running new primary, by turns, with fsync
//! as by default. Printed are the medians of the wall times and their ratio: times on their own say little.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes what it needs")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its results")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the harness of the tests has more than is used here"
)]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Sandbox, Server, command, server_program};

struct Settings {
    megabytes: u64,
    runs: usize,
}

fn main() {
    let settings = settings();
    let sandbox = Sandbox::new();
    let (mut old, new) = diverged(&sandbox, settings.megabytes);
    old.stop();
    let mut times = [Vec::new(), Vec::new()];
    for run in 0..settings.runs {
        for (which, times) in times.iter_mut().enumerate() {
            let target = old.copy(&format!("target-{run}-{which}"));
            let mut program = if which == 0 { pg_rewind(&target, &new) } else { kbrecover(&target, &new) };
            flush_disks();
            times.push(time(&mut program));
            std::fs::remove_dir_all(&target.data).expect("remove the target");
        }
    }
    let [theirs, ours] = times.map(median);
    let version = server_program("pg_rewind").arg("--version").output().expect("run pg_rewind");
    println!("{} MB of diverged WAL, medians of {} runs by turns", settings.megabytes, settings.runs);
    println!("{:<28} {:>8.2} s", String::from_utf8_lossy(&version.stdout).trim(), theirs.as_secs_f64());
    println!("{:<28} {:>8.2} s", "kbrecover", ours.as_secs_f64());
    println!("pg_rewind needs {:.1} times as long", theirs.as_secs_f64() / ours.as_secs_f64());
}

fn settings() -> Settings {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
    };
    Settings { megabytes: number("--megabytes", 2048), runs: number("--runs", 5) as usize }
}

/// A pair after a failover; the old primary has written `megabytes` of WAL of its own.
fn diverged(sandbox: &Sandbox, megabytes: u64) -> (Server, Server) {
    let (old, mut new) = sandbox.pair();
    old.sql("ALTER SYSTEM SET max_wal_size = '100GB'; ALTER SYSTEM SET wal_keep_size = '100GB'");
    old.sql("ALTER SYSTEM SET checkpoint_timeout = '1d'");
    old.sql("SELECT pg_reload_conf()");
    old.sql("CREATE TABLE entry (id int, text text) WITH (fillfactor = 50)");
    old.sql("INSERT INTO entry SELECT n, 'x' FROM generate_series(1, 1000) n");
    old.sql("CHECKPOINT");
    new.catch_up(&old);
    new.promote();
    new.sql("INSERT INTO entry SELECT n, 'new' FROM generate_series(1, 1000) n");
    new.sql("CHECKPOINT");
    let begin = "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8 / 1048576";
    let begin: i64 = old.value(&format!("SELECT {begin}"));
    let written = || -> i64 {
        old.value::<i64>("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8 / 1048576") - begin
    };
    while written() < megabytes as i64 {
        old.sql("DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE entry SET text = 'y' || i; END LOOP; END $$");
        old.sql("VACUUM entry");
    }
    (old, new)
}

fn pg_rewind(target: &Server, source: &Server) -> Command {
    let mut program = server_program("pg_rewind");
    program.arg("--target-pgdata").arg(&target.data).arg("--source-server").arg(source.conninfo());
    program
}

fn kbrecover(target: &Server, source: &Server) -> Command {
    let mut program = command(["rewind", "--target-data"]);
    program.arg(&target.data).arg("--source-server").arg(source.conninfo());
    program
}

fn time(program: &mut Command) -> Duration {
    let started = Instant::now();
    let output = program.output().unwrap_or_else(|error| panic!("run {program:?}: {error}"));
    let elapsed = started.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Done!"), "{program:?} failed:\n{said}");
    elapsed
}

/// Writes of the preparation must not be paid for by whoever calls fsync first.
fn flush_disks() {
    let status = Command::new("sync").status().expect("run sync");
    assert!(status.success(), "sync failed");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
