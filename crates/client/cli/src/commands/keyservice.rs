//! `sesemi keyservice`: what operators and custodians do.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sesemi::{
    Digest, Locked, PrincipalId, RefusalCode, Share, Standing, Unlocking, custodians_digest, look,
};
use zeroize::Zeroizing;

use super::actor::{joined, object, print};
use super::backup;
use crate::args::{KeyserviceCommand, Who};
use crate::connection::{Connection, ConnectionArgs};
use crate::error::{CliError, During as _, file};
use crate::files::read_at_most;
use crate::times::shown;

/// Longest file with a share, in bytes.
const MAX_SHARE: usize = 1024;
/// Longest wait for a service that has its shares: it reads its log before it serves.
const OPENING: Duration = Duration::from_secs(60);
/// Time between two looks at it.
const PAUSE: Duration = Duration::from_millis(200);

/// `sesemi keyservice`.
///
/// # Errors
/// [`CliError`].
pub async fn keyservice(command: KeyserviceCommand) -> Result<(), CliError> {
    match command {
        KeyserviceCommand::Init {
            custodians,
            threshold,
            who,
        } => init(&custodians, threshold, who).await,
        KeyserviceCommand::Share { out, who } => share(&out, who).await,
        KeyserviceCommand::Status {
            admin,
            connection,
            json,
        } => status(admin.as_deref(), connection, json).await,
        KeyserviceCommand::Backup {
            admin,
            out,
            connection,
            json,
        } => {
            let connection = connection.resolve()?;
            backup::backup(connection.admin(admin.as_deref())?, &out, json).await
        }
        KeyserviceCommand::Restore {
            backup,
            state,
            bin_dir,
            json,
        } => backup::restore(&backup, &state, bin_dir, json).await,
        KeyserviceCommand::Recover {
            shares,
            connection,
            json,
        } => recover(&shares, connection, json).await,
        KeyserviceCommand::ApproveUpgrade {
            code,
            successor_policy,
            who,
        } => approve_upgrade(&code, successor_policy.as_deref(), who).await,
    }
}

