//! Lists and compares the files of both sides.

use std::sync::atomic::AtomicBool;

use walparse::Version;

use crate::datadir::keep::Keep;
use crate::datadir::walk::walk_data_directory;
use crate::options::Delta;
use crate::plan::Files;
use crate::source::Source;
use crate::survey::delta::{self, compare};
use crate::survey::error::SurveyError;
use crate::target::Target;

/// Lists the files of both sides, and compares those that would be copied whole until `give_up` is set.
///
/// # Errors
/// A side could not be listed, or the source could not be read.
pub(super) fn both_sides(
    delta: Delta,
    target: &Target,
    version: Version,
    source: &dyn Source,
    keep: Keep,
    give_up: &AtomicBool,
) -> Result<Files, SurveyError> {
    let (source_files, target_files) = std::thread::scope(|scope| {
        let source_files = scope.spawn(|| source.list());
        let target_files = walk_data_directory(target.root(), version.names());
        (join(source_files), target_files)
    });
    let (source_files, target_files) = (source_files?, target_files.map_err(SurveyError::Walk)?);
    let sides = delta::Sides {
        source,
        source_files: &source_files,
        target: target.root(),
        target_files: &target_files,
        keep: &keep,
        version,
    };
    let compared = compare(&sides, delta, give_up)?;
    Ok(Files { source: source_files, target: target_files, compared, keep })
}

/// The result of a thread. Its panic, if any, is passed on.
pub(super) fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
