//! Decides what is done to every path, from the listings of both sides and the page map alone.
//!
//! No file is opened here. The files of the WAL directory are planned in [`crate::plan::wal`].

use std::collections::{BTreeMap, BTreeSet};

use walparse::{PageMap, RelSegment, RelationBlocks, Version};

use crate::datadir::data_path::DataPath;
use crate::datadir::exclude::{Disposition, disposition};
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::datadir::keep::{Keep, is_data};
use crate::outcome::PlanSummary;
use crate::plan::error::PlanError;
use crate::plan::wal::{self, WalPlan};

/// Everything that will be done. Each list is in the order of execution. All sizes are in bytes.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct RewindPlan {
    /// Directories and tablespace links to create, parents first, in byte order of their paths.
    pub(crate) create: Vec<(DataPath, EntryKind)>,
    /// Tablespace links that take the place of one to remove, as the old and the new link: both lead to one directory.
    pub(crate) relink: Vec<(DataPath, DataPath)>,
    /// Files to copy whole, with their size on the source.
    pub(crate) copy: Vec<(DataPath, u64)>,
    /// Files of which only the ranges that differ are copied.
    pub(crate) patch: Vec<Patch>,
    /// Relation files to extend.
    pub(crate) copy_tail: Vec<Tail>,
    /// Relation files of which single blocks are copied, with the numbers of these blocks in the file.
    pub(crate) blocks: Vec<(DataPath, RelationBlocks)>,
    /// Number of changed blocks that are not copied, because replay restores them.
    pub(crate) left_to_replay: u64,
    /// Relation files to truncate, with their size on the source.
    pub(crate) truncate: Vec<(DataPath, u64)>,
    /// Entries to remove, children first.
    pub(crate) remove: Vec<(DataPath, EntryKind)>,
    /// What is done in the WAL directory.
    pub(crate) wal: WalPlan,
    /// Local files and directories of the target that are kept, without the paths below these directories.
    pub(crate) kept: Vec<DataPath>,
    /// Paths that match the same patterns but exist only on the source. They are not copied.
    pub(crate) not_taken: Vec<DataPath>,
    /// Number of entries that need no change.
    pub(crate) unchanged: u64,
}

/// A file that is partly the same on both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    /// The file.
    pub(crate) path: DataPath,
    /// Its size on the source.
    pub(crate) size: u64,
    /// Offset and length of the ranges that differ. The last one may extend beyond the end of the file.
    pub(crate) ranges: Vec<(u64, u32)>,
}

impl Patch {
    /// The number of bytes to copy.
    pub(crate) fn bytes(&self) -> u64 {
        self.ranges
            .iter()
            .map(|(offset, length)| u64::from(*length).min(self.size.saturating_sub(*offset)))
            .sum()
    }
}

/// The part of a relation file that the target lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tail {
    /// The file.
    pub(crate) path: DataPath,
    /// Its size on the target.
    pub(crate) from: u64,
    /// Its size on the source.
    pub(crate) to: u64,
}

/// The input of the plan.
pub(crate) struct PlanInput<'a> {
    pub(crate) source: &'a Inventory,
    pub(crate) target: &'a Inventory,
    /// When an unfinished rewind is resumed: the target as it is now. `target` is then the target before that rewind.
    pub(crate) present: Option<&'a Inventory>,
    /// The changed blocks that must be copied.
    pub(crate) page_map: &'a PageMap,
    /// The ranges that differ in files that would be copied whole, as far as these were compared.
    pub(crate) compared: &'a Compared,
    pub(crate) version: Version,
    /// In bytes.
    pub(crate) block_size: u32,
    pub(crate) blocks_per_segment: u32,
    pub(crate) wal: WalPlan,
    pub(crate) keep: &'a Keep,
}

