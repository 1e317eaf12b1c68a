//! `transactions.json`: everything that was lost, as one JSON object with a line for each change. It is also what
//! `--format json` prints. The format is described by `docs/reference/lost.schema.json`.

use std::io::{self, Write};
use std::sync::Arc;

use super::json_parts::{
    ClusterPart, DefinitionPart, ForkPart, ObjectPart, ReadPart, RowPart, SCHEMA_VERSION, SequencePart,
    SourceRowPart, TotalsPart, TransactionPart, UndecidedPart, source_tables,
};
use super::names::table_name;
use super::per_table::PerTable;
use super::summary::{LostCounter, LostSummary};
use crate::lost::model::{LostChange, LostHistory, LostSink, LostTable, LostTransaction, SinkError};

/// Writes what passes through as JSON, and counts it.
#[derive(Debug)]
pub struct LostJson<W: Write> {
    out: W,
    /// The name of `out` in errors.
    name: String,
    counter: LostCounter,
    tables: PerTable<Named>,
    place: Place,
    line: Vec<u8>,
}

/// A table, as rows refer to it.
#[derive(Debug)]
struct Named {
    /// Its place in `definitions`.
    number: usize,
    /// Its name with its schema.
    name: String,
    table: Arc<LostTable>,
}

/// Where in the object the last line was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Nothing was written yet.
    Start,
    /// Between transactions; none was written yet.
    NoTransaction,
    /// Between transactions.
    Transactions,
    /// In a transaction without changes so far.
    NoChange,
    /// In a transaction.
    Changes,
    /// All was written.
    End,
}

impl<W: Write> LostJson<W> {
    /// `out` should have a buffer. `name` names it in errors.
    pub fn new(out: W, name: &str) -> LostJson<W> {
        LostJson {
            out,
            name: name.to_owned(),
            counter: LostCounter::default(),
            tables: PerTable::default(),
            place: Place::Start,
            line: Vec::new(),
        }
    }

    /// What was counted so far.
    pub fn summary(&self) -> LostSummary {
        self.counter.summary()
    }

    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends the object before the last transaction was seen, so that a program can read what is there: `complete` is
    /// false, and `reason` is a note.
    ///
    /// # Errors
    /// Writing failed.
    pub fn end_early(&mut self, history: &LostHistory, reason: &str) -> Result<(), SinkError> {
        let mut history = history.clone();
        history.notes.push(reason.to_owned());
        self.guarded(|json| json.write_end(&history))
    }

    fn guarded(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), SinkError> {
        write(self).map_err(|source| SinkError { path: self.name.clone(), source })
    }

    fn write_begin(&mut self, history: &LostHistory) -> io::Result<()> {
        write!(self.out, "{{\n\"schema_version\": {SCHEMA_VERSION},\n\"cluster\": ")?;
        serde_json::to_writer(&mut self.out, &ClusterPart::of(history))?;
        self.out.write_all(b",\n\"fork\": ")?;
        serde_json::to_writer(&mut self.out, &ForkPart::of(history))?;
        self.place = Place::NoTransaction;
        self.out.write_all(b",\n\"transactions\": [")
    }

    fn write_transaction(&mut self, transaction: &LostTransaction) -> io::Result<()> {
        let separator: &[u8] = if self.place == Place::NoTransaction { b"\n" } else { b",\n" };
        self.out.write_all(separator)?;
        let mut line = serde_json::to_vec(&TransactionPart::of(transaction))?;
        // The changes follow in the same object.
        line.pop();
        self.out.write_all(&line)?;
        self.place = Place::NoChange;
        self.out.write_all(b",\"changes\":[")
    }

    fn write_change(&mut self, transaction: &LostTransaction, change: &LostChange) -> io::Result<()> {
        let separator: &[u8] = if self.place == Place::NoChange { b"\n" } else { b",\n" };
        self.place = Place::Changes;
        // Collected first: there are many small pieces.
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(separator);
        match change {
            LostChange::Row(row) => {
                let named = self.tables.get(&row.table, |number| {
                    let (name, table) = (table_name(&row.table), row.table.clone());
                    Ok::<_, io::Error>(Named { number, name, table })
                })?;
                serde_json::to_writer(
                    &mut *line,
                    &RowPart::of(transaction, row, (named.number, &named.name)),
                )?;
            }
            LostChange::Object(object) => {
                serde_json::to_writer(&mut *line, &ObjectPart::of(transaction, object))?;
            }
            LostChange::Sequence { lsn, database, name, last_value } => {
                let part = SequencePart::of(transaction, *lsn, database, name, *last_value);
                serde_json::to_writer(&mut *line, &part)?;
            }
        }
        self.out.write_all(line)
    }

    fn write_transaction_end(&mut self) -> io::Result<()> {
        let ending: &[u8] = if self.place == Place::NoChange { b"]}" } else { b"\n]}" };
        self.place = Place::Transactions;
        self.out.write_all(ending)
    }

