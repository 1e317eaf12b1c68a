//! The servers a connection string names.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::ConninfoError;
use super::options::Values;
use super::passfile::Password;

const DEFAULT_PORT: u16 = 5432;

/// Where the builds of PostgreSQL put their sockets: those of the distributions, and the others.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A server to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) address: Address,
    pub(crate) port: u16,
    pub(super) password: Option<Password>,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// The directory of a Unix socket.
    Unix(PathBuf),
    /// A socket in Linux's abstract name space, without its `@`.
    Abstract(String),
    /// A host name to be looked up.
    Name(String),
    /// A numeric address, with the name it was given besides.
    Ip(IpAddr, Option<String>),
}

impl Address {
    /// Whether it is a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_) | Address::Abstract(_))
    }

    /// The directory as the operating system takes it; an abstract one begins with a NUL byte.
    pub(crate) fn socket_dir(&self) -> Option<PathBuf> {
        match self {
            Address::Unix(path) => Some(path.clone()),
            Address::Abstract(name) => Some(OsString::from_vec([b"\0", name.as_bytes()].concat()).into()),
            Address::Name(_) | Address::Ip(..) => None,
        }
    }
}

impl Candidate {
    /// The same server with its name looked up.
    pub(crate) fn at(&self, ip: IpAddr) -> Candidate {
        let address = match &self.address {
            Address::Name(name) => Address::Ip(ip, Some(name.clone())),
            other => other.clone(),
        };
        Candidate { address, ..self.clone() }
    }

    /// The host under which a password file has this server.
    pub(super) fn passfile_host(&self) -> String {
        match &self.address {
            Address::Unix(path) if SOCKET_DIRS.iter().any(|dir| path.as_os_str() == *dir) => {
                "localhost".to_owned()
            }
            Address::Unix(path) => path.display().to_string(),
            Address::Abstract(name) => format!("@{name}"),
            Address::Name(name) | Address::Ip(_, Some(name)) => name.clone(),
            Address::Ip(ip, None) => ip.to_string(),
        }
    }
}

impl fmt::Display for Candidate {
    /// The words libpq begins its messages with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.address {
            Address::Unix(path) => write!(f, "server on socket \"{}/.s.PGSQL.{port}\"", path.display()),
            Address::Abstract(name) => write!(f, "server on socket \"@{name}/.s.PGSQL.{port}\""),
            Address::Name(name) => write!(f, "server at \"{name}\", port {port}"),
            Address::Ip(ip, Some(name)) => write!(f, "server at \"{name}\" ({ip}), port {port}"),
            Address::Ip(ip, None) => write!(f, "server at \"{ip}\", port {port}"),
        }
    }
}

/// Pairs the lists of `host`, `hostaddr` and `port`.
pub(super) fn candidates(values: &Values) -> Result<Vec<Candidate>, ConninfoError> {
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
        let port = parse_port(ports.get(index).or(ports.first()).copied().unwrap_or_default())?;
        for address in addresses_of(entry(&hosts), entry(&addresses))? {
            candidates.push(Candidate { address, port, password: password.clone() });
        }
    }
    Ok(candidates)
}

/// What one pair of `host` and `hostaddr` means; with neither, every usual socket directory.
fn addresses_of(host: Option<String>, address: Option<String>) -> Result<Vec<Address>, ConninfoError> {
    if let Some(text) = address {
        let ip = text.parse().map_err(|_| ConninfoError::HostAddress { value: text })?;
        return Ok(vec![Address::Ip(ip, host)]);
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
    Ok(vec![host.parse().map_or(Address::Name(host), |ip| Address::Ip(ip, None))])
}

fn parse_port(text: &str) -> Result<u16, ConninfoError> {
    match text.trim() {
        "" => Ok(DEFAULT_PORT),
        text => match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            // In a URI with a `/` in its password the front of that stands here.
            _ if text.len() > 1 && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
                Err(ConninfoError::Port { value: "...".to_owned() })
            }
            _ => Err(ConninfoError::Port { value: text.to_owned() }),
        },
    }
}
