//! Fetching ranges of files, or digests of them: several connections take batches from a shared queue, with several
//! batches in flight on each.
//!
//! Every row of a result is checked against the request. A batch is the unit of failure: none of its data is passed on
//! before the batch is complete and proven to belong to the source's history. Until then it can be requested again on
//! another connection.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::{TryStreamExt, future};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::ServerError;
use super::link::Link;
use super::queries::{Witness, column};
use super::session::{Session, answer};
use super::sql::{Asked, DigestOf, RawText, Typed};
use crate::datadir::data_path::DataPath;
use crate::source::error::SourceError;
use crate::source::seam::{ChunkSink, FetchError, FetchRange, block_at};

/// Batches in flight on each connection. While one is being transferred and one is being written here, the server has
/// others to process, also with a high network latency.
const LANES: usize = 4;

/// The largest number of ranges in a batch. With several batches in flight, larger ones are hardly faster.
const BATCH_RANGES: usize = 500;

/// The largest size of a batch, in bytes. [`LANES`] batches of each connection are held in memory, and a batch
/// interrupted by a lost connection is transferred again.
const BATCH_BYTES: u64 = 2 << 20;

const DOING: &str = "fetching file contents";

/// What is requested for each range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Contents,
    /// A digest of each part of it, of so many bytes.
    Digests {
        of: DigestOf,
        part: u32,
    },
}

/// Fetches `ranges` over all connections and passes them to `sink`.
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
    // The sink blocks on file I/O, so each connection is served by a thread of its own instead of by the runtime. The
    // calling thread serves the first.
    std::thread::scope(|scope| {
        for line in 1..link.lines().min(batches(ranges)) {
            let builder = std::thread::Builder::new().name("fetch".to_owned());
            if let Err(error) = builder.spawn_scoped(scope, move || run(line)) {
                // The other connections do its work.
                tracing::warn!("could not start a thread for a connection: {error}");
            }
        }
        run(0);
    });
    failure.into_result()
}

/// The approximate number of batches for these ranges, which limits the number of useful connections.
fn batches(ranges: &[FetchRange]) -> usize {
    let bytes: u64 = ranges.iter().map(|range| u64::from(range.length)).sum();
    let by_bytes = usize::try_from(bytes.div_ceil(BATCH_BYTES)).unwrap_or(usize::MAX);
    ranges.len().div_ceil(BATCH_RANGES).max(by_bytes)
}

/// Serves one connection: each lane has one batch in flight.
async fn run_session(job: &Job<'_>, queue: &Queue<'_>, failure: &Failure) -> Result<(), FetchError> {
    let lane = || async {
        while let Some(batch) = queue.take() {
            let link = job.link;
            let rows = link.ask(job.line, async |session| job.ask_for(session, batch).await).await?;
            job.pass_on(rows)?;
        }
        Ok(())
    };
    // With a rate limit, results would wait for the sink, and the server would seem not to respond.
    let lanes = if job.sink.is_slow() { 1 } else { LANES };
    tokio::select! {
        ended = future::try_join_all((0..lanes).map(|_| lane())) => ended.map(|_| ()),
        () = failure.happened() => Ok(()),
    }
}

/// The work of one connection.
struct Job<'a> {
    link: &'a Link,
    line: usize,
    wanted: Wanted,
    files: &'a [DataPath],
    sink: &'a dyn ChunkSink,
}

