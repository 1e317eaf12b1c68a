//! A running server as the source: read with SQL functions over ordinary connections; nothing is written.
//!
//! The asynchronous client runs in a runtime of its own. All connections of a run lead to one server. When connections
//! are lost, they are re-established, and requests without an answer are sent again.
//!
//! From the bottom up: `tls`, `channel` and `dial` open one authenticated connection; `session` prepares it for reading,
//! and `queries` reads; `endpoint` finds the server of a connection string; `open` makes the connections that a run
//! begins with; `instance` tells whether they lead to one server; `link` keeps them alive, with the rules of `proof`; `fetch` spreads reads over them.

mod channel;
mod dial;
mod endpoint;
pub(super) mod error;
mod fetch;
pub(super) mod grants;
mod instance;
mod link;
mod open;
mod outage;
mod peer_name;
mod proof;
mod queries;
pub(super) mod question;
mod replication;
mod session;
mod sql;
mod tls;

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::future;
use tokio::runtime::Runtime;
use walparse::{ControlFile, Flavor, Lsn};

use self::fetch::Wanted;
use self::link::{FIRST, Link};
use self::session::Expected;
use self::sql::DigestOf;
use super::error::SourceError;
use super::seam::{
    ChunkSink, Comparand, Connected, FetchError, FetchRange, SlotState, Source, SummarizedBlocks,
    WalPosition, WalSummaries, WalSummary, assert_valid,
};
use crate::conninfo::Conninfo;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;
use crate::stop::StopFlag;

/// A running server.
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use std::time::Duration;
///
/// use kbrecover_rewind::StopFlag;
/// use kbrecover_rewind::conninfo::{Conninfo, ProcessEnvironment};
/// use kbrecover_rewind::source::{ServerSource, Source};
/// use walparse::Version;
///
/// let conninfo = Conninfo::parse("host=192.168.1.102 user=rewind_user", &ProcessEnvironment::PostgreSql)?;
/// let flavor = Version::all().last().expect("a supported version").flavor();
/// let source = ServerSource::connect(
///     &conninfo,
///     NonZeroUsize::MIN,
///     Duration::from_secs(60),
///     StopFlag::default(),
///     (flavor, None),
/// )?;
/// println!("{}: {:?}", source.name(), source.position()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ServerSource {
    /// Declared before the runtime, so that it is dropped first: the connections need their tasks to close.
    link: Link,
    runtime: Runtime,
}

impl ServerSource {
    /// Connects, and checks that the server and the role can serve as a source.
    ///
    /// Opens `connections` connections, or as many as the server allows. A connection that is lost later is
    /// re-established for up to `retry_timeout`; zero disables this. A request to `stop` ends every wait. `expected` is
    /// the product and version of the target, which decides how the server's functions are named; the source's own is
    /// detected, unless `key` names its product ([`Flavor::keys`]).
    ///
    /// Must not be called from within an asynchronous runtime.
    ///
    /// # Errors
    /// No connection, an unsupported version, `full_page_writes` off, or missing privileges.
    pub fn connect(
        conninfo: &Conninfo,
        connections: NonZeroUsize,
        retry_timeout: Duration,
        stop: StopFlag,
        (expected, key): (Flavor, Option<&str>),
    ) -> Result<ServerSource, SourceError> {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.min(connections.get()))
            .thread_name("source")
            .enable_all()
            .build()
            .map_err(|source| SourceError::Runtime { source })?;
        let expected = Expected { flavor: expected, key: key.map(str::to_owned) };
        let link = runtime.block_on(Link::open(conninfo, expected, connections, retry_timeout, stop))?;
        Ok(ServerSource { link, runtime })
    }
}

impl Source for ServerSource {
    fn name(&self) -> String {
        self.runtime.block_on(self.link.name())
    }

    fn connected(&self) -> Option<Connected> {
        Some(self.link.connected.clone())
    }

    fn data_directory(&self) -> Option<String> {
        let asked = self
            .link
            .ask(FIRST, async |session| future::try_join(session.data_directory(), session.witness()).await);
        self.runtime.block_on(asked).ok()?
    }

