//! What is said to a server, and how its versions differ in it.

use std::error::Error;

use bytes::BytesMut;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// The names that changed between versions: a row of the table.
#[derive(Debug)]
pub(super) struct Dialect {
    /// The smallest `server_version_num` it is for.
    since: u32,
    pub(super) wal_dir: &'static str,
    pub(super) control_file: &'static str,
    insert_position: &'static str,
    flush_position: &'static str,
    receive_position: &'static str,
    replay_position: &'static str,
}

/// Newest first. PostgreSQL renamed xlog to wal and location to lsn in 10.
static DIALECTS: &[Dialect] = &[
    Dialect {
        since: 100_000,
        wal_dir: "pg_wal",
        control_file: "global/pg_control",
        insert_position: "pg_current_wal_insert_lsn()",
        flush_position: "pg_current_wal_flush_lsn()",
        receive_position: "pg_last_wal_receive_lsn()",
        replay_position: "pg_last_wal_replay_lsn()",
    },
    Dialect {
        since: 90_600,
        wal_dir: "pg_xlog",
        control_file: "global/pg_control",
        insert_position: "pg_current_xlog_insert_location()",
        flush_position: "pg_current_xlog_flush_location()",
        receive_position: "pg_last_xlog_receive_location()",
        replay_position: "pg_last_xlog_replay_location()",
    },
];

/// From here on files may be read by whoever was granted the functions; before, by superusers only.
pub(super) const GRANTABLE: u32 = 110_000;

/// Every function a rewind calls that is not open to everyone.
pub(super) const FUNCTIONS: [&str; 3] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// One range of one file: NULL if the file is gone, fewer bytes than asked at its end.
pub(super) const READ: &str = "SELECT pg_catalog.pg_read_binary_file($1, $2, $3, true)";

/// A batch of ranges; each row says by its ordinal which of them it is.
pub(super) const FETCH: &str = "\
    SELECT r.n, pg_catalog.pg_read_binary_file(r.path, r.begin, r.len, true) \
    FROM unnest($1::text[], $2::int8[], $3::int4[]) WITH ORDINALITY AS r (path, begin, len, n)";

/// From here on a server can make SHA-256 digests.
const SHA256_SINCE: u32 = 110_000;

/// How a server makes digests; no privilege is needed for either.
///
/// MD5 is good enough: whoever could forge one could send wrong contents just as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DigestOf {
    Sha256,
    Md5,
}

/// A batch of ranges as in [`FETCH`], but instead of their contents digests of these.
pub(super) fn digest(version: u32) -> (String, DigestOf) {
    let contents = "pg_catalog.pg_read_binary_file(r.path, r.begin, r.len, true)";
    let (digest, digest_of) = match version >= SHA256_SINCE {
        true => (format!("pg_catalog.sha256({contents})"), DigestOf::Sha256),
        false => (format!("pg_catalog.decode(pg_catalog.md5({contents}), 'hex')"), DigestOf::Md5),
    };
    let statement = format!(
        "SELECT r.n, {digest} \
         FROM unnest($1::text[], $2::int8[], $3::int4[]) WITH ORDINALITY AS r (path, begin, len, n)"
    );
    (statement, digest_of)
}

/// Which of some paths are directories.
pub(super) const DIRECTORIES: &str = "\
    SELECT r.n FROM unnest($1::text[]) WITH ORDINALITY AS r (path, n), \
    LATERAL pg_catalog.pg_stat_file(r.path, true) AS s WHERE s.isdir ORDER BY r.n LIMIT 1";

/// Everything in the data directory: path, whether a directory, size, and the location of a tablespace.
///
/// The server follows every link it meets, so a link to a directory appears as one. What vanishes meanwhile
/// has neither size nor contents and is left out.
pub(super) const LIST: &str = "\
    WITH RECURSIVE entry (path, isdir, size) AS ( \
        SELECT d.name, s.isdir, s.size \
        FROM pg_catalog.pg_ls_dir('.', true, false) AS d (name), \
             LATERAL pg_catalog.pg_stat_file(d.name, true) AS s \
        UNION ALL \
        SELECT e.path || '/' || d.name, s.isdir, s.size \
        FROM entry AS e, \
             LATERAL pg_catalog.pg_ls_dir(e.path, true, false) AS d (name), \
             LATERAL pg_catalog.pg_stat_file(e.path || '/' || d.name, true) AS s \
        WHERE e.isdir \
    ) \
    SELECT e.path, e.isdir, e.size, pg_catalog.pg_tablespace_location(t.oid) \
    FROM entry AS e \
    LEFT JOIN pg_catalog.pg_tablespace AS t ON e.path = 'pg_tblspc/' || t.oid::text \
    WHERE e.size IS NOT NULL";

/// The plain files of one directory: name and size.
pub(super) const LIST_FILES: &str = "\
    SELECT d.name, s.size \
    FROM pg_catalog.pg_ls_dir($1, true, false) AS d (name), \
         LATERAL pg_catalog.pg_stat_file($1 || '/' || d.name, true) AS s \
    WHERE NOT s.isdir AND s.size IS NOT NULL";

