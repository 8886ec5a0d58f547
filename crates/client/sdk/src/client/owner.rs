//! What model owners do, and what those do to whom they delegated granting: models, aliases, grants, groups, delegations. How a
//! model is pushed is in `push`.

use sesemi_protocol::command::{Action, Delegation, GrantedVersions, Role, Subject};
use sesemi_protocol::limits::MAX_REVOKED;
use sesemi_protocol::query::{
    Explanation, GrantView, ModelView, PersonView, QueryAnswer, Question,
};
use sesemi_protocol::receipt::Receipt;
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    ModelVersion, PrincipalId,
};

use super::{Client, entry};
use crate::error::Error;

/// What an owner lets somebody do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which model.
    pub model: ModelId,
    /// Which versions of it.
    pub versions: GrantedVersions,
    /// Who may use it.
    pub subject: Subject,
    /// In which code; at least one.
    pub codes: Vec<CodeIdentityDigest>,
    /// When the grant ends, in seconds since 1970; `None` if only revocation ends it.
    pub expires: Option<u64>,
    /// For people, at most 256 bytes.
    pub note: String,
}

impl Grant {
    /// One version of a model, for one user, in one code, until it is revoked.
    #[must_use]
    pub fn of(model: &ModelRef, user: PrincipalId, code: CodeIdentityDigest) -> Self {
        Self {
            model: model.model.clone(),
            versions: GrantedVersions::Exact(model.version),
            subject: Subject::User(user),
            codes: vec![code],
            expires: None,
            note: String::new(),
        }
    }
}

