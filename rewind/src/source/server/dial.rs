//! Opening a connection to one address: socket, TLS, authentication, and the second attempt where libpq makes one.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::ssl::Error as SslError;
use openssl::x509::X509VerifyResult;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_openssl::SslStream;
use tokio_postgres::config::{SslMode as Handshake, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Connection};

use super::channel::{Channel, Guard, HandshakeDone, Wire};
use super::error::{ConnectProblem, ServerError};
use super::replication::ReplicationWire;
use super::tls;
use crate::conninfo::{
    AuthRules, Candidate, Conninfo, Encryption, Negotiation, SslMode, TcpOptions, user_name,
};

/// The longest path of a Unix-domain socket, in bytes, without the terminating NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The SSLRequest message: its length and the request code, which is no protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Tcp(SocketAddr),
    /// The path of a socket; in the abstract namespace it begins with a NUL byte.
    Unix(PathBuf),
}

/// Everything needed to connect to one address, any number of times.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    place: Place,
    host: Option<String>,
    config: Config,
    /// The same for a replication connection.
    replication: Config,
    encryption: Encryption,
    auth: AuthRules,
    tcp: TcpOptions,
}

/// The task that reads and writes the stream of a connection.
pub(super) type Driver = Connection<Channel, Channel>;

/// A connection and its driver.
pub(super) type Dialled = (Client, Driver);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Queries,
    Replication,
}

/// The encryption of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protection {
    Plain,
    /// TLS, or an unencrypted stream if the server does not support TLS.
    TlsIfOffered,
    Tls,
}

impl Dial {
    pub(super) fn new(conninfo: &Conninfo, candidate: &Candidate, place: Place) -> Dial {
        // TLS is set up here, not by tokio-postgres: see `HandshakeDone`.
        let without_tls = |mut config: Config| {
            config.ssl_mode(Handshake::Require).ssl_negotiation(SslNegotiation::Direct);
            config
        };
        Dial {
            place,
            host: candidate.host_name().map(str::to_owned),
            config: without_tls(conninfo.config(candidate)),
            replication: without_tls(conninfo.replication_config(candidate)),
            encryption: conninfo.encryption().clone(),
            auth: conninfo.auth().clone(),
            tcp: conninfo.tcp().clone(),
        }
    }

    /// The parameters sent to the server, for [`Dial::connect`].
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Connects and authenticates. `config` is [`Dial::config`] or a variant of it.
    ///
    /// # Errors
    /// The error of each attempt: there are two where `sslmode` allows both an unencrypted and an encrypted stream.
    pub(super) async fn connect(&self, config: &Config) -> Result<Dialled, Vec<ServerError>> {
        self.connect_as(Purpose::Queries, config).await
    }

    /// Opens a physical replication connection, with the password that a standby would use.
    ///
    /// # Errors
    /// As [`Dial::connect`].
    pub(super) async fn connect_for_replication(&self) -> Result<Dialled, Vec<ServerError>> {
        self.connect_as(Purpose::Replication, &self.replication).await
    }

    /// Makes one attempt or two, as libpq does, with one difference: a login that the server has refused is not sent once
    /// more over an unencrypted stream (see [`Attempt::allows_plain`]).
    async fn connect_as(&self, purpose: Purpose, config: &Config) -> Result<Dialled, Vec<ServerError>> {
        let (first, second) = match (&self.place, self.encryption.mode) {
            // As in libpq, sslmode does not apply to Unix-domain sockets.
            (Place::Unix(_), _) | (_, SslMode::Disable) => (Protection::Plain, None),
            (_, SslMode::Allow) => (Protection::Plain, Some(Protection::Tls)),
            (_, SslMode::Prefer) => (Protection::TlsIfOffered, Some(Protection::Plain)),
            _ => (Protection::Tls, None),
        };
        let attempt = Attempt::default();
        let failure = match self.connect_with(purpose, config, first, &attempt).await {
            Ok(connected) => return Ok(connected),
            Err(failure) => failure,
        };
        let second = second.filter(|second| match second {
            Protection::Plain => attempt.allows_plain(&failure),
            _ => is_refusal(&failure),
        });
        let Some(second) = second else { return Err(vec![failure]) };
        match self.connect_with(purpose, config, second, &Attempt::default()).await {
            Ok(connected) => Ok(connected),
            // With sslmode=allow: there is no other kind of stream than the one that has been tried.
            Err(ServerError::Connect(ConnectProblem::SslRefused)) => Err(vec![failure]),
            Err(other) => Err(vec![failure, other]),
        }
    }

