//! The beginning and the end of `apply.sql`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::apply_statement::Reason;
use super::summary::RowCounts;
use super::text::{counted, one_line};
use crate::lost::model::LostHistory;

/// Types of the arguments of the function `kb_lost.apply`.
const ARGUMENTS: &str = "bigint, timestamptz, pg_lsn, text, text, text, text";

/// What a file does, and the commands that prepare it.
const HEAD: &str = r#"--
-- This repeats rows on the new primary that committed on the old primary after the point of divergence and that a
-- rewind of the old primary gives up. Each row is one guarded statement, in the order of the commits:
--   INSERT  unless a row with the same key, or another value that must be unique, is there
--   UPDATE  of the columns that had changed, where the row still has the key and the values that these had before
--   DELETE  where the row is as it was before
-- Nothing is overwritten: where the new primary has something else by now, that stays, and the wanted row goes to
-- the table kb_lost.conflict. Later changes of such a row go there, too. All of it is one transaction: either all is
-- done, or nothing.
--
-- Try it first with ROLLBACK at the end, which changes nothing and shows what would be done:
--   sed '$s/COMMIT/ROLLBACK/' THIS_FILE | psql -X -d DATABASE
-- Then:
--   psql -X -d DATABASE -f THIS_FILE
-- It needs a superuser. It stops if the schema kb_lost exists: then a file like this has been applied already. Look
-- at kb_lost.conflict and drop the schema.

\set ON_ERROR_STOP on
\set QUIET on
BEGIN;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
-- How values are read and printed.
SET LOCAL search_path = pg_catalog;
SET LOCAL datestyle = 'ISO, MDY';
SET LOCAL intervalstyle = postgres;
SET LOCAL timezone = 'UTC';
SET LOCAL lc_monetary = 'C';
SET LOCAL bytea_output = hex;
SET LOCAL extra_float_digits = 3;
SET LOCAL xmloption = content;
SET LOCAL row_security = off;
-- Triggers, rules and foreign keys must not act: the rows that they wrote on the old primary are in this file as well.
DO $kb$
BEGIN
    SET LOCAL session_replication_role = replica;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'this user may not set session_replication_role: triggers, rules and foreign keys will act'
        USING HINT = 'Run this file as a superuser: rows that triggers write may otherwise be there twice.';
END $kb$;

CREATE SCHEMA kb_lost;
CREATE TABLE kb_lost.conflict (
    number bigserial PRIMARY KEY,
    xid bigint NOT NULL,
    commit_time timestamptz,
    lsn pg_lsn NOT NULL,
    op text NOT NULL,
    table_name text NOT NULL,
    wanted text NOT NULL,
    problem text NOT NULL
);
COMMENT ON TABLE kb_lost.conflict IS
    'Lost rows that were not applied. wanted: the row after the change, or the row to delete, as JSON.';
-- Makes one change. Returns the row for kb_lost.conflict if it could not be made.
CREATE FUNCTION kb_lost.apply(xid bigint, commit_time timestamptz, lsn pg_lsn, op text, table_name text, wanted text,
    statement text) RETURNS SETOF kb_lost.conflict LANGUAGE plpgsql AS $kb$
DECLARE
    affected bigint;
    problem text;
BEGIN
    BEGIN
        EXECUTE statement;
        GET DIAGNOSTICS affected = ROW_COUNT;
        IF affected > 1 THEN
            RAISE cardinality_violation USING MESSAGE = 'several rows match';
        ELSIF affected = 0 AND op = 'insert' THEN
            problem := 'a row with the same key or unique value is there';
        ELSIF affected = 0 THEN
            problem := 'no row has this key and the values from before the change';
        END IF;
    EXCEPTION
        WHEN data_exception OR integrity_constraint_violation OR syntax_error_or_access_rule_violation
            OR invalid_schema_name OR feature_not_supported OR object_not_in_prerequisite_state
            OR cardinality_violation OR with_check_option_violation THEN
        problem := SQLERRM;
    END;
    IF problem IS NOT NULL THEN
        RETURN QUERY SELECT nextval('kb_lost.conflict_number_seq'), xid, commit_time, lsn, op, table_name, wanted,
            problem;
    END IF;
