//! Lists and compares the files of both sides.

use std::sync::atomic::AtomicBool;

use walparse::Version;

use crate::datadir::inventory::Inventory;
use crate::datadir::keep::Keep;
use crate::datadir::walk::walk_data_directory;
use crate::options::Delta;
use crate::plan::Files;
use crate::source::Source;
use crate::survey::delta::{self, compare};
use crate::survey::error::SurveyError;
use crate::target::Target;

/// The files of both sides, not yet compared.
pub(super) struct Listed {
    pub(super) source: Inventory,
    pub(super) target: Inventory,
    keep: Keep,
}

/// Lists the files of both sides.
///
/// # Errors
/// A side could not be listed.
pub(super) fn list(
    target: &Target,
    version: Version,
    source: &dyn Source,
    keep: Keep,
) -> Result<Listed, SurveyError> {
    let (source_files, target_files) = std::thread::scope(|scope| {
        let source_files = scope.spawn(|| source.list());
        let target_files = walk_data_directory(target.root(), version.names());
        (join(source_files), target_files)
    });
    Ok(Listed { source: source_files?, target: target_files.map_err(SurveyError::Walk)?, keep })
}

impl Listed {
    /// Both sides, to be compared.
    pub(super) fn sides<'a>(
        &'a self,
        source: &'a dyn Source,
        target: &'a Target,
        version: Version,
    ) -> delta::Sides<'a> {
        delta::Sides {
            source,
            source_files: &self.source,
            target: target.root(),
            target_files: &self.target,
            keep: &self.keep,
            version,
        }
    }

    /// Compares the files that would be copied whole until `give_up` is set.
    ///
    /// # Errors
    /// The source could not be read.
    pub(super) fn compare(
        self,
        delta: Delta,
        target: &Target,
        version: Version,
        source: &dyn Source,
        give_up: &AtomicBool,
    ) -> Result<Files, SurveyError> {
        let compared = compare(&self.sides(source, target, version), delta, give_up)?;
        Ok(Files { source: self.source, target: self.target, compared, keep: self.keep })
    }
}

/// The result of a thread. Its panic, if any, is passed on.
pub(super) fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
