//! Opening the connections that a run begins with.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures_util::future;
use tokio_postgres::error::SqlState;

use super::endpoint::{self, Endpoint};
use super::error::ServerError;
use super::proof::Seen;
use super::session::{Expected, Facts, Session};
use crate::conninfo::Conninfo;
use crate::source::error::SourceError;

/// The pause between two attempts: the first, and the longest.
pub(super) const SHORT_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(2);

/// The smallest limit for a response: a busy server may need this long even if `--retry-timeout` is shorter.
const LEAST_SILENCE: Duration = Duration::from_secs(15);

/// The connections, and what is known of the server.
pub(super) struct Opened {
    pub(super) endpoint: Endpoint,
    pub(super) sessions: Vec<Session>,
    pub(super) facts: Facts,
    pub(super) seen: Seen,
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
        let opened = async {
            let found = endpoint::find(conninfo, expected, async |_, _| Ok(())).await;
            let (endpoint, first) = found.map_err(SourceError::of_all)?;
            has_answered = true;
            let first = first.in_run(0, silence(patience));
            let checked = async {
                let facts = first.check().await?;
                let first = first.with_wal_magic().await?;
                let seen = Seen::first(&first.witness().await?);
                first.use_raw_names().await?;
                Ok::<_, SourceError>((first, facts, seen))
            };
            let others = open_more(&endpoint, wanted.get() - 1, patience);
            let (checked, others) = future::join(checked, others).await;
            let (first, facts, seen) = checked?;
            let (mut sessions, (others, refused)) = (vec![first], others?);
            sessions.extend(others);
            if let Some(refused) = refused {
                tracing::warn!("continuing with {} of {wanted} connections: {refused}", sessions.len());
            }
            Ok(Opened { endpoint, sessions, facts, seen })
        };
        let error: SourceError = match opened.await {
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

/// Opens further connections concurrently. Returns as many as the server allows, and the error if that is not all.
async fn open_more(
    endpoint: &Endpoint,
    wanted: usize,
    patience: Duration,
) -> Result<(Vec<Session>, Option<ServerError>), SourceError> {
    let open = async || {
        let session = endpoint.open().await?;
        session.use_raw_names().await?;
        Ok(session.with_wal_magic().await?.in_run(0, silence(patience)))
    };
    let (mut sessions, mut refused) = (Vec::new(), None);
    for opened in future::join_all((0..wanted).map(|_| open())).await {
        match opened {
            Ok(session) => sessions.push(session),
            Err(SourceError::Connect { source, .. })
                if source.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) =>
            {
                refused = Some(source);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((sessions, refused))
}

/// How long to wait for a response before the server counts as lost; `None` for ever.
pub(super) fn silence(patience: Duration) -> Option<Duration> {
    (patience > Duration::ZERO).then(|| patience.max(LEAST_SILENCE))
}
