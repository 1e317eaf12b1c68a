//! The same command again, after it has done its work and before the server was started.
//!
//!     old  ──┬── lost ──╳  rewind  rewind again  start ┄┄▶
//!     new    └── kept ───────────────── more ────────────▶
//!
//! The second run sees a rewound directory, touches nothing and says success: a cluster manager that lost the first
//! answer may simply ask again.

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

fn rewind_twice(kind: SourceKind, end_of_target: fn(&mut Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::new(
        &sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    end_of_target(&mut old);
    if kind == SourceKind::Directory {
        new.stop();
    }
    Rewind::of(&old).from(&new, kind).run().expect_done();
    let again = || Rewind::of(&old).from(&new, kind).args(["--format", "json"]).run_leaving_target_alone();
    let run = again();
    assert_eq!(run.code, 0, "exit code of the second run\n{run}");
    assert_eq!(run.json()["outcome"], "already_rewound", "{run}");

    if kind == SourceKind::Directory {
        new.start();
    } else {
        // The source moves on, as a live one does: still nothing needs doing.
        new.sql("INSERT INTO entry SELECT 'more' FROM generate_series(1, 3000)");
        new.sql("CHECKPOINT");
        assert_eq!(again().code, 0, "exit code of the third run");
    }
    assert_follows(&mut old, &new);
    assert_eq!(old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 0);
    assert_sound(&mut old);
}

#[test]
fn running_source() {
    rewind_twice(SourceKind::Server, Server::kill);
}

#[test]
fn stopped_source() {
    rewind_twice(SourceKind::Directory, Server::stop);
}
