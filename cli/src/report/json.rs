//! The report on a run as one JSON object.

use jiff::Timestamp;
use kbrecover_rewind::{
    BothSides, Outcome, PlanSummary, ReplayStart, Report, Side, SourceChanges, SpaceNeed, TargetState,
    VerifiedData, WalKept,
};
use serde::Serialize;
use walparse::{Lsn, TimelineId};

use super::lost::LostObject;
use super::status::starts_as;
use super::{seconds, seconds_of};
use crate::failure::Failed;
use crate::persona::Persona;

/// The report on a run that succeeded: one JSON object and a newline.
pub(crate) fn of_outcome(outcome: &Outcome) -> String {
    let name = match outcome {
        Outcome::NotNeeded(_) => "not_needed",
        Outcome::AlreadyRewound(_) => "already_rewound",
        Outcome::Planned(_) => "planned",
        Outcome::Checked(_) => "checked",
        Outcome::Rewound(_) => "rewound",
        _ => "other",
    };
    to_json(&Run::of(name, outcome.report()))
}

/// The report on a run that failed: one JSON object and a newline.
pub(crate) fn of_failure(
    failed: &Failed,
    persona: &Persona,
    started: Timestamp,
    finished: Timestamp,
) -> String {
    let failure = FailureObject {
        error: &failed.message,
        hint: failed.hint.as_deref(),
        exit_code: failed.status(persona),
        target: match failed.target {
            TargetState::Untouched => "untouched",
            TargetState::Unfinished => "unfinished",
        },
    };
    to_json(&Run { failure: Some(failure), ..Run::empty("failed", started, finished) })
}

/// The JSON object. Programs rely on its fields: they may be added, but not renamed.
#[derive(Serialize)]
struct Run<'a> {
    outcome: &'static str,
    started: String,
    finished: String,
    total_seconds: f64,
    stages: Vec<StageObject>,
    sides: Option<SidesObject<'a>>,
    divergence: Option<Position>,
    checkpoint: Option<CheckpointObject>,
    lost: Option<LostObject<'a>>,
    saved_in: Option<String>,
    compared: Option<ComparedObject>,
    verified: Option<VerifiedObject>,
    replay_start: Option<ReplayStartObject>,
    min_recovery_point: Option<Position>,
    wal: Option<WalObject<'a>>,
    files: Option<Files>,
    bytes: Option<Bytes>,
    kept: &'a [String],
    not_taken: &'a [String],
    starts_as: Option<&'static str>,
    wal_kept: Option<WalKeptObject<'a>>,
    space: Vec<SpaceObject>,
    wal_scanned: Scanned,
    #[serde(flatten)]
    failure: Option<FailureObject<'a>>,
}

#[derive(Serialize)]
struct StageObject {
    name: &'static str,
    seconds: f64,
}

#[derive(Serialize)]
pub(super) struct SidesObject<'a> {
    target: SideObject<'a>,
    source: SideObject<'a>,
}

impl<'a> SidesObject<'a> {
    pub(super) fn of(sides: &'a BothSides) -> SidesObject<'a> {
        SidesObject { target: SideObject::of(&sides.target), source: SideObject::of(&sides.source) }
    }
}

#[derive(Serialize)]
struct SideObject<'a> {
    place: &'a str,
    role: String,
    timeline: u32,
    wal_end: Option<String>,
    last_checkpoint: Option<String>,
}

impl<'a> SideObject<'a> {
    fn of(side: &'a Side) -> SideObject<'a> {
        SideObject {
            place: &side.place,
            role: side.role.to_string(),
            timeline: side.timeline.0,
            wal_end: side.wal_end.map(|end| end.to_string()),
            last_checkpoint: side.last_checkpoint.map(|time| time.to_string()),
        }
    }
}

#[derive(Serialize)]
struct Position {
    lsn: String,
    timeline: u32,
}

#[derive(Serialize)]
struct ReplayStartObject {
    redo: String,
    timeline: u32,
    is_newest: bool,
    source_changes: &'static str,
    wal_bytes: u64,
    more_bytes: u64,
    estimated_seconds: f64,
    admits_sessions: bool,
}

#[derive(Serialize)]
struct WalKeptObject<'a> {
    by: &'static str,
    slot: Option<&'a str>,
    command: Option<&'a str>,
}

