//! A state with many grants, made quickly: commands are signed on all cores and appended to the log in large batches by the log's
//! own code, past the service. The service then starts on it as on any log, which verifies and replays every entry, and ends in
//! order, which leaves a snapshot.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use sesemi_keyservice::log::{Draft, FileStorage, Log, LogError, Start};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::start::DATABASE;
use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::command::{Action, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::entropy::random;
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelId, ModelName, ModelVersion, PrincipalId,
    SecretKey, ServiceId, SigningIdentity, cbor,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::enclave::Lab;
use crate::error::BenchError;
use crate::service::{Principal, open, setup};

/// Entries in one durable write.
const BATCH: usize = 10_000;
/// Models that each user may use.
const EACH: usize = 100;
/// Models of each owner.
const MODELS: usize = 10;
/// When all grants end, in seconds since 1970.
const EXPIRES: u64 = 4_000_000_000;

/// How many grants, of whose models to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) grants: usize,
    pub(super) users: usize,
    owners: usize,
}

impl Shape {
    /// Each user may use 100 models; there are ten users a model, but at least 100 models.
    fn of(grants: usize) -> Self {
        let users = grants.div_ceil(EACH).max(1);
        Self {
            grants: users * EACH,
            users,
            owners: (users / MODELS).max(EACH) / MODELS,
        }
    }

    fn models(&self) -> usize {
        self.owners * MODELS
    }

    /// One of the models that a user may use.
    fn model_of(&self, user: usize, number: usize) -> usize {
        let step = self.models() / EACH;
        (user + (number % EACH) * step) % self.models()
    }

    /// A user's grant by its number.
    pub(super) fn granted(&self, user: usize, number: usize) -> Result<ModelId, BenchError> {
        let model = self.model_of(user, number);
        Ok(ModelId {
            owner: owner(model / MODELS)?.public().principal_id(),
            name: name(model % MODELS)?,
        })
    }
}

/// Whoever it is follows from the number, so that nothing has to be kept.
fn owner(number: usize) -> Result<SigningIdentity, BenchError> {
    identity(b"owner", number)
}

/// A user.
pub(super) fn user(number: usize) -> Result<SigningIdentity, BenchError> {
    identity(b"user", number)
}

fn identity(what: &[u8], number: usize) -> Result<SigningIdentity, BenchError> {
    Ok(SigningIdentity::from_seed(key(what, number))?)
}

fn key(what: &[u8], number: usize) -> SecretKey {
    let digest = Digest::of(&[what, &number.to_be_bytes()].concat());
    SecretKey::from_bytes(*digest.as_bytes())
}

fn name(number: usize) -> Result<ModelName, BenchError> {
    Ok(ModelName::new(&format!("model-{number}"))?)
}

/// A state folder with so many grants.
pub(super) struct State {
    pub(super) folder: TempDir,
    pub(super) shape: Shape,
}

/// A command on its way into the log.
struct Order {
    signer: PrincipalId,
    signed: Vec<u8>,
    key: Option<SecretKey>,
}

impl State {
    pub(super) fn build(lab: &Lab, grants: usize) -> Result<Self, BenchError> {
        let shape = Shape::of(grants);
        let folder = tempfile::tempdir()?;
        let service = found(lab, folder.path())?;
        let codes = vec![lab.semirt.code()];
        let (orders, queue) = sync_channel(8);
        std::thread::scope(|scope| {
            let (shape, codes) = (&shape, &codes);
            let signing = scope.spawn(move || sign_all(shape, service, codes, &orders));
            let appended = append_all(lab, folder.path(), &queue);
            // Otherwise the signers would wait for ever.
            drop(queue);
            let signed = signing
                .join()
                .unwrap_or(Err(BenchError::Unexpected("a thread panicked")));
            appended.and(signed)
        })?;
        let started = Instant::now();
        let service = open(lab, &setup(lab, folder.path())?, Metrics::new())?;
        eprintln!(
            "replayed {} grants in {:.1} s",
            shape.grants,
            started.elapsed().as_secs_f64()
        );
        service.stop();
        Ok(Self { folder, shape })
    }
}

fn found(lab: &Lab, folder: &Path) -> Result<ServiceId, BenchError> {
    let service = open(lab, &setup(lab, folder)?, Metrics::new())?;
    let id = service.id();
    service.stop();
    Ok(id)
}

