//! What one side does: actions drawn from all that the suite knows of data, on whatever the side has by then.

use super::dice::Dice;
use crate::harness::Server;

/// A server at work. Every statement is printed, for a test that fails.
pub struct Worker<'a> {
    /// The server, a primary.
    pub server: &'a mut Server,
    /// What decides.
    pub dice: &'a mut Dice,
    /// Goes into every row and name: `shared`, `lost` or `kept`, and the round.
    pub side: &'a str,
    /// Makes names that no other worker uses.
    pub number: &'a mut u32,
}

/// What a worker may do, and how often in relation to the others.
const ACTIONS: &[(usize, fn(&mut Worker<'_>))] = &[
    (10, insert),
    (8, update),
    (6, delete),
    (3, roll_back),
    (3, roll_back_to_savepoint),
    (6, read),
    (6, create_table),
    (3, copy_frozen),
    (3, create_index),
    (2, drop_table),
    (2, truncate),
    (3, vacuum),
    (2, rewrite),
    (2, change_persistence),
    (2, move_table),
    (2, analyze),
    (2, use_sequence),
    (3, use_large_object),
    (3, prepare),
    (3, finish_prepared),
    (3, create_database),
    (1, drop_database),
    (2, move_database),
    (1, create_tablespace),
    (1, drop_tablespace),
    (3, checkpoint),
    (2, switch_wal),
    (1, compress_wal),
    (1, crash),
    (1, restart),
];

/// Databases of the soak beside `postgres`: each costs files.
const MOST_DATABASES: usize = 4;

/// Tables in one database.
const MOST_TABLES: usize = 12;

/// Half of what the servers' setting allows.
const MOST_PREPARED: usize = 4;

impl Worker<'_> {
    /// So many actions.
    pub fn act_often(&mut self, actions: usize) {
        (0..actions).for_each(|_| self.act());
    }

    /// One action.
    fn act(&mut self) {
        let all = ACTIONS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.dice.below(all);
        for (weight, action) in ACTIONS {
            if drawn < *weight {
                return action(self);
            }
            drawn -= weight;
        }
    }

    /// Runs SQL in a database.
    ///
    /// Up to 16 a free space map may name a block beyond the end of its table, as after a promotion, and an insertion
    /// that is led there fails. That is a weakness of these servers, and does no harm to the data.
    pub fn sql(&self, database: &str, statements: &str) {
        #[expect(clippy::print_stdout, reason = "shown where the test fails")]
        let tell = |what: &str| println!("  {} on {}, {database}: {what}", self.side, self.server.name);
        tell(statements);
        let Err(error) = self.server.connect(database).batch_execute(statements) else { return };
        let message = error.as_db_error().map_or_else(String::new, |error| error.message().to_owned());
        let is_of_free_space =
            message.starts_with("could not read block") && message.contains("read only 0 of");
        assert!(
            self.server.installation.major < 17 && is_of_free_space,
            "{}: {error:?}\n{statements}",
            self.server.name
        );
        tell(&message);
    }

    fn column(&self, database: &str, query: &str) -> Vec<String> {
        self.server.in_database(database).column(query)
    }

    /// A name with the worker's side in it.
    fn name(&mut self, kind: &str) -> String {
        *self.number += 1;
        format!("{kind}_{}_{}", self.side, self.number)
    }

    /// The databases that the soak has made, and those of the servers that it writes to.
    fn databases(&self) -> Vec<String> {
        self.column(
            "postgres",
            "SELECT datname::text FROM pg_database WHERE datname ~ '^(d_|postgres$|template1$)' ORDER BY 1",
        )
    }

    fn database(&mut self) -> String {
        let all = self.databases();
        self.dice.of_these(&all).clone()
    }

    /// The databases that the soak has made.
    fn own_databases(&self) -> Vec<String> {
        self.databases().into_iter().filter(|name| name.starts_with("d_")).collect()
    }

    fn tables(&self, database: &str) -> Vec<String> {
        self.column(
            database,
            "SELECT relname::text FROM pg_class WHERE relname ~ '^t_' AND relkind = 'r' ORDER BY 1",
        )
    }

    /// A table of a database, if that has one.
    fn table(&mut self) -> Option<(String, String)> {
        let database = self.database();
        let tables = self.tables(&database);
        (!tables.is_empty()).then(|| (database, self.dice.of_these(&tables).clone()))
    }

    /// A statement on a table, if there is one.
    fn on_table(&mut self, statement: impl FnOnce(&mut Dice, &str, &str) -> String) {
        if let Some((database, table)) = self.table() {
            let statement = statement(self.dice, &table, self.side);
            self.sql(&database, &statement);
        }
    }

    fn tablespace(&mut self) -> String {
        let all = self.column(
            "postgres",
            "SELECT spcname::text FROM pg_tablespace WHERE spcname <> 'pg_global' ORDER BY 1",
        );
        self.dice.of_these(&all).clone()
    }
}

// Rows.

fn rows(dice: &mut Dice, table: &str, side: &str) -> String {
    let (count, width) = (dice.between(1, 1500), *dice.of_these(&[0, 1, 4, 40, 100]));
    format!(
        "INSERT INTO {table} (n, origin, filler) SELECT n, '{side}', repeat(md5(n::text), {width}) FROM generate_series(1, {count}) n"
    )
}

fn changed_rows(dice: &mut Dice, table: &str, side: &str) -> String {
    let (divisor, width) = (dice.between(2, 60), dice.between(0, 20));
    format!(
        "UPDATE {table} SET origin = '{side}', filler = repeat(md5(n::text), {width}) WHERE n % {divisor} = 1"
    )
}

fn insert(worker: &mut Worker<'_>) {
    worker.on_table(rows);
}

fn update(worker: &mut Worker<'_>) {
    worker.on_table(changed_rows);
}

fn delete(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| format!("DELETE FROM {table} WHERE n % {} = 0", dice.between(1, 40)));
}

