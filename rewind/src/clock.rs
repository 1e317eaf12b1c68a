//! How long each stage takes.

use std::time::Instant;

use jiff::Timestamp;

use crate::outcome::{Report, StageTime};

/// Times the stages of one run.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Timestamp,
    stage: Instant,
    stages: Vec<StageTime>,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { started: Timestamp::now(), stage: Instant::now(), stages: Vec::new() }
    }

    /// The stage called `name` ends here, and the next begins.
    pub(crate) fn end_stage(&mut self, name: &'static str) {
        self.stages.push(StageTime { name, elapsed: self.stage.elapsed() });
        self.stage = Instant::now();
    }

    /// A report with the times of all stages so far.
    pub(crate) fn report(&self) -> Report {
        Report {
            started: self.started,
            finished: Timestamp::now(),
            stages: self.stages.clone(),
            divergence: None,
            checkpoint: None,
            checkpoint_search: None,
            replay: None,
            plan: None,
            kept: Vec::new(),
            not_taken: Vec::new(),
            space: Vec::new(),
            bytes_fetched: 0,
            wal_bytes_scanned: 0,
            wal_records_scanned: 0,
        }
    }
}
