//! OpenWhisk's cases for action containers, asked of a SeMIRT in the simulated TEE: those of `BasicActionRunnerTests`, by their names
//! there, and what its documentation of the action interface says of answers and logs.

#![allow(
    clippy::indexing_slicing,
    reason = "of JSON alone, which is null where nothing is"
)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sesemi::in_one_line;
use sesemi_cli::stack::Stack;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::message::{Message, post};
use super::party::Party;
use super::report::{Report, State};
use crate::Outcome;

const SUITE: &str = "container";
/// What the invoker looks for on both output streams when an activation has ended.
const END: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";
/// Time for a start, and for a line to be printed.
const LIMIT: Duration = Duration::from_secs(60);

/// A SeMIRT that nobody initialised yet.
struct Container {
    address: SocketAddr,
    /// Marks seen on standard output and standard error.
    marks: [Arc<Mutex<usize>>; 2],
    /// Runs that were answered.
    runs: usize,
    _process: Child,
}

/// Tries all cases, in an order in which each finds the container as it needs it.
pub(super) async fn cases(stack: &Stack, party: &Party, report: &mut Report) -> Outcome<()> {
    let mut it = Container::start(stack).await?;
    report.tried(
        SUITE,
        "no code: an image that needs none is ready",
        it.init().await,
    );
    report.tried(
        SUITE,
        "init more than once: 403 with an error",
        it.init_again().await,
    );
    let not_json = "its answers are all its own";
    report.add(
        SUITE,
        "a result that is not JSON",
        State::NotApplicable,
        not_json,
    );
    report.tried(
        SUITE,
        "no content: refused, and lives on",
        it.no_content().await,
    );
    report.tried(
        SUITE,
        "echo: a sealed request is answered",
        it.echo(party).await,
    );
    report.tried(
        SUITE,
        "echo unicode: beside and as the request",
        it.unicode(party).await,
    );
    report.tried(
        SUITE,
        "environment before init: accepted",
        Container::environment(stack, party).await,
    );
    report.tried(
        SUITE,
        "environment per run: told anew each time",
        it.per_run(party).await,
    );
    report.tried(
        SUITE,
        "a deadline that has passed: refused",
        it.too_late(party).await,
    );
    report.tried(SUITE, "echo above 1 MB: read whole", it.large().await);
    report.tried(SUITE, "several runs at once", it.at_once(party).await);
    report.tried(
        SUITE,
        "logs: the mark after each run on both streams",
        it.marks().await,
    );
    Ok(())
}

