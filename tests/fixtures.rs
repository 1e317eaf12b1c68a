//! Clusters of versions for which there is no server here, and what those versions' own programs made of them.
//!
//!     target  ──┬── lost ──╳ shut down      timeline 1
//!     source    └── kept ──╳ shut down      timeline 2
//!     expected                              the target after pg_rewind of its version, with source as --source-pgdata
//!     waldump.txt                           the target's WAL from the common checkpoint on: pg_xlogdump -b, pg_waldump -b
//!     controldata.*.txt                     pg_controldata of the three
//!
//! All three servers wrote checksums and wal_log_hints = on. The archives were packed with `zstd --long=28`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use walparse::{ControlFile, Fork, Lsn, TimelineHistory, TimelineId, WalDir, WalReader, rmgr};

use crate::harness::{
    AsServerUser, Disguise, KINGBASE_V8R3, Rewind, Sandbox, Tree, command, control_of, give_to_server_user,
    record_line, remove_wal_files, run, run_command, waldump_line,
};
use crate::wal_records::assert_same_control;

/// One unpacked archive.
struct Fixture {
    root: PathBuf,
    _sandbox: Sandbox,
}

impl Fixture {
    /// Unpacks what these patterns name.
    fn unpack(version: &str, parts: &[&str]) -> Fixture {
        let sandbox = Sandbox::new();
        let root = sandbox.make_dir("fixture");
        let archive =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/pg{version}.tar.zst"));
        let archive = File::open(&archive).unwrap_or_else(|e| panic!("open {}: {e}", archive.display()));
        let mut unpack = Command::new("sh");
        unpack
            .args(["-c", "set -e; cd \"$0\"; zstd -q -d -c --long=28 | tar -x -p --wildcards \"$@\""])
            .arg(&root)
            .args(parts);
        run(unpack.stdin(archive).as_server_user());
        Fixture { root, _sandbox: sandbox }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join(name)).unwrap_or_else(|e| panic!("read {name}: {e}"))
    }

    fn control(&self, cluster: &str) -> ControlFile {
        let bytes =
            std::fs::read(self.root.join(cluster).join("global/pg_control")).expect("read pg_control");
        ControlFile::parse(&bytes).expect("a good control file")
    }

    /// A reader on the WAL of one of the clusters.
    fn read_wal<T>(
        &self,
        cluster: &str,
        start: Lsn,
        read: impl FnOnce(&mut WalReader<'_, WalDir>) -> T,
    ) -> T {
        let control = self.control(cluster);
        let directory = self.root.join(cluster).join(control.version().wal_dir());
        let timeline = control.timeline();
        let history = match std::fs::read(directory.join(timeline.history_file_name())) {
            Ok(text) => TimelineHistory::parse(timeline, &text).expect("a good history"),
            Err(_) => TimelineHistory::of_first(TimelineId(1)),
        };
        let wal = WalDir::new(directory, history, control.geometry().segment_size);
        read(&mut WalReader::new(&wal, control.geometry(), start))
    }
}

/// How a path may differ from what the original left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    OnlyHere,
    OnlyInOriginal,
    Other,
}

