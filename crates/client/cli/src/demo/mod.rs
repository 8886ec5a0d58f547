//! `sesemi demo`: the main job, end to end, as three kinds of principals on one machine.
//!
//! Every check that fails makes the demo fail: it shows what the system does, it does not assert it.

pub mod data;
pub mod plaintext;
mod report;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstream::eprintln;
use indicatif::ProgressBar;
use object_store::local::LocalFileSystem;
use sesemi::{
    Client, CodeIdentityDigest, Error, Grant, Identity, Inference, Isolation, KeyScope, ModelRef,
    ObjectStore, Path as ServedBy, RefusalCode, Tensor, Trust,
};
use sesemi_process::trust::{TrustError, TrustSettings};

pub use report::{DemoReport, HostSaw, Parties, Refused};

use crate::args::DemoArgs;
use crate::engines;
use crate::error::{CliError, During as _, file};
use crate::stack::{Facts, Stack, StackOptions};
use crate::up;
use data::{FEATURES, Row};

/// Largest difference between an encrypted and a plain probability that counts as equal.
const TOLERANCE: f32 = 1e-6;

/// Runs the demo.
///
/// # Errors
/// [`CliError`], with what failed. Every process is stopped by then, unless `--keep` says otherwise.
pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    let folder = tempfile::Builder::new()
        .prefix("sesemi-demo-")
        .tempdir()
        .map_err(|e| CliError::Process("a temporary folder", e))?;
    let progress = progress_bar();
    let mut options = StackOptions::new(up::binaries(args.bin_dir.clone())?, folder.path().into());
    options.tap = true;
    options.engine = engines::chosen(args.engine)?;
    // Found out now rather than after the work.
    if let Some(path) = args.json.as_deref().filter(|path| *path != Path::new("-")) {
        std::fs::write(path, "").map_err(file(path))?;
    }
    let stack = tokio::select! {
        stack = Stack::start(options, |step| progress.set_message(step.to_owned())) => stack?,
        stopped = up::stop_signal() => return stopped,
    };
    let result = tokio::select! {
        result = play(&stack, &progress) => result,
        stopped = up::stop_signal() => Err(stopped.err().unwrap_or(CliError::Interrupted)),
    };
    progress.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            let logs = if args.keep { Some(folder.keep()) } else { None };
            let _ = stack.stop().await;
            if let Some(logs) = logs {
                eprintln!("the logs are kept in {}", logs.display());
            }
            return Err(error);
        }
    };
    // However this ends, the stack is drained: dropping it would kill the gateway before it has stopped its instances.
    let published = publish(&report, args.json.as_deref()).and_then(|()| {
        let path = folder.path().join("stack.toml");
        std::fs::write(&path, up::facts_as_toml(&stack.facts)?).map_err(file(&path))?;
        Ok(path)
    });
    match published {
        Ok(path) if args.keep => {
            eprintln!("\n{}", up::describe(&stack.facts, &path));
            up::keep_running(stack).await
        }
        other => {
            let stopped = stack.stop().await;
            other?;
            Ok(stopped?)
        }
    }
}

/// A spinner on a terminal; nothing elsewhere.
pub(crate) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn publish(report: &DemoReport, json: Option<&Path>) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|e| CliError::Demo(format!("the result cannot be written: {e}")))?;
    let shown = match json {
        Some(path) if path == Path::new("-") => text,
        Some(path) => {
            std::fs::write(path, format!("{text}\n")).map_err(file(path))?;
            report.for_people()
        }
        None => report.for_people(),
    };
    writeln!(anstream::stdout(), "{shown}").map_err(|e| CliError::Process("standard output", e))
}

/// The principals of the demo, connected.
struct Cast {
    owner: Client,
    users: [Client; 2],
    stranger: Client,
    model: ModelRef,
    /// A second model of the owner's, which nobody was granted.
    withheld: ModelRef,
    semirt: CodeIdentityDigest,
}

