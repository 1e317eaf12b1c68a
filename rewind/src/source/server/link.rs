//! The connections of a run. Lost connections are re-established, to a server that is proven to be able to continue.
//!
//! The first connection is the one that counts: it is re-established for as long as the run has patience. Each further one
//! is only for speed. If one of them cannot be opened again, its requests are sent over the first.
//!
//! All connections lead to one instance of a server (see `instance`). After a restart of the server, or with another host
//! of the connection string, another instance takes over as the source. All connections then move to it, and results of the
//! former one are not accepted any more.
//!
//! The proof that an instance can take over: each request is followed by the witness, the control file and the end of WAL,
//! which is an upper bound for the WAL position of what was read. The new server must have that WAL in its own history.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use walparse::Lsn;

use super::endpoint::{self, Endpoint};
use super::instance::{Instance, Relation};
use super::open::{LONG_PAUSE, Opened, SHORT_PAUSE, open_first, open_further, silence};
use super::outage::Outages;
use super::proof::{Problem, Seen};
use super::queries::Witness;
use super::session::{Expected, Facts, Session};
use crate::conninfo::Conninfo;
use crate::source::error::SourceError;
use crate::source::seam::Connected;
use crate::stop::StopFlag;

/// The connection for everything but fetching, and the one that must not be missing.
pub(super) const FIRST: usize = 0;

/// The pause after a further connection could not be opened.
const FURTHER_PAUSE: Duration = Duration::from_secs(30);

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(1 << 32);

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
    /// The connections at the start.
    pub(super) connected: Connected,
    pub(super) facts: Facts,
    lines: Vec<tokio::sync::Mutex<Line>>,
    /// Where all connections lead to. If each connection tried the list of hosts by itself, blocks could come from another
    /// server than the listing.
    place: tokio::sync::Mutex<Arc<Place>>,
    /// The time limit for a further connection.
    wait: Duration,
    seen: Mutex<Seen>,
    outages: Mutex<Outages>,
}

/// The server of a run and its address.
#[derive(Debug)]
struct Place {
    endpoint: Arc<Endpoint>,
    instance: Instance,
}

/// One of the connections. The first one is indispensable; the run can continue without the others.
#[derive(Debug)]
struct Line {
    session: Option<Arc<Session>>,
    /// When to try again to open it, after it could not be opened.
    attempt_after: Option<Instant>,
}