/// What a connection is checked for; all of it is open to every role.
pub(super) const FACTS: &str = "\
    SELECT pg_catalog.current_setting('full_page_writes'), pg_catalog.current_setting('is_superuser'), \
           pg_catalog.current_setting('server_encoding'), current_user, pg_catalog.current_database()";

impl Dialect {
    /// The names a server of this `server_version_num` knows; `None` for one that is too old.
    pub(super) fn of(version: u32) -> Option<&'static Dialect> {
        DIALECTS.iter().find(|dialect| version >= dialect.since)
    }

    /// The control file, whether in recovery, and two positions: received and replayed there, else inserted and
    /// flushed. One byte more than a control file has is asked for, to see one that is too long.
    pub(super) fn witness(&self) -> String {
        let length = walparse::control::CONTROL_FILE_SIZE + 1;
        let (control_file, positions) = (self.control_file, self.positions());
        format!(
            "SELECT pg_catalog.pg_read_binary_file('{control_file}', 0, {length}, true), p.* \
             FROM ({positions}) AS p"
        )
    }

    fn positions(&self) -> String {
        let Dialect { insert_position, flush_position, receive_position, replay_position, .. } = self;
        // CASE keeps the server from calling what raises an error in its present state.
        format!(
            "SELECT r.standby, \
             CASE WHEN r.standby THEN {receive_position} ELSE {insert_position} END, \
             CASE WHEN r.standby THEN {replay_position} ELSE {flush_position} END \
             FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS r"
        )
    }
}

/// What makes a session fit for long, harmless reading; each line only where the server knows it.
pub(super) fn session_settings(version: u32) -> String {
    let settings = [
        // First of all: nobody else's functions get in the way.
        (0, "search_path = ''"),
        (0, "statement_timeout = 0"),
        (0, "lock_timeout = 0"),
        (0, "idle_in_transaction_session_timeout = 0"),
        // The connections wait while the target's WAL is read.
        (140_000, "idle_session_timeout = 0"),
        (170_000, "transaction_timeout = 0"),
        (0, "default_transaction_read_only = on"),
        // A standby answers nothing in the other.
        (0, "default_transaction_isolation = 'read committed'"),
        // The listing of very many files must not become a temporary file, which may be limited for a role.
        (0, "work_mem = '64MB'"),
        // Rows come in the order in which they are asked for, and no worker processes are taken.
        (0, "max_parallel_workers_per_gather = 0"),
        // Compiling the listing takes thirty times as long as running it.
        (110_000, "jit = off"),
    ];
    let known = settings.iter().filter(|(since, _)| version >= *since);
    known.map(|(_, setting)| format!("SET {setting};")).collect()
}

/// The setting that a server names by this SQLSTATE as the reason for having cancelled or ended something.
pub(super) fn limit_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "57014" => "statement_timeout",
        "55P03" => "lock_timeout",
        "25P03" => "idle_in_transaction_session_timeout",
        "25P04" => "transaction_timeout",
        "57P05" => "idle_session_timeout",
        _ => return None,
    })
}

/// Asks for the privilege on each of [`FUNCTIONS`], in this order.
pub(super) fn privileges() -> String {
    let asked = FUNCTIONS.map(|function| format!("has_function_privilege('{function}', 'EXECUTE')"));
    format!("SELECT {}", asked.join(", "))
}

impl DigestOf {
    /// The digest of these bytes, as the server makes it.
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            DigestOf::Sha256 => Sha256::digest(bytes).to_vec(),
            DigestOf::Md5 => Md5::digest(bytes).to_vec(),
        }
    }
}

/// Text as the bytes it is: file names need not be UTF-8.
#[derive(Debug)]
pub(super) struct RawText<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for RawText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<RawText<'a>, Box<dyn Error + Sync + Send>> {
        Ok(RawText(raw))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

impl ToSql for RawText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_version() {
        assert_eq!(Dialect::of(180_001).unwrap().wal_dir, "pg_wal");
        assert_eq!(Dialect::of(100_000).unwrap().wal_dir, "pg_wal");
        assert_eq!(Dialect::of(90_624).unwrap().wal_dir, "pg_xlog");
        assert!(Dialect::of(90_624).unwrap().positions().contains("pg_last_xlog_replay_location()"));
        assert!(Dialect::of(90_525).is_none());
    }

    #[test]
    fn digests_are_those_of_the_version() {
        assert!(digest(110_000).0.contains("SELECT r.n, pg_catalog.sha256(pg_catalog.pg_read_binary_file("));
        assert!(digest(100_023).0.contains("md5(pg_catalog.pg_read_binary_file("));
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(DigestOf::Md5.of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert!(hex(DigestOf::Sha256.of(b"abc")).starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }

    #[test]
    fn only_settings_the_server_knows_are_sent() {
        let old = session_settings(90_624);
        assert!(
            !old.contains("jit") && !old.contains("transaction_timeout") && !old.contains("idle_session")
        );
        assert!(old.starts_with("SET search_path = '';"));
        let new = session_settings(170_000);
        assert!(new.contains("SET jit = off;") && new.contains("SET transaction_timeout = 0;"));
        assert!(new.contains("SET idle_session_timeout = 0;"));
    }
}
