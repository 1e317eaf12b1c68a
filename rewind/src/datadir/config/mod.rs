//! Reading the server's configuration files without running a server.
//!
//! A rewind needs a few settings of a target that may be unable to start. Only the syntax is checked: unknown names and
//! invalid values are not detected.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walparse::Names;

mod locate;
pub(crate) mod recovery;
mod syntax;

pub use syntax::{Setting, SyntaxError, parse};

/// The settings of a cluster: its `postgresql.conf` with included files, then `postgresql.auto.conf`. If a name is set
/// more than once, the last value applies, as in the server.
///
/// ```
/// use kbrecover_rewind::config::Configuration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let data = tempfile::tempdir()?;
/// std::fs::write(data.path().join("postgresql.conf"), "port = 5432\nrestore_command = 'cp /archive/%f %p'\n")?;
/// std::fs::write(data.path().join("postgresql.auto.conf"), "port = 5433\n")?;
/// let names = kbrecover_rewind::flavor_of_directory(data.path(), None)?.names();
/// let configuration = Configuration::read(data.path(), names, None)?;
/// assert_eq!(configuration.get("port"), Some("5433"));
/// assert_eq!(configuration.restore_command()?, "cp /archive/%f %p");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    data_dir: PathBuf,
    file: Option<PathBuf>,
    settings: BTreeMap<String, Value>,
}

/// A value, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Value {
    text: String,
    file: PathBuf,
    line: usize,
}

impl Configuration {
    /// Reads the configuration of the cluster in `data_dir`, whose flavor has the file names `names`.
    ///
    /// The main file is `config_file` or, if that is `None`, the file found by [`Configuration::locate`]. It is not an
    /// error if that finds none; [`Configuration::file`] is `None` then.
    ///
    /// # Errors
    /// A file cannot be read or has a syntax error, or `config_file` or an included file does not exist.
    pub fn read(
        data_dir: &Path,
        names: &Names,
        config_file: Option<&Path>,
    ) -> Result<Configuration, ConfigError> {
        let file = config_file.map(Path::to_path_buf).or_else(|| Configuration::locate(data_dir, names));
        let mut settings = BTreeMap::new();
        if let Some(file) = &file {
            tracing::debug!("reading configuration file \"{}\"", file.display());
            read_into(&mut settings, file, Missing::IsAnError, 0)?;
        }
        read_into(&mut settings, &data_dir.join(names.auto_config_file), Missing::IsEmpty, 0)?;
        Ok(Configuration { data_dir: data_dir.to_owned(), file, settings })
    }

    /// Reads a single file with the syntax of a configuration file, such as `recovery.conf`, and the files that it
    /// includes. A missing file is read as an empty one.
    ///
    /// # Errors
    /// The file or an included one cannot be read or has a syntax error, or an included file does not exist.
    pub fn read_one(file: &Path) -> Result<Configuration, ConfigError> {
        let mut settings = BTreeMap::new();
        read_into(&mut settings, file, Missing::IsEmpty, 0)?;
        let data_dir = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Configuration { data_dir, file: Some(file.to_owned()), settings })
    }

    /// Finds the cluster's main configuration file. It is searched for in the data directory, then in the last start
    /// command (`postmaster.opts`), then as Debian places it: `/etc/postgresql/VERSION/CLUSTER/postgresql.conf` whose
    /// `data_directory` is this one. `None` if there is none.
    pub fn locate(data_dir: &Path, names: &Names) -> Option<PathBuf> {
        locate::locate(data_dir, names, Path::new("/etc/postgresql"), Configuration::data_directory_of)
    }

    /// `data_directory` in a file. A file that cannot be read, such as another cluster's, has none.
    fn data_directory_of(file: &Path) -> Option<PathBuf> {
        Configuration::read_one(file).ok()?.get("data_directory").map(PathBuf::from)
    }

    /// The main configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of a setting as text, without quotes; `None` if it is not set. The case of the name is ignored.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| value.text.as_str())
    }

    /// Whether a setting is on. As in the server (bool.c), any unambiguous prefix of "on", "true", "yes" and "1" is.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            !value.is_empty()
                && value != "o"
                && ["on", "true", "yes", "1"].iter().any(|word| word.starts_with(&value))
        })
    }

    /// The file and the line, counted from 1, in which a setting has got its value; `None` if it is not set.
    pub fn place(&self, name: &str) -> Option<(&Path, usize)> {
        self.value(name).map(|value| (value.file.as_path(), value.line))
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.settings.get(&name.to_ascii_lowercase())
    }

    /// The cluster's `restore_command`.
    ///
    /// # Errors
    /// [`ConfigError::NoRestoreCommand`] if it is not set or empty, [`ConfigError::NotFound`] if no main configuration
    /// file was found.
    pub fn restore_command(&self) -> Result<&str, ConfigError> {
        match (self.get("restore_command"), &self.file) {
            (Some(command), _) if !command.is_empty() => Ok(command),
            (_, Some(_)) => Err(ConfigError::NoRestoreCommand),
            (_, None) => Err(ConfigError::NotFound { data_dir: self.data_dir.clone() }),
        }
    }
}