    async fn connect_with(
        &self,
        purpose: Purpose,
        config: &Config,
        protection: Protection,
        attempt: &Attempt,
    ) -> Result<Dialled, ServerError> {
        let (wire, certificate) = match protection {
            Protection::Plain => (self.open().await?, None),
            _ => self.open_encrypted(protection).await?,
        };
        let wire: Box<dyn Wire> = match purpose {
            Purpose::Queries => wire,
            Purpose::Replication => Box::new(ReplicationWire::new(wire)),
        };
        let encrypted = certificate.is_some();
        attempt.encrypted.store(encrypted, Ordering::Relaxed);
        let end_point = certificate.flatten();
        let guard = Guard {
            rules: self.auth.clone(),
            encrypted,
            has_end_point: end_point.is_some(),
            has_password: config.get_password().is_some(),
            received: Vec::new(),
            credentials: Arc::clone(&attempt.credentials),
            finished: false,
            bound: false,
        };
        let channel = Channel::new(wire, guard, end_point);
        config.connect_raw(channel, HandshakeDone).await.map_err(explain)
    }

    /// Opens the socket.
    async fn open(&self) -> Result<Box<dyn Wire>, ConnectProblem> {
        match &self.place {
            Place::Tcp(address) => {
                Ok(Box::new(self.open_tcp(*address).await.map_err(ConnectProblem::Socket)?))
            }
            Place::Unix(path) => Ok(Box::new(self.open_unix(path).await?)),
        }
    }

    async fn open_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(true)?;
        let tcp = &self.tcp;
        if tcp.keepalives {
            socket.set_keepalive(true)?;
            tcp.idle.map_or(Ok(()), |idle| sockopt::set_tcp_keepidle(&socket, idle))?;
            tcp.interval.map_or(Ok(()), |interval| sockopt::set_tcp_keepintvl(&socket, interval))?;
            tcp.count.map_or(Ok(()), |count| sockopt::set_tcp_keepcnt(&socket, count))?;
        }
        tcp.user_timeout.map_or(Ok(()), |limit| sockopt::set_tcp_user_timeout(&socket, limit))?;
        socket.connect(address).await
    }

    async fn open_unix(&self, path: &PathBuf) -> Result<UnixStream, ConnectProblem> {
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let path = path.display().to_string().replace('\0', "@");
            return Err(ConnectProblem::SocketPath { path, maximum: MAX_SOCKET_PATH });
        }
        let socket = UnixStream::connect(path).await.map_err(ConnectProblem::Socket)?;
        if let Some(wanted) = &self.auth.peer {
            let uid = socket.peer_cred().map_err(ConnectProblem::Socket)?.uid();
            let actual = user_name(uid).unwrap_or_else(|| uid.to_string());
            if *wanted != actual {
                return Err(ConnectProblem::Peer { wanted: wanted.clone(), actual });
            }
        }
        Ok(socket)
    }

    /// Opens the socket and establishes TLS on it. Returns the stream and the data for channel binding, if the
    /// certificate has any. The outer `None` means an unencrypted stream: the server does not support TLS, and need not.
    async fn open_encrypted(
        &self,
        protection: Protection,
    ) -> Result<(Box<dyn Wire>, Option<Option<Vec<u8>>>), ConnectProblem> {
        let mut wire = self.open().await?;
        if self.encryption.negotiation == Negotiation::Asked {
            wire.write_all(&SSL_REQUEST).await.map_err(broken)?;
            let mut answer = [0];
            wire.read_exact(&mut answer).await.map_err(broken)?;
            match answer {
                [b'S'] => {}
                [b'N'] if protection == Protection::TlsIfOffered => return Ok((wire, None)),
                [b'N'] => return Err(ConnectProblem::SslRefused),
                [b'E'] => return Err(ConnectProblem::SslErrorAnswer),
                [answer] => return Err(ConnectProblem::SslAnswer { answer }),
            }
        }
        let host = self.host.as_deref();
        let session = tls::session(&self.encryption, host)?;
        let unusable = |_| ConnectProblem::Ssl { reason: "out of memory".to_owned() };
        let mut stream = Box::pin(SslStream::new(session, wire).map_err(unusable)?);
        if let Err(error) = stream.as_mut().connect().await {
            return Err(tls::handshake_error(&error, stream.ssl().verify_result()));
        }
        let certificate = tls::check(stream.ssl(), &self.encryption, host)?;
        let end_point = certificate.as_ref().and_then(tls::end_point);
        Ok((Box::new(stream), Some(end_point)))
    }
}