/// Makes the plan.
///
/// # Errors
/// A path of the data is of different type on the two sides, or a mount point that only the target has; or a pattern of files to
/// keep matches data.
pub(crate) fn plan(input: PlanInput<'_>) -> Result<RewindPlan, PlanError> {
    let mut plan = RewindPlan { wal: input.wal.clone(), ..RewindPlan::default() };
    let mut kept = BTreeSet::new();
    for (path, source, target) in both(input.source, input.target) {
        if is_below(path, &kept) {
            continue;
        }
        if input.keep.matches(path)? && disposition(path, input.version.names()) == Disposition::Consider {
            kept.insert(path.clone());
            let list = if target.is_some() { &mut plan.kept } else { &mut plan.not_taken };
            list.push(path.clone());
            continue;
        }
        if source.is_none() && input.keep.is_mount(path) {
            if is_data(path) {
                return Err(PlanError::MountPoint { path: path.clone() });
            }
            tracing::warn!(
                "\"{path}\" is a mount point, and the source has nothing of this name: it is left as it is"
            );
            kept.insert(path.clone());
            plan.kept.push(path.clone());
            continue;
        }
        if is_kept_link(path, input.version, source, target)? {
            tracing::warn!("\"{path}\" is a link or a special file: it is left as it is");
            kept.insert(path.clone());
            plan.unchanged += 1;
            continue;
        }
        decide(&input, &mut plan, path, source, target)?;
    }
    for glob in input.keep.unmatched(both(input.source, input.target).map(|(path, ..)| path)) {
        tracing::warn!("--keep \"{glob}\" matches nothing on the target or on the source");
    }
    keep_directories(&mut plan);
    // In byte order of the paths, children follow their parents.
    plan.remove.reverse();
    Ok(plan)
}

impl RewindPlan {
    /// The directory or link that will be created at `path`, if any.
    pub(crate) fn new_entry(&self, path: &DataPath) -> Option<&EntryKind> {
        let at = self.create.binary_search_by(|(other, _)| other.cmp(path)).ok()?;
        Some(&self.create[at].1)
    }

    /// Files and bytes per action. `source` is the listing of the source, `block_size` is in bytes.
    pub(crate) fn summary(&self, source: &Inventory, block_size: u32) -> PlanSummary {
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        let blocks = sum(&mut self.blocks.iter().map(|(_, blocks)| blocks.len()));
        PlanSummary {
            create: self.create.len() as u64,
            copy: (self.copy.len() + self.patch.len()) as u64,
            copy_bytes: sum(&mut self.copy.iter().map(|(_, size)| *size))
                + sum(&mut self.patch.iter().map(Patch::bytes)),
            wal: self.wal.copy.len() as u64,
            wal_bytes: sum(&mut self.wal.copy.iter().map(|file| file.length)),
            copy_tail: self.copy_tail.len() as u64,
            copy_tail_bytes: sum(&mut self.copy_tail.iter().map(|tail| tail.to - tail.from)),
            changed_files: self.blocks.len() as u64,
            blocks,
            block_bytes: blocks * u64::from(block_size),
            left_to_replay: self.left_to_replay,
            truncate: self.truncate.len() as u64,
            kept: self.kept.len() as u64,
            remove: (self.remove.len() + self.wal.remove.len()) as u64,
            unchanged: self.unchanged,
            source_bytes: source.file_bytes(),
        }
    }
}

/// Whether a path exists on the source and is a link or a special file on either side. It is then left as it is on
/// the target, with everything below it, because following a link would leave the data directory.
///
/// # Errors
/// The path belongs to the server's data, which must become the source's.
fn is_kept_link(
    path: &DataPath,
    version: Version,
    source: Option<&EntryKind>,
    target: Option<&EntryKind>,
) -> Result<bool, PlanError> {
    let is_kept = matches!((source, target), (Some(EntryKind::Other), _) | (Some(_), Some(EntryKind::Other)));
    // The statistics directory may be a link to a file system in memory. Its contents are never copied.
    let is_statistics = path.as_bytes() == version.names().stat_tmp_dir.as_bytes();
    if is_kept && is_data(path) && !is_statistics {
        Err(PlanError::DifferentType { path: path.clone() })
    } else {
        Ok(is_kept)
    }
}

/// Removes directories that contain kept files from the list of entries to remove.
fn keep_directories(plan: &mut RewindPlan) {
    let mut holding = BTreeSet::new();
    for path in &plan.kept {
        let mut parent = path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            holding.insert(directory);
        }
    }
    plan.remove.retain(|(path, _)| !holding.contains(path));
}

/// Whether a path is below one of these directories.
fn is_below(path: &DataPath, kept: &BTreeSet<DataPath>) -> bool {
    if kept.is_empty() {
        return false;
    }
    let mut parent = path.parent();
    while let Some(directory) = parent {
        if kept.contains(&directory) {
            return true;
        }
        parent = directory.parent();
    }
    false
}

