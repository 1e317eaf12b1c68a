//! A relation of more than 1 GB: its second segment file, `.1`, begins at block 131072.
//!
//!     big     [ 0 ......................... 131071 ][ 131072 ... ~134000 ]
//!                 lost, kept                           lost, kept, and each side adds pages

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

const BLOCKS_PER_SEGMENT: i64 = 131_072;
const ROWS: i64 = 134_000;

/// One row per page, frozen as it is loaded: no hint bit is ever set, whose full-page images would be 1 GB of WAL.
fn create(primary: &Server) {
    primary.sql(
        "CREATE TABLE big (id int, filler text DEFAULT repeat('x', 900)) WITH (fillfactor = 10);
         ALTER TABLE big ALTER filler SET STORAGE PLAIN",
    );
    primary.sql(&format!("TRUNCATE big; COPY big (id) FROM PROGRAM 'seq {ROWS}' WITH (FREEZE)"));
    let blocks = primary.value::<i64>("SELECT pg_relation_size('big') / 8192");
    assert!(blocks > BLOCKS_PER_SEGMENT + 1000, "big should reach into its second segment: {blocks} blocks");
}

fn change(server: &Server, origin: &str, remainder: i64) {
    // By position, not by value: the table has no index, and reading it all would take long.
    for block in (0..100)
        .map(|n| 50 + n * 7 + remainder)
        .chain((0..100).map(|n| BLOCKS_PER_SEGMENT + 50 + n * 7 + remainder))
    {
        server.sql(&format!("UPDATE big SET filler = '{origin}' WHERE ctid = '({block},1)'"));
    }
    server.sql(&format!(
        "INSERT INTO big SELECT -n, '{origin}' || repeat('y', 900) FROM generate_series(1, {}) n",
        200 + remainder * 100
    ));
}

#[test]
fn blocks_of_the_second_segment() {
    let sandbox = Sandbox::on_disk();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |old| {
            create(old);
            old.sql("CHECKPOINT");
        },
        |old| change(old, "lost", 1),
        |new| change(new, "kept", 3),
    );
    old.stop();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    let rows =
        |origin: &str| old.value::<i64>(&format!("SELECT count(*) FROM big WHERE filler LIKE '{origin}%'"));
    assert_eq!((rows("lost"), rows("kept"), rows("x")), (0, 700, ROWS - 200), "rows lost, kept and shared");
    assert_sound(&mut old);
}
