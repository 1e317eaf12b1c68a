//! What the source has by now in the place of each lost row: compared by the row's key, after everything was seen.
//!
//! All changes of a key count as one: from the row before the first of them to the row after the last one. Conditions for these
//! two are kept in memory, up to a limit, and the server decides which of them its row fulfils.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use walparse::Lsn;

use super::names::table_name;
use super::per_table::PerTable;
use super::redact::Redaction;
use super::source_sql::{Conditions, SourceColumns, query};
use super::text::counted;
use crate::lost::model::{
    LostChange, LostHistory, LostPart, LostRow, LostSink, LostTable, LostTransaction, LostValue, ObjectOp,
    OnSource, Quality, RowOp, SinkError, SourceRow, SourceState,
};

/// Bytes of keys and conditions that are kept.
const MEMORY: usize = 64 << 20;

/// What is kept of a key beside its texts.
const PER_KEY: usize = 256;

/// Keys that are looked up with one statement.
const BATCH: usize = 500;

/// Why the source does not tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotTold {
    /// A stop was requested.
    Stopped,
    /// This table cannot be read, and why.
    Table(String),
    /// Nor can any other of its database.
    Database(String),
}

/// Executes a query in a database of the source. Values are texts.
pub(crate) type LookUp<'a> =
    Box<dyn FnMut(&str, &str) -> Result<Vec<Vec<Option<String>>>, NotTold> + Send + 'a>;

/// What all changes of one key have made of its row.
#[derive(Debug)]
struct Key {
    /// The number of its table.
    table: usize,
    /// Its values, in the places of their columns.
    values: Vec<LostValue>,
    conditions: Conditions,
    /// Whether both conditions are known.
    is_known: bool,
    state: Option<SourceState>,
}

/// Passes on what was lost, and at the end what the source has in its place.
pub(crate) struct Comparing<'a, S> {
    sink: S,
    look_up: Option<LookUp<'a>>,
    redaction: Redaction,
    columns: PerTable<SourceColumns>,
    /// Tables by their names: rewriting a table gives it another file.
    numbers: HashMap<(String, String), usize>,
    tables: Vec<Arc<LostTable>>,
    keys: Vec<Key>,
    places: HashMap<(usize, String), usize>,
    /// Tables whose rows are not told by changes of rows alone: the number and why.
    left_out: BTreeSet<(String, &'static str)>,
    memory: usize,
    /// Keys beyond the limit.
    beyond: u64,
}

