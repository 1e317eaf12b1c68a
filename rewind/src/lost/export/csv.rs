//! A CSV file for each table, for spreadsheets and for `COPY ... (FORMAT csv, HEADER)` into a table of texts.
//!
//! As in PostgreSQL's CSV, NULL is an empty field and an empty string is `""`. A field in parentheses without quotes
//! is no value but says why there is none. What the source has for each key is in files of their own, `NAME.source.csv`. The `csv` crate writes both kinds of empty fields alike, so the fields are
//! written here.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use super::names::file_name;
use super::output::Outputs;
use super::per_table::PerTable;
use super::text::{hex, iso};
use crate::lost::model::{
    LostChange, LostHistory, LostRow, LostSink, LostTable, LostTransaction, LostValue, SinkError, SourceRow,
    SourceState,
};
use crate::target::disk::Disk;

/// Writes the files.
#[derive(Debug)]
pub(crate) struct CsvFiles {
    outputs: Outputs,
    /// The file of each table.
    files: PerTable<usize>,
    /// The files by names and columns: a table of which only the file has changed goes on in the same file.
    by_columns: HashMap<Columns, usize>,
    /// The files with what the source has, by the names of their tables.
    sources: HashMap<Columns, usize>,
    /// Names of files in lower case, because some file systems do not tell them apart.
    names: HashSet<String>,
    commit_time: String,
    line: Vec<u8>,
}

/// What the header of a file depends on.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Columns {
    database: String,
    schema: Option<String>,
    table: String,
    columns: Vec<String>,
}

impl Columns {
    fn of(table: &LostTable) -> Columns {
        Columns {
            database: table.database.clone(),
            schema: table.schema.clone(),
            table: table.name.clone(),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
        }
    }
}

impl CsvFiles {
    /// The files will be written to this directory.
    pub(crate) fn new(disk: &Disk, directory: &Path) -> CsvFiles {
        CsvFiles {
            outputs: Outputs::new(disk, directory),
            files: PerTable::default(),
            by_columns: HashMap::new(),
            sources: HashMap::new(),
            names: HashSet::new(),
            commit_time: String::new(),
            line: Vec::new(),
        }
    }

    /// How many files with rows there are, and how many with what the source has.
    pub(crate) fn files(&self) -> (usize, usize) {
        (self.outputs.len() - self.sources.len(), self.sources.len())
    }

    /// Makes all of them durable.
    pub(crate) fn sync(&mut self) -> Result<(), SinkError> {
        self.outputs.sync()
    }

    fn row(&mut self, transaction: &LostTransaction, row: &LostRow) -> Result<(), SinkError> {
        let (outputs, by_columns, names) = (&mut self.outputs, &mut self.by_columns, &mut self.names);
        let file = *self.files.get(&row.table, |_| {
            let columns = Columns::of(&row.table);
            if let Some(file) = by_columns.get(&columns) {
                return Ok(*file);
            }
            let file = outputs.create(&free_name(&row.table, "csv", names))?;
            outputs.put(file, &header(&row.table))?;
            by_columns.insert(columns, file);
            Ok(file)
        })?;
        self.line.clear();
        let _ = write!(
            self.line,
            "{},{},{},{},{}",
            row.op.name(),
            transaction.xid,
            self.commit_time,
            row.lsn,
            row.quality.name()
        );
        for values in [&row.old, &row.new] {
            for number in 0..row.table.columns.len() {
                self.line.push(b',');
                match values {
                    None => {}
                    Some(values) => put_value(&mut self.line, values.get(number)),
                }
            }
        }
        self.line.push(b'\n');
        self.outputs.put(file, &self.line)
    }

    fn source_row(&mut self, row: &SourceRow) -> Result<(), SinkError> {
        self.line.clear();
        let columns = Columns::of(&row.table);
        let file = match self.sources.get(&columns) {
            Some(file) => *file,
            None => {
                let file = self.outputs.create(&free_name(&row.table, "source.csv", &mut self.names))?;
                source_line(&mut self.line, row, true);
                self.sources.insert(columns, file);
                file
            }
        };
        source_line(&mut self.line, row, false);
        self.outputs.put(file, &self.line)
    }
}

/// The line about what the source has for a key, or the first one, which names the columns.
fn source_line(line: &mut Vec<u8>, row: &SourceRow, is_head: bool) {
    let SourceRow { table, key, state } = row;
    for place in &table.key {
        match is_head {
            true => put_text(line, &table.columns[*place].name),
            false => put_value(line, key.get(*place)),
        }
        line.push(b',');
    }
    let state = if is_head { "on_source" } else { state.map_or("(unknown)", SourceState::name) };
    line.extend_from_slice(state.as_bytes());
    line.push(b'\n');
}

/// A name that no file has yet: that of the table, with a number if it is taken.
fn free_name(table: &LostTable, ending: &str, names: &mut HashSet<String>) -> String {
    let name = file_name(&[&table.database, table.schema.as_deref().unwrap_or_default(), &table.name]);
    let mut free = format!("{name}.{ending}");
    let mut number = 2;
    while !names.insert(free.to_lowercase()) {
        free = format!("{name}.{number}.{ending}");
        number += 1;
    }
    free
}