impl<'a> WalKeptObject<'a> {
    fn of(kept: &'a WalKept) -> WalKeptObject<'a> {
        let by = |by| WalKeptObject { by, slot: None, command: None };
        match kept {
            WalKept::Slot { name } => WalKeptObject { slot: Some(name), ..by("slot") },
            WalKept::Setting { .. } => by("setting"),
            WalKept::Archive => by("archive"),
            WalKept::Nothing { command, slot, .. } => {
                WalKeptObject { slot: Some(slot), command: Some(command), ..by("nothing") }
            }
            _ => by("unknown"),
        }
    }
}

#[derive(Serialize)]
struct ComparedObject {
    files: u64,
    bytes: u64,
    different_blocks: u64,
}

/// What comparing all blocks has found.
#[derive(Serialize)]
pub(super) struct VerifiedObject {
    files: u64,
    bytes: u64,
    replayed: u64,
    not_logged: u64,
    different: u64,
}

impl VerifiedObject {
    pub(super) fn of(found: VerifiedData) -> VerifiedObject {
        VerifiedObject {
            files: found.files,
            bytes: found.bytes,
            replayed: found.replayed,
            not_logged: found.not_logged,
            different: found.different,
        }
    }
}

#[derive(Serialize)]
struct CheckpointObject {
    lsn: String,
    redo: String,
    timeline: u32,
}

#[derive(Serialize)]
struct WalObject<'a> {
    start: String,
    start_file: &'a str,
    end: String,
    end_file: &'a str,
}

#[derive(Serialize)]
struct Files {
    created: u64,
    copied: u64,
    wal: u64,
    extended: u64,
    changed: u64,
    changed_blocks: u64,
    left_to_replay: u64,
    truncated: u64,
    kept: u64,
    removed: u64,
    unchanged: u64,
}

#[derive(Serialize)]
struct Bytes {
    copied: u64,
    wal: u64,
    extended: u64,
    changed: u64,
    to_fetch: u64,
    fetched: u64,
    source_total: u64,
}

#[derive(Serialize)]
struct SpaceObject {
    directory: String,
    needed: u64,
    available: u64,
}

impl SpaceObject {
    fn of(need: &SpaceNeed) -> SpaceObject {
        let directory = need.directory.display().to_string();
        SpaceObject { directory, needed: need.needed, available: need.available }
    }
}

#[derive(Serialize)]
struct Scanned {
    bytes: u64,
    records: u64,
}

#[derive(Serialize)]
struct FailureObject<'a> {
    error: &'a str,
    hint: Option<&'a str>,
    exit_code: u8,
    target: &'static str,
}

