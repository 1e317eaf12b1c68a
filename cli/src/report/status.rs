//! The state of a data directory, and how far replay has come on it, as text and as one JSON object.

use kbrecover_rewind::{
    ComparisonSoFar, Condition, CopiedSoFar, ReplayProgress, Size, StartsAs, Status, UnfinishedRewind,
    WaitEnd, Waited, duration_text,
};
use serde::Serialize;
use walparse::Lsn;

use super::seconds_of;
use crate::failure::{Failed, chain};

/// The state as text: a headline, what to do next, and details.
pub(crate) fn text(status: &Status) -> String {
    let mut lines = vec![format!("\"{}\": {}", status.directory.display(), headline(status))];
    lines.extend(advice(status).map(|advice| format!("  {advice}")));
    lines.push(String::new());
    lines.extend(details(status));
    lines.join("\n") + "\n"
}

/// The result of a wait as text: the same, and how the wait has ended.
pub(crate) fn text_of_wait(waited: &Waited) -> String {
    let Waited { end, progress, status, .. } = waited;
    let mut lines = vec![
        format!("\"{}\": {}", status.directory.display(), headline(status)),
        format!("  {}", verdict(*end)),
        String::new(),
    ];
    let mut field = |name: &str, value: String| lines.push(format!("{name:<24}{value}"));
    if let Some(replayed) = progress.position.replayed {
        let accuracy = if progress.position.by_session { "" } else { " or later, in the same WAL segment" };
        field("replayed up to", format!("{replayed}{accuracy}"));
    }
    // Until something arrives, this is the beginning of the segment at which streaming began.
    let received = progress.position.received;
    if let Some(received) =
        received.filter(|received| progress.position.replayed.is_none_or(|replayed| *received >= replayed))
    {
        field("received up to", received.to_string());
    }
    if let Some(goal) = progress.goal {
        field("to be replayed up to", goal.to_string());
    }
    field("waited", duration_text(progress.waited));
    lines.extend(details(status));
    lines.join("\n") + "\n"
}

/// How a wait has ended.
fn verdict(end: WaitEnd) -> &'static str {
    match end {
        WaitEnd::Streams => "The standby streams.",
        WaitEnd::TimedOut => "The standby does not stream yet.",
        WaitEnd::NoServer => "No server is running on it. See the server's log if it was started.",
        WaitEnd::NotStandby => "The server is not a standby.",
        _ => "Unknown.",
    }
}

/// How far replay has come, on one line.
pub(crate) fn progress_line(progress: &ReplayProgress) -> String {
    let position = &progress.position;
    let Some(replayed) = position.replayed else {
        return match position.is_streaming {
            true => "streaming; the position of replay is not known".to_owned(),
            false => "waiting for the server; the position of replay is not known yet".to_owned(),
        };
    };
    let about = if position.by_session { "" } else { "about " };
    let mut line = format!("replayed up to {about}{replayed}");
    if let Some(goal) = progress.goal {
        line += &format!(" of {goal}");
    }
    if let Some(rate) = progress.bytes_per_second {
        line += &format!(", {:.1} MiB/s", rate / f64::from(1 << 20));
    }
    if let Some(left) = progress.time_left().filter(|left| !left.is_zero()) {
        line += &format!(", about {} left", duration_text(left));
    }
    if !position.is_streaming {
        line += ", not streaming yet";
    }
    line
}

