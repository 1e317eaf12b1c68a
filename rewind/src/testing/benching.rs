//! Generated plans of any size, for the benchmarks. Not part of the library's interface.

use walparse::{Lsn, PageMap, Relation, RelationBlocks, Version};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::datadir::keep::Keep;
use crate::options::RebuiltBlocks;
use crate::plan::files::{Compared, PlanInput, RewindPlan, plan};
use crate::plan::wal::WalPlan;
use crate::wal::changed::ChangedBlocks;

const BLOCKS_PER_FILE: u32 = 131_072;

/// Generated listings of both sides, and generated changed blocks.
pub struct MadeUp {
    pub(crate) version: Version,
    pub(crate) source: Inventory,
    pub(crate) target: Inventory,
    pub(crate) changed: ChangedBlocks,
}

impl MadeUp {
    /// `files` relation files of 1 GiB, of which each side lacks one in a hundred, and `blocks` changed blocks spread
    /// over every tenth file. Replay rebuilds a third of the blocks.
    ///
    /// # Panics
    /// Fewer than ten files.
    pub fn new(files: u32, blocks: u32) -> MadeUp {
        let version = Version::all().last().unwrap_or_else(|| unreachable!("there are versions"));
        let listing = |skipped: u32| {
            let numbers = (0..files).filter(|number| number % 100 != skipped);
            let entries = numbers.map(|number| {
                let path = format!("base/{}/{}", 16384 + number / 1000, 20_000 + number);
                let path = DataPath::parse(path).unwrap_or_else(|_| unreachable!("a plain path"));
                (path, EntryKind::File { size: u64::from(BLOCKS_PER_FILE) * 8192 })
            });
            Inventory::new(entries.collect()).unwrap_or_default()
        };
        let mut changed = ChangedBlocks { since: Lsn(100), fork: Lsn(200), ..ChangedBlocks::default() };
        let per_relation = blocks / (files / 10);
        for number in (0..files).step_by(10) {
            let relation =
                Relation { tablespace: 1663, database: 16384 + number / 1000, number: 20_000 + number };
            let gap = (BLOCKS_PER_FILE / per_relation.max(1)).max(1);
            let numbers = || (0..per_relation).map(|index| (index * gap + number % gap) % BLOCKS_PER_FILE);
            changed.named.insert_all(relation, numbers().collect::<RelationBlocks>());
            changed.rebuilt.insert_all(relation, numbers().step_by(3).collect::<RelationBlocks>());
        }
        MadeUp { version, source: listing(1), target: listing(2), changed }
    }

    /// Makes the plan, and returns the number of blocks that it copies.
    pub fn plan(&self) -> u64 {
        self.full_plan().summary(&self.source, 8192).blocks
    }

    pub(crate) fn full_plan(&self) -> RewindPlan {
        let Ok(keep) = Keep::again(&[]) else { unreachable!("no pattern is wrong") };
        let (page_map, _) = self.changed.to_copy((Lsn(100), Lsn(200)), &PageMap::new(), RebuiltBlocks::Leave);
        let input = PlanInput {
            source: &self.source,
            target: &self.target,
            present: None,
            page_map: &page_map,
            compared: &Compared::default(),
            version: self.version,
            block_size: 8192,
            blocks_per_segment: BLOCKS_PER_FILE,
            wal: WalPlan::default(),
            keep: &keep,
        };
        plan(input).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use walparse::control::testing::ControlFields;
    use walparse::{ControlFile, TimelineHistory, TimelineId};

    use super::*;
    use crate::outcome::{CheckpointAt, Divergence};
    use crate::target::Target;
    use crate::target::external_files::ExternalFiles;
    use crate::target::journal::NewJournal;

    const CHILD: &str = "KBRECOVER_TEST_MEASURES_MEMORY";

    /// Peak resident memory of this process so far, in MB.
    fn peak_megabytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Builds what a run holds in memory at once: both listings, all changed blocks, the plan and the journal.
    /// Returns the peak memory in MB.
    fn hold_everything() -> u64 {
        let made = MadeUp::new(1_000_000, 10_000_000);
        assert_eq!(made.changed.named.len(), 10_000_000);
        let plan = made.full_plan();
        assert!(plan.blocks.len() > 90_000, "{} files with changed blocks", plan.blocks.len());
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let control = ControlFile::parse(&ControlFields::clean(made.version).build()).unwrap();
        let journal = NewJournal {
            source: "x".into(),
            control: &control,
            history: &TimelineHistory::of_first(TimelineId(1)),
            divergence: Some(Divergence { lsn: Lsn(200), timeline: TimelineId(1) }),
            checkpoint: Some(CheckpointAt { lsn: Lsn(150), redo: Lsn(100), timeline: TimelineId(1) }),
            changed: &made.changed,
            outside: &ExternalFiles::default(),
            files: &made.target,
            original: None,
            file_changes: &walparse::FileChanges::default(),
            lost: None,
            replay_start: None,
            compared_until: None,
            fetch_bytes: 0,
            keep: &[],
            keep_diverged: None,
        };
        journal.write(&target).unwrap();
        drop(plan);
        peak_megabytes()
    }

    /// Measured in a process of its own, because other tests run in this one.
    #[test]
    #[expect(clippy::print_stdout, reason = "the child process reports its peak on stdout")]
    fn a_million_files_and_ten_million_blocks_take_less_than_400_megabytes() {
        if std::env::var_os(CHILD).is_some() {
            return println!("peak of {} MB", hold_everything());
        }
        let name =
            "testing::benching::tests::a_million_files_and_ten_million_blocks_take_less_than_400_megabytes";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let peak = printed.split_once("peak of ").and_then(|(_, rest)| rest.split_once(" MB"));
        let peak: u64 = peak.unwrap_or_else(|| panic!("{output:?}")).0.parse().unwrap();
        assert!((50..400).contains(&peak), "{peak} MB");
    }
}