/// Every difference there may be, and why it is right. A path ends in `*` if it stands for all that begin so.
const JUSTIFIED: &[(&[&str], Difference, &str, &str)] = &[
    (
        &["9.6", "12"],
        Difference::Other,
        "backup_label",
        "the time of the run stands in it; all other lines are compared below",
    ),
    (
        &["9.6", "12"],
        Difference::Other,
        "global/pg_control",
        "minRecoveryPoint is the end of the source's last record, not its start, and the time is that of the run; \
         all other bytes are compared below",
    ),
    (
        &["9.6", "12"],
        Difference::OnlyHere,
        "base/24664/PG_VERSION",
        "a database made on the source: the original never copies a PG_VERSION, and leaves it to replay",
    ),
    (
        &["9.6", "12"],
        Difference::OnlyHere,
        "WAL/000000010000000000000001",
        "a segment of the common history that the target has and the source has not: it may be asked for by others",
    ),
    (
        &["9.6", "12"],
        Difference::OnlyInOriginal,
        "WAL/000000010000000000000003",
        "the old timeline's copy of the segment with the fork: everybody reads the new timeline's",
    ),
    (
        &["9.6", "12"],
        Difference::OnlyHere,
        "WAL/archive_status/0000000*.done",
        "what was copied from the source's WAL is not to be archived again here",
    ),
    (
        &["9.6"],
        Difference::OnlyInOriginal,
        "WAL/archive_status/000000010000000000000002.done",
        "the source's word about a segment that was not copied: the target has its own",
    ),
    (
        &["9.6", "12"],
        Difference::OnlyInOriginal,
        "pg_twophase/*",
        "of a transaction that the source prepared after the common checkpoint: replay prepares it",
    ),
    (
        &["9.6"],
        Difference::OnlyInOriginal,
        "base/12405/pg_internal.init",
        "a cache that the server makes anew: copied up to 10 only",
    ),
    (
        &["9.6"],
        Difference::OnlyInOriginal,
        "global/pg_internal.init",
        "a cache that the server makes anew: copied up to 10 only",
    ),
    (&["9.6"], Difference::OnlyInOriginal, "pg_notify/0000", "emptied at every start: copied up to 10 only"),
    (
        &["9.6"],
        Difference::OnlyInOriginal,
        "pg_subtrans/0000",
        "made anew at every start: copied up to 10 only",
    ),
];

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        Some((front, back)) => path.starts_with(front) && path.ends_with(back),
        None => path == pattern,
    }
}

/// Rewinds the fixture's target, and compares every path with what the original made of it.
fn rewind_as_the_original(version: &str, disguise: Option<&Disguise>) {
    let fixture = Fixture::unpack(version, &["./target", "./source", "./expected"]);
    let (target, expected) = (fixture.root.join("target"), fixture.root.join("expected"));
    let source = fixture.root.join("source");
    let both = || disguise.into_iter().flat_map(|disguise| [(disguise, &target), (disguise, &source)]);
    both().for_each(|(disguise, directory)| disguise.put_on(directory));
    // pg_rewind has no other choice.
    Rewind::of_directory(&target)
        .args(["--replay-from", "common"])
        .arg("--source-data")
        .arg(&source)
        .args(["--keep", "none"])
        .run()
        .expect_done();
    both().for_each(|(disguise, directory)| disguise.take_off(directory));

    let (ours, theirs) = (Tree::of(&target), Tree::of(&expected));
    assert!(theirs.len() > 900, "only {} files to compare", theirs.len());
    let mut differences: BTreeSet<(Difference, String)> = ours
        .differences(&theirs)
        .map(|(path, is_ours, is_theirs)| {
            let difference = match (is_ours, is_theirs) {
                (true, true) => Difference::Other,
                (true, false) => Difference::OnlyHere,
                _ => Difference::OnlyInOriginal,
            };
            (difference, path.to_str().expect("a UTF-8 name").to_owned())
        })
        .collect();
    let wal_dir = fixture.control("target").version().wal_dir();
    let mut unused = BTreeSet::new();
    for (versions, difference, pattern, reason) in JUSTIFIED {
        if versions.contains(&version) {
            let pattern = pattern.replace("WAL/", &format!("{wal_dir}/"));
            let before = differences.len();
            differences.retain(|(found, path)| found != difference || !fits(&pattern, path));
            if differences.len() == before {
                unused.insert((pattern, reason));
            }
        }
    }
    assert!(differences.is_empty(), "not justified: {differences:#?}");
    assert!(unused.is_empty(), "justified, but not there: {unused:#?}");
    compare_label(&target, &expected);
    compare_control(&fixture);
}

