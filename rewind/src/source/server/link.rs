//! The connections of a run. Lost connections are re-established, to a server that is proven to be able to continue.
//!
//! The proof: each request is followed by the witness, the control file and the end of WAL, which is an upper bound for
//! the WAL position of what was read. The server of a new connection must have that WAL in its own history.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use walparse::Lsn;

use super::endpoint::{self, Endpoint};
use super::open::{LONG_PAUSE, Opened, SHORT_PAUSE, open_first, silence};
use super::proof::{Problem, Seen};
use super::queries::Witness;
use super::session::{Expected, Facts, Session};
use crate::conninfo::Conninfo;
use crate::milestone;
use crate::source::error::SourceError;
use crate::stop::StopFlag;

/// The interval at which a request to stop is checked.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// The connections.
#[derive(Debug)]
pub(super) struct Link {
    conninfo: Conninfo,
    expected: Expected,
    /// How long to try to re-establish a lost connection; zero disables it.
    patience: Duration,
    stop: StopFlag,
    pub(super) facts: Facts,
    lines: Vec<tokio::sync::Mutex<Option<Arc<Session>>>>,
    /// The address of all connections. If each connection tried the list of hosts by itself, blocks could come from
    /// another server than the listing.
    place: tokio::sync::Mutex<Arc<Endpoint>>,
    seen: Mutex<Seen>,
    /// When the connections were lost, for messages.
    outage: Mutex<Option<Instant>>,
}

impl Link {
    /// Connects, checks that the server and the role can serve as a source, and opens `wanted` connections, or as many as
    /// the server allows.
    pub(super) async fn open(
        conninfo: &Conninfo,
        expected: Expected,
        wanted: NonZeroUsize,
        patience: Duration,
        stop: StopFlag,
    ) -> Result<Link, SourceError> {
        let opened = unless_stopped(&stop, open_first(conninfo, &expected, wanted, patience)).await?;
        let Opened { endpoint, sessions, facts, seen } = opened;
        let (version, count) = (sessions[0].version, sessions.len());
        tracing::info!(
            milestone = milestone::CONNECTED,
            "connected to {}, version {version}, {count} connection(s)",
            endpoint.name
        );
        let line = |session| tokio::sync::Mutex::new(Some(Arc::new(session)));
        Ok(Link {
            conninfo: conninfo.clone(),
            expected,
            patience,
            stop,
            facts,
            lines: sessions.into_iter().map(line).collect(),
            place: tokio::sync::Mutex::new(Arc::new(endpoint)),
            seen: Mutex::new(seen),
            outage: Mutex::default(),
        })
    }

    /// The number of connections.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The name of the server in messages.
    pub(super) async fn name(&self) -> String {
        self.place.lock().await.name.clone()
    }

    /// Announces where replay will start. A server whose data may be older is not accepted afterwards.
    pub(super) fn replayed_from(&self, redo: Lsn) {
        let mut seen = self.seen();
        seen.redo = seen.redo.min(redo);
    }

    /// Sends a request on one of the connections, and again on a new one if the connection is lost.
    ///
    /// `ask` must end with the witness: anything read after it has no upper bound.
    ///
    /// # Errors
    /// An error that another connection would not cure, no connection in time, or a request to stop.
    pub(super) async fn ask<T>(
        &self,
        line: usize,
        ask: impl AsyncFn(&Session) -> Result<(T, Witness), SourceError>,
    ) -> Result<T, SourceError> {
        unless_stopped(&self.stop, self.ask_again(line, ask)).await
    }

    async fn ask_again<T>(
        &self,
        line: usize,
        ask: impl AsyncFn(&Session) -> Result<(T, Witness), SourceError>,
    ) -> Result<T, SourceError> {
        let mut trouble = None;
        loop {
            let asked = async {
                let (session, server) = self.session(line).await?;
                let asked = ask(&session).await.and_then(|(answer, witness)| {
                    self.observe(&session, server, &witness)?;
                    Ok(answer)
                });
                if asked.as_ref().is_err_and(SourceError::is_transient) {
                    self.hang_up(line, &session).await;
                }
                asked
            };
            // After the first failure, an attempt must not exceed the remaining time either.
            let asked = match &trouble {
                None => asked.await,
                Some(Trouble { end, .. }) => match tokio::time::timeout_at((*end).into(), asked).await {
                    Ok(asked) => asked,
                    Err(_) => return Err(self.lost(trouble)),
                },
            };
            match asked {
                Err(error) if error.is_transient() && self.patience > Duration::ZERO => {
                    self.wait(&mut trouble, error).await;
                    if trouble.as_ref().is_some_and(|trouble| Instant::now() >= trouble.end) {
                        return Err(self.lost(trouble));
                    }
                }
                other => return other,
            }
        }
    }

