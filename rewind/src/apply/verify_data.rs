//! `--verify`: before the commit, compares every block of the relations with the source's.
//!
//! A block may differ that replay will change: the WAL since its start has an image of it. Any other that differs has been left
//! alone by mistake, or was damaged on the target. It is copied, and told.

use std::collections::BTreeMap;

use walparse::{BlockNumber, Lsn};

use crate::apply::copy::Transfer;
use crate::apply::error::ApplyError;
use crate::datadir::data_path::DataPath;
use crate::options::Options;
use crate::outcome::VerifiedData;
use crate::plan::Planned;
use crate::progress::Event;
use crate::source::Pace;
use crate::survey::delta::Sides;
use crate::survey::differences::{Meaning, Replayed};
use crate::survey::relations::{Comparing, candidates};

/// Compares all main forks with the source's, after everything has been copied. Blocks that differ for no reason are copied.
/// Returns what was found, and the bytes copied.
///
/// # Errors
/// A side cannot be read, the target cannot be written, or the run is to stop.
pub(crate) fn verify_data(
    options: &Options,
    transfer: &Transfer<'_>,
    planned: &Planned<'_>,
) -> Result<(VerifiedData, u64), ApplyError> {
    let facts = &planned.facts;
    let pace = Pace::new(options.max_rate, &options.stop);
    let sides = Sides {
        source: transfer.source,
        pace: &pace,
        source_files: &facts.files.source,
        target: transfer.target.root(),
        // After the copy, the target has the files that the source had.
        target_files: &facts.files.source,
        keep: &facts.files.keep,
        version: facts.clusters.target.version(),
    };
    let control = &facts.clusters.target;
    let comparing = Comparing { sides: &sides, control, progress: transfer.progress, pages: transfer.pages };
    let redo = facts.fork.replay_start.checkpoint.redo;
    let compared_until = facts.fork.compared_until.as_ref().map_or(Lsn::INVALID, |until| until.lsn);
    let common_until = facts.fork.common_until.max(compared_until);
    let changed = &facts.fork.changed;
    let (copied, _) =
        changed.to_copy((redo, facts.fork.common_until), &facts.fork.rebuilt.blocks, options.rebuilt_blocks);
    let replayed = Replayed {
        theirs_after: redo,
        theirs_newer_after: redo,
        ours: (redo, common_until),
        shared_until: Lsn(u64::MAX),
        is_left: &|relation, block| {
            changed.named.contains(relation, block) && !copied.contains(relation, block)
        },
    };
    let (mut verified, mut bytes) = (VerifiedData::default(), 0);
    let mut wrong: BTreeMap<DataPath, Vec<BlockNumber>> = BTreeMap::new();
    let all = candidates(&sides, control);
    let compared = comparing.each_share(&all, |bytes| Event::Verifying { bytes }, &mut |share, ranges| {
        comparing.each_difference(share, &ranges, &replayed, &mut |difference| {
            match difference.meaning {
                Meaning::Replayed => {
                    verified.replayed += 1;
                    return Ok(());
                }
                Meaning::NotLogged => verified.not_logged += 1,
                Meaning::Contents => {
                    verified.different += 1;
                    wrong.entry(difference.path.clone()).or_default().push(difference.block);
                }
            }
            bytes += difference.theirs.len() as u64;
            let file = transfer.target.open(difference.path)?;
            file.write_at(&difference.theirs, difference.offset)?;
            Ok::<(), ApplyError>(())
        })
    })?;
    for (path, blocks) in wrong {
        let first = blocks.iter().min().map_or(0, |block| block.0);
        tracing::warn!(
            "{} block(s) of \"{path}\" differed from the source's and were copied, the first is block {first}: they were damaged on the target, or kbrecover had failed to find them",
            blocks.len()
        );
    }
    (verified.files, verified.bytes) = (compared.files, compared.bytes);
    Ok((verified, bytes))
}
