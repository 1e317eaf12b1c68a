//! The layouts of KingbaseES, simulated: stopped clusters of PostgreSQL get a fork's names, numbers and extra fields
//! (see `harness/disguise.rs`), are rewound, and become PostgreSQL's again to be started and compared.
//!
//!     old (12) ──── shared ────┬──── lost ──╳ killed, stopped ──▶ disguised ──▶ rewound ──▶ undisguised ──▶ follows
//!                              └──── kept ──╳ stopped ─────────▶ disguised: the source directory
//!
//! Of a running source the files cannot be disguised; there functions translate names on the way.

use crate::harness::{
    Disguise, Failover, Installation, KINGBASE_V8R6, Rewind, Run, Sandbox, Server, SourceKind,
    assert_follows, assert_same_content, assert_sound, control_of, remove_wal_files,
};

fn shared(primary: &Server) {
    primary.sql(
        "CREATE TABLE account (id int PRIMARY KEY, owner text);
         INSERT INTO account SELECT n, 'shared' FROM generate_series(1, 20000) n;
         CREATE TABLE far (id int, owner text) TABLESPACE far;
         INSERT INTO far SELECT n, 'shared' FROM generate_series(1, 20000) n;
         CREATE TABLE dropped_by_old AS SELECT n FROM generate_series(1, 1000) n",
    );
    primary.sql("CHECKPOINT");
}

fn lost(old: &Server) {
    old.sql(
        "UPDATE account SET owner = 'lost' WHERE id % 1000 = 0;
         UPDATE far SET owner = 'lost' WHERE id % 1000 = 0;
         DROP TABLE dropped_by_old;
         CREATE TABLE created_by_old AS SELECT n FROM generate_series(1, 500) n",
    );
    old.sql("CREATE DATABASE lost");
}

fn kept(new: &Server) {
    new.sql(
        "UPDATE account SET owner = 'kept' WHERE id % 1500 = 0;
         INSERT INTO far SELECT n, 'kept' FROM generate_series(20001, 21000) n",
    );
    new.sql("CREATE DATABASE kept");
}

/// An old primary, killed, and a new one, of version 12 with a tablespace.
fn failover(sandbox: &Sandbox) -> Failover {
    let space = sandbox.make_dir("space");
    let mut old = sandbox.initdb("old", Installation::of(12), &[]);
    old.start();
    old.sql(&format!("CREATE TABLESPACE far LOCATION '{}'", space.display()));
    old.stop();
    let (old, new) = sandbox.pair_of(old);
    let mut failover = Failover::of(old, new, shared, lost, kept);
    failover.old.kill();
    failover
}

/// Rewinds a disguised target from a disguised, stopped source, and proves that it follows it as PostgreSQL.
fn rewind_disguised(disguise: &Disguise, Failover { mut old, mut new }: Failover) -> Run {
    new.stop();
    for server in [&old, &new] {
        disguise.put_on(&server.data);
    }
    let run =
        Rewind::of(&old).from(&new, SourceKind::Directory).args(["--format", "json"]).run().expect_done();
    // In the tablespace, too, single blocks are copied and not whole files.
    let copied = run.json()["files"]["changed"].as_u64().expect("a number");
    assert!(copied >= 3, "{}", run.stdout);
    for server in [&old, &new] {
        disguise.take_off(&server.data);
    }
    new.start();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
    run
}

/// The target has no WAL at all, by which the magic number of its pages was known: it is taken from the source's.
#[test]
fn v8r6_without_any_wal_of_the_target() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    new.stop();
    let mut automatic = old.copy("automatic");
    let disguise = Disguise { wal_magic: 0xC612, ..KINGBASE_V8R6 };
    for server in [&old, &automatic, &new] {
        disguise.put_on(&server.data);
    }
    for target in [&old, &automatic] {
        remove_wal_files(&target.data.join("sys_wal"));
    }
    let plain = Rewind::of(&old).from(&new, SourceKind::Directory);
    plain.expect_refusal("could not open file", "--compare-data");
    for (server, option) in [(&old, "--compare-data"), (&automatic, "--compare-data=auto")] {
        Rewind::of(server).from(&new, SourceKind::Directory).arg(option).run().expect_compared();
    }
    for server in [&old, &automatic, &new] {
        disguise.take_off(&server.data);
    }
    new.start();
    for server in [&mut old, &mut automatic] {
        assert_follows(server, &new);
        assert_sound(server);
    }
}

