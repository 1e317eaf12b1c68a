//! Times the stages of a run.

use std::time::Instant;

use jiff::Timestamp;

use crate::outcome::{Report, StageTime};

/// The start of a run, and the time that each stage took so far.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Timestamp,
    stage: Instant,
    stages: Vec<StageTime>,
}

impl Clock {
    /// Starts the clock with the first stage.
    pub(crate) fn start() -> Clock {
        Clock { started: Timestamp::now(), stage: Instant::now(), stages: Vec::new() }
    }

    /// Ends the stage `name`, a lower-case word that appears in reports, and starts timing the next one.
    pub(crate) fn end_stage(&mut self, name: &'static str) {
        self.stages.push(StageTime { name, elapsed: self.stage.elapsed() });
        self.stage = Instant::now();
    }

    /// A report of a run that ends now. It has the stages ended so far; all other figures are absent or zero.
    pub(crate) fn report(&self) -> Report {
        Report { stages: self.stages.clone(), ..Report::new(self.started, Timestamp::now()) }
    }
}
