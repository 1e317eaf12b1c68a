//! Finds the programs of the server version that fits a data directory.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command;
use walparse::Version;

/// Finds the server program of a version (`postgres`, or the fork's name for it).
///
/// Only `bindir` is searched if it is given. Otherwise, the directory of this program, the output of
/// `pg_config --bindir`, `PATH` and the installation directories of the usual packages are searched in this order.
///
/// # Errors
/// No directory has the program, or its version is another one.
pub fn find_server(version: Version, bindir: Option<&Path>) -> Result<PathBuf, ProgramError> {
    let directories = match bindir {
        Some(bindir) => vec![bindir.to_owned()],
        None => usual_directories(version),
    };
    find_in(&directories, version)
}

/// Why no program can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No program of the right version was found.
    #[error(
        "program \"{}\" of {version} is needed but was not found{}",
        version.names().server_program,
        list(tried)
    )]
    NotFound {
        /// The version that is needed.
        version: Version,
        /// The programs that were found, each with the reason why it does not fit.
        tried: Vec<(PathBuf, String)>,
    },
}

/// The version of an installed server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerVersion {
    /// The major version in the form of `server_version_num`: 150000 for 15.
    pub number: u32,
    /// The version as the server prints it: `15.18 (Debian 15.18-0+deb12u1)`
    pub text: String,
}

/// The version of an installed server, as `postgres`, `kingbase` or `pg_config` prints it.
///
/// Only `bindir` is searched if it is given. Otherwise, the directory of the program that was called as `program` is
/// searched, before and after resolving symbolic links, and then `PATH`.
pub fn server_version(program: &OsStr, bindir: Option<&Path>) -> Option<ServerVersion> {
    let path: Vec<_> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let directories = match bindir {
        Some(bindir) => vec![bindir.to_owned()],
        None => directories_of(Path::new(program), &path).into_iter().chain(path).collect(),
    };
    directories.iter().find_map(|directory| {
        let programs = ["postgres", "kingbase", "pg_config"].map(|name| directory.join(name));
        let line = programs
            .iter()
            .filter(|program| is_executable(program))
            .find_map(|program| version_line(program))?;
        // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `PostgreSQL 15.18 (Debian 15.18-0+deb12u1)`
        let text =
            line.split_once(") ").filter(|(name, _)| name.contains(" (") && !name.contains(char::is_numeric));
        let text = text.map(|(_, text)| text).or_else(|| line.strip_prefix("PostgreSQL "))?;
        Some(ServerVersion { number: major_number(text)?, text: text.to_owned() })
    })
}

/// The directory of the program that was called by this name, and that of its file after resolving symbolic links.
fn directories_of(program: &Path, path: &[PathBuf]) -> Vec<PathBuf> {
    let called = match program.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => Some(program.to_owned()),
        _ => path.iter().map(|directory| directory.join(program)).find(|program| is_executable(program)),
    };
    let resolved = called.as_ref().and_then(|program| program.canonicalize().ok());
    let programs = [called, resolved, env::current_exe().ok()];
    programs.iter().flatten().filter_map(|program| program.parent()).map(Path::to_path_buf).collect()
}

/// The major version at the beginning of a text, in the form of `server_version_num`: 150000 for `15.18`, 90600 for
/// `9.6`. KingbaseES V8R3 is based on 9.6; V8R6 and V9 are based on 12.
///
/// ```
/// use kbrecover_hooks::major_number;
///
/// assert_eq!(major_number("15.18 (Debian 15.18-0+deb12u1)"), Some(150_000));
/// assert_eq!(major_number("V008R006C005B0041"), Some(120_000));
/// ```
pub fn major_number(text: &str) -> Option<u32> {
    if let Some(release) = text.strip_prefix('V') {
        return Some(if release.starts_with("008R003") { 90_600 } else { 120_000 });
    }
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let major: u32 = parts.next()?.parse().ok()?;
    if major >= 10 {
        return major.checked_mul(10_000);
    }
    let minor: u32 = parts.next()?.parse().ok().filter(|&minor| minor < 100)?;
    Some(major * 10_000 + minor * 100)
}

fn list(tried: &[(PathBuf, String)]) -> String {
    let mut text = String::new();
    for (index, (path, what)) in tried.iter().enumerate() {
        let separator = if index == 0 { " (" } else { ", " };
        let _ = write!(text, "{separator}\"{}\" {what}", path.display());
    }
    text + if tried.is_empty() { "" } else { ")" }
}

