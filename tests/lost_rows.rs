//! `kbrecover lost`: every row that lost transactions have changed, against what the servers themselves have.
//!
//!     old  ── shared ──┬── lost: rows, definitions, values out of line ──╳
//!     new              └── as it was promoted
//!
//! The oracle is SQL: of each table the rows of the old primary and the old versions in the listing are, together, the rows of
//! the new primary and the new versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, Tree, command, pick, run_command,
};

/// Lists what `old` loses to `new`, and proves that nothing was changed.
pub(crate) fn lost(old: &Server, new: &Server, kind: SourceKind, more: &[&str]) -> Run {
    let before = Tree::of(&old.data);
    let mut command = command(["lost", "--format", "json", "--target-data"]);
    command.arg(&old.data);
    match kind {
        SourceKind::Server => command.arg("--source-server").arg(new.conninfo()),
        SourceKind::Directory => command.arg("--source-data").arg(&new.data),
    };
    let run = run_command({
        command.args(more);
        command
    });
    before.assert_unchanged(&old.data, &run.to_string());
    run
}

pub(crate) fn listing(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{run}");
    let listing = run.json();
    assert_eq!((&listing["schema_version"], &listing["complete"]), (&1.into(), &true.into()), "{run}");
    listing
}

/// All changes, with their transactions.
pub(crate) fn changes(listing: &Value) -> Vec<(&Value, &Value)> {
    let transactions = listing["transactions"].as_array().expect("transactions");
    let of = |transaction: &'_ Value| transaction["changes"].as_array().expect("changes").len();
    assert!(transactions.iter().map(of).sum::<usize>() > 0);
    transactions
        .iter()
        .flat_map(|transaction| {
            transaction["changes"].as_array().into_iter().flatten().map(move |change| (transaction, change))
        })
        .collect()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

/// What both have before the fork. `major` decides which features there are.
fn shared(old: &Server, major: u32) {
    old.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy'); CREATE DOMAIN positive AS numeric(10,2) CHECK (VALUE > 0);
         CREATE TYPE pair AS (a int, b text); CREATE SCHEMA \"Sales dept\";
         CREATE TABLE plain (gone int, id int PRIMARY KEY, note text, amount numeric(12,3));
         INSERT INTO plain SELECT n, n, 'note ' || n, n / 7.0 FROM generate_series(1, 2000) n;
         ALTER TABLE plain DROP COLUMN gone;
         CREATE TABLE no_key (a int, b text); INSERT INTO no_key SELECT n % 10, 'b' || n FROM generate_series(1, 500) n;
         CREATE TABLE hot (id int PRIMARY KEY, counter bigint, filler text) WITH (fillfactor = 50);
         INSERT INTO hot SELECT n, 0, repeat('f', n % 50) FROM generate_series(1, 1000) n;
         CREATE TABLE \"Sales dept\".\"Order\" (id serial PRIMARY KEY, \"the value\" int);
         INSERT INTO \"Sales dept\".\"Order\" (\"the value\") SELECT n FROM generate_series(1, 100) n;
         CREATE TABLE wide (id int PRIMARY KEY, big text, plain_big text, other int);
         ALTER TABLE wide ALTER plain_big SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT n, (SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 300) i),
             repeat('e' || n, 3000), n FROM generate_series(1, 30) n;
         CREATE TABLE altered (id int PRIMARY KEY, a text, b text); INSERT INTO altered VALUES (1, 'a', 'b'), (2, 'c', 'd');
         CREATE TABLE renamed (id int PRIMARY KEY);
         CREATE TABLE \"user\" (id int PRIMARY KEY, \"select\" text); INSERT INTO \"user\" VALUES (1, 'one'); INSERT INTO renamed SELECT generate_series(1, 10);
         CREATE TABLE truncated (id int PRIMARY KEY); INSERT INTO truncated SELECT generate_series(1, 10);
         CREATE TABLE dropped (id int PRIMARY KEY, what text); INSERT INTO dropped SELECT n, 'w' FROM generate_series(1, 10) n;
         CREATE TABLE clustered (id int PRIMARY KEY, what text); INSERT INTO clustered SELECT n, 'w' FROM generate_series(1, 100) n;
         CREATE UNLOGGED TABLE unlogged (id int); CREATE SEQUENCE counter;
         CREATE TABLE parent (id int, what text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parent FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF parent FOR VALUES FROM (100) TO (200);
         INSERT INTO parent SELECT n, 'p' FROM generate_series(1, 190) n",
    );
    old.sql(TYPES);
    old.sql("ALTER TABLE no_key ADD c int DEFAULT 7; ALTER TABLE no_key ADD d text DEFAULT 'default'");
    if major >= 12 {
        old.sql("CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO computed VALUES (1), (2)");
    }
    old.sql("CREATE DATABASE second");
    old.sql_in(
        "second",
        "CREATE TABLE there (id int PRIMARY KEY, what text); INSERT INTO there VALUES (1, 'one'), (2, 'two')",
    );
    old.sql("CHECKPOINT");
    // Between the redo position and the fork.
    old.sql(
        "UPDATE plain SET note = 'shared later' WHERE id BETWEEN 100 AND 120; DELETE FROM hot WHERE id > 990",
    );
    old.sql("VACUUM hot");
}

