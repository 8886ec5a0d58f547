//! `sesemi access`: grants, and why they allow or not.

use std::time::Duration;

use sesemi::{
    Explanation, Finding, Grant, GrantVerdict, GrantView, GrantedVersions, KeyVerdict, ModelId,
    ModelTarget, RefusalCode, RequestKeyName, Subject, VersionSelector,
};
use tokio::time::timeout;

use super::actor::{isolation_json, joined, object};
use crate::args::{AccessCommand, ExplainArgs, GrantArgs, Who};
use crate::error::{CliError, During as _};
use crate::table::table;
use crate::times::shown;

/// How long a revocation waits for the list of what it leaves. Whoever revokes is in a hurry, and the list is only told.
const LIST: Duration = Duration::from_secs(2);

/// `sesemi access`.
///
/// # Errors
/// [`CliError`].
pub async fn access(command: AccessCommand) -> Result<(), CliError> {
    match command {
        AccessCommand::Grant(args) => grant(args).await,
        AccessCommand::Revoke { grants, owner, who } => revoke(grants, owner.as_deref(), who).await,
        AccessCommand::List {
            model,
            owner,
            to_me,
            who,
        } => list(model.as_deref(), owner.as_deref(), to_me, who).await,
        AccessCommand::Explain(args) => explain(args).await,
    }
}

/// A model, and which versions of it are meant.
fn granted(text: &str) -> Result<(ModelId, GrantedVersions), CliError> {
    if !text.contains('@') {
        let model = text.parse().during("read the model's name")?;
        return Ok((model, GrantedVersions::All));
    }
    let target: ModelTarget = text.parse().during("read the model's name")?;
    let versions = match target.version {
        VersionSelector::Exact(version) => GrantedVersions::Exact(version),
        VersionSelector::Alias(alias) => GrantedVersions::Alias(alias),
    };
    Ok((target.model, versions))
}

fn model_text(model: &ModelId, versions: &GrantedVersions) -> String {
    match versions {
        GrantedVersions::All => model.to_string(),
        GrantedVersions::Exact(version) => format!("{model}@{version}"),
        GrantedVersions::Alias(alias) => format!("{model}@{alias}"),
    }
}

fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => user.to_string(),
        Subject::Group(group) => format!("group {group}"),
    }
}

async fn grant(args: GrantArgs) -> Result<(), CliError> {
    let (model, versions) = granted(&args.model)?;
    let subject = match (&args.user, &args.group) {
        (Some(user), _) => Subject::User(user.parse().during("read the user's id")?),
        (None, Some(group)) => Subject::Group(group.parse().during("read the group's name")?),
        (None, None) => return Err(CliError::Input("name a user or a --group".into())),
    };
    let mut actor = args.who.connect().await?;
    let codes = actor.codes(&args.code)?;
    let grant = Grant {
        model: model.clone(),
        versions: versions.clone(),
        subject: subject.clone(),
        codes: codes.clone(),
        expires: args.expires,
        note: args.note,
    };
    let id = match actor.client.grant(grant).await {
        Err(sesemi::Error::Refused(refusal)) if refusal.code == RefusalCode::UnknownPrincipal => {
            return Err(CliError::Input(format!(
                "the user {} is not registered at this KeyService; it runs `sesemi register` once",
                subject_text(&subject)
            )));
        }
        other => other.during("grant the model")?,
    };
    let until = args
        .expires
        .map_or(String::new(), |at| format!(" until {}", shown(at)));
    let people = format!(
        "grant {id}: {} to {} in code {}{until}",
        model_text(&model, &versions),
        subject_text(&subject),
        joined(&codes)
    );
    actor.done(&people, object([("grant", id.into())]))
}

