//! How often recovering has failed, so that the tries grow rarer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Asked, Node};
use crate::files;
use crate::flow::{Decision, FlowReport, StepError, StepState};

/// The name of the step that may have a try wait.
pub(super) const STEP: &str = "back-off";

const FILE: &str = "KB_RECOVERY_ATTEMPTS";

/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is noted between runs: failures in a row, and when the next try may begin (Unix seconds).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attempts {
    failures: u32,
    next: u64,
}

impl Attempts {
    /// The seconds until the next try. One that is further off than any pause was noted while the clock was ahead.
    fn wait(self, now: u64) -> u64 {
        let wait = self.next.saturating_sub(now);
        if wait > LONGEST.as_secs() { 0 } else { wait }
    }
}

/// Refuses a try that comes too early after failures; a person does not wait.
pub(super) fn look(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let attempts = read(node);
    let wait = attempts.map_or(0, |attempts| attempts.wait(now()));
    match attempts {
        Some(Attempts { failures, .. }) if wait > 0 && node.asked == Asked::ByCron => {
            Ok(Decision::Refuse(format!(
                "recovering has failed {failures} times in a row: the next try is in {wait} seconds (--force does not wait)"
            )))
        }
        _ => {
            // From here on there is something to say.
            node.log.speak();
            Ok(Decision::Skip(String::new()))
        }
    }
}

/// Notes how a run ended.
pub(super) fn note(node: &Node<'_>, report: &FlowReport) {
    if node.need.is_none() {
        // Healthy: nothing to remember. Or nothing was tried, for the pool did not answer, say: then the first
        // try is not to wait once it does.
        if report.is_success() {
            let _ = files::remove(&node.run_file(FILE));
        }
        return;
    }
    let noted = match report.end() {
        StepState::Failed => {
            let failures = read(node).map_or(0, |attempts| attempts.failures).saturating_add(1);
            let pause = pause(failures).as_secs();
            files::replace(&node.run_file(FILE), format!("{failures} {}\n", now() + pause))
        }
        StepState::Refused => Ok(()),
        _ => files::remove(&node.run_file(FILE)),
    };
    if let Err(error) = noted {
        tracing::warn!("{error}");
    }
}

/// After the first failure the next minute's run tries again; then the time doubles.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_secs(60 << (failures - 1).min(10)).min(LONGEST),
    }
}

fn read(node: &Node<'_>) -> Option<Attempts> {
    let text = files::read_note(&node.run_file(FILE))?;
    let mut numbers = text.split_whitespace();
    let failures = numbers.next().and_then(|number| number.parse().ok());
    let next = numbers.next().and_then(|number| number.parse().ok());
    // A damaged note only means that the next try comes at once.
    failures.zip(next).map(|(failures, next)| Attempts { failures, next })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_grow_rarer_up_to_an_hour() {
        let minutes: Vec<_> = (0..9).map(|failures| pause(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [0, 0, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_clock_that_was_ahead_is_not_waited_for() {
        let attempts = Attempts { failures: 9, next: 10_000 };
        let waits = [9_999, 6_400, 6_399, 10_001].map(|now| attempts.wait(now));
        assert_eq!(waits, [1, 3600, 0, 0]);
    }
}
