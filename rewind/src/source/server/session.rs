//! One session with a server, made fit for the work.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};
use walparse::Flavor;

use super::dial::Driver;
use super::error::ServerError;
use super::sql::{self, Dialect, DigestOf};
use crate::datadir::flavor::{self, Seen};
use crate::source::error::SourceError;

/// Whose server it is thought to be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The target's flavor: what the functions of the server are called.
    pub(super) flavor: Flavor,
    /// The key of the source's flavor, if it is not to be found by looking.
    pub(super) key: Option<String>,
}

/// An open connection, ready for fetching.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) fetch: Statement,
    /// The same for digests of the ranges' contents, if the server can make any: some are told not to know MD5.
    pub(super) digest: Option<Statement>,
    digest_of: DigestOf,
    /// See [`Dialect::witness`].
    pub(super) witness: Statement,
    /// `server_version_num`
    pub(super) version: u32,
    pub(super) dialect: Dialect,
    pub(super) flavor: Flavor,
    pub(super) opened: Instant,
    /// Which of the servers it leads to that were the source one after the other, and how long that may say
    /// nothing: both are set by whoever opened the session.
    pub(super) server: u64,
    pub(super) silence: Option<Duration>,
    /// What moves its bytes.
    task: AbortHandle,
    /// Why the connection ended, once it has.
    ended: Ended,
}

type Ended = Arc<Mutex<Option<tokio_postgres::Error>>>;

/// What the first session learned of the server.
#[derive(Debug)]
pub(super) struct Facts {
    /// `server_encoding`
    pub(super) encoding: String,
    /// How its digests are made, if it can make any.
    pub(super) digest_of: Option<DigestOf>,
}

