//! The last lines of a run, for people: what the node is now, and what comes next. Under the names pg_rewind and sys_rewind
//! there are none: managers set up and start the standby themselves.

use std::path::Path;
use std::time::Duration;

use kbrecover_rewind::{Outcome, ReplayEstimate, Report, Size, StartsAs, WalKept, duration_text};

use crate::screen::Kind;

/// The lines in their order. Where the node would not start as a standby, the last one warns of it. After a plan there are
/// none: it has the warning itself.
pub(crate) fn next_steps(outcome: &Outcome, target: &Path) -> Vec<(Kind, String)> {
    let report = match outcome {
        Outcome::Planned(_) | Outcome::Checked(_) => return Vec::new(),
        other => other.report(),
    };
    let mut lines = Vec::new();
    if matches!(outcome, Outcome::Rewound(_)) {
        lines.push((Kind::Info, now(report)));
    }
    lines.extend(wal_hint(report).map(|hint| (Kind::Hint, hint)));
    match report.starts_as {
        Some(StartsAs::Standby) => {
            lines.extend(commands(report, target).map(|line| (Kind::Info, format!("next: {line}"))));
        }
        Some(StartsAs::Primary) => lines.push(warning("not set up as a standby", SET_UP)),
        Some(StartsAs::Recovery) => lines.push(warning("set up to recover to a target", SET_UP_RECOVERY)),
        _ => {}
    }
    lines
}

const SET_UP: &str = "set primary_conninfo and create standby.signal (up to version 11: recovery.conf)";
const SET_UP_RECOVERY: &str =
    "replace recovery.signal by standby.signal (up to version 11: set standby_mode in recovery.conf)";

fn warning(state: &str, set_up: &str) -> (Kind, String) {
    let text = format!(
        "the target is {state} and must not be started as it is: it would become a second primary. First {set_up}, or run \
         again with -R."
    );
    (Kind::Warning, text)
}

/// The last line of a plan after which the target would not be a standby.
pub(super) fn warning_of_plan(report: &Report) -> Option<String> {
    let set_up = match report.starts_as? {
        StartsAs::Primary => SET_UP,
        StartsAs::Recovery => SET_UP_RECOVERY,
        _ => return None,
    };
    Some(format!(
        "Warning: the rewind will not set up the target as a standby: started as it is, it would become a second primary. \
         Use -R, or before the start {set_up}."
    ))
}

fn now(report: &Report) -> String {
    let role = match report.starts_as {
        Some(StartsAs::Standby) => "rewound and set up as a standby",
        _ => "rewound",
    };
    let Some(replay) = &report.replay else { return format!("now: {role}") };
    let bytes = replay.end.0.saturating_sub(replay.start.0);
    let time = Duration::from_secs(bytes.div_ceil(ReplayEstimate::REPLAY_RATE));
    format!("now: {role}; at its start it replays {} of WAL, about {}", Size(bytes), duration_text(time))
}

/// The commands that are next.
fn commands(report: &Report, target: &Path) -> impl Iterator<Item = String> {
    let prefix = report.version.map_or("pg_", |version| version.names().prefix);
    let directory = shell_word(target);
    [
        format!("start the server, as a service or by: {prefix}ctl -D {directory} start"),
        format!("wait until it streams: kbrecover status -D {directory} --wait"),
        format!("look at it in SQL: SELECT * FROM {prefix}stat_wal_receiver"),
    ]
    .into_iter()
}

/// A path as a shell reads it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A hint if the source may remove WAL before the target has streamed it: how to keep it.
fn wal_hint(report: &Report) -> Option<String> {
    let Some(WalKept::Nothing { command, slot, is_named }) = &report.wal_kept else { return None };
    let setting = match is_named {
        true => String::new(),
        false => format!("set primary_slot_name = '{slot}' on the target, and "),
    };
    Some(format!(
        "The source may remove WAL before the target has streamed it. To keep it, {setting}run on the source: {command};"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::sample::report;
    use super::*;

    fn lines(starts_as: StartsAs, outcome: impl Fn(Report) -> Outcome) -> Vec<String> {
        let mut report = report();
        report.starts_as = Some(starts_as);
        let all = next_steps(&outcome(report), Path::new("/data/a b"));
        all.into_iter().map(|(kind, text)| format!("{kind:?}: {text}")).collect()
    }

    #[test]
    fn a_standby_is_started_and_looked_at() {
        assert_eq!(
            lines(StartsAs::Standby, Outcome::Rewound),
            [
                "Info: now: rewound and set up as a standby; at its start it replays 16.1 MiB of WAL, about 1 s",
                "Hint: The source may remove WAL before the target has streamed it. To keep it, set primary_slot_name = 's' \
                 on the target, and run on the source: SELECT 1;",
                "Info: next: start the server, as a service or by: pg_ctl -D '/data/a b' start",
                "Info: next: wait until it streams: kbrecover status -D '/data/a b' --wait",
                "Info: next: look at it in SQL: SELECT * FROM pg_stat_wal_receiver",
            ]
        );
        let mut kept = report();
        kept.wal_kept = Some(WalKept::Archive);
        assert_eq!(wal_hint(&kept), None);
    }

    #[test]
    fn the_last_line_warns_of_a_second_primary() {
        for dangerous in [StartsAs::Primary, StartsAs::Recovery] {
            for outcome in [Outcome::Rewound, Outcome::NotNeeded, Outcome::AlreadyRewound] {
                let lines = lines(dangerous, outcome);
                let last = lines.last().unwrap();
                assert!(
                    last.starts_with("Warning: ") && last.contains("must not be started as it is"),
                    "{last}"
                );
                assert!(!lines.iter().any(|line| line.contains("next: ")), "{lines:?}");
            }
        }
        for outcome in [Outcome::Planned, Outcome::Checked] {
            assert!(lines(StartsAs::Primary, outcome).is_empty());
        }
    }

    #[test]
    fn a_plan_warns_unless_the_target_becomes_a_standby() {
        let warning = |starts_as| {
            let mut report = report();
            report.starts_as = starts_as;
            warning_of_plan(&report)
        };
        for dangerous in [StartsAs::Primary, StartsAs::Recovery] {
            assert!(warning(Some(dangerous)).unwrap().contains("would become a second primary"));
        }
        assert_eq!((warning(Some(StartsAs::Standby)), warning(None)), (None, None));
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        let word = |path| shell_word(Path::new(path));
        assert_eq!(
            [word("/a/15-main"), word("/a b"), word("/it's")],
            ["/a/15-main", "'/a b'", r"'/it'\''s'"]
        );
    }
}
