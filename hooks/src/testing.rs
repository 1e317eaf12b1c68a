//! Help for this crate's tests.

use std::path::Path;
use std::process::Command;

/// Writes a shell script that can be run.
///
/// A shell writes it: were it this process, a child of another test, forked in that moment, would hold the
/// file open for writing, and running it would fail with "text file busy".
pub(crate) fn fake_program(path: &Path, script: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#])
        .arg(path)
        .arg(script)
        .status();
    assert!(status.unwrap().success());
}
