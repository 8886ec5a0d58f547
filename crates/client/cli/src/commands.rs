//! The commands of owners and users, each a short use of the SDK.

use std::sync::Arc;
use std::time::Duration;

use anstream::println;
use object_store::local::LocalFileSystem;
use sesemi::{
    Client, CodeIdentityDigest, Gateway, Identity, ModelRef, ObjectStore, PrincipalId, RefusalCode,
    Tensor,
};

use crate::args::{
    GrantArgs, IdentityCommand, InferArgs, KeyArgs, ModelCommand, PushArgs, StatusArgs, Who,
};
use crate::connection::keep_seen;
use crate::demo::data::parse_csv;
use crate::error::{CliError, During as _, file};
use crate::manifest::manifest_of_onnx;

/// Longest model file that is pushed, in bytes.
const MAX_MODEL: u64 = 8 * 1024 * 1024 * 1024;

/// Longest wait for the gateway's status.
const GATEWAY: Duration = Duration::from_secs(5);

/// Prints a result for people or for machines.
fn print(json: bool, value: &serde_json::Value, people: &str) {
    if json {
        println!("{value}");
    } else {
        println!("{people}");
    }
}

/// `sesemi identity`.
///
/// # Errors
/// [`CliError::Identity`].
pub fn identity(command: IdentityCommand) -> Result<(), CliError> {
    let (identity, path, json) = match command {
        IdentityCommand::New { file, json } => {
            let identity = Identity::generate().during("make an identity")?;
            identity.save(&file)?;
            (identity, file, json)
        }
        IdentityCommand::Show { file, json } => (Identity::load(&file)?, file, json),
    };
    let id = identity.id().to_string();
    print(json, &serde_json::json!({"id": id, "file": path}), &id);
    Ok(())
}

/// `sesemi register`.
///
/// # Errors
/// [`CliError`].
pub async fn register(who: Who) -> Result<(), CliError> {
    let connection = who.connection.resolve()?;
    let client = connection.client(&who.identity).await?;
    keep_seen(&who.identity, &client)?;
    let (id, service) = (client.id().to_string(), client.seen().service.to_string());
    let value = serde_json::json!({"id": id, "service": service});
    print(
        who.json,
        &value,
        &format!("{id} is registered at KeyService {service}"),
    );
    Ok(())
}

/// `sesemi model`.
///
/// # Errors
/// [`CliError`].
pub async fn model(command: ModelCommand) -> Result<(), CliError> {
    let ModelCommand::Push(args) = command;
    push(args).await
}

async fn push(args: PushArgs) -> Result<(), CliError> {
    let length = std::fs::metadata(&args.file)
        .map_err(file(&args.file))?
        .len();
    if length > MAX_MODEL {
        return Err(CliError::Input(format!(
            "{} is larger than 8 GiB",
            args.file.display()
        )));
    }
    let bytes = std::fs::read(&args.file).map_err(file(&args.file))?;
    let manifest = manifest_of_onnx(&bytes)?;
    let connection = args.who.connection.resolve()?;
    let store: Arc<dyn ObjectStore> = Arc::new(
        LocalFileSystem::new_with_prefix(connection.store()?).during("open the object store")?,
    );
    let mut client = connection.client(&args.who.identity).await?;
    let model = client
        .push_model(&store, &args.name, args.model_version, &manifest, &bytes)
        .await
        .during("push the model")?;
    keep_seen(&args.who.identity, &client)?;
    let described = |specs: &[sesemi::TensorSpec]| {
        let all: Vec<String> = specs
            .iter()
            .map(|s| format!("{} {}", s.name, s.describe()))
            .collect();
        all.join(", ")
    };
    let people = format!(
        "{model}\n  inputs:  {}\n  outputs: {}",
        described(&manifest.inputs),
        described(&manifest.outputs)
    );
    print(
        args.who.json,
        &serde_json::json!({"model": model.to_string()}),
        &people,
    );
    Ok(())
}

/// `sesemi grant`.
///
/// # Errors
/// [`CliError`].
pub async fn grant(args: GrantArgs) -> Result<(), CliError> {
    let model: ModelRef = args.model.parse().during("read the model's name")?;
    let user: PrincipalId = args.user.parse().during("read the user's id")?;
    let connection = args.who.connection.resolve()?;
    let code = connection.code(args.code.as_deref())?;
    let mut client = connection.client(&args.who.identity).await?;
    if client.id() != model.model.owner {
        return Err(CliError::Input(format!(
            "this identity does not own {model}"
        )));
    }
    let receipt = match client.grant(&model, user, code).await {
        Err(sesemi::Error::Refused(refusal)) if refusal.code == RefusalCode::UnknownPrincipal => {
            return Err(CliError::Input(format!(
                "the user {user} is not registered at this KeyService; it runs `sesemi register` once"
            )));
        }
        other => other.during("grant the model")?,
    };
    keep_seen(&args.who.identity, &client)?;
    acknowledged(
        args.who.json,
        &format!("granted {model} to {user} in code {code}"),
        receipt.state.sequence,
    );
    Ok(())
}