const TYPES: &str = "CREATE TABLE types (id int PRIMARY KEY, c1 bool, c2 int2, c3 int8, c4 float4, c5 float8, c6 numeric, c7 varchar(20),
    c8 char(7), c9 name, c10 date, c11 time, c12 timestamp, c13 timestamptz, c14 interval, c15 uuid, c16 bytea, c17 json, c18 jsonb, c19 inet,
    c20 macaddr, c21 bit(5), c22 varbit, c23 point, c24 mood, c25 positive, c26 pair, c27 int4range, c28 int[], c29 text[], c30 numeric[],
    c31 cidr, c32 box, c33 oid, c34 \"char\", c35 xml, c36 money, c37 timetz, c38 pair[], c39 mood[], c40 tstzrange);
    INSERT INTO types (id) SELECT generate_series(1, 20)";

/// Values of the table `types`, a row each.
const VALUES: [&str; 4] = [
    "true, -5, 9223372036854775807, 1.5, -2.25, 12345678901234567890.123456789, 'ä€', 'pad', 'a name', '2024-02-29', '23:59:59.999999',
     '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+03', '1 year -2 mons 3 days 04:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
     '\\xdeadbeef', '{\"a\": [1, 2.50,  null]}', '{\"b\": [1, 2.50, null, true], \"a\": \"x\\\"y\"}', '10.1.2.3/24', '08:00:2b:01:02:03',
     B'10101', B'110011001', '(1.5,-2)', 'so so', 3.14, '(1,\"two words\")', '[3,7)', '{1,NULL,3}', '{\"a b\",\"q\\\"q\",NULL,\"NULL\",\"\"}',
     '{1.10,NaN}', '10.1.0.0/16', '((1,2),(3,4))', 4294967295, 'x', '<a>b</a>', '$1,234.50', '12:00:00+05:30',
     '{\"(1,a)\",\"(,\\\"b c\\\")\"}', '{sad,happy}', '[2024-01-01 00:00:00+00,)'",
    "false, 32767, -1, 'NaN', 'Infinity', 'NaN', '', '', '', '0044-03-15 BC', '00:00', '-infinity', 'infinity', '-1 day -00:00:00.000001',
     '00000000-0000-0000-0000-000000000000', '', '[]', '[]', '::1', 'ff:ff:ff:ff:ff:ff', B'00000', B'', '(0,0)', 'sad', 0.01, '(,)', 'empty',
     '{}', '{}', '{{1,2},{3,4}}', '::/0', '((0,0),(0,0))', 0, '', '', '-$0.01', '00:00:00-12', '{}', '{}', 'empty'",
    "NULL, NULL, NULL, '-Infinity', 1e15, 0.00000001, NULL, 'x', NULL, '9999-12-31', '12:34:56', '2000-01-01', '1999-12-31 23:59:59.999999+00',
     '0', NULL, '\\x00', '\"text\"', '{\"nested\": {\"deep\": [[], {}]}}', '192.168.0.1', NULL, NULL, B'1', '(1e10,1e-10)', 'happy', NULL, NULL,
     '(,5)', '[2:3]={5,6}', '{{a,b},{c,d}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    "true, 0, 0, 0.1, 1e-5, -0.5, 'a''quote', 'b\"c', 'x\\y', 'infinity', '24:00:00', '2024-01-01 00:00:00.000001', '2024-06-30 23:59:59+00',
     '100 years', NULL, '\\x0102', 'null', 'null', '0.0.0.0/0', NULL, B'11111', B'1010', '(-0,1)', NULL, 99999999.99, '(7,\"a,b\")', '(,)', '{0}',
     '{\"line\\nbreak\"}', '{}', NULL, NULL, 1, '\\', '<x/>', '$0.00', '01:02:03.4+00', NULL, NULL, NULL",
];