/// Signs everything: who is there, models and keys, then grants, two owners at a time.
fn sign_all(
    shape: &Shape,
    service: ServiceId,
    codes: &[CodeIdentityDigest],
    orders: &SyncSender<Vec<Order>>,
) -> Result<(), BenchError> {
    let gone = |_| BenchError::Unexpected("the log's end of the queue is gone");
    for number in 0..shape.users {
        orders
            .send(user_joins(number, service, codes)?)
            .map_err(gone)?;
    }
    let mut owners = Vec::new();
    for number in 0..shape.owners {
        let (principal, joins) = owner_joins(number, service)?;
        orders.send(joins).map_err(gone)?;
        owners.push((number, principal));
    }
    let half = owners.len().div_ceil(2);
    let other = owners.split_off(half);
    std::thread::scope(|scope| {
        let signers = [owners, other].map(|owners| {
            scope.spawn(move || {
                for (number, principal) in owners {
                    let grants = grants_of(shape, number, principal, codes)?;
                    orders.send(grants).map_err(gone)?;
                }
                Ok(())
            })
        });
        for signer in signers {
            signer
                .join()
                .unwrap_or(Err(BenchError::Unexpected("a thread panicked")))?;
        }
        Ok(())
    })
}

fn order(
    principal: &mut Principal,
    action: Action,
    key: Option<SecretKey>,
) -> Result<Order, BenchError> {
    Ok(Order {
        signer: principal.identity.public().principal_id(),
        signed: principal.sign(action)?,
        key,
    })
}

fn registration(
    identity: SigningIdentity,
    service: ServiceId,
) -> Result<(Principal, Order), BenchError> {
    let public_key = *identity.public().key();
    let mut principal = Principal::new(identity, service);
    let order = order(&mut principal, Action::Register { public_key }, None)?;
    Ok((principal, order))
}

fn user_joins(
    number: usize,
    service: ServiceId,
    codes: &[CodeIdentityDigest],
) -> Result<Vec<Order>, BenchError> {
    let (mut principal, registers) = registration(user(number)?, service)?;
    let key = key(b"request", number);
    let put = Action::PutRequestKey {
        scope: KeyScope::AllModels,
        epoch: 1,
        key: key.digest(),
        codes: codes.to_vec(),
        isolation: Isolation::default(),
        earlier_end: None,
    };
    Ok(vec![registers, order(&mut principal, put, Some(key))?])
}

fn owner_joins(number: usize, service: ServiceId) -> Result<(Principal, Vec<Order>), BenchError> {
    let (mut principal, registers) = registration(owner(number)?, service)?;
    let mut orders = vec![registers];
    for model in 0..MODELS {
        let key = key(b"model", number * MODELS + model);
        let put = Action::PutModel {
            name: name(model)?,
            version: ModelVersion::new(1)?,
            key: key.digest(),
            manifest: Digest([0; 32]),
            isolation: Isolation::default(),
        };
        orders.push(order(&mut principal, put, Some(key))?);
    }
    Ok((principal, orders))
}

/// All grants of one owner's models.
fn grants_of(
    shape: &Shape,
    number: usize,
    mut principal: Principal,
    codes: &[CodeIdentityDigest],
) -> Result<Vec<Order>, BenchError> {
    let owner = principal.identity.public().principal_id();
    let mut orders = Vec::new();
    for user in 0..shape.users {
        let models = (0..EACH).map(|grant| shape.model_of(user, grant));
        let mine: Vec<usize> = models.filter(|model| model / MODELS == number).collect();
        if mine.is_empty() {
            continue;
        }
        let subject = self::user(user)?.public().principal_id();
        for model in mine {
            let grant = Action::Grant {
                owner,
                name: name(model % MODELS)?,
                versions: GrantedVersions::All,
                subject: Subject::User(subject),
                codes: codes.to_vec(),
                expires: Some(EXPIRES),
                note: format!("team {}", user % 100),
            };
            orders.push(order(&mut principal, grant, None)?);
        }
    }
    Ok(orders)
}

/// Appends what comes, in large batches.
fn append_all(lab: &Lab, folder: &Path, queue: &Receiver<Vec<Order>>) -> Result<(), BenchError> {
    let setup = setup(lab, folder)?;
    let sealing_key = setup
        .sealing_key
        .as_ref()
        .ok_or(BenchError::Unexpected("no sealing key"))?;
    let unlocked = setup.unlock().open_tee(setup.code, sealing_key)?;
    let mut log = Log::open::<LogError>(
        Arc::new(FileStorage::new(folder.join(DATABASE))),
        &unlocked.state_key,
        Start::ORIGIN,
        |_, _| {},
        |_| Ok(()),
    )?;
    let at = lab.clock.unix_seconds();
    let mut last = std::collections::HashMap::new();
    let mut position = log.point().sequence;
    let mut batch = Vec::with_capacity(BATCH);
    for order in queue.iter().flatten() {
        position += 1;
        let entry = Entry {
            salt: random(&*lab.entropy)?,
            at,
            previous: last.insert(order.signer, position).unwrap_or(0),
            record: Record::Command(order.signed.into()),
        };
        let secret = order.key.map(|key| Zeroizing::new(key.expose().to_vec()));
        let public = cbor::encode(&entry)?.to_vec();
        batch.push(Draft { public, secret });
        if batch.len() == BATCH {
            log.append(&batch, &*lab.entropy, Instant::now())?;
            batch.clear();
        }
    }
    log.append(&batch, &*lab.entropy, Instant::now())?;
    Ok(())
}
