//! The failovers to measure, and their sizes.

use std::time::Duration;

use clap::ValueEnum;

use super::Settings;
use super::proxy::Network;
use super::workload::Workload;

/// One row of the results.
pub struct Measurement {
    /// Its name.
    pub name: String,
    /// The failover.
    pub workload: Workload,
    /// The network between the program and the source that a proxy simulates; `None` for the loopback interface.
    pub network: Option<Network>,
    /// Value of `--jobs` for kbrecover; `None` for its default.
    pub jobs: Option<u64>,
    /// The amount of work, in a sweep. The time should grow at most in proportion to it.
    pub work: Option<u64>,
}

/// The cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CaseName {
    /// All of them
    All,
    /// 2.6 GB of WAL after the fork over few blocks
    Wal,
    /// 1 GB of WAL after the fork: 25,000 rows updated five times, in every third of 75,000 blocks
    Scattered,
    /// 41,000 files
    Files,
    /// Scattered, through a proxy that adds 5 ms in each direction
    Far,
    /// Scattered, but all 75,000 blocks changed, by hint bits
    Hinted,
    /// 2.2 GB of WAL over a table of 1.1 GB between the common checkpoint and the fork, almost none after it
    Late,
    /// One changed block, and 2 GB in the source's pg_wal
    OneBlock,
    /// One row after the fork on the target, and 4 GB of WAL over three checkpoints on the source
    Stale,
    /// Stale, with WAL summaries on the source (from 17 on)
    StaleSummaries,
    /// 1 % of the blocks of 4 GB changed: kbrecover compares the data of both sides, against pg_basebackup
    Compare,
    /// Compare, through a proxy that passes 1 Gbit/s
    CompareGigabit,
}

/// The sweeps: a case at several sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SweepName {
    /// MB of WAL after the fork
    Wal,
    /// Scattered blocks
    Blocks,
    /// Files
    Files,
    /// Milliseconds of latency in each direction
    Latency,
    /// Threads and connections
    Jobs,
    /// MB of WAL that the source has written since the fork
    Stale,
    /// Threads and connections of kbrecover in the case compare
    CompareJobs,
}

/// The rate of the network in the case compare-gigabit.
const GIGABIT: f64 = 1e9;

/// The measurements, with those of the same workload in sequence.
pub fn measurements(settings: &Settings) -> Vec<Measurement> {
    match settings.sweep {
        Some(sweep) => sweep_of(sweep, settings),
        None => cases(settings),
    }
}

fn cases(settings: &Settings) -> Vec<Measurement> {
    let sized = |full: f64| (full * settings.scale).ceil() as u64;
    let stale = |has_summaries| Workload::Stale { megabytes: sized(4000.0), has_summaries };
    let scattered = Workload::Scattered { blocks: sized(25_000.0) };
    let far = Some(Network::with_delay(Duration::from_millis(5)));
    let gigabit = Some(Network::with_bits_per_second(GIGABIT));
    let all: [(CaseName, &str, Workload, Option<Network>); 11] = [
        (CaseName::Wal, "wal", Workload::Wal { megabytes: sized(2600.0) }, None),
        (CaseName::Scattered, "scattered", scattered, None),
        (CaseName::Far, "far", scattered, far),
        (CaseName::Hinted, "hinted", Workload::Hinted { blocks: sized(25_000.0) }, None),
        (CaseName::Files, "files", Workload::Files { files: sized(41_000.0) }, None),
        (CaseName::Late, "late", Workload::Late { megabytes: sized(2200.0) }, None),
        (CaseName::OneBlock, "one-block", Workload::OneBlock { megabytes: sized(2000.0) }, None),
        (CaseName::Stale, "stale", stale(false), None),
        (CaseName::StaleSummaries, "stale-summaries", stale(true), None),
        (CaseName::Compare, "compare", compare(settings), None),
        (CaseName::CompareGigabit, "compare-gigabit", compare(settings), gigabit),
    ];
    let chosen = |case| settings.case.contains(&CaseName::All) || settings.case.contains(&case);
    let chosen = all.into_iter().filter(|(case, ..)| chosen(*case));
    let measurement = |(_, name, workload, network): (_, &str, _, _)| Measurement {
        name: name.to_owned(),
        workload,
        network,
        jobs: None,
        work: None,
    };
    chosen.map(measurement).collect()
}

fn compare(settings: &Settings) -> Workload {
    Workload::Compare { megabytes: (4000.0 * settings.scale).ceil() as u64 }
}

fn sweep_of(sweep: SweepName, settings: &Settings) -> Vec<Measurement> {
    let default_points: &[u64] = match sweep {
        SweepName::Wal | SweepName::Stale => &[256, 512, 1024, 2048, 4096, 8192],
        SweepName::Blocks => &[1000, 10_000, 100_000, 1_000_000],
        SweepName::Files => &[1000, 10_000, 100_000],
        SweepName::Latency => &[0, 1, 5, 10, 20],
        SweepName::Jobs => &[1, 2, 4, 8],
        SweepName::CompareJobs => &[1, 2, 4],
    };
    let points = if settings.points.is_empty() { default_points } else { &settings.points };
    let scattered = Workload::Scattered { blocks: (25_000.0 * settings.scale).ceil() as u64 };
    let measurement = |&point: &u64| {
        let (workload, unit) = match sweep {
            SweepName::Wal => (Workload::Wal { megabytes: point }, "MB of WAL"),
            SweepName::Blocks => (Workload::Scattered { blocks: point }, "blocks"),
            SweepName::Files => (Workload::Files { files: point }, "files"),
            SweepName::Latency => (scattered, "ms each way"),
            SweepName::Jobs => (scattered, "jobs"),
            SweepName::CompareJobs => (compare(settings), "jobs"),
            SweepName::Stale => {
                (Workload::Stale { megabytes: point, has_summaries: false }, "MB of WAL on the source")
            }
        };
        let is_jobs = matches!(sweep, SweepName::Jobs | SweepName::CompareJobs);
        let is_latency = sweep == SweepName::Latency;
        let delayed = || Network::with_delay(Duration::from_millis(point));
        Measurement {
            name: format!("{point} {unit}"),
            workload,
            network: (is_latency && point > 0).then(delayed),
            jobs: is_jobs.then_some(point),
            work: (!is_latency && !is_jobs).then_some(point),
        }
    };
    points.iter().map(measurement).collect()
}
