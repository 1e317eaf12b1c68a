//! The requests that a session can make. Each is complete in itself, so it can be repeated on another session.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};
use walparse::{BlockNumber, ControlFile, Lsn, Relation, TimelineHistory, TimelineId};

use super::session::{Session, answer, if_allowed};
use super::sql::{self, Dialect, RawText};
use crate::datadir::data_path::DataPath;
use crate::datadir::flavor;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::source::error::SourceError;
use crate::source::seam::{MAX_RANGE, SlotState, SummarizedBlocks, WalPosition, WalSummaries, WalSummary};

/// The largest file that is read as a whole, in bytes.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// The largest number of rows accepted: a listing is held in memory.
const MAX_ENTRIES: usize = 1 << 24;

/// The largest file size accepted, that of ext4. Relation segments are a thousand times smaller.
const MAX_FILE: i64 = 1 << 44;

/// A control file torn by a concurrent write is read again. The write takes far less time than all attempts together.
const CONTROL_FILE_TRIES: usize = 10;
const CONTROL_FILE_PAUSE: Duration = Duration::from_millis(10);

/// The state of a server just after a request: the control file and the end of WAL. It bounds the WAL position of
/// everything read before it, and a server that is to take over must have that WAL.
pub(super) struct Witness {
    pub(super) control: ControlFile,
    pub(super) position: WalPosition,
}

impl Session {
    /// Reads the control file and the end of WAL.
    pub(super) async fn witness(&self) -> Result<Witness, SourceError> {
        let doing = "reading the control file and the WAL position";
        let path = self.flavor.names().control_file;
        let mut tries = 1;
        loop {
            let asked = self.client.query_typed(&self.witness, &[]);
            let rows = self.in_time(self.silence, doing, asked).await?;
            let row = rows.first().ok_or_else(|| answer(doing, "no rows"))?;
            let bytes: Option<&[u8]> = column(row, 0, doing)?;
            let bytes = bytes.ok_or_else(|| SourceError::NoControlFile { path: path.to_owned() })?;
            match ControlFile::parse_as(bytes, self.flavor) {
                Ok(control) => return Ok(Witness { control, position: position(row, doing)? }),
                Err(error) if error.may_be_torn() && tries < CONTROL_FILE_TRIES => {
                    tries += 1;
                    tokio::time::sleep(CONTROL_FILE_PAUSE).await;
                }
                Err(source) => return Err(SourceError::ControlFile { path: path.to_owned(), source }),
            }
        }
    }

    /// Reads the history of a timeline. Timeline 1 has no history file.
    pub(super) async fn history(&self, timeline: TimelineId) -> Result<TimelineHistory, SourceError> {
        if timeline <= TimelineId(1) {
            return Ok(TimelineHistory::of_first(timeline));
        }
        let path = DataPath::parse(format!("{}/{}", self.flavor.wal_dir(), timeline.history_file_name()))?;
        let doing = format!("reading the history file \"{path}\"");
        let text = self.read_file(&path).await?.ok_or_else(|| answer(&doing, "the file does not exist"))?;
        TimelineHistory::parse(timeline, &text).map_err(|error| answer(&doing, &error.to_string()))
    }

    /// Detects the magic number of WAL pages on a server of a fork, whose number is not known beforehand.
    pub(super) async fn with_wal_magic(mut self) -> Result<Session, SourceError> {
        /// Segments examined at most. If none of them matches the control file, more would not either.
        const LOOKS: usize = 16;
        if !self.flavor.is_fork() {
            return Ok(self);
        }
        let control = self.witness().await?.control;
        let names = self.list_wal().await?.into_iter().map(|(name, _)| name);
        for (segment, name) in flavor::segments(&control, names).take(LOOKS) {
            let path = DataPath::parse(format!("{}/{name}", self.flavor.wal_dir()))?;
            let front = self.read(path.as_bytes(), &path, 0, 40).await?.unwrap_or_default();
            if let Some(flavor) = flavor::with_magic_of(self.flavor, &control, segment, &front) {
                self.flavor = flavor;
                return Ok(self);
            }
        }
        Ok(self)
    }

