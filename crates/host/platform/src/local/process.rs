//! One process of an instance: started with nothing of the host's in its environment, watched, and ended for certain.
//!
//! A launcher may start the program as a child of its own, so that each instance gets a process group and every signal
//! goes to the whole group. The group's leader is always waited for: no zombies.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::output::{Log, drain};
use crate::{Program, StartFailure};

/// A killed process that is not gone by then hangs in the kernel, and waiting longer does not help.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Time for the last output of a process that has ended.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);

/// A process group of one instance. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    address: Option<oneshot::Receiver<SocketAddr>>,
    readers: Vec<AbortOnDropHandle<()>>,
}

impl Process {
    /// Starts `launcher binary args`, and drains its output into the logs.
    pub(super) fn spawn(
        launcher: &[std::ffi::OsString],
        program: &Program,
        [stdout_log, stderr_log]: [Log; 2],
    ) -> Result<Self, StartFailure> {
        let mut words = launcher
            .iter()
            .map(|word| word.as_os_str())
            .chain([program.binary.as_os_str()]);
        // The chain has at least the binary.
        let mut command = Command::new(words.next().unwrap_or(program.binary.as_os_str()));
        command.args(words).args(&program.args).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .envs(&program.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(StartFailure::Spawn)?;
        let group = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let (announce, address) = oneshot::channel();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(AbortOnDropHandle::new(tokio::spawn(drain(
                stdout,
                stdout_log,
                Some(announce),
            ))));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(AbortOnDropHandle::new(tokio::spawn(drain(
                stderr, stderr_log, None,
            ))));
        }
        Ok(Self {
            child,
            group,
            address: Some(address),
            readers,
        })
    }

    /// The process of the launcher.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the line that says where the instance listens.
    pub(super) async fn address(&mut self) -> Result<SocketAddr, StartFailure> {
        let announced = match self.address.take() {
            Some(address) => address.await.ok(),
            None => None,
        };
        match announced {
            // Only this host may reach an instance, and no instance may send the host elsewhere.
            Some(address) if address.ip().is_loopback() && address.port() != 0 => Ok(address),
            Some(_) => Err(StartFailure::ForeignAddress),
            // Its output ended, so it has ended or is about to.
            None => Err(StartFailure::Exited(
                self.ended().await.map_err(StartFailure::Watch)?,
            )),
        }
    }

    /// Waits for the process to end by itself.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // Its children do not outlive it. The group exists as long as one of them does, so its number means them.
        self.signal(Signal::KILL);
        self.group = None;
        Ok(status)
    }

    /// Asks the group to end, insists after `grace` or when `halt` says so, and returns when it is gone.
    pub(super) async fn stop(mut self, grace: Duration, halt: &CancellationToken) {
        self.signal(Signal::TERM);
        let gone = tokio::select! {
            ended = timeout(grace, self.ended()) => ended.is_ok_and(|ended| ended.is_ok()),
            () = halt.cancelled() => false,
        };
        if !gone {
            self.signal(Signal::KILL);
            if timeout(KILL_WAIT, self.ended()).await.is_err() {
                tracing::error!(pid = self.pid(), "a killed instance does not go away");
            }
        }
        for reader in self.readers.drain(..) {
            let _ = timeout(OUTPUT_WAIT, reader).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The one error there can be says that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
