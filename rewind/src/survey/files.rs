//! Lists and compares the files of both sides.

use std::sync::atomic::AtomicBool;

use walparse::Version;

use crate::datadir::inventory::Inventory;
use crate::datadir::keep::Keep;
use crate::datadir::mounts;
use crate::datadir::walk::walk_data_directory;
use crate::options::Delta;
use crate::plan::Files;
use crate::survey::delta::{self, compare};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::threads;

/// The files of both sides, not yet compared.
pub(super) struct Listed<'a> {
    input: Input<'a>,
    version: Version,
    pub(super) source: Inventory,
    pub(super) target: Inventory,
    keep: Keep,
}

/// Lists the files of both sides.
///
/// # Errors
/// A side could not be listed.
pub(super) fn list(input: Input<'_>, version: Version, keep: Keep) -> Result<Listed<'_>, SurveyError> {
    let Input { target, source, .. } = input;
    let (target_files, source_files) =
        threads::both(|| walk_data_directory(target.root(), version.names()), || source.list());
    let (source, target) = (source_files?, target_files.map_err(SurveyError::Walk)?);
    let keep = keep.with_mounts(mounts::below(input.target.root()));
    Ok(Listed { input, version, source, target, keep })
}

impl Listed<'_> {
    /// Both sides, to be compared.
    pub(super) fn sides(&self) -> delta::Sides<'_> {
        delta::Sides {
            source: self.input.source,
            pace: self.input.pace,
            source_files: &self.source,
            target: self.input.target.root(),
            target_files: &self.target,
            keep: &self.keep,
            version: self.version,
        }
    }

    /// Compares the files that would be copied whole until `give_up` is set.
    ///
    /// # Errors
    /// The source could not be read.
    pub(super) fn compare(self, delta: Delta, give_up: &AtomicBool) -> Result<Files, SurveyError> {
        let compared = compare(&self.sides(), delta, give_up)?;
        Ok(Files { source: self.source, target: self.target, compared, keep: self.keep })
    }
}
