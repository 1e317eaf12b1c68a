//! Values that options of several commands take.

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

/// What standard output is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// The flavors one may name.
pub(crate) fn flavor_names() -> PossibleValuesParser {
    PossibleValuesParser::new(walparse::Flavor::keys())
}
