//! One folder in which a person works at a terminal: the programs, identity files, and a stack in another window. Each command is
//! the program that is deployed, and is shown with what it answers (`--nocapture`), so that a run can be read as a story.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sesemi_cli::demo::data;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest that anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Ports of the stack; 0 picks free ones.
const PORTS: [&str; 3] = ["0", "0", "0"];

/// The folder, the programs and the stack that runs.
pub struct Site {
    folder: TempDir,
    programs: PathBuf,
    stack: Option<Running>,
}

/// A program that runs until it is told to stop.
pub struct Running {
    process: Child,
    /// What it announced.
    pub announced: serde_json::Value,
}

impl Site {
    /// A folder with a model and rows, and no stack yet.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("breast-cancer.onnx"), data::MODEL).unwrap();
        std::fs::write(folder.path().join("held-out.csv"), data::HELD_OUT).unwrap();
        Self {
            folder,
            programs: sesemi_testkit::binaries(),
            stack: None,
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of the programs that are in use.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Uses other programs from now on.
    pub fn use_programs(&mut self, programs: PathBuf) {
        self.programs = programs;
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("TMPDIR", self.folder.path())
            .env("SESEMI_STACK", "my-stack/stack.toml")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What a command comes to, whichever way it ends.
    pub async fn attempt(&self, line: &str) -> Output {
        let mut command = self.command(&self.programs.join("sesemi"));
        command.args(line.split_whitespace());
        let output = timeout(LIMIT, command.output()).await;
        let output = output.expect(line).unwrap();
        println!("$ sesemi {line}");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        print!("{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// What a command prints that must succeed.
    pub async fn ok(&self, line: &str) -> String {
        let output = self.attempt(line).await;
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The same, for programs.
    pub async fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&format!("{line} --json")).await).unwrap()
    }

    /// What a command says that must fail, on one line.
    pub async fn refused(&self, line: &str) -> String {
        let output = self.attempt(line).await;
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        let said = String::from_utf8(output.stderr).unwrap();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Starts the stack, and waits until all of it runs.
    pub async fn up(&mut self) {
        let stack = self.start_up().await;
        let stack = stack.unwrap_or_else(|status| {
            let log = std::fs::read_to_string(self.path("up.log")).unwrap_or_default();
            panic!("the stack ended ({status}): {log}")
        });
        self.stack = Some(stack);
    }

    /// What `sesemi up` says when it must not come up.
    pub async fn up_refused(&self) -> String {
        std::fs::write(self.path("up.log"), "").unwrap();
        let status = self.start_up().await.err().expect("it must not start");
        assert_eq!(status.code(), Some(1));
        std::fs::read_to_string(self.path("up.log")).unwrap()
    }

    async fn start_up(&self) -> Result<Running, ExitStatus> {
        let mut command = self.command(&self.programs.join("sesemi"));
        command.args(["up", "--json", "--state", "my-stack"]);
        for (flag, port) in ["--keyservice-port", "--admin-port", "--gateway-port"]
            .iter()
            .zip(PORTS)
        {
            command.args([flag, port]);
        }
        println!("-- sesemi up");
        self.start(command, "up.log").await
    }

    /// Starts a program in the simulated TEE, and waits for what it announces.
    pub async fn start_in_tee(&self, words: &[&str], log: &str) -> Result<Running, ExitStatus> {
        let mut command = self.command(&self.programs.join("simtee"));
        command
            .args([
                "run",
                "--die-with-parent",
                "--state",
                "my-stack/platform",
                "--",
            ])
            .args(words);
        println!("$ simtee run ... {}", words.join(" "));
        self.start(command, log).await
    }

    async fn start(&self, mut command: Command, log: &str) -> Result<Running, ExitStatus> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(log))
            .unwrap();
        command.stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let read = timeout(LIMIT, out.read_line(&mut line)).await;
        if read.expect("it says that it runs, or ends").unwrap() == 0 {
            let ended = timeout(LIMIT, process.wait()).await;
            return Err(ended.expect("it ends").unwrap());
        }
        let announced = serde_json::from_str(&line).unwrap();
        Ok(Running { process, announced })
    }

    /// Stops the stack.
    pub async fn down(&mut self) {
        println!("-- Ctrl-C");
        let stack = self.stack.take().expect("a stack runs");
        assert!(stack.stop().await.success());
    }

    /// Waits until the stack ends because a part of it did.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut stack = self.stack.take().expect("a stack runs");
        timeout(LIMIT, stack.process.wait())
            .await
            .expect("it ends")
            .unwrap()
    }

    /// What KeyService tells its operator of its health.
    pub async fn ready(&self) -> String {
        let admin = self.fact("admin");
        let mut connection = TcpStream::connect(admin.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let request =
            b"GET /health/ready HTTP/1.1\r\nhost: keyservice\r\nconnection: close\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut answer = String::new();
        let read = timeout(LIMIT, connection.read_to_string(&mut answer)).await;
        read.expect("it answers").unwrap();
        answer.rsplit("\r\n").next().unwrap().trim().to_owned()
    }

    /// A setting that the stack wrote down for its clients.
    pub fn fact(&self, name: &str) -> String {
        let facts = std::fs::read_to_string(self.path("my-stack/stack.toml")).unwrap();
        let facts: toml::Table = toml::from_str(&facts).unwrap();
        facts[name].as_str().unwrap().to_owned()
    }

    /// The state folder of KeyService.
    pub fn state(&self) -> PathBuf {
        self.path("my-stack/keyservice")
    }

    /// Stops the stack, changes something that it stands on, and starts it again.
    pub async fn meanwhile(&mut self, change: impl FnOnce(&Self)) {
        self.down().await;
        change(self);
        self.up().await;
    }
}

impl Running {
    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> ExitStatus {
        let id = self.process.id().expect("it runs");
        let id = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let ended = timeout(LIMIT, self.process.wait()).await;
        ended.expect("it stops when it is told to").unwrap()
    }

    /// A text of what it announced.
    pub fn text(&self, field: &str) -> &str {
        self.announced[field].as_str().unwrap()
    }
}

/// Copies a folder to a new place.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
