//! Answers to what principals ask about their own affairs. Pure: who asks was verified before, and what stands in the log comes
//! from [`crate::service`].

use minicbor::Encode;
use sesemi_protocol::command::{KeyScope, Role, Subject};
use sesemi_protocol::limits::{MAX_PAGE, MAX_WIRE_MESSAGE};
use sesemi_protocol::query::{
    AliasView, Explanation, Finding, GrantVerdict, GrantView, KeyVerdict, ModelView, PersonView,
    QueryAnswer, Question, RequestKeyView, VersionView,
};
use sesemi_protocol::{ModelId, ModelName, PrincipalId, RefusalCode, cbor};

use crate::decision::{Allowed, Ask, Trail, decide};
use crate::state::State;
use crate::state::grants::{Grant, GrantSubject};
use crate::state::principals::PrincipalIx;
use crate::state::request_keys::KeyFor;

/// Length of a page, in bytes: whatever comes around it still fits into one message.
const PAGE: usize = MAX_WIRE_MESSAGE - 1024;

/// As many items as fit on a page, but one at least. The longest item, a model with all the versions and aliases that it can
/// have, fits.
fn page<T: Encode<()>>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut used = 0usize;
    let fits = items.take_while(|item| {
        let first = used == 0;
        // What has no length does not fit.
        let length = cbor::encode(item).map_or(PAGE, |bytes| bytes.len());
        used = used.saturating_add(length);
        first || used <= PAGE
    });
    fits.take(MAX_PAGE).collect()
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Who.
    pub id: PrincipalId,
    /// The service's time, in seconds since 1970.
    pub now: u64,
    /// How long leases are unless a model says otherwise, in seconds.
    pub lease_seconds: u32,
}

/// Answers a question that the state alone answers; `None` for one about the log or about a share.
///
/// # Errors
/// [`RefusalCode::NotPermitted`] for who may not know, [`RefusalCode::UnknownPrincipal`].
pub fn answer(
    state: &State,
    asker: Asker,
    question: &Question,
) -> Result<Option<QueryAnswer>, RefusalCode> {
    let ix = state
        .principals
        .find(&asker.id)
        .ok_or(RefusalCode::UnknownPrincipal)?;
    let roles = [Role::Grantor, Role::Auditor];
    Ok(Some(match question {
        Question::Grants { owner, name, after } => {
            let owner = in_namespace(state, asker, owner, &roles)?;
            QueryAnswer::Grants(grants_of_owner(state, owner, name.as_ref(), *after))
        }
        Question::GrantsToMe { after } => QueryAnswer::Grants(grants_to(state, ix, *after)),
        Question::Explain {
            user,
            model,
            code,
            key,
        } => {
            if *user != asker.id {
                in_namespace(state, asker, &model.model.owner, &roles)?;
            }
            let ask = Ask {
                user,
                model,
                code,
                key: *key,
                now: asker.now,
            };
            QueryAnswer::Explanation(explain(state, &ask, asker.lease_seconds))
        }
        Question::RequestKeys { after } => {
            QueryAnswer::RequestKeys(request_keys(state, ix, *after))
        }
        Question::Models { owner, after } => {
            let owner = in_namespace(state, asker, owner, &roles)?;
            QueryAnswer::Models(models(state, owner, after.as_ref()))
        }
        Question::People { owner, after } => {
            let owner = in_namespace(state, asker, owner, &roles)?;
            QueryAnswer::People(people(state, owner, *after))
        }
        Question::Audit { .. } | Question::Share => return Ok(None),
    }))
}

/// Whether `asker` may see the log as `of` sees it.
///
/// # Errors
/// [`RefusalCode::NotPermitted`].
pub fn may_audit(state: &State, asker: Asker, of: &PrincipalId) -> Result<(), RefusalCode> {
    in_namespace(state, asker, of, &[Role::Auditor]).map(drop)
}

fn in_namespace(
    state: &State,
    asker: Asker,
    owner: &PrincipalId,
    roles: &[Role],
) -> Result<PrincipalIx, RefusalCode> {
    let has_role = |ix: PrincipalIx| {
        let delegate = state.principals.find(&asker.id);
        roles
            .iter()
            .any(|role| delegate.is_some_and(|it| state.people.has_role(ix, it, *role, asker.now)))
    };
    state
        .principals
        .find(owner)
        .filter(|ix| *owner == asker.id || has_role(*ix))
        .ok_or(RefusalCode::NotPermitted)
}

fn grants_of_owner(
    state: &State,
    owner: PrincipalIx,
    name: Option<&ModelName>,
    after: u64,
) -> Vec<GrantView> {
    let wanted = name.map(|name| state.models.find(owner, name));
    let views = state
        .grants
        .of_owner(owner, after)
        .filter(|(_, grant)| wanted.is_none_or(|model| model == Some(grant.model)))
        .filter_map(|(id, grant)| view(state, id, grant));
    page(views)
}

