//! Limits the rate at which the source is read.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = (*due).max(Instant::now()) + cost;
            *due
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
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
}