    fn control_file(&self) -> Result<ControlFile, SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            let witness = session.witness().await?;
            Ok((witness.control.clone(), witness))
        });
        self.runtime.block_on(asked)
    }

    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| Ok((session.read_file(path).await?, session.witness().await?)));
        self.runtime.block_on(asked)
    }

    fn list(&self) -> Result<Inventory, SourceError> {
        let encoding = &self.link.facts.encoding;
        let asked = self
            .link
            .ask(FIRST, async |session| future::try_join(session.list(encoding), session.witness()).await);
        self.runtime.block_on(asked)
    }

    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| future::try_join(session.list_wal(), session.witness()).await);
        self.runtime.block_on(asked)
    }

    fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| Ok((session.list_archive().await?, session.witness().await?)));
        self.runtime.block_on(asked)
    }

    fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| Ok((session.read_archived(name).await?, session.witness().await?)));
        self.runtime.block_on(asked)
    }

    fn position(&self) -> Result<WalPosition, SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            let witness = session.witness().await?;
            Ok((witness.position, witness))
        });
        self.runtime.block_on(asked)
    }

    fn wal_summaries(&self) -> Result<WalSummaries, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| future::try_join(session.wal_summaries(), session.witness()).await);
        self.runtime.block_on(asked)
    }

    fn summarized(&self, summaries: &[WalSummary]) -> Result<Option<SummarizedBlocks>, SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            future::try_join(session.summarized(summaries), session.witness()).await
        });
        self.runtime.block_on(asked)
    }

    fn may_replicate(&self) -> Result<Option<bool>, SourceError> {
        let asked = self
            .link
            .ask(FIRST, async |session| future::try_join(session.may_replicate(), session.witness()).await);
        self.runtime.block_on(asked)
    }

    fn check_may_checkpoint(&self) -> Result<(), SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            Ok((session.check_may_checkpoint().await?, session.witness().await?))
        });
        self.runtime.block_on(asked)
    }

    fn checkpoint(&self) -> Result<(), SourceError> {
        let asked =
            self.link.ask(FIRST, async |session| Ok((session.checkpoint().await?, session.witness().await?)));
        self.runtime.block_on(asked)
    }

    fn replication_slot(&self, name: &str) -> Result<Option<SlotState>, SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            future::try_join(session.replication_slot(name), session.witness()).await
        });
        self.runtime.block_on(asked)
    }

    fn kept_wal(&self) -> Result<Option<u64>, SourceError> {
        let asked = self.link.ask(FIRST, async |session| {
            let witness = session.witness().await?;
            Ok((session.kept_wal(witness.control.geometry().segment_size.bytes()).await?, witness))
        });
        self.runtime.block_on(asked)
    }

    fn try_replication_login(&self) -> Result<(), SourceError> {
        self.runtime.block_on(self.link.try_replication_login())
    }

    fn replayed_from(&self, redo: Lsn) {
        self.link.replayed_from(redo);
    }

    /// # Panics
    /// If a range names no file of `files` or is longer than [`MAX_RANGE`](super::seam::MAX_RANGE).
    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError> {
        assert_valid(files, ranges);
        fetch::fetch(self.runtime.handle(), &self.link, Wanted::Contents, files, ranges, sink)
    }

    /// # Panics
    /// If a range names no file of `files` or is longer than [`MAX_RANGE`](super::seam::MAX_RANGE).
    fn compare(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        part: u32,
        with: &dyn Comparand,
    ) -> Result<(), FetchError> {
        assert_valid(files, ranges);
        let Some(of) = self.link.facts.digest_of else {
            // The server computes no digests: treat every part as different.
            let parts = ranges.iter().flat_map(|range| range.parts(part));
            parts.for_each(|part| with.found(part, false));
            return Ok(());
        };
        let wanted = Wanted::Digests { of, part };
        fetch::fetch(self.runtime.handle(), &self.link, wanted, files, ranges, &Digests { with, of, part })
    }
}

/// Compares digests of the source with those of the other side, part by part.
struct Digests<'a> {
    with: &'a dyn Comparand,
    of: DigestOf,
    part: u32,
}

impl ChunkSink for Digests<'_> {
    fn write(&self, range: FetchRange, digests: Option<&[u8]>) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        // A range that cannot be read here counts as different, and is copied.
        let digests = digests.filter(|_| self.with.read(range, &mut bytes).is_ok());
        let mut theirs = digests.map(|digests| digests.chunks(self.of.size()));
        for (number, part) in range.parts(self.part).enumerate() {
            let ours = range.bytes_of(part, &bytes);
            let same = theirs.as_mut().is_some_and(|theirs| match theirs.next() {
                Some(digest) => *digest == *self.of.of(ours),
                // Behind the end of the source's file.
                None => number > 0 && ours.is_empty(),
            });
            self.with.found(part, same);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::sync::Mutex;

    use super::*;

    /// The bytes of a range here, `None` if they cannot be read; and what was found.
    struct Ours(Option<Vec<u8>>, Mutex<Vec<(FetchRange, bool)>>);

    impl Comparand for Ours {
        fn read(&self, _: FetchRange, bytes: &mut Vec<u8>) -> io::Result<()> {
            bytes.extend_from_slice(self.0.as_ref().ok_or(ErrorKind::NotFound)?);
            Ok(())
        }

        fn found(&self, part: FetchRange, same: bool) {
            self.1.lock().unwrap().push((part, same));
        }
    }

    /// Whether each part of 4 bytes of a range of 10 bytes is the same.
    fn compare(of: DigestOf, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Vec<bool> {
        let ours = Ours(ours.map(<[u8]>::to_vec), Mutex::default());
        let range = FetchRange { file: 3, offset: 100, length: 10 };
        let digests = theirs.map(|bytes| match bytes {
            [] => of.of(bytes),
            bytes => bytes.chunks(4).flat_map(|part| of.of(part)).collect(),
        });
        Digests { with: &ours, of, part: 4 }.write(range, digests.as_deref()).unwrap();
        let found = ours.1.into_inner().unwrap();
        let parts = [(100, 4), (104, 4), (108, 2)];
        let parts = parts.map(|(offset, length)| FetchRange { file: 3, offset, length });
        assert_eq!(found.iter().map(|(part, _)| *part).collect::<Vec<_>>(), parts);
        found.into_iter().map(|(_, same)| same).collect()
    }

    #[test]
    fn each_part_of_a_range_is_compared() {
        for of in [DigestOf::Sha256, DigestOf::Md5] {
            let all = Some(&b"0123456789"[..]);
            assert_eq!(compare(of, all, all), [true; 3]);
            assert_eq!(compare(of, all, Some(b"0123x56789")), [true, false, true]);
            // The source's file ends within the range, or the target's, or both.
            assert_eq!(compare(of, all, Some(b"012345")), [true, false, false]);
            assert_eq!(compare(of, Some(b"0123"), all), [true, false, false]);
            assert_eq!(compare(of, Some(b"0123"), Some(b"0123")), [true; 3]);
            assert_eq!(compare(of, Some(b""), Some(b"")), [true; 3]);
            assert_eq!(compare(of, Some(b""), all), [false; 3]);
            assert_eq!(compare(of, all, Some(b"")), [false; 3]);
            // One of them does not exist, or cannot be read.
            assert_eq!(compare(of, Some(b""), None), [false; 3]);
            assert_eq!(compare(of, None, all), [false; 3]);
        }
    }
}
