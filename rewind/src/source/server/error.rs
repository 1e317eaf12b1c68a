//! What a server said, or what became of the connection to it. In libpq's words where it has some.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::SqlState;

/// What a server said, or what became of the connection to it.
#[derive(Debug)]
pub enum ServerError {
    /// A server's answer, or the end of a connection that worked.
    Postgres(tokio_postgres::Error),
    /// Why there is no connection.
    Connect(ConnectProblem),
}

/// Why a connection did not come about, one variant for each thing a user can be told.
#[derive(Debug, thiserror::Error)]
pub enum ConnectProblem {
    /// What the operating system said of the socket.
    #[error("{0}")]
    Socket(io::Error),
    /// A path no socket can have.
    #[error("Unix-domain socket path \"{path}\" is too long (maximum {maximum} bytes)")]
    SocketPath {
        /// The path.
        path: String,
        /// The limit of the operating system.
        maximum: usize,
    },
    /// The server hung up.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// `requirepeer` wants another.
    #[error("requirepeer specifies \"{wanted}\", but actual peer user name is \"{actual}\"")]
    Peer {
        /// Who it should be.
        wanted: String,
        /// Who it is.
        actual: String,
    },
    /// The server has no TLS, and `sslmode` insists.
    #[error("server does not support SSL, but SSL was required")]
    SslRefused,
    /// No answer to the request for TLS that could be one.
    #[error("received invalid response to SSL negotiation: {}", char::from(*answer).escape_default())]
    SslAnswer {
        /// What came.
        answer: u8,
    },
    /// An error in place of such an answer. Nobody vouches for its text.
    #[error("server sent an error response during SSL exchange")]
    SslErrorAnswer,
    /// The handshake failed.
    #[error("SSL error: {reason}")]
    Ssl {
        /// Why, in OpenSSL's words.
        reason: String,
    },
    /// The connection broke under the handshake.
    #[error("SSL SYSCALL error: {reason}")]
    SslSystem {
        /// Why.
        reason: String,
    },
    /// TLS, but not agreed to be for PostgreSQL.
    #[error("direct SSL connection was established without ALPN protocol negotiation extension")]
    NoAlpn,
    /// There is nothing to check the server's certificate by.
    #[error("root certificate file \"{}\" does not exist", path.display())]
    NoRootFile {
        /// The file.
        path: PathBuf,
    },
    /// The same, and the usual place is unknown.
    #[error("could not get home directory to locate root certificate file")]
    NoHome,
    /// A file of TLS that could not be read.
    #[error("could not {doing} \"{}\": {reason}", path.display())]
    SslFile {
        /// What was being done, with which kind of file.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate without its key.
    #[error("certificate present, but not private key file \"{}\"", path.display())]
    NoKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// A key that is no file.
    #[error("private key file \"{}\" is not a regular file", path.display())]
    KeyNotFile {
        /// What should be one.
        path: PathBuf,
    },
    /// A key others may read.
    #[error(
        "private key file \"{}\" has group or world access; file must have permissions u=rw (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root",
        path.display()
    )]
    KeyAccess {
        /// The file.
        path: PathBuf,
    },
    /// A key to another certificate.
    #[error("certificate does not match private key file \"{}\": {reason}", path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
        /// Why, in OpenSSL's words.
        reason: String,
    },
    /// A certificate for somebody else.
    #[error("server certificate for {} does not match host name \"{host}\"", certificate_names(first, *others))]
    HostName {
        /// The first name in it.
        first: String,
        /// How many more there are.
        others: usize,
        /// The name the server was called by.
        host: String,
    },
    /// A certificate for nobody.
    #[error("could not get server's host name from server certificate")]
    NoCertificateName,
    /// A certificate whose name would be read differently by others.
    #[error("SSL certificate's name contains embedded null")]
    NulInName,
    /// No name to check a certificate for.
    #[error("host name must be specified for a verified SSL connection")]
    NoHostName,
    /// `require_auth` does not allow it.
    #[error("authentication method requirement \"{requirement}\" failed: {reason}")]
    AuthMethod {
        /// `require_auth`
        requirement: String,
        /// What the server did.
        reason: &'static str,
    },
    /// `channel_binding=require` is not met, or the server contradicts itself about it.
    #[error("{0}")]
    ChannelBinding(&'static str),
    /// A way of authentication that is not known here.
    #[error("{0} not supported")]
    UnknownAuth(String),
    /// SASL, but none of its mechanisms.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    NoMechanism,
    /// The server asks for a password, and there is none.
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
    /// Whether another try may go well: the connection broke, or what came over it made no sense.
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
            ConnectProblem::Socket(_) => {
                "Is the server running on that host or socket, and accepting connections there?"
            }
            ConnectProblem::Closed => {
                "The server, or something between, ended the connection; its log may say why."
            }
            ConnectProblem::SslRefused => {
                "Set ssl = on in the source server, or use sslmode=prefer if the network is safe."
            }
            ConnectProblem::NoRootFile { .. } | ConnectProblem::NoHome => {
                "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification."
            }
            ConnectProblem::HostName { .. }
            | ConnectProblem::NoCertificateName
            | ConnectProblem::NoHostName => {
                "Call the server by the name in its certificate: host=NAME, with hostaddr=ADDRESS if that name does not lead there."
            }
            ConnectProblem::NoPassword => {
                "Give a password in the connection string, in PGPASSWORD or in the password file."
            }
            ConnectProblem::AuthMethod { .. } => "Change require_auth, or the server's pg_hba.conf.",
            _ => return None,
        })
    }
}

