//! Small files of a data directory that a flow writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::flow::StepError;
use crate::server::file_error;

/// Puts a file in place as a whole, durably: the old one or the new one is there, nothing else.
///
/// # Errors
/// It cannot be written.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), StepError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        // Made with mode 0600, as a server has its files.
        let mut file = tempfile::Builder::new().prefix(".kbrecover-").tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| file_error("write", path, &error))
}

/// Opens a file for writing and makes it if need be, with mode 0600. A link is not followed: the directory may be
/// one in which anybody may make files.
pub(crate) fn open_for_lock(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow).open(path)
}

/// The text of a file; `None` if there is none.
///
/// # Errors
/// It is there but cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StepError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
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
    Ok(label.is_some_and(|text| rewind::is_mark(text.as_bytes())))
}

/// The text of a configuration file with these settings in the place of what it says of them.
pub(crate) fn with_settings(old: &str, settings: &[(&str, String)]) -> String {
    let is_replaced = |line: &str| {
        let name = line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default();
        settings.iter().any(|(setting, _)| setting.eq_ignore_ascii_case(name))
    };
    let kept = old.lines().filter(|line| !is_replaced(line)).map(|line| format!("{line}\n"));
    let new = settings.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        format!("{name} = '{value}'\n")
    });
    kept.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_replaced_and_quoted() {
        let old = "port = 1\nprimary_conninfo = 'a'\n#primary_conninfo\nPrimary_Conninfo='b'\n";
        let settings = [("primary_conninfo", r"password='it\'s'".to_owned())];
        let new = with_settings(old, &settings);
        assert_eq!(new, "port = 1\n#primary_conninfo\nprimary_conninfo = 'password=''it\\\\''s'''\n");
        let read = rewind::config::parse(new.as_bytes()).unwrap();
        assert_eq!(read.last().unwrap().value, settings[0].1);
    }
}
