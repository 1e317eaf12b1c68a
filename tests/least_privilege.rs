//! The source is read by a role that may do four things and nothing else.
//!
//!     old  ──── shared, CREATE ROLE rewind_user, GRANT ×4 ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── kept ── rewind as rewind_user ──▶

use crate::harness::{Failover, Rewind, Sandbox, Server, assert_follows, assert_sound};

/// The functions, as a GRANT names them.
pub const FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// A role that may log in and call the four functions, and a table for the scenario.
pub fn create_role(server: &Server) {
    server.sql("CREATE ROLE rewind_user LOGIN; CREATE TABLE entry (origin text)");
    for function in FUNCTIONS {
        server.sql(&format!("GRANT EXECUTE ON FUNCTION {function} TO rewind_user"));
    }
}

/// The source as that role sees it.
pub fn conninfo(server: &Server) -> String {
    server.conninfo().replace("user=postgres", "user=rewind_user")
}

#[test]
fn four_grants_are_enough() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |old| {
            create_role(old);
            old.sql("INSERT INTO entry SELECT 'shared' FROM generate_series(1, 3000)");
        },
        |old| old.sql("INSERT INTO entry SELECT 'lost' FROM generate_series(1, 3000)"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    old.kill();
    Rewind::of(&old).arg("--source-server").arg(conninfo(&new)).run().expect_done();
    assert_follows(&mut old, &new);
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["kept", "shared"]);
    assert_sound(&mut old);
}
