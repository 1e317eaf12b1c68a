//! The rules of [`content`] applied to a target, with what its WAL says about files.

use walparse::ClusterState;

use crate::datadir::config::Configuration;
use crate::datadir::inventory::Inventory;
use crate::plan::Clusters;
use crate::survey::content::{self, ContentError, Since};
use crate::survey::input::Input;
use crate::wal::changed::WholeFiles;

/// Checks that replay makes the target's content the source's. Returns the files that must be copied whole.
///
/// # Errors
/// A rule is not met.
pub(super) fn check_content(
    input: Input<'_>,
    clusters: &Clusters,
    since: &Since<'_>,
    target_files: &Inventory,
) -> Result<WholeFiles, ContentError> {
    content::check_hints(clusters, since, own_setting(input, clusters))?;
    content::check_wal_level(clusters)?;
    content::check_tablespaces(since, target_files, clusters.target.version().names().tablespace_dir)?;
    Ok(WholeFiles {
        relations: since.target.created.clone(),
        directories: since.copied_on_target().collect(),
        truncated: since.target.truncated.clone(),
    })
}

/// `wal_log_hints` of a target that was a standby, as far as its configuration is found. The control file of a standby
/// has its primary's.
fn own_setting(input: Input<'_>, clusters: &Clusters) -> Option<bool> {
    let control = &clusters.target;
    if !matches!(control.state(), ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery) {
        return None;
    }
    let config_file = input.options.config_file.as_deref();
    let configuration = Configuration::read(input.target.root(), control.version().names(), config_file);
    let configuration = configuration.ok().filter(|found| found.file().is_some())?;
    Some(configuration.get("wal_log_hints").is_some_and(is_true))
}

/// Whether the server takes a value for true: any unambiguous prefix of these words.
fn is_true(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    !value.is_empty()
        && value != "o"
        && ["on", "true", "yes", "1"].iter().any(|word| word.starts_with(&value))
}
