//! Why a connection string cannot be used.

use std::path::PathBuf;

/// Why a connection string cannot be used. The words are libpq's where it has some.
///
/// A password is in none of them: what stands where one may stand is left out.
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
    #[error("{problem}")]
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
    /// A NUL byte, which no option can have.
    #[error("forbidden value %00 in percent-encoded value: the {part} of the URI")]
    UriNul {
        /// Where.
        part: &'static str,
    },
    /// A space that is not percent-encoded.
    #[error("unexpected spaces found in the {part} of the URI, use percent-encoded spaces (%20) instead")]
    UriSpaces {
        /// Where.
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
    /// No version of TLS.
    #[error("invalid \"{keyword}\" value: \"{value}\"")]
    SslVersion {
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
    #[error("could not parse network address \"{value}\": Name or service not known")]
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
    /// An `sslmode` that would make another option void.
    #[error("weak sslmode \"{mode}\" may not be used with {option} (use {instead})")]
    WeakSslMode {
        /// The mode.
        mode: String,
        /// What it does not go with.
        option: &'static str,
        /// Modes that do, quoted.
        instead: &'static str,
    },
    /// A TLS version above the highest.
    #[error("invalid SSL protocol version range")]
    SslVersionRange,
    /// The same of the server's protocol.
    #[error("\"min_protocol_version\" is greater than \"max_protocol_version\"")]
    ProtocolVersionRange,
    /// A list of authentication methods that contradicts itself.
    #[error("require_auth method \"{method}\" is specified more than once")]
    RepeatedAuthMethod {
        /// The method.
        method: String,
    },
    /// Methods to use and methods not to use in one list.
    #[error("require_auth method \"{method}\" cannot be mixed with negative methods")]
    PositiveAuthMethod {
        /// The method.
        method: String,
    },
    /// The same, the other way round.
    #[error("negative require_auth method \"{method}\" cannot be mixed with non-negative methods")]
    NegativeAuthMethod {
        /// The method.
        method: String,
    },
    /// GSSAPI encryption is asked for, and nothing less will do.
    #[error("gssencmode value \"require\" invalid when GSSAPI support is not compiled in")]
    Gssapi,
    /// Whether a server asked for a certificate is not to be seen.
    #[error("sslcertmode value \"require\" is not supported (check OpenSSL version)")]
    CertMode,
    /// An option that cannot be ignored without harm, and cannot be obeyed.
    #[error("connection option \"{keyword}\" is not supported")]
    Unsupported {
        /// The option.
        keyword: &'static str,
    },
    /// The service is in no file.
    #[error("definition of service \"{service}\" not found")]
    NoService {
        /// Its name.
        service: String,
    },
    /// `PGSERVICEFILE` leads nowhere.
    #[error("service file \"{}\" not found", path.display())]
    NoServiceFile {
        /// The file.
        path: PathBuf,
    },
    /// A service file that breaks the grammar. The line itself may hold a password.
    #[error("{problem} in service file \"{}\", line {line}", path.display())]
    ServiceFile {
        /// What is wrong.
        problem: &'static str,
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Nobody to connect as.
    #[error("could not find out the name of the operating system user")]
    NoUser,
}

impl ConninfoError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            ConninfoError::NoService { .. } => {
                "Services are looked for in the file PGSERVICEFILE names, else in ~/.pg_service.conf, and then in pg_service.conf in PGSYSCONFDIR or where the system has it."
            }
            ConninfoError::NoServiceFile { .. } => "PGSERVICEFILE names it.",
            ConninfoError::ServiceFile { .. } => {
                "Write [service] and below it one keyword=value a line, without spaces around the =."
            }
            ConninfoError::NoUser => "Give user=... in the connection string.",
            ConninfoError::HostAddress { .. } => "hostaddr takes a numeric address; put names into host.",
            ConninfoError::PercentEncoding { .. } => {
                "Write a percent sign as %25 and other special characters as % and two digits."
            }
            ConninfoError::Gssapi => "Use sslmode=require or verify-full to have the connection encrypted.",
            ConninfoError::CertMode => {
                "sslcertmode=allow sends the client certificate if the server asks for one."
            }
            ConninfoError::Unsupported { .. } => "Leave it out.",
            _ => {
                "Write \"host=... port=... user=... dbname=...\", or a URI \"postgresql://user@host:port/dbname\"."
            }
        };
        Some(text.to_owned())
    }
}
