//! Fetching ranges, or digests of them: a shared queue of batches, several connections, some batches under way on each.
//!
//! Every row of an answer is held against the request it answers. A batch is the unit of failure: nothing of
//! it is handed on before all of it has come and is known to be of the source's history, so it can be asked
//! for again on a new connection.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::{TryStreamExt, future};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::link::Link;
use super::queries::{Witness, column};
use super::session::{Session, answer};
use super::sql::RawText;
use crate::datadir::data_path::DataPath;
use crate::source::error::SourceError;
use crate::source::seam::{ChunkSink, FetchError, FetchRange};

/// Batches under way on each connection: while one is on its way here and one is being written, the server, far away,
/// has others to work on.
const LANES: usize = 4;

/// The most ranges of a batch: with some under way the rate hardly grows beyond this.
const BATCH_RANGES: usize = 500;

/// The most bytes of a batch. [`LANES`] of them on every connection are in memory here, and what a lost connection
/// had brought of one is brought again.
const BATCH_BYTES: u64 = 2 << 20;

/// The most bytes of a digest.
const MAX_DIGEST: usize = 32;

const DOING: &str = "fetching file contents";

/// What is wanted of each range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Contents,
    /// The digest of its contents, by [`Session::digest_of`].
    Digest,
}

/// Fetches `ranges` over all connections and hands them to `sink`.
pub(super) fn fetch(
    runtime: &Handle,
    link: &Link,
    wanted: Wanted,
    files: &[DataPath],
    ranges: &[FetchRange],
    sink: &dyn ChunkSink,
) -> Result<(), FetchError> {
    let queue = Queue::new(ranges);
    let failure = Failure::new();
    let run = |line: usize| {
        let job = Job { link, line, wanted, files, sink };
        if let Err(error) = runtime.block_on(run_session(&job, &queue, &failure)) {
            failure.set(error);
        }
    };
    let run = &run;
    // The sink blocks (it writes files), so each connection's share runs in a thread of its own instead
    // of in the runtime. The caller's thread takes the first.
    std::thread::scope(|scope| {
        for line in 1..link.lines().min(batches(ranges)) {
            let builder = std::thread::Builder::new().name("fetch".to_owned());
            if let Err(error) = builder.spawn_scoped(scope, move || run(line)) {
                // The others take its share.
                tracing::warn!("could not start a thread for a connection: {error}");
            }
        }
        run(0);
    });
    failure.into_result()
}

/// About how many batches these ranges make: more connections than that would have nothing to do.
fn batches(ranges: &[FetchRange]) -> usize {
    let bytes: u64 = ranges.iter().map(|range| u64::from(range.length)).sum();
    let by_bytes = usize::try_from(bytes.div_ceil(BATCH_BYTES)).unwrap_or(usize::MAX);
    ranges.len().div_ceil(BATCH_RANGES).max(by_bytes)
}

/// The lanes of one connection: while one's answer is read, the others' requests are with the server.
async fn run_session(job: &Job<'_>, queue: &Queue<'_>, failure: &Failure) -> Result<(), FetchError> {
    let lane = || async {
        while let Some(batch) = queue.take() {
            let link = job.link;
            let rows = link.ask(job.line, async |session| job.ask_for(session, batch).await).await?;
            job.hand_on(rows)?;
        }
        Ok(())
    };
    // An answer that waits until a slow sink has taken those before it would look like a server that is silent.
    let lanes = if job.sink.is_slow() { 1 } else { LANES };
    tokio::select! {
        ended = future::try_join_all((0..lanes).map(|_| lane())) => ended.map(|_| ()),
        () = failure.happened() => Ok(()),
    }
}

/// What a connection works on.
struct Job<'a> {
    link: &'a Link,
    line: usize,
    wanted: Wanted,
    files: &'a [DataPath],
    sink: &'a dyn ChunkSink,
}

impl Job<'_> {
    /// Asks for a batch. Rows may come in any order, each must come once. The witness is asked for in the same
    /// breath, and the server answers one after the other.
    async fn ask_for(
        &self,
        session: &Session,
        batch: &[FetchRange],
    ) -> Result<(Vec<(FetchRange, Row)>, Witness), SourceError> {
        let paths = self.paths(batch);
        let begins: Vec<i64> = batch.iter().map(|range| range.offset as i64).collect();
        let lengths: Vec<i32> = batch.iter().map(|range| range.length as i32).collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&paths, &begins, &lengths];

        let rows = async {
            let statement = match self.wanted {
                Wanted::Contents => &session.fetch,
                Wanted::Digest => {
                    session.digest.as_ref().ok_or_else(|| answer(DOING, "it makes no digests now"))?
                }
            };
            let asked = session.client.query_raw(statement, parameters);
            let mut rows = pin!(session.in_time(session.silence, DOING, asked).await?);
            let mut arrivals = Arrivals::new(batch);
            let mut found = Vec::with_capacity(batch.len());
            while let Some(row) = session.in_time(session.silence, DOING, rows.try_next()).await? {
                let range = arrivals.arrive(column(&row, 0, DOING)?)?;
                let bytes: Option<&[u8]> = column(&row, 1, DOING)?;
                let most = match self.wanted {
                    Wanted::Contents => range.length as usize,
                    Wanted::Digest => MAX_DIGEST,
                };
                if bytes.is_some_and(|bytes| bytes.len() > most) {
                    return Err(SourceError::TooMuch { path: self.path(&range).clone() });
                }
                found.push((range, row));
            }
            arrivals.finish()?;
            Ok(found)
        };
        match future::try_join(rows, session.witness()).await {
            Err(error) => Err(self.explain(session, batch, error).await),
            asked => asked,
        }
    }

    /// Hands on what has come.
    fn hand_on(&self, rows: Vec<(FetchRange, Row)>) -> Result<(), FetchError> {
        for (range, row) in rows {
            let bytes: Option<&[u8]> = column(&row, 1, DOING)?;
            let stored = self.sink.write(range, bytes);
            stored.map_err(|source| FetchError::Sink { path: self.path(&range).clone(), source })?;
        }
        Ok(())
    }

    fn path(&self, range: &FetchRange) -> &DataPath {
        &self.files[range.file as usize]
    }

    fn paths<'b>(&'b self, batch: &[FetchRange]) -> Vec<RawText<'b>> {
        batch.iter().map(|range| RawText(self.path(range).as_bytes())).collect()
    }

    /// Finds out whether a batch failed because a file has become a directory: the server says that
    /// something is one, but which only in words.
    async fn explain(&self, session: &Session, batch: &[FetchRange], error: SourceError) -> SourceError {
        let code = error.server_error().and_then(|error| error.code());
        if code == Some(&SqlState::WRONG_OBJECT_TYPE) {
            let found = session.client.query_opt(&session.dialect.directories(), &[&self.paths(batch)]).await;
            let ordinal = found.ok().flatten().and_then(|row| row.try_get::<_, i64>(0).ok());
            let at = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok()?.checked_sub(1));
            if let Some(range) = at.and_then(|at| batch.get(at)) {
                return SourceError::BecameDirectory { path: self.path(range).clone() };
            }
        }
        error
    }
}

