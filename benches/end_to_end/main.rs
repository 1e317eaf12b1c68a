//! Compares kbrecover with pg_rewind on the same failovers, and with pg_basebackup where it compares the data of both sides.
//!
//!     bash benches/postgresql18.sh                      # once: installs pg_rewind 18 and its server
//!     cargo bench --bench end_to_end -- --case all --runs 5 --scale 1 --json FILE --svg FILE
//!     cargo bench --bench end_to_end -- --sweep wal --points 256,512,1024
//!
//! Each case is a failover between real servers, described in [`workload`]. The two programs alternate. Each run rewinds
//! a fresh copy of the old primary from the running new primary, over TCP on the loopback interface, with fsync as by
//! default. Then the rewound target is started: what counts for its user is when it streams, and has replayed all that the
//! source had at the start of the rewind. Medians and ratios are printed, because absolute times depend on the load of the
//! machine.
//!
//! In the cases `compare` and `compare-gigabit` kbrecover runs with `--compare-data`. The alternative is then to replace the
//! node: pg_basebackup makes it anew in an empty directory, from the same source over the same network. How long the old
//! directory took to remove does not count. All files are in the page cache, as in the other cases. On both sides disks that
//! read more slowly than data is compared would set the pace, those of the source for a base backup, too.
//!
//! For these cases the times for 100 GB are extrapolated from the measured rates, for the network of the case:
//!
//!     base backup   bytes / rate of the base backup
//!     kbrecover     bytes / rate of the comparison + different bytes / rate of the base backup
//!
//! The rate of the base backup is its size divided by the time of pg_basebackup; the rate of the comparison is the number of
//! bytes compared divided by the time of the stage `compare`; the part of the bytes that differ is that of the case.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes what it needs")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its results")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the test harness has items that are not used here"
)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

// The measurements: failovers, and the programs that rewind their targets.
mod workload;
mod programs;
mod proxy;
mod plan;
mod floor;

// The results.
mod results;
mod chart;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

use harness::{Installation, Sandbox, Server};
use plan::{CaseName, Measurement, SweepName};
use programs::{Program, Sample};
use results::Results;
use workload::{Scene, Workload};

/// The maximum number of times the [`floor`] of a case is measured.
const FLOORS: usize = 3;

/// How long replay may take; several gigabytes take minutes.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(1200);

/// Compare kbrecover with pg_rewind on the same failovers, and with pg_basebackup where it compares data
#[derive(Parser)]
pub struct Settings {
    /// Cases to measure, or "all"
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    case: Vec<CaseName>,

    /// Scale factor for the sizes of the cases; 1 gives those in docs/internals/performance.md
    #[arg(long, default_value_t = 0.1)]
    scale: f64,

    /// Run one case at several sizes instead
    #[arg(long, value_enum)]
    sweep: Option<SweepName>,

    /// Sizes for the sweep
    #[arg(long, value_delimiter = ',', requires = "sweep")]
    points: Vec<u64>,

    /// Number of runs of each program
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// Major versions of PostgreSQL: 15, 18
    #[arg(long, value_delimiter = ',', default_value = "18")]
    version: Vec<u32>,

    /// Run kbrecover only
    #[arg(long)]
    alone: bool,

    /// Additional options for kbrecover, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    with: String,

