//! The results: samples, medians and their output.

use serde_json::{Value, json};

use super::Settings;
use super::floor::Floor;
use super::plan::Measurement;
use super::programs::{Program, Sample};
use crate::harness::Server;

/// Bytes of data for which the times of a base backup and of a comparison are extrapolated.
const EXTRAPOLATED: f64 = 100e9;

/// All samples of all cases.
pub struct Results {
    cases: Vec<Case>,
    command: String,
}

/// The samples of one case with one version.
pub struct Case {
    /// Its name.
    pub name: String,
    /// The servers' version.
    pub major: u32,
    /// What kbrecover is compared with.
    pub opponent: Program,
    work: Option<u64>,
    theirs: Vec<Sample>,
    ours: Vec<Sample>,
    floors: Vec<Floor>,
}

impl Results {
    /// No samples yet.
    pub fn new(settings: &Settings) -> Results {
        let arguments: Vec<String> =
            std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        let _ = settings;
        Results {
            cases: Vec::new(),
            command: format!("cargo bench --bench end_to_end -- {}", arguments.join(" ")),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, target: &Server, measurement: &Measurement, program: Program, sample: Sample) {
        let case = self.case(target, measurement);
        match program {
            Program::PgRewind | Program::PgBasebackup => case.theirs.push(sample),
            Program::Kbrecover => case.ours.push(sample),
        }
    }

    /// Adds a measurement of the floor.
    pub fn add_floor(&mut self, target: &Server, measurement: &Measurement, floor: Floor) {
        self.case(target, measurement).floors.push(floor);
    }

    fn case(&mut self, target: &Server, measurement: &Measurement) -> &mut Case {
        let major = target.installation.major;
        let is_same = |case: &Case| case.name == measurement.name && case.major == major;
        let at = self.cases.iter().position(is_same).unwrap_or_else(|| {
            let (theirs, ours, floors) = (Vec::new(), Vec::new(), Vec::new());
            let (name, work) = (measurement.name.clone(), measurement.work);
            let opponent = Program::opponent(measurement.workload);
            self.cases.push(Case { name, major, opponent, work, theirs, ours, floors });
            self.cases.len() - 1
        });
        &mut self.cases[at]
    }

    /// All cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Prints the tables to standard output.
    pub fn print(&self) {
        println!("\n{}\n{}\n", self.command, machine());
        println!(
            "| case | version | against | its seconds | kbrecover, seconds | ratio | until streaming: its | kbrecover | ratio | bytes fetched: its | kbrecover | peak memory: its | kbrecover |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for case in &self.cases {
            println!("{}", case.row());
        }
        println!(
            "\nStages of kbrecover, seconds; CPU is user and system time of the whole run, of kbrecover and of the source:\n"
        );
        for case in &self.cases {
            let cpu = median(&case.ours, |sample| sample.cpu_seconds);
            let source = median(&case.ours, |sample| sample.source_cpu_seconds);
            let name = format!("{} ({})", case.name, case.major);
            println!("{name:<24} {} cpu {cpu:.3}, source {source:.3}", case.stages());
        }
        self.print_compared();
        self.print_floors();
        self.print_growth();
    }

    /// Prints the rates of the cases in which data is compared, and what they mean for [`EXTRAPOLATED`] bytes.
    fn print_compared(&self) {
        let cases: Vec<&Case> =
            self.cases.iter().filter(|case| case.opponent == Program::PgBasebackup).collect();
        if cases.is_empty() {
            return;
        }
        println!(
            "\nComparison of data; processor time of the program and of its source, in % of the time of the run:\n"
        );
        println!(
            "| case | version | compared | different | GB/s compared | processor: kbrecover | source | GB/s of pg_basebackup | processor: pg_basebackup | source |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for case in &cases {
            let [program, source] = shares(&case.ours);
            let [their_program, their_source] = shares(&case.theirs);
            println!(
                "| {} | {} | {} | {:.2} % | {:.2} | {program} | {source} | {:.2} | {their_program} | {their_source} |",
                case.name,
                case.major,
                megabytes(median(&case.ours, |s| s
                    .compared
                    .as_ref()
                    .map_or(0.0, |found| found.bytes as f64))),
                median(&case.ours, Sample::different_part) * 100.0,
                median(&case.ours, Sample::compare_rate) / 1e9,
                median(&case.theirs, Sample::fetch_rate) / 1e9,
            );
        }
        println!();
        for (case, (theirs, ours)) in cases.iter().filter_map(|case| Some((case, case.extrapolated()?))) {
            println!(
                "{} ({}), extrapolated to {:.0} GB: pg_basebackup {theirs:.0} s, kbrecover {ours:.0} s, ratio {:.1}",
                case.name,
                case.major,
                EXTRAPOLATED / 1e9,
                theirs / ours
            );
        }
    }

    /// Prints the floor of each case, and kbrecover's time for comparison.
    fn print_floors(&self) {
        let mut cases = self.cases.iter().filter(|case| !case.floors.is_empty()).peekable();
        if cases.peek().is_none() {
            return;
        }
        println!("\nFloor: the same bytes and files, without finding out which; seconds:\n");
        println!(
            "| case | WAL read, with checksums | fetched | written, synced | removed | total | kbrecover | changed pages | fetched |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for case in cases {
            let parts: [fn(&Floor) -> f64; 4] =
                [|floor| floor.scan, |floor| floor.fetch, |floor| floor.store, |floor| floor.remove];
            let parts = parts.map(|part| median(&case.floors, part));
            let cells: Vec<String> = parts.iter().map(|part| format!("{part:.2}")).collect();
            let together: f64 = parts.iter().sum();
            println!(
                "| {} | {} | {together:.2} | {:.2} | {} | {} |",
                case.name,
                cells.join(" | "),
                case.seconds().1,
                megabytes(median(&case.floors, |floor| floor.different_bytes as f64)),
                megabytes(median(&case.ours, |sample| sample.fetched_bytes as f64)),
            );
        }
    }

    /// Prints for a sweep how the time grows with the amount of work.
    fn print_growth(&self) {
        for pair in self.cases.windows(2).filter(|pair| pair[0].major == pair[1].major) {
            let (Some(less), Some(more)) = (pair[0].work, pair[1].work) else { continue };
            let work = more as f64 / less as f64;
            let time = pair[1].seconds().1 / pair[0].seconds().1;
            println!(
                "{} after {}: {work:.1} times the work, {time:.1} times the time",
                pair[1].name, pair[0].name
            );
        }
    }

    /// All samples as JSON.
    pub fn json(&self) -> String {
        let cases: Vec<Value> = self.cases.iter().map(Case::json).collect();
        let value = json!({ "command": self.command, "machine": machine(), "cases": cases });
        format!("{value:#}\n")
    }
}

impl Case {
    /// Median seconds of the other program, if it was run, and of kbrecover.
    pub fn seconds(&self) -> (Option<f64>, f64) {
        let theirs = (!self.theirs.is_empty()).then(|| median(&self.theirs, |sample| sample.seconds));
        (theirs, median(&self.ours, |sample| sample.seconds))
    }

