//! The beginning and the end of `apply.sql`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::apply_statement::Reason;
use super::summary::RowCounts;
use super::text::{counted, one_line};
use crate::lost::model::LostHistory;

/// What a file does, and the commands that prepare it.
const HEAD: &str = r#"--
-- This repeats rows on the new primary that committed on the old primary after the point of divergence and that a
-- rewind of the old primary gives up. Each row is one guarded statement, in the order of the commits:
--   INSERT  unless a row with the same key, or another value that must be unique, is there
--   UPDATE  of the columns that had changed, where the row still has the key and the values that these had before
--   DELETE  where the row is as it was before
-- Nothing is overwritten: where the new primary has something else by now, that stays, and the wanted row goes to
-- the table kb_lost.conflict. Later changes of such a row go there, too, and so do changes after which a foreign key
-- would refer to a row that is not there. Rows are decided one by one: a lost transaction may be repeated in part. All of
-- it is one transaction of the new primary.
--
-- Try it first with ROLLBACK at the end, which changes nothing and shows what would be done:
--   sed '$s/COMMIT/ROLLBACK/' THIS_FILE | psql -X -d DATABASE
-- Then:
--   psql -X -d DATABASE -f THIS_FILE
-- It needs a superuser, and stops if the schema kb_lost exists: then a file like this has been applied already. Look
-- at kb_lost.conflict and drop the schema.

\set ON_ERROR_STOP on
\set QUIET on
-- Each statement sees what others have committed meanwhile.
BEGIN ISOLATION LEVEL READ COMMITTED;
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
-- Triggers and rules must not act: the rows that they wrote on the old primary are in this file as well. Nor do foreign
-- keys then, which would delete rows of the new primary by ON DELETE CASCADE; they are checked at the end. Only a superuser
-- may set this.
SET LOCAL session_replication_role = replica;

CREATE SCHEMA kb_lost;
CREATE TABLE kb_lost.conflict (
    number bigint PRIMARY KEY,
    xid bigint NOT NULL,
    commit_time timestamptz,
    lsn pg_lsn NOT NULL,
    op text NOT NULL,
    table_name text NOT NULL,
    before text,
    wanted text NOT NULL,
    problem text NOT NULL
);
COMMENT ON TABLE kb_lost.conflict IS
    'Lost rows that were not applied. before: the row that was updated; wanted: the row after the change, or the row to delete; both as JSON.';
-- The changes of this file, in their order. statement: makes the change; path: the search_path that it needs; problem: why it
-- is not made.
CREATE TABLE kb_lost.change (
    number bigserial PRIMARY KEY,
    xid bigint,
    commit_time timestamptz,
    lsn pg_lsn,
    op text,
    table_name text,
    before text,
    wanted text,
    statement text,
    path text DEFAULT current_setting('search_path'),
    problem text
);
-- The changes that were made: the table, and where the row is after the change.
CREATE TABLE kb_lost.applied (number bigint, place oid, at tid);
CREATE INDEX ON kb_lost.applied (at, place);
-- Rows that lacked what a foreign key of them refers to before this file.
CREATE TABLE kb_lost.old_orphan (fk oid, place oid, at tid);

-- Makes the change, and notes it in kb_lost.applied or kb_lost.conflict.
CREATE FUNCTION kb_lost.make(c kb_lost.change) RETURNS void LANGUAGE plpgsql AS $kb$
DECLARE
    place oid;
    at tid;
    affected bigint;
    problem text := c.problem;
BEGIN
    -- The server checks such a constraint by a trigger, which does not act.
    IF problem IS NULL AND c.op = 'update' AND EXISTS (
        SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = to_regclass(c.table_name) AND NOT indimmediate
            AND c.before::jsonb -> attname::text IS DISTINCT FROM c.wanted::jsonb -> attname::text)
    THEN
        problem := 'a unique constraint of the table that is deferrable cannot be checked here';
    END IF;
    IF problem IS NULL THEN
        BEGIN
            EXECUTE c.statement || ' RETURNING tableoid, ctid' INTO place, at;
            GET DIAGNOSTICS affected = ROW_COUNT;
            IF affected > 1 THEN
                RAISE too_many_rows;
            END IF;
            IF place IS NULL AND c.op = 'insert' THEN
                problem := 'a row with the same key or unique value is there';
            ELSIF place IS NULL THEN
                problem := 'the row has other values by now, or is gone';
            END IF;
        EXCEPTION
            WHEN too_many_rows THEN
            problem := 'several rows match';
            WHEN data_exception OR integrity_constraint_violation OR syntax_error_or_access_rule_violation
                OR invalid_schema_name OR feature_not_supported OR object_not_in_prerequisite_state
                OR cardinality_violation OR with_check_option_violation THEN
            problem := SQLERRM;
        END;
    END IF;
    IF problem IS NULL THEN
        INSERT INTO kb_lost.applied VALUES (c.number, place, at);
    ELSE
        INSERT INTO kb_lost.conflict
            VALUES (c.number, c.xid, c.commit_time, c.lsn, c.op, c.table_name, c.before, c.wanted, problem);
    END IF;