/// Holds the rows of an answer against the ranges of the request.
struct Arrivals<'a> {
    batch: &'a [FetchRange],
    seen: Vec<bool>,
    missing: usize,
}

impl<'a> Arrivals<'a> {
    fn new(batch: &'a [FetchRange]) -> Arrivals<'a> {
        Arrivals { batch, seen: vec![false; batch.len()], missing: batch.len() }
    }

    /// The range that the row with this ordinal (from 1) answers.
    fn arrive(&mut self, ordinal: i64) -> Result<FetchRange, SourceError> {
        let index = usize::try_from(ordinal).ok().and_then(|ordinal| ordinal.checked_sub(1));
        let found = index.and_then(|index| Some((self.batch.get(index)?, self.seen.get_mut(index)?)));
        match found {
            None => Err(answer(DOING, "a row that was not asked for")),
            Some((_, true)) => Err(answer(DOING, "the same row twice")),
            Some((range, seen)) => {
                *seen = true;
                self.missing -= 1;
                Ok(*range)
            }
        }
    }

    fn finish(self) -> Result<(), SourceError> {
        match self.missing {
            0 => Ok(()),
            _ => Err(answer(DOING, "fewer rows than asked for")),
        }
    }
}

/// Deals out the ranges in batches.
struct Queue<'a> {
    rest: Mutex<&'a [FetchRange]>,
}

impl<'a> Queue<'a> {
    fn new(ranges: &'a [FetchRange]) -> Queue<'a> {
        Queue { rest: Mutex::new(ranges) }
    }

    /// The next batch: never empty.
    fn take(&self) -> Option<&'a [FetchRange]> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let fitting = rest.iter().take(BATCH_RANGES).take_while(|range| {
            bytes += u64::from(range.length);
            bytes <= BATCH_BYTES
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, left) = rest.split_at(count);
        *rest = left;
        (!batch.is_empty()).then_some(batch)
    }
}

/// The first error of any connection; makes the others stop.
struct Failure {
    first: Mutex<Option<FetchError>>,
    happened: watch::Sender<bool>,
}

impl Failure {
    fn new() -> Failure {
        Failure { first: Mutex::new(None), happened: watch::Sender::new(false) }
    }

    fn set(&self, error: FetchError) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.happened.send_replace(true);
    }

    async fn happened(&self) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.happened.subscribe().wait_for(|happened| *happened).await;
    }

    fn into_result(self) -> Result<(), FetchError> {
        match self.first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::seam::MAX_RANGE;

    fn ranges(lengths: &[u32]) -> Vec<FetchRange> {
        lengths.iter().map(|length| FetchRange { file: 0, offset: 0, length: *length }).collect()
    }

    #[test]
    fn batches_keep_to_both_limits_and_lose_nothing() {
        let sizes = |lengths: &[u32]| {
            let ranges = ranges(lengths);
            let queue = Queue::new(&ranges);
            let batches: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
            assert_eq!(batches.concat(), ranges);
            batches.iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[100; 1200]), [500, 500, 200]);
        assert_eq!(sizes(&[MAX_RANGE; 17]), [8, 8, 1]);
        assert_eq!(sizes(&[u32::MAX, 1, u32::MAX]), [1, 1, 1]);
    }

    #[test]
    fn every_row_must_arrive_exactly_once() {
        let ranges = ranges(&[10, 20]);
        let mut arrivals = Arrivals::new(&ranges);
        assert_eq!(arrivals.arrive(2).unwrap().length, 20);
        for bad in [2, 0, -1, 3, i64::MIN, i64::MAX] {
            assert!(arrivals.arrive(bad).is_err(), "{bad}");
        }
        assert_eq!(arrivals.arrive(1).unwrap().length, 10);
        assert!(arrivals.finish().is_ok());
        assert!(Arrivals::new(&ranges).finish().is_err());
    }
}
