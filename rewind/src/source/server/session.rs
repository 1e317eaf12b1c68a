//! Connections: finding the server, opening sessions on it, making them fit for the work.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future;
use rand::seq::SliceRandom;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage, Statement};
use walparse::Flavor;

use super::dial::{Dial, Driver, Place};
use super::sql::{self, Dialect, DigestOf};
use crate::conninfo::{Address, Candidate, Conninfo, LoadBalance, SessionAttrs};
use crate::datadir::flavor::{self, Seen};
use crate::source::error::SourceError;
use super::error::ServerError;

/// An address that connections lead to.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// In libpq's words.
    pub(super) name: String,
    dial: Dial,
    timeout: Option<Duration>,
    /// Where the password is from, if it is from a file.
    password_file: Option<PathBuf>,
    /// What the server there must be.
    attrs: SessionAttrs,
    expected: Expected,
}

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

/// Tries the servers of the string in their order, or in any order if it says so; the first that answers, will
/// do and is admitted is taken.
///
/// # Errors
/// If there is none, why not, one after the other. As in libpq a server that refuses is the last: another is
/// tried only if one was not reached, cannot serve just now, or is not of the kind wanted.
pub(super) async fn find(
    conninfo: &Conninfo,
    expected: &Expected,
    admit: impl AsyncFn(&Session, &str) -> Result<(), SourceError>,
) -> Result<(Endpoint, Session), Vec<SourceError>> {
    let passes: &[SessionAttrs] = match conninfo.session_attrs() {
        SessionAttrs::PreferStandby => &[SessionAttrs::Standby, SessionAttrs::Any],
        SessionAttrs::Any => &[SessionAttrs::Any],
        SessionAttrs::ReadWrite => &[SessionAttrs::ReadWrite],
        SessionAttrs::ReadOnly => &[SessionAttrs::ReadOnly],
        SessionAttrs::Primary => &[SessionAttrs::Primary],
        SessionAttrs::Standby => &[SessionAttrs::Standby],
    };
    let mut candidates: Vec<&Candidate> = conninfo.candidates().iter().collect();
    shuffle_if_asked(conninfo, &mut candidates);
    let mut failures = Vec::new();
    'search: for attrs in passes {
        for candidate in &candidates {
            let mut endpoints = match endpoints(conninfo, candidate, *attrs, expected).await {
                Ok(endpoints) => endpoints,
                Err(error) => {
                    failures.push(error);
                    continue;
                }
            };
            shuffle_if_asked(conninfo, &mut endpoints);
            for endpoint in endpoints {
                let errors = match endpoint.open_admitted(&admit).await {
                    Ok(session) => return Ok((endpoint, session)),
                    Err(errors) => errors,
                };
                let goes_on = errors.last().is_some_and(is_for_the_next);
                failures.extend(errors);
                if !goes_on {
                    break 'search;
                }
            }
        }
    }
    for failure in &failures {
        tracing::debug!("no source server: {}", failure.with_reasons());
    }
    Err(failures)
}

fn shuffle_if_asked<T>(conninfo: &Conninfo, entries: &mut [T]) {
    if conninfo.load_balance() == LoadBalance::Random {
        entries.shuffle(&mut rand::rng());
    }
}

/// Whether after this failure of one server another is tried.
pub(super) fn is_for_the_next(error: &SourceError) -> bool {
    match error {
        SourceError::Connect { source, .. } => source.is_unreachable() || source.is_transient(),
        SourceError::Changed { .. } => true,
        other => other.is_transient(),
    }
}

/// The addresses of a candidate, as end points.
async fn endpoints(
    conninfo: &Conninfo,
    candidate: &Candidate,
    attrs: SessionAttrs,
    expected: &Expected,
) -> Result<Vec<Endpoint>, SourceError> {
    let endpoint = |(name, dial)| Endpoint {
        name,
        dial,
        timeout: conninfo.connect_timeout(),
        password_file: conninfo.password_file().map(Path::to_owned),
        attrs,
        expected: expected.clone(),
    };
    Ok(addresses(conninfo, candidate).await?.into_iter().map(endpoint).collect())
}

/// The addresses of a candidate, each with its name in libpq's words.
pub(super) async fn addresses(
    conninfo: &Conninfo,
    candidate: &Candidate,
) -> Result<Vec<(String, Dial)>, SourceError> {
    let dial = |place| Dial::new(conninfo, candidate, place);
    let socket = |directory: &[u8]| {
        let path = [directory, format!("/.s.PGSQL.{}", candidate.port).as_bytes()].concat();
        vec![(candidate.to_string(), dial(Place::Unix(PathBuf::from(OsString::from_vec(path)))))]
    };
    let (host, shown) = match &candidate.address {
        Address::Unix(path) => return Ok(socket(path.as_os_str().as_bytes())),
        // The operating system takes a NUL byte for the `@`.
        Address::Abstract(name) => return Ok(socket(&[b"\0", name.as_bytes()].concat())),
        Address::Tcp { numeric: Some(address), .. } => (address.as_str(), Some(address)),
        Address::Tcp { name, numeric: None } => (name.as_deref().unwrap_or_default(), None),
    };
    let found = resolve(host, candidate.port, conninfo.connect_timeout()).await?;
    let with_name = found.into_iter().map(|address| {
        let ip = shown.cloned().unwrap_or_else(|| address.ip().to_string());
        (candidate.at(&ip), dial(Place::Tcp(address)))
    });
    Ok(with_name.collect())
}

