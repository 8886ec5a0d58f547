//! Opening a state, each time in a process of its own: after an orderly end, and after SIGKILL in the middle of commands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sesemi_keyservice::metrics::Metrics;
use sesemi_protocol::SigningIdentity;

use super::build::State;
use crate::enclave::Lab;
use crate::error::BenchError;
use crate::figures::Samples;
use crate::service::{Principal, open, order, setup};

/// Commands after the snapshot, before the kill.
const COMMANDS: usize = 500;

/// What a process that opened a state says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// How long it took.
    seconds: f64,
    /// The memory that the process has then, in bytes.
    memory: f64,
}

pub(super) fn measure(
    lab: &Lab,
    few: &State,
    many: &State,
    rounds: usize,
) -> Result<Vec<Samples>, BenchError> {
    let (mut clean, mut killed, mut memory) = (vec![], vec![], vec![]);
    for _ in 0..rounds {
        let (of_few, process) = started(lab, few, false)?;
        end(process)?;
        let (of_many, process) = started(lab, many, false)?;
        end(process)?;
        clean.push(of_many.seconds);
        let more = (many.shape.grants - few.shape.grants) as f64;
        memory.push((of_many.memory - of_few.memory) / more);
        let (_, mut process) = started(lab, many, true)?;
        process.kill()?;
        process.wait()?;
        let (after_kill, process) = started(lab, many, false)?;
        killed.push(after_kill.seconds);
        end(process)?;
    }
    Ok(vec![
        Samples::new("keyservice.startup_s", "s", clean).at_most(5.0),
        Samples::new("keyservice.startup_after_kill_s", "s", killed),
        Samples::new("keyservice.memory_bytes_per_grant", "bytes", memory),
    ])
}

/// A process that has opened the state, and, if asked, has carried out some commands.
fn started(lab: &Lab, state: &State, work: bool) -> Result<(Opened, Child), BenchError> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("keyservice-start")
        .arg("--machine")
        .arg(&lab.machine)
        .arg("--state")
        .arg(state.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if work {
        command.arg("--work");
    }
    let mut child = command.spawn()?;
    let stdout = child
        .stdout
        .take()
        .ok_or(BenchError::Unexpected("a process has no output"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let opened = serde_json::from_str(&line).map_err(std::io::Error::other)?;
    Ok((opened, child))
}

/// The orderly end.
fn end(mut process: Child) -> Result<(), BenchError> {
    drop(process.stdin.take());
    if process.wait()?.success() {
        Ok(())
    } else {
        Err(BenchError::Unexpected("KeyService did not end in order"))
    }
}

/// The other process: opens the state, says how long it took, and waits for the end of its input.
pub(crate) fn child(machine: &Path, folder: &Path, work: bool) -> Result<(), BenchError> {
    let lab = Lab::existing(machine)?;
    let setup = setup(&lab, folder)?;
    let started = Instant::now();
    let service = open(&lab, &setup, Metrics::new())?;
    let opened = Opened {
        seconds: started.elapsed().as_secs_f64(),
        memory: memory()?,
    };
    let service = std::sync::Arc::new(service);
    if work {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            for _ in 0..COMMANDS {
                let identity = SigningIdentity::generate(&*lab.entropy)?;
                let mut principal = Principal::new(identity, service.id());
                order(&service, principal.register()?, None).await?;
            }
            Ok::<_, BenchError>(())
        })?;
    }
    let json = serde_json::to_string(&opened).map_err(std::io::Error::other)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{json}")?;
    stdout.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    if let Some(service) = std::sync::Arc::into_inner(service) {
        service.stop();
    }
    Ok(())
}

/// Resident memory of this process, in bytes.
fn memory() -> Result<f64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0)
        .ok_or(BenchError::Unexpected("the kernel does not say VmRSS"))
}
