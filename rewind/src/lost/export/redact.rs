//! Leaves values out for readers who may not see them: `--mask` and `--no-values`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use super::names::{LostNameError, parse_path};
use super::per_table::PerTable;
use crate::lost::model::{
    LostChange, LostHistory, LostRow, LostSink, LostTable, LostTransaction, LostValue, SinkError,
};

/// What stands in the place of a masked value, whether it is NULL or not.
pub(crate) const MASK: &str = "***";

/// Which values are left out.
#[derive(Debug)]
pub(crate) struct Redaction {
    /// Names of columns, in lower case, from the schema or the table or the column on.
    masks: Vec<Vec<String>>,
    no_values: bool,
    tables: PerTable<Redacted>,
    /// The masks that have matched a column.
    used: BTreeSet<usize>,
}

/// What is left out of one table's rows.
#[derive(Debug)]
struct Redacted {
    /// The table as it is shown; `None` if all of its columns are.
    shown: Option<Arc<LostTable>>,
    /// The columns that are shown, and whether their values are masked.
    columns: Vec<(usize, bool)>,
    is_masked: bool,
}

impl Redaction {
    /// `masks` are names of columns: `column`, `table.column` or `schema.table.column`. The case of letters does not
    /// matter, in quotes neither: a mask rather covers too much than too little.
    ///
    /// # Errors
    /// A name cannot be read.
    pub(crate) fn new(masks: &[String], no_values: bool) -> Result<Redaction, LostNameError> {
        let lower = |name: &String| {
            parse_path(name, 3).map(|path| path.iter().map(|part| part.to_lowercase()).collect())
        };
        let masks = masks.iter().map(lower).collect::<Result<_, _>>()?;
        Ok(Redaction { masks, no_values, tables: PerTable::default(), used: BTreeSet::new() })
    }

    /// The change without the values that are left out.
    pub(crate) fn change<'a>(&mut self, change: &'a LostChange) -> Cow<'a, LostChange> {
        match change {
            LostChange::Row(row) if !self.is_idle() => {
                let table = self.table(&row.table);
                if table.shown.is_none() && !table.is_masked {
                    return Cow::Borrowed(change);
                }
                Cow::Owned(LostChange::Row(table.row(row)))
            }
            _ => Cow::Borrowed(change),
        }
    }

    /// Whether values of this table are masked.
    pub(crate) fn masks(&mut self, table: &Arc<LostTable>) -> bool {
        !self.is_idle() && self.table(table).is_masked
    }

    /// The masks, as numbers of the list that was given, that have matched no column so far.
    pub(crate) fn unused(&self) -> impl Iterator<Item = usize> {
        (0..self.masks.len()).filter(|mask| !self.used.contains(mask))
    }

    /// Whether nothing is left out.
    pub(crate) fn is_idle(&self) -> bool {
        self.masks.is_empty() && !self.no_values
    }

    fn table(&mut self, table: &Arc<LostTable>) -> &Redacted {
        let (masks, used) = (&self.masks, &mut self.used);
        let no_values = self.no_values;
        let made = self.tables.get(table, |_| Ok::<_, Infallible>(redacted(table, masks, no_values, used)));
        match made {
            Ok(made) => made,
        }
    }
}

fn redacted(
    table: &LostTable,
    masks: &[Vec<String>],
    no_values: bool,
    used: &mut BTreeSet<usize>,
) -> Redacted {
    let mut columns = Vec::new();
    for (number, column) in table.columns.iter().enumerate() {
        let schema = table.schema.as_deref().unwrap_or_default();
        let full = [schema, &table.name, &column.name].map(str::to_lowercase);
        let matching = (0..masks.len()).filter(|mask| full.ends_with(&masks[*mask])).collect::<Vec<_>>();
        if !no_values || table.key.contains(&number) {
            columns.push((number, !matching.is_empty()));
        }
        used.extend(matching);
    }
    let is_masked = columns.iter().any(|(_, is_masked)| *is_masked);
    let shown = (columns.len() < table.columns.len()).then(|| {
        let place = |key: &usize| columns.iter().position(|(number, _)| number == key);
        Arc::new(LostTable {
            columns: columns.iter().map(|(number, _)| table.columns[*number].clone()).collect(),
            key: table.key.iter().filter_map(place).collect(),
            ..table.clone()
        })
    });
    Redacted { shown, columns, is_masked }
}