#[test]
fn v8r6_stopped_source() {
    let sandbox = Sandbox::new();
    let run = rewind_disguised(&KINGBASE_V8R6, failover(&sandbox));
    assert!(!run.stderr.contains("page magic"), "{run}");
}

#[test]
fn v8r6_whose_wal_pages_have_an_unknown_magic_number() {
    let sandbox = Sandbox::new();
    let failover = failover(&sandbox);
    let disguise = Disguise { wal_magic: 0xC612, ..KINGBASE_V8R6 };
    let mut damaged = failover.old.copy("damaged");
    rewind_disguised(&disguise, failover)
        .expect_said("WAL page magic C612 is not known for KingbaseES V8R6 (PostgreSQL 12): accepted");

    // Another format under that number: what the checkpoint record should be is none.
    damaged.start();
    damaged.stop();
    let other = damaged.copy("other");
    for server in [&damaged, &other] {
        disguise.put_on(&server.data);
    }
    let control = control_of(&damaged.data, &disguise);
    let (size, at) = (control.geometry().segment_size, control.checkpoint_lsn());
    let name = size.file_name(control.timeline(), size.segment_of(at));
    let path = damaged.data.join("sys_wal").join(name);
    let mut bytes = std::fs::read(&path).expect("read a segment");
    bytes[size.offset_of(at) + 20] ^= 1;
    std::fs::write(&path, bytes).expect("write a segment");
    Rewind::of(&damaged).from(&other, SourceKind::Directory).expect_refusal(
        "page magic C612, control file version 1201, catalog version 202211151",
        "new base backup",
    );
}

/// What a running server of PostgreSQL 12 needs to look like one of the fork: functions of the fork's names, which
/// translate file names, and a role that may use no others.
const WRAPPERS: &str = r#"
CREATE SCHEMA sys_catalog;
CREATE FUNCTION sys_catalog.renamed(path text, to_sys boolean) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(CASE
        WHEN to_sys THEN regexp_replace(regexp_replace(regexp_replace(part, '^pg_', 'sys_'), '^PG_', 'SYS_'), '^(postgresql|postmaster)\.', 'kingbase.')
        -- There are no files of PostgreSQL's names.
        WHEN part ~ '^(pg_|PG_|postgresql\.|postmaster\.)' THEN 'hidden'
        ELSE regexp_replace(regexp_replace(regexp_replace(regexp_replace(part, '^sys_', 'pg_'), '^SYS_', 'PG_'), '^kingbase\.(pid|opts)$', 'postmaster.\1'), '^kingbase\.', 'postgresql.')
    END, '/' ORDER BY n) FROM unnest(string_to_array(path, '/')) WITH ORDINALITY AS p (part, n) $$;
CREATE FUNCTION sys_catalog.sys_ls_dir(text, boolean, boolean) RETURNS SETOF text SECURITY DEFINER LANGUAGE sql AS $$
    SELECT sys_catalog.renamed(name, true) FROM pg_ls_dir(sys_catalog.renamed($1, false), $2, $3) AS d (name) $$;
CREATE FUNCTION sys_catalog.sys_stat_file(text, boolean, OUT size bigint, OUT isdir boolean) SECURITY DEFINER LANGUAGE sql AS $$
    SELECT s.size, s.isdir FROM pg_stat_file(sys_catalog.renamed($1, false), $2) AS s $$;
CREATE FUNCTION sys_catalog.sys_read_binary_file(text, bigint, bigint, boolean) RETURNS bytea SECURITY DEFINER LANGUAGE sql AS $$
    SELECT pg_read_binary_file(sys_catalog.renamed($1, false), $2, $3, $4) $$;
