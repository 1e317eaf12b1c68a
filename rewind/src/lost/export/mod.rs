//! Exports of what was lost: a directory with everything, for people, programs and the new primary.
//!
//! ```text
//! DIR/summary.txt         what was lost in numbers, and what the files are
//! DIR/transactions.json   everything
//! DIR/csv/NAME.csv        rows by table
//! DIR/apply.sql           repeats the rows on the new primary; apply-DATABASE.sql if there are several databases
//! DIR/report.html         everything, for a browser
//! ```
//!
//! All of it is written while the transactions are read, in memory that does not depend on the number of rows.

mod apply_row;
mod apply_sql;
mod apply_statement;
mod apply_text;
mod apply_value;
mod csv;
mod files;
mod filter;
mod html;
mod html_page;
mod html_parts;
mod json;
mod json_parts;
#[cfg(test)]
pub(in crate::lost) mod made_up;
pub(super) mod names;
mod on_source;
mod options;
mod output;
mod per_table;
mod read_back;
mod read_parts;
mod redact;
#[cfg(test)]
mod schema_test;
mod source_sql;
mod summary;
mod summary_text;
mod text;

use std::path::Path;

use self::files::Files;
use self::filter::Filtering;
pub use self::filter::LostFilter;
pub use self::json::LostJson;
pub use self::names::LostNameError;
use self::on_source::Comparing;
pub(crate) use self::on_source::{LookUp, NotTold};
pub use self::options::{ExportError, ExportOptions};
pub(crate) use self::read_back::list_exported;
use self::redact::{Redacting, Redaction};
pub use self::summary::{LostCounter, LostSummary, ObjectSummary, RelationName, RowCounts, SourceCounts};
use crate::lost::model::{LostChange, LostHistory, LostPart, LostSink, LostTransaction, SinkError};
use crate::target::disk::Disk;

/// A sink that sees only what is asked for, without the values that are left out.
pub(crate) type Shown<'a, S> = Filtering<Comparing<'a, Redacting<S>>>;

/// Puts what is asked for before a sink that is no export: the JSON on standard output, the numbers for the text. `look_up` asks the
/// source.
///
/// # Errors
/// A name in the options cannot be read.
pub(crate) fn shown<'a, S: LostSink>(
    options: &ExportOptions,
    look_up: Option<LookUp<'a>>,
    sink: S,
) -> Result<Shown<'a, S>, LostNameError> {
    let redaction = || Redaction::new(&options.mask, options.no_values);
    let sink = Redacting::new(redaction()?, sink);
    Filtering::new(&options.filter, Comparing::new(look_up, redaction()?, sink))
}

/// Writes an export. It must be finished, or ended early.
#[derive(Debug)]
pub(crate) struct Export<'a> {
    files: Filtering<Comparing<'a, Files>>,
}

impl<'a> Export<'a> {
    /// Creates the directory, or takes an empty one, and the files in it, which say that they are not complete. `look_up` asks the
    /// source.
    ///
    /// # Errors
    /// The directory has entries, or cannot be written to; a name in the options cannot be read.
    pub(crate) fn create(
        directory: &Path,
        disk: &Disk,
        options: &ExportOptions,
        look_up: Option<LookUp<'a>>,
    ) -> Result<Export<'a>, ExportError> {
        // Names are read first, so that no directory is left behind.
        shown(options, None, LostCounter::default())?;
        let redaction = Redaction::new(&options.mask, options.no_values)?;
        let files = Comparing::new(look_up, redaction, Files::create(directory, disk, options)?);
        Ok(Export { files: Filtering::new(&options.filter, files)? })
    }

    /// Makes everything durable, writes the summary and returns it. What was not ended by [`LostSink::end`] is ended
    /// early.
    ///
    /// # Errors
    /// A file could not be written.
    pub(crate) fn finish(self) -> Result<LostSummary, ExportError> {
        self.files.into_inner().into_inner().finish()
    }

    /// Ends the export before all transactions were seen: all of its files say so, and can be read. `reason` is a
    /// sentence. After a request to stop, changes must be admitted again first ([`crate::StopFlag`]).
    ///
    /// # Errors
    /// A file could not be written.
    pub(crate) fn end_early(self, reason: &str) -> Result<LostSummary, ExportError> {
        self.files.into_inner().into_inner().end_early(reason)
    }
}