/// Why the configuration could not be read, or a required setting is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("could not open configuration file \"{}\"", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A directory of `include_dir` could not be listed.
    #[error("could not open configuration directory \"{}\"", path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A file has a syntax error.
    #[error("could not read configuration file \"{}\"", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, and what is wrong in it.
        #[source]
        source: SyntaxError,
    },
    /// Includes are nested more than ten levels deep, as in a circle of includes.
    #[error("could not open configuration file \"{}\": maximum nesting depth exceeded", path.display())]
    TooDeep {
        /// The file at the innermost level.
        path: PathBuf,
    },
    /// The name in an include directive is empty.
    #[error("empty configuration file name in \"{}\" line {line}", path.display())]
    EmptyInclude {
        /// The file with the include directive.
        path: PathBuf,
        /// The line number, counted from 1.
        line: usize,
    },
    /// No main configuration file was found.
    #[error("could not find the configuration file of the cluster in \"{}\"", data_dir.display())]
    NotFound {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// `restore_command` is not set or empty. The text is that of `pg_rewind`.
    #[error("restore_command is not set in the target cluster")]
    NoRestoreCommand,
}

impl ConfigError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ConfigError::Open { .. } | ConfigError::OpenDirectory { .. } => {
                "Specify another configuration file with --config-file, or make this one readable."
            }
            ConfigError::Syntax { .. } | ConfigError::TooDeep { .. } | ConfigError::EmptyInclude { .. } => {
                "Correct the configuration file. The server cannot start with it either."
            }
            ConfigError::NotFound { .. } => "Specify the target's postgresql.conf with --config-file.",
            ConfigError::NoRestoreCommand => {
                "Set restore_command in the target's configuration, or specify the command with --restore-command."
            }
        };
        Some(hint.to_owned())
    }
}

/// The maximum nesting depth of includes, as in the server (`CONF_FILE_MAX_DEPTH`).
const MAX_DEPTH: usize = 10;

/// The largest configuration file that is read, in bytes. Real ones are far smaller; the limit protects against a wrong
/// path.
const MAX_FILE_SIZE: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAnError,
    IsEmpty,
}

