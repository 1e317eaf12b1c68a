//! `apply.sql` and foreign keys: no row is left that refers to one that is not there.
//!
//!     old  ──── shared ────┬──── lost: parents deleted and renumbered, children written ────╳ kill -9
//!     new  ┄┄┄ streams ┄┄┄ └──── kept: the other way round ─────────────────────────────────▶ apply.sql

use std::collections::BTreeMap;

use crate::harness::{Failover, Installation, Sandbox, Server, SourceKind, pick};
use crate::lost_rows::{apply, lost};

const TABLES: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, name text UNIQUE);
    CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent);
    CREATE TABLE grandchild (id int PRIMARY KEY, child int REFERENCES child ON DELETE CASCADE);
    CREATE TABLE pair (a int, b text, PRIMARY KEY (a, b));
    CREATE TABLE of_pair (id int PRIMARY KEY, a int, b text, FOREIGN KEY (a, b) REFERENCES pair);
    CREATE TABLE self (id int PRIMARY KEY, boss int REFERENCES self);
    INSERT INTO parent SELECT n, 'parent ' || n FROM generate_series(1, 9) n;
    INSERT INTO child VALUES (90, 9);
    INSERT INTO pair VALUES (1, 'x'), (2, 'x');
    INSERT INTO self VALUES (1, NULL), (2, 1);
    CREATE TABLE odd (a boolean, b inet, c numeric, PRIMARY KEY (a, b, c));
    CREATE TABLE of_odd (id int PRIMARY KEY, a boolean, b inet, c numeric, FOREIGN KEY (a, b, c) REFERENCES odd);
    INSERT INTO odd VALUES (true, '10.0.0.1', 1.0);
    CREATE TABLE word (id text COLLATE \"C\" PRIMARY KEY);
    CREATE TABLE of_word (id int PRIMARY KEY, word text COLLATE \"POSIX\" REFERENCES word);
    CREATE TABLE ordered (id int PRIMARY KEY, place int UNIQUE DEFERRABLE);
    INSERT INTO ordered VALUES (1, 1), (2, 2);
    CREATE TABLE twice (id int PRIMARY KEY, n int);
    INSERT INTO twice VALUES (1, 1);
    SET session_replication_role = replica;
    INSERT INTO child VALUES (99, 99)";

/// Tables that are partitioned can be referred to from 12 on.
const PARTITIONED: &str = "
    CREATE TABLE area (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE area_1 PARTITION OF area FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop (id int PRIMARY KEY, area int REFERENCES area) PARTITION BY RANGE (id);
    CREATE TABLE shop_1 PARTITION OF shop FOR VALUES FROM (0) TO (100);
    INSERT INTO area VALUES (1), (2), (3)";

fn lose(old: &Server) {
    for sql in [
        // The new primary deletes the parent.
        "INSERT INTO child VALUES (1, 1)",
        // The new primary adds a child.
        "DELETE FROM parent WHERE id = 2",
        "UPDATE parent SET id = 30 WHERE id = 3",
        // The new primary has that name, so this parent is a conflict, and so are those that hang on it.
        "INSERT INTO parent VALUES (40, 'taken'); INSERT INTO child VALUES (40, 40); INSERT INTO grandchild VALUES (40, 40)",
        // All of this fits.
        "INSERT INTO parent VALUES (50, 'free'); INSERT INTO child VALUES (50, 50), (51, 5); INSERT INTO grandchild VALUES (50, 50)",
        "DELETE FROM child WHERE id = 90; DELETE FROM parent WHERE id = 9",
        "INSERT INTO of_pair VALUES (1, 1, 'x'), (2, 2, 'x'), (3, NULL, 'y')",
        "DELETE FROM odd; INSERT INTO word VALUES ('a'); INSERT INTO of_word VALUES (1, 'a')",
        // The new primary has this place; the server checks such a constraint later.
        "UPDATE ordered SET place = 5 WHERE id = 1",
        // The new primary has two of this row.
        "DELETE FROM twice",
        "UPDATE self SET boss = NULL WHERE id = 2; DELETE FROM self WHERE id = 1",
    ] {
        old.sql(sql);
    }
}

fn keep(new: &Server) {
    new.sql(
        "DELETE FROM parent WHERE id = 1; INSERT INTO child VALUES (2, 2), (3, 3);
         INSERT INTO parent VALUES (41, 'taken'); DELETE FROM pair WHERE a = 2; INSERT INTO self VALUES (3, 1);
         INSERT INTO of_odd VALUES (1, true, '10.0.0.1', 1.00); UPDATE ordered SET place = 5 WHERE id = 2;
         ALTER TABLE twice DROP CONSTRAINT twice_pkey; INSERT INTO twice VALUES (1, 1)",
    );
}

/// The conflicts by table, operation and the `id` of the row, with the beginning of the reason.
fn conflicts(server: &Server) -> BTreeMap<String, String> {
    let lines = server.column(
        "SELECT concat(table_name, ' ', op, ' ', coalesce(before, wanted)::json ->> 'id', ': ', problem) FROM kb_lost.conflict",
    );
    let parts = lines.iter().filter_map(|line| line.split_once(": "));
    parts.map(|(change, problem)| (change.to_owned(), problem.to_owned())).collect()
}

/// Tables and those they refer to, with the condition that says which row. The last one is partitioned.
const REFERENCES: [(&str, &str, &str); 7] = [
    // One was without before.
    ("child", "parent", "child.parent = parent.id OR child.id = 99"),
    ("of_odd", "odd", "(of_odd.a, of_odd.b, of_odd.c) = (odd.a, odd.b, odd.c)"),
    ("of_word", "word", "of_word.word = word.id COLLATE \"C\""),
    ("grandchild", "child", "grandchild.child = child.id"),
    ("of_pair", "pair", "(of_pair.a IS NULL OR of_pair.a = pair.a AND of_pair.b = pair.b)"),
    ("self", "self AS boss", "(self.boss IS NULL OR self.boss = boss.id)"),
    ("shop", "area", "shop.area = area.id"),
];

/// Conflicts, with the beginning and the end of the reason. The last two are of partitioned tables.
const CONFLICTS: [(&str, &str, &str); 13] = [
    ("public.child insert 1", "foreign key \"child_parent_fkey\": public.parent", " has no row with (1)"),
    ("public.parent delete 2", "foreign key \"child_parent_fkey\"", ": a row of public.child refers to it"),
    ("public.parent update 3", "foreign key \"child_parent_fkey\"", ": a row of public.child refers to it"),
    ("public.parent insert 40", "a row with the same key", " or unique value is there"),
    ("public.child insert 40", "foreign key \"child_parent_fkey\"", ": public.parent has no row with (40)"),
    (
        "public.grandchild insert 40",
        "foreign key \"grandchild_child_fkey\"",
        ": public.child has no row with (40)",
    ),
    ("public.of_pair insert 2", "foreign key \"of_pair_a_", "public.pair has no row with (2, x)"),
    ("public.odd delete ", "foreign key \"of_odd_a_", ": a row of public.of_odd refers to it"),
    ("public.ordered update 1", "a unique constraint", "deferrable cannot be checked here"),
    ("public.twice delete 1", "several rows match", ""),
    ("public.self delete 1", "foreign key \"self_boss_fkey\"", ": a row of public.self refers to it"),
    ("public.shop_1 insert 1", "foreign key \"shop_area_fkey\"", ": public.area has no row with (1)"),
    ("public.area_1 delete 2", "foreign key \"shop_area_fkey\"", ": a row of public.shop refers to it"),
];

fn failover(sandbox: &Sandbox, major: u32, is_partitioned: bool) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    let shared = |old: &Server| {
        old.sql(TABLES);
        if is_partitioned {
            old.sql(PARTITIONED);
        }
    };
    let lost_there = |old: &Server| {
        lose(old);
        if is_partitioned {
            old.sql("INSERT INTO shop VALUES (1, 1), (3, 3)");
            old.sql("DELETE FROM area WHERE id = 2");
        }
    };
    let kept_there = |new: &Server| {
        keep(new);
        if is_partitioned {
            new.sql("DELETE FROM area WHERE id = 1; INSERT INTO shop VALUES (2, 2)");
        }
    };
    Failover::of(old, new, shared, lost_there, kept_there)
}

#[test]
fn no_row_refers_to_one_that_is_not_there() {
    for major in pick("lost rows and foreign keys: version", &[10, 12, 15, 18]) {
        let sandbox = Sandbox::new();
        let is_partitioned = major >= 12;
        let Failover { mut old, new } = failover(&sandbox, major, is_partitioned);
        old.kill();
        let directory = sandbox.path("lost");
        let run = lost(&old, &new, SourceKind::Server, &["--export", directory.to_str().expect("UTF-8")]);
        assert_eq!(run.code, 0, "{run}");
        apply(&new, &directory.join("apply.sql"));

        let (references, expected) = match is_partitioned {
            true => (&REFERENCES[..], &CONFLICTS[..]),
            false => (&REFERENCES[..REFERENCES.len() - 1], &CONFLICTS[..CONFLICTS.len() - 2]),
        };
        for (from, to, condition) in references {
            let sql = format!(
                "SELECT count(*) FROM {from} WHERE NOT EXISTS (SELECT 1 FROM {to} WHERE {condition})"
            );
            assert_eq!(new.value::<i64>(&sql), 0, "{major}: rows of {from} without one of {to}");
        }
        let found = conflicts(&new);
        for (change, begins, ends) in expected {
            let problem = found.get(*change).map_or("no conflict", String::as_str);
            assert!(problem.starts_with(begins) && problem.ends_with(ends), "{major}: {change}: {problem}");
        }
        assert_eq!(found.len(), expected.len(), "{major}: {found:?}");
        assert_eq!(new.value::<i64>("SELECT count(*) FROM twice"), 2, "{major}: rows of which one was meant");
        let given_back = "SELECT count(*) FROM child WHERE id IN (50, 51)";
        assert_eq!(new.value::<i64>(given_back), 2, "{major}: rows that fit");
        assert_eq!(new.value::<i64>("SELECT count(*) FROM parent WHERE id = 9"), 0, "{major}");
    }
}
