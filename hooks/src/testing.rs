//! Helpers for this crate's tests.

use std::path::Path;
use std::process::Command;

/// Writes an executable shell script.
///
/// A shell writes it rather than this process: a child that another test forks at that moment would inherit the file,
/// open for writing, and the script could not be executed ("text file busy").
pub(crate) fn fake_program(path: &Path, script: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#])
        .arg(path)
        .arg(script)
        .status();
    assert!(status.unwrap().success());
}
