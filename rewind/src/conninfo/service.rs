//! Connection service files: sections `[name]` with lines `keyword=value`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConninfoError;
use super::options::Values;

/// The directories of the system-wide `pg_service.conf` without `PGSYSCONFDIR`: of Debian's packages, of the RPM packages,
/// and of builds from source.
const SYSTEM_DIRS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Where a service was found. This decides whether a standby, with another environment, finds it, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In a file named by the environment of this process.
    Environment,
    /// In the home directory or the system-wide file.
    Usual,
}

/// Completes the values from the service named in the string or by `PGSERVICE`. Returns where it was found; `None` if no
/// service is named.
///
/// # Errors
/// The service is not defined, or the file has a syntax error.
pub(super) fn apply(
    values: &mut Values,
    environment: &dyn Environment,
) -> Result<Option<Place>, ConninfoError> {
    let named = values.raw("service").map(str::to_owned).or_else(|| environment.var("PGSERVICE"));
    let Some(service) = named else { return Ok(None) };
    let set = |name| environment.var(name).map(PathBuf::from);
    let mut files = match (set("PGSERVICEFILE"), environment.home()) {
        (Some(path), _) if !path.exists() => return Err(ConninfoError::NoServiceFile { path }),
        (Some(path), _) => vec![(path, Place::Environment)],
        (None, home) => home.map(|home| (home.join(".pg_service.conf"), Place::Usual)).into_iter().collect(),
    };
    let file_in = |dir: &Path| dir.join("pg_service.conf");
    match set("PGSYSCONFDIR") {
        Some(dir) => files.push((file_in(&dir), Place::Environment)),
        None => files.extend(SYSTEM_DIRS.map(|dir| (file_in(Path::new(dir)), Place::Usual))),
    }
    for (path, place) in files {
        if let Some(text) = read(&path)
            && apply_file(&text, &path, &service, values)?
        {
            return Ok(Some(place));
        }
    }
    Err(ConninfoError::NoService { service })
}

/// Reads a service file. As in libpq, a file that cannot be read is treated as missing.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_SIZE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns whether the file defines the service. Only the first section of that name counts, and in it the first line
/// for each keyword.
fn apply_file(text: &str, path: &Path, service: &str, values: &mut Values) -> Result<bool, ConninfoError> {
    let wrong = |problem, line| ConninfoError::ServiceFile { problem, path: path.to_owned(), line };
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
    let mut found = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found {
                break;
            }
            // As in libpq, text after the closing bracket is ignored.
            found = name.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            continue;
        }
        if !found {
            continue;
        }
        if line.starts_with("ldap") {
            return Err(wrong("LDAP lookup is not supported", number));
        }
        let (keyword, value) = line.split_once('=').ok_or_else(|| wrong("syntax error", number))?;
        if keyword == "service" {
            return Err(wrong("nested service specifications not supported", number));
        }
        if !values.set_if_absent(keyword, value) {
            return Err(wrong("syntax error", number));
        }
    }
    Ok(found)
}
