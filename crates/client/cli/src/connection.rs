//! Which system a client command talks to: flags over environment over the `stack.toml` that `sesemi up` wrote.
//!
//! What a client has seen of KeyService's log is kept beside its identity file (see [`crate::seen`]), so that a rollback is
//! noticed by the next command too; so is the service that it met first, if no id was set.

use std::path::{Path, PathBuf};

use anstream::eprintln;
use clap::Args;
use serde::Deserialize;
use sesemi::{Client, CodeIdentityDigest, Identity, Point, ServiceId, Trust};
use sesemi_process::settings::{SettingsError, read_file};
use sesemi_process::trust::{TrustError, TrustSettings};

use crate::error::{CliError, During as _};
use crate::seen;

/// Arguments that say which system to talk to.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// A TOML file with the settings below, as `sesemi up` writes it.
    #[arg(long, env = "SESEMI_STACK", value_name = "FILE")]
    stack: Option<PathBuf>,
    #[command(flatten)]
    settings: ConnectionSettings,
    #[command(flatten)]
    trust: TrustSettings,
}

/// The settings, all of which may come from the file.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ConnectionSettings {
    /// Address of KeyService.
    #[arg(long, env = "SESEMI_KEYSERVICE", value_name = "ADDR")]
    keyservice: Option<String>,
    /// Code identity that KeyService must have.
    #[arg(long, env = "SESEMI_KEYSERVICE_CODE", value_name = "DIGEST")]
    keyservice_code: Option<String>,
    /// Service id that KeyService must have.
    #[arg(long, env = "SESEMI_KEYSERVICE_ID", value_name = "ID")]
    keyservice_id: Option<String>,
    /// Who must govern KeyService: the digest that `sesemi keyservice status` prints beside its custodians. Without it, those that
    /// were met first are expected from then on.
    #[arg(long, env = "SESEMI_KEYSERVICE_CUSTODIANS", value_name = "DIGEST")]
    keyservice_custodians: Option<String>,
    /// Address of the gateway, as http://HOST:PORT.
    #[arg(long, env = "SESEMI_GATEWAY", value_name = "URL")]
    gateway: Option<String>,
    /// Folder of the object store.
    #[arg(long, env = "SESEMI_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    #[arg(skip)]
    semirt_code: Option<String>,
    #[arg(skip)]
    admin: Option<String>,
    #[arg(skip)]
    simulated_root: Option<PathBuf>,
    #[arg(skip)]
    endorsements: Option<PathBuf>,
    #[arg(skip)]
    policy: Option<PathBuf>,
}

/// The root certificate of the simulated platform that a `stack.toml` names; without a file, none.
///
/// # Errors
/// [`SettingsError`], with the line at fault.
pub fn simulated_root(stack: Option<&Path>) -> Result<Option<PathBuf>, SettingsError> {
    let settings: ConnectionSettings = read_file(stack)?;
    Ok(settings.simulated_root)
}

/// A resolved connection.
#[derive(Debug, Clone)]
pub struct Connection {
    settings: ConnectionSettings,
    trust: TrustSettings,
}

impl ConnectionArgs {
    /// Merges flags and environment over the file.
    ///
    /// # Errors
    /// [`SettingsError`], with the line at fault.
    pub fn resolve(self) -> Result<Connection, SettingsError> {
        let from_file: ConnectionSettings = read_file(self.stack.as_deref())?;
        let set = self.settings;
        let trust = self.trust.or(TrustSettings {
            simulated_root: from_file.simulated_root,
            endorsements: from_file.endorsements,
            policy: from_file.policy,
        });
        Ok(Connection {
            trust,
            settings: ConnectionSettings {
                keyservice: set.keyservice.or(from_file.keyservice),
                keyservice_code: set.keyservice_code.or(from_file.keyservice_code),
                keyservice_id: set.keyservice_id.or(from_file.keyservice_id),
                keyservice_custodians: set
                    .keyservice_custodians
                    .or(from_file.keyservice_custodians),
                gateway: set.gateway.or(from_file.gateway),
                store: set.store.or(from_file.store),
                semirt_code: from_file.semirt_code,
                admin: from_file.admin,
                ..ConnectionSettings::default()
            },
        })
    }
}

