//! A session with a server, prepared for reading.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};
use walparse::Flavor;

use super::dial::Driver;
use super::error::ServerError;
use super::sql::{self, Asked, Dialect, DigestOf};
use crate::datadir::flavor::{self, Seen};
use crate::source::error::SourceError;

/// The product expected of the server.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The product and version of the target, which decides how the server's functions are named.
    pub(super) flavor: Flavor,
    /// The key of the source's product, if it is given instead of detected.
    pub(super) key: Option<String>,
}

/// An open connection.
///
/// It has no prepared statements: behind a pooler that changes servers after each transaction they would be those of another server's
/// session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    /// See [`Dialect::fetch`].
    pub(super) fetch: String,
    /// See [`Dialect::digests`].
    pub(super) digests: String,
    knows_sha256: bool,
    /// See [`Dialect::witness`].
    pub(super) witness: String,
    /// `server_version_num`
    pub(super) version: u32,
    pub(super) dialect: Dialect,
    pub(super) flavor: Flavor,
    pub(super) opened: Instant,
    /// The number of the server among those that were the source of this run, see [`Seen`](super::proof::Seen).
    pub(super) server: u64,
    /// The longest wait for a response.
    pub(super) silence: Option<Duration>,
    /// The task that reads and writes the stream.
    task: AbortHandle,
    /// The error that ended the connection.
    ended: Ended,
}

type Ended = Arc<Mutex<Option<tokio_postgres::Error>>>;

/// What the first session found out about the server.
#[derive(Debug)]
pub(super) struct Facts {
    /// `server_encoding`
    pub(super) encoding: String,
    /// Its digest function, if it has what computing digests takes.
    pub(super) digest_of: Option<DigestOf>,
}