/// Decides about one path: the first rule that applies counts.
fn decide(
    input: &PlanInput<'_>,
    plan: &mut RewindPlan,
    path: &DataPath,
    source: Option<&EntryKind>,
    target: Option<&EntryKind>,
) -> Result<(), PlanError> {
    // `backup_label` holds the mark while files are changed. Without it a server could start.
    if wal::is_planned_there(path, input.version) || path.as_bytes() == b"backup_label" {
        return Ok(());
    }
    let source = match disposition(path, input.version.names()) {
        Disposition::LeaveAlone => return Ok(()),
        // Treated as if the source did not have it, so it is removed from the target.
        Disposition::Exclude => None,
        Disposition::Consider => source,
    };
    match (source, target) {
        (None, None) => {}
        (None, Some(kind)) => plan.remove.push((path.clone(), kind.clone())),
        (Some(EntryKind::File { size }), None) => plan.copy.push((path.clone(), *size)),
        (Some(kind), None) => {
            if relation_file(path, input.version).is_some() {
                return Err(PlanError::NotRegular { path: path.clone() });
            }
            plan.create.push((path.clone(), kind.clone()));
        }
        (Some(EntryKind::File { size: to }), Some(EntryKind::File { size: from })) => {
            both_files(input, plan, path, *from, *to);
        }
        (Some(EntryKind::Directory), Some(EntryKind::Directory))
        | (Some(EntryKind::Symlink { .. }), Some(EntryKind::Symlink { .. })) => plan.unchanged += 1,
        _ => return Err(PlanError::DifferentType { path: path.clone() }),
    }
    Ok(())
}

/// Decides about a file that both sides have: `from` is its size on the target, `to` its size on the source.
fn both_files(input: &PlanInput<'_>, plan: &mut RewindPlan, path: &DataPath, from: u64, to: u64) {
    // An unfinished rewind may have made the file without writing it.
    if is_version_file(path, input.version) && from == to && input.present.is_none() {
        plan.unchanged += 1;
        return;
    }
    let Some(file) = relation_file(path, input.version) else {
        match input.compared.differing.get(path) {
            None => plan.copy.push((path.clone(), to)),
            Some(ranges) if ranges.is_empty() && from == to => plan.unchanged += 1,
            // Replay does not repair such a file, so it must not be put together from two states.
            Some(_) if !is_data(path) => plan.copy.push((path.clone(), to)),
            Some(ranges) => {
                plan.patch.push(Patch { path: path.clone(), size: to, ranges: ranges.clone() });
            }
        }
        return;
    };
    // Blocks beyond the end of the file on either side are not copied one by one: they are part of the tail, or are
    // truncated, or replay of the source's WAL restores them. An incomplete block at the end of the file, left by a
    // full disk or a crash, is copied with the tail.
    let block_size = u64::from(input.block_size);
    let from = if from < to { from - from % block_size } else { from };
    let whole_blocks = from.min(to) / block_size;
    let first = file.segment.saturating_mul(input.blocks_per_segment);
    let in_file = input.page_map.blocks_in(file, input.blocks_per_segment).map(|block| block.0 - first);
    let blocks: RelationBlocks = in_file.filter(|&block| u64::from(block) < whole_blocks).collect();
    // An unfinished rewind may have extended the file beyond its size on this source.
    let here = match input.present.and_then(|present| present.get(path)) {
        Some(EntryKind::File { size }) => from.max(*size),
        _ => from,
    };
    if from == to && here <= to && blocks.is_empty() {
        plan.unchanged += 1;
    }
    if !blocks.is_empty() {
        plan.blocks.push((path.clone(), blocks));
    }
    if from < to {
        plan.copy_tail.push(Tail { path: path.clone(), from, to });
    }
    if here > to {
        plan.truncate.push((path.clone(), to));
    }
}

/// Whether a path is a `PG_VERSION` file. One of the target's own need not be copied: the version is the same on both sides,
/// and a server with a damaged one would not have started.
fn is_version_file(path: &DataPath, version: Version) -> bool {
    path.as_bytes().ends_with(version.names().version_file.as_bytes())
}

/// Bytes by which a file may have grown and still be compared, however small it was.
const MUCH: u64 = 64 << 20;

/// The files on both sides that are copied whole unless they are compared, with their size on the source. Files
/// that are empty on one side are left out, and files that are kept, because the source's server may be unable to
/// read its copy.
pub(crate) fn whole_on_both<'a>(
    source: &'a Inventory,
    target: &'a Inventory,
    keep: &'a Keep,
    version: Version,
) -> impl Iterator<Item = (&'a DataPath, u64)> {
    both(source, target).filter_map(move |(path, source, target)| match (source, target) {
        (Some(EntryKind::File { size }), Some(EntryKind::File { size: here })) => {
            // A file that is many times larger on the source can have little in common.
            let is_copied = *size > 0
                && *here > 0
                && *size / 4 <= here.saturating_add(MUCH)
                && disposition(path, version.names()) == Disposition::Consider
                && !wal::is_planned_there(path, version)
                && !is_version_file(path, version)
                && path.as_bytes() != b"backup_label"
                && relation_file(path, version).is_none()
                && !is_kept(path, keep);
            is_copied.then_some((path, *size))
        }
        _ => None,
    })
}