    /// Reads a small file as a whole; `None` if it does not exist.
    pub(super) async fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        self.read_whole(path.as_bytes(), path).await
    }

    /// Reads a small file at `place`, which messages call `path`.
    async fn read_whole(&self, place: &[u8], path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        let mut bytes = Vec::new();
        loop {
            let part = self.read(place, path, bytes.len() as i64, i64::from(MAX_RANGE)).await?;
            let Some(part) = part else { return Ok(None) };
            bytes.extend_from_slice(&part);
            if part.len() < MAX_RANGE as usize {
                return Ok(Some(bytes));
            }
            if bytes.len() as u64 >= MAX_SMALL_FILE {
                return Err(SourceError::TooLarge { path: path.clone(), limit: MAX_SMALL_FILE });
            }
        }
    }

    /// The path of the data directory; `None` for a role that may not see this setting.
    pub(super) async fn data_directory(&self) -> Result<Option<String>, SourceError> {
        let doing = "reading setting data_directory";
        let settings = &self.dialect.settings;
        let query = format!("SELECT s.setting FROM {settings} AS s WHERE s.name = 'data_directory'");
        // The path is not necessarily valid in the database encoding.
        let found = self.rows(&query, &[], doing, self.silence, |row| {
            let RawText(bytes) = column(row, 0, doing)?;
            Ok(String::from_utf8(bytes.to_vec()).ok())
        });
        Ok(found.await?.pop().flatten())
    }

    /// Lists the data directory recursively.
    pub(super) async fn list(&self, encoding: &str) -> Result<Inventory, SourceError> {
        let doing = "listing the source's files";
        // The planner may sort the whole listing before it returns the first row.
        let silence = self.silence.map(|silence| silence * 10);
        let query = self.dialect.list(self.flavor.names());
        let entries = self.rows(&query, &[], doing, silence, |row| entry(row, encoding, doing)).await?;
        Inventory::new(entries).map_err(|path| SourceError::Duplicate { path })
    }

    /// Lists the regular files in the WAL directory: name and size.
    pub(super) async fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        self.list_files(self.flavor.wal_dir()).await
    }

    /// The directory named by KingbaseES's `archive_dest`.
    async fn archive_directory(&self) -> Result<Option<String>, SourceError> {
        if !self.flavor.has_archive_dest() {
            return Ok(None);
        }
        let doing = "reading setting archive_dest";
        let query = "SELECT current_setting('archive_dest', true)";
        let found = self.rows(query, &[], doing, self.silence, |row| column::<Option<String>>(row, 0, doing));
        Ok(found.await?.into_iter().flatten().find(|directory| !directory.is_empty()))
    }

    /// Lists the regular files in that directory; `None` if there is no such setting.
    pub(super) async fn list_archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
        match self.archive_directory().await? {
            Some(directory) => self.list_files(&directory).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads one of these files as a whole.
    pub(super) async fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(directory) = self.archive_directory().await? else { return Ok(None) };
        self.read_whole(format!("{directory}/{name}").as_bytes(), &DataPath::parse(name)?).await
    }

    /// Whether the role that logged in may start replication; `None` if this cannot be determined.
    pub(super) async fn may_replicate(&self) -> Result<Option<bool>, SourceError> {
        let row = self.row_if_allowed(self.dialect.may_replicate(), "checking the role").await?;
        Ok(row.map(|row| sql::is_true(row.first().and_then(Option::as_deref))))
    }

    /// Checks that the role may request a checkpoint.
    pub(super) async fn check_may_checkpoint(&self) -> Result<(), SourceError> {
        let query = Dialect::may_checkpoint(self.version, self.flavor);
        let row = self.row_if_allowed(Some(query), "checking the role").await?;
        // Where this cannot be asked, the request will show it.
        let Some(row) = row else { return Ok(()) };
        let mut values = row.iter().map(Option::as_deref);
        if sql::is_true(values.next().flatten()) {
            return Ok(());
        }
        Err(SourceError::MayNotCheckpoint {
            role: values.next().flatten().unwrap_or_default().to_owned(),
            can_be_granted: sql::has_checkpoint_role(self.version, self.flavor),
        })
    }

    /// Requests a checkpoint and waits for it, however long it takes: the server may have much to write.
    pub(super) async fn checkpoint(&self) -> Result<(), SourceError> {
        let done = self.in_time(None, "waiting for a checkpoint", self.client.batch_execute("CHECKPOINT"));
        done.await
    }

    /// The state of a replication slot; `None` if this cannot be determined.
    pub(super) async fn replication_slot(&self, name: &str) -> Result<Option<SlotState>, SourceError> {
        let doing = "looking up the replication slot";
        let Some(query) = self.dialect.replication_slot() else { return Ok(None) };
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&name, Type::TEXT)];
        let found = self.rows(&query, &parameters, doing, self.silence, |row| {
            let is_active = column(row, 1, doing)?;
            let restart_lsn = lsn(row, 2, doing)?;
            Ok(match column(row, 0, doing)? {
                "physical" => SlotState::Physical { is_active, restart_lsn },
                _ => SlotState::Logical,
            })
        });
        let found = if_allowed(found.await)?;
        Ok(found.map(|found| found.into_iter().next().unwrap_or(SlotState::Missing)))
    }

    /// The bytes of WAL that are kept for standbys without a slot; `None` if this cannot be determined.
    pub(super) async fn kept_wal(&self, segment_size: u64) -> Result<Option<u64>, SourceError> {
        let row = self.row_if_allowed(Some(self.dialect.kept_wal()), "reading how much WAL is kept").await;
        let row = match row {
            Err(SourceError::Answer { .. }) => None,
            row => row?,
        };
        let Some([Some(kept), Some(name)]) = row.as_deref() else { return Ok(None) };
        let unit = if name == "wal_keep_size" { 1 << 20 } else { segment_size };
        Ok(kept.parse::<u64>().ok().and_then(|kept| kept.checked_mul(unit)))
    }

    /// The summaries of its WAL that the server has; none if it cannot have any, or the role may not ask.
    pub(super) async fn wal_summaries(&self) -> Result<WalSummaries, SourceError> {
        let doing = "listing the source's WAL summaries";
        if self.flavor.is_fork() || self.version < sql::SUMMARIES_SINCE {
            return Ok(WalSummaries::default());
        }
        let mut goes_on = false;
        let found = self.rows(sql::SUMMARIES, &[], doing, self.silence, |row| {
            let timeline = column::<i64>(row, 0, doing)?;
            let timeline = u32::try_from(timeline).map_err(|_| answer(doing, "invalid timeline"))?;
            goes_on |= column::<bool>(row, 3, doing)?;
            Ok(WalSummary {
                timeline: TimelineId(timeline),
                start: lsn(row, 1, doing)?.ok_or_else(|| answer(doing, "no WAL position"))?,
                end: lsn(row, 2, doing)?.ok_or_else(|| answer(doing, "no WAL position"))?,
            })
        });
        let present = if_allowed(found.await)?.unwrap_or_default();
        Ok(WalSummaries { present, goes_on })
    }

    /// What these summaries say about main forks; `None` if the server cannot read one of them.
    pub(super) async fn summarized(
        &self,
        summaries: &[WalSummary],
    ) -> Result<Option<SummarizedBlocks>, SourceError> {
        let doing = "reading the source's WAL summaries";
        let timelines: Vec<i64> = summaries.iter().map(|summary| i64::from(summary.timeline.0)).collect();
        let starts: Vec<String> = summaries.iter().map(|summary| summary.start.to_string()).collect();
        let ends: Vec<String> = summaries.iter().map(|summary| summary.end.to_string()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&timelines, Type::INT8_ARRAY), (&starts, Type::TEXT_ARRAY), (&ends, Type::TEXT_ARRAY)];
        let mut blocks = SummarizedBlocks::default();
        let read = self.rows(sql::SUMMARIZED, &parameters, doing, self.silence, |row| {
            add_summarized(&mut blocks, row, doing)
        });
        Ok(if_allowed(read.await)?.map(|_| blocks))
    }

    async fn list_files(&self, directory: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let doing = "listing the source's WAL";
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&directory, Type::TEXT)];
        let query = self.dialect.list_files();
        let entries = self.rows(&query, &parameters, doing, self.silence, |row| {
            let RawText(name) = column(row, 0, doing)?;
            // The names of WAL files are ASCII.
            let Ok(name) = str::from_utf8(name) else { return Ok(None) };
            DataPath::parse(name)?;
            Ok(Some((name.to_owned(), size(row, 1, doing)?)))
        });
        Ok(entries.await?.into_iter().flatten().collect())
    }

    /// Reads a range of a file; `None` if the file does not exist.
    async fn read(
        &self,
        place: &[u8],
        path: &DataPath,
        offset: i64,
        length: i64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let doing = format!("reading file \"{path}\"");
        let name = RawText(place);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&name, Type::TEXT), (&offset, Type::INT8), (&length, Type::INT8)];
        let query = self.dialect.read();
        let found = self.rows(&query, &parameters, &doing, self.silence, |row| {
            let bytes: Option<&[u8]> = column(row, 0, &doing)?;
            Ok(bytes.map(<[u8]>::to_vec))
        });
        match <[_; 1]>::try_from(found.await?) {
            Ok([Some(bytes)]) if bytes.len() as i64 > length => {
                Err(answer(&doing, "received more than requested"))
            }
            Ok([bytes]) => Ok(bytes),
            Err(_) => Err(answer(&doing, "expected exactly one row")),
        }
    }

    /// Executes a query and converts each row as it arrives. `silence` limits the wait for each row.
    async fn rows<T>(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        doing: &str,
        silence: Option<Duration>,
        mut read: impl FnMut(&Row) -> Result<T, SourceError>,
    ) -> Result<Vec<T>, SourceError> {
        // With the parameter types given, this takes one round trip instead of two.
        let parameters = parameters.iter().map(|(value, of)| (*value, of.clone()));
        let asked = self.client.query_typed_raw(text, parameters);
        let mut rows = pin!(self.in_time(silence, doing, asked).await?);
        let mut found = Vec::new();
        while let Some(row) = self.in_time(silence, doing, rows.try_next()).await? {
            if found.len() >= MAX_ENTRIES {
                return Err(answer(doing, &format!("more than {MAX_ENTRIES} rows")));
            }
            found.push(read(&row)?);
        }
        Ok(found)
    }
}

