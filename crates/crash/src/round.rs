//! One service from its founding on: load, kill, restart, compare, and again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use sesemi_attest::channel::{Connector, ExpectedService};
use sesemi_protocol::audit::AuditItem;
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::receipt::{Head, Point};
use sesemi_protocol::share::Share;
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, PrincipalId, RefusalCode, SigningIdentity, SystemEntropy,
};
use tokio::task::JoinHandle;

use crate::backup;
use crate::book::Book;
use crate::client::{Client, Outcome, Signed};
use crate::commands::{self, Cast};
use crate::error::CrashError;
use crate::findings::{Findings, Moment};
use crate::lab::{Lab, Programs};
use crate::lists;
use crate::process::{Announced, Running};
use crate::random::Random;

/// Owners and users of one round.
const CLIENTS: u64 = 6;
/// Longest that clients work between two kills, in milliseconds.
const LOAD: u64 = 250;
/// Longest wait for something that the service does on the disk.
const WATCH: Duration = Duration::from_secs(2);
/// Longest wait for an answer of a locked service.
const ANSWER: Duration = Duration::from_secs(10);

/// One service, its clients, and the book.
pub struct Round {
    lab: Lab,
    connector: Connector,
    clients: Vec<Client>,
    cast: Cast,
    book: Arc<Mutex<Book>>,
    random: Random,
    shares: BTreeMap<PrincipalId, Share>,
    /// How long starts take: kills during a start fall into that time.
    start: Duration,
    /// How many kills this round may still make.
    kills: u64,
}

impl core::fmt::Debug for Round {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Round").field(&self.lab).finish()
    }
}

impl Round {
    /// A round that makes up to `kills` kills, on a new machine.
    ///
    /// # Errors
    /// [`CrashError`].
    pub fn new(
        programs: &Programs,
        findings: Findings,
        mut random: Random,
        custodians: bool,
        kills: u64,
    ) -> Result<Self, CrashError> {
        let lab = Lab::new(programs)?;
        let identities = (0..CLIENTS).map(|_| SigningIdentity::generate(&SystemEntropy::new()));
        let identities: Vec<SigningIdentity> = identities.collect::<Result<_, _>>()?;
        let clients: Vec<Client> = identities.into_iter().map(Client::new).collect();
        let mut all: Vec<PrincipalId> = clients.iter().map(|client| client.id).collect();
        all.sort_unstable();
        let mut codes: Vec<CodeIdentityDigest> = (0u8..4)
            .map(|n| CodeIdentityDigest(*Digest::of(&[n]).as_bytes()))
            .collect();
        codes.sort_unstable();
        Ok(Self {
            connector: lab.principals()?,
            lab,
            clients,
            cast: Cast {
                all,
                codes,
                custodians,
            },
            book: Arc::new(Mutex::new(Book::new(findings))),
            random: random.fork(),
            shares: BTreeMap::new(),
            start: Duration::from_millis(100),
            kills,
        })
    }

    /// Plays the round.
    ///
    /// # Errors
    /// [`CrashError`]; what is wrong with the service's state is no error but a finding.
    pub async fn play(mut self) -> Result<Findings, CrashError> {
        for _ in 0..self.random.below(4) {
            self.kill_at_founding().await?;
        }
        while self.kills > 0 {
            let (running, announced) = self.serve().await?;
            self.load(running, &announced).await?;
            while self.kills > 0 && self.random.chance(25) {
                self.kill_at_start().await?;
            }
            if !self.shares.is_empty() && self.random.chance(12) {
                self.recover().await?;
            }
            if !lock(&self.book).findings.clean() {
                // What is wrong once would be found wrong for ever.
                return Ok(lock(&self.book).findings.clone());
            }
        }
        // The last word: everything, after the last kill and after an orderly end.
        for _ in 0..2 {
            let (running, _) = self.serve().await?;
            self.compare().await?;
            self.compare_lists(self.clients.len()).await?;
            self.disconnect();
            running.stop().await?;
        }
        let book = lock(&self.book);
        Ok(book.findings.clone())
    }

    fn killed(&mut self, moment: Moment) {
        lock(&self.book).findings.kills.add(moment);
        self.kills = self.kills.saturating_sub(1);
    }

