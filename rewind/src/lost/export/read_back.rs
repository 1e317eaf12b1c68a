//! Reads `transactions.json` of an export and passes on what is in it, as a listing of WAL would. So a part of an export can be
//! chosen later, when the node's files are no longer there.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use walparse::{Lsn, TimelineId};

use super::files::JSON;
use super::json_parts::SCHEMA_VERSION;
use super::read_parts::{ChangeLine, Definition, TransactionLine, UndecidedLine, lsn};
use crate::lost::error::LostError;
use crate::lost::model::{LostHistory, LostSink, LostTable};
use crate::stop::StopFlag;

/// Hands all transactions of the export in a directory to `sink`, unless `check` refuses it.
///
/// # Errors
/// The export cannot be read or is refused, the sink failed, or a stop was requested.
pub(crate) fn list_exported(
    directory: &Path,
    stop: &StopFlag,
    sink: &mut dyn LostSink,
    check: &dyn Fn(&LostHistory) -> Result<(), LostError>,
) -> Result<LostHistory, LostError> {
    let exported = Exported::open(&directory.join(JSON), stop)?;
    let history = exported.history()?;
    check(&history)?;
    sink.begin(&history)?;
    exported.pass_on(sink)?;
    sink.end(&history)?;
    Ok(history)
}

/// An export that was read, without its transactions.
struct Exported<'a> {
    path: PathBuf,
    stop: &'a StopFlag,
    frame: Frame,
    tables: Vec<Arc<LostTable>>,
}

/// What stands around the transactions.
#[derive(Deserialize)]
struct Frame {
    schema_version: u32,
    cluster: ClusterLine,
    fork: ForkLine,
    read: ReadLine,
    undecided: Vec<UndecidedLine>,
    notes: Vec<String>,
    definitions: Vec<Definition>,
    complete: bool,
}

#[derive(Deserialize)]
struct ClusterLine {
    directory: String,
    system_identifier: String,
    version: String,
}

#[derive(Deserialize)]
struct ForkLine {
    #[serde(deserialize_with = "lsn")]
    lsn: Lsn,
    timeline: u32,
}

#[derive(Deserialize)]
struct ReadLine {
    #[serde(deserialize_with = "lsn")]
    from: Lsn,
    #[serde(deserialize_with = "lsn")]
    to: Lsn,
}

impl<'a> Exported<'a> {
    /// Reads all but the transactions.
    ///
    /// # Errors
    /// The file cannot be read, was cut off, or is of another version.
    fn open(path: &Path, stop: &'a StopFlag) -> Result<Exported<'a>, LostError> {
        let reader = BufReader::with_capacity(1 << 20, open(path)?);
        let frame: Frame = serde_json::from_reader(reader).map_err(|source| unreadable(path, source))?;
        if frame.schema_version != SCHEMA_VERSION {
            let version = frame.schema_version;
            return Err(unreadable(
                path,
                de::Error::custom(format!("schema_version {version} is not known")),
            ));
        }
        let tables = frame.definitions.iter().zip(0..).map(|(table, number)| Arc::new(table.table(number)));
        let tables = tables.collect();
        Ok(Exported { path: path.to_owned(), stop, frame, tables })
    }

    /// What is known of the whole.
    ///
    /// # Errors
    /// The system identifier is no number.
    fn history(&self) -> Result<LostHistory, LostError> {
        let Frame { cluster, fork, read, undecided, notes, .. } = &self.frame;
        let system_identifier = cluster.system_identifier.parse();
        Ok(LostHistory {
            directory: cluster.directory.clone(),
            system_identifier: system_identifier
                .map_err(|error| unreadable(&self.path, de::Error::custom(error)))?,
            version: cluster.version.clone(),
            fork: fork.lsn,
            timeline: TimelineId(fork.timeline),
            read_from: read.from,
            read_to: read.to,
            undecided: undecided.iter().map(UndecidedLine::undecided).collect(),
            notes: notes.clone(),
            on_source: None,
            is_complete: self.frame.complete,
        })
    }

    /// Hands all transactions to `sink`.
    ///
    /// # Errors
    /// The file cannot be read, the sink failed, or a stop was requested.
    fn pass_on(&self, sink: &mut dyn LostSink) -> Result<(), LostError> {
        let reader = BufReader::with_capacity(1 << 20, open(&self.path)?);
        let mut pass = Pass { tables: &self.tables, sink, stop: self.stop, failed: None };
        let read = Everything(&mut pass).deserialize(&mut serde_json::Deserializer::from_reader(reader));
        match (read, pass.failed) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(failed)) => Err(failed),
            (Err(source), None) => Err(unreadable(&self.path, source)),
        }
    }
}

