//! The server's own configuration files, read without running a server.
//!
//! Needed for one or two settings of a target that may be unable to start, so nothing is checked beyond
//! what reading them takes: unknown names and senseless values are the server's business.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walparse::Names;

mod locate;
pub(crate) mod recovery;
mod syntax;

pub use syntax::{Setting, SyntaxError, parse};

/// The settings of a cluster: its `postgresql.conf` with all that this includes, then
/// `postgresql.auto.conf`. The last mention of a name counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    data_dir: PathBuf,
    file: Option<PathBuf>,
    settings: BTreeMap<String, String>,
}

impl Configuration {
    /// Reads the configuration of the cluster in `data_dir`.
    ///
    /// Its main file is `config_file` or, if that is not given, the one [`Configuration::locate`] finds.
    /// Finding none is no error yet: [`Configuration::file`] says so.
    ///
    /// # Errors
    /// A file that is there but cannot be read or understood, or one that is named but is not there.
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

    /// Reads one file of this form and what it includes, for example `recovery.conf`; a file that is not
    /// there has no settings.
    ///
    /// # Errors
    /// As [`Configuration::read`].
    pub fn read_one(file: &Path) -> Result<Configuration, ConfigError> {
        let mut settings = BTreeMap::new();
        read_into(&mut settings, file, Missing::IsEmpty, 0)?;
        let data_dir = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Configuration { data_dir, file: Some(file.to_owned()), settings })
    }

    /// Where the cluster's `postgresql.conf` is: in the data directory; or where its last start was told
    /// (`postmaster.opts`); or, as Debian has it, below `/etc/postgresql` in a file that names the data
    /// directory.
    pub fn locate(data_dir: &Path, names: &Names) -> Option<PathBuf> {
        locate::locate(data_dir, names, Path::new("/etc/postgresql"))
    }

    /// The main configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of a setting, if it is given. The name may be in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// The cluster's `restore_command`.
    ///
    /// # Errors
    /// It is not set or empty, or no configuration file was found to look in.
    pub fn restore_command(&self) -> Result<&str, ConfigError> {
        match (self.get("restore_command"), &self.file) {
            (Some(command), _) if !command.is_empty() => Ok(command),
            (_, Some(_)) => Err(ConfigError::NoRestoreCommand),
            (_, None) => Err(ConfigError::NotFound { data_dir: self.data_dir.clone() }),
        }
    }
}

/// Why the configuration could not be read, or lacks something.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("could not open configuration file \"{}\"", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory of `include_dir` could not be listed.
    #[error("could not open configuration directory \"{}\"", path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not follow the grammar.
    #[error("could not read configuration file \"{}\"", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which line, and what is wrong in it.
        #[source]
        source: SyntaxError,
    },
    /// Files include each other in a circle, or very deeply.
    #[error("could not open configuration file \"{}\": maximum nesting depth exceeded", path.display())]
    TooDeep {
        /// The file at the end of the chain.
        path: PathBuf,
    },
    /// An include names nothing.
    #[error("empty configuration file name in \"{}\" line {line}", path.display())]
    EmptyInclude {
        /// The file with the include.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// There is no configuration to look into.
    #[error("could not find the configuration file of the cluster in \"{}\"", data_dir.display())]
    NotFound {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// `restore_command` was asked for and is not there.
    #[error("restore_command is not set in the target cluster")]
    NoRestoreCommand,
}

impl ConfigError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ConfigError::Open { .. } | ConfigError::OpenDirectory { .. } => {
                "Name another configuration file with --config-file, or make this one readable."
            }
            ConfigError::Syntax { .. } | ConfigError::TooDeep { .. } | ConfigError::EmptyInclude { .. } => {
                "Correct the configuration file: the server could not start with it either."
            }
            ConfigError::NotFound { .. } => "Name the target's postgresql.conf with --config-file.",
            ConfigError::NoRestoreCommand => {
                "Set restore_command in the target's configuration, or give the command with --restore-command."
            }
        };
        Some(hint.to_owned())
    }
}

/// How deep includes may be nested: the server's own limit (`CONF_FILE_MAX_DEPTH`).
const MAX_DEPTH: usize = 10;

/// Far above any real configuration; keeps a wrong path from being read into memory without end.
const MAX_FILE_SIZE: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAnError,
    IsEmpty,
}

fn read_into(
    settings: &mut BTreeMap<String, String>,
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
            settings.insert(name, value);
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

/// The files an `include_dir` takes: `*.conf`, no hidden ones, in the order of their bytes.
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
    fn the_last_mention_counts_and_the_automatic_file_comes_last() {
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
        assert_eq!(configuration.file(), Some(dir.path().join("postgresql.conf").as_path()));
    }

    #[test]
    fn includes_are_relative_to_the_file_they_stand_in() {
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
    fn circles_and_bad_files_are_errors_with_their_path() {
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
    fn no_configuration_is_an_error_only_when_something_is_wanted_of_it() {
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
    fn recovery_conf_is_of_the_same_form() {
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