    fn disconnect(&mut self) {
        self.clients.iter_mut().for_each(Client::disconnect);
    }

    /// Starts the service, connects everybody, and compares.
    async fn serve(&mut self) -> Result<(Running, Announced), CrashError> {
        let started = Instant::now();
        let mut running = Running::start(&self.lab)?;
        let announced = running.announced().await?;
        if announced.state != "open" {
            return Err(CrashError::Answer(format!(
                "that it is {}",
                announced.state
            )));
        }
        self.start = (self.start + started.elapsed()) / 2;
        lock(&self.book).findings.restarts += 1;
        self.reconnect(&announced).await?;
        self.compare().await?;
        Ok((running, announced))
    }

    async fn reconnect(&mut self, announced: &Announced) -> Result<(), CrashError> {
        let connector = &self.connector;
        let connecting = self
            .clients
            .iter_mut()
            .map(|client| client.connect(connector, announced.address));
        try_join_all(connecting).await.map(drop)
    }

    /// Reads the log on from where it was read before, as everybody who is registered may see it, and compares it with the book;
    /// then compares some lists; then sends once more what has no answer yet.
    async fn compare(&mut self) -> Result<(), CrashError> {
        // Nobody can ask before it is registered.
        for client in &mut self.clients {
            let known = lock(&self.book).guess.registered.contains(&client.id);
            if !known {
                send_again(client, &self.book).await?;
            }
        }
        let registered = lock(&self.book).guess.registered.clone();
        let from = lock(&self.book).verified;
        let mut clients = self.clients.iter_mut();
        let Some(anybody) = clients.find(|client| registered.contains(&client.id)) else {
            return Ok(());
        };
        let head = head(anybody).await?;
        let views = self
            .clients
            .iter_mut()
            .filter(|client| registered.contains(&client.id))
            .map(|client| view(client, from, head));
        let views = try_join_all(views).await?;
        lock(&self.book).compare(head, &views)?;
        self.collect_shares().await?;
        self.compare_lists(2).await?;
        for client in &mut self.clients {
            client.seen = head;
            send_again(client, &self.book).await?;
        }
        Ok(())
    }

    /// Compares what the service lists for so many clients.
    async fn compare_lists(&mut self, count: usize) -> Result<(), CrashError> {
        let first = self.random.place(self.clients.len());
        self.clients.rotate_left(first);
        let registered = lock(&self.book).expected.registered.clone();
        for client in self.clients.iter_mut().take(count) {
            if registered.contains(&client.id) {
                lists::compare(client, &self.book).await?;
            }
        }
        Ok(())
    }

    /// A custodian's share is the same whenever it asks.
    async fn collect_shares(&mut self) -> Result<(), CrashError> {
        let custodians = lock(&self.book).expected.custodians.clone();
        let Some((custodians, _)) = custodians else {
            return Ok(());
        };
        for client in &mut self.clients {
            if !custodians.contains(&client.id) {
                continue;
            }
            let QueryAnswer::Share(share) = client.ask(Question::Share).await? else {
                return Err(CrashError::Answer("something else than a share".into()));
            };
            let known = self
                .shares
                .entry(client.id)
                .or_insert_with(|| share.clone());
            if *known != share {
                let text = format!("the share of custodian {}", client.id.short());
                lock(&self.book).findings.lost(text);
            }
        }
        Ok(())
    }

