//! Any query, and any answer whether it is one to it or not.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sesemi_protocol::RefusalCode;
use sesemi_protocol::audit::AuditItem;
use sesemi_protocol::query::{
    AliasView, Explanation, Finding, GrantVerdict, GrantView, KeyVerdict, ModelView, PersonView,
    Query, QueryAnswer, Question, RequestKeyView, VersionView,
};
use sesemi_protocol::share::{Scheme, Share};

use crate::actions::{delegation, scope, subject, versions};
use crate::ids::{
    alias, bytes, code, digest, group, isolation, key, key_name, model, model_ref, name, note,
    point, principal, service, target, version,
};

prop_compose! {
    pub(crate) fn query()(service in service(), at: u64, seen in point(), question in question()) -> Query {
        Query { service, at, seen, question }
    }
}

fn question() -> impl Strategy<Value = Question> {
    let grants = (principal(), of(name()), any::<u64>());
    let explain = (principal(), target(), code(), of(key_name()));
    prop_oneof![
        grants.prop_map(|(owner, name, after)| Question::Grants { owner, name, after }),
        any::<u64>().prop_map(|after| Question::GrantsToMe { after }),
        explain.prop_map(|(user, model, code, key)| Question::Explain {
            user,
            model,
            code,
            key
        }),
        (principal(), any::<u64>()).prop_map(|(of, after)| Question::Audit { of, after }),
        any::<u64>().prop_map(|after| Question::RequestKeys { after }),
        (principal(), of(name())).prop_map(|(owner, after)| Question::Models { owner, after }),
        (principal(), any::<u64>()).prop_map(|(owner, after)| Question::People { owner, after }),
        Just(Question::Share),
    ]
}

pub(crate) fn answer() -> impl Strategy<Value = QueryAnswer> {
    prop_oneof![
        vec(grant_view(), 0..4).prop_map(QueryAnswer::Grants),
        explanation().prop_map(QueryAnswer::Explanation),
        (point(), vec(audit_item(), 0..6))
            .prop_map(|(from, items)| QueryAnswer::Audit { from, items }),
        vec(request_key_view(), 0..4).prop_map(QueryAnswer::RequestKeys),
        vec(model_view(), 0..4).prop_map(QueryAnswer::Models),
        vec(person_view(), 0..4).prop_map(QueryAnswer::People),
        share().prop_map(QueryAnswer::Share),
    ]
}

pub(crate) fn audit_item() -> impl Strategy<Value = AuditItem> {
    prop_oneof![
        bytes().prop_map(AuditItem::Shown),
        digest().prop_map(AuditItem::Hidden),
    ]
}

prop_compose! {
    pub(crate) fn share()(count in 2..=16_u8)(
        service in service(), index in 1..=count, threshold in 2..=count, value in key(), count in Just(count),
    ) -> Share {
        Share::new(service, Scheme::new(threshold, count).unwrap(), index, value).unwrap()
    }
}

prop_compose! {
    fn grant_view()(
        id: u64, model in model(), versions in versions(), subject in subject(), codes in vec(code(), 0..4),
        expires: Option<u64>, note in note(), by in principal(),
    ) -> GrantView {
        GrantView { id, model, versions, subject, codes, expires, note, by }
    }
}

prop_compose! {
    fn request_key_view()(
        scope in scope(), epoch: u32, key in digest(), codes in vec(code(), 0..4), ends: Option<u64>,
        isolation in isolation(),
    ) -> RequestKeyView {
        RequestKeyView { scope, epoch, key, codes, ends, isolation }
    }
}

prop_compose! {
    fn alias_view()(alias in alias(), version in version()) -> AliasView { AliasView { alias, version } }
}

prop_compose! {
    fn version_view()(version in version(), isolation in isolation()) -> VersionView {
        VersionView { version, isolation }
    }
}

prop_compose! {
    fn model_view()(
        name in name(), versions in vec(version_view(), 0..4), aliases in vec(alias_view(), 0..4),
        lease_seconds: Option<u32>,
    ) -> ModelView {
        ModelView { name, versions, aliases, lease_seconds }
    }
}

fn person_view() -> impl Strategy<Value = PersonView> {
    prop_oneof![
        (group(), principal()).prop_map(|(group, user)| PersonView::Member { group, user }),
        (principal(), delegation(), any::<Option<u64>>()).prop_map(|(to, delegation, expires)| {
            PersonView::Delegate {
                to,
                delegation,
                expires,
            }
        }),
    ]
}

prop_compose! {
    fn explanation()(
        allowed in of(model_ref()), refused in of(refusal_code()), seconds: u32, findings in vec(finding(), 0..8),
        isolation in of(isolation()),
    ) -> Explanation {
        Explanation { allowed, refused, seconds, findings, isolation }
    }
}

pub(crate) fn refusal_code() -> impl Strategy<Value = RefusalCode> {
    prop_oneof![
        Just(RefusalCode::Malformed),
        Just(RefusalCode::NotGranted),
        Just(RefusalCode::Internal),
        Just(RefusalCode::ClockSkew),
        Just(RefusalCode::CodeNotDelegated),
    ]
}

fn finding() -> impl Strategy<Value = Finding> {
    let of_grant = prop_oneof![
        Just(GrantVerdict::Allows),
        Just(GrantVerdict::OtherVersion),
        Just(GrantVerdict::OtherCode),
        Just(GrantVerdict::Expired),
    ];
    let of_key = prop_oneof![
        Just(KeyVerdict::Allows),
        Just(KeyVerdict::Missing),
        Just(KeyVerdict::OtherCode),
        Just(KeyVerdict::Ended),
    ];
    prop_oneof![
        any::<bool>().prop_map(Finding::User),
        of(version()).prop_map(Finding::Version),
        (any::<u64>(), of_grant).prop_map(|(id, verdict)| Finding::Grant { id, verdict }),
        (key_name(), of_key).prop_map(|(name, verdict)| Finding::RequestKey { name, verdict }),
    ]
}
