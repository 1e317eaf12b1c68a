//! One changed row as one SQL statement that does nothing if the row it would change is another one by now.

use super::apply_value::{SqlColumn, schema_of};
use super::names::quoted;
use crate::lost::model::{LostRow, LostTable, LostValue, Quality, RowOp};

/// Why there is no statement for a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reason {
    /// The update has changed no column.
    NoChange,
    /// A part of the row that the statement needs is not known.
    Incomplete,
    /// A value that the statement needs is of a type whose text is not known.
    AsBytes,
    /// A value that the statement needs is stored outside of the row and was not found.
    NotFound,
    /// The name of the table is not known.
    NoName,
    /// Lost transactions have created, altered or dropped the table.
    Altered,
    /// A lost transaction has truncated the table before.
    Truncated,
    /// Columns of the table are masked.
    Masked,
    /// It is a part of a large object.
    LargeObject,
}

impl Reason {
    /// Why no row of a table has a statement.
    pub(crate) fn against(table: &LostTable, is_truncated: bool, is_masked: bool) -> Option<Reason> {
        let reasons = [
            (table.is_large_object, Reason::LargeObject),
            (table.schema.is_none(), Reason::NoName),
            (table.is_altered, Reason::Altered),
            (is_truncated, Reason::Truncated),
            (is_masked, Reason::Masked),
        ];
        reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, reason)| reason)
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::NoChange => "the update has changed no column",
            Reason::Incomplete => "a part of the row is not known",
            Reason::AsBytes => "a value is of a type whose text is not known",
            Reason::NotFound => "a large value (TOAST) was not found",
            Reason::NoName => "the name of the table is not known",
            Reason::Altered => "lost transactions have created, altered or dropped the table",
            Reason::Truncated => "a lost transaction has truncated the table before",
            Reason::Masked => "columns of the table are masked",
            Reason::LargeObject => "it is a part of a large object",
        }
    }
}

/// The names of a table as statements need them.
#[derive(Debug)]
pub(crate) struct StatementTable {
    /// With its schema, in quotes.
    name: String,
    columns: Vec<SqlColumn>,
    /// Schemas of the types of the key, in which their operators are, in quotes.
    pub(crate) schemas: Vec<String>,
}

impl StatementTable {
    pub(crate) fn of(table: &LostTable) -> StatementTable {
        let key = table.key.iter().filter_map(|number| table.columns.get(*number));
        let mut schemas = key.filter_map(|column| schema_of(&column.type_name)).collect::<Vec<_>>();
        schemas.sort();
        schemas.dedup();
        StatementTable {
            name: format!("{}.{}", quoted(table.schema.as_deref().unwrap_or_default()), quoted(&table.name)),
            columns: table.columns.iter().map(SqlColumn::of).collect(),
            schemas,
        }
    }

    /// Writes the statement for a row. `has_identity`: whether the server knows identity columns (10 and later).
    pub(crate) fn put(&self, sql: &mut String, row: &LostRow, has_identity: bool) -> Result<(), Reason> {
        if row.quality == Quality::Incomplete {
            return Err(Reason::Incomplete);
        }
        let old = row.old.as_deref().ok_or(Reason::Incomplete);
        let new = row.new.as_deref().ok_or(Reason::Incomplete);
        match row.op {
            RowOp::Insert => self.put_insert(sql, &row.table, new?, has_identity),
            RowOp::Update => self.put_update(sql, &row.table, old?, new?),
            RowOp::Delete => {
                sql.push_str("DELETE FROM ONLY ");
                sql.push_str(&self.name);
                self.put_where(sql, &row.table, old?, |_| true)
            }
        }
    }

    fn put_insert(
        &self,
        sql: &mut String,
        table: &LostTable,
        new: &[LostValue],
        has_identity: bool,
    ) -> Result<(), Reason> {
        sql.push_str("INSERT INTO ");
        sql.push_str(&self.name);
        let written = (0..table.columns.len()).filter(|number| !table.columns[*number].is_generated);
        let written = written.collect::<Vec<_>>();
        if written.is_empty() {
            sql.push_str(" DEFAULT VALUES ON CONFLICT DO NOTHING");
            return Ok(());
        }
        let mut separator = " (";
        for number in &written {
            sql.push_str(separator);
            sql.push_str(&self.columns[*number].name);
            separator = ", ";
        }
        sql.push_str(if has_identity { ") OVERRIDING SYSTEM VALUE VALUES" } else { ") VALUES" });
        separator = " (";
        for number in written {
            sql.push_str(separator);
            self.put_value(sql, number, new)?;
            separator = ", ";
        }
        sql.push_str(") ON CONFLICT DO NOTHING");
        Ok(())
    }