/// A column of a row. An unexpected type is reported as an unexpected result.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize, doing: &str) -> Result<T, SourceError> {
    row.try_get(index).map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        answer(doing, &reason.unwrap_or_else(|| error.to_string()))
    })
}

/// Converts a row of the listing.
fn entry(row: &Row, encoding: &str, doing: &str) -> Result<(DataPath, EntryKind), SourceError> {
    let RawText(name) = column(row, 0, doing)?;
    let path = DataPath::parse(name)?;
    if encoding == "UTF8" && path.as_str().is_none() {
        return Err(SourceError::NameEncoding { path, encoding: encoding.to_owned() });
    }
    let is_directory: bool = column(row, 1, doing)?;
    let location: Option<RawText<'_>> = column(row, 3, doing)?;
    // An in-place tablespace is a directory in pg_tblspc, and its location is relative.
    let target = location.map(|RawText(bytes)| Path::new(OsStr::from_bytes(bytes)));
    let kind = match target.filter(|target| target.is_absolute()) {
        Some(target) => EntryKind::Symlink { target: target.to_owned() },
        None if is_directory => EntryKind::Directory,
        None => EntryKind::File { size: size(row, 2, doing)? },
    };
    Ok((path, kind))
}

/// A file size in a row, checked.
fn size(row: &Row, index: usize, doing: &str) -> Result<u64, SourceError> {
    match column::<i64>(row, index, doing)? {
        size @ 0..=MAX_FILE => Ok(size.unsigned_abs()),
        size => Err(answer(doing, &format!("a file size of {size} bytes"))),
    }
}

