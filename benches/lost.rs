//! Measures `kbrecover lost` by the amount of WAL after the fork.
//!
//!     cargo bench --bench lost -- --points 256,512,1024,2048,8192 --runs 3
//!     cargo bench --bench lost -- --program old/kbrecover,new/kbrecover
//!
//! A server runs a workload like that of pgbench until its WAL has grown by the first size, and is killed. Then its
//! transactions are listed: with all files of an export, and as a summary on standard output. The server goes on from there
//! to the next size. Its checkpoints come as often as by default, so that blocks have images in WAL as they usually do. Several
//! programs take turns.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes what it needs")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its results")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the test harness has items that are not used here"
)]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use wait4::Wait4;

use harness::{AsServerUser, Lsn, Sandbox, Server, binary};

/// Measure kbrecover lost by the amount of WAL after the fork
#[derive(Parser)]
struct Settings {
    /// Megabytes of WAL after the fork, in ascending order
    #[arg(long, value_delimiter = ',', default_value = "256,512,1024,2048,8192")]
    points: Vec<u64>,

    /// Number of runs of each program
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// Rows of the table that is updated
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,

    /// Programs to measure instead of the one that cargo has built
    #[arg(long, value_delimiter = ',')]
    program: Vec<PathBuf>,

    /// Only check that the benchmark works
    #[arg(long)]
    smoke: bool,

    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Transactions of a session before the size of WAL is looked at again.
const AT_ONCE: u64 = 1000;
const SESSIONS: usize = 2;
const MEGABYTE: f64 = 1_048_576.0;

fn main() {
    let mut settings = Settings::parse();
    if settings.smoke {
        settings = Settings { points: vec![2, 4], runs: 1, rows: 10_000, ..settings };
    }
    assert!(settings.points.is_sorted(), "the sizes must ascend: WAL only grows");
    let sandbox = Sandbox::on_disk();
    let programs = programs(&sandbox, &settings.program);
    sandbox.make_dir("out");
    let export = sandbox.path("out/export");
    let mut server = server(&sandbox, settings.rows);
    let fork = server.wal_end();
    println!("MB of WAL  program  what     seconds  CPU s  peak MB   changes  MB written  MB of WAL/s");
    for &megabytes in &settings.points {
        write_wal(&server, settings.rows, fork, megabytes);
        let wal = (server.wal_end().0 - fork.0) as f64 / MEGABYTE;
        server.kill();
        for run in 0..settings.runs {
            for turn in 0..programs.len() {
                let number = (turn + run) % programs.len();
                for what in ["summary", "export"] {
                    let mut command = Command::new(&programs[number]);
                    command.as_server_user().arg("lost").arg("-D").arg(&server.data);
                    command.arg("--fork").arg(fork.to_string());
                    if what == "export" {
                        command.arg("--export").arg(&export);
                    }
                    let Sample { seconds, cpu_seconds, peak } = watch(&mut command);
                    let (changes, bytes) = written(&export);
                    println!(
                        "{wal:>9.0}  {number:>7}  {what:<7}  {seconds:>7.2}  {cpu_seconds:>5.2}  {:>7.0}  {changes:>8}  \
                         {:>10.0}  {:>11.0}",
                        peak / MEGABYTE,
                        bytes / MEGABYTE,
                        wal / seconds
                    );
                }
            }
        }
        server.start();
    }
}

/// Copies that the servers' user can run.
fn programs(sandbox: &Sandbox, given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        return vec![binary().to_path_buf()];
    }
    let copy = |(number, path): (usize, &PathBuf)| {
        let copy = sandbox.path(&format!("program-{number}"));
        fs::copy(path, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", path.display()));
        copy
    };
    given.iter().enumerate().map(copy).collect()
}

/// A server with pgbench's tables, which has just made a checkpoint.
fn server(sandbox: &Sandbox, rows: u64) -> Server {
    let mut server = sandbox.server("node");
    server.configure(
        "shared_buffers = 256MB\nmax_wal_size = 1GB\nwal_keep_size = 100GB\ncheckpoint_timeout = 1d\n\
         synchronous_commit = off\nfull_page_writes = on",
    );
    server.start();
    server.sql(&format!(
        "CREATE TABLE branches (bid int PRIMARY KEY, bbalance int, filler char(88));
         CREATE TABLE tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
         CREATE TABLE accounts (aid int, bid int, abalance int, filler char(84));
         CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
         INSERT INTO branches SELECT n, 0, '' FROM generate_series(1, 50) n;
         INSERT INTO tellers SELECT n, 1 + n / 10, 0, '' FROM generate_series(1, 500) n;
         INSERT INTO accounts SELECT n, 1 + n % 50, 0, '' FROM generate_series(1, {rows}) n;
         ALTER TABLE accounts ADD PRIMARY KEY (aid);
         CREATE PROCEDURE transactions(count int) LANGUAGE plpgsql AS $$
         DECLARE a int; t int; b int; d int;
         BEGIN
             FOR i IN 1..count LOOP
                 a := 1 + random() * ({rows} - 1);
                 t := 1 + random() * 499;
                 b := 1 + random() * 49;
                 d := random() * 10000 - 5000;
                 UPDATE accounts SET abalance = abalance + d WHERE aid = a;
                 UPDATE tellers SET tbalance = tbalance + d WHERE tid = t;
                 UPDATE branches SET bbalance = bbalance + d WHERE bid = b;
                 INSERT INTO history VALUES (t, b, a, d, clock_timestamp());
                 COMMIT;
             END LOOP;
         END $$"
    ));
    for table in ["branches", "tellers", "accounts"] {
        server.sql(&format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }
    server.sql("CHECKPOINT");
    server
}

/// Runs transactions until the server has written so much WAL since the fork.
fn write_wal(server: &Server, rows: u64, fork: Lsn, megabytes: u64) {
    let end = fork.0 + (megabytes << 20);
    let at_once = AT_ONCE.min(rows / 100);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(move || {
                let mut session = server.session();
                while server.wal_end().0 < end {
                    let done = session.batch_execute(&format!("CALL transactions({at_once})"));
                    done.expect("run transactions");
                }
            });
        }
    });
}

