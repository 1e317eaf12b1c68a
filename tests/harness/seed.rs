//! What a run picks where several choices are as good: the usual run one of them, `tests/run.sh --full` all.
//!
//! The pick follows from a seed, which `tests/run.sh` prints, and differs from name to name. Without one it is that of
//! today, so that a day's runs agree. `KBRECOVER_TEST_SEED=...` repeats a run.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

/// One of these choices; with `KBRECOVER_TEST_FULL` all of them, in turn. `name` is the scenario's, and what is chosen.
///
///     for kind in pick("modes: source", &[SourceKind::Server, SourceKind::Directory]) { ... }
pub fn pick<T: Clone + Debug>(name: &str, choices: &[T]) -> Vec<T> {
    if std::env::var_os("KBRECOVER_TEST_FULL").is_some() {
        return choices.to_vec();
    }
    let seed = seed();
    let chosen = choices[index(seed, name, choices.len())].clone();
    // Shown where the test fails.
    #[expect(clippy::print_stdout, reason = "what was picked is part of the result")]
    {
        println!("KBRECOVER_TEST_SEED={seed}: {name}: {chosen:?} of {choices:?}");
    }
    vec![chosen]
}

/// Where replay starts in every rewind of this run that does not say so itself: `KBRECOVER_TEST_REPLAY_FROM`, or one of
/// the two by the seed.
pub fn replay_from() -> String {
    let choices = ["common", "newest"];
    std::env::var("KBRECOVER_TEST_REPLAY_FROM")
        .unwrap_or_else(|_| choices[index(seed(), "replay from", choices.len())].to_owned())
}

/// Whether the rewinds of this scenario verify all blocks before their end: `KBRECOVER_TEST_VERIFY` (1: all, 0: none), or every
/// third scenario by the seed, and all with `KBRECOVER_TEST_FULL`.
pub fn verifies() -> bool {
    if let Ok(choice) = std::env::var("KBRECOVER_TEST_VERIFY") {
        return choice == "1";
    }
    let thread = std::thread::current();
    let scenario = thread.name().unwrap_or_default();
    std::env::var_os("KBRECOVER_TEST_FULL").is_some() || index(seed(), scenario, 3) == 0
}

fn index(seed: u64, name: &str, count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    (hasher.finish() % count as u64) as usize
}

/// The number from which all picks follow.
pub fn seed() -> u64 {
    match std::env::var("KBRECOVER_TEST_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("KBRECOVER_TEST_SEED is no number: {text}")),
        Err(_) => {
            let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
            since.as_secs() / (24 * 60 * 60)
        }
    }
}

#[test]
fn every_choice_comes_up_and_a_seed_repeats_it() {
    let of = |seed: u64| index(seed, "source", 3);
    assert!((0..3).all(|choice| (0..50).any(|seed| of(seed) == choice)));
    assert!((0..50).all(|seed| of(seed) == of(seed)));
    assert!((0..50).any(|seed| index(seed, "source", 3) != index(seed, "version", 3)));
}