async fn revoke(grants: Vec<u64>, owner: Option<&str>, who: Who) -> Result<(), CliError> {
    let mut actor = who.connect().await?;
    let owner = actor.principal(owner)?;
    let before = at_once(actor.client.grants(owner, None)).await;
    actor
        .client
        .revoke(owner, grants.iter().copied())
        .await
        .during("revoke the grants")?;
    let left = left_by(&before, &grants);
    let rows: Vec<[String; 6]> = left.iter().copied().map(row).collect();
    let mut people = format!("revoked {}", joined(&grants));
    if !left.is_empty() {
        let rows = table(GRANT_COLUMNS, &rows);
        people = format!("{people}\nother grants of the same models stay:\n{rows}");
    }
    let remaining: Vec<serde_json::Value> = left.iter().copied().map(to_json).collect();
    let value = object([("revoked", grants.into()), ("remaining", remaining.into())]);
    actor.done(&people, value)
}

/// The list, or none of it. Nothing may keep a revocation from being sent, nor for long: without the list, less is said of it.
async fn at_once<E>(list: impl Future<Output = Result<Vec<GrantView>, E>>) -> Vec<GrantView> {
    match timeout(LIST, list).await {
        Ok(Ok(grants)) => grants,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The grants of the models that the `revoked` ones were for, without these: who revokes one often means them all.
fn left_by<'g>(before: &'g [GrantView], revoked: &[u64]) -> Vec<&'g GrantView> {
    let (gone, others): (Vec<_>, Vec<_>) =
        before.iter().partition(|grant| revoked.contains(&grant.id));
    others
        .into_iter()
        .filter(|other| gone.iter().any(|gone| gone.model == other.model))
        .collect()
}

async fn list(
    model: Option<&str>,
    owner: Option<&str>,
    to_me: bool,
    who: Who,
) -> Result<(), CliError> {
    let model: Option<ModelId> = match model {
        Some(text) => Some(text.parse().during("read the model's name")?),
        None => None,
    };
    let actor = who.connect().await?;
    let grants = if to_me {
        actor.client.grants_to_me().await
    } else if let Some(model) = model {
        actor.client.grants(model.owner, Some(model.name)).await
    } else {
        actor.client.grants(actor.principal(owner)?, None).await
    };
    let grants = grants.during("list the grants")?;
    let rows: Vec<[String; 6]> = grants.iter().map(row).collect();
    let value: Vec<serde_json::Value> = grants.iter().map(to_json).collect();
    let people = table(GRANT_COLUMNS, &rows);
    actor.show(&value.into(), &people)
}

const GRANT_COLUMNS: [&str; 6] = ["ID", "MODEL", "FOR", "CODE", "UNTIL", "NOTE"];

fn row(grant: &GrantView) -> [String; 6] {
    [
        grant.id.to_string(),
        model_text(&grant.model, &grant.versions),
        subject_text(&grant.subject),
        joined(&grant.codes),
        grant.expires.map_or("-".into(), shown),
        printable(&grant.note),
    ]
}

/// A note is somebody else's text.
fn printable(note: &str) -> String {
    note.chars().filter(|c| !c.is_control()).collect()
}

fn to_json(grant: &GrantView) -> serde_json::Value {
    let (user, group) = match &grant.subject {
        Subject::User(user) => (Some(user.to_string()), None),
        Subject::Group(group) => (None, Some(group.to_string())),
    };
    let codes: Vec<String> = grant.codes.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "grant": grant.id,
        "model": model_text(&grant.model, &grant.versions),
        "user": user,
        "group": group,
        "codes": codes,
        "expires": grant.expires.map(shown),
        "note": grant.note,
        "by": grant.by.to_string(),
    })
}

