//! Errors of a server and of the connection to it. Where libpq has a message for the condition, it is used verbatim.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::SqlState;

/// An error of a server, or of the connection to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// An error reported by the server, or the loss of an established connection.
    Postgres(tokio_postgres::Error),
    /// No connection was established.
    Connect(ConnectProblem),
}

/// Why a connection could not be established. The messages are those of libpq.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectProblem {
    /// An operating system error on the socket.
    #[error("{0}")]
    Socket(io::Error),
    /// The path of a Unix-domain socket is too long.
    #[error("Unix-domain socket path \"{path}\" is too long (maximum {maximum} bytes)")]
    SocketPath {
        /// The path.
        path: String,
        /// The limit of the operating system.
        maximum: usize,
    },
    /// The server closed the connection.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// The server process runs as another user than `requirepeer` requires.
    #[error("requirepeer specifies \"{wanted}\", but actual peer user name is \"{actual}\"")]
    Peer {
        /// The required user.
        wanted: String,
        /// The actual user.
        actual: String,
    },
    /// The server does not support TLS, but `sslmode` requires it.
    #[error("server does not support SSL, but SSL was required")]
    SslRefused,
    /// The response to the TLS request is none of those defined.
    #[error("received invalid response to SSL negotiation: {}", char::from(*answer).escape_default())]
    SslAnswer {
        /// The byte received.
        answer: u8,
    },
    /// The server answered the TLS request with an error. Its text is not shown, because the server has not been
    /// authenticated.
    #[error("server sent an error response during SSL exchange")]
    SslErrorAnswer,
    /// The TLS handshake failed.
    #[error("SSL error: {reason}")]
    Ssl {
        /// OpenSSL's error message.
        reason: String,
    },
    /// The connection was lost during the TLS handshake.
    #[error("SSL SYSCALL error: {reason}")]
    SslSystem {
        /// The cause.
        reason: String,
    },
    /// Direct TLS without ALPN: the other end may not be a PostgreSQL server.
    #[error("direct SSL connection was established without ALPN protocol negotiation extension")]
    NoAlpn,
    /// The root certificate file does not exist, but `sslmode` requires verification.
    #[error("root certificate file \"{}\" does not exist", path.display())]
    NoRootFile {
        /// The file.
        path: PathBuf,
    },
    /// The default location of the root certificate file is unknown.
    #[error("could not get home directory to locate root certificate file")]
    NoHome,
    /// A certificate or key file could not be used.
    #[error("could not {doing} \"{}\": {reason}", path.display())]
    SslFile {
        /// The failed action and the kind of file.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The client certificate exists, but its private key does not.
    #[error("certificate present, but not private key file \"{}\"", path.display())]
    NoKey {
        /// The expected path of the key.
        path: PathBuf,
    },
    /// The private key is not a regular file.
    #[error("private key file \"{}\" is not a regular file", path.display())]
    KeyNotFile {
        /// Its path.
        path: PathBuf,
    },
    /// The private key may be read by other users.
    #[error(
        "private key file \"{}\" has group or world access; file must have permissions u=rw (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root",
        path.display()
    )]
    KeyAccess {
        /// The file.
        path: PathBuf,
    },
    /// The private key does not belong to the client certificate.
    #[error("certificate does not match private key file \"{}\": {reason}", path.display())]
    KeyMismatch {
        /// The key file.
        path: PathBuf,
        /// OpenSSL's error message.
        reason: String,
    },
    /// The server's certificate is for another host.
    #[error("server certificate for {} does not match host name \"{host}\"", certificate_names(first, *others))]
    HostName {
        /// The first name in the certificate.
        first: String,
        /// The number of further names.
        others: usize,
        /// The host name in the connection string.
        host: String,
    },
    /// The server's certificate contains no host name.
    #[error("could not get server's host name from server certificate")]
    NoCertificateName,
    /// A name in the server's certificate contains a NUL byte.
    #[error("SSL certificate's name contains embedded null")]
    NulInName,
    /// `sslmode=verify-full` without a host name.
    #[error("host name must be specified for a verified SSL connection")]
    NoHostName,
    /// `require_auth` does not allow the authentication method.
    #[error("authentication method requirement \"{requirement}\" failed: {reason}")]
    AuthMethod {
        /// The value of `require_auth`.
        requirement: String,
        /// The action of the server.
        reason: &'static str,
    },
    /// `channel_binding=require` is not fulfilled, or the server offers channel binding where it cannot exist.
    #[error("{0}")]
    ChannelBinding(&'static str),
    /// The authentication method is not supported here.
    #[error("{0} not supported")]
    UnknownAuth(String),
    /// SASL authentication without a supported mechanism.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    NoMechanism,
    /// The server requests a password, and none is available.
    #[error("fe_sendauth: no password supplied")]
    NoPassword,
}

fn certificate_names(first: &str, others: usize) -> String {
    match others {
        0 => format!("\"{first}\""),
        1 => format!("\"{first}\" (and 1 other name)"),
        _ => format!("\"{first}\" (and {others} other names)"),
    }
}

