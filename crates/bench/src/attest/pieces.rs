//! The two pieces that attestation adds to a connection, each twice: a filter on the certificate, and fresh evidence.

use sesemi_attest::channel::Credential;
use sesemi_attest::channel::binding::{Connection, Role};
use sesemi_attest::evidence::from_certificate;
use sesemi_attest::{AppraisalPolicy, Attester as _, Evidence, EvidenceVerifier};
use sesemi_protocol::entropy::random;
use sesemi_protocol::{Digest, ServiceId};

use crate::enclave::Lab;
use crate::error::BenchError;
use crate::stopwatch::{Lap, Stopwatch};

/// A client that judges KeyService, without a network between them.
pub(super) struct Pieces {
    lab: Lab,
    policy: AppraisalPolicy,
    /// That of a process which has verified before, as it has when fresh evidence comes.
    verifier: EvidenceVerifier,
}

impl Pieces {
    pub(super) fn new(lab: Lab) -> Result<Self, BenchError> {
        Ok(Self {
            policy: lab.keyservice_policy()?,
            verifier: lab.verifier(),
            lab,
        })
    }

    /// What the TLS handshake does with a certificate that it sees for the first time, in a process that has just started.
    pub(super) fn certificate_filter(&self) -> Result<Lap, BenchError> {
        let credential = Credential::generate(&self.lab.keyservice)?;
        let verifier = self.lab.verifier();
        let watch = Stopwatch::start();
        let found = from_certificate(credential.certificate())?;
        let now = self.lab.clock.unix_seconds();
        verifier.accept(&found.evidence, &found.report_data, &self.policy, now)?;
        Ok(watch.stop())
    }

    /// What KeyService does to prove itself on a connection, and what its client does with that. The client has verified the
    /// platform a moment before, in the certificate, as on every connection.
    pub(super) fn bound_evidence(&self) -> Result<Lap, BenchError> {
        let connection = Connection {
            exporter: random(&*self.lab.entropy)?,
            client_key: Some(Digest(random(&*self.lab.entropy)?)),
            server_key: Digest(random(&*self.lab.entropy)?),
            service: ServiceId(random(&*self.lab.entropy)?),
            policy: AppraisalPolicy::per_release().digest()?,
        };
        let nonce = random(&*self.lab.entropy)?;
        let watch = Stopwatch::start();
        let made = self
            .lab
            .keyservice
            .evidence(&connection.report_data(Role::Server, &nonce))?;
        let received = Evidence::from_bytes(made.as_bytes().to_vec())?;
        let bound_to = connection.report_data(Role::Server, &nonce);
        let now = self.lab.clock.unix_seconds();
        self.verifier
            .accept(&received, &bound_to, &self.policy, now)?;
        Ok(watch.stop())
    }
}
