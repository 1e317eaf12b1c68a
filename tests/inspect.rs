//! `kbrecover inspect` against the server's own programs.
//!
//!     server ── all kinds of records, a kill -9 ──╳ pg_controldata == inspect control
//!                                                   pg_waldump     == inspect wal
//!       └── runs: inspect reads on, and changes nothing

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::{Run, Sandbox, Server, Tree, run, run_kbrecover, server_program};
use crate::{databases, index_types, prepared_transactions, sizes};

/// A stopped server that wrote many kinds of records, and was killed once on the way.
fn with_much_wal(sandbox: &Sandbox) -> Server {
    let mut server = sandbox.server("server");
    server.configure("wal_log_hints = on\nwal_level = logical\ntrack_commit_timestamp = on");
    server.start();
    for feature in [
        &sizes::SIZES,
        &index_types::INDEX_TYPES,
        &databases::DATABASES,
        &prepared_transactions::PREPARED_TRANSACTIONS,
    ] {
        server.sql(&format!("CREATE DATABASE {}", feature.name));
        let there = server.in_database(feature.name);
        (feature.shared)(&there);
        (feature.lost)(&there);
    }
    server.sql("CREATE TABLE gone AS SELECT generate_series(1, 5) n; SELECT pg_create_restore_point('here')");
    server.sql("DROP TABLE gone");
    server.kill();
    server.start();
    server.sql("SELECT pg_switch_wal()");
    server.stop();
    server
}

fn inspect(args: &[&str], path: &Path) -> Run {
    let path = path.to_str().expect("a UTF-8 path");
    run_kbrecover([&["inspect", args[0], path], &args[1..]].concat())
}

