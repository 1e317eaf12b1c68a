//! Large objects live in catalogs of their own, and in no table of the user's.
//!
//!     old  ── 1, 2, 3 ──┬── overwrites 1, unlinks 2, creates 4 ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄ └── appends to 1, unlinks 3, creates 4 and 5 ──▶

use crate::harness::Feature;

/// Large objects.
pub const LARGE_OBJECTS: Feature = Feature {
    name: "large_objects",
    shared: |old| {
        old.sql(
            "SELECT lo_from_bytea(n, decode(repeat(md5(n::text), 4000), 'hex')) FROM generate_series(1, 3) n",
        );
        old.sql("CHECKPOINT");
    },
    lost: |old| {
        old.sql("SELECT lo_put(1, 1000, decode(repeat('00', 30000), 'hex')), lo_unlink(2)");
        old.sql("SELECT lo_from_bytea(4, decode(repeat('aa', 200000), 'hex'))");
    },
    kept: |new| {
        new.sql("SELECT lo_put(1, 64000, decode(repeat('11', 30000), 'hex')), lo_unlink(3)");
        new.sql("SELECT lo_from_bytea(n, decode(repeat('bb', 50000), 'hex')) FROM generate_series(4, 5) n");
    },
    check: |rewound, _| {
        let objects = rewound
            .column("SELECT oid || ': ' || length(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid");
        assert_eq!(objects, ["1: 94000", "2: 64000", "4: 50000", "5: 50000"]);
    },
};

#[test]
fn written_and_unlinked() {
    LARGE_OBJECTS.rewind_both_ways();
}
