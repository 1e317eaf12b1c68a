//! The number of failed recoveries, which determines the pause before the next attempt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::node::{Node, Trigger};
use crate::files;
use crate::flow::{Decision, FlowReport, StepError, StepState};

/// The name of the step that may postpone an attempt.
pub(super) const STEP: &str = "back-off";

const FILE: &str = "KB_RECOVERY_ATTEMPTS";

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The state between two runs: failures in a row, and the time of the next attempt (Unix seconds).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attempts {
    failures: u32,
    next: u64,
}

impl Attempts {
    /// The seconds until the next attempt. A time beyond the longest pause was recorded while the clock was ahead, and is
    /// ignored.
    fn wait(self, now: u64) -> u64 {
        let wait = self.next.saturating_sub(now);
        if wait > LONGEST_PAUSE.as_secs() { 0 } else { wait }
    }
}

/// Refuses an attempt that is not due yet. A manual run does not wait.
pub(super) fn check(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let attempts = read(node);
    let wait = attempts.map_or(0, |attempts| attempts.wait(now()));
    match attempts {
        Some(Attempts { failures, .. }) if wait > 0 && node.trigger == Trigger::Cron => {
            Ok(Decision::Refuse(format!(
                "recovery has failed {failures} times in a row: the next attempt is in {wait} seconds (--force does not wait)"
            )))
        }
        _ => {
            // From here on, the run has something to report.
            node.log.release();
            Ok(Decision::Pass(String::new()))
        }
    }
}

/// Records the outcome of a run.
pub(super) fn record(node: &Node<'_>, report: &FlowReport) {
    if node.need.is_none() {
        // A healthy node needs no record. A run that failed before it knew whether a recovery is needed, for example because
        // the pool did not answer, does not count as an attempt.
        if report.is_success() {
            let _ = files::remove(&node.run_file(FILE));
        }
        return;
    }
    let recorded = match report.end() {
        StepState::Failed => {
            let failures = read(node).map_or(0, |attempts| attempts.failures).saturating_add(1);
            let pause = pause(failures).as_secs();
            files::replace(&node.run_file(FILE), format!("{failures} {}\n", now() + pause))
        }
        StepState::Refused => Ok(()),
        _ => files::remove(&node.run_file(FILE)),
    };
    if let Err(error) = recorded {
        tracing::warn!("{error}");
    }
}

/// No pause after the first failure, so that the next run, a minute later, tries again. From the second failure on, the
/// pause doubles.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_secs(60 << (failures - 1).min(10)).min(LONGEST_PAUSE),
    }
}

fn read(node: &Node<'_>) -> Option<Attempts> {
    let text = files::read_state_file(&node.run_file(FILE))?;
    let mut numbers = text.split_whitespace();
    let failures = numbers.next().and_then(|number| number.parse().ok());
    let next = numbers.next().and_then(|number| number.parse().ok());
    // If the file is damaged, the next attempt is not postponed.
    failures.zip(next).map(|(failures, next)| Attempts { failures, next })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let minutes: Vec<_> = (0..9).map(|failures| pause(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [0, 0, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_time_recorded_by_a_clock_that_was_ahead_is_ignored() {
        let attempts = Attempts { failures: 9, next: 10_000 };
        let waits = [9_999, 6_400, 6_399, 10_001].map(|now| attempts.wait(now));
        assert_eq!(waits, [1, 3600, 0, 0]);
    }
}