/// What only the old primary does. Each call is a transaction, or none.
fn lost_work(old: &Server, major: u32) {
    old.sql("INSERT INTO plain SELECT n, 'lost ' || n, n * 1.001 FROM generate_series(3001, 3200) n");
    old.sql("UPDATE plain SET note = note || ' updated', amount = -amount WHERE id % 9 = 0");
    old.sql("DELETE FROM plain WHERE id % 50 = 1");
    for round in 0..5 {
        old.sql(&format!(
            "UPDATE hot SET counter = counter + 1, filler = filler || '{round}' WHERE id % 3 = 0"
        ));
    }
    old.sql("VACUUM hot");
    old.sql("INSERT INTO hot SELECT n, 5, 'again' FROM generate_series(2001, 2300) n");
    old.sql("UPDATE no_key SET b = 'x', c = NULL WHERE a = 3; DELETE FROM no_key WHERE a = 4; INSERT INTO no_key VALUES (1, NULL)");
    old.sql("UPDATE wide SET other = -other WHERE id <= 10");
    old.sql("UPDATE wide SET big = repeat('new', 5000) WHERE id = 11; UPDATE wide SET plain_big = plain_big || 'end' WHERE id = 12; DELETE FROM wide WHERE id = 13");
    old.sql("INSERT INTO wide SELECT 100, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i), 'short', 1");
    old.sql("INSERT INTO \"Sales dept\".\"Order\" (\"the value\") VALUES (1), (NULL); UPDATE \"Sales dept\".\"Order\" SET \"the value\" = 0 WHERE id < 5");
    old.sql("BEGIN; INSERT INTO plain VALUES (4001, 'sub'); SAVEPOINT a; INSERT INTO plain VALUES (4002, 'gone'); ROLLBACK TO a; INSERT INTO plain VALUES (4003, 'sub'); SAVEPOINT b; DELETE FROM plain WHERE id = 4001; RELEASE b; COMMIT");
    old.sql("BEGIN; INSERT INTO plain VALUES (5001, 'aborted'); DELETE FROM no_key; ROLLBACK");
    old.sql("INSERT INTO plain VALUES (7, 'conflict'), (5002, 'no conflict') ON CONFLICT (id) DO UPDATE SET note = excluded.note");
    old.sql("BEGIN; INSERT INTO plain VALUES (5003, 'prepared'); PREPARE TRANSACTION 'decided'");
    old.sql("COMMIT PREPARED 'decided'");
    if major >= 11 {
        old.sql("UPDATE parent SET id = id + 100 WHERE id < 10");
    }
    old.sql("INSERT INTO parent VALUES (50, 'lost'), (150, 'lost')");
    for (place, values) in VALUES.iter().enumerate() {
        old.sql(&format!("INSERT INTO types VALUES ({}, {values})", 100 + place));
        old.sql(&format!(
            "DELETE FROM types WHERE id = {}; INSERT INTO types VALUES ({0}, {values})",
            1 + place
        ));
    }
    old.sql("UPDATE types SET c7 = 'other' WHERE id IN (1, 2, 100)");
    if major >= 12 {
        old.sql("INSERT INTO computed VALUES (3); UPDATE computed SET id = 10 WHERE id = 1");
    }
    old.sql("CREATE TABLE made (id int PRIMARY KEY, what text); INSERT INTO made SELECT n, 'm' FROM generate_series(1, 50) n; UPDATE made SET what = 'n' WHERE id = 1");
    old.sql("CREATE TABLE made_from AS SELECT * FROM plain WHERE id < 20");
    old.sql("INSERT INTO altered VALUES (3, 'before', 'before')");
    old.sql("ALTER TABLE altered DROP COLUMN a; ALTER TABLE altered ADD c int DEFAULT 5; INSERT INTO altered VALUES (4, 'after', 6)");
    old.sql("ALTER TABLE altered ALTER c TYPE bigint; INSERT INTO altered VALUES (5, 'rewritten', 7)");
    old.sql("INSERT INTO renamed VALUES (11); ALTER TABLE renamed RENAME TO \"Re named\"; INSERT INTO \"Re named\" VALUES (12)");
    old.sql("INSERT INTO truncated VALUES (11)");
    old.sql("TRUNCATE truncated; INSERT INTO truncated VALUES (12)");
    old.sql("DELETE FROM dropped WHERE id = 1");
    old.sql("DROP TABLE dropped");
    old.sql("UPDATE clustered SET what = 'before' WHERE id = 1");
    old.sql("CLUSTER clustered USING clustered_pkey");
    old.sql("UPDATE clustered SET what = 'after' WHERE id = 2");
    old.sql("VACUUM FULL no_key");
    old.sql("DELETE FROM no_key WHERE a = 5");
    old.sql("SELECT nextval('counter') FROM generate_series(1, 5)");
    old.sql("SELECT lo_from_bytea(0, repeat('large', 1000)::bytea)");
    old.sql("INSERT INTO \"user\" VALUES (2, 'two'); UPDATE \"user\" SET \"select\" = 'ONE' WHERE id = 1");
    old.sql("INSERT INTO unlogged VALUES (1)");
    old.sql_in(
        "second",
        "UPDATE there SET what = 'lost' WHERE id = 1; INSERT INTO there VALUES (3, 'three')",
    );
    old.sql("CREATE DATABASE third");
    old.sql("CHECKPOINT");
    old.sql("UPDATE plain SET amount = 0 WHERE id % 100 = 0");
    old.sql("BEGIN; INSERT INTO plain VALUES (6001, 'open'); PREPARE TRANSACTION 'open'");
}