impl Connection {
    /// What to trust.
    ///
    /// # Errors
    /// [`CliError`] if a setting is missing or malformed.
    pub fn trust(&self) -> Result<Trust, CliError> {
        let code = needed(self.settings.keyservice_code.as_deref(), "keyservice-code")?;
        let service = match &self.settings.keyservice_id {
            Some(id) => Some(parse::<ServiceId>(id, "keyservice-id")?),
            None => None,
        };
        Ok(Trust {
            verifier: self.trust.verifier()?,
            policy: self.trust.policy_for([parse(code, "keyservice-code")?])?,
            service_policy: self
                .trust
                .service_policy()?
                .digest()
                .map_err(TrustError::from)?,
            service,
            custodians: match &self.settings.keyservice_custodians {
                Some(digest) => Some(parse(digest, "keyservice-custodians")?),
                None => None,
            },
        })
    }

    /// Address of KeyService.
    ///
    /// # Errors
    /// [`CliError`] if it is missing or malformed.
    pub fn keyservice(&self) -> Result<std::net::SocketAddr, CliError> {
        let text = needed(self.settings.keyservice.as_deref(), "keyservice")?;
        text.parse().map_err(|_| {
            CliError::Input(format!(
                "'{text}' is not an address; write IP:PORT, for example 127.0.0.1:7400"
            ))
        })
    }

    /// Address of the gateway.
    ///
    /// # Errors
    /// [`CliError::Input`] if it is not set.
    pub fn gateway(&self) -> Result<&str, CliError> {
        needed(self.settings.gateway.as_deref(), "gateway")
    }

    /// KeyService's address for health and metrics: the given one, or that of the stack.
    ///
    /// # Errors
    /// [`CliError::Input`] if there is none.
    pub fn admin<'a>(&'a self, given: Option<&'a str>) -> Result<&'a str, CliError> {
        needed(given.or(self.settings.admin.as_deref()), "admin")
    }

    /// Folder of the object store.
    ///
    /// # Errors
    /// [`CliError::Input`] if it is not set.
    pub fn store(&self) -> Result<&Path, CliError> {
        let store = self.settings.store.as_deref();
        store.ok_or_else(|| missing("store"))
    }

    /// The code identity that was given, or SeMIRT's in the stack.
    ///
    /// # Errors
    /// [`CliError`] if there is none or it is malformed.
    pub fn code(&self, given: Option<&str>) -> Result<CodeIdentityDigest, CliError> {
        let code = given.or(self.settings.semirt_code.as_deref());
        parse(needed(code, "code")?, "code")
    }

    /// Connects as the identity in this file, and keeps what it has seen. Without an id of the service, the one that answers
    /// first is pinned for this identity and address.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn client(&self, identity_file: &Path) -> Result<Client, CliError> {
        let identity = Identity::load(identity_file)?;
        let address = self.keyservice()?;
        let place = address.to_string();
        let mut trust = self.trust()?;
        if trust.service.is_none() {
            trust.service = seen::pinned(identity_file, &place)?;
        }
        let first_contact = trust.service.is_none();
        let seen = match trust.service {
            Some(service) => {
                if trust.custodians.is_none() {
                    trust.custodians = seen::custodians_seen(identity_file, service)?;
                }
                seen::newest_seen(identity_file, service)?
            }
            None => Point::START,
        };
        let client = Client::connect_having_seen(identity, address, trust, seen)
            .await
            .during("connect to KeyService")?;
        if first_contact {
            let service = client.seen().service;
            let kept = seen::pin(identity_file, &place, service)?;
            eprintln!(
                "first contact: {address} is KeyService {service}; any other is refused there from now on ({})",
                kept.display()
            );
        }
        seen::keep_seen(identity_file, client.seen(), client.custodians())?;
        Ok(client)
    }
}

fn needed<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, CliError> {
    value.ok_or_else(|| missing(name))
}

/// The likeliest mistake is to have forgotten the file that `sesemi up` wrote.
fn missing(name: &str) -> CliError {
    CliError::Input(format!(
        "no {name} is set: give --stack FILE or set SESEMI_STACK to the stack.toml that `sesemi up` wrote, or give --{name}"
    ))
}

fn parse<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, CliError> {
    text.parse().map_err(|_| {
        CliError::Input(format!(
            "{name} must be 64 hexadecimal digits, not '{text}'"
        ))
    })
}
