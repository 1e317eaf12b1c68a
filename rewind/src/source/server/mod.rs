//! A running server as the source: everything is asked over SQL, nothing is written.
//!
//! The asynchronous side lives in a runtime of its own in here. All connections lead to the one server
//! that answered first.

mod fetch;
mod session;
mod sql;

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{PgLsn, ToSql};
use walparse::{ControlFile, Lsn};

use self::session::{Endpoint, Facts, Session, answer, query};
use self::sql::{Dialect, RawText};
use super::conninfo::Conninfo;
use super::error::SourceError;
use super::{ChunkSink, FetchError, FetchRange, MAX_RANGE, Source, WalPosition};
use crate::data_path::DataPath;
use crate::inventory::{EntryKind, Inventory};
use crate::milestone;

/// Connections to use unless told otherwise: the second nearly doubles the rate, more gain little.
pub const DEFAULT_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// The largest file that is read whole.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// More is asked for than a control file has, to see one that is too long.
const CONTROL_FILE_READ: i64 = 2 * walparse::control::CONTROL_FILE_SIZE as i64;

/// A control file under a concurrent write is whole again in far less than these tries take.
const CONTROL_FILE_TRIES: usize = 10;
const CONTROL_FILE_PAUSE: Duration = Duration::from_millis(10);

/// A running server.
#[derive(Debug)]
pub struct ServerSource {
    /// Before the runtime, so that it is gone before the connections' tasks are.
    sessions: Vec<Session>,
    endpoint: Endpoint,
    dialect: &'static Dialect,
    facts: Facts,
    runtime: Runtime,
}

impl ServerSource {
    /// Connects and checks that server and role are fit to be a source.
    ///
    /// Opens `connections` of them, or as many as the server allows. Must not be called from within an
    /// asynchronous runtime.
    ///
    /// # Errors
    /// No connection, a server too old or without `full_page_writes`, a role without the privileges.
    pub fn connect(conninfo: &Conninfo, connections: NonZeroUsize) -> Result<ServerSource, SourceError> {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.min(connections.get()))
            .thread_name("source")
            .enable_all()
            .build()
            .map_err(|source| SourceError::Runtime { source })?;
        let (endpoint, first) = runtime.block_on(session::find(conninfo))?;
        let (version, dialect) = (first.version, first.dialect);
        let facts = runtime.block_on(first.check())?;
        let sessions = runtime.block_on(open_more(&endpoint, first, connections))?;
        tracing::info!(
            milestone = milestone::CONNECTED,
            "connected to {}, version {version}, {} connection(s)",
            endpoint.name,
            sessions.len()
        );
        Ok(ServerSource { sessions, endpoint, dialect, facts, runtime })
    }

    /// `server_version_num`
    pub fn server_version(&self) -> u32 {
        self.first().version
    }

    /// The session for everything but fetching.
    fn first(&self) -> &Session {
        &self.sessions[0]
    }

    /// Runs a query and turns each row into something as it arrives.
    fn rows<T>(
        &self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
        doing: &str,
        mut read: impl FnMut(&Row) -> Result<T, SourceError>,
    ) -> Result<Vec<T>, SourceError> {
        let failed = |error| query(doing, error);
        self.runtime.block_on(async {
            let parameters = parameters.iter().copied();
            let mut rows = pin!(self.first().client.query_raw(text, parameters).await.map_err(failed)?);
            let mut found = Vec::new();
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                found.push(read(&row)?);
            }
            Ok(found)
        })
    }

    /// Reads a range of a file.
    fn read(&self, path: &[u8], offset: i64, length: i64) -> Result<Option<Vec<u8>>, SourceError> {
        let shown = String::from_utf8_lossy(path);
        let doing = format!("reading file \"{shown}\"");
        let found = self.rows(sql::READ, &[&RawText(path), &offset, &length], &doing, |row| {
            let bytes: Option<&[u8]> = row.try_get(0).map_err(|error| query(&doing, error))?;
            Ok(bytes.map(<[u8]>::to_vec))
        })?;
        match <[_; 1]>::try_from(found) {
            Ok([Some(bytes)]) if bytes.len() as i64 > length => {
                Err(answer(&doing, "received more than requested"))
            }
            Ok([bytes]) => Ok(bytes),
            Err(_) => Err(answer(&doing, "not exactly one row")),
        }
    }

    /// Makes an entry of a row of the listing.
    fn entry(&self, row: &Row) -> Result<(DataPath, EntryKind), SourceError> {
        let doing = "listing the source's files";
        let failed = |error| query(doing, error);
        let RawText(name) = row.try_get(0).map_err(failed)?;
        let path = DataPath::parse(name)?;
        if self.facts.encoding == "UTF8" && path.as_str().is_none() {
            return Err(SourceError::NameEncoding { path, encoding: self.facts.encoding.clone() });
        }
        let is_directory: bool = row.try_get(1).map_err(failed)?;
        let location: Option<RawText<'_>> = row.try_get(3).map_err(failed)?;
        // An in-place tablespace has a relative location: it is a directory, not a link.
        let target = location.map(|RawText(bytes)| Path::new(OsStr::from_bytes(bytes)));
        let kind = match target.filter(|target| target.is_absolute()) {
            Some(target) => EntryKind::Symlink { target: target.to_owned() },
            None if is_directory => EntryKind::Directory,
            None => EntryKind::File { size: size(row, 2, doing)? },
        };
        Ok((path, kind))
    }
}

