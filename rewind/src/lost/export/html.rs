//! `report.html`: what was lost, for people with a browser. One file, which needs no network.
//!
//! The data is embedded in blocks of JSON lines that the scripts of the page parse when they are shown. It is in no way
//! part of the page's HTML: `<` is escaped in it, and the scripts put it in as text.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::html_page::{page, put_json, put_script};
use super::html_parts::{HeadPart, Omitted, TailPart, row, source_row};
use super::json_parts::{ClusterPart, ForkPart, ObjectPart, SequencePart};
use super::names::table_name;
use super::output::Output;
use super::per_table::PerTable;
use super::summary::{LostSummary, RowCounts};
use crate::lost::model::{LostChange, LostHistory, LostPart, LostTable, LostTransaction, SinkError};

/// Bytes of a block, after which it is ended.
const BLOCK: usize = 128 << 10;
/// Transactions of a block.
const BLOCK_TRANSACTIONS: u64 = 200;
/// Bytes of rows in the report. What goes beyond is counted: browsers do not open files of any size.
const ROWS: u64 = 96 << 20;
/// Bytes of transactions without their rows.
const HEADS: u64 = 32 << 20;
/// Bytes of keys, with what the source has for them.
const KEYS: u64 = 16 << 20;

/// Writes the report.
#[derive(Debug)]
pub(crate) struct HtmlReport {
    out: Output,
    /// What stands after the data.
    end: String,
    /// The numbers of the tables that are in the report.
    tables: PerTable<usize>,
    block: Block,
    current: Current,
    /// Transactions that are in the report.
    transactions: u64,
    bytes_left: BytesLeft,
    omitted: Omitted,
    line: Vec<u8>,
}

/// How many bytes may still be written.
#[derive(Debug)]
struct BytesLeft {
    rows: u64,
    heads: u64,
    keys: u64,
}

/// Transactions that are not written yet, each with its changes.
#[derive(Debug, Default)]
struct Block {
    text: Vec<u8>,
    transactions: u64,
    rows: u64,
}

/// The transaction that began last.
#[derive(Debug, Default)]
struct Current {
    /// Changes that are not in a block yet.
    text: Vec<u8>,
    lines: u64,
    /// All changes that are in the report.
    listed: u64,
    rows: RowCounts,
    tables: BTreeSet<usize>,
    omitted: u64,
}

impl HtmlReport {
    pub(crate) fn new(out: Output) -> HtmlReport {
        HtmlReport {
            out,
            end: String::new(),
            tables: PerTable::default(),
            block: Block::default(),
            current: Current::default(),
            transactions: 0,
            bytes_left: BytesLeft { rows: ROWS, heads: HEADS, keys: KEYS },
            omitted: Omitted::default(),
            line: Vec::new(),
        }
    }

    pub(crate) fn sync(&mut self) -> Result<(), SinkError> {
        self.out.sync()
    }

