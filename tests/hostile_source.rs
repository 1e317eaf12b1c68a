//! A source that lies: its answers name files elsewhere, have impossible sizes, or are too long. The run ends with the
//! contract kept, and nothing is written outside the target.
//!
//!     old  ── 1 ──┬── lost ──╳     rewound from new, which tells the truth in every database but "liar": there the
//!     new  ┄┄┄┄┄┄ └── 2 ─────▶     functions that are asked have been replaced

use std::os::unix::fs::symlink;

use crate::harness::{Failover, Rewind, Run, Sandbox, SourceKind, assert_follows};
use crate::interrupted::is_marked;

/// The functions that can be made to lie, and what they do otherwise.
const FUNCTIONS: [(&str, &str, &str, &str); 6] = [
    (
        "pg_ls_dir",
        "text, boolean, boolean",
        "SETOF text",
        "SELECT * FROM pg_catalog.true_pg_ls_dir($1, $2, $3)",
    ),
    (
        "pg_stat_file",
        "text, boolean, OUT size bigint, OUT access timestamptz, OUT modification timestamptz,
         OUT change timestamptz, OUT creation timestamptz, OUT isdir boolean",
        "record",
        "SELECT * FROM pg_catalog.true_pg_stat_file($1, $2)",
    ),
    (
        "pg_read_binary_file",
        "text, bigint, bigint, boolean",
        "bytea",
        "SELECT pg_catalog.true_pg_read_binary_file($1, $2, $3, $4)",
    ),
    ("pg_tablespace_location", "oid", "text", "SELECT pg_catalog.true_pg_tablespace_location($1)"),
    ("pg_current_wal_flush_lsn", "", "pg_lsn", "SELECT pg_catalog.true_pg_current_wal_flush_lsn()"),
    ("pg_current_wal_insert_lsn", "", "pg_lsn", "SELECT pg_catalog.true_pg_current_wal_insert_lsn()"),
];

/// A stopped target and a source with a database in which it lies when told to.
struct Liar {
    failover: Failover,
}

impl Liar {
    fn new(sandbox: &Sandbox) -> Liar {
        let mut failover = Failover::new(
            sandbox,
            |old| old.sql("CREATE TABLE entry AS SELECT n FROM generate_series(1, 1000) n"),
            |old| old.sql("INSERT INTO entry SELECT n FROM generate_series(1, 5000) n"),
            |new| new.sql("INSERT INTO entry SELECT n FROM generate_series(1, 9000) n"),
        );
        failover.old.stop();
        failover.new.sql("CREATE DATABASE liar");
        let liar = Liar { failover };
        for (name, arguments, returns, truth) in FUNCTIONS {
            let inputs = arguments.split(", OUT").next().expect("arguments");
            liar.sql(&format!("ALTER FUNCTION pg_catalog.{name}({inputs}) RENAME TO true_{name}"));
            liar.define("CREATE", name, arguments, returns, truth);
        }
        liar
    }

    fn sql(&self, statement: &str) {
        self.failover.new.sql_in("liar", statement);
    }

    fn define(&self, create: &str, name: &str, arguments: &str, returns: &str, body: &str) {
        let volatile = if name == "pg_tablespace_location" { "STABLE STRICT" } else { "VOLATILE" };
        self.sql(&format!(
            "{create} FUNCTION pg_catalog.{name}({arguments}) RETURNS {returns} LANGUAGE sql {volatile}
             AS $body$ {body} $body$"
        ));
    }

    /// From now on this function answers like this; everything else is the truth.
    fn lie(&self, function: &str, body: &str) {
        for (name, arguments, returns, truth) in FUNCTIONS {
            let body = if name == function { body } else { truth };
            self.define("CREATE OR REPLACE", name, arguments, returns, body);
        }
    }

    fn rewind(&self) -> Rewind {
        let conninfo = self.failover.new.conninfo().replace("dbname=postgres", "dbname=liar");
        Rewind::of(&self.failover.old).arg("--source-server").arg(conninfo)
    }

    /// The lie is seen before the target is touched.
    fn expect_refusal(&self, function: &str, body: &str, words: &str) -> Run {
        self.lie(function, body);
        self.rewind().expect_refusal(words, "")
    }
}

/// Adds a name to the listing of the data directory.
fn and_name(name: &str) -> String {
    format!("SELECT * FROM pg_catalog.true_pg_ls_dir($1, $2, $3) UNION ALL SELECT {name} WHERE $1 = '.'")
}