impl<'a> Run<'a> {
    fn empty(outcome: &'static str, started: Timestamp, finished: Timestamp) -> Run<'a> {
        Run {
            outcome,
            started: format!("{started:.6}"),
            finished: format!("{finished:.6}"),
            total_seconds: seconds(started, finished),
            stages: Vec::new(),
            sides: None,
            divergence: None,
            checkpoint: None,
            lost: None,
            saved_in: None,
            compared: None,
            verified: None,
            replay_start: None,
            min_recovery_point: None,
            wal: None,
            files: None,
            bytes: None,
            kept: &[],
            not_taken: &[],
            starts_as: None,
            wal_kept: None,
            space: Vec::new(),
            wal_scanned: Scanned { bytes: 0, records: 0 },
            failure: None,
        }
    }

    fn of(outcome: &'static str, report: &'a Report) -> Run<'a> {
        let stage = |stage: &kbrecover_rewind::StageTime| StageObject {
            name: stage.name,
            seconds: seconds_of(stage.elapsed),
        };
        let position =
            |lsn: Lsn, timeline: TimelineId| Position { lsn: lsn.to_string(), timeline: timeline.0 };
        Run {
            stages: report.stages.iter().map(stage).collect(),
            sides: report.sides.as_ref().map(SidesObject::of),
            divergence: report.divergence.map(|at| position(at.lsn, at.timeline)),
            checkpoint: report.checkpoint.map(|at| CheckpointObject {
                lsn: at.lsn.to_string(),
                redo: at.redo.to_string(),
                timeline: at.timeline.0,
            }),
            lost: report.lost.as_ref().map(LostObject::of),
            saved_in: report.saved_in.as_ref().map(|directory| directory.display().to_string()),
            compared: report.compared.map(|found| ComparedObject {
                files: found.files,
                bytes: found.bytes,
                different_blocks: found.different_blocks,
            }),
            verified: report.verified.map(VerifiedObject::of),
            replay_start: report.replay_start.as_ref().map(ReplayStartObject::of),
            min_recovery_point: report.replay.as_ref().map(|span| position(span.end, span.end_timeline)),
            wal: report.replay.as_ref().map(|span| WalObject {
                start: span.start.to_string(),
                start_file: &span.start_file,
                end: span.end.to_string(),
                end_file: &span.end_file,
            }),
            files: report.plan.as_ref().map(Files::of),
            bytes: report.plan.as_ref().map(|plan| Bytes::of(plan, report.bytes_fetched)),
            kept: &report.kept,
            not_taken: &report.not_taken,
            starts_as: report.starts_as.map(starts_as),
            wal_kept: report.wal_kept.as_ref().map(WalKeptObject::of),
            space: report.space.iter().map(SpaceObject::of).collect(),
            wal_scanned: Scanned { bytes: report.wal_bytes_scanned, records: report.wal_records_scanned },
            ..Run::empty(outcome, report.started, report.finished)
        }
    }
}

impl ReplayStartObject {
    fn of(start: &ReplayStart) -> ReplayStartObject {
        let chosen = start.chosen();
        ReplayStartObject {
            redo: start.checkpoint.redo.to_string(),
            timeline: start.checkpoint.timeline.0,
            is_newest: start.is_newest(),
            source_changes: match start.source_changes {
                SourceChanges::Summaries => "summaries",
                _ => "wal",
            },
            wal_bytes: chosen.wal_bytes,
            more_bytes: chosen.more_bytes,
            estimated_seconds: chosen.seconds(),
            admits_sessions: chosen.admits_sessions,
        }
    }
}

impl Files {
    fn of(plan: &PlanSummary) -> Files {
        Files {
            created: plan.create,
            copied: plan.copy,
            wal: plan.wal,
            extended: plan.copy_tail,
            changed: plan.changed_files,
            changed_blocks: plan.blocks,
            left_to_replay: plan.left_to_replay,
            truncated: plan.truncate,
            kept: plan.kept,
            removed: plan.remove,
            unchanged: plan.unchanged,
        }
    }
}

impl Bytes {
    fn of(plan: &PlanSummary, fetched: u64) -> Bytes {
        Bytes {
            copied: plan.copy_bytes,
            wal: plan.wal_bytes,
            extended: plan.copy_tail_bytes,
            changed: plan.block_bytes,
            to_fetch: plan.fetch_bytes(),
            fetched,
            source_total: plan.source_bytes,
        }
    }
}

