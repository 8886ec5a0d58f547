//! The one function that decides whether an enclave gets keys. `sesemi access explain` asks the same function.
//!
//! Three parties must agree on the same code identity: the enclave proves that it runs it, the model's owner granted the
//! model to the user in it, and the user let it open the requests.

use sesemi_protocol::query::{Finding, GrantVerdict, KeyVerdict};
use sesemi_protocol::release::{NamedScope, RequestKeyName};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelRef, ModelTarget, PrincipalId, RefusalCode,
    SecretKey,
};

use crate::state::State;
use crate::state::grants::{Grant, GrantSubject};
use crate::state::models::{Model, ModelIx};
use crate::state::principals::PrincipalIx;
use crate::state::request_keys::{KeyFor, RequestKey};

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who would use the model.
    pub user: &'a PrincipalId,
    /// Which model.
    pub model: &'a ModelTarget,
    /// The code of the enclave, by its *verified* evidence.
    pub code: &'a CodeIdentityDigest,
    /// Which of the user's request keys; `None` for any, when explaining.
    pub key: Option<RequestKeyName>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// A release that is allowed.
#[derive(Debug)]
pub struct Allowed<'s> {
    /// The version to run.
    pub model: ModelRef,
    /// Opens its package.
    pub model_key: &'s SecretKey,
    /// Digest of the manifest in its package.
    pub manifest: Digest,
    /// Opens the user's requests.
    pub request_key: &'s SecretKey,
    /// The grant that allows it: of those that do, the one that lasts longest.
    pub grant: u64,
    /// When the grant or the request key ends, whichever is first.
    pub until: Option<u64>,
    /// The model's own lease, in seconds.
    pub lease_seconds: Option<u32>,
    /// What the enclave must do to keep the user's requests apart: the stricter of what the owner asked for with this version
    /// and the user with this request key.
    pub isolation: Isolation,
}

impl Allowed<'_> {
    /// For how many seconds from `now` the keys may be used: the model's lease, or else the service's, but never beyond the
    /// end of the grant or of the request key.
    #[must_use]
    pub fn seconds(&self, now: u64, default: u32) -> u32 {
        let lease = self.lease_seconds.unwrap_or(default);
        let left = self.until.map_or(u64::MAX, |end| end.saturating_sub(now));
        lease.min(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// Where a decision notes what it looks at.
pub trait Trail {
    /// Notes one finding.
    fn note(&mut self, finding: Finding);
}

/// Nobody asked why.
#[derive(Debug)]
pub struct NoTrail;

impl Trail for NoTrail {
    fn note(&mut self, _: Finding) {}
}

/// Decides a release.
///
/// # Errors
/// The first condition that fails: the user, the version, a grant, a request key.
pub fn decide<'s>(
    state: &'s State,
    ask: &Ask<'_>,
    trail: &mut impl Trail,
) -> Result<Allowed<'s>, RefusalCode> {
    let user = state.principals.find(ask.user);
    trail.note(Finding::User(user.is_some()));
    let user = user.ok_or(RefusalCode::UnknownPrincipal)?;

    let model_ix = state.find_model(&ask.model.model);
    let model = model_ix.and_then(|ix| Some((ix, state.models.at(ix)?)));
    let selected =
        model.and_then(|(ix, model)| Some((ix, model, model.select(&ask.model.version)?)));
    trail.note(Finding::Version(selected.map(|(_, _, (number, _))| number)));
    let (ix, model, (number, version)) = selected.ok_or(RefusalCode::UnknownModel)?;
    let model_ref = ModelRef {
        model: ask.model.model.clone(),
        version: number,
    };

    let (grant, grant_ends) = best_grant(state, ask, user, (ix, model), &model_ref, trail)
        .ok_or(RefusalCode::NotGranted)?;
    let (request_key, deposited) =
        best_key(state, ask, user, ix, trail).ok_or(RefusalCode::NoRequestKey)?;
    Ok(Allowed {
        model: model_ref,
        model_key: &version.key,
        manifest: version.manifest,
        request_key,
        grant,
        until: [grant_ends, deposited.ends].into_iter().flatten().min(),
        lease_seconds: model.lease_seconds,
        isolation: version.isolation.stricter(deposited.isolation),
    })
}

/// The grant that lasts longest of those that allow the release, and when it ends.
fn best_grant(
    state: &State,
    ask: &Ask<'_>,
    user: PrincipalIx,
    (ix, model): (ModelIx, &Model),
    meant: &ModelRef,
    trail: &mut impl Trail,
) -> Option<(u64, Option<u64>)> {
    let groups = state.people.groups_with(user, model.owner);
    let subjects =
        core::iter::once(GrantSubject::User(user)).chain(groups.map(GrantSubject::Group));
    let mut best: Option<(u64, Option<u64>)> = None;
    for (id, grant) in subjects.flat_map(|subject| state.grants.of(subject, ix)) {
        let verdict = judge_grant(grant, ask, meant);
        trail.note(Finding::Grant { id, verdict });
        let longer = best.is_none_or(|(_, ends)| lasts(grant.expires) > lasts(ends));
        if verdict == GrantVerdict::Allows && longer {
            best = Some((id, grant.expires));
        }
    }
    best
}

fn lasts(ends: Option<u64>) -> u64 {
    ends.unwrap_or(u64::MAX)
}

fn judge_grant(grant: &Grant, ask: &Ask<'_>, meant: &ModelRef) -> GrantVerdict {
    if !State::covers(&grant.versions, ask.model, meant.version) {
        GrantVerdict::OtherVersion
    } else if !grant.codes.contains(ask.code) {
        GrantVerdict::OtherCode
    } else if grant.expires.is_some_and(|end| end <= ask.now) {
        GrantVerdict::Expired
    } else {
        GrantVerdict::Allows
    }
}

/// The request key that was named, or the newest that would do, and how it was deposited.
fn best_key<'s>(
    state: &'s State,
    ask: &Ask<'_>,
    user: PrincipalIx,
    model: ModelIx,
    trail: &mut impl Trail,
) -> Option<(&'s SecretKey, &'s RequestKey)> {
    if let Some(name) = ask.key {
        let scope = match name.scope {
            NamedScope::Model => KeyFor::Model(model),
            NamedScope::AllModels => KeyFor::AllModels,
        };
        let record = state.request_keys.get(user, scope, name.epoch);
        return judge_key(name, record, ask, trail);
    }
    let of_model = state.request_keys.of_scope(user, KeyFor::Model(model));
    let of_all = state.request_keys.of_scope(user, KeyFor::AllModels);
    of_model
        .map(|(epoch, key)| (RequestKeyName::model(epoch), key))
        .chain(of_all.map(|(epoch, key)| (RequestKeyName::all_models(epoch), key)))
        .find_map(|(name, key)| judge_key(name, Some(key), ask, trail))
}

fn judge_key<'s>(
    name: RequestKeyName,
    record: Option<&'s RequestKey>,
    ask: &Ask<'_>,
    trail: &mut impl Trail,
) -> Option<(&'s SecretKey, &'s RequestKey)> {
    let live = record.and_then(|record| record.live(ask.now));
    let approved = record.is_some_and(|record| record.codes.contains(ask.code));
    let (verdict, key) = match (record, live) {
        (None, _) => (KeyVerdict::Missing, None),
        (Some(_), None) => (KeyVerdict::Ended, None),
        (Some(_), Some(_)) if !approved => (KeyVerdict::OtherCode, None),
        (Some(record), Some(key)) => (KeyVerdict::Allows, Some((key, record))),
    };
    trail.note(Finding::RequestKey { name, verdict });
    key
}
