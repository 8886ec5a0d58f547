//! One principal's dealings with KeyService, the object store and the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use sesemi_attest::channel::{Connector, ExpectedService};
use sesemi_attest::session::{KeyServiceSession, Service};
use sesemi_attest::{AppraisalPolicy, EvidenceVerifier, SystemClock};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::entropy::random;
use sesemi_protocol::envelope::{Report, RequestContent, Route, seal_request};
use sesemi_protocol::package::{self, Manifest};
use sesemi_protocol::receipt::{Receipt, StatePoint};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, ModelName, ModelRef, ModelVersion, PrincipalId, RefusalCode,
    RequestId, ServiceId, SystemEntropy,
};

use crate::error::Error;
use crate::gateway::Gateway;
use crate::identity::Identity;

/// Longest wait for one answer of KeyService.
const ANSWER: Duration = Duration::from_secs(15);
/// Longest wait for an inference; a cold start is within it.
const INFERENCE: Duration = Duration::from_secs(60);
/// The epoch of a user's first request key.
const FIRST_EPOCH: u32 = 1;

/// What a client trusts: whose evidence, which code, and which KeyService.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Verifies KeyService's evidence.
    pub verifier: EvidenceVerifier,
    /// What KeyService's own evidence must satisfy, above all the code that it must run.
    pub policy: AppraisalPolicy,
    /// Digest of the policy by which KeyService must appraise the enclaves that it releases keys to.
    pub service_policy: Digest,
    /// The KeyService that it must be; `None` only at the first contact, after which the id is kept.
    pub service: Option<ServiceId>,
}

/// One principal, connected to KeyService.
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    session: KeyServiceSession,
    service: Service,
    seen: StatePoint,
    sequence: u64,
    gateway: Gateway,
    entropy: SystemEntropy,
}

/// The result of an inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// The model's outputs.
    pub outputs: Vec<Tensor>,
    /// Which way the request took, and where the time went, as SeMIRT says inside the sealed response.
    pub report: Report,
}

impl Client {
    /// Connects to KeyService, verifies its evidence, and registers this principal there if it is new.
    ///
    /// # Errors
    /// [`Error::Channel`] if it is not the KeyService that `trust` describes; nothing was sent then.
    pub async fn connect(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
    ) -> Result<Self, Error> {
        Self::connect_having_seen(identity, address, trust, 0).await
    }

    /// Like [`Client::connect`], for a client that kept how far KeyService's log went when it last saw it (see
    /// [`Client::seen`]). A service that is behind was rolled back, and is refused.
    ///
    /// # Errors
    /// [`Error::Stale`], or as [`Client::connect`].
    pub async fn connect_having_seen(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
        seen: u64,
    ) -> Result<Self, Error> {
        let mut client = Self::verify(identity, address, trust).await?;
        client.seen.sequence = seen;
        client.check_state().await?;
        client.register().await?;
        Ok(client)
    }