/// Plays the whole demo on a running stack.
///
/// # Errors
/// [`CliError`] if a step fails or something is seen that must not be.
pub async fn play(stack: &Stack, progress: &ProgressBar) -> Result<DemoReport, CliError> {
    let facts = &stack.facts;
    progress.set_message("verifying KeyService, pushing the model, granting");
    let cast = prepare(facts).await?;
    let rows = data::parse_csv(data::HELD_OUT)?;
    let plain = plaintext::probabilities(&rows)?;
    let first = rows
        .first()
        .ok_or_else(|| CliError::Demo("no rows".into()))?;

    progress.set_message("first request: an instance starts, attests itself and loads the model");
    let (cold, cold_ms) = timed(&cast.users[0], facts, &cast.model, first).await?;
    let (warm, warm_ms) = timed(&cast.users[1], facts, &cast.model, first).await?;
    progress.set_message("sending the held-out rows, sealed");
    let mut hot = Vec::new();
    for row in &rows {
        hot.push(timed(&cast.users[0], facts, &cast.model, row).await?);
    }
    progress.set_message("trying what must be refused");
    let refused = refusals(facts, &cast, first).await?;

    let probabilities: Vec<Vec<f32>> = hot
        .iter()
        .map(|(inference, _)| output(inference))
        .collect::<Result<_, _>>()?;
    let largest_difference = difference(&probabilities, &plain)?;
    // A lease that ends half-way makes a request warm; only those that SeMIRT itself calls hot are counted as such.
    let mut times: Vec<f64> = hot
        .iter()
        .filter(|(inference, _)| inference.report.path == ServedBy::Hot)
        .map(|(_, ms)| *ms)
        .collect();
    times.sort_by(f64::total_cmp);
    let mostly = if times.len() * 2 > hot.len() {
        "hot"
    } else {
        "not hot"
    };
    let report = DemoReport {
        tee: "simulated",
        rows: rows.len(),
        accuracy: accuracy(&probabilities, &rows),
        predictions_match_plaintext: largest_difference <= TOLERANCE,
        largest_difference,
        cold_ms,
        warm_ms,
        hot_ms_p50: times.get(times.len() / 2).copied().unwrap_or_default(),
        paths: [cold.report.path.as_str(), warm.report.path.as_str(), mostly],
        host_saw: host_saw(stack, &cast.model)?,
        refused,
        parties: parties(facts, &cast),
    };
    check(&report)?;
    Ok(report)
}

/// What must be true of a demo that succeeded.
fn check(report: &DemoReport) -> Result<(), CliError> {
    let failed = |what: String| Err(CliError::Demo(what));
    if !report.predictions_match_plaintext {
        return failed(format!(
            "predictions differ from the plain model's by up to {}",
            report.largest_difference
        ));
    }
    if report.paths != ["cold", "warm", "hot"] {
        return failed(format!("SeMIRT reported the paths {:?}", report.paths));
    }
    Ok(())
}

/// What a client of this stack trusts.
///
/// # Errors
/// [`CliError`] if the stack's files cannot be used.
pub fn trust(facts: &Facts) -> Result<Trust, CliError> {
    let settings = TrustSettings {
        simulated_root: Some(facts.simulated_root.clone()),
        endorsements: Some(facts.endorsements.clone()),
        policy: facts.policy.clone(),
    };
    let code = facts
        .keyservice_code
        .parse()
        .during("read the code identity")?;
    Ok(Trust {
        verifier: settings.verifier()?,
        policy: settings.policy_for([code])?,
        service_policy: settings
            .service_policy()?
            .digest()
            .map_err(TrustError::from)?,
        service: Some(facts.keyservice_id.parse().during("read the service id")?),
        custodians: None,
    })
}