/// Asks the operating system for the addresses of a host; never none.
async fn resolve(host: &str, port: u16, limit: Option<Duration>) -> Result<Vec<SocketAddr>, SourceError> {
    let failed = |source: Option<io::Error>| {
        // Only the C library's own words are of use.
        let reason = source.map(|error| error.to_string()).unwrap_or_default();
        let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason);
        let reason = if reason.is_empty() { "it has no address" } else { reason };
        SourceError::Resolve { host: host.to_owned(), reason: reason.to_owned() }
    };
    let looking = tokio::net::lookup_host((host, port));
    let found = match limit {
        None => looking.await,
        Some(limit) => tokio::time::timeout(limit, looking).await.unwrap_or_else(|late| Err(late.into())),
    };
    let found: Vec<SocketAddr> = found.map_err(|error| failed(Some(error)))?.collect();
    if found.is_empty() { Err(failed(None)) } else { Ok(found) }
}

/// Why there is no connection to a server.
pub(super) fn not_connected(
    server: &str,
    password_file: Option<&Path>,
    errors: Vec<ServerError>,
) -> Vec<SourceError> {
    let failure = |source: ServerError| SourceError::Connect {
        server: server.to_owned(),
        password_file: match source.code() {
            Some(&SqlState::INVALID_PASSWORD) => password_file.map(Path::to_owned),
            _ => None,
        },
        source,
    };
    errors.into_iter().map(failure).collect()
}

impl Endpoint {
    /// Opens a session. The limit covers everything up to its being ready.
    ///
    /// # Errors
    /// No connection, or a server that is too old.
    pub(super) async fn open(&self) -> Result<Session, SourceError> {
        self.open_in_time().await.map_err(SourceError::of_all)
    }

    /// Opens a session with a server of the kind wanted, which is admitted.
    async fn open_admitted(
        &self,
        admit: &impl AsyncFn(&Session, &str) -> Result<(), SourceError>,
    ) -> Result<Session, Vec<SourceError>> {
        let session = self.open_in_time().await?;
        let checked = async {
            self.check_attributes(&session).await?;
            admit(&session, &self.name).await
        };
        checked.await.map_err(|error| vec![error])?;
        Ok(session)
    }

    /// Where two kinds of stream are tried the errors are two.
    async fn open_in_time(&self) -> Result<Session, Vec<SourceError>> {
        let ready = self.open_unlimited();
        let Some(limit) = self.timeout else { return ready.await };
        let late = |_| Err(vec![SourceError::ConnectTimeout { server: self.name.clone(), limit }]);
        tokio::time::timeout(limit, ready).await.unwrap_or_else(late)
    }

    /// Limits that a role or database has for its sessions may strike before they are taken off; then they
    /// are off from the start. (Not always, because some poolers refuse options.)
    async fn open_unlimited(&self) -> Result<Session, Vec<SourceError>> {
        let given = self.dial.config();
        let mut config = given.clone();
        let mut raised = Vec::new();
        loop {
            let errors = match self.connect(&config).await {
                Ok(session) => return Ok(session),
                Err(errors) => errors,
            };
            let said = errors.last().and_then(SourceError::server_error);
            let limit = said.and_then(|error| sql::limit_of(error.code()?.code()));
            match limit.filter(|limit| !raised.contains(limit)) {
                Some(limit) => raised.push(limit),
                None => return Err(errors),
            }
            let given = given.get_options().unwrap_or_default();
            let off = raised.iter().map(|limit| format!(" -c {limit}=0"));
            config.options(off.fold(given.to_owned(), |options, off| options + &off));
        }
    }

    async fn connect(&self, config: &Config) -> Result<Session, Vec<SourceError>> {
        let dialled = self.dial.connect(config).await;
        let (client, connection) = dialled.map_err(|errors| self.failures(errors))?;
        Session::prepare(client, connection, &self.expected).await.map_err(|error| vec![error])
    }

    fn failures(&self, errors: Vec<ServerError>) -> Vec<SourceError> {
        not_connected(&self.name, self.password_file.as_deref(), errors)
    }

    /// Whether the server at the other end is what `target_session_attrs` asks for.
    pub(super) async fn check_attributes(&self, session: &Session) -> Result<(), SourceError> {
        if self.attrs == SessionAttrs::Any {
            return Ok(());
        }
        let doing = "checking target_session_attrs";
        // What a role or database setting says of new sessions, before this one made itself read-only.
        let Dialect { is_in_recovery, settings, .. } = &session.dialect;
        let asked = format!(
            "SELECT {is_in_recovery}(), \
             (SELECT s.reset_val FROM {settings} AS s WHERE s.name = 'default_transaction_read_only')"
        );
        let row = simple_row(&session.client, &asked, doing).await?;
        let value = |index: usize| row.get(index).and_then(Option::as_deref);
        let standby = sql::is_true(value(0));
        let read_only = standby || value(1) == Some("on");
        let problem = match self.attrs {
            SessionAttrs::ReadWrite if read_only => "session is read-only",
            SessionAttrs::ReadOnly if !read_only => "session is not read-only",
            SessionAttrs::Primary if standby => "server is in hot standby mode",
            SessionAttrs::Standby if !standby => "server is not in hot standby mode",
            _ => return Ok(()),
        };
        Err(SourceError::SessionAttributes { server: self.name.clone(), problem })
    }
}

impl Session {
    /// Makes a fresh connection fit for the work.
    async fn prepare(
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
async fn simple_row(client: &Client, text: &str, doing: &str) -> Result<Vec<Option<String>>, SourceError> {
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