    /// Connects and verifies, without registering: a principal that KeyService has never heard of.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_unregistered(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
    ) -> Result<Self, Error> {
        let mut client = Self::verify(identity, address, trust).await?;
        client.check_state().await?;
        Ok(client)
    }

    async fn verify(identity: Identity, address: SocketAddr, trust: Trust) -> Result<Self, Error> {
        let entropy = SystemEntropy::new();
        let connector = Connector::for_principal(
            trust.verifier,
            trust.policy,
            trust.service_policy,
            Arc::new(SystemClock),
            Arc::new(entropy.clone()),
        )?;
        let expected = match trust.service {
            Some(id) => ExpectedService::Pinned(id),
            None => ExpectedService::FirstContact,
        };
        let session = KeyServiceSession::new(connector, address, expected);
        let service = session.service().await?;
        let seen = StatePoint {
            service: service.identity.service_id(),
            sequence: 0,
        };
        Ok(Self {
            identity,
            session,
            service,
            seen,
            sequence: 0,
            gateway: Gateway::default(),
            entropy,
        })
    }

    /// This principal's id.
    #[must_use]
    pub fn id(&self) -> PrincipalId {
        self.identity.id()
    }

    /// The KeyService at the other end and what its evidence says.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The newest state of KeyService that this client knows of. Keep it for the next connection.
    #[must_use]
    pub fn seen(&self) -> StatePoint {
        self.seen
    }

    /// Encrypts a model, uploads it, and registers its key and manifest as version `version` of `name`.
    ///
    /// The package is staged first and moved to its place once KeyService has accepted the version, so that a version that
    /// exists is never overwritten. A push that was interrupted between the two is completed by pushing the same again: the
    /// key follows from the owner's identity, and SeMIRT takes no other manifest than the registered one.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`RefusalCode::AlreadyExists`] if the version exists; [`Error::Store`].
    pub async fn push_model(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        name: &str,
        version: u32,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<ModelRef, Error> {
        let (name, version) = (ModelName::new(name)?, ModelVersion::new(version)?);
        let model = ModelRef::new(self.id(), name.clone(), version);
        let key = self.identity.model_key(&model)?;
        let sealed = package::seal(&key, &model, manifest, bytes, &self.entropy)?;
        let place = ObjectPath::from(package::object_path(&model));
        let suffix = RequestId(random(&self.entropy)?);
        let staged = ObjectPath::from(format!("{place}.{suffix}.staged"));
        store.put(&staged, PutPayload::from(sealed)).await?;
        let action = Action::PutModelKey {
            name,
            version,
            key,
            manifest: package::manifest_digest(manifest)?,
        };
        let registered = match self.submit(action).await {
            Err(Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => {
                let missing = matches!(
                    store.head(&place).await,
                    Err(object_store::Error::NotFound { .. })
                );
                if missing {
                    Ok(())
                } else {
                    Err(Error::Refused(refusal))
                }
            }
            other => other.map(drop),
        };
        if let Err(error) = registered {
            store.delete(&staged).await?;
            return Err(error);
        }
        store.rename(&staged, &place).await?;
        Ok(model)
    }

    /// Grants `user` a model version of this owner, in enclaves that run `code`.
    ///
    /// # Errors
    /// [`Error::Refused`] if the model or the user is not registered.
    pub async fn grant(
        &mut self,
        model: &ModelRef,
        user: PrincipalId,
        code: CodeIdentityDigest,
    ) -> Result<Receipt, Error> {
        self.submit(Action::Grant {
            name: model.model.name.clone(),
            version: model.version,
            user,
            code,
        })
        .await
    }

    /// Deposits this user's request key for a model version, for enclaves that run one of `codes`, and no other: calling it
    /// again, with the code of a new build for example, sets the approved code anew.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn approve_code(
        &mut self,
        model: &ModelRef,
        codes: impl IntoIterator<Item = CodeIdentityDigest>,
    ) -> Result<Receipt, Error> {
        let key = self.identity.request_key(model, FIRST_EPOCH)?;
        self.submit(Action::PutRequestKey {
            model: model.clone(),
            epoch: FIRST_EPOCH,
            key,
            codes: codes.into_iter().collect(),
        })
        .await
    }

    /// Sends inputs, sealed, to a model version through the gateway at `http://HOST:PORT`, and opens the response.
    ///
    /// # Errors
    /// [`Error::Refused`] with SeMIRT's own reason if it came sealed; [`Error::GatewayAnswer`] with whatever the host said
    /// otherwise; [`Error::Envelope`] if the response is not authentic.
    pub async fn infer(
        &self,
        gateway: &str,
        model: &ModelRef,
        inputs: &[Tensor],
    ) -> Result<Inference, Error> {
        self.infer_with(gateway, model, inputs, |_| {}).await
    }

    /// Like [`Client::infer`], with a hand on the sealed bytes before they leave: for tests of what tampering does.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub async fn infer_with(
        &self,
        gateway: &str,
        model: &ModelRef,
        inputs: &[Tensor],
        tamper: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Inference, Error> {
        let route = Route {
            user: self.id(),
            model: model.clone(),
            request: RequestId(random(&self.entropy)?),
            epoch: FIRST_EPOCH,
        };
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        let content = RequestContent {
            inputs: &views,
            outputs: &[],
            seen: self.seen,
        };
        let key = self.identity.request_key(model, FIRST_EPOCH)?;
        let mut sealed = seal_request(&key, route, &content, &self.entropy)?;
        tamper(&mut sealed.bytes);
        let response = self
            .gateway
            .send(gateway, model, sealed.bytes, INFERENCE)
            .await?;
        let answer = sealed.pending.open(response)?;
        Ok(Inference {
            outputs: answer.outcome.map_err(Error::Refused)?,
            report: answer.report,
        })
    }

    /// Asks how far the service's log goes, and refuses a service that is behind what was seen.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub async fn check_state(&mut self) -> Result<StatePoint, Error> {
        match self.session.call(CallBody::State, ANSWER).await? {
            ReplyBody::State(found) if found >= self.seen.sequence => {
                self.seen.sequence = found;
                Ok(self.seen)
            }
            ReplyBody::State(found) => Err(Error::Stale {
                service: self.seen.service,
                found,
                seen: self.seen.sequence,
            }),
            ReplyBody::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Protocol("another answer than its state")),
        }
    }

    /// Registers this principal; one that is registered already is left as it is.
    async fn register(&mut self) -> Result<(), Error> {
        let action = Action::Register {
            public_key: *self.identity.signing().public().key(),
        };
        match self.submit(action).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Signs and submits a command. If another client of this principal was faster, its number is passed and the
    /// command signed anew.
    async fn submit(&mut self, action: Action) -> Result<Receipt, Error> {
        for _ in 0..4 {
            self.sequence = self.sequence.saturating_add(1);
            let command = Command {
                service: self.seen.service,
                sequence: self.sequence,
                action: action.clone(),
            };
            let signed = command.sign(self.identity.signing())?;
            let call = CallBody::Submit(signed.clone().into());
            match self.session.call(call, ANSWER).await? {
                ReplyBody::Receipt(bytes) => {
                    let receipt = Receipt::verify(&bytes, &self.service.identity, &signed)?;
                    self.seen.sequence = self.seen.sequence.max(receipt.state.sequence);
                    return Ok(receipt);
                }
                ReplyBody::SequenceBehind(last) => self.sequence = last,
                ReplyBody::Refused(refusal) => return Err(Error::Refused(refusal)),
                _ => return Err(Error::Protocol("another answer than a receipt")),
            }
        }
        Err(Error::Protocol("the sequence never fits"))
    }
}