/// Rows of a table with its columns, as the server's output functions print them.
pub(crate) type Rows = BTreeMap<Vec<Option<String>>, i64>;

pub(crate) fn add(rows: &mut Rows, row: Vec<Option<String>>, count: i64) {
    *rows.entry(row).or_default() += count;
}

/// The columns of all tables of users that hold rows themselves.
pub(crate) fn tables(server: &Server) -> BTreeMap<String, Vec<String>> {
    let query = "SELECT format('%I.%I', n.nspname, c.relname) || E'\\t' || a.attname FROM pg_class c
        JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_attribute a ON attrelid = c.oid
        WHERE relkind = 'r' AND c.oid >= 16384 AND relpersistence = 'p' AND nspname NOT LIKE 'pg\\_%' AND attnum > 0 AND NOT attisdropped
        ORDER BY c.oid, attnum";
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in server.column(query) {
        let (table, column) = line.split_once('\t').expect("a table and a column");
        found.entry(table.to_owned()).or_default().push(column.to_owned());
    }
    found
}

pub(crate) fn rows_of(server: &Server, table: &str, columns: &[String]) -> Rows {
    let mut session = server.session();
    session
        .batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'")
        .expect("settings");
    let quoted = |column: &String| format!("\"{}\"", column.replace('"', "\"\""));
    // Unlike a cast, format() calls the type's output function.
    let value = |column: &String| {
        let column = quoted(column);
        format!("CASE WHEN {column} IS NOT DISTINCT FROM NULL THEN NULL ELSE format('%s', {column}) END")
    };
    let list: Vec<String> = columns.iter().map(value).collect();
    let found = session.query(&format!("SELECT {} FROM ONLY {table}", list.join(", ")), &[]).expect("rows");
    let mut rows = Rows::new();
    for row in found {
        add(&mut rows, (0..columns.len()).map(|place| row.get(place)).collect(), 1);
    }
    rows
}

