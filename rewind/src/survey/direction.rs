//! Which side is rewound to which: a source that is older than the target is most likely the target.

use walparse::{ControlFile, TimelineHistory};

use crate::options::{OlderSource, Options};
use crate::survey::content::ContentError;

/// Checks that the sides are not swapped, as the options say. `target_history` is the target's, if it is known; otherwise
/// the numbers of the timelines are compared.
///
/// # Errors
/// The target's timeline branched off from the source's, and the options refuse that.
pub(super) fn check(
    options: &Options,
    source_history: &TimelineHistory,
    target: &ControlFile,
    target_history: Option<&TimelineHistory>,
) -> Result<(), ContentError> {
    let source_timeline = source_history.timeline();
    let target_timeline = target_history.map_or_else(|| target.timeline(), TimelineHistory::timeline);
    let is_older = match target_history {
        Some(history) => history
            .common_with(source_history)
            .is_some_and(|(common, _)| common == source_timeline && common != target_timeline),
        None => source_timeline < target_timeline,
    };
    if !is_older {
        return Ok(());
    }
    let error = ContentError::OlderSource { source_timeline, target_timeline };
    match options.older_source {
        OlderSource::Refuse => return Err(error),
        OlderSource::Warn => tracing::warn!("{error}: is the target really the old primary?"),
        OlderSource::Allow => {}
    }
    Ok(())
}
