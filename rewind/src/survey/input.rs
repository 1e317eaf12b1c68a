//! The input of the survey.

use walparse::Flavor;

use crate::datadir::label::BackupLabel;
use crate::options::Options;
use crate::progress::Progress;
use crate::source::{Pace, Source};
use crate::target::Target;

/// The input of the survey.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) options: &'a Options,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) target: &'a Target,
    pub(crate) flavor: Flavor,
    /// The target's `backup_label`, if it has one.
    pub(crate) label: Option<BackupLabel>,
    pub(crate) source: &'a dyn Source,
    /// At which the source is read.
    pub(crate) pace: &'a Pace,
}
