//! Why a source could not be read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use walparse::ControlError;

use super::walk::WalkError;
use crate::config::ConfigError;
use crate::data_path::{DataPath, PathError};
use crate::look::FlavorError;

/// Why the source could not be read, one variant for each thing a user can be told.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No thread or no event queue for the connections.
    #[error("could not start the threads for the connections to the source server")]
    Runtime {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A host name that leads nowhere.
    #[error("could not translate host name \"{host}\" to address")]
    Resolve {
        /// The name.
        host: String,
        /// Why; `None` if it simply has no address.
        #[source]
        source: Option<std::io::Error>,
    },
    /// No connection.
    #[error("connection to {server} failed")]
    Connect {
        /// Which server, in libpq's words.
        server: String,
        /// Why.
        #[source]
        source: ServerError,
    },
    /// No answer within `connect_timeout`.
    #[error("connection to {server} failed: timeout expired after {} s", limit.as_secs())]
    ConnectTimeout {
        /// Which server.
        server: String,
        /// The limit, which covers authentication too.
        limit: Duration,
    },
    /// A server that `target_session_attrs` rules out.
    #[error("connection to {server} failed: {problem}")]
    SessionAttributes {
        /// Which server.
        server: String,
        /// What it is or is not.
        problem: &'static str,
    },
    /// An option that asks for a protection there is none of.
    #[error("connection to {server} cannot be made with {keyword}={value}: this build does not support it")]
    Unsupported {
        /// Which server.
        server: String,
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// A server older than any this program knows.
    #[error("source server version {version} is not supported")]
    ServerVersion {
        /// `server_version_num`.
        version: u32,
    },
    /// Blocks read from the running server could not be repaired by replay.
    #[error("full_page_writes must be enabled in the source server")]
    FullPageWrites,
    /// Before 11 only a superuser may read files.
    #[error("role \"{role}\" must be superuser to read files of the source server (version {version})")]
    NotSuperuser {
        /// The role connected as.
        role: String,
        /// `server_version_num`.
        version: u32,
    },
    /// The role may not call what a rewind calls.
    #[error(
        "permission denied: role \"{role}\" lacks EXECUTE privilege in database \"{database}\" of the source server on: {}",
        functions.join(", ")
    )]
    Privileges {
        /// The role connected as.
        role: String,
        /// The database connected to: such grants hold in one database.
        database: String,
        /// The functions, with their argument types.
        functions: Vec<String>,
    },
    /// The run was asked to stop.
    #[error("the run was asked to stop")]
    Stopped,
    /// Nothing was heard for too long.
    #[error("the source server has said nothing for {} s while {doing}", limit.as_secs())]
    Silent {
        /// What was being done.
        doing: String,
        /// For how long.
        limit: Duration,
    },
    /// A server that is not, or no longer, the one that the run began with.
    #[error("{server} cannot take the place of the source this run began with: {problem}")]
    Changed {
        /// Which server.
        server: String,
        /// Why not.
        problem: String,
        /// Whether it may be able to in a moment.
        may_pass: bool,
    },
    /// The connection was lost and could not be made again.
    #[error("the connection to the source was lost, and within {} s there was none again", patience.as_secs())]
    Lost {
        /// How long it was tried.
        patience: Duration,
        /// The last failure.
        #[source]
        source: Box<SourceError>,
    },
    /// A fork's server lacks what every one has.
    #[error("source server has neither \"{function}\" nor its counterpart of PostgreSQL")]
    NoFunction {
        /// The function or view.
        function: String,
    },
    /// A query failed.
    #[error("error running query on source server while {doing}")]
    Query {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: ServerError,
    },
    /// An answer that makes no sense.
    #[error("unexpected result from the source server while {doing}: {problem}")]
    Answer {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More bytes of a file than asked for.
    #[error("received more than requested for file \"{path}\"")]
    TooMuch {
        /// The file.
        path: DataPath,
    },
    /// A file became a directory.
    #[error("file \"{path}\" has become a directory in the source")]
    BecameDirectory {
        /// Its path.
        path: DataPath,
    },
    /// A name that leads out of the data directory.
    #[error(transparent)]
    UnsafePath(#[from] PathError),
    /// A path that occurs twice.
    #[error("duplicate source file \"{path}\"")]
    Duplicate {
        /// The path.
        path: DataPath,
    },
    /// A name that is no text in the encoding of the database, so that the server cannot be asked for it.
    #[error(
        "file name \"{path}\" in the source is not valid text in the encoding of its database ({encoding})"
    )]
    NameEncoding {
        /// The path.
        path: DataPath,
        /// `server_encoding`.
        encoding: String,
    },
    /// A file that should be small is not.
    #[error("source file \"{path}\" is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: DataPath,
        /// The limit.
        limit: u64,
    },
    /// There is no control file.
    #[error("could not open file \"{path}\" of the source: there is no such file")]
    NoControlFile {
        /// Where it should be.
        path: String,
    },
    /// The control file is of no use.
    #[error("could not read the control file of the source, \"{path}\"")]
    ControlFile {
        /// Where it is.
        path: String,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// The source directory is none.
    #[error("could not open source directory \"{}\"", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("could not read source file \"{}\"", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The flavor of the source was not found.
    #[error("could not find out the flavor of the source")]
    Flavor(#[from] FlavorError),
    /// The configuration of a source directory could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source directory could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

impl SourceError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => return source.hint(),
            SourceError::ConnectTimeout { .. } => {
                "Check that the server is up and answers; connect_timeout in the connection string sets the limit."
            }
            SourceError::Unsupported { .. } => {
                "TLS and GSSAPI are not supported yet. Use sslmode=prefer or a Unix socket, if the network is safe."
            }
            SourceError::FullPageWrites => {
                "Set full_page_writes = on in the source server, reload it, and make a checkpoint there."
            }
            SourceError::NotSuperuser { .. } => {
                "Connect as a superuser: before version 11 no grant suffices."
            }
            SourceError::Privileges { role, database, functions } => {
                return Some(grants(role, database, functions));
            }
            SourceError::Silent { .. } => "Is the source server overloaded, or the network to it down?",
            SourceError::Changed { .. } => {
                "Run the same command again: it takes the server as it is then, or says why it cannot."
            }
            SourceError::Lost { source, .. } => return source.hint(),
            SourceError::Resolve { .. } => {
                "This machine does not know the host name in the connection string. Check its spelling, or give the address."
            }
            SourceError::BecameDirectory { .. } => "Run the same command again.",
            SourceError::NameEncoding { .. } => "Rename or remove the file on the source.",
            SourceError::Directory { source, .. } if permission_hint(source).is_some() => {
                return permission_hint(source);
            }
            SourceError::NoControlFile { .. } | SourceError::Directory { .. } => {
                "Name the data directory of a stopped server."
            }
            SourceError::ControlFile { source, .. } if source.may_be_torn() => {
                "Run the same command again; if that does not help, the source is damaged."
            }
            SourceError::ControlFile { .. } => {
                "Is this the source you mean, and is it of a known version and in order?"
            }
            SourceError::UnsafePath(_)
            | SourceError::Duplicate { .. }
            | SourceError::Answer { .. }
            | SourceError::TooMuch { .. } => {
                "No server in order answers so. Is this the source you mean, and can it be trusted?"
            }
            SourceError::Read { source, .. } => return permission_hint(source),
            SourceError::Flavor(error) => return Some(error.hint()),
            SourceError::Config(error) => return error.hint(),
            SourceError::Walk(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl SourceError {
    /// Whether the same may succeed in a moment, on another connection.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => source.is_transient(),
            // A server may be about to be promoted.
            SourceError::ConnectTimeout { .. }
            | SourceError::Silent { .. }
            | SourceError::Resolve { .. }
            | SourceError::SessionAttributes { .. } => true,
            SourceError::Changed { may_pass, .. } => *may_pass,
            _ => false,
        }
    }

    /// What the server or the connection said.
    pub(super) fn server_error(&self) -> Option<&ServerError> {
        match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The message and every reason, in one line.
    pub(super) fn with_reasons(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text = format!("{text}: {error}");
            next = error.source();
        }
        text
    }
}

/// What to do about a file that may not be read.
pub(super) fn permission_hint(error: &std::io::Error) -> Option<String> {
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    denied.then(|| "Run as the user who owns the data directory.".to_owned())
}

/// What an administrator must run.
fn grants(role: &str, database: &str, functions: &[String]) -> String {
    let role = role.replace('"', "\"\"");
    let mut text = format!("As a superuser, run in database \"{database}\" of the primary:");
    for function in functions {
        text.push_str(&format!("\n  GRANT EXECUTE ON FUNCTION {function} TO \"{role}\";"));
    }
    text
}

/// What a server said, or what became of the connection to it.
#[derive(Debug)]
pub struct ServerError(tokio_postgres::Error);

impl ServerError {
    /// The SQLSTATE, if the server said something.
    pub fn code(&self) -> Option<&SqlState> {
        self.0.code()
    }

    /// Whether the connection was closed, for a reason that is not known here.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Whether it is a matter of the connection or of the server's present state, and not of what was asked.
    fn is_transient(&self) -> bool {
        let Some(code) = self.code().map(SqlState::code) else {
            let source = std::error::Error::source(&self.0);
            // The first two of tokio-postgres, for a stream that breaks off or makes no sense.
            return self.is_closed()
                || self.0.to_string() == "unexpected message from server"
                || source.is_some_and(|source| source.is::<std::io::Error>());
        };
        match code {
            // Shut down by an administrator, after a crash, not accepting connections yet, idle for too long.
            "57P01" | "57P02" | "57P03" | "57P05" => true,
            // Too many connections: lost ones may still count. A standby's conflict with recovery.
            "53300" | "40001" => true,
            _ => code.starts_with("08"),
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(hint) = self.0.as_db_error().and_then(|error| error.hint()) {
            return Some(hint.to_owned());
        }
        let code = self.code().map(SqlState::code);
        let text = match code {
            Some("53300") => {
                "Free connections on the source server, or raise the limit (the server's max_connections, or that of the role or the database)."
            }
            Some("28000" | "28P01") => {
                "Check user and password in the connection string or the password file, and the server's pg_hba.conf."
            }
            Some("3D000") => "Name an existing database with dbname=... in the connection string.",
            // What the server says of a file its own user may not read.
            Some("42501") if self.to_string().contains("could not open file") => {
                "The source's own server may not read this file: give it to that server's user, or leave it out with --keep."
            }
            Some("57P03") => "Wait until the source server accepts connections.",
            Some(_) => return None,
            None if self.needs_password() => {
                "Give a password in the connection string, in PGPASSWORD or in the password file."
            }
            None if self.is_lookup_failure() => {
                "This machine does not know the host name in the connection string. Check its spelling, or give the address."
            }
            None => "Is the source server running there, and does it accept connections?",
        };
        Some(text.to_owned())
    }

    /// What the operating system said of the connection.
    fn system_error(&self) -> Option<&std::io::Error> {
        let error = std::error::Error::source(&self.0)?.downcast_ref::<std::io::Error>()?;
        error.raw_os_error().map(|_| error)
    }

    /// The host's name has no address.
    fn is_lookup_failure(&self) -> bool {
        let source = std::error::Error::source(&self.0);
        source.is_some_and(|source| source.to_string().starts_with("failed to lookup address information"))
    }

    fn needs_password(&self) -> bool {
        std::error::Error::source(&self.0).is_some_and(|source| source.to_string() == "password missing")
    }
}

impl From<tokio_postgres::Error> for ServerError {
    fn from(error: tokio_postgres::Error) -> ServerError {
        ServerError(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = self.0.as_db_error() else {
            return match self.system_error() {
                _ if self.needs_password() => f.write_str("no password supplied"),
                Some(error) => error.fmt(f),
                None => self.0.fmt(f),
            };
        };
        write!(f, "{}:  {}", error.severity(), error.message())?;
        match error.detail() {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // What the server or the operating system said is in Display already.
        let said = self.0.as_db_error().is_some() || self.needs_password() || self.system_error().is_some();
        if said { None } else { std::error::Error::source(&self.0) }
    }
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
