//! `sesemi model`.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use sesemi::{
    FormContent, Isolation, IsolationLevel, Manifest, ModelId, ModelRef, ModelTarget, ModelView,
    ObjectStore, VersionSelector,
};
use sesemi_compile::CompiledForm;

use super::actor::{isolation_json, object};
use crate::args::{ModelCommand, PushArgs, Who};
use crate::compile::compile;
use crate::error::{CliError, During as _};
use crate::inspect::inspect;
use crate::manifest::pushed;
use crate::table::table;

/// `sesemi model`.
///
/// # Errors
/// [`CliError`].
pub async fn model(command: ModelCommand) -> Result<(), CliError> {
    match command {
        ModelCommand::Compile(args) => compile(args).await,
        ModelCommand::Inspect { path, json } => inspect(&path, json),
        ModelCommand::Push(args) => push(args).await,
        ModelCommand::Retire { model, who } => retire(&model, who).await,
        ModelCommand::Alias { model, alias, who } => set_alias(&model, &alias, who).await,
        ModelCommand::Unalias { model, who } => remove_alias(&model, who).await,
        ModelCommand::Lease {
            model,
            seconds,
            who,
        } => lease(&model, seconds, who).await,
        ModelCommand::List { owner, who } => list(owner.as_deref(), who).await,
    }
}

async fn push(args: PushArgs) -> Result<(), CliError> {
    let pushed = pushed(&args.file)?;
    let parts: Vec<Vec<&[u8]>> = pushed.forms.iter().map(CompiledForm::parts).collect();
    let forms: Vec<FormContent<'_>> = pushed
        .forms
        .iter()
        .zip(&parts)
        .map(|(form, parts)| form.content(parts))
        .collect();
    let manifest = Manifest::describing(pushed.inputs, pushed.outputs, &forms);
    let manifest = manifest.with_batch(pushed.batch);
    let isolation = args.isolation.change().over(Isolation::default());
    let mut actor = args.who.connect().await?;
    let store: Arc<dyn ObjectStore> = Arc::new(
        LocalFileSystem::new_with_prefix(actor.connection.store()?)
            .during("open the object store")?,
    );
    let model = actor
        .client
        .push_model(
            &store,
            &args.name,
            args.model_version,
            &manifest,
            &forms,
            isolation,
        )
        .await
        .during("push the model")?;
    let described = |specs: &[sesemi::TensorSpec]| {
        let all: Vec<String> = specs
            .iter()
            .map(|s| format!("{} {}", s.name, s.describe()))
            .collect();
        all.join(", ")
    };
    let names: Vec<&str> = manifest.forms.iter().map(|it| it.format.as_str()).collect();
    let batch = match manifest.batch {
        Some(rows) => format!("\n  batch:     {rows} rows at most"),
        None if isolation.level == IsolationLevel::Batched => {
            "\n  batch:     none, so its requests are never run together (sesemi model compile --batch)".into()
        }
        None => String::new(),
    };
    let people = format!(
        "{model}\n  inputs:    {}\n  outputs:   {}\n  forms:     {}{batch}\n  isolation: {isolation}",
        described(&manifest.inputs),
        described(&manifest.outputs),
        names.join(", ")
    );
    let value = serde_json::json!({
        "model": model.to_string(),
        "forms": names,
        "isolation": isolation_json(isolation),
    });
    actor.show(&value, &people)
}

async fn retire(model: &str, who: Who) -> Result<(), CliError> {
    let model: ModelRef = model.parse().during("read the model's name")?;
    let mut actor = who.connect().await?;
    actor.must_own(&model.model)?;
    actor
        .client
        .retire_model(model.model.name.clone(), model.version)
        .await
        .during("retire the version")?;
    let value = object([("model", model.to_string().into())]);
    actor.done(&format!("retired {model}"), value)
}

