//! The SQL sent to a server, and its differences between versions and PostgreSQL forks.

use std::error::Error;

use bytes::BytesMut;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use walparse::{Flavor, Names};

use crate::datadir::flavor;

/// System schemas and the prefixes of the names in them: KingbaseES's first, then PostgreSQL's.
const SYSTEMS: [(&str, &str); 2] = [("sys_catalog", "sys_"), ("pg_catalog", "pg_")];

/// A function or view that is used. PostgreSQL 10 renamed xlog to wal and location to lsn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Object {
    /// Its names without the prefix, the newest first.
    names: &'static [&'static str],
    /// The argument types of a function; `None` for a table or view.
    arguments: Option<&'static str>,
}

const fn function(names: &'static [&'static str], arguments: &'static str) -> Object {
    Object { names, arguments: Some(arguments) }
}

/// In the order of the fields of [`Dialect`].
const OBJECTS: [Object; 11] = [
    function(&["ls_dir"], "text, boolean, boolean"),
    function(&["stat_file"], "text, boolean"),
    function(&["read_binary_file"], "text, bigint, bigint, boolean"),
    function(&["is_in_recovery"], ""),
    function(&["current_wal_insert_lsn", "current_xlog_insert_location"], ""),
    function(&["current_wal_flush_lsn", "current_xlog_flush_location"], ""),
    function(&["last_wal_receive_lsn", "last_xlog_receive_location"], ""),
    function(&["last_wal_replay_lsn", "last_xlog_replay_location"], ""),
    function(&["tablespace_location"], "oid"),
    Object { names: &["tablespace"], arguments: None },
    Object { names: &["settings"], arguments: None },
];

/// Functions and views without which a rewind is possible, too; in the order of the fields of [`Optional`].
const OPTIONAL: [Object; 5] = [
    function(&["postmaster_start_time"], ""),
    function(&["try_advisory_lock_shared"], "bigint"),
    Object { names: &["locks"], arguments: None },
    Object { names: &["roles"], arguments: None },
    Object { names: &["replication_slots"], arguments: None },
];

impl Object {
    /// Its possible names on a server of a fork, the preferred one first.
    fn candidates(self) -> impl Iterator<Item = String> {
        SYSTEMS.into_iter().flat_map(move |(schema, prefix)| {
            self.names.iter().map(move |name| format!("{schema}.{prefix}{name}"))
        })
    }

    /// Its name on a PostgreSQL server.
    fn postgresql(self, version: u32) -> String {
        let name = if version >= WAL_NAMES { self.names.first() } else { self.names.last() };
        format!("pg_catalog.pg_{}", name.copied().unwrap_or_default())
    }
}

/// The first version whose functions are named after WAL instead of xlog.
const WAL_NAMES: u32 = 100_000;

/// The oldest supported server.
const OLDEST: u32 = 90_600;

/// The schema-qualified names of a server's functions and views.
#[derive(Debug)]
pub(super) struct Dialect {
    ls_dir: String,
    stat_file: String,
    read_binary_file: String,
    pub(super) is_in_recovery: String,
    insert_position: String,
    flush_position: String,
    receive_position: String,
    replay_position: String,
    tablespace_location: String,
    tablespaces: String,
    pub(super) settings: String,
    optional: Optional,
}

/// The names of [`OPTIONAL`]; `None` for those that a fork's server does not have.
#[derive(Debug)]
struct Optional {
    postmaster_start_time: Option<String>,
    try_advisory_lock_shared: Option<String>,
    locks: Option<String>,
    roles: Option<String>,
    replication_slots: Option<String>,
}

/// A value of a query, and its type. With the types given, a query takes one round trip instead of two, and no named statement.
pub(super) type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

/// The ranges that [`Dialect::fetch`] and [`Dialect::digests`] ask for.
#[derive(Default)]
pub(super) struct Asked<'a> {
    pub(super) paths: Vec<RawText<'a>>,
    pub(super) begins: Vec<i64>,
    pub(super) lengths: Vec<i32>,
    /// Bytes of a part that has a digest of its own.
    pub(super) part: i32,
    pub(super) is_md5: bool,
}

impl Asked<'_> {
    /// The parameters for digests; the first three are those for contents.
    pub(super) fn parameters(&self) -> [Typed<'_>; 5] {
        [
            (&self.paths, Type::TEXT_ARRAY),
            (&self.begins, Type::INT8_ARRAY),
            (&self.lengths, Type::INT4_ARRAY),
            (&self.part, Type::INT4),
            (&self.is_md5, Type::BOOL),
        ]
    }
}