END $kb$;

-- All foreign keys, with what a query needs to find rows that lack what they refer to.
CREATE VIEW kb_lost.fk AS
SELECT con.oid, conname, conrelid, confrelid,
    coalesce(to_jsonb(con) ->> 'conperiod', 'false') = 'true' AS has_period,
    format('%s, %s', referring_rows, referenced_rows) AS both_tables,
    format('%s referring WHERE %s AND NOT EXISTS (SELECT FROM %s referenced WHERE %s)', referring_rows,
        string_agg(format('referring.%I IS DISTINCT FROM NULL', ours.attname), ' AND '), referenced_rows,
        string_agg(format('referenced.%I OPERATOR(%I.%s) referring.%I%s', theirs.attname, operators.nspname, oprname,
            ours.attname, collation_part), ' AND ')) AS orphans,
    string_agg(format('removed.key%s OPERATOR(%I.%s) referring.%I%s', position, operators.nspname, oprname, ours.attname,
        collation_part), ' AND ') AS matches_removed,
    string_agg(format('CASE jsonb_typeof(old.value -> %L) WHEN ''string'' THEN (old.value ->> %L)::%s END AS key%s',
        theirs.attname, theirs.attname, format_type(theirs.atttypid, theirs.atttypmod), position), ', ') AS removed_keys,
    string_agg(format('format(''%%s'', referring.%I)', ours.attname), ', ' ORDER BY position) AS shown
FROM pg_constraint con
JOIN pg_class referring ON referring.oid = conrelid
JOIN pg_class referenced ON referenced.oid = confrelid
CROSS JOIN LATERAL unnest(conkey, confkey, conpfeqop) WITH ORDINALITY AS pair(our, their, operator, position)
JOIN pg_attribute ours ON ours.attrelid = conrelid AND ours.attnum = our
JOIN pg_attribute theirs ON theirs.attrelid = confrelid AND theirs.attnum = their
JOIN pg_operator ON pg_operator.oid = operator
JOIN pg_namespace operators ON operators.oid = oprnamespace
LEFT JOIN pg_collation ON pg_collation.oid = theirs.attcollation
LEFT JOIN pg_namespace collations ON collations.oid = collnamespace
CROSS JOIN LATERAL (
    SELECT CASE referring.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || conrelid::regclass AS referring_rows,
        CASE referenced.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || confrelid::regclass AS referenced_rows,
        CASE WHEN collname IS NULL THEN '' ELSE format(' COLLATE %I.%I', collations.nspname, collname) END AS collation_part
) part
WHERE contype = 'f' AND coalesce(to_jsonb(con) ->> 'conparentid', '0') = '0'
    AND coalesce(to_jsonb(con) ->> 'conenforced', 'true') = 'true'
GROUP BY con.oid, conname, conrelid, confrelid, has_period, referring_rows, referenced_rows;

-- A table and its partitions.
CREATE FUNCTION kb_lost.with_partitions(whole oid) RETURNS SETOF oid LANGUAGE sql AS $kb$
    WITH RECURSIVE part(id) AS (
        SELECT whole
        UNION
        SELECT inhrelid FROM pg_inherits JOIN part ON inhparent = id
    )
    SELECT id FROM part
$kb$;

-- The changes after which a row lacks what a foreign key of it refers to. change: NULL if none is known to be the reason.
CREATE FUNCTION kb_lost.against_foreign_keys(OUT change bigint, OUT why text, OUT key oid) RETURNS SETOF record
LANGUAGE plpgsql AS $kb$
DECLARE
    fk record;
    orphan record;
