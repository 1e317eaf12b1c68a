//! Passes on only what was asked for: `--xid` and `--table`.

use super::names::{LostNameError, parse_path, shown};
use crate::lost::model::{
    LostChange, LostHistory, LostPart, LostSink, LostTransaction, SinkError, one_by_one,
};

/// What is asked for. An empty list asks for everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostFilter {
    /// Transactions, by the ID of the transaction or of one of its subtransactions.
    pub xids: Vec<u32>,
    /// Tables and other relations: `name`, `schema.name` or `database.schema.name`. As in SQL, upper case is lower case
    /// except in double quotes. Transactions without a change of these are left out.
    pub tables: Vec<String>,
}

/// How the note begins that not everything is listed.
const ONLY: &str = "Only what was asked for is listed: ";

/// Whether a history has passed a filter.
pub(crate) fn is_filtered(history: &LostHistory) -> bool {
    history.notes.iter().any(|note| note.starts_with(ONLY))
}

/// Passes on what a [`LostFilter`] asks for.
#[derive(Debug)]
pub(crate) struct Filtering<S> {
    xids: Vec<u32>,
    tables: Vec<Vec<String>>,
    sink: S,
    /// What is asked for, as a note; `None` if that is everything.
    note: Option<String>,
    /// Whether the transaction that began last is asked for by its ID.
    is_wanted: bool,
    /// Whether it has been passed on.
    is_passed: bool,
}

impl<S: LostSink> Filtering<S> {
    /// # Errors
    /// The name of a table cannot be read.
    pub(crate) fn new(filter: &LostFilter, sink: S) -> Result<Filtering<S>, LostNameError> {
        let tables = filter.tables.iter().map(|name| parse_path(name, 3)).collect::<Result<_, _>>()?;
        let xids = filter.xids.iter().map(|xid| format!("transaction {xid}"));
        let names = filter.tables.iter().map(|name| format!("table {name}"));
        let asked = xids.chain(names).collect::<Vec<_>>().join(", ");
        let note = (!asked.is_empty()).then(|| format!("{ONLY}{asked}."));
        let xids = filter.xids.clone();
        Ok(Filtering { xids, tables, sink, note, is_wanted: false, is_passed: false })
    }

    pub(crate) fn into_inner(self) -> S {
        self.sink
    }

    /// The history with a note that not everything is listed.
    fn noted(&self, history: &LostHistory) -> LostHistory {
        let mut history = history.clone();
        history.notes.splice(0..0, self.note.clone());
        history
    }

    fn has_xid(&self, transaction: &LostTransaction) -> bool {
        let mut ids = transaction.subxids.iter().chain([&transaction.xid]);
        self.xids.is_empty() || ids.any(|xid| self.xids.contains(xid))
    }

    fn has_table(&self, change: &LostChange) -> bool {
        let is_named = |database: &str, name: &str| self.tables.iter().any(|path| is(path, database, name));
        match change {
            _ if self.tables.is_empty() => true,
            LostChange::Row(row) => self.tables.iter().any(|path| {
                let table = &row.table;
                let full =
                    [table.database.as_str(), table.schema.as_deref().unwrap_or_default(), &table.name];
                path.len() <= 3 && path.iter().rev().eq(full.iter().rev().take(path.len()))
            }),
            LostChange::Object(object) => {
                is_named(&object.database, &object.name)
                    || object.old_name.as_ref().is_some_and(|name| is_named(&object.database, name))
            }
            LostChange::Sequence { database, name, .. } => is_named(database, name),
        }
    }
}

/// Whether a name with its schema, with or without quotes, is meant by a path.
fn is(path: &[String], database: &str, name: &str) -> bool {
    let (of_database, path) = match path {
        [of_database, rest @ ..] if rest.len() == 2 => (Some(of_database), rest),
        path => (None, path),
    };
    if of_database.is_some_and(|asked| asked != database) {
        return false;
    }
    let quoted = path.iter().map(|part| shown(part)).collect::<Vec<_>>().join(".");
    let plain = path.join(".");
    let ends_with = |wanted: &str| {
        name.strip_suffix(wanted)
            .is_some_and(|before| before.is_empty() || path.len() == 1 && before.ends_with('.'))
    };
    ends_with(&quoted) || ends_with(&plain)
}

