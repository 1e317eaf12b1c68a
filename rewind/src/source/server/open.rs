//! Opening the connections that a run begins with.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures_util::future;
use tokio_postgres::error::SqlState;

use super::endpoint::{self, Endpoint};
use super::instance::Instance;
use super::proof::Seen;
use super::session::{Expected, Facts, Session};
use crate::conninfo::Conninfo;
use crate::source::error::SourceError;

/// The pause between two attempts: the first, and the longest.
pub(super) const SHORT_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(2);

/// The smallest limit for a response: a busy server may need this long even if `--retry-timeout` is shorter.
const LEAST_SILENCE: Duration = Duration::from_secs(15);

/// The limits for opening a further connection, whatever the first one took. A pooler without a free slot does not refuse
/// a connection, but lets it wait.
const LEAST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The connections, and what is known of the server.
pub(super) struct Opened {
    pub(super) endpoint: Endpoint,
    pub(super) sessions: Vec<Session>,
    pub(super) facts: Facts,
    pub(super) seen: Seen,
    pub(super) instance: Instance,
    /// The time limit for a further connection.
    pub(super) wait: Duration,
}

/// Connects for the first time. Waits for a server that is starting up, and retries if the connection is lost after the
/// server has answered once. Any other error is final, because the connection string may be wrong.
pub(super) async fn open_first(
    conninfo: &Conninfo,
    expected: &Expected,
    wanted: NonZeroUsize,
    patience: Duration,
) -> Result<Opened, SourceError> {
    let end = Instant::now() + patience;
    let mut pause = SHORT_PAUSE;
    let mut has_answered = false;
    loop {
        let error = match open(conninfo, expected, wanted, patience, &mut has_answered).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let code = error.server_error().and_then(|error| error.code());
        let may_pass = code == Some(&SqlState::CANNOT_CONNECT_NOW) || has_answered && error.is_transient();
        if !may_pass || Instant::now() + pause >= end {
            return Err(error);
        }
        if pause == SHORT_PAUSE {
            tracing::warn!(
                "waiting up to {} s for the source server: {}",
                patience.as_secs(),
                error.with_reasons()
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONG_PAUSE);
    }
}

async fn open(
    conninfo: &Conninfo,
    expected: &Expected,
    wanted: NonZeroUsize,
    patience: Duration,
    has_answered: &mut bool,
) -> Result<Opened, SourceError> {
    let begun = Instant::now();
    let found = endpoint::find(conninfo, expected, async |_, _| Ok(())).await;
    let (endpoint, first, ()) = found.map_err(SourceError::of_all)?;
    *has_answered = true;
    let wait = (begun.elapsed() * 3).clamp(LEAST_WAIT, LONGEST_WAIT);
    let checked = async {
        let facts = first.check().await?;
        let first = first.with_wal_magic().await?;
        let witness = first.witness().await?;
        let instance = Instance::of(&first, &witness.control).await?;
        first.use_raw_names().await?;
        Ok::<_, SourceError>((first.in_run(0, silence(patience)), facts, Seen::first(&witness), instance))
    };
    let dialled = future::join_all((1..wanted.get()).map(|_| in_time(wait, &endpoint, endpoint.open())));
    let (checked, dialled) = future::join(checked, dialled).await;
    let (first, facts, seen, instance) = checked?;

    let furnished = dialled.into_iter().map(async |session| {
        let session = session?;
        in_time(wait, &endpoint, furnish(session, &endpoint, &instance)).await
    });
    let mut sessions = vec![first];
    let mut refused = None;
    for further in future::join_all(furnished).await {
        match further {
            Ok(session) => sessions.push(session.in_run(0, silence(patience))),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        let count = sessions.len();
        tracing::warn!("continuing with {count} of {wanted} connections: {}", error.with_reasons());
    }
    Ok(Opened { endpoint, sessions, facts, seen, instance, wait })
}

/// Opens a further connection, which must lead to the same server as the others.
///
/// # Errors
/// No connection within `limit`, or another server. The run can continue without it.
pub(super) async fn open_further(
    endpoint: &Endpoint,
    instance: &Instance,
    limit: Duration,
) -> Result<Session, SourceError> {
    let furnished = async { furnish(endpoint.open().await?, endpoint, instance).await };
    in_time(limit, endpoint, furnished).await
}

async fn furnish(session: Session, endpoint: &Endpoint, instance: &Instance) -> Result<Session, SourceError> {
    instance.join(&session, &endpoint.name).await?;
    session.use_raw_names().await?;
    session.with_wal_magic().await
}

async fn in_time(
    limit: Duration,
    endpoint: &Endpoint,
    opened: impl Future<Output = Result<Session, SourceError>>,
) -> Result<Session, SourceError> {
    let late = |_| Err(SourceError::ConnectTimeout { server: endpoint.name.clone(), limit });
    tokio::time::timeout(limit, opened).await.unwrap_or_else(late)
}

/// How long to wait for a response before the server counts as lost; `None` for ever.
pub(super) fn silence(patience: Duration) -> Option<Duration> {
    (patience > Duration::ZERO).then(|| patience.max(LEAST_SILENCE))
}
