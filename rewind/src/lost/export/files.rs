//! The directory of an export.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::apply_sql::ApplySql;
use super::csv::CsvFiles;
use super::html::HtmlReport;
use super::json::LostJson;
use super::options::{ExportError, ExportOptions};
use super::output::{Output, failed};
use super::redact::Redaction;
use super::summary::LostSummary;
use super::text::counted;
use crate::lost::model::{
    LostChange, LostHistory, LostPart, LostSink, LostTransaction, SinkError, one_by_one,
};
use crate::target::disk::Disk;

const SUMMARY: &str = "summary.txt";
const NEW_SUMMARY: &str = "summary.txt.new";
/// The export for programs, which can be read back.
pub(super) const JSON: &str = "transactions.json";
const CSV: &str = "csv";
const REPORT: &str = "report.html";

/// What the summary says until the export is complete.
const UNFINISHED: &str = "This export is not complete: it is being written, or the program that wrote it was killed.\n\
    The files can be read as far as they go: transactions.json has a line for each change. apply.sql does nothing without its\n\
    last line.\n";

/// Writes all files of an export. It must be finished, or ended early.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Disk,
    directory: PathBuf,
    redaction: Redaction,
    masks: Vec<String>,
    no_values: bool,
    json: LostJson<Output>,
    csv: CsvFiles,
    html: HtmlReport,
    /// `None` until the listing begins, and without values.
    apply: Option<ApplySql>,
    /// What was known of the history when it was passed on last; `None` until the listing begins.
    history: Option<LostHistory>,
    /// The transaction whose changes are being passed on.
    current: Option<LostTransaction>,
    is_complete: bool,
}

impl Files {
    /// Creates the directory and the files in it, which say that they are not complete.
    ///
    /// # Errors
    /// The directory has entries, or cannot be written to; the name of a mask cannot be read.
    pub(crate) fn create(
        directory: &Path,
        disk: &Disk,
        options: &ExportOptions,
    ) -> Result<Files, ExportError> {
        let redaction = Redaction::new(&options.mask, options.no_values)?;
        create_directory(disk, directory)?;
        let mut summary = Output::create(disk, directory.join(SUMMARY))?;
        summary.put(UNFINISHED.as_bytes())?;
        summary.sync()?;
        let json = Output::create(disk, directory.join(JSON))?;
        let name = json.path().to_string_lossy().into_owned();
        let html = Output::create(disk, directory.join(REPORT))?;
        let csv = directory.join(CSV);
        disk.create_directory(&csv, 0o700).map_err(|source| failed(&csv, source))?;
        restrict(disk, &csv).map_err(|source| failed(&csv, source))?;
        Ok(Files {
            csv: CsvFiles::new(disk, &csv),
            disk: disk.clone(),
            directory: directory.to_owned(),
            redaction,
            masks: options.mask.clone(),
            no_values: options.no_values,
            json: LostJson::new(json, &name),
            html: HtmlReport::new(html),
            apply: None,
            history: None,
            current: None,
            is_complete: false,
        })
    }

    /// Makes everything durable, writes the summary and returns it.
    ///
    /// # Errors
    /// A file could not be written.
    pub(crate) fn finish(self) -> Result<LostSummary, ExportError> {
        match self.is_complete {
            true => self.close(),
            false => self.end_early("Reading the lost transactions ended early."),
        }
    }

    /// Ends the export before all transactions were seen: all of its files say so, and can be read. `reason` is a
    /// sentence. A run that was asked to stop must admit changes again first.
    ///
    /// # Errors
    /// A file could not be written.
    pub(crate) fn end_early(mut self, reason: &str) -> Result<LostSummary, ExportError> {
        let Some(mut history) = self.history.take() else {
            return self.close();
        };
        if let Some(transaction) = self.current.take() {
            self.transaction_end(&transaction)?;
        }
        self.json.end_early(&history, reason)?;
        history.notes.push(reason.to_owned());
        if let Some(apply) = &mut self.apply {
            apply.end(false)?;
        }
        self.html.end(&history, &LostSummary { notes: history.notes.clone(), ..self.json.summary() })?;
        self.history = Some(history);
        self.close()
    }

    fn close(mut self) -> Result<LostSummary, ExportError> {
        let mut summary = self.json.summary();
        summary.notes = self.history.as_ref().map(|history| history.notes.clone()).unwrap_or_default();
        summary.notes.extend(
            self.redaction.unused().map(|number| {
                format!("No column with changed rows matched the mask {}.", self.masks[number])
            }),
        );
        self.json.get_mut().sync()?;
        self.html.sync()?;
        self.csv.sync()?;
        if let Some(apply) = &mut self.apply {
            apply.sync()?;
        }
        let path = self.directory.join(NEW_SUMMARY);
        let mut text = Output::create(&self.disk, path.clone())?;
        text.put(format!("{summary}\n{}", self.files_text()).as_bytes())?;
        text.sync()?;
        let place = self.directory.join(SUMMARY);
        self.disk.rename(&path, &place).map_err(|source| failed(&place, source))?;
        for directory in [Some(&*self.directory), self.directory.parent()].into_iter().flatten() {
            let directory = if directory == Path::new("") { Path::new(".") } else { directory };
            self.disk.sync_directory(directory).map_err(|source| failed(directory, source))?;
        }
        Ok(summary)
    }