fn roll_back(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, side| {
        format!("BEGIN; {}; {}; ROLLBACK", rows(dice, table, side), changed_rows(dice, table, side))
    });
}

fn roll_back_to_savepoint(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, side| {
        let (undone, done) = (rows(dice, table, side), changed_rows(dice, table, side));
        format!("BEGIN; SAVEPOINT here; {undone}; ROLLBACK TO here; SAVEPOINT there; {done}; COMMIT")
    });
}

/// Sets hints, and tells an index of dead rows.
fn read(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| {
        let setting = if dice.one_in(2) { "off" } else { "on" };
        format!(
            "SET enable_seqscan = {setting}; SET enable_bitmapscan = off;
             SELECT count(origin) FROM {table} WHERE n < 700; SELECT count(filler) FROM {table}"
        )
    });
}

// Tables.

fn create_table(worker: &mut Worker<'_>) {
    let (database, name, tablespace) = (worker.database(), worker.name("t"), worker.tablespace());
    if worker.tables(&database).len() >= MOST_TABLES {
        return drop_table(worker);
    }
    let persistence = if worker.dice.one_in(4) { "UNLOGGED" } else { "" };
    let storage = *worker.dice.of_these(&["EXTENDED", "EXTERNAL"]);
    let insert = rows(worker.dice, &name, worker.side);
    worker.sql(
        &database,
        &format!(
            "CREATE {persistence} TABLE {name} (n int, origin text, filler text) TABLESPACE {tablespace};
             ALTER TABLE {name} ALTER filler SET STORAGE {storage}; {insert}"
        ),
    );
}

/// A table whose pages are full and frozen from the beginning, and end with some that are zero from 16 on.
fn copy_frozen(worker: &mut Worker<'_>) {
    let (database, name) = (worker.database(), worker.name("t"));
    if worker.tables(&database).len() >= MOST_TABLES {
        return drop_table(worker);
    }
    let (side, count) = (worker.side, worker.dice.between(1, 6000));
    let freeze = if worker.dice.one_in(2) { "WITH (FREEZE)" } else { "" };
    worker.sql(
        &database,
        &format!(
            "BEGIN; CREATE TABLE {name} (n int, origin text, filler text);
             COPY {name} FROM PROGRAM 'seq -f \"%.0f\t{side}\t-\" 1 {count}' {freeze}; COMMIT"
        ),
    );
}

