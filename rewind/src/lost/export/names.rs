//! Names of databases, tables and columns: as SQL writes them, as a user gives them, and as names of files.

use std::borrow::Cow;

use crate::lost::model::LostTable;

/// The words that cannot name a table without quotes: all of PostgreSQL 9.6 to 18 that are reserved or that name a
/// type or function of the grammar, in order.
const KEYWORDS: &str = "
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean
    both case cast char character check coalesce collate collation column concurrently constraint create
    cross current_catalog current_date current_role current_schema current_time current_timestamp
    current_user dec decimal default deferrable desc distinct do else end except exists extract false
    fetch float for foreign freeze from full grant greatest group grouping having ilike in initially
    inner inout int integer intersect interval into is isnull join json json_array json_arrayagg
    json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
    lateral leading least left like limit localtime localtimestamp merge_action national natural nchar
    none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay
    placing position precision primary real references returning right row select session_user setof
    similar smallint some substring symmetric system_user table tablesample then time timestamp to
    trailing treat trim true union unique user using values varchar variadic verbose when where window
    with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
    xmlserialize xmltable";

/// Bytes of the longest name of a file without its ending. File systems take 255.
const LONGEST: usize = 180;

/// An identifier with quotes around it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An identifier as the server prints it: with quotes only where SQL needs them (`quote_identifier`).
pub(crate) fn shown(name: &str) -> Cow<'_, str> {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !KEYWORDS.split_ascii_whitespace().any(|word| word == name);
    if is_plain { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) }
}

/// The name of a table with its schema, as the server prints it. Without names: the number of its file.
pub(crate) fn table_name(table: &LostTable) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", shown(schema), shown(&table.name)),
        None => table.name.clone(),
    }
}

/// A name that the user gave cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid name \"{name}\": expected up to {parts} identifiers with dots between them, as in SQL")]
#[non_exhaustive]
pub struct LostNameError {
    /// The name.
    pub name: String,
    /// The largest number of parts.
    pub parts: usize,
}

/// The parts of a dotted name as SQL reads them: upper case becomes lower case except in double quotes.
pub(crate) fn parse_path(name: &str, parts: usize) -> Result<Vec<String>, LostNameError> {
    let invalid = || LostNameError { name: name.to_owned(), parts };
    let (mut path, mut rest) = (Vec::new(), name);
    loop {
        let part;
        (part, rest) = next_part(rest).ok_or_else(invalid)?;
        path.push(part);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() && path.len() <= parts => return Ok(path),
            None => return Err(invalid()),
        }
    }
}

/// The first part of a dotted name, and what follows it.
fn next_part(name: &str) -> Option<(String, &str)> {
    let Some(mut rest) = name.strip_prefix('"') else {
        let end = name.find(['.', '"']).unwrap_or(name.len());
        return (end > 0).then(|| (name[..end].to_ascii_lowercase(), &name[end..]));
    };
    let mut part = String::new();
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return (!part.is_empty()).then_some((part, rest)),
        }
    }
}

/// A name of a file that is made of these parts, with dots between them and without an ending. Letters and digits of
/// any script stay. All else becomes `_`, so that the name stays in its directory and does not look like an option or
/// a hidden file. Different parts may give the same name.
pub(crate) fn file_name(parts: &[&str]) -> String {
    let safe = |c: char| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let mut name = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(part.chars().map(safe));
    }
    if name.is_empty() || name.starts_with('-') {
        name.insert(0, '_');
    }
    name.truncate((0..=name.len().min(LONGEST)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0));
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_quoted_where_the_server_does_it() {
        assert!(KEYWORDS.split_ascii_whitespace().is_sorted());
        let expected = [
            ("a_1", "a_1"),
            ("Ab", "\"Ab\""),
            ("1a", "\"1a\""),
            ("a$", "\"a$\""),
            ("user", "\"user\""),
            ("name", "name"),
            ("", "\"\""),
            ("a\"b", "\"a\"\"b\""),
            ("表", "\"表\""),
        ];
        for (name, text) in expected {
            assert_eq!(shown(name), text);
        }
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let read = |name| parse_path(name, 3).map(|path| path.join("|"));
        assert_eq!(read("Sales.PAYMENT").unwrap(), "sales|payment");
        assert_eq!(read("\"Sales\".\"pay.ment \"\"x\"\"\"").unwrap(), "Sales|pay.ment \"x\"");
        assert_eq!(read("shop.公开.支付").unwrap(), "shop|公开|支付");
        for bad in ["", ".", "a.", ".a", "a..b", "\"a", "\"\"", "a\"b\"", "\"a\"b", "a.b.c.d"] {
            assert!(read(bad).is_err(), "{bad:?} was read");
        }
        assert!(read("a..b").unwrap_err().to_string().starts_with("invalid name \"a..b\""));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(schema in "[a-zA-Z0-9_.\"表 ]{1,8}", name in "\\PC{1,8}") {
            let text = format!("{}.{}", shown(&schema), shown(&name));
            prop_assert_eq!(parse_path(&text, 2), Ok(vec![schema, name]));
        }

        #[test]
        fn a_file_stays_in_its_directory(parts in proptest::collection::vec("\\PC{0,300}|[./\\\\\0~-]{0,9}", 0..4)) {
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            let name = file_name(&parts);
            prop_assert!(!name.is_empty() && name.len() <= LONGEST);
            prop_assert!(!name.starts_with(['.', '-']) && !name.contains(['/', '\\', '\0', '\n', ' ']));
        }
    }

    #[test]
    fn file_names_keep_what_is_harmless() {
        assert_eq!(file_name(&["shop", "public", "支付-1"]), "shop.public.支付-1");
        assert_eq!(file_name(&["../x", "a/b", "c.d\0"]), "___x.a_b.c_d_");
        assert_eq!(file_name(&[]), "_");
        assert_eq!(file_name(&["-rf"]), "_-rf");
    }
}
