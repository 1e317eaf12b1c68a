//! Why a source could not be read.

use std::path::PathBuf;
use std::time::Duration;

use walparse::ControlError;

use super::server::error::ServerError;
use super::server::grants::grant;
use crate::datadir::config::ConfigError;
use crate::datadir::data_path::{DataPath, PathError};
use crate::datadir::flavor::FlavorError;
use crate::datadir::walk::{WalkError, permission_hint};

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
    #[error("could not translate host name \"{host}\" to address: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// Why, in the C library's words.
        reason: String,
    },
    /// No connection.
    #[error("connection to {server} failed")]
    Connect {
        /// Which server, in libpq's words.
        server: String,
        /// The file whose password was wrong.
        password_file: Option<PathBuf>,
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
    /// None of several servers or ways, tried one after the other.
    #[error("{}", joined(failures))]
    NoneOf {
        /// Why, in the order of the attempts.
        failures: Vec<SourceError>,
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
            SourceError::Connect { password_file: Some(path), .. } => {
                return Some(format!("password retrieved from file \"{}\"", path.display()));
            }
            SourceError::NoneOf { failures } => return most_telling(failures)?.hint(),
            SourceError::Resolve { .. } => {
                "This machine does not know the host name in the connection string. Check its spelling, or give the address."
            }
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => return source.hint(),
            SourceError::ConnectTimeout { .. } => {
                "Check that the server is up and answers; connect_timeout in the connection string sets the limit."
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
            SourceError::NoneOf { failures } => most_telling(failures).is_some_and(SourceError::is_transient),
            _ => false,
        }
    }

    /// What the server or the connection said.
    pub(super) fn server_error(&self) -> Option<&ServerError> {
        match self {
            SourceError::Connect { source, .. } | SourceError::Query { source, .. } => Some(source),
            SourceError::NoneOf { failures } => most_telling(failures)?.server_error(),
            _ => None,
        }
    }

    /// One error of several, of which there is at least one.
    pub(super) fn of_all(mut failures: Vec<SourceError>) -> SourceError {
        match failures.len() {
            1 => failures.swap_remove(0),
            _ => SourceError::NoneOf { failures },
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

/// Several errors in one line, each once and with its reasons.
fn joined(failures: &[SourceError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in failures.iter().map(SourceError::with_reasons) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join("; ")
}

/// The failure that says most: the last of a server that answered, else the first.
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

/// What an administrator must run.
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
