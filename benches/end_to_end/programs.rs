//! Running the programs and measuring them.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use wait4::Wait4;
use walparse::Lsn;

use super::Settings;
use super::floor;
use super::plan::Measurement;
use super::workload::Workload;
use crate::harness::{Server, children_of, command};

/// Units of processor time per second in `/proc/PID/stat`: the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a block.
const BLOCK: u64 = 8192;

/// The programs that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// PostgreSQL's program, of the servers' version.
    PgRewind,
    /// PostgreSQL's program for base backups, with which a node is replaced that cannot be rewound.
    PgBasebackup,
    /// This project's program.
    Kbrecover,
}

impl Program {
    /// What kbrecover is compared with.
    pub fn opponent(workload: Workload) -> Program {
        if workload.compares_data() { Program::PgBasebackup } else { Program::PgRewind }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Program::PgRewind => "pg_rewind",
            Program::PgBasebackup => "pg_basebackup",
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
    /// User and system CPU time of all processes of the source's server meanwhile, in seconds.
    pub source_cpu_seconds: f64,
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
    /// What kbrecover has compared, in a case in which it compares the data of both sides.
    pub compared: Option<Compared>,
}

/// The comparison of the data of both sides.
pub struct Compared {
    /// Bytes of relation files on either side.
    pub bytes: u64,
    /// Bytes in blocks that differ.
    pub different_bytes: u64,
    /// The time that it took.
    pub seconds: f64,
}

impl Sample {
    /// Bytes compared per second; 0 if nothing was.
    pub fn compare_rate(&self) -> f64 {
        self.compared.as_ref().map_or(0.0, |compared| compared.bytes as f64 / compared.seconds)
    }

    /// The part of the bytes compared that is in blocks that differ.
    pub fn different_part(&self) -> f64 {
        self.compared.as_ref().map_or(0.0, |compared| compared.different_bytes as f64 / compared.bytes as f64)
    }

    /// Bytes fetched per second of the whole run.
    pub fn fetch_rate(&self) -> f64 {
        self.fetched_bytes as f64 / self.seconds
    }
}

/// Rewinds `target` from the server `source`, or makes it anew, over this port of 127.0.0.1.
pub fn run(
    program: Program,
    target: &Server,
    source: &Server,
    port: u16,
    settings: &Settings,
    measurement: &Measurement,
) -> Sample {
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let mut command = match program {
        Program::PgRewind => {
            let mut command = target.installation.program("pg_rewind");
            // The progress report ends with the number of bytes copied.
            command.arg("--progress").arg("--target-pgdata").arg(&target.data);
            command.arg("--source-server").arg(conninfo);
            command
        }
        Program::PgBasebackup => {
            let mut command = target.installation.program("pg_basebackup");
            command.args(["--wal-method=stream", "--checkpoint=fast", "--pgdata"]).arg(&target.data);
            command.arg("--dbname").arg(conninfo);
            command
        }
        Program::Kbrecover => {
            let mut command = command(["rewind", "--format", "json", "--target-data"]);
            command.arg(&target.data).args(settings.with.split_whitespace());
            command.args(measurement.jobs.map(|jobs| format!("--jobs={jobs}")));
            command.args(measurement.workload.compares_data().then_some("--compare-data"));
            command.arg("--source-server").arg(conninfo);
            command
        }
    };
    let before = server_cpu_seconds(source);
    let (mut sample, stdout, stderr) = watch(&mut command);
    sample.source_cpu_seconds = server_cpu_seconds(source) - before;
    let is_done = program == Program::PgBasebackup || stderr.contains("Done!");
    assert!(is_done, "{command:?} rewound nothing:\n{stdout}\n{stderr}");
    match program {
        Program::PgRewind => sample.fetched_bytes = copied_kilobytes(&stderr) * 1024,
        Program::PgBasebackup => sample.fetched_bytes = floor::files(&target.data).values().sum(),
        Program::Kbrecover => {
            let report = serde_json::from_str(&stdout).expect("one JSON object");
            add_report(&mut sample, &report, measurement.workload);
        }
    }
    sample
}

/// Adds what kbrecover reports.
fn add_report(sample: &mut Sample, report: &serde_json::Value, workload: Workload) {
    sample.fetched_bytes = report["bytes"]["fetched"].as_u64().expect("bytes fetched");
    let stages = report["stages"].as_array().expect("stages");
    let stage = |stage: &serde_json::Value| {
        (stage["name"].as_str().expect("a name").to_owned(), stage["seconds"].as_f64().expect("seconds"))
    };
    sample.stages = stages.iter().map(stage).collect();
    if workload.compares_data() {
        let found = &report["compared"];
        sample.compared = Some(Compared {
            bytes: found["bytes"].as_u64().expect("bytes compared"),
            different_bytes: found["different_blocks"].as_u64().expect("blocks that differ") * BLOCK,
            seconds: sample.stages.iter().find(|(name, _)| name == "compare").expect("the comparison").1,
        });
    } else {
        let redo = report["checkpoint"]["redo"].as_str().expect("the common checkpoint");
        sample.scanned_from = redo.parse().expect("an LSN");
    }
}

/// Runs a program and measures it. It must succeed.
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
    assert!(ended.status.success(), "{command:?} failed:\n{stdout}\n{stderr}");
    let sample = Sample {
        seconds,
        cpu_seconds: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
        source_cpu_seconds: 0.0,
        peak_bytes: ended.rusage.maxrss,
        fetched_bytes: 0,
        scanned_from: Lsn::INVALID,
        follow_seconds: 0.0,
        stages: Vec::new(),
        compared: None,
    };
    (sample, stdout, stderr)
}

/// The processor time that the processes of a server have used since its start, in seconds: the postmaster, its children,
/// and those that have ended.
fn server_cpu_seconds(server: &Server) -> f64 {
    let lock_file = server.data.join("postmaster.pid");
    let lock_file = std::fs::read_to_string(lock_file).expect("read the lock file of the server");
    let postmaster: u32 = lock_file.lines().next().and_then(|line| line.parse().ok()).expect("a process");
    loop {
        let children = children_of(postmaster);
        let ticks = children.iter().chain([&postmaster]).map(|&process| ticks(process)).sum::<Option<u64>>();
        // The time of a child that has ended meanwhile would be counted twice, or not at all.
        if let Some(ticks) = ticks
            && children_of(postmaster) == children
        {
            return ticks as f64 / TICKS_PER_SECOND;
        }
    }
}

/// The processor time of a process and of its children that have ended; `None` if there is no such process any more.
fn ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // utime, stime, cutime and cstime are the fields 14 to 17. The second one, a name in parentheses, may have spaces.
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// The total in the last progress report, `N/M kB (100%) copied`.
fn copied_kilobytes(messages: &str) -> u64 {
    let before = messages.rsplit_once(" kB (").unwrap_or_else(|| panic!("no progress in:\n{messages}")).0;
    let number = before.rsplit_once('/').expect("a total").1;
    number.trim().parse().expect("a number of kB")
}
