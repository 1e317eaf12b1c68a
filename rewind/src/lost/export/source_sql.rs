//! The query that tells what a source has in the place of lost rows.

use super::apply_value::SqlColumn;
use super::names::quoted;
use crate::lost::model::{LostTable, LostValue};

/// How values are read and printed, as in `apply.sql`. With `row_security` off, a policy that would hide rows is an error.
const SETTINGS: &str = "BEGIN READ ONLY; SET LOCAL client_encoding = 'UTF8'; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL search_path = pg_catalog; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = postgres; \
     SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C'; SET LOCAL bytea_output = hex; SET LOCAL extra_float_digits = 3; \
     SET LOCAL xmloption = content; SET LOCAL row_security = off; ";

/// Conditions on the row with a key.
#[derive(Debug)]
pub(crate) struct Conditions {
    /// That a row has this key.
    pub(crate) is_it: String,
    /// That it is as before the first lost change of the key; `None` if there was none.
    pub(crate) before: Option<String>,
    /// That it is as after the last one; `None` if there was none then.
    pub(crate) after: Option<String>,
}

/// The columns of a table, as conditions need them.
#[derive(Debug)]
pub(crate) struct SourceColumns {
    columns: Vec<SqlColumn>,
    key: Vec<usize>,
    /// The others, without those that the server computes.
    rest: Vec<usize>,
}

impl SourceColumns {
    pub(crate) fn of(table: &LostTable) -> SourceColumns {
        let is_rest = |number: &usize| !table.columns[*number].is_generated && !table.key.contains(number);
        SourceColumns {
            columns: table.columns.iter().map(SqlColumn::of).collect(),
            key: table.key.clone(),
            rest: (0..table.columns.len()).filter(is_rest).collect(),
        }
    }

    /// The condition that a row has the key of these values; `None` if that is not known.
    pub(crate) fn key(&self, values: &[LostValue]) -> Option<String> {
        let mut sql = String::new();
        for number in &self.key {
            let LostValue::Text(text) = values.get(*number)? else { return None };
            put_separator(&mut sql);
            self.columns.get(*number)?.put_key_condition(&mut sql, text);
        }
        Some(sql)
    }

    /// The condition that a row has these values, the key aside; `None` if one of them is not known. A value that is stored outside
    /// of the row and was not changed does not count.
    pub(crate) fn row(&self, values: &[LostValue]) -> Option<String> {
        let mut sql = String::new();
        for number in &self.rest {
            let text = match values.get(*number)? {
                LostValue::Null => None,
                LostValue::Text(text) => Some(text.as_str()),
                LostValue::Unchanged => continue,
                LostValue::Bytes(_) | LostValue::Unknown => return None,
            };
            put_separator(&mut sql);
            self.columns[*number].put_condition(&mut sql, text);
        }
        if sql.is_empty() {
            sql.push_str("true");
        }
        Some(sql)
    }
}

fn put_separator(sql: &mut String) {
    if !sql.is_empty() {
        sql.push_str(" AND ");
    }
}

/// The query for these keys of a table. Its rows are the place of a key, and `s` if its row is as before, `e` if it is as after the
/// lost changes, `c` if it is neither, or NULL if there is none.
pub(crate) fn query(table: &LostTable, keys: &[&Conditions]) -> String {
    let schema = table.schema.as_deref().unwrap_or_default();
    let name = format!("{}.{}", quoted(schema), quoted(&table.name));
    let mut sql = SETTINGS.to_owned();
    for (place, key) in keys.iter().enumerate() {
        sql.push_str(if place == 0 { "SELECT " } else { " UNION ALL SELECT " });
        sql.push_str(&place.to_string());
        sql.push_str(", (SELECT CASE WHEN ");
        sql.push_str(key.before.as_deref().unwrap_or("false"));
        sql.push_str(" THEN 's' WHEN ");
        sql.push_str(key.after.as_deref().unwrap_or("false"));
        sql.push_str(" THEN 'e' ELSE 'c' END FROM ONLY ");
        sql.push_str(&name);
        sql.push_str(" WHERE ");
        sql.push_str(&key.is_it);
        sql.push_str(" LIMIT 1)");
    }
    sql.push_str("; COMMIT");
    sql
}