fn open(path: &Path) -> Result<File, LostError> {
    File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => LostError::NoExport { path: path.to_owned() },
        _ => LostError::Read { path: path.to_owned(), source },
    })
}

fn unreadable(path: &Path, source: serde_json::Error) -> LostError {
    LostError::Exported { path: path.to_owned(), source }
}

/// Where the transactions go.
struct Pass<'a> {
    tables: &'a [Arc<LostTable>],
    sink: &'a mut dyn LostSink,
    stop: &'a StopFlag,
    /// Why they could not be passed on: an error of JSON has no room for it.
    failed: Option<LostError>,
}

impl Pass<'_> {
    fn check<T, E: de::Error>(&mut self, result: Result<T, impl Into<LostError>>) -> Result<T, E> {
        result.map_err(|error| {
            self.failed = Some(error.into());
            E::custom("not passed on")
        })
    }
}

/// The whole object.
struct Everything<'p, 'a>(&'p mut Pass<'a>);

impl<'de> DeserializeSeed<'de> for Everything<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Everything<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an export of lost transactions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "transactions" => map.next_value_seed(List(&mut *self.0, Transaction))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A list, whose elements are passed on one by one.
struct List<'p, 'a, T>(&'p mut Pass<'a>, T);

/// Passes on an element of a list.
trait Element {
    fn next<'de, A: SeqAccess<'de>>(&self, pass: &mut Pass<'_>, list: &mut A) -> Result<bool, A::Error>;
}

impl<'de, T: Element> DeserializeSeed<'de> for List<'_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Element> Visitor<'de> for List<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while self.1.next(self.0, &mut list)? {}
        Ok(())
    }
}

/// The elements of `transactions`.
struct Transaction;

impl Element for Transaction {
    fn next<'de, A: SeqAccess<'de>>(&self, pass: &mut Pass<'_>, list: &mut A) -> Result<bool, A::Error> {
        Ok(list.next_element_seed(OneTransaction(pass))?.is_some())
    }
}

/// A transaction: its own fields stand before its changes.
struct OneTransaction<'p, 'a>(&'p mut Pass<'a>);

impl<'de> DeserializeSeed<'de> for OneTransaction<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneTransaction<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a transaction")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let pass = self.0;
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if name != "changes" {
                fields.insert(name, map.next_value()?);
                continue;
            }
            let line: TransactionLine = serde_json::from_value(Value::Object(std::mem::take(&mut fields)))
                .map_err(de::Error::custom)?;
            let transaction = line.transaction().map_err(de::Error::custom)?;
            let stopped = pass.stop.check();
            pass.check(stopped)?;
            let begun = pass.sink.transaction(&transaction);
            pass.check(begun)?;
            map.next_value_seed(List(&mut *pass, Changes(&transaction)))?;
            let ended = pass.sink.transaction_end(&transaction);
            pass.check(ended)?;
        }
        Ok(())
    }
}

/// The elements of `changes`.
struct Changes<'t>(&'t crate::lost::model::LostTransaction);