async fn explain(args: ExplainArgs) -> Result<(), CliError> {
    let model: ModelTarget = args.model.parse().during("read the model's name")?;
    let key = args.key.as_deref().map(key_name).transpose()?;
    let actor = args.who.connect().await?;
    let user = actor.principal(args.user.as_deref())?;
    let code = actor.connection.code(args.code.as_deref())?;
    let explanation = actor
        .client
        .explain(user, model.clone(), code, key)
        .await
        .during("ask why")?;
    let findings = explanation.findings.iter().map(finding);
    let findings: Vec<[String; 2]> = findings.chain(missing(&explanation)).collect();
    let value = serde_json::json!({
        "allowed": explanation.allowed.as_ref().map(ToString::to_string),
        "refused": explanation.refused.map(|code| code.as_str()),
        "seconds": explanation.seconds,
        "isolation": explanation.isolation.map(isolation_json),
        "findings": findings.iter().map(|[what, is]| serde_json::json!({"what": what, "is": is})).collect::<Vec<_>>(),
    });
    let people = format!(
        "{}\n{}",
        verdict(&model, &explanation),
        table(["WHAT", "IS"], &findings)
    );
    actor.show(&value, &people)
}

fn verdict(model: &ModelTarget, explanation: &Explanation) -> String {
    match (&explanation.allowed, explanation.refused) {
        (Some(version), _) => format!(
            "allowed: {version}, keys for {} s at a time, isolation: {}",
            explanation.seconds,
            explanation.isolation.unwrap_or_default()
        ),
        (None, Some(code)) => format!("refused: {model}: {} ({code})", code.sentence()),
        (None, None) => format!("refused: {model}"),
    }
}

/// Reads `model/2` or `all/1`.
pub(super) fn key_name(text: &str) -> Result<RequestKeyName, CliError> {
    let named = text.split_once('/').and_then(|(scope, epoch)| {
        let epoch = epoch.parse().ok()?;
        match scope {
            "model" => Some(RequestKeyName::model(epoch)),
            "all" => Some(RequestKeyName::all_models(epoch)),
            _ => None,
        }
    });
    named.ok_or_else(|| {
        CliError::Input(format!(
            "'{text}' is no request key; write model/EPOCH or all/EPOCH, for example model/1"
        ))
    })
}

fn key_text(name: RequestKeyName) -> String {
    if name == RequestKeyName::model(name.epoch) {
        format!("key model/{}", name.epoch)
    } else {
        format!("key all/{}", name.epoch)
    }
}

fn finding(finding: &Finding) -> [String; 2] {
    match finding {
        Finding::User(registered) => [
            "user".into(),
            if *registered {
                "is registered"
            } else {
                "is not registered: it runs `sesemi register`"
            }
            .into(),
        ],
        Finding::Version(version) => [
            "version".into(),
            version.map_or("is not there: push it, or point the alias".into(), |v| {
                v.to_string()
            }),
        ],
        Finding::Grant { id, verdict } => {
            [format!("grant {id}"), grant_verdict(*verdict).to_owned()]
        }
        Finding::RequestKey { name, verdict } => {
            [key_text(*name), key_verdict(*verdict).to_owned()]
        }
    }
}

/// A row for what there is none of: nothing is said about it otherwise.
fn missing(explanation: &Explanation) -> Option<[String; 2]> {
    let is_grant = |finding: &Finding| matches!(finding, Finding::Grant { .. });
    let is_key = |finding: &Finding| matches!(finding, Finding::RequestKey { .. });
    let [what, is] = match explanation.refused? {
        RefusalCode::NotGranted if !explanation.findings.iter().any(is_grant) => [
            "grant",
            "is not there: the owner runs `sesemi access grant`",
        ],
        RefusalCode::NoRequestKey if !explanation.findings.iter().any(is_key) => [
            "request key",
            "is not there: the user runs `sesemi key deposit`",
        ],
        _ => return None,
    };
    Some([what.to_owned(), is.to_owned()])
}

fn grant_verdict(verdict: GrantVerdict) -> &'static str {
    match verdict {
        GrantVerdict::Allows => "allows it",
        GrantVerdict::OtherVersion => {
            "is for other versions, or for an alias that was not asked for"
        }
        GrantVerdict::OtherCode => "is for other code",
        GrantVerdict::Expired => "has ended",
    }
}