impl Client {
    /// Withdraws a version of this owner's model for good. Leases that are out end within their time.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn retire_model(
        &mut self,
        name: ModelName,
        version: ModelVersion,
    ) -> Result<Receipt, Error> {
        self.submit(Action::RetireModel { name, version }, None)
            .await
    }

    /// Points an alias to a version, whether it pointed to another before or not. Requests that are under way finish on the
    /// version that they began with.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn set_alias(
        &mut self,
        name: ModelName,
        alias: AliasName,
        version: ModelVersion,
    ) -> Result<Receipt, Error> {
        let action = Action::SetAlias {
            name,
            alias,
            version,
        };
        self.submit(action, None).await
    }

    /// Takes an alias away.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn remove_alias(
        &mut self,
        name: ModelName,
        alias: AliasName,
    ) -> Result<Receipt, Error> {
        self.submit(Action::RemoveAlias { name, alias }, None).await
    }

    /// Sets for how many seconds released keys of a model may be used; `None` for the service's own time.
    ///
    /// # Errors
    /// [`Error::Refused`], or [`Error::Signed`] if it is not 1 to 3600.
    pub async fn set_lease(
        &mut self,
        name: ModelName,
        seconds: Option<u32>,
    ) -> Result<Receipt, Error> {
        self.submit(Action::SetLease { name, seconds }, None).await
    }

    /// Grants a model of this owner, or of one that delegated granting to this principal. Gives the grant's id.
    ///
    /// # Errors
    /// [`Error::Refused`] if the model or the user is not registered, and with [`RefusalCode::CodeNotDelegated`](sesemi_protocol::RefusalCode::CodeNotDelegated) if a delegate
    /// names code that the owner did not delegate.
    pub async fn grant(&mut self, grant: Grant) -> Result<u64, Error> {
        let action = Action::Grant {
            owner: grant.model.owner,
            name: grant.model.name,
            versions: grant.versions,
            subject: grant.subject,
            codes: sorted(grant.codes),
            expires: grant.expires,
            note: grant.note,
        };
        Ok(entry(&self.submit(action, None).await?))
    }

    /// Ends grants, all of which must be there. More than 256 take several commands, each of which is carried out whole.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`RefusalCode::NotFound`](sesemi_protocol::RefusalCode::NotFound) if one is not there.
    pub async fn revoke(
        &mut self,
        owner: PrincipalId,
        grants: impl IntoIterator<Item = u64>,
    ) -> Result<(), Error> {
        let grants = sorted(grants.into_iter().collect());
        for grants in grants.chunks(MAX_REVOKED) {
            let grants = grants.to_vec();
            self.submit(Action::Revoke { owner, grants }, None).await?;
        }
        Ok(())
    }

    /// Puts a user into a group, which exists from then on.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn add_member(
        &mut self,
        owner: PrincipalId,
        group: GroupName,
        user: PrincipalId,
    ) -> Result<Receipt, Error> {
        self.submit(Action::AddMember { owner, group, user }, None)
            .await
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn remove_member(
        &mut self,
        owner: PrincipalId,
        group: GroupName,
        user: PrincipalId,
    ) -> Result<Receipt, Error> {
        self.submit(Action::RemoveMember { owner, group, user }, None)
            .await
    }

    /// Gives somebody a role in this owner's namespace, in place of what it had in that role before; a grantor for certain code
    /// only, in whatever order and however often it is named. Grants that were made before stay.
    ///
    /// # Errors
    /// [`Error::Refused`], or [`Error::Signed`] if a grantor gets no code, or too much.
    pub async fn delegate(
        &mut self,
        to: PrincipalId,
        delegation: Delegation,
        expires: Option<u64>,
    ) -> Result<Receipt, Error> {
        let delegation = match delegation {
            Delegation::Grantor { codes } => Delegation::Grantor {
                codes: sorted(codes),
            },
            Delegation::Auditor => Delegation::Auditor,
        };
        let action = Action::Delegate {
            to,
            delegation,
            expires,
        };
        self.submit(action, None).await
    }

    /// Takes a role back. Grants that were made with it stay.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn end_delegation(&mut self, to: PrincipalId, role: Role) -> Result<Receipt, Error> {
        self.submit(Action::EndDelegation { to, role }, None).await
    }

    /// An owner's models, by name. For the owner, its grantors and its auditors.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn models(&self, owner: PrincipalId) -> Result<Vec<ModelView>, Error> {
        let question = |all: &[ModelView]| Question::Models {
            owner,
            after: all.last().map(|model| model.name.clone()),
        };
        let items = |answer| match answer {
            QueryAnswer::Models(models) => Some(models),
            _ => None,
        };
        self.collect(question, items, |a, b| a.name < b.name).await
    }

    /// An owner's grants, of one model or of all, by id. For the owner, its grantors and its auditors.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn grants(
        &self,
        owner: PrincipalId,
        name: Option<ModelName>,
    ) -> Result<Vec<GrantView>, Error> {
        let question = |all: &[GrantView]| Question::Grants {
            owner,
            name: name.clone(),
            after: last_id(all),
        };
        self.collect(question, grants, |a, b| a.id < b.id).await
    }

    /// The grants that let this principal use models, through groups too.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn grants_to_me(&self) -> Result<Vec<GrantView>, Error> {
        let question = |all: &[GrantView]| Question::GrantsToMe {
            after: last_id(all),
        };
        self.collect(question, grants, |a, b| a.id < b.id).await
    }

    /// An owner's groups and delegations. For the owner, its grantors and its auditors.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn people(&self, owner: PrincipalId) -> Result<Vec<PersonView>, Error> {
        let question = |all: &[PersonView]| Question::People {
            owner,
            after: all.len() as u64,
        };
        let items = |answer| match answer {
            QueryAnswer::People(people) => Some(people),
            _ => None,
        };
        self.collect(question, items, |_, _| true).await
    }

    /// Why a release would be allowed or refused now. For the user, and for the owner of the model, its grantors and auditors.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn explain(
        &self,
        user: PrincipalId,
        model: ModelTarget,
        code: CodeIdentityDigest,
        key: Option<RequestKeyName>,
    ) -> Result<Explanation, Error> {
        let question = Question::Explain {
            user,
            model,
            code,
            key,
        };
        match self.ask(question).await? {
            QueryAnswer::Explanation(explanation) => Ok(explanation),
            _ => Err(Error::Protocol("another answer than an explanation")),
        }
    }
}

fn grants(answer: QueryAnswer) -> Option<Vec<GrantView>> {
    match answer {
        QueryAnswer::Grants(grants) => Some(grants),
        _ => None,
    }
}

fn last_id(all: &[GrantView]) -> u64 {
    all.last().map_or(0, |grant| grant.id)
}

/// In the one order that commands hold sets in.
pub(super) fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}
