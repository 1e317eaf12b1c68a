//! Complete rewinds of generated data directories, with block sizes and resource managers that no available server
//! has.
//!
//!     target  ── checkpoint ─┬─ blocks 1 and 3 ── checkpoint     timeline 1
//!     source                 └─ block 4 ── checkpoint            timeline 2

use std::path::{Path, PathBuf};

use walparse::control::testing::ControlFields;
use walparse::testing::{BlockSpec, RecordSpec, WalBuilder, small_geometry};
use walparse::{BlockNumber, ControlFile, Lsn, Relation, TimelineId, Version, WalGeometry};

use super::entry::run;
use crate::error::{Failure, TargetState};
use crate::options::{Options, SourceChoice, SyncChoice};
use crate::outcome::Outcome;
use crate::progress::Silent;

const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };
const BLOCKS: u32 = 6;

struct Cluster {
    root: PathBuf,
    wal: WalBuilder,
}

/// Both data directories. The target's WAL ends with records that the source does not have.
struct Pair {
    _directory: tempfile::TempDir,
    version: Version,
    block_size: u32,
    target: Cluster,
    source: Cluster,
}

fn touch(rmid: u8, blocks: &[u32]) -> RecordSpec {
    let blocks = blocks.iter().map(|block| BlockSpec::part(TABLE, BlockNumber(*block))).collect();
    RecordSpec { rmid, blocks, main_data: vec![7; 20], ..RecordSpec::default() }
}

impl Pair {
    fn new(version: Version, block_size: u32, lost: &[RecordSpec]) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let geometry = WalGeometry { block_size, ..small_geometry(version) };
        let mut wal = WalBuilder::new(geometry);
        wal.append(&touch(10, &[0, 5]));
        let redo = wal.position();
        let common = wal.checkpoint(redo);
        assert!(common > Lsn(0));
        let fork = wal.position();
        let (mut target, mut source) = (wal.clone(), wal);
        for record in lost {
            target.append(record);
        }
        source.timeline = TimelineId(2);
        let mut end_of_recovery = vec![0; 8];
        end_of_recovery.extend([2u32, 1].into_iter().flat_map(u32::to_le_bytes));
        source.append(&RecordSpec {
            rmid: 0,
            info: 0x90,
            main_data: end_of_recovery,
            ..RecordSpec::default()
        });
        source.append(&touch(10, &[4]));
        let cluster = |name: &str, wal: WalBuilder| Cluster { root: directory.path().join(name), wal };
        let mut pair = Pair {
            version,
            block_size,
            target: cluster("target", target),
            source: cluster("source", source),
            _directory: directory,
        };
        pair.target.write(version, block_size, b'T');
        pair.source.write(version, block_size, b'S');
        let history = pair.source.root.join(version.wal_dir()).join("00000002.history");
        std::fs::write(history, format!("1\t{fork}\tno recovery target specified\n")).unwrap();
        pair
    }

    fn rewind(&self) -> Result<Outcome, Failure> {
        let source = SourceChoice::Directory(self.source.root.clone());
        let options = Options { sync: SyncChoice::Off, ..Options::new(self.target.root.clone(), source) };
        run(&options, &Silent)
    }

    /// Runs a rewind that must be refused and leave the target unchanged; returns the error with all its causes.
    fn refusal(&self) -> String {
        let failure = self.rewind().unwrap_err();
        assert_eq!((failure.target, self.blocks()), (TargetState::Untouched, "T".repeat(BLOCKS as usize)));
        let mut why = failure.error.to_string();
        let mut source = std::error::Error::source(&*failure.error);
        while let Some(error) = source {
            why = format!("{why}: {error}");
            source = error.source();
        }
        why
    }

    /// One character for each block of the target's table: `T` if it is the target's, `S` if it is the source's.
    fn blocks(&self) -> String {
        let bytes = std::fs::read(self.target.root.join("base/5/16384")).unwrap();
        assert_eq!(bytes.len(), (BLOCKS * self.block_size) as usize);
        let pages = bytes.chunks(self.block_size as usize);
        pages
            .map(|page| {
                assert!(page.iter().all(|byte| *byte == page[0]), "a page with bytes of both sides");
                char::from(page[0])
            })
            .collect()
    }

    fn control(&self) -> ControlFile {
        let names = self.version.names();
        let bytes = std::fs::read(self.target.root.join(names.control_file)).unwrap();
        ControlFile::parse_as(&bytes, self.version.flavor()).unwrap()
    }
}

