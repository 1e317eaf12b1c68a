//! A row's lines in `apply.sql`.

use std::fmt::Write;

use super::apply_statement::Reason;
use super::apply_value::put_literal;
use super::json_parts::ColumnsPart;
use super::text::{iso, one_line};
use crate::lost::model::{LostRow, LostTransaction, LostValue, RowOp};

/// The beginning of the rows of a transaction.
pub(crate) fn call(transaction: &LostTransaction) -> String {
    let time = transaction.commit_time.map_or("NULL".to_owned(), |time| format!("'{}'", iso(time)));
    let columns = "(xid, commit_time, lsn, op, table_name, before, wanted, statement)";
    format!("INSERT INTO kb_lost.change{columns} VALUES ({}, {time}, ", transaction.xid)
}

/// Writes one change. `name` is the table's name, `statement` makes the change.
pub(crate) fn put_row(sql: &mut String, call: &str, row: &LostRow, name: &str, statement: &str) {
    let _ = write!(sql, "{call}'{}', '{}', ", row.lsn, row.op.name());
    put_literal(sql, name);
    sql.push_str(", ");
    match row.old.as_deref().filter(|_| row.op == RowOp::Update) {
        Some(before) => put_literal(sql, &json(row, before)),
        None => sql.push_str("NULL"),
    }
    sql.push_str(", ");
    put_literal(sql, &json(row, row.new.as_deref().or(row.old.as_deref()).unwrap_or_default()));
    let tag = dollar_tag(statement);
    let _ = writeln!(sql, ",\n    {tag}{statement} {tag});");
}

fn json(row: &LostRow, values: &[LostValue]) -> String {
    serde_json::to_string(&ColumnsPart::all(&row.table, values)).unwrap_or_default()
}

/// A row that has no statement, as a comment on one line.
pub(crate) fn put_comment(sql: &mut String, row: &LostRow, name: &str, reason: Reason) {
    let values = row.old.as_deref().or(row.new.as_deref()).unwrap_or_default();
    let key = serde_json::to_string(&ColumnsPart::key(&row.table, values)).unwrap_or_default();
    let (op, name, key) = (row.op.name(), one_line(name), one_line(&key));
    let _ = writeln!(sql, "-- no statement, at {}: {op} of {name} {key}: {}", row.lsn, reason.text());
}

/// Quotes for a statement that do not occur in it.
fn dollar_tag(statement: &str) -> String {
    let tags = (0_u32..).map(|number| if number == 0 { "$kb$".to_owned() } else { format!("$kb{number}$") });
    let mut free = tags.filter(|tag| !statement.contains(tag.as_str()));
    free.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lost::export::made_up::{HOSTILE, row, table, text, transaction};

    #[test]
    fn a_statement_does_not_end_its_quotes() {
        assert_eq!(dollar_tag("a"), "$kb$");
        assert_eq!(dollar_tag("$kb$ $kb1$"), "$kb2$");
        let table = Arc::new(table("d", "s", "t"));
        let row = row(&table, RowOp::Insert, None, Some(vec![text("1"), text(HOSTILE)]));
        let mut sql = String::new();
        put_row(&mut sql, &call(&transaction(764, "d")), &row, "s.t'", &format!("INSERT '{HOSTILE}' x$kb1"));
        let start = "INSERT INTO kb_lost.change(xid, commit_time, lsn, op, table_name, before, wanted, statement) VALUES \
                     (764, '2026-11-30T00:53:20.000764Z', '0/2001148', 'insert', 's.t\'\'', NULL, '{\"id\":\"1\",\"note\":\"../x\'\'";
        assert!(sql.starts_with(start), "{sql}");
        assert_eq!(sql.matches("$kb1$").count(), 2, "{sql}");
    }

    #[test]
    fn a_comment_is_one_line() {
        let table = Arc::new(table("d", "s", "t"));
        let row = row(&table, RowOp::Delete, Some(vec![text(HOSTILE), text("secret")]), None);
        let mut sql = String::new();
        put_comment(&mut sql, &row, HOSTILE, Reason::AsBytes);
        assert!(
            sql.lines().count() == 1 && sql.starts_with("-- no statement, at 0/2001148: delete of "),
            "{sql}"
        );
        assert!(!sql.contains("secret") && !sql.contains('\r'), "{sql}");
    }
}
