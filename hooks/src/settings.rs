//! What can be wrong with the settings of a flow, whichever file they are from.

use std::path::PathBuf;

/// A configuration that was read but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Settings without which nothing can be done.
    #[error("configuration file \"{}\" does not set {}", path.display(), names.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// All that are missing.
        names: Vec<&'static str>,
    },
    /// A value that does not fit its setting. The value is not shown: it may be a password.
    #[error("configuration file \"{}\": {name} is not {wanted}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}