    /// Lets everybody work, and kills the service at a random instant.
    async fn load(&mut self, running: Running, announced: &Announced) -> Result<(), CrashError> {
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<JoinHandle<Result<Client, CrashError>>> = self
            .clients
            .drain(..)
            .map(|client| {
                let (book, cast) = (self.book.clone(), self.cast.clone());
                let (random, stop) = (self.random.fork(), stop.clone());
                tokio::spawn(work(client, book, cast, random, stop))
            })
            .collect();
        let named = lock(&self.book).expected.custodians.is_some();
        // Custodians are named once, at the beginning: short times until then, so that kills fall there.
        let longest = if self.cast.custodians && !named {
            40
        } else {
            LOAD
        };
        let pause = Duration::from_millis(self.random.below(longest));
        let moment = match self.random.below(10) {
            0..2 => until_a_snapshot_is_written(self.lab.state().join("snapshots")).await,
            2..4 => {
                let begun = Arc::new(AtomicBool::new(false));
                let backup = tokio::spawn(backup::read(announced.admin, begun.clone()));
                tokio::time::sleep(pause / 4).await;
                let under_way = begun.load(Ordering::Relaxed) && !backup.is_finished();
                backup.abort();
                if under_way {
                    Moment::Backup
                } else {
                    Moment::Load
                }
            }
            _ => {
                tokio::time::sleep(pause).await;
                Moment::Load
            }
        };
        running.kill().await?;
        self.killed(moment);
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let mut client = worker.await??;
            client.disconnect();
            self.clients.push(client);
        }
        Ok(())
    }

    /// Starts the service and kills it before, or just after, it is ready.
    async fn kill_at_start(&mut self) -> Result<(), CrashError> {
        let running = Running::start(&self.lab)?;
        self.pause_within_a_start().await;
        running.kill().await?;
        self.killed(Moment::Start);
        Ok(())
    }

    /// Starts the service and kills it while it makes its files.
    async fn kill_at_founding(&mut self) -> Result<(), CrashError> {
        let running = Running::start(&self.lab)?;
        let log = self.lab.state().join("state.redb");
        until(move || log.exists()).await;
        tokio::time::sleep(Duration::from_micros(self.random.below(4_000))).await;
        running.kill().await?;
        self.killed(Moment::Start);
        Ok(())
    }

    async fn pause_within_a_start(&mut self) {
        let longest = u64::try_from(self.start.as_micros()).unwrap_or(100_000);
        let pause = Duration::from_micros(self.random.below(longest + longest / 5));
        tokio::time::sleep(pause).await;
    }

    /// Moves the state to another machine and has the custodians recover it, with some kills on the way.
    async fn recover(&mut self) -> Result<(), CrashError> {
        self.lab.move_to_new_machine()?;
        self.connector = self.lab.principals()?;
        let mut kills = self.random.below(4).min(self.kills);
        loop {
            let mut running = Running::start(&self.lab)?;
            let announced = running.announced().await?;
            if announced.state == "open" {
                // The kill before came after the end of the recovery.
                running.kill().await?;
                break;
            }
            let at_once = kills > 0 && self.random.chance(20);
            if at_once || !self.hand_in_shares(&announced, kills > 0).await? {
                running.kill().await?;
            } else if kills > 0 {
                self.pause_within_a_start().await;
                running.kill().await?;
            } else {
                let announced = running.announced().await?;
                if announced.state != "open" {
                    return Err(CrashError::Answer(announced.state));
                }
                running.kill().await?;
                break;
            }
            kills = kills.saturating_sub(1);
            self.killed(Moment::Recovery);
        }
        self.killed(Moment::Recovery);
        lock(&self.book).findings.recovered += 1;
        Ok(())
    }

    /// Hands in as many shares as are needed; `false` if it stopped before the last one.
    async fn hand_in_shares(
        &mut self,
        announced: &Announced,
        may_stop: bool,
    ) -> Result<bool, CrashError> {
        let custodians = lock(&self.book).expected.custodians.clone();
        let threshold = custodians.map_or(0, |(_, threshold)| usize::from(threshold));
        let first = self.random.place(self.shares.len());
        let shares = self.shares.values().cycle().skip(first).take(threshold);
        let shares: Vec<Share> = shares.cloned().collect();
        let connected = self
            .connector
            .connect(announced.address, ExpectedService::FirstContact)
            .await?;
        let mut channel = connected.channel;
        for (number, share) in (0u64..).zip(shares) {
            if may_stop && self.random.chance(15) {
                return Ok(false);
            }
            let body = CallBody::Unlock(share);
            channel.send(&Call { number, body }, ANSWER).await?;
            let reply: Option<Reply> = channel.receive(ANSWER).await?;
            match reply.map(|reply| reply.body) {
                Some(ReplyBody::Locked(_)) => {}
                other => return Err(CrashError::Answer(format!("{other:?} to a share"))),
            }
        }
        Ok(true)
    }
}

