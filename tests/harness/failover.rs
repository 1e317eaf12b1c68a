//! The common beginning of most scenarios: a primary and its standby, then two histories.
//!
//!     old  ──── shared ────┬──── lost ────      timeline 1: the target
//!                          │
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ────      timeline 2: the source

use super::kbrecover::{Rewind, SourceKind};
use super::sandbox::Sandbox;
use super::seed::replay_from;
use super::server::Server;
use super::verify::{assert_follows, assert_sound};
use super::wal::{Lsn, history_switch};

/// An old primary and a new one.
pub struct Failover {
    /// The primary of timeline 1, and the target of the rewind.
    pub old: Server,
    /// Its standby, promoted to timeline 2: the source of the rewind.
    pub new: Server,
}

impl Failover {
    /// Starts both, `shared` runs on the primary and reaches the standby, the standby is promoted, `lost` runs on the
    /// old primary, `kept` on the new one.
    pub fn new(
        sandbox: &Sandbox,
        shared: impl Fn(&Server),
        lost: impl Fn(&Server),
        kept: impl Fn(&Server),
    ) -> Failover {
        let (old, new) = sandbox.pair();
        Failover::of(old, new, shared, lost, kept)
    }

    /// The plainest one: a table that both have, rows changed on the old primary and added on the new. The old primary
    /// is then stopped in order.
    pub fn of_one_table(sandbox: &Sandbox) -> Failover {
        let (old, new) = sandbox.pair();
        Failover::of_one_table_in(old, new)
    }

    /// The same with a running pair of the scenario's own making.
    pub fn of_one_table_in(old: Server, new: Server) -> Failover {
        let mut failover = Failover::of(
            old,
            new,
            |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
            |old| old.sql("UPDATE entry SET origin = 'lost'"),
            |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
        );
        failover.old.stop();
        failover
    }

    /// As [`Failover::new`], with a running pair of the scenario's own making.
    pub fn of(
        old: Server,
        new: Server,
        shared: impl Fn(&Server),
        lost: impl Fn(&Server),
        kept: impl Fn(&Server),
    ) -> Failover {
        let mut failover = Failover { old, new };
        shared(&failover.old);
        failover.fail_over();
        lost(&failover.old);
        kept(&failover.new);
        if replay_from() == "newest" {
            // So that replay has none of this: what the source changed must be copied.
            failover.new.sql("CHECKPOINT");
        }
        failover
    }

    /// Promotes the standby once it has everything. The old primary goes on and knows nothing of it.
    pub fn fail_over(&mut self) {
        self.new.catch_up(&self.old);
        self.new.promote();
    }

    /// A further failover, to a copy of the new primary that has followed it until it had everything. The new primary
    /// goes on and knows nothing of it.
    pub fn promote_another(&mut self, name: &str) -> Server {
        self.new.stop();
        let mut another = self.new.copy(name);
        self.new.start();
        another.follow(&self.new);
        another.start();
        another.catch_up(&self.new);
        another.promote();
        another
    }

    /// Where the histories part: the last switch in the new primary's history.
    pub fn fork(&self) -> Lsn {
        history_switch(&self.new, 2)
    }

    /// Rewinds the old primary twice, each time to the end: as kill -9 left it, from the running source; and shut down
    /// in order, from the stopped source's directory. `check` looks at each rewound node while it follows the source.
    pub fn rewind_both_ways(self, check: impl Fn(&Server, &Server)) {
        let Failover { old: mut crashed, mut new } = self;
        crashed.kill();
        let mut clean = crashed.copy("clean");
        clean.start();
        clean.stop();

        Rewind::of(&crashed).from(&new, SourceKind::Server).run().expect_done();
        settle(&mut crashed, &new, &check);

        new.stop();
        Rewind::of(&clean).from(&new, SourceKind::Directory).run().expect_done();
        new.start();
        settle(&mut clean, &new, &check);
    }
}

fn settle(rewound: &mut Server, source: &Server, check: &impl Fn(&Server, &Server)) {
    assert_follows(rewound, source);
    check(rewound, source);
    assert_sound(rewound);
}
