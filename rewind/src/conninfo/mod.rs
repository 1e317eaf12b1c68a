//! Connection strings, as libpq has them.
//!
//! A string, the service it names, the environment and the built-in defaults become one checked [`Conninfo`];
//! what a connection is opened with is set from it option by option. tokio-postgres's own parser is not used:
//! it reads some strings differently (milliseconds as seconds, another host), and refuses others.
//!
//! Passwords leave this module only for the server, for the key they open and for `primary_conninfo`.

mod encryption;
mod environment;
mod error;
mod options;
mod passfile;
mod require_auth;
mod servers;
mod service;
mod syntax;
mod text;
mod written;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use encryption::{Encryption, Negotiation, SslMode, TrustedRoots};
pub(crate) use environment::user_name;
pub use environment::{Environment, ProcessEnvironment};
pub use error::ConninfoError;
use options::Values;
pub(crate) use require_auth::{AuthMethod, AuthRequirement};
pub(crate) use servers::{Address, Candidate};
use service::Place;
pub use text::ConninfoText;
use tokio_postgres::config::ChannelBinding;
pub use written::WrittenPassword;

/// Connecting takes no longer than this unless the string says otherwise.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine that is gone without a word is to be noticed within half a minute, not within the two hours of the
/// operating system. (Three unanswered probes, or data that nobody acknowledges.)
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
const USER_TIMEOUT_MILLISECONDS: u32 = 30_000;

/// A parsed and checked connection string, completed from a service, from the environment and from defaults.
///
/// Its passwords show neither in `Debug` nor in [`Conninfo::redacted`].
#[derive(Clone)]
pub struct Conninfo {
    values: Values,
    service: Option<Place>,
    candidates: Vec<Candidate>,
    /// The file the candidates' passwords are from, if they are from a file.
    password_file: Option<PathBuf>,
    session_attrs: SessionAttrs,
    load_balance: LoadBalance,
    encryption: Encryption,
    auth: AuthRules,
    connect_timeout: Option<Duration>,
    tcp: TcpOptions,
}

/// `target_session_attrs`: which servers of a list will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// `load_balance_hosts`: in which order the servers of a list are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadBalance {
    AsGiven,
    Random,
}

/// What the server must or must not do to convince the client and to be convinced.
#[derive(Clone, Debug)]
pub(crate) struct AuthRules {
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) methods: Option<AuthRequirement>,
    /// The user of the operating system that the server behind a Unix socket must run as.
    pub(crate) peer: Option<String>,
}

/// The options of a TCP connection; `None` leaves one to the operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) keepalives: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) count: Option<u32>,
    pub(crate) user_timeout: Option<u32>,
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
        let session_attrs = session_attrs(&values)?;
        values.check_word("load_balance_hosts", &["disable", "random"])?;
        let load_balance = match values.get("load_balance_hosts") {
            Some("random") => LoadBalance::Random,
            _ => LoadBalance::AsGiven,
        };
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

impl AuthRules {
    fn of(values: &Values) -> Result<AuthRules, ConninfoError> {
        let methods = values.get("require_auth").map(AuthRequirement::parse).transpose()?;
        values.check_word("channel_binding", &["disable", "prefer", "require"])?;
        // Only another libpq has such keys to pass on.
        for keyword in ["scram_client_key", "scram_server_key"] {
            if values.get(keyword).is_some() {
                return Err(ConninfoError::Unsupported { keyword });
            }
        }
        Ok(AuthRules {
            channel_binding: match values.get("channel_binding") {
                Some("disable") => ChannelBinding::Disable,
                Some("require") => ChannelBinding::Require,
                _ => ChannelBinding::Prefer,
            },
            methods,
            peer: values.get("requirepeer").map(str::to_owned),
        })
    }
}

impl TcpOptions {
    fn of(values: &Values) -> Result<TcpOptions, ConninfoError> {
        // What is given is as libpq has it: zero leaves it to the operating system, and an empty value is no number.
        let number = |keyword, usual| match values.raw(keyword) {
            None => Ok(Some(usual)),
            Some(_) => Ok(values.integer(keyword)?.and_then(positive)),
        };
        let seconds = |keyword, usual: Duration| {
            let seconds = number(keyword, usual.as_secs() as u32)?;
            Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        };
        Ok(TcpOptions {
            keepalives: values.integer("keepalives")?.is_none_or(|value| value != 0),
            idle: seconds("keepalives_idle", KEEPALIVE_IDLE)?,
            interval: seconds("keepalives_interval", KEEPALIVE_INTERVAL)?,
            count: number("keepalives_count", KEEPALIVE_COUNT)?,
            user_timeout: number("tcp_user_timeout", USER_TIMEOUT_MILLISECONDS)?,
        })
    }
}

/// `Some` for a number above zero; libpq takes all others for "not set".
fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
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

fn session_attrs(values: &Values) -> Result<SessionAttrs, ConninfoError> {
    Ok(match values.raw("target_session_attrs") {
        None | Some("any") => SessionAttrs::Any,
        Some("read-write") => SessionAttrs::ReadWrite,
        Some("read-only") => SessionAttrs::ReadOnly,
        Some("primary") => SessionAttrs::Primary,
        Some("standby") => SessionAttrs::Standby,
        Some("prefer-standby") => SessionAttrs::PreferStandby,
        Some(other) => {
            return Err(ConninfoError::Word { keyword: "target_session_attrs", value: other.to_owned() });
        }
    })
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
