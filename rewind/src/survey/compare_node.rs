//! The survey of `compare`: whether a stopped node has what its source has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use walparse::{BlockNumber, ClusterState, ControlFile, Lsn, RelSegment, block_lsn, is_unused_block};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::datadir::label::BackupLabel;
use crate::datadir::server::{check_not_running, target_control};
use crate::outcome::{BothSides, Comparison, DifferentFile, Divergence, Role, Side, VerifiedData};
use crate::plan::Clusters;
use crate::progress::Event;
use crate::source::page_check::PageCheck;
use crate::survey::compare_data::find_history;
use crate::survey::delta::{self, share_bytes};
use crate::survey::differences::{Difference, Meaning, Replayed};
use crate::survey::error::SurveyError;
use crate::survey::files::list;
use crate::survey::input::Input;
use crate::survey::relations::{Comparing, candidates, is_unlogged, missing, shares};
use crate::survey::sides::sides;
use crate::survey::{preflight, target_side};
use crate::wal::history::source_history;

/// Compares the main forks of the target with the source's. Nothing is changed.
///
/// # Errors
/// A side cannot be read, the two are not copies of one cluster, or a rewind of the target has not finished.
pub(crate) fn compare_node(input: Input<'_>) -> Result<Comparison, SurveyError> {
    let Input { options, target, source, label, progress, flavor, .. } = input;
    if label == Some(BackupLabel::Unfinished) {
        return Err(SurveyError::TargetUnfinished { path: target.root().to_owned() });
    }
    let ours = target_control(target.root(), flavor)?;
    let state = ours.state();
    if !state.is_clean() && !state.is_standby() && label.is_none() {
        return Err(SurveyError::NodeCrashed { path: target.root().to_owned() });
    }
    let mut clusters = Clusters { source: source.control_file()?, target: ours, label };
    preflight::take_wal_magic(&mut clusters);
    preflight::check_compatible(&clusters)?;
    preflight::check_state(source, &clusters.source)?;
    let source_history = source_history(source, &clusters.source)?;
    let mut wal = target_side::target_wal(input, &clusters.target)?;
    let fork = find_history(&mut wal, &clusters, None, &source_history);
    let sides = sides(input, &clusters, &source_history, wal.history(), None)?;
    let divergence = fork.filter(|fork| has_left(&clusters.target, fork));
    let replayed = replayed(&clusters, label, fork, &sides.source);
    let complete_to = replayed.theirs_after;

    let version = clusters.target.version();
    let listed = list(input, version, target_side::keep(options, target.root(), version.names())?)?;
    let (listed_sides, control) = (listed.sides(), &clusters.target);
    // A wrong checksum of a block that replay will change does not count: the first of these changes brings an image.
    let pages = PageCheck::of(&clusters.source, clusters.source.checkpoint().redo);
    let comparing = Comparing { sides: &listed_sides, control, progress, pages };
    let mut found = Found::default();
    let both = candidates(&listed_sides, control);
    let compared =
        comparing.each_share(&both, |bytes| Event::Comparing { bytes }, &mut |share, ranges| {
            comparing.each_difference(share, &ranges, &replayed, &mut |difference| {
                found.add(&difference);
                Ok::<(), SurveyError>(())
            })
        })?;
    (found.blocks.files, found.blocks.bytes) = (compared.files, compared.bytes);
    find_missing(&comparing, &replayed, &mut found)?;
    find_surplus(&listed_sides, control, &replayed, &mut found)?;
    // A server that was started meanwhile has changed what was compared.
    check_not_running(target.root(), version.names())?;
    Ok(found.comparison(sides, divergence, complete_to))
}

/// Which blocks may differ. `fork` is where the node's history has left the source's, by the history files.
fn replayed(
    clusters: &Clusters,
    label: Option<BackupLabel>,
    fork: Option<Divergence>,
    source: &Side,
) -> Replayed<'static> {
    let control = &clusters.target;
    let is_rewound = matches!(label, Some(BackupLabel::Start { .. }));
    // A primary has more WAL than any node that follows it. What was left to replay by a rewind may have any LSN.
    let end = source.wal_end.filter(|_| source.role == Role::Primary && !is_rewound);
    let shared_until = fork.map_or(Lsn(u64::MAX), |fork| fork.lsn).min(end.unwrap_or(Lsn(u64::MAX)));
    let complete_to = complete_to(control, label).min(shared_until);
    let is_complete = control.state().is_clean() && label.is_none();
    Replayed {
        theirs_after: complete_to,
        theirs_newer_after: control.checkpoint().redo.min(complete_to),
        ours: (
            clusters.source.checkpoint().redo.min(complete_to),
            if is_complete { complete_to } else { shared_until },
        ),
        shared_until,
        is_left: &|_, _| false,
    }
}

