//! Keeps passwords out of the process list.
//!
//! The arguments of a process can be read by every user of the machine. A program cannot change its own safely,
//! but it can begin anew with others: the true ones then come through a pipe, or a file in memory, in the
//! place of standard input, which is not read for anything else.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::passwords::without_password;

/// Stands first among the arguments when the true ones come through standard input.
const MARK: &str = "--arguments-on-stdin";

/// What any pipe takes without a reader, also that of a user who has too many.
const PIPE_SIZE: usize = 4096;

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
    let text = word.to_string_lossy();
    let hidden = without_password(&text);
    // What is not UTF-8 is only changed where there is something to hide.
    if hidden == text { word.to_owned() } else { hidden.into() }
}

fn begin_anew(arguments: &[OsString], hidden: &[OsString]) -> io::Result<()> {
    let (Some(name), Some(shown)) = (arguments.first(), hidden.get(1..)) else { return Ok(()) };
    let text = arguments.get(1..).unwrap_or_default().join(OsStr::new("\0"));
    Err(Command::new(program(name)?).arg0(name).arg(MARK).args(shown).stdin(holding(text.as_bytes())?).exec())
}

/// Something from which this text can be read: a pipe, or a file in memory if no pipe surely takes it.
fn holding(text: &[u8]) -> io::Result<Stdio> {
    if text.len() <= PIPE_SIZE {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(text)?;
        return Ok(reader.into());
    }
    let mut file = File::from(memfd_create("arguments", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
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
    io::stdin().lock().read_to_end(&mut bytes).ok()?;
    let words = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    Some(shown.first().cloned().into_iter().chain(words).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_utf8_is_hidden_too() {
        let word = OsString::from_vec(b"host=\xff password=s3cret".to_vec());
        assert!(!hide(&word).to_string_lossy().contains("s3cret"));
        let plain = OsString::from_vec(b"/data/\xff".to_vec());
        assert_eq!(hide(&plain), plain);
    }
}
