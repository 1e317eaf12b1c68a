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
        with: &dyn Comparand,
    ) -> Result<(), FetchError> {
        assert_valid(files, ranges);
        let Some(digest_of) = self.link.facts.digest_of else {
            // The server computes no digests: treat every range as different.
            ranges.iter().for_each(|range| with.found(*range, false));
            return Ok(());
        };
        let digests = Digests { with, digest_of };
        fetch::fetch(self.runtime.handle(), &self.link, Wanted::Digest(digest_of), files, ranges, &digests)
    }
}

/// Compares digests of the source with those of the other side.
struct Digests<'a> {
    with: &'a dyn Comparand,
    digest_of: DigestOf,
}

impl ChunkSink for Digests<'_> {
    fn write(&self, range: FetchRange, digest: Option<&[u8]>) -> std::io::Result<()> {
        let mut ours = Vec::new();
        // A range that cannot be read here counts as different, and is copied.
        let same = self.with.read(range, &mut ours).is_ok()
            && digest.is_some_and(|digest| *digest == *self.digest_of.of(&ours));
        self.with.found(range, same);
        Ok(())
    }
}
