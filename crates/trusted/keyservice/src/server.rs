//! Attested channels, with a bound for everything: handshakes under way, open channels, silence, calls.
//!
//! One connection is one task. Whatever it sends, or fails to send, ends that task at most.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sesemi_attest::channel::{Acceptor, Channel, ChannelError, Peer};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{Limits, Network};
use crate::locked::LockedService;
use crate::metrics::Metrics;
use crate::service::KeyService;

/// What is served on the channels.
pub trait Answers: Send + Sync + 'static {
    /// Answers one call of a peer that is known from its channel.
    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        call: CallBody,
    ) -> impl Future<Output = ReplyBody> + Send;
}

impl Answers for KeyService {
    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        call: CallBody,
    ) -> impl Future<Output = ReplyBody> + Send {
        Self::answer(self, peer, call)
    }
}

impl Answers for LockedService {
    async fn answer(self: &Arc<Self>, peer: &Peer, call: CallBody) -> ReplyBody {
        Self::answer(self, peer, call)
    }
}

/// The bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Channels open at once.
    pub channels: usize,
    /// Handshakes under way at once. Each costs a millisecond or two of CPU before the peer is known.
    pub handshakes: usize,
    /// Longest handshake, start to end.
    pub handshake: Duration,
    /// Longest silence of an enclave, which renews its leases now and then.
    pub enclave_silence: Duration,
    /// Longest silence of a principal.
    pub principal_silence: Duration,
    /// Age at which a channel is closed after the call that is under way: whoever comes back is attested anew, with the
    /// endorsements of that day.
    pub age: Duration,
    /// Longest time to write a reply.
    pub reply: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            channels: 1024,
            handshakes: 64,
            handshake: Duration::from_secs(15),
            enclave_silence: Duration::from_secs(3600),
            principal_silence: Duration::from_secs(60),
            age: Duration::from_secs(900),
            reply: Duration::from_secs(10),
        }
    }
}

/// Serves channels.
#[derive(Debug)]
pub struct Server<S> {
    acceptor: Arc<Acceptor>,
    service: Arc<S>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
    /// How often each address may connect.
    addresses: Mutex<Limits<Network>>,
}

impl<S: Answers> Server<S> {
    /// A server for `service`.
    #[must_use]
    pub fn new(
        acceptor: Acceptor,
        service: Arc<S>,
        metrics: Arc<Metrics>,
        bounds: Bounds,
        addresses: Limits<Network>,
    ) -> Self {
        Self {
            acceptor: Arc::new(acceptor),
            service,
            metrics,
            bounds,
            addresses: Mutex::new(addresses),
        }
    }

    /// Whether this address may connect now. What costs nothing is checked first: a handshake costs a millisecond.
    fn may_connect(&self, address: SocketAddr) -> bool {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let allowed = addresses.check(&address.ip().into(), Instant::now());
        if let Err(retry) = &allowed {
            self.metrics.rate_limited.inc();
            tracing::debug!(%retry, "connection refused");
        }
        allowed.is_ok()
    }

    /// Accepts until `stop` turns true, then lets every call that is under way finish.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let channels = Arc::new(Semaphore::new(self.bounds.channels));
        let handshakes = Arc::new(Semaphore::new(self.bounds.handshakes));
        let server = Arc::new(self);
        let mut tasks = JoinSet::new();
        loop {
            // Permits first: beyond the bounds, connections wait in the kernel's queue and cost nothing here.
            let permits = async {
                let channel = channels.clone().acquire_owned().await;
                let handshake = handshakes.clone().acquire_owned().await;
                (channel, handshake, listener.accept().await)
            };
            let (channel, handshake, accepted) = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = permits => accepted,
            };
            let tcp = match accepted {
                Ok((tcp, address)) if server.may_connect(address) => tcp,
                Ok(_) => continue,
                Err(error) => {
                    // Out of descriptors, for example. Waiting lets others finish; ending would end the service.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (server, stop) = (server.clone(), stop.clone());
            tasks.spawn(async move {
                let handshaken = server.handshake(tcp).await;
                drop(handshake);
                if let Some((connection, peer)) = handshaken {
                    server.metrics.channels.inc();
                    let ended = server.converse(connection, &peer, stop).await;
                    server.metrics.channels.dec();
                    if let Err(error) = ended {
                        tracing::debug!(%error, "channel ended");
                    }
                }
                drop(channel);
            });
            while tasks.try_join_next().is_some() {}
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    async fn handshake(&self, tcp: TcpStream) -> Option<(Channel, Peer)> {
        let accepted = timeout(self.bounds.handshake, self.acceptor.accept(tcp))
            .await
            .unwrap_or(Err(ChannelError::TimedOut("finish the handshake")));
        match accepted {
            Ok((channel, peer)) => {
                if let Peer::Enclave(claims) = &peer {
                    tracing::info!(code = %claims.code, simulated = claims.simulated, "enclave connected");
                }
                Some((channel, peer))
            }
            Err(error) => {
                self.metrics.failed_handshakes.inc();
                tracing::info!(%error, "no channel");
                None
            }
        }
    }

    async fn converse(
        &self,
        mut channel: Channel,
        peer: &Peer,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ChannelError> {
        let silence = match peer {
            Peer::Enclave(_) => self.bounds.enclave_silence,
            Peer::Principal => self.bounds.principal_silence,
        };
        let age = tokio::time::sleep(self.bounds.age);
        tokio::pin!(age);
        loop {
            let received = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = &mut age => break,
                received = channel.receive::<Call>(silence) => received?,
            };
            let Some(call) = received else { break };
            let reply = Reply {
                number: call.number,
                body: self.service.answer(peer, call.body).await,
            };
            channel.send(&reply, self.bounds.reply).await?;
        }
        channel.close(self.bounds.reply).await;
        Ok(())
    }
}