/// What one client does until the service is gone.
async fn work(
    mut client: Client,
    book: Arc<Mutex<Book>>,
    cast: Cast,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> Result<Client, CrashError> {
    while !stop.load(Ordering::Relaxed) && client.pending.is_none() {
        let (signed, action) = {
            let book = lock(&book);
            let (action, key) = commands::next(&book.guess, &cast, &client, &mut random)?;
            (client.sign(action.clone(), key)?, action)
        };
        lock(&book).send(client.id, &signed, action);
        submit(&mut client, &book, signed).await?;
    }
    Ok(client)
}

/// Sends what has no answer once more, and then again: the first may be carried out now, or long ago, the second gets the
/// same receipt.
pub(crate) async fn send_again(client: &mut Client, book: &Mutex<Book>) -> Result<(), CrashError> {
    let Some(signed) = client.pending.take() else {
        return Ok(());
    };
    lock(book).findings.repeated += 1;
    submit(client, book, signed.clone()).await?;
    if client.pending.is_none() && !lock(book).was_refused(&signed) {
        submit(client, book, signed).await?;
    }
    match client.pending {
        None => Ok(()),
        Some(_) => Err(CrashError::Answer("nothing to a command sent again".into())),
    }
}

pub(crate) async fn submit(
    client: &mut Client,
    book: &Mutex<Book>,
    signed: Signed,
) -> Result<(), CrashError> {
    match client.submit(&signed).await? {
        Outcome::Receipt(receipt, bytes) => {
            lock(book).acknowledge(&signed, &receipt, bytes);
            if receipt.state.point.sequence > client.seen.sequence {
                client.seen = receipt.state.point;
            }
        }
        Outcome::Refused(refusal) => match refusal.code {
            // It says that nothing was lost or gained by it only for these; whether it was carried out is open.
            RefusalCode::Internal | RefusalCode::Unwritable => client.pending = Some(signed),
            RefusalCode::StaleState => {
                let text = format!("the service refused a point it had acknowledged: {refusal}");
                lock(book).findings.chain_break(text);
            }
            code => lock(book).refuse(&signed, code),
        },
        Outcome::Behind(last) => {
            let text = format!("a command with number {last} of {}", client.id.short());
            lock(book).findings.phantom(text);
        }
        Outcome::Unknown(_) => client.pending = Some(signed),
    }
    Ok(())
}

/// The signed end of the log.
pub(crate) async fn head(client: &mut Client) -> Result<Point, CrashError> {
    let seen = Point::START;
    match client.call(CallBody::Status { seen }).await? {
        ReplyBody::Status(status) => {
            let head = Head::verify(&status.head, &client.service()?)?;
            Ok(head.state.point)
        }
        other => Err(CrashError::Answer(format!("{other:?} to a status"))),
    }
}

/// The log after `from` up to `head`, as one client sees it, and the point before it as the service says.
pub(crate) async fn view(
    client: &mut Client,
    from: Point,
    head: Point,
) -> Result<(Point, Vec<AuditItem>), CrashError> {
    let mut begins = from;
    let mut all = Vec::new();
    let mut after = from.sequence;
    while after < head.sequence {
        let of = client.id;
        let QueryAnswer::Audit { from: point, items } =
            client.ask(Question::Audit { of, after }).await?
        else {
            return Err(CrashError::Answer("something else than the log".into()));
        };
        if after == from.sequence {
            begins = point;
        }
        if items.is_empty() {
            break;
        }
        after += items.len() as u64;
        all.extend(items);
    }
    let most = usize::try_from(head.sequence.saturating_sub(from.sequence)).unwrap_or(usize::MAX);
    all.truncate(most);
    Ok((begins, all))
}

/// Waits until a snapshot has been begun and is not there yet.
async fn until_a_snapshot_is_written(folder: PathBuf) -> Moment {
    let begun = until(move || {
        let mut files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|it| it == "new"))
    });
    if begun.await {
        Moment::Snapshot
    } else {
        Moment::Load
    }
}

/// Waits for something that the service does on the disk and says nobody; `false` if it does not come.
async fn until(happens: impl Fn() -> bool + Send + 'static) -> bool {
    let watching = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        while begun.elapsed() < WATCH {
            if happens() {
                return true;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        false
    });
    watching.await.unwrap_or(false)
}

/// What is behind the lock is whole after every line.
pub(crate) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