END $kb$;
"#;

/// The beginning of a file.
pub(crate) fn head(history: &LostHistory, database: &str) -> String {
    format!(
        "-- Lost transactions of \"{}\" (system identifier {}, {}):\n\
         -- changes of the database {} after the point of divergence, {} on timeline {}.\n\
         -- Written by kbrecover. It has user data in it.\n{HEAD}",
        one_line(&history.directory),
        history.system_identifier,
        one_line(&history.version),
        one_line(database),
        history.fork,
        history.timeline,
    )
}

/// What was written to a file, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Rows with a statement.
    pub(crate) statements: u64,
    /// Rows without one, by table and reason.
    pub(crate) left_out: BTreeMap<(String, Reason), RowCounts>,
    /// The last values of sequences, by their names.
    pub(crate) sequences: BTreeMap<String, i64>,
}

impl Written {
    /// Rows without a statement, except those that need none.
    pub(crate) fn rows_left_out(&self) -> u64 {
        let missing = |((_, reason), rows): (&(String, Reason), &RowCounts)| match reason {
            Reason::NoChange => 0,
            _ => rows.total(),
        };
        self.left_out.iter().map(missing).sum()
    }

    /// The end of a file. A file that is not complete ends with `ROLLBACK`.
    pub(crate) fn tail(&self, is_complete: bool) -> String {
        let mut text = "\n".to_owned();
        if !self.left_out.is_empty() {
            text.push_str("-- Rows for which there is no statement here. They are in transactions.json:\n");
        }
        for ((table, reason), rows) in &self.left_out {
            let table = one_line(table);
            let _ =
                writeln!(text, "--   {table}: {} ({rows}): {}", counted(rows.total(), "row"), reason.text());
        }
        if !self.sequences.is_empty() {
            text.push_str(
                "-- Sequences of the old primary had gone further. Where the new primary's are behind, they will give out\n\
                 -- numbers that rows of this file have. To advance one, which ROLLBACK does not undo:\n",
            );
        }
        for (name, value) in &self.sequences {
            let name = one_line(name);
            let _ = writeln!(
                text,
                "--   SELECT setval('{name}', {value}) FROM {name} WHERE last_value < {value};"
            );
        }
        let (statements, left_out) = (self.statements, self.rows_left_out());
        let _ = write!(
            text,
            "\nDROP FUNCTION kb_lost.apply({ARGUMENTS});\n\
             SELECT {statements} AS statements, {statements} - count(*) AS applied, count(*) AS conflicts,\n    \
             {left_out} AS rows_without_statement FROM kb_lost.conflict;\n\
             SELECT table_name, op, problem, count(*) AS rows FROM kb_lost.conflict\n    \
             GROUP BY table_name, op, problem ORDER BY table_name, op, problem;\n"
        );
        text.push_str(match is_complete {
            true => "COMMIT;\n",
            false => {
                "-- This file is not complete, because reading the lost transactions ended early. To apply what is here,\n\
                 -- write COMMIT instead:\nROLLBACK;\n"
            }
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::export::made_up::{HOSTILE, history};

    #[test]
    fn names_stay_in_their_comments() {
        let mut written = Written::default();
        let rows = RowCounts { inserted: 1, updated: 0, deleted: 0 };
        written.left_out.insert((HOSTILE.to_owned(), Reason::Altered), rows);
        written.left_out.insert((HOSTILE.to_owned(), Reason::NoChange), rows);
        written.sequences.insert(HOSTILE.to_owned(), 5);
        let head = head(&history(), HOSTILE);
        assert!(
            head.lines().take_while(|line| !line.is_empty()).all(|line| line.starts_with("--")),
            "{head}"
        );
        let tail = written.tail(true);
        let comments = tail.lines().skip(1).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
        assert!(comments.len() == 6 && comments.iter().all(|line| line.starts_with("--")), "{tail}");
        assert!(tail.contains("1 AS rows_without_statement") && tail.ends_with("\nCOMMIT;\n"), "{tail}");
        assert!(written.tail(false).ends_with("\nROLLBACK;\n"));
    }
}
