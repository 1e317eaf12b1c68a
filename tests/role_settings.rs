//! The role has settings that would break a careless client: limits of a millisecond, another search path, and more.
//!
//!     old  ── shared, ALTER ROLE rewind_user SET ... ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── kept ── rewind as rewind_user ──▶

use crate::harness::{Failover, Installation, Rewind, Sandbox, Server, assert_follows};
use crate::least_privilege::{conninfo, create_role};

const SETTINGS: &[(u32, &str)] = &[
    (0, "statement_timeout = '1ms'"),
    (0, "lock_timeout = '1ms'"),
    (0, "idle_in_transaction_session_timeout = '1ms'"),
    (14, "idle_session_timeout = '1ms'"),
    (17, "transaction_timeout = '1ms'"),
    (0, "search_path = traps, pg_catalog"),
    (0, "default_transaction_isolation = 'serializable'"),
    (0, "default_transaction_deferrable = on"),
    (0, "default_transaction_read_only = on"),
    (0, "bytea_output = 'escape'"),
    (0, "client_encoding = 'LATIN1'"),
    (0, "standard_conforming_strings = off"),
    (0, "row_security = off"),
    (0, "work_mem = '64kB'"),
    (0, "temp_file_limit = 0"),
    (0, "DateStyle = 'German'"),
    (0, "exit_on_error = on"),
];

fn create_settings(server: &Server) {
    create_role(server);
    server.sql(
        "CREATE SCHEMA traps; GRANT USAGE ON SCHEMA traps TO rewind_user;
         CREATE FUNCTION traps.pg_read_binary_file(text, bigint, bigint, boolean) RETURNS bytea
             LANGUAGE sql AS $$ SELECT 'trap'::bytea $$;
         CREATE FUNCTION traps.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    );
    for (since, setting) in SETTINGS {
        if server.installation.major >= *since {
            server.sql(&format!("ALTER ROLE rewind_user SET {setting}"));
        }
    }
}

fn rewind_as(failover: Failover) {
    let Failover { mut old, new } = failover;
    old.kill();
    Rewind::of(&old).arg("--source-server").arg(conninfo(&new)).run().expect_done();
    assert_follows(&mut old, &new);
}

fn lost(old: &Server) {
    old.sql("INSERT INTO entry SELECT 'lost' FROM generate_series(1, 3000)");
}

fn kept(new: &Server) {
    // So many files that a listing would not fit into 64 kB.
    new.sql("DO $$ BEGIN FOR n IN 1..500 LOOP EXECUTE format('CREATE TABLE t_%s ()', n); END LOOP; END $$");
    new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)");
}

#[test]
fn settings_of_the_role_do_not_matter() {
    let sandbox = Sandbox::new();
    rewind_as(Failover::new(&sandbox, create_settings, lost, kept));
}

#[test]
fn settings_of_the_role_do_not_matter_to_17() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(17), &[]));
    rewind_as(Failover::of(old, new, create_settings, lost, kept));
}

/// A standby refuses every serializable transaction.
#[test]
fn settings_of_the_role_do_not_matter_to_a_standby() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(&sandbox, create_settings, lost, kept);
    failover.new.stop();
    let mut standby = failover.new.copy("standby");
    failover.new.start();
    standby.follow(&failover.new);
    standby.start();
    standby.catch_up(&failover.new);
    failover.old.kill();
    Rewind::of(&failover.old).arg("--source-server").arg(conninfo(&standby)).run().expect_done();
    assert_follows(&mut failover.old, &failover.new);
}
