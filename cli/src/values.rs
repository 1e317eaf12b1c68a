//! Option values that several commands share.

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

/// The format of standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Text for people
    Text,
    /// JSON for programs
    Json,
}

/// Accepts the name of a flavor.
pub(crate) fn flavor_names() -> PossibleValuesParser {
    PossibleValuesParser::new(walparse::Flavor::keys())
}
