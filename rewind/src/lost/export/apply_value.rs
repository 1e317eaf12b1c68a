//! Values in `apply.sql`: literals, the casts to the types of their columns, and how values of a type are compared.

use super::names::{parse_path, quoted};
use crate::lost::model::LostColumn;

/// Types of `pg_catalog` that have an operator `=` which tells their values apart. Others have none (`json`, `xml`,
/// `point`), or one that takes different values for equal (`box`, `circle`, `interval`). Of types in other schemas that
/// is not known.
const COMPARABLE: &str = "
    \"bit\" \"char\" \"varbit\" bigint bit bool boolean bpchar bytea char character cid cidr date daterange
    datemultirange float4 float8 inet int2 int4 int4multirange int4range int8 int8multirange int8range integer
    jsonb macaddr macaddr8 money name numeric nummultirange numrange oid pg_lsn real smallint text tid time
    timestamp timestamptz timetz tsmultirange tsquery tsrange tstzmultirange tstzrange tsvector uuid varbit
    varchar xid xid8";

/// The same of types whose names are more than one word.
const COMPARABLE_WORDS: [&str; 7] = [
    "bit varying",
    "character varying",
    "double precision",
    "time with time zone",
    "time without time zone",
    "timestamp with time zone",
    "timestamp without time zone",
];

/// A column as statements need it.
#[derive(Debug)]
pub(crate) struct SqlColumn {
    /// Its name in quotes.
    pub(crate) name: String,
    /// What follows a literal. Nothing if the name of the type is not one that SQL takes: the literal then takes the type
    /// of the column.
    cast: String,
    /// Whether `=` tells values of the type apart.
    is_comparable: bool,
}

impl SqlColumn {
    pub(crate) fn of(column: &LostColumn) -> SqlColumn {
        let element = column.type_name.trim_end_matches("[]");
        let is_comparable = COMPARABLE.split_ascii_whitespace().any(|name| name == element)
            || COMPARABLE_WORDS.contains(&element);
        let cast = cast(&column.type_name).map(|name| format!("::{name}"));
        SqlColumn { name: quoted(&column.name), cast: cast.unwrap_or_default(), is_comparable }
    }

    /// A value of the column.
    pub(crate) fn put_value(&self, sql: &mut String, text: &str) {
        put_literal(sql, text);
        sql.push_str(&self.cast);
    }

    /// The condition that the column, one of the key, has a value. It is one that an index serves: a key has a `=`.
    pub(crate) fn put_key_condition(&self, sql: &mut String, text: &str) {
        sql.push_str(&self.name);
        sql.push_str(" = ");
        self.put_value(sql, text);
    }

    /// The condition that the column has a value, or is NULL (`None`).
    ///
    /// What has no `=` is compared by its text as the type's output function prints it, which is what `format` uses. A
    /// cast to `text` is not the same: it drops the spaces at the end of a `char(n)`.
    pub(crate) fn put_condition(&self, sql: &mut String, text: Option<&str>) {
        match text {
            None => {
                sql.push_str(&self.name);
                // For a row, IS NULL would mean that all of its fields are.
                sql.push_str(if self.is_comparable { " IS NULL" } else { " IS NOT DISTINCT FROM NULL" });
            }
            Some(text) if self.is_comparable => self.put_key_condition(sql, text),
            Some(text) => {
                sql.push_str("format('%s', ");
                sql.push_str(&self.name);
                sql.push_str(") = ");
                put_literal(sql, text);
                if text.is_empty() {
                    sql.push_str(" AND ");
                    sql.push_str(&self.name);
                    sql.push_str(" IS DISTINCT FROM NULL");
                }
            }
        }
    }
}

/// A string literal. It is valid where `standard_conforming_strings` is on, which `apply.sql` sets.
pub(crate) fn put_literal(sql: &mut String, text: &str) {
    sql.push('\'');
    match text.contains('\'') {
        true => sql.push_str(&text.replace('\'', "''")),
        false => sql.push_str(text),
    }
    sql.push('\'');
}