/// The original's label, but for the time.
fn compare_label(target: &Path, expected: &Path) {
    let lines = |directory: &Path| {
        let text = std::fs::read_to_string(directory.join("backup_label")).expect("read backup_label");
        text.lines().filter(|line| !line.starts_with("START TIME: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(target), lines(expected));
    assert_eq!(lines(target).len(), 4);
}

/// The original's control file, but for its time and a minRecoveryPoint one record further.
fn compare_control(fixture: &Fixture) {
    let (ours, theirs) = (fixture.control("target"), fixture.control("expected"));
    let last = theirs.min_recovery_point();
    assert_eq!(last, fixture.control("source").checkpoint_lsn());
    let end = fixture.read_wal("target", last, |reader| match reader.read().expect("read WAL") {
        Ok(record) if rmgr::is_checkpoint(&record.header) => record.end,
        other => panic!("no checkpoint at {last}: {other:?}"),
    });
    assert_eq!(ours.min_recovery_point(), end);
    let now = i64::from_le_bytes(ours.bytes()[24..32].try_into().expect("eight bytes"));
    assert_eq!(theirs.recovering_to(end, theirs.min_recovery_point_timeline(), now), ours.bytes());
}

#[test]
fn pg9_6_is_rewound_as_by_its_own_pg_rewind() {
    rewind_as_the_original("9.6", None);
}

/// The same cluster in the layout of KingbaseES V8R3, which was made from 9.6.
#[test]
fn pg9_6_is_rewound_so_in_the_layout_of_v8r3() {
    rewind_as_the_original("9.6", Some(&KINGBASE_V8R3));
}

/// A target of V8R3 that has no WAL becomes the source, but for what is each node's own.
#[test]
fn pg9_6_without_any_wal_becomes_the_source_in_the_layout_of_v8r3() {
    let fixture = Fixture::unpack("9.6", &["./target", "./source"]);
    let (target, source) = (fixture.root.join("target"), fixture.root.join("source"));
    let disguise = Disguise { wal_magic: 0xC396, ..KINGBASE_V8R3 };
    for directory in [&target, &source] {
        disguise.put_on(directory);
    }
    remove_wal_files(&target.join("sys_xlog"));
    let before = Tree::of(&source);
    let rewind = || Rewind::of_directory(&target).arg("--source-data").arg(&source).args(["--keep", "none"]);
    rewind().expect_refusal("could not open file", "--compare-data");
    rewind().arg("--compare-data").run().expect_compared();
    before.assert_unchanged(&source, "the source");
    let own = [
        "sys_xlog/",
        "global/sys_control",
        "backup_label",
        // What the server makes anew, and a file that only its owner can read here.
        "base/12405/sys_internal.init",
        "global/sys_internal.init",
        "sys_notify/0000",
        "sys_subtrans/0000",
        "recovery.done",
    ];
    let (ours, theirs) = (Tree::of(&target), Tree::of(&source));
    let different: Vec<_> = ours
        .differences(&theirs)
        .map(|(path, ..)| path.to_str().expect("a UTF-8 name"))
        .filter(|path| !own.iter().any(|own| path.starts_with(own)))
        .collect();
    assert!(different.is_empty(), "{different:#?}");
    // The WAL that replay needs, from the source's last checkpoint on.
    let control = control_of(&source, &disguise);
    let size = control.geometry().segment_size;
    let name = size.file_name(control.timeline(), size.segment_of(control.checkpoint().redo));
    let read = |root: &Path| std::fs::read(root.join("sys_xlog").join(&name)).expect("read a segment");
    assert!(read(&target) == read(&source), "{name} is not the source's");
}

/// What V8R3 keeps outside the data directory: copies of the control file, and WAL that the server archives itself.
#[test]
fn the_archive_and_the_copies_of_the_control_file_follow_in_v8r3() {
    let fixture = Fixture::unpack("9.6", &["./target", "./source"]);
    let (target, source) = (fixture.root.join("target"), fixture.root.join("source"));
    let outside = |name: &str| fixture.root.join(name);
    for (data, archive) in [(&target, outside("target-archive")), (&source, outside("source-archive"))] {
        KINGBASE_V8R3.put_on(data);
        make_dir(&archive);
        let copies = format!("{}; {}", outside("copy1").display(), outside("copy2").display());
        let copies = if *data == target { copies } else { outside("other").display().to_string() };
        let settings = format!("\narchive_dest = '{}'\ncontrol_file_copy = '{copies}'\n", archive.display());
        // As the installer of a cluster does it.
        let main = std::fs::read_to_string(data.join("kingbase.conf")).expect("read kingbase.conf");
        put(&data.join("kingbase.conf"), format!("{main}\ninclude_if_exists = 'es_rep.conf'\n"));
        put(&data.join("es_rep.conf"), &settings);
    }
    put(&outside("copy1"), "stale");
    // The fork is in segment 3. What each side archived, and two files of others.
    let segment =
        |data: &Path, name: &str| std::fs::read(data.join("sys_xlog").join(name)).expect("read a segment");
    let (old, lost, kept) =
        ("000000010000000000000002", "000000010000000000000003", "000000020000000000000003");
    for (name, content) in [
        (old, segment(&target, old)),
        (lost, segment(&target, lost)),
        ("00000003.history", b"2\t0/3000000\tanother\n".to_vec()),
        ("notes.txt", b"mine".to_vec()),
    ] {
        put(&outside("target-archive").join(name), content);
    }
    let history = segment(&source, "00000002.history");
    for (name, content) in [(kept, segment(&source, kept)), ("00000002.history", history.clone())] {
        put(&outside("source-archive").join(name), content);
    }
    let source_archive = Tree::of(&outside("source-archive"));

    let rewind =
        || Rewind::of_directory(&target).arg("--source-data").arg(&source).args(["--replay-from", "common"]);
    let archive_before = Tree::of(&outside("target-archive"));
    rewind().arg("--dry-run").run_leaving_target_alone().expect_said("would be moved aside");
    archive_before.assert_unchanged(&outside("target-archive"), "dry run");
    rewind()
        .run()
        .expect_done()
        .expect_said("Get archive xlog list from source")
        .expect_said("Rewind archive log from source");

    let control = std::fs::read(target.join("global/sys_control")).expect("read sys_control");
    for copy in ["copy1", "copy2"] {
        assert_eq!(std::fs::read(outside(copy)).expect("read a copy"), control, "{copy}");
    }
    assert!(!outside("other").exists(), "the source's copies are not the target's");
    let archived = |name: &str| std::fs::read(outside("target-archive").join(name)).ok();
    assert_eq!(archived(old), Some(segment(&source, old)), "of the common history");
    assert_eq!(archived("notes.txt"), Some(b"mine".to_vec()));
    assert_eq!(archived(kept), Some(segment(&source, kept)));
    assert_eq!(archived("00000002.history"), Some(history));
    for abandoned in [lost, "00000003.history"] {
        assert_eq!(archived(abandoned), None);
        assert!(
            archived(&format!("kbrecover.abandoned.1/{abandoned}")).is_some(),
            "{abandoned} is kept aside"
        );
    }
    source_archive.assert_unchanged(&outside("source-archive"), "after the rewind");
}

/// A copy that cannot be written is found before anything is changed.
#[test]
fn a_copy_of_the_control_file_that_cannot_be_written_stops_the_rewind() {
    let fixture = Fixture::unpack("9.6", &["./target", "./source"]);
    let (target, source) = (fixture.root.join("target"), fixture.root.join("source"));
    KINGBASE_V8R3.put_on(&target);
    KINGBASE_V8R3.put_on(&source);
    put(
        &target.join("kingbase.auto.conf"),
        format!("control_file_copy = '{}/x'", target.join("kingbase.conf").display()),
    );
    Rewind::of_directory(&target)
        .arg("--source-data")
        .arg(&source)
        .expect_refusal("could not write to directory", "owns the data directory");
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    give_to_server_user(path);
}

fn make_dir(path: &Path) {
    std::fs::create_dir(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
    give_to_server_user(path);
}

#[test]
fn pg12_is_rewound_as_by_its_own_pg_rewind() {
    rewind_as_the_original("12", None);
}

/// What the target has lost is counted alike in every layout. The numbers are those that another program found in these clusters.
#[test]
fn lost_transactions_are_listed_in_every_layout() {
    for (version, disguise) in [("9.6", None), ("9.6", Some(&KINGBASE_V8R3)), ("12", None)] {
        let fixture = Fixture::unpack(version, &["./target", "./source"]);
        let (target, source) = (fixture.root.join("target"), fixture.root.join("source"));
        if let Some(disguise) = disguise {
            disguise.put_on(&target);
            disguise.put_on(&source);
        }
        let mut command = command(["lost", "--format", "json", "--target-data"]);
        command.arg(&target).arg("--source-data").arg(&source);
        let run = run_command(command);
        assert_eq!(run.code, 0, "{version}\n{run}");
        let (totals, undecided) = (&run.json()["totals"], &run.json()["undecided"]);
        let rows = ["inserted", "updated", "deleted"].map(|what| totals["rows"][what].as_u64().unwrap_or(0));
        assert_eq!((&totals["transactions"], rows), (&36.into(), [6347, 428, 3010]), "{version}\n{run}");
        let gids: Vec<&str> =
            undecided.as_array().expect("a list").iter().filter_map(|it| it["gid"].as_str()).collect();
        assert_eq!(gids, ["p_base", "p_target"], "{version}");
        // Names are the cluster's own, or numbers; never those of something else.
        let text = run.stdout.contains("public.shrink_target") && run.stdout.contains("public.toasty_base");
        assert!(text, "{version}\n{}", &run.stdout[..2000.min(run.stdout.len())]);
    }
}

fn read_every_record(version: &str) {
    let fixture = Fixture::unpack(version, &["./target", "./waldump.txt"]);
    let control = fixture.control("target");
    let text = fixture.text("waldump.txt");
    let records = text.trim_start_matches("rmgr: ").split("\nrmgr: ");
    let theirs: Vec<String> = records.map(|record| waldump_line(&format!("rmgr: {record}"))).collect();
    assert!(theirs.len() > 13_000, "only {} records", theirs.len());
    let first = theirs[0].split_once("lsn ").and_then(|(_, rest)| rest.split(' ').next()).expect("an LSN");
    let (high, low) = first.split_once('/').expect("an LSN");
    let part = |hex| u64::from_str_radix(hex, 16).expect("an LSN");
    let (mut ours, mut forks) = (Vec::new(), BTreeMap::new());
    fixture.read_wal("target", Lsn(part(high) << 32 | part(low)), |reader| {
        let mut blocks = Vec::new();
        while let Ok(record) = reader.read().expect("read WAL") {
            ours.push(record_line(&record, &control, true));
            record.decode(&control.geometry(), &mut blocks).expect("decode a record");
            blocks.iter().for_each(|block| *forks.entry(block.fork.name()).or_insert(0) += 1);
        }
    });
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "record {index}");
    }
    assert_eq!(ours.len(), theirs.len(), "records read here and by the version's own program");
    assert!(forks.contains_key(Fork::FreeSpaceMap.name()) && forks["main"] > 14_000, "{forks:?}");
}

#[test]
fn every_record_of_pg9_6_is_the_one_pg_xlogdump_reads() {
    read_every_record("9.6");
}

#[test]
fn every_record_of_pg12_is_the_one_pg_waldump_reads() {
    read_every_record("12");
}

#[test]
fn the_control_files_are_read_as_pg_controldata_reads_them() {
    for version in ["9.6", "12"] {
        let fixture = Fixture::unpack(version, &["./*/global/pg_control", "./controldata.*.txt"]);
        for cluster in ["target", "source", "expected"] {
            assert_same_control(
                &fixture.control(cluster),
                &fixture.text(&format!("controldata.{cluster}.txt")),
            );
        }
    }
}
