//! A single command on a connection of its own, to a server or to a pooler in front of several.
//!
//! The simple query protocol is used, because Pgpool-II processes its own commands (`SHOW pool_nodes`) only in it.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::dial::Dialled;
use super::endpoint::{addresses, is_for_the_next, not_connected};
use super::session;
use super::sql;
use crate::conninfo::{Candidate, Conninfo};
use crate::source::error::SourceError;

/// The result of a command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows; each value as text, `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    /// The first column of the first row; `None` if there is no row or the value is NULL.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// Whether [`Answer::value`] is true: `t`, or `true` in KingbaseES's Oracle mode.
    pub fn is_true(&self) -> bool {
        sql::is_true(self.value())
    }
}

/// Connects to the first reachable server of the connection string and executes one command there. `limit` applies to
/// the command; connecting is limited by `connect_timeout`. `target_session_attrs` is ignored.
///
/// Must not be called from within an asynchronous runtime.
///
/// # Errors
/// No connection, no answer in time, or an error of the server.
pub fn ask(conninfo: &Conninfo, command: &str, limit: Duration) -> Result<Answer, SourceError> {
    ask_as(Login::Session, conninfo, command, limit)
}

/// The same over a physical replication connection, as a standby has it, with a command of the replication protocol.
///
/// # Errors
/// As [`ask`].
pub fn ask_for_replication(
    conninfo: &Conninfo,
    command: &str,
    limit: Duration,
) -> Result<Answer, SourceError> {
    ask_as(Login::Replication, conninfo, command, limit)
}

/// What a connection is for.
#[derive(Clone, Copy)]
enum Login {
    Session,
    Replication,
}

fn ask_as(login: Login, conninfo: &Conninfo, command: &str, limit: Duration) -> Result<Answer, SourceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| SourceError::Runtime { source })?;
    runtime.block_on(async {
        let (client, driver) = connect(login, conninfo).await?;
        let driver = tokio::spawn(driver);
        let answered = tokio::time::timeout(limit, tell(&client, command)).await;
        driver.abort();
        answered.unwrap_or(Err(SourceError::Silent { doing: DOING.to_owned(), limit }))
    })
}

const DOING: &str = "executing a command";

async fn tell(client: &Client, command: &str) -> Result<Answer, SourceError> {
    let messages = client.simple_query(command).await.map_err(|error| session::query(DOING, error))?;
    let mut answer = Answer::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let cell = |place| row.try_get(place).ok().flatten().map(str::to_owned);
                answer.rows.push((0..row.len()).map(cell).collect());
            }
            _ => {}
        }
    }
    Ok(answer)
}

async fn connect(login: Login, conninfo: &Conninfo) -> Result<Dialled, SourceError> {
    let mut failures = Vec::new();
    for candidate in conninfo.candidates() {
        match connect_to(login, conninfo, candidate).await {
            Ok(dialled) => return Ok(dialled),
            Err(errors) => {
                let goes_on = errors.last().is_some_and(is_for_the_next);
                failures.extend(errors);
                if !goes_on {
                    break;
                }
            }
        }
    }
    Err(SourceError::of_all(failures))
}

/// Connects to the first address of a host that accepts connections.
async fn connect_to(
    login: Login,
    conninfo: &Conninfo,
    candidate: &Candidate,
) -> Result<Dialled, Vec<SourceError>> {
    let mut failures = Vec::new();
    for (server, dial) in addresses(conninfo, candidate).await.map_err(|error| vec![error])? {
        let dialling = async {
            match login {
                Login::Session => dial.connect(dial.config()).await,
                Login::Replication => dial.connect_for_replication().await,
            }
        };
        let dialled = match conninfo.connect_timeout() {
            None => dialling.await,
            Some(limit) => match tokio::time::timeout(limit, dialling).await {
                Ok(dialled) => dialled,
                Err(_) => {
                    failures.push(SourceError::ConnectTimeout { server, limit });
                    continue;
                }
            },
        };
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(errors) => failures.extend(not_connected(&server, conninfo.password_file(), errors)),
        }
        if !failures.last().is_some_and(is_for_the_next) {
            break;
        }
    }
    Err(failures)
}
