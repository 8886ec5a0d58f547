//! Whole attested channels between two enclaves, over a real socket, until the client may speak.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sesemi_attest::channel::{Acceptor, Connector, ExpectedService, Peer};
use sesemi_protocol::SigningIdentity;
use tokio::net::TcpListener;

use crate::enclave::Lab;
use crate::error::BenchError;
use crate::stopwatch::{Lap, Stopwatch};

/// Where SeMIRT and KeyService meet.
pub(super) struct Channels {
    lab: Lab,
    service: Arc<SigningIdentity>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    /// Two that meet in every round.
    acquainted: (Connector, Arc<Acceptor>),
}

impl Channels {
    pub(super) async fn new(lab: Lab) -> Result<Self, BenchError> {
        let service = Arc::new(SigningIdentity::generate(&*lab.entropy)?);
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = listener.local_addr()?;
        let acquainted = (lab.connector()?, Arc::new(lab.acceptor(service.clone())?));
        let channels = Self {
            lab,
            service,
            listener,
            address,
            acquainted,
        };
        // Here they meet for the first time.
        channels.again().await?;
        Ok(channels)
    }

    /// Both sides have just started: neither has seen a certificate of the other.
    pub(super) async fn first_contact(&self) -> Result<Lap, BenchError> {
        let connector = self.lab.connector()?;
        let acceptor = Arc::new(self.lab.acceptor(self.service.clone())?);
        self.open(&connector, acceptor).await
    }

    /// Both sides have seen each other's certificate within the last ten minutes.
    pub(super) async fn again(&self) -> Result<Lap, BenchError> {
        let (connector, acceptor) = &self.acquainted;
        self.open(connector, acceptor.clone()).await
    }

    async fn open(
        &self,
        connector: &Connector,
        acceptor: Arc<Acceptor>,
    ) -> Result<Lap, BenchError> {
        let listener = self.listener.clone();
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await?;
            Ok::<_, BenchError>(acceptor.accept(tcp).await?)
        });
        let expected = ExpectedService::Pinned(self.service.public().service_id());
        let watch = Stopwatch::start();
        let connected = connector.connect(self.address, expected).await?;
        let lap = watch.stop();
        let (_channel, peer) = server.await??;
        match peer {
            Peer::Enclave(claims) if claims.simulated && connected.claims.simulated => Ok(lap),
            _ => Err(BenchError::Unexpected(
                "the channel is not attested on both sides",
            )),
        }
    }
}
