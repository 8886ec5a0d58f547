//! Instances of SeMIRT: the deployed program as a simulated enclave, started as the simulated platform starts it.
//!
//! A process of its own launches them ([`launcher`]), as a platform's host does: it holds nothing else, so that what this process has in
//! memory does not have to be copied at each start. It measures the program once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use sesemi_protocol::{CodeIdentityDigest, Digest};
use sesemi_simtee::{Image, Machine};

use super::engine::Chosen;
use crate::error::BenchError;

/// Longest wait for an instance.
const START: Duration = Duration::from_secs(60);
/// The line that ends all instances.
const STOP: &str = "\"stop\"";

/// The process that launches.
pub(crate) struct Launcher {
    process: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// The instances' code identity.
    pub(crate) code: CodeIdentityDigest,
}

/// A running instance.
pub(crate) struct Instance {
    /// `http://HOST:PORT`.
    pub(crate) gateway: String,
    pub(crate) pid: u64,
}

impl Launcher {
    pub(crate) fn start(chosen: &Chosen, machine: &Path) -> Result<Self, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("launcher").arg("--machine").arg(machine);
        command.arg("--semirt").arg(&chosen.semirt);
        if let Some(library) = &chosen.library {
            command.arg("--library").arg(library);
        }
        // What an instance logs at its start is work of a start, but nobody wants to read it twenty times.
        command.env("SESEMI_LOG", "warn");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take();
        let output = process.stdout.take();
        let output = output.ok_or(BenchError::Unexpected("the launcher has no output"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let read = serde_json::from_str(&line).unwrap_or_default();
                if sender.send(read).is_err() {
                    break;
                }
            }
        });
        let mut launcher = Self {
            process,
            orders,
            lines,
            code: CodeIdentityDigest([0; 32]),
        };
        let ready = launcher.wait_for("ready")?;
        let code = ready
            .get("code")
            .and_then(Value::as_str)
            .and_then(|it| it.parse().ok());
        let code: Digest = code.ok_or(BenchError::Unexpected("the launcher names no code"))?;
        launcher.code = CodeIdentityDigest(code.0);
        Ok(launcher)
    }

    /// Starts an instance, and returns once it listens.
    pub(crate) fn launch(&mut self, arguments: &[String]) -> Result<Instance, BenchError> {
        self.order(&json!(arguments).to_string())?;
        let announced = self.wait_for("listening")?;
        let address = announced.get("address").and_then(Value::as_str);
        let pid = announced.get("pid").and_then(Value::as_u64);
        let (address, pid) = address.zip(pid).ok_or(BenchError::Unexpected(
            "SeMIRT does not say where it listens",
        ))?;
        Ok(Instance {
            gateway: format!("http://{address}"),
            pid,
        })
    }

    /// Ends all instances.
    pub(crate) fn stop_all(&mut self) -> Result<(), BenchError> {
        self.order(STOP)?;
        self.wait_for("stopped").map(drop)
    }

    fn order(&mut self, line: &str) -> Result<(), BenchError> {
        let orders = self.orders.as_mut();
        let orders = orders.ok_or(BenchError::Unexpected("the launcher has no input"))?;
        Ok(writeln!(orders, "{line}").and_then(|()| orders.flush())?)
    }

    fn wait_for(&self, event: &'static str) -> Result<Value, BenchError> {
        loop {
            let line = self.lines.recv_timeout(START).map_err(|_| {
                BenchError::Unexpected("SeMIRT did not start or end in time, see above")
            })?;
            if line.get("event").is_some_and(|it| it == event) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of its input ends it, and its instances with it.
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}

/// That process: starts an instance for each line of arguments, until its input ends.
pub(crate) fn launcher(
    machine: &Path,
    semirt: &Path,
    library: Option<&Path>,
) -> Result<(), BenchError> {
    let machine = Arc::new(Machine::load(machine)?);
    let mut image = Image::load(semirt)?;
    if let Some(library) = library {
        image = image.with_library(library)?;
    }
    let code = sesemi_testkit::enclave::code(&machine, image.measurement());
    say(&json!({"event": "ready", "code": code.to_string()}))?;
    let mut running = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line == STOP {
            running.clear();
            say(&json!({"event": "stopped"}))?;
            continue;
        }
        let arguments: Vec<String> = serde_json::from_str(&line).map_err(std::io::Error::other)?;
        running.push(image.launch(machine.clone(), arguments)?);
    }
    Ok(())
}

fn say(event: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{event}")?;
    out.flush()
}
