//! Waits until the standby on a data directory streams.

use std::collections::VecDeque;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use walparse::Lsn;

use crate::conninfo::{ConninfoText, Environment};
use crate::datadir::starts_as::StartsAs;
use crate::standby::{Observer, Position};
use crate::status::{Status, StatusError, status};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a server that was just started may take to appear.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// The number of looks that the rate of replay is computed from.
const LOOKS: usize = 20;

/// How to wait.
pub struct WaitOptions<'a> {
    /// For how long; `None` without limit. With zero it is looked once.
    pub limit: Option<Duration>,
    /// Options for logging in, where they differ from what the server's lock file says: its socket directory or address, and
    /// its port.
    pub conninfo: ConninfoText,
    /// What completes them: the environment, and files.
    pub environment: &'a dyn Environment,
}

/// How a wait has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WaitEnd {
    /// The standby streams: its WAL receiver does, it is consistent, and it has replayed what the source had when it began to
    /// stream, as far as that is known.
    Streams,
    /// The limit was reached before that.
    TimedOut,
    /// No server runs on the directory, or it has ended.
    NoServer,
    /// The server is not a standby.
    NotStandby,
}

/// How far replay has come.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Where the standby is.
    pub position: Position,
    /// What replay must reach, as far as it is known: the minRecoveryPoint, then the end of the source's WAL when it began to
    /// stream.
    pub goal: Option<Lsn>,
    /// WAL replayed in a second; `None` until two looks have shown a position.
    pub bytes_per_second: Option<f64>,
    /// For how long has been waited.
    pub waited: Duration,
}

impl ReplayProgress {
    /// The time until replay reaches the goal, at the present rate.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.goal?.0.saturating_sub(self.position.replayed?.0);
        let rate = self.bytes_per_second.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left as f64 / rate).ok()
    }
}

/// The result of a wait.
#[derive(Debug)]
#[non_exhaustive]
pub struct Waited {
    /// How it has ended.
    pub end: WaitEnd,
    /// How far replay had come.
    pub progress: ReplayProgress,
    /// The state of the directory.
    pub status: Status,
}

/// Waits until the standby that runs on the data directory `directory` streams. `watch` is called after each look at it,
/// about twice a second. A server that was just started has five seconds to appear.
///
/// Nothing is written, and no session is needed: a standby may stream without admitting one. Where a session is admitted,
/// the positions are exact.
///
/// # Errors
/// The state of the directory cannot be determined.
pub fn wait_until_streaming(
    directory: &Path,
    options: &WaitOptions<'_>,
    watch: &mut dyn FnMut(&ReplayProgress),
) -> Result<Waited, StatusError> {
    let begun = Instant::now();
    let mut observer =
        Observer { conninfo: &options.conninfo, environment: options.environment, is_refused: false };
    let mut course = Course::default();
    loop {
        let status = status(directory)?;
        let position = status.server.map(|server| observer.look(server, &status));
        let waited = begun.elapsed();
        let progress = course.after(position, &status, waited);
        let is_over = options.limit.is_some_and(|limit| waited >= limit);
        if let Some(end) = course.end(position, &status, waited, is_over) {
            return Ok(Waited { end, progress, status });
        }
        watch(&progress);
        let left = options.limit.map_or(INTERVAL, |limit| limit.saturating_sub(begun.elapsed()));
        thread::sleep(left.min(INTERVAL));
    }
}

/// What the looks have shown.
#[derive(Default)]
struct Course {
    was_seen: bool,
    /// The first minRecoveryPoint. The server moves it on.
    consistent_at: Option<Lsn>,
    /// The end of the source's WAL when the standby began to stream.
    source_end: Option<Lsn>,
    replayed: VecDeque<(Duration, Lsn)>,
}

impl Course {
    /// Notes a look, after `waited`.
    fn after(&mut self, position: Option<Position>, status: &Status, waited: Duration) -> ReplayProgress {
        let min_recovery_point = Some(status.control.min_recovery_point()).filter(|lsn| lsn.is_valid());
        self.consistent_at = self.consistent_at.or(min_recovery_point);
        self.was_seen |= position.is_some();
        let position = position.unwrap_or_default();
        if position.is_streaming {
            self.source_end = self.source_end.or(position.source_end);
        }
        if let Some(replayed) = position.replayed {
            self.replayed.push_back((waited, replayed));
        }
        if self.replayed.len() > LOOKS {
            self.replayed.pop_front();
        }
        ReplayProgress { position, goal: self.goal(), bytes_per_second: self.rate(), waited }
    }

    fn goal(&self) -> Option<Lsn> {
        self.consistent_at.max(self.source_end)
    }

    fn rate(&self) -> Option<f64> {
        let ((since, from), (until, to)) = (self.replayed.front()?, self.replayed.back()?);
        let seconds = until.checked_sub(*since)?.as_secs_f64();
        (seconds > 0.0).then(|| to.0.saturating_sub(from.0) as f64 / seconds)
    }

