//! The small files that a flow reads and writes: configuration, state between two runs, locks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::flow::StepError;

/// Replaces or creates a file atomically and durably.
///
/// # Errors
/// It cannot be written.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<(), StepError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        // tempfile creates it with mode 0600, the usual mode in a data directory.
        let mut file = tempfile::Builder::new().prefix(".kbrecover-").tempfile_in(directory)?;
        file.write_all(text.as_ref())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| file_error("write", path, &error))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StepError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| file_error("sync", path, &error))
}

/// Opens a file for writing, and creates it with mode 0600 if necessary. The directory may be world-writable, so a
/// symbolic link is not followed.
pub(crate) fn open_for_lock(path: &Path) -> io::Result<File> {
    let flags = UNTRUSTED.bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Flags for opening a file in a world-writable directory: fail on a symbolic link, and do not wait for the other end of
/// a FIFO.
const UNTRUSTED: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// The text of a state file in such a directory; `None` if there is none. Ignores, with a warning, a file that is not a
/// regular file of this user.
pub(crate) fn read_state_file(path: &Path) -> Option<String> {
    let read = || -> io::Result<String> {
        let file = OpenOptions::new().read(true).custom_flags(UNTRUSTED.bits() as i32).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is not a regular file of this user"));
        }
        let mut text = String::new();
        file.take(STATE_FILE_SIZE).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("ignoring file \"{}\": {error}", path.display());
            None
        }
    }
}

/// No state file is larger.
const STATE_FILE_SIZE: u64 = 4096;

/// The text of a file that is not going to be changed; `None` if it does not exist.
///
/// # Errors
/// It exists but cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StepError> {
    Ok(read_bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The bytes of a file that may be changed: its comments and values can be in any encoding. `None` if it does not exist.
///
/// # Errors
/// It exists but cannot be read.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StepError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("read", path, &error)),
    }
}

/// Removes a file if it exists.
///
/// # Errors
/// It exists but cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), StepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| file_error("remove", path, &error)),
    }
}

/// Whether a rewind of a data directory is unfinished.
///
/// # Errors
/// Its backup label exists but cannot be read.
pub(crate) fn is_half_rewound(data: &Path) -> Result<bool, StepError> {
    let label = read(&data.join("backup_label"))?;
    Ok(label.is_some_and(|text| kbrecover_rewind::is_mark(text.as_bytes())))
}

/// Whether a line of a configuration file sets this parameter.
pub(crate) fn sets(line: &[u8], setting: &str) -> bool {
    let name = line.trim_ascii_start().split(|byte| b"= \t".contains(byte)).next().unwrap_or_default();
    name.eq_ignore_ascii_case(setting.as_bytes())
}

/// A configuration file in which these settings replace all earlier lines that set the same parameters.
pub(crate) fn with_settings(old: &[u8], settings: &[(&str, String)]) -> Vec<u8> {
    let is_replaced = |line: &[u8]| settings.iter().any(|(name, _)| sets(line, name));
    let mut new = Vec::new();
    for line in old.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_replaced(line)) {
        new.extend_from_slice(line);
    }
    if new.last().is_some_and(|byte| *byte != b'\n') {
        new.push(b'\n');
    }
    for (name, value) in settings {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        new.extend_from_slice(format!("{name} = '{value}'\n").as_bytes());
    }
    new
}

/// The error of a file that could not be used.
pub(crate) fn file_error(action: &str, path: &Path, error: &io::Error) -> StepError {
    StepError::new(format!("could not {action} file \"{}\": {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_this_user_is_read_as_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_state_file(&path), None);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(read_state_file(&path), None);
        fs::remove_file(&path).unwrap();
        // A FIFO without a writer.
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read_state_file(&path), None);
        open_for_lock(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        assert_eq!(read_state_file(&path).as_deref(), Some("1\n"));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            assert_eq!(read_state_file(&path), None);
        }
    }

    #[test]
    fn settings_are_replaced_and_quoted() {
        // A comment in GBK, and no newline at the end.
        let old =
            b"port = 1 # \xb6\xcb\nprimary_conninfo = 'a'\n#primary_conninfo\nPrimary_Conninfo='b'\nx = 1";
        let settings = [("primary_conninfo", r"password='it\'s'".to_owned())];
        let new = with_settings(old, &settings);
        let expected =
            b"port = 1 # \xb6\xcb\n#primary_conninfo\nx = 1\nprimary_conninfo = 'password=''it\\\\''s'''\n";
        assert_eq!(new, expected);
        let read = kbrecover_rewind::config::parse(&new).unwrap();
        assert_eq!(read.last().unwrap().value, settings[0].1);
    }
}
