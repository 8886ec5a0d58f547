//! One process of the stack: started, waited for until it says where it listens, drained, and never left behind.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child as Process, Command};
use tokio::time::timeout;

/// Longest line in which a part says where it listens.
const MAX_LINE: u64 = 4096;

/// Why a part of the stack does not run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A binary is missing.
    #[error(
        "the binary {0} is missing; build all of them with `cargo xtask build`, or name their folder with --bin-dir"
    )]
    NoBinary(PathBuf),
    /// A file or folder cannot be used.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// A program cannot be started.
    #[error("cannot start {0}")]
    Start(&'static str, #[source] std::io::Error),
    /// A part ended before it listened, or by itself.
    #[error("{name} ended by itself ({status}); its log is {log}:\n{tail}")]
    Ended {
        /// Which part.
        name: &'static str,
        /// How.
        status: ExitStatus,
        /// Where it wrote why.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// A part did not listen in time.
    #[error("{name} did not start within {seconds} s; its log is {log}")]
    TooSlow {
        /// Which part.
        name: &'static str,
        /// How long it had.
        seconds: u64,
        /// Where it wrote why.
        log: PathBuf,
    },
    /// A part did not stop when asked and was killed.
    #[error("{0} did not stop in time and was killed")]
    Killed(&'static str),
    /// A helper program failed.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// A program answered something unexpected.
    #[error("{0} answered something unexpected; are all binaries of one build?")]
    Answer(&'static str),
}

/// A running part.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
    announced: serde_json::Value,
    log: PathBuf,
}

impl Child {
    /// Starts a part; its standard error goes to `log`. Returns once it said where it listens.
    ///
    /// # Errors
    /// [`StackError`].
    pub async fn start(
        name: &'static str,
        mut command: Command,
        log: &Path,
        limit: Duration,
    ) -> Result<Self, StackError> {
        let unusable = |e| StackError::File(log.to_owned(), e);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(unusable)?;
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Its own group: Ctrl-C at the terminal reaches us alone, and we drain it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| StackError::Start(name, e))?;
        let mut lines = BufReader::new(process.stdout.take().ok_or(StackError::Answer(name))?);
        let mut line = String::new();
        let read = timeout(limit, (&mut lines).take(MAX_LINE).read_line(&mut line)).await;
        let mut child = Self {
            name,
            process,
            announced: serde_json::from_str(&line).unwrap_or_default(),
            log: log.to_owned(),
        };
        match read {
            Err(_) => Err(StackError::TooSlow {
                name,
                seconds: limit.as_secs(),
                log: child.log.clone(),
            }),
            Ok(_) if child.announced.is_null() => Err(child.ended().await),
            Ok(_) => {
                // Whatever it still prints is read and forgotten, so that it never blocks on a full pipe.
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut lines, &mut tokio::io::sink()).await;
                });
                Ok(child)
            }
        }
    }

    /// A text of the line in which it said where it listens.
    ///
    /// # Errors
    /// [`StackError::Answer`] if it said nothing of the kind.
    pub fn text(&self, field: &str) -> Result<String, StackError> {
        self.announced
            .get(field)
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned)
            .ok_or(StackError::Answer(self.name))
    }

    /// Returns when it ends by itself.
    pub async fn ended(&mut self) -> StackError {
        match self.process.wait().await {
            Err(error) => StackError::Start(self.name, error),
            Ok(status) => StackError::Ended {
                name: self.name,
                status,
                log: self.log.clone(),
                tail: tail(&self.log),
            },
        }
    }

    /// Kills the process that announced itself (the one inside the simulated TEE) with SIGKILL, and waits for its launcher.
    ///
    /// # Errors
    /// [`StackError::Answer`] if it never said its process id.
    pub async fn kill_announced(&mut self) -> Result<(), StackError> {
        let pid = self
            .announced
            .get("pid")
            .and_then(serde_json::Value::as_i64)
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .ok_or(StackError::Answer(self.name))?;
        kill_process(pid, Signal::KILL).map_err(|e| StackError::Start(self.name, e.into()))?;
        let _ = self.ended().await;
        Ok(())
    }

    /// Asks it to stop with SIGTERM and waits; kills it after `limit`.
    ///
    /// # Errors
    /// [`StackError::Killed`], or [`StackError::Ended`] if it ended with an error.
    pub async fn stop(&mut self, limit: Duration) -> Result<(), StackError> {
        let pid = self
            .process
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // If it is gone already, waiting says so.
            let _ = kill_process(pid, Signal::TERM);
        }
        match timeout(limit, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.ended().await),
            Err(_) => {
                let _ = self.process.kill().await;
                Err(StackError::Killed(self.name))
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Checks that a helper program ended well.
///
/// # Errors
/// [`StackError::Failed`] with what it wrote to standard error.
pub(super) fn check(
    output: std::io::Result<Output>,
    program: &'static str,
) -> Result<Output, StackError> {
    let output = output.map_err(|e| StackError::Start(program, e))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(StackError::Failed {
        program,
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The standard output of a helper program.
pub(super) async fn output(command: &mut Command) -> Result<Vec<u8>, StackError> {
    Ok(check(command.output().await, "simtee measure")?.stdout)
}