fn create_index(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| {
        let keys = [
            "btree (n)",
            "btree (origin, n)",
            "hash (n)",
            "gin (string_to_array(origin, '_'))",
            "gist (point(n, n))",
            "spgist (origin)",
            "brin (n)",
        ];
        format!("CREATE INDEX ON {table} USING {}", dice.of_these(&keys))
    });
}

fn drop_table(worker: &mut Worker<'_>) {
    worker.on_table(|_, table, _| format!("DROP TABLE {table}"));
}

fn truncate(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, side| match dice.below(3) {
        0 => format!("TRUNCATE {table}"),
        1 => format!("BEGIN; TRUNCATE {table}; {}; COMMIT", rows(dice, table, side)),
        _ => format!("BEGIN; TRUNCATE {table}; {}; ROLLBACK", rows(dice, table, side)),
    });
}

fn vacuum(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| format!("VACUUM {} {table}", dice.of_these(&["", "FREEZE", "ANALYZE"])));
}

/// A new file for the same table.
fn rewrite(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| match dice.below(4) {
        0 => format!("VACUUM FULL {table}"),
        1 => format!("REINDEX TABLE {table}"),
        2 => format!("ALTER TABLE {table} ALTER n TYPE bigint"),
        _ => format!("ALTER TABLE {table} ALTER n TYPE int"),
    });
}

fn change_persistence(worker: &mut Worker<'_>) {
    worker.on_table(|dice, table, _| {
        format!("ALTER TABLE {table} SET {}", dice.of_these(&["LOGGED", "UNLOGGED"]))
    });
}

fn move_table(worker: &mut Worker<'_>) {
    let tablespace = worker.tablespace();
    worker.on_table(|_, table, _| format!("ALTER TABLE {table} SET TABLESPACE {tablespace}"));
}

// What is not in the soak's tables.

fn analyze(worker: &mut Worker<'_>) {
    let database = worker.database();
    worker.sql(&database, "ANALYZE");
}

fn use_sequence(worker: &mut Worker<'_>) {
    let (database, count) = (worker.database(), worker.dice.between(1, 100));
    worker.sql(
        &database,
        &format!("CREATE SEQUENCE IF NOT EXISTS counter; SELECT nextval('counter') FROM generate_series(1, {count})"),
    );
}

fn use_large_object(worker: &mut Worker<'_>) {
    let database = worker.database();
    let all = worker.column(&database, "SELECT oid::text FROM pg_largeobject_metadata ORDER BY oid");
    let bytes = format!("decode(repeat(md5('{}'), {}), 'hex')", worker.side, worker.dice.between(1, 3000));
    let statement = match worker.dice.below(3) {
        0 if !all.is_empty() => format!("SELECT lo_unlink({})", worker.dice.of_these(&all)),
        1 if !all.is_empty() => format!("SELECT lo_put({}, 1000, {bytes})", worker.dice.of_these(&all)),
        _ => format!("SELECT lo_from_bytea(0, {bytes})"),
    };
    worker.sql(&database, &statement);
}

/// In a database of which nobody makes a copy, on a table that nobody else locks.
fn prepare(worker: &mut Worker<'_>) {
    if worker.prepared().len() >= MOST_PREPARED {
        return finish_prepared(worker);
    }
    let (name, count) = (worker.name("p"), worker.dice.between(1, 300));
    worker.sql("postgres", "CREATE TABLE IF NOT EXISTS prepared (gid text)");
    let insert = format!("INSERT INTO prepared SELECT '{name}' FROM generate_series(1, {count})");
    worker.sql("postgres", &format!("BEGIN; {insert}; PREPARE TRANSACTION '{name}'"));
}

