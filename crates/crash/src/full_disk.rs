//! A disk that takes no more: commands are refused and say why, releases go on, and nothing that was acknowledged is lost.
//!
//! Every write beyond a file's first page fails (`RLIMIT_FSIZE` of the running process), as on a full disk, until it is
//! lifted or the process is killed. That holds for the file too that the service logs to: a log line that cannot be written is
//! lost, and nothing else.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use sesemi_attest::channel::{Channel, ExpectedService};
use sesemi_protocol::command::{Action, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::{ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelName, ModelRef, ModelVersion, RefusalCode,
    SecretKey, SigningIdentity, SystemEntropy,
};
use tokio::process::Command;

use crate::book::Book;
use crate::client::{Client, Outcome};
use crate::error::{CrashError, io};
use crate::findings::{Findings, Moment};
use crate::lab::{Lab, Programs};
use crate::lists;
use crate::process::{Announced, Running};
use crate::round::{head, lock, send_again, submit, view};

/// What a file may have while the disk is full, in bytes: its first page can be written, as on a full disk what is there
/// already can.
const FULL: u64 = 4096;
/// How long the service may take to notice that the disk works again.
const NOTICE: Duration = Duration::from_secs(20);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a full disk led to.
#[derive(Debug)]
pub struct Report {
    /// What the clients found.
    pub findings: Findings,
    /// Commands that were refused because the disk was full.
    pub refused: u64,
    /// Releases while it was.
    pub released: u64,
    /// Whether commands were accepted again without a restart.
    pub resumed: bool,
}

/// Fills the disk under a service twice: once until there is room again, once until it is killed.
///
/// # Errors
/// [`CrashError`] if something else happens than is looked for.
pub async fn run(programs: &Programs) -> Result<Report, CrashError> {
    let mut scene = Scene::new(programs)?;
    let mut report = Report {
        findings: Findings::default(),
        refused: 0,
        released: 0,
        resumed: false,
    };
    let (running, announced) = scene.serve().await?;
    let mut enclave = scene.set_up(&announced).await?;
    report.released += scene.release(&mut enclave).await?;

    limit(&announced, Some(FULL))?;
    report.refused += scene.refused().await?;
    report.released += scene.release(&mut enclave).await?;
    limit(&announced, None)?;
    report.resumed = scene.resumes().await?;
    scene.compare().await?;

    limit(&announced, Some(FULL))?;
    report.refused += scene.refused().await?;
    report.released += scene.release(&mut enclave).await?;
    running.kill().await?;
    lock(&scene.book).findings.kills.add(Moment::Load);
    let (running, _) = scene.serve().await?;
    scene.compare().await?;
    running.stop().await?;
    report.findings = lock(&scene.book).findings.clone();
    Ok(report)
}

/// Bounds the files that the service may write.
fn limit(announced: &Announced, bytes: Option<u64>) -> Result<(), CrashError> {
    let limit = Rlimit {
        current: bytes,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(Pid::from_raw(announced.pid), Resource::Fsize, limit)
        .map(drop)
        .map_err(|error| io("the limit of file sizes")(error.into()))
}

/// An owner, a user, and what is between them.
struct Scene {
    lab: Lab,
    owner: Client,
    user: Client,
    book: Mutex<Book>,
    code: CodeIdentityDigest,
    model: ModelName,
}

impl Scene {
    fn new(programs: &Programs) -> Result<Self, CrashError> {
        let lab = Lab::new(programs)?;
        let client = || SigningIdentity::generate(&SystemEntropy::new()).map(Client::new);
        Ok(Self {
            owner: client()?,
            user: client()?,
            book: Mutex::new(Book::new(Findings::default())),
            code: lab.enclave_code(),
            model: ModelName::new("model")?,
            lab,
        })
    }

    /// Starts it so that a write beyond the limit is an error and not a signal.
    async fn serve(&mut self) -> Result<(Running, Announced), CrashError> {
        let mut launcher = Command::new("sh");
        launcher
            .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
            .arg(&self.lab.programs.simtee);
        let mut running = Running::start_by(&self.lab, launcher)?;
        let announced = running.announced().await?;
        let connector = self.lab.principals()?;
        self.owner.connect(&connector, announced.address).await?;
        self.user.connect(&connector, announced.address).await?;
        lock(&self.book).findings.restarts += 1;
        Ok((running, announced))
    }

    /// A model that the user may use, and an enclave's channel.
    async fn set_up(&mut self, announced: &Announced) -> Result<Channel, CrashError> {
        for client in [&mut self.owner, &mut self.user] {
            let public_key = *client.identity.public().key();
            order(client, &self.book, Action::Register { public_key }, None).await?;
        }
        let key = SecretKey::generate(&SystemEntropy::new()).map_err(|_| no_randomness())?;
        let put = Action::PutModel {
            name: self.model.clone(),
            version: ModelVersion::new(1)?,
            key: key.digest(),
            manifest: Digest([1; 32]),
            isolation: Isolation::default(),
        };
        order(&mut self.owner, &self.book, put, Some(key)).await?;
        let grant = self.grant();
        order(&mut self.owner, &self.book, grant, None).await?;
        let key = SecretKey::generate(&SystemEntropy::new()).map_err(|_| no_randomness())?;
        let put = Action::PutRequestKey {
            scope: KeyScope::AllModels,
            epoch: 1,
            key: key.digest(),
            codes: vec![self.code],
            isolation: Isolation::default(),
            earlier_end: None,
        };
        order(&mut self.user, &self.book, put, Some(key)).await?;
        let connector = self.lab.enclaves()?;
        let service = self.owner.service()?.service_id();
        let connected = connector
            .connect(announced.address, ExpectedService::Pinned(service))
            .await?;
        Ok(connected.channel)
    }

    fn grant(&self) -> Action {
        Action::Grant {
            owner: self.owner.id,
            name: self.model.clone(),
            versions: GrantedVersions::All,
            subject: Subject::User(self.user.id),
            codes: vec![self.code],
            expires: None,
            note: String::new(),
        }
    }

    /// Sends commands until one was refused because nothing can be written; there may be room for some.
    async fn refused(&mut self) -> Result<u64, CrashError> {
        let mut refused = 0;
        for _ in 0..3 {
            let grant = self.grant();
            let signed = self.owner.sign(grant.clone(), None)?;
            lock(&self.book).send(self.owner.id, &signed, grant);
            match self.owner.submit(&signed).await? {
                Outcome::Refused(refusal) if refusal.code == RefusalCode::Unwritable => {
                    refused += 1;
                    self.owner.pending = Some(signed);
                }
                Outcome::Receipt(receipt, bytes) => {
                    lock(&self.book).acknowledge(&signed, &receipt, bytes);
                }
                other => return Err(CrashError::Answer(format!("{other:?} on a full disk"))),
            }
        }
        Ok(refused)
    }

    /// Whether the last refused command is accepted when there is room again.
    async fn resumes(&mut self) -> Result<bool, CrashError> {
        let started = Instant::now();
        while started.elapsed() < NOTICE {
            let Some(signed) = self.owner.pending.take() else {
                return Ok(true);
            };
            submit(&mut self.owner, &self.book, signed).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(self.owner.pending.is_none())
    }

    async fn release(&self, enclave: &mut Channel) -> Result<u64, CrashError> {
        let model = ModelRef::new(self.owner.id, self.model.clone(), ModelVersion::new(1)?);
        let request = ReleaseRequest {
            model: model.into(),
            user: self.user.id,
            key: RequestKeyName::all_models(1),
            seen: Point::START,
        };
        let body = CallBody::Release(vec![request]);
        enclave.send(&Call { number: 0, body }, ANSWER).await?;
        let reply: Option<Reply> = enclave.receive(ANSWER).await?;
        match reply.map(|reply| reply.body) {
            Some(ReplyBody::Released(outcomes))
                if matches!(outcomes.as_slice(), [ReleaseOutcome::Lease(_)]) =>
            {
                lock(&self.book).released += 1;
                Ok(1)
            }
            other => Err(CrashError::Answer(format!("{other:?} to a release"))),
        }
    }

    /// Compares log and lists with what was acknowledged.
    async fn compare(&mut self) -> Result<(), CrashError> {
        let from = lock(&self.book).verified;
        let head = head(&mut self.owner).await?;
        let views = [
            view(&mut self.owner, from, head).await?,
            view(&mut self.user, from, head).await?,
        ];
        lock(&self.book).compare(head, &views)?;
        for client in [&mut self.owner, &mut self.user] {
            client.seen = head;
            lists::compare(client, &self.book).await?;
        }
        send_again(&mut self.owner, &self.book).await
    }
}

/// A command that must be carried out.
async fn order(
    client: &mut Client,
    book: &Mutex<Book>,
    action: Action,
    key: Option<SecretKey>,
) -> Result<(), CrashError> {
    let signed = client.sign(action.clone(), key)?;
    lock(book).send(client.id, &signed, action);
    submit(client, book, signed).await?;
    match client.pending {
        None => Ok(()),
        Some(_) => Err(CrashError::Answer("nothing to a command".into())),
    }
}

fn no_randomness() -> CrashError {
    CrashError::Answer("nothing: there is no randomness".into())
}