/// The values of a row in the listing.
pub(crate) fn row_of(values: &Value, columns: &[String]) -> Vec<Option<String>> {
    let value = |column: &String| match &values[column] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => panic!("column {column}: {other}"),
    };
    columns.iter().map(value).collect()
}

/// Whether the listing is the difference between both servers, for all tables of a database that both have and that were not
/// truncated. Returns how many tables that were.
fn assert_is_the_difference(listing: &Value, old: &Server, new: &Server, database: &str) -> usize {
    let (ours, theirs) = (tables(old), tables(new));
    let of_database: Vec<&Value> = changes(listing)
        .into_iter()
        .filter(|(transaction, change)| {
            let own = change.get("database").unwrap_or(&transaction["database"]);
            text(own) == database
        })
        .map(|(_, change)| change)
        .collect();
    let is_truncated =
        |table: &str| of_database.iter().any(|change| change["op"] == "truncate" && change["name"] == table);
    let mut compared = 0;
    for (table, columns) in ours {
        if theirs.get(&table) != Some(&columns) || is_truncated(&table) {
            continue;
        }
        let (mut left, mut right) = (rows_of(old, &table, &columns), rows_of(new, &table, &columns));
        for change in of_database.iter().filter(|change| change["table"] == table.as_str()) {
            assert_eq!(change["quality"], "exact", "{change}");
            if change["op"] != "insert" {
                add(&mut left, row_of(&change["old"], &columns), 1);
            }
            if change["op"] != "delete" {
                add(&mut right, row_of(&change["new"], &columns), 1);
            }
        }
        for (row, count) in right {
            add(&mut left, row, -count);
        }
        left.retain(|_, count| *count != 0);
        assert!(left.is_empty(), "{database}: {table} ({columns:?}):\n{left:#?}");
        compared += 1;
    }
    compared
}

/// Tables and what was done to them, without rows.
pub(crate) fn objects(listing: &Value) -> BTreeSet<String> {
    let of = |change: &Value| {
        let name = change.get("name").map_or_else(|| text(&change["table"]), text);
        format!("{} {} {name}", text(&change["op"]), text(&change["kind"]))
    };
    let is_object = |change: &&Value| change.get("kind").is_some();
    changes(listing).into_iter().map(|(_, change)| change).filter(is_object).map(of).collect()
}

/// A failover with all that can be lost. The old primary is killed, or stopped.
fn failover(sandbox: &Sandbox, major: u32, is_killed: bool) -> Failover {
    failover_with(sandbox, major, is_killed, &[], &|_| {})
}

/// The same with settings of both servers. `prepare` runs on the old primary when both have the same, `lost` is done after it.
pub(crate) fn failover_with(
    sandbox: &Sandbox,
    major: u32,
    is_killed: bool,
    settings: &[(&str, &str)],
    prepare: &dyn Fn(&Server),
) -> Failover {
    let mut old = sandbox.initdb("old", Installation::of(major), &[]);
    old.set("autovacuum", "off");
    for (name, value) in settings {
        old.set(name, value);
    }
    let (old, new) = sandbox.pair_of(old);
    shared(&old, major);
    prepare(&old);
    let mut early = old.session();
    early.batch_execute("BEGIN; INSERT INTO plain VALUES (9001, 'began early')").expect("begin");
    let mut failover = Failover { old, new };
    failover.fail_over();
    early.batch_execute("UPDATE plain SET note = 'early' WHERE id = 5; COMMIT").expect("commit");
    lost_work(&failover.old, major);
    let mut open = failover.old.session();
    open.batch_execute("BEGIN; DELETE FROM plain WHERE id < 100").expect("an open transaction");
    failover.old.sql("UPDATE plain SET note = 'last' WHERE id = 200");
    match is_killed {
        true => failover.old.kill(),
        false => {
            drop(open);
            failover.old.stop();
        }
    }
    failover
}

