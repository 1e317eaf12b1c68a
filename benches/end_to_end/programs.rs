//! The two programs, run and watched.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use wait4::Wait4;
use walparse::Lsn;

use super::Settings;
use super::plan::Measurement;
use crate::harness::{Server, command};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// The original, of the servers' version.
    PgRewind,
    /// This one.
    Kbrecover,
}

impl Program {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Program::PgRewind => "pg_rewind",
            Program::Kbrecover => "kbrecover",
        }
    }
}

/// What one run took.
pub struct Sample {
    /// Wall time.
    pub seconds: f64,
    /// Time of the processors, spent in the program.
    pub cpu_seconds: f64,
    /// The most memory it had at one time, with the parts of files it had mapped.
    pub peak_bytes: u64,
    /// What came from the source.
    pub fetched_bytes: u64,
    /// Where kbrecover's scan of WAL began.
    pub scanned_from: Lsn,
    /// From the start of the rewound server until it has replayed what the source has, if it was started.
    pub follow_seconds: Option<f64>,
    /// What kbrecover says of its stages: name and seconds.
    pub stages: Vec<(String, f64)>,
}

/// Rewinds `target` from the server on that port of 127.0.0.1.
pub fn run(
    program: Program,
    target: &Server,
    port: u16,
    settings: &Settings,
    measurement: &Measurement,
) -> Sample {
    let mut command = match program {
        Program::PgRewind => {
            let mut command = target.installation.program("pg_rewind");
            // Its progress says at the end how much it has copied.
            command.arg("--progress").arg("--target-pgdata").arg(&target.data);
            command
        }
        Program::Kbrecover => {
            let mut command = command(["rewind", "--format", "json", "--target-data"]);
            command.arg(&target.data).args(settings.with.split_whitespace());
            command.args(measurement.jobs.map(|jobs| format!("--jobs={jobs}")));
            command
        }
    };
    let source = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    command.arg("--source-server").arg(source);
    let (mut sample, stdout, stderr) = watch(&mut command);
    match program {
        Program::PgRewind => sample.fetched_bytes = copied_kilobytes(&stderr) * 1024,
        Program::Kbrecover => {
            let report: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
            sample.fetched_bytes = report["bytes"]["fetched"].as_u64().expect("bytes fetched");
            let redo = report["checkpoint"]["redo"].as_str().expect("the common checkpoint");
            sample.scanned_from = redo.parse().expect("an LSN");
            let stages = report["stages"].as_array().expect("stages");
            let stage = |stage: &serde_json::Value| {
                (
                    stage["name"].as_str().expect("a name").to_owned(),
                    stage["seconds"].as_f64().expect("seconds"),
                )
            };
            sample.stages = stages.iter().map(stage).collect();
        }
    }
    sample
}

/// Runs a program to its end; it must have rewound something.
fn watch(command: &mut Command) -> (Sample, String, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("read standard output");
        text
    });
    let mut said = Vec::new();
    stderr.read_to_end(&mut said).expect("read standard error");
    let ended = child.wait4().expect("wait for it");
    let seconds = started.elapsed().as_secs_f64();
    let (stdout, stderr) =
        (out.join().expect("standard output"), String::from_utf8_lossy(&said).into_owned());
    assert!(ended.status.success() && stderr.contains("Done!"), "{command:?} failed:\n{stdout}\n{stderr}");
    let sample = Sample {
        seconds,
        cpu_seconds: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
        peak_bytes: ended.rusage.maxrss,
        fetched_bytes: 0,
        scanned_from: Lsn::INVALID,
        follow_seconds: None,
        stages: Vec::new(),
    };
    (sample, stdout, stderr)
}

/// The last `N/M kB (100%) copied`.
fn copied_kilobytes(said: &str) -> u64 {
    let before = said.rsplit_once(" kB (").unwrap_or_else(|| panic!("no progress in:\n{said}")).0;
    let number = before.rsplit_once('/').expect("a total").1;
    number.trim().parse().expect("a number of kB")
}