    /// What the files are.
    fn files_text(&self) -> String {
        let (rows, sources) = self.csv.files();
        let csv = counted(rows as u64, "file");
        let on_source = match sources {
            0 => String::new(),
            sources => format!(
                "  {CSV}/NAME.source.csv: {}, what the source has for each key\n",
                counted(sources as u64, "file")
            ),
        };
        let mut text = format!(
            "Files (they have user data in them):\n  \
               {REPORT}: everything, for a browser; it needs no network\n  \
               {JSON}: everything, for programs (lost.schema.json describes it)\n  \
               {CSV}/: {csv}, the rows of each table. NULL is an empty field, an empty string is \"\" in quotes;\n    \
                 (unchanged) and (unknown) without quotes stand for values that are not there. Import all columns as\n    \
                 text: a spreadsheet may take a value that begins with = for a formula.\n{on_source}"
        );
        match &self.apply {
            _ if self.no_values => text.push_str("  There is no apply.sql, because values were left out.\n"),
            None => {}
            Some(apply) if apply.files() == 0 => {
                text.push_str("  There is no apply.sql, because no rows changed.\n")
            }
            Some(apply) => {
                let (statements, left_out) = apply.rows();
                let name = if apply.files() == 1 { "apply.sql" } else { "apply-DATABASE.sql" };
                text += &format!(
                    "  {name}: repeats {} on the new primary where that overwrites nothing;\n    \
                       read how at its beginning, and try it with ROLLBACK first\n",
                    counted(statements, "row")
                );
                if left_out > 0 {
                    let rows = counted(left_out, "row");
                    text += &format!("    {rows} cannot be repeated by it; why is at its end\n");
                }
            }
        }
        text
    }
}

impl LostSink for Files {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.json.begin(history)?;
        self.html.begin(history)?;
        if !self.no_values {
            self.apply = Some(ApplySql::new(&self.disk, &self.directory, history));
        }
        self.history = Some(history.clone());
        Ok(())
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.json.transaction(transaction)?;
        self.csv.transaction(transaction)?;
        self.html.transaction();
        self.current = Some(transaction.clone());
        if let Some(apply) = &mut self.apply {
            apply.transaction(transaction);
        }
        Ok(())
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        let shown = self.redaction.change(change);
        self.json.change(transaction, &shown)?;
        self.csv.change(transaction, &shown)?;
        self.html.change(transaction, &shown)?;
        if let Some(apply) = &mut self.apply {
            let is_masked = matches!(change, LostChange::Row(row) if self.redaction.masks(&row.table));
            apply.change(transaction, change, is_masked)?;
        }
        Ok(())
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.current = None;
        self.json.transaction_end(transaction)?;
        self.html.transaction_end(transaction)
    }

    /// Each file is written by a thread.
    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        if !self.redaction.is_idle() {
            return one_by_one(self, parts);
        }
        let Files { json, csv, html, apply, .. } = self;
        let ((json, csv), (html, apply)) = rayon::join(
            || rayon::join(|| json.parts(parts), || csv.parts(parts)),
            || {
                rayon::join(
                    || html.parts(parts),
                    || apply.as_mut().map_or(Ok(()), |apply| apply.parts(parts)),
                )
            },
        );
        self.current = parts.last().filter(|last| !last.ends).map(|last| last.transaction.clone());
        json.and(csv).and(html).and(apply)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.json.end(history)?;
        self.csv.end(history)?;
        self.html.end(history, &self.json.summary())?;
        if let Some(apply) = &mut self.apply {
            apply.end(history.is_complete)?;
        }
        self.history = Some(history.clone());
        self.is_complete = true;
        Ok(())
    }
}

/// Makes a directory that only its owner can enter. One that exists must be empty.
fn create_directory(disk: &Disk, directory: &Path) -> Result<(), ExportError> {
    let failed = |source| ExportError::Create { path: directory.to_owned(), source };
    let place = |problem| ExportError::Place { path: directory.to_owned(), problem };
    match disk.create_directory(directory, 0o700) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !directory.is_dir() {
                return Err(place("it is not a directory"));
            }
            if std::fs::read_dir(directory).map_err(failed)?.next().is_some() {
                return Err(place("it is not empty"));
            }
        }
        Err(error) => return Err(failed(error)),
    }
    restrict(disk, directory).map_err(failed)
}

/// Sets the mode that a directory of an export has, if it has another one because of the umask or its maker.
fn restrict(disk: &Disk, directory: &Path) -> io::Result<()> {
    match directory.metadata()?.permissions().mode() & 0o7777 {
        0o700 => Ok(()),
        _ => disk.set_mode(directory, 0o700),
    }
}