/// Whether a path, or a directory above it, is kept.
fn is_kept(path: &DataPath, keep: &Keep) -> bool {
    let parts = std::iter::successors(Some(path.clone()), DataPath::parent);
    // A pattern that matches data is reported when the plan is made.
    parts.into_iter().any(|path| keep.matches(&path).unwrap_or(true))
}

/// Whether a path is that of a relation file of any fork.
pub(crate) fn is_of_relation(path: &DataPath, version: Version) -> bool {
    let Some(path) = path.as_str() else { return false };
    let main = ["_fsm", "_vm", "_init"].iter().find_map(|fork| {
        let (number, segment) = path.rsplit_once(fork)?;
        Some(format!("{number}{segment}"))
    });
    RelSegment::parse(main.as_deref().unwrap_or(path), version).is_some()
}

/// The relation segment whose main fork is stored at a path.
fn relation_file(path: &DataPath, version: Version) -> Option<RelSegment> {
    RelSegment::parse(path.as_str()?, version)
}

/// All paths of two listings in their order, each with its entry on the source and on the target.
fn both<'a>(
    source: &'a Inventory,
    target: &'a Inventory,
) -> impl Iterator<Item = (&'a DataPath, Option<&'a EntryKind>, Option<&'a EntryKind>)> {
    let mut source = source.entries().iter().peekable();
    let mut target = target.entries().iter().peekable();
    std::iter::from_fn(move || {
        let order = match (source.peek(), target.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
        };
        let ours = if order.is_le() { source.next() } else { None };
        let theirs = if order.is_ge() { target.next() } else { None };
        let path = ours.or(theirs).map(|(path, _)| path)?;
        Some((path, ours.map(|(_, kind)| kind), theirs.map(|(_, kind)| kind)))
    })
}

/// The result of comparing files.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Compared {
    /// For each compared file, the offset and length of the ranges that differ, in order. Without ranges, the
    /// target has the same bytes up to the end of the source's file.
    pub(crate) differing: BTreeMap<DataPath, Vec<(u64, u32)>>,
    /// Approximate number of bytes received from the source for this.
    pub(crate) bytes: u64,
}