impl Element for Changes<'_> {
    fn next<'de, A: SeqAccess<'de>>(&self, pass: &mut Pass<'_>, list: &mut A) -> Result<bool, A::Error> {
        let Some(line) = list.next_element::<ChangeLine>()? else { return Ok(false) };
        let change = line.change(self.0, pass.tables).map_err(de::Error::custom)?;
        let stopped = pass.stop.check();
        pass.check(stopped)?;
        let passed = pass.sink.change(self.0, &change);
        pass.check(passed)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lost::export::json::LostJson;
    use crate::lost::export::made_up::{history, pass, play, transactions};
    use crate::lost::export::{Export, ExportOptions, LostFilter, shown};
    use crate::target::disk::Disk;

    fn exported(place: &Path, options: &ExportOptions, list: impl FnOnce(&mut Export<'_>)) {
        let mut export = Export::create(place, &Disk::default(), options, None).unwrap();
        list(&mut export);
        export.finish().unwrap();
    }

    fn files(directory: &Path) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => files.extend(self::files(&path)),
                path => files.push((path.display().to_string(), fs::read_to_string(&path).unwrap())),
            }
        }
        files.sort();
        files
    }

    #[test]
    fn an_export_that_was_read_is_exported_alike() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("lost"), directory.path().join("lost2"));
        exported(&first, &ExportOptions::default(), |export| play(export).unwrap());
        exported(&second, &ExportOptions::default(), |export| {
            list_exported(&first, &StopFlag::default(), export, &|_| Ok(())).unwrap();
        });
        let of = |path: &Path| {
            let inside = |(name, text): (String, String)| (name.replace(path.to_str().unwrap(), ""), text);
            files(path).into_iter().map(inside).collect::<Vec<_>>()
        };
        let (first, second) = (of(&first), of(&second));
        assert!(first.len() > 7);
        for ((name, text), (again, text_again)) in first.iter().zip(&second) {
            assert_eq!((name, text), (again, text_again));
        }
        assert_eq!(first.len(), second.len());
    }

    #[test]
    fn a_part_of_an_export_is_chosen() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("lost");
        exported(&place, &ExportOptions::default(), |export| play(export).unwrap());
        let filter = LostFilter { xids: vec![766], tables: vec!["payment".to_owned()] };
        let options = ExportOptions { filter, mask: vec!["note".to_owned()], ..ExportOptions::default() };
        let mut json = LostJson::new(Vec::new(), "memory");
        let mut sink = shown(&options, None, &mut json).unwrap();
        list_exported(&place, &StopFlag::default(), &mut sink, &|_| Ok(())).unwrap();
        let all: Value = serde_json::from_slice(json.get_mut()).unwrap();
        assert_eq!(all["transactions"].as_array().unwrap().len(), 1);
        assert_eq!(all["transactions"][0]["changes"].as_array().unwrap().len(), 7);
        assert_eq!(
            all["transactions"][0]["changes"][0]["new"],
            serde_json::json!({"id": "1", "note": "***"})
        );
        assert_eq!(all["complete"], true);
    }

    #[test]
    fn what_had_ended_early_is_not_complete() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("lost"), directory.path().join("lost2"));
        let mut export = Export::create(&first, &Disk::default(), &ExportOptions::default(), None).unwrap();
        export.begin(&history()).unwrap();
        let (transaction, changes) = &transactions()[0];
        pass(&mut export, transaction, changes).unwrap();
        export.end_early("WAL is damaged.").unwrap();
        exported(&second, &ExportOptions::default(), |export| {
            list_exported(&first, &StopFlag::default(), export, &|_| Ok(())).unwrap();
        });
        let read = |name: &str| fs::read_to_string(second.join(name)).unwrap();
        assert!(read("summary.txt").contains("Note: WAL is damaged.\nThis is not complete"));
        assert!(read("transactions.json").contains("\"complete\": false"));
        assert!(read("apply.sql").ends_with("\nROLLBACK;\n"));
    }

    #[test]
    fn what_is_no_export_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("lost");
        exported(&place, &ExportOptions::default(), |export| play(export).unwrap());
        let path = place.join(JSON);
        let whole = fs::read_to_string(&path).unwrap();
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            let mut json = LostJson::new(Vec::new(), "memory");
            let error = list_exported(&place, &StopFlag::default(), &mut json, &|_| Ok(())).unwrap_err();
            assert!(matches!(error, LostError::Exported { .. }), "{error:?}");
            crate::causes::with_causes(&error)
        };
        for length in [0, 1, 100, whole.len() / 2, whole.len() - 3] {
            refused(&whole.chars().take(length).collect::<String>());
        }
        for (good, bad) in [
            ("\"schema_version\": 1", "\"schema_version\": 2"),
            ("\"op\":\"insert\"", "\"op\":\"upsert\""),
            ("\"definition\":0", "\"definition\":99"),
            ("\"quality\":\"exact\"", "\"quality\":\"?\""),
            ("\"xid\":764", "\"xid\":-1"),
            ("\"commit_time\":\"2026", "\"commit_time\":\"x"),
            ("\"kind\":\"table\"", "\"kind\":\"chair\""),
            ("0/2001148", "0/2001148/1"),
        ] {
            let text = whole.replacen(good, bad, 1);
            assert!(text != whole, "{good}");
            refused(&text);
        }
    }
}
