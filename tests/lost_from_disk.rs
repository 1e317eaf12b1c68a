//! `kbrecover lost` where WAL has no images of blocks: rows come from the blocks on disk, and are marked so. What is not known is
//! left out, and nothing is made up.
//!
//!     old  ── full_page_writes off ── C ──┬── lost ──╳
//!     new                                 └── as it was promoted

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Failover, Installation, Sandbox, Server, SourceKind, pick};
use crate::lost_rows::{
    Rows, add, changes, failover_with, listing, lost, objects, row_of, rows_of, tables, text,
};
use crate::truth_full_pages::set_full_page_writes;

const VERSIONS: [u32; 10] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// Up to 13 the first hint bit of a block has its image logged, whatever the setting says. From this version on none has.
const FIRST_WITHOUT_HINTS: u32 = 15;

fn without_images(old: &Server) {
    set_full_page_writes(old, "off");
    old.sql("CHECKPOINT");
}

/// The two sides of a table that the listing makes equal; and how many rows of each are not known.
#[derive(Default)]
struct Sides {
    left: Rows,
    right: Rows,
    unknown: (usize, usize),
}

impl Sides {
    fn see(&mut self, change: &Value, columns: &[String]) {
        let is_known = change["quality"] != "incomplete";
        if change["op"] != "insert" {
            match is_known {
                true => add(&mut self.left, row_of(&change["old"], columns), 1),
                false => self.unknown.0 += 1,
            }
        }
        if change["op"] != "delete" {
            match is_known {
                true => add(&mut self.right, row_of(&change["new"], columns), 1),
                false => self.unknown.1 += 1,
            }
        }
    }

    /// What only one of the sides has can only be what is not known of the other one.
    fn assert_balanced(mut self, table: &str) {
        for (row, count) in self.right {
            add(&mut self.left, row, -count);
        }
        let sum = |sign: i64| self.left.values().map(|count| (count * sign).max(0)).sum::<i64>() as usize;
        let (only_left, only_right) = (sum(1), sum(-1));
        assert!(
            only_left <= self.unknown.1 && only_right <= self.unknown.0,
            "{table}: {only_left} rows on the left, {only_right} on the right, {:?} unknown: {:#?}",
            self.unknown,
            self.left.iter().filter(|(_, count)| **count != 0).collect::<Vec<_>>()
        );
    }
}

/// Whether a table's name is not known, and it has the number of its file: the row of `pg_class` is gone.
fn is_unnamed(change: &Value) -> bool {
    let is_unnamed =
        change["table"].as_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    assert!(!is_unnamed || change["quality"] == "incomplete", "{change}");
    is_unnamed
}

/// How many changes have each quality.
fn qualities(listing: &Value) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for quality in changes(listing).into_iter().filter_map(|(_, change)| change["quality"].as_str()) {
        *counts.entry(quality).or_default() += 1;
    }
    counts
}

#[test]
fn rows_and_names_are_right_without_images() {
    for major in pick("lost rows without images: version", &VERSIONS) {
        for is_killed in [true, false] {
            let sandbox = Sandbox::new();
            let Failover { old, new } = failover_with(&sandbox, major, is_killed, &[], &without_images);
            let listing = listing(&lost(&old, &new, SourceKind::Server, &[]));
            let mut alone = old.copy("alone");
            alone.start();
            let (ours, theirs) = (tables(&alone), tables(&new));
            let mut compared = 0;
            for (table, columns) in &ours {
                if theirs.get(table) != Some(columns) || table == "public.truncated" {
                    continue;
                }
                let mut sides = Sides {
                    left: rows_of(&alone, table, columns),
                    right: rows_of(&new, table, columns),
                    ..Sides::default()
                };
                let of_database =
                    changes(&listing).into_iter().filter(|(of, _)| of["database"] == "postgres");
                let may_be = |change: &Value| change["table"] == table.as_str() || is_unnamed(change);
                of_database.filter(|(_, of)| may_be(of)).for_each(|(_, of)| sides.see(of, columns));
                sides.assert_balanced(table);
                compared += 1;
            }
            assert_eq!(compared, if major >= 12 { 11 } else { 10 }, "{major}: tables");
            // Of a definition that is gone it is only known that it was altered.
            let found = objects(&listing);
            let is_listed = |ops: &[&str], name: &str| {
                ops.iter().any(|op| found.contains(&format!("{op} table public.{name}")))
            };
            for (name, op) in [
                ("made", "create"),
                ("altered", "alter"),
                ("\"Re named\"", "alter"),
                ("truncated", "truncate"),
                ("clustered", "rewrite"),
            ] {
                assert!(is_listed(&[op, "alter"], name), "{major}: {op} {name} is not in {found:#?}");
                assert!(op == "create" || !is_listed(&["create"], name), "{major}: {name}: {found:#?}");
            }
            assert!(found.contains("create database third"), "{found:#?}");
            let counts = qualities(&listing);
            #[expect(clippy::print_stdout, reason = "how much is known is part of the result")]
            {
                println!("version {major}, killed: {is_killed}: {counts:?}");
            }
            let of = |quality: &str| counts.get(quality).copied().unwrap_or_default();
            assert!(of("from_disk") > 0 && of("exact") > 500, "{counts:?}");
        }
    }
}

