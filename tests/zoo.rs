//! Everything at once: one failover with all features of the data, rewound through both kinds of source.
//!
//!     old  ── one database per feature, a tablespace, ── lost, in every one ──╳ kill -9
//!             pg_wal elsewhere, open to the group
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── kept, in every one ──▶

use crate::harness::{Failover, Feature, Load, Sandbox, Server};
use crate::{
    databases, extra_files, group_access, index_types, large_objects, pg_wal_symlink, prepared_transactions,
    sizes,
};
use crate::{tablespaces, unlogged_tables};

const FEATURES: [&Feature; 8] = [
    &sizes::SIZES,
    &index_types::INDEX_TYPES,
    &databases::DATABASES,
    &tablespaces::IN_PLACE,
    &unlogged_tables::UNLOGGED_TABLES,
    &prepared_transactions::PREPARED_TRANSACTIONS,
    &large_objects::LARGE_OBJECTS,
    &extra_files::EXTRA_FILES,
];

#[test]
fn all_features_together() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    group_access::allow_group_access(&old);
    pg_wal_symlink::move_wal_out(&old);
    old.start();
    let space = sandbox.make_dir("space");
    old.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    for feature in FEATURES {
        old.sql(&format!("CREATE DATABASE {} TABLESPACE space", feature.name));
    }
    // The standby is a cold copy: it gets the directories of its own that a base backup would give it.
    old.stop();
    let mut new = old.copy("new");
    old.start();
    new.follow(&old);
    new.start();

    let each = |server: &Server, part: fn(&Feature) -> fn(&Server)| {
        for feature in FEATURES {
            part(feature)(&server.in_database(feature.name));
        }
    };
    let load = Load::start(&old);
    let failover = Failover::of(
        old,
        new,
        |old| each(old, |feature| feature.shared),
        |old| each(old, |feature| feature.lost),
        |new| each(new, |feature| feature.kept),
    );
    load.wait_for_commits(20);
    failover.rewind_both_ways(|rewound, source| {
        for feature in FEATURES {
            (feature.check)(&rewound.in_database(feature.name), &source.in_database(feature.name));
        }
    });
    load.join();
}
