//! A stream that adds `replication=true` to the startup message, which tokio-postgres cannot send.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Wire;

/// The parameter and its value, as they stand in a startup message.
const PARAMETER: &[u8] = b"replication\0true\0";

/// A stream on which a physical replication connection is opened.
pub(super) struct ReplicationWire {
    wire: Box<dyn Wire>,
    /// The startup message with the parameter, while it is being sent; `None` before.
    startup: Option<Vec<u8>>,
    sent: usize,
}

impl ReplicationWire {
    /// `wire` is a stream on which the startup message has not been sent yet.
    pub(super) fn new(wire: Box<dyn Wire>) -> ReplicationWire {
        ReplicationWire { wire, startup: None, sent: 0 }
    }

    fn poll_startup(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let startup = self.startup.as_deref().unwrap_or_default();
        while let Some(rest @ [_, ..]) = startup.get(self.sent..) {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The startup message `message` with the parameter: length, protocol version, names and values, a NUL byte.
fn with_parameter(message: &[u8]) -> io::Result<Vec<u8>> {
    let malformed = || io::Error::other("unexpected form of the startup message");
    let (length, body) = message.split_first_chunk::<4>().ok_or_else(malformed)?;
    let (end, body) = body.split_last().ok_or_else(malformed)?;
    if u32::from_be_bytes(*length) as usize != message.len() || *end != 0 {
        return Err(malformed());
    }
    let length = u32::try_from(message.len() + PARAMETER.len()).map_err(|_| malformed())?;
    Ok([&length.to_be_bytes(), body, PARAMETER, &[0]].concat())
}

impl AsyncRead for ReplicationWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for ReplicationWire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.startup.is_none() {
            // tokio-postgres writes the startup message at once, and flushes before it waits for the answer.
            self.startup = Some(with_parameter(buf)?);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_startup(cx))?;
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_startup(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_startup(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_added_to_the_startup_message() {
        let message = [&[0, 0, 0, 16, 0, 3, 0, 0][..], b"user\0r\0", &[0]].concat();
        let expected = [&[0, 0, 0, 33, 0, 3, 0, 0][..], b"user\0r\0", b"replication\0true\0", &[0]].concat();
        assert_eq!(with_parameter(&message).unwrap(), expected);
        for malformed in [&b""[..], &[0, 0, 0, 4], &[0, 0, 0, 9, 0, 3, 0, 0], &message[..15]] {
            assert!(with_parameter(malformed).is_err(), "{malformed:?}");
        }
    }
}