    /// Whether the wait ends with this look, and how. `is_over`: the limit is reached.
    fn end(
        &self,
        position: Option<Position>,
        status: &Status,
        waited: Duration,
        is_over: bool,
    ) -> Option<WaitEnd> {
        let Some(position) = position else {
            let is_expected = !self.was_seen && waited < APPEARS_WITHIN && !is_over;
            return (!is_expected).then_some(WaitEnd::NoServer);
        };
        if position.is_primary || status.starts_as != StartsAs::Standby {
            return Some(WaitEnd::NotStandby);
        }
        let has_reached_goal = self.goal().is_none_or(|goal| position.has_reached(goal, status));
        if position.is_streaming && has_reached_goal {
            return Some(WaitEnd::Streams);
        }
        is_over.then_some(WaitEnd::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use walparse::ControlFile;
    use walparse::control::testing::ControlFields;

    use super::*;
    use crate::status::Condition;

    const GOAL: Lsn = Lsn(0x500_0100);

    /// A server runs on the directory of a standby that is consistent at [`GOAL`].
    fn standby() -> Status {
        let version = walparse::Version::find(1300, 202_209_061).unwrap();
        let control = ControlFile::parse(&ControlFields::clean(version).build()).unwrap();
        let control = ControlFile::parse(&control.recovering_to(GOAL, walparse::TimelineId(1), 0)).unwrap();
        Status {
            directory: "/data".into(),
            condition: Condition::ServerRuns,
            control,
            server: Some(1),
            has_stale_lock_file: false,
            kbrecover: None,
            unfinished: None,
            journal_problem: None,
            copy: None,
            comparison: None,
            starts_as: StartsAs::Standby,
        }
    }

    fn titles(replayed: Option<u64>, received: Option<u64>) -> Option<Position> {
        let (replayed, received) = (replayed.map(Lsn), received.map(Lsn));
        Some(Position { replayed, received, is_streaming: received.is_some(), ..Position::default() })
    }

    fn session(replayed: u64, source_end: Option<u64>) -> Option<Position> {
        let source_end = source_end.map(Lsn);
        let is_streaming = source_end.is_some();
        Some(Position {
            replayed: Some(Lsn(replayed)),
            source_end,
            is_streaming,
            by_session: true,
            ..Position::default()
        })
    }

    /// The end of a wait with these looks, one each second, before the limit.
    fn end(looks: &[Option<Position>]) -> (Option<WaitEnd>, ReplayProgress) {
        let (status, mut course) = (standby(), Course::default());
        let mut result = None;
        for (second, look) in looks.iter().enumerate() {
            let waited = Duration::from_secs(second as u64);
            let progress = course.after(*look, &status, waited);
            result = Some((course.end(*look, &status, waited, false), progress));
        }
        result.unwrap()
    }

    #[test]
    fn a_standby_streams_once_it_has_replayed_what_its_source_had() {
        assert_eq!(end(&[session(0x400_0000, None)]).0, None);
        assert_eq!(end(&[session(GOAL.0, None)]).0, None);
        assert_eq!(end(&[session(GOAL.0, Some(GOAL.0))]).0, Some(WaitEnd::Streams));
        // The source was further when it began to stream, and has written since.
        let far = session(GOAL.0, Some(0x600_0000));
        assert_eq!(end(&[far]).0, None);
        let (ended, progress) = end(&[far, session(0x600_0000, Some(0x700_0000))]);
        assert_eq!((ended, progress.goal), (Some(WaitEnd::Streams), Some(Lsn(0x600_0000))));
    }

    #[test]
    fn without_a_session_positions_are_known_to_the_segment() {
        assert_eq!(end(&[titles(None, None)]).0, None);
        assert_eq!(end(&[titles(Some(0x500_0000), None)]).0, None);
        assert_eq!(end(&[titles(Some(0x400_0000), Some(0x500_0200))]).0, None);
        assert_eq!(end(&[titles(Some(0x500_0000), Some(0x500_00FF))]).0, None);
        assert_eq!(end(&[titles(Some(0x500_0000), Some(GOAL.0))]).0, Some(WaitEnd::Streams));
    }

    #[test]
    fn the_rate_gives_the_time_that_is_left() {
        let (_, progress) = end(&[session(0x100_0000, None), None, session(0x300_0100, None)]);
        assert_eq!(progress.bytes_per_second, Some(f64::from(0x200_0100) / 2.0));
        assert_eq!(progress.time_left().unwrap().as_secs(), 1);
        assert_eq!(end(&[session(0x100_0000, None)]).1.time_left(), None);
        assert_eq!(end(&[session(0x100_0000, None), session(0x100_0000, None)]).1.time_left(), None);
    }

    #[test]
    fn a_server_that_ends_or_is_promoted_ends_the_wait() {
        assert_eq!(end(&[None]).0, None);
        assert_eq!(end(&[None; 6]).0, Some(WaitEnd::NoServer));
        assert_eq!(end(&[titles(None, None), None]).0, Some(WaitEnd::NoServer));
        let promoted = Some(Position { is_primary: true, by_session: true, ..Position::default() });
        assert_eq!(end(&[promoted]).0, Some(WaitEnd::NotStandby));
        let (mut status, course) = (standby(), Course::default());
        status.starts_as = StartsAs::Primary;
        let of = |status: &Status| course.end(titles(None, None), status, Duration::ZERO, true);
        assert_eq!((of(&status), of(&standby())), (Some(WaitEnd::NotStandby), Some(WaitEnd::TimedOut)));
    }
}
