//! Errors of reading a source.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use walparse::{BlockNumber, ControlError};

use super::server::error::ServerError;
use super::server::grants::{grant, identifier};
use crate::causes::with_causes;
use crate::datadir::config::ConfigError;
use crate::datadir::data_path::{DataPath, PathError};
use crate::datadir::flavor::FlavorError;
use crate::datadir::walk::{WalkError, permission_hint};

/// An error of reading the source. [`SourceError::hint`] says what the operator can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The runtime for the connections could not be started.
    #[error("could not start threads for connections to the source server")]
    Runtime {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A host name could not be resolved.
    #[error("could not translate host name \"{host}\" to address: {reason}")]
    Resolve {
        /// The host name.
        host: String,
        /// The C library's error message.
        reason: String,
    },
    /// A connection attempt failed.
    #[error("connection to {server} failed")]
    Connect {
        /// The server's address, as libpq words it.
        server: String,
        /// The password file, if a password from it was rejected.
        password_file: Option<PathBuf>,
        /// The cause.
        #[source]
        source: ServerError,
    },
    /// A connection attempt took longer than `connect_timeout`.
    #[error("connection to {server} failed: timeout expired after {} s", limit.as_secs())]
    ConnectTimeout {
        /// Which server.
        server: String,
        /// The limit, which includes authentication.
        limit: Duration,
    },
    /// The server does not match `target_session_attrs`.
    #[error("connection to {server} failed: {problem}")]
    SessionAttributes {
        /// Which server.
        server: String,
        /// The property that does not match.
        problem: &'static str,
    },
    /// All of several connection attempts failed.
    #[error("{}", joined(failures))]
    NoneOf {
        /// Their errors, in the order of the attempts.
        failures: Vec<SourceError>,
    },
    /// The server is older than any supported version.
    #[error("source server version {version} is not supported")]
    ServerVersion {
        /// `server_version_num`.
        version: u32,
    },
    /// `full_page_writes` is off. Blocks torn while they were read could then not be repaired by replay.
    #[error("full_page_writes must be enabled in the source server")]
    FullPageWrites,
    /// The role is not a superuser; before version 11 only superusers may read files.
    #[error("role \"{role}\" must be superuser to read files of the source server (version {version})")]
    NotSuperuser {
        /// The role of the connection.
        role: String,
        /// `server_version_num`.
        version: u32,
    },
    /// The role lacks EXECUTE on functions that a rewind calls.
    #[error(
        "permission denied: role \"{role}\" lacks EXECUTE privilege in database \"{database}\" of the source server on: {}",
        functions.join(", ")
    )]
    Privileges {
        /// The role of the connection.
        role: String,
        /// The database of the connection; such grants apply to one database only.
        database: String,
        /// The functions, with argument types.
        functions: Vec<String>,
    },
    /// The role may not request a checkpoint ([`Options::checkpoint_source`](crate::Options::checkpoint_source)).
    #[error("role \"{role}\" may not request a checkpoint of the source server")]
    MayNotCheckpoint {
        /// The role of the connection.
        role: String,
        /// Whether it can be allowed by granting it `pg_checkpoint` (from 15 on).
        can_be_granted: bool,
    },
    /// The run was asked to stop by its [`StopFlag`](crate::StopFlag).
    #[error("the run was asked to stop")]
    Stopped,
    /// The server did not answer in time.
    #[error("source server did not respond for {} s while {doing}", limit.as_secs())]
    Silent {
        /// The activity.
        doing: String,
        /// The time limit.
        limit: Duration,
    },
    /// The server at the other end of a new connection may not take the place of the source.
    #[error("{server} cannot take the place of the source of this run: {problem}")]
    Changed {
        /// The server's address, as libpq words it.
        server: String,
        /// The reason.
        problem: String,
        /// Whether a later attempt may succeed.
        may_pass: bool,
    },
    /// The role cannot open a replication connection, as a standby would.
    #[error("role \"{role}\" cannot connect to the source server for replication")]
    ReplicationLogin {
        /// The role.
        role: String,
        /// The cause.
        #[source]
        source: Box<SourceError>,
    },
    /// The connection was lost and could not be re-established.
    #[error("connection to the source was lost and could not be re-established within {} s", patience.as_secs())]
    Lost {
        /// How long it was attempted.
        patience: Duration,
        /// The last error.
        #[source]
        source: Box<SourceError>,
    },
    /// A server of a PostgreSQL fork lacks a required function or view, under both of its possible names.
    #[error("source server has neither \"{function}\" nor PostgreSQL's function of that purpose")]
    NoFunction {
        /// The name in the fork.
        function: String,
    },
    /// A query failed.
    #[error("error running query on source server while {doing}")]
    Query {
        /// The activity.
        doing: String,
        /// The cause.
        #[source]
        source: ServerError,
    },
    /// A query result has an unexpected form.
    #[error("unexpected result from the source server while {doing}: {problem}")]
    Answer {
        /// The activity.
        doing: String,
        /// What is wrong with the result.
        problem: String,
    },
    /// The server sent more bytes of a file than requested.
    #[error("received more than requested for file \"{path}\"")]
    TooMuch {
        /// The file.
        path: DataPath,
    },
    /// A path that was listed as a file is a directory now.
    #[error("file \"{path}\" has become a directory in the source")]
    BecameDirectory {
        /// Its path.
        path: DataPath,
    },
    /// A path is absolute or leaves the data directory.
    #[error(transparent)]
    UnsafePath(#[from] PathError),
    /// A path occurs twice in the listing.
    #[error("duplicate source file \"{path}\"")]
    Duplicate {
        /// The path.
        path: DataPath,
    },
    /// A file name is not valid in the database encoding, so that no query can name it.
    #[error(
        "file name \"{path}\" in the source is not valid text in the encoding of its database ({encoding})"
    )]
    NameEncoding {
        /// The path.
        path: DataPath,
        /// `server_encoding`.
        encoding: String,
    },
    /// A file to be read as a whole is too large.
    #[error("source file \"{path}\" is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: DataPath,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The control file does not exist.
    #[error("could not open file \"{path}\" of the source: No such file or directory")]
    NoControlFile {
        /// The expected path.
        path: String,
    },
    /// The control file could not be used.
    #[error("could not read the control file of the source, \"{path}\"")]
    ControlFile {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: ControlError,
    },
    /// The source directory could not be opened.
    #[error("could not open source directory \"{}\"", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("could not read source file \"{}\"", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The storage of the source does not return a block.
    #[error("could not read block {block} of source file \"{}\"", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The number of the block in the relation, or in the file if it is none of a main fork.
        block: BlockNumber,
        /// The error of the server or of the operating system.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The product that created the source could not be detected.
    #[error("could not detect the product of the source")]
    Flavor(#[from] FlavorError),
    /// The configuration of a source directory could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source directory could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

impl SourceError {
    /// What the operator can do about it, for display after the message.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            SourceError::Connect { password_file: Some(path), .. } => {
                return Some(format!("password retrieved from file \"{}\"", path.display()));
            }
            SourceError::NoneOf { failures } => return most_telling(failures)?.hint(),
            SourceError::Resolve { .. } => {
                "Check the host name in the connection string, or give the address as hostaddr."
            }
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => return source.hint(),
            SourceError::ConnectTimeout { .. } => {
                "Check that the server is running and reachable; connect_timeout in the connection string sets the limit."
            }
            SourceError::FullPageWrites => {
                "Set full_page_writes = on in the source server, reload its configuration, and run CHECKPOINT there."
            }
            SourceError::NotSuperuser { .. } => {
                "Connect as a superuser: before version 11, granting EXECUTE is not sufficient."
            }
            SourceError::Privileges { role, database, functions } => {
                return Some(grants(role, database, functions));
            }
            SourceError::MayNotCheckpoint { role, can_be_granted: true } => {
                return Some(format!(
                    "As a superuser, run on the primary: GRANT pg_checkpoint TO {}; or run CHECKPOINT on the source, and then this command without --checkpoint-source.",
                    identifier(role)
                ));
            }
            SourceError::MayNotCheckpoint { .. } => {
                "Only a superuser may. Run CHECKPOINT on the source as a superuser, and then this command without --checkpoint-source."
            }
            SourceError::Silent { .. } => {
                "Check the load of the source server and the network connection to it."
            }
            SourceError::Changed { .. } => {
                "Run the same command again: it makes a new plan with the server that answers then, or reports why it cannot."
            }
            SourceError::Lost { source, .. } => return source.hint(),
            SourceError::ReplicationLogin { role, source } => return replication_hint(role, source),
            SourceError::BecameDirectory { .. } => "Run the same command again.",
            SourceError::NameEncoding { .. } => "Rename or remove the file on the source.",
            SourceError::Directory { source, .. } if permission_hint(source).is_some() => {
                return permission_hint(source);
            }
            SourceError::NoControlFile { .. } | SourceError::Directory { .. } => {
                "Specify the data directory of a stopped server."
            }
            SourceError::ControlFile { source, .. } if source.may_be_torn() => {
                "Run the same command again. If the error persists, the control file of the source is damaged."
            }
            SourceError::ControlFile { .. } => {
                "Check that this is the intended source, of a supported version, and undamaged."
            }
            SourceError::UnsafePath(_)
            | SourceError::Duplicate { .. }
            | SourceError::Answer { .. }
            | SourceError::TooMuch { .. } => {
                "A working server does not send this. Check that this is the intended source, and that it can be trusted."
            }
            SourceError::Read { source, .. } => return permission_hint(source),
            SourceError::Unreadable { .. } => {
                "The storage of the source does not return this block; see the log of its operating system. Repair it there, or use another server as the source, and run the same command again."
            }
            SourceError::Flavor(error) => return Some(error.hint()),
            SourceError::Config(error) => return error.hint(),
            SourceError::Walk(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl SourceError {
    /// Whether the same request may succeed shortly, on another connection.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => source.is_transient(),
            // SessionAttributes: the server may be about to be promoted.
            SourceError::ConnectTimeout { .. }
            | SourceError::Silent { .. }
            | SourceError::Resolve { .. }
            | SourceError::SessionAttributes { .. } => true,
            SourceError::Changed { may_pass, .. } => *may_pass,
            SourceError::NoneOf { failures } => most_telling(failures).is_some_and(SourceError::is_transient),
            _ => false,
        }
    }

    /// The underlying error of the server or of the connection.
    pub(super) fn server_error(&self) -> Option<&ServerError> {
        match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => Some(source),
            SourceError::NoneOf { failures } => most_telling(failures)?.server_error(),
            _ => None,
        }
    }

    /// The SQLSTATE, if the server reported an error.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        self.server_error()?.code().map(SqlState::code)
    }

    /// Combines one or more errors into one.
    pub(super) fn of_all(mut failures: Vec<SourceError>) -> SourceError {
        match failures.len() {
            1 => failures.swap_remove(0),
            _ => SourceError::NoneOf { failures },
        }
    }

    /// The message and its causes, in one line.
    pub(crate) fn with_reasons(&self) -> String {
        with_causes(self)
    }
}

