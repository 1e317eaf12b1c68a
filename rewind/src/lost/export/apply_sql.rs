//! `apply.sql`: repeats lost rows on the new primary where that overwrites nothing. A file for each database.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;

use super::apply_row::{call, put_comment, put_row};
use super::apply_statement::{Reason, StatementTable, has_identity};
use super::apply_text::{Written, head};
use super::names::{file_name, table_name};
use super::output::Outputs;
use super::per_table::PerTable;
use super::text::{iso, one_line};
use crate::lost::model::{
    LostChange, LostHistory, LostObject, LostPart, LostRow, LostTable, LostTransaction, ObjectOp, SinkError,
};
use crate::target::disk::Disk;

/// The name of the file if there is one.
const SINGLE: &str = "apply.sql";

/// Writes the files.
#[derive(Debug)]
pub(crate) struct ApplySql {
    outputs: Outputs,
    history: LostHistory,
    databases: Vec<Database>,
    numbers: HashMap<String, usize>,
    tables: PerTable<Table>,
    /// Whether the server knows identity columns.
    has_identity: bool,
    /// Counts transactions.
    ordinal: u64,
    /// The beginning of each call for a row of the transaction that began last.
    call: String,
    sql: String,
    statement: String,
}

/// A database and its file, which has the same number.
#[derive(Debug)]
struct Database {
    name: String,
    written: Written,
    /// The transaction whose changes were written last.
    ordinal: u64,
    search_path: Vec<String>,
    /// Tables that were truncated.
    truncated: BTreeSet<String>,
}

#[derive(Debug)]
struct Table {
    /// With its schema, as people read it.
    name: String,
    /// The same without quotes.
    plain: String,
    statements: StatementTable,
}

impl ApplySql {
    /// The files will be written to this directory.
    pub(crate) fn new(disk: &Disk, directory: &Path, history: &LostHistory) -> ApplySql {
        ApplySql {
            outputs: Outputs::new(disk, directory),
            history: history.clone(),
            databases: Vec::new(),
            numbers: HashMap::new(),
            tables: PerTable::default(),
            has_identity: has_identity(&history.version),
            ordinal: 0,
            call: String::new(),
            sql: String::new(),
            statement: String::new(),
        }
    }

    /// A transaction begins.
    pub(crate) fn transaction(&mut self, transaction: &LostTransaction) {
        self.call = call(transaction);
        self.ordinal += 1;
    }

    /// A change, with the values as they are. Nothing is written of the values of a table of which columns are masked.
    pub(crate) fn change(
        &mut self,
        transaction: &LostTransaction,
        change: &LostChange,
        is_masked: bool,
    ) -> Result<(), SinkError> {
        match change {
            LostChange::Row(row) => self.row(transaction, row, is_masked),
            LostChange::Object(object) => self.object(transaction, object),
            LostChange::Sequence { database, name, last_value, .. } => {
                let number = self.database(database)?;
                self.databases[number].written.sequences.insert(name.clone(), *last_value);
                Ok(())
            }
        }
    }

