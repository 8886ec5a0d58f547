//! Durable commands a second: owners that command one after the other, each waiting for its receipt, many at once.
//!
//! They call the service directly: no channel is between, and their commands were signed before, so that what is measured
//! is the service's work (verifying, checking, sealing, the disk, signing receipts) and not theirs. The baseline is what the
//! database library alone reaches on the same disk: values of the same size, as many in one durable commit as the service
//! had on average, in the same number. Both take turns of a fraction of a second, several in a round, so that a slow moment of
//! the disk slows both.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use redb::{Database, Durability, TableDefinition};
use sesemi_attest::sealing::OVERHEAD;
use sesemi_keyservice::metrics::Metrics;
use sesemi_protocol::command::{Action, GrantedVersions, Subject};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelName, ModelVersion, PrincipalId, SecretKey,
    SigningIdentity,
};

use super::p50_p99;
use crate::enclave::Lab;
use crate::error::BenchError;
use crate::figures::Samples;
use crate::service::{Principal, Running, order};
use crate::stopwatch::Stopwatch;

/// Owners that command at once.
const OWNERS: usize = 64;
/// Commands of each in one turn.
const EACH: usize = 12;
/// Turns of each side in a round.
const TURNS: usize = 6;
/// Commands of all in one turn.
const TURN: usize = OWNERS * EACH;
/// Models of each owner, and users: no more than 64 grants may be for one of both.
const MODELS: usize = 8;
const USERS: usize = 32;
/// Commands one by one, for their latency.
const ALONE: usize = 100;
/// What sealing and the entry add to a signed command in the log, besides the seal: chain, salt, time, place, forms.
const ENTRY: usize = 32 + 48;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");

pub(super) async fn measure(lab: &Lab, rounds: usize) -> Result<Vec<Samples>, BenchError> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    std::fs::create_dir(&state)?;
    let running = Running::start(lab, &state).await?;
    let mut owners = Owners::join(lab, &running).await?;
    let mut baseline = Baseline::new(&folder.path().join("baseline.redb"))?;
    let (mut rate, mut plain, mut ratio, mut batch) = (vec![], vec![], vec![], vec![]);
    let (mut alone, mut work) = (vec![], vec![]);
    // One more to warm up.
    for round in 0..=rounds {
        let one_by_one = owners.one_by_one(&running).await?;
        let (mut of_service, mut of_baseline, mut sum, mut cpu) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..TURNS {
            let done = owners.all_at_once(&running).await?;
            let in_batch = done.batch.round().max(1.0) as usize;
            of_service += done.seconds;
            of_baseline += baseline.commit(TURN, in_batch, done.length)?;
            sum += done.batch;
            cpu += done.cpu;
        }
        if round == 0 {
            continue;
        }
        let commands = (TURN * TURNS) as f64;
        rate.push(commands / of_service);
        plain.push(commands / of_baseline);
        ratio.push(of_baseline / of_service);
        batch.push(sum / TURNS as f64);
        alone.push(one_by_one);
        work.push(cpu / commands * 1e3);
    }
    running.stop().await?;
    Ok(vec![
        Samples::new("keyservice.durable_ratio", "times redb alone", ratio).at_least(0.7),
        Samples::new("keyservice.durable_commands", "commands/s", rate),
        Samples::new("keyservice.redb_alone", "values/s", plain),
        Samples::new("keyservice.durable_batch", "commands", batch),
        Samples::new("keyservice.command_ms_p50", "ms", alone),
        Samples::new("keyservice.command_cpu_ms", "ms", work),
    ])
}

/// What a turn of commands came to.
struct Done {
    seconds: f64,
    /// CPU time of all threads, in seconds.
    cpu: f64,
    /// Entries in one durable write, on average.
    batch: f64,
    /// Length of an entry, in bytes.
    length: usize,
}

struct Owners {
    all: Vec<Principal>,
    users: Vec<PrincipalId>,
    code: CodeIdentityDigest,
    made: usize,
}

