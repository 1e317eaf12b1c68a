//! Limits the rate at which the source is read.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stop::{StopFlag, Stopped};

/// The longest time between two checks whether the run is to stop.
const NAP: Duration = Duration::from_millis(200);

/// Delays the threads that receive data, so that together they receive at most so many bytes per second. The source
/// cannot send faster either, because the connections' buffers are full then.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: Option<NonZeroU64>,
    /// The time at which all bytes so far are due at this rate.
    due: Mutex<Instant>,
}

impl RateLimit {
    /// A limit of `rate` bytes per second; `None`: no limit.
    pub(crate) fn new(rate: Option<NonZeroU64>) -> RateLimit {
        RateLimit { rate, due: Mutex::new(Instant::now()) }
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Waits until `bytes` more are due. Time in which nothing was received is not made up for.
    pub(crate) fn spend(&self, bytes: u64) {
        std::thread::sleep(self.due_after(bytes).saturating_duration_since(Instant::now()));
    }

    /// The time at which `bytes` more are due.
    fn due_after(&self, bytes: u64) -> Instant {
        let Some(rate) = self.rate else { return Instant::now() };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(Instant::now()) + cost;
        *due
    }
}

/// How a run reads the source before the first change: all its threads together keep to the rate, until the run is asked
/// to stop.
#[derive(Debug)]
pub(crate) struct Pace {
    rate_limit: RateLimit,
    stop: StopFlag,
}

impl Pace {
    /// At most `max_rate` bytes per second; `None`: no limit.
    pub(crate) fn new(max_rate: Option<NonZeroU64>, stop: &StopFlag) -> Pace {
        Pace { rate_limit: RateLimit::new(max_rate), stop: stop.clone() }
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.rate_limit.is_limited()
    }

    /// The bytes that may be read in a second.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.rate_limit.rate.map_or(u64::MAX, NonZeroU64::get)
    }

    /// Waits until `bytes` more are due.
    ///
    /// # Errors
    /// The run was asked to stop.
    pub(crate) fn spend(&self, bytes: u64) -> Result<(), Stopped> {
        let due = self.rate_limit.due_after(bytes);
        loop {
            self.check()?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Fails if the run was asked to stop.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        self.stop.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_together_keep_to_the_rate() {
        let limit = RateLimit::new(NonZeroU64::new(1_000_000));
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| limit.spend(2500)));
            }
        });
        assert!(started.elapsed() >= Duration::from_millis(99), "{:?}", started.elapsed());
        RateLimit::new(None).spend(u64::MAX);
    }

    #[test]
    fn a_run_that_is_to_stop_does_not_wait() {
        let stop = StopFlag::default();
        let pace = Pace::new(NonZeroU64::new(1000), &stop);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pace.spend(1_000_000));
            stop.request();
            assert!(waiting.join().unwrap().is_err());
        });
        assert_eq!((pace.is_limited(), pace.bytes_per_second()), (true, 1000));
        let free = Pace::new(None, &StopFlag::default());
        assert_eq!((free.is_limited(), free.bytes_per_second()), (false, u64::MAX));
        assert!(free.spend(u64::MAX).is_ok());
    }
}