async fn init(custodians: &[String], threshold: u8, who: Who) -> Result<(), CliError> {
    let ids = custodians.iter().map(|id| id.parse::<PrincipalId>());
    let ids = ids.collect::<Result<Vec<_>, _>>();
    let ids = distinct(ids.during("read a custodian's id")?)?;
    let mut actor = who.connect().await?;
    match actor.client.name_custodians(ids.clone(), threshold).await {
        Err(sesemi::Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => {
            return Err(CliError::Input(
                "custodians are named once, and before the first model or request key: this service has custodians or keys already \
                 (see `sesemi keyservice status`). If others than you named them, do not use this service"
                    .into(),
            ));
        }
        named => named.during("name the custodians")?,
    };
    let people = format!(
        "any {threshold} of {} custodians recover this service; each runs `sesemi keyservice share --out FILE` now",
        ids.len()
    );
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let value = object([
        ("custodians", texts.into()),
        ("threshold", threshold.into()),
    ]);
    actor.done(&people, value)
}

/// One named twice would leave fewer custodians than were meant, for ever.
fn distinct(ids: Vec<PrincipalId>) -> Result<Vec<PrincipalId>, CliError> {
    let mut seen = std::collections::BTreeSet::new();
    match ids.iter().find(|id| !seen.insert(**id)) {
        Some(twice) => Err(CliError::Input(format!(
            "the custodian {twice} is named twice"
        ))),
        None => Ok(ids),
    }
}

async fn share(out: &Path, who: Who) -> Result<(), CliError> {
    let actor = who.connect().await?;
    let share = actor
        .client
        .share()
        .await
        .during("fetch the recovery share")?;
    let text = share.to_text();
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .and_then(|mut to| {
            to.write_all(text.as_bytes())?;
            to.write_all(b"\n")?;
            to.sync_all()
        })
        .map_err(file(out))?;
    let value = serde_json::json!({
        "file": out,
        "index": share.index(),
        "of": share.scheme().count(),
        "threshold": share.scheme().threshold(),
    });
    let people = format!(
        "{}: share {} of {}; any {} open the service's state, so keep it offline",
        out.display(),
        share.index(),
        share.scheme().count(),
        share.scheme().threshold()
    );
    actor.show(&value, &people)
}

async fn recover(
    shares: &[PathBuf],
    connection: ConnectionArgs,
    json: bool,
) -> Result<(), CliError> {
    let shares = shares.iter().map(|path| read_share(path));
    let shares: Vec<Share> = shares.collect::<Result<_, _>>()?;
    let connection = connection.resolve()?;
    let mut locked = Locked::connect(connection.keyservice()?, connection.trust()?)
        .await
        .during("reach a locked KeyService")?;
    let mut state = Unlocking::Waiting(locked.status().clone());
    for share in shares {
        state = locked
            .hand_in(share)
            .await
            .during("hand in a recovery share")?;
        if state == Unlocking::Open {
            break;
        }
    }
    let (value, people) = match state {
        Unlocking::Open => {
            wait_until_it_serves(&connection).await?;
            let service = locked.status().service.to_string();
            let people = format!("KeyService {service} opened its state and serves");
            (
                serde_json::json!({"open": true, "service": service}),
                people,
            )
        }
        Unlocking::Waiting(status) => {
            let people = format!(
                "KeyService {} has {} of the {} shares that it needs",
                status.service, status.received, status.threshold
            );
            let value = serde_json::json!({
                "open": false,
                "service": status.service.to_string(),
                "received": status.received,
                "threshold": status.threshold,
            });
            (value, people)
        }
    };
    print(json, &value, &people);
    Ok(())
}

/// With enough shares the service opens its state, and nobody answers meanwhile. Only then it has recovered.
async fn wait_until_it_serves(connection: &Connection) -> Result<(), CliError> {
    let deadline = tokio::time::Instant::now() + OPENING;
    loop {
        let standing = look(connection.keyservice()?, connection.trust()?).await;
        match standing {
            Ok(Standing::Serving { .. }) => return Ok(()),
            _ if tokio::time::Instant::now() >= deadline => {
                return Err(CliError::Input(format!(
                    "KeyService has enough shares, and did not serve within {} seconds; its log says why",
                    OPENING.as_secs()
                )));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn read_share(path: &Path) -> Result<Share, CliError> {
    let bytes = Zeroizing::new(read_at_most(path, MAX_SHARE).map_err(file(path))?);
    let wrong = |why: &dyn std::fmt::Display| {
        CliError::Input(format!("{} is not a recovery share: {why}", path.display()))
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| wrong(&e))?;
    Share::from_text(text.trim()).map_err(|e| wrong(&e))
}

async fn approve_upgrade(
    code: &str,
    successor_policy: Option<&str>,
    who: Who,
) -> Result<(), CliError> {
    let code = code.parse().during("read the code identity")?;
    let mut actor = who.connect().await?;
    let policy: Digest = match successor_policy {
        Some(digest) => digest.parse().during("read the policy's digest")?,
        None => actor.connection.trust()?.service_policy,
    };
    actor
        .client
        .approve_upgrade(code, policy)
        .await
        .during("approve the upgrade")?;
    let value = object([
        ("code", code.to_string().into()),
        ("policy", policy.to_string().into()),
    ]);
    let people = format!("approved that code {code} takes over, under the policy {policy}");
    actor.done(&people, value)
}

async fn status(
    admin: Option<&str>,
    connection: ConnectionArgs,
    json: bool,
) -> Result<(), CliError> {
    let connection = connection.resolve()?;
    let trust = connection.trust()?;
    let policy = trust.service_policy;
    let standing = look(connection.keyservice()?, trust)
        .await
        .during("verify KeyService")?;
    let (mut value, mut people) = describe(&standing, &policy);
    if let Some(figures) = figures(&connection, admin).await {
        people.push_str("\n  the host says:");
        let mut said = serde_json::Map::new();
        for (name, figure) in figures {
            people.push_str(&format!("\n    {name} {figure}"));
            said.insert(name, figure.into());
        }
        value.insert("host_says".into(), said.into());
    }
    print(json, &value.into(), &people);
    Ok(())
}

type Fields = serde_json::Map<String, serde_json::Value>;

fn describe(standing: &Standing, policy: &Digest) -> (Fields, String) {
    match standing {
        Standing::Locked { claims, status } => {
            let people = format!(
                "KeyService {} is LOCKED: it has {} of the {} recovery shares that open its state\n  \
                 evidence:   verifies, code {}, TEE {}\n  \
                 policy:     {policy}\n  \
                 its custodians run `sesemi keyservice recover --share FILE`",
                status.service,
                status.received,
                status.threshold,
                claims.code,
                tee(claims)
            );
            let value = object([
                ("service", status.service.to_string().into()),
                ("locked", true.into()),
                ("shares", status.received.into()),
                ("threshold", status.threshold.into()),
                ("code", claims.code.to_string().into()),
                ("tee", tee(claims).into()),
                ("policy", policy.to_string().into()),
            ]);
            (value, people)
        }
        Standing::Serving {
            service,
            head,
            status,
        } => {
            let (claims, end) = (&service.claims, head.head);
            let id = service.identity.service_id();
            let custodians = match status.custodians.as_slice() {
                [] => "none: the state is lost with this machine and code; see `sesemi keyservice init`".to_owned(),
                ids => {
                    let digest = custodians_digest(status)
                        .map(|digest| format!(" (digest {digest})"))
                        .unwrap_or_default();
                    format!("any {} of {}{digest}", status.threshold, joined(ids))
                }
            };
            let mut people = format!(
                "KeyService {id}\n  \
                 evidence:   verifies, code {}, TEE {}\n  \
                 policy:     {policy}\n  \
                 log:        {} entries, chain {}, signed at {}\n  \
                 custodians: {custodians}",
                claims.code,
                tee(claims),
                end.state.point.sequence,
                end.state.point.chain,
                shown(end.at)
            );
            let mut upgrades = Vec::new();
            for upgrade in &status.upgrades {
                people.push_str(&format!(
                    "\n  upgrade:    to code {} under policy {}, approved by {} of {}: {}",
                    upgrade.code,
                    upgrade.policy,
                    upgrade.approved_by.len(),
                    status.threshold,
                    joined(&upgrade.approved_by)
                ));
                upgrades.push(serde_json::json!({
                    "code": upgrade.code.to_string(),
                    "policy": upgrade.policy.to_string(),
                    "approved_by": texts(&upgrade.approved_by),
                }));
            }
            let value = object([
                ("service", id.to_string().into()),
                ("locked", false.into()),
                ("code", claims.code.to_string().into()),
                ("tee", tee(claims).into()),
                ("policy", policy.to_string().into()),
                ("log_entries", end.state.point.sequence.into()),
                ("chain", end.state.point.chain.to_string().into()),
                ("signed_at", shown(end.at).into()),
                ("custodians", texts(&status.custodians).into()),
                ("threshold", status.threshold.into()),
                (
                    "custodians_digest",
                    custodians_digest(status).map(|it| it.to_string()).into(),
                ),
                ("upgrades", upgrades.into()),
            ]);
            (value, people)
        }
    }
}

fn texts(ids: &[PrincipalId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Which TEE, as it is called in reports.
pub(super) fn tee(claims: &sesemi::Claims) -> &'static str {
    if claims.simulated {
        "simulated"
    } else {
        claims.identity.tee.as_str()
    }
}

/// What the operator's side says of the state's size and health; the host is not trusted, so it is shown and proves nothing.
async fn figures(connection: &Connection, admin: Option<&str>) -> Option<Vec<(String, String)>> {
    let address = connection.admin(admin).ok()?;
    match backup::metrics(address).await {
        Ok(text) => Some(backup::state_figures(&text)),
        Err(error) => Some(vec![("metrics".into(), error.to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custodian_that_is_named_twice_is_refused() {
        let id = |n| PrincipalId([n; 32]);
        assert!(distinct(vec![id(2), id(1), id(3)]).is_ok());
        let error = distinct(vec![id(2), id(1), id(2)]).unwrap_err();
        assert!(error.to_string().contains("named twice"), "{error}");
    }
}
