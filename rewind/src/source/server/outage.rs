//! When the connections of a run were lost, so that each outage is reported once.
//!
//! Several connections notice one outage at different times, some of them only after another one has been opened again.

use std::time::{Duration, Instant};

/// The outages of the connections of a run.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// When the present one was noticed.
    begun: Option<Instant>,
    /// When the session was opened whose answer ended the last one.
    ended: Option<Instant>,
}

impl Outages {
    /// Takes note of a failure of a session that was opened then, or of a failure to open one. Tells whether it begins
    /// another outage.
    ///
    /// A session that is older than the end of the last outage was lost in that outage.
    pub(super) fn begins(&mut self, opened: Option<Instant>, now: Instant) -> bool {
        let of_the_last = opened.zip(self.ended).is_some_and(|(opened, ended)| opened < ended);
        let begins = self.begun.is_none() && !of_the_last;
        if begins {
            self.begun = Some(now);
        }
        begins
    }

    /// Takes note of an answer on a session that was opened then. Returns how long the outage has lasted that this ends.
    pub(super) fn ends(&mut self, opened: Instant, now: Instant) -> Option<Duration> {
        let begun = self.begun.take_if(|begun| opened >= *begun)?;
        self.ended = Some(opened);
        Some(now.saturating_duration_since(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outage_is_reported_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outages = Outages::default();
        assert!(outages.begins(Some(at(0)), at(10)));
        assert!(!outages.begins(None, at(11)), "it goes on");
        assert_eq!(outages.ends(at(0), at(12)), None, "the answer had arrived before");
        assert_eq!(outages.ends(at(13), at(14)), Some(Duration::from_secs(4)));
        assert!(!outages.begins(Some(at(1)), at(15)), "another session that was lost in the same outage");
        assert_eq!(outages.ends(at(16), at(17)), None, "nothing was lost since");
        assert!(outages.begins(Some(at(13)), at(20)), "a session opened after it");
        assert_eq!(outages.ends(at(21), at(22)), Some(Duration::from_secs(2)));
        assert!(outages.begins(None, at(30)), "a session cannot be opened");
    }
}