impl Job<'_> {
    /// Requests a batch. Its rows may arrive in any order, but each exactly once. The witness is requested without
    /// waiting for them; the server processes both in order.
    async fn ask_for(
        &self,
        session: &Session,
        batch: &[FetchRange],
    ) -> Result<(Vec<(FetchRange, Row)>, Witness), SourceError> {
        let asked = self.asked(batch);
        let parameters = asked.parameters();

        let rows = async {
            let (query, parameters) = match self.wanted {
                Wanted::Contents => (&session.fetch, &parameters[..3]),
                Wanted::Digests { .. } => (&session.digests, &parameters[..]),
            };
            let asked = session.client.query_typed_raw(query, parameters.iter().cloned());
            let mut rows = pin!(session.in_time(session.silence, DOING, asked).await?);
            let mut arrivals = Arrivals::new(batch);
            let mut found = Vec::with_capacity(batch.len());
            while let Some(row) = session.in_time(session.silence, DOING, rows.try_next()).await? {
                let range = arrivals.arrive(column(&row, 0, DOING)?)?;
                let bytes: Option<&[u8]> = column(&row, 1, DOING)?;
                if bytes.is_some_and(|bytes| bytes.len() > self.most(range)) {
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

    /// The largest number of bytes that are an answer to the request for a range.
    fn most(&self, range: FetchRange) -> usize {
        match self.wanted {
            Wanted::Contents => range.length as usize,
            Wanted::Digests { of, part } => of.size() * range.parts(part).count().max(1),
        }
    }

    /// Passes the rows to the sink.
    fn pass_on(&self, rows: Vec<(FetchRange, Row)>) -> Result<(), FetchError> {
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

    fn asked(&self, batch: &[FetchRange]) -> Asked<'_> {
        let (part, is_md5) = match self.wanted {
            Wanted::Contents => (0, false),
            Wanted::Digests { of, part } => (part as i32, of == DigestOf::Md5),
        };
        Asked {
            paths: self.paths(batch),
            begins: batch.iter().map(|range| range.offset as i64).collect(),
            lengths: batch.iter().map(|range| range.length as i32).collect(),
            part,
            is_md5,
        }
    }

    fn paths<'b>(&'b self, batch: &[FetchRange]) -> Vec<RawText<'b>> {
        batch.iter().map(|range| RawText(self.path(range).as_bytes())).collect()
    }

    /// Determines which file or block made a batch fail. The server's error names the file only in its message text, which
    /// may be translated, and never the block.
    async fn explain(&self, session: &Session, batch: &[FetchRange], error: SourceError) -> SourceError {
        let code = error.server_error().and_then(ServerError::code);
        let found = if code == Some(&SqlState::WRONG_OBJECT_TYPE) {
            self.directory(session, batch).await
        } else if code == Some(&SqlState::IO_ERROR) {
            self.unreadable(session, batch).await
        } else {
            None
        };
        found.unwrap_or(error)
    }

    /// The first of these files that has become a directory.
    async fn directory(&self, session: &Session, batch: &[FetchRange]) -> Option<SourceError> {
        let paths = self.paths(batch);
        let parameters: [Typed<'_>; 1] = [(&paths, Type::TEXT_ARRAY)];
        let found = session.client.query_typed(&session.dialect.directories(), &parameters).await;
        let ordinal = found.ok()?.first().and_then(|row| row.try_get::<_, i64>(0).ok())?;
        let range = batch.get(usize::try_from(ordinal).ok()?.checked_sub(1)?)?;
        Some(SourceError::BecameDirectory { path: self.path(range).clone() })
    }

    /// The first block that the server cannot read: asks for the ranges one by one, and then for the blocks of that range.
    async fn unreadable(&self, session: &Session, batch: &[FetchRange]) -> Option<SourceError> {
        let control = session.witness().await.ok()?.control;
        for range in batch {
            if self.read_error(session, *range).await.is_none() {
                continue;
            }
            for part in range.parts(control.block_size()) {
                if let Some(source) = self.read_error(session, part).await {
                    let block = block_at(self.path(&part), part.offset, &control);
                    let path = self.path(&part).below("".as_ref());
                    return Some(SourceError::Unreadable { path, block, source: source.into() });
                }
            }
        }
        None
    }

    /// Asks for a single range; returns the server's error if it cannot read it.
    async fn read_error(&self, session: &Session, range: FetchRange) -> Option<ServerError> {
        let range = [range];
        let asked = self.asked(&range);
        let parameters = asked.parameters();
        let asked = session.client.query_typed(&session.fetch, &parameters[..3]);
        match session.in_time(session.silence, DOING, asked).await {
            Err(SourceError::Query { source, .. }) if source.code() == Some(&SqlState::IO_ERROR) => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Matches the rows of a result with the ranges of the request.
struct Arrivals<'a> {
    batch: &'a [FetchRange],
    seen: Vec<bool>,
    missing: usize,
}

impl<'a> Arrivals<'a> {
    fn new(batch: &'a [FetchRange]) -> Arrivals<'a> {
        Arrivals { batch, seen: vec![false; batch.len()], missing: batch.len() }
    }

    /// The range that the row with this ordinal number (from 1) belongs to.
    fn arrive(&mut self, ordinal: i64) -> Result<FetchRange, SourceError> {
        let index = usize::try_from(ordinal).ok().and_then(|ordinal| ordinal.checked_sub(1));
        let found = index.and_then(|index| Some((self.batch.get(index)?, self.seen.get_mut(index)?)));
        match found {
            None => Err(answer(DOING, "a row that was not requested")),
            Some((_, true)) => Err(answer(DOING, "duplicate row")),
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
            _ => Err(answer(DOING, "fewer rows than requested")),
        }
    }
}

/// The ranges still to be fetched.
struct Queue<'a> {
    rest: Mutex<&'a [FetchRange]>,
}

impl<'a> Queue<'a> {
    fn new(ranges: &'a [FetchRange]) -> Queue<'a> {
        Queue { rest: Mutex::new(ranges) }
    }

    /// Takes the next batch, which is never empty; `None` when all are taken.
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

/// The first error of any connection; it stops the others.
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
        // Waiting fails only if the sender is dropped, and `self` holds it.
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
