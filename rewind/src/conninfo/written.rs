//! The string a standby is given, and the one a user is shown.

use std::path::Path;

use walparse::Version;

use super::options::Origin;
use super::parsed::Conninfo;
use super::passfile;
use super::service::Place;

/// The first version whose standby has a use for a database in `primary_conninfo`: it synchronises slots.
const SLOT_SYNCHRONISATION: u32 = 180_000;

/// The database under which a standby looks its password up.
const REPLICATION: &str = "replication";

/// When `primary_conninfo` holds the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrittenPassword {
    /// If it was given and the standby would not find it in the password file or the service file.
    IfNeeded,
    /// If it was given, as `pg_rewind -R` does.
    IfGiven,
}

impl Conninfo {
    /// What was given in the string, the service and the environment, for display: every password is `********`.
    pub fn redacted(&self) -> String {
        let shown = self.values.given().map(|(option, value)| {
            let value = if option.secret { "********".to_owned() } else { quoted(value) };
            format!("{}={value}", option.keyword)
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The text that makes a standby of this version follow the server this string leads to, as
    /// `pg_rewind -R` writes it.
    ///
    /// It has every option with a value, defaults too unless that version's libpq would refuse them. A password
    /// from a password file is not written: the file is. The database comes last, if it was given, from 18 on.
    pub fn primary_conninfo(&self, version: Version, password: WrittenPassword) -> String {
        let provided = password == WrittenPassword::IfNeeded && self.standby_finds_password();
        let written = self.values.all().filter(|(option, _, origin)| match option.keyword {
            "replication" | "fallback_application_name" | "dbname" => false,
            "password" => !provided,
            // A standby that does not find its service does not start to follow.
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

    /// Whether a server of the same user, with another environment, comes to the same password by itself.
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

/// A value as a connection string takes it: bare if it is harmless, else quoted.
pub(super) fn quoted(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