#[test]
fn names_and_sizes() {
    let sandbox = Sandbox::new();
    let liar = Liar::new(&sandbox);
    for name in
        ["'../../etc/passwd'", "'/etc/passwd'", "'base/../../x'", "'..'", "'base//x'", "''", "'./base'"]
    {
        // What is asked about it, the truth: mostly, that there is no such file. So that is a lie, too.
        liar.lie("pg_ls_dir", &and_name(name));
        liar.define(
            "CREATE OR REPLACE",
            FUNCTIONS[1].0,
            FUNCTIONS[1].1,
            FUNCTIONS[1].2,
            &format!(
                "SELECT 3::bigint, now(), now(), now(), now(), false WHERE $1 = {name}
                 UNION ALL SELECT s.* FROM pg_catalog.true_pg_stat_file($1, $2) s WHERE $1 <> {name}"
            ),
        );
        liar.rewind().expect_refusal("file path is unsafe", "");
    }
    liar.expect_refusal("pg_ls_dir", &and_name("'PG_VERSION'"), "duplicate source file \"PG_VERSION\"");

    let sized = |size: &str| {
        format!(
            "SELECT CASE WHEN $1 = 'PG_VERSION' THEN {size} ELSE s.size END, s.access, s.modification, s.change,
                    s.creation, s.isdir FROM pg_catalog.true_pg_stat_file($1, $2) s"
        )
    };
    for size in ["-1", "9223372036854775807", "-9223372036854775808", "17592186044417"] {
        liar.expect_refusal("pg_stat_file", &sized(size), &format!("a file size of {size} bytes"));
    }
    liar.lie("pg_ls_dir", &and_name("'huge'"));
    liar.define(
        "CREATE OR REPLACE",
        FUNCTIONS[1].0,
        FUNCTIONS[1].1,
        FUNCTIONS[1].2,
        "SELECT 17592186044416, now(), now(), now(), now(), false WHERE $1 = 'huge'
         UNION ALL SELECT s.* FROM pg_catalog.true_pg_stat_file($1, $2) s WHERE $1 <> 'huge'",
    );
    liar.rewind().expect_refusal("not enough free space", "");
    let turned = "SELECT s.size, s.access, s.modification, s.change, s.creation,
                         CASE WHEN $1 = 'PG_VERSION' THEN true ELSE s.isdir END
                  FROM pg_catalog.true_pg_stat_file($1, $2) s";
    let run = liar.lie_and_run("pg_stat_file", turned);
    assert_eq!(run.code, 1, "{run}");
}

#[test]
fn contents() {
    let sandbox = Sandbox::new();
    let liar = Liar::new(&sandbox);
    let read = |lie: &str| {
        format!("SELECT CASE WHEN {lie} ELSE pg_catalog.true_pg_read_binary_file($1, $2, $3, $4) END")
    };
    let control = "$1 = 'global/pg_control'";
    for (lie, words) in [
        (format!("{control} THEN NULL"), "No such file or directory"),
        (format!("{control} THEN ''"), "could not read the control file of the source"),
        (
            format!("{control} THEN pg_catalog.true_pg_read_binary_file($1, 0, 8192, true) || '\\x00'"),
            "could not read the control file of the source",
        ),
        (
            format!(
                "{control} THEN set_byte(pg_catalog.true_pg_read_binary_file($1, 0, 8192, true), 100, 77)"
            ),
            "could not read the control file of the source",
        ),
        ("$1 LIKE '%.history' THEN 'nonsense'".to_owned(), "history file of the source"),
        ("$1 LIKE '%.history' THEN NULL".to_owned(), "could not find the history file"),
        ("$1 LIKE '%.history' THEN '1\t0/1'".to_owned(), ""),
        (
            "$1 LIKE '%.history' THEN decode(repeat('00', ($3 + 1)::int), 'hex')".to_owned(),
            "received more than requested",
        ),
    ] {
        liar.expect_refusal("pg_read_binary_file", &read(&lie), words);
    }
    // Of two positions that cannot be true together the smaller counts.
    for lsn in ["FFFFFFFF/FFFFFFFF", "0/0"] {
        for function in ["pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn"] {
            liar.lie(function, &format!("SELECT '{lsn}'::pg_lsn"));
            let run = liar.rewind().arg("--dry-run").run_leaving_target_alone();
            assert!(run.code == 0 || run.code == 1, "{function} {lsn}: {run}");
        }
    }
    let (name, arguments, returns, _) = FUNCTIONS[4];
    liar.define("CREATE OR REPLACE", name, arguments, returns, "SELECT 'FFFFFFFF/FFFFFFFF'::pg_lsn");
    let (name, arguments, returns, _) = FUNCTIONS[5];
    liar.define("CREATE OR REPLACE", name, arguments, returns, "SELECT 'FFFFFFFF/FFFFFFFF'::pg_lsn");
    liar.rewind().expect_refusal("too far from", "right source");
}

