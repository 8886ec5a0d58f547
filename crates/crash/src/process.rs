//! One life of KeyService: started in the simulated TEE, listened to, killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::{CrashError, io};
use crate::lab::Lab;

/// Longest that a start may take.
const START: Duration = Duration::from_secs(60);
/// Longest that the end of a killed process may take.
const END: Duration = Duration::from_secs(20);
/// Entries between two snapshots: few, so that kills fall into them.
pub const SNAPSHOT_EVERY: u64 = 200;

/// What KeyService says when it listens.
#[derive(Debug, Clone, Deserialize)]
pub struct Announced {
    /// `open`, or `locked`.
    pub state: String,
    /// For attested channels.
    pub address: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
    /// The service's id.
    pub service: String,
    /// Its process.
    pub pid: i32,
}

/// A running KeyService.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Pid,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Running {
    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// [`CrashError::Io`].
    pub fn start(lab: &Lab) -> Result<Self, CrashError> {
        Self::start_by(lab, Command::new(&lab.programs.simtee))
    }

    /// Starts it through a launcher that ends in `exec simtee "$@"`.
    ///
    /// # Errors
    /// [`CrashError::Io`].
    pub fn start_by(lab: &Lab, mut command: Command) -> Result<Self, CrashError> {
        let public = lab.machine_folder().join("public");
        let log = lab.log();
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(io(log.display()))?;
        command
            .args(["run", "--die-with-parent", "--state"])
            .arg(lab.machine_folder())
            .arg("--")
            .arg(&lab.programs.keyservice)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(["--commands-per-second", "1000000"])
            .args(["--connections-per-second", "1000000"])
            .args(["--strangers-per-second", "1000000"])
            .args(["--connections-per-address", "1024"])
            .args(["--snapshot-every", &SNAPSHOT_EVERY.to_string()])
            .arg("--state")
            .arg(lab.state())
            .arg("--simulated-root")
            .arg(public.join("root.der"))
            .arg("--endorsements")
            .arg(public.join("collateral.json"))
            .env("SESEMI_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // A group of its own, so that it can be killed as a whole and nothing else is.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(io("simtee"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (Some(group), Some(stdout)) = (group, child.stdout.take()) else {
            return Err(CrashError::Answer("nothing: it ended at once".into()));
        };
        Ok(Self {
            child,
            group,
            lines: BufReader::new(stdout).lines(),
            log,
        })
    }

    /// Waits until it says where it listens, which it does again once custodians have unlocked it.
    ///
    /// # Errors
    /// [`CrashError::Ended`] if it ended instead, with its last words; [`CrashError::TooSlow`].
    pub async fn announced(&mut self) -> Result<Announced, CrashError> {
        let line = timeout(START, self.lines.next_line()).await;
        match line {
            Err(_) => Err(CrashError::TooSlow {
                seconds: START.as_secs(),
                tail: tail(&self.log),
            }),
            Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|_| CrashError::Answer(line)),
            Ok(_) => Err(CrashError::Ended {
                when: "before it listened",
                tail: tail(&self.log),
            }),
        }
    }

    /// SIGKILL, and waits until nothing of it is left. The launcher is killed, and the kernel kills the enclave with it, as
    /// it would at the end of a machine.
    ///
    /// # Errors
    /// [`CrashError::Survived`].
    pub async fn kill(mut self) -> Result<(), CrashError> {
        // It may have ended by itself.
        let _ = kill_process_group(self.group, Signal::KILL);
        self.end().await
    }

    /// SIGTERM, and waits for the orderly end.
    ///
    /// # Errors
    /// [`CrashError::Survived`].
    pub async fn stop(mut self) -> Result<(), CrashError> {
        let _ = kill_process_group(self.group, Signal::TERM);
        self.end().await
    }

    async fn end(&mut self) -> Result<(), CrashError> {
        let ended = async {
            let _ = self.child.wait().await;
            // The enclave has the other end of this pipe: it is gone when the pipe ends.
            while let Ok(Some(_)) = self.lines.next_line().await {}
        };
        let ended = timeout(END, ended).await;
        ended.map_err(|_| CrashError::Survived(self.log.clone()))
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    lines.get(from..).unwrap_or_default().join("\n")
}