fn grants_to(state: &State, user: PrincipalIx, after: u64) -> Vec<GrantView> {
    let groups = state.people.memberships(user).map(GrantSubject::Group);
    let subjects = core::iter::once(GrantSubject::User(user)).chain(groups);
    let found = state.grants.of_subjects(subjects, after);
    page(found.filter_map(|(id, grant)| view(state, id, grant)))
}

fn view(state: &State, id: u64, grant: &Grant) -> Option<GrantView> {
    let subject = match grant.subject {
        GrantSubject::User(user) => Subject::User(state.principals.id(user)?),
        GrantSubject::Group(group) => Subject::Group(state.people.group(group)?.name.clone()),
    };
    Some(GrantView {
        id,
        model: ModelId {
            owner: state.principals.id(grant.owner)?,
            name: state.models.at(grant.model)?.name.clone(),
        },
        versions: grant.versions.clone(),
        subject,
        codes: grant.codes.as_slice().to_vec(),
        expires: grant.expires,
        note: grant.note.as_deref().unwrap_or_default().to_owned(),
        by: state.principals.id(grant.by)?,
    })
}

/// The first findings of a decision, of each kind: many that say the same must not hide the one that matters.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    allowing: usize,
    other_grants: usize,
    keys: usize,
}

impl Trail for Findings {
    fn note(&mut self, finding: Finding) {
        let (kind, most) = match &finding {
            // One each.
            Finding::User(_) | Finding::Version(_) => return self.all.push(finding),
            Finding::Grant {
                verdict: GrantVerdict::Allows,
                ..
            } => (&mut self.allowing, MAX_PAGE / 4),
            Finding::Grant { .. } => (&mut self.other_grants, MAX_PAGE / 4),
            // The last key that is looked at is the one that would do, if any would.
            Finding::RequestKey {
                verdict: KeyVerdict::Allows,
                ..
            } => (&mut self.keys, usize::MAX),
            Finding::RequestKey { .. } => (&mut self.keys, MAX_PAGE / 4),
        };
        if *kind < most {
            *kind = kind.saturating_add(1);
            self.all.push(finding);
        }
    }
}

/// Decides without releasing, and says what the decision looked at.
#[must_use]
pub fn explain(state: &State, ask: &Ask<'_>, lease_seconds: u32) -> Explanation {
    let mut findings = Findings::default();
    let decided = decide(state, ask, &mut findings);
    let seconds = |allowed: &Allowed<'_>| allowed.seconds(ask.now, lease_seconds);
    Explanation {
        seconds: decided.as_ref().map_or(0, seconds),
        isolation: decided.as_ref().ok().map(|allowed| allowed.isolation),
        refused: decided.as_ref().err().copied(),
        allowed: decided.ok().map(|allowed| allowed.model),
        findings: findings.all,
    }
}

fn request_keys(state: &State, user: PrincipalIx, after: u64) -> Vec<RequestKeyView> {
    let keys = state.request_keys.of_user(user);
    let views = keys.filter_map(|(scope, epoch, key)| {
        let scope = match scope {
            KeyFor::AllModels => KeyScope::AllModels,
            KeyFor::Model(model) => {
                let model = state.models.at(model)?;
                KeyScope::Model(ModelId {
                    owner: state.principals.id(model.owner)?,
                    name: model.name.clone(),
                })
            }
        };
        Some(RequestKeyView {
            scope,
            epoch,
            key: key.key.as_ref()?.digest(),
            codes: key.codes.as_slice().to_vec(),
            ends: key.ends,
            isolation: key.isolation,
        })
    });
    page(skip(views, after))
}

fn skip<T>(items: impl Iterator<Item = T>, after: u64) -> impl Iterator<Item = T> {
    items.skip(usize::try_from(after).unwrap_or(usize::MAX))
}

fn models(state: &State, owner: PrincipalIx, after: Option<&ModelName>) -> Vec<ModelView> {
    let views = state.models.of_owner(owner, after).map(|model| {
        let versions = model.versions.iter().filter_map(|(number, kept)| {
            Some(VersionView {
                version: *number,
                isolation: kept.as_ref()?.isolation,
            })
        });
        let aliases = model.aliases.iter().map(|(alias, version)| AliasView {
            alias: alias.clone(),
            version: *version,
        });
        ModelView {
            name: model.name.clone(),
            versions: versions.collect(),
            aliases: aliases.collect(),
            lease_seconds: model.lease_seconds,
        }
    });
    page(views)
}

fn people(state: &State, owner: PrincipalIx, after: u64) -> Vec<PersonView> {
    let members = state
        .people
        .groups_of_owner(owner)
        .flat_map(|group| group.members.iter().map(move |member| (group, *member)))
        .filter_map(|(group, member)| {
            Some(PersonView::Member {
                group: group.name.clone(),
                user: state.principals.id(member)?,
            })
        });
    let delegates = state
        .people
        .delegations_of(owner)
        .filter_map(|(to, delegation, expires)| {
            Some(PersonView::Delegate {
                to: state.principals.id(to)?,
                delegation,
                expires,
            })
        });
    page(skip(members.chain(delegates), after))
}
