//! An error and its causes.

use std::error::Error;
use std::iter;

/// An error, its cause, the cause of that, and so on.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// The messages of an error and of its causes in one line, separated by `: `.
///
/// ```
/// let error = kbrecover_rewind::status("/nonexistent".as_ref()).unwrap_err();
/// assert!(kbrecover_rewind::with_causes(&error).contains("/nonexistent"));
/// ```
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
