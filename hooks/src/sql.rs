//! Questions to a server or a pool, each on a connection of its own, as the engine makes them.

use std::time::Duration;

use kbrecover_rewind::conninfo::{Conninfo, ConninfoError, ConninfoText, ProcessEnvironment};
use kbrecover_rewind::source::{Answer, ConnectProblem, ServerError, SourceError};

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is and who asks. Stays in this process: it may hold a password.
    pub conninfo: ConninfoText,
    /// What the names of system functions and views may begin with, the likeliest first.
    pub prefixes: &'static [&'static str],
    /// The most that connecting, unless the string has another limit, and asking may take, each.
    pub limit: Duration,
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// A connection string that cannot be used.
    #[error("could not connect to {server}")]
    Conninfo {
        /// Host and port.
        server: String,
        /// What is wrong with it.
        #[source]
        source: ConninfoError,
    },
    /// Not connected.
    #[error(transparent)]
    Connect(SourceError),
    /// Connected, but the server refused.
    #[error("{server} did not answer \"{command}\"")]
    Ask {
        /// Host and port.
        server: String,
        /// What was asked.
        command: String,
        /// The server's words.
        #[source]
        source: ServerError,
    },
    /// Connected, but nothing came.
    #[error("{server} did not answer \"{command}\" within {} seconds", limit.as_secs())]
    Silent {
        /// Host and port.
        server: String,
        /// What was asked.
        command: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl SqlError {
    /// Whether the server does not know a function, relation or setting: another name may do.
    pub fn is_unknown_name(&self) -> bool {
        let SqlError::Ask { source, .. } = self else { return false };
        let state = source.code().map(|code| code.code());
        matches!(state, Some("42883" | "42P01" | "42704" | "42703"))
    }

    /// Whether a server is there, although it refused (too many clients, still starting, a password) or was silent.
    pub fn is_of_a_server(&self) -> bool {
        match self {
            SqlError::Conninfo { .. } => false,
            SqlError::Ask { .. } | SqlError::Silent { .. } => true,
            SqlError::Connect(error) => has_answered(error),
        }
    }

    /// Whether the server accepts no connections yet: it starts, or replays (`cannot_connect_now`).
    pub fn is_starting(&self) -> bool {
        matches!(self, SqlError::Connect(error) if is_starting(error))
    }
}

fn is_starting(error: &SourceError) -> bool {
    match error {
        SourceError::Connect { source, .. } => source.code().is_some_and(|state| state.code() == "57P03"),
        // Of one host's addresses the others may not be listened to.
        SourceError::NoneOf { failures } => failures.iter().any(is_starting),
        _ => false,
    }
}

fn has_answered(error: &SourceError) -> bool {
    match error {
        SourceError::Runtime { .. } | SourceError::Resolve { .. } | SourceError::ConnectTimeout { .. } => {
            false
        }
        SourceError::Connect { source, .. } => !matches!(
            source,
            ServerError::Connect(ConnectProblem::Socket(_) | ConnectProblem::SocketPath { .. })
        ),
        SourceError::NoneOf { failures } => failures.iter().any(has_answered),
        _ => true,
    }
}

/// The most that asking may take, by the seconds that connecting may take; zero is no limit there.
pub(crate) fn limit_of(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(10))
}

impl Server {
    /// Host and port, for messages.
    pub fn name(&self) -> String {
        format!("\"{}\", port {}", self.host(), self.port())
    }

    /// The host that is asked.
    pub fn host(&self) -> &str {
        self.conninfo.host().unwrap_or("localhost")
    }

    /// Its port.
    pub fn port(&self) -> &str {
        self.conninfo.get("port").unwrap_or("5432")
    }

    /// Everything that a connection is made with. It has a limit for connecting, whatever was configured.
    ///
    /// # Errors
    /// A connection string that cannot be used.
    pub fn conninfo(&self) -> Result<Conninfo, ConninfoError> {
        let mut conninfo = self.conninfo.clone();
        let seconds = conninfo.get("connect_timeout").and_then(|seconds| seconds.parse::<i64>().ok());
        // Zero means for ever, and a flow has others to look after.
        if seconds.is_none_or(|seconds| seconds <= 0) {
            conninfo.set("connect_timeout", self.limit.as_secs().to_string());
        }
        Conninfo::parse(&conninfo.text(), &ProcessEnvironment::KingbaseEs)
    }

    /// Asks one command.
    ///
    /// # Errors
    /// No connection, no answer in time, or the server's refusal.
    pub fn ask(&self, command: &str) -> Result<Answer, SqlError> {
        let conninfo =
            self.conninfo().map_err(|source| SqlError::Conninfo { server: self.name(), source })?;
        kbrecover_rewind::source::ask(&conninfo, command, self.limit).map_err(|error| {
            let (server, command) = (self.name(), command.to_owned());
            match error {
                SourceError::Query { source, .. } => SqlError::Ask { server, command, source },
                SourceError::Silent { limit, .. } => SqlError::Silent { server, command, limit },
                other => SqlError::Connect(other),
            }
        })
    }

    /// Asks a question whose functions and views begin with `sys_` or with `pg_`: `command` is given the prefix.
    /// Those that the product has are tried in turn.
    ///
    /// # Errors
    /// As [`Server::ask`]; that of the last form, if the server knows none.
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

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    // With standard_conforming_strings off a backslash would be more than itself.
    let escape = if text.contains('\\') { " E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_server_that_is_silent_is_not_waited_for() {
        assert_eq!([None, Some(0), Some(3)].map(|seconds| limit_of(seconds).as_secs()), [10, 10, 3]);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let conninfo = format!("host=127.0.0.1 port={port} user=a connect_timeout=0");
        let conninfo = ConninfoText::parse(&conninfo).unwrap();
        let server = Server { conninfo, prefixes: &["pg"], limit: Duration::from_secs(1) };
        // A rewind connects with the same.
        assert!(server.conninfo().unwrap().connect_timeout().is_some());
        let (sender, answer) = channel();
        std::thread::spawn(move || sender.send(server.ask("SELECT 1").is_err()));
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