fn waldump(server: &Server, args: &[&str]) -> String {
    let mut command = server_program("pg_waldump");
    command.arg("--path").arg(server.data.join("pg_wal")).args(["--start", "0/1000028"]).args(args);
    // It ends with an error where the WAL ends, which is how it should end.
    let output = command.output().expect("run pg_waldump");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The parts of a record's line that both programs print: all before the description, the name of its kind, the blocks.
fn common(line: &str) -> (&str, &str, Vec<&str>) {
    let (fixed, rest) = line.split_once(", desc: ").unwrap_or_else(|| panic!("no description: {line}"));
    let kind = rest.split([' ', ',']).next().expect("a kind of record");
    let blocks = rest.split(", blkref ").skip(1).map(str::trim_end);
    (fixed, kind, blocks.collect())
}

#[test]
fn the_control_file_has_the_lines_of_pg_controldata() {
    let sandbox = Sandbox::new();
    let server = with_much_wal(&sandbox);
    let theirs = run(server_program("pg_controldata").arg(&server.data));
    let theirs = String::from_utf8(theirs.stdout).expect("UTF-8");
    let own = ["Floating-point format:", "Checksum of these data:"];
    for path in [server.data.clone(), server.data.join("global/pg_control")] {
        let ours = inspect(&["control"], &path);
        let lines = ours.stdout.lines().filter(|line| !own.iter().any(|own| line.starts_with(own)));
        assert_eq!(lines.collect::<Vec<_>>(), theirs.lines().collect::<Vec<_>>());
        assert_eq!((ours.code, ours.stderr.as_str()), (0, ""));
    }
    let json = inspect(&["control", "--format", "json"], &server.data).json();
    let identifier = theirs
        .lines()
        .find_map(|line| line.strip_prefix("Database system identifier:"))
        .expect("a line")
        .trim();
    assert_eq!(json["system_identifier"], identifier);
    assert_eq!((&json["wal_level"], &json["wal_log_hints"]), (&"logical".into(), &true.into()));
    assert_eq!((&json["xlog_seg_size"], &json["is_checksum_valid"]), (&(16 << 20).into(), &true.into()));

    // A damaged file is shown, with a warning.
    let mut bytes = std::fs::read(server.data.join("global/pg_control")).expect("read the control file");
    bytes[200] ^= 1;
    server.write("damaged", bytes);
    let damaged = inspect(&["control"], &server.data.join("damaged"));
    assert_eq!((damaged.code, damaged.stdout.lines().count()), (0, theirs.lines().count() + 2), "{damaged}");
    assert!(damaged.stderr.contains("kbrecover: warning: calculated CRC"), "{damaged}");
}

#[test]
fn every_record_has_the_line_of_pg_waldump() {
    let sandbox = Sandbox::new();
    let server = with_much_wal(&sandbox);
    let before = Tree::of(&server.data);
    let theirs = waldump(&server, &[]);
    let ours = inspect(&["wal"], &server.data);
    assert_eq!(ours.code, 0);
    assert!(ours.stderr.contains("kbrecover: WAL ends at "), "{}", ours.stderr);
    assert_eq!(ours.stdout.lines().count(), theirs.lines().count());
    let mut kinds = BTreeSet::new();
    for (ours, theirs) in ours.stdout.lines().zip(theirs.lines()) {
        assert_eq!(common(ours), common(theirs));
        kinds.insert(common(ours).1);
        // What is not about the inside of blocks is told in full, but for the flags of a truncation.
        if ["Storage", "Database", "Tablespace"]
            .iter()
            .any(|rmgr| ours.starts_with(&format!("rmgr: {rmgr} ")))
        {
            assert_eq!(ours, theirs.split(" flags ").next().expect("a line"));
        }
        if common(ours).1 == "COMMIT" {
            let rels =
                |line: &str| line.split("; ").find(|part| part.starts_with("rels: ")).map(str::to_owned);
            assert_eq!(rels(ours), rels(theirs));
            let stamp = |line: &str| line.split_once("COMMIT ").expect("a commit").1[..26].to_owned();
            assert_eq!(stamp(ours), stamp(theirs));
        }
    }
    assert!(kinds.len() > 40, "too few kinds of records: {kinds:?}");
    before.assert_unchanged(&server.data, "inspect wal");
}

#[test]
fn filters_take_the_records_that_pg_waldump_takes() {
    let sandbox = Sandbox::new();
    let server = with_much_wal(&sandbox);
    // A record that goes on over the end is one of ours, not one of theirs: so the end is between two.
    let all = waldump(&server, &[]);
    let line = all.lines().nth(all.lines().count() / 2).expect("a record in the middle");
    let middle = line.split_once("lsn: ").expect("an LSN").1.split(',').next().expect("an LSN");
    for (args, at_least) in [
        (vec!["--rmgr", "Btree"], 100),
        (vec!["--relation", "1664/0/1262"], 3),
        (vec!["--relation", "1663/1/1259", "--block", "0"], 2),
        (vec!["--fork", "vm"], 1),
        (vec!["--rmgr", "Heap", "--relation", "1663/1/1259"], 5),
        (vec!["--xid", "730"], 1),
        (vec!["--end", middle], 100),
    ] {
        let theirs = waldump(&server, &args);
        let ours = inspect(&[&["wal"][..], &args].concat(), &server.data);
        let lsns = |text: &str| text.lines().map(|line| common(line).0.to_owned()).collect::<Vec<_>>();
        let (ours, theirs_too) = (lsns(&ours.stdout), lsns(&theirs));
        let different = ours.iter().zip(&theirs_too).find(|(ours, theirs)| ours != theirs);
        assert_eq!((different, ours.len()), (None, theirs_too.len()), "{args:?}");
        assert!(theirs.lines().count() >= at_least, "{args:?}: {} records", theirs.lines().count());
    }
    let first = inspect(&["wal", "--start", middle, "--limit", "1", "--format", "json"], &server.data).json();
    let theirs = waldump(&server, &["--start", middle]);
    let line = theirs.lines().find(|line| line.starts_with("rmgr: ")).expect("a record");
    let lsn: walparse::Lsn = first["lsn"].as_str().expect("an LSN").parse().expect("an LSN");
    assert!(line.contains(&format!("lsn: {:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF)), "{lsn} {line}");
}

#[test]
fn statistics_are_those_of_pg_waldump() {
    let sandbox = Sandbox::new();
    let server = with_much_wal(&sandbox);
    let numbers = |text: &str| -> BTreeMap<String, Vec<u64>> {
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.first().copied().unwrap_or_default().to_owned();
            (name, words.iter().filter_map(|word| word.parse().ok()).collect())
        });
        lines.filter(|(_, numbers): &(String, Vec<u64>)| numbers.len() == 4).collect()
    };
    let theirs = numbers(&waldump(&server, &["--stats"]));
    assert_eq!(theirs.len(), 23, "{theirs:?}");
    assert_eq!(numbers(&inspect(&["wal", "--stats"], &server.data).stdout), theirs);
    let json = inspect(&["wal", "--stats", "--format", "json"], &server.data).json();
    assert_eq!(json["total"]["records"], theirs["Total"][0]);
    assert_eq!(json["rmgrs"]["Heap"]["record_bytes"], theirs["Heap"][1]);
}

#[test]
fn a_running_server_and_single_files_are_read() {
    let sandbox = Sandbox::new();
    let (mut old, mut new) = sandbox.pair();
    old.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
    let start: String = old.value("SELECT pg_current_wal_insert_lsn()::text");
    old.sql("UPDATE t SET n = n + 1 WHERE n < 100");
    let end: String = old.value("SELECT pg_current_wal_flush_lsn()::text");
    let path: String = old.value("SELECT pg_relation_filepath('t')");
    let blocks: Vec<u32> = old
        .column("SELECT DISTINCT (ctid::text::point)[0]::int::text FROM t WHERE xmin <> (SELECT min(xmin::text)::xid FROM t) OR n < 101")
        .iter()
        .map(|block| block.parse().expect("a block number"))
        .collect();

    let map = inspect(&["pagemap", "--start", &start, "--end", &end, "--format", "json"], &old.data).json();
    let relations = map["relations"].as_array().expect("relations");
    let table = relations.iter().find(|relation| relation["path"] == path.as_str()).expect("the table");
    let ranges: Vec<(u32, u32)> = serde_json::from_value(table["ranges"].clone()).expect("ranges");
    for block in blocks {
        assert!(
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&block)),
            "block {block}: {table}"
        );
    }
    let text = inspect(&["pagemap", "--start", &start, "--end", &end], &old.data.join("pg_wal")).stdout;
    assert!(text.lines().any(|line| line.starts_with(&path)), "{text}");

    new.catch_up(&old);
    new.promote();
    new.sql("CHECKPOINT");
    let history = inspect(&["history", "--format", "json"], &new.data).json();
    let file = std::fs::read_to_string(new.data.join("pg_wal/00000002.history")).expect("read the history");
    let entries = history["entries"].as_array().expect("entries");
    assert_eq!((entries.len(), entries[0]["end"].as_str()), (2, file.split_whitespace().nth(1)));
    assert_eq!(entries[0]["reason"], "no recovery target specified");
    let by_file = inspect(&["history", "--format", "json"], &new.data.join("pg_wal/00000002.history"));
    assert_eq!(by_file.json(), history);

    // Across the promotion, and each file by itself.
    let all = inspect(&["wal", "--rmgr", "XLOG"], &new.data);
    assert!(all.stdout.contains("END_OF_RECOVERY tli 2; prev tli 1; time 20"), "{all}");
    let one = inspect(&["wal", "--limit", "1"], &new.data.join("pg_wal/000000010000000000000001"));
    assert!(one.stdout.contains("CHECKPOINT_SHUTDOWN redo 0/1000028"), "{one}");
    old.stop();
    new.stop();
}

