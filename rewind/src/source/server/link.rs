//! The connections of a run. One that is lost is made anew, to a server that is proven to go on from where
//! the run has got to.
//!
//! The proof: everything that is asked is followed by a look at the control file and the WAL position, which
//! bounds what was read from above. A server on a new connection must have that WAL, in its own history.

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

/// How soon a request to stop is seen.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// The connections.
#[derive(Debug)]
pub(super) struct Link {
    conninfo: Conninfo,
    expected: Expected,
    /// How long a lost connection is tried to be made again; zero: not at all.
    patience: Duration,
    stop: StopFlag,
    pub(super) facts: Facts,
    lines: Vec<tokio::sync::Mutex<Option<Arc<Session>>>>,
    /// Where all of them lead to. Were the list of hosts gone through for each connection, half of the blocks
    /// could come from another server than the listing.
    place: tokio::sync::Mutex<Arc<Endpoint>>,
    seen: Mutex<Seen>,
    /// Since when there has been no connection; for messages.
    outage: Mutex<Option<Instant>>,
}

impl Link {
    /// Connects, checks that server and role are fit to be a source, and opens as many connections as are
    /// wanted and to be had.
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

    /// What to call the server in messages.
    pub(super) async fn name(&self) -> String {
        self.place.lock().await.name.clone()
    }

    /// Says from where on replay will make good what is read: a server whose data may be older is refused.
    pub(super) fn replayed_from(&self, redo: Lsn) {
        let mut seen = self.seen();
        seen.redo = seen.redo.min(redo);
    }

    /// Asks something on one of the connections. If that is lost, the question is asked again on a new one.
    ///
    /// `ask` must end with the witness: what is read after it is not bounded.
    ///
    /// # Errors
    /// What cannot be mended by another connection, what could not be mended in time, or that the run is to stop.
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
            // Once there is trouble, a try may not outlast the patience either.
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

    /// Notes what went wrong, tells of it if it is new, and lets some time pass.
    async fn wait(&self, trouble: &mut Option<Trouble>, error: SourceError) {
        let now = Instant::now();
        let begun = lock(&self.outage).replace(now);
        match begun {
            // Other connections are lost already, by the same cause mostly.
            Some(begun) => *lock(&self.outage) = Some(begun),
            None => tracing::warn!(
                "lost the source: {}; trying again for up to {} s",
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
        let last = last.unwrap_or_else(|| unreachable!("given up without any trouble"));
        SourceError::Lost { patience: self.patience, source: Box::new(last) }
    }

    /// The session of a line, opened anew if need be, and which server it leads to.
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

    /// Forgets a session that is lost. Others that wait for an answer on it would wait in vain.
    async fn hang_up(&self, line: usize, session: &Arc<Session>) {
        session.hang_up();
        let mut slot = self.lines[line].lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *slot = None;
        }
    }

    /// Opens a session where the others lead to; if there is nobody, at another host of the string, where the
    /// others go as well then.
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
            tracing::warn!("going on with {} as the source", endpoint.name);
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

    /// Makes sure that a server goes on from where the run has got to, and that it and the role are still fit.
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

    /// Takes note of what an answer came with.
    fn observe(&self, session: &Session, server: u64, witness: &Witness) -> Result<(), SourceError> {
        let mut seen = self.seen();
        if seen.server != server {
            // Nothing bounds it from now on: it is asked for again.
            let problem = "another server has taken its place".to_owned();
            let server = "the server".to_owned();
            return Err(SourceError::Changed { server, problem, may_pass: true });
        }
        seen.advance(witness);
        let mut outage = lock(&self.outage);
        if let Some(begun) = outage.take_if(|begun| session.opened >= *begun) {
            tracing::info!("the source is back after {:.1} s", begun.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

/// What has gone wrong with one question so far.
struct Trouble {
    /// When the patience ends.
    end: Instant,
    pause: Duration,
    last: SourceError,
}

/// Waits for something, but not beyond a request to stop.
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
        // What has come is not thrown away.
        biased;
        done = wait => done,
        () = stopped => Err(SourceError::Stopped),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