/// How far the data of a node is complete: it has all that the source had changed before, and replay will do the rest.
fn complete_to(control: &ControlFile, label: Option<BackupLabel>) -> Lsn {
    match (label, control.state()) {
        (Some(BackupLabel::Start { redo, .. }), _) => redo,
        (_, ClusterState::ShutDown) => control.checkpoint_lsn(),
        (_, ClusterState::ShutDownInRecovery) => control.min_recovery_point().max(control.checkpoint().redo),
        // What its server changed since the last checkpoint is on disk in part.
        _ => control.checkpoint().redo,
    }
}

/// Whether a node has WAL from behind the fork, as far as its control file tells.
fn has_left(control: &ControlFile, fork: &Divergence) -> bool {
    control.checkpoint_lsn() >= fork.lsn || control.min_recovery_point() > fork.lsn
}

/// What differs.
#[derive(Default)]
struct Found {
    blocks: VerifiedData,
    files: BTreeMap<DataPath, (u64, BlockNumber)>,
    surplus_files: Vec<String>,
}

impl Found {
    fn add(&mut self, difference: &Difference<'_>) {
        match difference.meaning {
            Meaning::Replayed => self.blocks.replayed += 1,
            Meaning::NotLogged => self.blocks.not_logged += 1,
            Meaning::Contents => self.add_block(difference.path, difference.block),
        }
    }

    fn add_block(&mut self, path: &DataPath, block: BlockNumber) {
        self.blocks.different += 1;
        let (count, first) = self.files.entry(path.clone()).or_insert((0, block));
        (*count, *first) = (*count + 1, block.min(*first));
    }

    fn comparison(self, sides: BothSides, divergence: Option<Divergence>, complete_to: Lsn) -> Comparison {
        let file = |(path, (blocks, first)): (DataPath, (u64, BlockNumber))| DifferentFile {
            path: path.to_string(),
            blocks,
            first,
        };
        Comparison {
            sides,
            divergence,
            complete_to,
            blocks: self.blocks,
            different_files: self.files.into_iter().map(file).collect(),
            surplus_files: self.surplus_files,
        }
    }
}

/// Looks at the blocks that only the source has.
fn find_missing(
    comparing: &Comparing<'_>,
    replayed: &Replayed<'_>,
    found: &mut Found,
) -> Result<(), SurveyError> {
    let Comparing { sides, control, .. } = *comparing;
    for share in shares(&missing(sides, control), share_bytes(sides.pace)) {
        let blocks: Vec<_> =
            share.ranges.iter().flat_map(|range| range.parts(control.block_size())).collect();
        comparing.each_difference(&share, &blocks, replayed, &mut |difference| {
            found.add(&difference);
            Ok::<(), SurveyError>(())
        })?;
    }
    Ok(())
}

/// Looks at the blocks that only the target has. Unused blocks do not count: servers extend files without WAL.
fn find_surplus(
    sides: &delta::Sides<'_>,
    control: &ControlFile,
    replayed: &Replayed<'_>,
    found: &mut Found,
) -> Result<(), SurveyError> {
    let block_size = u64::from(control.block_size());
    for (path, kind) in sides.target_files.entries() {
        let EntryKind::File { size: here } = kind else { continue };
        let file = path.as_str().and_then(|path| RelSegment::parse(path, sides.version));
        let Some(file) = file.filter(|file| !is_unlogged(*file, sides.target_files, sides.version)) else {
            continue;
        };
        let there = match sides.source_files.get(path) {
            Some(EntryKind::File { size }) => Some(*size),
            _ => None,
        };
        let (first, end) = (there.unwrap_or(0) / block_size, here / block_size);
        let first_of_file = file.segment.saturating_mul(control.relation_segment_blocks());
        let full = path.below(sides.target);
        let failed = |offset| {
            let path = full.clone();
            move |source| SurveyError::ReadBlock { path, offset, source }
        };
        if first >= end {
            continue;
        }
        let open = File::open(&full).map_err(failed(0))?;
        for block in first..end {
            let offset = block * block_size;
            let bytes = read_block(&open, offset, control.block_size()).map_err(failed(offset))?;
            if is_unused_block(&bytes) {
                continue;
            }
            if there.is_some() && block_lsn(&bytes).is_some_and(|lsn| replayed.has_ours(lsn)) {
                found.blocks.replayed += 1;
                continue;
            }
            if there.is_none() {
                found.surplus_files.push(path.to_string());
                break;
            }
            found.add_block(path, BlockNumber(first_of_file.saturating_add(block as u32)));
        }
    }
    Ok(())
}

fn read_block(file: &File, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