async fn prepare(facts: &Facts) -> Result<Cast, CliError> {
    let address = facts
        .keyservice
        .parse()
        .during("read KeyService's address")?;
    let trust = trust(facts)?;
    let join = async || {
        let identity = Identity::generate().during("make an identity")?;
        Client::connect(identity, address, trust.clone())
            .await
            .during("connect to KeyService")
    };
    let (mut owner, mut users) = (join().await?, [join().await?, join().await?]);
    let identity = Identity::generate().during("make an identity")?;
    let stranger = Client::connect_unregistered(identity, address, trust)
        .await
        .during("connect to KeyService")?;

    let semirt: CodeIdentityDigest = facts.semirt_code.parse().during("read the code identity")?;
    let store: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(&facts.store).during("open the object store")?);
    let (manifest, forms) = (data::manifest(), data::forms());
    let shared = Isolation::default();
    let model = owner
        .push_model(&store, "breast-cancer", 1, &manifest, &forms, shared)
        .await
        .during("push the model")?;
    let withheld = owner
        .push_model(&store, "withheld", 1, &manifest, &forms, shared)
        .await
        .during("push the second model")?;
    for user in &mut users {
        owner
            .grant(Grant::of(&model, user.id(), semirt))
            .await
            .during("grant the model")?;
        user.deposit_key(
            &KeyScope::Model(model.model.clone()),
            [semirt],
            shared.into(),
        )
        .await
        .during("deposit a request key")?;
    }
    users[1]
        .deposit_key(
            &KeyScope::Model(withheld.model.clone()),
            [semirt],
            shared.into(),
        )
        .await
        .during("deposit a request key")?;
    Ok(Cast {
        owner,
        users,
        stranger,
        model,
        withheld,
        semirt,
    })
}

fn parties(facts: &Facts, cast: &Cast) -> Parties {
    Parties {
        owner: cast.owner.id().to_string(),
        users: [
            cast.users[0].id().to_string(),
            cast.users[1].id().to_string(),
        ],
        model: cast.model.to_string(),
        keyservice: facts.keyservice_id.clone(),
        keyservice_code: facts.keyservice_code.clone(),
        semirt_code: cast.semirt.to_string(),
    }
}

fn input(row: &Row) -> Result<Tensor, CliError> {
    Tensor::fp32("features", &[1, FEATURES as u64], &row.features).during("make the input")
}

async fn timed(
    user: &Client,
    facts: &Facts,
    model: &ModelRef,
    row: &Row,
) -> Result<(Inference, f64), CliError> {
    let input = input(row)?;
    let started = Instant::now();
    let inference = user
        .infer(&facts.gateway, model.clone(), &[input])
        .await
        .during("infer")?;
    Ok((inference, started.elapsed().as_secs_f64() * 1000.0))
}

fn output(inference: &Inference) -> Result<Vec<f32>, CliError> {
    inference
        .outputs
        .first()
        .and_then(Tensor::to_fp32)
        .ok_or_else(|| CliError::Demo("the model gave no output".into()))
}

fn difference(got: &[Vec<f32>], plain: &[Vec<f32>]) -> Result<f32, CliError> {
    let lengths = |rows: &[Vec<f32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
    if lengths(got) != lengths(plain) {
        return Err(CliError::Demo(
            "the outputs have another shape than the plain model's".into(),
        ));
    }
    let differences = got
        .iter()
        .flatten()
        .zip(plain.iter().flatten())
        .map(|(a, b)| (a - b).abs());
    // A NaN anywhere must not pass for equal: once it is the worst, it stays the worst.
    Ok(differences.fold(0.0, |worst: f32, d| {
        if worst.is_nan() || d <= worst {
            worst
        } else {
            d
        }
    }))
}

fn accuracy(probabilities: &[Vec<f32>], rows: &[Row]) -> f64 {
    let right = probabilities.iter().zip(rows).filter(|(p, row)| {
        let class = u32::from(matches!(p.as_slice(), [malignant, benign] if benign > malignant));
        row.label == Some(class)
    });
    right.count() as f64 / rows.len().max(1) as f64
}

/// Tries what must be refused; anything that is not refused fails the demo.
async fn refusals(facts: &Facts, cast: &Cast, row: &Row) -> Result<Vec<Refused>, CliError> {
    let (model, gateway, input) = (&cast.model, facts.gateway.as_str(), [input(row)?]);
    let [user, second] = &cast.users;
    let flip_last = |bytes: &mut Vec<u8>| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    };
    Ok(vec![
        refused(
            "a stranger",
            RefusalCode::UnknownPrincipal,
            cast.stranger.infer(gateway, model.clone(), &input).await,
        )?,
        refused(
            "a tampered ciphertext",
            RefusalCode::NotAuthentic,
            user.infer_with(gateway, model.clone(), &input, flip_last)
                .await,
        )?,
        refused(
            "a model without a grant",
            RefusalCode::NotGranted,
            second.infer(gateway, cast.withheld.clone(), &input).await,
        )?,
    ])
}

