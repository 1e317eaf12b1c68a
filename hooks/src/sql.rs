//! Queries to a server or a pool. Each is sent on a new connection, made in the same way as
//! the engine's connections.

use std::time::Duration;

use kbrecover_rewind::conninfo::{Conninfo, ConninfoError, ConninfoText, ProcessEnvironment};
use kbrecover_rewind::source::{Answer, ConnectProblem, ServerError, SourceError};

/// How to reach a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server {
    /// The connection string. It may contain a password and must not be logged.
    pub conninfo: ConninfoText,
    /// The possible prefixes of the names of system functions and views, the most likely one first.
    pub prefixes: &'static [&'static str],
    /// Limit for each query, and for connecting unless the connection string sets `connect_timeout`.
    pub limit: Duration,
}

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The connection string is not valid.
    #[error("could not connect to {server}")]
    Conninfo {
        /// Host and port.
        server: String,
        /// Why it is not valid.
        #[source]
        source: ConninfoError,
    },
    /// The connection failed.
    #[error(transparent)]
    Connect(SourceError),
    /// The server reported an error.
    #[error("{server} did not answer \"{command}\"")]
    Ask {
        /// Host and port.
        server: String,
        /// The query.
        command: String,
        /// The server's message.
        #[source]
        source: ServerError,
    },
    /// The server did not answer in time.
    #[error("{server} did not answer \"{command}\" within {} seconds", limit.as_secs())]
    Silent {
        /// Host and port.
        server: String,
        /// The query.
        command: String,
        /// The limit.
        limit: Duration,
    },
}

impl SqlError {
    /// Whether the server does not know a function, relation, column or setting. Another version may have another name for
    /// it.
    pub fn is_unknown_name(&self) -> bool {
        let SqlError::Ask { source, .. } = self else { return false };
        let state = source.code().map(|code| code.code());
        matches!(state, Some("42883" | "42P01" | "42704" | "42703"))
    }

    /// Whether the error shows that a server is running: it refused the connection or the query (too many clients, still
    /// starting, authentication), or did not answer in time.
    pub fn is_from_server(&self) -> bool {
        match self {
            SqlError::Conninfo { .. } => false,
            SqlError::Ask { .. } | SqlError::Silent { .. } => true,
            SqlError::Connect(error) => has_responded(error),
        }
    }

    /// Whether the server does not accept connections yet because it is starting or in recovery (`cannot_connect_now`).
    pub fn is_starting(&self) -> bool {
        matches!(self, SqlError::Connect(error) if is_starting(error))
    }
}

fn is_starting(error: &SourceError) -> bool {
    match error {
        SourceError::Connect { source, .. } => source.code().is_some_and(|state| state.code() == "57P03"),
        // The server need not listen on all addresses of its host.
        SourceError::NoneOf { failures } => failures.iter().any(is_starting),
        _ => false,
    }
}

fn has_responded(error: &SourceError) -> bool {
    match error {
        SourceError::Runtime { .. } | SourceError::Resolve { .. } | SourceError::ConnectTimeout { .. } => {
            false
        }
        SourceError::Connect { source, .. } => !matches!(
            source,
            ServerError::Connect(ConnectProblem::Socket(_) | ConnectProblem::SocketPath { .. })
        ),
        SourceError::NoneOf { failures } => failures.iter().any(has_responded),
        _ => true,
    }
}

/// The limit for a query: the same as for connecting, or ten seconds if that has none or is zero, which means no limit.
pub(crate) fn limit_of(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(10))
}

impl Server {
    /// A PostgreSQL server, with a limit of ten seconds for each query.
    pub fn new(conninfo: ConninfoText) -> Server {
        Server { conninfo, prefixes: &["pg"], limit: limit_of(None) }
    }

    /// Host and port, for messages.
    pub fn name(&self) -> String {
        format!("\"{}\", port {}", self.host(), self.port())
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.conninfo.host().unwrap_or("localhost")
    }

    /// The port.
    pub fn port(&self) -> &str {
        self.conninfo.get("port").unwrap_or("5432")
    }

    /// The parameters of a connection, which always include a limit for connecting.
    ///
    /// # Errors
    /// The connection string is not valid.
    pub fn conninfo(&self) -> Result<Conninfo, ConninfoError> {
        let mut conninfo = self.conninfo.clone();
        let seconds = conninfo.get("connect_timeout").and_then(|seconds| seconds.parse::<i64>().ok());
        // Zero means no limit, but a server that does not respond must not block the whole flow.
        if seconds.is_none_or(|seconds| seconds <= 0) {
            conninfo.set("connect_timeout", self.limit.as_secs().to_string());
        }
        Conninfo::parse(&conninfo.text(), &ProcessEnvironment::KingbaseEs)
    }

    /// Sends one query and returns its result.
    ///
    /// # Errors
    /// The connection fails, the server reports an error, or it does not answer in time.
    pub fn ask(&self, command: &str) -> Result<Answer, SqlError> {
        self.ask_by(kbrecover_rewind::source::ask, command)
    }

    /// Logs in for replication, as a standby does, and disconnects.
    ///
    /// # Errors
    /// The login is refused, or the server does not answer as a walsender does.
    pub fn try_replication(&self) -> Result<(), SqlError> {
        self.ask_by(kbrecover_rewind::source::ask_for_replication, "IDENTIFY_SYSTEM").map(drop)
    }

    fn ask_by(
        &self,
        ask: fn(&Conninfo, &str, Duration) -> Result<Answer, SourceError>,
        command: &str,
    ) -> Result<Answer, SqlError> {
        let conninfo =
            self.conninfo().map_err(|source| SqlError::Conninfo { server: self.name(), source })?;
        ask(&conninfo, command, self.limit).map_err(|error| {
            let (server, command) = (self.name(), command.to_owned());
            match error {
                SourceError::Query { source, .. } => SqlError::Ask { server, command, source },
                SourceError::Silent { limit, .. } => SqlError::Silent { server, command, limit },
                other => SqlError::Connect(other),
            }
        })
    }

    /// Sends a query in which the names of functions and views have a prefix, `sys` or `pg`. `command` forms the query with
    /// a given prefix. The prefixes in [`Server::prefixes`] are tried in order until the server knows the names.
    ///
    /// # Errors
    /// As [`Server::ask`]. If the server does not know the names with any prefix, the error of the last query.
    pub fn ask_named(&self, command: impl Fn(&str) -> String) -> Result<Answer, SqlError> {
        let (last, others) = self.prefixes.split_last().unwrap_or((&"pg", &[]));
        for prefix in others {
            match self.ask(&command(prefix)) {
                Err(error) if error.is_unknown_name() => {}
                answer => return answer,
            }
        }
        self.ask(&command(last))
    }
}

/// The text as an SQL string literal.
pub(crate) fn literal(text: &str) -> String {
    // An escape string: with standard_conforming_strings off, a backslash in a plain literal is an escape character.
    let escape = if text.contains('\\') { " E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn queries_to_a_silent_server_are_limited() {
        assert_eq!([None, Some(0), Some(3)].map(|seconds| limit_of(seconds).as_secs()), [10, 10, 3]);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let conninfo = format!("host=127.0.0.1 port={port} user=a connect_timeout=0");
        let conninfo = ConninfoText::parse(&conninfo).unwrap();
        let server = Server { conninfo, prefixes: &["pg"], limit: Duration::from_secs(1) };
        // A rewind connects with the same parameters.
        assert!(server.conninfo().unwrap().connect_timeout().is_some());
        let (sender, answer) = channel();
        std::thread::spawn(move || sender.send(server.ask("SELECT 1").is_err()));
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
