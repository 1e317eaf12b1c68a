//! `kbrecover lost --source-server`: what the source has by now in the place of the lost rows.
//!
//!     old  ── rows 1 to 9 ──┬── each changed in another way ──╳
//!     new                   └── some of them, too ──▶ asked, key by key

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Failover, Installation, Run, Sandbox, Server, Tree, command, pick, run_command};

const TABLES: &str = "
    CREATE TABLE entry (id int, part text, what text, more numeric(10, 2), json json, PRIMARY KEY (id, part));
    INSERT INTO entry SELECT n, 'p', 'shared', n / 4.0, '{\"a\":  1}' FROM generate_series(1, 9) n;
    CREATE TABLE hidden (id int PRIMARY KEY, what text); INSERT INTO hidden VALUES (1, 'shared');
    CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1);
    CREATE TABLE dropped (id int PRIMARY KEY); INSERT INTO dropped VALUES (1);
    CREATE TABLE many (id int PRIMARY KEY, what text); INSERT INTO many SELECT n, 'shared' FROM generate_series(1, 1700) n;
    CREATE TABLE keyless (what text); INSERT INTO keyless VALUES ('shared')";

/// A pair. Each row of `entry` stands for a case.
fn failover(sandbox: &Sandbox, major: u32) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    old.sql("CREATE DATABASE other");
    old.sql_in(
        "other",
        "CREATE TABLE there (id int PRIMARY KEY, what text); INSERT INTO there VALUES (1, 'shared')",
    );
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql(TABLES),
        |old| {
            old.sql("UPDATE entry SET what = 'lost' WHERE id = 1");
            old.sql("UPDATE entry SET what = 'lost secret' WHERE id = 2");
            old.sql("UPDATE entry SET what = 'lost' WHERE id = 3; UPDATE entry SET more = NULL WHERE id = 3");
            old.sql("UPDATE entry SET what = 'lost' WHERE id = 4");
            old.sql("DELETE FROM entry WHERE id IN (5, 6, 7)");
            old.sql("INSERT INTO entry VALUES (20, 'p', 'lost'), (21, 'p', 'lost'), (22, 'p', 'lost')");
            old.sql("INSERT INTO entry VALUES (23, 'p', 'lost'); DELETE FROM entry WHERE id = 23");
            old.sql("UPDATE entry SET part = 'moved' WHERE id = 8");
            old.sql(
                "UPDATE hidden SET what = 'lost'; DELETE FROM emptied; TRUNCATE emptied; DELETE FROM dropped",
            );
            old.sql("UPDATE many SET what = 'lost'; UPDATE keyless SET what = 'lost'");
            old.sql("CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)");
            old.sql_in("other", "UPDATE there SET what = 'lost'");
        },
        |new| {
            new.sql("UPDATE entry SET what = 'lost secret' WHERE id = 2; UPDATE entry SET what = 'kept' WHERE id = 3");
            new.sql(
                "DELETE FROM entry WHERE id IN (4, 6); UPDATE entry SET json = '{\"a\": 1}' WHERE id = 7",
            );
            new.sql("INSERT INTO entry VALUES (21, 'p', 'lost'), (22, 'p', 'kept')");
            new.sql("DROP TABLE dropped; UPDATE many SET what = 'kept' WHERE id > 1690");
            new.sql("CREATE ROLE reader LOGIN; GRANT SELECT ON entry, many TO reader");
            // What the role needs to be asked where the histories part.
            let functions = run_command(command([
                "grants",
                "--source-version",
                &new.installation.major.to_string(),
                "--role",
                "reader",
            ]));
            new.sql(&functions.stdout);
        },
    );
    old.stop();
    Failover { old, new }
}

fn lost(old: &Server, source: &str, more: &[&str]) -> Run {
    let before = Tree::of(&old.data);
    let mut command = command(["lost", "--source-server", source]);
    command.arg("-D").arg(&old.data).args(more);
    let run = run_command(command);
    before.assert_unchanged(&old.data, &run.to_string());
    assert_eq!(run.code, 0, "{run}");
    run
}

fn states(listing: &Value, table: &str) -> BTreeMap<String, String> {
    let rows = listing["on_source"]["rows"].as_array().expect("rows");
    let of_table = rows.iter().filter(|row| row["table"] == table);
    let state = |row: &Value| row["state"].as_str().unwrap_or("null").to_owned();
    of_table
        .map(|row| {
            (
                row["key"]["id"].as_str().expect("a key").to_owned()
                    + row["key"]["part"].as_str().unwrap_or(""),
                state(row),
            )
        })
        .collect()
}