    /// Write all samples to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a chart of the times and ratios to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Only check that the benchmark works: run each tiny case once, with version 15
    #[arg(long)]
    smoke: bool,

    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut settings = Settings::parse();
    if settings.smoke {
        settings = Settings { scale: 0.002, runs: 1, version: vec![15], ..settings };
    }
    let sandbox = Sandbox::on_disk();
    let mut results = Results::new(&settings);
    for &major in &settings.version {
        let installation = match major {
            15 => Installation::usual(),
            18 => Installation::with_tools_18(),
            other => panic!("no pg_rewind of version {other}: use 15 or 18"),
        };
        let mut scene: Option<Scene> = None;
        for measurement in plan::measurements(&settings) {
            // The scene of the previous case is reused if the workload is the same.
            let made = match scene.take() {
                Some(scene) if scene.workload == measurement.workload => scene,
                other => {
                    drop(other);
                    eprintln!("{major}, {}: preparing {:?}", measurement.name, measurement.workload);
                    Scene::make(&sandbox, installation, measurement.workload)
                }
            };
            measure(&settings, &made, &measurement, &mut results);
            scene = Some(made);
        }
    }
    results.print();
    if let Some(path) = &settings.json {
        std::fs::write(path, results.json()).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    if let Some(path) = &settings.svg {
        std::fs::write(path, chart::svg(&results))
            .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
}

/// Runs the programs alternately on copies of the old primary.
fn measure(settings: &Settings, scene: &Scene, measurement: &Measurement, results: &mut Results) {
    let port = match measurement.network {
        Some(network) => proxy::start(scene.new.port, network),
        None => scene.new.port,
    };
    let opponent = Program::opponent(measurement.workload);
    let programs = &[opponent, Program::Kbrecover][usize::from(settings.alone)..];
    let has_floor = settings.sweep.is_none() && !measurement.workload.compares_data();
    let floors = if has_floor { FLOORS } else { 0 };
    for run in 0..settings.runs {
        for turn in 0..programs.len() {
            // The program that goes first alternates, too.
            let program = programs[(turn + run) % programs.len()];
            let mut target = scene.old.copy("target");
            if program == Program::PgBasebackup {
                // It makes the directory itself.
                retire(&target);
            }
            flush_disks();
            let mut sample = programs::run(program, &target, &scene.new, port, settings, measurement);
            sample.follow_seconds = follow(&mut target, &scene.new);
            let (name, program_name) = (&measurement.name, program.name());
            eprintln!(
                "{name:<15} {program_name:<13} {:>8.3} s + {:.1} s",
                sample.seconds, sample.follow_seconds
            );
            results.add(&target, measurement, program, sample);
            retire(&target);
        }
    }
    // On targets of their own: a server that has started changes files that the floor is made of.
    for _ in 0..floors.min(settings.runs) {
        let target = scene.old.copy("target");
        flush_disks();
        let sample = programs::run(Program::Kbrecover, &target, &scene.new, port, settings, measurement);
        results.add_floor(&target, measurement, floor::measure(scene, &target.data, port, &sample));
        retire(&target);
    }
    remove_retired(&scene.old);
}

/// Truncates the files of a target that is no longer needed, and renames its directory until [`remove_retired`].
///
/// The directory is not removed yet because of ext4. ext4 does not reuse a freed inode for some seconds, and in that time
/// the creation of a file scans all such inodes. That would slow down the next program.
fn retire(target: &Server) {
    for path in floor::files(&target.data).keys() {
        let file = File::options().write(true).truncate(true).open(target.data.join(path));
        file.expect("truncate a file");
    }
    let number = RETIRED.fetch_add(1, Ordering::Relaxed);
    std::fs::rename(&target.data, target.beside(&format!("used-{number}"))).expect("rename a target");
}

/// Removes the retired targets.
fn remove_retired(server: &Server) {
    for number in 0..RETIRED.swap(0, Ordering::Relaxed) {
        std::fs::remove_dir_all(server.beside(&format!("used-{number}"))).expect("remove a target");
    }
}

/// The number of retired targets.
static RETIRED: AtomicUsize = AtomicUsize::new(0);

/// Starts the rewound target. Returns the seconds until it streams and has replayed all WAL of the source.
fn follow(target: &mut Server, source: &Server) -> f64 {
    // If the source's WAL ends at a page boundary, a target rewound by pg_rewind becomes consistent only after another
    // record has been written.
    source.sql("SELECT pg_logical_emit_message(true, 'bench', 'one more record')");
    let started = Instant::now();
    target.follow(source);
    if let Err(log) = target.try_start_within(REPLAY_TIMEOUT) {
        panic!("the rewound target did not start:\n{log}");
    }
    target.wait_for("streaming", "SELECT bool_or(status = 'streaming') FROM pg_stat_wal_receiver");
    target.catch_up(source);
    let seconds = started.elapsed().as_secs_f64();
    target.stop();
    seconds
}

/// Flushes pending writes of the preparation, so that they do not slow down the first fsync of a program.
fn flush_disks() {
    let status = std::process::Command::new("sync").status().expect("run sync");
    assert!(status.success(), "sync failed");
}