impl Redacted {
    fn row(&self, row: &LostRow) -> LostRow {
        let values = |values: &Vec<LostValue>| {
            let value = |(number, is_masked): &(usize, bool)| match is_masked {
                true => LostValue::Text(MASK.to_owned()),
                false => values.get(*number).cloned().unwrap_or(LostValue::Unknown),
            };
            self.columns.iter().map(value).collect()
        };
        LostRow {
            lsn: row.lsn,
            op: row.op,
            table: self.shown.clone().unwrap_or_else(|| row.table.clone()),
            old: row.old.as_ref().map(values),
            new: row.new.as_ref().map(values),
            quality: row.quality,
        }
    }
}

/// Passes on what was lost without the values that are left out.
#[derive(Debug)]
pub(crate) struct Redacting<S> {
    redaction: Redaction,
    sink: S,
}

impl<S: LostSink> Redacting<S> {
    pub(crate) fn new(redaction: Redaction, sink: S) -> Redacting<S> {
        Redacting { redaction, sink }
    }
}

impl<S: LostSink> LostSink for Redacting<S> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.begin(history)
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction(transaction)
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        self.sink.change(transaction, &self.redaction.change(change))
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction_end(transaction)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.end(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::{insert, table, text, update};

    fn redaction(masks: &[&str], no_values: bool) -> Redaction {
        Redaction::new(&masks.iter().map(|mask| mask.to_string()).collect::<Vec<_>>(), no_values).unwrap()
    }

    fn new_values(change: &LostChange) -> &[LostValue] {
        match change {
            LostChange::Row(row) => row.new.as_ref().unwrap(),
            _ => panic!("no row"),
        }
    }

    #[test]
    fn a_mask_covers_the_column_in_every_case_of_letters() {
        let (pay, staff) = (table("shop", "sales", "Payment"), table("shop", "sales", "staff"));
        let (pay, staff) = (Arc::new(pay), Arc::new(staff));
        for (mask, expected) in [
            ("note", [true, true]),
            ("NOTE", [true, true]),
            ("payment.\"Note\"", [true, false]),
            ("sales.staff.note", [false, true]),
            ("other.staff.note", [false, false]),
            ("payment", [false, false]),
        ] {
            let mut redaction = redaction(&[mask], false);
            for (table, is_masked) in [(&pay, expected[0]), (&staff, expected[1])] {
                let change = insert(table, &[text("1"), LostValue::Null]);
                let shown = redaction.change(&change);
                let value = if is_masked { text("***") } else { LostValue::Null };
                assert_eq!(new_values(&shown), [text("1"), value], "{mask}");
                assert_eq!(redaction.masks(table), is_masked, "{mask}");
            }
            assert_eq!(redaction.unused().count(), usize::from(expected == [false, false]), "{mask}");
        }
        assert!(Redaction::new(&["a..b".to_owned()], false).is_err());
    }

    #[test]
    fn without_values_only_the_key_remains() {
        let table = Arc::new(table("shop", "sales", "payment"));
        let change = update(&table, &[text("1"), text("a")], &[text("2"), text("b")]);
        let mut redaction = redaction(&[], true);
        let LostChange::Row(row) = redaction.change(&change).into_owned() else { panic!("no row") };
        assert_eq!((row.old, row.new), (Some(vec![text("1")]), Some(vec![text("2")])));
        assert_eq!(row.table.columns.len(), 1);
        assert_eq!(row.table.key, [0]);
        let mut nothing = Redaction::new(&[], false).unwrap();
        assert!(matches!(nothing.change(&change), Cow::Borrowed(_)));
    }
}
