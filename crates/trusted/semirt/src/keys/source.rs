//! Where leases come from, and what a refusal says about a lease that is held already.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sesemi_attest::channel::ChannelError;
use sesemi_attest::session::KeyServiceSession;
use sesemi_protocol::id::{ModelRef, ModelTarget, VersionSelector};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{Refusal, RefusalCode};
use sesemi_traces::{Key, Kind, Outcome, Span};

/// Longest wait for one call.
const RELEASE: Duration = Duration::from_secs(15);
/// Longest that the line is opened ahead. A first request that comes meanwhile waits for that, and must then have time left to open
/// one itself.
const AHEAD: Duration = Duration::from_secs(5);

/// How often an idle line is looked at.
const STALE: Duration = Duration::from_secs(10);

/// Asks for leases.
pub trait KeySource: Send + Sync + 'static {
    /// Asks for 1 to [`MAX_RELEASES`](sesemi_protocol::limits::MAX_RELEASES) leases in one round trip: one outcome for each,
    /// in their order, or one refusal for the call as a whole.
    fn release(
        &self,
        requests: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>>;
}

/// KeyService, over its attested channel.
#[derive(Debug, Clone)]
pub struct FromKeyService(pub Arc<KeyServiceSession>);

impl FromKeyService {
    /// Opens the line before anybody asks for a lease, so that the first request finds it open, or on its way. If it cannot be
    /// opened, the first request tries again and says what is wrong; here that is only logged.
    pub async fn open_ahead(&self) {
        match tokio::time::timeout(AHEAD, self.0.service()).await {
            Ok(Ok(_)) => tracing::debug!("the line to KeyService is open"),
            Ok(Err(error)) => tracing::warn!(%error, "no line to KeyService yet"),
            Err(_) => tracing::warn!("no line to KeyService yet: it does not answer"),
        }
    }

    /// Opens the line, and from then on closes it when nobody used it for long: KeyService has places for so many. Runs until it is
    /// dropped.
    pub async fn tend(&self) {
        self.open_ahead().await;
        loop {
            tokio::time::sleep(STALE).await;
            self.0.close_stale().await;
        }
    }
}

impl KeySource for FromKeyService {
    fn release(
        &self,
        requests: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
        let session = self.0.clone();
        // A root: one call is for many requests, or for none when it renews.
        let mut span = Span::root("release", Kind::Client);
        span.set(Key::RpcSystem, "sesemi");
        span.set(Key::RpcMethod, "release");
        span.set(Key::Asked, requests.len());
        Box::pin(async move {
            let answered = ask(&session, requests).await;
            span.end(match &answered {
                Ok(_) => Outcome::Done,
                Err(refusal) => Outcome::Failed(refusal.code.as_str()),
            });
            answered
        })
    }
}

async fn ask(
    session: &KeyServiceSession,
    requests: Vec<ReleaseRequest>,
) -> Result<Vec<ReleaseOutcome>, Refusal> {
    let call = session.call(CallBody::Release(requests), RELEASE);
    // The call's own limit begins with the call; this one includes waiting for the calls before it.
    let Ok(answered) = tokio::time::timeout(RELEASE, call).await else {
        return Err(RefusalCode::KeyServiceUnavailable.into());
    };
    match answered {
        Ok(ReplyBody::Released(outcomes)) => Ok(outcomes),
        Ok(ReplyBody::Refused(refusal)) | Err(ChannelError::Refused(refusal)) => Err(refusal),
        Ok(ReplyBody::Locked(_)) => Err(RefusalCode::Locked.into()),
        Ok(_) => Err(RefusalCode::KeyServiceUnavailable.into()),
        Err(error) => {
            tracing::warn!(%error, "no lease");
            Err(RefusalCode::KeyServiceUnavailable.into())
        }
    }
}

/// One call; exactly one answer for each request, whatever came back.
pub(super) async fn call(
    source: &dyn KeySource,
    requests: Vec<ReleaseRequest>,
) -> Vec<Result<Lease, Refusal>> {
    let asked = requests.clone();
    match source.release(requests).await {
        Err(refusal) => asked.iter().map(|_| Err(refusal.clone())).collect(),
        // An answer of another length cannot be told apart, so none of it counts.
        Ok(outcomes) if outcomes.len() != asked.len() => asked
            .iter()
            .map(|_| Err(RefusalCode::KeyServiceUnavailable.into()))
            .collect(),
        Ok(outcomes) => asked
            .iter()
            .zip(outcomes)
            .map(|(request, outcome)| match outcome {
                ReleaseOutcome::Lease(lease) if can_mean(&request.model, &lease.model) => {
                    Ok(*lease)
                }
                ReleaseOutcome::Lease(_) => {
                    tracing::error!("KeyService released another model than was asked for");
                    Err(RefusalCode::Internal.into())
                }
                ReleaseOutcome::Refused(refusal) => Err(refusal),
            })
            .collect(),
    }
}

/// Whether a target can mean this version: which one an alias means, KeyService alone knows.
fn can_mean(target: &ModelTarget, model: &ModelRef) -> bool {
    target.model == model.model
        && match &target.version {
            VersionSelector::Exact(version) => *version == model.version,
            VersionSelector::Alias(_) => true,
        }
}

/// Whether a refusal is trouble on the way, which says nothing about the grant: a lease that is held stays good until its end.
/// Anything else is KeyService's decision, or its state is not what somebody saw, and the lease is void. Every code is
/// listed, so that a new one is decided on.
pub(super) fn is_trouble(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Busy
        | RefusalCode::DeadlineExceeded
        | RefusalCode::KeyServiceUnavailable
        | RefusalCode::Internal
        | RefusalCode::Unwritable
        | RefusalCode::Locked
        | RefusalCode::HandedOver
        // It could not tell the time: that is about a clock, not about a grant.
        | RefusalCode::ClockSkew => true,
        RefusalCode::Malformed
        | RefusalCode::NotAuthentic
        | RefusalCode::UnknownPrincipal
        | RefusalCode::UnknownModel
        | RefusalCode::NotGranted
        | RefusalCode::NoRequestKey
        | RefusalCode::NotAttested
        | RefusalCode::Replayed
        | RefusalCode::AlreadyExists
        | RefusalCode::StaleState
        | RefusalCode::WrongService
        | RefusalCode::ModelUnavailable
        | RefusalCode::InvalidInput
        | RefusalCode::EngineFailed
        | RefusalCode::NotPermitted
        | RefusalCode::CodeNotDelegated
        | RefusalCode::NotFound
        | RefusalCode::TooMany => false,
    }
}
