//! Messages on a TLS stream: four bytes of length, big-endian, then the message.

use std::time::Duration;

use minicbor::{Decode, Encode};
use sesemi_protocol::cbor;
use sesemi_protocol::limits::MAX_WIRE_MESSAGE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use zeroize::Zeroizing;

use super::ChannelError;
use super::wiping::wipe_received;

/// An attested channel, ready for messages.
#[derive(Debug)]
pub struct Channel {
    pub(super) tls: Box<TlsStream<TcpStream>>,
}

impl Channel {
    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError`] if it is too long or the peer does not take it within `limit`.
    pub async fn send<T: Encode<()>>(
        &mut self,
        message: &T,
        limit: Duration,
    ) -> Result<(), ChannelError> {
        let body = cbor::encode(message)?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX_WIRE_MESSAGE)
            .ok_or(ChannelError::TooLong(u32::MAX))?;
        // One write, one TLS record: a length alone on the wire would only cost a packet.
        let mut frame = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(4)));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&body);
        timeout(limit, async {
            self.tls.write_all(&frame).await?;
            self.tls.flush().await
        })
        .await
        .map_err(|_| ChannelError::TimedOut("take a message"))??;
        Ok(())
    }

    /// Receives one message; `None` if the peer closed the channel properly between two messages.
    ///
    /// # Errors
    /// [`ChannelError`] if the message is too long, malformed, or does not come within `limit`.
    pub async fn receive<T>(&mut self, limit: Duration) -> Result<Option<T>, ChannelError>
    where
        T: for<'b> Decode<'b, ()> + Encode<()>,
    {
        let body = timeout(limit, self.receive_bytes())
            .await
            .map_err(|_| ChannelError::TimedOut("send a message"))??;
        match body {
            Some(body) => Ok(Some(cbor::decode(&body, MAX_WIRE_MESSAGE)?)),
            None => Ok(None),
        }
    }

    async fn receive_bytes(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ChannelError> {
        let mut length = [0; 4];
        let first = self.tls.read(&mut length).await?;
        if first == 0 {
            return Ok(None);
        }
        self.tls
            .read_exact(length.get_mut(first..).unwrap_or_default())
            .await?;
        let announced = u32::from_be_bytes(length);
        let length = usize::try_from(announced)
            .ok()
            .filter(|length| *length <= MAX_WIRE_MESSAGE)
            .ok_or(ChannelError::TooLong(announced))?;
        let mut body = Zeroizing::new(vec![0; length]);
        self.tls.read_exact(&mut body).await?;
        wipe_received(&mut self.tls);
        Ok(Some(body))
    }

    /// Receives a message that must come.
    pub(super) async fn expect<T>(&mut self, limit: Duration) -> Result<T, ChannelError>
    where
        T: for<'b> Decode<'b, ()> + Encode<()>,
    {
        self.receive(limit).await?.ok_or_else(|| {
            ChannelError::Io(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the other side closed the connection",
            ))
        })
    }

    /// Says goodbye. A peer that does not listen any more is no error.
    pub async fn close(mut self, limit: Duration) {
        let _ = timeout(limit, self.tls.shutdown()).await;
    }
}