impl Owners {
    async fn join(lab: &Lab, running: &Running) -> Result<Self, BenchError> {
        let principal = || {
            let identity = SigningIdentity::generate(&*lab.entropy)?;
            Ok::<_, BenchError>(Principal::new(identity, running.id()))
        };
        let mut users = Vec::new();
        for _ in 0..USERS {
            let mut user = principal()?;
            order(&running.service, user.register()?, None).await?;
            users.push(user.identity.public().principal_id());
        }
        let mut all = Vec::new();
        for _ in 0..OWNERS {
            let mut owner = principal()?;
            order(&running.service, owner.register()?, None).await?;
            for model in 0..MODELS {
                let key = SecretKey::generate(&*lab.entropy)?;
                let put = owner.sign(Action::PutModel {
                    name: name(model)?,
                    version: ModelVersion::new(1)?,
                    key: key.digest(),
                    manifest: Digest([0; 32]),
                    isolation: Isolation::default(),
                })?;
                order(&running.service, put, Some(key)).await?;
            }
            all.push(owner);
        }
        Ok(Self {
            all,
            users,
            code: lab.semirt.code(),
            made: 0,
        })
    }

    /// The next grants of each owner, signed.
    fn grants(&mut self, each: usize) -> Result<Vec<Vec<Vec<u8>>>, BenchError> {
        let first = self.made;
        self.made += each;
        let (users, code) = (&self.users, self.code);
        let grants = self.all.iter_mut().map(|owner| {
            let id = owner.identity.public().principal_id();
            let numbers = first..first + each;
            let grant = |number: usize| {
                let user = users.get(number % USERS).copied();
                owner.sign(Action::Grant {
                    owner: id,
                    name: name(number / USERS % MODELS)?,
                    versions: GrantedVersions::All,
                    subject: Subject::User(user.unwrap_or(id)),
                    codes: vec![code],
                    expires: None,
                    note: format!("team {}", number % 100),
                })
            };
            numbers.map(grant).collect()
        });
        grants.collect()
    }

    /// The median latency of commands that come one by one, in milliseconds.
    async fn one_by_one(&mut self, running: &Running) -> Result<f64, BenchError> {
        let grants = self.grants(ALONE.div_ceil(OWNERS))?;
        let mut times = Vec::new();
        for signed in grants.into_iter().flatten() {
            let started = Instant::now();
            order(&running.service, signed, None).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let middle = p50_p99(&mut times).map(|(middle, _)| middle);
        middle.ok_or(BenchError::Unexpected("there are no samples"))
    }

    async fn all_at_once(&mut self, running: &Running) -> Result<Done, BenchError> {
        let grants = self.grants(EACH)?;
        let length = grants.first().and_then(|of_one| of_one.first());
        let length = length.map_or(0, Vec::len) + ENTRY + OVERHEAD;
        let before = batches(&running.metrics);
        let watch = Stopwatch::start();
        let working = grants.into_iter().map(|of_one| {
            let service = Arc::clone(&running.service);
            tokio::spawn(async move {
                for signed in of_one {
                    order(&service, signed, None).await?;
                }
                Ok::<_, BenchError>(())
            })
        });
        let working: Vec<_> = working.collect();
        for owner in working {
            owner.await??;
        }
        let lap = watch.stop();
        let after = batches(&running.metrics);
        Ok(Done {
            seconds: lap.wall.as_secs_f64(),
            cpu: lap.cpu.as_secs_f64(),
            batch: (after.0 - before.0) / (after.1 - before.1),
            length,
        })
    }
}

fn name(number: usize) -> Result<ModelName, BenchError> {
    Ok(ModelName::new(&format!("model-{number}"))?)
}

/// How many entries were written, in how many durable writes, as the service counts them.
fn batches(metrics: &Metrics) -> (f64, f64) {
    let text = metrics.render();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    };
    (
        value("sesemi_keyservice_batch_sum "),
        value("sesemi_keyservice_batch_count "),
    )
}

/// The database library alone.
struct Baseline {
    database: Database,
    next: u64,
}

impl Baseline {
    fn new(path: &Path) -> Result<Self, BenchError> {
        let database = Database::create(path).map_err(redb::Error::from)?;
        Ok(Self { database, next: 1 })
    }

    /// The seconds that so many values took.
    fn commit(&mut self, count: usize, batch: usize, length: usize) -> Result<f64, BenchError> {
        let value = vec![7; length];
        let started = Instant::now();
        let mut left = count;
        while left > 0 {
            let now = left.min(batch);
            self.commit_once(now, &value)?;
            left -= now;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn commit_once(&mut self, count: usize, value: &[u8]) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut table = write.open_table(TABLE)?;
            for _ in 0..count {
                table.insert(self.next, value)?;
                self.next += 1;
            }
        }
        Ok(write.commit()?)
    }
}