impl Session {
    /// Makes a fresh connection fit for the work.
    pub(super) async fn prepare(
        client: Client,
        connection: Driver,
        expected: &Expected,
    ) -> Result<Session, SourceError> {
        let ended = Ended::default();
        let end = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            // Whoever waits for an answer on this connection is told when it is dropped, which is later.
            let mut connection = pin!(connection);
            if let Err(error) = connection.as_mut().await {
                *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        let why = |error| because(&ended, error);

        let doing = "setting up a connection";
        let row = simple_row(&client, "SHOW server_version_num", doing).await.map_err(why)?;
        let version = row.first().and_then(|text| text.as_deref()?.parse().ok());
        let version = version.ok_or_else(|| answer(doing, "server_version_num is no number"))?;
        let dialect = Dialect::of(version).ok_or(SourceError::ServerVersion { version })?;
        let failed = |error| why(query(doing, error));
        // Asked of a PostgreSQL server, anybody's functions of these names would do.
        let dialect = match expected.flavor.is_fork() {
            true => Dialect::of_answer(&simple_row(&client, &sql::which_names(), doing).await.map_err(why)?)
                .map_err(|function| SourceError::NoFunction { function })?,
            false => dialect,
        };
        let settings = sql::session_settings(version);
        let digest_of = DigestOf::known_by(version, expected.flavor);
        let (fetch, digest) = (dialect.fetch(), dialect.digest(digest_of));
        // Sent at once and answered one after the other: one round trip.
        let (set, fetch, digest, flavor) = future::join4(
            client.batch_execute(&settings),
            client.prepare(&fetch),
            client.prepare(&digest),
            look(&client, &dialect, expected),
        )
        .await;
        set.map_err(failed)?;
        let fetch = fetch.map_err(failed)?;
        let digest = digest.inspect_err(|error| tracing::debug!("the server makes no digests: {error}")).ok();
        let flavor = flavor.map_err(why)?;
        let witness = client.prepare(&dialect.witness(flavor.names())).await.map_err(failed)?;
        Ok(Session {
            client,
            fetch,
            digest,
            digest_of,
            witness,
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

    /// The same session, as part of a run.
    pub(super) fn in_run(self, server: u64, silence: Option<Duration>) -> Session {
        Session { server, silence, ..self }
    }

    /// Ends the connection: whoever waits for an answer on it is told that it is closed.
    pub(super) fn hang_up(&self) {
        self.task.abort();
    }

    /// Waits for the server. One that says nothing for `silence` counts as lost.
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

    /// A query that failed, with the reason if that is the end of the connection.
    pub(super) fn failed(&self, doing: &str, error: tokio_postgres::Error) -> SourceError {
        because(&self.ended, query(doing, error))
    }

    /// Makes names go both ways as the bytes they are. Messages of the server stay in its own encoding
    /// then, so this comes after everything that could refuse the run.
    pub(super) async fn use_raw_names(&self) -> Result<(), SourceError> {
        let set = self.client.batch_execute("SET client_encoding = 'SQL_ASCII'").await;
        set.map_err(|error| query("setting up a connection", error))
    }

    /// Checks everything that would stop the run later.
    ///
    /// # Errors
    /// A server or a role that a rewind cannot work with.
    pub(super) async fn check(&self) -> Result<Facts, SourceError> {
        let doing = "checking the source server";
        let privileges = self.dialect.privileges();
        let granted = async {
            match self.version < sql::GRANTABLE {
                true => Ok(Vec::new()),
                false => simple_row(&self.client, &privileges, doing).await,
            }
        };
        let (row, granted) = future::join(simple_row(&self.client, sql::FACTS, doing), granted).await;
        let mut row = row?.into_iter().map(Option::unwrap_or_default);
        let mut next = || row.next().ok_or_else(|| answer(doing, "too few columns"));
        let (full_page_writes, superuser, encoding) = (next()?, next()?, next()?);
        let (role, database) = (next()?, next()?);
        let digest_of = self.digest.is_some().then_some(self.digest_of);
        if full_page_writes != "on" {
            return Err(SourceError::FullPageWrites);
        }
        if self.version < sql::GRANTABLE {
            return match superuser == "on" {
                true => Ok(Facts { encoding, digest_of }),
                false => Err(SourceError::NotSuperuser { role, version: self.version }),
            };
        }
        let granted = granted?;
        let functions = self.dialect.functions().into_iter().zip(&granted);
        let missing = functions.filter(|(_, has)| !sql::is_true(has.as_deref()));
        let functions: Vec<String> = missing.map(|(function, _)| function).collect();
        match functions.is_empty() {
            true => Ok(Facts { encoding, digest_of }),
            false => Err(SourceError::Privileges { role, database, functions }),
        }
    }
}

/// Which flavor the server's data directory has. Without the right to look it is the one expected: the role is
/// refused later, with better words.
async fn look(client: &Client, dialect: &Dialect, expected: &Expected) -> Result<Flavor, SourceError> {
    let row = match simple_row(client, &dialect.look(), "looking at the source's data directory").await {
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

/// The first row of a query without parameters, as text.
pub(super) async fn simple_row(
    client: &Client,
    text: &str,
    doing: &str,
) -> Result<Vec<Option<String>>, SourceError> {
    let messages = client.simple_query(text).await.map_err(|error| query(doing, error))?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| answer(doing, "no row"))?;
    let columns = (0..row.len()).map(|index| row.try_get(index).map(|text| text.map(str::to_owned)));
    columns.collect::<Result<_, _>>().map_err(|error| query(doing, error))
}

/// Puts the reason for the end of a connection in the place of the bare fact that it is closed.
fn because(ended: &Ended, error: SourceError) -> SourceError {
    match error {
        SourceError::Query { doing, source } if source.is_closed() => {
            let reason = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            SourceError::Query { doing, source: reason.map_or(source, ServerError::from) }
        }
        other => other,
    }
}

/// A failed query.
pub(super) fn query(doing: &str, error: tokio_postgres::Error) -> SourceError {
    SourceError::Query { doing: doing.to_owned(), source: ServerError::from(error) }
}

/// A senseless answer.
pub(super) fn answer(doing: &str, problem: &str) -> SourceError {
    SourceError::Answer { doing: doing.to_owned(), problem: problem.to_owned() }
}