impl Source for ServerSource {
    fn name(&self) -> String {
        self.endpoint.name.clone()
    }

    fn data_directory(&self) -> Option<String> {
        // Roles without the right to know it get no row.
        let query = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";
        let found = self.rows(query, &[], "ask where the data directory is", |row| Ok(row.get(0)));
        found.ok()?.pop()
    }

    fn control_file(&self) -> Result<ControlFile, SourceError> {
        let path = self.dialect.control_file;
        let mut tries = 1;
        loop {
            let bytes = self.read(path.as_bytes(), 0, CONTROL_FILE_READ)?;
            let bytes = bytes.ok_or_else(|| SourceError::NoControlFile { path: path.to_owned() })?;
            match ControlFile::parse(&bytes) {
                Ok(control) => return Ok(control),
                Err(error) if error.may_be_torn() && tries < CONTROL_FILE_TRIES => {
                    tries += 1;
                    std::thread::sleep(CONTROL_FILE_PAUSE);
                }
                Err(source) => return Err(SourceError::ControlFile { path: path.to_owned(), source }),
            }
        }
    }

    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        let mut bytes = Vec::new();
        loop {
            let Some(part) = self.read(path.as_bytes(), bytes.len() as i64, i64::from(MAX_RANGE))? else {
                return Ok(None);
            };
            bytes.extend_from_slice(&part);
            if part.len() < MAX_RANGE as usize {
                return Ok(Some(bytes));
            }
            if bytes.len() as u64 >= MAX_SMALL_FILE {
                return Err(SourceError::TooLarge { path: path.clone(), limit: MAX_SMALL_FILE });
            }
        }
    }

    fn list(&self) -> Result<Inventory, SourceError> {
        let entries = self.rows(sql::LIST, &[], "listing the source's files", |row| self.entry(row))?;
        Inventory::new(entries).map_err(|path| SourceError::Duplicate { path })
    }

    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        let doing = "listing the source's WAL";
        let entries = self.rows(sql::LIST_FILES, &[&self.dialect.wal_dir], doing, |row| {
            let RawText(name) = row.try_get(0).map_err(|error| query(doing, error))?;
            // No name of a WAL file is anything but ASCII.
            let Ok(name) = str::from_utf8(name) else { return Ok(None) };
            DataPath::parse(name)?;
            Ok(Some((name.to_owned(), size(row, 1, doing)?)))
        })?;
        Ok(entries.into_iter().flatten().collect())
    }

    fn position(&self) -> Result<WalPosition, SourceError> {
        let doing = "asking for the WAL position";
        let found = self.rows(&self.dialect.positions(), &[], doing, |row| {
            let failed = |error| query(doing, error);
            let standby: bool = row.try_get(0).map_err(failed)?;
            let lsn = |index| -> Result<Option<Lsn>, SourceError> {
                let position: Option<PgLsn> = row.try_get(index).map_err(failed)?;
                Ok(position.map(|position| Lsn(position.into())))
            };
            Ok((standby, lsn(1)?, lsn(2)?))
        })?;
        match found[..] {
            [(false, Some(insert), Some(flush))] => Ok(WalPosition::Primary { insert, flush }),
            // Received is unknown without streaming, and stays behind if WAL comes from an archive.
            [(true, received, Some(replayed))] => {
                Ok(WalPosition::Standby { received: received.unwrap_or(replayed).max(replayed), replayed })
            }
            _ => Err(answer(doing, "no position")),
        }
    }

    /// # Panics
    /// If a range names no file of `files` or is longer than [`MAX_RANGE`].
    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError> {
        super::assert_valid(files, ranges);
        fetch::fetch(self.runtime.handle(), &self.sessions, files, ranges, sink)
    }
}

/// Adds connections to the first, up to `wanted` or as many as the server allows.
async fn open_more(
    endpoint: &Endpoint,
    first: Session,
    wanted: NonZeroUsize,
) -> Result<Vec<Session>, SourceError> {
    first.use_raw_names().await?;
    let mut sessions = vec![first];
    while sessions.len() < wanted.get() {
        let session = match endpoint.open().await {
            Ok(session) => session,
            Err(SourceError::Connect { source, .. })
                if source.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) =>
            {
                tracing::warn!("going on with {} of {wanted} connections: {source}", sessions.len());
                break;
            }
            Err(error) => return Err(error),
        };
        session.use_raw_names().await?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// A file size in a row.
fn size(row: &Row, column: usize, doing: &str) -> Result<u64, SourceError> {
    let size: i64 = row.try_get(column).map_err(|error| query(doing, error))?;
    u64::try_from(size).map_err(|_| answer(doing, "a negative file size"))
}
