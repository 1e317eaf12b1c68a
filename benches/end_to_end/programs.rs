//! Running the two programs and measuring them.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use wait4::Wait4;
use walparse::Lsn;

use super::Settings;
use super::plan::Measurement;
use crate::harness::{Server, command};

/// The programs that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// PostgreSQL's program, of the servers' version.
    PgRewind,
    /// This project's program.
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

/// The measurements of one run.
pub struct Sample {
    /// Wall time, in seconds.
    pub seconds: f64,
    /// User and system CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Peak resident memory in bytes, including mapped files.
    pub peak_bytes: u64,
    /// Bytes fetched from the source.
    pub fetched_bytes: u64,
    /// Where kbrecover's WAL scan started.
    pub scanned_from: Lsn,
    /// Seconds from the start of the rewound server until it streams and has replayed all WAL of the source.
    pub follow_seconds: f64,
    /// The stages that kbrecover reports: name and seconds.
    pub stages: Vec<(String, f64)>,
}

/// Rewinds `target` from the server on this port of 127.0.0.1.
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
            // The progress report ends with the number of bytes copied.
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

/// Runs a program and measures it. It must succeed, and must have rewound the target.
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
    let mut messages = Vec::new();
    stderr.read_to_end(&mut messages).expect("read standard error");
    let ended = child.wait4().expect("wait for it");
    let seconds = started.elapsed().as_secs_f64();
    let (stdout, stderr) =
        (out.join().expect("standard output"), String::from_utf8_lossy(&messages).into_owned());
    assert!(ended.status.success() && stderr.contains("Done!"), "{command:?} failed:\n{stdout}\n{stderr}");
    let sample = Sample {
        seconds,
        cpu_seconds: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
        peak_bytes: ended.rusage.maxrss,
        fetched_bytes: 0,
        scanned_from: Lsn::INVALID,
        follow_seconds: 0.0,
        stages: Vec::new(),
    };
    (sample, stdout, stderr)
}

/// The total in the last progress report, `N/M kB (100%) copied`.
fn copied_kilobytes(messages: &str) -> u64 {
    let before = messages.rsplit_once(" kB (").unwrap_or_else(|| panic!("no progress in:\n{messages}")).0;
    let number = before.rsplit_once('/').expect("a total").1;
    number.trim().parse().expect("a number of kB")
}