/// The first version with the role `pg_checkpoint`.
pub(super) const CHECKPOINT_ROLE: u32 = 150_000;

/// The first version in which EXECUTE on the functions that read files can be granted. Before, they require a superuser.
pub(super) const GRANTABLE: u32 = 110_000;

/// The first version with the function `sha256`.
const SHA256_SINCE: u32 = 110_000;

/// The digest function of a server. Neither requires a privilege.
///
/// SHA-256 is the faster one if the server has OpenSSL, which uses the processor's instructions for it. PostgreSQL's own code
/// for it is three times slower than that for MD5. MD5 is sufficient: the digests come from the server itself, and a server that wanted to deceive could send wrong
/// contents instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DigestOf {
    Sha256,
    Md5,
}

/// Settings and identity of a session, visible to every role; and whether the server is known to lack OpenSSL, which it says
/// from version 12 on.
pub(super) const FACTS: &str = "\
    SELECT current_setting('full_page_writes'), current_setting('is_superuser'), \
           current_setting('server_encoding'), current_user, current_database(), \
           current_setting('ssl_library', true) = ''";

/// The first version that makes summaries of its WAL. No fork is based on it.
pub(super) const SUMMARIES_SINCE: u32 = 170_000;

/// The summaries of its WAL that a PostgreSQL server has, and whether it makes others. A summary has the blocks that
/// records refer to, and what the server's own records do to files. A record of an extension's resource manager might do
/// more, so with such an extension there are none.
pub(super) const SUMMARIES: &str = "\
    SELECT s.tli, s.start_lsn::text, s.end_lsn::text, current_setting('summarize_wal') = 'on' \
    FROM pg_catalog.pg_available_wal_summaries() AS s \
    WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_get_wal_resource_managers() AS r WHERE NOT r.rm_builtin)";

/// The contents of summaries, as far as they concern main forks: blocks, and limits beyond which everything may have
/// changed. The limit of an init fork (number 3) tells of an unlogged relation, whose main fork is never mentioned.
pub(super) const SUMMARIZED: &str = "\
    SELECT c.reltablespace, c.reldatabase, c.relfilenode, c.relforknumber, c.relblocknumber, c.is_limit_block \
    FROM unnest($1::int8[], $2::text[], $3::text[]) AS s (tli, start_lsn, end_lsn), \
         LATERAL pg_catalog.pg_wal_summary_contents(s.tli, s.start_lsn::pg_lsn, s.end_lsn::pg_lsn) AS c \
    WHERE c.relforknumber = 0 OR c.relforknumber = 3 AND c.is_limit_block";

/// A query that returns, for each candidate name of each of [`OBJECTS`] and [`OPTIONAL`], whether it exists on a server
/// of a fork.
pub(super) fn which_names() -> String {
    let asked = OBJECTS.into_iter().chain(OPTIONAL).flat_map(|object| {
        object.candidates().map(move |name| match object.arguments {
            Some(arguments) => format!("to_regprocedure('{name}({arguments})') IS NOT NULL"),
            None => format!("to_regclass('{name}') IS NOT NULL"),
        })
    });
    format!("SELECT {}", asked.collect::<Vec<_>>().join(", "))
}

/// Whether a boolean in text form is true: `t`, or `true` in KingbaseES's Oracle mode.
pub(super) fn is_true(text: Option<&str>) -> bool {
    matches!(text, Some("t" | "true"))
}

impl Dialect {
    /// The names on a PostgreSQL server of this `server_version_num`; `None` if it is too old.
    pub(super) fn of(version: u32) -> Option<Dialect> {
        let named = |object: Object| Some(object.postgresql(version));
        if version >= OLDEST { Dialect::named(named).ok() } else { None }
    }

    /// The names on a server of a fork, by the result of [`which_names`]: its own if it has them, or else PostgreSQL's.
    ///
    /// # Errors
    /// The name of an object that does not exist.
    pub(super) fn of_answer(answer: &[Option<String>]) -> Result<Dialect, String> {
        let mut known = answer.iter().map(|value| is_true(value.as_deref()));
        Dialect::named(|object| {
            let found: Vec<String> =
                object.candidates().filter(|_| known.next().unwrap_or_default()).collect();
            found.into_iter().next()
        })
    }

