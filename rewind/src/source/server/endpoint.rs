//! Finding the server: the hosts of a connection string, their addresses, and opening sessions there.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use super::dial::{Dial, Place};
use super::error::ServerError;
use super::session::{Expected, Session, answer, simple_row};
use super::sql::{self, Dialect};
use crate::conninfo::{Address, Candidate, Conninfo, LoadBalance, SessionAttrs};
use crate::source::error::SourceError;

/// An address to connect to, with all that is needed to open a session there.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The address as libpq words it.
    pub(super) name: String,
    dial: Dial,
    timeout: Option<Duration>,
    /// The password file, if the password comes from it.
    password_file: Option<PathBuf>,
    /// The required property of the server (`target_session_attrs`).
    attrs: SessionAttrs,
    expected: Expected,
}

/// Tries the servers of the connection string in order, or in random order with `load_balance_hosts=random`. Returns the
/// first one that accepts the connection, matches `target_session_attrs`, and is accepted by `admit`, with its result.
///
/// # Errors
/// The errors of all attempts. As in libpq, a server that refuses the connection ends the search: the next one is tried
/// only if a server was not reached, is temporarily unable to serve, or does not match.
pub(super) async fn find<T>(
    conninfo: &Conninfo,
    expected: &Expected,
    admit: impl AsyncFn(&Session, &str) -> Result<T, SourceError>,
) -> Result<(Endpoint, Session, T), Vec<SourceError>> {
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
                    Ok((session, admitted)) => return Ok((endpoint, session, admitted)),
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

/// Whether the next server is tried after this error.
pub(super) fn is_for_the_next(error: &SourceError) -> bool {
    match error {
        SourceError::Connect { source, .. } => source.is_unreachable() || source.is_transient(),
        SourceError::Changed { .. } => true,
        other => other.is_transient(),
    }
}

/// The addresses of a candidate, as endpoints.
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

/// The addresses of a candidate, each with its name as libpq words it.
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
        // In socket addresses a leading NUL byte denotes the abstract namespace.
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

/// Resolves a host name; returns at least one address.
async fn resolve(host: &str, port: u16, limit: Option<Duration>) -> Result<Vec<SocketAddr>, SourceError> {
    let failed = |source: Option<io::Error>| {
        // Keep only the message of the C library.
        let reason = source.map(|error| error.to_string()).unwrap_or_default();
        let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason);
        let reason = if reason.is_empty() { "No address associated with hostname" } else { reason };
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

/// The errors of the attempts to connect to a server.
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
    /// Opens a session and prepares it. `connect_timeout` covers all of it.
    ///
    /// # Errors
    /// No connection, or an unsupported server.
    pub(super) async fn open(&self) -> Result<Session, SourceError> {
        self.open_in_time().await.map_err(SourceError::of_all)
    }

    /// Opens a session with a server that matches `target_session_attrs` and that `admit` accepts.
    async fn open_admitted<T>(
        &self,
        admit: &impl AsyncFn(&Session, &str) -> Result<T, SourceError>,
    ) -> Result<(Session, T), Vec<SourceError>> {
        let session = self.open_in_time().await?;
        let checked = async {
            self.check_attributes(&session).await?;
            admit(&session, &self.name).await
        };
        let admitted = checked.await.map_err(|error| vec![error])?;
        Ok((session, admitted))
    }

    /// As [`Endpoint::open`], with one error for each kind of stream that was tried.
    async fn open_in_time(&self) -> Result<Session, Vec<SourceError>> {
        let ready = self.open_unlimited();
        let Some(limit) = self.timeout else { return ready.await };
        let late = |_| Err(vec![SourceError::ConnectTimeout { server: self.name.clone(), limit }]);
        tokio::time::timeout(limit, ready).await.unwrap_or_else(late)
    }

    /// Opens a session without a time limit. Timeouts set for the role or database may expire before the session has
    /// disabled them; then they are disabled in the startup message. Not from the outset, because some poolers reject
    /// `options` there.
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

    /// Logs in as a standby does, identifies the system and disconnects. Returns the system identifier.
    ///
    /// # Errors
    /// The login is refused, or the server does not answer as a walsender does.
    pub(super) async fn try_replication(&self) -> Result<u64, SourceError> {
        let doing = "executing IDENTIFY_SYSTEM";
        let asked = async {
            let dialled = self.dial.connect_for_replication().await;
            let (client, driver) = dialled.map_err(|errors| SourceError::of_all(self.failures(errors)))?;
            // It ends when the client is dropped.
            tokio::spawn(driver);
            let row = simple_row(&client, "IDENTIFY_SYSTEM", doing).await?;
            let identifier = row.first().and_then(|text| text.as_deref()?.parse().ok());
            identifier.ok_or_else(|| answer(doing, "no system identifier"))
        };
        match self.timeout {
            None => asked.await,
            Some(limit) => tokio::time::timeout(limit, asked)
                .await
                .unwrap_or_else(|_| Err(SourceError::ConnectTimeout { server: self.name.clone(), limit })),
        }
    }

    fn failures(&self, errors: Vec<ServerError>) -> Vec<SourceError> {
        not_connected(&self.name, self.password_file.as_deref(), errors)
    }

    /// Checks that the server matches `target_session_attrs`.
    pub(super) async fn check_attributes(&self, session: &Session) -> Result<(), SourceError> {
        if self.attrs == SessionAttrs::Any {
            return Ok(());
        }
        let doing = "checking target_session_attrs";
        // reset_val: the value that the role or database sets, before this session made itself read-only.
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
