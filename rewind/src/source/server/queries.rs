//! What is asked over one session. Every question is complete in itself, so it can be asked again on another.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, PgLsn, ToSql, Type};
use walparse::{ControlFile, Lsn, TimelineHistory, TimelineId};

use super::session::{Session, answer};
use super::sql::{self, RawText};
use crate::data_path::DataPath;
use crate::inventory::{EntryKind, Inventory};
use crate::source::error::SourceError;
use crate::source::{MAX_RANGE, WalPosition};

/// The largest file that is read whole.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// The most entries a data directory may have: a listing is kept in memory.
const MAX_ENTRIES: usize = 1 << 24;

/// The largest file that ext4 can hold: no server makes one of a thousandth of that.
const MAX_FILE: i64 = 1 << 44;

/// A control file under a concurrent write is whole again in far less than these tries take.
const CONTROL_FILE_TRIES: usize = 10;
const CONTROL_FILE_PAUSE: Duration = Duration::from_millis(10);

/// What a server is at a moment: by this it is known again.
pub(super) struct Witness {
    pub(super) control: ControlFile,
    pub(super) position: WalPosition,
}

impl Session {
    /// The control file, and how far the WAL has come.
    pub(super) async fn witness(&self) -> Result<Witness, SourceError> {
        let doing = "reading the control file and asking for the WAL position";
        let path = self.dialect.control_file;
        let mut tries = 1;
        loop {
            let asked = self.client.query_opt(&self.witness, &[]);
            let row = self.in_time(self.silence, doing, asked).await?;
            let row = row.ok_or_else(|| answer(doing, "no row"))?;
            let bytes: Option<&[u8]> = column(&row, 0, doing)?;
            let bytes = bytes.ok_or_else(|| SourceError::NoControlFile { path: path.to_owned() })?;
            match ControlFile::parse(bytes) {
                Ok(control) => return Ok(Witness { control, position: position(&row, doing)? }),
                Err(error) if error.may_be_torn() && tries < CONTROL_FILE_TRIES => {
                    tries += 1;
                    tokio::time::sleep(CONTROL_FILE_PAUSE).await;
                }
                Err(source) => return Err(SourceError::ControlFile { path: path.to_owned(), source }),
            }
        }
    }

    /// The history of a timeline; the first has no file.
    pub(super) async fn history(&self, timeline: TimelineId) -> Result<TimelineHistory, SourceError> {
        if timeline <= TimelineId(1) {
            return Ok(TimelineHistory::of_first(timeline));
        }
        let path = DataPath::parse(format!("{}/{}", self.dialect.wal_dir, timeline.history_file_name()))?;
        let doing = format!("reading the history file \"{path}\"");
        let text = self.read_file(&path).await?.ok_or_else(|| answer(&doing, "there is no such file"))?;
        TimelineHistory::parse(timeline, &text).map_err(|error| answer(&doing, &error.to_string()))
    }

