//! The privileges that a role needs to be used for a rewind.

use super::sql::{CHECKPOINT_ROLE, Dialect, GRANTABLE};

/// SQL that creates `role`, unless it exists, and grants it the privileges that a rewind needs on a source server of
/// this `server_version_num`. A superuser runs it in the database that the connection string names.
///
/// Before version 11 the role must be a superuser, because the functions that read files check for one themselves.
///
/// ```
/// let sql = kbrecover_rewind::source::grants(150_004, "rewind_user");
/// assert!(sql.contains("GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO \"rewind_user\";"));
/// ```
pub fn grants(version: u32, role: &str) -> String {
    let (name, literal) = (identifier(role), format!("'{}'", role.replace('\'', "''")));
    let attributes = if version < GRANTABLE { "LOGIN SUPERUSER" } else { "LOGIN" };
    let mut text = String::new();
    if version < GRANTABLE {
        text += "-- The role must be a superuser: before version 11 the functions that read files of the server\n\
                 -- (pg_read_binary_file, pg_ls_dir, pg_stat_file) refuse everybody else, whatever was granted.\n";
    } else {
        text += "-- Run this as a superuser on the primary, in the database the connection string names: such grants\n\
                 -- hold in one database.\n";
    }
    let create = format!("CREATE ROLE {name} {attributes}").replace('\'', "''");
    let quote = dollar_quote(role);
    text += &format!(
        "DO {quote} BEGIN IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {literal}) \
         THEN EXECUTE '{create}'; END IF; END {quote};\n"
    );
    if version < GRANTABLE {
        return text + &format!("ALTER ROLE {name} {attributes};\n");
    }
    for function in Dialect::of(version).iter().flat_map(Dialect::functions) {
        text += &grant(&function, role);
    }
    text += "-- For pg_rewind, which is not needed here, one more:\n";
    text += &format!("-- {}", grant("pg_catalog.pg_read_binary_file(text)", role).replace('\n', " "));
    text.truncate(text.trim_end().len());
    let name = name.replace('\n', " ");
    text += &format!(
        "\n-- For a standby that is to stream as this role (-R):\n-- ALTER ROLE {name} REPLICATION;\n"
    );
    if version >= CHECKPOINT_ROLE {
        text += &format!("-- For --checkpoint-source:\n-- GRANT pg_checkpoint TO {name};\n");
    }
    text
}

/// One GRANT statement, ending with a newline.
pub(crate) fn grant(function: &str, role: &str) -> String {
    format!("GRANT EXECUTE ON FUNCTION {function} TO {};\n", identifier(role))
}

/// A dollar-quoting delimiter that does not occur in the name.
fn dollar_quote(name: &str) -> String {
    let mut quote = "$kbrecover$".to_owned();
    while name.contains(&quote) {
        quote.insert(1, '_');
    }
    quote
}

/// A name as an SQL identifier, quoted.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let text = grants(150_000, "it's \"a\"");
        assert!(text.contains("rolname = 'it''s \"a\"'"), "{text}");
        assert!(text.contains("EXECUTE 'CREATE ROLE \"it''s \"\"a\"\"\" LOGIN';"), "{text}");
        assert!(text.contains("TO \"it's \"\"a\"\"\";"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("GRANT")).count(), 3);
    }

    #[test]
    fn no_name_ends_the_block() {
        let text = grants(150_000, "$kbrecover$ $_kbrecover$");
        assert!(text.contains("DO $__kbrecover$ BEGIN") && text.contains("END $__kbrecover$;"), "{text}");
    }

    #[test]
    fn before_11_nothing_less_than_a_superuser() {
        for version in [90_600, 100_000] {
            let text = grants(version, "r");
            assert!(text.contains("ALTER ROLE \"r\" LOGIN SUPERUSER;") && !text.contains("GRANT"), "{text}");
        }
        assert!(!grants(110_000, "r").contains("SUPERUSER"));
    }
}
