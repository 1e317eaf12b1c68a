//! The source has been promoted a moment ago: its control file still speaks of the old timeline.
//!
//!     old  ──── shared ────┬──── lost ────╳                  timeline 1
//!                          │
//!     new  ┄┄┄ streams ┄┄┄ └ promoted ── rewind ─────▶       timeline 2, but pg_control: checkpoint on timeline 1
//!
//! Taken at the checkpoint's word, both are on timeline 1 and nothing needs doing. minRecoveryPointTLI tells the truth.

use crate::harness::{Rewind, Sandbox, SourceKind, assert_follows, assert_sound};

#[test]
fn no_checkpoint_since() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    // The checkpoint that follows a promotion is spread over checkpoint_timeout: with many pages to write, each after a
    // pause, it does not end within this test.
    old.configure("shared_buffers = 64MB\ncheckpoint_timeout = 1h\nbgwriter_lru_maxpages = 0");
    let mut new = old.copy("new");
    old.start();
    new.follow(&old);
    new.start();
    old.sql("CREATE TABLE entry AS SELECT n AS id, repeat('shared', 100) AS origin FROM generate_series(1, 20000) n");
    new.catch_up(&old);
    new.promote();
    old.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0");
    new.sql("UPDATE entry SET origin = 'kept' WHERE id % 4 = 0");
    old.stop();

    let timeline = |server: &crate::harness::Server| {
        server.value::<i32>("SELECT timeline_id FROM pg_control_checkpoint()")
    };
    assert_eq!(timeline(&new), 1, "the scenario needs a source without a checkpoint on its new timeline");
    let mut compared = old.copy("compared");
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    Rewind::of(&compared).from(&new, SourceKind::Server).arg("--compare-data").run().expect_compared();
    assert_eq!(
        timeline(&new),
        1,
        "the scenario needs a source without a checkpoint on its new timeline, to the end"
    );

    // Its pages are many and the checkpoint is slow: have it over before the node is looked at.
    new.sql("CHECKPOINT");
    for node in [&mut old, &mut compared] {
        assert_follows(node, &new);
        let lost = "SELECT count(*) FROM entry WHERE origin = 'lost'";
        assert_eq!(node.value::<i64>(lost), 0, "rows of the old primary alone");
        assert_sound(node);
    }
}