    /// Many changes, with the values as they are.
    pub(crate) fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        for part in parts {
            if part.begins {
                self.transaction(part.transaction);
            }
            part.changes.iter().try_for_each(|change| self.change(part.transaction, change, false))?;
        }
        Ok(())
    }

    /// Ends the files. Those that are not complete end with `ROLLBACK`.
    pub(crate) fn end(&mut self, is_complete: bool) -> Result<(), SinkError> {
        for (number, database) in self.databases.iter().enumerate() {
            self.outputs.put(number, database.written.tail(is_complete).as_bytes())?;
        }
        Ok(())
    }

    /// Makes the files durable.
    pub(crate) fn sync(&mut self) -> Result<(), SinkError> {
        self.outputs.sync()
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.outputs.len()
    }

    /// Rows with a statement, and rows that would need one but have none.
    pub(crate) fn rows(&self) -> (u64, u64) {
        let each = self.databases.iter().map(|database| &database.written);
        each.fold((0, 0), |(statements, left_out), written| {
            (statements + written.statements, left_out + written.rows_left_out())
        })
    }

    fn row(
        &mut self,
        transaction: &LostTransaction,
        row: &LostRow,
        is_masked: bool,
    ) -> Result<(), SinkError> {
        let number = self.database(&row.table.database)?;
        let made = self.tables.get(&row.table, |_| Ok::<_, Infallible>(Table::of(&row.table)));
        let Ok(table) = made;
        let database = &mut self.databases[number];
        let is_truncated =
            database.truncated.contains(&table.name) || database.truncated.contains(&table.plain);
        let reason = Reason::against(&row.table, is_truncated, is_masked);
        if let Some(reason) = reason {
            database.leave_out(&table.name, reason, row);
            return Ok(());
        }
        self.sql.clear();
        self.statement.clear();
        let made = table.statements.put(&mut self.statement, row, self.has_identity);
        database.put_transaction(&mut self.sql, self.ordinal, transaction);
        match made {
            Ok(()) => {
                database.put_search_path(&mut self.sql, &table.statements.schemas);
                database.written.statements += 1;
                put_row(&mut self.sql, &self.call, row, &table.name, &self.statement);
            }
            Err(reason) => {
                database.leave_out(&table.name, reason, row);
                put_comment(&mut self.sql, row, &table.name, reason);
            }
        }
        self.outputs.put(number, self.sql.as_bytes())
    }

    fn object(&mut self, transaction: &LostTransaction, object: &LostObject) -> Result<(), SinkError> {
        if object.kind == "database" {
            return Ok(());
        }
        let number = self.database(&object.database)?;
        let database = &mut self.databases[number];
        if object.op == ObjectOp::Truncate {
            database.truncated.insert(object.name.clone());
        }
        self.sql.clear();
        database.put_transaction(&mut self.sql, self.ordinal, transaction);
        let (kind, name, op) = (object.kind, one_line(&object.name), object.op.name());
        let _ = writeln!(self.sql, "-- not repeated, at {}: {op} {kind} {name}", object.lsn);
        self.outputs.put(number, self.sql.as_bytes())
    }

    /// The number of a database, whose file is created when it is seen for the first time.
    fn database(&mut self, name: &str) -> Result<usize, SinkError> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = match self.databases.len() {
            0 => self.outputs.create(SINGLE)?,
            1 => {
                self.outputs.rename(0, &name_of_file(&self.databases[0].name, 0))?;
                self.outputs.create(&name_of_file(name, 1))?
            }
            number => self.outputs.create(&name_of_file(name, number))?,
        };
        self.outputs.put(number, head(&self.history, name).as_bytes())?;
        self.numbers.insert(name.to_owned(), number);
        self.databases.push(Database {
            name: name.to_owned(),
            written: Written::default(),
            ordinal: 0,
            search_path: Vec::new(),
            truncated: BTreeSet::new(),
        });
        Ok(number)
    }
}

/// The name of a database's file if there are several. A name that had to be changed has the number of the database in
/// it, so that no two are the same.
fn name_of_file(database: &str, number: usize) -> String {
    let safe = file_name(&[database]);
    if safe == database && safe == safe.to_lowercase() {
        return format!("apply-{safe}.sql");
    }
    format!("apply-{safe}.{}.sql", number + 1)
}

impl Table {
    fn of(table: &LostTable) -> Table {
        let plain = format!("{}.{}", table.schema.as_deref().unwrap_or_default(), table.name);
        Table { name: table_name(table), plain, statements: StatementTable::of(table) }
    }
}

impl Database {
    fn leave_out(&mut self, table: &str, reason: Reason, row: &LostRow) {
        self.written.left_out.entry((table.to_owned(), reason)).or_default().add(row.op, 1);
    }

    /// Names the transaction before its first change.
    fn put_transaction(&mut self, sql: &mut String, ordinal: u64, transaction: &LostTransaction) {
        if self.ordinal == ordinal {
            return;
        }
        self.ordinal = ordinal;
        let _ = write!(sql, "\n-- transaction {} at {}", transaction.xid, transaction.commit_lsn);
        if let Some(time) = transaction.commit_time {
            let _ = write!(sql, ", {}", iso(time));
        }
        sql.push('\n');
    }

