//! Errors in the settings of a flow.

use std::path::PathBuf;

/// Why a configuration that was parsed cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Required settings are missing.
    #[error("configuration file \"{}\" does not set {}", path.display(), names.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// All settings that are missing.
        names: Vec<&'static str>,
    },
    /// A value is not valid. It is not shown because it may be a password.
    #[error("configuration file \"{}\": {name} is not {wanted}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: &'static str,
        /// What the value must be.
        wanted: &'static str,
    },
}
