//! The stream of a connection, and a guard that checks authentication on it.
//!
//! tokio-postgres answers any authentication request of the server. The guard sees each request first, and ends the
//! connection if the connection options forbid the answer: a server that must not get the password gets neither the
//! password nor a hash of it.

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::ChannelBinding as BindingRule;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::error::ConnectProblem;
use crate::conninfo::{AuthMethod, AuthRules};

/// A socket, or a TLS stream on one.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The stream of a connection.
pub(super) struct Channel {
    wire: Box<dyn Wire>,
    guard: Option<Guard>,
    /// The error of a write. It is reported when nothing is left to be read: a server that closes the connection says why
    /// before it does, and the next write may fail before that has been read.
    write_error: Option<io::Error>,
    /// The channel binding data (`tls-server-end-point`), if the stream is encrypted.
    end_point: Option<Vec<u8>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("encrypted", &self.end_point.is_some()).finish_non_exhaustive()
    }
}

impl Channel {
    /// A stream on which the startup message has not been sent yet.
    pub(super) fn new(wire: Box<dyn Wire>, guard: Guard, end_point: Option<Vec<u8>>) -> Channel {
        Channel { wire, guard: Some(guard), write_error: None, end_point }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.wire).poll_read(cx, buf));
        if (read.is_err() || buf.filled().len() == before)
            && let Some(error) = self.write_error.take()
        {
            return Poll::Ready(Err(error));
        }
        read?;
        if let Some(guard) = &mut self.guard {
            match guard.watch(buf.filled().get(before..).unwrap_or_default()) {
                Ok(Progress::Going) => {}
                Ok(Progress::Over) => self.guard = None,
                Err(problem) => return Poll::Ready(Err(io::Error::other(problem))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_error.is_none() {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, buf)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => self.write_error = Some(error),
            }
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_error.is_none()
            && let Err(error) = ready!(Pin::new(&mut self.wire).poll_flush(cx))
        {
            self.write_error = Some(error);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl TlsStream for Channel {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The TLS connector passed to tokio-postgres. It does nothing: TLS is already established, or intentionally absent.
pub(super) struct HandshakeDone;

impl TlsConnect<Channel> for HandshakeDone {
    type Stream = Channel;
    type Error = io::Error;
    type Future = Ready<io::Result<Channel>>;

    fn connect(self, channel: Channel) -> Self::Future {
        ready(Ok(channel))
    }
}

/// The largest authentication message, in bytes, as in libpq.
const MAX_MESSAGE: usize = 30_000;

/// Whether authentication continues.
#[derive(PartialEq, Eq, Debug)]
enum Progress {
    Going,
    Over,
}

/// The rules for authentication, and its state so far.
pub(super) struct Guard {
    pub(super) rules: AuthRules,
    pub(super) encrypted: bool,
    pub(super) has_end_point: bool,
    pub(super) has_password: bool,
    /// The part of a message received so far.
    pub(super) received: Vec<u8>,
    /// Set once the server has requested a password, or a proof of it, and may have it.
    pub(super) credentials: Arc<AtomicBool>,
    /// Whether the client has authenticated: sent its password, or completed the SCRAM exchange.
    pub(super) finished: bool,
    /// Whether the SCRAM exchange uses channel binding.
    pub(super) bound: bool,
}

impl Guard {
    /// Checks what the server has sent, before tokio-postgres sees it.
    fn watch(&mut self, bytes: &[u8]) -> Result<Progress, ConnectProblem> {
        self.received.extend_from_slice(bytes);
        loop {
            let Some((&[tag, a, b, c, d], rest)) = self.received.split_first_chunk::<5>() else {
                return Ok(Progress::Going);
            };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            // An error, or the first message after authentication. An invalid message is left to tokio-postgres to report.
            if !matches!(tag, b'R' | b'N' | b'v') || !(4..MAX_MESSAGE).contains(&length) {
                return Ok(Progress::Over);
            }
            let Some(body) = rest.get(..length - 4) else { return Ok(Progress::Going) };
            if tag == b'R' {
                let body = body.to_vec();
                if self.check(&body)? == Progress::Over {
                    return Ok(Progress::Over);
                }
            }
            self.received.drain(..length + 1);
        }
    }

    /// Checks one authentication request, or the message that authentication succeeded.
    fn check(&mut self, body: &[u8]) -> Result<Progress, ConnectProblem> {
        let Some((&code, data)) = body.split_first_chunk::<4>() else { return Ok(Progress::Over) };
        let code = u32::from_be_bytes(code);
        self.check_binding(code)?;
        match code {
            0 => {
                self.check_exchange()?;
                return Ok(Progress::Over);
            }
            3 => {
                self.check_method(AuthMethod::Password, "server requested a cleartext password")?;
                self.finished = true;
            }
            5 => {
                self.check_method(AuthMethod::Md5, "server requested a hashed password")?;
                self.finished = true;
            }
            7 => {
                self.check_method(AuthMethod::Gss, "server requested GSSAPI authentication")?;
                return Err(ConnectProblem::UnknownAuth("GSSAPI authentication".to_owned()));
            }
            9 => {
                self.check_method(AuthMethod::Sspi, "server requested SSPI authentication")?;
                return Err(ConnectProblem::UnknownAuth("SSPI authentication".to_owned()));
            }
            10 => {
                self.check_method(AuthMethod::ScramSha256, "server requested SASL authentication")?;
                self.check_mechanisms(data)?;
            }
            11 => return Ok(Progress::Going),
            12 => {
                self.finished = true;
                return Ok(Progress::Going);
            }
            other => return Err(ConnectProblem::UnknownAuth(format!("authentication method {other}"))),
        }
        if !self.has_password {
            return Err(ConnectProblem::NoPassword);
        }
        self.credentials.store(true, Ordering::Relaxed);
        Ok(Progress::Going)
    }

    fn check_binding(&self, code: u32) -> Result<(), ConnectProblem> {
        let problem = match code {
            _ if self.rules.channel_binding != BindingRule::Require => return Ok(()),
            10 if !self.encrypted => "channel binding required, but SSL not in use",
            10..=12 => return Ok(()),
            0 if self.finished && self.bound => return Ok(()),
            0 => "channel binding required, but server authenticated client without channel binding",
            _ => "channel binding required but not supported by server's authentication request",
        };
        Err(ConnectProblem::ChannelBinding(problem))
    }

    fn check_method(&self, method: AuthMethod, reason: &'static str) -> Result<(), ConnectProblem> {
        match &self.rules.methods {
            Some(methods) if !methods.allows(method) => {
                Err(ConnectProblem::AuthMethod { requirement: methods.text.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    fn check_exchange(&self) -> Result<(), ConnectProblem> {
        match &self.rules.methods {
            Some(methods) if methods.exchange_required && !self.finished => {
                let reason = "server did not complete authentication";
                Err(ConnectProblem::AuthMethod { requirement: methods.text.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    fn check_mechanisms(&mut self, data: &[u8]) -> Result<(), ConnectProblem> {
        let offers = |name: &str| data.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes());
        let plus = offers("SCRAM-SHA-256-PLUS");
        if plus && !self.encrypted {
            return Err(ConnectProblem::ChannelBinding(
                "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
            ));
        }
        self.bound = plus && self.has_end_point && self.rules.channel_binding != BindingRule::Disable;
        if self.rules.channel_binding == BindingRule::Require && !self.bound {
            return Err(ConnectProblem::ChannelBinding(
                "channel binding is required, but server did not offer an authentication method that supports channel binding",
            ));
        }
        if offers("SCRAM-SHA-256") || self.bound { Ok(()) } else { Err(ConnectProblem::NoMechanism) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_server_s_last_words_are_read_though_a_write_fails() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let mut channel = Channel { wire: Box::new(client), guard: None, write_error: None, end_point: None };
        server.write_all(b"last words").await.unwrap();
        drop(server);
        channel.write_all(b"a query").await.unwrap();
        channel.flush().await.unwrap();
        let mut words = [0; 10];
        channel.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"last words");
        let error = channel.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        channel.read_u8().await.unwrap_err();
    }
}