fn finish_prepared(worker: &mut Worker<'_>) {
    let all = worker.prepared();
    if !all.is_empty() {
        let end = *worker.dice.of_these(&["COMMIT", "COMMIT", "ROLLBACK"]);
        let name = worker.dice.of_these(&all).clone();
        worker.sql("postgres", &format!("{end} PREPARED '{name}'"));
    }
}

impl Worker<'_> {
    fn prepared(&self) -> Vec<String> {
        self.column("postgres", "SELECT gid::text FROM pg_prepared_xacts ORDER BY 1")
    }
}

// Databases and tablespaces.

fn create_database(worker: &mut Worker<'_>) {
    let own = worker.own_databases();
    if own.len() >= MOST_DATABASES {
        return drop_database(worker);
    }
    let name = worker.name("d");
    let templates = [own, vec!["template0".into(), "template1".into()]].concat();
    let template = worker.dice.of_these(&templates).clone();
    let strategy = match worker.server.installation.major {
        ..15 => "",
        _ => worker.dice.of_these(&["STRATEGY file_copy", "STRATEGY wal_log"]),
    };
    // Elsewhere than its template only if no table of that can lie there.
    let place =
        if template == "template0" { format!("TABLESPACE {}", worker.tablespace()) } else { String::new() };
    worker.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template} {place} {strategy}"));
}

fn drop_database(worker: &mut Worker<'_>) {
    let own = worker.own_databases();
    if !own.is_empty() {
        let name = worker.dice.of_these(&own).clone();
        worker.sql("postgres", &format!("DROP DATABASE {name}"));
    }
}

/// A move copies files. It is refused while tables of the database lie in the place that it is to go to.
fn move_database(worker: &mut Worker<'_>) {
    let (own, tablespace) = (worker.own_databases(), worker.tablespace());
    if own.is_empty() {
        return;
    }
    let name = worker.dice.of_these(&own).clone();
    let there = format!(
        "SELECT 'there' FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE s.spcname = '{tablespace}' LIMIT 1"
    );
    if worker.column(&name, &there).is_empty() {
        worker.sql("postgres", &format!("ALTER DATABASE {name} SET TABLESPACE {tablespace}"));
    }
}

/// In the data directory: each node has its own.
fn create_tablespace(worker: &mut Worker<'_>) {
    if worker.column("postgres", "SELECT spcname::text FROM pg_tablespace").len() < 6 {
        let name = worker.name("s");
        worker.sql("postgres", &format!("CREATE TABLESPACE {name} LOCATION ''"));
    }
}

/// One that the soak has made, if it is empty.
fn drop_tablespace(worker: &mut Worker<'_>) {
    let unused = "SELECT spcname::text FROM pg_tablespace s WHERE spcname ~ '^s_' AND NOT EXISTS (SELECT FROM pg_tablespace_databases(s.oid)) ORDER BY 1";
    if let Some(name) = worker.column("postgres", unused).first() {
        worker.sql("postgres", &format!("DROP TABLESPACE {name}"));
    }
}

// The server.

fn checkpoint(worker: &mut Worker<'_>) {
    worker.sql("postgres", "CHECKPOINT");
}

fn switch_wal(worker: &mut Worker<'_>) {
    worker.sql("postgres", "SELECT pg_switch_wal()");
}

fn compress_wal(worker: &mut Worker<'_>) {
    let setting = *worker.dice.of_these(&["on", "off"]);
    worker.sql("postgres", &format!("ALTER SYSTEM SET wal_compression = {setting}"));
    worker.sql("postgres", "SELECT pg_reload_conf()");
}

fn crash(worker: &mut Worker<'_>) {
    worker.sql("postgres", "SELECT 'kill -9'");
    worker.server.kill();
    worker.server.start();
}

fn restart(worker: &mut Worker<'_>) {
    worker.sql("postgres", "SELECT 'restart'");
    worker.server.stop();
    worker.server.start();
}
