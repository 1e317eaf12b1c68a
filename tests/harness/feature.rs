//! One feature of the data in a cluster, and what both sides do with it after the fork.

use super::failover::Failover;
use super::sandbox::Sandbox;
use super::server::Server;

/// A scenario in four parts. Each runs in the database the server is set to, so that many features fit one cluster.
pub struct Feature {
    /// A name; also of its database, where many come together.
    pub name: &'static str,
    /// Runs on the primary before the fork.
    pub shared: fn(&Server),
    /// Runs on the old primary after the fork: none of it may be left.
    pub lost: fn(&Server),
    /// Runs on the new primary after the fork: all of it must arrive.
    pub kept: fn(&Server),
    /// Looks at the rewound node while it follows the second server, the source. That the content of both is equal has
    /// been proved before. It runs twice.
    pub check: fn(&Server, &Server),
}

impl Feature {
    /// The whole scenario with this feature alone: a failover, and the old primary rewound both ways.
    pub fn rewind_both_ways(&self) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair();
        Failover::of(old, new, self.shared, self.lost, self.kept).rewind_both_ways(self.check);
    }
}
