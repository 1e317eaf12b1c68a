//! Keeps passwords out of the process list.
//!
//! Every user of the machine can read the arguments of a process. A program cannot change its own arguments
//! safely, but it can execute itself again with others. The real arguments are then passed on standard
//! input, through a pipe or an in-memory file. Standard input has no other use.

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

/// The first argument if the real arguments are on standard input.
const MARK: &str = "--arguments-on-stdin";

/// The capacity that every pipe has, even if the user has exceeded the limit of pipe buffers.
const PIPE_SIZE: usize = 4096;

/// The arguments, starting with the program's name. If they contain a password, the process list no longer
/// shows it after this call.
pub(crate) fn arguments() -> Vec<OsString> {
    let shown: Vec<OsString> = env::args_os().collect();
    if shown.get(1).is_some_and(|first| first == MARK) {
        return read_arguments(&shown).unwrap_or(shown);
    }
    let hidden: Vec<OsString> = shown.iter().map(|word| hide(word)).collect();
    if hidden != shown {
        // Returns only on failure. The password then stays visible.
        let _ = execute_again(&shown, &hidden);
    }
    shown
}

fn hide(word: &OsStr) -> OsString {
    let text = word.to_string_lossy();
    let hidden = without_password(&text);
    // An argument without a password stays as it is, even if it is not UTF-8.
    if hidden == text { word.to_owned() } else { hidden.into() }
}

fn execute_again(arguments: &[OsString], hidden: &[OsString]) -> io::Result<()> {
    let (Some(name), Some(shown)) = (arguments.first(), hidden.get(1..)) else { return Ok(()) };
    let text = arguments.get(1..).unwrap_or_default().join(OsStr::new("\0"));
    Err(Command::new(program(name)?)
        .arg0(name)
        .arg(MARK)
        .args(shown)
        .stdin(stdin_with(text.as_bytes())?)
        .exec())
}

/// Standard input with this text: a pipe, or an in-memory file if the text may exceed a pipe's capacity.
fn stdin_with(text: &[u8]) -> io::Result<Stdio> {
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

/// The file to execute: the one that the program was called by, if it is this program, so that the process
/// keeps its name.
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
    fn passwords_are_hidden_in_arguments_that_are_not_utf8() {
        let word = OsString::from_vec(b"host=\xff password=s3cret".to_vec());
        assert!(!hide(&word).to_string_lossy().contains("s3cret"));
        let plain = OsString::from_vec(b"/data/\xff".to_vec());
        assert_eq!(hide(&plain), plain);
    }
}