/// A refusal for another reason (no free place, say) is no proof, so it does not count.
fn refused(
    case: &'static str,
    expected: RefusalCode,
    result: Result<Inference, Error>,
) -> Result<Refused, CliError> {
    let refused = refusal(case, result)?;
    if refused.code == expected.as_str() {
        return Ok(refused);
    }
    Err(CliError::Demo(format!(
        "{case} was refused as {}, not as {expected}: {}",
        refused.code, refused.reason
    )))
}

fn refusal(case: &'static str, result: Result<Inference, Error>) -> Result<Refused, CliError> {
    match result {
        Ok(_) => Err(CliError::Demo(format!("{case} was served"))),
        Err(Error::GatewayAnswer {
            code: Some(code),
            message,
            ..
        }) => Ok(Refused {
            case,
            code,
            reason: message,
        }),
        Err(Error::Refused(refusal)) => Ok(Refused {
            case,
            code: refusal.code.to_string(),
            reason: refusal.to_string(),
        }),
        Err(error) => Err(error).during(&format!("see {case} refused")),
    }
}

/// Reads back what the host wrote down of one request.
fn host_saw(stack: &Stack, model: &ModelRef) -> Result<HostSaw, CliError> {
    let tap = stack.tap();
    let mut files: Vec<_> = std::fs::read_dir(&tap)
        .map_err(file(&tap))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "request"))
        .collect();
    files.sort();
    let request = files
        .first()
        .ok_or_else(|| CliError::Demo("the host wrote nothing down".into()))?;
    let response = request.with_extension("response");
    let sent = std::fs::read(request).map_err(file(request))?;
    let got = std::fs::read(&response).map_err(file(&response))?;
    let ending = sent
        .get(sent.len().saturating_sub(16)..)
        .unwrap_or_default();
    let package = facts_package(&stack.facts, model);
    Ok(HostSaw {
        request_bytes: body_length(&sent),
        response_bytes: body_length(&got),
        ciphertext: ending.iter().map(|byte| format!("{byte:02x}")).collect(),
        package_bytes: std::fs::metadata(&package).map_err(file(&package))?.len(),
    })
}

fn facts_package(facts: &Facts, model: &ModelRef) -> std::path::PathBuf {
    facts.store.join(sesemi::object_path(model))
}

/// Bytes of an HTTP message after its head.
fn body_length(message: &[u8]) -> usize {
    let head = message.windows(4).position(|window| window == b"\r\n\r\n");
    head.map_or(0, |at| message.len() - at - 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_anywhere_is_never_equal() {
        for at in 0..3 {
            let mut got = vec![vec![0.5, 1.0, 2.0]];
            assert_eq!(difference(&got, &got.clone()).unwrap(), 0.0);
            got[0][at] = f32::NAN;
            let worst = difference(&got, &[vec![0.5, 1.0, 2.0]]).unwrap();
            assert!(worst.is_nan(), "{at}");
        }
        assert!(difference(&[vec![1.0]], &[vec![1.0, 2.0]]).is_err());
    }
}
