//! Password files: lines `host:port:database:user:password`, of which the first match counts.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The database name with which a standby looks up its password.
pub(super) const REPLICATION: &str = "replication";

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Vec<u8>);

impl Password {
    pub(super) fn new(text: String) -> Password {
        Password(text.into_bytes())
    }

    /// The password itself, to be sent to the server or to decrypt the private key.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// The contents of a password file.
pub(super) struct PassFile(Vec<u8>);

/// Reads a password file. As in libpq, a file that is missing, not a regular file, or accessible to other users is not
/// used; the last two with a warning.
pub(super) fn read(path: &Path) -> Option<PassFile> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
        Err(error) => {
            tracing::warn!("could not read password file \"{shown}\": {error}");
            return None;
        }
    };
    if !metadata.is_file() {
        tracing::warn!("password file \"{shown}\" is not a plain file");
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "password file \"{shown}\" has group or world access; permissions should be u=rw (0600) or less"
        );
        return None;
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::warn!("could not read password file \"{shown}\": {error}");
        return None;
    }
    Some(PassFile(bytes))
}

impl PassFile {
    /// The password of the first matching line; `*` matches everything.
    pub(super) fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<Password> {
        let port = port.to_string();
        let wanted = [host, port.as_str(), database, user];
        let lines = self.0.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
        let mut matches = lines.filter_map(|line| {
            let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
            for value in wanted {
                let (field, after) = split_field(rest)?;
                if field != b"*" && unescape(field) != value.as_bytes() {
                    return None;
                }
                rest = after;
            }
            Some(unescape(split_field(rest).map_or(rest, |(password, _)| password)))
        });
        matches.next().filter(|password| !password.is_empty()).map(Password)
    }
}

/// Splits at the first `:` that is not escaped by a backslash.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => return Some((&line[..at], &line[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = field.iter();
    let mut plain = Vec::with_capacity(field.len());
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_line_counts() {
        let text = "# comment\nh:5432:db:u:one\r\n*:5432:*:u:two\n*:*:*:back\\\\slash\\:er:a\\:b\\\\c:junk\nbad line\n";
        let file = PassFile(text.into());
        let find = |host, port, db, user| {
            let found: Option<Password> = file.find(host, port, db, user);
            found.map(|password| String::from_utf8(password.0).unwrap())
        };
        assert_eq!(find("h", 5432, "db", "u").as_deref(), Some("one"));
        assert_eq!(find("other", 5432, "db", "u").as_deref(), Some("two"));
        assert_eq!(find("x", 1, "y", "back\\slash:er").as_deref(), Some("a:b\\c"));
        assert_eq!(find("h", 5433, "db", "u"), None);
        assert_eq!(format!("{:?}", file.find("h", 5432, "db", "u")), "Some(********)");
    }

    #[test]
    fn a_file_accessible_to_others_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_some(), usable, "{mode:o}");
        }
        assert!(read(dir.path()).is_none() && read(&dir.path().join("none")).is_none());
    }
}