impl LostSink for Export<'_> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.files.begin(history)
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.files.transaction(transaction)
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        self.files.change(transaction, change)
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.files.transaction_end(transaction)
    }

    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        self.files.parts(parts)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.files.end(history)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::lost::export::made_up::{history, pass, play, transactions};

    /// The files below a directory by their paths, and a check that only their owner can read them.
    fn files(directory: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(directory), 0o700);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                let inner = files(&path).into_iter();
                found.extend(inner.map(|(inner, text)| (format!("{name}/{inner}"), text)));
            } else {
                assert_eq!(mode(&path), 0o600, "{name}");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        found
    }

    fn exported(options: &ExportOptions) -> BTreeMap<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("export");
        let mut export = Export::create(&place, &Disk::default(), options, None).unwrap();
        play(&mut export).unwrap();
        export.finish().unwrap();
        files(&place)
    }

    #[test]
    fn all_files_are_written_for_their_owner_only() {
        let files = exported(&ExportOptions::default());
        let names = files.keys().filter(|name| !name.contains("x_")).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            names,
            [
                "apply-shop.sql",
                "csv/shop.pg_catalog.pg_largeobject.csv",
                "csv/shop.public.Log.csv",
                "csv/shop.sales.payment.2.csv",
                "csv/shop.sales.payment.csv",
                "report.html",
                "summary.txt",
                "transactions.json"
            ]
        );
        assert_eq!(files.len(), names.len() + 2);
        let summary = &files["summary.txt"];
        assert!(summary.starts_with("A rewind gives up 5 committed transactions"), "{summary}");
        assert!(
            summary.contains("  csv/: 5 files, ") && summary.contains("apply-DATABASE.sql: repeats 7 rows")
        );
        assert!(summary.contains("    5 rows cannot be repeated by it"), "{summary}");
    }

    #[test]
    fn changes_in_parts_are_written_like_single_ones() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("export");
        let mut export = Export::create(&place, &Disk::default(), &ExportOptions::default(), None).unwrap();
        export.begin(&LostHistory { undecided: Vec::new(), notes: Vec::new(), ..history() }).unwrap();
        let all = transactions();
        let part = |number: usize, changes: std::ops::Range<usize>| LostPart {
            transaction: &all[number].0,
            begins: changes.start == 0,
            changes: &all[number].1[changes.clone()],
            ends: changes.end == all[number].1.len(),
        };
        let whole = |number: usize| part(number, 0..all[number].1.len());
        export.parts(&[part(0, 0..3)]).unwrap();
        export.parts(&[part(0, 3..all[0].1.len()), whole(1), whole(2)]).unwrap();
        export.parts(&(3..all.len()).map(whole).collect::<Vec<_>>()).unwrap();
        export.end(&history()).unwrap();
        export.finish().unwrap();
        assert!(files(&place) == exported(&ExportOptions::default()));
    }

    #[test]
    fn masked_values_and_values_that_are_left_out_are_in_no_file() {
        let mask = vec!["payment.note".to_owned(), "nothing".to_owned()];
        let files = exported(&ExportOptions { mask, ..ExportOptions::default() });
        assert!(files.values().all(|text| !text.contains("it's") && !text.contains("it''s")));
        assert!(files["transactions.json"].contains("\"note\":\"***\""));
        assert!(files["summary.txt"].contains("No column with changed rows matched the mask nothing."));
        let files = exported(&ExportOptions { no_values: true, ..ExportOptions::default() });
        assert!(files.values().all(|text| !text.contains("it's") && !text.contains("note\"")));
        assert!(!files.keys().any(|name| name.starts_with("apply")));
        assert!(files["transactions.json"].contains("\"key\":{\"id\":\"1\"}"));
        assert!(files["summary.txt"].contains("There is no apply.sql, because values were left out."));
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
        let filter = LostFilter { xids: vec![772], tables: Vec::new() };
        let files = exported(&ExportOptions { filter, ..ExportOptions::default() });
        assert!(files["summary.txt"].starts_with("A rewind gives up 1 committed transaction asked for, of "));
        assert!(files["summary.txt"].contains("Note: Only what was asked for is listed: transaction 772."));
        let found = files.keys().filter(|name| name.ends_with(".csv") || name.ends_with(".sql"));
        assert_eq!(found.collect::<Vec<_>>(), ["apply.sql", "csv/shop.sales.payment.csv"]);
    }

    #[test]
    fn an_export_that_ends_early_says_so_and_can_be_read() {
        for is_finished in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path().join("export");
            let mut export =
                Export::create(&place, &Disk::default(), &ExportOptions::default(), None).unwrap();
            assert!(
                fs::read_to_string(place.join("summary.txt"))
                    .unwrap()
                    .starts_with("This export is not complete")
            );
            export.begin(&history()).unwrap();
            let (transaction, changes) = &transactions()[0];
            pass(&mut export, transaction, changes).unwrap();
            export.transaction(&transactions()[1].0).unwrap();
            if is_finished {
                export.end_early("WAL is damaged.").unwrap();
                let files = files(&place);
                assert!(files["summary.txt"].contains("Note: WAL is damaged.\nThis is not complete"));
                assert!(files["apply.sql"].ends_with("\nROLLBACK;\n"));
                assert!(files["report.html"].ends_with("</html>\n"));
                let json: serde_json::Value = serde_json::from_str(&files["transactions.json"]).unwrap();
                assert_eq!(
                    (&json["complete"], &json["transactions"][1]["xid"]),
                    (&false.into(), &770.into())
                );
            } else {
                drop(export);
                let files = files(&place);
                assert!(files["summary.txt"].starts_with("This export is not complete"));
                assert!(files["transactions.json"].contains("\"quality\":\"incomplete\""));
                assert!(
                    !files["apply.sql"].contains("COMMIT;\n")
                        && files["apply.sql"].contains("'sales.payment'")
                );
            }
        }
    }

    #[test]
    fn a_directory_with_entries_is_refused_and_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let create =
            |place: &Path, options: &ExportOptions| Export::create(place, &Disk::default(), options, None);
        let bad = ExportOptions { mask: vec!["a..b".to_owned()], ..ExportOptions::default() };
        assert!(matches!(create(&directory.path().join("new"), &bad), Err(ExportError::Name(_))));
        assert!(!directory.path().join("new").exists());
        assert!(create(directory.path(), &ExportOptions::default()).is_ok());
        let error = create(directory.path(), &ExportOptions::default()).unwrap_err();
        assert!(error.to_string().contains("it is not empty"), "{error}");
        let error = create(&directory.path().join("summary.txt"), &ExportOptions::default()).unwrap_err();
        assert!(error.to_string().contains("it is not a directory"), "{error}");
        let error = create(&directory.path().join("a/b"), &ExportOptions::default()).unwrap_err();
        assert!(error.to_string().contains("a/b"), "{error}");
    }
}
