//! Errors in connection strings.

use std::path::PathBuf;

/// An error in a connection string. Where libpq has a message for it, it is used.
///
/// Messages contain no password: text that may be a password or a part of one is omitted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConninfoError {
    /// An unknown keyword.
    #[error("invalid connection option \"{keyword}\"")]
    UnknownOption {
        /// The keyword.
        keyword: String,
    },
    /// An unknown keyword in the query part of a URI.
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
    /// A quoted value without a closing quote.
    #[error("unterminated quoted string in connection info string")]
    UnterminatedQuote,
    /// A syntax error in a URI.
    #[error("{problem}")]
    Uri {
        /// What is wrong. The text is not shown, because it may be a password.
        problem: &'static str,
    },
    /// Invalid percent-encoding.
    #[error("invalid percent-encoded token in the {part} of the URI")]
    PercentEncoding {
        /// The part of the URI.
        part: &'static str,
    },
    /// A NUL byte, which no option may contain.
    #[error("forbidden value %00 in percent-encoded value: the {part} of the URI")]
    UriNul {
        /// The part of the URI.
        part: &'static str,
    },
    /// A space that is not percent-encoded.
    #[error("unexpected spaces found in the {part} of the URI, use percent-encoded spaces (%20) instead")]
    UriSpaces {
        /// The part of the URI.
        part: &'static str,
    },
    /// A value that is not one of the allowed words.
    #[error("invalid {keyword} value: \"{value}\"")]
    Word {
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// An unknown TLS version.
    #[error("invalid \"{keyword}\" value: \"{value}\"")]
    SslVersion {
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// A value that is not an integer.
    #[error("invalid integer value \"{value}\" for connection option \"{keyword}\"")]
    Integer {
        /// The option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// A port number out of range.
    #[error("invalid port number: \"{value}\"")]
    Port {
        /// The value.
        value: String,
    },
    /// A `hostaddr` that is not a numeric address.
    #[error("could not parse network address \"{value}\": Name or service not known")]
    HostAddress {
        /// The value.
        value: String,
    },
    /// The number of ports is neither one nor the number of hosts.
    #[error("could not match {ports} port numbers to {hosts} hosts")]
    PortCount {
        /// Number of ports.
        ports: usize,
        /// Number of hosts.
        hosts: usize,
    },
    /// The numbers of `host` and `hostaddr` values differ.
    #[error("could not match {hosts} host names to {addresses} hostaddr values")]
    HostCount {
        /// Number of `host` values.
        hosts: usize,
        /// Number of `hostaddr` values.
        addresses: usize,
    },
    /// An `sslmode` that is too weak for another option.
    #[error("weak sslmode \"{mode}\" may not be used with {option} (use {instead})")]
    WeakSslMode {
        /// The mode.
        mode: String,
        /// The other option.
        option: &'static str,
        /// Modes that are strong enough, in quotes.
        instead: &'static str,
    },
    /// The minimum TLS version is above the maximum.
    #[error("invalid SSL protocol version range")]
    SslVersionRange,
    /// The minimum protocol version is above the maximum.
    #[error("\"min_protocol_version\" is greater than \"max_protocol_version\"")]
    ProtocolVersionRange,
    /// A method occurs twice in `require_auth`.
    #[error("require_auth method \"{method}\" is specified more than once")]
    RepeatedAuthMethod {
        /// The method.
        method: String,
    },
    /// A method after negated methods in `require_auth`.
    #[error("require_auth method \"{method}\" cannot be mixed with negative methods")]
    PositiveAuthMethod {
        /// The method.
        method: String,
    },
    /// A negated method after other methods in `require_auth`.
    #[error("negative require_auth method \"{method}\" cannot be mixed with non-negative methods")]
    NegativeAuthMethod {
        /// The method.
        method: String,
    },
    /// GSSAPI encryption is required, which is not supported here.
    #[error("gssencmode value \"require\" invalid when GSSAPI support is not compiled in")]
    Gssapi,
    /// `sslcertmode=require`: whether the server requested a certificate cannot be determined here.
    #[error("sslcertmode value \"require\" is not supported (check OpenSSL version)")]
    CertMode,
    /// An option that is not supported here and must not be ignored.
    #[error("connection option \"{keyword}\" is not supported")]
    Unsupported {
        /// The option.
        keyword: &'static str,
    },
    /// The service is not defined in any service file.
    #[error("definition of service \"{service}\" not found")]
    NoService {
        /// Its name.
        service: String,
    },
    /// The file named by `PGSERVICEFILE` does not exist.
    #[error("service file \"{}\" not found", path.display())]
    NoServiceFile {
        /// The file.
        path: PathBuf,
    },
    /// A syntax error in a service file. The line is not shown, because it may contain a password.
    #[error("{problem} in service file \"{}\", line {line}", path.display())]
    ServiceFile {
        /// What is wrong.
        problem: &'static str,
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// There is no user name.
    #[error("could not determine the name of the operating system user")]
    NoUser,
}

impl ConninfoError {
    /// What the operator can do about it, for display after the message.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            ConninfoError::NoService { .. } => {
                "Services are looked up in the file named by PGSERVICEFILE, or else in ~/.pg_service.conf, then in pg_service.conf in PGSYSCONFDIR or the system-wide directory."
            }
            ConninfoError::NoServiceFile { .. } => "Correct or unset PGSERVICEFILE.",
            ConninfoError::ServiceFile { .. } => {
                "The format is [service], followed by lines keyword=value without spaces around the equal sign."
            }
            ConninfoError::NoUser => "Specify user=... in the connection string.",
            ConninfoError::HostAddress { .. } => {
                "hostaddr takes a numeric address; specify a host name with host=..."
            }
            ConninfoError::PercentEncoding { .. } => {
                "Write a percent sign as %25, and other special characters as % and two hexadecimal digits."
            }
            ConninfoError::Gssapi => {
                "Use sslmode=require or sslmode=verify-full for an encrypted connection."
            }
            ConninfoError::CertMode => {
                "Use sslcertmode=allow, which sends the client certificate if the server requests one."
            }
            ConninfoError::Unsupported { .. } => "Remove the option.",
            _ => {
                "The format is \"host=... port=... user=... dbname=...\" or \"postgresql://user@host:port/dbname\"."
            }
        };
        Some(text.to_owned())
    }
}