async fn set_alias(model: &str, alias: &str, who: Who) -> Result<(), CliError> {
    let model: ModelRef = model.parse().during("read the model's name")?;
    let alias: sesemi::AliasName = alias.parse().during("read the alias")?;
    let mut actor = who.connect().await?;
    actor.must_own(&model.model)?;
    let name = model.model.name.clone();
    actor
        .client
        .set_alias(name, alias.clone(), model.version)
        .await
        .during("point the alias")?;
    let target = format!("{}@{alias}", model.model);
    let value = object([
        ("alias", target.clone().into()),
        ("version", model.version.get().into()),
    ]);
    actor.done(
        &format!("{target} now means version {}", model.version),
        value,
    )
}

async fn remove_alias(model: &str, who: Who) -> Result<(), CliError> {
    let target: ModelTarget = model.parse().during("read the alias")?;
    let VersionSelector::Alias(alias) = target.version.clone() else {
        return Err(CliError::Input(format!(
            "{target} is a version; write OWNER/NAME@ALIAS, or retire the version"
        )));
    };
    let mut actor = who.connect().await?;
    actor.must_own(&target.model)?;
    actor
        .client
        .remove_alias(target.model.name.clone(), alias)
        .await
        .during("remove the alias")?;
    let value = object([("alias", target.to_string().into())]);
    actor.done(&format!("removed {target}"), value)
}

async fn lease(model: &str, seconds: Option<u32>, who: Who) -> Result<(), CliError> {
    let model: ModelId = model.parse().during("read the model's name")?;
    let mut actor = who.connect().await?;
    actor.must_own(&model)?;
    actor
        .client
        .set_lease(model.name.clone(), seconds)
        .await
        .during("set the lease")?;
    let time = seconds.map_or("the service's own time".into(), |s| format!("{s} s"));
    let value = object([
        ("model", model.to_string().into()),
        ("seconds", seconds.into()),
    ]);
    actor.done(&format!("leases of {model} last {time}"), value)
}

async fn list(owner: Option<&str>, who: Who) -> Result<(), CliError> {
    let actor = who.connect().await?;
    let owner = actor.principal(owner)?;
    let models = actor.client.models(owner).await.during("list the models")?;
    let aliases = |model: &ModelView| -> Vec<String> {
        let aliases = model.aliases.iter();
        aliases
            .map(|alias| format!("{}={}", alias.alias, alias.version))
            .collect()
    };
    // What is as by default is left unsaid: `1, 2 (sequential, every 50 ms)`.
    let versions = |model: &ModelView| -> Vec<String> {
        let versions = model.versions.iter();
        versions
            .map(|one| match one.isolation == Isolation::default() {
                true => one.version.to_string(),
                false => format!("{} ({})", one.version, one.isolation),
            })
            .collect()
    };
    let id = |model: &ModelView| format!("{owner}/{}", model.name);
    let rows: Vec<[String; 4]> = models
        .iter()
        .map(|model| {
            [
                id(model),
                versions(model).join(", "),
                aliases(model).join(", "),
                model.lease_seconds.map_or("-".into(), |s| format!("{s} s")),
            ]
        })
        .collect();
    let value: Vec<serde_json::Value> = models
        .iter()
        .map(|model| {
            let versions: Vec<serde_json::Value> = model
                .versions
                .iter()
                .map(|one| {
                    serde_json::json!({
                        "version": one.version.get(),
                        "isolation": isolation_json(one.isolation),
                    })
                })
                .collect();
            let aliases: serde_json::Map<String, serde_json::Value> = model
                .aliases
                .iter()
                .map(|alias| (alias.alias.to_string(), alias.version.get().into()))
                .collect();
            serde_json::json!({
                "model": id(model),
                "versions": versions,
                "aliases": aliases,
                "lease_seconds": model.lease_seconds,
            })
        })
        .collect();
    let people = table(["MODEL", "VERSIONS", "ALIASES", "LEASE"], &rows);
    actor.show(&value.into(), &people)
}
