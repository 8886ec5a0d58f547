//! `sesemi key`.

use sesemi::{IsolationChange, KeyScope, ModelId, RefusalCode, RequestKeyView};

use super::actor::{isolation_json, joined, object};
use crate::args::{KeyCommand, ScopeArgs, Who};
use crate::error::{CliError, During as _};
use crate::table::table;
use crate::times::{now, shown};

/// `sesemi key`.
///
/// # Errors
/// [`CliError`].
pub async fn key(command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Deposit {
            scope,
            code,
            epoch,
            isolation,
            who,
        } => deposit(&scope, &code, epoch, isolation.change(), who).await,
        KeyCommand::Rotate {
            scope,
            until,
            code,
            isolation,
            who,
        } => rotate(&scope, until, &code, isolation.change(), who).await,
        KeyCommand::End {
            scope,
            epoch,
            until,
            who,
        } => end(&scope, epoch, until, who).await,
        KeyCommand::List { who } => list(who).await,
    }
}

impl ScopeArgs {
    fn scope(&self) -> Result<KeyScope, CliError> {
        let Some(text) = &self.model else {
            return Ok(KeyScope::AllModels);
        };
        if text.contains('@') {
            return Err(CliError::Input(format!(
                "a request key is for all versions of a model: write OWNER/NAME, not '{text}'"
            )));
        }
        let model: ModelId = text.parse().during("read the model's name")?;
        Ok(KeyScope::Model(model))
    }
}

fn scope_text(scope: &KeyScope) -> String {
    match scope {
        KeyScope::AllModels => "all models".into(),
        KeyScope::Model(model) => model.to_string(),
    }
}

async fn deposit(
    scope: &ScopeArgs,
    code: &[String],
    epoch: Option<u32>,
    isolation: IsolationChange,
    who: Who,
) -> Result<(), CliError> {
    let scope = scope.scope()?;
    let mut actor = who.connect().await?;
    let codes = actor.codes(code)?;
    let client = &mut actor.client;
    let deposited = match epoch {
        None => {
            let codes = codes.iter().copied();
            client.deposit_key(&scope, codes, isolation).await
        }
        Some(epoch) => {
            let put = client.deposit_key_as(&scope, epoch, codes.clone(), isolation);
            put.await.map(|()| epoch)
        }
    };
    let epoch = match deposited {
        Err(sesemi::Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => {
            return Err(CliError::Input(format!(
                "this key for {} has ended and never comes back; deposit one with a higher --epoch",
                scope_text(&scope)
            )));
        }
        other => other.during("deposit the request key")?,
    };
    let people = format!(
        "deposited request key {epoch} for {} in code {}",
        scope_text(&scope),
        joined(&codes)
    );
    actor.done(&people, object([("epoch", epoch.into())]))
}

async fn rotate(
    scope: &ScopeArgs,
    until: u64,
    code: &[String],
    isolation: IsolationChange,
    who: Who,
) -> Result<(), CliError> {
    let scope = scope.scope()?;
    let mut actor = who.connect().await?;
    let codes = match code {
        [] => Vec::new(),
        given => actor.codes(given)?,
    };
    let epoch = actor
        .client
        .rotate_key(&scope, codes, isolation, until)
        .await
        .during("rotate the request key")?;
    let people = format!(
        "deposited request key {epoch} for {}; earlier ones are accepted until {}",
        scope_text(&scope),
        shown(until)
    );
    let value = object([
        ("epoch", epoch.into()),
        ("earlier_end", shown(until).into()),
    ]);
    actor.done(&people, value)
}

async fn end(scope: &ScopeArgs, epoch: u32, until: Option<u64>, who: Who) -> Result<(), CliError> {
    let scope = scope.scope()?;
    let mut actor = who.connect().await?;
    // The past is at once, whatever the service's clock says.
    actor
        .client
        .end_key(scope.clone(), epoch, until.unwrap_or(0))
        .await
        .during("end the request key")?;
    let when = until.map_or("has ended".into(), |at| format!("ends at {}", shown(at)));
    let people = format!("request key {epoch} for {} {when}", scope_text(&scope));
    let value = object([
        ("epoch", epoch.into()),
        ("ends", shown(until.unwrap_or_else(now)).into()),
    ]);
    actor.done(&people, value)
}

async fn list(who: Who) -> Result<(), CliError> {
    let actor = who.connect().await?;
    let keys = actor
        .client
        .request_keys()
        .await
        .during("list the request keys")?;
    let rows: Vec<[String; 5]> = keys
        .iter()
        .map(|key: &RequestKeyView| {
            [
                scope_text(&key.scope),
                key.epoch.to_string(),
                joined(&key.codes),
                key.isolation.to_string(),
                key.ends.map_or("-".into(), shown),
            ]
        })
        .collect();
    let value: Vec<serde_json::Value> = keys
        .iter()
        .map(|key| {
            let codes: Vec<String> = key.codes.iter().map(ToString::to_string).collect();
            serde_json::json!({
                "scope": scope_text(&key.scope),
                "epoch": key.epoch,
                "key_sha256": key.key.to_string(),
                "codes": codes,
                "isolation": isolation_json(key.isolation),
                "ends": key.ends.map(shown),
            })
        })
        .collect();
    let people = table(["FOR", "EPOCH", "CODE", "ISOLATION", "UNTIL"], &rows);
    actor.show(&value.into(), &people)
}