    fn put_update(
        &self,
        sql: &mut String,
        table: &LostTable,
        old: &[LostValue],
        new: &[LostValue],
    ) -> Result<(), Reason> {
        let mut changed = Vec::new();
        for (number, column) in table.columns.iter().enumerate() {
            if !column.is_generated && is_changed(value(old, number), value(new, number))? {
                changed.push(number);
            }
        }
        if changed.is_empty() {
            return Err(Reason::NoChange);
        }
        sql.push_str("UPDATE ONLY ");
        sql.push_str(&self.name);
        let mut separator = " SET ";
        for number in &changed {
            sql.push_str(separator);
            sql.push_str(&self.columns[*number].name);
            sql.push_str(" = ");
            self.put_value(sql, *number, new)?;
            separator = ", ";
        }
        // Without a key, nothing less than the whole row tells which one it was.
        self.put_where(sql, table, old, |number| table.key.is_empty() || changed.contains(&number))
    }

    /// The condition that a row has its key and these old values. Without a key it is one of the rows that are equal.
    fn put_where(
        &self,
        sql: &mut String,
        table: &LostTable,
        old: &[LostValue],
        is_compared: impl Fn(usize) -> bool,
    ) -> Result<(), Reason> {
        if table.key.is_empty() {
            sql.push_str(" WHERE ctid = (SELECT ctid FROM ONLY ");
            sql.push_str(&self.name);
        }
        let mut separator = " WHERE ";
        for number in &table.key {
            sql.push_str(separator);
            let column = self.columns.get(*number).ok_or(Reason::Incomplete)?;
            column.put_key_condition(sql, known(value(old, *number))?.ok_or(Reason::Incomplete)?);
            separator = " AND ";
        }
        for (number, column) in table.columns.iter().enumerate() {
            if column.is_generated || table.key.contains(&number) || !is_compared(number) {
                continue;
            }
            sql.push_str(separator);
            self.columns[number].put_condition(sql, known(value(old, number))?);
            separator = " AND ";
        }
        if table.key.is_empty() {
            sql.push_str(" LIMIT 1)");
        }
        Ok(())
    }

    fn put_value(&self, sql: &mut String, number: usize, values: &[LostValue]) -> Result<(), Reason> {
        match known(value(values, number))? {
            None => sql.push_str("NULL"),
            Some(text) => self.columns[number].put_value(sql, text),
        }
        Ok(())
    }
}

/// Whether the server knows identity columns: PostgreSQL 10 and later, and what is based on them.
pub(crate) fn has_identity(version: &str) -> bool {
    !version.contains("PostgreSQL 9.") && !version.contains("V8R3")
}

fn value(values: &[LostValue], number: usize) -> &LostValue {
    values.get(number).unwrap_or(&LostValue::Unknown)
}

/// The text of a value; `None` for NULL.
fn known(value: &LostValue) -> Result<Option<&str>, Reason> {
    match value {
        LostValue::Null => Ok(None),
        LostValue::Text(text) => Ok(Some(text)),
        LostValue::Bytes(_) => Err(Reason::AsBytes),
        LostValue::Unchanged => Err(Reason::NotFound),
        LostValue::Unknown => Err(Reason::Incomplete),
    }
}