fn find_in(directories: &[PathBuf], version: Version) -> Result<PathBuf, ProgramError> {
    let mut tried = Vec::new();
    let mut seen = HashSet::new();
    for directory in directories {
        let program = directory.join(version.names().server_program);
        let Ok(resolved) = program.canonicalize() else { continue };
        if !is_executable(&resolved) || !seen.insert(resolved) {
            continue;
        }
        match version_line(&program) {
            Some(line) if is_version(&line, version) => return Ok(program),
            Some(line) => tried.push((program, format!("is \"{line}\""))),
            None => tried.push((program, "does not print its version".to_owned())),
        }
    }
    Err(ProgramError::NotFound { version, tried })
}

/// The directories where servers are installed, in the order in which they are searched.
fn usual_directories(version: Version) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    // Before and after resolving symbolic links: either may be the server's directory.
    for program in [env::args_os().next().map(PathBuf::from), env::current_exe().ok()].into_iter().flatten() {
        let called_in =
            program.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_path_buf);
        let resolved = program.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        directories.extend([called_in, resolved].into_iter().flatten());
    }
    if version.flavor().is_fork() {
        directories.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
        directories.push(PathBuf::from("/opt/Kingbase/ES/V8/Server/bin"));
        return directories;
    }
    directories.extend(pg_config_bindir());
    directories.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let name = version.name();
    directories.push(PathBuf::from(format!("/usr/lib/postgresql/{name}/bin")));
    directories.push(PathBuf::from(format!("/usr/pgsql-{name}/bin")));
    directories.push(PathBuf::from("/usr/local/pgsql/bin"));
    directories
}

fn pg_config_bindir() -> Option<PathBuf> {
    let line = first_line(Command::new("pg_config").arg("--bindir"))?;
    Some(PathBuf::from(line)).filter(|path| path.is_absolute())
}

fn version_line(program: &Path) -> Option<String> {
    first_line(Command::new(program).arg("--version"))
}

/// The first line that a program prints, if it succeeds within ten seconds.
fn first_line(command: &mut Command) -> Option<String> {
    let finished = command::run_quietly(command, Some(Duration::from_secs(10))).ok()?;
    let line = finished.output.lines().next()?.trim();
    finished.status.success().then(|| line.to_owned())
}

/// Whether the output of `--version` is that of this version. A fork's program prints the name of its product.
fn is_version(line: &str, version: Version) -> bool {
    let names = version.names();
    if version.flavor().is_fork() {
        let rest = line.strip_prefix(names.server_program).filter(|rest| rest.starts_with(' '));
        return rest.is_some_and(|rest| version.flavor().marks().iter().any(|mark| rest.contains(mark)));
    }
    major_version(line) == Some(version.name())
}

/// The major version in a line such as `postgres (PostgreSQL) 15.18 (Debian ...)`: `15`, or two numbers before 10.
fn major_version(line: &str) -> Option<&str> {
    let number = line.strip_prefix("postgres (PostgreSQL) ")?.split(' ').next()?;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let first = digits(number);
    let major: u32 = number[..first].parse().ok()?;
    if major >= 10 {
        return Some(&number[..first]);
    }
    let rest = number[first..].strip_prefix('.')?;
    let second = digits(rest);
    (second > 0).then(|| &number[..first + 1 + second])
}

pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake_program;

    fn version() -> Version {
        Version::all().find(|version| version.name() == "15").unwrap()
    }

    fn fake_server(directory: &Path, script: &str) {
        fs::create_dir_all(directory).unwrap();
        fake_program(&directory.join("postgres"), script);
    }

    #[test]
    fn version_numbers() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", Some(150_000)),
            ("18beta1", Some(180_000)),
            ("19rc1 (Debian 19~rc1-1)", Some(190_000)),
            ("9.6.24", Some(90_600)),
            ("12", Some(120_000)),
            ("V008R003C002B0100", Some(90_600)),
            ("V008R006C005B0041", Some(120_000)),
            ("V009R001C001B0024", Some(120_000)),
            ("9", None),
            ("9.4294967295", None),
            ("4294967295", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(major_number(text), number, "{text}");
        }
    }

    #[test]
    fn the_version_of_the_server_in_the_same_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fake_server(&place("server"), "echo 'postgres (PostgreSQL) 14.2 (X)'");
        fs::create_dir(place("config")).unwrap();
        fake_program(&place("config").join("pg_config"), "echo 'PostgreSQL 13.1'");
        fs::create_dir(place("kingbase")).unwrap();
        fake_program(&place("kingbase").join("kingbase"), "echo 'kingbase (KingbaseES) V008R003C002B0100'");
        let version = |number, text: &str| Some(ServerVersion { number, text: text.to_owned() });
        let beside = |name: &str| server_version(place(name).join("pg_rewind").as_os_str(), None);
        assert_eq!(beside("server"), version(140_000, "14.2 (X)"));
        assert_eq!(beside("config"), version(130_000, "13.1"));
        assert_eq!(beside("kingbase"), version(90_600, "V008R003C002B0100"));

        // The directory of the symbolic link comes first, then that of its target.
        fs::write(place("server").join("pg_rewind"), "").unwrap();
        fs::create_dir(place("links")).unwrap();
        std::os::unix::fs::symlink(place("server").join("pg_rewind"), place("links").join("pg_rewind"))
            .unwrap();
        assert_eq!(beside("links"), version(140_000, "14.2 (X)"));
        fake_server(&place("links"), "echo 'postgres (PostgreSQL) 12.9'");
        assert_eq!(beside("links"), version(120_000, "12.9"));
        assert_eq!(server_version(OsStr::new("x"), Some(&place("config"))), version(130_000, "13.1"));
        assert_eq!(server_version(OsStr::new("x"), Some(dir.path())), None);
    }

    #[test]
    fn version_lines() {
        for (line, major) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some("15")),
            ("postgres (PostgreSQL) 18beta1", Some("18")),
            ("postgres (PostgreSQL) 19rc1 (Debian 19~rc1-1)", Some("19")),
            ("postgres (PostgreSQL) 9.6.24", Some("9.6")),
            ("postgres (PostgreSQL) 10devel", Some("10")),
            ("postgres (PostgreSQL) 9", None),
            ("postgres (PostgreSQL) é", None),
            ("psql (PostgreSQL) 15.1", None),
            ("", None),
        ] {
            assert_eq!(major_version(line), major, "{line}");
        }
    }

    #[test]
    fn the_program_of_a_fork_is_found_by_its_own_name() {
        let fork = |key: &str| Version::of_all_flavors().find(|v| v.flavor().key() == key).unwrap();
        let (v8r3, v8r6) = (fork("kingbase-v8r3"), fork("kingbase-v8r6"));
        for (line, version, is_one) in [
            ("kingbase (KingbaseES) V008R006C005B0041", v8r6, true),
            ("kingbase (KingbaseES) V009R001C001B0024", v8r6, true),
            ("kingbase (KingbaseES) V008R003C002B0100", v8r6, false),
            ("kingbase (KingbaseES) V008R003C002B0100", v8r3, true),
            ("postgres (PostgreSQL) 12.22", v8r6, false),
            ("kingbase", v8r6, false),
        ] {
            assert_eq!(is_version(line, version), is_one, "{line}");
        }
        let dir = tempfile::tempdir().unwrap();
        fake_server(dir.path(), "echo 'postgres (PostgreSQL) 12.22'");
        let error = find_server(v8r6, Some(dir.path())).unwrap_err().to_string();
        assert!(
            error.starts_with("program \"kingbase\" of KingbaseES V8R6 (PostgreSQL 12) is needed"),
            "{error}"
        );
        fake_program(&dir.path().join("kingbase"), "echo 'kingbase (KingbaseES) V008R006C005B0041'");
        assert_eq!(find_server(v8r6, Some(dir.path())).unwrap(), dir.path().join("kingbase"));
    }

    #[test]
    fn the_first_program_of_the_right_version_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fake_server(&place("old"), "echo 'postgres (PostgreSQL) 9.6.1'");
        fake_server(&place("broken"), "exit 1");
        fake_server(&place("good"), "echo 'postgres (PostgreSQL) 15.3'");
        fake_server(&place("later"), "echo 'postgres (PostgreSQL) 15.4'");
        fs::create_dir(place("empty")).unwrap();
        let directories = ["empty", "nix", "old", "old", "broken", "good", "later"].map(place);
        assert_eq!(find_in(&directories, version()).unwrap(), place("good").join("postgres"));

        let error = find_in(&directories[..5], version()).unwrap_err().to_string();
        let expected = format!(
            "program \"postgres\" of PostgreSQL 15 is needed but was not found (\"{0}/old/postgres\" is \"postgres \
             (PostgreSQL) 9.6.1\", \"{0}/broken/postgres\" does not print its version)",
            dir.path().display()
        );
        assert_eq!(error, expected);
        let error = find_server(version(), Some(&place("empty"))).unwrap_err().to_string();
        assert_eq!(error, "program \"postgres\" of PostgreSQL 15 is needed but was not found");
    }
}
