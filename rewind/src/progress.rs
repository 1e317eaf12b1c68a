//! Reports the progress of a run to its caller.

/// The stages whose progress is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Reading the target's WAL; counted in bytes.
    Scan,
    /// Listing the files of both sides; not counted.
    Inventory,
    /// Copying from the source; counted in bytes.
    Copy,
    /// Making the changes durable; counted in files.
    Sync,
}

/// Receives the progress of a run. Its methods are called from many threads at once.
pub trait Progress: Send + Sync {
    /// A stage begins. `total` is its size in the stage's unit, if that is known.
    fn begin(&self, stage: Stage, total: Option<u64>);
    /// `amount` more is done, in the stage's unit.
    fn advance(&self, stage: Stage, amount: u64);
    /// The stage has ended.
    fn finish(&self, stage: Stage);
}

/// Reports nothing.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: u64) {}
    fn finish(&self, _: Stage) {}
}
