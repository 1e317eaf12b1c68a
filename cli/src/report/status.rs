//! The state of a data directory, as text and as one JSON object.

use kbrecover_rewind::{Condition, StartsAs, Status, UnfinishedRewind};
use serde::Serialize;
use walparse::Lsn;

use crate::failure::{Failed, chain};

/// The state as text: a headline, what to do next, and details.
pub(crate) fn text(status: &Status) -> String {
    let mut lines = vec![format!("\"{}\": {}", status.directory.display(), headline(status))];
    lines.extend(advice(status).map(|advice| format!("  {advice}")));
    lines.push(String::new());
    let control = &status.control;
    let mut field = |name: &str, value: String| lines.push(format!("{name:<24}{value}"));
    if let Some(unfinished) = &status.unfinished {
        field("rewind started", unfinished.begun.clone());
        field("source", unfinished.source.clone());
        if let Some(divergence) = unfinished.divergence {
            field("point of divergence", divergence.lsn.to_string());
        }
        if let Some(start) = unfinished.replay_start {
            field("replay starts at", start.redo.to_string());
        }
        field("left to fetch", left(unfinished));
    }
    field("version", control.version().name().to_owned());
    field("system identifier", control.system_identifier().to_string());
    field("cluster state", control.state().to_string());
    field("timeline", control.timeline().to_string());
    field("latest checkpoint", format!("{}, redo {}", control.checkpoint_lsn(), control.checkpoint().redo));
    if control.min_recovery_point() != Lsn::INVALID {
        field("minimum recovery point", control.min_recovery_point().to_string());
    }
    field("starts as", starts_as(status.starts_as).replace('_', " "));
    if status.has_stale_lock_file {
        field(
            "lock file",
            format!("{} is stale: its server is not running", status.control.version().names().lock_file),
        );
    }
    lines.join("\n") + "\n"
}

fn headline(status: &Status) -> String {
    let pid = |pid: Option<u32>| pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    match status.condition {
        Condition::Clean => format!("clean ({})", status.control.state()),
        Condition::ServerRuns => format!("a server is running{}", pid(status.server)),
        Condition::KbrecoverRuns => format!("kbrecover is running{}", pid(status.kbrecover)),
        Condition::Unfinished => match &status.unfinished {
            Some(rewind) => {
                format!("the rewind from {} started at {} has not finished", rewind.source, rewind.begun)
            }
            None => "a rewind has not finished, and its journal is unusable".to_owned(),
        },
        Condition::Rewound => "rewound, and not started since".to_owned(),
        Condition::NeedsRecovery => {
            format!(
                "not shut down cleanly (\"{}\"): the next start performs recovery",
                status.control.state()
            )
        }
        Condition::BaseBackup => "a base backup that has not been started yet".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn advice(status: &Status) -> Option<String> {
    Some(match (status.condition, &status.journal_problem) {
        (_, Some(problem)) => format!("{}. Take a new base backup from the source.", chain(problem)),
        (Condition::Unfinished, None) => {
            "No server starts on it. Run the same rewind again to finish; a different source can be used."
                .to_owned()
        }
        (Condition::Rewound, None) if status.starts_as == StartsAs::Primary => {
            "Not set up as a standby: before starting the server, set primary_conninfo and create standby.signal (recovery.conf up to version 11)."
                .to_owned()
        }
        (Condition::Rewound, None) => "Start the server: it replays the source's WAL and then follows the source.".to_owned(),
        _ => return None,
    })
}

fn left(rewind: &UnfinishedRewind) -> String {
    let blocks = format!("{} changed blocks of {} relations", rewind.blocks, rewind.relations);
    match rewind.bytes_left {
        Some(bytes) => format!("about {} kB, including {blocks}", bytes.div_ceil(1024)),
        None => blocks,
    }
}

/// The name of a role in JSON.
pub(super) fn starts_as(starts_as: StartsAs) -> &'static str {
    match starts_as {
        StartsAs::Primary => "primary",
        StartsAs::Standby => "standby",
        StartsAs::Recovery => "recovery_to_a_target",
        _ => "unknown",
    }
}

/// The JSON object. Programs rely on its fields: they may be added, but not renamed.
#[derive(Serialize)]
struct Object<'a> {
    directory: String,
    state: &'static str,
    version: &'a str,
    system_identifier: String,
    cluster_state: String,
    timeline: u32,
    checkpoint: String,
    redo: String,
    min_recovery_point: Option<String>,
    starts_as: &'static str,
    server_pid: Option<u32>,
    kbrecover_pid: Option<u32>,
    stale_lock_file: bool,
    rewind: Option<RewindObject<'a>>,
    journal_error: Option<String>,
}

#[derive(Serialize)]
struct RewindObject<'a> {
    begun: &'a str,
    source: &'a str,
    divergence: Option<String>,
    redo: Option<String>,
    bytes_left: Option<u64>,
    blocks_left: u64,
    relations_left: u64,
}

/// One JSON object and a newline.
pub(crate) fn json(status: &Status) -> String {
    // Serializing plain strings and numbers cannot fail.
    serde_json::to_string(&object(status)).unwrap_or_default() + "\n"
}

/// The JSON object, to be part of another one.
pub(crate) fn object(status: &Status) -> impl Serialize {
    let control = &status.control;
    let min_recovery_point = control.min_recovery_point();
    Object {
        directory: status.directory.display().to_string(),
        state: match status.condition {
            Condition::Clean => "clean",
            Condition::ServerRuns => "server_runs",
            Condition::KbrecoverRuns => "kbrecover_runs",
            Condition::Unfinished => "rewind_unfinished",
            Condition::Rewound => "rewound",
            Condition::NeedsRecovery => "needs_recovery",
            Condition::BaseBackup => "base_backup",
            _ => "unknown",
        },
        version: control.version().name(),
        // As text: JSON readers that use floating point would round it.
        system_identifier: control.system_identifier().to_string(),
        cluster_state: control.state().to_string(),
        timeline: control.timeline().0,
        checkpoint: control.checkpoint_lsn().to_string(),
        redo: control.checkpoint().redo.to_string(),
        min_recovery_point: (min_recovery_point != Lsn::INVALID).then(|| min_recovery_point.to_string()),
        starts_as: starts_as(status.starts_as),
        server_pid: status.server,
        kbrecover_pid: status.kbrecover,
        stale_lock_file: status.has_stale_lock_file,
        rewind: status.unfinished.as_ref().map(|rewind| RewindObject {
            begun: &rewind.begun,
            source: &rewind.source,
            divergence: rewind.divergence.map(|at| at.lsn.to_string()),
            redo: rewind.replay_start.map(|start| start.redo.to_string()),
            bytes_left: rewind.bytes_left,
            blocks_left: rewind.blocks,
            relations_left: rewind.relations,
        }),
        journal_error: status.journal_problem.as_ref().map(|problem| chain(problem)),
    }
}

#[derive(Serialize)]
struct FailureObject<'a> {
    state: &'static str,
    error: &'a str,
    hint: Option<&'a str>,
}

/// The JSON object for a state that could not be determined, and a newline.
pub(crate) fn json_of_failure(failed: &Failed) -> String {
    let object = FailureObject { state: "unknown", error: &failed.message, hint: failed.hint.as_deref() };
    serde_json::to_string(&object).unwrap_or_default() + "\n"
}
