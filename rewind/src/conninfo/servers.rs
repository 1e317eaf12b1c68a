//! The servers of a connection string, and which of them are acceptable.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::error::ConninfoError;
use super::options::Values;
use super::passfile::Password;
use super::syntax::Notation;

const DEFAULT_PORT: u16 = 5432;

/// The default socket directories of PostgreSQL: of the distributions' packages, and of other builds.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A server to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) address: Address,
    pub(crate) port: u16,
    pub(crate) password: Option<Password>,
    /// The password that a standby with the same connection string uses: a password file may have another one for it.
    pub(crate) replication_password: Option<Password>,
}

/// The address of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// The directory of a Unix-domain socket.
    Unix(PathBuf),
    /// A socket in Linux's abstract namespace: the "directory" without its `@`.
    Abstract(String),
    /// A TCP address: `numeric` if given, or else the addresses that `name` resolves to.
    Tcp { name: Option<String>, numeric: Option<String> },
}

/// `target_session_attrs`: the required property of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// `load_balance_hosts`: the order in which servers are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadBalance {
    AsGiven,
    Random,
}

impl SessionAttrs {
    /// Reads the option.
    pub(super) fn of(values: &Values) -> Result<SessionAttrs, ConninfoError> {
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
}

impl LoadBalance {
    /// Reads the option.
    pub(super) fn of(values: &Values) -> Result<LoadBalance, ConninfoError> {
        values.check_word("load_balance_hosts", &["disable", "random"])?;
        Ok(match values.get("load_balance_hosts") {
            Some("random") => LoadBalance::Random,
            _ => LoadBalance::AsGiven,
        })
    }
}

impl Candidate {
    /// The host name that the server's certificate must contain; `None` for a Unix-domain socket.
    pub(crate) fn host_name(&self) -> Option<&str> {
        match &self.address {
            Address::Tcp { name, .. } => name.as_deref(),
            _ => None,
        }
    }

    /// The host name to look up in a password file.
    pub(super) fn passfile_host(&self) -> String {
        match &self.address {
            Address::Unix(path) if SOCKET_DIRS.iter().any(|dir| path.as_os_str() == *dir) => {
                "localhost".to_owned()
            }
            Address::Unix(path) => path.display().to_string(),
            Address::Abstract(name) => format!("@{name}"),
            Address::Tcp { name, numeric } => name.clone().or(numeric.clone()).unwrap_or_default(),
        }
    }

    /// The server as libpq words it in messages, for one of the addresses that its name resolves to.
    pub(crate) fn at(&self, ip: &str) -> String {
        match &self.address {
            Address::Tcp { name: Some(name), numeric: None } if name != ip => {
                format!("server at \"{name}\" ({ip}), port {}", self.port)
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Candidate {
    /// The server as libpq words it in messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.address {
            Address::Unix(path) => write!(f, "server on socket \"{}/.s.PGSQL.{port}\"", path.display()),
            Address::Abstract(name) => write!(f, "server on socket \"@{name}/.s.PGSQL.{port}\""),
            Address::Tcp { name, numeric } => {
                let shown = numeric.as_deref().or(name.as_deref()).unwrap_or_default();
                write!(f, "server at \"{shown}\", port {port}")
            }
        }
    }
}

/// Combines the lists of `host`, `hostaddr` and `port`.
pub(super) fn candidates(values: &Values, notation: Notation) -> Result<Vec<Candidate>, ConninfoError> {
    let list = |keyword| values.get(keyword).map(|text| text.split(',').collect::<Vec<_>>());
    let (hosts, addresses) = (list("host"), list("hostaddr"));
    if let (Some(hosts), Some(addresses)) = (&hosts, &addresses)
        && hosts.len() != addresses.len()
    {
        return Err(ConninfoError::HostCount { hosts: hosts.len(), addresses: addresses.len() });
    }
    let count = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
    let ports = list("port").unwrap_or_default();
    if ports.len() > 1 && ports.len() != count {
        return Err(ConninfoError::PortCount { ports: ports.len(), hosts: count });
    }

    let password = values.get("password").map(|text| Password::new(text.to_owned()));
    let mut candidates = Vec::new();
    for index in 0..count {
        let entry = |list: &Option<Vec<&str>>| {
            let text = list.as_ref().and_then(|list| list.get(index)).copied().unwrap_or_default();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let port = parse_port(ports.get(index).or(ports.first()).copied().unwrap_or_default(), notation)?;
        for address in addresses_of(entry(&hosts), entry(&addresses))? {
            let replication_password = password.clone();
            candidates.push(Candidate { address, port, password: password.clone(), replication_password });
        }
    }
    Ok(candidates)
}

/// The addresses for one pair of `host` and `hostaddr`; without either, the default socket directories.
fn addresses_of(host: Option<String>, numeric: Option<String>) -> Result<Vec<Address>, ConninfoError> {
    if let Some(value) = &numeric {
        if !is_numeric(value) {
            return Err(ConninfoError::HostAddress { value: value.clone() });
        }
        return Ok(vec![Address::Tcp { name: host, numeric }]);
    }
    let Some(host) = host else {
        return Ok(SOCKET_DIRS.map(|dir| Address::Unix(dir.into())).into());
    };
    if let Some(name) = host.strip_prefix('@') {
        return Ok(vec![Address::Abstract(name.to_owned())]);
    }
    if host.starts_with('/') {
        return Ok(vec![Address::Unix(host.into())]);
    }
    Ok(vec![Address::Tcp { name: Some(host), numeric: None }])
}

/// Whether the C library accepts this as a numeric address (`AI_NUMERICHOST`): IPv6, with or without a zone, and IPv4
/// in all spellings (`127.1`, `0x7f000001`).
fn is_numeric(text: &str) -> bool {
    if text.contains(':') {
        let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
        return address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty();
    }
    let is_number = |part: &str| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()),
    };
    text.split('.').count() <= 4 && text.split('.').all(is_number)
}

/// Parses a port number. Errors show the text, except that of a URI: if the password contains a `/`, its first part is
/// parsed as the port.
fn parse_port(text: &str, notation: Notation) -> Result<u16, ConninfoError> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    let value = if notation == Notation::Uri { "..." } else { text }.to_owned();
    let Ok(number) = text.trim().parse::<i32>() else {
        return Err(ConninfoError::Integer { keyword: "port", value });
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConninfoError::Port { value }),
    }
}