#[test]
fn every_row_is_the_servers() {
    for major in pick("lost rows: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        for is_killed in [true, false] {
            let sandbox = Sandbox::new();
            let Failover { old, new } = failover(&sandbox, major, is_killed);
            let run = lost(&old, &new, SourceKind::Server, &[]);
            let listing = listing(&run);
            let mut alone = old.copy("alone");
            alone.start();
            let compared = assert_is_the_difference(&listing, &alone, &new, "postgres");
            assert_eq!(compared, if major >= 12 { 11 } else { 10 }, "{major}: tables");
            let second = (alone.in_database("second"), new.in_database("second"));
            assert_eq!(assert_is_the_difference(&listing, &second.0, &second.1, "second"), 1);

            let undecided = listing["undecided"].as_array().expect("undecided");
            assert_eq!((undecided.len(), &undecided[0]["gid"]), (1, &"open".into()), "{run}");
            let found = objects(&listing);
            for expected in [
                "create table public.made",
                "create table public.made_from",
                "alter table public.altered",
                "alter table public.\"Re named\"",
                "truncate table public.truncated",
                "drop table public.dropped",
                "rewrite table public.clustered",
                "rewrite table public.no_key",
                "create database third",
            ] {
                assert!(found.contains(expected), "{major}: {expected} is not in {found:#?}");
            }
            let unexpected = found.iter().find(|it| it.contains("pg_temp_") || it.contains("pg_toast"));
            assert_eq!(unexpected, None);
            assert_is_counted(&listing, &old, &new);
        }
    }
}

/// A plan counts the rows of each table while it looks for changed blocks, and finds what is listed.
fn assert_is_counted(listing: &Value, old: &Server, new: &Server) {
    let plan =
        Rewind::of(old).from(new, SourceKind::Server).args(["--dry-run", "--debug", "--format", "json"]);
    let run = plan.run();
    assert_eq!(run.code, 0, "{run}");
    assert!(!run.stderr.contains("reading the target's WAL again"), "the rows were not counted\n{run}");
    let lost = &run.json()["lost"];
    let tables = |of: &Value| -> BTreeSet<String> {
        of.as_array().expect("tables").iter().map(Value::to_string).collect()
    };
    assert_eq!(tables(&lost["tables"]), tables(&listing["totals"]["tables"]), "{run}");
    let objects: BTreeSet<String> = lost["objects"]
        .as_array()
        .expect("objects")
        .iter()
        .map(|object| format!("{} {} {}", text(&object["op"]), text(&object["kind"]), text(&object["name"])))
        .collect();
    assert_eq!(objects, self::objects(listing), "{run}");
    assert_eq!(lost["committed"], listing["totals"]["transactions"], "{run}");
    assert_eq!(lost["notes"].as_array().map(Vec::len), Some(0), "{run}");
}

/// The transaction that began before the fork is listed with what it did before it, and each has the time that its server gave
/// it.
#[test]
fn transactions_are_whole() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15, true);
    let listing = listing(&lost(&old, &new, SourceKind::Server, &[]));
    let rows = |of: &Value| {
        let row = |change: &Value| {
            let id = change["key"]["id"].as_str().unwrap_or_default().to_owned();
            (text(&change["op"]).to_owned(), id)
        };
        of["changes"].as_array().expect("changes").iter().map(row).collect::<Vec<_>>()
    };
    let first = &listing["transactions"][0];
    assert_eq!(
        rows(first),
        [("insert".to_owned(), "9001".to_owned()), ("update".to_owned(), "5".to_owned())]
    );
    let has_subtransactions = |of: &&Value| rows(of).contains(&("insert".into(), "4003".into()));
    let with_subtransactions =
        listing["transactions"].as_array().unwrap().iter().find(has_subtransactions).expect("a transaction");
    assert_eq!(
        rows(with_subtransactions),
        [
            ("insert".to_owned(), "4001".to_owned()),
            ("insert".to_owned(), "4003".to_owned()),
            ("delete".to_owned(), "4001".to_owned())
        ]
    );
    // Only what was asked for.
    let run = lost(&old, &new, SourceKind::Server, &["--table", "hot"]);
    let of_hot = run.json();
    assert!(changes(&of_hot).iter().all(|(_, change)| change["table"] == "public.hot"));
    // The position alone is enough, without a source.
    let fork = text(&listing["fork"]["lsn"]).to_owned();
    let mut command = command(["lost", "--format", "json", "--fork", &fork, "--target-data"]);
    command.arg(&old.data);
    let run = run_command(command);
    assert_eq!(run.code, 0, "{run}");
    assert_eq!(run.json()["transactions"], listing["transactions"]);
}