impl<S> fmt::Debug for Comparing<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparing").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl<'a, S: LostSink> Comparing<'a, S> {
    /// Without `look_up` nothing is compared.
    pub(crate) fn new(look_up: Option<LookUp<'a>>, redaction: Redaction, sink: S) -> Comparing<'a, S> {
        Comparing {
            sink,
            look_up,
            redaction,
            columns: PerTable::default(),
            numbers: HashMap::new(),
            tables: Vec::new(),
            keys: Vec::new(),
            places: HashMap::new(),
            left_out: BTreeSet::new(),
            memory: 0,
            beyond: 0,
        }
    }

    pub(crate) fn into_inner(self) -> S {
        self.sink
    }

    fn note(&mut self, change: &LostChange) {
        match change {
            LostChange::Row(row) if !row.table.is_large_object => self.note_row(row),
            LostChange::Object(object) if object.op == ObjectOp::Truncate && object.kind == "table" => {
                self.left_out.insert((object.name.clone(), "a lost transaction has truncated it"));
            }
            _ => {}
        }
    }

    fn note_row(&mut self, row: &LostRow) {
        let table = &row.table;
        let reason = match table {
            _ if table.schema.is_none() => "its name is not known",
            _ if table.is_altered => "lost transactions have created, altered or dropped it",
            _ if table.key.is_empty() => "it has no key",
            _ => "",
        };
        if !reason.is_empty() {
            self.left_out.insert((table_name(table), reason));
            return;
        }
        let name = (table.database.clone(), table_name(table));
        let number = *self.numbers.entry(name).or_insert(self.tables.len());
        if number == self.tables.len() {
            self.tables.push(table.clone());
        }
        match row.op {
            RowOp::Insert => self.side(number, table, row.new.as_deref(), None, true),
            RowOp::Delete => self.side(number, table, row.old.as_deref(), None, false),
            RowOp::Update => {
                let (Some(old), Some(new)) = (row.old.as_deref(), row.new.as_deref()) else {
                    self.beyond += 1;
                    return;
                };
                let is_same_key = table.key.iter().all(|number| {
                    let new = new.get(*number);
                    new == Some(&LostValue::Unchanged) || new == old.get(*number)
                });
                if is_same_key {
                    self.side(number, table, Some(old), Some(new), true);
                } else {
                    self.side(number, table, Some(old), None, false);
                    self.side(number, table, Some(new), None, true);
                }
            }
        }
    }

    /// Notes that the row with the key of `values` was inserted or deleted, or has become `updated`.
    fn side(
        &mut self,
        number: usize,
        table: &Arc<LostTable>,
        values: Option<&[LostValue]>,
        updated: Option<&[LostValue]>,
        is_there: bool,
    ) {
        let made = self.columns.get(table, |_| Ok::<_, Infallible>(SourceColumns::of(table)));
        let Ok(columns) = made;
        let Some(values) = values else {
            self.beyond += 1;
            return;
        };
        let Some(is_it) = columns.key(values) else {
            self.beyond += 1;
            return;
        };
        let row = columns.row(values);
        let (before, after) = match (updated, is_there) {
            (Some(updated), _) => (Some(row), Some(columns.row(updated))),
            (None, true) => (None, Some(row)),
            (None, false) => (Some(row), None),
        };
        let is_known = [&before, &after].into_iter().flatten().all(Option::is_some);
        let (before, after) = (before.flatten(), after.flatten());
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if let Some(place) = self.places.get(&(number, is_it.clone())) {
            let key = &mut self.keys[*place];
            self.memory = (self.memory + length(&after)).saturating_sub(length(&key.conditions.after));
            key.conditions.after = after;
            key.is_known &= is_known;
            return;
        }
        let size = PER_KEY + 3 * is_it.len() + length(&before) + length(&after);
        if self.memory + size > MEMORY {
            self.beyond += 1;
            return;
        }
        self.memory += size;
        self.places.insert((number, is_it.clone()), self.keys.len());
        let of_key = |(number, value): (usize, &LostValue)| match table.key.contains(&number) {
            true => value.clone(),
            false => LostValue::Unknown,
        };
        let values = values.iter().enumerate().map(of_key).collect();
        let conditions = Conditions { is_it, before, after };
        self.keys.push(Key { table: number, values, conditions, is_known, state: None });
    }

    /// Asks the source for all keys. What it does not tell is noted.
    fn compare(&mut self, notes: &mut Vec<String>) -> Result<(), NotTold> {
        let Some(look_up) = &mut self.look_up else { return Ok(()) };
        let mut by_table = vec![Vec::new(); self.tables.len()];
        for (place, key) in self.keys.iter().enumerate().filter(|(_, key)| key.is_known) {
            by_table[key.table].push(place);
        }
        let mut unread = BTreeSet::new();
        for (places, table) in by_table.iter().zip(&self.tables) {
            let name = table_name(table);
            if self.left_out.iter().any(|(left_out, _)| *left_out == name) || unread.contains(&table.database)
            {
                continue;
            }
            for batch in places.chunks(BATCH) {
                let asked = batch.iter().map(|place| &self.keys[*place].conditions).collect::<Vec<_>>();
                match look_up(&table.database, &query(table, &asked)) {
                    Ok(rows) => {
                        let states = asked.iter().enumerate().map(|(at, key)| state(key, at, &rows));
                        let states = states.collect::<Vec<_>>();
                        batch.iter().zip(states).for_each(|(place, state)| self.keys[*place].state = state);
                    }
                    Err(NotTold::Stopped) => return Err(NotTold::Stopped),
                    Err(NotTold::Table(why)) => {
                        notes.push(format!("Table {name} was not compared with the source: {why}."));
                        break;
                    }
                    Err(NotTold::Database(why)) => {
                        let database = &table.database;
                        notes.push(format!("Database {database} was not compared with the source: {why}."));
                        unread.insert(database.clone());
                        break;
                    }
                }
            }
        }
        for (name, why) in &self.left_out {
            notes.push(format!("Table {name} was not compared with the source: {why}."));
        }
        if self.beyond > 0 {
            let changes = counted(self.beyond, "change");
            notes.push(format!(
                "{changes} were not compared with the source: not enough of the row is known, or there are too many."
            ));
        }
        Ok(())
    }

    /// The keys without what may not be seen.
    fn rows(&mut self) -> Vec<SourceRow> {
        let (keys, tables, redaction) = (&self.keys, &self.tables, &mut self.redaction);
        let left_out = &self.left_out;
        let told = keys.iter().filter(|key| {
            let name = table_name(&tables[key.table]);
            !left_out.iter().any(|(left_out, _)| *left_out == name)
        });
        let shown = told.filter_map(|key| {
            // As a deleted row, of which only the key is known.
            let row = LostRow {
                lsn: Lsn::INVALID,
                op: RowOp::Delete,
                table: tables[key.table].clone(),
                old: Some(key.values.clone()),
                new: None,
                quality: Quality::Exact,
            };
            match redaction.change(&LostChange::Row(row)).into_owned() {
                LostChange::Row(row) => Some(SourceRow { table: row.table, key: row.old?, state: key.state }),
                _ => None,
            }
        });
        shown.collect()
    }
}