/// An object as one line.
pub(super) fn to_json(object: &impl Serialize) -> String {
    // Serializing plain strings and numbers cannot fail.
    let mut text = serde_json::to_string(object).unwrap_or_else(|_| "{\"outcome\":\"failed\"}".to_owned());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::report;

    #[test]
    fn a_rewind_is_reported() {
        let expected = concat!(
            r#"{"outcome":"rewound","started":"2023-06-16T05:57:04.593305Z","#,
            r#""finished":"2023-06-16T05:57:06.544920Z","total_seconds":1.951615,"#,
            r#""stages":[{"name":"scan","seconds":0.25}],"#,
            r#""sides":{"target":{"place":"data directory \"/data\"","role":"primary","timeline":13,"wal_end":"1/6A000060","#,
            r#""last_checkpoint":"2023-06-16T05:50:00Z"},"source":{"place":"server at \"h\", port 5432","role":"primary","#,
            r#""timeline":14,"wal_end":null,"last_checkpoint":null}},"#,
            r#""divergence":{"lsn":"1/69025000","timeline":13},"#,
            r#""checkpoint":{"lsn":"1/69024B90","redo":"1/69024B58","timeline":13},"#,
            r#""lost":{"committed":2,"first":"2023-06-16T05:55:01.000000Z","last":"2023-06-16T05:56:00.000000Z","#,
            r#""undecided":["order-7"],"tables":null,"objects":null,"sequences":null,"notes":[]},"saved_in":null,"#,
            r#""compared":null,"verified":null,"replay_start":{"redo":"1/69024B58","timeline":13,"is_newest":false,"#,
            r#""source_changes":"wal","wal_bytes":16778808,"more_bytes":0,"estimated_seconds":0.33557616,"#,
            r#""admits_sessions":true},"#,
            r#""min_recovery_point":{"lsn":"1/6A025190","timeline":14},"#,
            r#""wal":{"start":"1/69024B58","start_file":"0000000D0000000100000069","#,
            r#""end":"1/6A025190","end_file":"0000000E000000010000006A"},"#,
            r#""files":{"created":2,"copied":12,"wal":3,"extended":1,"changed":7,"changed_blocks":1000,"left_to_replay":300,"#,
            r#""truncated":1,"kept":3,"removed":4,"unchanged":950},"#,
            r#""bytes":{"copied":1234567,"wal":50331648,"extended":8192,"changed":8192000,"#,
            r#""to_fetch":59766407,"fetched":59766407,"source_total":600000000},"#,
            r#""kept":["log","pg_hba.conf","postgresql.conf"],"not_taken":["standby.signal"],"starts_as":"primary","#,
            r#""wal_kept":{"by":"nothing","slot":"s","command":"SELECT 1"},"#,
            r#""space":[{"directory":"/data","needed":58368000,"available":101376000}],"#,
            r#""wal_scanned":{"bytes":16777216,"records":4321}}"#,
            "\n"
        );
        assert_eq!(of_outcome(&Outcome::Rewound(report())), expected);
        assert!(of_outcome(&Outcome::Planned(report())).starts_with(r#"{"outcome":"planned","#));
    }

    #[test]
    fn a_run_without_a_plan_and_a_failure_are_reported() {
        let report = Report::new(report().started, report().finished);
        let nothing = concat!(
            r#""stages":[],"sides":null,"divergence":null,"checkpoint":null,"lost":null,"saved_in":null,"compared":null,"verified":null,"replay_start":null,"min_recovery_point":null,"wal":null,"#,
            r#""files":null,"bytes":null,"kept":[],"not_taken":[],"starts_as":null,"wal_kept":null,"space":[],"wal_scanned":{"bytes":0,"records":0}"#
        );
        assert!(of_outcome(&Outcome::NotNeeded(report.clone())).ends_with(&format!("{nothing}}}\n")));

        let failed = Failed {
            message: "broke at \"x\"".to_owned(),
            hint: Some("mend it".to_owned()),
            target: TargetState::Unfinished,
        };
        let text = of_failure(&failed, crate::persona::KBRECOVER, report.started, report.finished);
        let failure = r#","error":"broke at \"x\"","hint":"mend it","exit_code":2,"target":"unfinished""#;
        assert!(text.starts_with(r#"{"outcome":"failed","started":"#), "{text}");
        assert!(text.ends_with(&format!("{nothing}{failure}}}\n")), "{text}");
    }
}