/// `sesemi key`.
///
/// # Errors
/// [`CliError`].
pub async fn key(args: KeyArgs) -> Result<(), CliError> {
    let model: ModelRef = args.model.parse().during("read the model's name")?;
    let connection = args.who.connection.resolve()?;
    let codes = match args.code.as_slice() {
        [] => vec![connection.code(None)?],
        given => given
            .iter()
            .map(|code| connection.code(Some(code)))
            .collect::<Result<_, _>>()?,
    };
    let mut client = connection.client(&args.who.identity).await?;
    let receipt = client
        .approve_code(&model, codes.iter().copied())
        .await
        .during("deposit the request key")?;
    keep_seen(&args.who.identity, &client)?;
    acknowledged(
        args.who.json,
        &format!(
            "deposited a request key for {model} in code {}",
            listed(&codes)
        ),
        receipt.state.sequence,
    );
    Ok(())
}

fn listed(codes: &[CodeIdentityDigest]) -> String {
    let texts: Vec<String> = codes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn acknowledged(json: bool, people: &str, sequence: u64) {
    let value = serde_json::json!({"done": people, "log_entry": sequence});
    print(json, &value, &format!("{people} (log entry {sequence})"));
}

/// `sesemi infer`.
///
/// # Errors
/// [`CliError`].
pub async fn infer(args: InferArgs) -> Result<(), CliError> {
    let model: ModelRef = args.model.parse().during("read the model's name")?;
    let text = std::fs::read_to_string(&args.csv).map_err(file(&args.csv))?;
    let rows = parse_csv(&text)?;
    let connection = args.who.connection.resolve()?;
    let gateway = connection.gateway()?;
    let client: Client = connection.client(&args.who.identity).await?;
    for row in rows.iter().take(args.rows) {
        let shape = [1, row.features.len() as u64];
        let input = Tensor::fp32(&args.input, &shape, &row.features).during("make the input")?;
        let inference = client
            .infer(gateway, &model, &[input])
            .await
            .during("infer")?;
        let outputs: serde_json::Map<String, serde_json::Value> = inference
            .outputs
            .iter()
            .map(|output| (output.name.clone(), serde_json::json!(output.to_fp32())))
            .collect();
        let path = inference.report.path.as_str();
        let value = serde_json::json!({"outputs": outputs, "path": path, "label": row.label});
        let label = row
            .label
            .map_or(String::new(), |label| format!("   label {label}"));
        print(
            args.who.json,
            &value,
            &format!("{}   {path}{label}", serde_json::Value::from(outputs)),
        );
    }
    keep_seen(&args.who.identity, &client)
}

/// `sesemi status`.
///
/// # Errors
/// [`CliError`] if KeyService cannot be reached or is not the one that is trusted.
pub async fn status(args: StatusArgs) -> Result<(), CliError> {
    let connection = args.connection.resolve()?;
    let identity = Identity::generate().during("make an identity")?;
    let client =
        Client::connect_unregistered(identity, connection.keyservice()?, connection.trust()?)
            .await
            .during("verify KeyService")?;
    let service = client.service();
    let claims = &service.claims;
    // The gateway is not trusted: what it says is shown, and proves nothing.
    let gateway = match connection.gateway() {
        Ok(address) => Gateway::default()
            .status(address, GATEWAY)
            .await
            .map_err(|e| e.to_string()),
        Err(_) => Err("no gateway is set".into()),
    };
    let gateway = gateway.map_or_else(
        |error| serde_json::json!({"error": error}),
        |text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
    );
    let tee = if claims.simulated {
        "simulated"
    } else {
        claims.identity.tee.as_str()
    };
    let value = serde_json::json!({
        "keyservice": {
            "service": service.identity.service_id().to_string(),
            "code": claims.code.to_string(),
            "tee": tee,
            "log_entries": client.seen().sequence,
        },
        "gateway": gateway,
    });
    let people = format!(
        "KeyService {}\n  evidence verifies, code {}\n  TEE: {tee}\n  log: {} entries\nGateway (says): {gateway}",
        service.identity.service_id(),
        claims.code,
        client.seen().sequence
    );
    print(args.json, &value, &people);
    Ok(())
}
