//! What in the target's configuration is in the way of following the source, including what only the source can tell.

use crate::datadir::config::Configuration;
use crate::datadir::config::recovery::{Obstacle, obstacle, obstacles};
use crate::source::{SlotState, Source, SourceError};

/// All obstacles in a configuration.
///
/// # Errors
/// The source could not be asked for the slot.
pub(super) fn in_the_way(
    configuration: &Configuration,
    source: &dyn Source,
) -> Result<Vec<Obstacle>, SourceError> {
    let mut found = obstacles(configuration);
    let effect = "the source has no physical replication slot of this name, so a standby does not stream";
    if let Some(slot) = obstacle(configuration, "primary_slot_name", "", effect)
        && matches!(source.replication_slot(&slot.value)?, Some(SlotState::Missing | SlotState::Logical))
    {
        found.push(slot);
    }
    Ok(found)
}
