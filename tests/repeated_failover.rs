//! Failover after failover: each time the primary that was lost is rewound and is the next one's standby.
//!
//!     x  ── 1 ──┬─╳ rewind ┄┄┄┄┄┬── 3 ──┬─╳ rewind ┄┄┄┄┄┄┬── 5 ──▶
//!     y  ┄┄┄┄┄┄ └── 2 ──────────┴─╳ ┄┄┄┄└── 4 ───────────┴─╳ rewind ┄▶     timelines 1 to 5
//!
//! Histories grow longer, old WAL of several timelines lies about, and clean and crashed, directory and server take turns.

use crate::harness::{Rewind, Sandbox, SourceKind, assert_follows, assert_sound, history_switch};

#[test]
fn timelines_1_to_5() {
    let sandbox = Sandbox::new();
    let (mut primary, mut standby) = sandbox.pair();
    primary.sql("CREATE TABLE entry (id serial PRIMARY KEY, origin text)");
    for timeline in 2..=5 {
        let old = timeline - 1;
        primary.sql(&format!(
            "INSERT INTO entry (origin) SELECT 'timeline {old}' FROM generate_series(1, 1000)"
        ));
        standby.catch_up(&primary);
        standby.promote();
        primary.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0");
        standby.sql(&format!("UPDATE entry SET origin = 'timeline {timeline}' WHERE id % 7 = 0"));
        let kind = if timeline % 2 == 0 { SourceKind::Server } else { SourceKind::Directory };
        match timeline {
            2 | 3 => primary.kill(),
            _ => primary.stop(),
        }
        if kind == SourceKind::Directory {
            standby.stop();
        }
        let fork = history_switch(&standby, timeline);
        let run = Rewind::of(&primary).from(&standby, kind).run().expect_done();
        run.expect_said(&format!("servers diverged at WAL location {fork} on timeline {old}"));
        if kind == SourceKind::Directory {
            standby.start();
        }
        assert_follows(&mut primary, &standby);
        std::mem::swap(&mut primary, &mut standby);
    }
    let origins = "SELECT DISTINCT origin FROM entry ORDER BY 1";
    let expected: Vec<String> = (1..=5).map(|timeline| format!("timeline {timeline}")).collect();
    assert_eq!(standby.column(origins), expected, "rows of every timeline, none of those lost");
    assert_sound(&mut standby);
}

/// The target missed a whole failover: it is still on timeline 1 when the source is on timeline 3.
///
///     x  ── 1 ──┬── lost ──╳                    rewind ┄┄▶
///     y  ┄┄┄┄┄┄ └── 2 ──┬──╳ never seen again
///     z  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── 3 ──────────────────────────▶
#[test]
fn a_timeline_the_target_never_saw() {
    let sandbox = Sandbox::new();
    let mut x = sandbox.server("x");
    let (mut y, mut z) = (x.copy("y"), x.copy("z"));
    x.start();
    y.follow(&x);
    y.start();
    z.follow(&y);
    z.start();
    x.sql("CREATE TABLE entry (id serial PRIMARY KEY, origin text); INSERT INTO entry (origin) SELECT '1' FROM generate_series(1, 1000)");
    z.catch_up(&x);
    y.promote();
    let fork = history_switch(&y, 2);
    x.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0");
    y.sql("UPDATE entry SET origin = '2' WHERE id % 4 = 0");
    z.catch_up(&y);
    z.promote();
    y.kill();
    z.sql("UPDATE entry SET origin = '3' WHERE id % 5 = 0");
    x.stop();
    let run = Rewind::of(&x).from(&z, SourceKind::Server).run().expect_done();
    run.expect_said(&format!("servers diverged at WAL location {fork} on timeline 1"));
    assert_follows(&mut x, &z);
    assert_eq!(x.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["1", "2", "3"]);
    assert_sound(&mut x);
}