    fn named(mut name: impl FnMut(Object) -> Option<String>) -> Result<Dialect, String> {
        let missing = |object: Object| object.candidates().next().unwrap_or_default();
        let mut objects = OBJECTS.into_iter();
        let mut next = || {
            let object = objects.next().unwrap_or(OBJECTS[0]);
            name(object).ok_or_else(|| missing(object))
        };
        Ok(Dialect {
            ls_dir: next()?,
            stat_file: next()?,
            read_binary_file: next()?,
            is_in_recovery: next()?,
            insert_position: next()?,
            flush_position: next()?,
            receive_position: next()?,
            replay_position: next()?,
            tablespace_location: next()?,
            tablespaces: next()?,
            settings: next()?,
            optional: Optional::named(name),
        })
    }

    /// The functions that require a privilege, with their argument types.
    pub(super) fn functions(&self) -> [String; 3] {
        let Dialect { ls_dir, stat_file, read_binary_file, .. } = self;
        let with_arguments =
            |name: &String, object: Object| format!("{name}({})", object.arguments.unwrap_or_default());
        [
            with_arguments(ls_dir, OBJECTS[0]),
            with_arguments(stat_file, OBJECTS[1]),
            with_arguments(read_binary_file, OBJECTS[2]),
        ]
    }

    /// A query for the EXECUTE privilege on each of [`Dialect::functions`], in this order.
    pub(super) fn privileges(&self) -> String {
        let asked =
            self.functions().map(|function| format!("has_function_privilege('{function}', 'EXECUTE')"));
        format!("SELECT {}", asked.join(", "))
    }

    /// A range of one file: NULL if the file does not exist, fewer bytes than requested at its end.
    pub(super) fn read(&self) -> String {
        format!("SELECT {}($1, $2, $3, true)", self.read_binary_file)
    }

    /// A batch of ranges; each row has the ordinal number of its range.
    pub(super) fn fetch(&self) -> String {
        format!(
            "SELECT r.n, {}(r.path, r.begin, r.len, true) \
             FROM unnest($1::text[], $2::int8[], $3::int4[]) WITH ORDINALITY AS r (path, begin, len, n)",
            self.read_binary_file
        )
    }

    /// The same with digests in place of the contents: one for each part of so many bytes as the fourth parameter says, one
    /// after the other. It is MD5 if the fifth parameter is true, or else SHA-256. An empty range has one digest.
    // OFFSET 0 keeps the planner from putting the function in place of each reference to its result.
    pub(super) fn digests(&self, knows_sha256: bool) -> String {
        const PART: &str = "substr(f.bytes, i * $4::int4 + 1, $4)";
        let sha256 = if knows_sha256 { format!("sha256({PART})") } else { "NULL".to_owned() };
        format!(
            "SELECT r.n, ( \
                 SELECT string_agg(CASE WHEN $5::bool THEN decode(md5({PART}), 'hex') ELSE {sha256} END, '') \
                 FROM generate_series(0, (length(f.bytes) - 1) / $4) AS i \
             ) \
             FROM unnest($1::text[], $2::int8[], $3::int4[]) WITH ORDINALITY AS r (path, begin, len, n), \
                  LATERAL (SELECT {}(r.path, r.begin, r.len, true) AS bytes OFFSET 0) AS f",
            self.read_binary_file
        )
    }

    /// The ordinal number of the first path that is a directory.
    pub(super) fn directories(&self) -> String {
        format!(
            "SELECT r.n FROM unnest($1::text[]) WITH ORDINALITY AS r (path, n), \
             LATERAL {}(r.path, true) AS s WHERE s.isdir ORDER BY r.n LIMIT 1",
            self.stat_file
        )
    }

    /// A recursive listing of the data directory: path, whether it is a directory, size, and the location of a
    /// tablespace.
    ///
    /// The server follows symbolic links, so a link to a directory is listed as a directory. Files removed meanwhile have
    /// no size and are omitted.
    // The directory lost+found is readable by root only: listing it would fail, and with it the whole query.
    pub(super) fn list(&self, names: &Names) -> String {
        let Dialect { ls_dir, stat_file, tablespace_location, tablespaces, .. } = self;
        format!(
            "WITH RECURSIVE entry (path, isdir, size) AS ( \
                 SELECT d.name, s.isdir, s.size \
                 FROM {ls_dir}('.', true, false) AS d (name), LATERAL {stat_file}(d.name, true) AS s \
                 WHERE d.name <> 'lost+found' \
                 UNION ALL \
                 SELECT e.path || '/' || d.name, s.isdir, s.size \
                 FROM entry AS e, \
                      LATERAL {ls_dir}(e.path, true, false) AS d (name), \
                      LATERAL {stat_file}(e.path || '/' || d.name, true) AS s \
                 WHERE e.isdir AND d.name <> 'lost+found' \
             ) \
             SELECT e.path, e.isdir, e.size, {tablespace_location}(t.oid) \
             FROM entry AS e \
             LEFT JOIN {tablespaces} AS t ON e.path = '{}/' || t.oid::text \
             WHERE e.size IS NOT NULL",
            names.tablespace_dir
        )
    }

