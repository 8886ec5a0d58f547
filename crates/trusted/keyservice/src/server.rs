//! Attested channels, with a bound for everything: handshakes under way, open channels, silence, calls.
//!
//! One connection is one task. Whatever it sends, or fails to send, ends that task at most. What one address can take of what all
//! share is bounded too: its connections at once and by time, those of them that have no channel yet, its handshakes, and its calls
//! as long as nobody answers for them. Some channels only enclaves can get: principals that hold all others keep no instance from
//! renewing its leases. What is on the way to a channel is neither yet, and shares its places: eight addresses full of silent
//! connections take them all, and hold up whoever connects until their time for a handshake is over; channels that are open go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sesemi_attest::channel::{Acceptor, Channel, ChannelError, Peer};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{Refusal, RefusalCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{Limits, Network, RetryAfter};
use crate::locked::LockedService;
use crate::metrics::Metrics;
use crate::quota::{Held, Quota};
use crate::service::{CountsFor, KeyService};
use crate::spans::CallSpan;

/// What is served on the channels.
pub trait Answers: Send + Sync + 'static {
    /// Answers one call of a peer that is known from its channel, at this address, and says whom it counts for.
    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        network: Network,
        call: CallBody,
    ) -> impl Future<Output = (ReplyBody, CountsFor)> + Send;

    /// Whether a call comes from nobody in particular: neither from an enclave, nor in the name of a registered principal. It is
    /// asked before any signature is verified, and must cost little.
    fn is_strangers(&self, peer: &Peer, call: &CallBody) -> bool;
}

impl Answers for KeyService {
    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        network: Network,
        call: CallBody,
    ) -> impl Future<Output = (ReplyBody, CountsFor)> + Send {
        self.answer_counted(peer, Some(network), call)
    }

    fn is_strangers(&self, peer: &Peer, call: &CallBody) -> bool {
        Self::is_strangers(self, peer, call)
    }
}

impl Answers for LockedService {
    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        _: Network,
        call: CallBody,
    ) -> (ReplyBody, CountsFor) {
        (Self::answer(self, peer, call), CountsFor::Caller)
    }

    /// It knows no principals yet.
    fn is_strangers(&self, peer: &Peer, _: &CallBody) -> bool {
        *peer == Peer::Principal
    }
}

/// The bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Channels open at once.
    pub channels: usize,
    /// Channels of these that are kept for enclaves. Who is one is known only after the handshake, so a principal that finds
    /// the others taken is closed after its own. Closing the longest idle channel instead would let whoever connects most often
    /// throw out everybody else.
    pub reserve: usize,
    /// Connections of one address at once, with a channel or on the way to one.
    pub per_address: usize,
    /// Connections on the way to a channel, of all addresses; beyond it they wait in the kernel's queue.
    pub arriving: usize,
    /// Those of one address; beyond it they are closed. It takes [`Bounds::arriving`] divided by this many addresses to have everybody
    /// wait.
    pub arriving_per_address: usize,
    /// Handshakes under way at once. Each costs a millisecond or two of CPU before the peer is known.
    pub handshakes: usize,
    /// Handshakes of one address under way at once: a few addresses whose connections say nothing leave handshakes to others.
    pub handshakes_per_address: usize,
    /// Longest wait for a place among the handshakes.
    pub handshake_wait: Duration,
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

/// Connections of one address at once, unless the operator says otherwise: an eighth of all channels.
pub const PER_ADDRESS: usize = 128;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            channels: 1024,
            reserve: 256,
            per_address: PER_ADDRESS,
            arriving: 256,
            arriving_per_address: 32,
            handshakes: 64,
            handshakes_per_address: 16,
            handshake_wait: Duration::from_secs(15),
            handshake: Duration::from_secs(15),
            enclave_silence: Duration::from_secs(3600),
            principal_silence: Duration::from_secs(60),
            age: Duration::from_secs(900),
            reply: Duration::from_secs(10),
        }
    }
}

/// How often each address may do what nobody else answers for.
#[derive(Debug)]
pub struct AddressLimits {
    /// Connect.
    pub connections: Limits<Network>,
    /// Call without being an enclave or a registered principal; or in the name of one without its key, with a command of it that is
    /// not new, or beyond its limit.
    pub strangers: Limits<Network>,
}

/// Serves channels.
#[derive(Debug)]
pub struct Server<S> {
    acceptor: Arc<Acceptor>,
    service: Arc<S>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
    limits: Mutex<AddressLimits>,
    places: Places,
}

/// Where connections have their places.
#[derive(Debug)]
struct Places {
    /// Of each address. Its connections share its handshakes, and the places before them.
    addresses: Quota<Network, Lanes>,
    handshakes: Semaphore,
    /// Channels of enclaves and principals.
    shared: Semaphore,
    /// Channels of enclaves alone.
    reserve: Semaphore,
}

/// What the connections of one address share.
#[derive(Debug)]
struct Lanes {
    /// On the way to a channel.
    arriving: Semaphore,
    handshakes: Semaphore,
}

/// A connection's place among those of its address.
type Place = Held<Network, Lanes>;

impl Places {
    fn new(bounds: &Bounds) -> Self {
        Self {
            addresses: Quota::new(bounds.per_address),
            handshakes: Semaphore::new(bounds.handshakes),
            shared: Semaphore::new(bounds.channels.saturating_sub(bounds.reserve)),
            reserve: Semaphore::new(bounds.reserve.min(bounds.channels)),
        }
    }

    /// A place for a channel, if there is one for this peer.
    fn channel(&self, peer: &Peer) -> Option<SemaphorePermit<'_>> {
        let reserved = match peer {
            Peer::Enclave(_) => self.reserve.try_acquire().ok(),
            Peer::Principal => None,
        };
        reserved.or_else(|| self.shared.try_acquire().ok())
    }
}