/// What an attempt to connect has come to.
#[derive(Default)]
struct Attempt {
    encrypted: AtomicBool,
    /// See [`Guard::credentials`].
    credentials: Arc<AtomicBool>,
}

impl Attempt {
    /// Whether an unencrypted stream may be tried after the failure of this attempt, with `sslmode=prefer`.
    ///
    /// As in libpq, it is tried if TLS failed, and if `pg_hba.conf` rejects encrypted connections (`hostnossl`). Other than
    /// in libpq, it is not tried after a login that the server has refused: the same password would be refused again, but
    /// sent in clear text or as a hash on an open network.
    fn allows_plain(&self, failure: &ServerError) -> bool {
        match failure {
            ServerError::Postgres(error) => {
                let is_rejected = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
                let credentials = self.credentials.load(Ordering::Relaxed);
                self.encrypted.load(Ordering::Relaxed) && is_rejected && !credentials
            }
            ServerError::Connect(problem) => match problem {
                ConnectProblem::Socket(_) | ConnectProblem::SocketPath { .. } => false,
                // Raised by the guard: the options forbid what the server requests.
                ConnectProblem::AuthMethod { .. }
                | ConnectProblem::ChannelBinding(_)
                | ConnectProblem::UnknownAuth(_)
                | ConnectProblem::NoMechanism
                | ConnectProblem::NoPassword => false,
                // The connection was lost: after the credentials were sent, that may be a refusal.
                _ => !self.credentials.load(Ordering::Relaxed),
            },
        }
    }
}

/// Whether the server answered with an error.
fn is_refusal(failure: &ServerError) -> bool {
    matches!(failure, ServerError::Postgres(error) if error.code().is_some())
}

/// The error of a socket that was closed before the first message.
fn broken(error: io::Error) -> ConnectProblem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ConnectProblem::Closed,
        _ => ConnectProblem::Socket(error),
    }
}

/// Extracts our own errors from those of tokio-postgres.
fn explain(error: tokio_postgres::Error) -> ServerError {
    if error.is_closed() {
        return ConnectProblem::Closed.into();
    }
    let is_ours = std::error::Error::source(&error).is_some_and(|source| source.is::<io::Error>());
    if !is_ours {
        return error.into();
    }
    let source = error.into_source().and_then(|source| source.downcast::<io::Error>().ok());
    let Some(error) = source else { return ConnectProblem::Closed.into() };
    let error = match error.downcast::<ConnectProblem>() {
        Ok(problem) => return problem.into(),
        Err(error) => error,
    };
    // With TLS 1.3, a server rejects the client certificate only after the handshake has ended for the client.
    match error.get_ref().and_then(|source| source.downcast_ref::<SslError>()) {
        Some(error) => tls::handshake_error(error, X509VerifyResult::OK).into(),
        None => broken(error).into(),
    }
}