    /// The regular files in one directory: name and size.
    pub(super) fn list_files(&self) -> String {
        let Dialect { ls_dir, stat_file, .. } = self;
        format!(
            "SELECT d.name, s.size \
             FROM {ls_dir}($1, true, false) AS d (name), LATERAL {stat_file}($1 || '/' || d.name, true) AS s \
             WHERE NOT s.isdir AND s.size IS NOT NULL"
        )
    }

    /// The control file, whether the server is in recovery, and two WAL positions: receive and replay position of a
    /// standby, insert and flush position of a primary. One byte more than a control file has is requested, to detect one
    /// that is too long.
    pub(super) fn witness(&self, names: &Names) -> String {
        let length = walparse::control::CONTROL_FILE_SIZE + 1;
        format!(
            "SELECT {}('{}', 0, {length}, true), p.* FROM ({}) AS p",
            self.read_binary_file,
            names.control_file,
            self.positions()
        )
    }

    /// What identifies the product of the data directory: the first bytes of each possible control file, in hexadecimal,
    /// and whether each possible WAL directory exists.
    pub(super) fn data_directory_traits(&self) -> String {
        let Dialect { read_binary_file, stat_file, .. } = self;
        let fronts = flavor::control_files()
            .into_iter()
            .map(|file| format!("encode({read_binary_file}('{file}', 0, 16, true), 'hex')"));
        let directories = flavor::wal_dirs()
            .into_iter()
            .map(|directory| format!("({stat_file}('{directory}', true)).isdir"));
        format!("SELECT {}", fronts.chain(directories).collect::<Vec<_>>().join(", "))
    }

    /// The start time of the server in microseconds; `None` if it cannot be queried.
    pub(super) fn started(&self) -> Option<String> {
        let function = self.optional.postmaster_start_time.as_ref()?;
        Some(format!("SELECT (extract(epoch FROM {function}()) * 1000000)::bigint"))
    }

    /// When the data directory was created on its host: the times of the last status change of two files that a server
    /// creates once and never writes again. A copy of the directory has others, even one that preserves all attributes.
    pub(super) fn created(&self, names: &Names) -> String {
        let change = |path: &str| {
            let stat_file = &self.stat_file;
            format!("extract(epoch FROM ({stat_file}('{path}{}', true)).change)::bigint", names.version_file)
        };
        format!("SELECT {}, {}", change(""), change("base/1/"))
    }

    /// Takes a shared advisory lock, held until the session ends; `None` if the server has no such locks.
    pub(super) fn take_lock(&self, key: LockKey) -> Option<String> {
        let function = self.optional.try_advisory_lock_shared.as_ref()?;
        Some(format!("SELECT {function}({}::bigint)", key.0))
    }

    /// Whether any session on the server holds this advisory lock. Nothing is locked by this query, so sessions that
    /// examine a server at the same time do not deceive each other.
    ///
    /// Pgpool-II sends a query to the primary if it calls a volatile function, and otherwise to any server. The functions
    /// that read files are volatile, so this query calls one, too.
    pub(super) fn is_locked(&self, key: LockKey) -> Option<String> {
        let locks = self.optional.locks.as_ref()?;
        let (high, low) = (key.0 >> 32, key.0 & 0xFFFF_FFFF);
        Some(format!(
            "SELECT EXISTS (SELECT 1 FROM {locks} AS l WHERE l.locktype = 'advisory' AND l.classid = '{high}' \
             AND l.objid = '{low}' AND l.objsubid = 1 AND l.granted), {}()",
            self.is_in_recovery
        ))
    }

    /// Whether the role that logged in may start replication; `None` if the server has no view of roles.
    pub(super) fn may_replicate(&self) -> Option<String> {
        let roles = self.optional.roles.as_ref()?;
        Some(format!(
            "SELECT r.rolreplication OR r.rolsuper FROM {roles} AS r WHERE r.rolname = session_user"
        ))
    }