fn header(table: &LostTable) -> Vec<u8> {
    let mut line = b"op,xid,commit_time,lsn,quality".to_vec();
    for side in ["old", "new"] {
        for column in &table.columns {
            line.push(b',');
            put_text(&mut line, &format!("{side}:{}", column.name));
        }
    }
    line.push(b'\n');
    line
}

fn put_value(line: &mut Vec<u8>, value: Option<&LostValue>) {
    match value {
        Some(LostValue::Null) => {}
        Some(LostValue::Text(text)) => put_text(line, text),
        Some(LostValue::Bytes(bytes)) => line.extend_from_slice(hex(bytes).as_bytes()),
        Some(LostValue::Unchanged) => line.extend_from_slice(b"(unchanged)"),
        Some(LostValue::Unknown) | None => line.extend_from_slice(b"(unknown)"),
    }
}

/// A text, in quotes where it would otherwise be read as something else.
fn put_text(line: &mut Vec<u8>, text: &str) {
    let is_plain = !text.is_empty()
        && !text.starts_with(['(', '\\', ' '])
        && !text.ends_with(' ')
        && !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r' | b'\t' | b';'));
    if is_plain {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    line.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}

impl LostSink for CsvFiles {
    fn begin(&mut self, _: &LostHistory) -> Result<(), SinkError> {
        Ok(())
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.commit_time = transaction.commit_time.map(iso).unwrap_or_default();
        Ok(())
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        match change {
            LostChange::Row(row) => self.row(transaction, row),
            LostChange::Object(_) | LostChange::Sequence { .. } => Ok(()),
        }
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        history
            .on_source
            .iter()
            .flat_map(|on_source| &on_source.rows)
            .try_for_each(|row| self.source_row(row))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::lost::export::made_up::{HOSTILE, history, insert, pass, play, table, text, transaction};
    use crate::lost::model::OnSource;

    /// Writes what `play` passes on, and returns the files by their names.
    fn written(play: impl FnOnce(&mut CsvFiles) -> Result<(), SinkError>) -> BTreeMap<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut files = CsvFiles::new(&Disk::default(), directory.path());
        play(&mut files).unwrap();
        files.sync().unwrap();
        let entries = fs::read_dir(directory.path()).unwrap().map(Result::unwrap);
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        entries.map(read).collect()
    }

    #[test]
    fn the_made_up_history_is_written() {
        let files = written(play);
        let hostile = file_name(&[HOSTILE, HOSTILE, HOSTILE]) + ".csv";
        let names = files.keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            names,
            [
                &*hostile,
                "shop.pg_catalog.pg_largeobject.csv",
                "shop.public.Log.csv",
                "shop.sales.payment.2.csv",
                "shop.sales.payment.csv"
            ]
        );
        let start = |op: &str, quality| format!("{op},764,2026-11-30T00:53:20.000764Z,0/2001148,{quality}");
        let (insert, update, delete) =
            (start("insert", "exact"), start("update", "exact"), start("delete", "exact"));
        let unknown = start("update", "incomplete");
        assert_eq!(
            files["shop.sales.payment.csv"],
            format!(
                "op,xid,commit_time,lsn,quality,old:id,old:note,new:id,new:note\n\
                 {insert},,,1,\"it's \"\"a\"\"\nb\"\n\
                 {insert},,,2,\n\
                 {update},2,,2,\"\"\n\
                 {update},3,(unchanged),4,(unchanged)\n\
                 {delete},1,\"it's \"\"a\"\"\nb\",,\n\
                 {unknown},,,,\n\
                 {delete},9,(unknown),,\n"
            )
        );
        assert!(files["shop.public.Log.csv"].contains(&format!("{insert},,,\"(unknown)\",\\x01ff\n")));
        assert!(
            files["shop.sales.payment.2.csv"]
                .starts_with("op,xid,commit_time,lsn,quality,old:id,old:note,old:more,")
        );
    }

    #[test]
    fn what_the_source_has_is_in_a_file_for_each_table() {
        let files = written(|files| {
            let of = |name: &str, key: &str, state| SourceRow {
                table: Arc::new(table("d", "s", name)),
                key: vec![text(key), LostValue::Unknown],
                state,
            };
            let rows = vec![
                of("t", "a,b", Some(SourceState::Gone)),
                of("u", "1", Some(SourceState::Same)),
                of("t", "2", None),
            ];
            files.end(&LostHistory { on_source: Some(OnSource { rows }), ..history() })
        });
        assert_eq!(files.len(), 2);
        assert_eq!(files["d.s.t.source.csv"], "id,on_source\n\"a,b\",gone\n2,(unknown)\n");
        assert_eq!(files["d.s.u.source.csv"], "id,on_source\n1,same\n");
    }

    #[test]
    fn names_that_look_alike_get_files_of_their_own() {
        let files = written(|files| {
            for name in ["a/b", "a.b", "A_B", "a_b", "a_b"] {
                let table = Arc::new(table("d", "s", name));
                pass(files, &transaction(1, "d"), &[insert(&table, &[text("1"), text(name)])])?;
            }
            Ok(())
        });
        let names = files.keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(names, ["d.s.A_B.3.csv", "d.s.a_b.2.csv", "d.s.a_b.4.csv", "d.s.a_b.csv"]);
        assert_eq!(files["d.s.a_b.4.csv"].lines().count(), 3);
    }
}