impl Cluster {
    /// Writes a cleanly shut down data directory in which every page of the table is full of `owner`.
    fn write(&mut self, version: Version, block_size: u32, owner: u8) {
        let names = version.names();
        let put = |path: &str, bytes: &[u8]| {
            let path = self.root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let timeline = self.wal.timeline;
        let redo = walparse::after_page_header(self.wal.position(), &small_geometry(version));
        let checkpoint = self.wal.checkpoint(redo);
        assert_eq!(redo, checkpoint, "as at a shutdown");
        let control = ControlFields {
            block_size,
            checkpoint_lsn: checkpoint,
            redo,
            timeline,
            data_checksum_version: 3,
            tail: if version.flavor().is_fork() { vec![1, 2, 3, 4] } else { Vec::new() },
            ..ControlFields::clean(version)
        };
        put(names.control_file, &control.build());
        put(names.version_file, version.name().as_bytes());
        put("base/5/16384", &vec![owner; (BLOCKS * block_size) as usize]);
        put("base/5/16384_fsm", &vec![owner; block_size as usize]);
        let size = small_geometry(version).segment_size;
        for (number, bytes) in self.wal.segments() {
            let name = size.file_name(timeline, walparse::SegmentNo(*number));
            put(&format!("{}/{name}", names.wal_dir), bytes);
        }
    }
}

fn version(key: &str, name: &str) -> Version {
    Version::of_all_flavors().find(|version| (version.flavor().key(), version.name()) == (key, name)).unwrap()
}

fn assert_rewound(pair: &Pair, blocks: &str) {
    match pair.rewind() {
        Ok(Outcome::Rewound(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.blocks(), blocks);
    let control = pair.control();
    assert_eq!((control.timeline(), control.block_size()), (TimelineId(2), pair.block_size));
    assert!(Path::new(&pair.target.root).join("backup_label").exists());
}

#[test]
fn rewinds_with_every_block_size() {
    for block_size in [8192, 16_384, 32_768] {
        for (key, name) in
            [("postgresql", "15"), ("postgresql", "9.6"), ("kingbase-v8r3", "9.6"), ("kingbase-v8r6", "12")]
        {
            // Only the blocks that the lost records name come from the source.
            let version = version(key, name);
            let pair = Pair::new(version, block_size, &[touch(10, &[1]), touch(11, &[3])]);
            assert_rewound(&pair, "TSTSTT");
        }
    }
}

#[test]
fn blocks_named_by_an_extensions_resource_manager_are_copied() {
    let lost = [touch(200, &[1]), touch(255, &[3, 5])];
    assert_rewound(&Pair::new(version("postgresql", "15"), 8192, &lost), "TSTSTS");
    // Before 15 there are no custom resource managers, so the WAL is invalid.
    let why = Pair::new(version("postgresql", "14"), 8192, &lost).refusal();
    assert!(
        why.contains("WAL of the target ends at") && why.contains("invalid resource manager 200"),
        "{why}"
    );
    // A record that changes files in an unknown way.
    let special = RecordSpec { info: 0x01, ..touch(200, &[1]) };
    let why = Pair::new(version("postgresql", "15"), 8192, &[special]).refusal();
    assert!(why.contains("rmid: 200, rmgr: custom200"), "{why}");
}

#[test]
fn a_relation_change_that_only_a_fork_knows_stops_the_rewind() {
    let fork = version("kingbase-v8r6", "12");
    for (rmid, name) in [(6, "TablespaceEnc"), (7, "TabcolumnEnc")] {
        let special = RecordSpec { info: 0x11, ..touch(rmid, &[1]) };
        let why = Pair::new(fork, 8192, &[special]).refusal();
        assert!(why.contains(&format!("rmid: {rmid}, rmgr: {name}, info: 11")), "{why}");
    }
    // Without that flag its blocks are copied like all others.
    assert_rewound(&Pair::new(fork, 8192, &[touch(6, &[1]), touch(23, &[2])]), "TSSTTT");
}