    /// The whole of a small file; `None` if there is none.
    pub(super) async fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        let mut bytes = Vec::new();
        loop {
            let part = self.read(path, bytes.len() as i64, i64::from(MAX_RANGE)).await?;
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

    /// Where the data directory is; a role without the right to know gets no row.
    pub(super) async fn data_directory(&self) -> Result<Option<String>, SourceError> {
        let doing = "asking where the data directory is";
        let query = "SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'data_directory'";
        // In the encoding of the server, whatever that is.
        let found = self.rows(query, &[], doing, self.silence, |row| {
            let RawText(bytes) = column(row, 0, doing)?;
            Ok(String::from_utf8(bytes.to_vec()).ok())
        });
        Ok(found.await?.pop().flatten())
    }

    /// Everything in the data directory.
    pub(super) async fn list(&self, encoding: &str) -> Result<Inventory, SourceError> {
        let doing = "listing the source's files";
        // A server may choose to sort it all before the first row.
        let silence = self.silence.map(|silence| silence * 10);
        let entries = self.rows(sql::LIST, &[], doing, silence, |row| entry(row, encoding, doing)).await?;
        Inventory::new(entries).map_err(|path| SourceError::Duplicate { path })
    }

    /// The names and sizes of the plain files in the WAL directory.
    pub(super) async fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        let doing = "listing the source's WAL";
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&self.dialect.wal_dir, Type::TEXT)];
        let entries = self.rows(sql::LIST_FILES, &parameters, doing, self.silence, |row| {
            let RawText(name) = column(row, 0, doing)?;
            // No name of a WAL file is anything but ASCII.
            let Ok(name) = str::from_utf8(name) else { return Ok(None) };
            DataPath::parse(name)?;
            Ok(Some((name.to_owned(), size(row, 1, doing)?)))
        });
        Ok(entries.await?.into_iter().flatten().collect())
    }

    /// Reads a range of a file.
    async fn read(&self, path: &DataPath, offset: i64, length: i64) -> Result<Option<Vec<u8>>, SourceError> {
        let doing = format!("reading file \"{path}\"");
        let name = RawText(path.as_bytes());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&name, Type::TEXT), (&offset, Type::INT8), (&length, Type::INT8)];
        let found = self.rows(sql::READ, &parameters, &doing, self.silence, |row| {
            let bytes: Option<&[u8]> = column(row, 0, &doing)?;
            Ok(bytes.map(<[u8]>::to_vec))
        });
        match <[_; 1]>::try_from(found.await?) {
            Ok([Some(bytes)]) if bytes.len() as i64 > length => {
                Err(answer(&doing, "received more than requested"))
            }
            Ok([bytes]) => Ok(bytes),
            Err(_) => Err(answer(&doing, "not exactly one row")),
        }
    }

    /// Runs a query and turns each row into something as it arrives. `silence` is the longest wait for a row.
    async fn rows<T>(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        doing: &str,
        silence: Option<Duration>,
        mut read: impl FnMut(&Row) -> Result<T, SourceError>,
    ) -> Result<Vec<T>, SourceError> {
        // With the types said at once, it takes one round trip.
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

/// A column of a row. One of another type than asked for is a senseless answer.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize, doing: &str) -> Result<T, SourceError> {
    row.try_get(index).map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        answer(doing, &reason.unwrap_or_else(|| error.to_string()))
    })
}

/// Makes an entry of a row of the listing.
fn entry(row: &Row, encoding: &str, doing: &str) -> Result<(DataPath, EntryKind), SourceError> {
    let RawText(name) = column(row, 0, doing)?;
    let path = DataPath::parse(name)?;
    if encoding == "UTF8" && path.as_str().is_none() {
        return Err(SourceError::NameEncoding { path, encoding: encoding.to_owned() });
    }
    let is_directory: bool = column(row, 1, doing)?;
    let location: Option<RawText<'_>> = column(row, 3, doing)?;
    // An in-place tablespace has a relative location: it is a directory, not a link.
    let target = location.map(|RawText(bytes)| Path::new(OsStr::from_bytes(bytes)));
    let kind = match target.filter(|target| target.is_absolute()) {
        Some(target) => EntryKind::Symlink { target: target.to_owned() },
        None if is_directory => EntryKind::Directory,
        None => EntryKind::File { size: size(row, 2, doing)? },
    };
    Ok((path, kind))
}

/// A file size in a row.
fn size(row: &Row, index: usize, doing: &str) -> Result<u64, SourceError> {
    match column::<i64>(row, index, doing)? {
        size @ 0..=MAX_FILE => Ok(size.unsigned_abs()),
        size => Err(answer(doing, &format!("a file size of {size} bytes"))),
    }
}

/// The position in a row of the witness.
fn position(row: &Row, doing: &str) -> Result<WalPosition, SourceError> {
    let standby: bool = column(row, 1, doing)?;
    let lsn = |index| -> Result<Option<Lsn>, SourceError> {
        Ok(column::<Option<PgLsn>>(row, index, doing)?.map(|position| Lsn(position.into())))
    };
    match (standby, lsn(2)?, lsn(3)?) {
        (false, Some(insert), Some(flush)) => Ok(WalPosition::Primary { insert, flush }),
        // Received is unknown without streaming, and stays behind if WAL comes from an archive.
        (true, received, Some(replayed)) => {
            Ok(WalPosition::Standby { received: received.unwrap_or(replayed).max(replayed), replayed })
        }
        _ => Err(answer(doing, "no position")),
    }
}
