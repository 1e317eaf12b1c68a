//! How far the run is, for whoever watches.

/// The stages a watcher hears of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Reading the target's WAL; counted in bytes.
    Scan,
    /// Listing the files of both sides; no count.
    Inventory,
    /// Fetching from the source; counted in bytes.
    Copy,
    /// Making it durable; counted in files.
    Sync,
}

/// Receives the progress of a run. Calls come from many threads.
pub trait Progress: Send + Sync {
    /// A stage begins; `total` is in the stage's unit, if it is known.
    fn begin(&self, stage: Stage, total: Option<u64>);
    /// This much more is done.
    fn advance(&self, stage: Stage, amount: u64);
    /// The stage has ended.
    fn finish(&self, stage: Stage);
}

/// Tells nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: u64) {}
    fn finish(&self, _: Stage) {}
}
