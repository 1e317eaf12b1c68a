//! Connection strings: what is shown has no password in it, and what a standby is given reads back.
#![no_main]

use std::path::PathBuf;

use kbrecover_rewind::conninfo::{Conninfo, Environment, WrittenPassword};
use walparse::Version;

/// An environment that says nothing, so that a run depends on its input only.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn os_user(&self) -> Option<String> {
        Some("user".to_owned())
    }

    fn home(&self) -> Option<PathBuf> {
        None
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    // A password file would be opened. In a URI its keyword may be encoded.
    if text.contains("passfile") || text.contains("://") && text.contains('%') && text.contains('?') {
        return;
    }
    let Ok(conninfo) = Conninfo::parse(text, &Nothing) else { return };
    let _ = (conninfo.redacted(), format!("{conninfo:?}"));
    // An empty value is left out, and its default then written; once it is there, nothing changes any more.
    let written = rewritten(&conninfo);
    let again = rewritten(
        &Conninfo::parse(&written, &Nothing).unwrap_or_else(|error| panic!("{written:?}: {error}")),
    );
    let third =
        rewritten(&Conninfo::parse(&again, &Nothing).unwrap_or_else(|error| panic!("{again:?}: {error}")));
    assert_eq!(again, third);
});

/// What a standby would be given.
fn rewritten(conninfo: &Conninfo) -> String {
    // The newest version, whose libpq knows every default.
    let newest = Version::all().last().expect("a supported version");
    conninfo.primary_conninfo(newest, WrittenPassword::IfGiven)
}