/// The name of a type in a cast, if it is one that SQL takes, and nothing else.
///
/// Three names mean a length of 1 to SQL where no length is given, and would cut values off: these are written so that
/// there is no length. A name with a schema is written in quotes, so that keywords can be names.
fn cast(type_name: &str) -> Option<String> {
    let element = type_name.trim_end_matches("[]");
    let written = match element {
        "character" => "bpchar".to_owned(),
        "bit" => "\"bit\"".to_owned(),
        "char" => "\"char\"".to_owned(),
        _ if element.contains('.') => {
            let parts = parse_path(element, 2).ok()?;
            parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
        }
        _ => is_type_name(element).then(|| element.to_owned())?,
    };
    Some(written + &type_name[element.len()..])
}

/// Whether a text is an identifier, or words with single spaces between them (`double precision`).
fn is_type_name(name: &str) -> bool {
    if name.starts_with('"') {
        return parse_path(name, 1).is_ok();
    }
    let is_letter = |c: char| c.is_alphanumeric() && !c.is_uppercase() || c == '_';
    name.split(' ').all(|word| {
        !word.is_empty() && !word.starts_with(|c: char| c.is_numeric()) && word.chars().all(is_letter)
    })
}

/// The schema of a type in quotes; none for a type of `pg_catalog`.
pub(crate) fn schema_of(type_name: &str) -> Option<String> {
    match parse_path(type_name.trim_end_matches("[]"), 2).ok()?.as_slice() {
        [schema, _] => Some(quoted(schema)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_name: &str) -> SqlColumn {
        let (name, type_name) = ("c".to_owned(), type_name.to_owned());
        SqlColumn::of(&LostColumn { name, type_name, is_generated: false })
    }

    fn typed(text: &str, type_name: &str) -> String {
        let mut sql = String::new();
        column(type_name).put_value(&mut sql, text);
        sql
    }

    fn condition(type_name: &str, text: Option<&str>) -> String {
        let mut sql = String::new();
        column(type_name).put_condition(&mut sql, text);
        sql
    }

    #[test]
    fn literals_are_cast_to_types_without_a_length() {
        assert_eq!(typed("it's \\", "text"), "'it''s \\'::text");
        assert_eq!(typed("101", "bit"), "'101'::\"bit\"");
        assert_eq!(typed("a ", "character"), "'a '::bpchar");
        assert_eq!(typed("{a}", "char[]"), "'{a}'::\"char\"[]");
        assert_eq!(typed("x", "timestamp with time zone"), "'x'::timestamp with time zone");
        assert_eq!(typed("x", "order.user[]"), "'x'::\"order\".\"user\"[]");
        assert_eq!(typed("x", "a.\"My \"\"Type\"\" ; --\"[]"), "'x'::\"a\".\"My \"\"Type\"\" ; --\"[]");
        assert_eq!(typed("x", "公开.类型"), "'x'::\"公开\".\"类型\"");
    }

    #[test]
    fn what_is_no_name_of_a_type_is_not_written() {
        for bad in
            ["", "16384", "text; drop table x", "a..b", "\"a", "a\"b\"", "Text", "\"\"\"", "\"\"", "a.", "$a"]
        {
            assert_eq!(typed("x", bad), "'x'", "{bad:?}");
        }
    }

    #[test]
    fn the_schema_of_a_type_is_found() {
        assert_eq!(schema_of("public.mood").unwrap(), "\"public\"");
        assert_eq!(schema_of("\"a.b\".\"c.d\"[]").unwrap(), "\"a.b\"");
        assert_eq!((schema_of("integer"), schema_of("\"a.b\"")), (None, None));
    }

    #[test]
    fn values_are_compared_by_the_operator_or_by_their_text() {
        assert_eq!(condition("int4", Some("1")), "\"c\" = '1'::int4");
        assert_eq!(condition("double precision[]", Some("{1}")), "\"c\" = '{1}'::double precision[]");
        assert_eq!(condition("json", Some("{}")), "format('%s', \"c\") = '{}'");
        assert_eq!(condition("text", Some("")), "\"c\" = ''::text");
        assert_eq!(
            condition("public.d", Some("")),
            "format('%s', \"c\") = '' AND \"c\" IS DISTINCT FROM NULL"
        );
        assert_eq!(condition("point", None), "\"c\" IS NOT DISTINCT FROM NULL");
        assert_eq!(condition("date", None), "\"c\" IS NULL");
    }
}
