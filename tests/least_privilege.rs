//! The source is read by a role that may do three things and nothing else: what `kbrecover grants` prints.
//!
//!     old  ──── shared, CREATE ROLE rewind_user, GRANT ×3 ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── kept ── rewind as rewind_user ──▶

use crate::harness::{Failover, Rewind, Sandbox, Server, assert_follows, assert_sound, run_kbrecover};

/// The functions, as a GRANT names them.
pub const FUNCTIONS: [&str; 3] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// The SQL that `kbrecover grants` prints for a source of this version.
pub fn printed_grants(major: u32) -> String {
    let run = run_kbrecover(["grants", "--source-version", &major.to_string(), "--role", "rewind_user"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stderr.is_empty(), "{run}");
    run.stdout
}

/// A role that has what `kbrecover grants` gives it, and a table for the scenario.
pub fn create_role(server: &Server) {
    server.sql(&printed_grants(15));
    server.sql("CREATE TABLE entry (origin text)");
}

/// The source as that role sees it.
pub fn conninfo(server: &Server) -> String {
    server.conninfo().replace("user=postgres", "user=rewind_user")
}

#[test]
fn the_printed_grants_are_enough() {
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
    let rewind = |target: &Server| Rewind::of(target).arg("--source-server").arg(conninfo(&new));
    let compared = old.copy("compared");
    rewind(&compared).args(["--compare-data", "--verify"]).run().expect_compared();
    let directory = compared.data.to_str().expect("UTF-8");
    let run = run_kbrecover(["compare", "-D", directory, "--source-server", &conninfo(&new)]);
    assert_eq!(run.code, 0, "{run}");
    rewind(&old).run().expect_done();
    assert_follows(&mut old, &new);
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["kept", "shared"]);
    assert_sound(&mut old);
}

/// The SQL can be run again, and names can be anything. On every version it is run in tests/versions.rs.
#[test]
fn what_is_printed() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.server("server");
    server.start();
    for role in ["rewind_user", "it's \"odd\" $kbrecover$ \\", "ü"] {
        let run = run_kbrecover(["grants", "--source-version", "15.4", "--role", role]);
        assert_eq!(run.code, 0, "{run}");
        server.sql(&run.stdout);
        server.sql(&run.stdout);
        for function in FUNCTIONS {
            let quoted = role.replace('\'', "''");
            let granted = format!("SELECT has_function_privilege('{quoted}', '{function}', 'EXECUTE')");
            assert!(server.value::<bool>(&granted), "{role} {function}");
        }
    }
    let json = run_kbrecover(["grants", "--source-version", "15", "--format", "json"]).json();
    assert_eq!((&json["role"], json["sql"].as_str()), (&"rewind_user".into(), Some(&*printed_grants(15))));
    for version in ["9.6", "10", "9.6.24"] {
        let run = run_kbrecover(["grants", "--source-version", version]);
        assert!(run.stdout.contains("must be a superuser: before version 11"), "{run}");
    }
    for version in ["9.5", "20", "1", "150004", "x", ""] {
        let run = run_kbrecover(["grants", "--source-version", version]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{version}: {run}");
    }
}
