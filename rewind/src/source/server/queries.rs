//! What is asked over one session. Every question is complete in itself, so it can be asked again on another.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};
use walparse::{ControlFile, Lsn, TimelineHistory, TimelineId};

use super::session::{Session, answer};
use super::sql::RawText;
use crate::datadir::data_path::DataPath;
use crate::datadir::flavor;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::source::error::SourceError;
use crate::source::seam::{MAX_RANGE, WalPosition};

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
        let path = self.flavor.names().control_file;
        let mut tries = 1;
        loop {
            let asked = self.client.query_opt(&self.witness, &[]);
            let row = self.in_time(self.silence, doing, asked).await?;
            let row = row.ok_or_else(|| answer(doing, "no row"))?;
            let bytes: Option<&[u8]> = column(&row, 0, doing)?;
            let bytes = bytes.ok_or_else(|| SourceError::NoControlFile { path: path.to_owned() })?;
            match ControlFile::parse_as(bytes, self.flavor) {
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
        let path = DataPath::parse(format!("{}/{}", self.flavor.wal_dir(), timeline.history_file_name()))?;
        let doing = format!("reading the history file \"{path}\"");
        let text = self.read_file(&path).await?.ok_or_else(|| answer(&doing, "there is no such file"))?;
        TimelineHistory::parse(timeline, &text).map_err(|error| answer(&doing, &error.to_string()))
    }

    /// The same session with the magic number of the source's WAL, if it is a fork's and may have any.
    pub(super) async fn with_wal_magic(mut self) -> Result<Session, SourceError> {
        /// Looking at more would not help: they would be of another cluster, too.
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

    /// The whole of a small file; `None` if there is none.
    pub(super) async fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        self.read_whole(path.as_bytes(), path).await
    }

    /// The whole of a small file at `place`, called `path` in messages.
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

    /// Where the data directory is; a role without the right to know gets no row.
    pub(super) async fn data_directory(&self) -> Result<Option<String>, SourceError> {
        let doing = "asking where the data directory is";
        let settings = &self.dialect.settings;
        let query = format!("SELECT s.setting FROM {settings} AS s WHERE s.name = 'data_directory'");
        // In the encoding of the server, whatever that is.
        let found = self.rows(&query, &[], doing, self.silence, |row| {
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
        let query = self.dialect.list(self.flavor.names());
        let entries = self.rows(&query, &[], doing, silence, |row| entry(row, encoding, doing)).await?;
        Inventory::new(entries).map_err(|path| SourceError::Duplicate { path })
    }

    /// The names and sizes of the plain files in the WAL directory.
    pub(super) async fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        self.list_files(self.flavor.wal_dir()).await
    }

    /// The directory the server archives into by itself.
    async fn archive_directory(&self) -> Result<Option<String>, SourceError> {
        if !self.flavor.has_archive_dest() {
            return Ok(None);
        }
        let doing = "asking where the source archives WAL";
        let query = "SELECT current_setting('archive_dest', true)";
        let found = self.rows(query, &[], doing, self.silence, |row| column::<Option<String>>(row, 0, doing));
        Ok(found.await?.into_iter().flatten().find(|directory| !directory.is_empty()))
    }

    /// The names and sizes of the files there; `None` if it does not.
    pub(super) async fn list_archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
        match self.archive_directory().await? {
            Some(directory) => self.list_files(&directory).await.map(Some),
            None => Ok(None),
        }
    }

    /// The whole of one of these files.
    pub(super) async fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(directory) = self.archive_directory().await? else { return Ok(None) };
        self.read_whole(format!("{directory}/{name}").as_bytes(), &DataPath::parse(name)?).await
    }

    async fn list_files(&self, directory: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let doing = "listing the source's WAL";
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&directory, Type::TEXT)];
        let query = self.dialect.list_files();
        let entries = self.rows(&query, &parameters, doing, self.silence, |row| {
            let RawText(name) = column(row, 0, doing)?;
            // No name of a WAL file is anything but ASCII.
            let Ok(name) = str::from_utf8(name) else { return Ok(None) };
            DataPath::parse(name)?;
            Ok(Some((name.to_owned(), size(row, 1, doing)?)))
        });
        Ok(entries.await?.into_iter().flatten().collect())
    }

    /// Reads a range of a file.
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
        let parsed = column::<Option<&str>>(row, index, doing)?.map(str::parse).transpose();
        parsed.map_err(|_| answer(doing, "a position that is none"))
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