impl Container {
    async fn start(stack: &Stack) -> Outcome<Self> {
        let mut command = stack.instance().map_err(in_one_line)?;
        command
            .env("RTEN_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(in_one_line)?;
        let out = process.stdout.take().ok_or("there is no standard output")?;
        let err = process.stderr.take().ok_or("there is no standard error")?;
        let mut out = BufReader::new(out).lines();
        let listening = async {
            loop {
                let line = out.next_line().await.map_err(in_one_line)?;
                let line = line.ok_or("SeMIRT ended before it listened")?;
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = event["address"].as_str() {
                    return address.parse().map_err(in_one_line);
                }
            }
        };
        let address: Outcome<SocketAddr> = timeout(LIMIT, listening)
            .await
            .map_err(|_| "SeMIRT did not start in time".to_owned())?;
        Ok(Self {
            address: address?,
            marks: [count(out.into_inner()), count(BufReader::new(err))],
            runs: 0,
            _process: process,
        })
    }

    /// As OpenWhisk does it for an image: with nothing to run.
    async fn init(&self) -> Outcome<String> {
        let value = json!({"name": "semirt", "main": "main", "binary": false, "code": "", "env": environment("0.0.1")});
        let answer = post_json(self.address, "/init", &json!({ "value": value })).await?;
        match answer.status() {
            200 => Ok("200".to_owned()),
            other => Err(format!("status {other}")),
        }
    }

    async fn init_again(&self) -> Outcome<String> {
        let answer = post_json(self.address, "/init", &json!({"value": {}})).await?;
        let body = answer.object()?;
        match (answer.status(), body["error"].as_str()) {
            (403, Some(error)) => Ok(format!("403: {error}")),
            (status, _) => Err(format!("status {status}: {body}")),
        }
    }

    async fn no_content(&mut self) -> Outcome<String> {
        let mut seen = Vec::new();
        for body in ["", "{}", "{\"value\":{}}", "{\"value\":[]}", "not json"] {
            let answer = post(self.address, "/run", body.as_bytes()).await?;
            self.runs += 1;
            seen.push(refused(&answer)?);
        }
        seen.dedup();
        Ok(format!("200 with the error {}", seen.join(", ")))
    }

    async fn echo(&mut self, party: &Party) -> Outcome<String> {
        self.sealed(party, 0, json!({})).await
    }

    async fn unicode(&mut self, party: &Party) -> Outcome<String> {
        let beside = json!({"delimiter": "❄", "κλειδί": "☃ ❄ ☃"});
        let served = self.sealed(party, 1, beside).await?;
        let answer = self.run(json!({"request": "☃"}), far(), "0.0.1").await?;
        refused(&answer)?;
        Ok(served)
    }

    /// An environment with everything that a text can have, on a container of its own.
    async fn environment(stack: &Stack, party: &Party) -> Outcome<String> {
        let mut it = Self::start(stack).await?;
        let mut env = environment("0.0.1");
        env["SOME_VAR"] = json!("xyz ☃ \"\\\n");
        env["ANOTHER_VAR"] = json!("");
        let value =
            json!({"name": "semirt", "main": "main", "binary": false, "code": "", "env": env});
        let answer = post_json(it.address, "/init", &json!({ "value": value })).await?;
        if answer.status() != 200 {
            return Err(format!("status {}", answer.status()));
        }
        it.sealed(party, 2, json!({})).await
    }

    async fn per_run(&mut self, party: &Party) -> Outcome<String> {
        let mut seen = String::new();
        for number in 0..2 {
            let version = format!("0.0.{}", number + 2);
            let (address, runs) = (self.address, &mut self.runs);
            seen = party
                .infer(number, async |sealed| {
                    let value = json!({"request": BASE64.encode(sealed)});
                    let answer = post_json(address, "/run", &run(value, far(), &version)).await?;
                    *runs += 1;
                    response(&answer)
                })
                .await?;
        }
        Ok(seen)
    }

    async fn too_late(&mut self, party: &Party) -> Outcome<String> {
        let mut seen = None;
        let address = self.address;
        let outcome = party
            .infer(3, async |sealed| {
                let value = json!({"request": BASE64.encode(sealed)});
                let answer =
                    post_json(address, "/run", &run(value, json!("1000"), "0.0.1")).await?;
                seen = Some(refused(&answer));
                Err("it was refused".to_owned())
            })
            .await;
        self.runs += 1;
        match (seen, outcome) {
            (Some(Ok(code)), _) if code == "deadline_exceeded" => Ok(code),
            (Some(other), _) => Err(format!("{other:?}")),
            (None, outcome) => Err(format!("{outcome:?}")),
        }
    }

    /// Not sealed, so that it is refused: after it was read and decoded, and not for its size.
    async fn large(&mut self) -> Outcome<String> {
        let request = BASE64.encode(vec![0xd0; 1_200_000]);
        let length = request.len();
        let answer = self
            .run(json!({"request": request}), far(), "0.0.1")
            .await?;
        let code = refused(&answer)?;
        if answer.object()?.to_string().contains("too long") {
            return Err("it was refused for its length".to_owned());
        }
        Ok(format!("{length} bytes read, refused as {code}"))
    }

    async fn at_once(&mut self, party: &Party) -> Outcome<String> {
        let address = self.address;
        let carry = |sealed: Vec<u8>| async move {
            let value = json!({"request": BASE64.encode(sealed)});
            response(&post_json(address, "/run", &run(value, far(), "0.0.1")).await?)
        };
        let outcomes = tokio::join!(
            party.infer(0, carry),
            party.infer(1, carry),
            party.infer(2, carry),
            party.infer(3, carry)
        );
        self.runs += 4;
        let (one, two, three, four) = outcomes;
        one?;
        two?;
        three?;
        Ok(format!("4 at once; the last was {}", four?))
    }

    async fn marks(&self) -> Outcome<String> {
        let began = Instant::now();
        loop {
            let seen = self.marks.each_ref().map(|marks| *lock(marks));
            if seen == [self.runs; 2] {
                return Ok(format!("{} of them", self.runs));
            }
            if began.elapsed() > LIMIT || seen.iter().any(|seen| *seen > self.runs) {
                return Err(format!("{seen:?} after {} runs", self.runs));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn run(&mut self, value: Value, deadline: Value, version: &str) -> Outcome<Message> {
        self.runs += 1;
        post_json(self.address, "/run", &run(value, deadline, version)).await
    }

    /// A user's sealed request, with something beside it.
    async fn sealed(&mut self, party: &Party, number: usize, beside: Value) -> Outcome<String> {
        let it = &mut *self;
        party
            .infer(number, async move |sealed| {
                let mut value = beside.clone();
                value["request"] = BASE64.encode(sealed).into();
                let answer = it.run(value, far(), "0.0.1").await?;
                response(&answer)
            })
            .await
    }
}

/// A body of `/run`, as an invoker makes it.
fn run(value: Value, deadline: Value, version: &str) -> Value {
    json!({
        "value": value,
        "namespace": "guest",
        "action_name": "/guest/semirt",
        "action_version": version,
        "activation_id": format!("{:032x}", u128::from(std::process::id())),
        "transaction_id": "conformance",
        "deadline": deadline,
    })
}

fn environment(version: &str) -> Value {
    json!({
        "__OW_NAMESPACE": "guest",
        "__OW_ACTION_NAME": "/guest/semirt",
        "__OW_ACTION_VERSION": version,
        "__OW_ACTIVATION_ID": "00000000000000000000000000000001",
        "__OW_TRANSACTION_ID": "conformance",
        "__OW_DEADLINE": far(),
    })
}

/// A minute from now, as OpenWhisk writes it.
fn far() -> Value {
    let deadline = UNIX_EPOCH.elapsed().unwrap_or_default() + LIMIT;
    json!(deadline.as_millis().to_string())
}

async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Outcome<Message> {
    post(address, path, body.to_string().as_bytes()).await
}

/// The code of a refusal. It has status 200, so that the container lives on.
fn refused(answer: &Message) -> Outcome<String> {
    let body = answer.object()?;
    match (answer.status(), body["error"]["code"].as_str()) {
        (200, Some(code)) => Ok(code.to_owned()),
        (status, _) => Err(format!("status {status}: {body}")),
    }
}

/// The sealed bytes of an answer.
fn response(answer: &Message) -> Outcome<Vec<u8>> {
    let body = answer.object()?;
    match (answer.status(), body["response"].as_str()) {
        (200, Some(text)) => BASE64.decode(text).map_err(in_one_line),
        (status, _) => Err(format!("status {status}: {body}")),
    }
}

/// Counts the marks on a stream for as long as it is open.
fn count(stream: BufReader<impl AsyncRead + Unpin + Send + 'static>) -> Arc<Mutex<usize>> {
    let marks = Arc::new(Mutex::new(0));
    let seen = marks.clone();
    tokio::spawn(async move {
        let mut lines = stream.lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == END {
                *lock(&seen) += 1;
            }
        }
    });
    marks
}

fn lock(marks: &Mutex<usize>) -> std::sync::MutexGuard<'_, usize> {
    marks.lock().unwrap_or_else(PoisonError::into_inner)
}
