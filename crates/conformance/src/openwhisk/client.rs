//! OpenWhisk's official JavaScript client, fetched with npm, against the REST interface of a stack. `client.js` is the script that it
//! runs in.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use sesemi::in_one_line;
use sesemi_cli::stack::{IMAGE, Stack};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::party::Party;
use super::report::{Report, State};
use crate::Outcome;

const SUITE: &str = "client";
/// Package and version.
const PACKAGE: &str = "openwhisk@3.21.9";
/// npm's own digest of the package's archive.
const INTEGRITY: &str = "sha512-014HhcC9slwQRo/8Lugzu67azyhX+3YbUaQoN/+ladI4RuhKA4YtOtq5DL6UFDtKzU9iybyOXslKcQ20ESp4SQ==";
const SCRIPT: &str = include_str!("client.js");
/// Time for npm.
const FETCH: Duration = Duration::from_secs(300);
/// Time for a case.
const CASE: Duration = Duration::from_secs(180);
/// Most of what a program said that is repeated, in bytes.
const SAID: usize = 600;

/// A line of the script.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Case {
        case: String,
        passed: bool,
        detail: String,
    },
    Ready {
        #[serde(rename = "ready")]
        _ready: bool,
    },
    Served {
        response: String,
    },
    Failed {
        error: String,
    },
}

/// All cases of the client. If it cannot be had, that is said.
pub(super) async fn cases(
    stack: &Stack,
    party: &Party,
    folder: &Path,
    report: &mut Report,
) -> Outcome<()> {
    let folder = match fetch(folder).await {
        Ok(folder) => folder,
        Err(why) => {
            report.add(SUITE, "all of it", State::Skipped, why);
            return Ok(());
        }
    };
    let mut script = Script::start(stack, &folder)?;
    script.cases(report).await?;
    for number in 0..3 {
        let seen = party.infer(number, |sealed| script.carry(sealed)).await;
        let case = format!(
            "actions.invoke, blocking, result: sealed request {}",
            number + 1
        );
        report.tried(SUITE, &case, seen);
    }
    script.no_more_requests();
    script.cases(report).await?;
    report.tried(SUITE, "the client ends well", script.ended().await);
    Ok(())
}

/// Installs the package in a folder of its own; no code of any package runs at that.
async fn fetch(folder: &Path) -> Outcome<PathBuf> {
    let node = run(Command::new("node").arg("--version"), CASE).await;
    node.map_err(|why| format!("Node.js is needed for OpenWhisk's client: {why}"))?;
    let folder = folder.join("client");
    std::fs::create_dir_all(&folder).map_err(in_one_line)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(["--loglevel", "error", PACKAGE])
        .current_dir(&folder);
    let fetched = run(&mut npm, FETCH).await;
    fetched.map_err(|why| format!("npm cannot fetch {PACKAGE}: {why}"))?;
    let lock = folder.join("package-lock.json");
    let lock = std::fs::read_to_string(&lock).map_err(in_one_line)?;
    if !lock.contains(INTEGRITY) {
        return Err(format!(
            "the registry has another {PACKAGE} than the pinned one"
        ));
    }
    std::fs::write(folder.join("client.js"), SCRIPT).map_err(in_one_line)?;
    Ok(folder)
}

/// Runs a program to its end; what it said if that was not a good one.
async fn run(command: &mut Command, limit: Duration) -> Outcome<()> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(limit, command.output()).await;
    let output = output.map_err(|_| format!("it did not end within {} s", limit.as_secs()))?;
    let output = output.map_err(in_one_line)?;
    if output.status.success() {
        return Ok(());
    }
    let said = output.stderr.get(..output.stderr.len().min(SAID));
    Err(String::from_utf8_lossy(said.unwrap_or_default())
        .trim()
        .to_owned())
}

/// The running script.
struct Script {
    lines: Lines<BufReader<ChildStdout>>,
    requests: Option<ChildStdin>,
    process: Child,
}

impl Script {
    fn start(stack: &Stack, folder: &Path) -> Outcome<Self> {
        let facts = &stack.facts;
        let (host, auth) = facts
            .openwhisk
            .as_ref()
            .zip(facts.openwhisk_auth.as_ref())
            .ok_or("the stack has no REST interface")?;
        let key = std::fs::read_to_string(auth).map_err(in_one_line)?;
        let mut process = Command::new("node")
            .arg("client.js")
            .current_dir(folder)
            .env("CONFORMANCE_HOST", host)
            .env("CONFORMANCE_KEY", key.trim())
            .env("CONFORMANCE_IMAGE", IMAGE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(in_one_line)?;
        let out = process.stdout.take().ok_or("there is no standard output")?;
        Ok(Self {
            lines: BufReader::new(out).lines(),
            requests: process.stdin.take(),
            process,
        })
    }

    async fn line(&mut self) -> Outcome<Option<Line>> {
        let line = timeout(CASE, self.lines.next_line()).await;
        let line = line.map_err(|_| format!("the client said nothing for {} s", CASE.as_secs()))?;
        let Some(line) = line.map_err(in_one_line)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_str(&line);
        parsed
            .map(Some)
            .map_err(|_| format!("the client said: {line}"))
    }

    /// Cases until the script is ready for requests, or has ended.
    async fn cases(&mut self, report: &mut Report) -> Outcome<()> {
        loop {
            match self.line().await? {
                Some(Line::Case {
                    case,
                    passed,
                    detail,
                }) => {
                    let seen = if passed { Ok(detail) } else { Err(detail) };
                    report.tried(SUITE, &case, seen);
                }
                Some(Line::Ready { .. }) | None => return Ok(()),
                Some(other) => return Err(format!("the client said {other:?}")),
            }
        }
    }

    /// A sealed request by way of the client.
    async fn carry(&mut self, sealed: Vec<u8>) -> Outcome<Vec<u8>> {
        let requests = self.requests.as_mut().ok_or("the client has ended")?;
        let line = format!("{}\n", BASE64.encode(sealed));
        let sent = requests.write_all(line.as_bytes()).await;
        sent.map_err(in_one_line)?;
        match self.line().await? {
            Some(Line::Served { response }) => BASE64.decode(response).map_err(in_one_line),
            Some(Line::Failed { error }) => Err(error),
            other => Err(format!("the client said {other:?}")),
        }
    }

    fn no_more_requests(&mut self) {
        self.requests = None;
    }

    /// A script that broke off has not said what it did not try.
    async fn ended(mut self) -> Outcome<String> {
        let ended = timeout(CASE, self.process.wait()).await;
        let status = ended.map_err(|_| "it does not end".to_owned())?;
        let status = status.map_err(in_one_line)?;
        if status.success() {
            return Ok(status.to_string());
        }
        Err(status.to_string())
    }
}