#[test]
fn what_cannot_be_shown_is_said() {
    let sandbox = Sandbox::new();
    let server = with_much_wal(&sandbox);
    let refused = |args: &[&str], path: &Path, error: &str| {
        let run = inspect(args, path);
        let said =
            run.stderr.lines().any(|line| line.starts_with("kbrecover: error: ") && line.contains(error));
        assert!(run.code == 1 && said && run.stderr.contains("kbrecover: hint: "), "{run}");
    };
    let data = &server.data;
    refused(&["wal", "--start", "5/0"], data, "0000000100000005000000");
    refused(&["wal", "--end", "5/0", "--rmgr", "CLOG"], data, "WAL");
    refused(&["wal", "--rmgr", "none"], data, "unknown resource manager \"none\"");
    refused(&["wal"], &data.join("PG_VERSION"), "is not a WAL segment");
    refused(&["control"], &data.join("PG_VERSION"), "unexpected control file size");
    refused(&["history"], &data.join("PG_VERSION"), "is not the name of a history file");
    refused(&["wal"], &data.join("base"), "contains no readable WAL segment");
    std::fs::remove_file(data.join("pg_wal/000000010000000000000001")).expect("remove a segment");
    refused(&["wal", "--start", "0/1000028"], data, "could not find WAL segment");
}