fn key_verdict(verdict: KeyVerdict) -> &'static str {
    match verdict {
        KeyVerdict::Allows => "allows it",
        KeyVerdict::Missing => "is not there: the user runs `sesemi key deposit`",
        KeyVerdict::OtherCode => "is approved for other code",
        KeyVerdict::Ended => "has ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_a_version_an_alias_or_all_versions() {
        let owner = "ab".repeat(32);
        let versions = |text: &str| granted(text).map(|(_, versions)| versions);
        let of = |tail: &str| versions(&format!("{owner}/m{tail}"));
        assert_eq!(of("").unwrap(), GrantedVersions::All);
        assert_eq!(
            of("@2").unwrap(),
            GrantedVersions::Exact(sesemi::ModelVersion::new(2).unwrap())
        );
        assert_eq!(
            of("@stable").unwrap(),
            GrantedVersions::Alias("stable".parse().unwrap())
        );
        for bad in ["@", "@0", "@Stable", "@1@2"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let (model, versions) = granted(&format!("{owner}/m@stable")).unwrap();
        assert_eq!(model_text(&model, &versions), format!("{owner}/m@stable"));
    }

    #[test]
    fn a_request_key_has_one_spelling() {
        assert_eq!(key_name("model/2").unwrap(), RequestKeyName::model(2));
        assert_eq!(key_name("all/1").unwrap(), RequestKeyName::all_models(1));
        for bad in ["", "2", "model", "model/", "model/x", "other/1"] {
            assert!(key_name(bad).is_err(), "{bad}");
        }
    }

    fn grant(id: u64, model: &str) -> GrantView {
        GrantView {
            id,
            model: format!("{}/{model}", "ab".repeat(32)).parse().unwrap(),
            versions: GrantedVersions::All,
            subject: Subject::Group("clinic".parse().unwrap()),
            codes: vec![],
            expires: None,
            note: String::new(),
            by: "cd".repeat(32).parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_goes_on_without_a_list_that_does_not_come() {
        let listed = |grants| async move { Ok::<_, ()>(grants) };
        assert_eq!(at_once(listed(vec![grant(1, "a")])).await.len(), 1);
        assert!(at_once(async { Err("refused") }).await.is_empty());

        let began = tokio::time::Instant::now();
        let never = std::future::pending::<Result<_, ()>>();
        assert!(at_once(never).await.is_empty());
        assert_eq!(began.elapsed().as_secs(), LIST.as_secs());
    }

    #[test]
    fn a_revocation_shows_what_it_leaves_of_the_same_models() {
        let before = [grant(1, "a"), grant(2, "b"), grant(3, "a"), grant(4, "c")];
        let left = |revoked: &[u64]| -> Vec<u64> {
            left_by(&before, revoked).iter().map(|g| g.id).collect()
        };
        assert_eq!(left(&[1]), [3]);
        assert_eq!(left(&[1, 2]), [3]);
        assert_eq!(left(&[1, 3]), [0u64; 0]);
        assert_eq!(left(&[9]), [0u64; 0]);
    }

    #[test]
    fn what_there_is_none_of_has_a_row_too() {
        let explanation = |refused, findings| Explanation {
            allowed: None,
            refused: Some(refused),
            seconds: 0,
            findings,
            isolation: None,
        };
        let grants = explanation(RefusalCode::NotGranted, vec![Finding::User(true)]);
        assert!(missing(&grants).unwrap()[1].contains("access grant"));
        let judged = Finding::Grant {
            id: 1,
            verdict: GrantVerdict::Expired,
        };
        assert_eq!(
            missing(&explanation(RefusalCode::NotGranted, vec![judged.clone()])),
            None
        );
        let keys = explanation(RefusalCode::NoRequestKey, vec![judged]);
        assert!(missing(&keys).unwrap()[1].contains("key deposit"));
        let unknown = explanation(RefusalCode::UnknownPrincipal, vec![]);
        assert_eq!(missing(&unknown), None);
    }
}