    /// The same from the start of the rewind until the target streams.
    pub fn seconds_until_streaming(&self) -> (Option<f64>, f64) {
        let both = |sample: &Sample| sample.seconds + sample.follow_seconds;
        let theirs = (!self.theirs.is_empty()).then(|| median(&self.theirs, both));
        (theirs, median(&self.ours, both))
    }

    /// The seconds that pg_basebackup and kbrecover would take for [`EXTRAPOLATED`] bytes at the measured rates, by the
    /// formulas in the description of this benchmark; `None` if not both were measured comparing data.
    fn extrapolated(&self) -> Option<(f64, f64)> {
        if self.opponent != Program::PgBasebackup || self.theirs.is_empty() {
            return None;
        }
        let theirs = EXTRAPOLATED / median(&self.theirs, Sample::fetch_rate);
        let compared = EXTRAPOLATED / median(&self.ours, Sample::compare_rate);
        Some((theirs, compared + theirs * median(&self.ours, Sample::different_part)))
    }

    fn row(&self) -> String {
        let (theirs, ours) = self.seconds();
        let fetched = |samples: &[Sample]| megabytes(median(samples, |sample| sample.fetched_bytes as f64));
        // The maximum of all runs, not the median.
        let peak = |samples: &[Sample]| {
            megabytes(samples.iter().map(|sample| sample.peak_bytes).max().unwrap_or(0) as f64)
        };
        let ratio = |theirs: Option<f64>, ours: f64| {
            theirs.map_or("-".into(), |theirs| format!("**{:.1}**", theirs / ours))
        };
        let shown = |theirs: Option<f64>| theirs.map_or("-".into(), |seconds| format!("{seconds:.2}"));
        let (their_wait, our_wait) = self.seconds_until_streaming();
        format!(
            "| {} | {} | {} | {} | {ours:.2} | {} | {} | {our_wait:.2} | {} | {} | {} | {} | {} |",
            self.name,
            self.major,
            self.opponent.name(),
            shown(theirs),
            ratio(theirs, ours),
            shown(their_wait),
            ratio(their_wait, our_wait),
            fetched(&self.theirs),
            fetched(&self.ours),
            peak(&self.theirs),
            peak(&self.ours),
        )
    }