    pub(crate) fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        #[derive(Serialize)]
        struct Start<'a> {
            cluster: ClusterPart<'a>,
            fork: ForkPart,
        }
        let (start, end) = page();
        self.end = end;
        self.out.put(start.as_bytes())?;
        let known = Start { cluster: ClusterPart::of(history), fork: ForkPart::of(history) };
        self.put_element("id=\"data-head\"", &known)
    }

    pub(crate) fn transaction(&mut self) {
        let mut text = std::mem::take(&mut self.current.text);
        text.clear();
        self.current = Current { text, ..Current::default() };
    }

    pub(crate) fn change(
        &mut self,
        transaction: &LostTransaction,
        change: &LostChange,
    ) -> Result<(), SinkError> {
        self.line.clear();
        match change {
            LostChange::Row(changed) => {
                self.current.rows.add(changed.op, 1);
                let number = self.table(&changed.table)?;
                self.current.tables.insert(number);
                if self.bytes_left.rows == 0 {
                    self.current.omitted += 1;
                    return Ok(());
                }
                put_json(&mut self.line, &row(number, changed));
            }
            LostChange::Object(object) => {
                put_json(&mut self.line, &ObjectPart::of(transaction, object));
            }
            LostChange::Sequence { lsn, database, name, last_value } => {
                let part = SequencePart::of(transaction, *lsn, database, name, *last_value);
                put_json(&mut self.line, &part);
            }
        }
        if self.bytes_left.rows == 0 {
            return Ok(());
        }
        self.line.push(b'\n');
        self.bytes_left.rows = self.bytes_left.rows.saturating_sub(self.line.len() as u64);
        self.current.text.extend_from_slice(&self.line);
        self.current.lines += 1;
        self.current.listed += 1;
        if self.current.text.len() >= BLOCK {
            self.put_rows()?;
        }
        Ok(())
    }

    pub(crate) fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        if self.bytes_left.heads == 0 {
            self.omitted.rows += self.current.rows.total();
            self.omitted.transactions += 1;
            return Ok(());
        }
        self.omitted.rows += self.current.omitted;
        self.line.clear();
        let head = HeadPart {
            tables: self.current.tables.iter().copied().collect(),
            lines: self.current.lines,
            listed: self.current.listed,
            omitted: self.current.omitted,
            ..HeadPart::of(transaction, &self.current.rows)
        };
        put_json(&mut self.line, &head);
        self.line.push(b'\n');
        self.bytes_left.heads = self.bytes_left.heads.saturating_sub(self.line.len() as u64);
        self.block.text.extend_from_slice(&self.line);
        self.block.text.append(&mut self.current.text);
        self.block.transactions += 1;
        self.block.rows += self.current.rows.total();
        self.transactions += 1;
        if self.block.text.len() >= BLOCK || self.block.transactions == BLOCK_TRANSACTIONS {
            self.put_block()?;
        }
        Ok(())
    }

    pub(crate) fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        for part in parts {
            if part.begins {
                self.transaction();
            }
            part.changes.iter().try_for_each(|change| self.change(part.transaction, change))?;
            if part.ends {
                self.transaction_end(part.transaction)?;
            }
        }
        Ok(())
    }

    pub(crate) fn end(&mut self, history: &LostHistory, summary: &LostSummary) -> Result<(), SinkError> {
        self.put_block()?;
        self.put_source_rows(history)?;
        let tail = TailPart::of(history, summary, self.omitted);
        self.put_element("id=\"data-tail\"", &tail)?;
        self.out.put(self.end.as_bytes())
    }

    /// The number of a table, which is described in the report before the first row of it.
    fn table(&mut self, table: &Arc<LostTable>) -> Result<usize, SinkError> {
        #[derive(Serialize)]
        struct Table<'a> {
            number: usize,
            database: &'a str,
            name: String,
            columns: Vec<&'a str>,
            key: &'a [usize],
        }
        let out = &mut self.out;
        let number = self.tables.get(table, |number| {
            let described = Table {
                number,
                database: &table.database,
                name: table_name(table),
                columns: table.columns.iter().map(|column| column.name.as_str()).collect(),
                key: &table.key,
            };
            let mut text = Vec::new();
            put_json(&mut text, &described);
            put_script(out, "class=\"table\"", &text)?;
            Ok(number)
        })?;
        Ok(*number)
    }

    /// Writes the changes of a large transaction, which come before the transaction itself.
    fn put_rows(&mut self) -> Result<(), SinkError> {
        let attributes = format!("class=\"rows\" data-transaction=\"{}\"", self.transactions);
        put_script(&mut self.out, &attributes, &self.current.text)?;
        self.current.text.clear();
        self.current.lines = 0;
        Ok(())
    }

    /// Writes what the source has for each key.
    fn put_source_rows(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        let mut text = Vec::new();
        for row in history.on_source.iter().flat_map(|on_source| &on_source.rows) {
            if self.bytes_left.keys == 0 {
                self.omitted.keys += 1;
                continue;
            }
            let number = self.table(&row.table)?;
            let start = text.len();
            put_json(&mut text, &source_row(number, row));
            text.push(b'\n');
            self.bytes_left.keys = self.bytes_left.keys.saturating_sub((text.len() - start) as u64);
            if text.len() >= BLOCK {
                put_script(&mut self.out, "class=\"source\"", &text)?;
                text.clear();
            }
        }
        if text.is_empty() { Ok(()) } else { put_script(&mut self.out, "class=\"source\"", &text) }
    }

    fn put_block(&mut self) -> Result<(), SinkError> {
        let Block { text, transactions, rows } = &mut self.block;
        if *transactions > 0 {
            let attributes = format!("class=\"block\" data-count=\"{transactions}\" data-rows=\"{rows}\"");
            put_script(&mut self.out, &attributes, text)?;
        }
        text.clear();
        (*transactions, *rows) = (0, 0);
        Ok(())
    }

    fn put_element(&mut self, attributes: &str, value: &impl Serialize) -> Result<(), SinkError> {
        let mut text = Vec::new();
        put_json(&mut text, value);
        put_script(&mut self.out, attributes, &text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::lost::export::made_up::{
        HOSTILE, history, insert, pass, table, text, transaction, transactions,
    };
    use crate::lost::export::summary::LostCounter;
    use crate::lost::model::{LostSink, LostValue, OnSource, SourceRow, SourceState};
    use crate::target::disk::Disk;

    /// Writes transactions, and returns the page.
    fn written(
        transactions: &[(LostTransaction, Vec<LostChange>)],
        prepare: impl FnOnce(&mut HtmlReport),
    ) -> String {
        written_with(transactions, prepare, &history())
    }

    fn written_with(
        transactions: &[(LostTransaction, Vec<LostChange>)],
        prepare: impl FnOnce(&mut HtmlReport),
        history: &LostHistory,
    ) -> String {
        let mut counter = LostCounter::default();
        counter.begin(history).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        let mut report = HtmlReport::new(Output::create(&Disk::default(), path.clone()).unwrap());
        prepare(&mut report);
        report.begin(history).unwrap();
        for (transaction, changes) in transactions {
            report.transaction();
            changes.iter().for_each(|change| report.change(transaction, change).unwrap());
            report.transaction_end(transaction).unwrap();
            pass(&mut counter, transaction, changes).unwrap();
        }
        counter.end(history).unwrap();
        report.end(history, &counter.summary()).unwrap();
        report.sync().unwrap();
        fs::read_to_string(path).unwrap()
    }

    /// The lines of each block with these attributes.
    fn blocks(page: &str, attributes: &str) -> Vec<Vec<Value>> {
        let start = format!("<script type=\"application/json\" {attributes}");
        let texts = page.split(&start).skip(1).map(|rest| {
            let text = rest.split_once(">\n").unwrap().1;
            text.split_once("</script>").unwrap().0
        });
        texts.map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()).collect()
    }

    #[test]
    fn the_page_is_whole_and_the_data_cannot_leave_its_blocks() {
        let page = written(&transactions(), |_| ());
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n") && !page.contains("{{"));
        let scripts = page.matches("<script").count();
        // The script itself, the head, four tables and large objects, one block, the tail.
        assert_eq!((scripts, page.matches("</script").count()), (9, 9));
        assert!(!page.contains("<!--"));
        for outside in ["http:", "https:", "src=", "href=", "import(", "fetch("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let lines = &blocks(&page, "class=\"block\"")[0];
        assert_eq!(lines[0]["xid"], 764);
        assert_eq!((&lines[0]["lines"], &lines[0]["gid"]), (&Value::from(8), &Value::from(HOSTILE)));
        assert_eq!(lines[0]["rows"], serde_json::json!([3, 3, 2]));
        let hostile = lines.iter().find(|line| line[5][1] == HOSTILE);
        assert!(hostile.is_some());
    }

    #[test]
    fn a_large_transaction_is_written_in_pieces_before_itself() {
        let table = Arc::new(table("d", "s", "t"));
        let change = insert(&table, &[text("1"), text(&"<x>".repeat(500))]);
        let list = vec![
            (transaction(1, "d"), vec![change.clone()]),
            (transaction(2, "d"), vec![change.clone(); 200]),
            (transaction(3, "d"), vec![change]),
        ];
        let page = written(&list, |_| ());
        let pieces = blocks(&page, "class=\"rows\" data-transaction=\"1\"");
        let found = blocks(&page, "class=\"block\"").concat();
        let heads = found.iter().filter(|line| line.is_object()).collect::<Vec<_>>();
        assert_eq!(heads.iter().map(|head| head["xid"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(pieces.len() >= 2 && pieces.iter().all(|piece| piece.len() < 200));
        let inline = heads[1]["lines"].as_u64().unwrap() as usize;
        assert_eq!(pieces.concat().len() + inline, 200);
        assert_eq!((&heads[1]["listed"], &heads[1]["omitted"]), (&Value::from(200), &Value::from(0)));
    }

    #[test]
    fn keys_have_what_the_source_has_for_them() {
        let table = Arc::new(table("d", "s", "t"));
        let change = insert(&table, &[text("<7>"), text("x")]);
        let state = |key: &str, state| SourceRow {
            table: table.clone(),
            key: vec![text(key), LostValue::Unknown],
            state,
        };
        let rows = vec![state("<7>", Some(SourceState::Changed)), state("8", None), state("9", None)];
        let compared = LostHistory { on_source: Some(OnSource { rows }), ..history() };
        let list = [(transaction(1, "d"), vec![change])];
        let page = written_with(&list, |report| report.bytes_left.keys = 30, &compared);
        let found = blocks(&page, "class=\"source\"").concat();
        assert_eq!(found, [serde_json::json!([0, ["<7>"], "changed"]), serde_json::json!([0, ["8"], null])]);
        let tail = &blocks(&page, "id=\"data-tail\"")[0][0];
        assert_eq!(tail["omitted_keys"], 1);
        assert_eq!(tail["tables"][0]["source"]["changed"], 1);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let table = Arc::new(table("d", "s", "t"));
        let change = insert(&table, &[text("1"), text("x")]);
        let list = (1..=5).map(|xid| (transaction(xid, "d"), vec![change.clone(); 4])).collect::<Vec<_>>();
        let page = written(&list, |report| report.bytes_left = BytesLeft { rows: 200, heads: 300, keys: 60 });
        let tail = &blocks(&page, "id=\"data-tail\"")[0][0];
        let found = blocks(&page, "class=\"block\"").concat();
        let heads = found.iter().filter(|line| line.is_object()).count();
        let rows = found.len() - heads;
        assert_eq!(tail["omitted_transactions"], 5 - heads);
        assert_eq!(tail["omitted_rows"], 20 - rows);
        assert!((1..5).contains(&heads) && (1..20).contains(&rows));
    }
}