/// Contents that are wrong: of a file it is seen during the copy (files are not compared before), of WAL before the first
/// change. The next run finishes if the source tells the truth.
#[test]
fn contents_during_the_copy() {
    let sandbox = Sandbox::new();
    let mut liar = Liar::new(&sandbox);
    let template = liar.failover.old.copy("template");
    for (number, (lie, words, code)) in [
        (
            "$1 LIKE 'base/%' AND $3 > 1 THEN decode(repeat('00', ($3 + 1)::int), 'hex')",
            "received more than requested for file \"base/",
            2,
        ),
        // The source's WAL is read before the first change.
        (
            "$1 LIKE 'pg_wal/0%' AND $1 NOT LIKE '%.history' AND $3 > 100000 THEN NULL",
            "WAL needed for replay is neither on the target nor on the source",
            1,
        ),
        (
            "$1 LIKE 'pg_wal/0%' AND $1 NOT LIKE '%.history' AND $3 > 100000 THEN ''",
            "could not read the WAL of the source",
            1,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        liar.failover.old = template.copy(&format!("target-{number}"));
        let read =
            format!("SELECT CASE WHEN {lie} ELSE pg_catalog.true_pg_read_binary_file($1, $2, $3, $4) END");
        let run = liar.lie_and_run("pg_read_binary_file", &read).expect_said(words);
        assert_eq!((run.code, is_marked(&liar.failover.old)), (code, code == 2), "{run}");
    }
    let mut target = template.copy("true");
    std::mem::swap(&mut target, &mut liar.failover.old);
    let Failover { old: _, new } = liar.failover;
    Rewind::of(&target).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut target, &new);
}

impl Liar {
    fn lie_and_run(&self, function: &str, body: &str) -> Run {
        self.lie(function, body);
        self.rewind().args(["--delta", "off"]).run()
    }
}

/// A tablespace of the source is a directory on this machine that will be written: not just any will do.
#[test]
fn tablespaces() {
    let sandbox = Sandbox::new();
    let place = sandbox.make_dir("place");
    let liar = Liar::new(&sandbox);
    liar.failover.new.sql(&format!("CREATE TABLESPACE far LOCATION '{}'", place.display()));
    let data = &liar.failover.old.data;
    let full = sandbox.make_dir("full");
    std::fs::write(full.join("precious"), "yes").expect("write");
    let way = sandbox.path("way");
    symlink(data, &way).expect("link");
    let at = |path: &std::path::Path| path.display().to_string();
    for (location, words) in [
        (at(&full), "in use on this machine"),
        ("/etc".to_owned(), "in use on this machine"),
        (format!("{}/base/inside", at(data)), "inside the data directory"),
        (format!("{}/inside", at(&way)), "inside the data directory"),
        (format!("{}/x/../y", at(&sandbox.path("a"))), "contains \"..\""),
        (format!("{}/missing/parent", at(&sandbox.path("a"))), "cannot be created"),
    ] {
        let lie = format!("SELECT '{location}'::text");
        liar.expect_refusal("pg_tablespace_location", &lie, words);
    }
    assert_eq!(std::fs::read(full.join("precious")).expect("read"), b"yes");
    let free = sandbox.path("free");
    let run = liar.lie_and_run("pg_tablespace_location", &format!("SELECT '{}'::text", at(&free)));
    run.expect_done().expect_said(&format!("\" in \"{}\", as on the source", at(&free)));
    assert!(free.is_dir());
}

/// Very many files: nothing is said of each, and the listing fits.
#[test]
fn very_many_files() {
    let sandbox = Sandbox::new();
    let liar = Liar::new(&sandbox);
    liar.lie(
        "pg_ls_dir",
        "SELECT * FROM pg_catalog.true_pg_ls_dir($1, $2, $3)
         UNION ALL SELECT 'base/many-' || n FROM generate_series(1, 200000) n WHERE $1 = '.'",
    );
    liar.define(
        "CREATE OR REPLACE",
        FUNCTIONS[1].0,
        FUNCTIONS[1].1,
        FUNCTIONS[1].2,
        "SELECT 3::bigint, now(), now(), now(), now(), false WHERE $1 LIKE 'base/many-%'
         UNION ALL SELECT s.* FROM pg_catalog.true_pg_stat_file($1, $2) s WHERE $1 NOT LIKE 'base/many-%'",
    );
    let run = liar.rewind().arg("--dry-run").run_leaving_target_alone();
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("copy whole files                    200"), "{run}");
    assert!(run.stderr.lines().count() < 10, "{run}");
}
