//! A running server as the source: everything is asked over SQL, nothing is written.
//!
//! The asynchronous side lives in a runtime of its own in here. All connections lead to one server; when
//! that is lost for a while, what was being asked is asked again.

mod channel;
mod dial;
mod endpoint;
pub(super) mod error;
mod fetch;
pub(super) mod grants;
mod link;
mod open;
mod peer_name;
mod proof;
mod queries;
pub(super) mod question;
mod session;
mod sql;
mod tls;

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::future;
use tokio::runtime::Runtime;
use walparse::{ControlFile, Flavor, Lsn};

use self::fetch::Wanted;
use self::link::Link;
use self::session::Expected;
use self::sql::DigestOf;
use super::error::SourceError;
use super::seam::{ChunkSink, Comparand, FetchError, FetchRange, Source, WalPosition, assert_valid};
use crate::conninfo::Conninfo;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;
use crate::stop::StopFlag;

/// A running server.
#[derive(Debug)]
pub struct ServerSource {
    /// Before the runtime, so that it is gone before the connections' tasks are.
    link: Link,
    runtime: Runtime,
}

/// The connection for everything but fetching. What is asked and the witness go out together, and the server
/// answers one after the other.
const FIRST: usize = 0;

impl ServerSource {
    /// Connects and checks that server and role are fit to be a source.
    ///
    /// Opens `connections` of them, or as many as the server allows. One that is lost later is tried to be made
    /// again for `retry_timeout`, zero for not at all; a request to `stop` ends every wait. `expected` is the
    /// target's flavor; the source's own is found by looking, unless `key` says it. Must not be called from within
    /// an asynchronous runtime.
    ///
    /// # Errors
    /// No connection, a server too old or without `full_page_writes`, a role without the privileges.
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
            // All is taken to differ.
            ranges.iter().for_each(|range| with.found(*range, false));
            return Ok(());
        };
        let digests = Digests { with, digest_of };
        fetch::fetch(self.runtime.handle(), &self.link, Wanted::Digest, files, ranges, &digests)
    }
}

/// Holds the source's digests against those of the other side.
struct Digests<'a> {
    with: &'a dyn Comparand,
    digest_of: DigestOf,
}

impl ChunkSink for Digests<'_> {
    fn write(&self, range: FetchRange, digest: Option<&[u8]>) -> std::io::Result<()> {
        let mut ours = Vec::new();
        // What cannot be read here is not the same: it will be copied.
        let same = self.with.read(range, &mut ours).is_ok()
            && digest.is_some_and(|digest| *digest == *self.digest_of.of(&ours));
        self.with.found(range, same);
        Ok(())
    }
}
