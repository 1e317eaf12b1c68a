//! A connection string, parsed, completed and checked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::auth::AuthRules;
use super::encryption::Encryption;
use super::environment::Environment;
use super::error::ConninfoError;
use super::options::Values;
use super::servers::{self, Candidate, LoadBalance, SessionAttrs};
use super::service::{self, Place};
use super::tcp::{TcpOptions, positive};
use super::{passfile, syntax};

/// Connecting takes no longer than this unless the string says otherwise.
pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A parsed and checked connection string, completed from a service, from the environment and from defaults.
///
/// Its passwords show neither in `Debug` nor in [`Conninfo::redacted`].
#[derive(Clone)]
pub struct Conninfo {
    pub(super) values: Values,
    pub(super) service: Option<Place>,
    pub(super) candidates: Vec<Candidate>,
    /// The file the candidates' passwords are from, if they are from a file.
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
    /// environment (`PGHOST` and so on), the password file and the built-in defaults, in this order.
    ///
    /// # Errors
    /// What libpq refuses, in its words; what this program cannot do and must not ignore.
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

    /// The database to connect to: that of the string, or the one named as the role.
    pub fn database(&self) -> &str {
        self.values.get("dbname").unwrap_or(self.user())
    }

    /// The servers to try, in this order.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whether to keep to that order.
    pub(crate) fn load_balance(&self) -> LoadBalance {
        self.load_balance
    }

    /// Which of them will do.
    pub(crate) fn session_attrs(&self) -> SessionAttrs {
        self.session_attrs
    }

    /// How long connecting to one address may take, authentication included; `None`: as long as it likes.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// Whether and how the connection is encrypted.
    pub(crate) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// What is asked of authentication.
    pub(crate) fn auth(&self) -> &AuthRules {
        &self.auth
    }

    /// The options of TCP connections.
    pub(crate) fn tcp(&self) -> &TcpOptions {
        &self.tcp
    }

    /// The password file, if passwords are from there.
    pub(crate) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// What to say to a candidate; neither its address nor the encryption are in it.
    pub(crate) fn config(&self, candidate: &Candidate) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(self.user()).dbname(self.database()).channel_binding(self.auth.channel_binding);
        if let Some(password) = &candidate.password {
            config.password(password.expose());
        }
        if let Some(options) = self.values.get("options") {
            config.options(options);
        }
        let name = self.values.get("application_name").or(self.values.get("fallback_application_name"));
        config.application_name(name.unwrap_or("kbrecover"));
        config
    }

    /// Looks every candidate up in the password file, which is read once.
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
            candidate.password = file.find(&candidate.passfile_host(), candidate.port, database, user);
        }
        self.password_file = Some(path);
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conninfo").field(&self.redacted()).finish()
    }
}

/// `min_protocol_version` and `max_protocol_version`, of which only 3.0 is spoken here.
fn check_protocol(values: &Values) -> Result<(), ConninfoError> {
    const VERSIONS: [&str; 3] = ["3.0", "3.2", "latest"];
    let rank = |keyword| -> Result<Option<usize>, ConninfoError> {
        let Some(value) = values.raw(keyword) else { return Ok(None) };
        let known = VERSIONS.iter().position(|version| *version == value);
        // The latest is 3.2.
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