    fn write_on_source(&mut self, history: &LostHistory, summary: &LostSummary) -> io::Result<()> {
        let Some(on_source) = &history.on_source else { return self.out.write_all(b"null") };
        self.out.write_all(b"{\"tables\": ")?;
        serde_json::to_writer(&mut self.out, &source_tables(summary))?;
        self.out.write_all(b", \"rows\": [")?;
        for (number, row) in on_source.rows.iter().enumerate() {
            self.out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.out, &SourceRowPart::of(row))?;
        }
        self.out.write_all(b"\n]}")
    }

    fn write_end(&mut self, history: &LostHistory) -> io::Result<()> {
        if self.place == Place::Start {
            self.write_begin(history)?;
        }
        if matches!(self.place, Place::NoChange | Place::Changes) {
            self.write_transaction_end()?;
        }
        let summary = self.counter.summary();
        let undecided = history.undecided.iter().map(UndecidedPart::of).collect::<Vec<_>>();
        self.out.write_all(b"\n],\n\"read\": ")?;
        serde_json::to_writer(&mut self.out, &ReadPart::of(history))?;
        self.out.write_all(b",\n\"undecided\": ")?;
        serde_json::to_writer(&mut self.out, &undecided)?;
        self.out.write_all(b",\n\"notes\": ")?;
        serde_json::to_writer(&mut self.out, &history.notes)?;
        self.out.write_all(b",\n\"on_source\": ")?;
        self.write_on_source(history, &summary)?;
        self.out.write_all(b",\n\"totals\": ")?;
        serde_json::to_writer(&mut self.out, &TotalsPart::of(&summary))?;
        self.out.write_all(b",\n\"definitions\": [")?;
        for (number, named) in self.tables.values().enumerate() {
            self.out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.out, &DefinitionPart::of(&named.table))?;
        }
        self.out.write_all(b"\n]")?;
        self.place = Place::End;
        write!(self.out, ",\n\"complete\": {}\n}}\n", summary.is_complete)?;
        self.out.flush()
    }
}

impl<W: Write> LostSink for LostJson<W> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.counter.begin(history)?;
        self.guarded(|json| json.write_begin(history))
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.counter.transaction(transaction)?;
        self.guarded(|json| json.write_transaction(transaction))
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        self.counter.change(transaction, change)?;
        self.guarded(|json| json.write_change(transaction, change))
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.counter.transaction_end(transaction)?;
        self.guarded(LostJson::write_transaction_end)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.counter.end(history)?;
        self.guarded(|json| json.write_end(history))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::lost::export::made_up::{HOSTILE, history, play, transactions};

    fn written() -> String {
        let mut json = LostJson::new(Vec::new(), "memory");
        play(&mut json).unwrap();
        String::from_utf8(json.out).unwrap()
    }

    #[test]
    fn the_made_up_history_is_written() {
        let text = written();
        let all: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all["schema_version"], 1);
        assert_eq!(all["cluster"]["system_identifier"], "18446744073709551615");
        assert_eq!(all["fork"], json!({"lsn": "0/304C120", "timeline": 1}));
        assert_eq!(all["read"], json!({"from": "0/2001148", "to": "0/3057820"}));
        let first = &all["transactions"][0];
        assert_eq!(first["prepared_gid"], HOSTILE);
        assert_eq!(first["commit_time"], "2026-11-30T00:53:20.000764Z");
        let changes = &first["changes"];
        assert_eq!(
            changes[0],
            json!({
                "lsn": "0/2001148", "op": "insert", "table": "sales.payment", "key": {"id": "1"},
                "old": null, "new": {"id": "1", "note": "it's \"a\"\nb"}, "quality": "exact", "definition": 0,
            })
        );
        assert_eq!(changes[2]["old"], json!({"id": "2", "note": null}));
        assert_eq!(changes[3]["key"], json!({"id": "3"}));
        assert_eq!(changes[3]["new"], json!({"id": "4", "note": {"unchanged": true}}));
        let bytes = json!({"bytes": "\\x01ff", "type": "tsvector"});
        assert_eq!(changes[5]["new"], json!({"a": "(unknown)", "b": bytes}));
        assert_eq!((&changes[5]["key"], &changes[5]["table"]), (&json!(null), &json!("public.\"Log\"")));
        assert_eq!(changes[6]["quality"], "incomplete");
        assert_eq!(changes[7]["old"]["note"], json!({"unknown": true}));
        let second = &all["transactions"][1]["changes"];
        assert_eq!((&second[0]["op"], &second[0]["kind"]), (&json!("create"), &json!("table")));
        assert_eq!((&second[3]["op"], &second[3]["last_value"]), (&json!("sequence"), &json!(99_999)));
        assert_eq!(all["transactions"][2]["changes"][0]["new"]["note"], HOSTILE);
        assert_eq!(all["transactions"][4]["changes"], json!([]));
        assert_eq!(all["totals"]["tables"][2]["inserted"], 3);
        assert_eq!((&all["complete"], &all["undecided"][0]["xid"]), (&json!(true), &json!(790)));
        // A line for each change, so that a file that is cut off can be read line by line.
        let rows = text.lines().filter(|line| line.starts_with("{\"lsn\"")).count();
        assert_eq!(rows, transactions().iter().map(|(_, changes)| changes.len()).sum::<usize>());
    }

    #[test]
    fn what_is_ended_early_can_be_read() {
        for transactions_seen in 0..3 {
            let mut json = LostJson::new(Vec::new(), "memory");
            if transactions_seen > 0 {
                json.begin(&history()).unwrap();
            }
            for (transaction, changes) in transactions().iter().take(transactions_seen) {
                json.transaction(transaction).unwrap();
                changes.iter().for_each(|change| json.change(transaction, change).unwrap());
                if transactions_seen == 2 && transaction.xid == 764 {
                    json.transaction_end(transaction).unwrap();
                }
            }
            json.end_early(&history(), "WAL ends in the middle.").unwrap();
            let all: Value = serde_json::from_slice(&json.out).unwrap();
            assert_eq!(all["transactions"].as_array().unwrap().len(), transactions_seen);
            assert_eq!(
                (&all["complete"], &all["notes"][1]),
                (&json!(false), &json!("WAL ends in the middle."))
            );
        }
    }

    #[test]
    fn an_error_names_the_output() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = LostJson::new(Full, "standard output").begin(&history()).unwrap_err();
        assert!(error.to_string().contains("standard output"), "{error}");
    }
}