/// Bytes requested beyond the listed size of a file, so that a file that has grown a little since then is copied
/// completely. None for relation files: their growth is in the WAL.
pub(crate) fn growth(path: &DataPath, version: Version) -> u64 {
    const GROWTH: u64 = 8192;
    if is_of_relation(path, version) { 0 } else { GROWTH }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::keep::KeepRules;
    use walparse::{BlockNumber, Relation};

    const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

    fn path(text: &str) -> DataPath {
        DataPath::parse(text).unwrap()
    }

    fn listing(entries: &[(&str, Option<u64>)]) -> Inventory {
        let kind = |size: &Option<u64>| size.map_or(EntryKind::Directory, |size| EntryKind::File { size });
        Inventory::new(entries.iter().map(|(name, size)| (path(name), kind(size))).collect()).unwrap()
    }

    fn make(source: &Inventory, target: &Inventory, page_map: &PageMap) -> Result<RewindPlan, PlanError> {
        make_keeping(&KeepRules::none(), source, target, page_map)
    }

    fn make_keeping(
        rules: &KeepRules,
        source: &Inventory,
        target: &Inventory,
        page_map: &PageMap,
    ) -> Result<RewindPlan, PlanError> {
        let version = Version::find(1300, 202_209_061).unwrap();
        let wal = WalPlan::default();
        plan(PlanInput {
            source,
            target,
            present: None,
            page_map,
            compared: &Compared::default(),
            version,
            block_size: 8192,
            blocks_per_segment: 131_072,
            wal,
            keep: &Keep::new(rules, None).unwrap(),
        })
    }

    #[test]
    fn each_kind_of_path_gets_its_action() {
        let source = listing(&[
            ("base", None),
            ("base/5", None),
            ("base/5/PG_VERSION", Some(3)),
            ("base/5/100", Some(8192 * 10)),
            ("base/5/101", Some(8192 * 4)),
            ("base/5/102", Some(8192 * 4)),
            ("base/5/100_fsm", Some(24576)),
            ("base/6", None),
            ("base/6/1", Some(8192)),
            ("global/pg_control", Some(8192)),
            ("postmaster.pid", Some(5)),
            ("pg_wal", None),
            ("pg_wal/000000020000000000000001", Some(1 << 24)),
        ]);
        let target = listing(&[
            ("base", None),
            ("base/5", None),
            ("base/5/PG_VERSION", Some(3)),
            ("base/5/100", Some(8192 * 4)),
            ("base/5/101", Some(8192 * 10)),
            ("base/5/102", Some(8192 * 4)),
            ("base/5/100_fsm", Some(24576)),
            ("backup_label", Some(85)),
            ("base/7", None),
            ("base/7/1", Some(8192)),
            ("global/pg_control", Some(8192)),
            ("postmaster.pid", Some(5)),
            ("pg_wal", None),
        ]);
        let plan = make(&source, &target, &PageMap::new()).unwrap();
        assert_eq!(plan.create, [(path("base/6"), EntryKind::Directory)]);
        assert_eq!(plan.copy, [(path("base/5/100_fsm"), 24576), (path("base/6/1"), 8192)]);
        assert_eq!(plan.copy_tail, [Tail { path: path("base/5/100"), from: 8192 * 4, to: 8192 * 10 }]);
        assert_eq!(plan.truncate, [(path("base/5/101"), 8192 * 4)]);
        let removed: Vec<_> = plan.remove.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(removed, ["postmaster.pid", "base/7/1", "base/7"]);
    }

    #[test]
    fn of_a_compared_file_only_the_ranges_that_differ_are_copied() {
        let sizes =
            |conf, xact| listing(&[("a.conf", Some(conf)), ("pg_xact/0000", Some(xact)), ("c", Some(9))]);
        let mut compared = Compared::default();
        compared.differing.insert(path("a.conf"), vec![]);
        compared.differing.insert(path("pg_xact/0000"), vec![(8192, 8192 * 2)]);
        let plan = plan(PlanInput {
            source: &sizes(10, 8192 * 2),
            present: None,
            target: &sizes(10, 8192 * 2),
            page_map: &PageMap::new(),
            compared: &compared,
            keep: &Keep::new(&KeepRules::none(), None).unwrap(),
            version: Version::find(1300, 202_209_061).unwrap(),
            block_size: 8192,
            blocks_per_segment: 131_072,
            wal: WalPlan::default(),
        })
        .unwrap();
        assert_eq!(plan.copy, [(path("c"), 9)]);
        assert_eq!(plan.patch.len(), 1);
        assert_eq!((plan.patch[0].bytes(), plan.unchanged), (8192, 1));
        assert_eq!(plan.summary(&Inventory::default(), 8192).copy_bytes, 8192 + 9);
    }

    #[test]
    fn a_version_file_is_copied_if_it_may_not_be_the_targets_own() {
        let source = listing(&[("base/5/PG_VERSION", Some(3)), ("base/6/PG_VERSION", Some(3))]);
        let copied = |sizes: [u64; 2], is_resumed: bool| {
            let target =
                listing(&[("base/5/PG_VERSION", Some(sizes[0])), ("base/6/PG_VERSION", Some(sizes[1]))]);
            let plan = plan(PlanInput {
                source: &source,
                present: is_resumed.then_some(&target),
                target: &target,
                page_map: &PageMap::new(),
                compared: &Compared::default(),
                keep: &Keep::new(&KeepRules::none(), None).unwrap(),
                version: Version::find(1300, 202_209_061).unwrap(),
                block_size: 8192,
                blocks_per_segment: 131_072,
                wal: WalPlan::default(),
            });
            plan.unwrap().copy.len()
        };
        assert_eq!((copied([3, 3], false), copied([3, 0], false), copied([3, 3], true)), (0, 1, 2));
    }

    #[test]
    fn files_of_every_fork_belong_to_a_relation() {
        let version = Version::find(1300, 202_209_061).unwrap();
        for (name, expected) in [
            ("base/5/1", true),
            ("base/5/1.2", true),
            ("base/5/1_fsm", true),
            ("base/5/1_vm.3", true),
            ("global/1_init", true),
            ("base/5/1_x", false),
            ("base/5/_vm", false),
            ("pg_xact/0000", false),
            ("base/5/pg_filenode.map", false),
        ] {
            assert_eq!(is_of_relation(&path(name), version), expected, "{name}");
        }
    }

    #[test]
    fn only_blocks_that_both_sides_have_are_copied() {
        let mut page_map = PageMap::new();
        for block in [0, 3, 4, 131_072, 131_075] {
            page_map.insert(TABLE, BlockNumber(block));
        }
        let names = [("base/5/16384", Some(8192 * 4 + 100)), ("base/5/16384.1", Some(8192 * 2))];
        let plan = make(&listing(&names), &listing(&names), &page_map).unwrap();
        let blocks: Vec<(String, Vec<u32>)> =
            plan.blocks.iter().map(|(path, blocks)| (path.to_string(), blocks.iter().collect())).collect();
        assert_eq!(blocks, [("base/5/16384".into(), vec![0, 3]), ("base/5/16384.1".into(), vec![0])]);
    }

    #[test]
    fn an_incomplete_block_is_copied_with_the_tail() {
        let sides = |size| listing(&[("base/5/16384", Some(size))]);
        let plan = make(&sides(8192 * 4), &sides(8192 * 2 + 100), &PageMap::new()).unwrap();
        assert_eq!(plan.copy_tail, [Tail { path: path("base/5/16384"), from: 8192 * 2, to: 8192 * 4 }]);
    }

    #[test]
    fn links_are_left_as_they_are_but_refused_among_the_data() {
        let other = |name: &str| Inventory::new(vec![(path(name), EntryKind::Other)]).unwrap();
        let source = listing(&[("log", None), ("log-x", Some(1)), ("log/a", Some(1))]);
        let plan = make(&source, &other("log"), &PageMap::new()).unwrap();
        assert_eq!((plan.copy, plan.create, plan.remove), (vec![(path("log-x"), 1)], vec![], vec![]));
        let plan = make(&other("log"), &source, &PageMap::new()).unwrap();
        assert_eq!(plan.remove.len(), 1, "only log-x is removed");
        let plan = make(&Inventory::default(), &other("socket"), &PageMap::new()).unwrap();
        assert_eq!(plan.remove, [(path("socket"), EntryKind::Other)]);
        for data in ["base/5/1", "pg_xact", "pg_xact/0000", "global/1262"] {
            let file = listing(&[(data, Some(1))]);
            assert!(make(&file, &other(data), &PageMap::new()).is_err(), "{data}");
        }
        for own in ["pg_hba.conf", "pg_log"] {
            assert!(make(&listing(&[(own, Some(1))]), &other(own), &PageMap::new()).is_ok(), "{own}");
        }
    }

    #[test]
    fn kept_files_are_neither_copied_nor_removed() {
        let source = listing(&[
            ("base", None),
            ("base/5", None),
            ("base/5/100", Some(8192)),
            ("log", None),
            ("log/theirs", Some(1)),
            ("pg_hba.conf", Some(2)),
            ("standby.signal", Some(0)),
        ]);
        let target = listing(&[
            ("base", None),
            ("certs", None),
            ("certs/own.key", Some(1)),
            ("certs/other", Some(1)),
            ("log", None),
            ("log/ours", Some(1)),
            ("pg_hba.conf", Some(1)),
            ("postgresql.auto.conf.tmp", Some(1)),
        ]);
        let plan = make_keeping(&KeepRules::standard(), &source, &target, &PageMap::new()).unwrap();
        assert_eq!(plan.kept, [path("certs/own.key"), path("log"), path("pg_hba.conf")]);
        assert_eq!(plan.not_taken, [path("standby.signal")]);
        assert_eq!(plan.copy, [(path("base/5/100"), 8192)]);
        let removed: Vec<_> = plan.remove.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(removed, ["postgresql.auto.conf.tmp", "certs/other"]);
        let data = KeepRules::parse(&["base/5/1*"]).unwrap();
        assert!(make_keeping(&data, &source, &target, &PageMap::new()).is_err());
        let all = make(&source, &target, &PageMap::new()).unwrap();
        assert!(all.kept.is_empty() && all.not_taken.is_empty() && all.remove.len() == 5);
    }

    #[test]
    fn different_types_are_refused() {
        let file = listing(&[("x", Some(1))]);
        let directory = listing(&[("x", None)]);
        assert!(make(&file, &directory, &PageMap::new()).is_err());
        assert!(make(&directory, &file, &PageMap::new()).is_err());
        let relation = listing(&[("base/5/1", None)]);
        assert!(matches!(
            make(&relation, &Inventory::default(), &PageMap::new()),
            Err(PlanError::NotRegular { .. })
        ));
    }
}