impl ServerError {
    /// The SQLSTATE, if the server said something.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            ServerError::Postgres(error) => error.code(),
            ServerError::Connect(_) => None,
        }
    }

    /// Whether the connection was closed, for a reason that is not known here.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, ServerError::Postgres(error) if error.is_closed())
    }

    /// Whether it is a matter of the connection or of the server's present state, and not of what was asked.
    pub(crate) fn is_transient(&self) -> bool {
        let error = match self {
            ServerError::Connect(problem) => return problem.is_transient(),
            ServerError::Postgres(error) => error,
        };
        let Some(code) = self.code().map(SqlState::code) else {
            let source = std::error::Error::source(error);
            // The first two of tokio-postgres, for a stream that breaks off or makes no sense.
            return self.is_closed()
                || error.to_string() == "unexpected message from server"
                || source.is_some_and(|source| source.is::<io::Error>());
        };
        match code {
            // Shut down by an administrator, after a crash, not accepting connections yet, idle for too long.
            "57P01" | "57P02" | "57P03" | "57P05" => true,
            // Too many connections: lost ones may still count. A standby's conflict with recovery.
            "53300" | "40001" => true,
            _ => code.starts_with("08"),
        }
    }

    /// Whether no server was reached at all.
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
                "Free connections on the source server, or raise the limit (the server's max_connections, or that of the role or the database)."
            }
            Some("28000" | "28P01") => {
                "Check user and password in the connection string or the password file, and the server's pg_hba.conf."
            }
            Some("3D000") => "Name an existing database with dbname=... in the connection string.",
            // What the server says of a file its own user may not read.
            Some("42501") if self.to_string().contains("could not open file") => {
                "The source's own server may not read this file: give it to that server's user, or leave it out with --keep."
            }
            Some("57P03") => "Wait until the source server accepts connections.",
            Some(_) => return None,
            None => "Is the source server running there, and does it accept connections?",
        };
        Some(text.to_owned())
    }
}

/// What the operating system said of the connection.
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
            // What the server or the operating system said is in Display already.
            ServerError::Postgres(error)
                if error.as_db_error().is_none() && system_error(error).is_none() =>
            {
                std::error::Error::source(error)
            }
            _ => None,
        }
    }
}
