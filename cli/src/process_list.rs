//! Keeps passwords out of the process list.
//!
//! The arguments of a process can be read by every user of the machine. A program cannot change its own safely,
//! but it can begin anew with others: the true ones then come through a pipe in the place of standard input,
//! which is not read for anything else.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::args::without_password;

/// Stands first among the arguments when the true ones come through standard input.
const MARK: &str = "--arguments-on-stdin";

/// What a pipe takes without a reader.
const PIPE_SIZE: usize = 60_000;

/// The words of the command line, the program's name first. If a password is among them the process list
/// does not show it any more after this.
pub(crate) fn arguments() -> Vec<OsString> {
    let shown: Vec<OsString> = env::args_os().collect();
    if shown.get(1).is_some_and(|first| first == MARK) {
        return read_arguments(&shown).unwrap_or(shown);
    }
    let hidden: Vec<OsString> = shown.iter().map(|word| hide(word)).collect();
    if hidden != shown {
        // Returns only if it is impossible; then the password stays where the user has put it.
        let _ = begin_anew(&shown, &hidden);
    }
    shown
}

fn hide(word: &OsStr) -> OsString {
    word.to_str().map_or_else(|| word.to_owned(), |text| without_password(text).into())
}

fn begin_anew(arguments: &[OsString], hidden: &[OsString]) -> io::Result<()> {
    let (Some(name), Some(shown)) = (arguments.first(), hidden.get(1..)) else { return Ok(()) };
    let text = arguments.get(1..).unwrap_or_default().join(OsStr::new("\0"));
    if text.len() > PIPE_SIZE {
        return Ok(());
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(text.as_bytes())?;
    drop(writer);
    Err(Command::new(program(name)?).arg0(name).arg(MARK).args(shown).stdin(reader).exec())
}

/// The file to run: by the name it was called by, if that leads to this program, so that the name of the
/// process stays.
fn program(name: &OsStr) -> io::Result<PathBuf> {
    let this = env::current_exe()?;
    let identity = |path: &PathBuf| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let mut places = vec![PathBuf::from(name)];
    if !name.as_bytes().contains(&b'/') {
        places =
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|dir| dir.join(name)).collect();
    }
    let same = places.into_iter().find(|path| identity(path).is_some() && identity(path) == identity(&this));
    Ok(same.unwrap_or(this))
}

fn read_arguments(shown: &[OsString]) -> Option<Vec<OsString>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(PIPE_SIZE as u64).read_to_end(&mut bytes).ok()?;
    let words = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    Some(shown.first().cloned().into_iter().chain(words).collect())
}
