//! Finding a cluster's main configuration file if the user has not specified it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use walparse::Names;

use super::Configuration;

/// Searches the data directory, the file named by the last start command, and Debian's
/// `<etc>/<version>/<cluster>/postgresql.conf`, in this order.
pub(super) fn locate(data_dir: &Path, names: &Names, etc: &Path) -> Option<PathBuf> {
    let inside = data_dir.join(names.config_file);
    let opts = || {
        let text = fs::read(data_dir.join(names.opts_file)).ok()?;
        from_opts(&text, names.config_file)
    };
    [Some(inside)]
        .into_iter()
        .chain(std::iter::once_with(opts))
        .flatten()
        .find(|file| file.is_file())
        .or_else(|| below_etc(data_dir, names, etc))
}

/// The configuration file named by the start command in `postmaster.opts`: the program, then each argument in double
/// quotes (`CreateOptsFile` in postmaster.c). Arguments are not escaped, so each one ends at `" "`.
///
/// Relative paths are ignored, because the working directory of the start command is not recorded.
fn from_opts(text: &[u8], file_name: &str) -> Option<PathBuf> {
    let line = text.split(|&byte| byte == b'\n').next()?;
    let mut arguments = split_arguments(line).into_iter();
    let mut config_file = None;
    let mut directory = None;
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"--") {
            config_file = setting_value(rest).or(config_file);
        } else if let Some(rest) = bytes.strip_prefix(b"-c") {
            let next = if rest.is_empty() { arguments.next() } else { None };
            config_file = setting_value(next.as_ref().map_or(rest, |next| next.as_bytes())).or(config_file);
        } else if let Some(rest) = bytes.strip_prefix(b"-D") {
            directory =
                if rest.is_empty() { arguments.next() } else { Some(OsStr::from_bytes(rest).to_owned()) };
        }
    }
    let file = config_file.or_else(|| directory.map(|directory| Path::new(&directory).join(file_name)))?;
    file.is_absolute().then_some(file)
}

fn split_arguments(line: &[u8]) -> Vec<OsString> {
    let text = line.trim_ascii_end();
    let Some(start) = text.windows(2).position(|pair| pair == b" \"") else { return Vec::new() };
    let mut rest = &text[start + 2..];
    let mut arguments = Vec::new();
    while let Some(end) = rest.windows(3).position(|window| window == b"\" \"") {
        arguments.push(OsString::from_vec(rest[..end].to_vec()));
        rest = &rest[end + 3..];
    }
    arguments.push(OsString::from_vec(rest.strip_suffix(b"\"").unwrap_or(rest).to_vec()));
    arguments
}

/// The value in `config_file=value` or `config-file=value`; `None` for another setting.
fn setting_value(text: &[u8]) -> Option<PathBuf> {
    let at = text.iter().position(|&byte| byte == b'=')?;
    let name = String::from_utf8_lossy(&text[..at]).replace('-', "_");
    name.eq_ignore_ascii_case("config_file").then(|| PathBuf::from(OsStr::from_bytes(&text[at + 1..])))
}

fn below_etc(data_dir: &Path, names: &Names, etc: &Path) -> Option<PathBuf> {
    let version = fs::read_to_string(data_dir.join(names.version_file)).ok()?;
    let data_dir = data_dir.canonicalize().ok()?;
    let clusters = fs::read_dir(etc.join(version.trim())).ok()?;
    let mut files: Vec<_> =
        clusters.flatten().map(|cluster| cluster.path().join(names.config_file)).collect();
    files.sort_unstable();
    files.into_iter().find(|file| {
        // Configuration files of other clusters that cannot be read are ignored.
        let Ok(configuration) = Configuration::read_one(file) else { return false };
        let named = configuration.get("data_directory").map(Path::new);
        named.and_then(|named| named.canonicalize().ok()).is_some_and(|named| named == data_dir)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_command_names_the_file() {
        let file = |text: &str| from_opts(text.as_bytes(), "postgresql.conf");
        let some = |path: &str| Some(PathBuf::from(path));
        let etc = "/etc/postgresql/15/main/postgresql.conf";
        assert_eq!(
            file(&format!(
                "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/data\" \"-c\" \"config_file={etc}\"\n"
            )),
            some(etc)
        );
        assert_eq!(file(&format!("postgres \"-D/d\" \"--config-file={etc}\" \"-p\" \"5433\"")), some(etc));
        assert_eq!(file("postgres \"-cconfig_file=/a b/x.conf\""), some("/a b/x.conf"));
        assert_eq!(file("postgres \"-c\" \"Config_File=/x\"y\" \"-N\" \"3\""), some("/x\"y"));
        assert_eq!(file("postgres \"-D\" \"/etc/pg\" \"-c\" \"port=1\""), some("/etc/pg/postgresql.conf"));
        for none in
            ["", "\n", "postgres", "postgres \"-D\"", "postgres \"-c\"", "postgres \"-D\" \"data\"", " \""]
        {
            assert_eq!(file(none), None, "{none}");
        }
    }

    #[test]
    fn places_are_searched_in_order() {
        let names = walparse::Flavor::all().next().unwrap().names();
        let dir = tempfile::tempdir().unwrap();
        let (data, etc) = (dir.path().join("data"), dir.path().join("etc"));
        let put = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(&data.join("PG_VERSION"), "15\n");
        assert_eq!(locate(&data, names, &etc), None);

        // `data_directory` may name a link to the directory.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        put(&etc.join("15/broken/postgresql.conf"), "= = =");
        put(&etc.join("15/other/postgresql.conf"), "data_directory = '/elsewhere'");
        put(&etc.join("15/main/postgresql.conf"), &format!("data_directory = '{}'", link.display()));
        assert_eq!(locate(&data, names, &etc), Some(etc.join("15/main/postgresql.conf")));

        let started_with = dir.path().join("started.conf");
        put(&data.join("postmaster.opts"), &format!("pg \"-c\" \"config_file={}\"", started_with.display()));
        assert_eq!(
            locate(&data, names, &etc),
            Some(etc.join("15/main/postgresql.conf")),
            "the file named by the start command is missing"
        );
        put(&started_with, "");
        assert_eq!(locate(&data, names, &etc), Some(started_with));

        put(&data.join("postgresql.conf"), "");
        assert_eq!(locate(&data, names, &etc), Some(data.join("postgresql.conf")));
    }
}
