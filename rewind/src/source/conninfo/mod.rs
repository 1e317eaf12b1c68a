//! Connection strings, as libpq has them.
//!
//! A string, the environment and the built-in defaults become one checked [`Conninfo`]; what a connection
//! is opened with is set from it option by option. tokio-postgres's own parser is not used: it reads some
//! strings differently (milliseconds as seconds, another host), and refuses others.
//!
//! Passwords leave this module only for the server and for `primary_conninfo`.

mod environment;
mod options;
mod passfile;
mod servers;
mod syntax;

use std::fmt;
use std::path::Path;
use std::time::Duration;

pub use environment::{Environment, ProcessEnvironment};
use options::Values;
pub(crate) use servers::{Address, Candidate};
use walparse::Version;

/// Connecting takes no longer than this unless the string says otherwise.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine that is gone without a word is to be noticed within half a minute, not within the two hours of the
/// operating system. (Three unanswered probes, or data that nobody acknowledges.)
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A parsed and checked connection string, completed from the environment and from defaults.
///
/// Its passwords show neither in `Debug` nor in [`Conninfo::redacted`].
#[derive(Clone)]
pub struct Conninfo {
    values: Values,
    candidates: Vec<Candidate>,
    session_attrs: SessionAttrs,
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

/// The options of a TCP connection; `None` leaves one to the operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
struct TcpOptions {
    keepalives: bool,
    idle: Option<Duration>,
    interval: Option<Duration>,
    count: Option<u32>,
    user_timeout: Option<Duration>,
}

/// The first version whose standby has a use for a database in `primary_conninfo`: it synchronises slots.
const SLOT_SYNCHRONISATION: u32 = 180_000;

impl Conninfo {
    /// Parses `text`, which is `keyword=value ...` or a URI, and completes it from the environment
    /// (`PGHOST` and so on), the password file and the built-in defaults, in this order.
    ///
    /// # Errors
    /// What libpq refuses, in its words; `service`, which is not supported.
    pub fn parse(text: &str, environment: &dyn Environment) -> Result<Conninfo, ConninfoError> {
        let mut values = syntax::parse(text)?;
        values.complete(environment);
        if values.get("service").is_some() {
            return Err(ConninfoError::Service);
        }
        let user = match values.get("user") {
            Some(user) => user.to_owned(),
            None => environment.os_user().ok_or(ConninfoError::NoUser)?,
        };
        values.set_default("user", user);

        values
            .check_word("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])?;
        values.check_word("channel_binding", &["disable", "prefer", "require"])?;
        values.check_word("gssencmode", &["disable", "prefer", "require"])?;
        let session_attrs = session_attrs(&values)?;
        let connect_timeout = match values.integer("connect_timeout")? {
            None => Some(DEFAULT_CONNECT_TIMEOUT),
            Some(seconds) => positive(seconds).map(Duration::from_secs),
        };
        let seconds = |keyword| Ok(values.integer(keyword)?.and_then(positive).map(Duration::from_secs));
        let tcp = TcpOptions {
            keepalives: values.integer("keepalives")?.is_none_or(|value| value != 0),
            idle: seconds("keepalives_idle")?.or(Some(KEEPALIVE_IDLE)),
            interval: seconds("keepalives_interval")?.or(Some(KEEPALIVE_INTERVAL)),
            count: match values.integer("keepalives_count")? {
                None => Some(KEEPALIVE_COUNT),
                Some(count) => u32::try_from(count).ok(),
            },
            user_timeout: match values.integer("tcp_user_timeout")? {
                None => Some(USER_TIMEOUT),
                Some(milliseconds) => positive(milliseconds).map(Duration::from_millis),
            },
        };

        let mut candidates = servers::candidates(&values)?;
        if values.get("password").is_none() {
            let home = environment.home().map(|home| home.join(".pgpass"));
            if let Some(default) = home.as_deref().and_then(Path::to_str) {
                values.set_default("passfile", default.to_owned());
            }
            find_passwords(&values, &mut candidates);
        }
        Ok(Conninfo { values, candidates, session_attrs, connect_timeout, tcp })
    }

    /// The role to connect as.
    pub fn user(&self) -> &str {
        self.values.get("user").unwrap_or_default()
    }

    /// The database to connect to: that of the string, or the one named as the role.
    pub fn database(&self) -> &str {
        self.values.get("dbname").unwrap_or(self.user())
    }

    /// What the string and the environment said, for display: every password is `********`.
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
    /// It has every option with a value, defaults too unless that version's libpq would refuse them, and so
    /// **the password** if one was given in the string or in `PGPASSWORD` (one from a password file is not
    /// written: the file is). The database is there if it was given, from 18 on.
    pub fn primary_conninfo(&self, version: Version) -> String {
        let written = self.values.all().filter(|(option, _, given)| match option.keyword {
            "replication" | "fallback_application_name" => false,
            "dbname" => *given && version.server_version_num() >= SLOT_SYNCHRONISATION,
            _ => *given || option.is_known_to(version),
        });
        written
            .map(|(option, value, _)| format!("{}={}", option.keyword, quoted(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The servers to try, in this order.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Which of them will do.
    pub(crate) fn session_attrs(&self) -> SessionAttrs {
        self.session_attrs
    }

    /// How long connecting to one address may take, authentication included; `None`: as long as it likes.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The first option that asks for a protection this build cannot give on such an address.
    ///
    /// Ignoring it would send data, or a password, in a way the user has forbidden.
    pub(crate) fn unsupported(&self, address: &Address) -> Option<Unsupported> {
        let is = |keyword: &'static str, words: &[&str]| {
            let value = self.values.get(keyword).filter(|value| words.contains(value))?;
            Some(Unsupported { keyword, value: value.to_owned() })
        };
        let set = |keyword: &'static str| {
            let value = self.values.get(keyword)?;
            Some(Unsupported { keyword, value: value.to_owned() })
        };
        let over_tcp = || {
            is("sslmode", &["require", "verify-ca", "verify-full"])
                .or_else(|| is("sslnegotiation", &["direct"]))
                .or_else(|| is("gssencmode", &["require"]))
        };
        // As in libpq, neither TLS nor GSS encryption is a question on a Unix socket.
        let transport = if address.is_unix() { set("requirepeer") } else { over_tcp() };
        transport.or_else(|| is("channel_binding", &["require"])).or_else(|| set("require_auth"))
    }

    /// What to open a connection with; the caller adds the address.
    pub(crate) fn config(&self, candidate: &Candidate) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(self.user()).dbname(self.database()).ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &candidate.password {
            config.password(password.expose());
        }
        if let Some(options) = self.values.get("options") {
            config.options(options);
        }
        let name = self.values.get("application_name").or(self.values.get("fallback_application_name"));
        config.application_name(name.unwrap_or("kbrecover"));
        config.keepalives(self.tcp.keepalives);
        if let Some(idle) = self.tcp.idle {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = self.tcp.interval {
            config.keepalives_interval(interval);
        }
        if let Some(count) = self.tcp.count.filter(|count| *count > 0) {
            config.keepalives_retries(count);
        }
        if let Some(timeout) = self.tcp.user_timeout {
            config.tcp_user_timeout(timeout);
        }
        config
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conninfo").field(&self.redacted()).finish()
    }
}

/// An option that asks for more than this build can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unsupported {
    pub(crate) keyword: &'static str,
    pub(crate) value: String,
}

/// Why a connection string cannot be used. The words are libpq's where it has some.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConninfoError {
    /// A keyword libpq does not know either.
    #[error("invalid connection option \"{keyword}\"")]
    UnknownOption {
        /// The keyword.
        keyword: String,
    },
    /// The same in the query part of a URI.
    #[error("invalid URI query parameter: \"{keyword}\"")]
    UnknownParameter {
        /// The keyword.
        keyword: String,
    },
    /// A keyword without a value.
    #[error("missing \"=\" after \"{keyword}\" in connection info string")]
    MissingEquals {
        /// The keyword.
        keyword: String,
    },
    /// A quote that does not close.
    #[error("unterminated quoted string in connection info string")]
    UnterminatedQuote,
    /// A URI that breaks the grammar.
    #[error("{problem} in URI")]
    Uri {
        /// What is wrong. Not where: the text around it may be a password.
        problem: &'static str,
    },
    /// Bad percent-encoding.
    #[error("invalid percent-encoded token in the {part} of the URI")]
    PercentEncoding {
        /// Where, without quoting what may be a password.
        part: &'static str,
    },
    /// A word that is none of those allowed.
    #[error("invalid {keyword} value: \"{value}\"")]
    Word {
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a number.
    #[error("invalid integer value \"{value}\" for connection option \"{keyword}\"")]
    Integer {
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// No port.
    #[error("invalid port number: \"{value}\"")]
    Port {
        /// What stands there.
        value: String,
    },
    /// No numeric address.
    #[error("could not parse network address \"{value}\"")]
    HostAddress {
        /// What stands there.
        value: String,
    },
    /// As many ports as hosts, or one.
    #[error("could not match {ports} port numbers to {hosts} hosts")]
    PortCount {
        /// Ports given.
        ports: usize,
        /// Hosts given.
        hosts: usize,
    },
    /// As many addresses as hosts.
    #[error("could not match {hosts} host names to {addresses} hostaddr values")]
    HostCount {
        /// Host names given.
        hosts: usize,
        /// Addresses given.
        addresses: usize,
    },
    /// `service=` or `PGSERVICE`.
    #[error("connection service files are not supported")]
    Service,
    /// Nobody to connect as.
    #[error("could not find out the name of the operating system user")]
    NoUser,
}

impl ConninfoError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ConninfoError::Service => {
                "Give the options of the service in the connection string, and unset PGSERVICE.".to_owned()
            }
            ConninfoError::NoUser => "Give user=... in the connection string.".to_owned(),
            ConninfoError::HostAddress { .. } => {
                "hostaddr takes a numeric address without a zone; put names into host.".to_owned()
            }
            ConninfoError::PercentEncoding { .. } => {
                "Write a percent sign as %25 and other special characters as % and two digits.".to_owned()
            }
            _ => "Write \"host=... port=... user=... dbname=...\", or a URI \"postgresql://user@host:port/dbname\"."
                .to_owned(),
        })
    }
}

/// `Some` for a number above zero; libpq takes all others for "not set".
fn positive(value: i32) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn session_attrs(values: &Values) -> Result<SessionAttrs, ConninfoError> {
    Ok(match values.get("target_session_attrs") {
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

/// Looks every candidate up in the password file, which is read once.
fn find_passwords(values: &Values, candidates: &mut [Candidate]) {
    let user = values.get("user").unwrap_or_default();
    let database = values.get("dbname").unwrap_or(user);
    let Some(file) = values.get("passfile").and_then(|path| passfile::read(Path::new(path))) else { return };
    for candidate in candidates {
        let host = candidate.passfile_host();
        candidate.password = file.find(&host, candidate.port, database, user);
    }
}

/// A value as a connection string takes it: bare if it is harmless, else quoted.
fn quoted(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests;
