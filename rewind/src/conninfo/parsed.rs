//! A connection string, parsed, completed and checked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::auth::AuthRules;
use super::encryption::Encryption;
use super::environment::Environment;
use super::error::ConninfoError;
use super::options::Values;
use super::passfile::{self, Password, REPLICATION};
use super::servers::{self, Candidate, LoadBalance, SessionAttrs};
use super::service::{self, Place};
use super::syntax;
use super::tcp::{TcpOptions, positive};

/// The default of `connect_timeout`. libpq has none, and would wait for ever.
pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection string, completed and checked. See the [crate::conninfo] module for an example.
///
/// Neither `Debug` nor [`Conninfo::redacted`] shows passwords.
#[derive(Clone)]
pub struct Conninfo {
    pub(super) values: Values,
    pub(super) service: Option<Place>,
    pub(super) candidates: Vec<Candidate>,
    /// The password file, if the candidates' passwords come from it.
    password_file: Option<PathBuf>,
    session_attrs: SessionAttrs,
    load_balance: LoadBalance,
    encryption: Encryption,
    auth: AuthRules,
    connect_timeout: Option<Duration>,
    tcp: TcpOptions,
}

impl Conninfo {
    /// Parses `text`, which is `keyword=value ...` or a URI, and completes it from the service it names, the
    /// environment (`PGHOST` and so on), the password file, and the built-in defaults, in this order.
    ///
    /// # Errors
    /// A string that libpq rejects, with its message; an option that is not supported here and must not be ignored.
    pub fn parse(text: &str, environment: &dyn Environment) -> Result<Conninfo, ConninfoError> {
        let (mut values, notation) = syntax::parse(text)?;
        let service = service::apply(&mut values, environment)?;
        values.complete(environment);
        let user = match values.get("user") {
            Some(user) => user.to_owned(),
            None => environment.os_user().ok_or(ConninfoError::NoUser)?,
        };
        values.set_default("user", user);

        let candidates = servers::candidates(&values, notation)?;
        let auth = AuthRules::of(&values)?;
        let encryption = Encryption::of(&values, environment)?;
        values.check_word("gssencmode", &["disable", "prefer", "require"])?;
        if values.get("gssencmode") == Some("require") {
            return Err(ConninfoError::Gssapi);
        }
        check_protocol(&values)?;
        let session_attrs = SessionAttrs::of(&values)?;
        let load_balance = LoadBalance::of(&values)?;
        let connect_timeout = match values.integer("connect_timeout")? {
            None => Some(DEFAULT_CONNECT_TIMEOUT),
            Some(seconds) => positive(seconds).map(|seconds| Duration::from_secs(seconds.into())),
        };
        let tcp = TcpOptions::of(&values)?;

        let mut conninfo = Conninfo {
            values,
            service,
            candidates,
            password_file: None,
            session_attrs,
            load_balance,
            encryption,
            auth,
            connect_timeout,
            tcp,
        };
        if conninfo.values.get("password").is_none() {
            conninfo.find_passwords(environment);
        }
        Ok(conninfo)
    }

    /// The role to connect as.
    pub fn user(&self) -> &str {
        self.values.get("user").unwrap_or_default()
    }

    /// The database to connect to; by default it has the name of the role.
    pub fn database(&self) -> &str {
        self.values.get("dbname").unwrap_or(self.user())
    }

    /// The same server, role and password, but another database.
    pub(crate) fn with_database(&self, name: &str) -> Conninfo {
        let mut conninfo = self.clone();
        // The option exists.
        let _ = conninfo.values.set("dbname", name.to_owned());
        conninfo
    }

    /// The servers to try, in the order given.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// In which order to try them.
    pub(crate) fn load_balance(&self) -> LoadBalance {
        self.load_balance
    }

    /// Which of them are acceptable.
    pub(crate) fn session_attrs(&self) -> SessionAttrs {
        self.session_attrs
    }

    /// The time limit for connecting to one address, including authentication; `None` for no limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// Whether and how the connection is encrypted.
    pub(crate) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// The rules for authentication.
    pub(crate) fn auth(&self) -> &AuthRules {
        &self.auth
    }

    /// The options of TCP connections.
    pub(crate) fn tcp(&self) -> &TcpOptions {
        &self.tcp
    }

    /// The password file, if the passwords come from it.
    pub(crate) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// The startup parameters and the password for a candidate. Address and encryption are not part of it.
    pub(crate) fn config(&self, candidate: &Candidate) -> tokio_postgres::Config {
        self.config_with(self.database(), candidate.password.as_ref())
    }

    /// The same for a physical replication connection, as the WAL receiver of a standby opens it.
    pub(crate) fn replication_config(&self, candidate: &Candidate) -> tokio_postgres::Config {
        self.config_with(REPLICATION, candidate.replication_password.as_ref())
    }

    fn config_with(&self, database: &str, password: Option<&Password>) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(self.user()).dbname(database).channel_binding(self.auth.channel_binding);
        if let Some(password) = password {
            config.password(password.expose());
        }
        if let Some(options) = self.values.get("options") {
            config.options(options);
        }
        let name = self.values.get("application_name").or(self.values.get("fallback_application_name"));
        config.application_name(name.unwrap_or("kbrecover"));
        config
    }

    /// Looks up the password of each candidate in the password file.
    fn find_passwords(&mut self, environment: &dyn Environment) {
        let home = environment.home().map(|home| home.join(".pgpass"));
        if let Some(default) = home.as_deref().and_then(Path::to_str) {
            self.values.set_default("passfile", default.to_owned());
        }
        let Some(path) = self.values.get("passfile").map(PathBuf::from) else { return };
        let Some(file) = passfile::read(&path) else { return };
        let user = self.values.get("user").unwrap_or_default();
        let database = self.values.get("dbname").unwrap_or(user);
        for candidate in &mut self.candidates {
            let (host, port) = (candidate.passfile_host(), candidate.port);
            candidate.password = file.find(&host, port, database, user);
            candidate.replication_password = file.find(&host, port, REPLICATION, user);
        }
        self.password_file = Some(path);
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conninfo").field(&self.redacted()).finish()
    }
}

/// Checks `min_protocol_version` and `max_protocol_version`. Only protocol version 3.0 is implemented.
fn check_protocol(values: &Values) -> Result<(), ConninfoError> {
    const VERSIONS: [&str; 3] = ["3.0", "3.2", "latest"];
    let rank = |keyword| -> Result<Option<usize>, ConninfoError> {
        let Some(value) = values.raw(keyword) else { return Ok(None) };
        let known = VERSIONS.iter().position(|version| *version == value);
        // "latest" is 3.2.
        let rank = known.map(|rank| rank.min(1));
        rank.map(Some).ok_or_else(|| ConninfoError::Word { keyword, value: value.to_owned() })
    };
    let (min, max) = (rank("min_protocol_version")?, rank("max_protocol_version")?);
    if min > Some(0) {
        return Err(match max {
            Some(0) => ConninfoError::ProtocolVersionRange,
            _ => ConninfoError::Unsupported { keyword: "min_protocol_version" },
        });
    }
    Ok(())
}