/// The exported SQL makes the new primary have what was lost; where it has changed a row meanwhile, that stays as it is.
#[test]
fn what_was_lost_can_be_given_back() {
    for major in pick("lost rows given back: version", &[10, 12, 15, 18]) {
        let sandbox = Sandbox::new();
        let Failover { old, new } = failover(&sandbox, major, true);
        let directory = sandbox.path("lost");
        let run = lost(&old, &new, SourceKind::Server, &["--export", directory.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run}");
        let mut alone = old.copy("alone");
        alone.start();
        for (database, file) in [("postgres", "apply-postgres.sql"), ("second", "apply-second.sql")] {
            let (target, reference) = (new.in_database(database), alone.in_database(database));
            apply(&target, &directory.join(file));
            let altered = ["altered", "renamed", "truncated", "clustered", "no_key"];
            for (table, columns) in tables(&target) {
                if altered.iter().any(|name| table.ends_with(name)) || table.starts_with("kb_lost") {
                    continue;
                }
                let is_there = tables(&reference).contains_key(&table);
                assert!(
                    !is_there || rows_of(&target, &table, &columns) == rows_of(&reference, &table, &columns),
                    "{major}: {database}: {table}"
                );
            }
            let conflicts: i64 = target.value("SELECT count(*) FROM kb_lost.conflict");
            assert_eq!(conflicts, 0, "{major}: {database}");
        }
    }
}

/// Runs a script of psql's.
pub(crate) fn apply(server: &Server, script: &Path) {
    let text = std::fs::read_to_string(script).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    let sql: Vec<&str> = text.lines().filter(|line| !line.starts_with('\\')).collect();
    server.sql(&sql.join("\n"));
}

/// A rewind that keeps what it discards keeps the listing, too: later the catalogs and values stored out of line are gone.
#[test]
fn a_rewind_that_keeps_what_it_discards_lists_it() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15, true);
    let listed = listing(&lost(&old, &new, SourceKind::Server, &[]));
    let kept = sandbox.path("kept");
    Rewind::of(&old).from(&new, SourceKind::Server).arg("--keep-diverged").arg(&kept).run().expect_rewound();
    let text = std::fs::read_to_string(kept.join("lost/transactions.json")).expect("the listing");
    let exported: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(exported["transactions"], listed["transactions"]);
    let summary = std::fs::read_to_string(kept.join("lost/summary.txt")).expect("the summary");
    assert!(summary.contains("wide"), "{summary}");
    assert!(summary.contains("public.made"), "{summary}");
    // The command shows it.
    let run = lost_only_of(&kept, &["--format", "json"]);
    assert_eq!((run.code, &listing(&run)["transactions"]), (0, &listed["transactions"]), "{run}");
    assert_eq!(lost_only_of(&kept, &[]).stdout, summary);
    let run = lost_only_of(&kept, &["--xid", "700"]);
    let none = "A rewind gives up none of the transactions that were asked for.";
    assert!(run.code == 0 && run.stdout.starts_with(none), "{run}");
}