fn notes(listing: &Value) -> String {
    listing["notes"].to_string()
}

/// The states as text, and in the files; without values that may not be seen.
fn assert_shown_and_exported(sandbox: &Sandbox, old: &Server, new: &Server) {
    let to = sandbox.make_dir("export");
    let export = to.join("lost");
    let run = lost(
        old,
        &new.conninfo(),
        &["--no-values", "--mask", "id", "--export", export.to_str().expect("UTF-8")],
    );
    let line =
        "keys of postgres: public.entry: 6 as before, 3 as the lost changes made them, 3 changed, 1 gone";
    assert!(run.stdout.contains(line), "{run}");
    for name in ["transactions.json", "report.html", "summary.txt"] {
        let text = std::fs::read_to_string(export.join(name)).expect("read it");
        assert!(!text.contains("secret"), "{name}");
        assert!(name != "summary.txt" || text.contains(line), "{name}");
    }
    let text = std::fs::read_to_string(export.join("transactions.json")).expect("read it");
    let listing: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(listing["on_source"]["rows"][0]["key"], serde_json::json!({"id": "***", "part": "p"}));

    let read = |name: &str| std::fs::read_to_string(export.join(name)).expect("read it");
    let report = read("report.html");
    let line = report.lines().find(|line| line.ends_with(",[\"***\",\"p\"],\"gone\"]"));
    assert!(line.is_some(), "a key in the report");
    assert!(report.contains(r#""source":{"same":6,"equal":3,"changed":3,"gone":1,"unknown":0}"#));
    let csv = read("csv/postgres.public.entry.source.csv");
    assert!(
        csv.starts_with("id,part,on_source\n***,p,same\n***,p,equal\n***,p,changed\n***,p,gone\n"),
        "{csv}"
    );
}

#[test]
fn each_key_is_same_equal_changed_or_gone() {
    for major in pick("lost rows on the source: version", &[11, 12, 13, 14, 15, 16, 17, 18]) {
        let sandbox = Sandbox::new();
        let Failover { old, new } = failover(&sandbox, major);
        let run = lost(&old, &new.conninfo(), &["--format", "json"]);
        let listing = run.json();
        let found = states(&listing, "public.entry");
        let expected = [
            ("1p", "same"),
            ("2p", "equal"),
            ("3p", "changed"),
            ("4p", "gone"),
            ("5p", "same"),
            ("6p", "equal"),
            ("7p", "changed"),
            ("8p", "same"),
            ("8moved", "same"),
            ("20p", "same"),
            ("21p", "equal"),
            ("22p", "changed"),
            ("23p", "same"),
        ];
        let expected = expected.map(|(key, state)| (key.to_owned(), state.to_owned()));
        assert_eq!(found, BTreeMap::from(expected), "{run}");
        let many = states(&listing, "public.many");
        let count = |state: &str| many.values().filter(|found| *found == state).count();
        assert_eq!((count("same"), count("changed")), (1690, 10), "more than one batch");
        assert_eq!(states(&listing, "public.there"), BTreeMap::from([("1".to_owned(), "same".to_owned())]));
        let notes = notes(&listing);
        for note in [
            "Table public.dropped was not compared with the source: it is not there.",
            "Table public.emptied was not compared with the source: a lost transaction has truncated it.",
            "Table public.keyless was not compared with the source: it has no key.",
            "Table public.made was not compared with the source: lost transactions have",
        ] {
            assert!(notes.contains(note), "{note} is missing in {notes}");
        }

        assert_shown_and_exported(&sandbox, &old, &new);

        // Whom the tables do not belong to.
        let as_reader = format!("{} user=reader", new.conninfo());
        let listing = lost(&old, &as_reader, &["--format", "json"]).json();
        assert_eq!(states(&listing, "public.entry").len(), 13);
        assert_eq!(states(&listing, "public.hidden"), BTreeMap::from([("1".to_owned(), "null".to_owned())]));
        let notes = self::notes(&listing);
        assert!(
            notes.contains("Table public.hidden was not compared with the source: permission denied"),
            "{notes}"
        );

        let fork = listing["fork"]["lsn"].as_str().expect("an LSN").to_owned();
        let mut command = command(["lost", "--format", "json", "--fork", &fork, "-D"]);
        command.arg(&old.data);
        assert!(run_command(command).json()["on_source"].is_null());
    }
}