BEGIN
    FOR fk IN
        WITH RECURSIVE touched(id) AS (
            SELECT DISTINCT place FROM kb_lost.applied
            UNION
            SELECT inhparent FROM pg_inherits JOIN touched ON inhrelid = id
        )
        SELECT * FROM kb_lost.fk
        WHERE conrelid IN (SELECT id FROM touched) OR confrelid IN (SELECT id FROM touched)
    LOOP
        key := fk.oid;
        IF fk.has_period THEN
            why := format('foreign key "%s": it has a period and cannot be checked here', fk.conname);
            FOR change IN
                SELECT number FROM kb_lost.applied
                WHERE place IN (SELECT kb_lost.with_partitions(fk.conrelid))
                    OR place IN (SELECT kb_lost.with_partitions(fk.confrelid))
            LOOP
                RETURN NEXT;
            END LOOP;
            CONTINUE;
        END IF;
        -- Until the end nobody else may change what is checked here.
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', fk.both_tables);
        FOR orphan IN EXECUTE format(
            'WITH removed AS (
                 SELECT old.number, %s
                 FROM (
                     SELECT number, coalesce(before, wanted)::jsonb AS value
                     FROM kb_lost.applied JOIN kb_lost.change USING (number)
                     WHERE op <> ''insert'' AND place IN (SELECT kb_lost.with_partitions(%s))
                 ) old
             )
             SELECT concat_ws('', '', %s) AS shown, (SELECT max(number) FROM removed WHERE %s) AS removal,
                 (SELECT max(number) FROM kb_lost.applied WHERE place = referring.tableoid AND at = referring.ctid) AS own
             FROM %s AND NOT EXISTS (
                 SELECT FROM kb_lost.old_orphan old WHERE old.fk = %s AND old.place = referring.tableoid AND old.at = referring.ctid)',
            fk.removed_keys, fk.confrelid, fk.shown, fk.matches_removed, fk.orphans, fk.oid)
        LOOP
            change := coalesce(orphan.removal, orphan.own);
            why := CASE WHEN orphan.removal IS NULL THEN
                format('foreign key "%s": %s has no row with (%s)', fk.conname, fk.confrelid::regclass, orphan.shown)
            ELSE
                format('foreign key "%s": a row of %s refers to it', fk.conname, fk.conrelid::regclass)
            END;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $kb$;

-- Notes the rows that lack what a foreign key of them refers to.
CREATE FUNCTION kb_lost.note_orphans(key oid) RETURNS void LANGUAGE plpgsql AS $kb$
DECLARE
    fk kb_lost.fk;
BEGIN
    SELECT * INTO fk FROM kb_lost.fk WHERE oid = key;
    EXECUTE format('INSERT INTO kb_lost.old_orphan SELECT %s, referring.tableoid, referring.ctid FROM %s', fk.oid,
        fk.orphans);
    RAISE WARNING 'foreign key "%" of %: rows that lacked what they refer to before are left as they are',
        fk.conname, fk.conrelid::regclass;
END $kb$;

-- Makes all changes, except those that turn out to break a foreign key.
CREATE FUNCTION kb_lost.make_all() RETURNS void LANGUAGE plpgsql AS $kb$
DECLARE
    c kb_lost.change;
    broken bigint[];
    reasons text[];
    keys oid[];
    noted oid[] := '{}';
    unexplained record;
BEGIN
    LOOP
        BEGIN
            FOR c IN SELECT * FROM kb_lost.change ORDER BY number LOOP
                PERFORM set_config('search_path', c.path, true);
                PERFORM kb_lost.make(c);
            END LOOP;
            PERFORM set_config('search_path', 'pg_catalog', true);
            SELECT array_agg(change), array_agg(why), array_agg(key) INTO broken, reasons, keys
            FROM kb_lost.against_foreign_keys();
            EXIT WHEN broken IS NULL;
            -- Undoes everything in this block.
            RAISE SQLSTATE 'KBRFK';
        EXCEPTION WHEN SQLSTATE 'KBRFK' THEN
            UPDATE kb_lost.change SET problem = found.why
            FROM unnest(broken, reasons) AS found(number, why) WHERE change.number = found.number;
        END;
        -- Rows for which no change of this file is the reason: were they so before?
        FOR unexplained IN
            SELECT key, min(why) AS why FROM unnest(broken, reasons, keys) AS found(number, why, key)
            WHERE number IS NULL GROUP BY key
        LOOP
            IF unexplained.key <> ALL (noted) THEN
                noted := noted || unexplained.key;
                PERFORM kb_lost.note_orphans(unexplained.key);
            ELSIF NOT EXISTS (SELECT FROM unnest(broken) AS number WHERE number IS NOT NULL) THEN
                RAISE foreign_key_violation USING MESSAGE = unexplained.why,
                    DETAIL = 'It is not known which change of this file is the reason. Nothing was changed.',
                    HINT = 'Look at both tables, and take the changes that concern these rows out of the file.';
            END IF;
        END LOOP;
    END LOOP;
END $kb$;
"#;

/// Makes the changes, and removes what is of no use afterwards.
const TAIL: &str = "DO $kb$ BEGIN PERFORM kb_lost.make_all(); END $kb$;\n\
    DROP FUNCTION kb_lost.make_all();\n\
    DROP FUNCTION kb_lost.against_foreign_keys();\n\
    DROP FUNCTION kb_lost.note_orphans(oid);\n\
    DROP FUNCTION kb_lost.with_partitions(oid);\n\
    DROP FUNCTION kb_lost.make(kb_lost.change);\n\
    DROP VIEW kb_lost.fk;\n\
    DROP TABLE kb_lost.old_orphan, kb_lost.applied, kb_lost.change;\n";

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
            "\n{TAIL}\
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
