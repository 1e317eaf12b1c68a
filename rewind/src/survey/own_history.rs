//! What the target has of its own: the WAL that no other side has, for listing what is lost with it.

use walparse::scan::{RebuiltBlocks, Scan};
use walparse::{ControlFile, Flavor, Lsn};

use crate::datadir::label::BackupLabel;
use crate::datadir::server::target_control;
use crate::options::Options;
use crate::outcome::Divergence;
use crate::plan::Clusters;
use crate::progress::Progress;
use crate::source::{Pace, Source};
use crate::survey::divergence::{self, Found, Sides};
use crate::survey::error::SurveyError;
use crate::survey::{preflight, target_side};
use crate::target::Target;
use crate::wal::history::{source_history, target_history};
use crate::wal::target::TargetWal;

/// The target's own WAL.
pub(crate) struct OwnHistory<'a> {
    pub(crate) control: ControlFile,
    pub(crate) wal: TargetWal<'a>,
    /// Where it begins.
    pub(crate) divergence: Divergence,
    /// The redo position of the last common checkpoint or, if WAL from before the checkpoint is missing, the checkpoint; the
    /// point of divergence if there is no WAL beyond it.
    pub(crate) start: Lsn,
    /// The end of the last record.
    pub(crate) end: Lsn,
}

/// The side whose history the target has left, or where it has left it.
#[derive(Clone, Copy)]
pub(crate) enum Other<'a> {
    Source(&'a dyn Source),
    Fork(Lsn),
}

/// What is needed to find it.
pub(crate) struct OwnInput<'a> {
    pub(crate) options: &'a Options,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) target: &'a Target,
    pub(crate) flavor: Flavor,
    pub(crate) label: Option<BackupLabel>,
    pub(crate) pace: &'a Pace,
}

/// Finds the target's own WAL. Nothing is changed.
///
/// # Errors
/// A side cannot be read, WAL is missing, or a rewind of the target has not finished.
pub(crate) fn own_history<'a>(input: &OwnInput<'a>, other: Other<'a>) -> Result<OwnHistory<'a>, SurveyError> {
    let OwnInput { options, progress, target, flavor, label, pace } = *input;
    if label == Some(BackupLabel::Unfinished) {
        return Err(SurveyError::TargetUnfinished { path: target.root().to_owned() });
    }
    let control = target_control(target.root(), flavor)?;
    let source = match other {
        Other::Source(source) => Some(source),
        Other::Fork(_) => None,
    };
    let of_source = source.map(|source| source.control_file()).transpose()?;
    let mut clusters =
        Clusters { source: of_source.unwrap_or_else(|| control.clone()), target: control, label };
    let mut wal = target_side::target_wal_with(options, target, source, pace, &clusters.target)?;
    let found = match other {
        Other::Fork(fork) => {
            wal.set_history(target_history(&wal, &clusters.target)?);
            divergence::beyond(&clusters, &mut wal, fork, progress)?
        }
        Other::Source(source) => {
            preflight::take_wal_magic(&mut clusters);
            preflight::check_compatible(&clusters)?;
            let source_history = source_history(source, &clusters.source)?;
            let history = target_history(&wal, &clusters.target)?;
            let (_, presumed) = divergence::from_histories(&source_history, &history)?;
            wal.set_history(history);
            let sides = Sides {
                clusters: &clusters,
                source,
                source_history: &source_history,
                progress,
                rewinds_anyway: false,
                rebuilt: FROM_REDO,
            };
            divergence::find(&sides, &mut wal, presumed)?
        }
    };
    let Found { divergence, scan: Scan { end, diverged, .. }, .. } = found;
    let start = diverged.map_or(divergence.lsn, |diverged| diverged.since);
    Ok(OwnHistory { control: clusters.target, wal, divergence, start, end })
}

/// Makes a scan begin at the redo position.
pub(crate) const FROM_REDO: RebuiltBlocks = RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) };