impl<S: Answers> Server<S> {
    /// A server for `service`.
    #[must_use]
    pub fn new(
        acceptor: Acceptor,
        service: Arc<S>,
        metrics: Arc<Metrics>,
        bounds: Bounds,
        limits: AddressLimits,
    ) -> Self {
        Self {
            acceptor: Arc::new(acceptor),
            service,
            metrics,
            bounds,
            limits: Mutex::new(limits),
            places: Places::new(&bounds),
        }
    }

    /// Takes a token of an address from one of the limits.
    fn take(
        &self,
        network: Network,
        of: impl FnOnce(&mut AddressLimits) -> &mut Limits<Network>,
    ) -> Result<(), RetryAfter> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = of(&mut limits).check(&network, Instant::now());
        if taken.is_err() {
            self.metrics.rate_limited.inc();
        }
        taken
    }

    /// A place for a connection of this address, if it may connect now. What costs nothing is checked first: a handshake costs a
    /// millisecond.
    fn admit(&self, network: Network) -> Option<Place> {
        if let Err(retry) = self.take(network, |limits| &mut limits.connections) {
            tracing::debug!(%retry, "connection refused");
            return None;
        }
        let lanes = || Lanes {
            arriving: Semaphore::new(self.bounds.arriving_per_address),
            handshakes: Semaphore::new(self.bounds.handshakes_per_address),
        };
        let place = self.places.addresses.take(&network, lanes);
        if place.is_none() {
            self.metrics.crowded.inc();
            tracing::debug!("connection refused: its address has as many as it may");
        }
        place
    }

    /// Accepts until `stop` turns true, then lets every call that is under way finish.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let arriving = Arc::new(Semaphore::new(self.bounds.arriving));
        let server = Arc::new(self);
        let mut tasks = JoinSet::new();
        loop {
            // The permit first: beyond the bound, connections wait in the kernel's queue and cost nothing here.
            let arrival = async {
                let permit = arriving.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = arrival => accepted,
            };
            let (tcp, network) = match accepted {
                Ok((tcp, address)) => (tcp, Network::from(address.ip())),
                Err(error) => {
                    // Out of descriptors, for example. Waiting lets others finish; ending would end the service.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(place) = server.admit(network) else {
                continue;
            };
            let (server, stop) = (server.clone(), stop.clone());
            tasks.spawn(async move {
                let arrived = server.arrive(tcp, &place).await;
                drop(permit);
                if let Some((channel, peer)) = arrived {
                    server.serve(channel, &peer, network, stop).await;
                }
                drop(place);
            });
            while tasks.try_join_next().is_some() {}
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    /// Waits for its place among the handshakes, its address's first, and has the handshake.
    async fn arrive(&self, tcp: TcpStream, place: &Place) -> Option<(Channel, Peer)> {
        let Ok(_arriving) = place.shared().arriving.try_acquire() else {
            self.metrics.crowded.inc();
            tracing::debug!(
                "connection refused: its address has as many without a channel as it may"
            );
            return None;
        };
        let turn = async {
            let own = place.shared().handshakes.acquire().await;
            (own, self.places.handshakes.acquire().await)
        };
        let Ok(_turn) = timeout(self.bounds.handshake_wait, turn).await else {
            self.metrics.crowded.inc();
            tracing::debug!("no place for a handshake in time");
            return None;
        };
        self.handshake(tcp).await
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

    /// Serves a peer that is known now, if there is a place for it.
    async fn serve(
        &self,
        channel: Channel,
        peer: &Peer,
        network: Network,
        stop: watch::Receiver<bool>,
    ) {
        let Some(_place) = self.places.channel(peer) else {
            self.metrics.crowded.inc();
            tracing::warn!("a channel was closed: all places are taken");
            return channel.close(self.bounds.reply).await;
        };
        self.metrics.channels.inc();
        let ended = self.converse(channel, peer, network, stop).await;
        self.metrics.channels.dec();
        if let Err(error) = ended {
            tracing::debug!(%error, "channel ended");
        }
    }

    async fn converse(
        &self,
        mut channel: Channel,
        peer: &Peer,
        network: Network,
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
            let number = call.number;
            let (body, goes_on) = self.answer(peer, network, call.body).await;
            let reply = Reply { number, body };
            channel.send(&reply, self.bounds.reply).await?;
            if !goes_on {
                break;
            }
        }
        channel.close(self.bounds.reply).await;
        Ok(())
    }

    /// Answers a call, if its address may send one more of this kind; and whether the channel goes on.
    ///
    /// A registered principal's calls count as its own (the service sees to that) once its signature has verified, if they are new
    /// and it is within its limit. What others say in its name, or again, must not, so it counts for their address, and so does
    /// what a principal sends beyond its limit. Refusing that before it is verified would refuse the principal
    /// that shares the address, so the channel ends instead: the next attempt costs a connection, of which there are few.
    async fn answer(&self, peer: &Peer, network: Network, call: CallBody) -> (ReplyBody, bool) {
        let strangers = self.service.is_strangers(peer, &call);
        if strangers && let Err(retry) = self.take(network, |limits| &mut limits.strangers) {
            let refusal = Refusal::new(RefusalCode::Busy, retry);
            return (ReplyBody::Refused(refusal), true);
        }
        // Only now: whoever sends more than it may must not fill the disk with what is recorded of it.
        let span = CallSpan::begin(peer, &call);
        let (reply, counts_for) = self.service.answer(peer, network, call).await;
        span.end(&reply);
        // A stranger's was counted before.
        let counts = !strangers && counts_for == CountsFor::Address;
        let over = counts && self.take(network, |limits| &mut limits.strangers).is_err();
        (reply, !over)
    }
}