    fn stages(&self) -> String {
        let Some(first) = self.ours.first() else { return String::new() };
        let stage = |(at, (name, _)): (usize, &(String, f64))| {
            format!(
                "{name} {:.3}",
                median(&self.ours, |sample| sample.stages.get(at).map_or(0.0, |stage| stage.1))
            )
        };
        first.stages.iter().enumerate().map(stage).collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        let (theirs, ours) = self.seconds();
        let (their_wait, our_wait) = self.seconds_until_streaming();
        let samples = |samples: &[Sample]| -> Vec<Value> {
            let sample = |sample: &Sample| {
                json!({
                    "seconds": sample.seconds,
                    "cpu_seconds": sample.cpu_seconds,
                    "source_cpu_seconds": sample.source_cpu_seconds,
                    "peak_bytes": sample.peak_bytes,
                    "fetched_bytes": sample.fetched_bytes,
                    "follow_seconds": sample.follow_seconds,
                    "stages": sample.stages,
                    "compared": sample.compared.as_ref().map(|found| json!({
                        "bytes": found.bytes, "different_bytes": found.different_bytes, "seconds": found.seconds,
                    })),
                })
            };
            samples.iter().map(sample).collect()
        };
        json!({
            "case": self.name,
            "version": self.major,
            "ratio": theirs.map(|theirs| theirs / ours),
            "ratio_until_streaming": their_wait.map(|theirs| theirs / our_wait),
            (self.opponent.name()): samples(&self.theirs),
            "kbrecover": samples(&self.ours),
            "extrapolated_seconds": self.extrapolated().map(|(theirs, ours)| {
                json!({ "bytes": EXTRAPOLATED, (self.opponent.name()): theirs, "kbrecover": ours })
            }),
            "floors": self.floors.iter().map(|floor| {
                json!({ "scan": floor.scan, "fetch": floor.fetch, "store": floor.store, "remove": floor.remove,
                        "different_bytes": floor.different_bytes })
            }).collect::<Vec<_>>(),
        })
    }
}

/// The processor time of a program and of its source, as part of the time of the run.
fn shares(samples: &[Sample]) -> [String; 2] {
    let parts: [fn(&Sample) -> f64; 2] =
        [|sample| sample.cpu_seconds / sample.seconds, |sample| sample.source_cpu_seconds / sample.seconds];
    parts.map(|part| match samples {
        [] => "-".into(),
        samples => format!("{:.0} %", median(samples, part) * 100.0),
    })
}

/// The median; 0 if there are no samples.
fn median<T>(samples: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

fn megabytes(bytes: f64) -> String {
    match bytes / 1e6 {
        0.0 => "-".into(),
        few if few < 10.0 => format!("{few:.1} MB"),
        many => format!("{many:.0} MB"),
    }
}

/// A description of the machine and its load.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "{cpus} cores, {}, load at the end {}",
        model.map_or("unknown processor", |(_, name)| name),
        load.join(" ")
    )
}