impl Session {
    /// Prepares a new connection.
    pub(super) async fn prepare(
        client: Client,
        connection: Driver,
        expected: &Expected,
    ) -> Result<Session, SourceError> {
        let ended = Ended::default();
        let end = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            // Requests in progress fail when the connection is dropped, so the error must be stored before that.
            let mut connection = pin!(connection);
            if let Err(error) = connection.as_mut().await {
                *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        let why = |error| because(&ended, error);

        let doing = "setting up a connection";
        let row = simple_row(&client, "SHOW server_version_num", doing).await.map_err(why)?;
        let version = row.first().and_then(|text| text.as_deref()?.parse().ok());
        let version = version.ok_or_else(|| answer(doing, "server_version_num is not a number"))?;
        let dialect = Dialect::of(version).ok_or(SourceError::ServerVersion { version })?;
        let failed = |error| why(query(doing, error));
        // Not on a PostgreSQL server: any user may have created functions of these names there.
        let dialect = match expected.flavor.is_fork() {
            true => Dialect::of_answer(&simple_row(&client, &sql::which_names(), doing).await.map_err(why)?)
                .map_err(|function| SourceError::NoFunction { function })?,
            false => dialect,
        };
        let settings = sql::session_settings(version);
        let knows_sha256 = sql::knows_sha256(version, expected.flavor);
        // Sent together and processed in order: one round trip.
        let (set, flavor) =
            future::join(client.batch_execute(&settings), detect_flavor(&client, &dialect, expected)).await;
        set.map_err(failed)?;
        let flavor = flavor.map_err(why)?;
        Ok(Session {
            client,
            fetch: dialect.fetch(),
            digests: dialect.digests(knows_sha256),
            knows_sha256,
            witness: dialect.witness(flavor.names()),
            version,
            dialect,
            flavor,
            opened: Instant::now(),
            server: 0,
            silence: None,
            task: task.abort_handle(),
            ended,
        })
    }

    /// Makes the session one of a run.
    pub(super) fn in_run(self, server: u64, silence: Option<Duration>) -> Session {
        Session { server, silence, ..self }
    }

    /// Closes the connection. Requests in progress fail.
    pub(super) fn hang_up(&self) {
        self.task.abort();
    }

    /// Waits for a response for at most `silence`; later the server counts as lost.
    pub(super) async fn in_time<T>(
        &self,
        silence: Option<Duration>,
        doing: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SourceError> {
        let answered = match silence {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| SourceError::Silent { doing: doing.to_owned(), limit })?,
        };
        answered.map_err(|error| self.failed(doing, error))
    }

    /// The error of a query, with the cause if the connection was closed.
    pub(super) fn failed(&self, doing: &str, error: tokio_postgres::Error) -> SourceError {
        because(&self.ended, query(doing, error))
    }

    /// Executes a query with the simple protocol; returns its first row as text. `None` if there is no query, or the
    /// server does not allow it: a missing privilege, function or view.
    pub(super) async fn row_if_allowed(
        &self,
        query: Option<String>,
        doing: &str,
    ) -> Result<Option<Vec<Option<String>>>, SourceError> {
        let Some(query) = query else { return Ok(None) };
        let asked = self.in_time(self.silence, doing, self.client.simple_query(&query)).await;
        if_allowed(asked.and_then(|messages| first_row(messages, doing)))
    }

    /// Turns off encoding conversion, so that file names are sent and received as raw bytes. Error messages are then in
    /// the encoding of the server, so this is called after everything that may refuse the run.
    pub(super) async fn use_raw_names(&self) -> Result<(), SourceError> {
        let set = self.client.batch_execute("SET client_encoding = 'SQL_ASCII'").await;
        set.map_err(|error| query("setting up a connection", error))
    }

    /// Checks the server's settings and the role's privileges, so that the run does not fail on them later.
    ///
    /// # Errors
    /// `full_page_writes` is off, or privileges are missing.
    pub(super) async fn check(&self) -> Result<Facts, SourceError> {
        let doing = "checking the source server";
        let privileges = self.dialect.privileges();
        let granted = async {
            match self.version < sql::GRANTABLE {
                true => Ok(Vec::new()),
                false => simple_row(&self.client, &privileges, doing).await,
            }
        };
        let facts = simple_row(&self.client, sql::FACTS, doing);
        let (row, granted, digests) = future::join3(facts, granted, self.computes_digests()).await;
        let mut row = row?.into_iter().map(Option::unwrap_or_default);
        let mut next = || row.next().ok_or_else(|| answer(doing, "too few columns"));
        let (full_page_writes, superuser, encoding) = (next()?, next()?, next()?);
        let (role, database) = (next()?, next()?);
        let digest_of = DigestOf::fastest(self.knows_sha256, sql::is_true(Some(&next()?)));
        if full_page_writes != "on" {
            return Err(SourceError::FullPageWrites);
        }
        if self.version < sql::GRANTABLE {
            return match superuser == "on" {
                true => Ok(Facts { encoding, digest_of: digests.then_some(digest_of) }),
                false => Err(SourceError::NotSuperuser { role, version: self.version }),
            };
        }
        let granted = granted?;
        let functions = self.dialect.functions().into_iter().zip(&granted);
        let missing = functions.filter(|(_, has)| !sql::is_true(has.as_deref()));
        let functions: Vec<String> = missing.map(|(function, _)| function).collect();
        match functions.is_empty() {
            true => Ok(Facts { encoding, digest_of: digests.then_some(digest_of) }),
            false => Err(SourceError::Privileges { role, database, functions }),
        }
    }

    /// Whether the server has what the query for digests needs: asked with no range.
    async fn computes_digests(&self) -> bool {
        let none = Asked { part: 1, is_md5: true, ..Asked::default() };
        let asked = self.client.query_typed(&self.digests, &none.parameters()).await;
        asked.inspect_err(|error| tracing::debug!("server cannot compute digests: {error}")).is_ok()
    }
}

/// Detects the product of the server's data directory. Without the privilege to read it, the expected one is returned:
/// [`Session::check`] then reports the missing privileges.
async fn detect_flavor(
    client: &Client,
    dialect: &Dialect,
    expected: &Expected,
) -> Result<Flavor, SourceError> {
    let row = match simple_row(
        client,
        &dialect.data_directory_traits(),
        "examining the data directory of the source",
    )
    .await
    {
        Err(error)
            if error.server_error().and_then(ServerError::code)
                == Some(&SqlState::INSUFFICIENT_PRIVILEGE) =>
        {
            return Ok(expected.flavor);
        }
        row => row?,
    };
    let mut values = row.iter().map(Option::as_deref);
    let mut seen = Seen::default();
    for file in flavor::control_files() {
        if let Some(front) = values.next().flatten() {
            seen.control_files.push((file, flavor::control_version_in_hex(front)));
        }
    }
    seen.wal_dirs =
        flavor::wal_dirs().into_iter().filter(|_| sql::is_true(values.next().flatten())).collect();
    Ok(flavor::choose(&seen, expected.key.as_deref())?)
}

/// Executes a query with the simple protocol; returns its first row as text.
pub(super) async fn simple_row(
    client: &Client,
    text: &str,
    doing: &str,
) -> Result<Vec<Option<String>>, SourceError> {
    let messages = client.simple_query(text).await.map_err(|error| query(doing, error))?;
    first_row(messages, doing)
}

fn first_row(messages: Vec<SimpleQueryMessage>, doing: &str) -> Result<Vec<Option<String>>, SourceError> {
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| answer(doing, "no rows"))?;
    let columns = (0..row.len()).map(|index| row.try_get(index).map(|text| text.map(str::to_owned)));
    columns.collect::<Result<_, _>>().map_err(|error| query(doing, error))
}

/// Replaces the bare error that a connection is closed by its cause.
fn because(ended: &Ended, error: SourceError) -> SourceError {
    match error {
        SourceError::Query { doing, source } if source.is_closed() => {
            let reason = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            SourceError::Query { doing, source: reason.map_or(source, ServerError::from) }
        }
        other => other,
    }
}

/// `None` if the server refused the query.
pub(super) fn if_allowed<T>(answered: Result<T, SourceError>) -> Result<Option<T>, SourceError> {
    match answered {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_disallowed(&error) => {
            tracing::debug!("{}", error.with_reasons());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the server reported an error that lies in the query: a missing privilege, function or view.
pub(super) fn is_disallowed(error: &SourceError) -> bool {
    error.server_error().and_then(ServerError::code).is_some() && !error.is_transient()
}

/// The error of a query.
pub(super) fn query(doing: &str, error: tokio_postgres::Error) -> SourceError {
    SourceError::Query { doing: doing.to_owned(), source: ServerError::from(error) }
}

/// The error of an unexpected result.
pub(super) fn answer(doing: &str, problem: &str) -> SourceError {
    SourceError::Answer { doing: doing.to_owned(), problem: problem.to_owned() }
}