/// Whether an update has changed a column.
fn is_changed(old: &LostValue, new: &LostValue) -> Result<bool, Reason> {
    match (old, new) {
        (_, LostValue::Unchanged) => Ok(false),
        (LostValue::Unknown, _) | (_, LostValue::Unknown) => Err(Reason::Incomplete),
        (old, new) => Ok(old != new),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lost::export::made_up::{row, table, table_of, text};
    use LostValue::{Bytes, Null, Unchanged, Unknown};

    fn statement(row: &LostRow) -> Result<String, Reason> {
        let mut sql = String::new();
        StatementTable::of(&row.table).put(&mut sql, row, true).map(|()| sql)
    }

    fn update(table: &Arc<LostTable>, old: &[LostValue], new: &[LostValue]) -> Result<String, Reason> {
        statement(&row(table, RowOp::Update, Some(old.to_vec()), Some(new.to_vec())))
    }

    #[test]
    fn rows_with_a_key_are_found_by_it() {
        let table = Arc::new(table("d", "s", "t\"x"));
        let both = [text("1"), text("a'b")];
        let made = |op, old: Option<&[_]>, new: Option<&[_]>| {
            statement(&row(&table, op, old.map(<[_]>::to_vec), new.map(<[_]>::to_vec))).unwrap()
        };
        assert_eq!(
            made(RowOp::Insert, None, Some(&both)),
            "INSERT INTO \"s\".\"t\"\"x\" (\"id\", \"note\") OVERRIDING SYSTEM VALUE VALUES \
             ('1'::integer, 'a''b'::text) ON CONFLICT DO NOTHING"
        );
        assert_eq!(
            made(RowOp::Update, Some(&both), Some(&[text("1"), Null])),
            "UPDATE ONLY \"s\".\"t\"\"x\" SET \"note\" = NULL WHERE \"id\" = '1'::integer AND \"note\" = 'a''b'::text"
        );
        assert_eq!(
            made(RowOp::Update, Some(&both), Some(&[text("2"), Unchanged])),
            "UPDATE ONLY \"s\".\"t\"\"x\" SET \"id\" = '2'::integer WHERE \"id\" = '1'::integer"
        );
        assert_eq!(
            made(RowOp::Delete, Some(&[text("1"), Null]), None),
            "DELETE FROM ONLY \"s\".\"t\"\"x\" WHERE \"id\" = '1'::integer AND \"note\" IS NULL"
        );
    }

    #[test]
    fn identities_are_known_from_10_on() {
        assert!(has_identity("PostgreSQL 10") && has_identity("KingbaseES V8R6"));
        assert!(!has_identity("PostgreSQL 9.6") && !has_identity("KingbaseES V8R3"));
    }

    #[test]
    fn rows_without_a_key_are_found_by_all_of_their_values() {
        let table = Arc::new(table_of("d", "s", "t", &[("a", "json"), ("b", "public.mood")], &[]));
        let old = [text("{}"), text("ok")];
        let place = "WHERE ctid = (SELECT ctid FROM ONLY \"s\".\"t\" WHERE format('%s', \"a\") = '{}' \
                     AND format('%s', \"b\") = 'ok' LIMIT 1)";
        assert_eq!(
            update(&table, &old, &[text("{}"), Null]).unwrap(),
            format!("UPDATE ONLY \"s\".\"t\" SET \"b\" = NULL {place}")
        );
        assert_eq!(
            statement(&row(&table, RowOp::Delete, Some(old.to_vec()), None)).unwrap(),
            format!("DELETE FROM ONLY \"s\".\"t\" {place}")
        );
    }

    #[test]
    fn generated_columns_are_left_out_and_identities_written() {
        let mut table = table("d", "s", "t");
        table.columns[1].is_generated = true;
        let table = Arc::new(table);
        let values = Some(vec![text("1"), text("x")]);
        let inserted = row(&table, RowOp::Insert, None, values.clone());
        let mut sql = String::new();
        StatementTable::of(&table).put(&mut sql, &inserted, false).unwrap();
        assert_eq!(sql, "INSERT INTO \"s\".\"t\" (\"id\") VALUES ('1'::integer) ON CONFLICT DO NOTHING");
        let deleted = row(&table, RowOp::Delete, values, None);
        assert_eq!(statement(&deleted).unwrap(), "DELETE FROM ONLY \"s\".\"t\" WHERE \"id\" = '1'::integer");
        let empty = Arc::new(table_of("d", "s", "e", &[], &[]));
        let inserted = row(&empty, RowOp::Insert, None, Some(Vec::new()));
        assert_eq!(
            statement(&inserted).unwrap(),
            "INSERT INTO \"s\".\"e\" DEFAULT VALUES ON CONFLICT DO NOTHING"
        );
        let deleted = row(&empty, RowOp::Delete, Some(Vec::new()), None);
        assert!(statement(&deleted).unwrap().ends_with("(SELECT ctid FROM ONLY \"s\".\"e\" LIMIT 1)"));
    }

    #[test]
    fn without_the_values_that_it_needs_there_is_no_statement() {
        let table = Arc::new(table("d", "s", "t"));
        let keyless = Arc::new(table_of("d", "s", "t", &[("a", "text"), ("b", "text")], &[]));
        let bytes = || Bytes(vec![1]);
        let reason = |old, new| update(&table, &[text("1"), old], &[text("1"), new]).unwrap_err();
        assert_eq!(reason(text("a"), text("a")), Reason::NoChange);
        assert_eq!(reason(bytes(), bytes()), Reason::NoChange);
        assert_eq!(reason(text("a"), bytes()), Reason::AsBytes);
        assert_eq!(reason(Unchanged, text("a")), Reason::NotFound);
        assert_eq!(reason(Unknown, Unknown), Reason::Incomplete);
        assert_eq!(reason(text("a"), Unknown), Reason::Incomplete);
        assert!(update(&table, &[text("1"), bytes()], &[text("2"), bytes()]).is_ok());
        let keyless = update(&keyless, &[text("a"), Unchanged], &[text("b"), Unchanged]);
        assert_eq!(keyless.unwrap_err(), Reason::NotFound);
        let mut incomplete = row(&table, RowOp::Insert, None, Some(vec![text("1"), Null]));
        incomplete.quality = Quality::Incomplete;
        assert_eq!(statement(&incomplete).unwrap_err(), Reason::Incomplete);
        assert_eq!(statement(&row(&table, RowOp::Delete, None, None)).unwrap_err(), Reason::Incomplete);
    }
}
