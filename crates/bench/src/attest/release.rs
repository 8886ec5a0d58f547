//! Key releases by the real KeyService, in this process: its state on disk, its server, its decision.

use sesemi_attest::session::KeyServiceSession;
use sesemi_protocol::command::{Action, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::{ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{
    Digest, Isolation, ModelName, ModelRef, ModelVersion, SecretKey, SigningIdentity,
};
use tempfile::TempDir;

use crate::enclave::Lab;
use crate::error::BenchError;
use crate::service::{ANSWER, LEASE, Principal, Running, order};
use crate::stopwatch::{Lap, Stopwatch};

/// A running KeyService and an enclave that may have one key of it.
pub(super) struct Releases {
    lab: Lab,
    server: Running,
    request: ReleaseRequest,
    kept: KeyServiceSession,
    /// Holds the service's state.
    _state: TempDir,
}

impl Releases {
    /// Starts KeyService, registers a model and a user there, and opens the connection that is kept.
    pub(super) async fn start(lab: Lab) -> Result<Self, BenchError> {
        let state = tempfile::tempdir()?;
        let server = Running::start(&lab, state.path()).await?;
        let request = register(&lab, &server).await?;
        let kept = server.session(&lab)?;
        let releases = Self {
            lab,
            server,
            request,
            kept,
            _state: state,
        };
        releases.release(&releases.kept).await?;
        Ok(releases)
    }

    /// A new instance of SeMIRT gets its first key: connect, attest, ask.
    pub(super) async fn on_a_new_connection(&self) -> Result<Lap, BenchError> {
        let session = self.server.session(&self.lab)?;
        let lap = self.release(&session).await?;
        drop(session);
        self.server.settle().await?;
        Ok(lap)
    }

    /// An instance gets one more key on its open connection.
    pub(super) async fn on_the_kept_connection(&self) -> Result<Lap, BenchError> {
        self.release(&self.kept).await
    }

    async fn release(&self, session: &KeyServiceSession) -> Result<Lap, BenchError> {
        let call = CallBody::Release(vec![self.request.clone()]);
        let watch = Stopwatch::start();
        let reply = session.call(call, ANSWER).await?;
        let lap = watch.stop();
        match reply {
            ReplyBody::Released(outcomes) if is_one_lease(&outcomes) => Ok(lap),
            _ => Err(BenchError::Unexpected("KeyService gave no lease")),
        }
    }

    /// Stops KeyService as its operator would.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        drop(self.kept);
        self.server.stop().await
    }
}

/// Whether that is the answer to one release that is allowed.
fn is_one_lease(outcomes: &[ReleaseOutcome]) -> bool {
    matches!(outcomes, [ReleaseOutcome::Lease(lease)] if lease.seconds == LEASE)
}

/// An owner registers a model and grants it to a user in SeMIRT's code; the user deposits its key. What comes back is what
/// SeMIRT then asks for.
async fn register(lab: &Lab, server: &Running) -> Result<ReleaseRequest, BenchError> {
    let principal = || {
        let identity = SigningIdentity::generate(&*lab.entropy)?;
        Ok::<_, BenchError>(Principal::new(identity, server.id()))
    };
    let (mut owner, mut user) = (principal()?, principal()?);
    let (owner_id, user_id) = (
        owner.identity.public().principal_id(),
        user.identity.public().principal_id(),
    );
    let codes = vec![lab.semirt.code()];
    let (name, version) = (ModelName::new("model")?, ModelVersion::new(1)?);
    let (model_key, request_key) = (
        SecretKey::generate(&*lab.entropy)?,
        SecretKey::generate(&*lab.entropy)?,
    );
    order(&server.service, owner.register()?, None).await?;
    order(&server.service, user.register()?, None).await?;
    let put = owner.sign(Action::PutModel {
        name: name.clone(),
        version,
        key: model_key.digest(),
        manifest: Digest([0; 32]),
        isolation: Isolation::default(),
    })?;
    order(&server.service, put, Some(model_key)).await?;
    let grant = owner.sign(Action::Grant {
        owner: owner_id,
        name: name.clone(),
        versions: GrantedVersions::All,
        subject: Subject::User(user_id),
        codes: codes.clone(),
        expires: None,
        note: String::new(),
    })?;
    order(&server.service, grant, None).await?;
    let put = user.sign(Action::PutRequestKey {
        scope: KeyScope::AllModels,
        epoch: 1,
        key: request_key.digest(),
        codes,
        isolation: Isolation::default(),
        earlier_end: None,
    })?;
    order(&server.service, put, Some(request_key)).await?;
    Ok(ReleaseRequest {
        model: ModelRef::new(owner_id, name, version).into(),
        user: user_id,
        key: RequestKeyName::all_models(1),
        seen: Point::START,
    })
}