CREATE FUNCTION sys_catalog.sys_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT pg_is_in_recovery()';
CREATE FUNCTION sys_catalog.sys_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT pg_current_wal_insert_lsn()';
CREATE FUNCTION sys_catalog.sys_current_wal_flush_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT pg_current_wal_flush_lsn()';
CREATE FUNCTION sys_catalog.sys_last_wal_receive_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT pg_last_wal_receive_lsn()';
CREATE FUNCTION sys_catalog.sys_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT pg_last_wal_replay_lsn()';
CREATE FUNCTION sys_catalog.sys_tablespace_location(oid) RETURNS text LANGUAGE sql AS 'SELECT pg_tablespace_location($1)';
CREATE VIEW sys_catalog.sys_tablespace AS SELECT oid, spcname FROM pg_tablespace;
CREATE VIEW sys_catalog.sys_settings AS SELECT * FROM pg_settings;
CREATE ROLE rewinder LOGIN REPLICATION;
GRANT USAGE ON SCHEMA sys_catalog TO rewinder;
GRANT SELECT ON ALL TABLES IN SCHEMA sys_catalog TO rewinder;
"#;

/// A server with V8R3's names of positions, and without some of the fork's other names: PostgreSQL's stand in.
const OLDER_NAMES: &str = "
ALTER FUNCTION sys_catalog.sys_current_wal_insert_lsn() RENAME TO sys_current_xlog_insert_location;
ALTER FUNCTION sys_catalog.sys_current_wal_flush_lsn() RENAME TO sys_current_xlog_flush_location;
ALTER FUNCTION sys_catalog.sys_last_wal_receive_lsn() RENAME TO sys_last_xlog_receive_location;
ALTER FUNCTION sys_catalog.sys_last_wal_replay_lsn() RENAME TO sys_last_xlog_replay_location;
DROP VIEW sys_catalog.sys_tablespace, sys_catalog.sys_settings;
DROP FUNCTION sys_catalog.sys_is_in_recovery, sys_catalog.sys_tablespace_location";

#[test]
fn v8r6_running_source() {
    // The source's own control file and WAL are PostgreSQL's, so the target's are, too.
    let disguise = Disguise {
        catalog_version: 201_909_212,
        control_tail: &[],
        version_dir: "SYS_12_201909212",
        shifts_rmgrs: false,
        ..KINGBASE_V8R6
    };
    let sandbox = Sandbox::new();
    let Failover { old: mut one, new } = failover(&sandbox);
    let mut other = one.copy("other");
    let source = format!(
        "host={} port={} user=rewinder dbname=postgres target_session_attrs=read-write",
        new.host(),
        new.port
    );
    for (server, functions) in [(&mut one, WRAPPERS), (&mut other, OLDER_NAMES)] {
        new.sql(functions);
        disguise.put_on(&server.data);
        let rewind = || Rewind::of(server).args(["--source-server", &source, "-R"]);
        if functions == WRAPPERS {
            new.sql("REVOKE EXECUTE ON FUNCTION sys_catalog.sys_stat_file FROM PUBLIC");
            let lacks = "lacks EXECUTE privilege in database \"postgres\" of the source server on: sys_catalog.sys_stat_file(";
            rewind().expect_refusal(lacks, "As a superuser, run in database \"postgres\"");
            new.sql("GRANT EXECUTE ON FUNCTION sys_catalog.sys_stat_file TO rewinder");
        }
        rewind().run().expect_done();
        let settings =
            std::fs::read_to_string(server.data.join("kingbase.auto.conf")).expect("read the settings");
        assert!(
            settings.contains("primary_conninfo = '") && settings.contains("user=rewinder"),
            "{settings}"
        );
        disguise.take_off(&server.data);
        server.start();
        assert!(server.value::<bool>("SELECT pg_is_in_recovery()"), "-R makes a standby");
        server.catch_up(&new);
        assert_same_content(server, &new);
        assert_sound(server);
    }
}

#[test]
fn both_sides_must_be_of_one_flavor() {
    let sandbox = Sandbox::new();
    let Failover { old, mut new } = failover(&sandbox);
    new.stop();
    KINGBASE_V8R6.put_on(&old.data);
    Rewind::of(&old).from(&new, SourceKind::Directory).expect_refusal(
        "flavor is PostgreSQL in source and KingbaseES V8R6 in target",
        "same product and version",
    );
    // One that is both is neither.
    old.write(
        "global/pg_control",
        std::fs::read(new.data.join("global/pg_control")).expect("read pg_control"),
    );
    old.make_dir("pg_wal");
    Rewind::of(&old)
        .from(&new, SourceKind::Directory)
        .expect_refusal("looks like more than one product: PostgreSQL, KingbaseES V8R6", "--flavor");
}