/// The details of a state, a line for each.
fn details(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let control = &status.control;
    let mut field = |name: &str, value: String| lines.push(format!("{name:<24}{value}"));
    if let Some(unfinished) = &status.unfinished {
        field("rewind started", unfinished.begun_text.clone());
        field("source", unfinished.source.clone());
        if let Some(divergence) = unfinished.divergence {
            field("point of divergence", divergence.lsn.to_string());
        }
        if let Some(start) = unfinished.replay_start {
            field("replay starts at", start.redo.to_string());
        }
        let is_at_work = status.condition == Condition::KbrecoverRuns;
        field(if is_at_work { "to fetch in all" } else { "left to fetch" }, to_fetch(unfinished));
    }
    if let Some(copy) = &status.copy {
        field("left to copy", left_to_copy(copy));
    }
    if let Some(comparison) = status.comparison {
        field("compared so far", compared(comparison));
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
    lines
}

fn headline(status: &Status) -> String {
    let pid = |pid: Option<u32>| pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    match status.condition {
        Condition::Clean => format!("clean ({})", status.control.state()),
        Condition::ServerRuns => format!("a server is running{}", pid(status.server)),
        Condition::KbrecoverRuns => format!("kbrecover is running{}", pid(status.kbrecover)),
        Condition::Unfinished => match &status.unfinished {
            Some(rewind) => {
                format!("the rewind from {} started at {} has not finished", rewind.source, rewind.begun_text)
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
        (Condition::KbrecoverRuns, None) if status.unfinished.is_some() => {
            "It is changing files: no server starts until it has finished."
                .to_owned()
        }
        (Condition::KbrecoverRuns, None) => "It has changed nothing yet.".to_owned(),
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

fn to_fetch(rewind: &UnfinishedRewind) -> String {
    let blocks = format!("{} changed blocks of {} relations", rewind.blocks, rewind.relations);
    match rewind.bytes_left {
        Some(bytes) => format!("about {}, including {blocks}", Size(bytes)),
        None => blocks,
    }
}

fn left_to_copy(copy: &CopiedSoFar) -> String {
    let (bytes, time) = copy.left();
    let time = time.map(|time| format!(", about {} left", duration_text(time))).unwrap_or_default();
    format!("{} of {}{time}", Size(bytes), Size(copy.total))
}

fn compared(comparison: ComparisonSoFar) -> String {
    let ComparisonSoFar { files, bytes, total, different_blocks, .. } = comparison;
    let total = total.map(|total| format!(" of {}", Size(total.max(bytes)))).unwrap_or_default();
    format!("{}{total} in {files} relation files, {different_blocks} blocks differ", Size(bytes))
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
    copy: Option<CopyObject>,
    journal_error: Option<String>,
    comparison: Option<ComparisonObject>,
    /// Only with `--wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<WaitObject>,
}

#[derive(Serialize)]
struct WaitObject {
    result: &'static str,
    seconds: f64,
    replayed: Option<String>,
    received: Option<String>,
    target: Option<String>,
    streaming: bool,
    positions_from: &'static str,
    bytes_per_second: Option<f64>,
    seconds_left: Option<f64>,
}

impl WaitObject {
    fn of(waited: &Waited) -> WaitObject {
        let ReplayProgress { position, goal, bytes_per_second, .. } = waited.progress;
        WaitObject {
            result: match waited.end {
                WaitEnd::Streams => "streams",
                WaitEnd::TimedOut => "timed_out",
                WaitEnd::NoServer => "no_server",
                WaitEnd::NotStandby => "no_standby",
                _ => "unknown",
            },
            seconds: seconds_of(waited.progress.waited),
            replayed: position.replayed.map(|lsn| lsn.to_string()),
            received: position.received.map(|lsn| lsn.to_string()),
            target: goal.map(|lsn| lsn.to_string()),
            streaming: position.is_streaming,
            positions_from: if position.by_session { "session" } else { "process_titles" },
            bytes_per_second,
            seconds_left: waited.progress.time_left().map(seconds_of),
        }
    }
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

#[derive(Serialize)]
struct CopyObject {
    bytes: u64,
    bytes_total: u64,
    seconds_left: Option<u64>,
}

#[derive(Serialize)]
struct ComparisonObject {
    files: u64,
    bytes: u64,
    bytes_total: Option<u64>,
    different_blocks: u64,
}

/// One JSON object and a newline.
pub(crate) fn json(status: &Status) -> String {
    // Serializing plain strings and numbers cannot fail.
    serde_json::to_string(&object(status)).unwrap_or_default() + "\n"
}

/// The same with the result of a wait.
pub(crate) fn json_of_wait(waited: &Waited) -> String {
    let object = Object { wait: Some(WaitObject::of(waited)), ..whole_object(&waited.status) };
    serde_json::to_string(&object).unwrap_or_default() + "\n"
}

/// The JSON object, to be part of another one.
pub(crate) fn object(status: &Status) -> impl Serialize {
    whole_object(status)
}

fn whole_object(status: &Status) -> Object<'_> {
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
        copy: status.copy.map(|copy| CopyObject {
            bytes: copy.bytes,
            bytes_total: copy.total,
            seconds_left: copy.left().1.map(|left| left.as_secs()),
        }),
        journal_error: status.journal_problem.as_ref().map(|problem| chain(problem)),
        comparison: status.comparison.map(|comparison| ComparisonObject {
            files: comparison.files,
            bytes: comparison.bytes,
            bytes_total: comparison.total,
            different_blocks: comparison.different_blocks,
        }),
        wait: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_on_one_line() {
        let mut progress = ReplayProgress::default();
        assert_eq!(
            progress_line(&progress),
            "waiting for the server; the position of replay is not known yet"
        );
        progress.position.replayed = Some(Lsn(0x4FC3_1D80));
        assert_eq!(progress_line(&progress), "replayed up to about 0/4FC31D80, not streaming yet");
        progress.position.by_session = true;
        progress.goal = Some(Lsn(0x8AE7_5AB8));
        progress.bytes_per_second = Some(94.2 * 1_048_576.0);
        assert_eq!(
            progress_line(&progress),
            "replayed up to 0/4FC31D80 of 0/8AE75AB8, 94.2 MiB/s, about 10 s left, not streaming yet"
        );
        (progress.position.replayed, progress.position.is_streaming) = (progress.goal, true);
        assert_eq!(progress_line(&progress), "replayed up to 0/8AE75AB8 of 0/8AE75AB8, 94.2 MiB/s");
        progress.position.replayed = None;
        assert_eq!(progress_line(&progress), "streaming; the position of replay is not known");
    }
}
