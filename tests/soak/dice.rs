//! What is drawn: everything in a life follows from one number.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Draws that a seed repeats.
pub struct Dice(StdRng);

impl Dice {
    /// The draws of this seed.
    pub fn of(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    /// A number from 0, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A number from `start` to `end`, both included.
    pub fn between(&mut self, start: usize, end: usize) -> usize {
        self.0.random_range(start..=end)
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of these, which are not none.
    pub fn of_these<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

#[test]
fn a_seed_repeats_its_draws() {
    let draws = |seed| {
        let mut dice = Dice::of(seed);
        (0..100).map(|_| dice.below(1000)).collect::<Vec<_>>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}
