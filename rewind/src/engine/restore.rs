//! `restore`: a data directory as it was before a rewind.

use super::entry::on_thread_of_its_own;
use crate::apply::restore::{self, RestoreRequest, Restored};
use crate::error::{Failure, RewindError, TargetState};

/// Restores a data directory as it was before a rewind, from what [`KeepDiverged`](crate::KeepDiverged) has saved with its `blocks`
/// and from the rewound directory, on which no server may have been started; or from what it has saved with its `all`, alone.
/// Nothing else is changed. Blocks as [`run`](crate::run) does.
///
/// # Errors
/// Not all of it is known, or a file could not be read or written.
///
/// ```no_run
/// use kbrecover_rewind::{RestoreRequest, restore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let restored = restore(&RestoreRequest::new("/srv/kept".into(), "/srv/old_primary".into()))?;
/// println!("{} files", restored.files);
/// # Ok(())
/// # }
/// ```
pub fn restore(request: &RestoreRequest) -> Result<Restored, Failure> {
    let result = on_thread_of_its_own(|| restore::restore(request).map_err(RewindError::from));
    let result = result.unwrap_or_else(|source| Err(RewindError::Thread { source }));
    result.map_err(|error| {
        let error = if request.stop.is_requested() { RewindError::Stopped } else { error };
        Failure { error: Box::new(error), target: TargetState::Untouched }
    })
}
