//! Questions and answers, as they stand in the vector files.

use serde_json::Value;
use sesemi_protocol::RefusalCode;
use sesemi_protocol::audit::AuditItem;
use sesemi_protocol::query::{
    AliasView, Explanation, Finding, GrantVerdict, GrantView, KeyVerdict, ModelView, PersonView,
    Query, QueryAnswer, Question, RequestKeyView, VersionView,
};
use sesemi_protocol::share::{Scheme, Share};

use crate::actions::{delegation, scope, subject, versions};
use crate::support::{bytes, number, optional, parsed, parsed_list, text, variant};
use crate::values::{REFUSAL_CODES, isolation, key_name, point, secret, version};

/// A query from its fields in the files.
pub(crate) fn query(case: &Value) -> Query {
    Query {
        service: parsed(case, "service"),
        at: number(case, "at"),
        seen: point(&case["seen"]),
        question: question(&case["question"]),
    }
}

fn question(value: &Value) -> Question {
    let (kind, f) = variant(value);
    match kind {
        "grants" => Question::Grants {
            owner: parsed(f, "owner"),
            name: optional(f, "name", parsed),
            after: number(f, "after"),
        },
        "grants_to_me" => Question::GrantsToMe {
            after: number(f, "after"),
        },
        "explain" => Question::Explain {
            user: parsed(f, "user"),
            model: parsed(f, "model"),
            code: parsed(f, "code"),
            key: optional(f, "key", |f, key| key_name(&f[key])),
        },
        "audit" => Question::Audit {
            of: parsed(f, "of"),
            after: number(f, "after"),
        },
        "request_keys" => Question::RequestKeys {
            after: number(f, "after"),
        },
        "models" => Question::Models {
            owner: parsed(f, "owner"),
            after: optional(f, "after", parsed),
        },
        "people" => Question::People {
            owner: parsed(f, "owner"),
            after: number(f, "after"),
        },
        "share" => Question::Share,
        other => panic!("no question '{other}'"),
    }
}

pub(crate) fn answer(value: &Value) -> QueryAnswer {
    let (kind, content) = variant(value);
    match kind {
        "grants" => QueryAnswer::Grants(each(content, grant_view)),
        "explanation" => QueryAnswer::Explanation(explanation(content)),
        "audit" => QueryAnswer::Audit {
            from: point(&content["from"]),
            items: each(&content["items"], audit_item),
        },
        "request_keys" => QueryAnswer::RequestKeys(each(content, request_key_view)),
        "models" => QueryAnswer::Models(each(content, model_view)),
        "people" => QueryAnswer::People(each(content, person_view)),
        "share" => QueryAnswer::Share(share(content)),
        other => panic!("no answer '{other}'"),
    }
}

fn each<T>(values: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    values.as_array().unwrap().iter().map(read).collect()
}

pub(crate) fn audit_item(value: &Value) -> AuditItem {
    match variant(value).0 {
        "shown" => AuditItem::Shown(bytes(value, "shown").into()),
        "hidden" => AuditItem::Hidden(parsed(value, "hidden")),
        other => panic!("no item '{other}'"),
    }
}

pub(crate) fn share(value: &Value) -> Share {
    let scheme = Scheme::new(number(value, "threshold"), number(value, "of")).unwrap();
    let index = number(value, "index");
    Share::new(
        parsed(value, "service"),
        scheme,
        index,
        secret(value, "value"),
    )
    .unwrap()
}

fn grant_view(value: &Value) -> GrantView {
    GrantView {
        id: number(value, "id"),
        model: parsed(value, "model"),
        versions: versions(&value["versions"]),
        subject: subject(&value["subject"]),
        codes: parsed_list(value, "codes"),
        expires: optional(value, "expires", number),
        note: text(value, "note").to_owned(),
        by: parsed(value, "by"),
    }
}

fn request_key_view(value: &Value) -> RequestKeyView {
    RequestKeyView {
        scope: scope(&value["scope"]),
        epoch: number(value, "epoch"),
        key: parsed(value, "key"),
        codes: parsed_list(value, "codes"),
        ends: optional(value, "ends", number),
        isolation: isolation(value),
    }
}

fn model_view(value: &Value) -> ModelView {
    let alias = |value: &Value| AliasView {
        alias: parsed(value, "alias"),
        version: version(value, "version"),
    };
    let of_version = |value: &Value| VersionView {
        version: version(value, "version"),
        isolation: isolation(value),
    };
    ModelView {
        name: parsed(value, "name"),
        versions: each(&value["versions"], of_version),
        aliases: each(&value["aliases"], alias),
        lease_seconds: optional(value, "lease_seconds", number),
    }
}

fn person_view(value: &Value) -> PersonView {
    let (kind, f) = variant(value);
    match kind {
        "member" => PersonView::Member {
            group: parsed(f, "group"),
            user: parsed(f, "user"),
        },
        "delegate" => PersonView::Delegate {
            to: parsed(f, "to"),
            delegation: delegation(&f["delegation"]),
            expires: optional(f, "expires", number),
        },
        other => panic!("no person '{other}'"),
    }
}

fn explanation(value: &Value) -> Explanation {
    let code = |value: &Value, field: &str| -> RefusalCode {
        let name = text(value, field);
        let found = REFUSAL_CODES.into_iter().find(|code| code.as_str() == name);
        found.unwrap()
    };
    Explanation {
        allowed: optional(value, "allowed", parsed),
        refused: optional(value, "refused", code),
        seconds: number(value, "seconds"),
        findings: each(&value["findings"], finding),
        isolation: optional(value, "isolation", |value, _| isolation(value)),
    }
}

fn finding(value: &Value) -> Finding {
    let (kind, f) = variant(value);
    match kind {
        "user" => Finding::User(f.as_bool().unwrap()),
        "version" => Finding::Version(optional(value, "version", version)),
        "grant" => Finding::Grant {
            id: number(f, "id"),
            verdict: match text(f, "verdict") {
                "allows" => GrantVerdict::Allows,
                "other_version" => GrantVerdict::OtherVersion,
                "other_code" => GrantVerdict::OtherCode,
                "expired" => GrantVerdict::Expired,
                other => panic!("no verdict '{other}'"),
            },
        },
        "request_key" => Finding::RequestKey {
            name: key_name(&f["name"]),
            verdict: match text(f, "verdict") {
                "allows" => KeyVerdict::Allows,
                "missing" => KeyVerdict::Missing,
                "other_code" => KeyVerdict::OtherCode,
                "ended" => KeyVerdict::Ended,
                other => panic!("no verdict '{other}'"),
            },
        },
        other => panic!("no finding '{other}'"),
    }
}