#[test]
fn what_is_wrong_is_said() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE t (id int)"),
        |_| {},
        |new| new.sql("INSERT INTO t VALUES (1)"),
    );
    let refused = |run: Run, words: &str| {
        assert!(run.code == 1 && run.stderr.contains(words), "{words}\n{run}");
    };
    refused(lost_only(&old, &["--fork", "0/1"]), "must be shut down");
    old.stop();
    let nothing = listing_of_nothing(&lost(&old, &new, SourceKind::Server, &[]));
    assert!(nothing, "nothing is lost");
    refused(lost_only(&old, &[]), "no point of divergence specified");
    refused(lost_only(&old, &["--fork", "0/1", "--source-data", "/x"]), "only one of");
    refused(lost_only(&old, &["--fork", "x"]), "--fork");
    let filled = sandbox.make_dir("filled");
    std::fs::write(filled.join("file"), "mine").expect("write");
    refused(lost_only(&old, &["--fork", "0/1000000", "--export", filled.to_str().unwrap()]), "filled");
    let inside = old.data.join("export");
    refused(
        lost_only(&old, &["--fork", "0/1000000", "--export", inside.to_str().unwrap()]),
        "inside the data directory",
    );
    assert!(!inside.exists());
    refused(lost_only(&old, &["--fork", "0/1000000", "--table", "a.b.c.d"]), "a.b.c.d");
}

/// Runs the command on a directory, with these options only.
fn lost_only(node: &Server, options: &[&str]) -> Run {
    lost_only_of(&node.data, options)
}

pub(crate) fn lost_only_of(directory: &Path, options: &[&str]) -> Run {
    let mut command = command(["lost"]);
    command.args(options).arg("--target-data").arg(directory);
    run_command(command)
}

fn listing_of_nothing(run: &Run) -> bool {
    let listing = listing(run);
    listing["transactions"].as_array().is_some_and(Vec::is_empty)
}

/// Runs that nobody watches keep what they discard below one directory, a limited number of times; and may be told how much they
/// may lose.
#[test]
fn each_rewind_has_its_place_and_a_limit() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE t (id int)"),
        |old| {
            old.sql("INSERT INTO t VALUES (1)");
            old.sql("INSERT INTO t VALUES (2)");
        },
        |new| new.sql("INSERT INTO t VALUES (3)"),
    );
    old.stop();
    let root = sandbox.make_dir("spare").join("root");
    let rewind = |target: &Server| {
        Rewind::of(target).from(&new, SourceKind::Server).arg("--keep-diverged-root").arg(&root)
    };
    let words = "this rewind would give up 2 committed transactions, more than the 1 that are allowed";
    rewind(&old).args(["--max-lost-transactions", "1"]).expect_refusal(words, "kbrecover lost");
    let words = "it is not known how many transactions";
    rewind(&old)
        .args(["--max-lost-transactions", "9", "--compare-data"])
        .expect_refusal(words, "data is compared");
    assert!(!root.exists());

    let places = || {
        let entries = std::fs::read_dir(&root).expect("the root");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let (first, second, third) = (old.copy("first"), old.copy("second"), old.copy("third"));
    // All under one name, as one node would have them.
    for (number, target) in [first, second].into_iter().enumerate() {
        let node = sandbox.path("node");
        std::fs::rename(&target.data, &node).expect("rename");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut command = command(["rewind", "--max-lost-transactions", "2", "--keep-diverged-most", "1"]);
        command.arg("--target-data").arg(&node).arg("--source-server").arg(new.conninfo());
        command.arg("--keep-diverged-root").arg(&root);
        let run = run_command(command);
        assert_eq!(run.code, 0, "{run}");
        std::fs::rename(&node, sandbox.path(&format!("node {number}"))).expect("rename");
        assert_eq!(places().len(), 1, "{run}");
        let listing = root.join(&places()[0]).join("lost/transactions.json");
        assert!(std::fs::read_to_string(listing).expect("the listing").contains("public.t"), "{run}");
    }
    // Where it cannot be kept, the node comes back all the same.
    let file = sandbox.path("a file");
    std::fs::write(&file, "").expect("write");
    Rewind::of(&third)
        .from(&new, SourceKind::Server)
        .arg("--keep-diverged-root")
        .arg(&file)
        .run()
        .expect_done()
        .expect_said("discarded data is not saved");
}
