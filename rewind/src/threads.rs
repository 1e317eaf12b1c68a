//! Threads beside the one that carries out a run. A limit may keep them from being started at any moment.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// The limits of processes or memory do not allow another one.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work)
}

/// The result of a thread. Its panic, if any, is passed on.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Does the one on this thread and the other beside it. If no thread can be started, the other is done after it.
pub(crate) fn both<A, B: Send>(one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    let other = Mutex::new(Some(other));
    let do_other = || {
        let other = other.lock().unwrap_or_else(PoisonError::into_inner).take();
        other.unwrap_or_else(|| unreachable!("it is done once"))()
    };
    std::thread::scope(|scope| {
        let thread = start(scope, do_other);
        let first = one();
        (first, thread.map_or_else(|_| do_other(), join))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done() {
        assert_eq!(both(|| 1, || 2), (1, 2));
    }
}
