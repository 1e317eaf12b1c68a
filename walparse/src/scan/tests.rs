use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::lsn::BlockNumber;
use crate::reader::WalReader;
use crate::record::{BlockRef, Record};
use crate::relation::{Fork, Relation};
use crate::rmgr;
use crate::testing::{BlockChange, BlockSpec, RecordSpec, WalBuilder};
use crate::version::{Version, WalGeometry, small_geometry};

fn geometry() -> WalGeometry {
    small_geometry(Version::find(1300, 202_209_061).unwrap())
}

fn touch(number: u32, block: u32, length: usize) -> RecordSpec {
    let relation = Relation { tablespace: 1663, database: 5, number };
    RecordSpec {
        rmid: 10,
        info: 0,
        blocks: vec![BlockSpec::part(relation, BlockNumber(block))],
        main_data: vec![1; length],
    }
}

fn quiet(_: u64) {}

const PROVE: RebuiltBlocks = RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) };

/// A request without positions.
fn request() -> ScanRequest {
    ScanRequest {
        geometry: geometry(),
        fork: Lsn::INVALID,
        newest_checkpoint: Lsn::INVALID,
        required_end: Lsn::INVALID,
        end: EndOfWal::Crashed,
        unknown_changes: UnknownChanges::Refuse,
        rebuilt: PROVE,
        counts_rows: false,
    }
}

/// The results of a scan that are compared.
#[derive(PartialEq, Debug)]
struct Answer {
    end: Lsn,
    last_record: Lsn,
    diverged: Option<Beyond>,
}

#[derive(PartialEq, Debug)]
struct Beyond {
    checkpoint: Lsn,
    since: Lsn,
    named: BTreeSet<(u32, u32)>,
    rebuilt: BTreeSet<(u32, u32)>,
}

fn blocks(map: &PageMap) -> BTreeSet<(u32, u32)> {
    let relations = map.relations().into_iter();
    relations
        .flat_map(|(relation, blocks)| blocks.iter().map(move |block| (relation.number, block)))
        .collect()
}

/// The same results from the sequential reader, to which those of the scan must be equal. WAL before `start` is missing.
fn sequential(wal: &WalBuilder, request: &ScanRequest, start: Lsn) -> Answer {
    let mut checkpoint = None;
    let (end, last_record) = read_all(wal, request, start, |record, _, main_data| {
        if rmgr::is_checkpoint(&record.header)
            && record.lsn < request.fork
            && record.lsn <= request.newest_checkpoint
        {
            checkpoint = Some((record.lsn, Checkpoint::parse(main_data).unwrap()));
        }
    });
    let Some((lsn, checkpoint)) = checkpoint.filter(|_| end > request.fork) else {
        return Answer { end, last_record, diverged: None };
    };
    let since = match request.rebuilt {
        RebuiltBlocks::Prove { replay_limit } => Some(checkpoint.redo.min(replay_limit).min(lsn)),
        RebuiltBlocks::Ignore => None,
    };
    let proven_since = since.filter(|since| *since >= start);
    let since = proven_since.unwrap_or(lsn);
    let mut first = BTreeMap::new();
    let mut copied = false;
    read_all(wal, request, since, |record, blocks, _| {
        for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
            let replaces = block.will_init || block.image.is_some_and(|image| image.is_applied);
            let is_rebuilt = replaces && !copied && record.end <= request.fork && record.header.rmid < 22;
            first.entry((block.relation.number, block.block.0)).or_insert(is_rebuilt);
        }
        copied |= record.header.rmid == 4 && record.header.info & 0xF0 == 0;
    });
    let is_rebuilt =
        |(key, is_rebuilt): (&(u32, u32), &bool)| (*is_rebuilt && proven_since.is_some()).then_some(*key);
    let rebuilt = first.iter().filter_map(is_rebuilt).collect();
    let named = first.into_keys().collect();
    Answer { end, last_record, diverged: Some(Beyond { checkpoint: lsn, since, named, rebuilt }) }
}