/// Several errors with their causes, in one line, without duplicates.
fn joined(failures: &[SourceError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in failures.iter().map(SourceError::with_reasons) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join("; ")
}

/// The most informative error: the last one from a server that answered, or else the first.
fn most_telling(failures: &[SourceError]) -> Option<&SourceError> {
    let answered = failures.iter().rev().find(|failure| match failure {
        SourceError::Connect { source, .. } => !source.is_unreachable(),
        SourceError::SessionAttributes { .. } | SourceError::Query { .. } | SourceError::Changed { .. } => {
            true
        }
        _ => false,
    });
    answered.or(failures.first())
}

/// What a replication connection needs, by the SQLSTATE of its refusal.
fn replication_hint(role: &str, error: &SourceError) -> Option<String> {
    let code = error.server_error().and_then(ServerError::code);
    let role = identifier(role);
    Some(match code.map(SqlState::code) {
        // The role lacks REPLICATION.
        Some("42501") => format!("As a superuser, run on the primary: ALTER ROLE {role} REPLICATION;"),
        Some("28000" | "28P01") => format!(
            "pg_hba.conf of the source needs a line for database \"replication\" and role {role}, and a password file needs \
             one for database \"replication\"."
        ),
        Some("53300") => {
            "Raise max_wal_senders on the source server, or disconnect other standbys.".to_owned()
        }
        _ => return error.hint(),
    })
}

/// The statements that grant the missing privileges.
fn grants(role: &str, database: &str, functions: &[String]) -> String {
    let statements = functions.iter().map(|function| grant(function, role));
    let text: String = statements.map(|statement| format!("\n  {}", statement.trim_end())).collect();
    format!("As a superuser, run in database \"{database}\" of the primary:{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_privileges_come_with_the_statements_that_grant_them() {
        let error = SourceError::Privileges {
            role: "re\"w".to_owned(),
            database: "d".to_owned(),
            functions: vec!["f(text)".to_owned(), "g(text, boolean)".to_owned()],
        };
        assert_eq!(
            error.to_string(),
            "permission denied: role \"re\"w\" lacks EXECUTE privilege in database \"d\" of the source server on: f(text), g(text, boolean)"
        );
        let hint = error.hint().unwrap();
        assert!(hint.contains("\n  GRANT EXECUTE ON FUNCTION g(text, boolean) TO \"re\"\"w\";"), "{hint}");
    }
}