    /// How much WAL is kept for standbys without a slot: the setting and its name, which changed in 13.
    pub(super) fn kept_wal(&self) -> String {
        format!(
            "SELECT s.setting, s.name FROM {} AS s WHERE s.name IN ('wal_keep_size', 'wal_keep_segments')",
            self.settings
        )
    }

    /// The kind of a replication slot, whether it is in use, and from where on it keeps WAL; `None` if the server has no view of slots.
    pub(super) fn replication_slot(&self) -> Option<String> {
        let slots = self.optional.replication_slots.as_ref()?;
        Some(format!(
            "SELECT s.slot_type::text, s.active, s.restart_lsn::text FROM {slots} AS s WHERE s.slot_name::text = $1"
        ))
    }

    /// Whether the current role may request a checkpoint, and its name. `version` is the server's.
    pub(super) fn may_checkpoint(version: u32, flavor: Flavor) -> String {
        let is_superuser = "current_setting('is_superuser') = 'on'";
        let may = match has_checkpoint_role(version, flavor) {
            true => format!("{is_superuser} OR pg_has_role('pg_checkpoint', 'USAGE')"),
            false => is_superuser.to_owned(),
        };
        format!("SELECT {may}, current_user")
    }

    fn positions(&self) -> String {
        let Dialect { insert_position, flush_position, receive_position, replay_position, .. } = self;
        // CASE avoids calling functions that raise an error during recovery, or outside it.
        format!(
            "SELECT r.standby, \
             CASE WHEN r.standby THEN {receive_position}() ELSE {insert_position}() END::text, \
             CASE WHEN r.standby THEN {replay_position}() ELSE {flush_position}() END::text \
             FROM (SELECT {}() AS standby) AS r",
            self.is_in_recovery
        )
    }
}

impl Optional {
    fn named(mut name: impl FnMut(Object) -> Option<String>) -> Optional {
        let [postmaster_start_time, try_advisory_lock_shared, locks, roles, replication_slots] =
            OPTIONAL.map(&mut name);
        Optional { postmaster_start_time, try_advisory_lock_shared, locks, roles, replication_slots }
    }
}

/// The key of an advisory lock. It is not negative, so that SQL can spell it without parentheses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LockKey(i64);

impl LockKey {
    /// A key that nobody else uses.
    pub(super) fn random() -> LockKey {
        LockKey(rand::random::<i64>() & i64::MAX)
    }
}

/// Settings for a session that reads for a long time. Each is set only where the server knows it. Behind a pooler they may stay with a
/// session that others are lent, so none keeps anybody from writing.
pub(super) fn session_settings(version: u32) -> String {
    let settings = [
        // First, so that no function in another schema is called by mistake.
        (0, "search_path = ''"),
        // A query that the role may not execute must not end the session.
        (0, "exit_on_error = off"),
        (0, "statement_timeout = 0"),
        (0, "lock_timeout = 0"),
        (0, "idle_in_transaction_session_timeout = 0"),
        // Connections are idle while the target's WAL is scanned.
        (140_000, "idle_session_timeout = 0"),
        (170_000, "transaction_timeout = 0"),
        // A hot standby does not support serializable transactions.
        (0, "default_transaction_isolation = 'read committed'"),
        // Sorting a large listing must not need a temporary file: temp_file_limit may be set for the role.
        (0, "work_mem = '64MB'"),
        // Rows arrive in request order, and no worker processes are used.
        (0, "max_parallel_workers_per_gather = 0"),
        // JIT compilation of the listing takes thirty times as long as its execution.
        (110_000, "jit = off"),
    ];
    let known = settings.iter().filter(|(since, _)| version >= *since);
    known.map(|(_, setting)| format!("SET {setting};")).collect()
}

/// Whether a server has the role `pg_checkpoint`. For a fork, only its superusers are certain to be allowed checkpoints.
pub(super) fn has_checkpoint_role(version: u32, flavor: Flavor) -> bool {
    version >= CHECKPOINT_ROLE && !flavor.is_fork()
}

/// The setting whose limit made the server cancel a statement or end a session with this SQLSTATE.
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

/// Whether a server of this `server_version_num` has the function `sha256`. For a fork, only `md5` is certain to exist.
pub(super) fn knows_sha256(version: u32, flavor: Flavor) -> bool {
    version >= SHA256_SINCE && !flavor.is_fork()
}

