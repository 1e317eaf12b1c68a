//! kbrecover against pg_rewind on the same failovers, by turns.
//!
//!     bash benches/postgresql18.sh                      # once: pg_rewind 18 and its server
//!     cargo bench --bench end_to_end -- --case all --runs 5 --scale 1 --json FILE --svg FILE
//!     cargo bench --bench end_to_end -- --sweep wal --points 256,512,1024
//!
//! Each case is a failover between real servers: [`workload`] says which. Both programs rewind fresh copies of the
//! old primary, by turns, from the running new one over TCP on loopback, with fsync as by default. What is printed are
//! medians and ratios: times on their own say little on a machine that does other work as well. After the last run of
//! each program the rewound target is started and must follow the source; how long that takes is printed, too.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes what it needs")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its results")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the harness of the tests has more than is used here"
)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

// What is measured: the failovers, and the programs that undo them.
mod workload;
mod programs;
mod proxy;
mod plan;
mod floor;

// What comes of it.
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

/// How often the [`floor`] of a case is measured, at the most.
const FLOORS: usize = 3;

/// Replay of gigabytes takes minutes.
const REPLAY_PATIENCE: Duration = Duration::from_secs(1200);

/// kbrecover against pg_rewind on the same failovers, by turns
#[derive(Parser)]
pub struct Settings {
    /// Cases to measure, or "all"
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    case: Vec<CaseName>,

    /// Size of the cases; 1 are those of the README
    #[arg(long, default_value_t = 0.1)]
    scale: f64,

    /// Instead of the cases: one of them at several sizes
    #[arg(long, value_enum)]
    sweep: Option<SweepName>,

    /// The sizes of a sweep
    #[arg(long, value_delimiter = ',', requires = "sweep")]
    points: Vec<u64>,

    /// Runs of each program
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// Major versions to run: 15, 18
    #[arg(long, value_delimiter = ',', default_value = "18")]
    version: Vec<u32>,

    /// Do not run pg_rewind
    #[arg(long)]
    alone: bool,

    /// More options for kbrecover, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    with: String,

    /// Write all samples to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the seconds and the ratios into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Only prove that everything here runs: every case, tiny, once, with version 15
    #[arg(long)]
    smoke: bool,

    /// What cargo says to every benchmark
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
            other => panic!("no pg_rewind of version {other} here: 15 or 18"),
        };
        let mut scene: Option<Scene> = None;
        for measurement in plan::measurements(&settings) {
            // What was made for the case before may serve this one, too.
            let made = match scene.take() {
                Some(scene) if scene.workload == measurement.workload => scene,
                other => {
                    drop(other);
                    eprintln!("{major}, {}: making {:?}", measurement.name, measurement.workload);
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

/// Runs both programs by turns on copies of the old primary.
fn measure(settings: &Settings, scene: &Scene, measurement: &Measurement, results: &mut Results) {
    let proxy = (measurement.delay > Duration::ZERO).then(|| proxy::start(scene.new.port, measurement.delay));
    let port = proxy.unwrap_or(scene.new.port);
    let programs: &[Program] =
        if settings.alone { &[Program::Kbrecover] } else { &[Program::PgRewind, Program::Kbrecover] };
    let floors = if settings.sweep.is_some() { 0 } else { FLOORS };
    for run in 0..settings.runs {
        for turn in 0..programs.len() {
            // Neither is always the one that goes first.
            let program = programs[(turn + run) % programs.len()];
            let mut target = scene.old.copy("target");
            flush_disks();
            let mut sample = programs::run(program, &target, port, settings, measurement);
            eprintln!("{:<12} {:<10} {:>8.3} s", measurement.name, program.name(), sample.seconds);
            let is_last = run + 1 == settings.runs;
            // In the last run the target is started: not after others have read it, if there are more runs.
            if program == Program::Kbrecover && run < floors && (!is_last || run == 0) {
                results.add_floor(&target, measurement, floor::measure(scene, &target.data, port, &sample));
            }
            if is_last {
                sample.follow_seconds = Some(follow(&mut target, &scene.new));
            }
            results.add(&target, measurement, program, sample);
            retire(&target);
        }
    }
    sweep_up(&scene.old);
}

/// Empties the files of a target that is done with and puts it aside until [`sweep_up`].
///
/// It is not removed at once because of ext4: an inode that was freed is not given away again for some seconds, and whoever
/// makes a file meanwhile looks at every such inode first. Whichever program ran next would pay for that.
fn retire(target: &Server) {
    for path in floor::files(&target.data).keys() {
        let file = File::options().write(true).truncate(true).open(target.data.join(path));
        file.expect("empty a file");
    }
    let number = USED.fetch_add(1, Ordering::Relaxed);
    std::fs::rename(&target.data, target.beside(&format!("used-{number}"))).expect("put a target aside");
}

/// Removes what was put aside.
fn sweep_up(server: &Server) {
    for number in 0..USED.swap(0, Ordering::Relaxed) {
        std::fs::remove_dir_all(server.beside(&format!("used-{number}"))).expect("remove a target");
    }
}

/// How many targets are put aside.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Starts the rewound target; returns the seconds until it has replayed what the source has.
fn follow(target: &mut Server, source: &Server) -> f64 {
    // What pg_rewind has made of a target is consistent only when its source, idle since, has written another record:
    // if its WAL ended at a page's beginning.
    source.sql("SELECT pg_logical_emit_message(true, 'bench', 'one more record')");
    let started = Instant::now();
    target.follow(source);
    if let Err(log) = target.try_start_within(REPLAY_PATIENCE) {
        panic!("the rewound target did not start:\n{log}");
    }
    target.catch_up(source);
    let seconds = started.elapsed().as_secs_f64();
    target.stop();
    seconds
}

/// Writes of the preparation must not be paid for by whoever calls fsync first.
fn flush_disks() {
    let status = std::process::Command::new("sync").status().expect("run sync");
    assert!(status.success(), "sync failed");
}