    /// Makes the operators of a key's types known, which are in other schemas than `pg_catalog`.
    fn put_search_path(&mut self, sql: &mut String, schemas: &[String]) {
        if !schemas.is_empty() && self.search_path != schemas {
            self.search_path = schemas.to_vec();
            let _ = writeln!(sql, "SET LOCAL search_path = pg_catalog, {};", schemas.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::lost::export::made_up::{
        HOSTILE, history, insert, table, table_of, text, transaction, transactions,
    };

    /// Writes transactions, and returns the files by their names, with the numbers of rows.
    fn written(
        transactions: &[(LostTransaction, Vec<LostChange>)],
        masked: Option<&str>,
    ) -> (BTreeMap<String, String>, (u64, u64)) {
        let directory = tempfile::tempdir().unwrap();
        let mut apply = ApplySql::new(&Disk::default(), directory.path(), &history());
        for (transaction, changes) in transactions {
            apply.transaction(transaction);
            for change in changes {
                let is_masked =
                    matches!(change, LostChange::Row(row) if Some(row.table.name.as_str()) == masked);
                apply.change(transaction, change, is_masked).unwrap();
            }
        }
        apply.end(true).unwrap();
        apply.sync().unwrap();
        let entries = fs::read_dir(directory.path()).unwrap().map(Result::unwrap);
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        (entries.map(read).collect(), apply.rows())
    }

    #[test]
    fn each_database_has_a_file_with_its_rows_in_their_order() {
        let (files, rows) = written(&transactions(), None);
        assert_eq!(files.len(), 2);
        let shop = &files["apply-shop.sql"];
        let statements =
            ["transaction 764", "'sales.payment'", "DELETE FROM ONLY", "no statement", "transaction 770"];
        let mut place = shop.find("END $kb$;\n\n--").unwrap();
        for text in statements {
            place += shop[place..]
                .find(text)
                .unwrap_or_else(|| panic!("{text} is missing after {place} in {shop}"));
        }
        assert!(shop.contains("-- not repeated, at 0/2002000: create table public.newt\n"));
        for comment in [
            "public.\"Log\": 1 row (+1 ~0 -0): a value is of a type whose text is not known",
            "public.\"Log\": 1 row (+1 ~0 -0): a lost transaction has truncated the table before",
            "pg_catalog.pg_largeobject: 1 row (+1 ~0 -0): it is a part of a large object",
            "sales.payment: 2 rows (+0 ~1 -1): a part of the row is not known",
            "  SELECT setval('sales.payment_id_seq', 99999)",
        ] {
            assert!(shop.contains(&format!("--   {}", comment.trim())), "{comment} is missing in {shop}");
        }
        assert_eq!(rows, (7, 5));
        let other = files.keys().find(|name| *name != "apply-shop.sql").unwrap();
        assert_eq!(*other, format!("apply-{}.2.sql", file_name(&[HOSTILE])));
    }

    #[test]
    fn a_single_database_has_a_file_of_this_name() {
        let (files, _) = written(&transactions()[..1], None);
        assert_eq!(files.keys().collect::<Vec<_>>(), [SINGLE]);
    }

    #[test]
    fn tables_that_are_altered_or_masked_are_only_counted() {
        let mut altered = table("shop", "public", "alt");
        altered.is_altered = true;
        let (altered, secret) = (Arc::new(altered), Arc::new(table("shop", "public", "secret")));
        let values = [text("1"), text("value")];
        let changes = vec![insert(&altered, &values), insert(&secret, &values)];
        let (files, rows) = written(&[(transaction(1, "shop"), changes)], Some("secret"));
        assert!(!files[SINGLE].contains("'value'") && rows == (0, 2));
        assert!(files[SINGLE].contains("public.secret: 1 row (+1 ~0 -0): columns of the table are masked"));
    }

    #[test]
    fn operators_of_a_key_are_found_in_the_schema_of_its_type() {
        let table = Arc::new(table_of("d", "s", "t", &[("a", "ext.citext")], &[0]));
        let change = insert(&table, &[text("x")]);
        let (files, _) = written(&[(transaction(1, "d"), vec![change.clone(), change])], None);
        assert_eq!(files[SINGLE].matches("SET LOCAL search_path = pg_catalog, \"ext\";\n").count(), 1);
    }
}