    /// Records a failure, reports it once per outage, and pauses.
    async fn wait(&self, trouble: &mut Option<Trouble>, error: SourceError) {
        let now = Instant::now();
        let begun = lock(&self.outage).replace(now);
        match begun {
            // Already reported for another connection, which usually has the same cause.
            Some(begun) => *lock(&self.outage) = Some(begun),
            None => tracing::warn!(
                "lost connection to the source: {}; trying again for up to {} s",
                error.with_reasons(),
                self.patience.as_secs()
            ),
        }
        let pause = trouble.as_ref().map_or(SHORT_PAUSE, |trouble| (trouble.pause * 2).min(LONG_PAUSE));
        let end = trouble.as_ref().map_or(now + self.patience, |trouble| trouble.end);
        tracing::debug!("source: {}", error.with_reasons());
        *trouble = Some(Trouble { end, pause, last: error });
        tokio::time::sleep(pause.min(end.saturating_duration_since(now))).await;
    }

    fn lost(&self, trouble: Option<Trouble>) -> SourceError {
        let last = trouble.map(|trouble| trouble.last);
        let last = last.unwrap_or_else(|| unreachable!("gave up without a failure"));
        SourceError::Lost { patience: self.patience, source: Box::new(last) }
    }

    /// The session of a line, re-established if necessary, and the number of its server.
    async fn session(&self, line: usize) -> Result<(Arc<Session>, u64), SourceError> {
        let mut slot = self.lines[line].lock().await;
        let server = self.seen().server;
        match &*slot {
            Some(session) if session.server == server && !session.client.is_closed() => {
                Ok((Arc::clone(session), server))
            }
            _ => {
                *slot = None;
                let session = Arc::new(self.connect().await?);
                *slot = Some(Arc::clone(&session));
                let server = session.server;
                Ok((session, server))
            }
        }
    }

    /// Closes a session that is lost, so that other requests waiting on it fail, too.
    async fn hang_up(&self, line: usize, session: &Arc<Session>) {
        session.hang_up();
        let mut slot = self.lines[line].lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *slot = None;
        }
    }

    /// Opens a session at the address of the others. If that fails, tries the other hosts of the connection string; all
    /// connections then move to the one found.
    async fn connect(&self) -> Result<Session, SourceError> {
        let mut place = self.place.lock().await;
        let again = async {
            let session = place.open().await?;
            place.check_attributes(&session).await?;
            self.admit(&session, &place.name).await?;
            Ok(session)
        };
        let failure = match again.await {
            Ok(session) => return self.furnish(session).await,
            Err(error) => error,
        };
        if self.conninfo.candidates().len() == 1 {
            return Err(failure);
        }
        let found = endpoint::find(&self.conninfo, &self.expected, async |session, name| {
            self.admit(session, name).await
        })
        .await;
        let (endpoint, session) = found.map_err(|mut failures| {
            failures.insert(0, failure);
            let may_pass = failures.iter().position(SourceError::is_transient);
            failures.swap_remove(may_pass.unwrap_or(0))
        })?;
        if endpoint.name != place.name {
            tracing::warn!("continuing with {} as the source", endpoint.name);
            self.seen().server += 1;
        }
        *place = Arc::new(endpoint);
        self.furnish(session).await
    }

    async fn furnish(&self, session: Session) -> Result<Session, SourceError> {
        let session = session.with_wal_magic().await?;
        let server = self.seen().server;
        Ok(session.in_run(server, silence(self.patience)))
    }

    /// Checks that the run can continue with a server, and that the server and the role can still serve as a source.
    async fn admit(&self, session: &Session, name: &str) -> Result<(), SourceError> {
        session.check().await?;
        let witness = session.witness().await?;
        let history = session.history(witness.control.timeline()).await?;
        let problem = self.seen().problem(&witness, &history);
        session.use_raw_names().await?;
        match problem {
            None => Ok(()),
            Some(Problem { text, may_pass }) => {
                Err(SourceError::Changed { server: name.to_owned(), problem: text, may_pass })
            }
        }
    }

    /// Records the witness of a result.
    fn observe(&self, session: &Session, server: u64, witness: &Witness) -> Result<(), SourceError> {
        let mut seen = self.seen();
        if seen.server != server {
            // The result comes from a server that is no longer the source: request it again.
            let problem = "another server has taken over as the source".to_owned();
            let server = "the server".to_owned();
            return Err(SourceError::Changed { server, problem, may_pass: true });
        }
        seen.advance(witness);
        let mut outage = lock(&self.outage);
        if let Some(begun) = outage.take_if(|begun| session.opened >= *begun) {
            tracing::info!(
                "connection to the source re-established after {:.1} s",
                begun.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

/// The failures of one request so far.
struct Trouble {
    /// When to give up.
    end: Instant,
    pause: Duration,
    last: SourceError,
}

/// Waits for a future, unless the run is asked to stop.
async fn unless_stopped<T>(
    stop: &StopFlag,
    wait: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let stopped = async {
        while !stop.is_requested() {
            tokio::time::sleep(STOP_PAUSE).await;
        }
    };
    tokio::select! {
        // A result that is already there is not discarded.
        biased;
        done = wait => done,
        () = stopped => Err(SourceError::Stopped),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