/// Calls `see` for every record from `start`. Returns the end of the WAL and the start of the last record.
fn read_all(
    wal: &WalBuilder,
    request: &ScanRequest,
    start: Lsn,
    mut see: impl FnMut(&Record<'_>, &[BlockRef], &[u8]),
) -> (Lsn, Lsn) {
    let mut reader = WalReader::new(wal, request.geometry, start);
    let (mut last, mut blocks) = (Lsn::INVALID, Vec::new());
    loop {
        match reader.read().unwrap() {
            Ok(record) => {
                let payload = record.decode(&request.geometry, &mut blocks).unwrap();
                last = record.lsn;
                see(&record, &blocks, payload.main_data);
            }
            Err(end) => return (end.position, last),
        }
    }
}

fn parallel(wal: &WalBuilder, request: &ScanRequest) -> Result<Answer, ScanError> {
    let scan = scan(wal, request, &quiet)?;
    let diverged = scan.diverged.map(|found| Beyond {
        checkpoint: found.checkpoint_lsn,
        since: found.since,
        named: blocks(&found.page_map),
        rebuilt: blocks(&found.rebuilt),
    });
    Ok(Answer { end: scan.end, last_record: scan.last_record, diverged })
}

#[derive(Clone, Debug)]
enum Step {
    Touch {
        number: u32,
        block: u32,
        length: usize,
        change: BlockChange,
        fork: u8,
        rmid: u8,
    },
    /// With its redo this many records before it.
    Checkpoint {
        behind: usize,
    },
    CopyFiles,
    Switch,
    Tear {
        length: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few blocks, so that several records refer to the same block; and many, so that maps grow.
    let block = prop_oneof![4 => 0u32..6, 1 => 0u32..200_000];
    let length = prop_oneof![0usize..300, 4_000usize..30_000, 700_000usize..1_500_000];
    let change = prop_oneof![
        Just(BlockChange::Part),
        Just(BlockChange::Init),
        Just(BlockChange::Image),
        Just(BlockChange::ImageForChecking)
    ];
    let rmid = prop_oneof![9 => Just(10u8), 1 => Just(130u8)];
    let fork = prop_oneof![5 => Just(0u8), 1 => 1u8..4];
    let touch = (0u32..5, block, length, change, fork, rmid).prop_map(
        |(number, block, length, change, fork, rmid)| Step::Touch {
            number: 16384 + number,
            block,
            length,
            change,
            fork,
            rmid,
        },
    );
    let step = prop_oneof![
        40 => touch,
        5 => (0usize..8).prop_map(|behind| Step::Checkpoint { behind }),
        1 => Just(Step::CopyFiles),
        2 => Just(Step::Switch),
        2 => (8_000usize..20_000).prop_map(|length| Step::Tear { length }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Writes a checkpoint and the steps. Returns the checkpoints and the starts of all records.
fn write(steps: &[Step]) -> (WalBuilder, Vec<Lsn>, Vec<Lsn>) {
    let mut wal = WalBuilder::new(geometry());
    let first = wal.checkpoint(Lsn((1 << 20) + 40));
    let (mut checkpoints, mut starts) = (vec![first], vec![first]);
    for step in steps {
        match step {
            Step::Touch { number, block, length, change, fork, rmid } => {
                let mut record = touch(*number, *block, *length);
                (record.rmid, record.blocks[0].change, record.blocks[0].fork) = (*rmid, *change, *fork);
                starts.push(wal.append(&record));
            }
            Step::CopyFiles => {
                let record = RecordSpec { rmid: 4, info: 1, main_data: vec![0; 16], ..RecordSpec::default() };
                starts.push(wal.append(&record));
            }
            Step::Switch => starts.push(wal.switch()),
            Step::Tear { length } => wal.tear(&touch(1, 1, *length)),
            Step::Checkpoint { behind } => {
                let redo = starts[starts.len().saturating_sub(1 + behind)];
                let lsn = wal.checkpoint(redo);
                checkpoints.push(lsn);
                starts.push(lsn);
            }
        }
    }
    (wal, checkpoints, starts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn scan_equals_the_sequential_reader(
        steps in steps(),
        fork in any::<prop::sample::Index>(),
        newest in any::<prop::sample::Index>(),
        limit in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (wal, checkpoints, starts) = write(&steps);
        let fork = *fork.get(&starts);
        let fork = if fork == starts[0] { fork.advance(8) } else { fork };
        let newest = *newest.get(&checkpoints);
        let replay_limit = limit.map_or(Lsn(u64::MAX), |limit| *limit.get(&starts));
        let request = ScanRequest {
            fork,
            newest_checkpoint: newest,
            required_end: newest,
            rebuilt: RebuiltBlocks::Prove { replay_limit },
            ..request()
        };
        prop_assert_eq!(parallel(&wal, &request).unwrap(), sequential(&wal, &request, Lsn(1 << 20)));
    }

    #[test]
    fn damage_is_found_where_the_sequential_reader_finds_it(
        steps in steps(),
        at in 0u64..6_000_000,
        mask in 1u8..,
        missing in prop::option::of(2u64..6),
    ) {
        let (mut wal, checkpoints, _) = write(&steps);
        wal.damage(Lsn((1 << 20) + 500 + at), mask);
        if let Some(missing) = missing {
            wal.remove(SegmentNo(missing));
        }
        let request = ScanRequest {
            fork: checkpoints[0].advance(8),
            newest_checkpoint: checkpoints[0],
            required_end: checkpoints[0],
            end: EndOfWal::Open,
            ..request()
        };
        prop_assert_eq!(parallel(&wal, &request).unwrap(), sequential(&wal, &request, Lsn(1 << 20)));
    }
}

fn long_wal() -> (WalBuilder, Vec<Lsn>) {
    let mut wal = WalBuilder::new(geometry());
    let mut checkpoints = Vec::new();
    for round in 0..6 {
        checkpoints.push(wal.checkpoint(wal.position()));
        for block in 0..200 {
            wal.append(&touch(16384 + round, block, 6_000));
        }
    }
    (wal, checkpoints)
}

#[test]
fn the_common_checkpoint_is_before_the_fork_and_not_after_the_newest_one() {
    let (wal, checkpoints) = long_wal();
    let find = |fork: Lsn, newest: Lsn| {
        let request = ScanRequest {
            geometry: geometry(),
            fork,
            newest_checkpoint: newest,
            required_end: newest,
            end: EndOfWal::Open,
            unknown_changes: UnknownChanges::Refuse,
            rebuilt: PROVE,
            counts_rows: false,
        };
        scan(&wal, &request, &quiet).unwrap().diverged.unwrap().checkpoint_lsn
    };
    assert_eq!(find(checkpoints[3], checkpoints[5]), checkpoints[2]);
    assert_eq!(find(checkpoints[3].advance(1), checkpoints[5]), checkpoints[3]);
    // A standby may have received checkpoint records for which it has made no restartpoint.
    assert_eq!(find(checkpoints[5], checkpoints[1]), checkpoints[1]);
}

/// A record that starts right after a page header follows one that ends at the page boundary: the two positions mean the same.
#[test]
fn a_record_at_the_known_end_is_not_read_even_behind_a_page_header() {
    let mut found = 0;
    for length in (6000..9000).step_by(8) {
        let mut wal = WalBuilder::new(geometry());
        let start = wal.append(&touch(1, 0, length));
        let last = wal.append(&touch(1, 1, 100));
        let end = wal.append(&touch(1, 2, 100));
        wal.append(&touch(1, 3, 100));
        let request = ScanRequest { required_end: end, end: EndOfWal::Known, ..request() };
        let stretch = scan_stretch(&wal, &request, start, &quiet).unwrap();
        let expected = (2, last, BTreeSet::from([(1, 0), (1, 1)]));
        assert_eq!(
            (stretch.records, stretch.last_record, blocks(&stretch.page_map)),
            expected,
            "{length}: {end}"
        );
        found += u32::from(end.0 % u64::from(geometry().wal_block_size) == 24);
    }
    assert!(found > 0, "no record starts right after a page header");
}

#[test]
fn valid_wal_after_a_damaged_record_is_an_error_only_after_a_crash() {
    let (mut wal, checkpoints) = long_wal();
    let request = |end| ScanRequest {
        geometry: geometry(),
        fork: checkpoints[0].advance(1),
        newest_checkpoint: checkpoints[0],
        required_end: checkpoints[0],
        end,
        unknown_changes: UnknownChanges::Refuse,
        rebuilt: PROVE,
        counts_rows: false,
    };
    assert!(scan(&wal, &request(EndOfWal::Crashed), &quiet).is_ok());
    let at = checkpoints[2].advance(5_000);
    wal.damage(at, 1);
    let open = scan(&wal, &request(EndOfWal::Open), &quiet).unwrap();
    assert!(open.end <= at && open.end > checkpoints[2]);
    match scan(&wal, &request(EndOfWal::Crashed), &quiet) {
        Err(ScanError::Damaged { position, later, .. }) => assert!(position == open.end && later > at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_and_damaged_segments_are_reported() {
    let (wal, checkpoints) = long_wal();
    let request = ScanRequest {
        geometry: geometry(),
        fork: checkpoints[1],
        newest_checkpoint: checkpoints[5],
        required_end: wal.position(),
        end: EndOfWal::Known,
        unknown_changes: UnknownChanges::Refuse,
        rebuilt: PROVE,
        counts_rows: false,
    };
    assert_eq!(scan(&wal, &request, &quiet).unwrap().end, wal.position());
    let mut without = wal.clone();
    without.remove(SegmentNo(4));
    without.remove(SegmentNo(6));
    match scan(&without, &request, &quiet) {
        Err(ScanError::Missing { segment, all, .. }) => {
            assert_eq!((segment, all), (SegmentNo(4), vec![SegmentNo(4), SegmentNo(6)]));
        }
        other => panic!("{other:?}"),
    }
    // Also before the fork, where the checkpoint is searched for.
    let mut without = wal.clone();
    without.remove(SegmentNo(1));
    assert!(matches!(
        scan(&without, &request, &quiet),
        Err(ScanError::Missing { segment: SegmentNo(1), .. })
    ));
    let mut broken = wal.clone();
    broken.damage(checkpoints[3].advance(3_000), 1);
    assert!(matches!(scan(&broken, &request, &quiet), Err(ScanError::BreaksOff { .. })));
}

/// The missing segment is needed: the WAL after it was flushed, and data pages with it.
#[test]
fn a_missing_segment_of_a_crashed_server_is_not_the_end() {
    let (mut wal, checkpoints) = long_wal();
    let request = ScanRequest {
        geometry: geometry(),
        fork: checkpoints[0].advance(1),
        newest_checkpoint: checkpoints[0],
        required_end: checkpoints[0],
        end: EndOfWal::Crashed,
        unknown_changes: UnknownChanges::Refuse,
        rebuilt: PROVE,
        counts_rows: false,
    };
    wal.remove(SegmentNo(3));
    match scan(&wal, &request, &quiet) {
        Err(ScanError::Missing { segment: SegmentNo(3), all, needed, .. }) => {
            assert_eq!(all, [SegmentNo(3)]);
            assert!(needed > geometry().segment_size.end_of(SegmentNo(3)), "{needed}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_relation_changes_stop_the_scan() {
    let (mut wal, checkpoints) = long_wal();
    let request = |wal: &WalBuilder| ScanRequest {
        geometry: geometry(),
        fork: checkpoints[1],
        newest_checkpoint: checkpoints[0],
        required_end: wal.position(),
        end: EndOfWal::Known,
        unknown_changes: UnknownChanges::Refuse,
        rebuilt: PROVE,
        counts_rows: false,
    };
    wal.append(&RecordSpec { rmid: 2, info: 0x11, main_data: vec![0; 16], ..RecordSpec::default() });
    assert!(scan(&wal, &request(&wal), &quiet).is_ok());
    let lsn =
        wal.append(&RecordSpec { rmid: 128, info: 0x01, main_data: vec![0; 16], ..RecordSpec::default() });
    match scan(&wal, &request(&wal), &quiet) {
        Err(ScanError::UnknownRelationChange { lsn: found, rmid: 128, .. }) => assert_eq!(found, lsn),
        other => panic!("{other:?}"),
    }
}

/// Three segments: redo is in the first, the checkpoint record and the fork are in the third.
fn spread_checkpoint() -> (WalBuilder, ScanRequest) {
    let mut wal = WalBuilder::new(geometry());
    wal.checkpoint(wal.position());
    let image = |block| {
        let mut record = touch(16384, block, 6_000);
        record.blocks[0].change = BlockChange::Image;
        record
    };
    let redo = wal.append(&touch(99, 1, 8));
    for block in 0..400 {
        wal.append(&image(block));
    }
    let checkpoint = wal.checkpoint(redo);
    wal.append(&touch(16384, 7, 0));
    wal.append(&image(1_000));
    let fork = wal.position();
    wal.append(&image(2_000));
    wal.append(&touch(16384, 8, 0));
    let request =
        ScanRequest { fork, newest_checkpoint: checkpoint, required_end: wal.position(), ..request() };
    (wal, request)
}

#[test]
fn rebuilt_blocks_are_determined_from_the_start_of_replay() {
    let (wal, request) = spread_checkpoint();
    let found = scan(&wal, &request, &quiet).unwrap().diverged.unwrap();
    assert_eq!(found.since, found.checkpoint.redo);
    assert_eq!((found.page_map.len(), found.rebuilt.len()), (403, 401));
    let table = touch(16384, 0, 0).blocks[0].relation;
    for (block, is_rebuilt) in [(0, true), (7, true), (8, true), (1_000, true), (2_000, false)] {
        assert_eq!(found.rebuilt.contains(table, BlockNumber(block)), is_rebuilt, "{block}");
    }
    // If the source's checkpoint is older, replay starts at its redo position.
    let older =
        ScanRequest { rebuilt: RebuiltBlocks::Prove { replay_limit: Lsn((1 << 20) + 40) }, ..request };
    assert_eq!(scan(&wal, &older, &quiet).unwrap().diverged.unwrap().since, Lsn((1 << 20) + 40));
}

/// The WAL before the checkpoint is not needed for anything else.
#[test]
fn without_the_wal_before_the_checkpoint_no_block_counts_as_rebuilt() {
    let (mut wal, request) = spread_checkpoint();
    let whole = scan(&wal, &request, &quiet).unwrap();
    let ignored = ScanRequest { rebuilt: RebuiltBlocks::Ignore, ..request };
    let ignored = scan(&wal, &ignored, &quiet).unwrap().diverged.unwrap();
    assert_eq!((ignored.since, ignored.page_map.len()), (ignored.checkpoint_lsn, 4));
    let mut damaged = wal.clone();
    damaged.damage(Lsn((2 << 20) + 5_000), 1);
    wal.remove(SegmentNo(2));
    for wal in [wal, damaged] {
        let scan = scan(&wal, &request, &quiet).unwrap();
        assert_eq!(scan.diverged.as_ref(), Some(&ignored));
        assert!(ignored.rebuilt.is_empty() && scan.end == whole.end);
    }
}

/// Replay of a stretch goes through all of it, wherever the histories part.
#[test]
fn blocks_that_a_stretch_rebuilds() {
    let (wal, request) = spread_checkpoint();
    let from_checkpoint = scan_stretch(&wal, &request, request.newest_checkpoint, &quiet).unwrap();
    assert_eq!((from_checkpoint.page_map.len(), from_checkpoint.rebuilt.len()), (4, 2));
    let table = touch(16384, 0, 0).blocks[0].relation;
    for (block, is_rebuilt) in [(7, false), (8, false), (1_000, true), (2_000, true)] {
        assert_eq!(from_checkpoint.rebuilt.contains(table, BlockNumber(block)), is_rebuilt, "{block}");
    }
}
