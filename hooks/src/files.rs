//! Small files of a data directory that a flow writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::flow::StepError;
use crate::server::file_error;

/// Puts a file in place as a whole, durably: the old one or the new one is there, nothing else.
///
/// # Errors
/// It cannot be written.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<(), StepError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        // Made with mode 0600, as a server has its files.
        let mut file = tempfile::Builder::new().prefix(".kbrecover-").tempfile_in(directory)?;
        file.write_all(text.as_ref())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| file_error("write", path, &error))
}

/// Opens a file for writing and makes it if need be, with mode 0600. A link is not followed: the directory may be
/// one in which anybody may make files.
pub(crate) fn open_for_lock(path: &Path) -> io::Result<File> {
    let flags = UNTRUSTED.bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// For a file in a directory in which anybody may make files: a link is not followed, a pipe not waited for.
const UNTRUSTED: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// The text of a note in such a directory; `None` if there is none. One that is not this user's own file is ignored.
pub(crate) fn read_note(path: &Path) -> Option<String> {
    let read = || -> io::Result<String> {
        let file = OpenOptions::new().read(true).custom_flags(UNTRUSTED.bits() as i32).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is no file of this user"));
        }
        let mut text = String::new();
        file.take(NOTE_SIZE).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("file \"{}\" is ignored: {error}", path.display());
            None
        }
    }
}

/// More is in no note.
const NOTE_SIZE: u64 = 4096;

/// The text of a file that is only looked at; `None` if there is none.
///
/// # Errors
/// It is there but cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StepError> {
    Ok(read_bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The bytes of a file that is changed: comments and values may be in any encoding. `None` if there is none.
///
/// # Errors
/// It is there but cannot be read.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StepError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("read", path, &error)),
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// It is there but cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), StepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| file_error("remove", path, &error)),
    }
}

/// Whether a rewind of a data directory was begun and not finished.
///
/// # Errors
/// Its backup label is there but cannot be read.
pub(crate) fn is_half_rewound(data: &Path) -> Result<bool, StepError> {
    let label = read(&data.join("backup_label"))?;
    Ok(label.is_some_and(|text| kbrecover_rewind::is_mark(text.as_bytes())))
}

/// Whether a line of a configuration file is about this setting.
pub(crate) fn is_about(line: &[u8], setting: &str) -> bool {
    let name = line.trim_ascii_start().split(|byte| b"= \t".contains(byte)).next().unwrap_or_default();
    name.eq_ignore_ascii_case(setting.as_bytes())
}

/// A configuration file with these settings in the place of what it says of them.
pub(crate) fn with_settings(old: &[u8], settings: &[(&str, String)]) -> Vec<u8> {
    let is_replaced = |line: &[u8]| settings.iter().any(|(name, _)| is_about(line, name));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_this_users_own_file_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("note");
        assert_eq!(read_note(&note), None);
        std::os::unix::fs::symlink("/etc/passwd", &note).unwrap();
        assert_eq!(read_note(&note), None);
        fs::remove_file(&note).unwrap();
        // Nobody writes into it.
        assert!(std::process::Command::new("mkfifo").arg(&note).status().unwrap().success());
        assert_eq!(read_note(&note), None);
        open_for_lock(&note).unwrap_err();
        fs::remove_file(&note).unwrap();
        fs::write(&note, "1\n").unwrap();
        assert_eq!(read_note(&note).as_deref(), Some("1\n"));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&note, Some(1), None).unwrap();
            assert_eq!(read_note(&note), None);
        }
    }

    #[test]
    fn settings_are_replaced_and_quoted() {
        // A comment in GBK, and a last line without an end.
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