impl ConnectProblem {
    /// Whether another attempt may succeed: the connection was lost or garbled.
    fn is_transient(&self) -> bool {
        matches!(
            self,
            ConnectProblem::Socket(_)
                | ConnectProblem::Closed
                | ConnectProblem::SslAnswer { .. }
                | ConnectProblem::SslErrorAnswer
                | ConnectProblem::SslSystem { .. }
        )
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            ConnectProblem::Socket(_) => "Check that the server is running there and accepting connections.",
            ConnectProblem::Closed => "The server, a proxy or a pooler closed the connection; see its log.",
            ConnectProblem::SslRefused => {
                "Set ssl = on in the source server, or use sslmode=prefer if the network is trusted."
            }
            ConnectProblem::NoRootFile { .. } | ConnectProblem::NoHome => {
                "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification."
            }
            ConnectProblem::HostName { .. }
            | ConnectProblem::NoCertificateName
            | ConnectProblem::NoHostName => {
                "Specify the name in the certificate as host=NAME, and hostaddr=ADDRESS if that name does not resolve to the server."
            }
            ConnectProblem::NoPassword => {
                "Specify the password in a password file, in PGPASSWORD, or in the connection string."
            }
            ConnectProblem::AuthMethod { .. } => "Change require_auth, or the server's pg_hba.conf.",
            _ => return None,
        })
    }
}

impl ServerError {
    /// The SQLSTATE, if the server reported an error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            ServerError::Postgres(error) => error.code(),
            ServerError::Connect(_) => None,
        }
    }

    /// Whether the connection was closed, without a known reason.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, ServerError::Postgres(error) if error.is_closed())
    }

    /// Whether the error lies in the connection or in a passing state of the server, and not in the request.
    pub(crate) fn is_transient(&self) -> bool {
        let error = match self {
            ServerError::Connect(problem) => return problem.is_transient(),
            ServerError::Postgres(error) => error,
        };
        let Some(code) = self.code().map(SqlState::code) else {
            let source = std::error::Error::source(error);
            // tokio-postgres has no error kinds to match on: a closed stream, a message out of place, an I/O error.
            return self.is_closed()
                || error.to_string() == "unexpected message from server"
                || source.is_some_and(|source| source.is::<io::Error>());
        };
        match code {
            // admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout.
            "57P01" | "57P02" | "57P03" | "57P05" => true,
            // too_many_connections: sessions that were lost may still count. serialization_failure: a standby reports
            // conflicts with recovery so.
            "53300" | "40001" => true,
            _ => code.starts_with("08"),
        }
    }

    /// Whether no server was reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            ServerError::Connect(
                ConnectProblem::Socket(_) | ConnectProblem::SocketPath { .. } | ConnectProblem::Closed
            )
        )
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let error = match self {
            ServerError::Connect(problem) => return problem.hint().map(str::to_owned),
            ServerError::Postgres(error) => error,
        };
        if let Some(hint) = error.as_db_error().and_then(|error| error.hint()) {
            return Some(hint.to_owned());
        }
        let text = match self.code().map(SqlState::code) {
            Some("53300") => {
                "Close other connections to the source server, or raise the limit (max_connections, or CONNECTION LIMIT of the role or the database)."
            }
            Some("28000" | "28P01") => {
                "Check user and password in the connection string or password file, and pg_hba.conf of the server."
            }
            Some("3D000") => "Specify an existing database with dbname=... in the connection string.",
            // The server reports files that its operating system user may not read with this code.
            Some("42501") if self.to_string().contains("could not open file") => {
                "The operating system user of the source server may not read this file. Change its owner there, or exclude it with --keep."
            }
            Some("57P03") => "Wait until the source server accepts connections.",
            Some(_) => return None,
            None => "Check that the source server is running and accepting connections.",
        };
        Some(text.to_owned())
    }
}

/// The operating system error behind an error of the connection.
fn system_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let error = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    error.raw_os_error().map(|_| error)
}

impl From<tokio_postgres::Error> for ServerError {
    fn from(error: tokio_postgres::Error) -> ServerError {
        ServerError::Postgres(error)
    }
}

impl From<ConnectProblem> for ServerError {
    fn from(problem: ConnectProblem) -> ServerError {
        ServerError::Connect(problem)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            ServerError::Connect(problem) => return problem.fmt(f),
            ServerError::Postgres(error) => error,
        };
        let Some(said) = error.as_db_error() else {
            return match system_error(error) {
                Some(error) => error.fmt(f),
                None => error.fmt(f),
            };
        };
        write!(f, "{}:  {}", said.severity(), said.message())?;
        match said.detail() {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Display already contains what the server or the operating system reported.
            ServerError::Postgres(error)
                if error.as_db_error().is_none() && system_error(error).is_none() =>
            {
                std::error::Error::source(error)
            }
            _ => None,
        }
    }
}
