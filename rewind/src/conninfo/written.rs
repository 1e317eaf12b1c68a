//! Connection strings for a standby (`primary_conninfo`) and for display.

use std::path::Path;

use walparse::Version;

use super::options::Origin;
use super::parsed::Conninfo;
use super::passfile::{self, REPLICATION};
use super::service::Place;

/// The first version whose `pg_rewind -R` writes `dbname` into `primary_conninfo`, for slot synchronization.
const SLOT_SYNCHRONISATION: u32 = 180_000;

/// When `primary_conninfo` contains the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrittenPassword {
    /// If it was given, and the standby would not find it in the password file or service file.
    IfNeeded,
    /// If it was given, as `pg_rewind -R` does.
    IfGiven,
}

impl Conninfo {
    /// The options given in the string, the service and the environment, for display. Passwords are shown as `********`.
    pub fn redacted(&self) -> String {
        let shown = self.values.given().map(|(option, value)| {
            let value = if option.secret { "********".to_owned() } else { quoted(value) };
            format!("{}={value}", option.keyword)
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The value of `primary_conninfo` for a standby of this version that follows the server of this connection string,
    /// as `pg_rewind -R` writes it.
    ///
    /// It contains every option that has a value, including defaults that the libpq of that version accepts. A password
    /// from a password file is not written, but the path of the file is. From version 18 on, `dbname` comes last, if it
    /// was given.
    pub fn primary_conninfo(&self, version: Version, password: WrittenPassword) -> String {
        let provided = password == WrittenPassword::IfNeeded && self.standby_finds_password();
        let written = self.values.all().filter(|(option, _, origin)| match option.keyword {
            "replication" | "fallback_application_name" | "dbname" => false,
            "password" => !provided,
            // A standby that does not find its service cannot connect.
            "service" => password == WrittenPassword::IfGiven || self.service == Some(Place::Usual),
            _ => *origin != Origin::Default || option.is_known_to(version),
        });
        let mut pairs: Vec<_> =
            written.map(|(option, value, _)| format!("{}={}", option.keyword, quoted(value))).collect();
        if version.server_version_num() >= SLOT_SYNCHRONISATION
            && self.values.origin("dbname").is_some_and(|origin| origin != Origin::Default)
        {
            pairs.push(format!("dbname={}", quoted(self.database())));
        }
        pairs.join(" ")
    }

    /// Whether a server of the same operating system user, with another environment, finds the same password.
    fn standby_finds_password(&self) -> bool {
        if self.values.origin("password") == Some(Origin::Service) && self.service == Some(Place::Usual) {
            return true;
        }
        let Some(password) = self.values.get("password") else { return false };
        let Some(file) = self.values.get("passfile").and_then(|path| passfile::read(Path::new(path))) else {
            return false;
        };
        self.candidates.iter().all(|candidate| {
            let found = file.find(&candidate.passfile_host(), candidate.port, REPLICATION, self.user());
            found.is_some_and(|found| found.expose() == password.as_bytes())
        })
    }
}

/// A value as it is written in a connection string, quoted if necessary.
pub(super) fn quoted(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