impl<S: LostSink + ?Sized> LostSink for &mut S {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        (**self).begin(history)
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        (**self).transaction(transaction)
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        (**self).change(transaction, change)
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        (**self).transaction_end(transaction)
    }

    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        (**self).parts(parts)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        (**self).end(history)
    }
}

impl<S: LostSink> LostSink for Filtering<S> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.begin(&self.noted(history))
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.is_wanted = self.has_xid(transaction);
        self.is_passed = self.is_wanted && self.tables.is_empty();
        if self.is_passed { self.sink.transaction(transaction) } else { Ok(()) }
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        if !self.is_wanted || !self.has_table(change) {
            return Ok(());
        }
        if !self.is_passed {
            self.is_passed = true;
            self.sink.transaction(transaction)?;
        }
        self.sink.change(transaction, change)
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        if self.is_passed { self.sink.transaction_end(transaction) } else { Ok(()) }
    }

    fn parts(&mut self, parts: &[LostPart<'_>]) -> Result<(), SinkError> {
        match self.note {
            None => self.sink.parts(parts),
            Some(_) => one_by_one(self, parts),
        }
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.end(&self.noted(history))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::play;

    /// Notes what comes: transactions, and how many changes each has.
    #[derive(Debug, Default)]
    struct Noted {
        seen: Vec<(u32, usize)>,
        ended: usize,
        is_filtered: bool,
    }

    impl LostSink for Noted {
        fn begin(&mut self, _: &LostHistory) -> Result<(), SinkError> {
            Ok(())
        }

        fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
            self.seen.push((transaction.xid, 0));
            Ok(())
        }

        fn change(&mut self, transaction: &LostTransaction, _: &LostChange) -> Result<(), SinkError> {
            let last = self.seen.last_mut().expect("a transaction has begun");
            assert_eq!(last.0, transaction.xid);
            last.1 += 1;
            Ok(())
        }

        fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
            assert_eq!(self.seen.last().map(|last| last.0), Some(transaction.xid));
            self.ended += 1;
            Ok(())
        }

        fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
            assert_eq!(self.ended, self.seen.len());
            self.is_filtered = is_filtered(history);
            Ok(())
        }
    }

    fn filtered(xids: &[u32], tables: &[&str]) -> Vec<(u32, usize)> {
        let is_table = !tables.is_empty();
        let tables = tables.iter().map(|table| table.to_string()).collect();
        let mut filter =
            Filtering::new(&LostFilter { xids: xids.to_vec(), tables }, Noted::default()).unwrap();
        play(&mut filter).unwrap();
        let noted = filter.into_inner();
        assert_eq!(noted.is_filtered, !xids.is_empty() || is_table);
        noted.seen
    }

    #[test]
    fn transactions_are_chosen_by_their_ids() {
        assert_eq!(filtered(&[], &[]), [(764, 8), (770, 5), (771, 1), (772, 1), (773, 0)]);
        assert_eq!(filtered(&[770, 773], &[]), [(770, 5), (773, 0)]);
        assert_eq!(filtered(&[766], &[]), [(764, 8)]);
        assert_eq!(filtered(&[1], &[]), []);
    }

    #[test]
    fn changes_are_chosen_by_the_names_of_tables() {
        assert_eq!(filtered(&[], &["Payment"]), [(764, 7), (772, 1)]);
        assert_eq!(filtered(&[], &["sales.payment"]), [(764, 7), (772, 1)]);
        assert_eq!(filtered(&[772], &["shop.sales.payment"]), [(772, 1)]);
        assert_eq!(filtered(&[], &["other.sales.payment"]), []);
        assert_eq!(filtered(&[], &["log"]), []);
        assert_eq!(filtered(&[], &["\"Log\""]), [(764, 1), (770, 2)]);
        assert_eq!(filtered(&[], &["newt", "payment_id_seq"]), [(770, 2)]);
        assert_eq!(filtered(&[], &["shop.public.newt"]), [(770, 1)]);
        assert_eq!(filtered(&[], &["ewt"]), []);
        let bad = LostFilter { xids: Vec::new(), tables: vec!["a.".to_owned()] };
        assert!(Filtering::new(&bad, Noted::default()).is_err());
    }
}