/// Each row says what it is, so that one with parts of another is found out; and rows of one key follow each other.
#[test]
fn no_row_is_made_of_two() {
    for major in pick("rows that check themselves: version", &VERSIONS) {
        for is_killed in [true, false] {
            let sandbox = Sandbox::new();
            let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
            let mut failover = Failover { old, new };
            failover.old.sql(
                "CREATE TABLE item (id int PRIMARY KEY, version int, filler text, checked text) WITH (fillfactor = 80);
                 INSERT INTO item SELECT n, 0, repeat('a', n % 90), format('%s:0:%s', n, repeat('a', n % 90))
                 FROM generate_series(1, 3000) n",
            );
            without_images(&failover.old);
            failover.fail_over();
            let counted = change_items(&failover.old);
            match is_killed {
                true => failover.old.kill(),
                false => failover.old.stop(),
            }
            let listing = listing(&lost(&failover.old, &failover.new, SourceKind::Server, &[]));
            let found: Vec<&Value> = changes(&listing).into_iter().map(|(_, change)| change).collect();
            let of = |op: &str| found.iter().filter(|change| change["op"] == op).count() as u64;
            assert_eq!(["insert", "update", "delete"].map(of), counted, "{major}");
            assert_items(&found);
            let counts = qualities(&listing);
            let from_disk = counts.get("from_disk").copied().unwrap_or_default();
            assert!(from_disk > 100 || major < FIRST_WITHOUT_HINTS, "{counts:?}");
        }
    }
}

/// Changes rows, so that places in blocks are used again, and some blocks on disk are newer than others. How many rows were
/// inserted, updated and deleted.
fn change_items(old: &Server) -> [u64; 3] {
    let mut session = old.session();
    let mut run = |sql: String| session.execute(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut counts = [0; 3];
    for round in 0..12 {
        let filler = format!("overlay(filler placing '{round}' from {round} + 1)");
        counts[1] += run(format!(
            "UPDATE item SET version = version + 1, filler = {filler}, checked = format('%s:%s:%s', id, version + 1, {filler})
             WHERE id % 5 = {round} % 5"
        ));
        counts[2] += run(format!("DELETE FROM item WHERE id % 41 = {round}"));
        counts[0] += run(format!(
            "INSERT INTO item SELECT n, 0, 'new', format('%s:0:new', n) FROM generate_series({}, {}) n",
            10_000 + round * 100,
            10_060 + round * 100
        ));
        match round {
            2 | 9 => old.sql("VACUUM item"),
            6 => old.sql("CHECKPOINT"),
            _ => {}
        }
    }
    counts
}

fn assert_items(changes: &[&Value]) {
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for change in changes {
        let side = |name: &str| change[name].as_object();
        let version = |row: &serde_json::Map<String, Value>| {
            let (id, version) = (text(&row["id"]), text(&row["version"]));
            assert_eq!(text(&row["checked"]), format!("{id}:{version}:{}", text(&row["filler"])), "{change}");
            version.parse::<u64>().expect("a version")
        };
        let Some(row) = side("old").or(side("new")).filter(|_| change["quality"] != "incomplete") else {
            // From here on nothing is known of any row that this may have been.
            versions.clear();
            continue;
        };
        let id = text(&row["id"]).to_owned();
        if let Some(old) = side("old") {
            let old = version(old);
            assert!(versions.get(&id).is_none_or(|known| *known == old), "{versions:?} {change}");
        }
        match (side("old"), side("new")) {
            (Some(old), Some(new)) => assert_eq!(version(old) + 1, version(new), "{change}"),
            (None, Some(new)) => assert_eq!(version(new), 0, "{change}"),
            _ => {}
        }
        match side("new") {
            Some(new) => versions.insert(id, version(new)),
            None => versions.remove(&id),
        };
    }
}