impl Line {
    /// Reports that the run continues without this connection, and defers the next attempt to open it.
    fn give_up(&mut self, pause: Duration, error: &SourceError) {
        match self.attempt_after {
            None => tracing::warn!("continuing with fewer connections: {}", error.with_reasons()),
            Some(_) => tracing::debug!("no further connection: {}", error.with_reasons()),
        }
        *self = Line { session: None, attempt_after: Some(Instant::now() + pause) };
    }
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
        let Opened { endpoint, sessions, facts, seen, instance, wait } = opened;
        let connected = Connected {
            server: endpoint.name.clone(),
            version: sessions[0].version,
            connections: sessions.len(),
        };
        let line =
            |session| tokio::sync::Mutex::new(Line { session: Some(Arc::new(session)), attempt_after: None });
        Ok(Link {
            conninfo: conninfo.clone(),
            expected,
            patience,
            stop,
            connected,
            facts,
            lines: sessions.into_iter().map(line).collect(),
            place: tokio::sync::Mutex::new(Arc::new(Place { endpoint: Arc::new(endpoint), instance })),
            wait,
            seen: Mutex::new(seen),
            outages: Mutex::default(),
        })
    }

    /// The number of connections.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The name of the server in messages.
    pub(super) async fn name(&self) -> String {
        self.place.lock().await.endpoint.name.clone()
    }

    /// Announces where replay will start. A server whose data may be older is not accepted afterwards.
    pub(super) fn replayed_from(&self, redo: Lsn) {
        self.seen().redo = redo;
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
        mut line: usize,
        ask: impl AsyncFn(&Session) -> Result<(T, Witness), SourceError>,
    ) -> Result<T, SourceError> {
        let mut trouble = None;
        loop {
            let asked = self.ask_once(&mut line, &ask);
            // After the first failure, an attempt must not exceed the remaining time either.
            let asked = match &trouble {
                None => asked.await,
                Some(Trouble { end, .. }) => match tokio::time::timeout_at((*end).into(), asked).await {
                    Ok(asked) => asked,
                    Err(_) => return Err(self.lost(trouble)),
                },
            };
            match asked {
                Err(failure) if failure.error.is_transient() && line != FIRST => {
                    self.give_up_further(line, &failure).await;
                    line = FIRST;
                }
                Err(failure) if failure.error.is_transient() && self.patience > Duration::ZERO => {
                    self.wait(&mut trouble, failure).await;
                    if trouble.as_ref().is_some_and(|trouble| Instant::now() >= trouble.end) {
                        return Err(self.lost(trouble));
                    }
                }
                other => return other.map_err(|failure| failure.error),
            }
        }
    }

    /// Sends a request once. `line` becomes the line that was used.
    async fn ask_once<T>(
        &self,
        line: &mut usize,
        ask: &impl AsyncFn(&Session) -> Result<(T, Witness), SourceError>,
    ) -> Result<T, Failure> {
        let wanted = std::mem::replace(line, FIRST);
        let session = self.session(wanted).await;
        let (session, used) = session.map_err(|error| Failure { error, opened: None })?;
        *line = used;
        let asked = ask(&session).await.and_then(|(answer, witness)| {
            self.observe(&session, &witness)?;
            Ok(answer)
        });
        if asked.as_ref().is_err_and(SourceError::is_transient) {
            self.hang_up(used, &session).await;
        }
        asked.map_err(|error| Failure { error, opened: Some(session.opened) })
    }

    /// Reports the loss of a further connection. The next request on this line opens it again, if that is allowed at all.
    async fn give_up_further(&self, line: usize, failure: &Failure) {
        if self.patience > Duration::ZERO {
            return self.report(failure);
        }
        self.lines[line].lock().await.give_up(FOREVER, &failure.error);
    }

    /// Reports a failure, once per outage.
    fn report(&self, Failure { error, opened }: &Failure) {
        if lock(&self.outages).begins(*opened, Instant::now()) {
            tracing::warn!(
                "lost connection to the source: {}; trying again for up to {} s",
                error.with_reasons(),
                self.patience.as_secs()
            );
        }
        tracing::debug!("source: {}", error.with_reasons());
    }

    /// Records and reports a failure, and pauses.
    async fn wait(&self, trouble: &mut Option<Trouble>, failure: Failure) {
        self.report(&failure);
        let now = Instant::now();
        let pause = trouble.as_ref().map_or(SHORT_PAUSE, |trouble| (trouble.pause * 2).min(LONG_PAUSE));
        let end = trouble.as_ref().map_or(now + self.patience, |trouble| trouble.end);
        *trouble = Some(Trouble { end, pause, last: failure.error });
        tokio::time::sleep(pause.min(end.saturating_duration_since(now))).await;
    }

    fn lost(&self, trouble: Option<Trouble>) -> SourceError {
        let last = trouble.map(|trouble| trouble.last);
        let last = last.unwrap_or_else(|| unreachable!("gave up without a failure"));
        SourceError::Lost { patience: self.patience, source: Box::new(last) }
    }

    /// A session for a request on a line: its own, re-established if necessary, or else that of the first line. Returns
    /// the line it belongs to as well.
    async fn session(&self, line: usize) -> Result<(Arc<Session>, usize), SourceError> {
        if line == FIRST {
            return Ok((self.first().await?, FIRST));
        }
        let mut slot = self.lines[line].lock().await;
        if let Some(session) = self.usable(&slot.session) {
            return Ok((session, line));
        }
        // It holds the lock that a further session has to see.
        let first = self.first().await?;
        if slot.attempt_after.is_some_and(|time| Instant::now() < time) {
            return Ok((first, FIRST));
        }
        let (place, server) = {
            let place = self.place.lock().await;
            (Arc::clone(&place), self.seen().server)
        };
        match open_further(&place.endpoint, &place.instance, self.wait).await {
            Ok(session) => {
                let session = Arc::new(session.in_run(server, silence(self.patience)));
                *slot = Line { session: Some(Arc::clone(&session)), attempt_after: None };
                Ok((session, line))
            }
            Err(error) => {
                slot.give_up(FURTHER_PAUSE, &error);
                Ok((first, FIRST))
            }
        }
    }

    /// The session of the first line, re-established if necessary.
    async fn first(&self) -> Result<Arc<Session>, SourceError> {
        let mut slot = self.lines[FIRST].lock().await;
        if let Some(session) = self.usable(&slot.session) {
            return Ok(session);
        }
        slot.session = None;
        let session = Arc::new(self.connect().await?);
        slot.session = Some(Arc::clone(&session));
        Ok(session)
    }

    fn usable(&self, session: &Option<Arc<Session>>) -> Option<Arc<Session>> {
        let session = session.as_ref()?;
        (session.server == self.seen().server && !session.client.is_closed()).then(|| Arc::clone(session))
    }

    /// Closes a session that is lost, so that other requests waiting on it fail, too.
    async fn hang_up(&self, line: usize, session: &Arc<Session>) {
        session.hang_up();
        let mut slot = self.lines[line].lock().await;
        if slot.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            slot.session = None;
        }
    }

    /// Opens a session at the address of the others. If that fails, tries the other hosts of the connection string. If the
    /// server found is not the instance that was the source so far, it becomes the source, and all connections move to it.
    async fn connect(&self) -> Result<Session, SourceError> {
        let mut place = self.place.lock().await;
        let again = async {
            let session = place.endpoint.open().await?;
            place.endpoint.check_attributes(&session).await?;
            let taken_over = self.admit(&session, &place, &place.endpoint.name).await?;
            Ok((session, taken_over))
        };
        let failure = match again.await {
            Ok((session, taken_over)) => {
                if let Some(instance) = taken_over {
                    tracing::info!("the source server was restarted");
                    self.seen().server += 1;
                    *place = Arc::new(Place { endpoint: Arc::clone(&place.endpoint), instance });
                }
                return self.furnish(session).await;
            }
            Err(error) => error,
        };
        if self.conninfo.candidates().len() == 1 {
            return Err(failure);
        }
        let admit = async |session: &Session, name: &str| self.admit(session, &place, name).await;
        let found = endpoint::find(&self.conninfo, &self.expected, admit).await;
        let (endpoint, session, taken_over) = found.map_err(|mut failures| {
            failures.insert(0, failure);
            let may_pass = failures.iter().position(SourceError::is_transient);
            failures.swap_remove(may_pass.unwrap_or(0))
        })?;
        if endpoint.name != place.endpoint.name {
            tracing::warn!("continuing with {} as the source", endpoint.name);
        }
        self.seen().server += u64::from(taken_over.is_some());
        let instance = taken_over.unwrap_or_else(|| place.instance.clone());
        *place = Arc::new(Place { endpoint: Arc::new(endpoint), instance });
        self.furnish(session).await
    }

    async fn furnish(&self, session: Session) -> Result<Session, SourceError> {
        let session = session.with_wal_magic().await?;
        let server = self.seen().server;
        Ok(session.in_run(server, silence(self.patience)))
    }

    /// Checks that the run can continue with a server, and that the server and the role can still serve as a source.
    /// Returns its identity if it is another instance, which may take over:
    ///
    /// - the server at the same address only if it has the same data directory: it was restarted. Another server there
    ///   means that the address leads to several, and the next connection may lead to yet another one.
    /// - a server at another host of the connection string, because the user has named it.
    async fn admit(
        &self,
        session: &Session,
        place: &Place,
        name: &str,
    ) -> Result<Option<Instance>, SourceError> {
        session.check().await?;
        let witness = session.witness().await?;
        let history = session.history(witness.control.timeline()).await?;
        let problem = self.seen().problem(&witness, &history);
        if let Some(Problem { text, may_pass }) = problem {
            return Err(SourceError::Changed { server: name.to_owned(), problem: text, may_pass });
        }
        let taken_over = match place.instance.relation_to(session, &witness.control).await? {
            (Relation::Same, _) => None,
            (Relation::Another, other) if name == place.endpoint.name => {
                return Err(place.instance.refusal(&other, name));
            }
            _ => Some(Instance::of(session, &witness.control).await?),
        };
        session.use_raw_names().await?;
        Ok(taken_over)
    }

    /// Logs in for replication at the address of the connections, see
    /// [`Source::try_replication_login`](crate::source::seam::Source::try_replication_login).
    pub(super) async fn try_replication_login(&self) -> Result<(), SourceError> {
        let login = async {
            let endpoint = Arc::clone(&self.place.lock().await.endpoint);
            let ours = self.seen().system_identifier;
            match endpoint.try_replication().await? {
                theirs if theirs == ours => Ok(()),
                theirs => Err(SourceError::Changed {
                    server: endpoint.name.clone(),
                    problem: format!("it belongs to another database system ({theirs}, not {ours})"),
                    may_pass: false,
                }),
            }
        };
        let login = unless_stopped(&self.stop, login).await;
        login.map_err(|error| match error {
            SourceError::Stopped => error,
            source => SourceError::ReplicationLogin {
                role: self.conninfo.user().to_owned(),
                source: Box::new(source),
            },
        })
    }

    /// Records the witness of a result.
    fn observe(&self, session: &Session, witness: &Witness) -> Result<(), SourceError> {
        let mut seen = self.seen();
        if seen.server != session.server {
            // The result comes from a server that is no longer the source: request it again.
            let problem = "another server has taken over as the source".to_owned();
            let server = "the server".to_owned();
            return Err(SourceError::Changed { server, problem, may_pass: true });
        }
        seen.advance(witness);
        if let Some(lasted) = lock(&self.outages).ends(session.opened, Instant::now()) {
            tracing::info!("connection to the source re-established after {:.1} s", lasted.as_secs_f64());
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

/// Why a request failed, and when the session was opened that it failed on.
struct Failure {
    error: SourceError,
    opened: Option<Instant>,
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
