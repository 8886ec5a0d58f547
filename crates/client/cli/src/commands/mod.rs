//! The commands of owners, users, auditors, operators and custodians, each a short use of the SDK.

mod access;
mod actor;
mod audit;
mod backup;
mod key;
mod keyservice;
mod model;
mod people;

use std::path::Path;
use std::time::Duration;

use sesemi::{Gateway, Identity, ModelTarget, Standing, Tensor, VersionSelector, look};
use sesemi_process::trust::{TrustError, TrustSettings};

pub use access::access;
pub use audit::audit;
pub use key::key;
pub use keyservice::keyservice;
pub use model::model;
pub use people::{delegate, group};

use crate::args::{IdentityCommand, InferArgs, PolicyArgs, StatusArgs, Who};
use crate::demo::data::{Row, parse_csv};
use crate::error::{CliError, During as _, file};
use crate::tensors;
use actor::print;

/// Longest wait for the gateway's status.
const GATEWAY: Duration = Duration::from_secs(5);

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
    let actor = who.connect().await?;
    let (id, service) = (actor.client.id(), actor.client.seen().service);
    let value = serde_json::json!({"id": id.to_string(), "service": service.to_string()});
    actor.show(
        &value,
        &format!("{id} is registered at KeyService {service}"),
    )
}

/// `sesemi policy`.
///
/// # Errors
/// [`CliError::Trust`], with the line at fault.
pub fn policy(args: PolicyArgs) -> Result<(), CliError> {
    let settings = TrustSettings {
        policy: args.file.clone(),
        ..TrustSettings::default()
    };
    let policy = settings.service_policy()?;
    let digest = policy.digest().map_err(TrustError::from)?.to_string();
    let value = serde_json::json!({"policy": digest, "file": args.file});
    print(args.json, &value, &digest);
    Ok(())
}

/// `sesemi infer`.
///
/// # Errors
/// [`CliError`].
pub async fn infer(args: InferArgs) -> Result<(), CliError> {
    let model: ModelTarget = args.model.parse().during("read the model's name")?;
    let requests = requests(&args)?;
    let json = args.who.json;
    let actor = args.who.connect().await?;
    let gateway = actor.connection.gateway()?;
    for (inputs, label) in requests {
        let inference = actor
            .client
            .infer(gateway, model.clone(), &inputs)
            .await
            .during("infer")?;
        let by_name = |output: &Tensor| (output.name.clone(), tensors::values(output));
        let named: serde_json::Map<String, serde_json::Value> =
            inference.outputs.iter().map(by_name).collect();
        let named = serde_json::Value::from(named);
        let outputs = match args.inputs {
            Some(_) => inference.outputs.iter().map(tensors::described).collect(),
            None => named.clone(),
        };
        let path = inference.report.path.as_str();
        let version = inference.report.version;
        let value = serde_json::json!({
            "outputs": outputs, "version": version.get(), "path": path, "label": label,
        });
        let label = label.map_or(String::new(), |label| format!("   label {label}"));
        // Who named an alias wants to know which version it meant.
        let meant = match &model.version {
            VersionSelector::Exact(_) => String::new(),
            VersionSelector::Alias(_) => format!("   version {version}"),
        };
        print(json, &value, &format!("{named}   {path}{meant}{label}"));
    }
    Ok(())
}

/// The inputs of a request, and what they are labelled with.
type Labelled = (Vec<Tensor>, Option<u32>);

fn requests(args: &InferArgs) -> Result<Vec<Labelled>, CliError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(file(path));
    let (csv, inputs) = (args.csv.as_deref(), args.inputs.as_deref());
    let Some(csv) = csv else {
        let inputs = inputs.ok_or_else(|| CliError::Input("there are no inputs".into()))?;
        return Ok(vec![(tensors::inputs(&read(inputs)?)?, None)]);
    };
    let request = |row: &Row| {
        let shape = [1, row.features.len() as u64];
        let input = Tensor::fp32(&args.input, &shape, &row.features).during("make the input")?;
        Ok((vec![input], row.label))
    };
    let rows = parse_csv(&read(csv)?)?;
    rows.iter().take(args.rows).map(request).collect()
}

/// `sesemi status`.
///
/// # Errors
/// [`CliError`] if KeyService cannot be reached or is not the one that is trusted.
pub async fn status(args: StatusArgs) -> Result<(), CliError> {
    let connection = args.connection.resolve()?;
    let standing = look(connection.keyservice()?, connection.trust()?)
        .await
        .during("verify KeyService")?;
    let (service, entries) = match standing {
        Standing::Serving { service, head, .. } => (service, head.head.state.point.sequence),
        Standing::Locked { status, .. } => {
            return Err(sesemi::Error::Locked(status)).during("use KeyService");
        }
    };
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
    let tee = keyservice::tee(claims);
    let value = serde_json::json!({
        "keyservice": {
            "service": service.identity.service_id().to_string(),
            "code": claims.code.to_string(),
            "tee": tee,
            "log_entries": entries,
        },
        "gateway": gateway,
    });
    let people = format!(
        "KeyService {}\n  evidence verifies, code {}\n  TEE: {tee}\n  log: {} entries\nGateway (says): {gateway}",
        service.identity.service_id(),
        claims.code,
        entries
    );
    print(args.json, &value, &people);
    Ok(())
}