impl DigestOf {
    /// The faster one of those that a server has.
    pub(super) fn fastest(knows_sha256: bool, lacks_openssl: bool) -> DigestOf {
        if knows_sha256 && !lacks_openssl { DigestOf::Sha256 } else { DigestOf::Md5 }
    }

    /// The size of a digest in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            DigestOf::Sha256 => 32,
            DigestOf::Md5 => 16,
        }
    }

    /// The digest of these bytes, as the server computes it.
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            DigestOf::Sha256 => Sha256::digest(bytes).to_vec(),
            DigestOf::Md5 => Md5::digest(bytes).to_vec(),
        }
    }
}

/// A text value as raw bytes: file names need not be valid UTF-8.
#[derive(Debug)]
pub(super) struct RawText<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for RawText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<RawText<'a>, Box<dyn Error + Sync + Send>> {
        Ok(RawText(raw))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::VARCHAR | Type::NAME)
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
    use walparse::Version;

    use super::*;

    #[test]
    fn names_follow_the_version() {
        let dialect = |version| Dialect::of(version).unwrap();
        assert!(dialect(180_001).positions().contains("pg_catalog.pg_current_wal_insert_lsn()"));
        assert!(dialect(100_000).positions().contains("pg_catalog.pg_last_wal_replay_lsn()"));
        assert!(dialect(90_624).positions().contains("pg_catalog.pg_last_xlog_replay_location()"));
        assert_eq!(dialect(90_624).functions()[0], "pg_catalog.pg_ls_dir(text, boolean, boolean)");
        assert!(Dialect::of(90_525).is_none());
    }

    #[test]
    fn the_digest_function_follows_the_server() {
        let postgresql = Version::all().next().unwrap().flavor();
        let fork = Flavor::all().find(|flavor| flavor.is_fork()).unwrap();
        assert!(knows_sha256(110_000, postgresql));
        assert!(!knows_sha256(100_023, postgresql) && !knows_sha256(120_001, fork));
        assert_eq!(DigestOf::fastest(true, false), DigestOf::Sha256);
        for (knows_sha256, lacks_openssl) in [(true, true), (false, false), (false, true)] {
            assert_eq!(DigestOf::fastest(knows_sha256, lacks_openssl), DigestOf::Md5);
        }
        let dialect = Dialect::of(110_000).unwrap();
        assert!(dialect.digests(true).contains("ELSE sha256("));
        assert!(!dialect.digests(false).contains("sha256"));
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(DigestOf::Md5.of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert!(hex(DigestOf::Sha256.of(b"abc")).starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }

    #[test]
    fn a_forks_own_names_are_preferred() {
        let asked = which_names();
        let candidates: Vec<&str> = asked.split(", to_reg").collect();
        let answer = |known: &dyn Fn(&str) -> bool, yes: &str| -> Vec<Option<String>> {
            let words = candidates.iter().map(|candidate| if known(candidate) { yes } else { "f" });
            words.map(|word| Some(word.to_owned())).collect()
        };
        let all = Dialect::of_answer(&answer(&|_| true, "true")).unwrap();
        assert_eq!(all.ls_dir, "sys_catalog.sys_ls_dir");
        assert_eq!(all.insert_position, "sys_catalog.sys_current_wal_insert_lsn");
        assert_eq!(all.settings, "sys_catalog.sys_settings");
        let old = Dialect::of_answer(&answer(&|name| !name.contains("sys_") || !name.contains("_lsn"), "t"));
        assert_eq!(old.unwrap().insert_position, "sys_catalog.sys_current_xlog_insert_location");
        let other = Dialect::of_answer(&answer(&|name| name.contains("pg_"), "t")).unwrap();
        assert_eq!(
            (other.ls_dir.as_str(), other.tablespaces.as_str()),
            ("pg_catalog.pg_ls_dir", "pg_catalog.pg_tablespace")
        );
        let none = Dialect::of_answer(&answer(&|name| !name.contains("stat_file"), "t"));
        assert_eq!(none.unwrap_err(), "sys_catalog.sys_stat_file");
        let without = Dialect::of_answer(&answer(&|name| !name.contains("locks"), "t")).unwrap();
        assert_eq!((without.is_locked(LockKey(1)), without.started().is_some()), (None, true));
    }

    #[test]
    fn only_settings_known_to_the_server_are_sent() {
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