/// What the answer says about the key at a place of the question.
fn state(key: &Conditions, at: usize, rows: &[Vec<Option<String>>]) -> Option<SourceState> {
    let is_of = |row: &&Vec<Option<String>>| row.first().and_then(Option::as_deref) == Some(&*at.to_string());
    let row = rows.get(at).filter(is_of).or_else(|| rows.iter().find(is_of))?;
    match (row.get(1)?.as_deref(), &key.before, &key.after) {
        (Some("s"), ..) | (None, None, _) => Some(SourceState::Same),
        (Some("e"), ..) | (None, _, None) => Some(SourceState::Equal),
        (None, Some(_), Some(_)) => Some(SourceState::Gone),
        (Some(_), ..) => Some(SourceState::Changed),
    }
}

impl<S: LostSink> LostSink for Comparing<'_, S> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.begin(history)
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction(transaction)
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        if self.look_up.is_some() {
            self.note(change);
        }
        self.sink.change(transaction, change)
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction_end(transaction)
    }

    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        if self.look_up.is_some() {
            parts.iter().flat_map(|part| part.changes).for_each(|change| self.note(change));
        }
        self.sink.parts(parts)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        if self.look_up.is_none() {
            return self.sink.end(history);
        }
        let mut history = history.clone();
        self.compare(&mut history.notes).map_err(|_| {
            let source = io::Error::new(ErrorKind::Interrupted, "stopped");
            SinkError { path: "of the comparison".to_owned(), source }
        })?;
        history.on_source = Some(OnSource { rows: self.rows() });
        self.sink.end(&history)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::lost::export::made_up::{history, insert, row, table, text, transaction};
    use crate::lost::export::summary::LostCounter;

    /// What a source that has these answers makes of changes, with the number of questions.
    fn compared(
        changes: &[LostChange],
        masks: &[&str],
        answer: impl FnMut(&str, &str) -> Result<Vec<Vec<Option<String>>>, NotTold> + Send,
    ) -> (Vec<SourceRow>, Vec<String>) {
        struct Last(Mutex<Option<LostHistory>>, LostCounter);
        impl LostSink for &mut Last {
            fn begin(&mut self, _: &LostHistory) -> Result<(), SinkError> {
                Ok(())
            }
            fn transaction(&mut self, _: &LostTransaction) -> Result<(), SinkError> {
                Ok(())
            }
            fn change(&mut self, at: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
                self.1.change(at, change)
            }
            fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
                *self.0.lock().unwrap() = Some(history.clone());
                Ok(())
            }
        }
        let masks = masks.iter().map(|mask| (*mask).to_owned()).collect::<Vec<_>>();
        let mut last = Last(Mutex::default(), LostCounter::default());
        let redaction = Redaction::new(&masks, false).unwrap();
        let mut sink = Comparing::new(Some(Box::new(answer)), redaction, &mut last);
        let history = LostHistory { notes: Vec::new(), ..history() };
        sink.begin(&history).unwrap();
        for change in changes {
            sink.change(&transaction(1, "shop"), change).unwrap();
        }
        sink.end(&history).unwrap();
        let history = last.0.into_inner().unwrap().unwrap();
        (history.on_source.unwrap().rows, history.notes)
    }

    fn changed(op: RowOp, old: Option<[&str; 2]>, new: Option<[&str; 2]>) -> LostChange {
        let values = |values: [&str; 2]| values.map(text).to_vec();
        let table = Arc::new(table("shop", "sales", "payment"));
        LostChange::Row(row(&table, op, old.map(values), new.map(values)))
    }

    fn answers(rows: &[Option<&str>]) -> Vec<Vec<Option<String>>> {
        let row =
            |(at, answer): (usize, &Option<&str>)| vec![Some(at.to_string()), answer.map(str::to_owned)];
        rows.iter().enumerate().map(row).collect()
    }

    #[test]
    fn all_changes_of_a_key_are_one() {
        use SourceState::{Changed, Equal, Gone, Same};
        let changes = [
            changed(RowOp::Insert, None, Some(["1", "a"])),
            changed(RowOp::Update, Some(["1", "a"]), Some(["1", "b"])),
            changed(RowOp::Update, Some(["2", "a"]), Some(["2", "b"])),
            changed(RowOp::Update, Some(["2", "b"]), Some(["2", "c"])),
            changed(RowOp::Delete, Some(["3", "a"]), None),
            changed(RowOp::Update, Some(["4", "a"]), Some(["5", "a"])),
        ];
        let mut asked = String::new();
        let states = |rows: &[SourceRow]| rows.iter().map(|row| row.state.unwrap()).collect::<Vec<_>>();
        let (rows, notes) = compared(&changes, &[], |database, sql| {
            assert_eq!(database, "shop");
            asked = sql.to_owned();
            Ok(answers(&[None, Some("s"), None, Some("c"), Some("e")]))
        });
        assert_eq!(states(&rows), [Same, Same, Equal, Changed, Equal]);
        assert_eq!(rows[4].key, [text("5"), LostValue::Unknown]);
        assert!(notes.is_empty(), "{notes:?}");
        assert!(
            asked.contains("\"note\" = 'c'::text THEN 'e'") && !asked.contains("'b'::text THEN 's'"),
            "{asked}"
        );
        let (rows, _) = compared(&changes[2..3], &[], |_, _| Ok(answers(&[None])));
        assert_eq!(states(&rows), [Gone]);
    }

    #[test]
    fn what_is_not_told_is_noted_and_no_value_is_shown() {
        let changes = [changed(RowOp::Delete, Some(["secret", "a"]), None)];
        let (rows, notes) =
            compared(&changes, &["id"], |_, _| Err(NotTold::Table("permission denied".to_owned())));
        assert_eq!(notes, ["Table sales.payment was not compared with the source: permission denied."]);
        assert_eq!((rows[0].state, &rows[0].key), (None, &vec![text("***"), LostValue::Unknown]));
        let keyless = Arc::new(LostTable { key: Vec::new(), ..table("shop", "public", "log") });
        let (rows, notes) =
            compared(&[insert(&keyless, &[text("1"), text("a")])], &[], |_, _| panic!("asked"));
        assert!(rows.is_empty() && notes[0].contains("it has no key"), "{notes:?}");
    }
}
