//! One question to a server or a pool: connect, ask, go away again, all within a time limit.
//!
//! The simple protocol is used because a pool answers its own commands (`show pool_nodes`) by nothing else.

use std::io;
use std::time::Duration;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::conninfo_text::ConninfoText;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is and who asks. Stays in this process: it may hold a password.
    pub conninfo: ConninfoText,
    /// What the names of system functions and views may begin with, the likeliest first.
    pub prefixes: &'static [&'static str],
    /// The most that connecting and asking may take, each.
    pub limit: Duration,
}

/// The answer to one command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, as text.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// The value in the first row and column.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// Whether the first value is true, in either spelling (`t` or, in Oracle mode, `true`).
    pub fn is_true(&self) -> bool {
        self.value()
            .is_some_and(|value| value.eq_ignore_ascii_case("t") || value.eq_ignore_ascii_case("true"))
    }
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// No runtime to connect with.
    #[error("could not prepare a connection to {server}")]
    Runtime {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not connected.
    #[error("could not connect to {server}: {why}")]
    Connect {
        /// Host and port.
        server: String,
        /// The server's or the system's words.
        why: String,
    },
    /// Connected, but no answer.
    #[error("{server} did not answer \"{command}\": {why}")]
    Ask {
        /// Host and port.
        server: String,
        /// What was asked.
        command: String,
        /// The server's words.
        why: String,
        /// SQLSTATE, if the server gave one.
        state: Option<String>,
    },
}

impl SqlError {
    /// Whether the server does not know a function, relation or setting: another name may do.
    pub fn is_unknown_name(&self) -> bool {
        matches!(self, SqlError::Ask { state: Some(state), .. }
            if matches!(state.as_str(), "42883" | "42P01" | "42704" | "42703"))
    }
}

impl Server {
    /// Host and port, for messages.
    pub fn name(&self) -> String {
        format!("\"{}\", port {}", self.host(), self.conninfo.get("port").unwrap_or("5432"))
    }

    /// The host that is asked.
    pub fn host(&self) -> &str {
        self.conninfo.get("host").or(self.conninfo.get("hostaddr")).unwrap_or("localhost")
    }

    /// Asks one command.
    ///
    /// # Errors
    /// No connection, no answer in time, or the server's refusal.
    pub fn ask(&self, command: &str) -> Result<Table, SqlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| SqlError::Runtime { server: self.name(), source })?;
        runtime.block_on(self.ask_within(command))
    }

    /// Asks a question whose functions and views begin with `sys_` or with `pg_`: `command` is given the prefix.
    /// Those that the product has are tried in turn.
    ///
    /// # Errors
    /// As [`Server::ask`]; that of the last form, if the server knows none.
    pub fn ask_named(&self, command: impl Fn(&str) -> String) -> Result<Table, SqlError> {
        let (last, others) = self.prefixes.split_last().unwrap_or((&"pg", &[]));
        for prefix in others {
            match self.ask(&command(prefix)) {
                Err(error) if error.is_unknown_name() => {}
                answer => return answer,
            }
        }
        self.ask(&command(last))
    }

    async fn ask_within(&self, command: &str) -> Result<Table, SqlError> {
        let connect_failed = |why: String| SqlError::Connect { server: self.name(), why };
        let config = self.config();
        let connecting = config.connect(NoTls);
        let (client, connection) = match tokio::time::timeout(self.limit, connecting).await {
            Ok(connected) => connected.map_err(|error| connect_failed(plain(&error)))?,
            Err(_) => return Err(connect_failed(self.timed_out())),
        };
        let connection = tokio::spawn(connection);
        let failed = |why: String, state: Option<String>| SqlError::Ask {
            server: self.name(),
            command: command.to_owned(),
            why,
            state,
        };
        let answer = match tokio::time::timeout(self.limit, client.simple_query(command)).await {
            Ok(answer) => answer,
            Err(_) => return Err(failed(self.timed_out(), None)),
        };
        connection.abort();
        let messages =
            answer.map_err(|error| failed(plain(&error), error.code().map(|code| code.code().to_owned())))?;
        Ok(table(&messages))
    }

    fn config(&self) -> Config {
        let value = |keyword| self.conninfo.get(keyword);
        let mut config = Config::new();
        config.host(self.host()).port(value("port").and_then(|port| port.parse().ok()).unwrap_or(5432));
        config
            .user(value("user").unwrap_or("postgres"))
            .connect_timeout(self.limit)
            .application_name("kbrecover");
        if let Some(database) = value("dbname") {
            config.dbname(database);
        }
        if let Some(password) = value("password") {
            config.password(password);
        }
        config
    }

    fn timed_out(&self) -> String {
        format!("no answer within {} seconds", self.limit.as_secs())
    }
}

fn table(messages: &[SimpleQueryMessage]) -> Table {
    let mut table = Table::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let cell = |place| row.try_get(place).ok().flatten().map(str::to_owned);
                table.rows.push((0..row.len()).map(cell).collect());
            }
            _ => {}
        }
    }
    table
}

/// The server's own words where it said something, the library's otherwise.
fn plain(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    // With standard_conforming_strings off a backslash would be more than itself.
    let escape = if text.contains('\\') { " E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