/// Adds a row of the contents of WAL summaries.
fn add_summarized(blocks: &mut SummarizedBlocks, row: &Row, doing: &str) -> Result<(), SourceError> {
    let relation = Relation {
        tablespace: column(row, 0, doing)?,
        database: column(row, 1, doing)?,
        number: column(row, 2, doing)?,
    };
    let block: i64 = column(row, 4, doing)?;
    let block = u32::try_from(block).map_err(|_| answer(doing, &format!("block number {block}")))?;
    match (column::<i16>(row, 3, doing)?, column::<bool>(row, 5, doing)?) {
        (0, true) => blocks.limit(relation, BlockNumber(block)),
        (0, false) => _ = blocks.named.insert(relation, BlockNumber(block)),
        // The init fork was created or removed, and the main fork with it.
        _ => blocks.limit(relation, BlockNumber(0)),
    }
    Ok(())
}

/// The WAL position in a column of a row.
fn lsn(row: &Row, index: usize, doing: &str) -> Result<Option<Lsn>, SourceError> {
    let parsed = column::<Option<&str>>(row, index, doing)?.map(str::parse).transpose();
    parsed.map_err(|_| answer(doing, "invalid WAL position"))
}

/// The WAL position in a row of the witness query.
fn position(row: &Row, doing: &str) -> Result<WalPosition, SourceError> {
    let standby: bool = column(row, 1, doing)?;
    match (standby, lsn(row, 2, doing)?, lsn(row, 3, doing)?) {
        (false, Some(insert), Some(flush)) => Ok(WalPosition::Primary { insert, flush }),
        // The receive position is NULL without streaming, and is not advanced by WAL restored from an archive.
        (true, received, Some(replayed)) => {
            Ok(WalPosition::Standby { received: received.unwrap_or(replayed).max(replayed), replayed })
        }
        _ => Err(answer(doing, "no WAL position")),
    }
}