fn read_into(
    settings: &mut BTreeMap<String, Value>,
    path: &Path,
    missing: Missing,
    depth: usize,
) -> Result<(), ConfigError> {
    if depth > MAX_DEPTH {
        return Err(ConfigError::TooDeep { path: path.to_owned() });
    }
    let text = match read_limited(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::IsEmpty => return Ok(()),
        result => result.map_err(|source| ConfigError::Open { path: path.to_owned(), source })?,
    };
    let lines = parse(&text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
    for Setting { name, value, line } in lines {
        if !matches!(name.as_str(), "include" | "include_if_exists" | "include_dir") {
            settings.insert(name, Value { text: value, file: path.to_owned(), line });
            continue;
        }
        if value.trim().is_empty() {
            return Err(ConfigError::EmptyInclude { path: path.to_owned(), line });
        }
        let included = path.parent().unwrap_or(Path::new("")).join(value);
        match name.as_str() {
            "include" => read_into(settings, &included, Missing::IsAnError, depth + 1)?,
            "include_if_exists" => read_into(settings, &included, Missing::IsEmpty, depth + 1)?,
            _ => {
                for file in files_to_include(&included)? {
                    read_into(settings, &file, Missing::IsAnError, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "file is too large for a configuration file",
        ));
    }
    Ok(text)
}

/// The files that `include_dir` includes: `*.conf` except hidden files, in byte order of their names.
fn files_to_include(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::OpenDirectory { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") || !name.ends_with(b".conf") || entry.path().is_dir() {
            continue;
        }
        files.push(entry.path());
    }
    files.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> &'static Names {
        walparse::Flavor::all().next().unwrap().names()
    }

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_last_value_applies_and_auto_conf_is_read_last() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("postgresql.conf", "Port = 1\nport = 2\nrestore_command = 'one'\nwork_mem = 4MB\n"),
                ("postgresql.auto.conf", "# no edits\nrestore_command = 'two'\n"),
            ],
        );
        let configuration = Configuration::read(dir.path(), names(), None).unwrap();
        assert_eq!(configuration.get("PORT"), Some("2"));
        assert_eq!(configuration.restore_command().unwrap(), "two");
        assert_eq!(configuration.get("work_mem"), Some("4MB"));
        assert_eq!(configuration.get("shared_buffers"), None);
        assert_eq!(configuration.place("Port"), Some((dir.path().join("postgresql.conf").as_path(), 2)));
        assert_eq!(configuration.file(), Some(dir.path().join("postgresql.conf").as_path()));
    }

    #[test]
    fn includes_are_relative_to_the_including_file() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                (
                    "etc/postgresql.conf",
                    "a=0\ninclude 'more/x.conf'\ninclude_dir = 'conf.d'\ninclude_if_exists 'no'\n",
                ),
                ("etc/more/x.conf", "a=1\nb=1\ninclude 'y.conf'\n"),
                ("etc/more/y.conf", "y=1\n"),
                ("etc/conf.d/B.conf", "order='B'\n"),
                ("etc/conf.d/a.conf", "order='a'\n"),
                ("etc/conf.d/Z10.conf", "order='Z10'\n"),
                ("etc/conf.d/.z.conf", "order='hidden'\n"),
                ("etc/conf.d/z.conf.bak", "order='backup'\n"),
                ("etc/conf.d/z.conf/file", ""),
            ],
        );
        let file = dir.path().join("etc/postgresql.conf");
        let configuration = Configuration::read(dir.path(), names(), Some(&file)).unwrap();
        let values = ["a", "b", "y", "order"].map(|name| configuration.get(name).unwrap());
        assert_eq!(values, ["1", "1", "1", "a"]);
    }

    #[test]
    fn include_circles_and_bad_files_are_errors_with_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postgresql.conf");
        for (text, expected) in [
            ("include 'postgresql.conf'", "maximum nesting depth exceeded"),
            ("include_dir '.'", "maximum nesting depth exceeded"),
            ("include 'nix'", "nix\""),
            ("include_dir 'nix'", "could not open configuration directory"),
            ("\ninclude ''", "line 2"),
            ("a = ", "could not read configuration file"),
        ] {
            fs::write(&file, text).unwrap();
            let error = Configuration::read(dir.path(), names(), None).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(error.hint().is_some());
        }
        let missing = dir.path().join("missing.conf");
        assert!(matches!(
            Configuration::read(dir.path(), names(), Some(&missing)).unwrap_err(),
            ConfigError::Open { path, .. } if path == missing
        ));
    }

    #[test]
    fn a_missing_configuration_is_an_error_only_if_a_setting_is_required() {
        let dir = tempfile::tempdir().unwrap();
        let configuration = Configuration::read(dir.path(), names(), None).unwrap();
        assert_eq!((configuration.file(), configuration.get("port")), (None, None));
        assert!(matches!(configuration.restore_command(), Err(ConfigError::NotFound { .. })));
        write(dir.path(), &[("postgresql.conf", "restore_command = ''")]);
        let error = Configuration::read(dir.path(), names(), None)
            .unwrap()
            .restore_command()
            .unwrap_err()
            .to_string();
        assert_eq!(error, "restore_command is not set in the target cluster");
    }

    #[test]
    fn recovery_conf_has_the_same_syntax() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recovery.conf");
        assert_eq!(Configuration::read_one(&file).unwrap().get("standby_mode"), None);
        write(dir.path(), &[("recovery.conf", "standby_mode = on\nprimary_conninfo = 'host=''a b'''\n")]);
        let conf = Configuration::read_one(&file).unwrap();
        assert_eq!(
            (conf.get("standby_mode"), conf.get("primary_conninfo")),
            (Some("on"), Some("host='a b'"))
        );
    }
}