/// What one run has taken.
struct Sample {
    seconds: f64,
    cpu_seconds: f64,
    /// Peak resident memory in bytes, mapped files among it.
    peak: f64,
}

/// Runs a program and measures it. It must succeed.
fn watch(command: &mut Command) -> Sample {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let ended = child.wait4().expect("wait for it");
    assert!(ended.status.success(), "{command:?} failed");
    Sample {
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
        peak: ended.rusage.maxrss as f64,
    }
}

/// The rows in an export and the bytes of its files; it is removed. Nothing if there is none.
fn written(export: &Path) -> (u64, f64) {
    if !export.exists() {
        return (0, 0.0);
    }
    let json = export.join("transactions.json");
    let mut file = fs::File::open(&json).expect("open transactions.json");
    let length = file.metadata().expect("its size").len();
    file.seek(SeekFrom::Start(length.saturating_sub(1 << 16))).expect("go to its end");
    let mut end = Vec::new();
    file.read_to_end(&mut end).expect("read its end");
    let end = String::from_utf8_lossy(&end);
    let totals = end.lines().find_map(|line| line.strip_prefix("\"totals\": ")).expect("the totals");
    let totals: serde_json::Value = serde_json::from_str(totals.trim_end_matches(',')).expect("JSON");
    let rows = ["inserted", "updated", "deleted"].map(|op| totals["rows"][op].as_u64().expect("a number"));
    let bytes = bytes_below(export);
    fs::remove_dir_all(export).expect("remove the export");
    (rows.iter().sum(), bytes as f64)
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("list a directory").map(|entry| entry.expect("an entry"));
    let size = |entry: fs::DirEntry| match entry.path() {
        path if path.is_dir() => bytes_below(&path),
        _ => entry.metadata().expect("a size").len(),
    };
    entries.map(size).sum()
}
